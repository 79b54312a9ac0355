//! librdkafka (the rdkafka crate) as tests use it: produce with every acknowledgement kept, read as a group or as a whole.
//!
//! Keeps what was acknowledged and what was read as plain lists, so that a test compares them byte for byte.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::records::payload;

/// How long a client may take for anything on a busy machine.
pub const CLIENT_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A record that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acked {
    /// Where it was put.
    pub partition: i32,
    /// At which offset.
    pub offset: i64,
    /// Its place in its stream.
    pub sequence: u64,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its value.
    pub value: Vec<u8>,
}

/// What to produce: the payloads of one stream.
#[derive(Debug, Clone)]
pub struct Load {
    /// The stream's number.
    pub stream: u32,
    /// Its sequences.
    pub sequences: Range<u64>,
    /// Bytes of each value.
    pub bytes: usize,
}

impl Load {
    /// The value of one sequence.
    pub fn value(&self, sequence: u64) -> Vec<u8> {
        payload(self.bytes, self.stream, sequence)
    }
}

/// A configuration for a client of this broker.
pub fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("broker.address.family", "v4")
        .set("socket.timeout.ms", "30000");
    config
}

struct Reports(Mutex<(Vec<Acked>, Vec<String>)>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Self::DeliveryOpaque) {
        let mut reports = self.0.lock().expect("no holder panics");
        match result {
            Ok(message) => reports.0.push(Acked {
                partition: message.partition(),
                offset: message.offset(),
                sequence: *sequence,
            }),
            Err((error, _)) => reports.1.push(error.to_string()),
        }
    }
}

/// Produces a load with acks=all, spread over the partitions by key; every record must be acknowledged.
#[track_caller]
pub fn produce(bootstrap: &str, topic: &str, load: &Load, settings: &[(&str, &str)]) -> Vec<Acked> {
    let mut config = config(bootstrap);
    config.set("acks", "all").set("linger.ms", "5");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let producer: ThreadedProducer<Reports> = config
        .create_with_context(Reports(Mutex::default()))
        .expect("a producer");
    for sequence in load.sequences.clone() {
        let (key, value) = (sequence.to_string(), load.value(sequence));
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(sequence))
            .key(&key)
            .payload(&value);
        let end = Instant::now() + CLIENT_WITHIN;
        while let Err((error, back)) = producer.send(record) {
            let full = matches!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            );
            assert!(
                full && Instant::now() < end,
                "handing over {sequence}: {error}"
            );
            record = back;
            std::thread::yield_now();
        }
    }
    producer.flush(CLIENT_WITHIN).expect("all is delivered");
    let (acked, errors) =
        std::mem::take(&mut *producer.context().0.lock().expect("no holder panics"));
    assert!(
        errors.is_empty(),
        "{} deliveries failed, first: {}",
        errors.len(),
        errors[0]
    );
    assert_eq!(
        acked.len() as u64,
        load.sequences.end - load.sequences.start,
        "every record is acknowledged"
    );
    acked
}

/// Reads a topic as a new or known group until `count` records came and no more follow, and commits.
#[track_caller]
pub fn read_group(bootstrap: &str, topic: &str, group: &str, count: usize) -> Vec<Seen> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    let seen = collect(&consumer, count);
    consumer
        .commit_consumer_state(CommitMode::Sync)
        .expect("a commit");
    seen
}

/// Reads whole partitions, from their first offsets to their ends, without a group.
#[track_caller]
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", "no-group")
        // Where retention takes the first offset between asking for it and reading it.
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), CLIENT_WITHIN)
        .expect("metadata");
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("an assignment");
    }
    let mut open = assignment.count();
    consumer.assign(&assignment).expect("an assignment");
    let mut seen = Vec::new();
    let mut last = Instant::now();
    while open > 0 {
        match consumer.poll(POLL) {
            None => assert!(
                last.elapsed() < CLIENT_WITHIN,
                "{open} partitions gave no end; {} records",
                seen.len()
            ),
            Some(Ok(message)) => {
                seen.push(note(&message));
                last = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
        }
    }
    seen
}

#[track_caller]
fn collect(consumer: &BaseConsumer, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut last = Instant::now();
    while seen.len() < count {
        match consumer.poll(POLL) {
            None => assert!(
                last.elapsed() < CLIENT_WITHIN,
                "{} of {count} records came",
                seen.len()
            ),
            Some(Ok(message)) => {
                seen.push(note(&message));
                last = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => panic!("reading: {error}"),
        }
    }
    seen
}

fn note(message: &impl Message) -> Seen {
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

/// Every acknowledged record was read exactly where it was acknowledged, byte for byte, and nothing was read twice.
#[track_caller]
pub fn assert_all_seen(acked: &[(Acked, Vec<u8>)], seen: &[Seen]) {
    let mut places = HashMap::new();
    for record in seen {
        let before = places.insert((record.partition, record.offset), &record.value);
        assert!(
            before.is_none(),
            "read twice: partition {} offset {}",
            record.partition,
            record.offset
        );
    }
    for (place, value) in acked {
        let found = places.get(&(place.partition, place.offset));
        let found = found.unwrap_or_else(|| {
            panic!(
                "acknowledged and not there: {place:?} ({} were read)",
                seen.len()
            )
        });
        assert!(*found == value, "acknowledged with other bytes: {place:?}");
    }
}

/// Pairs acknowledgements with the values that were sent.
pub fn with_values(acked: &[Acked], load: &Load) -> Vec<(Acked, Vec<u8>)> {
    acked
        .iter()
        .map(|record| (*record, load.value(record.sequence)))
        .collect()
}
