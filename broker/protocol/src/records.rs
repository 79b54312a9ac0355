//! A walk over the records of a batch.
//!
//! Owns the layout of a record (KIP-98, Kafka's `DefaultRecord`). Never allocates from a count or length on the wire.
//!
//! ```text
//! length      varint    bytes of what follows
//! attributes  i8        unused
//! timestamp   varlong   delta to the batch's base timestamp
//! offset      varint    delta to the batch's base offset
//! key         varint n, n bytes        (n = -1: null)
//! value       varint n, n bytes        (n = -1: null)
//! headers     varint count, then each: key (varint n, n bytes), value (varint n, n bytes; -1: null)
//! ```
//! Varints are zigzag, at most 5 bytes for 32 and 10 for 64 bits.

use std::borrow::Cow;
use std::io::Read;

use crate::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader};
use crate::compression::{Compression, Decompressor};

const VARINT_BYTES_MAX: u32 = 5;
const VARLONG_BYTES_MAX: u32 = 10;
/// Bytes read from a decompressor at once.
const STREAM_CHUNK_BYTES: usize = 8 * 1024;

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
            source: SliceSource { rest: self.headers },
            left: self.headers_count,
        }
    }
}

/// Iterator over the headers of a record that the walker has already checked.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    source: SliceSource<'a>,
    left: i32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left <= 0 {
            return None;
        }
        self.left -= 1;
        let left = self.source.rest.len();
        let mut fields = Fields {
            source: &mut self.source,
            left,
            index: 0,
        };
        // The walker has read the same bytes before; an error cannot come, and would end the iteration.
        let (key, value) = fields.header().ok()?;
        Some(Header { key, value })
    }
}

/// Iterator over uncompressed (or decompressed) records: the bytes behind the batch header.
///
/// Yields an error where a record is malformed, where offset deltas do not ascend, and where bytes are left behind the
/// last record; then it ends.
#[derive(Debug, Clone)]
pub struct RecordWalker<'a> {
    source: SliceSource<'a>,
    index: i32,
    count: i32,
    last_delta: i32,
    done: bool,
}

impl<'a> RecordWalker<'a> {
    /// Walks `count` records in `records`.
    pub fn new(records: &'a [u8], count: i32) -> Self {
        Self {
            source: SliceSource { rest: records },
            index: 0,
            count,
            last_delta: -1,
            done: false,
        }
    }

    fn step(&mut self) -> Result<Option<Record<'a>>, BatchError> {
        if self.index >= self.count {
            return match self.source.rest {
                [] => Ok(None),
                _ => Err(BatchError::RecordsTrailing {
                    records_count: self.count,
                }),
            };
        }
        let record = read_record(&mut self.source, self.index)?;
        // Compacted batches have gaps, so that only the order is checked here; a produced batch has none.
        if record.offset_delta <= self.last_delta {
            return Err(BatchError::Record {
                index: self.index,
                field: "offset_delta",
                value: i64::from(record.offset_delta),
                reason: "does not ascend",
            });
        }
        self.last_delta = record.offset_delta;
        self.index += 1;
        Ok(Some(Record {
            offset_delta: record.offset_delta,
            timestamp_delta: record.timestamp_delta,
            key: record.key,
            value: record.value,
            headers: record.headers,
            headers_count: record.headers_count,
        }))
    }
}

impl<'a> Iterator for RecordWalker<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

