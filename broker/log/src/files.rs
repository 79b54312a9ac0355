//! The files of partition folders: where they lie, opening them within a bound, reading and writing them whole.
//!
//! Owns paths, the bounded set of open files and the cache of verified extents. Knows no byte of their contents.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::cache::Lru;
use crate::disk::{Disk, DiskFile, Durability, OpenMode, Volume};
use crate::ids::PartitionId;
use crate::options::{EXTENT_CACHE_BYTES, OPEN_FILES_MAX};
use crate::partition::extent::{Extent, SegmentView};
use crate::partition::format::SegmentEntry;
use crate::partition::slots::{MANIFEST, Slots};

/// Folder of all partitions, below the data directory.
pub(crate) const PARTITIONS_DIR: &str = "p";
/// Folder for what belongs to nothing, below the data directory.
pub(crate) const QUARANTINE_DIR: &str = "quarantine";
/// Folders that are remembered as synced: more topics than a volume has in practice, and bounded.
const SYNCED_DIRS_MAX: usize = 10_000;
/// A block: reads that fail are narrowed down to one of these.
const BLOCK_BYTES: usize = 4096;

/// The files of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Log,
    Sum,
    Idx,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Log, Kind::Sum, Kind::Idx];

    fn extension(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Sum => "sum",
            Kind::Idx => "idx",
        }
    }
}

/// A segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) partition: PartitionId,
    pub(crate) base_offset: i64,
    /// How often compaction has written the segment anew.
    pub(crate) generation: u32,
    pub(crate) kind: Kind,
}

impl FileKey {
    /// The file's name in the partition's folder: Kafka's twenty digits, and the generation if compaction wrote it.
    pub(crate) fn name(&self) -> String {
        let (base, extension) = (self.base_offset, self.kind.extension());
        match self.generation {
            0 => format!("{base:020}.{extension}"),
            generation => format!("{base:020}-{generation}.{extension}"),
        }
    }

    /// Reads a name back.
    pub(crate) fn parse(partition: PartitionId, name: &str) -> Option<Self> {
        let (segment, extension) = name.split_once('.')?;
        let (base, generation) = segment.split_once('-').unwrap_or((segment, "0"));
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.extension() == extension)?;
        let key = FileKey {
            partition,
            base_offset: base.parse().ok()?,
            generation: generation.parse().ok()?,
            kind,
        };
        (key.name() == name).then_some(key)
    }
}

/// A segment of a partition by its identity, and the position in it.
type ExtentKey = (PartitionId, (i64, u32, u32), u64);

/// Files that are open, and how often one was taken out.
struct Open {
    files: Lru<FileKey, Arc<dyn DiskFile>>,
    removals: u64,
}

