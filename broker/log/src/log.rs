//! The log of one data volume: opening it, committing to it, its periodic work, its health, its end.
//!
//! Owns the handle and the threads behind it. What a start does stands in [`crate::recovery`].

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::budget::{Reservation, TailBudget};
use crate::compactor::Compactor;
use crate::directory::DirectoryAt;
use crate::disk::{Disk, RealDisk, Space};
use crate::flusher::{self, Stop};
use crate::folders;
use crate::health::{Health, UNHEALTHY_RANGES_MAX, WalNumbers};
use crate::ids::PartitionId;
use crate::metrics::LogMetrics;
use crate::options::{CompactionPace, Options, PartitionConfig};
use crate::partition::slots::Slots;
use crate::partition::{
    AppendError, Appended, Observer, Partition, ProducedBatch, Staged, State, TruncateError,
};
use crate::recovery;
use crate::scrub::Scrubber;
use crate::shared::{FrameKey, Shared};
use crate::wal::{Class, Frame, FrameBody, Wal};

/// What the frames of one entry (an epoch start besides) take in a group beyond the batch.
const FRAME_BYTES: u64 = 128;
/// How long a stop waits for queued batches to become durable.
const STOP_DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the log tells the process.
pub trait Hooks: Send + Sync {
    /// Durability can no longer be promised: the process must exit with a code that is not 0. Called once.
    fn fatal(&self, reason: &str);
    /// Replay has this many WAL bytes left.
    fn recovery_progress(&self, remaining_bytes: u64);
}

/// Why a data directory could not be opened. The text is for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OpenError {
    pub(crate) message: String,
}

/// Who this volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id.
    pub cluster_id: String,
    /// Broker id.
    pub broker_id: i32,
    /// Id of this data directory, made once.
    pub directory_id: String,
    /// Starts of this directory, this one included.
    pub boot: u64,
    /// What this directory was accepted in place of, if it ever was.
    pub replaces: Option<DirectoryAt>,
    /// How the run before this one ended: empty after a kill, "stopped" after a clean stop, else its first failure.
    pub last_exit: String,
}

/// One part of a [`Log::commit`].
pub enum Entry {
    /// Append a batch. A partition is appended to by commits only, or by [`Partition::append`] only.
    Append {
        /// To this partition.
        partition: Arc<Partition>,
        /// The batch; its offsets are assigned here.
        batch: ProducedBatch,
        /// Leader epoch to stamp.
        leader_epoch: i32,
    },
    /// Delete the partition and give its disk back. No append to it succeeds afterwards.
    DeletePartition(PartitionId),
    /// Move the log start (DeleteRecords). Lower than now: changes nothing. Capped to the durable offset.
    LogStart {
        /// Of this partition.
        partition: PartitionId,
        /// First offset that stays readable.
        offset: i64,
    },
}

/// An open data directory.
pub struct Log {
    shared: Arc<Shared>,
    identity: Identity,
    flusher: Mutex<Option<JoinHandle<()>>>,
    scrubber: Scrubber,
    compactor: Compactor,
    /// Commits are made one after the other.
    commits: Mutex<()>,
}

/// Opens a data directory: takes the lock, replays the WAL, starts the threads. Blocks until all that is done.
pub fn open(
    options: Options,
    metrics: Arc<LogMetrics>,
    hooks: Arc<dyn Hooks>,
) -> Result<Log, OpenError> {
    open_on(Arc::new(RealDisk), options, metrics, hooks)
}

