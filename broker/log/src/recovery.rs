//! A start: what is on disk becomes partitions, the WAL behind their manifests is replayed on top.
//!
//! Owns the order of a start and every repair that it makes. Never guesses: a file that no manifest lists is moved aside
//! and told, and what cannot be decoded is a quarantined range.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::disk::Disk;
use crate::files::{FileKey, Files, Kind, QUARANTINE_DIR};
use crate::flusher;
use crate::health::UnhealthyRange;
use crate::ids::{PartitionId, TopicId};
use crate::log::{Hooks, Identity, OpenError};
use crate::metrics::{LogMetrics, Reason, Source, Stage};
use crate::node::{Node, NodeOptions};
use crate::options::Options;
use crate::partition::Partition;
use crate::partition::slots::{MANIFEST, MANIFEST_NEW, Slots};
use crate::partition::tail::{TailBatch, header_of};
use crate::shared::{Shared, Sink, now_ms};
use crate::wal::{
    FrameBody, Recovered, RecoveredFrame, RecoveredGroup, Wal, WalOptions, WalPosition, WalSizing,
};

/// What the node file says after a clean stop.
pub(crate) const CLEAN_EXIT: &str = "stopped";

/// Everything that stops a start, in words.
fn stop(message: impl std::fmt::Display) -> OpenError {
    OpenError {
        message: message.to_string(),
    }
}

/// Opens the directory up to the point where the WAL runs.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    metrics: Arc<LogMetrics>,
    hooks: Arc<dyn Hooks>,
) -> Result<(Arc<Shared>, Identity), OpenError> {
    let started = Instant::now();
    metrics.recovery_in_progress.set(1);
    let node_options = NodeOptions {
        data_dir: options.data_dir.clone(),
        broker_id: options.broker_id,
        cluster_id: options.cluster_id.clone(),
    };
    let node = Arc::new(Node::open(Arc::clone(&disk), &node_options).map_err(stop)?);
    let wal_options = wal_options(&options);
    let files = Files::new(Arc::clone(&disk), &options.data_dir);
    let shared = Shared::new(
        options,
        Arc::clone(&metrics),
        hooks,
        Arc::clone(&node),
        files,
    );
    let mut recovery = Wal::open(disk, Arc::clone(&node), wal_options).map_err(stop)?;
    shared.watch_space();
    let found =
        load_partitions(&shared).map_err(|e| stop(format!("cannot read the partitions: {e}")))?;
    let mut replay = Replay {
        shared: &shared,
        problems: found,
    };
    while let Some(step) = recovery.next().map_err(stop)? {
        replay.step(step)?;
        metrics
            .recovery_remaining_bytes
            .set(recovery.remaining_bytes() as i64);
        shared.hooks.recovery_progress(recovery.remaining_bytes());
    }
    replay.finish();
    let wal = recovery.finish(
        Arc::new(Sink(Arc::downgrade(&shared))),
        Arc::clone(&metrics),
    );
    let wal = wal.map_err(stop)?;
    let identity = Identity {
        cluster_id: node.identity().cluster_id.clone(),
        broker_id: node.identity().broker_id,
        directory_id: node.identity().directory_id.clone(),
        boot: wal.stats().boot,
        last_exit: node.last_exit().to_owned(),
    };
    shared.flusher.group_processed(wal.stats().durable_group, 0);
    shared.set_wal(wal);
    metrics.recovery_remaining_bytes.set(0);
    metrics.recovery_in_progress.set(0);
    metrics
        .recovery_duration
        .set(started.elapsed().as_secs_f64());
    Ok((shared, identity))
}

fn wal_options(options: &Options) -> WalOptions {
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
        ..WalOptions::default()
    }
}

/// A problem found in a folder; dropped when replay shows that the partition is deleted.
type Problem = UnhealthyRange;

