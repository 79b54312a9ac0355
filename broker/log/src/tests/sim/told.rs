//! What clients were told about one partition, and what a log may therefore hold.
//!
//! Owns the invariants. A partition's operations stand in their order of replay: after a crash it must be what a run of
//! them from the first on gives, no shorter than what was acknowledged. So every acknowledged batch is there exactly
//! once, nothing stands above a gap, and offsets, epochs and log start never go back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_protocol::batch::BatchHeader;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_state::producers::{ProducerBatch, ProducerTable, Verdict};

use crate::tests::support::read_everything;
use crate::{Partition, PartitionId};

/// A batch as it must be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) base: i64,
    pub(super) last: i64,
    pub(super) epoch: i32,
    pub(super) bytes: Vec<u8>,
}

impl Sent {
    fn producer(&self) -> Option<ProducerBatch> {
        let header = BatchHeader::parse(&self.bytes).unwrap();
        (header.producer_id >= 0).then(|| ProducerBatch {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            transactional: false,
        })
    }
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Append(Sent),
    /// The new end, and whether it is done.
    Truncate(i64, Arc<AtomicBool>),
}

/// What a run of operations gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) batches: Vec<Sent>,
    pub(super) next: i64,
}

impl Content {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(sent) => {
                self.next = sent.last + 1;
                self.batches.push(sent.clone());
            }
            Op::Truncate(to, _) => {
                self.batches.retain(|batch| batch.last < *to);
                self.next = *to;
            }
        }
    }

    /// Leader epochs and the offset each starts at.
    fn epochs(&self) -> Vec<(i32, i64)> {
        let mut epochs: Vec<(i32, i64)> = Vec::new();
        for batch in &self.batches {
            if epochs.last().is_none_or(|(epoch, _)| *epoch < batch.epoch) {
                epochs.push((batch.epoch, batch.base));
            }
        }
        epochs
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    No,
    Asked,
    Done,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) id: PartitionId,
    /// What was there before the first of `ops`.
    settled: Content,
    pub(super) ops: Vec<Op>,
    /// How many of them are acknowledged.
    pub(super) acked: usize,
    pub(super) log_start: i64,
    /// Log starts that were asked for and may have happened.
    pub(super) asked: Vec<i64>,
    pub(super) deletion: Deletion,
    /// Offsets of records that a compaction may have taken away.
    pub(super) removable: BTreeSet<i64>,
    /// The end when a compaction ran: all of that was committed, and is never taken back.
    pub(super) compacted_to: i64,
}

/// What a start found, for comparing two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) log_start: i64,
    pub(super) next: i64,
    pub(super) batches: Vec<(i64, Vec<u8>)>,
    pub(super) lost: Vec<(i64, i64)>,
    pub(super) epochs: Vec<(i32, i64)>,
    pub(super) producers: Vec<u8>,
}

impl Seen {
    pub(super) fn of(partition: &Partition, step_bytes: u64) -> Seen {
        let (batches, lost) = read_everything(partition, step_bytes);
        Seen {
            log_start: partition.log_start(),
            next: partition.next_offset(),
            batches,
            lost,
            epochs: partition.epochs(),
            producers: partition.producers().unwrap().encode(),
        }
    }
}

impl Seen {
    /// Whether a second start found the same. The first may have flushed for want of room in the WAL, and a flush leaves out
    /// epochs that lie wholly below the log start.
    pub(super) fn is_found_again(&self, again: &Seen) -> bool {
        let epochs = Vec::new();
        let rest = |seen: &Seen| Seen {
            epochs: epochs.clone(),
            ..seen.clone()
        };
        is_history(&again.epochs, &self.epochs, self.log_start) && rest(self) == rest(again)
    }
}

impl Told {
    pub(super) fn new(id: PartitionId) -> Told {
        Told {
            id,
            settled: Content::default(),
            ops: Vec::new(),
            acked: 0,
            log_start: 0,
            asked: Vec::new(),
            deletion: Deletion::No,
            removable: BTreeSet::new(),
            compacted_to: 0,
        }
    }

    /// What lies below `end` may be compacted from now on: of each key, the newest record stays.
    pub(super) fn may_be_compacted(&mut self, end: i64, durable: i64) {
        self.compacted_to = self.compacted_to.max(durable);
        let content = self.content(self.ops.len());
        let mut newest: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let closed = content.batches.iter().filter(|batch| batch.base < end);
        for (offset, (key, value)) in closed.flat_map(|sent| records_of(&sent.bytes)) {
            if value.is_none() {
                // A tombstone goes when its time has come.
                self.removable.insert(offset);
            }
            self.removable.extend(newest.insert(key, offset));
        }
    }

