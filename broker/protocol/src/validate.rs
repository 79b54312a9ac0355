//! What a produced batch must fulfil before anything of it is kept.
//!
//! Owns the judgement on bytes that a producer sent. Never changes them.

use crate::batch::{BatchError, BatchHeader};

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
    /// Offset delta of the first record with that timestamp.
    pub max_timestamp_delta: i32,
    /// Offset delta of the first record without a key, if there is one (compacted topics refuse it).
    pub first_without_key: Option<i32>,
    /// Bytes of the records after decompression.
    pub decompressed_bytes: usize,
}

impl Validated {
    /// True if the header's max timestamp must be rewritten, as Kafka does.
    pub fn max_timestamp_wrong(&self) -> bool {
        self.header.max_timestamp != self.max_timestamp
    }
}

/// Checks one produced record batch from end to end; `batch` must hold exactly one.
pub fn validate_produced(_batch: &[u8], _limits: &ValidateLimits) -> Result<Validated, BatchError> {
    unimplemented!()
}
