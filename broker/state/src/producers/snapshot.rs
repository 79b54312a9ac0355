//! The snapshot form of a partition's producers (big endian; the file around it carries the checksum).
//!
//! It owns the layout. A table without anything of transactions is written in the form that has no room for it.
//!
//! ```text
//! version u8 = 1 | producers i32 | per producer:
//!   producer id i64 | epoch i16 | last activity ms i64 | batches u8 (1..=5) | per batch, oldest first:
//!     base sequence i32 | last sequence i32 | base offset i64 | last offset i64
//!
//! version u8 = 2 | producers i32 | per producer:
//!   producer id i64 | epoch i16 | last activity ms i64 | coordinator epoch i32 (-1) |
//!   first offset of its open transaction i64 (-1) | batches u8 (0..=5) | per batch as above
//! aborted transactions i32 | each, in the order of the markers:
//!   producer id i64 | first offset i64 | offset of the marker i64 | last stable offset then i64
//! ```

use std::collections::{BTreeMap, HashMap};

use bytes::BufMut;

use super::{
    AbortedTransaction, BATCHES_REMEMBERED, PRODUCERS_MAX, Producer, ProducerTable, Remembered,
};
use crate::codec::{CodecError, Reader, put_len32};

const VERSION_PLAIN: u8 = 1;
const VERSION_TRANSACTIONS: u8 = 2;
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 8 + 1;
const ABORTED_BYTES: usize = 4 * 8;

impl ProducerTable {
    /// The snapshot form, in order of producer id, so that equal tables give equal bytes. Every marker in it must be
    /// durable.
    pub fn encode(&self) -> Vec<u8> {
        let mut ids: Vec<i64> = self.producers.keys().copied().collect();
        ids.sort_unstable();
        let is_plain = |known: &Producer| {
            known.coordinator_epoch == -1 && known.open_from.is_none() && !known.batches.is_empty()
        };
        let plain = self.aborted.is_empty() && self.producers.values().all(is_plain);
        let version = if plain {
            VERSION_PLAIN
        } else {
            VERSION_TRANSACTIONS
        };
        let mut out = vec![version];
        put_len32(&mut out, ids.len());
        for id in ids {
            out.put_i64(id);
            encode_producer(&mut out, &self.producers[&id], version);
        }
        if version == VERSION_PLAIN {
            return out;
        }
        put_len32(&mut out, self.aborted.len());
        for aborted in &self.aborted {
            out.put_i64(aborted.producer_id);
            out.put_i64(aborted.first_offset);
            out.put_i64(aborted.last_offset);
            out.put_i64(aborted.stable_offset);
        }
        out
    }

    /// Reads the snapshot form back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if !(VERSION_PLAIN..=VERSION_TRANSACTIONS).contains(&version) {
            let what = "producer snapshot";
            return Err(CodecError::Version {
                what,
                version: version.into(),
                highest: VERSION_TRANSACTIONS.into(),
            });
        }
        let count = reader.count("producers", PRODUCER_BYTES_MIN)?;
        let mut producers = HashMap::with_capacity(count.min(PRODUCERS_MAX));
        for _ in 0..count {
            let id = reader.i64("producer id")?;
            producers.insert(id, decode_producer(&mut reader, version)?);
        }
        let aborted = if version == VERSION_PLAIN {
            Vec::new()
        } else {
            decode_aborted(&mut reader)?
        };
        reader.finish("producer snapshot")?;
        let open = producers
            .iter()
            .filter_map(|(id, known)| known.open_from.map(|offset| (offset, *id)))
            .collect();
        Ok(ProducerTable {
            producers,
            open,
            ending: BTreeMap::new(),
            aborted,
        })
    }
}

fn encode_producer(out: &mut Vec<u8>, known: &Producer, version: u8) {
    out.put_i16(known.epoch);
    out.put_i64(known.last_active_ms);
    if version >= VERSION_TRANSACTIONS {
        out.put_i32(known.coordinator_epoch);
        out.put_i64(known.open_from.unwrap_or(-1));
    }
    out.put_u8(u8::try_from(known.batches.len()).expect("at most five batches are remembered"));
    for batch in &known.batches {
        out.put_i32(batch.base_sequence);
        out.put_i32(batch.last_sequence);
        out.put_i64(batch.base_offset);
        out.put_i64(batch.last_offset);
    }
}

fn decode_producer(reader: &mut Reader<'_>, version: u8) -> Result<Producer, CodecError> {
    let epoch = reader.i16("epoch")?;
    let last_active_ms = reader.i64("last activity")?;
    let (mut coordinator_epoch, mut open_from) = (-1, -1);
    if version >= VERSION_TRANSACTIONS {
        coordinator_epoch = reader.i32("coordinator epoch")?;
        open_from = reader.i64("open transaction")?;
    }
    let held = usize::from(reader.u8("batches")?);
    if (held == 0 && version == VERSION_PLAIN) || held > BATCHES_REMEMBERED {
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
        coordinator_epoch,
        last_active_ms,
        open_from: (open_from >= 0).then_some(open_from),
        batches,
    })
}

fn decode_aborted(reader: &mut Reader<'_>) -> Result<Vec<AbortedTransaction>, CodecError> {
    let count = reader.count("aborted transactions", ABORTED_BYTES)?;
    let mut aborted = Vec::with_capacity(count);
    for _ in 0..count {
        aborted.push(AbortedTransaction {
            producer_id: reader.i64("producer id")?,
            first_offset: reader.i64("first offset")?,
            last_offset: reader.i64("marker offset")?,
            stable_offset: reader.i64("last stable offset")?,
        });
    }
    Ok(aborted)
}
