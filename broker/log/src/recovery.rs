//! A start: what is on disk becomes partitions, the WAL behind their manifests is replayed on top.
//!
//! Owns the order of a start. What cannot be decoded becomes a quarantined range; the next offset goes on above it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::accept::LOST_BESIDES;
use crate::disk::{BLOCK_BYTES, Disk};
use crate::files::Files;
use crate::flusher;
use crate::folders::{Problem, bad_slot, load_partitions, move_to_quarantine};
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::log::{Hooks, Identity, OpenError};
use crate::losses::{self, LOSSES, Losses};
use crate::metrics::{LogMetrics, Reason, Source, Stage};
use crate::node::{NODE_META, Node, NodeOptions};
use crate::options::Options;
use crate::partition::Partition;
use crate::partition::slots::Slots;
use crate::partition::tail::{TailBatch, header_of};
use crate::shared::{Shared, Sink, now_ms};
use crate::wal::{
    Damaged, FrameBody, Recovered, RecoveredFrame, RecoveredGroup, Wal, WalOptions, WalPosition,
    WalRecovery, WalSizing, Writer,
};

/// What the node file says after a clean stop.
pub(crate) const CLEAN_EXIT: &str = crate::node::EXIT_STOPPED;

/// Everything that stops a start, in words.
fn stop(message: impl std::fmt::Display) -> OpenError {
    OpenError {
        message: message.to_string(),
    }
}

/// Opens the directory up to the point where the WAL runs; `start` decides on which thread.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    (metrics, hooks): (Arc<LogMetrics>, Arc<dyn Hooks>),
    start: impl FnOnce(Writer) -> io::Result<Wal>,
) -> Result<(Arc<Shared>, Identity), OpenError> {
    let started = Instant::now();
    metrics.recovery_in_progress.set(1);
    let node_options = NodeOptions {
        data_dir: options.data_dir.clone(),
        broker_id: options.broker_id,
        cluster_id: options.cluster_id.clone(),
        replaces: options.replaces.clone(),
    };
    let node = Arc::new(Node::open(Arc::clone(&disk), &node_options).map_err(stop)?);
    sync_leftovers(disk.as_ref(), &node)?;
    let files = Files::new(disk, &options.data_dir).caching(options.extent_cache_bytes_max);
    let shared = Shared::new(options, Arc::clone(&metrics), hooks, node, files);
    let boot = replay(&shared, start).inspect_err(|_| shared.let_go())?;
    let node = &shared.node;
    let identity = Identity {
        cluster_id: node.identity().cluster_id.clone(),
        broker_id: node.identity().broker_id,
        directory_id: node.identity().directory_id.clone(),
        boot,
        replaces: node.replaces().cloned(),
        last_exit: node.last_exit().to_owned(),
    };
    metrics.recovery_remaining_bytes.set(0);
    metrics.recovery_in_progress.set(0);
    metrics
        .recovery_duration
        .set(started.elapsed().as_secs_f64());
    Ok((shared, identity))
}

/// Folders, then the WAL on top of them, then the running WAL. Returns the number of this start.
fn replay(
    shared: &Arc<Shared>,
    start: impl FnOnce(Writer) -> io::Result<Wal>,
) -> Result<u64, OpenError> {
    load_losses(shared).map_err(|e| stop(format!("cannot read {LOSSES}: {e}")))?;
    let (disk, node) = (Arc::clone(shared.files.disk()), Arc::clone(&shared.node));
    let mut recovery = Wal::open(disk, node, wal_options(shared)).map_err(stop)?;
    shared.watch_space();
    let mut found = small_files(shared, &recovery.damaged());
    let folders = load_partitions(shared).map_err(|e| {
        let dir = shared.files.partitions_dir().display().to_string();
        stop(format!("cannot read the partitions in {dir}: {e}"))
    })?;
    found.extend(folders.problems);
    let mut replay = Replay {
        shared,
        problems: found,
        missing: Vec::new(),
        reached: folders.reached,
    };
    let metrics = &shared.metrics;
    while let Some(step) = recovery.next().map_err(stop)? {
        replay.step(step)?;
        metrics
            .recovery_remaining_bytes
            .set(recovery.remaining_bytes() as i64);
        shared.hooks.recovery_progress(recovery.remaining_bytes());
    }
    replay.finish();
    make_room(shared, &mut recovery)?;
    let sink = Arc::new(Sink(Arc::downgrade(shared)));
    let wal = recovery.finish_with(sink, Arc::clone(metrics), start);
    let wal = wal.map_err(stop)?;
    let boot = wal.boot();
    shared.flusher.group_processed(wal.durable_group(), 0);
    shared.set_wal(wal);
    Ok(boot)
}

