//! A walk over the records of a batch.
//!
//! Owns the layout of a record. Never allocates from a count on the wire.

use crate::batch::BatchError;

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its key, as bytes (Kafka means UTF-8, nobody checks).
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// One record, as slices of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    headers_count: i32,
}

impl<'a> Record<'a> {
    /// Its headers, in order; duplicates stay.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            rest: self.headers,
            left: self.headers_count,
        }
    }
}

/// Iterator over the headers of a record (already checked).
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;
    fn next(&mut self) -> Option<Header<'a>> {
        let _ = (&self.rest, self.left);
        unimplemented!()
    }
}

/// Iterator over uncompressed (or decompressed) records: the bytes behind the batch header.
#[derive(Debug, Clone)]
pub struct RecordWalker<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> RecordWalker<'a> {
    /// Walks `count` records in `records`; the iterator yields an error where they are malformed, also when bytes are
    /// left at the end, and then ends.
    pub fn new(records: &'a [u8], count: i32) -> Self {
        Self {
            rest: records,
            index: 0,
            count,
        }
    }
}

impl<'a> Iterator for RecordWalker<'a> {
    type Item = Result<Record<'a>, BatchError>;
    fn next(&mut self) -> Option<Self::Item> {
        let _ = (&self.rest, self.index, self.count);
        unimplemented!()
    }
}

/// The records of a whole batch, decompressed if need be, at most `decompressed_bytes_max` bytes.
pub fn decompressed(
    _batch: &[u8],
    _decompressed_bytes_max: usize,
) -> Result<std::borrow::Cow<'_, [u8]>, BatchError> {
    unimplemented!()
}
