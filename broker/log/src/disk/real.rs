//! The machine's own disk, by system calls.
//!
//! Owns the flags, and which system calls make many files durable. A synchronous write is one `pwritev2(RWF_DSYNC)` on a file opened with `O_DIRECT`; where the file
//! system refuses that (tmpfs, some overlays) it is a `pwrite` and an `fdatasync`. Never retries a failed sync.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    AlignedBuf, BLOCK_BYTES, DirEntry, Disk, DiskFile, DiskLock, Durability, LockError, OpenMode,
    Space, Volume,
};

/// Files by system calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    direct: AtomicBool,
    /// Reads of any position and length go through an aligned buffer while the file is direct.
    bounces: bool,
}

/// The lock lives as long as the descriptor.
#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "held, never read")] File);

impl DiskLock for RealLock {}

/// Rights of new files: data is nobody else's.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// Magic numbers of the file systems whose `syncfs` is known to make data and names durable and to report what failed.
const SYNCS_WHOLE: [u64; 2] = [0xEF53, 0x5846_5342]; // ext4, XFS
/// The first kernel whose `syncfs` tells that a write failed.
const SYNCFS_TELLS: (u32, u32) = (5, 8);
/// So many files are synced one by one, beside each other.
const SYNCED_ALONE_MAX: usize = 8;
/// Threads that sync files where that is not done with one call.
const SYNC_THREADS_MAX: usize = 16;

/// One write of zeros (1 MiB: large enough to be cheap, small enough to be let in between others).
const ZERO_CHUNK_BYTES: usize = 1 << 20;

fn open_with(path: &Path, flags: OFlags) -> Result<File, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, FILE_MODE).map(File::from)
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut direct = false;
        let file = match mode {
            OpenMode::Read => open_with(path, OFlags::RDONLY)?,
            OpenMode::Write => open_with(path, OFlags::RDWR)?,
            OpenMode::Create => open_with(path, OFlags::RDWR | OFlags::CREATE)?,
            OpenMode::CreateNew => open_with(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?,
            OpenMode::Direct | OpenMode::ReadDirect => {
                let flags = if mode == OpenMode::Direct {
                    OFlags::RDWR
                } else {
                    OFlags::RDONLY
                };
                match open_with(path, flags | OFlags::DIRECT) {
                    Ok(file) => {
                        direct = true;
                        file
                    }
                    Err(Errno::INVAL) => open_with(path, flags)?,
                    Err(other) => return Err(other.into()),
                }
            }
        };
        Ok(Arc::new(RealFile {
            file,
            direct: AtomicBool::new(direct),
            bounces: mode == OpenMode::ReadDirect,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn volume(&self, path: &Path) -> io::Result<Arc<dyn Volume>> {
        let folder = File::open(path)?;
        let kind = rustix::fs::fstatfs(&folder)?.f_type as u64;
        let release = rustix::system::uname();
        let tells = version(&release.release().to_string_lossy()) >= SYNCFS_TELLS;
        let syncs_whole = tells && SYNCS_WHOLE.contains(&kind);
        tracing::debug!(path = %path.display(), syncs_whole, "how many files are synced");
        Ok(Arc::new(RealVolume {
            folder,
            syncs_whole,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
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

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        })
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let failed = |errno: Errno| LockError::Io {
            path: path.to_owned(),
            source: errno.into(),
        };
        let file = open_with(path, OFlags::RDWR | OFlags::CREATE).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held {
                path: path.to_owned(),
            }),
            Err(other) => Err(failed(other)),
        }
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut bytes[filled..], flags) {
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

struct RealVolume {
    /// Open from before the first sync on: an error that nobody was told yet is told through it.
    folder: File,
    syncs_whole: bool,
}

impl Volume for RealVolume {
    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.folder)?)
    }

    /// For many files one `syncfs` takes a third of the core time that an `fdatasync` for each takes.
    fn sync_many(&self, files: &[Arc<dyn DiskFile>], dirs: &[PathBuf]) -> io::Result<()> {
        match files {
            [] => {}
            [file] => file.sync_data()?,
            [one, ..] if self.syncs_whole && files.len() > SYNCED_ALONE_MAX => {
                self.sync_all()?;
                // ext4 without a journal writes inodes after it has flushed the disk's cache: this flushes it once more.
                return one.sync_data();
            }
            _ => sync_beside(files)?,
        }
        dirs.iter().try_for_each(|dir| RealDisk.sync_dir(dir))
    }
}

/// One `fdatasync` for each, many at a time: those that wait side by side share a flush of the disk's cache.
fn sync_beside(files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
    let share = files.len().div_ceil(SYNC_THREADS_MAX);
    let sync = |share: &[Arc<dyn DiskFile>]| share.iter().try_for_each(|file| file.sync_data());
    std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(share)
            .map(|share| scope.spawn(move || sync(share)))
            .collect();
        let panicked = |_| Err(io::Error::other("a sync panicked"));
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect();
        results.into_iter().collect()
    })
}

