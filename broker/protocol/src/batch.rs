//! The header of a record batch of format v2 (magic 2; KIP-98, Kafka's `DefaultRecordBatch`), as a view over bytes.
//!
//! Owns the offsets of its fields: no other place knows them. Never touches records (see [`crate::records`]).
//!
//! ```text
//!  0        8        12       16   17       21      23       27
//!  | base   | length | leader | ma | crc    | attri | last   | base timestamp ...
//!  | offset | (rest) | epoch  | gic| CRC32C | butes | delta  |
//!  27        35        43        51      53       57       61
//!  | base    | max     | producer| epoch | base   | record | records ...
//!  | timest. | timest. | id      |       | seq.   | count  |
//! ```
//! All big-endian. `length` counts what follows it (from byte 12). The CRC covers byte 21 to the end, so that base
//! offset and leader epoch can be patched without touching it.

use thiserror::Error;

use crate::compression::Compression;

const BASE_OFFSET: usize = 0;
const BATCH_LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORDS_COUNT: usize = 57;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes at the start of a batch that may be patched: base offset, length and leader epoch; not covered by the CRC.
pub const BATCH_PREFIX_BYTES: usize = MAGIC;
/// Bytes that `batch_length` does not count: base offset and the length itself.
pub const BATCH_LENGTH_OVERHEAD_BYTES: usize = LEADER_EPOCH;
/// The only batch format that is stored.
pub const MAGIC_V2: i8 = 2;

pub(crate) const ATTRIBUTE_CODEC_MASK: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTRIBUTE_CONTROL: i16 = 0x20;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// Why bytes are not a record batch that can be kept or served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than a header.
    #[error("batch of {have} bytes is shorter than its header of {need} bytes")]
    Truncated {
        /// Bytes there are.
        have: usize,
        /// Bytes there must be.
        need: usize,
    },
    /// The length field disagrees with the bytes.
    #[error("batch_length {length} does not fit: {have} bytes, {expected} expected")]
    Length {
        /// The field.
        length: i32,
        /// Bytes there are.
        have: usize,
        /// Bytes that the field implies (0 if it is impossible by itself).
        expected: usize,
    },
    /// Bytes follow the one batch that is allowed.
    #[error("{trailing} bytes follow the batch of {size} bytes")]
    Trailing {
        /// Bytes behind the batch.
        trailing: usize,
        /// Size of the batch.
        size: usize,
    },
    /// Not format v2.
    #[error("magic {magic} is not supported, only {MAGIC_V2} is")]
    Magic {
        /// The field.
        magic: i8,
    },
    /// The checksum does not match.
    #[error("crc {stored:#010x} is stored, but the bytes give {computed:#010x}")]
    Crc {
        /// The field.
        stored: u32,
        /// CRC32C of bytes 21 to the end.
        computed: u32,
    },
    /// Larger than `max.message.bytes`.
    #[error("batch of {size} bytes is larger than max.message.bytes = {max}")]
    TooLarge {
        /// Size of the batch.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The record count is impossible.
    #[error("records_count {records_count} and last_offset_delta {last_offset_delta} disagree")]
    Counts {
        /// The field.
        records_count: i32,
        /// The field.
        last_offset_delta: i32,
    },
    /// Producer id, epoch and sequence do not go together.
    #[error(
        "producer_id {producer_id}, producer_epoch {producer_epoch}, base_sequence {base_sequence}: {reason}"
    )]
    Producer {
        /// The field.
        producer_id: i64,
        /// The field.
        producer_epoch: i16,
        /// The field.
        base_sequence: i32,
        /// What is wrong about them.
        reason: &'static str,
    },
    /// Attributes that a producer must not set.
    #[error("attributes {attributes:#06x}: {reason}")]
    Attributes {
        /// The field.
        attributes: i16,
        /// What is wrong about them.
        reason: &'static str,
    },
    /// The codec is unknown.
    #[error("compression codec {codec} is unknown")]
    UnknownCompression {
        /// Bits 0 to 2 of the attributes.
        codec: i16,
    },
    /// The codec may not be used with this request version (KIP-110).
    #[error("zstd needs Produce version {needed} or higher, this is {version}")]
    CompressionVersion {
        /// Version of the request.
        version: i16,
        /// First version that may carry zstd.
        needed: i16,
    },
    /// The records do not decompress.
    #[error("{codec} data does not decompress: {reason}")]
    Decompress {
        /// The codec's name.
        codec: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The records decompress to more than allowed.
    #[error("{codec} data decompresses to more than {max} bytes")]
    Bomb {
        /// The codec's name.
        codec: &'static str,
        /// The limit.
        max: usize,
    },
    /// A record is malformed.
    #[error("record {index}: {field} {value}: {reason}")]
    Record {
        /// Which record, counted from 0.
        index: i32,
        /// Which of its fields.
        field: &'static str,
        /// Its value.
        value: i64,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// Bytes follow the last record.
    #[error("bytes follow the last of {records_count} records")]
    RecordsTrailing {
        /// The field.
        records_count: i32,
    },
}

/// Whether bytes that claim to be a batch claim to belong to a transaction; nothing else of them is looked at.
pub fn claims_transaction(bytes: &[u8]) -> bool {
    let field = bytes.get(ATTRIBUTES..).and_then(<[u8]>::first_chunk);
    field.is_some_and(|field| i16::from_be_bytes(*field) & ATTRIBUTE_TRANSACTIONAL != 0)
}

/// Who set the timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker, at append.
    LogAppendTime,
}

