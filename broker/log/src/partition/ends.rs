//! The ends of a segment's small files, which the manifest holds in their place.
//!
//! Owns where such a file ends, and what of it is held beyond. Knows no byte of an entry.

use super::format::SegmentEntry;
use crate::files::Kind;

/// Ends of the last segment's small files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tails {
    pub(crate) sum: Vec<u8>,
    pub(crate) idx: Vec<u8>,
}

impl Tails {
    pub(crate) fn is_empty(&self) -> bool {
        self.sum.is_empty() && self.idx.is_empty()
    }

    /// What is held of a kind of file.
    pub(crate) fn of(&self, kind: Kind) -> &[u8] {
        match kind {
            Kind::Log => &[],
            Kind::Sum => &self.sum,
            Kind::Idx => &self.idx,
        }
    }

    /// Bytes of a file of the last segment that the file itself holds.
    pub(crate) fn in_file(&self, last: &SegmentEntry, kind: Kind) -> u64 {
        // A forged manifest may hold more than it counts.
        last.bytes_of(kind)
            .saturating_sub(self.of(kind).len() as u64)
    }
}
