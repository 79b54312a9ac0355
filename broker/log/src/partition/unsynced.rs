//! What steps of a flush wrote, so that it is synced together.
//!
//! Owns which files and folders those are. Never decides when they are synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::files::Files;

/// What was written and is not synced.
#[derive(Default)]
pub(super) struct Unsynced {
    files: Vec<Arc<dyn DiskFile>>,
    /// Folders that gained names.
    dirs: Vec<PathBuf>,
}

impl Unsynced {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.dirs.is_empty()
    }

    /// A file has bytes more.
    pub(super) fn written(&mut self, file: Arc<dyn DiskFile>) {
        self.files.push(file);
    }

    /// A folder has a name more.
    pub(super) fn gains_names(&mut self, dir: PathBuf) {
        if self.dirs.last() != Some(&dir) {
            self.dirs.push(dir);
        }
    }

    /// Takes over what another one has.
    pub(super) fn take(&mut self, other: &mut Unsynced) {
        self.files.append(&mut other.files);
        self.dirs.append(&mut other.dirs);
    }

    /// Makes it durable: the files, then the folders.
    pub(super) fn sync(self, files: &Files) -> io::Result<()> {
        files.sync_many(&self.files, &self.dirs)
    }
}