/// The 61 bytes before the first record, parsed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are Kafka's; the layout stands in the module's doc.
pub struct BatchHeader {
    pub base_offset: i64,
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

fn array<const N: usize>(bytes: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may be longer or shorter than the whole batch.
    ///
    /// Checks magic and that the length is possible; nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let head: &[u8; BATCH_HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::Truncated {
            have: bytes.len(),
            need: BATCH_HEADER_BYTES,
        })?;
        let header = Self {
            base_offset: i64::from_be_bytes(array(head, BASE_OFFSET)),
            batch_length: i32::from_be_bytes(array(head, BATCH_LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(array(head, LEADER_EPOCH)),
            magic: i8::from_be_bytes(array(head, MAGIC)),
            crc: u32::from_be_bytes(array(head, CRC)),
            attributes: i16::from_be_bytes(array(head, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(array(head, LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(array(head, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(head, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(head, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(array(head, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(array(head, BASE_SEQUENCE)),
            records_count: i32::from_be_bytes(array(head, RECORDS_COUNT)),
        };
        if header.magic != MAGIC_V2 {
            return Err(BatchError::Magic {
                magic: header.magic,
            });
        }
        if header.batch_length < (BATCH_HEADER_BYTES - BATCH_LENGTH_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::Length {
                length: header.batch_length,
                have: bytes.len(),
                expected: 0,
            });
        }
        Ok(header)
    }

    /// Bytes of the whole batch, header included.
    pub fn size(&self) -> usize {
        // `parse` refuses lengths below a header's, so the cast keeps the value.
        self.batch_length as usize + BATCH_LENGTH_OVERHEAD_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record, wrapping from `i32::MAX` to 0 (Kafka's `incrementSequence`); -1 without a sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let codec = self.attributes & ATTRIBUTE_CODEC_MASK;
        Compression::from_id(codec).ok_or(BatchError::UnknownCompression { codec })
    }

    /// True for a batch of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// True for a commit or abort marker.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// True if compaction has set a delete horizon in the base timestamp.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & ATTRIBUTE_DELETE_HORIZON != 0
    }

    /// When the tombstones in it may go (KIP-534), Unix time in ms; compaction has set it at its first pass over them.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// True if a producer id stands in it (idempotent or transactional producer).
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }
}

/// The one batch at the start of `bytes`, sized by its own header.
fn sized(bytes: &[u8]) -> Result<(BatchHeader, &[u8]), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    match bytes.get(..header.size()) {
        Some(batch) => Ok((header, batch)),
        None => Err(BatchError::Length {
            length: header.batch_length,
            have: bytes.len(),
            expected: header.size(),
        }),
    }
}

fn crc_of(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES..])
}

/// Checks the CRC32C of the batch at the start of `bytes`; what follows the batch is ignored.
pub fn verify_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let (header, batch) = sized(bytes)?;
    let computed = crc_of(batch);
    if computed == header.crc {
        Ok(())
    } else {
        Err(BatchError::Crc {
            stored: header.crc,
            computed,
        })
    }
}

/// Writes base offset and partition leader epoch into the first 16 bytes of a batch; everything else stays as sent.
///
/// # Panics
/// If `head` is shorter than [`BATCH_PREFIX_BYTES`].
pub fn patch_offset_and_epoch(head: &mut [u8], base_offset: i64, epoch: i32) {
    assert!(
        head.len() >= BATCH_PREFIX_BYTES,
        "a batch prefix has {BATCH_PREFIX_BYTES} bytes"
    );
    head[BASE_OFFSET..BASE_OFFSET + 8].copy_from_slice(&base_offset.to_be_bytes());
    head[LEADER_EPOCH..LEADER_EPOCH + 4].copy_from_slice(&epoch.to_be_bytes());
}

/// Sets timestamp type and max timestamp and computes the CRC anew, as Kafka does for `LogAppendTime` topics and for a
/// wrong max timestamp. The records, and the base timestamp that their deltas refer to, stay as sent.
///
/// # Errors
/// If `batch` is not exactly one batch.
pub fn rewrite_timestamps(
    batch: &mut [u8],
    kind: TimestampType,
    max_timestamp: i64,
) -> Result<(), BatchError> {
    let (header, whole) = sized(batch)?;
    if whole.len() != batch.len() {
        return Err(BatchError::Trailing {
            trailing: batch.len() - whole.len(),
            size: whole.len(),
        });
    }
    let attributes = match kind {
        TimestampType::CreateTime => header.attributes & !ATTRIBUTE_LOG_APPEND_TIME,
        TimestampType::LogAppendTime => header.attributes | ATTRIBUTE_LOG_APPEND_TIME,
    };
    batch[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP..MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc_of(batch);
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Writes a header before its records: `batch` is the whole batch with room for the header; length and CRC are computed.
pub(crate) fn seal(batch: &mut [u8], header: &BatchHeader) {
    let length = (batch.len() - BATCH_LENGTH_OVERHEAD_BYTES) as i32;
    let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
    put(BASE_OFFSET, &header.base_offset.to_be_bytes());
    put(BATCH_LENGTH, &length.to_be_bytes());
    put(LEADER_EPOCH, &header.partition_leader_epoch.to_be_bytes());
    put(MAGIC, &MAGIC_V2.to_be_bytes());
    put(ATTRIBUTES, &header.attributes.to_be_bytes());
    put(LAST_OFFSET_DELTA, &header.last_offset_delta.to_be_bytes());
    put(BASE_TIMESTAMP, &header.base_timestamp.to_be_bytes());
    put(MAX_TIMESTAMP, &header.max_timestamp.to_be_bytes());
    put(PRODUCER_ID, &header.producer_id.to_be_bytes());
    put(PRODUCER_EPOCH, &header.producer_epoch.to_be_bytes());
    put(BASE_SEQUENCE, &header.base_sequence.to_be_bytes());
    put(RECORDS_COUNT, &header.records_count.to_be_bytes());
    let crc = crc_of(batch);
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
}
