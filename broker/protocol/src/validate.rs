//! What a produced batch must fulfil before anything of it is kept.
//!
//! Owns the judgement on bytes that a producer sent (Kafka's `LogValidator` and `ProduceRequest.validateRecords`).
//! Never changes them.

use crate::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, TimestampType, verify_crc};
use crate::compression::Compression;
use crate::records::{RawRecord, SliceSource, Source, StreamSource, read_record};

/// First Produce version that may carry zstd (KIP-110).
const ZSTD_PRODUCE_VERSION_MIN: i16 = 7;

/// Default for [`ValidateLimits::decompressed_bytes_max`]: more than a hundred times the default `max.message.bytes`, and
/// an amount that a consumer can still hold.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Limits of [`validate_produced`].
#[derive(Debug, Clone, Copy)]
pub struct ValidateLimits {
    /// `max.message.bytes`: the largest batch as it stands on the wire, header included.
    pub batch_bytes_max: usize,
    /// The largest size of the records after decompression.
    pub decompressed_bytes_max: usize,
    /// Version of the Produce request that carried the batch (zstd needs 7, KIP-110).
    pub produce_version: i16,
}

/// What [`validate_produced`] found out.
#[derive(Debug, Clone, Copy)]
pub struct Validated {
    /// The header as sent.
    pub header: BatchHeader,
    /// The largest timestamp of its records; the header may say something else (see [`Validated::max_timestamp_wrong`]).
    pub max_timestamp: i64,
    /// Whether every record has a key (compacted topics want that).
    pub all_have_keys: bool,
    /// Bytes of the records after decompression.
    pub decompressed_bytes: usize,
}

impl Validated {
    /// True if the header's max timestamp must be rewritten, as Kafka does.
    pub fn max_timestamp_wrong(&self) -> bool {
        self.header.max_timestamp != self.max_timestamp
    }
}

/// Checks one produced record batch from end to end; `bytes` must hold exactly one.
///
/// In this order: header and magic, length, `max.message.bytes`, CRC, attributes, counts, producer fields, codec, and
/// every record, decompressed as a stream: nothing of a compressed batch is kept, and nothing is allocated from a count.
pub fn validate_produced(bytes: &[u8], limits: &ValidateLimits) -> Result<Validated, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    check_size(&header, bytes, limits)?;
    verify_crc(bytes)?;
    check_attributes(&header)?;
    check_counts(&header)?;
    check_producer(&header)?;
    let codec = header.compression()?;
    if codec == Compression::Zstd && limits.produce_version < ZSTD_PRODUCE_VERSION_MIN {
        return Err(BatchError::CompressionVersion {
            version: limits.produce_version,
            needed: ZSTD_PRODUCE_VERSION_MIN,
        });
    }
    let records = &bytes[BATCH_HEADER_BYTES..];
    let mut walk = Walk::new(header);
    let trailing;
    if codec == Compression::None {
        let mut source = SliceSource { rest: records };
        walk.all(&mut source)?;
        trailing = !source.rest.is_empty();
        walk.found.decompressed_bytes = records.len();
    } else {
        let mut source = StreamSource::new(codec, records, limits.decompressed_bytes_max)?;
        walk.all(&mut source)?;
        trailing = !source.at_end()?;
        walk.found.decompressed_bytes = source.total_bytes;
    }
    if trailing {
        return Err(BatchError::RecordsTrailing {
            records_count: header.records_count,
        });
    }
    Ok(walk.found)
}

/// Offset deltas of the records that `at_fault` is true for, given their timestamps and whether they have a key; at most
/// `most`. `batch` is one that [`validate_produced`] took under the same `decompressed_bytes_max`.
pub fn records_at_fault(
    batch: &[u8],
    decompressed_bytes_max: usize,
    most: usize,
    at_fault: impl Fn(i64, bool) -> bool,
) -> Result<Vec<i32>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let records = &batch[BATCH_HEADER_BYTES..];
    let codec = header.compression()?;
    if codec == Compression::None {
        find(&header, &mut SliceSource { rest: records }, most, at_fault)
    } else {
        let mut source = StreamSource::new(codec, records, decompressed_bytes_max)?;
        find(&header, &mut source, most, at_fault)
    }
}