/// What a killed process wrote and did not sync is seen as if it were durable: it must be, before it is built on.
fn sync_leftovers(disk: &dyn Disk, node: &Node) -> Result<(), OpenError> {
    // Where a slot is gone, it may have been the one that told of a run after the clean stop.
    if node.last_exit() == CLEAN_EXIT && node.damaged_slots().is_empty() {
        return Ok(());
    }
    let dir = node.data_dir();
    let synced = disk.volume(dir).and_then(|volume| volume.sync_all());
    synced.map_err(|e| {
        let dir = dir.display();
        stop(format!(
            "cannot make durable what the last run left in {dir}: {e}"
        ))
    })
}

/// What was kept becomes durable; then the boot group needs room, which only the checkpoint gives back.
fn make_room(shared: &Arc<Shared>, recovery: &mut WalRecovery) -> Result<(), OpenError> {
    if let Some(group) = recovery.keep().map_err(stop)? {
        let checkpoint = flusher::flush_below(shared, group).map_err(stop)?;
        recovery.set_checkpoint(checkpoint).map_err(stop)?;
    }
    Ok(())
}

/// What was given up. A list that does not verify is put aside and told; what it held is found damaged again.
fn load_losses(shared: &Shared) -> io::Result<()> {
    let files = &shared.files;
    let read = losses::read(files.disk().as_ref(), files.root())?;
    let losses = match read {
        losses::Read::Losses(losses) => losses,
        losses::Read::Damaged(reason) => {
            let moved = move_to_quarantine(shared, &files.root().join(LOSSES))?;
            tracing::error!(to = %moved.display(), %reason, "the list of accepted losses does not verify: put aside");
            shared.health.found(UnhealthyRange {
                partition: None,
                from: 0,
                to: -1,
                file: LOSSES.to_owned(),
                position: 0,
                reason,
                source: Source::Snapshot,
                stage: Stage::Replay,
                since_ms: now_ms(),
            });
            Losses::default()
        }
    };
    shared.set_losses(losses);
    Ok(())
}

/// What of the data directory's own small files is not whole. This start writes all of it anew.
fn small_files(shared: &Shared, wal: &Damaged) -> Vec<Problem> {
    let place = |file: &Path, position, reason, source| Problem {
        source,
        ..wal_range(None, &file.display().to_string(), position, reason, (0, -1))
    };
    let node = shared
        .node
        .damaged_slots()
        .iter()
        .map(|(position, reason)| {
            place(Path::new(NODE_META), *position, *reason, Source::Snapshot)
        });
    let slots = wal
        .slots
        .iter()
        .map(|(file, position, reason)| place(file, *position, *reason, Source::Checkpoint));
    let slots = node.chain(slots);
    let mut found: Vec<Problem> = slots
        .filter_map(|slot| bad_slot(shared, slot, BLOCK_BYTES as u64))
        .collect();
    // A file has its name only after its head is durable: no crash leaves one that is not whole.
    found.extend(
        wal.heads
            .iter()
            .map(|(file, reason)| place(file, 0, *reason, Source::Wal)),
    );
    found
}

fn wal_options(shared: &Shared) -> WalOptions {
    let options = &shared.options;
    let sizing = match (options.wal_file_bytes, options.wal_bytes_max) {
        (Some(file_bytes), bytes_max) => {
            let files_max = bytes_max.map_or(4, |max| (max / file_bytes).max(4)) as usize;
            Some(WalSizing {
                file_bytes,
                files_max,
            })
        }
        (None, _) => None,
    };
    WalOptions {
        sizing,
        seal_after: options.seal_after,
        data_queue_bytes_max: options.tail_bytes_max as usize,
        background: options.wal_background,
        read_back_groups: options.read_back_groups,
        given_up: shared.losses().groups().clone(),
        boot_min: shared.node.boot_min(),
        ..WalOptions::default()
    }
}

