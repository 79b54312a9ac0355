//! The Fetch response as pieces for a vectored write.
//!
//! Owns the one place where a response is not encoded by `kafka-protocol`: its encoder would copy every record. The
//! layout is Kafka's `FetchResponse.json`; a test compares it with `kafka-protocol`, byte for byte, in every version.
//!
//! ```text
//! throttle i32 | v7: error i16, session i32 | topics: name (v13: id), partitions, tags (v12)
//! partition: index i32 | error i16 | high watermark i64 | last stable offset i64 | v5: log start i64
//!            | aborted transactions, null unless read_committed: producer i64, first offset i64, tags (v12) | v11: preferred replica i32 | records | tags (v12)
//! v12: lengths and counts are unsigned varints of n + 1 (0 is null), strings, arrays and records alike
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use keelson_log::Reservation;
use keelson_protocol::frame::FrameError;
use keelson_protocol::kafka_protocol::messages::{ApiKey, FetchRequest};
use keelson_protocol::{ErrorCode, api};
use keelson_state::fetch_sessions::TopicKey;

use super::plan::{self, Part, TOPIC_ID_VERSION_MIN};
use super::read::{self, PartAnswer, Round};
use crate::reply::{Body, Reply};

const FLEXIBLE_VERSION_MIN: i16 = 12;
/// Slices below this are copied into the pieces between them: one more slice in a write costs more than the copy.
const COPY_BYTES_MAX: usize = 2 * 1024;

struct BodyPart {
    topic: TopicKey,
    index: i32,
    answer: PartAnswer,
}

/// The body of a Fetch response.
pub struct FetchBody {
    error: Option<ErrorCode>,
    session_id: i32,
    parts: Vec<BodyPart>,
    read_committed: bool,
    permit: Option<Reservation>,
}

impl FetchBody {
    /// An error for the whole request.
    pub(super) fn failed(error: ErrorCode, session_id: i32) -> Self {
        Self {
            error: Some(error),
            session_id,
            parts: Vec::new(),
            read_committed: false,
            permit: None,
        }
    }

    /// An error for the whole request, which clients of versions without topic ids look for at each partition.
    pub(super) fn refused(error: ErrorCode, version: i16, request: &FetchRequest) -> Self {
        let mut body = Self::failed(error, request.session_id);
        if version >= TOPIC_ID_VERSION_MIN {
            return body;
        }
        for topic in &request.topics {
            let key = plan::key(false, &topic.topic, topic.topic_id);
            let parts = topic.partitions.iter().map(|partition| BodyPart {
                topic: key.clone(),
                index: partition.partition,
                answer: read::failed(error),
            });
            body.parts.extend(parts);
        }
        body
    }

    /// The answers of a round to the parts of its plan, in their order.
    pub(super) fn new(
        (session_id, read_committed): (i32, bool),
        parts: Vec<Part>,
        round: Round,
        permit: Reservation,
    ) -> Self {
        let body_part = |(part, answer): (Part, PartAnswer)| BodyPart {
            topic: part.topic,
            index: part.index,
            answer,
        };
        Self {
            error: None,
            session_id,
            parts: parts.into_iter().zip(round.parts).map(body_part).collect(),
            read_committed,
            permit: Some(permit),
        }
    }
}

/// Pieces being written.
struct Pieces {
    version: i16,
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn flexible(&self) -> bool {
        self.version >= FLEXIBLE_VERSION_MIN
    }

    /// A length or count; `None` is null.
    fn count(&mut self, n: Option<usize>) {
        if self.flexible() {
            put_uvarint(&mut self.open, n.map_or(0, |n| n as u64 + 1));
        } else {
            self.open.put_i32(n.map_or(-1, |n| n as i32));
        }
    }

    fn tags(&mut self) {
        if self.flexible() {
            self.open.put_u8(0);
        }
    }

