//! Frames: the length prefix, request headers, encoding of responses.
//!
//! Owns the limits of a frame. Never reads a socket.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};
use thiserror::Error;

use crate::api::FrameClass;

/// Bytes of the length before each frame.
pub const LENGTH_PREFIX_BYTES: usize = 4;
/// Bytes that are enough to judge a frame: length, API key, API version.
pub const FRAME_HEAD_BYTES: usize = LENGTH_PREFIX_BYTES + 4;
/// Default limit of a frame that carries records: Kafka's `socket.request.max.bytes`.
pub const RECORDS_FRAME_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Default limit of every other frame; ten thousand partitions in one request take less.
pub const CONTROL_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Why a frame cannot be read or written. The connection is closed after most of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is negative or below a header's.
    #[error("frame length {length} is impossible")]
    Length {
        /// The prefix.
        length: i32,
    },
    /// Larger than its class allows.
    #[error("frame of {length} bytes for API key {api_key} is larger than {max}")]
    TooLarge {
        /// The prefix.
        length: i32,
        /// Which API.
        api_key: i16,
        /// The limit.
        max: usize,
    },
    /// No such API, or not advertised.
    #[error("API key {api_key} is not served")]
    UnknownApi {
        /// The field.
        api_key: i16,
    },
    /// The header is malformed.
    #[error("request header: {field}: {reason}")]
    Header {
        /// Which field.
        field: &'static str,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// A response cannot be encoded: a fault of ours.
    #[error("response of API key {api_key} version {api_version} does not encode: {reason}")]
    Encode {
        /// Which API.
        api_key: i16,
        /// Which version.
        api_version: i16,
        /// What the encoder said.
        reason: String,
    },
}

/// Limits of a frame without its length prefix.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// For APIs that carry records.
    pub records_bytes_max: usize,
    /// For all others.
    pub control_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            records_bytes_max: RECORDS_FRAME_BYTES_MAX,
            control_bytes_max: CONTROL_FRAME_BYTES_MAX,
        }
    }
}

/// What the first [`FRAME_HEAD_BYTES`] bytes say: enough to choose a budget before the rest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of the frame without the prefix (API key and version included).
    pub length: usize,
    /// API key.
    pub api_key: i16,
    /// API version.
    pub api_version: i16,
    /// Which budget it draws on.
    pub class: FrameClass,
}

/// Judges a frame by its first bytes.
pub fn parse_head(
    _first: &[u8; FRAME_HEAD_BYTES],
    _limits: &FrameLimits,
) -> Result<FrameHead, FrameError> {
    unimplemented!()
}

/// The header of a request; unknown tagged fields are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// API key.
    pub api_key: i16,
    /// API version.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<StrBytes>,
}

impl RequestHeader {
    /// Takes the header off a frame (without its prefix); the body stays in `frame`. For an unknown API or version the
    /// header is read as version 1, so that the correlation id is known.
    pub fn decode(_frame: &mut Bytes) -> Result<Self, FrameError> {
        unimplemented!()
    }
}

/// Encodes a response with its length prefix and header.
pub fn encode_response<M: Encodable>(
    _api_key: i16,
    _api_version: i16,
    _correlation_id: i32,
    _body: &M,
) -> Result<BytesMut, FrameError> {
    unimplemented!()
}

/// Encodes a request with its length prefix and header (for clients).
pub fn encode_request<M: Encodable>(
    _api_key: i16,
    _api_version: i16,
    _correlation_id: i32,
    _client_id: &str,
    _body: &M,
) -> Result<BytesMut, FrameError> {
    unimplemented!()
}
