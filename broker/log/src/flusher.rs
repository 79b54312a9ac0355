//! The background thread that moves tails into segments, and the checkpoint that follows from it.
//!
//! Owns which partition is flushed next and how far the WAL may be recycled. Never waits for the WAL writer.
//!
//! A partition is flushed when it has enough pending, when tail memory runs short or too many WAL files are held back
//! (the one with the oldest frame first), and, paced, when its oldest frame has waited long.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod by_hand;
mod together;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub(crate) use self::together::{TOGETHER_MAX, flush_many};
use crate::ids::PartitionId;
use crate::partition::Partition;
use crate::partition::pass::Pass;
use crate::partition::segments::FlushError;
use crate::shared::Shared;
use crate::wal::WalPosition;

/// The part of the WAL's files that may be held back before the oldest partitions are flushed, and how many at least;
/// there are at least four, so one is always free. Tail memory is the bound to be met first: it lets flushes be as large
/// as memory allows. This one is met by partitions that get little, and bounds what a start reads.
const HELD_FILES_DIVISOR: u64 = 4;
const HELD_FILES_MIN: u64 = 3;
/// Time between two flushes that nothing but age asks for: they must not be felt.
const AGED_PACE: Duration = Duration::from_millis(40);
/// A checkpoint that frees no file is written no more often than this.
const CHECKPOINT_PACE: Duration = Duration::from_secs(1);
/// How long the thread sleeps when nothing is due.
const NAP: Duration = Duration::from_millis(50);
/// How often a full volume is looked at again.
const FULL_PACE: Duration = Duration::from_secs(1);
/// Priority of the thread below that of the process: a third of the weight of the others.
const NICE: i32 = 5;
/// How long a clean stop flushes; what is left is in the WAL.
const STOP_FLUSH_MAX: Duration = Duration::from_secs(5);

/// The flusher's queue.
pub(crate) struct Flusher {
    work: Mutex<Work>,
    wake: Condvar,
}

struct Work {
    queue: VecDeque<PartitionId>,
    repairs: VecDeque<(PartitionId, i64)>,
    /// Every partition whose folder does not reflect all durable frames, by its oldest such frame, and since when.
    holds: BTreeMap<(WalPosition, PartitionId), Instant>,
    graves: HashMap<PartitionId, Grave>,
    /// Newest group that was handed to partitions, and its WAL file's generation.
    processed_group: u64,
    processed_generation: u64,
    checkpoint: u64,
    checkpoint_at: Instant,
    /// Frames up to this group go into segments now: the WAL does not give it back.
    urgent_group: u64,
    aged_at: Instant,
    stop: Option<Stop>,
}

/// A deleted partition whose folder must be removed before the checkpoint may pass its frame.
struct Grave {
    deleted_at: WalPosition,
    /// Newest frame of the partition: what was queued when it was deleted.
    last_frame: WalPosition,
    /// Appends and a truncation that are still queued. The delete frame must be replayed as long as one of them may be.
    queued: usize,
    /// What is left of it; `None` once its folder is gone.
    left: Option<Arc<Partition>>,
}

impl Grave {
    /// Whether replay from `group` on would need the delete frame.
    fn is_needed_at(&self, group: u64) -> bool {
        self.left.is_some() || self.queued > 0 || group <= self.last_frame.group
    }
}

/// How the thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Flush what can be flushed, then write the checkpoint.
    Flush,
    /// At once.
    Now,
}

enum Task {
    Flush(Vec<PartitionId>),
    Repair(PartitionId, i64),
    Bury(PartitionId),
    Checkpoint(u64),
    /// Look whether a full volume has room again.
    Look,
    Nothing,
    Stop(Stop),
}

