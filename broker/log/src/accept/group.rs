//! Giving up a commit group of which nobody knows what it held: both copies of its frame table are gone, or the disk cannot
//! read the end of the log.
//!
//! Owns which offsets are in doubt by it: of each partition of which neither a later append nor its folder says how far it
//! had got, as many as fit into the group. They are given up, so that none of them is used twice; what was in the group
//! for all others is found missing at the next start, exactly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;

use super::{AcceptError, locked, record};
use crate::disk::{Disk, RealDisk};
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::losses::{AcceptedLoss, GROUP};
use crate::metrics::{Source, Stage};
use crate::offline::{Directory, Folder};
use crate::shared::now_ms;
use crate::verify::VerifyError;
use crate::wal::{FrameBody, Recovered, RecoveredGroup, Unknown, WalPosition};

/// No record is shorter: seven fields of one byte.
const RECORD_BYTES_MIN: u64 = 7;
/// No batch has more records: none that decompresses to more is taken.
const BATCH_OFFSETS_MAX: u64 = DECOMPRESSED_BYTES_MAX as u64 / RECORD_BYTES_MIN;

/// What a group may have held besides records, in words. It is lost with the group, and unlike records it leaves no offset
/// that is missing.
pub const LOST_BESIDES: &str = "log starts that moved (deleted records may be there again), deletions of partitions \
     (folders that the metadata does not know are put aside), starts of leader epochs, truncations (what was taken back may \
     be there again)";

/// What is to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRequest {
    /// The commit group's number, as the refused start names it.
    pub group: u64,
    /// Partitions that the metadata names, also those that the log has nothing of: all of their records may have been in
    /// the group.
    pub partitions: Vec<KnownPartition>,
    /// Who asks.
    pub by: String,
}

/// A partition, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPartition {
    /// Its id.
    pub id: PartitionId,
    /// Its topic's name, for the record.
    pub topic: String,
    /// Only the broker writes it, and never compresses.
    pub is_plain: bool,
}

/// Gives up a group. Returns what was recorded now: the group, then the offsets that are in doubt; nothing if it was given
/// up before.
pub fn accept_group(
    data_dir: &Path,
    request: &GroupRequest,
) -> Result<Vec<AcceptedLoss>, AcceptError> {
    accept_group_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), data_dir, request)
}

pub(crate) fn accept_group_on(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    request: &GroupRequest,
) -> Result<Vec<AcceptedLoss>, AcceptError> {
    let (directory, _lock) = locked(disk, data_dir)?;
    if directory.losses.groups().contains(&request.group) {
        return Ok(Vec::new());
    }
    let mut doubts = Doubts::of(&directory, request)?;
    doubts.wal(&directory)?;
    let news = doubts.records(&directory, request)?;
    record(disk, &directory, &news)?;
    Ok(news)
}

/// What is known of a partition's end.
struct End {
    applied: WalPosition,
    next_offset: i64,
    deleted: bool,
    /// A later frame says how far it had got.
    is_known: bool,
}

impl End {
    fn of_nothing() -> End {
        End {
            applied: WalPosition::default(),
            next_offset: 0,
            deleted: false,
            is_known: false,
        }
    }
}

/// All partitions that the group may have held something of.
struct Doubts {
    group: u64,
    found: Option<(RecoveredGroup, Unknown)>,
    ends: BTreeMap<PartitionId, End>,
}

impl Doubts {
    /// As of the folders.
    fn of(directory: &Directory, request: &GroupRequest) -> Result<Doubts, AcceptError> {
        let named = request.partitions.iter().map(|known| known.id);
        let mut ends: BTreeMap<PartitionId, End> =
            named.map(|id| (id, End::of_nothing())).collect();
        for folder in directory.folders()? {
            let Folder::Partition(id) = folder else {
                continue;
            };
            let Some(loaded) = directory.manifest(id)? else {
                continue;
            };
            let Some(slots) = loaded.slots else {
                return Err(AcceptError::Refused(format!(
                    "the manifest of {id} does not verify: start the broker once, which makes it anew from the segments"
                )));
            };
            let manifest = slots.manifest;
            let end = End {
                applied: WalPosition {
                    group: manifest.applied_group,
                    frame: manifest.applied_frame,
                },
                next_offset: manifest.next_offset,
                deleted: manifest.deleted,
                // Its segments reflect all of the group.
                is_known: manifest.applied_group > request.group,
            };
            ends.insert(id, end);
        }
        Ok(Doubts {
            group: request.group,
            found: None,
            ends,
        })
    }

