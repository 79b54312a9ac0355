//! Answers to request versions that are advertised or asked for, but not served.
//!
//! Owns two quirks of Kafka: Produce 0 to 2 (advertised, since librdkafka looks for them to judge what a broker can do,
//! but gone with KIP-896; answered UNSUPPORTED_VERSION), and ApiVersions of an unknown version (KIP-511). Never decodes
//! records.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use crate::api::APIS;
use crate::frame::{FrameError, LENGTH_PREFIX_BYTES, encode_response};

/// The highest Produce version that is refused this way.
pub const PRODUCE_REFUSED_VERSION_MAX: i16 = 2;

/// The longest answer of [`refuse_produce`]: the answer to tiny partitions is longer than what they stand in.
const REFUSAL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What ApiVersions lists.
pub fn advertised() -> Vec<ApiVersion> {
    let row = |spec: &crate::api::ApiSpec| {
        ApiVersion::default()
            .with_api_key(spec.key as i16)
            .with_min_version(spec.advertised_min)
            .with_max_version(spec.max)
    };
    APIS.iter().map(row).collect()
}

/// The whole response frame to an ApiVersions request of a version we do not know: a v0 body with error 35 and the list,
/// so that the client can come back with a version that exists.
pub fn refuse_api_versions(correlation_id: i32) -> Result<BytesMut, FrameError> {
    let body = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(advertised());
    encode_response(ApiKey::ApiVersions as i16, 0, correlation_id, &body)
}

/// The whole response frame to a Produce request of version 0 to 2: UNSUPPORTED_VERSION for every partition named in
/// it. `None` if it asked for acks=0, which has no answer.
///
/// ```text
/// request   acks i16, timeout i32, topics: name, partitions: index i32, records (i32 length, bytes)
/// response  topics: name, partitions: index i32, error i16, base offset i64, v2: append time i64; v1: throttle i32
/// ```
pub fn refuse_produce(
    version: i16,
    correlation_id: i32,
    mut body: Bytes,
) -> Result<Option<BytesMut>, FrameError> {
    let cut = |field| FrameError::Header {
        field,
        reason: "ends behind the frame",
    };
    let acks = body.try_get_i16().map_err(|_| cut("acks"))?;
    body.try_get_i32().map_err(|_| cut("timeout"))?;
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i32(correlation_id);
    // Each element is copied from bytes that are there, so that a count costs nothing until it is fulfilled.
    let topics = count(&mut body, "topics")?;
    out.put_i32(topics);
    for _ in 0..topics {
        let length = body.try_get_i16().map_err(|_| cut("topic"))?;
        let name = take(&mut body, length.into(), "topic")?;
        if out.len() > REFUSAL_BYTES_MAX {
            return Err(FrameError::Header {
                field: "topics",
                reason: "are too many to refuse one by one",
            });
        }
        out.put_i16(length);
        out.put_slice(&name);
        let partitions = count(&mut body, "partitions")?;
        out.put_i32(partitions);
        for _ in 0..partitions {
            if out.len() > REFUSAL_BYTES_MAX {
                return Err(FrameError::Header {
                    field: "partitions",
                    reason: "are too many to refuse one by one",
                });
            }
            out.put_i32(body.try_get_i32().map_err(|_| cut("partition"))?);
            let length = body.try_get_i32().map_err(|_| cut("records"))?;
            take(&mut body, length.max(0), "records")?;
            out.put_i16(ResponseError::UnsupportedVersion.code());
            out.put_i64(-1);
            if version >= 2 {
                out.put_i64(-1);
            }
        }
    }
    if version >= 1 {
        out.put_i32(0);
    }
    let prefix = (out.len() - LENGTH_PREFIX_BYTES) as u32;
    out[..LENGTH_PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok((acks != 0).then_some(out))
}

fn count(body: &mut Bytes, field: &'static str) -> Result<i32, FrameError> {
    match body.try_get_i32() {
        Ok(count) if count >= 0 => Ok(count),
        Ok(_) => Err(FrameError::Header {
            field,
            reason: "have a negative count",
        }),
        Err(_) => Err(FrameError::Header {
            field,
            reason: "end behind the frame",
        }),
    }
}

fn take(body: &mut Bytes, length: i32, field: &'static str) -> Result<Bytes, FrameError> {
    match usize::try_from(length) {
        Ok(length) if length <= body.len() => Ok(body.split_to(length)),
        Ok(_) => Err(FrameError::Header {
            field,
            reason: "ends behind the frame",
        }),
        Err(_) => Err(FrameError::Header {
            field,
            reason: "has a negative length",
        }),
    }
}
