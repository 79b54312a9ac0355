//! Damage that no client reads: the scrubber finds it and tells; what is lost can be given up, and then everybody goes on.

use std::time::Duration;

use keelson_tests::disk::{self, Place};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, rdk, wait_until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const RECORDS: i64 = 100;
const RECORDS_PER_BATCH: i64 = 10;
const WITHIN: Duration = Duration::from_secs(60);
/// What is damaged: partition, first and last offset. One in the middle of a partition, one at the end of another.
const LOST: [(i32, i64, i64); 2] = [(0, 40, 49), (1, 90, 99)];

fn value(partition: i32, offset: i64) -> Vec<u8> {
    payload(120, partition as u32, offset as u64)
}

fn produce(wire: &mut Wire, partition: i32, first: i64, count: i64) {
    let values: Vec<Vec<u8>> = (first..first + count)
        .map(|offset| value(partition, offset))
        .collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let base = wire.produce("orders", partition, fresh_batch(&values));
    assert_eq!(base, Ok(first), "partition {partition}");
}

#[test]
fn what_nobody_reads_is_found_told_and_can_be_given_up() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    for first in (0..RECORDS).step_by(RECORDS_PER_BATCH as usize) {
        produce(&mut wire, 0, first, RECORDS_PER_BATCH);
        produce(&mut wire, 1, first, RECORDS_PER_BATCH);
    }
    broker.stop();
    for (partition, from, _) in LOST {
        let places = disk::find_all(
            &broker.data_dir().join("p"),
            &value(partition, from + 5)[16..],
        );
        assert_eq!(places.len(), 1, "{places:?}");
        disk::flip(&Place {
            file: places[0].file.clone(),
            position: places[0].position + 20,
        });
    }
    broker.restart();
    found_by_the_scrubber(&broker);
    let (code, text) = accept(&broker, LOST[0]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("a broker is running"), "{text}");
    broker.stop();
    given_up(&broker);
    broker.restart();
    everything_else_is_read(&broker);
    told_for_ever(&broker);
    broker.stop();
    broker.restart();
    told_for_ever(&broker);
}

fn found_by_the_scrubber(broker: &Broker) {
    let labels = [("stage", "scrub"), ("source", "segment")];
    wait_until("the scrubber has found both", WITHIN, || {
        broker
            .metrics()
            .sum("keelson_wal_decode_errors_total", &labels)
            == 2.0
    });
    wait_until("the pass is full", WITHIN, || {
        let family = "keelson_log_scrub_last_full_pass_timestamp_seconds";
        broker.metrics().sum(family, &[]) > 0.0
    });
    let metrics = broker.metrics();
    assert_eq!(metrics.sum("keelson_wal_decode_errors_total", &[]), 2.0);
    assert_eq!(metrics.sum("keelson_log_quarantined_records", &[]), 20.0);
    assert!(metrics.sum("keelson_log_scrub_bytes_total", &[]) > 0.0);
    let state = broker.log_state();
    let unhealthy = state["unhealthy"].as_array().expect("a list");
    assert_eq!(unhealthy.len(), 2, "{state}");
    for (range, (partition, from, to)) in unhealthy.iter().zip(LOST) {
        assert_eq!(range["topic"], "orders", "{state}");
        assert_eq!(range["partition"], partition, "{state}");
        assert_eq!((&range["from"], &range["to"]), (&from.into(), &to.into()));
        assert_eq!(range["stage"], "scrub", "{state}");
        assert_eq!(range["reason"], "batch_crc", "{state}");
    }
}

fn accept(broker: &Broker, (partition, from, to): (i32, i64, i64)) -> (i32, String) {
    let (partition, from, to) = (partition.to_string(), from.to_string(), to.to_string());
    let words = [
        "log",
        "accept-loss",
        "--topic",
        "orders",
        "--partition",
        &partition,
        "--from",
        &from,
        "--to",
        &to,
    ];
    Broker::offline(&words, broker.data_dir())
}

