//! Kafka's bytes: frames, headers, the API table, record batches, compression, guarded decoding.
//!
//! Owns every byte offset and every limit of the wire format. Never does I/O, never looks at a clock, never decides
//! what a request means.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod batch;
pub mod builder;
pub mod compact;
pub mod compression;
pub mod control;
mod error_names;
pub mod frame;
pub mod legacy;
mod recompress;
pub mod records;
pub mod safe;
pub mod shape;
#[cfg(any(test, feature = "specimen"))]
pub mod specimen;
#[cfg(test)]
mod tests;
pub mod validate;

pub use batch::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, BatchError, BatchHeader, TimestampType,
    claims_transaction, patch_offset_and_epoch, rewrite_timestamps, verify_crc,
};
pub use compression::{Compression, Levels};
pub use error_names::error_name;
pub use kafka_protocol;
pub use kafka_protocol::ResponseError as ErrorCode;
pub use recompress::recompress;
pub use validate::{ValidateLimits, Validated, records_at_fault, validate_produced};