/// Access to the files of all partitions of a volume.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    mode: OpenMode,
    volume: OnceLock<Arc<dyn Volume>>,
    open: Mutex<Open>,
    extents: Mutex<Lru<ExtentKey, Arc<Extent>>>,
    /// Folders above partitions whose own names are known to be durable.
    synced_dirs: Mutex<HashSet<PathBuf>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Files {
            disk,
            root: root.to_owned(),
            mode: OpenMode::Write,
            volume: OnceLock::new(),
            open: Mutex::new(Open {
                files: Lru::new(OPEN_FILES_MAX),
                removals: 0,
            }),
            extents: Mutex::new(Lru::new(EXTENT_CACHE_BYTES)),
            synced_dirs: Mutex::new(HashSet::new()),
        }
    }

    /// The same, with so many bytes of extents cached.
    pub(crate) fn caching(self, extent_bytes_max: u64) -> Self {
        Files {
            extents: Mutex::new(Lru::new(extent_bytes_max)),
            ..self
        }
    }

    /// Access that can write nothing.
    pub(crate) fn read_only(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Files {
            mode: OpenMode::Read,
            ..Files::new(disk, root)
        }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn partitions_dir(&self) -> PathBuf {
        self.root.join(PARTITIONS_DIR)
    }

    pub(crate) fn topic_dir(&self, id: PartitionId) -> PathBuf {
        self.partitions_dir().join(id.topic.to_string())
    }

    pub(crate) fn partition_dir(&self, id: PartitionId) -> PathBuf {
        self.topic_dir(id).join(id.index.to_string())
    }

    pub(crate) fn path(&self, key: &FileKey) -> PathBuf {
        self.partition_dir(key.partition).join(key.name())
    }

    /// A path as people are told it: relative to the data directory.
    pub(crate) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// How people are told a segment's file.
    pub(crate) fn told(&self, key: &FileKey) -> String {
        self.relative(&self.path(key))
    }

    /// The file, opened or still open.
    pub(crate) fn open(&self, key: &FileKey) -> io::Result<Arc<dyn DiskFile>> {
        let removals = match self.kept(key) {
            Ok(file) => return Ok(file),
            Err(removals) => removals,
        };
        let file = self.disk.open(&self.path(key), self.mode)?;
        self.keep(key, &file, removals);
        Ok(file)
    }

    /// The file if it is still open, else the removals so far.
    fn kept(&self, key: &FileKey) -> Result<Arc<dyn DiskFile>, u64> {
        let mut open = self.open.lock();
        open.files.get(key).ok_or(open.removals)
    }

    /// Keeps a file open, unless one was removed since there were so many removals. It may be this one, which would hold its
    /// room on the volume, and answer for another that gets its name.
    fn keep(&self, key: &FileKey, file: &Arc<dyn DiskFile>, removals: u64) {
        let mut open = self.open.lock();
        if open.removals == removals {
            open.files.insert(*key, Arc::clone(file), 1);
        }
    }

    /// The file, made if it is not there; whatever a crash left in it is cut.
    pub(crate) fn create(&self, key: &FileKey) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(&self.path(key), OpenMode::Create)?;
        file.set_len(0)?;
        self.open.lock().files.insert(*key, Arc::clone(&file), 1);
        Ok(file)
    }

    /// The file, made if it is not there; what it holds stays.
    pub(crate) fn open_or_make(&self, key: &FileKey) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path(key), OpenMode::Create)
    }

    /// Unlinks all files of segments with these base offsets but those of a generation that is `listed`.
    pub(crate) fn unlink_segments(
        &self,
        partition: PartitionId,
        bases: &[i64],
        listed: &[SegmentEntry],
    ) -> io::Result<()> {
        let dir = self.partition_dir(partition);
        for entry in self.disk.list(&dir)? {
            let Some(key) = FileKey::parse(partition, &entry.name) else {
                continue;
            };
            let is_listed = |s: &SegmentEntry| s.key(partition, key.kind) == key;
            if bases.contains(&key.base_offset) && !listed.iter().any(is_listed) {
                self.unlink(&self.path(&key))?;
                let mut open = self.open.lock();
                open.files.remove(&key);
                open.removals += 1;
            }
        }
        let mut extents = self.extents.lock();
        extents.retain(|(id, (base, ..), _)| *id != partition || !bases.contains(base));
        Ok(())
    }

    /// Unlinks a file; one that is not there is fine.
    pub(crate) fn unlink(&self, path: &Path) -> io::Result<()> {
        match self.disk.unlink(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Forgets what is cached of a partition.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let mut open = self.open.lock();
        open.files.retain(|key| key.partition != partition);
        open.removals += 1;
        drop(open);
        self.extents.lock().retain(|(id, ..)| *id != partition);
    }

    pub(crate) fn cached_extent(&self, of: &SegmentView, position: u64) -> Option<Arc<Extent>> {
        let key = (of.partition, of.entry.identity(), position);
        self.extents.lock().get(&key)
    }

    pub(crate) fn cache_extent(&self, of: &SegmentView, extent: &Arc<Extent>) {
        let key = (of.partition, of.entry.identity(), extent.position);
        let weight = extent.weight_bytes();
        self.extents.lock().insert(key, Arc::clone(extent), weight);
    }

    /// Makes the folder of a partition, and those above it. Returns the folders that gained a name: they must be synced
    /// once the new one holds something.
    pub(crate) fn make_dirs(&self, id: PartitionId) -> io::Result<Vec<PathBuf>> {
        let mut gained = Vec::new();
        let chain = [
            (self.partition_dir(id), self.topic_dir(id)),
            (self.topic_dir(id), self.partitions_dir()),
        ];
        for (dir, parent) in chain
            .into_iter()
            .chain([(self.partitions_dir(), self.root.clone())])
        {
            // A folder that exists may be the leftover of a crash whose name was never synced.
            let fresh = !self.disk.exists(&dir)? || !self.synced_dirs.lock().contains(&dir);
            if fresh {
                gained.push(parent);
            }
        }
        self.disk.create_dir_all(&self.partition_dir(id))?;
        Ok(gained)
    }

    /// Syncs folders that gained a name.
    pub(crate) fn sync_dirs(&self, id: PartitionId, gained: &[PathBuf]) -> io::Result<()> {
        for dir in gained {
            self.disk.sync_dir(dir)?;
        }
        let mut synced = self.synced_dirs.lock();
        if synced.len() >= SYNCED_DIRS_MAX {
            synced.clear();
        }
        synced.insert(self.topic_dir(id));
        synced.insert(self.partitions_dir());
        Ok(())
    }

    /// Removes the folder of a deleted partition. The slot that says so comes first, so that a crash in between leaves
    /// no folder that looks damaged; the manifest goes last.
    pub(crate) fn remove_partition(&self, id: PartitionId, mut slots: Slots) -> io::Result<()> {
        let dir = self.partition_dir(id);
        if !slots.manifest.deleted {
            let mut manifest = slots.manifest.clone();
            manifest.deleted = true;
            slots.write(self, manifest)?;
        }
        for entry in self.disk.list(&dir)? {
            if entry.name != MANIFEST && !entry.is_dir {
                self.unlink(&dir.join(&entry.name))?;
            }
        }
        self.forget(id);
        self.disk.sync_dir(&dir)?;
        self.unlink(&dir.join(MANIFEST))?;
        self.remove_empty(id)
    }

    /// Removes the empty folder of a partition, and its topic's when that was the last.
    pub(crate) fn remove_empty(&self, id: PartitionId) -> io::Result<()> {
        self.disk.remove_dir(&self.partition_dir(id))?;
        self.disk.sync_dir(&self.topic_dir(id))?;
        if self.disk.list(&self.topic_dir(id))?.is_empty() {
            self.synced_dirs.lock().remove(&self.topic_dir(id));
            self.disk.remove_dir(&self.topic_dir(id))?;
            self.disk.sync_dir(&self.partitions_dir())?;
        }
        Ok(())
    }

    /// Makes what was written to files of partitions durable, then the names in folders.
    pub(crate) fn sync_many(
        &self,
        files: &[Arc<dyn DiskFile>],
        dirs: &[PathBuf],
    ) -> io::Result<()> {
        let volume = match self.volume.get() {
            Some(volume) => volume,
            None => {
                let volume = self.disk.volume(&self.root)?;
                self.volume.get_or_init(|| volume)
            }
        };
        volume.sync_many(files, dirs)
    }

    /// Writes a small file in place from its start; makes it if need be. Durable once what is returned is synced.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, OpenMode::Create)?;
        file.write_at(bytes, 0, Durability::Later)?;
        Ok(file)
    }

    /// A small file's bytes, zeros where the disk cannot read; `None` when it is not there.
    pub(crate) fn read_whole(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match self.disk.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = file.len()? as usize;
        Ok(Some(read_salvaging(&*file, 0, length)?.bytes))
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({})", self.root.display())
    }
}