fn find<S: Source>(
    header: &BatchHeader,
    source: &mut S,
    most: usize,
    at_fault: impl Fn(i64, bool) -> bool,
) -> Result<Vec<i32>, BatchError> {
    let mut found = Vec::new();
    for index in 0..header.records_count {
        let record = read_record(source, index)?;
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        if at_fault(timestamp, record.key.is_some()) {
            found.push(index);
            if found.len() == most {
                break;
            }
        }
    }
    Ok(found)
}

fn check_size(
    header: &BatchHeader,
    bytes: &[u8],
    limits: &ValidateLimits,
) -> Result<(), BatchError> {
    let size = header.size();
    if bytes.len() < size {
        return Err(BatchError::Length {
            length: header.batch_length,
            have: bytes.len(),
            expected: size,
        });
    }
    if bytes.len() > size {
        return Err(BatchError::Trailing {
            trailing: bytes.len() - size,
            size,
        });
    }
    if size > limits.batch_bytes_max {
        return Err(BatchError::TooLarge {
            size,
            max: limits.batch_bytes_max,
        });
    }
    Ok(())
}

fn check_attributes(header: &BatchHeader) -> Result<(), BatchError> {
    let wrong = |reason| {
        Err(BatchError::Attributes {
            attributes: header.attributes,
            reason,
        })
    };
    if header.is_control() {
        return wrong("control records are written by brokers only");
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return wrong("the log append time is set by brokers only");
    }
    if header.has_delete_horizon() {
        return wrong("the delete horizon is set by compaction only");
    }
    Ok(())
}

fn check_counts(header: &BatchHeader) -> Result<(), BatchError> {
    if header.records_count < 1 || header.last_offset_delta != header.records_count - 1 {
        return Err(BatchError::Counts {
            records_count: header.records_count,
            last_offset_delta: header.last_offset_delta,
        });
    }
    Ok(())
}

fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let wrong = |reason| {
        Err(BatchError::Producer {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            reason,
        })
    };
    if header.producer_id < -1 {
        return wrong("the producer id is negative");
    }
    if !header.has_producer_id() {
        // Kafka looks at epoch and sequence only when there is an id.
        return if header.is_transactional() {
            wrong("a transactional batch needs a producer id")
        } else {
            Ok(())
        };
    }
    if header.producer_epoch < 0 {
        return wrong("a producer id needs an epoch");
    }
    if header.base_sequence < 0 {
        return wrong("a producer id needs a sequence");
    }
    Ok(())
}

/// The state of a walk over the records of a produced batch.
struct Walk {
    found: Validated,
}

impl Walk {
    fn new(header: BatchHeader) -> Self {
        let found = Validated {
            header,
            max_timestamp: i64::MIN,
            all_have_keys: true,
            decompressed_bytes: 0,
        };
        Self { found }
    }

    fn all<S: Source>(&mut self, source: &mut S) -> Result<(), BatchError> {
        for index in 0..self.found.header.records_count {
            let record = read_record(source, index)?;
            self.see(index, &record)?;
        }
        Ok(())
    }

    fn see<S>(&mut self, index: i32, record: &RawRecord<S>) -> Result<(), BatchError> {
        if record.offset_delta != index {
            return Err(BatchError::Record {
                index,
                field: "offset_delta",
                value: i64::from(record.offset_delta),
                reason: "is not the index of the record",
            });
        }
        let Some(timestamp) = self
            .found
            .header
            .base_timestamp
            .checked_add(record.timestamp_delta)
        else {
            return Err(BatchError::Record {
                index,
                field: "timestamp_delta",
                value: record.timestamp_delta,
                reason: "overflows the timestamp",
            });
        };
        if timestamp > self.found.max_timestamp || index == 0 {
            self.found.max_timestamp = timestamp;
        }
        self.found.all_have_keys &= record.key.is_some();
        Ok(())
    }
}