fn given_up(broker: &Broker) {
    let (code, text) = accept(broker, (0, 39, 50));
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("39..=39") && text.contains("50..=50"),
        "{text}"
    );
    let (code, _) = broker.verify();
    assert_eq!(code, 1, "a refusal changes nothing");
    for lost in LOST {
        let (code, text) = accept(broker, lost);
        assert_eq!(code, 0, "{text}");
        let offsets = format!("offsets={}..={}", lost.1, lost.2);
        assert!(
            text.contains(&offsets) && text.contains("topic=orders"),
            "{text}"
        );
    }
    let (code, text) = broker.verify();
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.matches("given up (no error)").count(), 2, "{text}");
}

/// A real client reads all that is left, reaches the end, and gets what is produced behind it.
fn everything_else_is_read(broker: &Broker) {
    let consumer: BaseConsumer = rdk::config(broker.bootstrap())
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer");
    for (partition, from, to) in LOST {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset("orders", partition, Offset::Offset(0))
            .expect("an assignment");
        consumer.assign(&assignment).expect("an assignment");
        let kept: Vec<i64> = (0..RECORDS).filter(|o| !(from..=to).contains(o)).collect();
        assert_eq!(poll_to_the_end(&consumer, partition), kept, "{partition}");
        let mut wire = Wire::connect(broker.bootstrap());
        assert_eq!(wire.list_offset("orders", partition, -1), Ok(RECORDS));
        for inside in [from, to] {
            let fetched = wire.fetch("orders", partition, inside);
            assert_eq!(fetched.error, None, "at {inside}");
            assert!(!fetched.bytes.is_empty(), "nothing at {inside}");
            let first = fetched.records().first().map(|(offset, _)| *offset);
            assert_eq!(first, (to + 1 < RECORDS).then_some(to + 1), "at {inside}");
        }
        produce(&mut wire, partition, RECORDS, 1);
        assert_eq!(poll_to_the_end(&consumer, partition), [RECORDS]);
    }
}

fn poll_to_the_end(consumer: &BaseConsumer, partition: i32) -> Vec<i64> {
    let mut offsets = Vec::new();
    let end = std::time::Instant::now() + WITHIN;
    loop {
        assert!(std::time::Instant::now() < end, "no end after {offsets:?}");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let offset = message.offset();
                let wanted = value(partition, offset);
                assert_eq!(message.payload(), Some(&wanted[..]), "at {offset}");
                offsets.push(offset);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return offsets,
            Some(Err(error)) => panic!("after {offsets:?}: {error}"),
        }
    }
}

fn told_for_ever(broker: &Broker) {
    let state = broker.log_state();
    assert_eq!(state["health"], serde_json::json!(["ok"]), "{state}");
    assert_eq!(state["quarantined_ranges"], 0, "{state}");
    assert_eq!(state["accepted_losses_total"], 2, "{state}");
    // The newest first.
    for (lost, (partition, from, to)) in [1, 0].into_iter().zip(LOST) {
        let lost = &state["accepted_losses"][lost as usize];
        assert_eq!(lost["topic"], "orders", "{state}");
        assert_eq!(lost["partition"], partition, "{state}");
        assert_eq!((&lost["from"], &lost["to"]), (&from.into(), &to.into()));
        assert_eq!(lost["reason"], "batch_crc", "{state}");
        assert_eq!(lost["source"], "segment", "{state}");
        for text in ["file", "accepted", "by", "since"] {
            assert!(
                lost[text].as_str().is_some_and(|t| !t.is_empty()),
                "{text}: {state}"
            );
        }
        assert!(lost["position"].is_u64(), "{state}");
    }
    let metrics = broker.metrics();
    for family in [
        "keelson_log_quarantined_ranges",
        "keelson_log_quarantined_records",
        "keelson_wal_decode_errors_total",
        "keelson_fetch_invariant_violations_total",
    ] {
        assert_eq!(metrics.sum(family, &[]), 0.0, "{family}");
    }
}
