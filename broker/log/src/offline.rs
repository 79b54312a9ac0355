//! Looking at a data directory without owning it: offline, or beside a running broker. Never writes, takes no lock.
//!
//! Owns the view that `log verify` and `log dump` share: the folders of partitions, and the WAL behind their manifests.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::batch::BatchHeader;

use crate::disk::{Disk, RealDisk};
use crate::files::Files;
use crate::health::BadSlots;
use crate::ids::{PartitionId, TopicId};
use crate::losses::{self, LOSSES, Losses};
use crate::metrics::Reason;
use crate::node::{EXIT_STOPPED, Node};
use crate::partition::damage::gaps;
use crate::partition::extent::{SegmentReader, SegmentView};
use crate::partition::format::Manifest;
use crate::partition::slots::{Loaded, Slots};
use crate::verify::VerifyError;
use crate::wal::{Damaged, FrameBody, Recovered, WalReader};

/// How often a folder that changes under the reader is read again.
const TRIES_MAX: usize = 5;

/// A data directory that is looked at.
pub(crate) struct Directory {
    pub(crate) files: Files,
    /// What was given up; nothing if the list does not verify.
    pub(crate) losses: Losses,
    /// Why the list does not verify.
    pub(crate) losses_damage: Option<Reason>,
    /// Where a slot of `node.meta` is not whole.
    pub(crate) node_damage: BadSlots,
    /// The last run ended by a clean stop, and none has begun since: every slot was whole.
    pub(crate) is_stopped: bool,
}

/// The WAL's groups in order; none where no broker has started yet.
pub(crate) struct Steps(Option<WalReader>);

impl Steps {
    pub(crate) fn next(&mut self) -> Result<Option<Recovered>, VerifyError> {
        match &mut self.0 {
            Some(reader) => reader.next().map_err(|e| VerifyError(e.to_string())),
            None => Ok(None),
        }
    }

    /// What of the WAL's own files is not whole.
    pub(crate) fn damaged(&self) -> Damaged {
        self.0.as_ref().map(WalReader::damaged).unwrap_or_default()
    }
}

/// A folder below `p/`.
pub(crate) enum Folder {
    Partition(PartitionId),
    /// A name that no partition has.
    Unknown(String),
}

impl Directory {
    pub(crate) fn open(data_dir: &Path) -> Result<Self, VerifyError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Self::open_on(disk, data_dir)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, VerifyError> {
        let (slot, node_damage) =
            Node::look(&*disk, data_dir).map_err(|e| VerifyError(e.to_string()))?;
        let read = losses::read(&*disk, data_dir);
        let read = read.map_err(|e| VerifyError(format!("cannot read {LOSSES}: {e}")))?;
        let (losses, losses_damage) = match read {
            losses::Read::Losses(losses) => (losses, None),
            losses::Read::Damaged(reason) => (Losses::default(), Some(reason)),
        };
        Ok(Directory {
            files: Files::read_only(disk, data_dir),
            losses,
            losses_damage,
            node_damage,
            is_stopped: slot.exit == EXIT_STOPPED,
        })
    }

    /// The steps of a replay, from the checkpoint on.
    pub(crate) fn wal(&self) -> Result<Steps, VerifyError> {
        let disk = Arc::clone(self.files.disk());
        let reader = WalReader::open(disk, self.files.root());
        Ok(Steps(reader.map_err(|e| VerifyError(e.to_string()))?))
    }

    /// What is below `p/`.
    pub(crate) fn folders(&self) -> Result<Vec<Folder>, VerifyError> {
        let list = || -> io::Result<Vec<Folder>> {
            let root = self.files.partitions_dir();
            let mut found = Vec::new();
            if !self.files.disk().exists(&root)? {
                return Ok(found);
            }
            for topic in self.files.disk().list(&root)? {
                let Some(id) = topic.name.parse::<TopicId>().ok().filter(|_| topic.is_dir) else {
                    found.push(Folder::Unknown(
                        self.files.relative(&root.join(&topic.name)),
                    ));
                    continue;
                };
                let path = root.join(&topic.name);
                for entry in or_gone(self.files.disk().list(&path))?.unwrap_or_default() {
                    let index = entry
                        .name
                        .parse::<i32>()
                        .ok()
                        .filter(|i| *i >= 0 && i.to_string() == entry.name);
                    found.push(match index {
                        Some(index) if entry.is_dir => {
                            Folder::Partition(PartitionId { topic: id, index })
                        }
                        Some(_) | None => {
                            Folder::Unknown(self.files.relative(&path.join(&entry.name)))
                        }
                    });
                }
            }
            Ok(found)
        };
        list().map_err(|e| VerifyError(format!("cannot list the partitions: {e}")))
    }

