//! Guarded decoding of request bodies.
//!
//! Owns the proof that a body is harmless before `kafka-protocol`, which allocates from wire counts, sees it. Never
//! decodes by itself.

use bytes::Bytes;
use kafka_protocol::protocol::Request;
use thiserror::Error;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The API or version is not in the table.
    #[error("API key {api_key} version {api_version} is not served")]
    Unsupported {
        /// Which API.
        api_key: i16,
        /// Which version.
        api_version: i16,
    },
    /// The bytes are not such a request.
    #[error("{api} v{api_version}: {field} at byte {position}: {reason}")]
    Malformed {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// Which field.
        field: &'static str,
        /// Byte of the body.
        position: usize,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// Decoded, it would take more memory than the budget allows.
    #[error("{api} v{api_version} would take more than {max} bytes decoded")]
    TooLarge {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// The budget.
        max: usize,
    },
    /// The guard let it pass and the decoder did not take it.
    #[error("{api} v{api_version}: {reason}")]
    Decoder {
        /// Which API.
        api: &'static str,
        /// Which version.
        api_version: i16,
        /// What the decoder said.
        reason: String,
    },
}

/// A decoded body and what it costs.
#[derive(Debug)]
pub struct Decoded<M> {
    /// The body.
    pub body: M,
    /// Upper estimate of the memory it takes beyond the frame's bytes.
    pub charge_bytes: usize,
}

/// Upper estimate of the memory that decoding takes beyond the frame's own bytes, without decoding; walks the body once
/// and refuses every impossible count and length.
pub fn decoded_bytes(
    _api_key: i16,
    _api_version: i16,
    _body: &[u8],
    _max: usize,
) -> Result<usize, DecodeError> {
    unimplemented!()
}

/// Decodes a request body within a memory budget; strings and record batches are slices of `body`.
pub fn decode<M: Request>(
    _api_version: i16,
    _body: Bytes,
    _max: usize,
) -> Result<Decoded<M>, DecodeError> {
    unimplemented!()
}
