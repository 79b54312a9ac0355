//! What a batch must fulfil before it is taken, and what is changed in it.
//!
//! Owns the rules of the topic (size, timestamps); those of the bytes stand in `keelson_protocol`. Bytes change only
//! where Kafka changes them: log append time, a wrong max timestamp, and another codec that the topic wants.

use bytes::{Bytes, BytesMut};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;
use keelson_protocol::{
    BatchError, BatchHeader, Compression, ErrorCode, Levels, ValidateLimits, Validated, recompress,
    records_at_fault, rewrite_timestamps, validate_produced,
};
use keelson_state::config::{CompressionType, TimestampType, TopicSettings};

use crate::errors;

/// A record without a timestamp is in no way out of range.
const NO_TIMESTAMP: i64 = -1;
/// A compressed batch above this is walked where blocking is allowed; it may decompress to a hundred times its size.
const HEAVY_BYTES: usize = 32 * 1024;
/// How many records of a batch are named as being at fault; as many as librdkafka puts in a batch unless told otherwise.
const RECORD_ERRORS_MAX: usize = 10_000;
/// The time of an append is in the answer only where the broker sets it.
const NO_APPEND_TIME: i64 = -1;

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// Records that are at fault, by their place in the batch.
    pub(super) records: Vec<(i32, StrBytes)>,
    /// The request itself is wrong: the log was not looked at.
    early: bool,
    /// Where the log starts, once the records themselves were looked at; -1 before.
    pub(super) log_start: i64,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: String) -> Self {
        Self {
            code,
            message,
            records: Vec::new(),
            early: false,
            log_start: -1,
        }
    }

    /// What is wrong is in the records: a producer that is behind learns where the log starts, as Kafka tells it.
    pub(super) fn by_records(self, log_start: i64) -> Self {
        match self.code {
            // Kafka says so before it looks at the log.
            ErrorCode::CorruptMessage
            | ErrorCode::MessageTooLarge
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::KafkaStorageError => self,
            _ if self.early => self,
            _ => Self { log_start, ..self },
        }
    }

    fn batch(error: &BatchError) -> Self {
        let mut refused = Self::new(errors::batch(error), error.to_string());
        refused.early = matches!(
            error,
            BatchError::Trailing { .. } | BatchError::Magic { .. }
        );
        if let BatchError::Record { index, .. } = error {
            refused
                .records
                .push((*index, StrBytes::from_string(error.to_string())));
        }
        refused
    }
}

/// A batch that is taken.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) bytes: Bytes,
    pub(super) header: BatchHeader,
    /// For the answer; -1 unless the broker sets the time.
    pub(super) append_time_ms: i64,
}

/// Checks a batch from end to end and sets its timestamps as the topic wants them. A large compressed batch takes
/// milliseconds: the runtime is told, so that other connections go on meanwhile.
pub(super) fn check(
    records: Bytes,
    settings: &TopicSettings,
    version: i16,
    now_ms: i64,
) -> Result<Checked, Refused> {
    if is_heavy(&records, settings) {
        tokio::task::block_in_place(|| check_here(records, settings, version, now_ms))
    } else {
        check_here(records, settings, version, now_ms)
    }
}

fn is_heavy(records: &Bytes, settings: &TopicSettings) -> bool {
    records.len() > HEAVY_BYTES
        && BatchHeader::parse(records)
            .and_then(|header| header.compression())
            .is_ok_and(|codec| codec != Compression::None || stored_as(codec, settings) != codec)
}

/// The codec in which a batch is stored that was sent in `codec`.
fn stored_as(codec: Compression, settings: &TopicSettings) -> Compression {
    match settings.compression_type {
        CompressionType::Producer => codec,
        CompressionType::Uncompressed => Compression::None,
        CompressionType::Gzip => Compression::Gzip,
        CompressionType::Snappy => Compression::Snappy,
        CompressionType::Lz4 => Compression::Lz4,
        CompressionType::Zstd => Compression::Zstd,
    }
}