    fn name(&mut self, name: &str) {
        if self.flexible() {
            put_uvarint(&mut self.open, name.len() as u64 + 1);
        } else {
            self.open.put_i16(name.len() as i16);
        }
        self.open.put_slice(name.as_bytes());
    }

    fn records(&mut self, chunks: Vec<Bytes>, bytes: u64) {
        // Empty, never null: librdkafka takes null for a broken message set.
        self.count(Some(bytes as usize));
        for chunk in chunks {
            if chunk.len() <= COPY_BYTES_MAX {
                self.open.put_slice(&chunk);
            } else {
                self.done.push(self.open.split().freeze());
                self.done.push(chunk);
            }
        }
    }

    /// Neighbours of one topic stand together; a topic whose partitions have others between them comes more than once, as
    /// in Kafka.
    fn topics(&mut self, parts: Vec<BodyPart>, read_committed: bool) {
        let mut counts = parts.chunk_by(|a, b| a.topic == b.topic).map(<[_]>::len);
        let counts: Vec<usize> = counts.by_ref().collect();
        self.count(Some(counts.len()));
        let mut parts = parts.into_iter();
        for count in counts {
            let mut group = parts.by_ref().take(count).peekable();
            match group.peek().map(|part| &part.topic) {
                Some(TopicKey::Name(name)) => self.name(name),
                Some(TopicKey::Id(id)) => self.open.put_slice(id),
                None => {}
            }
            self.count(Some(count));
            for part in group {
                self.part(part, read_committed);
            }
            self.tags();
        }
    }

    fn part(&mut self, part: BodyPart, read_committed: bool) {
        let answer = part.answer;
        self.open.put_i32(part.index);
        self.open.put_i16(answer.error.map_or(0, |e| e.code()));
        self.open.put_i64(answer.high_watermark);
        self.open.put_i64(answer.last_stable);
        if self.version >= 5 {
            self.open.put_i64(answer.log_start);
        }
        let aborted = read_committed.then_some(answer.aborted);
        self.count(aborted.as_ref().map(Vec::len));
        for (producer_id, first_offset) in aborted.unwrap_or_default() {
            self.open.put_i64(producer_id);
            self.open.put_i64(first_offset);
            self.tags();
        }
        if self.version >= 11 {
            self.open.put_i32(-1);
        }
        self.records(answer.chunks, answer.bytes);
        self.tags();
    }
}

impl Body for FetchBody {
    fn frame(
        self,
        api_key: i16,
        api_version: i16,
        correlation_id: i32,
    ) -> Result<Reply, FrameError> {
        debug_assert_eq!(api_key, ApiKey::Fetch as i16);
        let spec = api::spec(api_key).ok_or(FrameError::UnknownApi { api_key })?;
        let mut pieces = Pieces {
            version: api_version,
            done: vec![Bytes::new()],
            open: BytesMut::with_capacity(256),
        };
        pieces.open.put_i32(correlation_id);
        if spec.response_header_version(api_version) >= 1 {
            pieces.open.put_u8(0);
        }
        pieces.open.put_i32(0);
        if api_version >= 7 {
            pieces.open.put_i16(self.error.map_or(0, |e| e.code()));
            pieces.open.put_i32(self.session_id);
        }
        pieces.topics(self.parts, self.read_committed);
        pieces.tags();
        let Pieces { mut done, open, .. } = pieces;
        done.push(open.freeze());
        let size: usize = done.iter().map(Bytes::len).sum();
        let prefix = i32::try_from(size).map_err(|_| FrameError::Encode {
            api_key,
            api_version,
            reason: format!("{size} bytes do not fit a frame"),
        })?;
        done[0] = Bytes::copy_from_slice(&prefix.to_be_bytes());
        Ok(Reply {
            chunks: done,
            permit: self.permit.map(|p| Box::new(p) as Box<dyn Send>),
        })
    }
}

