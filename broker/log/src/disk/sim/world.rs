//! Owns the state of a simulated volume: a tree of nodes, each with what processes see and what is on the platter.
//! Never hands out a node: handles name nodes by id.

mod damage;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    platter: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
struct Dir {
    names: BTreeMap<String, NodeId>,
    platter: BTreeMap<String, NodeId>,
}

#[derive(Debug, Clone)]
enum Node {
    File(File),
    Dir(Dir),
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct World {
    nodes: Vec<Node>,
    /// Blocks that cannot be read.
    broken: BTreeSet<(NodeId, u64)>,
    /// The write that landed elsewhere: the file that it was meant for, and the other one.
    went_astray: Option<(NodeId, NodeId)>,
    /// The write during which the process ended, and what the file held before.
    under_way: Option<(NodeId, Change, Vec<u8>)>,
    pub(super) fingerprint: u64,
    random: u64,
    pub(super) operations: u64,
    pub(super) read_bytes: u64,
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
            broken: BTreeSet::new(),
            went_astray: None,
            under_way: None,
            fingerprint: 0,
            random: seed,
            operations: 0,
            read_bytes: 0,
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

    pub(super) fn copy(&self, seed: u64) -> World {
        let mut copy = self.clone();
        copy.random = seed;
        copy.kill();
        copy
    }

    /// Counts an operation. `Ok(true)`: the power fails while it is under way.
    fn step(&mut self, (kind, at, length): (u64, u64, u64)) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        for part in [kind, at, length] {
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x100_0000_01b3);
        }
        if self.faults.cut_at == Some(self.operations) {
            self.cut = true;
        }
        Ok(self.cut)
    }

    fn names(path: &Path) -> impl Iterator<Item = Cow<'_, str>> {
        path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
    }

    pub(super) fn lookup(&self, path: &Path) -> Option<NodeId> {
        Self::names(path).try_fold(ROOT, |id, name| {
            self.dir(id)?.names.get(name.as_ref()).copied()
        })
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
                let cut = self.step((1, 0, 0))?;
                let id = self.add(path, Node::File(File::default()))?;
                if cut { Err(dead()) } else { Ok(id) }
            }
            (None, OpenMode::Read | OpenMode::Write | OpenMode::Direct | OpenMode::ReadDirect) => {
                Err(missing(path))
            }
        }
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let cut = self.step((2, 0, 0))?;
        let mut at = PathBuf::new();
        for name in Self::names(path) {
            at.push(name.as_ref());
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
        if self.step((3, 0, 0))? {
            return Err(dead());
        }
        if self.sync_fails() {
            return Err(eio());
        }
        let dir = self.dir_mut(path)?;
        dir.platter = dir.names.clone();
        Ok(())
    }

    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        if self.step((9, 0, 0))? {
            return Err(dead());
        }
        if self.sync_fails() {
            // Of each file, what could not be written is clean afterwards; others were not reached.
            for id in 0..self.nodes.len() {
                if self.chance(2) == 0
                    && let Node::File(file) = &mut self.nodes[id]
                {
                    file.forget_unsynced();
                }
            }
            return Err(eio());
        }
        for node in &mut self.nodes {
            match node {
                Node::File(file) => file.settle(),
                Node::Dir(dir) => dir.platter = dir.names.clone(),
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let cut = self.step((4, 0, 0))?;
        let id = self.lookup(from).ok_or_else(|| missing(from))?;
        let (to_parent, to_name) = Self::split(to)?;
        self.dir_mut(to_parent)?.names.insert(to_name, id);
        let (from_parent, from_name) = Self::split(from)?;
        self.dir_mut(from_parent)?.names.remove(&from_name);
        if cut { Err(dead()) } else { Ok(()) }
    }

    pub(super) fn remove(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let cut = self.step((5, u64::from(is_dir), 0))?;
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

    /// Bytes of all files below a folder.
    fn used_bytes(&self, id: NodeId) -> u64 {
        match &self.nodes[id] {
            Node::File(file) => file.bytes.len() as u64,
            Node::Dir(dir) => dir.names.values().map(|id| self.used_bytes(*id)).sum(),
        }
    }

    pub(super) fn space(&self) -> Space {
        let used = self.used_bytes(ROOT);
        let total_bytes = self.faults.capacity_bytes.unwrap_or(DEFAULT_CAPACITY_BYTES);
        let free_bytes = match self.is_full() {
            true => 0,
            false => total_bytes.saturating_sub(used),
        };
        Space {
            free_bytes,
            total_bytes,
        }
    }

    pub(super) fn change(&mut self, id: NodeId, change: Change, synced: bool) -> io::Result<()> {
        let cut = self.step(change.told())?;
        let now = self.file_mut(id)?.bytes.len() as u64;
        let then = match &change {
            Change::Write { position, bytes } => now.max(position + bytes.len() as u64),
            Change::SetLen(_) => now,
        };
        if then > now && then - now > self.room() {
            return Err(full());
        }
        if self.faults.write_fails_at == Some(self.operations) {
            return Err(eio());
        }
        if let Some((at, astray)) = self.faults.astray_at
            && at == self.operations
            && let Change::Write { position, bytes } = &change
        {
            self.lead_astray(id, (*position, bytes), (astray, synced))?;
            return if cut { Err(dead()) } else { Ok(()) };
        }
        let fails = synced && self.sync_fails();
        if cut {
            let before = self.file_mut(id)?.bytes.clone();
            self.under_way = Some((id, change.clone(), before));
        }
        self.mend(id, &change);
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
        if self.step((8, id as u64, 0))? {
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
        if let Some((id, change, before)) = self.under_way.take() {
            self.tear(id, change, before);
        }
        self.life += 1;
        self.cut = false;
        self.locks.clear();
        self.faults = SimFaults {
            capacity_bytes: self.faults.capacity_bytes,
            ..SimFaults::default()
        };
    }

    pub(super) fn power_cut(&mut self) {
        self.under_way = None;
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

    /// Whether no byte is free for now.
    fn is_full(&self) -> bool {
        let number = self.operations;
        let range = self.faults.full_between.as_ref();
        range.is_some_and(|range| range.contains(&number))
    }

    /// Free bytes; without a bound the files are not counted.
    fn room(&self) -> u64 {
        if self.faults.capacity_bytes.is_none() && !self.is_full() {
            return DEFAULT_CAPACITY_BYTES;
        }
        self.space().free_bytes
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

impl Change {
    /// Kind, place and length, for the fingerprint.
    fn told(&self) -> (u64, u64, u64) {
        match self {
            Change::Write { position, bytes } => (6, *position, bytes.len() as u64),
            Change::SetLen(length) => (7, *length, 0),
        }
    }
}

impl File {
    fn settle(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.platter, &change);
        }
    }

    /// What a read past the cache sees: the cache is written back first, and what went astray is not there.
    pub(super) fn medium(&self) -> Vec<u8> {
        let mut medium = self.platter.clone();
        for change in &self.unsynced {
            apply(&mut medium, change);
        }
        medium
    }

    /// What was written stays visible until the power fails, and then it is gone.
    fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }
}
