//! The life of a log on a simulated disk: what is done to it, run after run, and what it must hold after each.
//!
//! Owns what one act means, and the check after a crash: everything is opened and read twice. Decides no faults.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use keelson_protocol::batch::{BatchHeader, patch_offset_and_epoch};
use keelson_protocol::builder::BatchBuilder;
use keelson_state::producers::ProducerTable;

use super::told::{Deletion, Op, Seen, Sent, Told};
use crate::disk::SimDisk;
use crate::flusher::by_hand::Piece;
use crate::stepped::{Dead, Stepped};
use crate::tests::support::{Rng, Watch, options};
use crate::{
    CompactionConfig, Entry, Options, Partition, PartitionConfig, PartitionId, ProducedBatch,
    TopicId, TruncateError,
};

pub(super) const DIR: &str = "/data";
/// Keys of a partition's records.
const KEYS: u64 = 6;
/// Partitions at any time.
pub(super) const PARTS: usize = 3;

/// One thing that is done to a log. Numbers are partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// A batch is queued.
    Append(usize),
    /// The same, from an idempotent producer.
    Produce(usize),
    /// The next append is of a new leader epoch.
    Epoch(usize),
    /// What is queued becomes one commit group.
    Write,
    /// The writer is idle for long.
    Seal,
    /// The flusher takes this partition.
    Flush(usize),
    /// The flusher takes all partitions, step by step together.
    FlushTogether,
    /// The checkpoint moves as far as it can.
    Checkpoint,
    /// The flusher does all that there is.
    Settle,
    /// Records are deleted from the front.
    LogStart(usize),
    /// Retention runs.
    Retain(usize),
    /// What can be compacted is.
    Compact(usize),
    /// The topic is deleted, and another one made.
    Delete(usize),
    /// A tail is taken back.
    Truncate(usize),
    /// A clean stop and another start.
    Restart,
}

/// A partition and what its clients know.
struct Part {
    told: Told,
    partition: Option<Arc<Partition>>,
    epoch: i32,
    sequence: i32,
}

/// A partition whose deletion was asked for, and whether that was acknowledged.
struct Gone {
    told: Told,
    done: Arc<AtomicBool>,
}

pub(super) struct Life {
    pub(super) disk: SimDisk,
    pub(super) rng: Rng,
    stepped: Option<Stepped>,
    parts: Vec<Part>,
    gone: Vec<Gone>,
    topics: u32,
    now_ms: i64,
}

pub(in crate::tests) fn sim_options() -> Options {
    Options {
        wal_file_bytes: Some(16 * 4096),
        wal_bytes_max: Some(4 * 16 * 4096),
        flush_pending_bytes: 1,
        flush_after: Duration::ZERO,
        ..options(Path::new(DIR))
    }
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 900,
        ..PartitionConfig::default()
    }
}

impl Life {
    pub(super) fn new(seed: u64) -> Life {
        let mut life = Life {
            disk: SimDisk::new(seed),
            rng: Rng::new(seed),
            stepped: None,
            parts: Vec::new(),
            gone: Vec::new(),
            topics: 0,
            now_ms: 1_000_000,
        };
        for _ in 0..PARTS {
            let part = life.fresh();
            life.parts.push(part);
        }
        life
    }

    fn fresh(&mut self) -> Part {
        self.topics += 1;
        let mut topic = [7; 16];
        topic[..4].copy_from_slice(&self.topics.to_be_bytes());
        let id = PartitionId {
            topic: TopicId(topic),
            index: 0,
        };
        Part {
            told: Told::new(id),
            partition: None,
            epoch: 0,
            sequence: 0,
        }
    }

    fn log(&self) -> &Stepped {
        self.stepped.as_ref().expect("the log is open")
    }

    fn open_part(&self, id: PartitionId) -> Arc<Partition> {
        let observer = Arc::new(Watch::default());
        self.log().log.open_partition(id, config(), observer)
    }

    /// Starts the process. Deletions that a crash took back are asked for again.
    pub(super) fn start(&mut self) -> Result<(), Dead> {
        let opened = Stepped::open(&self.disk, sim_options());
        self.stepped = Some(opened.map_err(|_| Dead)?);
        for number in 0..PARTS {
            let partition = self.open_part(self.parts[number].told.id);
            self.parts[number].partition = Some(partition);
        }
        let log = &self.log().log;
        let ids = self.gone.iter().map(|gone| gone.told.id);
        let again: Vec<PartitionId> = ids.filter(|id| log.partition(*id).is_some()).collect();
        for id in again {
            self.ask_deletion(id)?;
        }
        Ok(())
    }

