//! Owns the simulated disk: a volume in memory that forgets at a power cut what was not synced, and fails on request.
//!
//! Every operation that changes something is counted, so that a test can cut the power at each of them in turn. All
//! chance comes from one seed. Never sleeps, never touches a real file.
//!
//! At a power cut each unsynced write is lost, kept, or torn (any subset of its 512-byte sectors), and each unsynced
//! change of a name happens or not. A killed process loses nothing: the cache outlives it.

mod world;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, Disk, DiskFile, DiskLock, Durability, LockError, OpenMode, Space};
use world::{Change, NodeId, World};

/// What goes wrong on a simulated disk. Operations are counted from [`SimDisk::operations`].
#[derive(Debug, Clone, Default)]
pub struct SimFaults {
    /// The power fails during this operation; it and every later one fail.
    pub cut_at: Option<u64>,
    /// The sync, or synced write, with this operation number fails with EIO once; what it should have made durable
    /// stays unsynced, though later syncs succeed.
    pub sync_fails_at: Option<u64>,
    /// Files whose path ends so cannot be read (EIO).
    pub unreadable: Vec<PathBuf>,
    /// Bytes the volume holds; beyond it writes fail with ENOSPC.
    pub capacity_bytes: Option<u64>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

impl SimDisk {
    /// An empty volume; `seed` decides what a power cut takes.
    pub fn new(seed: u64) -> Self {
        SimDisk {
            world: Arc::new(Mutex::new(World::new(seed))),
        }
    }

    /// Operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.world.lock().operations
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: SimFaults) {
        self.world.lock().faults = faults;
    }

    /// Whether the power has failed and nobody has switched it on again.
    pub fn is_cut(&self) -> bool {
        self.world.lock().cut
    }

    /// Cuts the power now, decides what survives, and switches it on again: handles and locks are gone, faults too.
    pub fn power_cut(&self) {
        self.world.lock().power_cut();
    }

    /// Ends the process: handles and locks are gone, all that was written stays.
    pub fn kill(&self) {
        self.world.lock().kill();
    }

    /// The bytes of a file as a process would read them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world.lock();
        let id = world.lookup(path)?;
        world.file(id).map(|file| file.bytes.clone())
    }

    /// Flips bits of one byte, on the platter and in the cache. Panics if the file does not reach so far.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) {
        self.world.lock().flip(path, position, mask);
    }

    /// Every file below `path`, sorted.
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        self.world.lock().files(path)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} operations)", self.operations())
    }
}

struct SimFile {
    world: Arc<Mutex<World>>,
    id: NodeId,
    path: PathBuf,
    life: u64,
    writable: bool,
    direct: bool,
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.world.lock();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world.lock();
        let id = world.open(path, mode)?;
        Ok(Arc::new(SimFile {
            world: Arc::clone(&self.world),
            id,
            path: path.to_owned(),
            life: world.life,
            writable: mode != OpenMode::Read,
            direct: mode == OpenMode::Direct,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world.lock().create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.world.lock().sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world.lock().rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.world.lock().remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.world.lock().remove(path, true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.world.lock().list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let world = self.world.lock();
        world.alive()?;
        Ok(world.lookup(path).is_some())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let world = self.world.lock();
        world.alive()?;
        Ok(world.space())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let io = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut world = self.world.lock();
        if world.lookup(path).is_none() {
            world.open(path, OpenMode::Create).map_err(io)?;
        }
        if !world.locks.insert(path.to_owned()) {
            return Err(LockError::Held {
                path: path.to_owned(),
            });
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
            life: world.life,
        }))
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut world = self.world.lock();
        for byte in bytes {
            *byte = world.chance(256) as u8;
        }
        Ok(())
    }
}

impl SimFile {
    /// A handle of an earlier life of the process is dead.
    fn check(&self, world: &World) -> io::Result<()> {
        world.alive()?;
        if world.life == self.life {
            Ok(())
        } else {
            Err(world::dead())
        }
    }

    fn change(&self, change: Change, synced: bool) -> io::Result<()> {
        let mut world = self.world.lock();
        self.check(&world)?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        world.change(self.id, change, synced)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        let world = self.world.lock();
        self.check(&world)?;
        if world
            .faults
            .unreadable
            .iter()
            .any(|end| self.path.ends_with(end))
        {
            return Err(world::eio());
        }
        let content = world.file(self.id).map_or(&[][..], |file| &file.bytes);
        let from = content.len().min(position as usize);
        let count = bytes.len().min(content.len() - from);
        bytes[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], position: u64, durability: Durability) -> io::Result<()> {
        if self.direct {
            let aligned = |n: usize| n.is_multiple_of(super::BLOCK_BYTES);
            assert!(
                aligned(bytes.len()) && aligned(position as usize),
                "a direct write is not aligned"
            );
        }
        let change = Change::Write {
            position,
            bytes: bytes.to_vec(),
        };
        self.change(change, durability == Durability::Synced)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.world.lock();
        self.check(&world)?;
        world.sync(self.id)
    }

    fn len(&self) -> io::Result<u64> {
        let world = self.world.lock();
        self.check(&world)?;
        Ok(world
            .file(self.id)
            .map_or(0, |file| file.bytes.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::SetLen(length), false)
    }

    fn zero_fill(&self, position: u64, length: u64) -> io::Result<()> {
        let bytes = vec![0; length as usize];
        self.change(Change::Write { position, bytes }, false)
    }

    fn is_direct(&self) -> bool {
        self.direct
    }
}

#[cfg(test)]
mod tests;
