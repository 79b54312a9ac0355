//! What a partition remembers of its idempotent producers, and the judgement over the next batch of one.
//!
//! It owns the rules of KIP-98/KIP-360 for one partition: the last five batches of each producer, duplicates answered
//! with their first offset, gaps refused, older epochs fenced. It never stores records and never asks for the time.
//!
//! Snapshot form (`encode`/`decode`; big endian; the file around it carries the checksum):
//!
//! ```text
//! version u8 = 1 | producers i32 | per producer:
//!   producer id i64 | epoch i16 | last activity ms i64 | batches u8 (1..=5) | per batch, oldest first:
//!     base sequence i32 | last sequence i32 | base offset i64 | last offset i64
//! ```

use std::collections::HashMap;

use bytes::BufMut;

use crate::codec::{CodecError, Reader, put_len32};

/// Batches remembered per producer: as many as a client may have in flight with idempotence (Kafka's limit).
pub const BATCHES_REMEMBERED: usize = 5;

/// Producers remembered per partition. Kafka has no such bound; ours keeps a client that asks for a new id per record
/// from growing memory for a whole day. The least recently active are forgotten first.
pub const PRODUCERS_MAX: usize = 65_536;

/// How long an idle producer is remembered unless configured (`producer.id.expiration.ms`): one day.
pub const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;

/// At the bound this many are forgotten at once, so that the scan for them is paid rarely.
const EVICTED_AT_ONCE: usize = PRODUCERS_MAX / 16;

const SNAPSHOT_VERSION: u8 = 1;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 8 + 1;

/// One produced batch as far as sequences go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Sequence of the last record; lower than the first one when the sequence wraps.
    pub last_sequence: i32,
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
    last_active_ms: i64,
    /// Oldest first; never empty, at most `BATCHES_REMEMBERED`.
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
        let entry = Remembered {
            base_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence,
            base_offset,
            last_offset,
        };
        if let Some(known) = self.producers.get_mut(&batch.producer_id) {
            if known.epoch != batch.epoch {
                known.epoch = batch.epoch;
                known.batches.clear();
            }
            if known.batches.len() == BATCHES_REMEMBERED {
                known.batches.remove(0);
            }
            known.batches.push(entry);
            known.last_active_ms = known.last_active_ms.max(now_ms);
            return;
        }
        if self.producers.len() >= PRODUCERS_MAX {
            self.evict_oldest();
        }
        let producer = Producer {
            epoch: batch.epoch,
            last_active_ms: now_ms,
            batches: vec![entry],
        };
        self.producers.insert(batch.producer_id, producer);
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
            .map(|(id, known)| (known.last_active_ms, *id))
            .collect();
        ages.sort_unstable();
        for (_, id) in ages.into_iter().take(EVICTED_AT_ONCE) {
            self.producers.remove(&id);
        }
    }

    /// Forgets every batch at or above `offset`, after a truncation of the log.
    pub fn truncate(&mut self, offset: i64) {
        self.producers.retain(|_, known| {
            known.batches.retain(|batch| batch.last_offset < offset);
            !known.batches.is_empty()
        });
    }

    /// Forgets producers idle for `expiration_ms` or more; returns how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers
            .retain(|_, known| now_ms.saturating_sub(known.last_active_ms) < expiration_ms);
        if self.producers.is_empty() {
            self.producers = HashMap::new();
        }
        before - self.producers.len()
    }

    /// The snapshot form, in order of producer id, so that equal tables give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut ids: Vec<i64> = self.producers.keys().copied().collect();
        ids.sort_unstable();
        let mut out = vec![SNAPSHOT_VERSION];
        put_len32(&mut out, ids.len());
        for id in ids {
            let known = &self.producers[&id];
            out.put_i64(id);
            out.put_i16(known.epoch);
            out.put_i64(known.last_active_ms);
            out.put_u8(
                u8::try_from(known.batches.len()).expect("at most five batches are remembered"),
            );
            for batch in &known.batches {
                out.put_i32(batch.base_sequence);
                out.put_i32(batch.last_sequence);
                out.put_i64(batch.base_offset);
                out.put_i64(batch.last_offset);
            }
        }
        out
    }

    /// Reads the snapshot form back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if version != SNAPSHOT_VERSION {
            let what = "producer snapshot";
            return Err(CodecError::Version {
                what,
                version: version.into(),
                highest: SNAPSHOT_VERSION.into(),
            });
        }
        let count = reader.count("producers", PRODUCER_BYTES_MIN)?;
        let mut producers = HashMap::with_capacity(count.min(PRODUCERS_MAX));
        for _ in 0..count {
            let id = reader.i64("producer id")?;
            producers.insert(id, decode_producer(&mut reader)?);
        }
        reader.finish("producer snapshot")?;
        Ok(ProducerTable { producers })
    }
}

