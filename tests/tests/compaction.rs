//! `cleanup.policy=compact` as clients see it: the newest record of each key, at its offset, after everything that happens.

use std::collections::BTreeMap;
use std::time::Duration;

use keelson_protocol::kafka_protocol::ResponseError;
use keelson_protocol::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use keelson_protocol::kafka_protocol::messages::{DeleteRecordsRequest, TopicName};
use keelson_tests::rdk::{self, Seen};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup, python, wait_until};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const WITHIN: Duration = Duration::from_secs(60);
const KEYS: u64 = 25;
const RECORDS: u64 = 1_500;
/// Those that librdkafka is built with here; zstd is rewritten in a test of `keelson-protocol`.
const CODECS: [&str; 4] = ["none", "gzip", "snappy", "lz4"];
const EAGER: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("segment.bytes", "16384"),
];

fn start() -> Broker {
    BrokerSetup::new()
        .set("log.cleaner.backoff.ms", 50)
        .set("offsets.topic.segment.bytes", 4096)
        .set("offsets.topic.num.partitions", 1)
        .start()
}

/// Produces records with keys in turn, compressed; gives the value of each key that is the last one, and its offset.
fn produce(broker: &Broker, topic: &str, codec: &str, round: u32) -> BTreeMap<u64, Vec<u8>> {
    let producer: BaseProducer = rdk::config(broker.bootstrap())
        .set("compression.type", codec)
        .set("enable.idempotence", "true")
        .set("batch.num.messages", "10")
        .set("linger.ms", "1")
        .create()
        .expect("a producer");
    let mut newest = BTreeMap::new();
    for number in 0..RECORDS {
        let key = number % KEYS;
        let value = payload(150, round, number);
        let bytes = key.to_be_bytes();
        let mut record = BaseRecord::to(topic).key(&bytes).payload(&value);
        while let Err((error, again)) = producer.send(record) {
            assert!(error.to_string().contains("Queue full"), "{error}");
            producer.poll(Duration::from_millis(10));
            record = again;
        }
        newest.insert(key, value);
    }
    producer.flush(WITHIN).expect("all acknowledged");
    newest
}

/// The last value of each key; keys are what the payload's number gives.
fn newest(seen: &[Seen]) -> BTreeMap<u64, Vec<u8>> {
    let mut newest = BTreeMap::new();
    for record in seen {
        let (_, number) = keelson_tests::records::check_payload(&record.value).expect("a payload");
        newest.insert(number % KEYS, record.value.clone());
    }
    newest
}

#[test]
fn every_client_reads_the_newest_of_each_key() {
    let mut broker = start();
    let mut wire = Wire::connect(broker.bootstrap());
    let mut wanted = BTreeMap::new();
    for round in 0..2 {
        for codec in CODECS {
            if round == 0 {
                wire.create_topic(codec, 1, &EAGER);
            }
            wanted.insert(codec, produce(&broker, codec, codec, round));
        }
        for codec in CODECS {
            let few = 12 * KEYS as usize;
            wait_until("compacted", WITHIN, || {
                rdk::read_all(broker.bootstrap(), codec).len() < few
            });
        }
    }
    for codec in CODECS {
        let seen = rdk::read_all(broker.bootstrap(), codec);
        assert_eq!(newest(&seen), wanted[codec], "{codec}");
        assert!(seen.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        // Another client sees the same.
        let read = python::run("read_all.py", &[broker.bootstrap(), codec]);
        assert_eq!(newest_of(&read), in_hex(&wanted[codec]), "{codec}");
    }
    broker.kill9();
    broker.restart();
    for codec in CODECS {
        let again = rdk::read_all(broker.bootstrap(), codec);
        assert_eq!(newest(&again), wanted[codec], "{codec}");
    }
    broker.stop();
    let (code, text) = broker.verify();
    assert_eq!(code, 0, "{text}");
}

/// The last value of each key, as `read_all.py` prints them.
fn newest_of(read: &serde_json::Value) -> BTreeMap<u64, String> {
    let mut newest = BTreeMap::new();
    for record in read.as_array().expect("a list") {
        let key = record[1].as_str().expect("a key");
        let key = u64::from_str_radix(key, 16).expect("eight bytes in hex");
        newest.insert(key, record[2].as_str().expect("a value").to_owned());
    }
    newest
}

fn in_hex(values: &BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    values
        .iter()
        .map(|(key, value)| (*key, hex(value)))
        .collect()
}

#[test]
fn a_record_without_a_key_and_a_deletion_from_the_front_are_refused() {
    let broker = start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("profiles", 1, &EAGER);
    let both = [("cleanup.policy", "compact,delete")];
    wire.create_topic("both", 1, &both);
    let request = Wire::produce_request("profiles", 0, fresh_batch(&[b"no key"]), 1);
    let answer = wire.call(9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    let error = ResponseError::try_from_code(partition.error_code);
    assert_eq!(error, Some(ResponseError::InvalidRecord));
    assert_eq!(partition.record_errors[0].batch_index, 0);
    let delete = |wire: &mut Wire, topic: &str| {
        let partition = DeleteRecordsPartition::default().with_offset(0);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let answer = wire.call(2, &request);
        ResponseError::try_from_code(answer.topics[0].partitions[0].error_code)
    };
    assert_eq!(
        delete(&mut wire, "profiles"),
        Some(ResponseError::PolicyViolation)
    );
    assert_eq!(delete(&mut wire, "both"), None);
}

#[test]
fn committed_offsets_do_not_pile_up_and_survive() {
    let mut broker = start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    for _ in 0..3 {
        wire.produce("orders", 0, fresh_batch(&[&b"x"[..]; 100]))
            .expect("produced");
    }
    let commit = |broker: &Broker, offset: i64| {
        let consumer: BaseConsumer = rdk::config(broker.bootstrap())
            .set("group.id", "billing")
            .create()
            .expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        for offset in offset..offset + 150 {
            offsets
                .add_partition_offset("orders", 0, Offset::Offset(offset))
                .expect("an offset");
            consumer
                .commit(&offsets, CommitMode::Sync)
                .expect("committed");
            offsets = TopicPartitionList::new();
        }
    };
    let stored = |broker: &Broker| {
        let mut wire = Wire::connect(broker.bootstrap());
        let records = wire.read_all("__consumer_offsets", 0, 0);
        records.expect("readable").len()
    };
    commit(&broker, 0);
    commit(&broker, 150);
    wait_until("compacted", WITHIN, || stored(&broker) < 100);
    broker.kill9();
    broker.restart();
    let consumer: BaseConsumer = rdk::config(broker.bootstrap())
        .set("group.id", "billing")
        .create()
        .expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition("orders", 0);
    let committed = consumer.committed_offsets(asked, WITHIN).expect("offsets");
    let found = committed
        .find_partition("orders", 0)
        .expect("asked for")
        .offset();
    assert_eq!(found, Offset::Offset(299));
}
