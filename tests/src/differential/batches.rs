//! Record batches of the scripts: plain, with a producer, transactional, wrong; and what a Fetch gave, readable.
//!
//! Owns no bytes of its own: [`crate::records`] writes a batch, and only the fields of its producer are patched here.

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;
use serde_json::{Value, json};

use super::normal::CHOSEN_PRODUCER_ID;
use crate::records::{BATCH_HEADER_BYTES, keyed_batch, seal_batch};

/// Timestamps of scripts: far below today, so that an answer that holds one is shown as it is.
pub(super) const TIMESTAMP_MS: i64 = 1_000_000;
const TRANSACTIONAL: u8 = 0x10;

/// Who wrote a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    /// The producer's id.
    pub(super) id: i64,
    /// Its epoch.
    pub(super) epoch: i16,
    /// Sequence of the batch's first record.
    pub(super) sequence: i32,
    /// Whether the batch belongs to a transaction.
    pub(super) transactional: bool,
}

/// A batch of records without keys, the first of them at [`TIMESTAMP_MS`].
pub(super) fn plain(values: &[&str]) -> Vec<u8> {
    at(TIMESTAMP_MS, values)
}

/// A batch of records without keys at a time.
pub(super) fn at(timestamp_ms: i64, values: &[&str]) -> Vec<u8> {
    let records: Vec<(Option<&[u8]>, &[u8])> = values
        .iter()
        .map(|value| (None, value.as_bytes()))
        .collect();
    keyed_batch(&records, timestamp_ms)
}

/// A batch with keys, as a compacted topic wants them.
pub(super) fn keyed(key: &str, value: &str) -> Vec<u8> {
    keyed_batch(&[(Some(key.as_bytes()), value.as_bytes())], TIMESTAMP_MS)
}

/// A batch of a producer.
pub(super) fn by(by: By, values: &[&str]) -> Vec<u8> {
    let mut batch = plain(values);
    batch[43..51].copy_from_slice(&by.id.to_be_bytes());
    batch[51..53].copy_from_slice(&by.epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&by.sequence.to_be_bytes());
    if by.transactional {
        batch[22] |= TRANSACTIONAL;
    }
    seal_batch(&mut batch);
    batch
}

/// A batch after a change of its bytes, its checksum right again.
pub(super) fn changed(mut batch: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut batch);
    seal_batch(&mut batch);
    batch
}

/// The whole batches in what a Fetch gave (one character per byte), header fields and records.
pub(super) fn shown(latin1: &str) -> Value {
    let bytes: Vec<u8> = latin1
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("one character per byte"))
        .collect();
    let mut rest = bytes.as_slice();
    let mut batches = Vec::new();
    while rest.len() >= BATCH_HEADER_BYTES {
        let length = u32::from_be_bytes(rest[8..12].try_into().expect("four bytes"));
        let Some((batch, after)) = rest.split_at_checked(12 + length as usize) else {
            break;
        };
        rest = after;
        batches.push(batch_shown(batch));
    }
    batches.into()
}

fn batch_shown(batch: &[u8]) -> Value {
    let i16_at = |at: usize| i16::from_be_bytes(batch[at..at + 2].try_into().expect("two bytes"));
    let i32_at = |at: usize| i32::from_be_bytes(batch[at..at + 4].try_into().expect("four bytes"));
    let i64_at = |at: usize| i64::from_be_bytes(batch[at..at + 8].try_into().expect("eight bytes"));
    let producer = i64_at(43);
    let producer = if (0..CHOSEN_PRODUCER_ID).contains(&producer) {
        json!("<producer>")
    } else {
        json!(producer)
    };
    let control = i16_at(21) & 0x20 != 0;
    let decoded = RecordBatchDecoder::decode(&mut Bytes::copy_from_slice(batch));
    let records: Vec<Value> = decoded
        .expect("a fetched batch decodes")
        .records
        .iter()
        .map(|record| {
            let value = record.value.as_ref().map(|value| latin1_of(value));
            let timestamp = if control { 0 } else { record.timestamp };
            json!([
                timestamp,
                record.key.as_ref().map(|key| latin1_of(key)),
                value
            ])
        })
        .collect();
    json!({
        "base_offset": i64_at(0), "leader_epoch": i32_at(12), "attributes": i16_at(21), "last_offset_delta": i32_at(23),
        "producer": producer, "producer_epoch": i16_at(51), "sequence": i32_at(53), "records": records,
    })
}

fn latin1_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
