//! Builds uncompressed v2 batches, for internal topics and for tests.
//!
//! Owns nothing but a buffer. Never used for what a producer sent: those bytes stay as they are.

use bytes::Bytes;

/// Collects records into one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    base_timestamp: i64,
    producer: (i64, i16, i32),
    records: Vec<u8>,
    count: i32,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// A builder whose records take `base_timestamp` (ms since the epoch) as their base.
    pub fn new(base_timestamp: i64) -> Self {
        Self {
            base_timestamp,
            producer: (-1, -1, -1),
            records: Vec::new(),
            count: 0,
            max_timestamp: base_timestamp,
        }
    }

    /// Sets producer id, epoch and base sequence.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Adds a record with the base timestamp.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> &mut Self {
        self.push_with(self.base_timestamp, key, value, &[])
    }

    /// Adds a record with a timestamp and headers of its own.
    pub fn push_with(
        &mut self,
        _timestamp: i64,
        _key: Option<&[u8]>,
        _value: Option<&[u8]>,
        _headers: &[(&[u8], Option<&[u8]>)],
    ) -> &mut Self {
        unimplemented!()
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes that the batch would have now.
    pub fn size(&self) -> usize {
        crate::BATCH_HEADER_BYTES + self.records.len()
    }

    /// The batch, base offset 0, leader epoch -1.
    pub fn build(self) -> Bytes {
        let _ = self.max_timestamp;
        unimplemented!()
    }
}
