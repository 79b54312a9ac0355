//! `log verify`: reads a data directory, offline or beside a running broker, and says what does not decode. Never writes.

use std::io::Write;
use std::path::Path;

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Ranges or files that do not decode.
    pub problems: u64,
    /// Torn tails, which are no error.
    pub torn_tails: u64,
    /// Batches that decode.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a pass could not look (exit code 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(pub(crate) String);

/// Reads everything under `data_dir` and writes one line per problem.
pub fn verify(data_dir: &Path, out: &mut dyn Write) -> Result<Report, VerifyError> {
    let _ = (data_dir, out);
    unimplemented!()
}
