//! What a batch must fulfil before it is taken, and what is changed in it.
//!
//! Owns the rules of the topic (size, timestamps); those of the bytes stand in `keelson_protocol`. Bytes change only
//! where Kafka changes them: log append time, and a wrong max timestamp.

use bytes::{Bytes, BytesMut};
use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;
use keelson_protocol::{
    BatchError, BatchHeader, Compression, ErrorCode, ValidateLimits, Validated, rewrite_timestamps,
    validate_produced,
};
use keelson_state::config::{TimestampType, TopicSettings};

use crate::errors;

/// How far ahead of the broker's clock a record may be: Kafka's default of `message.timestamp.after.max.ms`. A record
/// from the far future would keep its segment from ever expiring.
const TIMESTAMP_AHEAD_MS_MAX: i64 = 3_600_000;
/// A compressed batch above this is walked where blocking is allowed; it may decompress to a hundred times its size.
const HEAVY_BYTES: usize = 32 * 1024;
/// The time of an append is in the answer only where the broker sets it.
const NO_APPEND_TIME: i64 = -1;

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// Records that are at fault, by their place in the batch.
    pub(super) records: Vec<(i32, String)>,
}

impl Refused {
    pub(super) fn new(code: ErrorCode, message: String) -> Self {
        Self {
            code,
            message,
            records: Vec::new(),
        }
    }

    fn batch(error: &BatchError) -> Self {
        let mut refused = Self::new(errors::batch(error), error.to_string());
        if let BatchError::Record { index, .. } = error {
            refused.records.push((*index, error.to_string()));
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
    if is_heavy(&records) {
        tokio::task::block_in_place(|| check_here(records, settings, version, now_ms))
    } else {
        check_here(records, settings, version, now_ms)
    }
}

fn is_heavy(records: &Bytes) -> bool {
    records.len() > HEAVY_BYTES
        && BatchHeader::parse(records)
            .and_then(|header| header.compression())
            .is_ok_and(|codec| codec != Compression::None)
}

fn check_here(
    records: Bytes,
    settings: &TopicSettings,
    version: i16,
    now_ms: i64,
) -> Result<Checked, Refused> {
    if records.is_empty() {
        return Err(Refused::new(
            ErrorCode::InvalidRecord,
            "a produce needs exactly one record batch per partition".to_owned(),
        ));
    }
    let limits = ValidateLimits {
        batch_bytes_max: usize::try_from(settings.max_message_bytes).unwrap_or(0),
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        produce_version: version,
    };
    let validated = validate_produced(&records, &limits).map_err(|e| Refused::batch(&e))?;
    if settings.compaction.is_some()
        && let Some(index) = validated.first_without_key
    {
        let message = "Compacted topic cannot accept message without key.".to_owned();
        return Err(Refused {
            code: ErrorCode::InvalidRecord,
            message: message.clone(),
            records: vec![(index, message)],
        });
    }
    match settings.timestamp_type {
        TimestampType::LogAppendTime => stamp(
            records,
            keelson_protocol::TimestampType::LogAppendTime,
            now_ms,
            now_ms,
        ),
        TimestampType::CreateTime => {
            check_ahead(&validated, now_ms)?;
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

fn check_ahead(validated: &Validated, now_ms: i64) -> Result<(), Refused> {
    let ahead = validated.max_timestamp.saturating_sub(now_ms);
    if ahead <= TIMESTAMP_AHEAD_MS_MAX {
        return Ok(());
    }
    let message = format!(
        "Timestamp {} of message with offset {} is out of range. The timestamp should be at most {} ms ahead of the broker's {now_ms}",
        validated.max_timestamp, validated.max_timestamp_delta, TIMESTAMP_AHEAD_MS_MAX
    );
    Err(Refused {
        code: ErrorCode::InvalidTimestamp,
        message: "One or more records have been rejected due to invalid timestamp".to_owned(),
        records: vec![(validated.max_timestamp_delta, message)],
    })
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
