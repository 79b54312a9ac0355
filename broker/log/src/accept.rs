//! `log accept-loss`: gives up offsets that cannot be read, so that everybody may go on. Offline, recorded for ever.
//!
//! Owns the judgement over ranges ([`group`] has that over whole commit groups): only what really cannot be read may be
//! given up, and only while no broker runs. Writes one file ([`crate::losses`]) and nothing else; the next start acts on it.

pub(crate) mod group;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use group::{GroupRequest, KnownPartition, LOST_BESIDES, accept_group};

use crate::disk::{Disk, DiskLock, LockError, RealDisk};
use crate::files::Kind;
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::losses::{self, AcceptedLoss, LOSSES, uncovered};
use crate::metrics::{Reason, Source, Stage};
use crate::offline::{Directory, views};
use crate::partition::extent::{SegmentReader, SegmentView};
use crate::partition::format::Manifest;
use crate::shared::now_ms;
use crate::verify::VerifyError;
use crate::wal::{FrameBody, Recovered, RecoveredGroup, WalPosition};

/// Readable ranges, and lost ones, that a refusal names at most.
const TOLD_MAX: usize = 20;

/// What is to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptRequest {
    /// Of this partition.
    pub partition: PartitionId,
    /// Its topic's name, for the record.
    pub topic: String,
    /// First offset.
    pub from: i64,
    /// Last offset, inclusive.
    pub to: i64,
    /// Who asks.
    pub by: String,
}

/// Why nothing was given up.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// A broker runs on the directory.
    #[error(
        "a broker is running on the data directory {}: a loss is accepted while it is stopped", path.display()
    )]
    Running {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory could not be looked at.
    #[error(transparent)]
    Look(#[from] VerifyError),
    /// The range must not be given up.
    #[error("{0}")]
    Refused(String),
    /// The record could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Gives up a range. Returns what was recorded now: one entry per damaged piece; none if all of it was given up before.
pub fn accept_loss(
    data_dir: &Path,
    request: &AcceptRequest,
) -> Result<Vec<AcceptedLoss>, AcceptError> {
    accept_loss_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), data_dir, request)
}

/// Everything that was given up in a data directory, in order. Reads only, also beside a running broker.
pub fn accepted_losses(data_dir: &Path) -> Result<Vec<AcceptedLoss>, VerifyError> {
    let directory = Directory::open(data_dir)?;
    match directory.losses_damage {
        None => Ok(directory.losses.all().to_vec()),
        Some(reason) => Err(VerifyError(format!("{LOSSES} does not verify: {reason}"))),
    }
}

pub(crate) fn accept_loss_on(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    request: &AcceptRequest,
) -> Result<Vec<AcceptedLoss>, AcceptError> {
    let (directory, _lock) = locked(disk, data_dir)?;
    let known = Known::of(&directory, request.partition)?;
    let before = directory.losses.of(request.partition);
    let before = before.map_or(Vec::new(), |given_up| given_up.ranges.clone());
    known.check(request, &before)?;
    let news = known.records(request, before);
    record(disk, &directory, &news)?;
    Ok(news)
}

/// The directory of a stopped broker, for as long as the lock is held, with a list that can be added to.
fn locked(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
) -> Result<(Directory, Box<dyn DiskLock>), AcceptError> {
    let directory = Directory::open_on(Arc::clone(disk), data_dir)?;
    let lock = lock(disk.as_ref(), data_dir)?;
    if let Some(reason) = directory.losses_damage {
        return Err(AcceptError::Refused(format!(
            "{LOSSES} does not verify ({reason}): start the broker once, which puts it aside, then accept again"
        )));
    }
    Ok((directory, lock))
}

/// Adds to the list, durably.
fn record(
    disk: &Arc<dyn Disk>,
    directory: &Directory,
    news: &[AcceptedLoss],
) -> Result<(), AcceptError> {
    if news.is_empty() {
        return Ok(());
    }
    let data_dir = directory.files.root();
    let mut all = directory.losses.all().to_vec();
    all.extend_from_slice(news);
    losses::write(disk, data_dir, &all).map_err(|source| AcceptError::Write {
        path: data_dir.join(LOSSES),
        source,
    })
}

fn lock(disk: &dyn Disk, data_dir: &Path) -> Result<Box<dyn DiskLock>, AcceptError> {
    disk.lock(&data_dir.join("LOCK")).map_err(|e| match e {
        LockError::Held { .. } => AcceptError::Running {
            path: data_dir.to_owned(),
        },
        LockError::Io { path, source } => AcceptError::Look(VerifyError(format!(
            "cannot lock {}: {source}",
            path.display()
        ))),
    })
}