impl Flusher {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Flusher {
            work: Mutex::new(Work {
                queue: VecDeque::new(),
                repairs: VecDeque::new(),
                holds: BTreeMap::new(),
                graves: HashMap::new(),
                processed_group: 0,
                processed_generation: 0,
                checkpoint: 0,
                checkpoint_at: now,
                urgent_group: 0,
                aged_at: now,
                stop: None,
            }),
            wake: Condvar::new(),
        }
    }

    /// The partition wants to be flushed.
    pub(crate) fn request(&self, id: PartitionId) {
        self.work.lock().queue.push_back(id);
        self.wake.notify_one();
    }

    /// `.sum` and `.idx` of a segment want to be rebuilt.
    pub(crate) fn request_repair(&self, id: PartitionId, base_offset: i64) {
        let mut work = self.work.lock();
        if !work.repairs.contains(&(id, base_offset)) {
            work.repairs.push_back((id, base_offset));
            self.wake.notify_one();
        }
    }

    /// What frames up to this group hold is to be flushed as soon as possible.
    pub(crate) fn flush_up_to(&self, group: u64) {
        let mut work = self.work.lock();
        work.urgent_group = work.urgent_group.max(group);
        self.wake.notify_one();
    }

    /// Something that is not in the queue changed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// A partition's oldest unreflected frame changed.
    pub(crate) fn hold_moved(
        &self,
        id: PartitionId,
        old: Option<WalPosition>,
        new: Option<WalPosition>,
    ) {
        let mut work = self.work.lock();
        if let Some(old) = old {
            work.holds.remove(&(old, id));
        }
        if let Some(new) = new {
            if work.holds.is_empty() {
                self.wake.notify_one();
            }
            work.holds.insert((new, id), Instant::now());
        }
    }

    /// All frames of a group (and of those before it) are known to their partitions.
    pub(crate) fn group_processed(&self, group: u64, generation: u64) {
        let mut work = self.work.lock();
        work.processed_group = work.processed_group.max(group);
        work.processed_generation = work.processed_generation.max(generation);
    }

    /// A partition was deleted; its folder is to be removed.
    pub(crate) fn bury(&self, partition: Arc<Partition>, at: WalPosition, queued: usize) {
        let id = partition.id();
        let grave = Grave {
            deleted_at: at,
            last_frame: at,
            queued,
            left: Some(partition),
        };
        self.work.lock().graves.insert(id, grave);
        self.wake.notify_one();
    }

    /// A frame of a partition that is not there. It was deleted while the frame was queued.
    pub(crate) fn late_frame(&self, id: PartitionId, at: WalPosition, is_counted: bool) {
        let mut work = self.work.lock();
        let grave = work.graves.get_mut(&id);
        let grave = grave.unwrap_or_else(|| panic!("a frame of partition {id}, which never was"));
        grave.last_frame = grave.last_frame.max(at);
        if is_counted {
            grave.queued = grave.queued.saturating_sub(1);
        }
    }

    pub(crate) fn is_buried(&self, id: PartitionId) -> bool {
        self.work.lock().graves.contains_key(&id)
    }

    /// Lets go of partitions, once the thread has ended.
    pub(crate) fn clear(&self) {
        self.work.lock().graves.clear();
    }

    /// Ends the thread.
    pub(crate) fn stop(&self, how: Stop) {
        self.work.lock().stop = Some(how);
        self.wake.notify_one();
    }

    /// Age of the oldest unreflected frame.
    pub(crate) fn oldest_age(&self) -> Duration {
        self.work
            .lock()
            .holds
            .values()
            .next()
            .map_or(Duration::ZERO, Instant::elapsed)
    }

    /// The partitions that hold back the oldest frames.
    pub(crate) fn oldest(&self, count: usize) -> Vec<PartitionId> {
        self.work.lock().oldest(count)
    }

    fn next_task(&self, shared: &Shared) -> Task {
        let pressure = Pressure::of(shared);
        let mut work = self.work.lock();
        if let Some(task) = work.choose(&pressure) {
            return task;
        }
        if pressure.full {
            self.wake.wait_for(&mut work, FULL_PACE);
            return Task::Look;
        }
        if work.holds.is_empty() && work.is_settled() {
            self.wake.wait(&mut work);
        } else {
            self.wake.wait_for(&mut work, NAP);
        }
        Task::Nothing
    }
}

/// What asks for flushes besides the queue.
struct Pressure {
    /// Generation of the oldest WAL file that is held back, and the first group behind it.
    oldest_file: Option<(u64, u64)>,
    /// So many files held back are too many.
    held_files_max: u64,
    /// The WAL runs short of files: the checkpoint must reach this group.
    wanted: Option<u64>,
    /// Tail memory runs short.
    memory: bool,
    /// The volume has no room.
    full: bool,
    flush_after: Duration,
}

impl Pressure {
    fn of(shared: &Shared) -> Self {
        Pressure {
            oldest_file: shared.wal().oldest_file(),
            held_files_max: (shared.wal().files_max() as u64 / HELD_FILES_DIVISOR)
                .max(HELD_FILES_MIN),
            wanted: shared.wal().wants_checkpoint(),
            memory: shared.budget.presses(),
            full: shared.is_read_only(),
            flush_after: shared.options.flush_after,
        }
    }

    /// The group below which frames must go into segments now.
    fn needed(&self, newest_generation: u64) -> u64 {
        let held = |oldest: u64| (newest_generation + 1).saturating_sub(oldest);
        let behind = self
            .oldest_file
            .filter(|(oldest, _)| held(*oldest) >= self.held_files_max);
        self.wanted.max(behind.map(|(_, group)| group)).unwrap_or(0)
    }
}

