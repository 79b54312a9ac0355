//! What a partition remembers of its idempotent producers, and the judgement over the next batch of one.
//!
//! It owns the rules of KIP-98/KIP-360 for one partition: the last five batches of each producer, duplicates answered
//! with their first offset, gaps refused, older epochs fenced; and which transactions are open, and which were aborted. It
//! never stores records and never asks for the time.

mod snapshot;
mod transactions;

use std::collections::{BTreeMap, HashMap};

pub use self::transactions::{AbortedTransaction, Marker, MarkerVerdict, ProducerView};

/// Batches remembered per producer: as many as a client may have in flight with idempotence (Kafka's limit).
pub const BATCHES_REMEMBERED: usize = 5;

/// Producers remembered per partition. Kafka has no such bound; ours keeps a client that asks for a new id per record
/// from growing memory for a whole day. The least recently active are forgotten first.
pub const PRODUCERS_MAX: usize = 65_536;

/// How long an idle producer is remembered unless configured (`producer.id.expiration.ms`): one day.
pub const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;

/// At the bound this many are forgotten at once, so that the scan for them is paid rarely.
const EVICTED_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// One produced batch as far as sequences go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record; negative where a coordinator writes for the producer, without sequences.
    pub base_sequence: i32,
    /// Sequence of the last record; lower than the first one when the sequence wraps.
    pub last_sequence: i32,
    /// Whether it is part of a transaction.
    pub transactional: bool,
}

/// What to do with a batch that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: append it, then `record` it.
    Append,
    /// It is here already: answer with these offsets once they are durable, append nothing.
    Duplicate {
        /// Offset of the first record of the remembered batch.
        base_offset: i64,
        /// Offset of its last record.
        last_offset: i64,
    },
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id}: sequence {found} where {expected} was expected")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that would have been next.
        expected: i32,
        /// The sequence found.
        found: i32,
    },
    /// INVALID_PRODUCER_EPOCH.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// The newest epoch seen.
        current: i16,
        /// The epoch found.
        found: i16,
    },
    /// INVALID_TXN_STATE.
    #[error("producer {producer_id}: a batch outside of the transaction that it has open here")]
    NotTransactional {
        /// The producer.
        producer_id: i64,
    },
    /// TRANSACTION_COORDINATOR_FENCED.
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The newest epoch of a coordinator seen.
        current: i32,
        /// The epoch found.
        found: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Epoch of the coordinator that wrote its newest marker; −1 is none.
    coordinator_epoch: i32,
    last_active_ms: i64,
    /// Where its open transaction begins.
    open_from: Option<i64>,
    /// Oldest first, at most `BATCHES_REMEMBERED`; none after a marker with a new epoch.
    batches: Vec<Remembered>,
}

impl Producer {
    fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(-1, |batch| batch.last_sequence)
    }
}

/// The producers of one partition. An empty table allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: HashMap<i64, Producer>,
    /// First offset of each open transaction, and its producer.
    open: BTreeMap<i64, i64>,
    /// First offset of each transaction whose marker is not durable yet, and the marker's.
    ending: BTreeMap<i64, i64>,
    /// Aborted transactions, in the order of their markers.
    aborted: Vec<AbortedTransaction>,
}

/// The sequence `delta` records after `base`: sequences wrap from `i32::MAX` to 0.
pub fn advance_sequence(base: i32, delta: i32) -> i32 {
    let sum = i64::from(base) + i64::from(delta);
    let wrapped = sum % (i64::from(i32::MAX) + 1);
    i32::try_from(wrapped).expect("a remainder of 2^31 fits")
}