/// The records of the batch at the start of `bytes`, decompressed if need be: what [`RecordWalker`] walks.
///
/// # Errors
/// If the header is malformed, the batch is not whole, or it decompresses to more than `decompressed_bytes_max`. The CRC
/// is not checked here.
pub fn decompressed(
    bytes: &[u8],
    decompressed_bytes_max: usize,
) -> Result<Cow<'_, [u8]>, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let records = bytes
        .get(BATCH_HEADER_BYTES..header.size())
        .ok_or(BatchError::Length {
            length: header.batch_length,
            have: bytes.len(),
            expected: header.size(),
        })?;
    let codec = header.compression()?;
    if codec == Compression::None {
        return Ok(Cow::Borrowed(records));
    }
    let mut out = Vec::new();
    let mut reader = Decompressor::new(codec, records)?.take(decompressed_bytes_max as u64 + 1);
    reader
        .read_to_end(&mut out)
        .map_err(|error| codec.failed(&error))?;
    if out.len() > decompressed_bytes_max {
        return Err(codec.bomb(decompressed_bytes_max));
    }
    Ok(Cow::Owned(out))
}

/// What a walk needs of the bytes, so that one reader of records serves slices and streams.
pub(crate) trait Source {
    /// A run of bytes: the slice itself, or nothing if they were only skipped.
    type Span;
    /// The next byte.
    fn byte(&mut self) -> Result<u8, Stop>;
    /// The next `n` bytes.
    fn take(&mut self, n: usize) -> Result<Self::Span, Stop>;
    /// What lies ahead, without moving.
    fn ahead(&self) -> Self::Span;
}

/// Why a source has no more bytes.
pub(crate) enum Stop {
    /// It ended.
    End,
    /// It failed.
    Failed(BatchError),
}

/// Records in memory.
#[derive(Debug, Clone)]
pub(crate) struct SliceSource<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Source for SliceSource<'a> {
    type Span = &'a [u8];

    #[inline]
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&first, rest) = self.rest.split_first().ok_or(Stop::End)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(Stop::End)?;
        self.rest = rest;
        Ok(taken)
    }

    fn ahead(&self) -> &'a [u8] {
        self.rest
    }
}

/// Records that come out of a decompressor; keys and values are read and dropped.
pub(crate) struct StreamSource<'a> {
    reader: Decompressor<'a>,
    codec: Compression,
    chunk: Box<[u8; STREAM_CHUNK_BYTES]>,
    at: usize,
    filled: usize,
    /// Bytes that came out so far.
    pub(crate) total_bytes: usize,
    bytes_max: usize,
}

impl<'a> StreamSource<'a> {
    pub(crate) fn new(
        codec: Compression,
        records: &'a [u8],
        bytes_max: usize,
    ) -> Result<Self, BatchError> {
        Ok(Self {
            reader: Decompressor::new(codec, records)?,
            codec,
            chunk: Box::new([0; STREAM_CHUNK_BYTES]),
            at: 0,
            filled: 0,
            total_bytes: 0,
            bytes_max,
        })
    }

    fn fill(&mut self) -> Result<(), Stop> {
        let read = self
            .reader
            .read(&mut self.chunk[..])
            .map_err(|error| Stop::Failed(self.codec.failed(&error)))?;
        if read == 0 {
            return Err(Stop::End);
        }
        self.total_bytes += read;
        if self.total_bytes > self.bytes_max {
            return Err(Stop::Failed(self.codec.bomb(self.bytes_max)));
        }
        (self.at, self.filled) = (0, read);
        Ok(())
    }