    fn ask_deletion(&mut self, id: PartitionId) -> Result<(), Dead> {
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let tell = Box::new(move || flag.store(true, Ordering::Release));
        for gone in self.gone.iter_mut().filter(|gone| gone.told.id == id) {
            gone.done = Arc::clone(&done);
        }
        let entries = vec![Entry::DeletePartition(id)];
        self.log().log.commit(entries, tell).map_err(|_| Dead)?;
        Ok(())
    }

    /// Does all acts, or as many as the disk allows.
    pub(super) fn run(&mut self, acts: &[Act]) -> Result<(), Dead> {
        for act in acts {
            self.act(*act)?;
        }
        Ok(())
    }

    fn act(&mut self, act: Act) -> Result<(), Dead> {
        self.now_ms += 10;
        let result = match act {
            Act::Append(number) => self.append(number, false),
            Act::Produce(number) => self.append(number, true),
            Act::Epoch(number) => {
                self.parts[number].epoch += 1 + self.rng.below(2) as i32;
                Ok(())
            }
            Act::Write => self.stepped_mut().write(),
            Act::Seal => self.stepped_mut().seal(),
            Act::Flush(number) => {
                let id = self.parts[number].told.id;
                self.pieces(|piece| *piece == Piece::Flush(id))
            }
            Act::FlushTogether => self.stepped_mut().flush_together(),
            Act::Checkpoint => self.pieces(|piece| matches!(piece, Piece::Checkpoint(_))),
            Act::Settle => self.stepped_mut().settle(),
            Act::LogStart(number) => self.log_start(number),
            Act::Retain(number) => {
                self.retain(number);
                Ok(())
            }
            Act::Compact(number) => self.compact(number),
            Act::Delete(number) => self.delete(number),
            Act::Truncate(number) => self.truncate(number),
            Act::Restart => self.restart(),
        };
        self.update();
        result
    }

    fn stepped_mut(&mut self) -> &mut Stepped {
        self.stepped.as_mut().expect("the log is open")
    }

    fn pieces(&mut self, wanted: impl Fn(&Piece) -> bool) -> Result<(), Dead> {
        let stepped = self.stepped_mut();
        for piece in stepped.pieces().into_iter().filter(wanted) {
            stepped.run(piece)?;
        }
        Ok(())
    }

    fn append(&mut self, number: usize, idempotent: bool) -> Result<(), Dead> {
        if self.parts[number].told.is_truncating() {
            return Ok(());
        }
        let bytes = self.batch(number, idempotent);
        let header = BatchHeader::parse(&bytes).unwrap();
        let part = &mut self.parts[number];
        let batch = ProducedBatch {
            bytes: bytes.clone(),
            header,
            pin: None,
        };
        let partition = part.partition.as_ref().expect("an open partition");
        let appended = match partition.append(batch, part.epoch) {
            Ok(appended) => appended,
            Err(crate::AppendError::Closed) => return Err(Dead),
            Err(_) => return Ok(()),
        };
        let mut stored = bytes.to_vec();
        patch_offset_and_epoch(&mut stored, appended.base_offset, part.epoch);
        part.told.ops.push(Op::Append(Sent {
            base: appended.base_offset,
            last: appended.last_offset,
            epoch: part.epoch,
            bytes: stored,
        }));
        if idempotent {
            part.sequence += header.records_count;
        }
        Ok(())
    }

    fn batch(&mut self, number: usize, idempotent: bool) -> Bytes {
        let mut builder = BatchBuilder::new(self.now_ms);
        if idempotent {
            builder = builder.producer(100 + number as i64, 0, self.parts[number].sequence);
        }
        let size = match self.rng.below(16) {
            0 => 6000,
            _ => 20 + self.rng.below(100),
        };
        for _ in 0..1 + self.rng.below(3) {
            let value: Vec<u8> = (0..size).map(|_| self.rng.next() as u8).collect();
            let key = [b'k', self.rng.below(KEYS) as u8];
            let is_tombstone = self.rng.below(12) == 0;
            builder.push(Some(&key), (!is_tombstone).then_some(&value));
        }
        builder.build()
    }