/// Fills `buffer` from `position`, as far as the file goes; returns how much that was.
pub(crate) fn read_up_to(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    position: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let got = file.read_at(&mut buffer[done..], position + done as u64)?;
        if got == 0 {
            break;
        }
        done += got;
    }
    Ok(done)
}

/// What a read that puts up with unreadable blocks brought.
pub(crate) struct Salvaged {
    /// The bytes, zeros where a block could not be read; shorter than asked for at the end of the file.
    pub(crate) bytes: Vec<u8>,
    /// Whether a block could not be read.
    pub(crate) unreadable: bool,
}

/// Reads a range. When the disk refuses, block by block, with zeros for those that cannot be read.
pub(crate) fn read_salvaging(
    file: &dyn DiskFile,
    position: u64,
    length: usize,
) -> io::Result<Salvaged> {
    // What is claimed may be more than there is, and takes memory.
    let there = file.len()?.saturating_sub(position);
    let mut bytes = vec![0; usize::try_from(there).map_or(length, |there| length.min(there))];
    match read_up_to(file, &mut bytes, position) {
        Ok(done) => {
            bytes.truncate(done);
            return Ok(Salvaged {
                bytes,
                unreadable: false,
            });
        }
        Err(e) if !is_medium_error(&e) => return Err(e),
        Err(_) => {}
    }
    let end = bytes.len();
    for start in (0..end).step_by(BLOCK_BYTES) {
        let block = &mut bytes[start..end.min(start + BLOCK_BYTES)];
        match read_up_to(file, block, position + start as u64) {
            Ok(_) => {}
            Err(e) if is_medium_error(&e) => block.fill(0),
            Err(e) => return Err(e),
        }
    }
    Ok(Salvaged {
        bytes,
        unreadable: true,
    })
}