impl Work {
    fn choose(&mut self, pressure: &Pressure) -> Option<Task> {
        if let Some(stop) = self.stop {
            return Some(Task::Stop(stop));
        }
        if let Some((id, _)) = self.graves.iter().find(|(_, grave)| grave.left.is_some()) {
            return Some(Task::Bury(*id));
        }
        let candidate = self.candidate();
        let behind = pressure
            .oldest_file
            .map(|(_, group)| group)
            .into_iter()
            .chain(pressure.wanted);
        let frees = behind
            .into_iter()
            .any(|group| candidate >= group && self.checkpoint < group);
        let due = candidate > self.checkpoint && self.checkpoint_at.elapsed() >= CHECKPOINT_PACE;
        if frees || due {
            return Some(Task::Checkpoint(candidate));
        }
        if !self.queue.is_empty() {
            let count = self.queue.len().min(TOGETHER_MAX);
            return Some(Task::Flush(self.queue.drain(..count).collect()));
        }
        if pressure.full {
            return None;
        }
        let needed = pressure.needed(self.processed_generation);
        let presses =
            |at: WalPosition| pressure.memory || at.group < needed || at.group <= self.urgent_group;
        let pressing: Vec<PartitionId> = self
            .holds
            .keys()
            .take_while(|(at, _)| presses(*at))
            .map(|(_, id)| *id)
            .take(TOGETHER_MAX)
            .collect();
        if !pressing.is_empty() {
            return Some(Task::Flush(pressing));
        }
        if let Some(((_, id), since)) = self.holds.first_key_value()
            && since.elapsed() >= pressure.flush_after
            && self.aged_at.elapsed() >= AGED_PACE
        {
            self.aged_at = Instant::now();
            return Some(Task::Flush(vec![*id]));
        }
        self.repairs
            .pop_front()
            .map(|(id, base)| Task::Repair(id, base))
    }

    /// The partitions with the oldest unreflected frames.
    fn oldest(&self, count: usize) -> Vec<PartitionId> {
        self.holds.keys().take(count).map(|(_, id)| *id).collect()
    }

    fn is_settled(&self) -> bool {
        self.repairs.is_empty() && self.candidate() <= self.checkpoint
    }

    /// The first group that replay would still need.
    fn candidate(&self) -> u64 {
        let mut group = self.processed_group + 1;
        if let Some(((at, _), _)) = self.holds.first_key_value() {
            group = group.min(at.group);
        }
        // A delete frame is needed as long as any frame of its partition is. One grave can bring another back in.
        loop {
            let needed = self.graves.values().filter(|g| g.is_needed_at(group));
            let lower = needed
                .map(|g| g.deleted_at.group)
                .min()
                .unwrap_or(group)
                .min(group);
            if lower == group {
                return group;
            }
            group = lower;
        }
    }

    fn checkpoint_written(&mut self, group: u64) {
        self.checkpoint = group;
        self.checkpoint_at = Instant::now();
        self.graves.retain(|_, grave| grave.is_needed_at(group));
    }
}

/// The thread's body.
pub(crate) fn run(shared: &Arc<Shared>) {
    step_back();
    loop {
        let result = match shared.flusher.next_task(shared) {
            Task::Flush(ids) => flush_many(shared, ids),
            Task::Repair(id, base) => repair(shared, id, base),
            Task::Bury(id) => bury(shared, id),
            Task::Checkpoint(group) => checkpoint(shared, group),
            Task::Look => {
                shared.watch_space();
                Ok(())
            }
            Task::Nothing => Ok(()),
            Task::Stop(Stop::Now) => return,
            Task::Stop(Stop::Flush) => {
                let result = flush_all(shared);
                if let Err(reason) = result {
                    shared.fail(&reason);
                }
                return;
            }
        };
        if let Err(reason) = result {
            shared.fail(&reason);
            return;
        }
    }
}

/// Lets this thread, and those that it starts, have less of the cores than the commits beside it: theirs is the latency
/// that is felt, and producers that are faster than the flusher are stopped by the bound of tail memory.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the flusher keeps the priority of the process");
    }
}

fn put_off(shared: &Shared, error: &FlushError) {
    tracing::warn!(%error, "flush put off");
    shared.set_read_only(true);
}

/// Flushes one partition. A full volume makes the log read-only; `Err` is the reason why the process must end.
pub(crate) fn flush(shared: &Arc<Shared>, id: PartitionId) -> Result<(), String> {
    flush_while(shared, id, || !shared.is_read_only())
}

