//! The failure this project was started for: a log that is there, and consumers that get nothing.
//!
//! Topics of 1, 2 and 3 partitions, 1,005 records, groups of kafka-python and of librdkafka: all of them, again after
//! kill -9 and restart, again after tens of thousands more and a segment roll.

use keelson_tests::rdk::{self, Acked, Load};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, disk, python};

const FIRST_RECORDS: u64 = 1_005;
const MORE_RECORDS: u64 = 20_000;
const RECORD_BYTES: usize = 200;
/// Kafka's own minimum, so that tens of thousands of records roll several times.
const SEGMENT_BYTES: &str = "1048576";

#[test]
fn one_partition() {
    check(1);
}

#[test]
fn two_partitions() {
    check(2);
}

#[test]
fn three_partitions() {
    check(3);
}

fn check(partitions: i32) {
    let topic = format!("orders-{partitions}");
    let mut broker = Broker::start();
    Wire::connect(broker.bootstrap()).create_topic(
        &topic,
        partitions,
        &[("segment.bytes", SEGMENT_BYTES)],
    );
    let load = Load {
        stream: 1,
        sequences: 0..FIRST_RECORDS,
        bytes: RECORD_BYTES,
    };
    let mut acked = rdk::with_values(&rdk::produce(broker.bootstrap(), &topic, &load, &[]), &load);
    both_clients_read_all(&broker, &topic, "first", &acked);

    broker.kill9();
    broker.restart();
    both_clients_read_all(&broker, &topic, "after-kill", &acked);
    // The groups committed before the kill go on from there: nothing comes twice.
    let more = Load {
        stream: 1,
        sequences: FIRST_RECORDS..FIRST_RECORDS + 10,
        bytes: RECORD_BYTES,
    };
    let appended = rdk::with_values(&rdk::produce(broker.bootstrap(), &topic, &more, &[]), &more);
    let seen = rdk::read_group(broker.bootstrap(), &topic, "first", appended.len());
    rdk::assert_all_seen(&appended, &seen);
    acked.extend(appended);

    let many = Load {
        stream: 2,
        sequences: 0..MORE_RECORDS,
        bytes: RECORD_BYTES,
    };
    acked.extend(rdk::with_values(
        &rdk::produce(broker.bootstrap(), &topic, &many, &[]),
        &many,
    ));
    both_clients_read_all(&broker, &topic, "after-roll", &acked);
    verify_is_clean(&broker, "beside the running broker");

    broker.stop();
    let segments = disk::files(&broker.data_dir().join("p"))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .count();
    assert!(
        segments > partitions as usize,
        "{segments} segments: no partition rolled"
    );
    verify_is_clean(&broker, "stopped");
    broker.restart();
    both_clients_read_all(&broker, &topic, "after-stop", &acked);
}

fn both_clients_read_all(broker: &Broker, topic: &str, group: &str, acked: &[(Acked, Vec<u8>)]) {
    let seen = rdk::read_group(broker.bootstrap(), topic, group, acked.len());
    assert_eq!(seen.len(), acked.len(), "librdkafka, group {group}");
    rdk::assert_all_seen(acked, &seen);

    let count = acked.len().to_string();
    let python_group = format!("{group}-python");
    let seen = python::run(
        "read_group.py",
        &[broker.bootstrap(), topic, &python_group, &count],
    );
    let seen: Vec<(i32, i64, u32)> = serde_json::from_value(seen).expect("triples");
    // What python hashed is compared with what was sent, hashed the same way.
    let mut expected: Vec<(i32, i64, u32)> = acked
        .iter()
        .map(|(place, value)| (place.partition, place.offset, crc32_of(value)))
        .collect();
    expected.sort_unstable();
    let mut found = seen.clone();
    found.sort_unstable();
    assert_eq!(
        found.len(),
        acked.len(),
        "kafka-python, group {python_group}"
    );
    assert!(
        found == expected,
        "kafka-python read other bytes in group {python_group}"
    );
    for pair in seen.windows(2) {
        let in_order = pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1;
        assert!(
            in_order,
            "kafka-python read {:?} after {:?}",
            pair[1], pair[0]
        );
    }
}

fn verify_is_clean(broker: &Broker, when: &str) {
    let (code, text) = broker.verify();
    assert_eq!(code, 0, "log verify, {when}: {text}");
}

/// zlib's CRC-32, which python has at hand.
fn crc32_of(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn the_checksum_is_pythons() {
    assert_eq!(crc32_of(b"123456789"), 0xcbf4_3926);
}
