//! What all parts of an open log share: options, files, budget, book of health, partitions, and the running WAL.
//!
//! Owns the admission of appends, the watch over free space, and what a durable group sets off. Decides nothing about
//! one partition.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use crate::budget::TailBudget;
use crate::files::Files;
use crate::flusher::Flusher;
use crate::health::{HealthBook, UnhealthyRange};
use crate::ids::PartitionId;
use crate::log::Hooks;
use crate::losses::Losses;
use crate::metrics::{LogMetrics, Source, Stage};
use crate::node::Node;
use crate::options::{CompactionPace, Options, PartitionConfig, REPLAY_SEGMENT_BYTES};
use crate::partition::{AppendError, Partition};
use crate::wal::{
    Class, DurableGroup, Frame, FrameBody, Misread, QueueFull, Wal, WalPosition, WalSink,
};

/// Bytes that the WAL adds to a batch at most: its own frame header and that of an epoch start.
const FRAME_OVERHEAD_BYTES: u64 = 256;
/// The part of the volume that produced data leaves free for control writes, unless set.
const DISK_RESERVE_DIVISOR: u64 = 32;
/// That part is never less: manifests, snapshots and the metadata log go on being written.
const DISK_RESERVE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// And never more: on a large volume a thirty-second is too much to leave.
const DISK_RESERVE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Called when a commit is durable.
pub(crate) type Done = Box<dyn FnOnce() + Send>;