impl RealFile {
    /// One `pwritev2` with `RWF_DSYNC`, repeated only for the rest of a short write.
    fn write_dsync(&self, mut bytes: &[u8], mut position: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let slices = [IoSlice::new(bytes)];
            match rustix::io::pwritev2(&self.file, &slices, position, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    bytes = &bytes[written..];
                    position += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// The file system opened with `O_DIRECT` but does not write so: goes on through the page cache.
    fn leave_direct(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        self.direct.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl RealFile {
    /// Reads past the page cache: what is on block boundaries, also in memory, as it is, all else through a buffer that is.
    fn read_direct(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        let block = BLOCK_BYTES as u64;
        let is_aligned = bytes.as_ptr().align_offset(BLOCK_BYTES) == 0
            && bytes.len().is_multiple_of(BLOCK_BYTES)
            && position.is_multiple_of(block);
        if is_aligned {
            return self.read_blocks(bytes, position);
        }
        let start = position / block * block;
        let end = (position + bytes.len() as u64).next_multiple_of(block);
        let mut blocks = AlignedBuf::zeroed((end - start) as usize);
        let filled = self.read_blocks(&mut blocks, start)?;
        let skipped = (position - start) as usize;
        let count = filled.saturating_sub(skipped).min(bytes.len());
        bytes[..count].copy_from_slice(&blocks[skipped..skipped + count]);
        Ok(count)
    }

    fn read_blocks(&self, blocks: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < blocks.len() {
            let rest = &mut blocks[filled..];
            match self.file.read_at(rest, position + filled as u64) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    // Only the end of the file is not a whole block, and behind it there is nothing.
                    if !read.is_multiple_of(BLOCK_BYTES) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        if self.bounces && self.is_direct() {
            match self.read_direct(bytes, position) {
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    self.leave_direct()?;
                }
                other => return other,
            }
        }
        let mut filled = 0;
        while filled < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[filled..], position + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64, durability: Durability) -> io::Result<()> {
        if self.is_direct() && durability == Durability::Synced {
            match self.write_dsync(bytes, position) {
                Ok(()) => return Ok(()),
                // Refused as a whole before anything was written, so nothing is retried here.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.leave_direct()?,
                Err(other) => return Err(other.into()),
            }
        }
        self.file.write_all_at(bytes, position)?;
        match durability {
            Durability::Later => Ok(()),
            Durability::Synced => self.file.sync_data(),
        }
    }

    #[allow(unsafe_code)] // `sync_file_range`, which rustix does not have.
    fn start_write_back(&self, position: u64) -> io::Result<()> {
        let (descriptor, flags) = (self.file.as_raw_fd(), libc::SYNC_FILE_RANGE_WRITE);
        // SAFETY: the call takes numbers, touches no memory of ours, and the descriptor is open as long as `self` is.
        let result = unsafe { libc::sync_file_range(descriptor, position as i64, 0, flags) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            // The system or the file system does not know it, or a container forbids it: the sync does it all.
            Some(Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::PERM) => Ok(()),
            // A write that failed here may be told here alone.
            Some(_) | None => Err(error),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn zero_fill(&self, position: u64, length: u64) -> io::Result<()> {
        let zeros = AlignedBuf::zeroed(ZERO_CHUNK_BYTES);
        let end = position + length;
        let mut at = position;
        while at < end {
            let chunk = (end - at).min(ZERO_CHUNK_BYTES as u64) as usize;
            self.file.write_all_at(&zeros[..chunk], at)?;
            at += chunk as u64;
        }
        Ok(())
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_kernels() {
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("5.8"), (5, 8));
        assert_eq!(version("4.19.0+"), (4, 19));
        assert!(version("5.10.0") >= SYNCFS_TELLS && version("5.7.19") < SYNCFS_TELLS);
        assert!(version("unknown") < SYNCFS_TELLS);
    }

    /// A file whose sync fails; whether it was asked for.
    struct Failing(AtomicBool);

    impl DiskFile for Failing {
        fn read_at(&self, _bytes: &mut [u8], _position: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn write_at(&self, _bytes: &[u8], _position: u64, _: Durability) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.store(true, Ordering::Relaxed);
            Err(Errno::IO.into())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn set_len(&self, _length: u64) -> io::Result<()> {
            Ok(())
        }
        fn zero_fill(&self, _position: u64, _length: u64) -> io::Result<()> {
            Ok(())
        }
        fn is_direct(&self) -> bool {
            false
        }
    }

    fn volume(dir: &Path, syncs_whole: bool) -> RealVolume {
        RealVolume {
            folder: File::open(dir).unwrap(),
            syncs_whole,
        }
    }

    fn written(dir: &Path, count: usize) -> Vec<Arc<dyn DiskFile>> {
        let file = |i: usize| {
            let path = dir.join(i.to_string());
            let file = RealDisk.open(&path, OpenMode::Create).unwrap();
            file.write_at(b"bytes", 0, Durability::Later).unwrap();
            file
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn files_are_synced_one_by_one_where_the_volume_is_not_synced_whole_and_a_failure_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 2, SYNCED_ALONE_MAX, 40] {
            let mut files = written(dir.path(), count);
            let dirs = [dir.path().to_owned()];
            let each = volume(dir.path(), false);
            each.sync_many(&files, &dirs).unwrap();
            let failing = Arc::new(Failing(AtomicBool::new(false)));
            files.push(failing.clone());
            assert!(each.sync_many(&files, &dirs).is_err(), "{count} and one");
            assert!(failing.0.load(Ordering::Relaxed));
        }
        let missing = [dir.path().join("missing")];
        let told = volume(dir.path(), false).sync_many(&written(dir.path(), 2), &missing);
        assert_eq!(told.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_volume_that_is_synced_whole_takes_many_files_with_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let whole = volume(dir.path(), true);
        for (count, alone) in [(SYNCED_ALONE_MAX - 1, true), (SYNCED_ALONE_MAX, false)] {
            let mut files = written(dir.path(), count);
            let failing = Arc::new(Failing(AtomicBool::new(false)));
            files.push(failing.clone());
            let synced = whole.sync_many(&files, &[]);
            assert_eq!(synced.is_err(), alone, "{count} and one");
            assert_eq!(failing.0.load(Ordering::Relaxed), alone, "{count} and one");
        }
        // The one that is synced once more behind it.
        let mut files: Vec<Arc<dyn DiskFile>> = vec![Arc::new(Failing(AtomicBool::new(false)))];
        files.extend(written(dir.path(), 20));
        assert!(whole.sync_many(&files, &[]).is_err());
    }

    #[test]
    fn reads_past_the_page_cache_bring_the_same_bytes_at_any_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..3 * BLOCK_BYTES + 777)
            .map(|i| (i * 31 % 251) as u8)
            .collect();
        fs::write(&path, &content).unwrap();
        let file = RealDisk.open(&path, OpenMode::ReadDirect).unwrap();
        for (position, length) in [
            (0, content.len()),
            (1, 1),
            (4095, 2),
            (4096, 4096),
            (5000, 9000),
            (3 * BLOCK_BYTES + 700, 500),
            (content.len() - 1, 10),
            (content.len(), 10),
            (content.len() + 10_000, 10),
        ] {
            let mut bytes = vec![0; length];
            let read = file.read_at(&mut bytes, position as u64).unwrap();
            let end = content.len().min(position + length);
            let wanted = content.get(position..end).unwrap_or_default();
            assert_eq!(&bytes[..read], wanted, "{length} bytes at {position}");
        }
        let mut aligned = AlignedBuf::zeroed(8 * BLOCK_BYTES);
        for block in 0..6 {
            let position = block * BLOCK_BYTES;
            let read = file.read_at(&mut aligned, position as u64).unwrap();
            let wanted = content.get(position..).unwrap_or_default();
            assert_eq!(&aligned[..read], wanted, "blocks from {position}");
        }
    }
}