/// Replay: frames in order onto partitions.
struct Replay<'a> {
    shared: &'a Arc<Shared>,
    problems: Vec<Problem>,
    /// Offsets (inclusive) that neither a folder nor the WAL holds.
    missing: Vec<(PartitionId, i64, i64)>,
    /// How far partitions had got, by bytes that nobody counts; of those that the WAL has no append of. Where it has one, a
    /// crash cut a flush short, or what is missing before it is told.
    reached: BTreeMap<PartitionId, i64>,
}

impl Replay<'_> {
    fn step(&mut self, step: Recovered) -> Result<(), OpenError> {
        match step {
            Recovered::Group(group) => self.group(group),
            Recovered::Torn(torn) => {
                tracing::info!(
                    file = %torn.file.display(),
                    position = torn.position,
                    bytes = torn.bytes,
                    "a tail that was never acknowledged is cut off"
                );
                self.shared.metrics.torn(torn.bytes);
                Ok(())
            }
        }
    }

    fn group(&mut self, group: RecoveredGroup) -> Result<(), OpenError> {
        let metrics = &self.shared.metrics;
        let file = group.file.display().to_string();
        metrics.decoded(Stage::Replay, group.frames.len() as u64, group.length);
        self.shared
            .flusher
            .group_processed(group.seq, group.generation);
        // Appends of a group share its buffer: it is counted once, whole, until the last of them is flushed.
        let pin = Arc::new(self.shared.budget.reserve_always(group.length));
        let mut lost = group.lost.into_iter().peekable();
        let mut counted = false;
        for frame in group.frames {
            while let Some(one) = lost.next_if(|one| one.at < frame.at) {
                counted |= self.lost(&file, one)?;
            }
            self.frame(frame, &pin)?;
        }
        for one in lost {
            counted |= self.lost(&file, one)?;
        }
        let given_up = group.unknown.is_some();
        if given_up {
            tracing::warn!(
                group = group.seq,
                file,
                position = group.position,
                "a commit group that was given up is passed over; besides records, what it held of these is lost: {LOST_BESIDES}"
            );
        }
        if let Some(reason) = group.damage.filter(|_| !counted && !given_up) {
            // Only a copy or padding is damaged: told, no offset is lost.
            self.problems
                .push(wal_range(None, &file, group.position, reason, (0, -1)));
        }
        drop(pin);
        self.relieve()
    }

    /// Returns whether the loss is told as a range, now or by an earlier start; it is not when a segment holds the offsets
    /// or nobody asks for them any more.
    fn lost(&mut self, file: &str, lost: crate::wal::LostAppend) -> Result<bool, OpenError> {
        let offsets = (lost.base_offset, lost.last_offset);
        let Some(partition) = self.partition(lost.partition) else {
            return Ok(false);
        };
        if lost.at > partition.applied() {
            self.explain(&partition)?;
            let range = wal_range(
                Some(lost.partition),
                file,
                lost.file_position,
                lost.reason,
                offsets,
            );
            partition.lost_in_replay(range, lost.at);
        }
        Ok(partition.has_gap_in(offsets))
    }

    /// The WAL has an append of the partition: nobody needs what lies behind the bytes that count.
    fn explain(&mut self, partition: &Partition) -> Result<(), OpenError> {
        if self.reached.remove(&partition.id()).is_some() {
            let next = partition.next_offset();
            partition.truncate_segments(next).map_err(stop)?;
        }
        Ok(())
    }

    /// The partition of a frame; new where no folder was found, `None` where it was deleted.
    fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        if self.shared.flusher.is_buried(id) {
            return None;
        }
        let mut partitions = self.shared.partitions.write();
        let partition = partitions
            .entry(id)
            .or_insert_with(|| Arc::new(Partition::new(self.shared, id, Slots::none(id))));
        Some(Arc::clone(partition))
    }

    fn frame(
        &mut self,
        RecoveredFrame { at, frame, .. }: RecoveredFrame,
        pin: &Arc<crate::budget::Reservation>,
    ) -> Result<(), OpenError> {
        let id = frame.partition;
        if matches!(frame.body, FrameBody::Seal | FrameBody::Boot { .. }) {
            return Ok(());
        }
        let Some(partition) = self.partition(id) else {
            // Replay brings every frame; none is queued.
            self.shared.flusher.late_frame(id, at, false);
            return Ok(());
        };
        if at <= partition.applied() {
            return Ok(());
        }
        match frame.body {
            FrameBody::Append {
                base_offset,
                last_offset,
                batch,
            } => {
                self.explain(&partition)?;
                let next = partition.next_offset();
                if last_offset < next {
                    // A salvaged manifest is behind its own segments.
                    return Ok(());
                }
                if base_offset > next {
                    // Deleted below a log start that comes later in the WAL, or lost: the end of replay tells.
                    self.missing.push((id, next, base_offset - 1));
                    partition.skip_to(base_offset);
                }
                let header = header_of(&batch).map_err(|e| {
                    stop(format!("{id}: the batch at offset {base_offset} in the WAL is intact but no batch: {e}"))
                })?;
                let max_timestamp = header.max_timestamp;
                let pin = Some(Arc::clone(pin));
                let position = Some(at);
                let batch = TailBatch {
                    base_offset,
                    last_offset,
                    max_timestamp,
                    batch,
                    pin,
                    position,
                };
                partition.append_replayed(batch, at);
            }
            FrameBody::Truncate { to } => self.truncate(&partition, to, at)?,
            FrameBody::LogStart { offset } => {
                // Appends below it may be gone from the WAL, with what they held of it.
                partition.skip_to(offset);
                partition.log_start_durable(offset, at);
            }
            FrameBody::EpochStart { epoch, offset } => partition.epoch_durable(epoch, offset, at),
            FrameBody::DeletePartition => {
                self.shared.partition_deleted(id, at);
                self.problems
                    .retain(|problem| problem.partition != Some(id));
            }
            FrameBody::Seal | FrameBody::Boot { .. } => {}
        }
        Ok(())
    }

    fn truncate(
        &mut self,
        partition: &Partition,
        to: i64,
        at: WalPosition,
    ) -> Result<(), OpenError> {
        partition.truncate_segments(to).map_err(stop)?;
        let id = partition.id();
        self.reached.remove(&id);
        // Segments that were cut before this start have a gap before appends that are taken back here.
        self.missing
            .retain(|(lost, from, _)| *lost != id || *from < to);
        for (_, _, last) in self.missing.iter_mut().filter(|(lost, ..)| *lost == id) {
            *last = (*last).min(to - 1);
        }
        partition.truncate_replayed(to, at);
        Ok(())
    }

    /// Flushes while tail memory is above its bound, as far as the volume has room. What fits is flushed later, beside
    /// the first requests: a start should cost the reading of the WAL and nothing else.
    fn relieve(&self) -> Result<(), OpenError> {
        let budget = &self.shared.budget;
        while budget.used_bytes() >= budget.data_bytes_max() && !self.shared.is_read_only() {
            let oldest = self.shared.flusher.oldest(flusher::TOGETHER_MAX);
            if oldest.is_empty() {
                break;
            }
            flusher::flush_many(self.shared, oldest).map_err(stop)?;
        }
        Ok(())
    }

    /// Tells what was found, of partitions that still exist.
    fn finish(mut self) {
        for partition in self.shared.partitions.read().values() {
            partition.pass_given_up();
        }
        for (id, reached) in self.reached {
            let Some(partition) = self.shared.partition(id) else {
                continue;
            };
            let next = partition.next_offset();
            if reached > next {
                self.missing.push((id, next, reached - 1));
                partition.skip_to(reached);
            }
        }
        for (id, from, to) in self.missing {
            if let Some(partition) = self.shared.partition(id) {
                let file = self
                    .shared
                    .files
                    .relative(&self.shared.files.partition_dir(id));
                partition.found_damage(&wal_range(Some(id), &file, 0, Reason::Offsets, (from, to)));
            }
        }
        for problem in self.problems {
            let lost = problem.to >= problem.from;
            match problem.partition.and_then(|id| self.shared.partition(id)) {
                Some(partition) if lost => partition.found_damage(&problem),
                Some(_) | None if problem.reason == Reason::UnlistedFile => {
                    self.shared.health.found(problem)
                }
                Some(_) | None => self.shared.health.repaired(&problem),
            }
        }
    }
}

fn wal_range(
    partition: Option<PartitionId>,
    file: &str,
    position: u64,
    reason: Reason,
    (from, to): (i64, i64),
) -> UnhealthyRange {
    UnhealthyRange {
        partition,
        from,
        to,
        file: file.to_owned(),
        position,
        reason,
        source: Source::Wal,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }
}