fn decode_producer(reader: &mut Reader<'_>) -> Result<Producer, CodecError> {
    let epoch = reader.i16("epoch")?;
    let last_active_ms = reader.i64("last activity")?;
    let held = usize::from(reader.u8("batches")?);
    if held == 0 || held > BATCHES_REMEMBERED {
        return Err(CodecError::Length {
            field: "batches",
            length: held as i64,
        });
    }
    let mut batches = Vec::with_capacity(held);
    for _ in 0..held {
        batches.push(Remembered {
            base_sequence: reader.i32("base sequence")?,
            last_sequence: reader.i32("last sequence")?,
            base_offset: reader.i64("base offset")?,
            last_offset: reader.i64("last offset")?,
        });
    }
    Ok(Producer {
        epoch,
        last_active_ms,
        batches,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, last_sequence: i32) -> ProducerBatch {
        ProducerBatch {
            producer_id: 7,
            epoch,
            base_sequence,
            last_sequence,
        }
    }

    /// A table where producer 7, epoch 1, wrote six batches of ten records at offsets 100, 110, …
    fn table() -> ProducerTable {
        let mut table = ProducerTable::new();
        for i in 0..6 {
            let next = batch(1, i * 10, i * 10 + 9);
            assert_eq!(table.check(&next), Ok(Verdict::Append));
            let base = 100 + i64::from(i) * 10;
            table.record(&next, base, base + 9, 1_000 + i64::from(i));
        }
        table
    }

    fn out_of_order(expected: i32, found: i32) -> Result<Verdict, ProducerError> {
        Err(ProducerError::OutOfOrderSequence {
            producer_id: 7,
            expected,
            found,
        })
    }

    #[test]
    fn judges_every_kind_of_next_batch() {
        let table = table();
        let cases = [
            ("next", batch(1, 60, 69), Ok(Verdict::Append)),
            (
                "last again",
                batch(1, 50, 59),
                Ok(Verdict::Duplicate {
                    base_offset: 150,
                    last_offset: 159,
                }),
            ),
            (
                "fifth last again",
                batch(1, 10, 19),
                Ok(Verdict::Duplicate {
                    base_offset: 110,
                    last_offset: 119,
                }),
            ),
            ("sixth last again", batch(1, 0, 9), out_of_order(60, 0)),
            (
                "same start, other end",
                batch(1, 50, 58),
                out_of_order(60, 50),
            ),
            ("gap", batch(1, 61, 61), out_of_order(60, 61)),
            ("new epoch from 0", batch(2, 0, 0), Ok(Verdict::Append)),
            (
                "new epoch, not from 0",
                batch(2, 60, 69),
                out_of_order(0, 60),
            ),
            (
                "old epoch",
                batch(0, 60, 69),
                Err(ProducerError::InvalidEpoch {
                    producer_id: 7,
                    current: 1,
                    found: 0,
                }),
            ),
            (
                "unknown producer",
                ProducerBatch {
                    producer_id: 8,
                    ..batch(0, 41, 41)
                },
                Ok(Verdict::Append),
            ),
        ];
        for (name, next, want) in cases {
            assert_eq!(table.check(&next), want, "{name}");
        }
    }

    #[test]
    fn sequences_wrap_at_the_largest_number() {
        assert_eq!(advance_sequence(i32::MAX, 1), 0);
        assert_eq!(advance_sequence(i32::MAX - 2, 4), 1);
        assert_eq!(advance_sequence(-1, 1), 0);
        let mut table = ProducerTable::new();
        table.record(&batch(0, i32::MAX - 1, 0), 0, 2, 0);
        assert_eq!(table.check(&batch(0, 1, 1)), Ok(Verdict::Append));
        assert_eq!(
            table.check(&batch(0, i32::MAX - 1, 0)),
            Ok(Verdict::Duplicate {
                base_offset: 0,
                last_offset: 2
            })
        );
    }

    #[test]
    fn expiry_and_truncation_forget() {
        let mut held = table();
        assert_eq!(held.expire(1_005 + 99, 100), 0);
        assert_eq!(held.expire(1_005 + 100, 100), 1);
        assert!(held.is_empty());
        let mut held = table();
        held.truncate(150);
        assert_eq!(held.check(&batch(1, 50, 59)), Ok(Verdict::Append));
        held.truncate(0);
        assert!(held.is_empty());
    }

    #[test]
    fn bounded_by_forgetting_the_least_recently_active() {
        let mut held = ProducerTable::new();
        for id in 0..=PRODUCERS_MAX as i64 {
            held.record(
                &ProducerBatch {
                    producer_id: id,
                    ..batch(0, 5, 5)
                },
                id,
                id,
                id,
            );
        }
        assert_eq!(held.len(), PRODUCERS_MAX - EVICTED_AT_ONCE + 1);
        assert_eq!(
            held.check(&ProducerBatch {
                producer_id: 0,
                ..batch(0, 9, 9)
            }),
            Ok(Verdict::Append)
        );
        assert!(
            held.check(&ProducerBatch {
                producer_id: 65_536,
                ..batch(0, 9, 9)
            })
            .is_err()
        );
    }

    #[test]
    fn snapshot_round_trips_and_refuses_every_cut() {
        let held = table();
        let bytes = held.encode();
        assert_eq!(ProducerTable::decode(&bytes), Ok(held));
        for cut in 0..bytes.len() {
            assert!(
                ProducerTable::decode(&bytes[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(ProducerTable::decode(&longer).is_err());
        assert!(matches!(
            ProducerTable::decode(&[2]),
            Err(CodecError::Version { version: 2, .. })
        ));
        assert!(
            ProducerTable::decode(&[1, 0x7f, 0xff, 0xff, 0xff]).is_err(),
            "a count the bytes cannot hold"
        );
    }
}
