//! Owns the state of a simulated volume: a tree of nodes, each with what processes see and what is on the platter.
//! Never hands out a node: handles name nodes by id.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::super::{DirEntry, OpenMode, Space};
use super::SimFaults;

pub(super) type NodeId = usize;

const ROOT: NodeId = 0;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// Size of a volume without a stated capacity.
const DEFAULT_CAPACITY_BYTES: u64 = 1 << 40;

/// A change of a file's bytes.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { position: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// A file: what processes see, what the platter has, and what lies between.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    platter: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<String, NodeId>,
    platter: BTreeMap<String, NodeId>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

/// A volume.
#[derive(Debug)]
pub(super) struct World {
    nodes: Vec<Node>,
    random: u64,
    pub(super) operations: u64,
    pub(super) faults: SimFaults,
    pub(super) cut: bool,
    /// Number of processes that used the disk so far; a handle belongs to one.
    pub(super) life: u64,
    pub(super) locks: HashSet<PathBuf>,
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the simulated power is off")
}

pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error())
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no {}", path.display()))
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write {
            position,
            bytes: new,
        } => {
            let from = *position as usize;
            if bytes.len() < from + new.len() {
                bytes.resize(from + new.len(), 0);
            }
            bytes[from..from + new.len()].copy_from_slice(new);
        }
        Change::SetLen(length) => bytes.resize(*length as usize, 0),
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        World {
            nodes: vec![Node::Dir(Dir::default())],
            random: seed,
            operations: 0,
            faults: SimFaults::default(),
            cut: false,
            life: 0,
            locks: HashSet::new(),
        }
    }

    /// A number below `bound` (SplitMix64, Steele et al. 2014).
    pub(super) fn chance(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.cut { Err(dead()) } else { Ok(()) }
    }

    /// Counts an operation. `Ok(true)`: the power fails while it is under way.
    fn step(&mut self) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        if self.faults.cut_at == Some(self.operations) {
            self.cut = true;
        }
        Ok(self.cut)
    }

    fn names(path: &Path) -> Vec<String> {
        path.components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
                Component::Prefix(_)
                | Component::RootDir
                | Component::CurDir
                | Component::ParentDir => None,
            })
            .collect()
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<NodeId> {
        Self::names(path)
            .iter()
            .try_fold(ROOT, |id, name| self.dir(id)?.names.get(name).copied())
    }

    fn dir(&self, id: NodeId) -> Option<&Dir> {
        match &self.nodes[id] {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut Dir> {
        let id = self.lookup(path).ok_or_else(|| missing(path))?;
        match &mut self.nodes[id] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&self, id: NodeId) -> Option<&File> {
        match &self.nodes[id] {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut File> {
        match &mut self.nodes[id] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn split(path: &Path) -> io::Result<(&Path, String)> {
        let name = path
            .file_name()
            .ok_or_else(|| missing(path))?
            .to_string_lossy()
            .into_owned();
        Ok((path.parent().unwrap_or(Path::new("")), name))
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (parent, name) = Self::split(path)?;
        let id = self.nodes.len();
        self.dir_mut(parent)?.names.insert(name, id);
        self.nodes.push(node);
        Ok(id)
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<NodeId> {
        self.alive()?;
        match (self.lookup(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) if self.file(id).is_none() => Err(io::ErrorKind::IsADirectory.into()),
            (Some(id), _) => Ok(id),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let cut = self.step()?;
                let id = self.add(path, Node::File(File::default()))?;
                if cut { Err(dead()) } else { Ok(id) }
            }
            (None, OpenMode::Read | OpenMode::Write | OpenMode::Direct) => Err(missing(path)),
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let cut = self.step()?;
        let mut at = PathBuf::new();
        for name in Self::names(path) {
            at.push(name);
            match self.lookup(&at) {
                Some(id) if self.dir(id).is_none() => {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                Some(_) => {}
                None => {
                    self.add(&at, Node::Dir(Dir::default()))?;
                }
            }
        }
        if cut { Err(dead()) } else { Ok(()) }
    }

    /// Whether the sync with the current number fails.
    fn sync_fails(&self) -> bool {
        self.faults.sync_fails_at == Some(self.operations)
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.step()? {
            return Err(dead());
        }
        if self.sync_fails() {
            return Err(eio());
        }
        let dir = self.dir_mut(path)?;
        dir.platter = dir.names.clone();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let cut = self.step()?;
        let id = self.lookup(from).ok_or_else(|| missing(from))?;
        let (to_parent, to_name) = Self::split(to)?;
        self.dir_mut(to_parent)?.names.insert(to_name, id);
        let (from_parent, from_name) = Self::split(from)?;
        self.dir_mut(from_parent)?.names.remove(&from_name);
        if cut { Err(dead()) } else { Ok(()) }
    }

    pub(super) fn remove(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let cut = self.step()?;
        let id = self.lookup(path).ok_or_else(|| missing(path))?;
        match (&self.nodes[id], is_dir) {
            (Node::Dir(dir), true) if !dir.names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            (Node::Dir(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::File(_), true) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::Dir(_), true) | (Node::File(_), false) => {}
        }
        let (parent, name) = Self::split(path)?;
        self.dir_mut(parent)?.names.remove(&name);
        if cut { Err(dead()) } else { Ok(()) }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.alive()?;
        let id = self.lookup(path).ok_or_else(|| missing(path))?;
        let dir = self.dir(id).ok_or(io::ErrorKind::NotADirectory)?;
        let entry = |(name, id): (&String, &NodeId)| DirEntry {
            name: name.clone(),
            is_dir: self.dir(*id).is_some(),
        };
        Ok(dir.names.iter().map(entry).collect())
    }

    pub(super) fn space(&self) -> Space {
        let used: u64 = self
            .files(Path::new(""))
            .iter()
            .filter_map(|path| self.file(self.lookup(path)?))
            .map(|file| file.bytes.len() as u64)
            .sum();
        let total_bytes = self.faults.capacity_bytes.unwrap_or(DEFAULT_CAPACITY_BYTES);
        Space {
            free_bytes: total_bytes.saturating_sub(used),
            total_bytes,
        }
    }

    pub(super) fn change(&mut self, id: NodeId, change: Change, synced: bool) -> io::Result<()> {
        let cut = self.step()?;
        let now = self.file_mut(id)?.bytes.len() as u64;
        let then = match &change {
            Change::Write { position, bytes } => now.max(position + bytes.len() as u64),
            Change::SetLen(_) => now,
        };
        if then - now > self.space().free_bytes {
            return Err(full());
        }
        let fails = synced && self.sync_fails();
        let file = self.file_mut(id)?;
        apply(&mut file.bytes, &change);
        file.unsynced.push(change);
        match (cut, fails) {
            (true, _) => Err(dead()),
            (false, true) => Err(eio()),
            (false, false) if synced => {
                file.settle();
                Ok(())
            }
            (false, false) => Ok(()),
        }
    }

    pub(super) fn sync(&mut self, id: NodeId) -> io::Result<()> {
        if self.step()? {
            return Err(dead());
        }
        if self.sync_fails() {
            // As Linux does: the pages are clean afterwards, so a later sync has nothing left to write.
            self.file_mut(id)?.forget_unsynced();
            return Err(eio());
        }
        self.file_mut(id)?.settle();
        Ok(())
    }

    pub(super) fn kill(&mut self) {
        self.life += 1;
        self.cut = false;
        self.locks.clear();
        self.faults = SimFaults {
            capacity_bytes: self.faults.capacity_bytes,
            ..SimFaults::default()
        };
    }

    pub(super) fn power_cut(&mut self) {
        for id in 0..self.nodes.len() {
            match std::mem::replace(&mut self.nodes[id], Node::Dir(Dir::default())) {
                Node::File(file) => self.nodes[id] = Node::File(self.survivor(file)),
                Node::Dir(dir) => self.nodes[id] = Node::Dir(self.surviving_names(dir)),
            }
        }
        self.kill();
    }

    /// Each unsynced write is lost, kept or torn, on its own: a disk may reorder them.
    fn survivor(&mut self, file: File) -> File {
        let mut platter = file.platter;
        for change in file.unsynced {
            match (self.chance(3), change) {
                (0, _) => {}
                (1, change) => apply(&mut platter, &change),
                (_, Change::Write { position, bytes }) => {
                    for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if self.chance(2) == 0 {
                            let position = position + (i * SECTOR_BYTES) as u64;
                            apply(
                                &mut platter,
                                &Change::Write {
                                    position,
                                    bytes: sector.to_vec(),
                                },
                            );
                        }
                    }
                }
                (_, change @ Change::SetLen(_)) => apply(&mut platter, &change),
            }
        }
        File {
            bytes: platter.clone(),
            platter,
            unsynced: Vec::new(),
        }
    }

    /// Each name that differs is as before or as after.
    fn surviving_names(&mut self, dir: Dir) -> Dir {
        let mut platter = dir.platter.clone();
        let touched: Vec<&String> = dir.platter.keys().chain(dir.names.keys()).collect();
        for name in touched {
            if dir.platter.get(name) == dir.names.get(name) || self.chance(2) == 0 {
                continue;
            }
            match dir.names.get(name) {
                Some(id) => platter.insert(name.clone(), *id),
                None => platter.remove(name),
            };
        }
        Dir {
            names: platter.clone(),
            platter,
        }
    }

    pub(super) fn flip(&mut self, path: &Path, position: u64, mask: u8) {
        let id = self
            .lookup(path)
            .unwrap_or_else(|| panic!("no {} to flip a bit in", path.display()));
        let Ok(file) = self.file_mut(id) else {
            panic!("{} is a folder", path.display());
        };
        file.settle();
        file.bytes[position as usize] ^= mask;
        file.platter[position as usize] ^= mask;
    }

    pub(super) fn files(&self, path: &Path) -> Vec<PathBuf> {
        let Some(id) = self.lookup(path) else {
            return Vec::new();
        };
        let Some(dir) = self.dir(id) else {
            return vec![path.to_owned()];
        };
        dir.names
            .keys()
            .flat_map(|name| self.files(&path.join(name)))
            .collect()
    }
}

impl File {
    fn settle(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.platter, &change);
        }
    }

    /// What was written stays visible until the power fails, and then it is gone.
    fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }
}
