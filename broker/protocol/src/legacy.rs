//! Answers to request versions that are advertised or asked for, but not served.
//!
//! Owns two quirks of Kafka: Produce 0 to 2 (advertised for librdkafka, answered UNSUPPORTED_VERSION) and ApiVersions of
//! an unknown version (KIP-511). Never decodes records.

use bytes::{Bytes, BytesMut};

use crate::frame::FrameError;

/// The whole response frame to a Produce request of version 0 to 2: UNSUPPORTED_VERSION for every partition named in
/// it. `None` if it asked for acks=0, which has no answer.
pub fn refuse_produce(
    _version: i16,
    _correlation_id: i32,
    _body: Bytes,
) -> Result<Option<BytesMut>, FrameError> {
    unimplemented!()
}

/// The whole response frame to an ApiVersions request of a version we do not know: a v0 body with error 35 and the list.
pub fn refuse_api_versions(_correlation_id: i32) -> BytesMut {
    unimplemented!()
}
