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
/// with what can be said of its size in `unknown`.
///
/// Beside a running broker the walk ends at the last durable group: a group that is just being written has no witness
/// and is a torn tail, which is no error.
pub struct WalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    found: Found,
    scanner: Scanner,
    /// The first group that was not given yet.
    next_seq: u64,
    /// Groups up to this one were whole, or damaged, before the scanner looked.
    settled_seq: u64,
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
        let mut scanner = Scanner::new(Arc::clone(disk), dir, &found, None);
        scanner.open_all()?;
        Ok(Some(WalReader {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            found,
            scanner,
            next_seq: 0,
            settled_seq: 0,
        }))
    }

    /// The next group, then the torn tail if there is one, then `None`.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Recovered>, WalOpenError> {
        while let Some(group) = self.scanner.next()? {
            if group.seq < self.next_seq {
                continue;
            }
            if group.damage.is_some() {
                if group.seq > self.settled_seq {
                    self.look_again(group.seq)?;
                    continue;
                }
                if self.is_gone(group.seq)? {
                    continue;
                }
            }
            self.next_seq = group.seq + 1;
            return Ok(Some(Recovered::Group(group)));
        }
        Ok(self.scanner.take_torn().map(Recovered::Torn))
    }

    /// A group seems damaged: it may have been written after it was looked at, and before the group that testifies for it.
    /// Learns which groups are there by now, and then goes on from this one with a scanner that has read nothing before.
    fn look_again(&mut self, seq: u64) -> Result<(), WalOpenError> {
        let reopen = || while_files_change(|| Self::try_open(&self.disk, &self.dir));
        let mut settled_seq = seq;
        if let Some(mut now) = reopen()? {
            while let Some(group) = now.scanner.next()? {
                // The newest one may be on its way.
                settled_seq = settled_seq.max(group.seq.saturating_sub(1));
            }
        }
        if let Some(fresh) = reopen()? {
            *self = fresh;
        }
        (self.next_seq, self.settled_seq) = (seq, settled_seq);
        Ok(())
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

/// A file can be recycled between its listing and its opening, or made between the listing and the manifest that names it:
/// then all is looked at again.
fn while_files_change<T>(
    mut look: impl FnMut() -> Result<T, WalOpenError>,
) -> Result<T, WalOpenError> {
    for _ in 1..LIST_ATTEMPTS_MAX {
        match look() {
            Err(WalOpenError::Missing { .. }) => {}
            Err(WalOpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    look()
}
