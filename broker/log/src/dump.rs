//! `log dump`: every frame and batch of a data directory as readable lines. Never writes to it.

use std::io::Write;
use std::path::Path;

use crate::ids::PartitionId;
use crate::verify::VerifyError;

/// What to print.
#[derive(Debug, Clone, Copy, Default)]
pub struct DumpFilter {
    /// Only this partition.
    pub partition: Option<PartitionId>,
    /// Only batches that reach this offset.
    pub from: Option<i64>,
}

/// Prints; returns the number of lines.
pub fn dump(data_dir: &Path, filter: DumpFilter, out: &mut dyn Write) -> Result<u64, VerifyError> {
    let _ = (data_dir, filter, out);
    unimplemented!()
}
