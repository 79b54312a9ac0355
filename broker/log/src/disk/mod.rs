//! The files of a data volume, behind a trait with two implementations: the real disk and a simulated one.
//!
//! Owns every system call on files. Never decides what an error means: callers do. A write returns only once all bytes
//! are written; a write with [`DiskFile::write_sync`] returns only once they are durable.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

mod aligned;
mod real;

pub use aligned::AlignedBuf;
pub use real::RealDisk;

/// The unit of direct I/O, and of what a power cut leaves whole at best, in bytes.
pub const BLOCK_BYTES: usize = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Read an existing file.
    Read,
    /// Read and write an existing file.
    Write,
    /// Read and write; created when absent, its bytes kept when present.
    Create,
    /// Write an existing file past the page cache where the file system can, else through it. Buffers, positions and
    /// lengths are multiples of [`BLOCK_BYTES`].
    Direct,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name within the folder.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// Room on the volume, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// The volume's size.
    pub total: u64,
}

/// Held for as long as it lives; see [`Disk::lock`].
pub trait DirLock: Send + Sync {}

/// A volume.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes one folder; its parent must exist. An existing one is no error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Renames a file or folder, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Unlinks a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Room on the volume that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes the exclusive lock on a file, created when absent; `None` when another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirLock>>>;
}

/// An open file. Positions are in bytes from its start.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads until `buf` is full or the file ends; returns the bytes read.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `bytes`; not yet durable.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Writes all of `bytes`; on return they, and the file's length, are durable.
    fn write_sync(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes everything written, and the length, durable.
    fn sync(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves blocks for `0..len` and extends the file to it, without writing them.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes, or fails with `UnexpectedEof`.
pub fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], position: u64) -> io::Result<()> {
    let wanted = buf.len();
    let got = file.read_at(buf, position)?;
    if got < wanted {
        let text = format!("the file ends {} bytes early", wanted - got);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(())
}