/// The last frame of a commit, by which its durability is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FrameKey {
    Append(PartitionId, i64),
    LogStart(PartitionId, i64),
    Delete(PartitionId),
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) options: Options,
    compaction: RwLock<CompactionPace>,
    pub(crate) metrics: Arc<LogMetrics>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) node: Arc<Node>,
    pub(crate) files: Files,
    pub(crate) health: HealthBook,
    pub(crate) budget: Arc<TailBudget>,
    pub(crate) flusher: Flusher,
    pub(crate) partitions: RwLock<HashMap<PartitionId, Arc<Partition>>>,
    losses: OnceLock<Losses>,
    wal: OnceLock<Wal>,
    batch_bytes_max: OnceLock<u64>,
    read_only: AtomicBool,
    closed: AtomicBool,
    failed: AtomicBool,
    /// WAL files with a group that could not be read back, and the newest such group.
    misread: Mutex<HashMap<String, u64>>,
    waiting: Mutex<HashMap<FrameKey, Vec<Done>>>,
    waiting_count: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        metrics: Arc<LogMetrics>,
        hooks: Arc<dyn Hooks>,
        node: Arc<Node>,
        files: Files,
    ) -> Arc<Self> {
        Arc::new(Shared {
            health: HealthBook::new(Arc::clone(&metrics)),
            budget: TailBudget::new(options.tail_bytes_max),
            flusher: Flusher::new(),
            partitions: RwLock::new(HashMap::new()),
            losses: OnceLock::new(),
            wal: OnceLock::new(),
            batch_bytes_max: OnceLock::new(),
            read_only: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            misread: Mutex::new(HashMap::new()),
            waiting: Mutex::new(HashMap::new()),
            waiting_count: AtomicUsize::new(0),
            compaction: RwLock::new(options.compaction),
            options,
            metrics,
            hooks,
            node,
            files,
        })
    }

    /// What was given up is known; it changes only while no broker runs.
    pub(crate) fn set_losses(&self, losses: Losses) {
        assert!(self.losses.set(losses).is_ok(), "losses are read once");
    }

    pub(crate) fn losses(&self) -> &Losses {
        let losses = self.losses.get();
        losses.expect("losses are read before the first partition")
    }

    /// The WAL is running.
    pub(crate) fn set_wal(&self, wal: Wal) {
        let wal_max = (wal.submit_bytes_max() as u64).saturating_sub(FRAME_OVERHEAD_BYTES);
        let bytes_max = wal_max.min(self.budget.data_bytes_max());
        assert!(self.wal.set(wal).is_ok(), "a log has one WAL");
        self.batch_bytes_max.get_or_init(|| bytes_max);
    }

    pub(crate) fn wal(&self) -> &Wal {
        self.wal.get().expect("appends start after the WAL runs")
    }

    /// Whether the start is not over: what a partition lacks may still come from the WAL, or turn out to be deleted.
    pub(crate) fn is_starting(&self) -> bool {
        self.wal.get().is_none()
    }

    /// Largest batch that WAL and tail can hold.
    pub(crate) fn batch_bytes_max(&self) -> u64 {
        self.batch_bytes_max.get().copied().unwrap_or(0)
    }

    /// What a partition that no one has opened yet is rolled by.
    pub(crate) fn replay_config(&self) -> PartitionConfig {
        PartitionConfig {
            segment_bytes: REPLAY_SEGMENT_BYTES,
            segment_ms: i64::MAX,
            retention_ms: -1,
            retention_bytes: -1,
            compaction: None,
        }
    }

    pub(crate) fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.partitions.read().get(&id).cloned()
    }

    /// Whether produced data of this size may be appended now.
    pub(crate) fn admit(&self, bytes: u64) -> Result<(), AppendError> {
        self.admit_control(bytes)?;
        if self.is_read_only() {
            return Err(AppendError::ReadOnly);
        }
        Ok(())
    }

    /// Whether a control write of this size may be appended now.
    pub(crate) fn admit_control(&self, bytes: u64) -> Result<(), AppendError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let bytes_max = self.batch_bytes_max();
        if bytes > bytes_max {
            return Err(AppendError::TooLarge { bytes, bytes_max });
        }
        Ok(())
    }

    pub(crate) fn submit(&self, class: Class, frames: Vec<Frame>) -> Result<(), AppendError> {
        self.wal()
            .submit(class, frames)
            .map_err(|QueueFull| AppendError::TailFull)
    }

    /// Partitions hold the log and the log its partitions: here the circle ends.
    pub(crate) fn let_go(&self) {
        self.partitions.write().clear();
        self.flusher.clear();
    }

    /// No append is taken from here on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Durability can no longer be promised. Returns so that the calling thread can end.
    pub(crate) fn fail(&self, reason: &str) {
        self.close();
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(reason, "the log has failed");
            self.node.record_exit(reason);
            self.hooks.fatal(reason);
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Release);
        if self.health.set_read_only(read_only) {
            if read_only {
                tracing::error!(
                    "the volume has no room: produced records are refused until it has"
                );
            } else {
                tracing::info!("the volume has room again: produced records are taken");
            }
        }
    }

    /// How compaction goes on.
    pub(crate) fn compaction_pace(&self) -> CompactionPace {
        *self.compaction.read()
    }

    /// From the next partition on, compaction goes on like this.
    pub(crate) fn set_compaction(&self, pace: CompactionPace) {
        *self.compaction.write() = pace;
    }

    /// Looks at the volume, which may have grown: read-only below the reserve of free space, writable again above one and a
    /// half times of it. The cap of the WAL follows.
    pub(crate) fn watch_space(&self) {
        let space = match self.files.disk().space(self.files.root()) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "cannot see the free space of the volume");
                return;
            }
        };
        self.metrics.disk_free_bytes.set(space.free_bytes as i64);
        self.metrics.disk_total_bytes.set(space.total_bytes as i64);
        if let Some(wal) = self.wal.get() {
            wal.follow_volume(space.total_bytes);
        }
        let reserve = self.options.disk_reserve_bytes.unwrap_or_else(|| {
            (space.total_bytes / DISK_RESERVE_DIVISOR)
                .clamp(DISK_RESERVE_BYTES_MIN, DISK_RESERVE_BYTES_MAX)
        });
        if space.free_bytes < reserve {
            self.set_read_only(true);
        } else if self.is_read_only() && space.free_bytes >= reserve + reserve / 2 {
            self.set_read_only(false);
            self.flusher.wake();
        }
    }

    /// `done` is called when the frame is durable.
    pub(crate) fn wait_for(&self, key: FrameKey, done: Done) {
        let mut waiting = self.waiting.lock();
        waiting.entry(key).or_default().push(done);
        self.waiting_count.fetch_add(1, Ordering::AcqRel);
    }

    /// The frame was not queued after all.
    pub(crate) fn stop_waiting(&self, key: FrameKey) {
        let mut waiting = self.waiting.lock();
        let Some(list) = waiting.get_mut(&key) else {
            return;
        };
        // Commits are made one after the other: the newest is the one that failed. Older ones may wait for the same
        // move of a log start.
        list.pop();
        self.waiting_count.fetch_sub(1, Ordering::AcqRel);
        if list.is_empty() {
            waiting.remove(&key);
        }
    }

    fn take_waiting(&self, key: FrameKey) -> Vec<Done> {
        let list = self.waiting.lock().remove(&key).unwrap_or_default();
        self.waiting_count.fetch_sub(list.len(), Ordering::AcqRel);
        list
    }

    /// A group is durable: offsets move, observers are told once per partition, commits are answered.
    fn group_durable(&self, group: &mut DurableGroup) {
        let mut touched: Vec<Arc<Partition>> = Vec::new();
        let mut done = Vec::new();
        let mut current: Option<Arc<Partition>> = None;
        for (number, frame) in group.frames.drain(..).enumerate() {
            let at = WalPosition {
                group: group.seq,
                frame: number as u32,
            };
            if self.waiting_count.load(Ordering::Acquire) > 0
                && let Some(key) = key_of(&frame)
            {
                done.extend(self.take_waiting(key));
            }
            if current.as_ref().is_none_or(|p| p.id() != frame.partition) {
                current = self.partition(frame.partition);
            }
            let Some(partition) = &current else {
                // These go through the partition's own queue, which a deletion may overtake.
                let is_counted = matches!(
                    frame.body,
                    FrameBody::Append { .. } | FrameBody::Truncate { .. }
                );
                self.flusher.late_frame(frame.partition, at, is_counted);
                continue;
            };
            let deleted = matches!(frame.body, FrameBody::DeletePartition);
            partition.frame_durable(frame.body, at);
            if deleted {
                self.partition_deleted(frame.partition, at);
                current = None;
            } else if partition.first_touch(group.seq) {
                touched.push(Arc::clone(partition));
            }
        }
        self.flusher.group_processed(group.seq, group.generation);
        if self.budget.presses() {
            self.flusher.wake();
        }
        for partition in touched {
            partition.tell_observer();
        }
        for done in done {
            done();
        }
    }

    /// A durable group cannot be read back. Its batches are still in memory, or in segments already: nothing is lost while
    /// the process lives, so they are flushed at once, and health is degraded until no replay would need the group.
    fn misread(&self, group: &Misread) {
        let file = group.file.display().to_string();
        tracing::error!(
            group = group.seq,
            file,
            position = group.position,
            reason = group.reason.label(),
            "a commit group cannot be read back: what it holds is flushed from memory now"
        );
        let newest = group.seq;
        let mut misread = self.misread.lock();
        let kept = misread.entry(file.clone()).or_insert(newest);
        *kept = newest.max(*kept);
        self.health.found(UnhealthyRange {
            partition: None,
            from: 0,
            to: -1,
            file,
            position: group.position,
            reason: group.reason,
            source: Source::Wal,
            stage: Stage::Append,
            since_ms: now_ms(),
        });
        drop(misread);
        self.flusher.flush_up_to(group.seq);
    }

    /// No replay needs a group below `checkpoint`: those that could not be read back among them matter no more.
    pub(crate) fn checkpoint_moved(&self, checkpoint: u64) {
        let mut misread = self.misread.lock();
        misread.retain(|file, newest| {
            if *newest < checkpoint {
                tracing::info!(file, "what could not be read back is in segments now");
                self.health.forget_file(file);
            }
            *newest >= checkpoint
        });
    }

    /// The partition is gone; its folder is removed by the flusher.
    pub(crate) fn partition_deleted(&self, id: PartitionId, at: WalPosition) {
        let gone = self.partitions.write().remove(&id);
        let Some(partition) = gone else { return };
        let queued = partition.delete_durable();
        self.flusher.bury(partition, at, queued);
    }
}