    /// The content after the first `count` operations.
    pub(super) fn content(&self, count: usize) -> Content {
        let mut content = self.settled.clone();
        for op in &self.ops[..count] {
            content.apply(op);
        }
        content
    }

    /// Every batch that was ever sent, also those that were taken back.
    pub(super) fn sent(&self) -> Vec<Sent> {
        let appended = self.ops.iter().filter_map(|op| match op {
            Op::Append(sent) => Some(sent),
            Op::Truncate(..) => None,
        });
        self.settled
            .batches
            .iter()
            .chain(appended)
            .cloned()
            .collect()
    }

    /// Everything that was acknowledged.
    pub(super) fn acknowledged(&self) -> Content {
        self.content(self.acked)
    }

    /// Whether a truncation is on its way.
    pub(super) fn is_truncating(&self) -> bool {
        matches!(self.ops.last(), Some(Op::Truncate(_, done)) if !done.load(Ordering::Acquire))
    }

    /// Whether something is not acknowledged yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.acked < self.ops.len()
    }

    /// What must be there whatever becomes of the operations that are not acknowledged: each of them may have happened.
    pub(super) fn certain(&self) -> Content {
        let mut content = self.acknowledged();
        let waiting = self.ops[self.acked..].iter();
        for op in waiting.filter(|op| matches!(op, Op::Truncate(..))) {
            content.apply(op);
        }
        content
    }

    /// Highest log start that there may be.
    pub(super) fn log_start_max(&self) -> i64 {
        self.asked.iter().copied().fold(self.log_start, i64::max)
    }

    /// Takes in what the partition says is durable now.
    pub(super) fn update(&mut self, partition: &Partition) {
        while let Some(op) = self.ops.get(self.acked) {
            let done = match op {
                Op::Append(sent) => {
                    let later = self.ops[self.acked..].iter().any(
                        |op| matches!(op, Op::Truncate(_, done) if done.load(Ordering::Acquire)),
                    );
                    later || partition.durable_offset() > sent.last
                }
                Op::Truncate(_, done) => done.load(Ordering::Acquire),
            };
            if !done {
                break;
            }
            self.acked += 1;
        }
        let now = partition.log_start();
        assert!(
            now >= self.log_start,
            "{}: the log start went back",
            self.id
        );
        self.log_start = now;
    }

    /// Holds a partition that a start found against what was told; from then on it is the truth.
    pub(super) fn check(&mut self, seen: &Seen, what: &str) {
        let id = self.id;
        assert_eq!(seen.lost, [], "{what}: {id}: a crash is no damage");
        let starts = seen.log_start == self.log_start || self.asked.contains(&seen.log_start);
        assert!(
            starts && seen.log_start >= self.log_start,
            "{what}: {id}: the log starts at {}, told {} asked {:?}",
            seen.log_start,
            self.log_start,
            self.asked
        );
        let matching = (self.acked..=self.ops.len()).find(|count| self.matches(*count, seen));
        let Some(count) = matching else {
            let told = self.acknowledged();
            let bases = |batches: &[Sent]| batches.iter().map(|b| b.base).collect::<Vec<_>>();
            panic!(
                "{what}: {id}: next {} and batches at {:?} is nothing that {} of {} operations give; acknowledged: \
                 next {} and {:?}, log start {}; operations: {:?}",
                seen.next,
                seen.batches.iter().map(|b| b.0).collect::<Vec<_>>(),
                self.acked,
                self.ops.len(),
                told.next,
                bases(&told.batches),
                seen.log_start,
                self.ops.iter().map(brief).collect::<Vec<_>>(),
            );
        };
        self.settled = self.content(count);
        self.ops.clear();
        self.acked = 0;
        self.log_start = seen.log_start;
        self.asked.clear();
        // What lies wholly below the log start is of no interest any more.
        let start = self.log_start;
        let epochs = self.settled.epochs();
        check_epochs(&seen.epochs, &epochs, start, &format!("{what}: {id}"));
        self.settled.next = self.settled.next.max(start);
        let table = ProducerTable::decode(&seen.producers).unwrap();
        self.check_producers(&table, what);
    }

    fn matches(&self, count: usize, seen: &Seen) -> bool {
        let content = self.content(count);
        let live = content.batches.iter().filter(|b| b.last >= seen.log_start);
        seen.next == content.next.max(seen.log_start)
            && (live.clone().eq_by_bytes(&seen.batches) || self.is_compacted_from(live, seen))
    }

    /// Whether what was found is what was sent, less records that a compaction may have taken away: batches go on
    /// without a gap, and each is as it was sent, or has only records that were sent at these offsets.
    fn is_compacted_from<'a>(&self, sent: impl Iterator<Item = &'a Sent>, seen: &Seen) -> bool {
        let sent: Vec<&Sent> = sent.collect();
        let whole: BTreeSet<&[u8]> = sent.iter().map(|sent| &sent.bytes[..]).collect();
        let mut missing: BTreeMap<i64, Record> = sent
            .iter()
            .flat_map(|sent| records_of(&sent.bytes))
            .collect();
        let mut next = None;
        for (base, bytes) in &seen.batches {
            if next.is_some_and(|next| next != *base) {
                return false;
            }
            next = Some(BatchHeader::parse(bytes).unwrap().last_offset() + 1);
            for (offset, record) in records_of(bytes) {
                // Batches that reach below the log start were sent as a whole or are emptied below it, too.
                let known = missing.remove(&offset);
                let is_below = offset < seen.log_start && known.is_none();
                if !is_below && !whole.contains(&bytes[..]) && known != Some(record) {
                    return false;
                }
            }
        }
        let first = seen.batches.first().map_or(seen.next, |(base, _)| *base);
        first <= seen.log_start
            && next.is_none_or(|next| next == seen.next)
            && missing
                .keys()
                .all(|offset| *offset < seen.log_start || self.removable.contains(offset))
    }

    /// A producer that goes on after the start is neither refused nor does it write twice.
    fn check_producers(&self, table: &ProducerTable, what: &str) {
        let id = self.id;
        let mut newest: BTreeMap<i64, (ProducerBatch, i64)> = BTreeMap::new();
        for sent in &self.settled.batches {
            if let Some(batch) = sent.producer() {
                newest.insert(batch.producer_id, (batch, sent.base));
            }
        }
        for (batch, base) in newest.values().filter(|(_, base)| *base >= self.log_start) {
            let says = table.check(batch);
            let duplicate =
                matches!(says, Ok(Verdict::Duplicate { base_offset, .. }) if base_offset == *base);
            assert!(duplicate, "{what}: {id}: {batch:?} at {base}: {says:?}");
            let following = ProducerBatch {
                base_sequence: batch.last_sequence + 1,
                last_sequence: batch.last_sequence + 1,
                ..*batch
            };
            assert_eq!(table.check(&following), Ok(Verdict::Append), "{what}: {id}");
        }
    }
}

