//! A broker on a data directory of its own, for the tests of this crate.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use keelson_log::disk::{Disk, RealDisk};
use keelson_log::{Hooks, LogMetrics, Options};
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::frame::{RequestHeader, encode_request};
use keelson_protocol::kafka_protocol::messages::produce_request::{
    PartitionProduceData, TopicProduceData,
};
use keelson_protocol::kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use keelson_protocol::kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use keelson_protocol::{ErrorCode, api};
use prometheus::Registry;
use tempfile::TempDir;

use crate::broker::{Broker, Parts, now_ms};
use crate::config::Config;
use crate::listeners::{ListenerId, Listeners};
use crate::metrics::Metrics;
use crate::{coordinator, dispatch, metadata, transactions};

/// Owners let go of the broker within this time.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

struct TestHooks;

impl Hooks for TestHooks {
    fn fatal(&self, reason: &str) {
        panic!("the log failed: {reason}");
    }

    fn recovery_progress(&self, _remaining_bytes: u64) {}
}

/// A connection of this machine to the first listener.
pub(crate) fn local_origin() -> dispatch::Origin {
    dispatch::Origin {
        host: Ipv4Addr::LOCALHOST.into(),
        listener: ListenerId(0),
    }
}

/// A running broker without a socket.
pub(crate) struct TestBroker {
    pub(crate) broker: Arc<Broker>,
    pub(crate) registry: Registry,
    dir: Option<TempDir>,
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if self.dir.is_some() {
            self.broker.log.shutdown();
        }
    }
}

impl TestBroker {
    /// A broker on an empty directory, with these settings.
    pub(crate) async fn start(sets: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), sets).await
    }

    /// A broker on a directory that may hold data.
    pub(crate) async fn start_in(dir: TempDir, sets: &[&str]) -> Self {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        let config = Config::load(None, &sets).unwrap();
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(&registry).unwrap());
        let log_metrics = Arc::new(LogMetrics::register(&registry).unwrap());
        let path = dir.path().to_owned();
        let (log, loaded) = tokio::task::spawn_blocking(move || open(&path, log_metrics))
            .await
            .unwrap();
        let image = Arc::new(loaded.image);
        let (metadata, metadata_inbox) = metadata::channel();
        let (coordinator, coordinator_inbox) = coordinator::channel();
        let (transactions, transactions_inbox) = transactions::channel();
        let broker = Arc::new(Broker::new(Parts {
            config,
            log,
            metrics,
            metadata,
            coordinator,
            transactions,
            image: Arc::clone(&image),
        }));
        let mut everywhere = broker.config.clone();
        everywhere.listeners[0].address.host = String::new();
        let bound = [(Ipv4Addr::LOCALHOST, 9092).into()];
        broker.set_listeners(Listeners::new(&everywhere, &bound, "localhost"));
        broker.partitions.sync_all(&image);
        metadata::spawn(metadata_inbox, &broker).unwrap();
        coordinator::spawn(coordinator_inbox, &broker);
        transactions::spawn(transactions_inbox, &broker);
        Self {
            broker,
            registry,
            dir: Some(dir),
        }
    }

    /// Stops, and gives the directory back for another start, once nobody holds its lock any more: an owner's task may
    /// be the last one to let go of the broker.
    pub(crate) fn stop(mut self) -> TempDir {
        self.broker.log.shutdown();
        let dir = self.dir.take().unwrap();
        drop(self);
        let deadline = Instant::now() + STOP_PATIENCE;
        while RealDisk.lock(&dir.path().join("LOCK")).is_err() {
            assert!(Instant::now() < deadline, "somebody keeps the broker");
            std::thread::yield_now();
        }
        dir
    }

    /// Creates topics with one partition each (or `num.partitions`).
    pub(crate) async fn create(&self, names: &[&str]) {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        assert_eq!(metadata::auto_create(&self.broker, names).await, []);
    }

    /// Sends one request through the dispatch table and decodes the answer, in the newest version.
    pub(crate) async fn call<R: Request>(&self, body: R) -> R::Response {
        let version = api::spec(R::KEY).unwrap().max;
        self.call_version(body, version).await
    }

    /// Sends one request of a version.
    pub(crate) async fn call_version<R: Request>(&self, body: R, version: i16) -> R::Response {
        let frame = frame(&body, version, 7);
        let (answered, _) = self.dispatch::<R>(frame).await;
        decode::<R>(answered.unwrap(), version)
    }

    /// Runs a frame (with its prefix); the answer, if one is due, and its error label.
    pub(crate) async fn dispatch<R: Request>(
        &self,
        frame: Bytes,
    ) -> (Option<Bytes>, Option<ErrorCode>) {
        let mut bytes = frame.slice(4..);
        let header = RequestHeader::decode(&mut bytes).unwrap();
        let route = dispatch::route(R::KEY).unwrap();
        let request = dispatch::Frame {
            header,
            body: bytes,
            origin: local_origin(),
            pin: None,
        };
        let answered = match dispatch::ROUTES[route].call(&self.broker, request).unwrap() {
            dispatch::Dispatched::Ready(answered) => answered,
            dispatch::Dispatched::Later(later) | dispatch::Dispatched::Alone(later) => {
                later.await.unwrap()
            }
            dispatch::Dispatched::Silent => return (None, None),
            dispatch::Dispatched::Close(reason) => panic!("closed: {reason}"),
        };
        let bytes = answered.reply.chunks.concat();
        (Some(Bytes::from(bytes)), answered.error)
    }

    /// Produces one batch of records with these values; the partition's answer.
    pub(crate) async fn produce(
        &self,
        topic: &str,
        partition: i32,
        values: &[&[u8]],
    ) -> (i16, i64) {
        let response = self
            .call_version(produce_request(topic, partition, batch(values), -1), 9)
            .await;
        let answer = &response.responses[0].partition_responses[0];
        (answer.error_code, answer.base_offset)
    }

    /// The value of one line of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap();
        let values: BTreeMap<&str, &str> =
            text.lines().filter_map(|l| l.rsplit_once(' ')).collect();
        values
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .parse()
            .unwrap()
    }
}