/// Reads `p/`: one partition per folder. Returns what is to be told.
fn load_partitions(shared: &Arc<Shared>) -> io::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let files = &shared.files;
    let root = files.partitions_dir();
    if !files.disk().exists(&root)? {
        return Ok(problems);
    }
    for topic in files.disk().list(&root)? {
        let topic_path = root.join(&topic.name);
        let Some(id) = topic.name.parse::<TopicId>().ok().filter(|_| topic.is_dir) else {
            problems.push(set_aside(shared, &topic_path, None)?);
            continue;
        };
        for entry in files.disk().list(&topic_path)? {
            let index = entry
                .name
                .parse::<i32>()
                .ok()
                .filter(|i| *i >= 0 && entry.is_dir);
            let Some(index) = index.filter(|i| i.to_string() == entry.name) else {
                problems.push(set_aside(shared, &topic_path.join(&entry.name), None)?);
                continue;
            };
            let id = PartitionId { topic: id, index };
            if let Some(slots) = load_folder(shared, id, &mut problems)? {
                let partition = Arc::new(Partition::new(shared, id, slots));
                for range in partition.quarantined() {
                    shared.health.known(range);
                }
                shared.partitions.write().insert(id, partition);
            }
        }
    }
    Ok(problems)
}

/// One partition's folder, brought in line with its manifest. `None`: nothing of a partition is there.
fn load_folder(
    shared: &Arc<Shared>,
    id: PartitionId,
    problems: &mut Vec<Problem>,
) -> io::Result<Option<Slots>> {
    let files = &shared.files;
    let dir = files.partition_dir(id);
    files.unlink(&dir.join(MANIFEST_NEW))?;
    let names: Vec<String> = files
        .disk()
        .list(&dir)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    let loaded = Slots::load(files, id)?;
    let Some(loaded) = loaded else {
        if names.is_empty() {
            // A crash between making the folder and its manifest, or between its last file and the folder itself.
            files.remove_empty(id)?;
            return Ok(None);
        }
        return crate::salvage::from_files(shared, id, &names, problems).map(Some);
    };
    // After a crash, one bad slot is the write that it cut short. Otherwise a slot that was whole is damaged.
    if loaded.slots.is_none() || shared.node.last_exit() == CLEAN_EXIT {
        for (position, reason) in &loaded.damaged {
            problems.push(manifest_problem(shared, id, *position, *reason));
        }
    }
    let Some(mut slots) = loaded.slots else {
        return crate::salvage::from_files(shared, id, &names, problems).map(Some);
    };
    if slots.manifest.deleted {
        files.remove_partition(id, slots)?;
        return Ok(None);
    }
    if !loaded.damaged.is_empty() {
        crate::salvage::roll_forward(shared, id, &mut slots)?;
    }
    tidy_folder(shared, id, &mut slots, &names, problems)?;
    Ok(Some(slots))
}

pub(crate) fn manifest_problem(
    shared: &Shared,
    id: PartitionId,
    position: u64,
    reason: Reason,
) -> Problem {
    UnhealthyRange {
        partition: Some(id),
        from: 0,
        to: -1,
        file: shared
            .files
            .relative(&shared.files.partition_dir(id).join(MANIFEST)),
        position,
        reason,
        source: Source::Snapshot,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }
}

/// Removes what a crash left, cuts what lies beyond the lengths that count, sets aside what nobody lists.
fn tidy_folder(
    shared: &Arc<Shared>,
    id: PartitionId,
    slots: &mut Slots,
    names: &[String],
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    let files = &shared.files;
    let dir = files.partition_dir(id);
    let manifest = &slots.manifest;
    let listed = |base: i64| manifest.segments.iter().any(|s| s.base_offset == base);
    for name in names {
        let path = dir.join(name);
        match FileKey::parse(id, name) {
            Some(key) if listed(key.base_offset) => {}
            Some(key)
                if manifest.created.contains(&key.base_offset)
                    || manifest.dropped.contains(&key.base_offset) =>
            {
                files.unlink(&path)?;
            }
            Some(_) => problems.push(set_aside(shared, &path, Some(id))?),
            None if [MANIFEST, MANIFEST_NEW, "producers.1", "producers.2"]
                .contains(&name.as_str()) => {}
            None => problems.push(set_aside(shared, &path, Some(id))?),
        }
    }
    for (at, segment) in manifest.segments.iter().enumerate() {
        let end = manifest
            .segments
            .get(at + 1)
            .map_or(manifest.next_offset, |s| s.base_offset);
        for (kind, listed) in [
            (Kind::Log, segment.log_bytes),
            (Kind::Sum, segment.sum_bytes),
            (Kind::Idx, segment.idx_bytes),
        ] {
            let key = FileKey {
                partition: id,
                base_offset: segment.base_offset,
                kind,
            };
            if let Some(problem) = fit_length(shared, &key, listed, end)? {
                problems.push(problem);
            }
        }
    }
    slots.manifest.created.clear();
    slots.manifest.dropped.clear();
    files.forget(id);
    Ok(())
}