/// Key and value.
pub(super) type Record = (Vec<u8>, Option<Vec<u8>>);

pub(super) fn records_of(batch: &[u8]) -> Vec<(i64, Record)> {
    let header = BatchHeader::parse(batch).unwrap();
    let records = decompressed(batch, 1 << 20).unwrap();
    let walker = RecordWalker::new(&records, header.records_count);
    let plain = walker.map(|record| {
        let record = record.unwrap();
        let offset = header.base_offset + i64::from(record.offset_delta);
        let key = record.key.unwrap().to_vec();
        (offset, (key, record.value.map(<[u8]>::to_vec)))
    });
    plain.collect()
}

trait EqByBytes {
    fn eq_by_bytes(self, found: &[(i64, Vec<u8>)]) -> bool;
}

impl<'a, I: Iterator<Item = &'a Sent>> EqByBytes for I {
    fn eq_by_bytes(self, found: &[(i64, Vec<u8>)]) -> bool {
        self.map(|b| (b.base, &b.bytes))
            .eq(found.iter().map(|(base, bytes)| (*base, bytes)))
    }
}

/// The history may have lost what lies wholly below the log start, and nothing else.
fn is_history(found: &[(i32, i64)], wanted: &[(i32, i64)], log_start: i64) -> bool {
    let needed = wanted
        .iter()
        .rposition(|(_, start)| *start <= log_start)
        .unwrap_or(0);
    wanted.ends_with(found) && found.len() >= wanted.len() - needed.min(wanted.len())
}

fn check_epochs(found: &[(i32, i64)], wanted: &[(i32, i64)], log_start: i64, what: &str) {
    assert!(
        is_history(found, wanted, log_start),
        "{what}: epochs {found:?}, wanted {wanted:?} from {log_start} on"
    );
}

fn brief(op: &Op) -> String {
    match op {
        Op::Append(sent) => format!("{}..={}", sent.base, sent.last),
        Op::Truncate(to, _) => format!("truncate {to}"),
    }
}