fn open(path: &Path, metrics: Arc<LogMetrics>) -> (Arc<keelson_log::Log>, metadata::Loaded) {
    let mut options = Options::new(path);
    options.wal_file_bytes = Some(4 * 1024 * 1024);
    options.wal_bytes_max = Some(64 * 1024 * 1024);
    let log = Arc::new(keelson_log::open(options, metrics, Arc::new(TestHooks)).unwrap());
    let mut loaded = metadata::load(&log).unwrap();
    loaded.register_start(&log, now_ms()).unwrap();
    (log, loaded)
}

/// A batch of records without keys.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(now_ms());
    for value in values {
        builder.push(None, Some(value));
    }
    builder.build()
}

/// A Produce of one batch.
pub(crate) fn produce_request(
    topic: &str,
    partition: i32,
    batch: Bytes,
    acks: i16,
) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

/// A topic's name on the wire.
pub(crate) fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A request frame with its prefix.
pub(crate) fn frame<M: Encodable + Request>(body: &M, version: i16, correlation_id: i32) -> Bytes {
    encode_request(M::KEY, version, correlation_id, "test", body)
        .unwrap()
        .freeze()
}

/// Decodes a response frame with its prefix.
pub(crate) fn decode<R: Request>(frame: Bytes, version: i16) -> R::Response {
    let spec = api::spec(R::KEY).unwrap();
    let mut bytes = BytesMut::from(&frame[..]).freeze();
    assert_eq!(bytes.get_i32() as usize, bytes.len());
    bytes.advance(4);
    if spec.response_header_version(version) >= 1 {
        assert_eq!(bytes.get_u8(), 0);
    }
    let response = R::Response::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    response
}

/// The offset that a produce was answered with, if it was not refused.
pub(crate) fn base_offset(response: &ProduceResponse) -> Result<i64, i16> {
    let answer = &response.responses[0].partition_responses[0];
    match answer.error_code {
        0 => Ok(answer.base_offset),
        code => Err(code),
    }
}
