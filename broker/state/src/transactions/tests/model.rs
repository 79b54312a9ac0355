//! A partition as transactions see it: a log that is durable up to a point, and what its owner remembers of producers.
//!
//! It reads as a read_committed client does, and holds that what was seen once stays.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::producers::{Marker, ProducerBatch, ProducerTable};

/// A small generator, so that a seed means the same schedule for ever (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a partition holds at one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A record: whose, at which epoch and sequence, of which transaction.
    Data {
        producer: (i64, i16),
        sequence: i32,
        transaction: usize,
    },
    End(Marker),
}

#[derive(Default)]
pub(super) struct Partition {
    pub(super) log: Vec<Entry>,
    pub(super) durable: usize,
    pub(super) table: ProducerTable,
    pub(super) permits: HashMap<i64, i16>,
    pub(super) stable: i64,
    /// What a read_committed reader has seen.
    pub(super) seen: Vec<(i64, usize)>,
}

impl Partition {
    pub(super) fn batch(entry: &Entry) -> Option<ProducerBatch> {
        match entry {
            Entry::Data {
                producer: (producer_id, epoch),
                sequence,
                ..
            } => Some(ProducerBatch {
                producer_id: *producer_id,
                epoch: *epoch,
                base_sequence: *sequence,
                last_sequence: *sequence,
                transactional: true,
            }),
            Entry::End(_) => None,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let offset = self.log.len() as i64;
        match (Self::batch(&entry), entry) {
            (Some(batch), _) => self.table.record(&batch, offset, offset, 0),
            (None, Entry::End(marker)) => {
                self.permits.remove(&marker.producer_id);
                self.table.record_marker(&marker, offset, 0);
            }
            (None, Entry::Data { .. }) => unreachable!("data is a batch"),
        }
        self.log.push(entry);
    }

    /// What is not durable is lost; the table is a snapshot of some time before and what came after it.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let log: Vec<Entry> = self.log.drain(..).take(self.durable).collect();
        let snapshot = random.below(log.len() as u64 + 1) as usize;
        *self = Partition {
            stable: self.stable,
            seen: std::mem::take(&mut self.seen),
            ..Partition::default()
        };
        for (offset, entry) in log.into_iter().enumerate() {
            if offset == snapshot {
                self.table.first_unstable(i64::MAX);
                self.table = ProducerTable::decode(&self.table.encode()).unwrap();
            }
            self.push(entry);
        }
        self.durable = self.log.len();
    }

    pub(super) fn look(&mut self) {
        let high_watermark = self.durable as i64;
        let unstable = self.table.first_unstable(high_watermark);
        let stable = unstable.map_or(high_watermark, |first| first.min(high_watermark));
        assert!(stable >= self.stable, "the stable offset went back");
        self.stable = stable;
        let seen = self.read_committed();
        assert!(
            seen.starts_with(&self.seen),
            "what was seen is not there any more"
        );
        self.seen = seen;
    }

    /// As a client reads: aborted transactions by producer and first offset, until their markers.
    fn read_committed(&self) -> Vec<(i64, usize)> {
        let mut aborted = self.table.aborted_in(0, self.stable);
        aborted.sort_by_key(|a| a.first_offset);
        let mut aborted = VecDeque::from(aborted);
        let mut skipped = HashSet::new();
        let mut seen = Vec::new();
        for (offset, entry) in (0..self.stable).zip(&self.log) {
            while aborted.front().is_some_and(|a| a.first_offset <= offset) {
                skipped.extend(aborted.pop_front().map(|a| a.producer_id));
            }
            match entry {
                Entry::Data {
                    producer,
                    transaction,
                    ..
                } if !skipped.contains(&producer.0) => seen.push((offset, *transaction)),
                Entry::Data { .. } => {}
                Entry::End(marker) if !marker.commit => {
                    skipped.remove(&marker.producer_id);
                }
                Entry::End(_) => {}
            }
        }
        seen
    }
}
