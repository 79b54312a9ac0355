//! Record batches (v2) and verifiable payloads, written and read by the tests' own few lines.
//!
//! Deliberately not `keelson-protocol`: a judge must not share the code it judges. Only uncompressed batches; compressed ones
//! are produced by real clients.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// The smallest payload that can be verified: checksum, stream, sequence.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// Fills a payload: CRC32C of the rest, stream, sequence, and bytes that follow from both.
///
/// # Panics
/// When it is shorter than [`PAYLOAD_BYTES_MIN`].
pub fn fill_payload(payload: &mut [u8], stream: u32, sequence: u64) {
    assert!(
        payload.len() >= PAYLOAD_BYTES_MIN,
        "a payload has at least {PAYLOAD_BYTES_MIN} bytes"
    );
    payload[4..8].copy_from_slice(&stream.to_be_bytes());
    payload[8..16].copy_from_slice(&sequence.to_be_bytes());
    let mut state = sequence ^ (u64::from(stream) << 40) ^ 0x9e37_79b9_7f4a_7c15;
    for chunk in payload[16..].chunks_mut(8) {
        // xorshift64: cheap, and different for each record.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_be_bytes()[..chunk.len()]);
    }
    let sum = crc32c::crc32c(&payload[4..]);
    payload[..4].copy_from_slice(&sum.to_be_bytes());
}

/// A payload as [`fill_payload`] makes it.
pub fn payload(bytes: usize, stream: u32, sequence: u64) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    fill_payload(&mut payload, stream, sequence);
    payload
}

/// Checks a payload; gives stream and sequence, or `None` when it is not what [`fill_payload`] wrote.
pub fn check_payload(payload: &[u8]) -> Option<(u32, u64)> {
    if payload.len() < PAYLOAD_BYTES_MIN {
        return None;
    }
    let sum = u32::from_be_bytes(payload[..4].try_into().ok()?);
    (sum == crc32c::crc32c(&payload[4..])).then_some(())?;
    let stream = u32::from_be_bytes(payload[4..8].try_into().ok()?);
    let sequence = u64::from_be_bytes(payload[8..16].try_into().ok()?);
    Some((stream, sequence))
}

/// Now, as record timestamps count it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// A batch of now: an older one could fall to retention in the middle of a test.
pub fn fresh_batch(values: &[&[u8]]) -> Vec<u8> {
    batch(values, now_ms())
}

/// An uncompressed batch with one record per value, no keys, no producer, base offset 0.
pub fn batch(values: &[&[u8]], timestamp_ms: i64) -> Vec<u8> {
    let records: Vec<(Option<&[u8]>, &[u8])> = values.iter().map(|value| (None, *value)).collect();
    keyed_batch(&records, timestamp_ms)
}

/// The same with a key and a value per record.
pub fn keyed_batch(records: &[(Option<&[u8]>, &[u8])], timestamp_ms: i64) -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    for (delta, (key, value)) in records.iter().enumerate() {
        let mut record = vec![0]; // attributes
        put_varint(&mut record, 0); // timestamp delta
        put_varint(&mut record, i64::try_from(delta).expect("a few records"));
        match key {
            None => put_varint(&mut record, -1),
            Some(key) => {
                put_varint(&mut record, i64::try_from(key.len()).expect("a key fits"));
                record.extend_from_slice(key);
            }
        }
        put_varint(
            &mut record,
            i64::try_from(value.len()).expect("a value fits"),
        );
        record.extend_from_slice(value);
        put_varint(&mut record, 0); // headers
        put_varint(
            &mut batch,
            i64::try_from(record.len()).expect("a record fits"),
        );
        batch.extend_from_slice(&record);
    }
    let count = i32::try_from(records.len()).expect("a few records");
    let length = i32::try_from(batch.len() - 12).expect("a batch fits");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2; // magic
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[27..35].copy_from_slice(&timestamp_ms.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    batch[43..57].fill(0xff); // no producer id, epoch, sequence
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    seal_batch(&mut batch);
    batch
}

