//! The offsets that the WAL accounts for, held against where a partition's manifest ends.
//!
//! Owns what a replay would miss: offsets behind the last one that a folder counts and before the first one that the WAL
//! holds. Neither of them is damaged by itself there, so nothing else tells. Never reads anything.

use std::collections::BTreeMap;

use crate::ids::PartitionId;
use crate::partition::format::Manifest;
use crate::wal::{FrameBody, RecoveredGroup, WalPosition};

/// What frames say of a partition's offsets.
enum Said {
    /// Appends without a hole between them.
    Held {
        first: WalPosition,
        last: WalPosition,
        from: i64,
        to: i64,
    },
    Truncated {
        at: WalPosition,
        to: i64,
    },
    Started {
        at: WalPosition,
        offset: i64,
    },
    Deleted,
}

/// What the WAL says, by partition, in replay order: one entry where nothing but appends was written.
#[derive(Default)]
pub(super) struct Spans(BTreeMap<PartitionId, Vec<Said>>);

impl Spans {
    pub(super) fn group(&mut self, group: &RecoveredGroup) {
        let mut lost = group.lost.iter().peekable();
        for frame in &group.frames {
            while let Some(one) = lost.next_if(|one| one.at < frame.at) {
                self.held(one.partition, one.at, (one.base_offset, one.last_offset));
            }
            let (id, at) = (frame.frame.partition, frame.at);
            let said = match &frame.frame.body {
                FrameBody::Append {
                    base_offset,
                    last_offset,
                    ..
                } => {
                    self.held(id, at, (*base_offset, *last_offset));
                    continue;
                }
                FrameBody::Truncate { to } => Said::Truncated { at, to: *to },
                FrameBody::LogStart { offset } => Said::Started {
                    at,
                    offset: *offset,
                },
                FrameBody::DeletePartition => Said::Deleted,
                FrameBody::EpochStart { .. } | FrameBody::Seal | FrameBody::Boot { .. } => continue,
            };
            self.0.entry(id).or_default().push(said);
        }
        for one in lost {
            self.held(one.partition, one.at, (one.base_offset, one.last_offset));
        }
    }

    fn held(&mut self, id: PartitionId, at: WalPosition, (from, to): (i64, i64)) {
        let said = self.0.entry(id).or_default();
        match said.last_mut() {
            Some(Said::Held { last, to: end, .. }) if end.checked_add(1) == Some(from) => {
                (*last, *end) = (at, to);
            }
            _ => said.push(Said::Held {
                first: at,
                last: at,
                from,
                to,
            }),
        }
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.0.keys().copied()
    }

    pub(super) fn is_deleted(&self, id: PartitionId) -> bool {
        let said = self.0.get(&id).into_iter().flatten();
        said.into_iter().any(|said| matches!(said, Said::Deleted))
    }

    /// Whether there is an append, or a truncation, that the folder with this manifest does not reflect.
    pub(super) fn goes_on(&self, manifest: &Manifest) -> bool {
        let applied = applied(manifest);
        let mut said = self.0.get(&manifest.partition).into_iter().flatten();
        said.any(|said| match said {
            Said::Held { last: at, .. } | Said::Truncated { at, .. } => *at > applied,
            Said::Deleted => true,
            Said::Started { .. } => false,
        })
    }

    /// Offsets (inclusive) that neither the folder with this manifest nor the WAL holds.
    pub(super) fn missing(&self, manifest: &Manifest) -> Vec<(i64, i64)> {
        let applied = applied(manifest);
        let (mut next, mut start) = (manifest.next_offset, manifest.log_start);
        let mut missing: Vec<(i64, i64)> = Vec::new();
        for said in self.0.get(&manifest.partition).into_iter().flatten() {
            match said {
                Said::Held {
                    first,
                    last,
                    from,
                    to,
                } if *last > applied => {
                    // What is in the middle of a span has been applied without a hole, too.
                    if *first > applied && *from > next {
                        missing.push((next, from - 1));
                    }
                    next = next.max(to.saturating_add(1));
                }
                Said::Truncated { at, to } if *at > applied => {
                    missing.retain(|(from, _)| from < to);
                    for (_, last) in &mut missing {
                        *last = (*last).min(to - 1);
                    }
                    next = next.min(*to);
                }
                Said::Started { at, offset } if *at > applied => {
                    next = next.max(*offset);
                    start = start.max(*offset);
                }
                Said::Held { .. }
                | Said::Truncated { .. }
                | Said::Started { .. }
                | Said::Deleted => {}
            }
        }
        missing.retain(|(_, to)| *to >= start);
        missing
    }
}

/// The newest frame that a folder reflects.
fn applied(manifest: &Manifest) -> WalPosition {
    WalPosition {
        group: manifest.applied_group,
        frame: manifest.applied_frame,
    }
}