fn key_of(frame: &Frame) -> Option<FrameKey> {
    match &frame.body {
        FrameBody::Append { base_offset, .. } => {
            Some(FrameKey::Append(frame.partition, *base_offset))
        }
        FrameBody::LogStart { offset } => Some(FrameKey::LogStart(frame.partition, *offset)),
        FrameBody::DeletePartition => Some(FrameKey::Delete(frame.partition)),
        FrameBody::Truncate { .. }
        | FrameBody::EpochStart { .. }
        | FrameBody::Seal
        | FrameBody::Boot { .. } => None,
    }
}

/// The WAL's view of the log. Weak, so that a log that is dropped is gone.
pub(crate) struct Sink(pub(crate) Weak<Shared>);

impl WalSink for Sink {
    fn durable(&self, group: &mut DurableGroup) {
        if let Some(shared) = self.0.upgrade() {
            shared.group_durable(group);
        }
    }

    fn misread(&self, group: &Misread) {
        if let Some(shared) = self.0.upgrade() {
            shared.misread(group);
        }
    }

    fn fatal(&self, reason: &str) -> ! {
        if let Some(shared) = self.0.upgrade() {
            shared.fail(reason);
        }
        panic!("the write-ahead log has failed: {reason}");
    }
}

#[cfg(test)]
thread_local! {
    /// What [`now_ms`] says on this thread, for golden files.
    pub(crate) static NOW_MS: std::cell::Cell<Option<i64>> = const { std::cell::Cell::new(None) };
}

/// Unix time in ms, for `since` of what is found. Nothing is decided by it.
pub(crate) fn now_ms() -> i64 {
    #[cfg(test)]
    if let Some(now_ms) = NOW_MS.get() {
        return now_ms;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}