/// Whether an error speaks about the bytes on the medium, not about this process's means to read them.
pub(crate) fn is_medium_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether an error says that the volume has no room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::NOSPC.raw_os_error())
        || code == Some(rustix::io::Errno::DQUOT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use crate::ids::TopicId;

    #[test]
    fn a_file_that_is_removed_while_it_is_opened_is_not_kept_open() {
        let partition = PartitionId {
            topic: TopicId([1; 16]),
            index: 0,
        };
        let files = Files::new(Arc::new(SimDisk::new(1)), Path::new("/data"));
        files.make_dirs(partition).unwrap();
        let segment = SegmentEntry::empty(0);
        let key = segment.key(partition, Kind::Log);
        let opening = || {
            let removals = files.kept(&key).err().expect("not open yet");
            let file = files.disk().open(&files.path(&key), OpenMode::Write);
            (removals, file.unwrap())
        };
        files.open_or_make(&key).unwrap();
        let (removals, file) = opening();
        files.keep(&key, &file, removals);
        assert!(files.kept(&key).is_ok());
        files.forget(partition);
        let (removals, file) = opening();
        files.unlink_segments(partition, &[0], &[]).unwrap();
        files.keep(&key, &file, removals);
        assert!(files.kept(&key).is_err());
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        let partition = PartitionId {
            topic: TopicId([0; 16]),
            index: 3,
        };
        let key = FileKey {
            partition,
            base_offset: 42,
            generation: 0,
            kind: Kind::Idx,
        };
        assert_eq!(key.name(), "00000000000000000042.idx");
        assert_eq!(FileKey::parse(partition, &key.name()), Some(key));
        let compacted = FileKey {
            generation: 7,
            ..key
        };
        assert_eq!(compacted.name(), "00000000000000000042-7.idx");
        let parsed = FileKey::parse(partition, &compacted.name());
        assert_eq!(parsed, Some(compacted));
        for bad in [
            "42.idx",
            "00000000000000000042.tmp",
            "00000000000000000042",
            "00000000000000000042-0.idx",
            "00000000000000000042-07.idx",
            "00000000000000000042-.idx",
            "manifest",
        ] {
            assert_eq!(FileKey::parse(partition, bad), None, "{bad}");
        }
    }
}