/// Cuts a file to the length that counts. One that is missing or too short is told: here when it costs no offsets;
/// a short `.log` is found by the read that needs it.
fn fit_length(
    shared: &Shared,
    key: &FileKey,
    listed: u64,
    end: i64,
) -> io::Result<Option<Problem>> {
    let files = &shared.files;
    let reason = match files.open(key) {
        Ok(file) => {
            let length = file.len()?;
            if length > listed {
                file.set_len(listed)?;
                file.sync_data()?;
            }
            if length >= listed {
                return Ok(None);
            }
            Reason::Truncated
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Reason::MissingFile,
        Err(e) => return Err(e),
    };
    let (source, to) = match (key.kind, reason) {
        (Kind::Log, Reason::MissingFile) => (Source::Segment, end - 1),
        // The read that needs the bytes finds out which offsets are lost.
        (Kind::Log, _) => return Ok(None),
        (Kind::Sum | Kind::Idx, _) => {
            shared
                .flusher
                .request_repair(key.partition, key.base_offset);
            (Source::Index, key.base_offset - 1)
        }
    };
    Ok(Some(UnhealthyRange {
        partition: Some(key.partition),
        from: key.base_offset,
        to,
        file: files.told(key),
        position: 0,
        reason,
        source,
        stage: Stage::Replay,
        since_ms: now_ms(),
    }))
}

/// Moves a file or folder that nobody lists to `quarantine/`.
fn set_aside(shared: &Shared, path: &Path, partition: Option<PartitionId>) -> io::Result<Problem> {
    move_to_quarantine(shared, path)?;
    Ok(UnhealthyRange {
        partition,
        from: 0,
        to: -1,
        file: shared.files.relative(path),
        position: 0,
        reason: Reason::UnlistedFile,
        source: Source::Segment,
        stage: Stage::Replay,
        since_ms: now_ms(),
    })
}

/// Returns where it went: `quarantine/` and its old path with dots for slashes, numbered if that name is taken.
fn move_to_quarantine(shared: &Shared, path: &Path) -> io::Result<PathBuf> {
    let files = &shared.files;
    let dir = files.root().join(QUARANTINE_DIR);
    files.disk().create_dir_all(&dir)?;
    let name = files.relative(path).replace('/', ".");
    let mut to = dir.join(&name);
    let mut number = 1;
    while files.disk().exists(&to)? {
        number += 1;
        to = dir.join(format!("{name}.{number}"));
    }
    files.disk().rename(path, &to)?;
    files.disk().sync_dir(&dir)?;
    if let Some(parent) = path.parent() {
        files.disk().sync_dir(parent)?;
    }
    files.disk().sync_dir(files.root())?;
    Ok(to)
}

/// Moves aside the folders of partitions that no metadata record names.
pub(crate) fn quarantine_unknown(
    shared: &Arc<Shared>,
    known: &HashSet<PartitionId>,
) -> Vec<PathBuf> {
    let unknown: Vec<Arc<Partition>> = {
        let partitions = shared.partitions.read();
        partitions
            .values()
            .filter(|p| !known.contains(&p.id()))
            .cloned()
            .collect()
    };
    let mut moved = Vec::new();
    for partition in unknown {
        let id = partition.id();
        // What only the WAL holds of it goes into the folder first: nothing is lost by moving it aside.
        if let Err(reason) = flusher::flush(shared, id) {
            shared.fail(&reason);
            return moved;
        }
        shared.partitions.write().remove(&id);
        let exists = partition.state.lock().slots.exist();
        partition.delete_durable();
        if !exists {
            continue;
        }
        match move_to_quarantine(shared, &shared.files.partition_dir(id)) {
            Ok(to) => {
                shared.health.found(UnhealthyRange {
                    partition: None,
                    from: 0,
                    to: -1,
                    file: shared.files.relative(&to),
                    position: 0,
                    reason: Reason::UnlistedFile,
                    source: Source::Segment,
                    stage: Stage::Replay,
                    since_ms: now_ms(),
                });
                moved.push(to);
            }
            Err(error) => {
                shared.fail(&format!(
                    "cannot move the folder of {id} to quarantine: {error}"
                ));
                return moved;
            }
        }
    }
    moved
}

/// Replay: frames in order onto partitions.
struct Replay<'a> {
    shared: &'a Arc<Shared>,
    problems: Vec<Problem>,
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
                self.shared.metrics.torn_tail_truncations.inc();
                self.shared.metrics.truncated_bytes.inc_by(torn.bytes);
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
                counted = true;
                self.lost(&file, one);
            }
            self.frame(frame, &pin)?;
        }
        for one in lost {
            counted = true;
            self.lost(&file, one);
        }
        if let Some(reason) = group.damage.filter(|_| !counted) {
            // Only a copy or padding is damaged: told, no offset is lost.
            self.problems
                .push(wal_range(None, &file, group.position, reason, (0, -1)));
        }
        drop(pin);
        self.relieve()
    }

    fn lost(&mut self, file: &str, lost: crate::wal::LostAppend) {
        let partition = self.partition(lost.partition);
        let Some(partition) = partition.filter(|p| p.applied() < lost.at) else {
            return;
        };
        let offsets = (lost.base_offset, lost.last_offset);
        let range = wal_range(
            Some(lost.partition),
            file,
            lost.file_position,
            lost.reason,
            offsets,
        );
        partition.lost_in_replay(range, lost.at);
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
            self.shared.flusher.late_frame(id, at);
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
                let next = partition.next_offset();
                if last_offset < next {
                    // A salvaged manifest is behind its own segments.
                    return Ok(());
                }
                if base_offset > next {
                    self.missing(&partition, (next, base_offset - 1), at);
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
            FrameBody::Truncate { to } => {
                partition.truncate_segments(to).map_err(stop)?;
                partition.truncate_replayed(to, at);
            }
            FrameBody::LogStart { offset } => partition.log_start_durable(offset, at),
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

    /// Offsets between what is known and what the WAL goes on with: nothing names them any more.
    fn missing(&self, partition: &Partition, offsets: (i64, i64), at: WalPosition) {
        let dir = self.shared.files.partition_dir(partition.id());
        let file = self.shared.files.relative(&dir);
        let range = wal_range(Some(partition.id()), &file, 0, Reason::Offsets, offsets);
        partition.lost_in_replay(range, at);
    }

    /// Flushes until tail memory is below half, as far as the volume has room.
    fn relieve(&self) -> Result<(), OpenError> {
        let budget = &self.shared.budget;
        while budget.used_bytes() >= budget.bytes_max() / 2 && !self.shared.is_read_only() {
            let Some(id) = self.shared.flusher.oldest() else {
                break;
            };
            flusher::flush(self.shared, id).map_err(stop)?;
        }
        Ok(())
    }

    /// Tells what was found in folders of partitions that still exist.
    fn finish(self) {
        for problem in self.problems {
            let lost = problem.to >= problem.from;
            match problem.partition.and_then(|id| self.shared.partition(id)) {
                Some(partition) if lost => partition.found_damage(problem),
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