/// [`open`] on a disk of the caller's.
pub fn open_on(
    disk: Arc<dyn Disk>,
    options: Options,
    metrics: Arc<LogMetrics>,
    hooks: Arc<dyn Hooks>,
) -> Result<Log, OpenError> {
    let (shared, identity) = recovery::open(disk, options, (metrics, hooks), Wal::start)?;
    let thread = {
        let shared = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("flusher".to_owned());
        builder.spawn(move || flusher::run(&shared))
    };
    let thread = thread.map_err(|e| OpenError {
        message: format!("cannot start the flusher: {e}"),
    })?;
    publish(&shared);
    let log = Log {
        scrubber: Scrubber::new(&shared),
        compactor: Compactor::new(),
        shared,
        identity,
        flusher: Mutex::new(Some(thread)),
        commits: Mutex::new(()),
    };
    log.scrubber.start(&log.shared).map_err(|e| OpenError {
        message: format!("cannot start the scrubber: {e}"),
    })?;
    log.compactor.start(&log.shared).map_err(|e| OpenError {
        message: format!("cannot start the compactor: {e}"),
    })?;
    Ok(log)
}

impl Log {
    /// A log without a flusher: whoever opened it makes every step (the simulator).
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn by_hand(shared: &Arc<Shared>, identity: Identity) -> Log {
        Log {
            scrubber: Scrubber::new(shared),
            compactor: Compactor::new(),
            shared: Arc::clone(shared),
            identity,
            flusher: Mutex::new(None),
            commits: Mutex::new(()),
        }
    }