    /// True if nothing follows, also nothing that would not decompress.
    pub(crate) fn at_end(&mut self) -> Result<bool, BatchError> {
        match if self.at < self.filled {
            Ok(())
        } else {
            self.fill()
        } {
            Ok(()) => Ok(false),
            Err(Stop::End) => Ok(true),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

impl Source for StreamSource<'_> {
    type Span = ();

    #[inline]
    fn byte(&mut self) -> Result<u8, Stop> {
        if self.at == self.filled {
            self.fill()?;
        }
        let byte = self.chunk[self.at];
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, mut n: usize) -> Result<(), Stop> {
        loop {
            let have = self.filled - self.at;
            if n <= have {
                self.at += n;
                return Ok(());
            }
            n -= have;
            self.fill()?;
        }
    }

    fn ahead(&self) {}
}

/// One record as a source gives it.
pub(crate) struct RawRecord<S> {
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<S>,
    value: Option<S>,
    headers: S,
    headers_count: i32,
}

/// Reads one record; `index` is for the error only.
pub(crate) fn read_record<S: Source>(
    source: &mut S,
    index: i32,
) -> Result<RawRecord<S::Span>, BatchError> {
    let mut fields = Fields {
        source,
        left: usize::MAX,
        index,
    };
    let length = fields.varint("length")?;
    fields.left = usize::try_from(length)
        .map_err(|_| fields.wrong("length", length.into(), "is negative"))?;
    fields.byte("attributes")?;
    let timestamp_delta = fields.varlong("timestamp_delta")?;
    let offset_delta = fields.varint("offset_delta")?;
    let key = fields.nullable("key length")?;
    let value = fields.nullable("value length")?;
    let headers_count = fields.varint("headers count")?;
    if headers_count < 0 {
        return Err(fields.wrong("headers count", headers_count.into(), "is negative"));
    }
    let headers = fields.source.ahead();
    for _ in 0..headers_count {
        fields.header()?;
    }
    match fields.left {
        0 => Ok(RawRecord {
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
            headers_count,
        }),
        _ => Err(fields.wrong("length", length.into(), "is longer than the record")),
    }
}

/// Reads the fields of one record and never goes beyond its length.
struct Fields<'s, S> {
    source: &'s mut S,
    left: usize,
    index: i32,
}

impl<S: Source> Fields<'_, S> {
    fn wrong(&self, field: &'static str, value: i64, reason: &'static str) -> BatchError {
        BatchError::Record {
            index: self.index,
            field,
            value,
            reason,
        }
    }

    fn stopped(&self, stop: Stop, field: &'static str, value: i64) -> BatchError {
        match stop {
            Stop::End => self.wrong(field, value, "ends behind the batch"),
            Stop::Failed(error) => error,
        }
    }

    #[inline]
    fn byte(&mut self, field: &'static str) -> Result<u8, BatchError> {
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return Err(self.wrong(field, 0, "lies outside the record")),
        };
        match self.source.byte() {
            Ok(byte) => Ok(byte),
            Err(stop) => Err(self.stopped(stop, field, 0)),
        }
    }

    #[inline]
    fn unsigned(&mut self, field: &'static str, bytes_max: u32) -> Result<u64, BatchError> {
        let mut value = 0u64;
        for i in 0..bytes_max {
            let byte = self.byte(field)?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong(field, value as i64, "is an overlong varint"))
    }

    #[inline]
    fn varint(&mut self, field: &'static str) -> Result<i32, BatchError> {
        let raw = self.unsigned(field, VARINT_BYTES_MAX)?;
        let raw = u32::try_from(raw)
            .map_err(|_| self.wrong(field, raw as i64, "does not fit 32 bits"))?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline]
    fn varlong(&mut self, field: &'static str) -> Result<i64, BatchError> {
        let raw = self.unsigned(field, VARLONG_BYTES_MAX)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn span(&mut self, field: &'static str, length: i32) -> Result<S::Span, BatchError> {
        let n =
            usize::try_from(length).map_err(|_| self.wrong(field, length.into(), "is negative"))?;
        self.left = match self.left.checked_sub(n) {
            Some(left) => left,
            None => return Err(self.wrong(field, length.into(), "lies outside the record")),
        };
        self.source
            .take(n)
            .map_err(|stop| self.stopped(stop, field, length.into()))
    }

    fn nullable(&mut self, field: &'static str) -> Result<Option<S::Span>, BatchError> {
        match self.varint(field)? {
            -1 => Ok(None),
            length => self.span(field, length).map(Some),
        }
    }

    fn header(&mut self) -> Result<(S::Span, Option<S::Span>), BatchError> {
        let length = self.varint("header key length")?;
        let key = self.span("header key length", length)?;
        let value = self.nullable("header value length")?;
        Ok((key, value))
    }
}
