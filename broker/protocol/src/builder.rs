//! Builds uncompressed v2 batches, for internal topics and for tests; and records, for [`crate::compact`].
//!
//! Owns nothing but a buffer. Never used for what a producer sent: those bytes stay as they are.

use bytes::Bytes;

use crate::batch::{
    ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, BATCH_HEADER_BYTES, BatchHeader, MAGIC_V2, seal,
};
use crate::records::Record;

/// Collects records into one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    base_timestamp: i64,
    max_timestamp: i64,
    producer: (i64, i16, i32),
    attributes: i16,
    /// The batch, with room for its header.
    batch: Vec<u8>,
    count: i32,
}

impl BatchBuilder {
    /// A builder whose records take `base_timestamp` (ms since the epoch) as their base.
    pub fn new(base_timestamp: i64) -> Self {
        Self {
            base_timestamp,
            max_timestamp: i64::MIN,
            producer: (-1, -1, -1),
            attributes: 0,
            batch: vec![0; BATCH_HEADER_BYTES],
            count: 0,
        }
    }

    /// Sets producer id, epoch and base sequence.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// The batch is part of its producer's transaction.
    pub fn transactional(mut self) -> Self {
        self.attributes |= ATTRIBUTE_TRANSACTIONAL;
        self
    }

    /// The batch ends its producer's transaction.
    pub(crate) fn control(mut self) -> Self {
        self.attributes |= ATTRIBUTE_TRANSACTIONAL | ATTRIBUTE_CONTROL;
        self
    }

    /// Adds a record with the base timestamp.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> &mut Self {
        self.push_with(self.base_timestamp, key, value, &[])
    }

    /// Adds a record with a timestamp and headers of its own.
    pub fn push_with(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        let mut record = vec![0]; // attributes
        put_varlong(&mut record, timestamp - self.base_timestamp);
        put_varlong(&mut record, i64::from(self.count));
        put_nullable(&mut record, key);
        put_nullable(&mut record, value);
        put_varlong(&mut record, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(&mut record, Some(key));
            put_nullable(&mut record, *value);
        }
        put_varlong(&mut self.batch, record.len() as i64);
        self.batch.extend_from_slice(&record);
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes that the batch would have now.
    pub fn size(&self) -> usize {
        self.batch.len()
    }

    /// The batch, base offset 0, leader epoch -1.
    ///
    /// # Panics
    /// If no record was added: an empty batch is nothing that a producer may write.
    pub fn build(mut self) -> Bytes {
        assert!(self.count > 0, "a batch has at least one record");
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0, // set by seal
            partition_leader_epoch: -1,
            magic: MAGIC_V2,
            crc: 0, // set by seal
            attributes: self.attributes,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            records_count: self.count,
        };
        seal(&mut self.batch, &header);
        Bytes::from(self.batch)
    }
}

/// A batch without records over these offsets, as Kafka's compaction leaves one: it moves a client's position on.
pub fn empty_batch(base_offset: i64, last_offset: i64, leader_epoch: i32) -> Bytes {
    let last_offset_delta = i32::try_from(last_offset - base_offset)
        .expect("a batch spans no more offsets than its delta can say");
    let header = BatchHeader {
        base_offset,
        batch_length: 0, // set by seal
        partition_leader_epoch: leader_epoch,
        magic: MAGIC_V2,
        crc: 0, // set by seal
        attributes: 0,
        last_offset_delta,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: 0,
    };
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    seal(&mut batch, &header);
    Bytes::from(batch)
}

/// A record as it stands in a batch: offset and timestamp as deltas to the batch's.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record<'_>, timestamp_delta: i64) {
    let mut body = vec![0]; // attributes
    put_varlong(&mut body, timestamp_delta);
    put_varlong(&mut body, i64::from(record.offset_delta));
    put_nullable(&mut body, record.key);
    put_nullable(&mut body, record.value);
    put_varlong(&mut body, record.headers().count() as i64);
    for header in record.headers() {
        put_nullable(&mut body, Some(header.key));
        put_nullable(&mut body, header.value);
    }
    put_varlong(out, body.len() as i64);
    out.extend_from_slice(&body);
}

/// Zigzag varint; the 32-bit and 64-bit forms of a small value are the same bytes.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varlong(out, -1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::verify_crc;

    #[test]
    fn an_empty_batch_is_whole_and_spans_its_offsets() {
        let batch = empty_batch(90, 99, 3);
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(verify_crc(&batch), Ok(()));
        assert_eq!((header.base_offset, header.last_offset()), (90, 99));
        assert_eq!(
            (header.records_count, header.partition_leader_epoch),
            (0, 3)
        );
        assert_eq!(header.size(), batch.len());
    }
}
