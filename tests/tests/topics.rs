//! Topic configs do what they say: retention, segments, sizes, timestamps; deleting gives the disk back; others are refused.

use std::path::Path;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DeleteTopicsRequest, IncrementalAlterConfigsRequest, TopicName};
use keelson_tests::records::{batch, fresh_batch, now_ms, payload};
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup, disk, wait_until};

const WITHIN: Duration = Duration::from_secs(40);
const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;

/// Records of 50 kB each: twenty make a megabyte.
fn fill(wire: &mut Wire, topic: &str, records: u64, timestamp_ms: i64) {
    for sequence in 0..records {
        let value = payload(50_000, 1, sequence);
        wire.produce(topic, 0, batch(&[&value], timestamp_ms))
            .expect("a record");
    }
}

fn segment_bytes(data_dir: &Path) -> u64 {
    disk::files(data_dir)
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn often_checked() -> BrokerSetup {
    BrokerSetup::new().set("log.retention.check.interval.ms", 1_000)
}

fn alter(wire: &mut Wire, topic: &str, key: &str, value: &str) -> (Option<ResponseError>, String) {
    let config = AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(SET)
        .with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = wire.call(1, &request);
    let answer = &answer.responses[0];
    let message = answer.error_message.as_ref().map(ToString::to_string);
    (
        ResponseError::try_from_code(answer.error_code),
        message.unwrap_or_default(),
    )
}

#[test]
fn retention_bytes_moves_the_start_and_frees_the_disk() {
    let broker = often_checked().start();
    let mut wire = Wire::connect(broker.bootstrap());
    let configs = [("segment.bytes", "1048576"), ("retention.bytes", "2097152")];
    wire.create_topic("orders", 1, &configs);
    fill(&mut wire, "orders", 200, now_ms());
    wait_until("old segments go", WITHIN, || {
        wire.list_offset("orders", 0, -2)
            .is_ok_and(|start| start > 100)
            && segment_bytes(&broker.data_dir().join("p")) < 6 << 20
    });
    let start = wire.list_offset("orders", 0, -2).expect("a start");
    assert_eq!(
        wire.fetch("orders", 0, 0).error,
        Some(ResponseError::OffsetOutOfRange)
    );
    let records = wire.read_all("orders", 0, start).expect("readable");
    assert_eq!(records.last().map(|(offset, _)| *offset), Some(199));
}

#[test]
fn retention_ms_counts_from_the_records_timestamps() {
    let broker = often_checked().start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic(
        "orders",
        1,
        &[("segment.bytes", "1048576"), ("retention.ms", "3600000")],
    );
    fill(&mut wire, "orders", 60, now_ms() - 7_200_000);
    fill(&mut wire, "orders", 30, now_ms());
    wait_until("what is two hours old goes", WITHIN, || {
        wire.list_offset("orders", 0, -2)
            .is_ok_and(|start| start >= 40)
    });
    let start = wire.list_offset("orders", 0, -2).expect("a start");
    assert!(start <= 60, "what is young stays, the start is {start}");
}

#[test]
fn segment_ms_rolls_a_quiet_partition() {
    let mut broker = often_checked().start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[("segment.ms", "1500")]);
    wire.produce("orders", 0, fresh_batch(&[b"one"]))
        .expect("a record");
    let begun = std::time::Instant::now();
    wait_until("the segment's time is over", WITHIN, || {
        begun.elapsed() > Duration::from_secs(4)
    });
    wire.produce("orders", 0, fresh_batch(&[b"two"]))
        .expect("a record");
    broker.stop();
    let segments = disk::files(&broker.data_dir().join("p"))
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .filter(|file| std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0))
        .filter(|file| !disk::find_all(file.parent().expect("a folder"), b"one").is_empty())
        .count();
    assert!(segments >= 2, "{segments} segments");
    broker.restart();
    assert_eq!(
        Wire::connect(broker.bootstrap())
            .read_all("orders", 0, 0)
            .expect("readable")
            .len(),
        2
    );
}

#[test]
fn deleting_a_topic_gives_its_disk_back() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    wire.create_topic("kept", 1, &[]);
    fill(&mut wire, "orders", 60, now_ms());
    fill(&mut wire, "kept", 1, now_ms());
    wait_until("it is in segments", WITHIN, || {
        segment_bytes(&broker.data_dir().join("p")) > 1 << 20
    });
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text("orders"))));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000);
    assert_eq!(wire.call(6, &request).responses[0].error_code, 0);
    wait_until("its folder is gone", WITHIN, || {
        segment_bytes(&broker.data_dir().join("p")) < 1 << 20
    });
    let gone = wire.metadata("orders").topics[0].error_code;
    assert_eq!(
        ResponseError::try_from_code(gone),
        Some(ResponseError::UnknownTopicOrPartition)
    );
    broker.kill9();
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    assert_eq!(wire.read_all("kept", 0, 0).expect("readable").len(), 1);
    // The same name again is another topic: nothing of the old one shows.
    wire.create_topic("orders", 2, &[]);
    assert_eq!(wire.list_offset("orders", 0, -1), Ok(0));
    assert_eq!(broker.verify().0, 0);
}

#[test]
fn max_message_bytes_is_held() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[("max.message.bytes", "10000")]);
    let large = wire.produce("orders", 0, fresh_batch(&[&payload(20_000, 1, 1)]));
    assert_eq!(large, Err(ResponseError::MessageTooLarge));
    assert_eq!(
        wire.produce("orders", 0, fresh_batch(&[&payload(5_000, 1, 1)])),
        Ok(0)
    );
    assert_eq!(
        alter(&mut wire, "orders", "max.message.bytes", "50000").0,
        None
    );
    assert_eq!(
        wire.produce("orders", 0, fresh_batch(&[&payload(20_000, 1, 1)])),
        Ok(1)
    );
}

#[test]
fn log_append_time_is_the_brokers() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    wire.produce("orders", 0, batch(&[b"one"], 1))
        .expect("a record");
    let bytes = wire.fetch("orders", 0, 0).bytes;
    let max_timestamp = i64::from_be_bytes(bytes[35..43].try_into().expect("eight bytes"));
    assert!(
        (before - 1_000..=now_ms() + 1_000).contains(&max_timestamp),
        "{max_timestamp}"
    );
    assert_eq!(bytes[22] & 8, 8, "the batch says so");
    // And its CRC was made anew, as Kafka does there.
    assert_eq!(keelson_tests::records::read_batches(&bytes).len(), 1);
}

#[test]
fn other_keys_and_bad_values_are_refused_with_the_reason() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    let cases = [
        ("cleanup.policy", "shrink"),
        ("compression.type", "lzma"),
        ("min.insync.replicas", "0"),
        ("preallocate", "true"),
        ("no.such.key", "1"),
        ("retention.ms", "soon"),
        ("segment.bytes", "1"),
    ];
    for (number, (key, value)) in cases.into_iter().enumerate() {
        let (error, message) = wire.try_create_topic(&format!("t{number}"), 1, &[(key, value)]);
        assert_eq!(error, Some(ResponseError::InvalidConfig), "{key}={value}");
        assert!(
            message
                .as_ref()
                .is_some_and(|message| message.contains(key)),
            "{key}={value}: {message:?}"
        );
    }
    wire.create_topic(
        "orders",
        1,
        &[("cleanup.policy", "delete"), ("compression.type", "zstd")],
    );
    let (error, message) = alter(&mut wire, "orders", "cleanup.policy", "shrink");
    assert_eq!(error, Some(ResponseError::InvalidConfig), "{message}");
    assert!(message.contains("cleanup.policy"), "{message}");
}
