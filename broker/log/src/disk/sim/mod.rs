//! Owns the simulated disk: a volume in memory that forgets at a power cut what was not synced, and fails on request.
//!
//! Every operation that changes something is counted, so that a test can cut the power at each of them in turn. All
//! chance comes from one seed. Never sleeps, never touches a real file.
//!
//! At a power cut each unsynced write is lost, kept, or torn (any subset of its 512-byte sectors), each on its own, so
//! that a later one may survive an earlier one (reordering), and each unsynced change of a name happens or not. A killed
//! process loses nothing but perhaps the end of the write that was under way: the cache outlives it.
//!
//! | Fault | How it is asked for |
//! |---|---|
//! | power cut, kill | [`SimFaults::cut_at`], then [`SimDisk::power_cut`] or [`SimDisk::kill`] |
//! | lost, torn, reordered writes | the power cut decides by the seed |
//! | a failed sync that later succeeds | [`SimFaults::sync_fails_at`] |
//! | EIO on write, on read | [`SimFaults::write_fails_at`], [`SimFaults::unreadable`], [`SimDisk::break_block`] |
//! | ENOSPC, also one that comes and goes | [`SimFaults::capacity_bytes`], [`SimFaults::full_between`] |
//! | an acknowledged write that is lost or lands elsewhere | [`SimFaults::astray_at`] |
//! | bit flips | [`SimDisk::flip`] |
//! | stalls | [`SimFaults::stalled`]: the call returns when the faults are replaced |

mod world;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Volume as DiskVolume;
use super::{DirEntry, Disk, DiskFile, DiskLock, Durability, LockError, OpenMode, Space};
use world::{Change, File, NodeId, World};

/// Where an acknowledged write really went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Astray {
    /// Nowhere.
    Lost,
    /// To another place: other sectors of the same file or of another one, by the seed.
    Elsewhere,
}

/// What goes wrong on a simulated disk. Operations are counted from [`SimDisk::operations`].
#[derive(Debug, Clone, Default)]
pub struct SimFaults {
    /// The power fails during this operation; it and every later one fail.
    pub cut_at: Option<u64>,
    /// The sync, or synced write, with this operation number fails with EIO once; what it should have made durable
    /// stays unsynced, though later syncs succeed.
    pub sync_fails_at: Option<u64>,
    /// The write with this operation number fails with EIO once; nothing of it is written.
    pub write_fails_at: Option<u64>,
    /// The write with this operation number is acknowledged and goes astray. A process that reads through the cache does
    /// not notice before the power fails, one that reads past it does; a direct write is gone at once.
    pub astray_at: Option<(u64, Astray)>,
    /// Files whose path ends so cannot be read (EIO).
    pub unreadable: Vec<PathBuf>,
    /// Writes and syncs of files whose path ends so do not return before the faults are replaced.
    pub stalled: Vec<PathBuf>,
    /// Bytes the volume holds; beyond it writes fail with ENOSPC.
    pub capacity_bytes: Option<u64>,
    /// While operations with these numbers run, no file grows (ENOSPC) and no byte is free.
    pub full_between: Option<Range<u64>>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    volume: Arc<Volume>,
}

struct Volume {
    world: Mutex<World>,
    /// Notified when a stalled call may go on.
    gate: Condvar,
}

impl SimDisk {
    /// An empty volume; `seed` decides what a power cut takes.
    pub fn new(seed: u64) -> Self {
        SimDisk::with(World::new(seed))
    }

    fn with(world: World) -> Self {
        let world = Mutex::new(world);
        let gate = Condvar::new();
        SimDisk {
            volume: Arc::new(Volume { world, gate }),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.volume.world.lock()
    }

    /// A volume of its own with the same content; `seed` decides from here on. Handles stay with the old one.
    pub fn copy(&self, seed: u64) -> SimDisk {
        SimDisk::with(self.world().copy(seed))
    }

    /// A number that depends on every operation so far, its kind, place and length: equal where a run was repeated.
    pub fn fingerprint(&self) -> u64 {
        self.world().fingerprint
    }

    /// Operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Bytes that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.world().read_bytes
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: SimFaults) {
        self.world().faults = faults;
        self.volume.gate.notify_all();
    }

    /// The faults now.
    pub fn faults(&self) -> SimFaults {
        self.world().faults.clone()
    }

    /// Whether the power has failed and nobody has switched it on again.
    pub fn is_cut(&self) -> bool {
        self.world().cut
    }

