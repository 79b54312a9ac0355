//! Frames: the length prefix, request headers, encoding of responses.
//!
//! Owns the limits of a frame. Never reads a socket.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self, ResponseHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use thiserror::Error;

use crate::api::{self, ApiSpec, FrameClass};

/// Bytes of the length before each frame.
pub const LENGTH_PREFIX_BYTES: usize = 4;
/// Bytes that are enough to judge a frame: length, API key, API version.
pub const FRAME_HEAD_BYTES: usize = LENGTH_PREFIX_BYTES + 4;
/// API key, version, correlation id, client id (null).
const REQUEST_HEADER_BYTES_MIN: usize = 10;
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

/// Judges a frame by its first bytes. Versions are not judged here: an ApiVersions request of an unknown version has an
/// answer.
pub fn parse_head(
    first: &[u8; FRAME_HEAD_BYTES],
    limits: &FrameLimits,
) -> Result<FrameHead, FrameError> {
    let [l0, l1, l2, l3, k0, k1, v0, v1] = *first;
    let length = i32::from_be_bytes([l0, l1, l2, l3]);
    let api_key = i16::from_be_bytes([k0, k1]);
    let bytes = usize::try_from(length).map_err(|_| FrameError::Length { length })?;
    if bytes < REQUEST_HEADER_BYTES_MIN {
        return Err(FrameError::Length { length });
    }
    let class = api::spec(api_key)
        .ok_or(FrameError::UnknownApi { api_key })?
        .class;
    let max = match class {
        FrameClass::Records => limits.records_bytes_max,
        FrameClass::Control => limits.control_bytes_max,
    };
    if bytes > max {
        return Err(FrameError::TooLarge {
            length,
            api_key,
            max,
        });
    }
    Ok(FrameHead {
        length: bytes,
        api_key,
        api_version: i16::from_be_bytes([v0, v1]),
        class,
    })
}

/// The header of a request; tagged fields are dropped.
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
    pub fn decode(frame: &mut Bytes) -> Result<Self, FrameError> {
        let cut = |field| FrameError::Header {
            field,
            reason: "ends behind the frame",
        };
        let api_key = frame.try_get_i16().map_err(|_| cut("api_key"))?;
        let api_version = frame.try_get_i16().map_err(|_| cut("api_version"))?;
        let correlation_id = frame.try_get_i32().map_err(|_| cut("correlation_id"))?;
        // Header version 0 (ControlledShutdown 0) is gone from Kafka; 1 and 2 both have a classic client id.
        let client_id = match frame.try_get_i16().map_err(|_| cut("client_id"))? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| FrameError::Header {
                    field: "client_id",
                    reason: "has a negative length",
                })?;
                if length > frame.len() {
                    return Err(cut("client_id"));
                }
                let text = StrBytes::from_utf8(frame.split_to(length)).map_err(|_| {
                    FrameError::Header {
                        field: "client_id",
                        reason: "is not UTF-8",
                    }
                })?;
                Some(text)
            }
        };
        let spec = api::spec(api_key).filter(|spec| spec.supports(api_version));
        if spec.is_some_and(|spec| spec.flexible(api_version)) {
            skip_tags(frame)?;
        }
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }
}

fn skip_tags(frame: &mut Bytes) -> Result<(), FrameError> {
    for _ in 0..varint(frame)? {
        varint(frame)?; // the tag
        let size = varint(frame)? as usize;
        if size > frame.len() {
            return Err(FrameError::Header {
                field: "tagged fields",
                reason: "end behind the frame",
            });
        }
        frame.advance(size);
    }
    Ok(())
}

fn varint(frame: &mut Bytes) -> Result<u32, FrameError> {
    let mut value = 0u64;
    for i in 0..5 {
        let byte = frame.try_get_u8().map_err(|_| FrameError::Header {
            field: "tagged fields",
            reason: "end behind the frame",
        })?;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return u32::try_from(value).map_err(|_| FrameError::Header {
                field: "tagged fields",
                reason: "do not fit 32 bits",
            });
        }
    }
    Err(FrameError::Header {
        field: "tagged fields",
        reason: "hold an overlong varint",
    })
}

/// Encodes a response with its length prefix and header.
///
/// # Errors
/// If a field is set that this version does not have, or the frame passes 2 GiB: both are faults of ours.
pub fn encode_response<M: Encodable>(
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    body: &M,
) -> Result<BytesMut, FrameError> {
    let spec = api::spec(api_key).ok_or(FrameError::UnknownApi { api_key })?;
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    encode(
        spec,
        api_version,
        &header,
        spec.response_header_version(api_version),
        body,
    )
}

/// Encodes a request with its length prefix and header (for clients).
pub fn encode_request<M: Encodable>(
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    client_id: &str,
    body: &M,
) -> Result<BytesMut, FrameError> {
    let spec = api::spec(api_key).ok_or(FrameError::UnknownApi { api_key })?;
    let header = messages::RequestHeader::default()
        .with_request_api_key(api_key)
        .with_request_api_version(api_version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    encode(
        spec,
        api_version,
        &header,
        spec.request_header_version(api_version),
        body,
    )
}

fn encode<H: Encodable, M: Encodable>(
    spec: &ApiSpec,
    api_version: i16,
    header: &H,
    header_version: i16,
    body: &M,
) -> Result<BytesMut, FrameError> {
    let failed = |reason: String| FrameError::Encode {
        api_key: spec.key as i16,
        api_version,
        reason,
    };
    let size = header
        .compute_size(header_version)
        .map_err(|error| failed(error.to_string()))?
        + body
            .compute_size(api_version)
            .map_err(|error| failed(error.to_string()))?;
    let prefix =
        i32::try_from(size).map_err(|_| failed(format!("{size} bytes do not fit a frame")))?;
    let mut out = BytesMut::with_capacity(LENGTH_PREFIX_BYTES + size);
    out.put_i32(prefix);
    header
        .encode(&mut out, header_version)
        .map_err(|error| failed(error.to_string()))?;
    body.encode(&mut out, api_version)
        .map_err(|error| failed(error.to_string()))?;
    if out.len() != LENGTH_PREFIX_BYTES + size {
        return Err(failed(format!(
            "{size} bytes were computed, {} written",
            out.len() - LENGTH_PREFIX_BYTES
        )));
    }
    Ok(out)
}