fn check_here(
    mut records: Bytes,
    settings: &TopicSettings,
    version: i16,
    now_ms: i64,
) -> Result<Checked, Refused> {
    if records.is_empty() {
        let message = "a produce needs exactly one record batch per partition".to_owned();
        return Err(Refused {
            early: true,
            ..Refused::new(ErrorCode::InvalidRecord, message)
        });
    }
    let limits = ValidateLimits {
        batch_bytes_max: usize::try_from(settings.max_message_bytes).unwrap_or(0),
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        produce_version: version,
    };
    let mut validated = validate_produced(&records, &limits).map_err(|e| Refused::batch(&e))?;
    if validated.header.base_offset != 0 {
        let message = format!(
            "the base offset of a produced batch is 0, not {}",
            validated.header.base_offset
        );
        return Err(Refused::new(ErrorCode::InvalidRecord, message));
    }
    if settings.compaction.is_some() && !validated.all_have_keys {
        return Err(without_key(&records));
    }
    let refuse = |error: BatchError| Refused::batch(&error);
    let sent_as = validated.header.compression().map_err(refuse)?;
    let codec = stored_as(sent_as, settings);
    if codec != sent_as {
        let how = (codec, levels(settings));
        records = recompress(&records, how, limits.batch_bytes_max).map_err(refuse)?;
        validated.header = BatchHeader::parse(&records).map_err(refuse)?;
    }
    match settings.timestamp_type {
        TimestampType::LogAppendTime => stamp(
            records,
            keelson_protocol::TimestampType::LogAppendTime,
            now_ms,
            now_ms,
        ),
        TimestampType::CreateTime => {
            check_range(&records, &validated, settings, now_ms)?;
            if validated.max_timestamp_wrong() {
                return stamp(
                    records,
                    keelson_protocol::TimestampType::CreateTime,
                    validated.max_timestamp,
                    NO_APPEND_TIME,
                );
            }
            Ok(Checked {
                bytes: records,
                header: validated.header,
                append_time_ms: NO_APPEND_TIME,
            })
        }
    }
}

/// A compacted topic keeps the newest record of each key, so that a record without one could never go.
fn without_key(records: &[u8]) -> Refused {
    let message = StrBytes::from_static_str("Compacted topic cannot accept message without key.");
    let found = records_at_fault(
        records,
        DECOMPRESSED_BYTES_MAX,
        RECORD_ERRORS_MAX,
        |_, has_key| !has_key,
    );
    Refused {
        code: ErrorCode::InvalidRecord,
        message: "One or more records have been rejected".to_owned(),
        records: told(found, |_| message.clone()),
        early: false,
        log_start: -1,
    }
}

fn levels(settings: &TopicSettings) -> Levels {
    Levels {
        gzip: settings.compression_levels.gzip,
        zstd: settings.compression_levels.zstd,
    }
}

/// Producers' timestamps lie around the broker's clock: a record from the far future would keep its segment from ever
/// expiring. Only where there is a bound below are the records walked for it.
fn check_range(
    records: &[u8],
    validated: &Validated,
    settings: &TopicSettings,
    now_ms: i64,
) -> Result<(), Refused> {
    let earliest = now_ms.saturating_sub(settings.timestamp_before_max_ms);
    let latest = now_ms.saturating_add(settings.timestamp_after_max_ms);
    if validated.max_timestamp <= latest && settings.timestamp_before_max_ms == i64::MAX {
        return Ok(());
    }
    let is_out =
        |timestamp: i64| timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(&timestamp);
    let found = records_at_fault(
        records,
        DECOMPRESSED_BYTES_MAX,
        RECORD_ERRORS_MAX,
        |timestamp, _| is_out(timestamp),
    );
    let records = told(found, |index| {
        StrBytes::from_string(format!(
            "Timestamp of record {index} is out of range. The timestamp should be within [{earliest}, {latest}]"
        ))
    });
    if records.is_empty() {
        return Ok(());
    }
    Err(Refused {
        code: ErrorCode::InvalidTimestamp,
        message: "One or more records have been rejected due to invalid timestamp".to_owned(),
        records,
        early: false,
        log_start: -1,
    })
}

/// The records at fault, each with its words. They were walked once without an error, so a second walk has none either.
fn told(
    found: Result<Vec<i32>, BatchError>,
    words: impl Fn(i32) -> StrBytes,
) -> Vec<(i32, StrBytes)> {
    let indexes = found.unwrap_or_default().into_iter();
    indexes.map(|index| (index, words(index))).collect()
}

fn stamp(
    records: Bytes,
    kind: keelson_protocol::TimestampType,
    max_timestamp: i64,
    append_time_ms: i64,
) -> Result<Checked, Refused> {
    let mut bytes = BytesMut::from(&records[..]);
    rewrite_timestamps(&mut bytes, kind, max_timestamp).map_err(|e| Refused::batch(&e))?;
    let header = BatchHeader::parse(&bytes).map_err(|e| Refused::batch(&e))?;
    Ok(Checked {
        bytes: bytes.freeze(),
        header,
        append_time_ms,
    })
}
