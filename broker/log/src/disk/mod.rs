//! Owns the boundary to the disk: every file operation of this crate goes through [`Disk`] and [`DiskFile`], so that
//! the simulator can cut the power at each of them. Never decides what a failure means; never retries.

mod aligned;
mod real;
mod sim;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use aligned::AlignedBuf;
pub use real::RealDisk;
pub use sim::{Astray, SimDisk, SimFaults};

/// Alignment of memory, position and length of direct writes, and the unit of the WAL's layout.
pub const BLOCK_BYTES: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads only; the file must exist.
    Read,
    /// Reads and writes; the file must exist.
    Write,
    /// Reads and writes; the file is created if it is missing.
    Create,
    /// Reads and writes; the file must not exist.
    CreateNew,
    /// Reads and writes past the page cache where the file system can; the file must exist. Writes must be aligned to
    /// [`BLOCK_BYTES`] in memory, position and length; reads are not meant for such a handle.
    Direct,
    /// Reads only, past the page cache where the file system can: the medium answers, and what others have cached stays.
    /// Positions and lengths are free.
    ReadDirect,
}

/// Whether a write returns only when its bytes are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The bytes may stay in a cache until [`DiskFile::sync_data`].
    Later,
    /// The call returns when they are on stable storage.
    Synced,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The entry's own name.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Room on the volume of a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged process may still use.
    pub free_bytes: u64,
    /// The volume's size.
    pub total_bytes: u64,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another process holds the lock {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file could not be opened or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// An exclusive lock, held until it is dropped.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// The volume that holds a folder, for syncs of many files at once.
pub trait Volume: Send + Sync {
    /// Makes everything that was written to the volume durable, names included (syncfs).
    fn sync_all(&self) -> io::Result<()>;
    /// Makes all written bytes and the lengths of these files of the volume durable, then the names in these folders, and
    /// whatever else. After an error any of them may not be.
    fn sync_many(&self, files: &[Arc<dyn DiskFile>], dirs: &[PathBuf]) -> io::Result<()>;
}

/// A volume. All paths are taken as they are given; every method is one operation of the simulator.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a folder and its missing parents. Durable only after [`Disk::sync_dir`] of each parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable (fsync of the folder).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The volume that holds `path`, which exists.
    fn volume(&self, path: &Path) -> io::Result<Arc<dyn Volume>>;
    /// Renames a file or folder, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether a path exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Room on the volume that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive lock on a file, which is created if it is missing. Never waits.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError>;
    /// Fills `bytes` with random bytes (seeded in the simulator).
    fn random(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at a position; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all bytes at a position.
    fn write_at(&self, bytes: &[u8], position: u64, durability: Durability) -> io::Result<()>;
    /// Begins to bring what was written from `position` on to the medium, and does not wait for it: a later
    /// [`DiskFile::sync_data`] then has less to do. Nothing is durable by it, so the simulator has no operation for it.
    fn start_write_back(&self, _position: u64) -> io::Result<()> {
        Ok(())
    }
    /// Makes all written bytes and the length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Sets the length; a longer file reads as zeros there.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Writes zeros (real ones, so that later overwrites need no allocation). Not durable until `sync_data`.
    fn zero_fill(&self, position: u64, length: u64) -> io::Result<()>;
    /// Whether a synced write is one direct call; otherwise it is a buffered write and an fdatasync.
    fn is_direct(&self) -> bool;
    /// Reads exactly `bytes.len()` bytes, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        if self.read_at(bytes, position)? == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends before {}", position + bytes.len() as u64),
            ))
        }
    }
}