    /// The manifest of a partition; `None` when its folder went away meanwhile or was never finished.
    pub(crate) fn manifest(&self, id: PartitionId) -> Result<Option<Loaded>, VerifyError> {
        let failed = |e: io::Error| VerifyError(format!("cannot read the manifest of {id}: {e}"));
        for _ in 1..TRIES_MAX {
            match Slots::load(&self.files, id).map_err(failed)? {
                // Both slots unreadable may be a write that is under way.
                Some(loaded) if loaded.slots.is_none() => std::thread::yield_now(),
                other => return Ok(other),
            }
        }
        Slots::load(&self.files, id).map_err(failed)
    }

    /// Names in a partition's folder.
    pub(crate) fn names(&self, id: PartitionId) -> Result<Vec<String>, VerifyError> {
        let list = or_gone(self.files.disk().list(&self.files.partition_dir(id)));
        let list = list.map_err(|e| VerifyError(format!("cannot list the folder of {id}: {e}")))?;
        Ok(list
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.name)
            .collect())
    }
}

fn or_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The segments of a manifest, as readers see them.
pub(crate) fn views(manifest: &Manifest, losses: &Losses) -> Vec<SegmentView> {
    let gaps = gaps(&manifest.quarantined, losses.of(manifest.partition));
    let ends = manifest
        .segments
        .iter()
        .skip(1)
        .map(|s| s.base_offset)
        .chain([manifest.next_offset]);
    let tails = Arc::new(manifest.tails.clone());
    let last = manifest.segments.last().map(|s| s.base_offset);
    manifest
        .segments
        .iter()
        .zip(ends)
        .map(|(entry, end_offset)| SegmentView {
            partition: manifest.partition,
            entry: *entry,
            end_offset,
            epochs: manifest.epochs.as_slice().into(),
            gaps: Arc::clone(&gaps),
            tails: (last == Some(entry.base_offset)).then(|| Arc::clone(&tails)),
        })
        .collect()
}

/// Reads every readable batch of one partition, segments first, then the WAL; damaged ranges are left out. For names of
/// topics and for tools; the broker itself never reads this way.
pub fn read_partition(
    data_dir: &Path,
    id: PartitionId,
    each: &mut dyn FnMut(&BatchHeader, Bytes),
) -> Result<(), VerifyError> {
    let directory = Directory::open(data_dir)?;
    let failed = |e: io::Error| VerifyError(format!("cannot read {id}: {e}"));
    // The WAL first: what is recycled meanwhile is in a segment by then.
    let mut tail: BTreeMap<i64, Bytes> = BTreeMap::new();
    let mut scan = directory.wal()?;
    while let Some(step) = scan.next()? {
        let Recovered::Group(group) = step else {
            continue;
        };
        for frame in group.frames {
            if frame.frame.partition != id {
                continue;
            }
            if let FrameBody::Append {
                base_offset, batch, ..
            } = frame.frame.body
            {
                let mut bytes = Vec::with_capacity(batch.size());
                batch.write_to(&mut bytes);
                tail.insert(base_offset, Bytes::from(bytes));
            }
        }
    }
    let mut next = 0;
    if let Some(slots) = directory.manifest(id)?.and_then(|loaded| loaded.slots) {
        for view in views(&slots.manifest, &directory.losses) {
            let mut reader = SegmentReader::new(&directory.files, &view);
            let mut number = 0;
            while number < reader.extents() {
                let (extent, behind) = reader.load(number).map_err(failed)?;
                for piece in &extent.batches {
                    each(
                        &piece.header,
                        extent.bytes.slice(piece.at..piece.at + piece.length),
                    );
                }
                number = behind;
            }
        }
        next = slots.manifest.next_offset;
    }
    for (_, bytes) in tail.range(next..) {
        if let Ok(header) = BatchHeader::parse(bytes) {
            each(&header, bytes.clone());
        }
    }
    Ok(())
}
