//! An encoded answer, ready for a vectored write.
//!
//! Owns the way from a response body to bytes. Never copies records.

use bytes::Bytes;
use keelson_protocol::frame::{self, FrameError};
use keelson_protocol::kafka_protocol::protocol::Encodable;

/// The whole frame of a response, in the pieces it is written from.
#[derive(Default)]
pub struct Reply {
    /// Length prefix, header and body; for a fetch interleaved with slices of the log.
    pub chunks: Vec<Bytes>,
    /// Given back when the last byte is written.
    pub permit: Option<Box<dyn Send>>,
}

/// A response body that can be framed.
pub trait Body: Send {
    /// Frames the body.
    ///
    /// # Errors
    /// If a field is set that the version does not have: a fault of ours.
    fn frame(
        self,
        api_key: i16,
        api_version: i16,
        correlation_id: i32,
    ) -> Result<Reply, FrameError>;
}

impl<M: Encodable + Send> Body for M {
    fn frame(
        self,
        api_key: i16,
        api_version: i16,
        correlation_id: i32,
    ) -> Result<Reply, FrameError> {
        let bytes = frame::encode_response(api_key, api_version, correlation_id, &self)?;
        Ok(Reply {
            chunks: vec![bytes.freeze()],
            permit: None,
        })
    }
}
