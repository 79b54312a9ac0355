//! Which bytes of a data directory count, and as what: the truth that damage is held against.
//!
//! Owns the list of stretches that a start, a read or the scrubber must not find changed without a word. What is not in
//! it may change: zeros that were never written, a file's former life, what the checkpoint or the log start has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_protocol::batch::BatchHeader;

use crate::disk::{Disk, SimDisk};
use crate::files::Kind;
use crate::offline::{Directory, Folder};
use crate::partition::format::{Manifest, SegmentEntry, decode_manifest};
use crate::wal::{FrameBody, Recovered, RecoveredGroup};
use crate::{PartitionId, node};

/// What a stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// A slot of `node.meta`, to the end of its text.
    NodeSlot,
    /// A slot of the WAL's manifest.
    WalSlot,
    /// The first block of a WAL file, as far as it is covered.
    WalHead,
    /// A commit group that a replay needs.
    Group,
    /// The last commit group: nobody testifies for it.
    LastGroup,
    /// A slot of a partition's manifest.
    Slot,
    /// Batches of a segment from the log start on.
    Log,
    /// Entries of `.sum`.
    Sum,
    /// Entries of `.idx`.
    Idx,
    /// The producer snapshot that counts.
    Producers,
    /// The list of accepted losses.
    Losses,
}

/// Some bytes of a file, `to` exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) class: Class,
    pub(super) path: PathBuf,
    pub(super) from: u64,
    pub(super) to: u64,
    /// 0 for the newest slot or the only thing of its kind, 1 for the older slot.
    pub(super) age: u32,
}

/// What the WAL says about partitions behind their manifests.
#[derive(Default)]
struct Tail {
    deleted: BTreeSet<PartitionId>,
    truncated: BTreeSet<PartitionId>,
    log_starts: BTreeMap<PartitionId, i64>,
}

impl Tail {
    fn take(&mut self, group: &RecoveredGroup) {
        for frame in &group.frames {
            let id = frame.frame.partition;
            match frame.frame.body {
                FrameBody::DeletePartition => _ = self.deleted.insert(id),
                FrameBody::Truncate { .. } => _ = self.truncated.insert(id),
                FrameBody::LogStart { offset } => {
                    let start = self.log_starts.entry(id).or_default();
                    *start = offset.max(*start);
                }
                FrameBody::Append { .. }
                | FrameBody::EpochStart { .. }
                | FrameBody::Seal
                | FrameBody::Boot { .. } => {}
            }
        }
    }

    /// Whether nobody asks for an offset any more.
    fn has_passed(&self, id: PartitionId, last: i64) -> bool {
        self.deleted.contains(&id)
            || self.truncated.contains(&id)
            || self.log_starts.get(&id).is_some_and(|start| last < *start)
    }
}

struct Look<'a> {
    disk: &'a SimDisk,
    dir: &'a Path,
    spans: Vec<Span>,
}

/// Every stretch of a directory that no process has open.
pub(super) fn spans(disk: &SimDisk, dir: &Path) -> Vec<Span> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = Directory::open_on(shared, dir).unwrap();
    let mut look = Look {
        disk,
        dir,
        spans: Vec::new(),
    };
    look.small_files();
    let tail = look.wal(&directory);
    for folder in directory.folders().unwrap() {
        let Folder::Partition(id) = folder else {
            continue;
        };
        let loaded = directory.manifest(id).unwrap();
        if let Some(slots) = loaded.and_then(|loaded| loaded.slots)
            && !tail.deleted.contains(&id)
            && !slots.manifest.deleted
        {
            look.partition(&directory, &slots.manifest, &tail);
        }
    }
    look.spans
}