    /// Who this volume is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The partitions that the start found, and those opened since, in order.
    pub fn partition_ids(&self) -> Vec<PartitionId> {
        let mut ids: Vec<PartitionId> = self.shared.partitions.read().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The partition with this id: the one that recovery found, or a new, empty one.
    pub fn open_partition(
        &self,
        id: PartitionId,
        config: PartitionConfig,
        observer: Arc<dyn Observer>,
    ) -> Arc<Partition> {
        let partition = {
            let mut partitions = self.shared.partitions.write();
            let found = partitions.entry(id);
            Arc::clone(found.or_insert_with(|| {
                let partition = Partition::new(&self.shared, id, Slots::none(id));
                partition.pass_given_up();
                Arc::new(partition)
            }))
        };
        // A partition's lock is never taken under the map's: a commit takes them the other way round.
        partition.attach(config, observer);
        partition
    }

    /// The partition, if it exists.
    pub fn partition(&self, id: PartitionId) -> Option<Arc<Partition>> {
        self.shared.partition(id)
    }

    /// Moves the folder of every partition that is not `known` to `quarantine/`; returns where they went. Called once
    /// the metadata is known, before anything is appended.
    pub fn quarantine_unknown(&self, known: &HashSet<PartitionId>) -> Vec<PathBuf> {
        folders::quarantine_unknown(&self.shared, known)
    }

    /// Commits all entries in one group of the control class; `done` is called on the WAL thread once they are durable.
    /// Returns where the appends went, in order.
    pub fn commit(
        &self,
        entries: Vec<Entry>,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<Vec<Appended>, AppendError> {
        let _one_at_a_time = self.commits.lock();
        let (pins, bytes) = self.reserve(&entries)?;
        self.shared
            .admit_control(bytes + FRAME_BYTES * entries.len() as u64)?;
        let targets = targets(&entries);
        let mut guards: HashMap<
            PartitionId,
            (parking_lot::MutexGuard<'_, State>, &Partition, i64),
        > = targets
            .iter()
            .map(|(id, p)| (*id, (p.state.lock(), p.as_ref(), p.next_offset())))
            .collect();
        let (staged, frames, key) = stage(&self.shared, &entries, &mut guards)?;
        let Some(key) = key else {
            drop(guards);
            done();
            return Ok(Vec::new());
        };
        self.shared.wait_for(key, done);
        if let Err(error) = self.shared.submit(Class::Control, frames) {
            self.shared.stop_waiting(key);
            return Err(error);
        }
        let mut appended = Vec::with_capacity(staged.len());
        for ((id, staged), pin) in staged.into_iter().zip(pins) {
            if let Some((state, partition, _)) = guards.get_mut(&id) {
                appended.push(partition.adopt(state, staged, Some(pin)));
            }
        }
        drop(guards);
        for entry in &entries {
            if let Entry::DeletePartition(id) = entry
                && let Some(partition) = self.shared.partition(*id)
            {
                partition.mark_deleted();
            }
        }
        Ok(appended)
    }

    /// Takes back everything of a partition from `to` on, which is the log start, the end, or the base offset of a batch
    /// (leader epochs start at one). Queued appends count: the frame follows them. `done` is called on the flusher's
    /// thread when the truncation is durable and carried out; it must not block, and is dropped uncalled when the
    /// partition is deleted or the log ends before. Nothing may be appended to the partition until then. Reads a file
    /// if it must.
    pub fn truncate(
        &self,
        partition: &Partition,
        to: i64,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), TruncateError> {
        partition.truncate(to, done, &self.commits)
    }

    /// Tail memory for the appends of a commit: from the control reserve where the caller has none.
    fn reserve(&self, entries: &[Entry]) -> Result<(Vec<Arc<Reservation>>, u64), AppendError> {
        let mut pins = Vec::new();
        let mut sum = 0;
        for entry in entries {
            let Entry::Append { batch, .. } = entry else {
                continue;
            };
            let bytes = batch.bytes.len() as u64;
            sum += bytes;
            pins.push(match &batch.pin {
                Some(pin) => Arc::clone(pin),
                None => {
                    let taken = self.shared.budget.try_reserve_control(bytes);
                    Arc::new(taken.ok_or(AppendError::TailFull)?)
                }
            });
        }
        Ok((pins, sum))
    }

    /// The bound on tail memory.
    pub fn tail_budget(&self) -> Arc<TailBudget> {
        Arc::clone(&self.shared.budget)
    }

    /// The largest batch that can ever be appended, whatever a topic allows.
    pub fn batch_bytes_max(&self) -> u64 {
        self.shared.batch_bytes_max()
    }

    /// How compaction goes on.
    pub fn compaction(&self) -> CompactionPace {
        self.shared.compaction_pace()
    }

    /// From the next partition on, compaction goes on like this.
    pub fn set_compaction(&self, pace: CompactionPace) {
        self.shared.set_compaction(pace);
    }

    /// Where the data is, as the options named it.
    pub fn data_dir(&self) -> &Path {
        self.shared.files.root()
    }

    /// The size and the room of the volume. Asks the system: for a thread that may block.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn space(&self) -> io::Result<Space> {
        let files = &self.shared.files;
        files.disk().space(files.root())
    }

    /// Looks at the free space and brings the gauges up to date. Called about once a second, from a thread that may
    /// block.
    pub fn watch(&self) {
        self.shared.watch_space();
        publish(&self.shared);
    }

    /// Applies retention, and does what [`Log::watch`] does. Called as often as old segments are to be looked for, from
    /// a thread that may block.
    pub fn tick(&self, now_ms: i64) {
        let partitions: Vec<Arc<Partition>> =
            self.shared.partitions.read().values().cloned().collect();
        {
            let _one_at_a_time = self.commits.lock();
            for partition in partitions {
                partition.apply_retention(now_ms);
            }
        }
        self.watch();
    }

    /// Health now.
    pub fn health(&self) -> Health {
        let stats = self.shared.wal().stats();
        let accepted = self.shared.losses().all();
        let newest = accepted.iter().rev().take(UNHEALTHY_RANGES_MAX);
        let picture = self.shared.health.picture(WalNumbers {
            files: stats.files as u64,
            size_bytes: stats.size_bytes,
            durable_group: stats.durable_group,
            oldest_group: stats.oldest_group,
            boot: stats.boot,
        });
        Health {
            accepted: newest.cloned().collect(),
            accepted_total: accepted.len() as u64,
            ..picture
        }
    }

    /// Flushes everything, seals the WAL, writes the checkpoint and ends the threads. Appends fail afterwards.
    pub fn shutdown(&self) {
        self.shared.close();
        self.scrubber.stop();
        self.compactor.stop();
        let deadline = Instant::now() + STOP_DRAIN_MAX;
        let partitions: Vec<Arc<Partition>> =
            self.shared.partitions.read().values().cloned().collect();
        for partition in partitions {
            while partition.durable_offset() < partition.next_offset()
                && !self.shared.has_failed()
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.end(Stop::Flush);
        if !self.shared.has_failed() {
            self.shared.node.record_exit(recovery::CLEAN_EXIT);
        }
    }

    fn end(&self, how: Stop) {
        let Some(thread) = self.flusher.lock().take() else {
            return;
        };
        self.shared.close();
        self.scrubber.stop();
        self.compactor.stop();
        self.shared.flusher.stop(how);
        if thread.join().is_err() {
            tracing::error!("the flusher ended by a panic");
        }
        match how {
            Stop::Flush => self.shared.wal().shutdown(),
            // Before the partitions go: a group that is just being written still finds them.
            Stop::Now => self.shared.wal().abandon(),
        }
        self.shared.let_go();
    }
}

/// Brings the gauges up to date.
fn publish(shared: &Shared) {
    let metrics = &shared.metrics;
    let stats = shared.wal().stats();
    metrics.wal_files.set(stats.files as i64);
    metrics.wal_size_bytes.set(stats.size_bytes as i64);
    metrics
        .tail_memory_bytes
        .set(shared.budget.used_bytes() as i64);
    metrics
        .oldest_unflushed_age
        .set(shared.flusher.oldest_age().as_secs_f64());
}

impl Drop for Log {
    fn drop(&mut self) {
        self.end(Stop::Now);
    }
}

/// The partitions that a commit appends to, each once, in the order in which their locks are taken.
fn targets(entries: &[Entry]) -> Vec<(PartitionId, Arc<Partition>)> {
    let mut targets: Vec<(PartitionId, Arc<Partition>)> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Append { partition, .. } => Some((partition.id(), Arc::clone(partition))),
            Entry::DeletePartition(_) | Entry::LogStart { .. } => None,
        })
        .collect();
    targets.sort_by_key(|(id, _)| *id);
    targets.dedup_by_key(|(id, _)| *id);
    targets
}

type Guards<'a> = HashMap<PartitionId, (parking_lot::MutexGuard<'a, State>, &'a Partition, i64)>;
type StagedCommit = (Vec<(PartitionId, Staged)>, Vec<Frame>, Option<FrameKey>);

/// The frames of a commit, and the last one of them. Entries that change nothing make no frame.
fn stage(
    shared: &Shared,
    entries: &[Entry],
    guards: &mut Guards<'_>,
) -> Result<StagedCommit, AppendError> {
    let (mut staged, mut frames, mut key) = (Vec::new(), Vec::new(), None);
    for entry in entries {
        match entry {
            Entry::Append {
                partition,
                batch,
                leader_epoch,
            } => {
                let id = partition.id();
                let (state, target, next) = guards.get_mut(&id).expect("every target is locked");
                let one = target.stage(state, Class::Control, batch, (*next, *leader_epoch))?;
                *next = one.last_offset + 1;
                frames.extend(one.frames(id));
                key = Some(FrameKey::Append(id, one.base_offset()));
                staged.push((id, one));
            }
            Entry::DeletePartition(id) => {
                let live = shared.partition(*id).is_some_and(|p| !p.is_deleted());
                if live {
                    frames.push(Frame {
                        partition: *id,
                        body: FrameBody::DeletePartition,
                    });
                    key = Some(FrameKey::Delete(*id));
                }
            }
            Entry::LogStart {
                partition: id,
                offset,
            } => {
                let Some(partition) = shared.partition(*id).filter(|p| !p.is_deleted()) else {
                    continue;
                };
                let end = partition.durable_offset().min(partition.truncating_to());
                let offset = (*offset).min(end);
                if offset > partition.log_start() {
                    frames.push(Frame {
                        partition: *id,
                        body: FrameBody::LogStart { offset },
                    });
                    key = Some(FrameKey::LogStart(*id, offset));
                }
            }
        }
    }
    Ok((staged, frames, key))
}