    fn log_start(&mut self, number: usize) -> Result<(), Dead> {
        let part = &mut self.parts[number];
        let partition = part.partition.as_ref().expect("an open partition");
        let room = partition.durable_offset() - part.told.log_start;
        if part.told.is_truncating() || room == 0 {
            return Ok(());
        }
        let offset = part.told.log_start + 1 + self.rng.below(room as u64) as i64;
        part.told.asked.push(offset);
        let entry = Entry::LogStart {
            partition: part.told.id,
            offset,
        };
        let tell = Box::new(|| {});
        self.log().log.commit(vec![entry], tell).map_err(|_| Dead)?;
        Ok(())
    }

    fn retain(&mut self, number: usize) {
        let by_size = self.rng.below(2) == 0;
        let (retention_bytes, retention_ms) = match by_size {
            true => (self.rng.below(3000) as i64, -1),
            false => (-1, self.rng.below(400) as i64),
        };
        let part = &mut self.parts[number];
        let partition = part.partition.as_ref().expect("an open partition");
        partition.update_config(PartitionConfig {
            retention_bytes,
            retention_ms,
            ..config()
        });
        partition.apply_retention(self.now_ms);
        partition.update_config(config());
        let target = partition.state.lock().retention_target;
        if target > part.told.log_start {
            part.told.asked.push(target);
        }
    }

    fn compact(&mut self, number: usize) -> Result<(), Dead> {
        let part = &mut self.parts[number];
        if part.told.is_truncating() {
            return Ok(());
        }
        let partition = Arc::clone(part.partition.as_ref().expect("an open partition"));
        if let Some(active) = partition.segment_bases().last() {
            part.told
                .may_be_compacted(*active, partition.durable_offset());
        }
        partition.update_config(PartitionConfig {
            compaction: Some(Arc::new(CompactionConfig {
                min_cleanable_dirty_ratio: 0.0,
                delete_retention_ms: 100,
                ..CompactionConfig::default()
            })),
            ..config()
        });
        let now_ms = self.now_ms;
        let result = self.stepped_mut().compact(&partition, now_ms);
        partition.update_config(config());
        result
    }

    fn delete(&mut self, number: usize) -> Result<(), Dead> {
        let fresh = self.fresh();
        let mut old = std::mem::replace(&mut self.parts[number], fresh);
        let id = old.told.id;
        old.told.deletion = Deletion::Asked;
        self.gone.push(Gone {
            told: old.told,
            done: Arc::default(),
        });
        let partition = self.open_part(self.parts[number].told.id);
        self.parts[number].partition = Some(partition);
        self.ask_deletion(id)
    }

    fn truncate(&mut self, number: usize) -> Result<(), Dead> {
        let part = &mut self.parts[number];
        if part.told.is_truncating() {
            return Ok(());
        }
        let content = part.told.content(part.told.ops.len());
        let lowest = part.told.log_start_max();
        let committed = part.told.compacted_to;
        let choices: Vec<i64> = content
            .batches
            .iter()
            .map(|batch| batch.base)
            .filter(|base| *base > lowest && *base >= committed)
            .collect();
        // Mostly a short tail, as it is with real ones.
        let back = 1 + self.rng.below(6) as usize;
        let Some(to) = choices
            .iter()
            .rev()
            .nth(back.min(choices.len()).saturating_sub(1))
        else {
            return Ok(());
        };
        let part = &mut self.parts[number];
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let partition = Arc::clone(part.partition.as_ref().expect("an open partition"));
        part.told.ops.push(Op::Truncate(*to, done));
        let tell = Box::new(move || flag.store(true, Ordering::Release));
        let begun = self.log().log.truncate(&partition, *to, tell);
        begun.or_else(|error| self.not_truncated(number, &error))
    }

    /// A damaged range has no boundaries inside: a truncation into it is refused, and the damage is told.
    fn not_truncated(&mut self, number: usize, error: &TruncateError) -> Result<(), Dead> {
        self.parts[number].told.ops.pop();
        match error {
            TruncateError::InsideBatch { .. } => {
                assert!(
                    self.decode_errors() > 0,
                    "{error}, where one that was sent begins"
                );
                Ok(())
            }
            TruncateError::Deleted
            | TruncateError::Closed
            | TruncateError::QueueFull
            | TruncateError::Pending
            | TruncateError::OutOfRange { .. }
            | TruncateError::Read(_) => Err(Dead),
        }
    }