impl Look<'_> {
    fn add(&mut self, class: Class, path: &Path, (from, to): (u64, u64), age: u32) {
        if from < to {
            let path = path.to_owned();
            let span = Span {
                class,
                path,
                from,
                to,
                age,
            };
            self.spans.push(span);
        }
    }

    fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.contents(path).unwrap_or_default()
    }

    /// Two slots of a file, the one with the higher number first; of a partition's, bytes of a longer one that stood there
    /// before may follow.
    fn slots(&mut self, class: Class, path: &Path, number: impl Fn(&[u8]) -> u64) {
        let bytes = self.bytes(path);
        let mut slots: Vec<(u64, u64, u64)> = Vec::new();
        for (at, slot) in bytes.chunks(bytes.len().max(2) / 2).enumerate() {
            let from = at as u64 * bytes.len() as u64 / 2;
            let used = if class == Class::Slot {
                u32::from_le_bytes(slot[12..16].try_into().unwrap()) as usize
            } else {
                let last = slot.iter().rposition(|byte| *byte != 0);
                last.map_or(0, |last| last + 1)
            };
            slots.push((number(slot), from, from + used as u64));
        }
        slots.sort_unstable_by_key(|(number, ..)| std::cmp::Reverse(*number));
        for (age, (_, from, to)) in slots.into_iter().enumerate() {
            self.add(class, path, (from, to), age as u32);
        }
    }

    fn small_files(&mut self) {
        let word = |slot: &[u8]| u64::from_le_bytes(slot[16..24].try_into().unwrap());
        self.slots(Class::NodeSlot, &self.dir.join(node::NODE_META), word);
        self.slots(Class::WalSlot, &self.dir.join("wal/manifest"), word);
        let losses = self.dir.join(crate::losses::LOSSES);
        let length = self.bytes(&losses).len() as u64;
        self.add(Class::Losses, &losses, (0, length), 0);
        for path in self.disk.files(&self.dir.join("wal")) {
            if path.extension().is_some_and(|extension| extension == "wal") {
                self.add(Class::WalHead, &path, (0, 44), 0);
            }
        }
    }

    fn wal(&mut self, directory: &Directory) -> Tail {
        let mut steps = directory.wal().unwrap();
        let (mut groups, mut tail) = (Vec::new(), Tail::default());
        while let Some(step) = steps.next().unwrap() {
            if let Recovered::Group(group) = step {
                tail.take(&group);
                groups.push(group);
            }
        }
        for (number, group) in groups.iter().enumerate() {
            let class = match number + 1 == groups.len() {
                true => Class::LastGroup,
                false => Class::Group,
            };
            let path = self.dir.join(&group.file);
            let mut next = group.position;
            for frame in &group.frames {
                if let FrameBody::Append {
                    last_offset, batch, ..
                } = &frame.frame.body
                    && tail.has_passed(frame.frame.partition, *last_offset)
                {
                    self.add(class, &path, (next, frame.file_position), 0);
                    next = frame.file_position + batch.size() as u64;
                }
            }
            self.add(class, &path, (next, group.position + group.length), 0);
        }
        tail
    }

    fn partition(&mut self, directory: &Directory, manifest: &Manifest, tail: &Tail) {
        let id = manifest.partition;
        let folder = directory.files.partition_dir(id);
        self.slots(Class::Slot, &folder.join("manifest"), |slot| {
            decode_manifest(slot).map_or(0, |manifest| manifest.seq)
        });
        // A truncation that is still to be carried out cuts them, and makes the producers anew.
        if tail.truncated.contains(&id) {
            return;
        }
        if let Some(snapshot) = manifest.snapshot {
            let path = folder.join(format!("producers.{}", snapshot.file));
            // A longer one that stood there before reaches further.
            let bytes = self.bytes(&path);
            let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
            self.add(Class::Producers, &path, (0, u64::from(length)), 0);
        }
        let moved = tail.log_starts.get(&id).copied().unwrap_or(0);
        let log_start = manifest.log_start.max(moved);
        let ends = manifest.segments.iter().skip(1).map(|s| s.base_offset);
        let ends: Vec<i64> = ends.chain([manifest.next_offset]).collect();
        for (segment, end) in manifest.segments.iter().zip(ends) {
            // The newest entries stand in the manifest; in their files they may be missing after a power cut.
            let is_last = end == manifest.next_offset;
            let (sum, idx) = match is_last {
                true => (manifest.tails.sum.len(), manifest.tails.idx.len()),
                false => (0, 0),
            };
            let segment = SegmentEntry {
                sum_bytes: segment.sum_bytes - sum as u64,
                idx_bytes: segment.idx_bytes - idx as u64,
                ..*segment
            };
            if end > log_start {
                self.segment(directory, (id, &segment), log_start);
            }
        }
    }

    fn segment(
        &mut self,
        directory: &Directory,
        (id, segment): (PartitionId, &SegmentEntry),
        log_start: i64,
    ) {
        for (class, kind, counts) in [
            (Class::Log, Kind::Log, segment.log_bytes),
            (Class::Sum, Kind::Sum, segment.sum_bytes),
            (Class::Idx, Kind::Idx, segment.idx_bytes),
        ] {
            let path = directory.files.path(&segment.key(id, kind));
            let bytes = self.bytes(&path);
            let counts = counts.min(bytes.len() as u64);
            let mut from = 0;
            if class == Class::Log {
                while let Ok(header) = BatchHeader::parse(&bytes[from as usize..])
                    && header.last_offset() < log_start
                {
                    from += header.size() as u64;
                }
            }
            self.add(class, &path, (from, counts), 0);
        }
    }
}

/// The classes of the bytes from `from` up to `to` of a file.
pub(super) fn classes(spans: &[Span], path: &Path, from: u64, to: u64) -> BTreeSet<Class> {
    let hit = |span: &&Span| span.path == path && span.from < to && from < span.to;
    spans.iter().filter(hit).map(|span| span.class).collect()
}