/// What a start would know of a partition.
struct Known {
    log_start: i64,
    next_offset: i64,
    deleted: bool,
    /// What cannot be read, in the order in which it was found; ranges may overlap.
    lost: Vec<UnhealthyRange>,
}

impl Known {
    fn of(directory: &Directory, id: PartitionId) -> Result<Self, AcceptError> {
        let manifest = match directory.manifest(id)? {
            None => Manifest::empty(id),
            Some(loaded) => match loaded.slots {
                Some(slots) => slots.manifest,
                None => {
                    return Err(AcceptError::Refused(format!(
                        "the manifest of {id} does not verify: start the broker once, which makes it anew from the segments"
                    )));
                }
            },
        };
        let mut known = Known {
            log_start: manifest.log_start,
            next_offset: manifest.next_offset,
            deleted: manifest.deleted,
            lost: manifest.quarantined.clone(),
        };
        for view in views(&manifest, &directory.losses) {
            known.segment(directory, &view)?;
        }
        known.wal(directory, &manifest)?;
        Ok(known)
    }

    /// What of a segment cannot be read.
    fn segment(&mut self, directory: &Directory, view: &SegmentView) -> Result<(), AcceptError> {
        let mut reader = SegmentReader::past_caches(&directory.files, view);
        let file = directory.files.told(&reader.key(Kind::Log));
        let mut lose = |(from, to), position, reason| {
            let source = Source::Segment;
            self.lost.push(UnhealthyRange {
                position,
                ..lost(view.partition, &file, (from, to), (reason, source))
            });
        };
        let (mut number, mut next) = (0, view.entry.base_offset);
        while number < reader.extents() {
            let (extent, behind) = match reader.load(number) {
                Ok(loaded) => loaded,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    lose((next, view.end_offset - 1), 0, Reason::MissingFile);
                    return Ok(());
                }
                Err(e) => return Err(VerifyError(format!("cannot read {file}: {e}")).into()),
            };
            for hole in &extent.holes {
                let position = extent.position + hole.at as u64;
                lose((hole.from, hole.to), position, hole.reason);
            }
            next = extent.end_offset;
            number = behind;
        }
        if next < view.end_offset {
            let position = view.entry.log_bytes;
            lose((next, view.end_offset - 1), position, Reason::Truncated);
        }
        Ok(())
    }

    /// What the WAL adds behind the manifest, as replay would see it.
    fn wal(&mut self, directory: &Directory, manifest: &Manifest) -> Result<(), AcceptError> {
        let applied = WalPosition {
            group: manifest.applied_group,
            frame: manifest.applied_frame,
        };
        let mut steps = directory.wal()?;
        while let Some(step) = steps.next()? {
            let Recovered::Group(group) = step else {
                continue;
            };
            let given_up = directory.losses.groups().contains(&group.seq);
            if group.unknown.is_some() && !given_up {
                return Err(AcceptError::Refused(format!(
                    "commit group {} ({} at position {}) cannot be read at all, so that nobody knows which partitions and \
                     offsets were in it: restore the file or its volume, or give it up first (--group {})",
                    group.seq,
                    group.file.display(),
                    group.position,
                    group.seq
                )));
            }
            self.group(directory, manifest.partition, applied, group);
        }
        Ok(())
    }

    fn group(
        &mut self,
        directory: &Directory,
        id: PartitionId,
        applied: WalPosition,
        group: RecoveredGroup,
    ) {
        let file = group.file.display().to_string();
        let mut gone = group.lost.into_iter().peekable();
        let takes = |at: WalPosition, partition| partition == id && at > applied;
        for frame in group.frames {
            while let Some(one) = gone.next_if(|one| one.at < frame.at) {
                if takes(one.at, one.partition) {
                    self.lose(&one, &file);
                }
            }
            if !takes(frame.at, frame.frame.partition) {
                continue;
            }
            match frame.frame.body {
                FrameBody::Append {
                    base_offset,
                    last_offset,
                    ..
                } if last_offset >= self.next_offset => {
                    if base_offset > self.next_offset {
                        let dir = directory.files.partition_dir(id);
                        let file = directory.files.relative(&dir);
                        let offsets = (self.next_offset, base_offset - 1);
                        let why = (Reason::Offsets, Source::Wal);
                        self.lost.push(lost(id, &file, offsets, why));
                    }
                    self.next_offset = last_offset + 1;
                }
                FrameBody::Truncate { to } => {
                    self.next_offset = self.next_offset.min(to);
                    self.lost.retain(|range| range.from < to);
                }
                FrameBody::LogStart { offset } => {
                    self.log_start = self.log_start.max(offset);
                    self.next_offset = self.next_offset.max(offset);
                }
                FrameBody::DeletePartition => self.deleted = true,
                FrameBody::Append { .. }
                | FrameBody::EpochStart { .. }
                | FrameBody::Seal
                | FrameBody::Boot { .. } => {}
            }
        }
        for one in gone {
            if takes(one.at, one.partition) {
                self.lose(&one, &file);
            }
        }
    }

    fn lose(&mut self, one: &crate::wal::LostAppend, file: &str) {
        if one.last_offset >= self.next_offset {
            let offsets = (one.base_offset.max(self.next_offset), one.last_offset);
            self.lost.push(UnhealthyRange {
                position: one.file_position,
                ..lost(one.partition, file, offsets, (one.reason, Source::Wal))
            });
            self.next_offset = one.last_offset + 1;
        }
    }

    /// Refuses what must not be given up.
    fn check(&self, request: &AcceptRequest, before: &[(i64, i64)]) -> Result<(), AcceptError> {
        let AcceptRequest {
            partition: id,
            topic,
            from,
            to,
            ..
        } = request;
        let name = format!("{topic}/{}", id.index);
        let refused = |reason: String| Err(AcceptError::Refused(reason));
        if self.deleted {
            return refused(format!("{name} is deleted"));
        }
        if self.next_offset == 0 && self.lost.is_empty() {
            return refused(format!("{name} ({id}) holds nothing here"));
        }
        if from > to {
            return refused(format!("--from {from} lies behind --to {to}"));
        }
        if *from < self.log_start || *to >= self.next_offset {
            return refused(format!(
                "{name} has the offsets {}..={}: {from}..={to} is not among them",
                self.log_start,
                self.next_offset - 1
            ));
        }
        let mut unreadable: Vec<(i64, i64)> = self.lost.iter().map(|r| (r.from, r.to)).collect();
        unreadable.extend_from_slice(before);
        unreadable.sort_unstable();
        let readable = uncovered(unreadable, *from, *to);
        if readable.is_empty() {
            return Ok(());
        }
        let mut lost: Vec<(i64, i64)> = self.lost.iter().map(|r| (r.from, r.to)).collect();
        lost.sort_unstable();
        lost.dedup();
        let lost = match lost.is_empty() {
            true => "nothing".to_owned(),
            false => texts(&lost),
        };
        refused(format!(
            "{name}: offsets {} can be read, and only what cannot be read may be given up; that is {lost}",
            texts(&readable),
        ))
    }

    /// One record per damaged piece that is news.
    fn records(&self, request: &AcceptRequest, before: Vec<(i64, i64)>) -> Vec<AcceptedLoss> {
        let accepted_ms = now_ms();
        let mut known = before;
        let mut records = Vec::new();
        for range in &self.lost {
            let (from, to) = (range.from.max(request.from), range.to.min(request.to));
            known.sort_unstable();
            let parts = uncovered(known.iter().copied(), from, to);
            known.extend_from_slice(&parts);
            records.extend(parts.into_iter().map(|(from, to)| AcceptedLoss {
                range: UnhealthyRange {
                    from,
                    to,
                    ..range.clone()
                },
                topic: request.topic.clone(),
                by: request.by.clone(),
                accepted_ms,
            }));
        }
        records
    }
}

/// A lost range as this look found it.
fn lost(
    id: PartitionId,
    file: &str,
    (from, to): (i64, i64),
    (reason, source): (Reason, Source),
) -> UnhealthyRange {
    UnhealthyRange {
        partition: Some(id),
        from,
        to,
        file: file.to_owned(),
        position: 0,
        reason,
        source,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }
}

fn texts(ranges: &[(i64, i64)]) -> String {
    let told = ranges.iter().take(TOLD_MAX);
    let mut texts: Vec<String> = told.map(|(from, to)| format!("{from}..={to}")).collect();
    if ranges.len() > TOLD_MAX {
        texts.push(format!("and {} more", ranges.len() - TOLD_MAX));
    }
    texts.join(", ")
}