/// Moves data while `has_room` and the volume allow it; what needs no room is done in any case.
fn flush_while(
    shared: &Shared,
    id: PartitionId,
    has_room: impl Fn() -> bool,
) -> Result<(), String> {
    let Some(partition) = shared.partition(id) else {
        return Ok(());
    };
    let mut full = !has_room();
    loop {
        let result = if full {
            partition.manifest_pass()
        } else {
            partition.flush_pass()
        };
        match result {
            Ok(Pass::More) if !full => full = !has_room(),
            Ok(Pass::More | Pass::Done | Pass::Idle) | Err(FlushError::Deleted) => return Ok(()),
            Err(error @ FlushError::Fatal { .. }) => return Err(error.to_string()),
            Err(error @ FlushError::NoRoom { .. }) => {
                put_off(shared, &error);
                if full {
                    return Ok(());
                }
                full = true;
            }
        }
    }
}

/// For a start whose WAL is full: frames below `group` go into segments, and into the room that is kept back, too, since
/// without it there is no start. Returns how far the checkpoint may move.
pub(crate) fn flush_below(shared: &Arc<Shared>, group: u64) -> Result<u64, String> {
    let (graves, ids) = {
        let work = shared.flusher.work.lock();
        let left = work.graves.iter().filter(|(_, grave)| grave.left.is_some());
        let graves: BTreeSet<PartitionId> = left.map(|(id, _)| *id).collect();
        let below = work.holds.keys().take_while(|(at, _)| at.group < group);
        let ids: Vec<PartitionId> = below.map(|(_, id)| *id).collect();
        (graves, ids)
    };
    tracing::warn!(
        partitions = ids.len(),
        deleted = graves.len(),
        "the write-ahead log is full: what it holds is moved before the start goes on"
    );
    for id in graves {
        bury(shared, id)?;
    }
    for id in ids {
        flush_while(shared, id, || true)?;
    }
    Ok(shared.flusher.work.lock().candidate())
}

fn repair(shared: &Arc<Shared>, id: PartitionId, base: i64) -> Result<(), String> {
    let Some(partition): Option<Arc<Partition>> = shared.partition(id) else {
        return Ok(());
    };
    match partition.rebuild_index(base) {
        Ok(()) | Err(FlushError::Deleted) => Ok(()),
        Err(error @ FlushError::Fatal { .. }) => Err(error.to_string()),
        Err(error @ FlushError::NoRoom { .. }) => {
            tracing::warn!(%error, "index not rebuilt");
            Ok(())
        }
    }
}

/// Removes the folder of a deleted partition.
fn bury(shared: &Arc<Shared>, id: PartitionId) -> Result<(), String> {
    let left = {
        let work = shared.flusher.work.lock();
        work.graves.get(&id).and_then(|grave| grave.left.clone())
    };
    let Some(partition) = left else {
        return Ok(());
    };
    // Asked for here, on the thread that flushes: a pass that was under way may have made the folder only then.
    let slots = partition.state.lock().slots.clone();
    if slots.exist() {
        // A compaction sees that the partition is deleted, and ends.
        let _no_other_files = partition.compaction.lock();
        let removed = shared.files.remove_partition(id, slots);
        removed.map_err(|e| format!("cannot delete the folder of {id}: {e}"))?;
    }
    if let Some(grave) = shared.flusher.work.lock().graves.get_mut(&id) {
        grave.left = None;
    }
    shared.watch_space();
    Ok(())
}

fn checkpoint(shared: &Arc<Shared>, group: u64) -> Result<(), String> {
    shared
        .wal()
        .set_checkpoint(group)
        .map_err(|e| format!("cannot write the checkpoint: {e}"))?;
    shared.flusher.work.lock().checkpoint_written(group);
    shared.checkpoint_moved(group);
    Ok(())
}

/// A clean stop: everything that is durable goes into segments, as far as time and room allow.
fn flush_all(shared: &Arc<Shared>) -> Result<(), String> {
    let start = Instant::now();
    while start.elapsed() < STOP_FLUSH_MAX && !shared.is_read_only() {
        let (grave, ids) = {
            let mut work = shared.flusher.work.lock();
            let grave = work
                .graves
                .iter()
                .find(|(_, g)| g.left.is_some())
                .map(|(id, _)| *id);
            let count = work.queue.len().min(TOGETHER_MAX);
            let mut ids: Vec<PartitionId> = work.queue.drain(..count).collect();
            ids.extend(work.oldest(TOGETHER_MAX));
            (grave, ids)
        };
        if let Some(id) = grave {
            bury(shared, id)?;
        }
        if grave.is_none() && ids.is_empty() {
            break;
        }
        flush_many(shared, ids)?;
    }
    let (candidate, written) = {
        let work = shared.flusher.work.lock();
        (work.candidate(), work.checkpoint)
    };
    if candidate > written {
        checkpoint(shared, candidate)
    } else {
        Ok(())
    }
}