impl ProducerTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges the next batch of a producer. Changes nothing: the caller appends, then calls `record`.
    ///
    /// A producer that is not remembered may start at any sequence (its state may have expired or been deleted with
    /// the records; Kafka since 2.5 trusts the client here). A newer epoch must start at 0.
    pub fn check(&self, batch: &ProducerBatch) -> Result<Verdict, ProducerError> {
        let Some(known) = self.producers.get(&batch.producer_id) else {
            return Ok(Verdict::Append);
        };
        let producer_id = batch.producer_id;
        if batch.epoch < known.epoch {
            return Err(ProducerError::InvalidEpoch {
                producer_id,
                current: known.epoch,
                found: batch.epoch,
            });
        }
        if known.open_from.is_some() && !batch.transactional {
            return Err(ProducerError::NotTransactional { producer_id });
        }
        if batch.base_sequence < 0 {
            return Ok(Verdict::Append);
        }
        if batch.epoch > known.epoch {
            return match batch.base_sequence {
                0 => Ok(Verdict::Append),
                found => Err(ProducerError::OutOfOrderSequence {
                    producer_id,
                    expected: 0,
                    found,
                }),
            };
        }
        let same = |held: &&Remembered| {
            held.base_sequence == batch.base_sequence && held.last_sequence == batch.last_sequence
        };
        if let Some(held) = known.batches.iter().find(same) {
            return Ok(Verdict::Duplicate {
                base_offset: held.base_offset,
                last_offset: held.last_offset,
            });
        }
        let expected = advance_sequence(known.last_sequence(), 1);
        if batch.base_sequence == expected {
            return Ok(Verdict::Append);
        }
        Err(ProducerError::OutOfOrderSequence {
            producer_id,
            expected,
            found: batch.base_sequence,
        })
    }

    /// Remembers a batch that was appended (or is replayed) at these offsets. `now_ms` is the time of the append, at
    /// replay the newest timestamp of the batch.
    ///
    /// Replay is the truth: a batch that `check` would refuse is remembered all the same, as it is in the log.
    pub fn record(
        &mut self,
        batch: &ProducerBatch,
        base_offset: i64,
        last_offset: i64,
        now_ms: i64,
    ) {
        let known = self.known(batch.producer_id, batch.epoch, now_ms);
        if batch.base_sequence >= 0 {
            if known.batches.len() == BATCHES_REMEMBERED {
                known.batches.remove(0);
            }
            known.batches.push(Remembered {
                base_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence,
                base_offset,
                last_offset,
            });
        }
        if batch.transactional && known.open_from.is_none() {
            known.open_from = Some(base_offset);
            self.open.insert(base_offset, batch.producer_id);
        }
    }

    /// The producer, made if it is not remembered, at this epoch and active now.
    fn known(&mut self, producer_id: i64, epoch: i16, now_ms: i64) -> &mut Producer {
        if !self.producers.contains_key(&producer_id) {
            if self.producers.len() >= PRODUCERS_MAX {
                self.evict_oldest();
            }
            let producer = Producer {
                epoch,
                coordinator_epoch: -1,
                last_active_ms: now_ms,
                open_from: None,
                batches: Vec::new(),
            };
            self.producers.insert(producer_id, producer);
        }
        let known = self.producers.get_mut(&producer_id);
        let known = known.expect("it was there or has just been made");
        if known.epoch != epoch {
            known.epoch = epoch;
            known.batches.clear();
        }
        known.last_active_ms = known.last_active_ms.max(now_ms);
        known
    }

    /// Last offset of the newest batch that is remembered of a producer.
    pub fn last_offset(&self, producer_id: i64) -> Option<i64> {
        let newest = self.producers.get(&producer_id)?.batches.last();
        newest.map(|batch| batch.last_offset)
    }

    fn evict_oldest(&mut self) {
        let mut ages: Vec<(i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, known)| known.open_from.is_none())
            .map(|(id, known)| (known.last_active_ms, *id))
            .collect();
        ages.sort_unstable();
        for (_, id) in ages.into_iter().take(EVICTED_AT_ONCE) {
            self.producers.remove(&id);
        }
    }

    /// Forgets producers idle for `expiration_ms` or more, but for those with an open transaction; returns how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, known| {
            known.open_from.is_some() || now_ms.saturating_sub(known.last_active_ms) < expiration_ms
        });
        if self.producers.is_empty() {
            self.producers = HashMap::new();
        }
        before - self.producers.len()
    }
}

#[cfg(test)]
mod tests;
