//! A blocking connection to the Kafka port that speaks exactly what a test says: one request, one version, one answer.
//!
//! Bodies come from the `kafka-protocol` crate; there are no retries and no hidden requests, so that a test sees the broker's
//! own words (error codes, empty answers, what is not answered at all).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, ListOffsetsRequest,
    MetadataRequest, MetadataResponse, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// Longer than any answer of a healthy broker takes, on a busy machine too.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// An answer larger than this is a bug of the broker, or of the test.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What one partition answered to a fetch.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The partition's error, if any.
    pub error: Option<ResponseError>,
    /// Its high watermark.
    pub high_watermark: i64,
    /// Its batches, verbatim.
    pub bytes: Bytes,
}

impl Fetched {
    /// Offsets and values of its records.
    pub fn records(&self) -> Vec<(i64, Bytes)> {
        crate::records::read_batches(&self.bytes)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    correlation_id: i32,
}

impl Wire {
    /// Connects to `host:port`.
    #[track_caller]
    pub fn connect(address: &str) -> Self {
        let stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Self::over(stream)
    }

    /// Speaks over a connection that was made already.
    #[track_caller]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        stream
            .set_read_timeout(Some(ANSWER_WITHIN))
            .expect("a socket option");
        Self {
            stream,
            correlation_id: 0,
        }
    }

    /// The socket, for raw bytes.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends a request without waiting for its answer; returns its correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<i32> {
        self.correlation_id += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation_id)
            .with_client_id(Some(StrBytes::from_static_str("keelson-tests")));
        let mut frame = BytesMut::from(&[0; 4][..]);
        header
            .encode(&mut frame, R::header_version(version))
            .expect("a header encodes");
        request
            .encode(&mut frame, version)
            .expect("a request encodes");
        let length = u32::try_from(frame.len() - 4).expect("a frame fits");
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        Ok(self.correlation_id)
    }

    /// Reads the next answer, which must belong to `correlation_id`.
    pub fn receive<R: Request>(
        &mut self,
        version: i16,
        correlation_id: i32,
    ) -> std::io::Result<R::Response> {
        let mut frame = self.receive_frame()?;
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version))
            .expect("an answer's header decodes");
        assert_eq!(
            header.correlation_id, correlation_id,
            "answers come in request order"
        );
        let answer = R::Response::decode(&mut frame, version).expect("an answer decodes");
        assert!(
            frame.is_empty(),
            "{} bytes after the answer of API {} v{version}",
            frame.len(),
            R::KEY
        );
        Ok(answer)
    }

    /// Reads one frame.
    pub fn receive_frame(&mut self) -> std::io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).expect("a length fits");
        assert!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request)
            .unwrap_or_else(|error| panic!("API {} v{version}: {error}", R::KEY))
    }

    /// Sends a request and reads its answer, or tells how the connection ended.
    pub fn try_call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> std::io::Result<R::Response> {
        let id = self.send(version, request)?;
        self.receive::<R>(version, id)
    }

    /// Deletes a topic by its name.
    #[track_caller]
    pub fn delete_topic(&mut self, name: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(name))])
            .with_timeout_ms(30_000);
        let answer = self.call(5, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// At any error.
    #[track_caller]
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let (error, message) = self.try_create_topic(name, partitions, configs);
        assert_eq!(error, None, "creating {name}: {message:?}");
    }

    /// Creates a topic; gives the error and its message.
    #[track_caller]
    pub fn try_create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> (Option<ResponseError>, Option<String>) {
        let configs = configs
            .iter()
            .map(|(key, value)| {
                CreatableTopicConfig::default()
                    .with_name(text(key))
                    .with_value(Some(text(value)))
            })
            .collect();
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let answer = self.call(5, &request);
        let topic = answer.topics.first().expect("the topic is in the answer");
        (
            ResponseError::try_from_code(topic.error_code),
            topic.error_message.as_ref().map(ToString::to_string),
        )
    }

    /// Metadata of one topic, without auto-creation.
    #[track_caller]
    pub fn metadata(&mut self, name: &str) -> MetadataResponse {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        self.call(9, &request)
    }

    /// A produce request for one batch.
    pub fn produce_request(
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
        acks: i16,
    ) -> ProduceRequest {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(Bytes::from(batch)));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text(topic)))
            .with_partition_data(vec![data]);
        ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic])
    }

    /// Produces one batch; gives its base offset or the error.
    #[track_caller]
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
    ) -> Result<i64, ResponseError> {
        let answer = self.call(8, &Self::produce_request(topic, partition, batch, 1));
        let partition = &answer.responses[0].partition_responses[0];
        match ResponseError::try_from_code(partition.error_code) {
            None => Ok(partition.base_offset),
            Some(error) => Err(error),
        }
    }

    /// Fetches one partition from `offset`.
    #[track_caller]
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Fetched {
        let mut answer = self.fetch_many(topic, &[(partition, offset)], 50 << 20, 1 << 20);
        answer
            .remove(&partition)
            .expect("the partition is in the answer")
    }

    /// Fetches several partitions of a topic in one request with a byte limit for all and one for each.
    #[track_caller]
    pub fn fetch_many(
        &mut self,
        topic: &str,
        partitions: &[(i32, i64)],
        bytes_max: i32,
        partition_bytes_max: i32,
    ) -> BTreeMap<i32, Fetched> {
        let partitions = partitions
            .iter()
            .map(|(partition, offset)| {
                FetchPartition::default()
                    .with_partition(*partition)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(*offset)
                    .with_log_start_offset(-1)
                    .with_partition_max_bytes(partition_bytes_max)
            })
            .collect();
        let topic = FetchTopic::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(bytes_max)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer = self.call(11, &request);
        assert_eq!(answer.error_code, 0, "a fetch's own error");
        answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|partition| {
                let fetched = Fetched {
                    error: ResponseError::try_from_code(partition.error_code),
                    high_watermark: partition.high_watermark,
                    bytes: partition.records.unwrap_or_default(),
                };
                (partition.partition_index, fetched)
            })
            .collect()
    }

    /// Everything in a partition from `offset` to its high watermark; the first error ends it.
    #[track_caller]
    pub fn read_all(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Vec<(i64, Bytes)>, (i64, ResponseError)> {
        let mut next = offset;
        let mut records = Vec::new();
        loop {
            let fetched = self.fetch(topic, partition, next);
            if let Some(error) = fetched.error {
                return Err((next, error));
            }
            if next >= fetched.high_watermark {
                return Ok(records);
            }
            let from = next;
            next = crate::records::next_offset(&fetched.bytes)
                .filter(|next| *next > from)
                .unwrap_or_else(|| panic!("nothing at {from} below {}", fetched.high_watermark));
            let read = fetched.records();
            records.extend(read.into_iter().filter(|(offset, _)| *offset >= from));
        }
    }

    /// The offset that ListOffsets answers for a timestamp (−1 latest, −2 earliest).
    #[track_caller]
    pub fn list_offset(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, ResponseError> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer = self.call(5, &request);
        let partition = &answer.topics[0].partitions[0];
        match ResponseError::try_from_code(partition.error_code) {
            None => Ok(partition.offset),
            Some(error) => Err(error),
        }
    }
}

/// A protocol string.
pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