    fn restart(&mut self) -> Result<(), Dead> {
        let stepped = self.stepped.take().expect("the log is open");
        // What the stop makes durable is asked for afterwards, while the partitions are still there.
        let result = stepped.stop();
        self.update();
        result?;
        if self.disk.is_cut() {
            return Err(Dead);
        }
        let faults = self.disk.faults();
        self.disk.kill();
        self.disk.set_faults(faults);
        self.start()?;
        // A stop that finds no room leaves what was queued behind: it was never acknowledged, and its offsets are given
        // out again.
        for part in self.parts.iter_mut().filter(|part| part.told.is_waiting()) {
            let partition = part.partition.as_ref().expect("an open partition");
            let seen = Seen::of(partition, 1 << 16);
            part.told.check(&seen, "after a stop");
        }
        Ok(())
    }

    /// Takes in what is durable now.
    fn update(&mut self) {
        for part in &mut self.parts {
            if let Some(partition) = &part.partition {
                part.told.update(partition);
            }
        }
        for gone in &mut self.gone {
            if gone.done.load(Ordering::Acquire) {
                gone.told.deletion = Deletion::Done;
            }
        }
    }

    /// The process is over.
    pub(super) fn end(&mut self) {
        self.stepped = None;
        for part in &mut self.parts {
            part.partition = None;
        }
    }

    /// Why the process ended, if it did by itself.
    pub(super) fn reason(&self) -> String {
        self.stepped
            .as_ref()
            .map_or_else(String::new, Stepped::reason)
    }

    /// Decode errors that the running process has counted.
    pub(super) fn decode_errors(&self) -> u64 {
        let stepped = self.stepped.as_ref();
        stepped.map_or(0, |stepped| stepped.metrics().decode_errors_total())
    }

    /// Whether everything that was sent is durable.
    pub(super) fn is_durable(&self) -> bool {
        let mut partitions = self.parts.iter().filter_map(|part| part.partition.as_ref());
        partitions.all(|partition| partition.durable_offset() == partition.next_offset())
    }

    /// Whether the process has ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.stepped.as_ref().is_none_or(Stepped::has_failed)
    }

    /// Starts twice, reads everything, and holds it against what was told.
    pub(super) fn check(&mut self, what: &str) {
        let first = self.look(what, 1 << 16);
        let second = self.look(what, 1);
        assert_eq!(first.len(), second.len(), "{what}: recovering twice");
        for ((id, seen), (again, found)) in first.iter().zip(&second) {
            assert!(
                id == again && seen.is_found_again(found),
                "{what}: {id}: recovering twice gives something else: {seen:?}, {found:?}"
            );
        }
        for (id, seen) in &first {
            if let Some(part) = self.parts.iter_mut().find(|part| part.told.id == *id) {
                part.told.check(seen, what);
            } else if let Some(gone) = self.gone.iter_mut().find(|gone| gone.told.id == *id) {
                assert!(
                    gone.told.deletion == Deletion::Asked,
                    "{what}: {id} was deleted and is there"
                );
                gone.told.check(seen, what);
            } else {
                panic!("{what}: {id} was never made");
            }
        }
        for part in &mut self.parts {
            if !first.iter().any(|(id, _)| *id == part.told.id) {
                part.told.check(&Seen::nothing(), what);
            }
        }
        self.gone
            .retain(|gone| first.iter().any(|(id, _)| *id == gone.told.id));
    }

    fn look(&mut self, what: &str, step_bytes: u64) -> Vec<(PartitionId, Seen)> {
        let opened = Stepped::open(&self.disk, sim_options());
        let stepped = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut seen = Vec::new();
        for id in stepped.log.partition_ids() {
            let partition = stepped.log.partition(id).expect("listed");
            seen.push((id, Seen::of(&partition, step_bytes)));
        }
        let (metrics, health) = (stepped.metrics(), stepped.log.health());
        assert_eq!(
            metrics.decode_errors_total(),
            0,
            "{what}: {metrics:?}, {health:?}"
        );
        drop(stepped);
        self.disk.kill();
        seen
    }

    /// What is told of each partition that was not deleted.
    pub(super) fn told(&self) -> impl Iterator<Item = &Told> {
        self.parts.iter().map(|part| &part.told)
    }
}

impl Seen {
    /// A partition that is not there.
    pub(super) fn nothing() -> Seen {
        Seen {
            log_start: 0,
            next: 0,
            batches: Vec::new(),
            lost: Vec::new(),
            epochs: Vec::new(),
            producers: ProducerTable::new().encode(),
        }
    }
}
