//! The real disk, by system calls.
//!
//! Owns the flags. A synchronous write is one `pwritev2(RWF_DSYNC)` on a file opened with `O_DIRECT`; where the file
//! system refuses `O_DIRECT` (tmpfs, some overlays) it is a `pwrite` and an `fdatasync`. Never retries a sync.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode, Space};

/// Files by system calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    direct: bool,
}

/// The lock lives as long as the descriptor.
struct RealLock(#[expect(dead_code, reason = "held, never read")] File);

impl DirLock for RealLock {}

/// Rights of new files: data is nobody else's.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

fn open_with(path: &Path, flags: OFlags) -> Result<File, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, FILE_MODE).map(File::from)
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = match mode {
            OpenMode::Read => open_with(path, OFlags::RDONLY)?,
            OpenMode::Write => open_with(path, OFlags::RDWR)?,
            OpenMode::Create => open_with(path, OFlags::RDWR | OFlags::CREATE)?,
            OpenMode::Direct => match open_with(path, OFlags::RDWR | OFlags::DIRECT) {
                Ok(file) => return Ok(Arc::new(RealFile { file, direct: true })),
                Err(Errno::INVAL) => open_with(path, OFlags::RDWR)?,
                Err(other) => return Err(other.into()),
            },
        };
        Ok(Arc::new(RealFile {
            file,
            direct: false,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free: stat.f_bavail * stat.f_frsize,
            total: stat.f_blocks * stat.f_frsize,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        let file = open_with(path, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }
}

impl RealFile {
    /// One `pwritev2` with `RWF_DSYNC`, repeated only for the rest of a short write.
    fn write_dsync(&self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let slices = [IoSlice::new(bytes)];
            let flags = ReadWriteFlags::DSYNC;
            let written = match rustix::io::pwritev2(&self.file, &slices, position, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(other) => return Err(other.into()),
            };
            bytes = &bytes[written..];
            position += written as u64;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self
                .file
                .read_at(&mut buf[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn write_sync(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if self.direct {
            return self.write_dsync(bytes, position);
        }
        self.file.write_all_at(bytes, position)?;
        self.file.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP) => self.file.set_len(len),
            other => Ok(other?),
        }
    }
}