/// Writes the batch's CRC32C over everything after it.
pub fn seal_batch(batch: &mut [u8]) {
    let sum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&sum.to_be_bytes());
}

/// Where a batch of one record with a value of `value_bytes` has that value.
pub fn single_value_position(batch: &[u8], value_bytes: usize) -> usize {
    // The value is followed by nothing but the empty header list.
    batch.len() - 1 - value_bytes
}

/// The whole batches in a fetch answer; Kafka allows a cut last one.
fn whole_batches(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = bytes
            .get(8..12)
            .filter(|_| bytes.len() >= BATCH_HEADER_BYTES)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let end = 12 + usize::try_from(length).expect("a length fits");
        let (batch, rest) = bytes.split_at_checked(end)?;
        bytes = rest;
        Some(batch)
    })
}

fn base_offset(batch: &[u8]) -> i64 {
    i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"))
}

/// The offset after the last whole batch in a fetch answer; a batch that compaction emptied counts, too.
pub fn next_offset(bytes: &[u8]) -> Option<i64> {
    let last = whole_batches(bytes).last()?;
    let delta = i32::from_be_bytes(last[23..27].try_into().expect("four bytes"));
    Some(base_offset(last) + i64::from(delta) + 1)
}

/// Offsets and values of all whole, uncompressed batches in a fetch answer.
///
/// # Panics
/// When a batch's CRC does not hold or a record does not parse: bytes served must be whole.
pub fn read_batches(bytes: &[u8]) -> Vec<(i64, Bytes)> {
    let mut records = Vec::new();
    for batch in whole_batches(bytes) {
        let base = base_offset(batch);
        let sum = u32::from_be_bytes(batch[17..21].try_into().expect("four bytes"));
        assert_eq!(
            sum,
            crc32c::crc32c(&batch[21..]),
            "CRC of the batch at offset {base}"
        );
        assert_eq!(batch[22] & 7, 0, "an uncompressed batch");
        let mut rest = &batch[BATCH_HEADER_BYTES..];
        while !rest.is_empty() {
            records.push(read_record(base, &mut rest));
        }
    }
    records
}

fn read_record(base: i64, rest: &mut &[u8]) -> (i64, Bytes) {
    let length = usize::try_from(take_varint(rest)).expect("a record has a length");
    let (mut record, after) = rest.split_at(length);
    *rest = after;
    record = &record[1..];
    take_varint(&mut record);
    let delta = take_varint(&mut record);
    let key = usize::try_from(take_varint(&mut record).max(0)).expect("a key has a length");
    record = &record[key..];
    let value = usize::try_from(take_varint(&mut record).max(0)).expect("a value has a length");
    (base + delta, Bytes::copy_from_slice(&record[..value]))
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.push((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn take_varint(bytes: &mut &[u8]) -> i64 {
    let mut zigzag = 0_u64;
    let mut shift = 0;
    loop {
        let (byte, rest) = bytes.split_first().expect("a varint has an end");
        *bytes = rest;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let values: Vec<Vec<u8>> = (0..300).map(|n| payload(16 + n, 7, n as u64)).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let read = read_batches(&fresh_batch(&slices));
        assert_eq!(read.len(), 300);
        for (n, (offset, value)) in read.iter().enumerate() {
            assert_eq!(*offset, n as i64);
            assert_eq!(check_payload(value), Some((7, n as u64)));
        }
    }

    #[test]
    fn kafka_protocol_reads_it_the_same_way() {
        let value = payload(200, 1, 2);
        let batch = batch(&[&value], 99);
        let mut bytes = Bytes::from(batch.clone());
        let set =
            kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).expect("a valid batch");
        assert_eq!(set.records.len(), 1);
        assert_eq!(set.records[0].value.as_deref(), Some(value.as_slice()));
        assert_eq!(set.records[0].timestamp, 99);
        assert_eq!(
            &batch[single_value_position(&batch, 200)..][..200],
            value.as_slice()
        );
    }

    #[test]
    fn a_changed_payload_is_noticed() {
        let mut value = payload(64, 1, 2);
        value[40] ^= 1;
        assert_eq!(check_payload(&value), None);
    }
}