    /// Cuts the power now, decides what survives, and switches it on again: handles and locks are gone, faults too.
    pub fn power_cut(&self) {
        self.world().power_cut();
        self.volume.gate.notify_all();
    }

    /// Ends the process: handles and locks are gone, all that was written stays; of a write that was under way perhaps
    /// only the beginning.
    pub fn kill(&self) {
        self.world().kill();
        self.volume.gate.notify_all();
    }

    /// Makes one block of a file unreadable (EIO) until it is written again.
    pub fn break_block(&self, path: &Path, position: u64) {
        self.world().break_block(path, position);
    }

    /// Overwrites bytes of a file on the platter and in the cache, as a write that was meant for another place does.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) {
        self.world().overwrite(path, position, bytes);
    }

    /// The bytes of a file as a process would read them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world();
        let id = world.lookup(path)?;
        world.file(id).map(|file| file.bytes.clone())
    }

    /// Flips bits of one byte, on the platter and in the cache. Panics if the file does not reach so far.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) {
        self.world().flip(path, position, mask);
    }

    /// Every file below `path`, sorted.
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        self.world().files(path)
    }

    /// Where a write landed that was led elsewhere: the file that it was meant for, and the one that it hit, if both are there.
    pub fn went_astray(&self) -> Option<(PathBuf, PathBuf)> {
        self.world().went_astray()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({} operations)", self.operations())
    }
}

struct SimFile {
    volume: Arc<Volume>,
    id: NodeId,
    path: PathBuf,
    life: u64,
    writable: bool,
    direct: bool,
    /// Reads ask the platter.
    past_cache: bool,
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
        let mut world = self.disk.world();
        if world.life == self.life {
            world.locks.remove(&self.path);
        }
    }
}

impl DiskVolume for SimDisk {
    fn sync_all(&self) -> io::Result<()> {
        self.world().sync_all()
    }

    /// One operation per file and folder, and nothing else becomes durable: the least that is promised.
    fn sync_many(&self, files: &[Arc<dyn DiskFile>], dirs: &[PathBuf]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync_data())?;
        dirs.iter().try_for_each(|dir| self.sync_dir(dir))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let id = world.open(path, mode)?;
        Ok(Arc::new(SimFile {
            volume: Arc::clone(&self.volume),
            id,
            path: path.to_owned(),
            life: world.life,
            writable: !matches!(mode, OpenMode::Read | OpenMode::ReadDirect),
            direct: mode == OpenMode::Direct,
            past_cache: mode == OpenMode::ReadDirect,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world().create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.world().sync_dir(path)
    }

    fn volume(&self, _path: &Path) -> io::Result<Arc<dyn DiskVolume>> {
        Ok(Arc::new(self.clone()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world().rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.world().remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.world().remove(path, true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.world().list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let world = self.world();
        world.alive()?;
        Ok(world.lookup(path).is_some())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let world = self.world();
        world.alive()?;
        Ok(world.space())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let io = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut world = self.world();
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
        let mut world = self.world();
        for byte in bytes {
            *byte = world.chance(256) as u8;
        }
        Ok(())
    }
}

fn ends_so(path: &Path, ends: &[PathBuf]) -> bool {
    ends.iter().any(|end| path.ends_with(end))
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

    /// Waits while this file is stalled.
    fn ready(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.volume.world.lock();
        while ends_so(&self.path, &world.faults.stalled) && self.check(&world).is_ok() {
            self.volume.gate.wait(&mut world);
        }
        self.check(&world)?;
        Ok(world)
    }

    fn change(&self, change: Change, synced: bool) -> io::Result<()> {
        let mut world = self.ready()?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        world.change(self.id, change, synced)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        let mut world = self.volume.world.lock();
        self.check(&world)?;
        let broken = world.is_broken(self.id, position, bytes.len() as u64);
        if broken || ends_so(&self.path, &world.faults.unreadable) {
            return Err(world::eio());
        }
        let file = world.file(self.id);
        let medium = file.filter(|_| self.past_cache).map(File::medium);
        let cached = file.map_or(&[][..], |file| &file.bytes);
        let content = medium.as_deref().unwrap_or(cached);
        let from = content.len().min(position as usize);
        let count = bytes.len().min(content.len() - from);
        bytes[..count].copy_from_slice(&content[from..from + count]);
        world.read_bytes += count as u64;
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
        let mut world = self.ready()?;
        world.sync(self.id)
    }

    fn len(&self) -> io::Result<u64> {
        let world = self.volume.world.lock();
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
