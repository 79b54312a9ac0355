//! How large the WAL and its files are on a volume.
//!
//! Owns these numbers and how they depend on each other. Does no I/O.

use super::format::MANIFEST_FILES_MAX;
use crate::disk::BLOCK_BYTES;

/// Files are at most this long: long enough that a change of file is rare, short enough to be freed soon.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The WAL is never larger than this, however large the volume.
const WAL_BYTES_MAX: u64 = 2 << 30;
/// Less room than this for the WAL in all is refused.
pub(crate) const WAL_BYTES_MIN: u64 = 64 << 20;
/// The cap always holds at least this many files: one written, one control reserve, two held by the checkpoint.
pub(crate) const FILES_MIN: usize = 4;

/// Sizes of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalSizing {
    /// Length of each file in bytes, a multiple of 4 KiB.
    pub file_bytes: u64,
    /// Most files at any time.
    pub files_max: usize,
}

impl WalSizing {
    /// The sizes on a volume of `total_bytes`; `wal_bytes_max` and `file_bytes` override the design's own.
    pub fn for_volume(
        total_bytes: u64,
        wal_bytes_max: Option<u64>,
        file_bytes: Option<u64>,
    ) -> WalSizing {
        let own = WAL_BYTES_MAX.min(total_bytes / 10);
        let cap = wal_bytes_max.unwrap_or(own).max(WAL_BYTES_MIN);
        let file_bytes = file_bytes
            .unwrap_or(FILE_BYTES_MAX)
            .min(cap / FILES_MIN as u64)
            .max(4 * BLOCK_BYTES as u64)
            / BLOCK_BYTES as u64
            * BLOCK_BYTES as u64;
        WalSizing {
            file_bytes,
            files_max: ((cap / file_bytes) as usize).clamp(FILES_MIN, MANIFEST_FILES_MAX),
        }
    }

    /// How many files of this length there may be on a volume of `total_bytes`: files keep the length that they were made
    /// with, the cap in bytes is the volume's of today.
    pub(crate) fn files_max_on(&self, total_bytes: u64) -> usize {
        let wanted = WalSizing::for_volume(total_bytes, None, None);
        self.files_max_within(wanted.file_bytes * wanted.files_max as u64)
    }

    /// How many files of this length fit a cap.
    pub(crate) fn files_max_within(&self, cap_bytes: u64) -> usize {
        ((cap_bytes / self.file_bytes) as usize).clamp(FILES_MIN, MANIFEST_FILES_MAX)
    }

    /// The most bytes of frames and batches in one submit: half a file, so that the next group can hold the group's
    /// table once more beside a submit of its own.
    pub fn submit_bytes_max(&self) -> usize {
        (self.file_bytes / 2) as usize - 2 * BLOCK_BYTES
    }
}