    /// As of the WAL behind them.
    fn wal(&mut self, directory: &Directory) -> Result<(), VerifyError> {
        let mut steps = directory.wal()?;
        while let Some(step) = steps.next()? {
            let Recovered::Group(mut group) = step else {
                continue;
            };
            if let Some(unknown) = group.unknown.filter(|_| group.seq == self.group) {
                self.found = Some((group, unknown));
                continue;
            }
            let lost = std::mem::take(&mut group.lost);
            for frame in group.frames {
                self.frame(frame.frame.partition, frame.at, &frame.frame.body);
            }
            for one in lost {
                self.append(one.partition, one.at, one.last_offset);
            }
        }
        Ok(())
    }

    fn end(&mut self, id: PartitionId) -> &mut End {
        self.ends.entry(id).or_insert_with(End::of_nothing)
    }

    fn append(&mut self, id: PartitionId, at: WalPosition, last_offset: i64) {
        let group = self.group;
        let end = self.end(id);
        if at > end.applied {
            end.next_offset = end.next_offset.max(last_offset + 1);
            end.is_known |= at.group > group;
        }
    }

    fn frame(&mut self, id: PartitionId, at: WalPosition, body: &FrameBody) {
        match body {
            FrameBody::Append { last_offset, .. } => self.append(id, at, *last_offset),
            FrameBody::LogStart { offset } => {
                let end = self.end(id);
                end.next_offset = end.next_offset.max(*offset);
            }
            FrameBody::DeletePartition => self.end(id).deleted = true,
            // Where a truncation ends is at most where it began: what is given up reaches from there.
            FrameBody::Truncate { .. } | FrameBody::EpochStart { .. } => {}
            FrameBody::Seal | FrameBody::Boot { .. } => {}
        }
    }

    fn records(
        self,
        directory: &Directory,
        request: &GroupRequest,
    ) -> Result<Vec<AcceptedLoss>, AcceptError> {
        let Some((group, unknown)) = self.found else {
            return Err(AcceptError::Refused(format!(
                "commit group {} can be read, or no replay needs it: only what cannot be read may be given up",
                request.group
            )));
        };
        let accepted_ms = now_ms();
        let loss = |partition, topic: &str, (from, to)| AcceptedLoss {
            range: UnhealthyRange {
                partition: Some(partition),
                from,
                to,
                file: group.file.display().to_string(),
                position: group.position,
                reason: group.damage.unwrap_or(crate::Reason::TablesLost),
                source: Source::Wal,
                stage: Stage::Replay,
                since_ms: accepted_ms,
            },
            topic: topic.to_owned(),
            by: request.by.clone(),
            accepted_ms,
        };
        let number = i64::try_from(request.group).unwrap_or(i64::MAX);
        let mut records = vec![loss(GROUP, "", (number, number))];
        let known: BTreeMap<PartitionId, &KnownPartition> = request
            .partitions
            .iter()
            .map(|known| (known.id, known))
            .collect();
        for (id, end) in self.ends {
            if end.is_known || end.deleted || id.topic == GROUP.topic {
                continue;
            }
            let named = known.get(&id);
            let offsets = match named.is_some_and(|known| known.is_plain) {
                true => unknown.bytes_max / RECORD_BYTES_MIN,
                false => unknown.frames_max.saturating_mul(BATCH_OFFSETS_MAX),
            };
            let given_up = directory.losses.of(id);
            let from = given_up.map_or(end.next_offset, |g| g.behind(end.next_offset));
            let to = i64::try_from(offsets)
                .ok()
                .and_then(|offsets| from.checked_add(offsets));
            let Some(to) = to.filter(|to| *to < i64::MAX / 2) else {
                return Err(AcceptError::Refused(format!("{id} has no offsets left")));
            };
            let topic = named.map_or_else(|| id.topic.to_string(), |known| known.topic.clone());
            records.push(loss(id, &topic, (from, to)));
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How [`LOST_BESIDES`] names a kind of frame; empty where something else tells, or nothing is lost.
    fn words(body: &FrameBody) -> &'static str {
        match body {
            // The offsets in doubt.
            FrameBody::Append { .. } => "",
            FrameBody::Truncate { .. } => "truncations",
            FrameBody::LogStart { .. } => "log starts",
            FrameBody::EpochStart { .. } => "starts of leader epochs",
            FrameBody::DeletePartition => "deletions of partitions",
            FrameBody::Seal | FrameBody::Boot { .. } => "",
        }
    }

    #[test]
    fn every_kind_of_frame_that_can_be_lost_with_a_group_is_named() {
        let (to, offset, epoch) = (0, 0, 0);
        for body in [
            FrameBody::Truncate { to },
            FrameBody::LogStart { offset },
            FrameBody::EpochStart { epoch, offset },
            FrameBody::DeletePartition,
        ] {
            assert!(!words(&body).is_empty() && LOST_BESIDES.contains(words(&body)));
        }
    }
}
