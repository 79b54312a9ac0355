//! Reads a WAL without a lock and without writing: `log verify` and `log dump`, also beside a running broker.
//!
//! Owns what must be asked again when files change underneath. Decodes nothing itself: the scanner does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;

use super::found::{Damaged, Found, find};
use super::scan::Scanner;
use super::{Recovered, WalOpenError};

/// A folder that changes while it is listed is listed again so often.
const LIST_ATTEMPTS_MAX: usize = 5;

/// The groups of a WAL from its checkpoint on, in order, and what is damaged. A group that cannot be known at all comes
/// with the reason `tables_lost`, no frames and nothing in `lost`.
///
/// Beside a running broker the walk ends at the last durable group: a group that is just being written has no witness
/// and is a torn tail, which is no error.
pub struct WalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    found: Found,
    scanner: Scanner,
}

impl WalReader {
    /// Opens `<data_dir>/wal`. `None`: no broker has started there yet.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Option<WalReader>, WalOpenError> {
        let dir = data_dir.join("wal");
        while_files_change(|| Self::try_open(&disk, &dir))
    }

    fn try_open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<WalReader>, WalOpenError> {
        let Some(found) = find(disk.as_ref(), dir)? else {
            return Ok(None);
        };
        let mut scanner = Scanner::new(Arc::clone(disk), dir, &found, false);
        scanner.open_all()?;
        Ok(Some(WalReader {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            found,
            scanner,
        }))
    }

    /// The next group, then the torn tail if there is one, then `None`.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Recovered>, WalOpenError> {
        while let Some(group) = self.scanner.next()? {
            if group.damage.is_some() && self.is_gone(group.seq)? {
                continue;
            }
            return Ok(Some(Recovered::Group(group)));
        }
        Ok(self.scanner.take_torn().map(Recovered::Torn))
    }

    /// The lowest group that replay needs.
    pub fn checkpoint_group(&self) -> u64 {
        self.found.slot.checkpoint.group
    }

    /// What of the WAL's own files is not whole. Groups are read all the same, with the other slot and the salt that it
    /// has, and the next start writes slot and first block again.
    pub(crate) fn damaged(&self) -> Damaged {
        self.found.damaged()
    }

    /// Whether a running broker has moved the checkpoint over this group meanwhile and used its file again.
    fn is_gone(&self, seq: u64) -> Result<bool, WalOpenError> {
        let now = while_files_change(|| find(self.disk.as_ref(), &self.dir))?;
        Ok(now.is_none_or(|now| now.slot.checkpoint.group > seq))
    }
}

/// Between the listing of the files, the reading of the manifest and the opening of a file, one can be recycled, or be
/// listed anew: then all is looked at again.
fn while_files_change<T>(
    mut look: impl FnMut() -> Result<T, WalOpenError>,
) -> Result<T, WalOpenError> {
    for _ in 1..LIST_ATTEMPTS_MAX {
        match look() {
            Err(WalOpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(WalOpenError::Refused { .. }) => {}
            other => return other,
        }
    }
    look()
}