fn put_uvarint(out: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_protocol::frame::encode_response;
    use keelson_protocol::kafka_protocol::messages::FetchResponse;
    use keelson_protocol::kafka_protocol::messages::TopicName;
    use keelson_protocol::kafka_protocol::messages::fetch_response::{
        AbortedTransaction, FetchableTopicResponse, PartitionData,
    };
    use keelson_protocol::kafka_protocol::protocol::StrBytes;
    use std::sync::Arc;
    use uuid::Uuid;

    use crate::api::fetch::plan::TOPIC_ID_VERSION_MIN;

    const ORDERS: (&str, u128) = ("orders", 42);
    const OTHER: (&str, u128) = ("other", 43);

    fn ours(version: i16, read_committed: bool) -> FetchBody {
        let part = |topic: (&str, u128), index, error, chunks: Vec<Bytes>| BodyPart {
            topic: if version >= TOPIC_ID_VERSION_MIN {
                TopicKey::Id(*Uuid::from_u128(topic.1).as_bytes())
            } else {
                TopicKey::Name(Arc::from(topic.0))
            },
            index,
            answer: PartAnswer {
                error,
                high_watermark: 1000 + i64::from(index),
                last_stable: 900 + i64::from(index),
                log_start: i64::from(index),
                aborted: vec![(7, 40), (8, 41)],
                bytes: chunks.iter().map(|c| c.len() as u64).sum(),
                chunks,
                ..PartAnswer::default()
            },
        };
        let big = Bytes::from(vec![7; 100_000]);
        FetchBody {
            error: None,
            session_id: 12_345,
            parts: vec![
                part(ORDERS, 0, None, vec![Bytes::from_static(b"head"), big]),
                part(ORDERS, 1, Some(ErrorCode::CorruptMessage), vec![]),
                part(OTHER, 5, None, vec![]),
                part(ORDERS, 2, None, vec![]),
            ],
            read_committed,
            permit: None,
        }
    }

    fn theirs(version: i16, read_committed: bool) -> FetchResponse {
        let mut parts = ours(version, read_committed).parts.into_iter().map(|part| {
            let aborted = part.answer.aborted.iter().map(|(producer, first)| {
                AbortedTransaction::default()
                    .with_producer_id((*producer).into())
                    .with_first_offset(*first)
            });
            let aborted: Vec<AbortedTransaction> = aborted.collect();
            let start = if version >= 5 {
                part.answer.log_start
            } else {
                -1
            };
            PartitionData::default()
                .with_partition_index(part.index)
                .with_error_code(part.answer.error.map_or(0, |e| e.code()))
                .with_high_watermark(part.answer.high_watermark)
                .with_last_stable_offset(part.answer.last_stable)
                .with_log_start_offset(start)
                .with_aborted_transactions(read_committed.then_some(aborted))
                .with_preferred_read_replica((-1).into())
                .with_records(Some(part.answer.chunks.concat().into()))
        });
        let topics = [(ORDERS, 2), (OTHER, 1), (ORDERS, 1)];
        let topics = topics.map(|((name, id), count)| {
            FetchableTopicResponse::default()
                .with_topic(TopicName(StrBytes::from_static_str(name)))
                .with_topic_id(Uuid::from_u128(id))
                .with_partitions(parts.by_ref().take(count).collect())
        });
        let session_id = if version >= 7 { 12_345 } else { 0 };
        FetchResponse::default()
            .with_session_id(session_id)
            .with_responses(topics.to_vec())
    }

    #[test]
    fn every_version_is_what_kafka_protocol_encodes() {
        let key = ApiKey::Fetch as i16;
        let spec = api::spec(key).unwrap();
        for version in spec.min..=spec.max {
            for read_committed in [false, true] {
                let reply = ours(version, read_committed)
                    .frame(key, version, 77)
                    .unwrap();
                let expected =
                    encode_response(key, version, 77, &theirs(version, read_committed)).unwrap();
                assert!(
                    reply.chunks.concat() == expected[..],
                    "version {version}, read_committed {read_committed}"
                );
                assert!(reply.chunks.iter().any(|c| c.len() == 100_000));
            }
        }
    }
}
