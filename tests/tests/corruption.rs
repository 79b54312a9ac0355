//! One byte flipped inside a durable batch: told at the damaged offset, counted once, and nothing else is lost.

use std::path::Path;
use std::time::Duration;

use kafka_protocol::ResponseError;
use keelson_tests::disk::{self, Place};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, BrokerSetup, rdk, wait_until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const BATCHES: i64 = 10;
const RECORDS_PER_BATCH: i64 = 10;
const RECORDS: i64 = BATCHES * RECORDS_PER_BATCH;
const RECORD_BYTES: usize = 120;
const WITHIN: Duration = Duration::from_secs(30);

/// What a test damages and what it expects to be told.
struct Damage {
    stage: &'static str,
    source: &'static str,
    /// The batch that was hit: its first and last offset.
    from: i64,
    to: i64,
    place: Place,
}

fn value(partition: i32, offset: i64) -> Vec<u8> {
    payload(RECORD_BYTES, partition as u32, offset as u64)
}

/// Two partitions of `orders` and one of `other`, ten batches of ten records in each.
///
/// The scrubber is off: here a client is to find the damage.
fn filled() -> Broker {
    let broker = BrokerSetup::new()
        .set("keelson.scrub.bytes.per.second", 0)
        .start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    wire.create_topic("other", 1, &[]);
    for first in (0..RECORDS).step_by(RECORDS_PER_BATCH as usize) {
        for (topic, partition, stream) in [("orders", 0, 0), ("orders", 1, 1), ("other", 0, 2)] {
            let values: Vec<Vec<u8>> = (first..first + RECORDS_PER_BATCH)
                .map(|offset| value(stream, offset))
                .collect();
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            let base = wire.produce(topic, partition, fresh_batch(&values));
            assert_eq!(base, Ok(first), "{topic} {partition}");
        }
    }
    broker
}

/// Waits until the writer is idle: the last group has its witness (a seal), and no further group follows.
fn wait_until_idle(broker: &Broker) {
    let mut last = (u64::MAX, std::time::Instant::now());
    wait_until("the log writer has been idle for a second", WITHIN, || {
        let group = broker.log_state()["wal"]["durable_group"]
            .as_u64()
            .expect("a number");
        if group != last.0 {
            last = (group, std::time::Instant::now());
        }
        last.1.elapsed() >= Duration::from_secs(1)
    });
}

/// Flips a byte in the value of `offset` of partition 0 of `orders`, in the one file below `dir` that holds it.
fn flip(dir: &Path, offset: i64) -> Place {
    let places = disk::find_all(dir, &value(0, offset)[16..]);
    assert_eq!(places.len(), 1, "where offset {offset} lies: {places:?}");
    let place = Place {
        file: places[0].file.clone(),
        position: places[0].position + 20,
    };
    disk::flip(&place);
    place
}

#[test]
fn in_the_wal() {
    let mut broker = filled();
    wait_until_idle(&broker);
    broker.kill9();
    let place = flip(&broker.data_dir().join("wal"), 45);
    check(
        broker,
        &Damage {
            stage: "replay",
            source: "wal",
            from: 40,
            to: 49,
            place,
        },
    );
}

#[test]
fn in_the_last_acknowledged_batch_after_a_second_of_idleness() {
    let mut broker = filled();
    // `filled` ends with `other`; one more batch makes this partition's the very last.
    let values: Vec<Vec<u8>> = (RECORDS..RECORDS + 10)
        .map(|offset| value(0, offset))
        .collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let base = Wire::connect(broker.bootstrap()).produce("orders", 0, fresh_batch(&values));
    assert_eq!(base, Ok(RECORDS));
    wait_until_idle(&broker);
    broker.kill9();
    let place = flip(&broker.data_dir().join("wal"), RECORDS + 5);
    check(
        broker,
        &Damage {
            stage: "replay",
            source: "wal",
            from: RECORDS,
            to: RECORDS + 9,
            place,
        },
    );
}

#[test]
fn in_a_segment() {
    let mut broker = filled();
    broker.stop();
    let place = flip(&broker.data_dir().join("p"), 45);
    check(
        broker,
        &Damage {
            stage: "fetch",
            source: "segment",
            from: 40,
            to: 49,
            place,
        },
    );
}

/// A record of the metadata is damaged: the start says which offsets, and goes on without them once they are given up.
#[test]
fn in_the_metadata_and_given_up() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    for topic in ["kept", "a-lost-topic"] {
        wire.create_topic(topic, 1, &[]);
        let base = wire.produce(topic, 0, fresh_batch(&[&value(0, 0)]));
        assert_eq!(base, Ok(0));
    }
    broker.stop();
    let places = disk::find_all(&broker.data_dir().join("p"), b"a-lost-topic");
    assert_eq!(places.len(), 1, "{places:?}");
    disk::flip(&places[0]);
    let failed = broker.try_restart().expect_err("the metadata is damaged");
    let words = format!("{failed:?}");
    assert!(words.contains("__cluster_metadata"), "{words}");
    let (code, text) = broker.verify();
    assert_eq!(code, 1, "{text}");
    let of_metadata = |line: &&str| line.contains("topic=__cluster_metadata");
    let line = text.lines().find(of_metadata).expect("the damage is told");
    let offsets = line
        .split("offsets=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let (from, to) = offsets.and_then(|o| o.split_once("..=")).expect("a range");
    assert!(words.contains(from), "{from} is named: {words}");
    let topic = ["--topic", "__cluster_metadata", "--partition", "0"];
    let accept = [
        &["log", "accept-loss"][..],
        &topic,
        &["--from", from, "--to", to],
    ]
    .concat();
    let (code, text) = Broker::offline(&accept, broker.data_dir());
    assert_eq!(code, 0, "{text}");
    for start in 0..2 {
        broker.restart();
        let mut wire = Wire::connect(broker.bootstrap());
        let kept = wire.read_all("kept", 0, 0).expect("what is not lost");
        assert_eq!(kept.len(), 1 + start, "start {start}");
        let lost = wire.metadata("a-lost-topic");
        assert_ne!(lost.topics[0].error_code, 0, "nobody knows it any more");
        let base = wire.produce("kept", 0, fresh_batch(&[&value(0, 1)]));
        assert_eq!(base, Ok(1 + start as i64));
        broker.stop();
    }
    let aside = disk::files(&broker.data_dir().join("quarantine"));
    assert!(!aside.is_empty(), "its records are put aside, not deleted");
}

/// A commit group and the copy of its table behind it: nobody knows what it held, and the start goes on only after somebody
/// has given it up.
#[test]
fn in_both_copies_of_a_frame_table_and_given_up() {
    let mut broker = filled();
    wait_until_idle(&broker);
    broker.kill9();
    damage_tables(&broker.data_dir().join("wal"), 45);
    let failed = broker
        .try_restart()
        .expect_err("nobody knows what was in it");
    let words = format!("{failed:?}");
    let group = words
        .split("--group ")
        .nth(1)
        .expect("the way out is named");
    let group: String = group.chars().take_while(char::is_ascii_digit).collect();
    let accept = ["log", "accept-loss", "--group", &group];
    let (code, text) = Broker::offline(&accept, broker.data_dir());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("commit group={group}")), "{text}");
    assert!(text.contains("log starts that moved"), "{text}");
    assert!(
        !text.contains("topic=orders"),
        "later appends say how far it was: {text}"
    );
    let (code, text) = Broker::offline(&accept, broker.data_dir());
    assert_eq!((code, text.contains("before")), (0, true), "{text}");
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    // What the group held of this partition is known from what follows it.
    let (at, error) = wire.read_all("orders", 0, 0).expect_err("the gap is told");
    assert_eq!((at, error), (40, ResponseError::CorruptMessage));
    let after = fetch_range(&mut wire, 50, RECORDS);
    assert_eq!(after.len() as i64, RECORDS - 50);
    others_are_untouched(&mut wire);
    let base = wire.produce("orders", 0, fresh_batch(&[&value(0, RECORDS)]));
    assert_eq!(base, Ok(RECORDS));
    wire.create_topic("later", 1, &[]);
    let state = broker.log_state();
    let told = state["accepted_losses"].as_array().expect("a list");
    let group: u64 = group.parse().expect("a group's number");
    assert!(told.iter().any(|loss| loss["group"] == group), "{state}");
    broker.stop();
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    others_are_untouched(&mut wire);
    assert_eq!(
        wire.produce("later", 0, fresh_batch(&[&value(0, 0)])),
        Ok(0)
    );
}

/// Damages the first entry of a commit group's frame table, and its copy in the group behind.
fn damage_tables(wal: &Path, offset: i64) {
    const BLOCK: u64 = 4096;
    let places = disk::find_all(wal, &value(0, offset)[16..]);
    let file = &places[0].file;
    let bytes = std::fs::read(file).expect("a WAL file");
    let number = |at: u64| {
        let bytes = &bytes[at as usize..][..4];
        u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    };
    let mut group = places[0].position / BLOCK * BLOCK;
    while !bytes[group as usize..].starts_with(b"KEELWALG") {
        group -= BLOCK;
    }
    let next = group + number(group + 56);
    for position in [group + 80 + 9, next + 80 + 64 * number(next + 12) + 9] {
        let file = file.clone();
        disk::flip(&Place { file, position });
    }
}

fn check(mut broker: Broker, damage: &Damage) {
    verify_names_the_place(&broker, damage);
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    let end = wire.list_offset("orders", 0, -1).expect("the end offset");
    assert_eq!(
        end,
        RECORDS.max(damage.to + 1),
        "the end offset counts what is damaged"
    );

    served_around_the_damage(&mut wire, damage, end);
    others_are_untouched(&mut wire);
    a_real_client_is_told(&broker, damage, end);
    counted_once(&broker, damage);
    told_in_the_admin_state(&broker, damage);

    // Life goes on: a new record lies above everything, also above what is damaged.
    let after = value(0, end);
    assert_eq!(wire.produce("orders", 0, fresh_batch(&[&after])), Ok(end));
    assert_eq!(
        wire.read_all("orders", 0, end).expect("the new record")[0].1,
        after
    );
    verify_names_the_place(&broker, damage);

    // And a second restart tells the same.
    broker.stop();
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    served_around_the_damage(&mut wire, damage, end + 1);
    others_are_untouched(&mut wire);
}

fn served_around_the_damage(wire: &mut Wire, damage: &Damage, end: i64) {
    let (at, error) = wire
        .read_all("orders", 0, 0)
        .expect_err("the damage is told");
    assert_eq!((at, error), (damage.from, ResponseError::CorruptMessage));
    let before = fetch_range(wire, 0, damage.from);
    assert_eq!(
        before,
        (0..damage.from)
            .map(|o| (o, value(0, o)))
            .collect::<Vec<_>>(),
        "everything before"
    );
    for inside in [damage.from, damage.from + 5, damage.to] {
        let told = wire.fetch("orders", 0, inside);
        assert_eq!(
            told.error,
            Some(ResponseError::CorruptMessage),
            "at {inside}"
        );
        assert!(told.bytes.is_empty(), "no bytes at {inside}");
    }
    let after: Vec<(i64, Vec<u8>)> = fetch_range(wire, damage.to + 1, end);
    assert_eq!(
        after,
        (damage.to + 1..end)
            .map(|o| (o, value(0, o)))
            .collect::<Vec<_>>(),
        "everything after"
    );
}

fn fetch_range(wire: &mut Wire, from: i64, to: i64) -> Vec<(i64, Vec<u8>)> {
    let mut next = from;
    let mut records = Vec::new();
    while next < to {
        let fetched = wire.fetch("orders", 0, next);
        assert_eq!(fetched.error, None, "at {next}");
        let read: Vec<_> = fetched
            .records()
            .into_iter()
            .filter(|(o, _)| (next..to).contains(o))
            .collect();
        next = read
            .last()
            .unwrap_or_else(|| panic!("nothing at {next} below {to}"))
            .0
            + 1;
        records.extend(
            read.into_iter()
                .map(|(offset, value)| (offset, value.to_vec())),
        );
    }
    records
}

fn others_are_untouched(wire: &mut Wire) {
    for (topic, partition, stream) in [("orders", 1, 1), ("other", 0, 2)] {
        let records = wire
            .read_all(topic, partition, 0)
            .expect("another partition is untouched");
        assert_eq!(records.len() as i64, RECORDS, "{topic} {partition}");
        for (offset, found) in records {
            assert_eq!(
                found,
                value(stream, offset),
                "{topic} {partition} at {offset}"
            );
        }
    }
}

/// librdkafka gives everything before the damage, then an error (not silence), and everything after once it seeks past.
fn a_real_client_is_told(broker: &Broker, damage: &Damage, end: i64) {
    let consumer: BaseConsumer = rdk::config(broker.bootstrap())
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer");
    let assign = |offset| {
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset("orders", 0, Offset::Offset(offset))
            .expect("an assignment");
        consumer.assign(&assignment).expect("an assignment");
    };
    assign(0);
    let (before, told) = poll_to_an_event(&consumer);
    assert_eq!(
        before,
        (0..damage.from).collect::<Vec<_>>(),
        "before the damage"
    );
    let told = told.to_string();
    assert!(
        !told.contains("EOF"),
        "the client is told of damage, not of an end: {told}"
    );
    if damage.to + 1 < end {
        assign(damage.to + 1);
        // What it was told before it moved may still be in its queue.
        let mut after = Vec::new();
        let mut events = 0;
        let told = loop {
            let (read, told) = poll_to_an_event(&consumer);
            after.extend(read);
            events += 1;
            assert!(events < 20, "no end after {} records: {told}", after.len());
            if matches!(told, KafkaError::PartitionEOF(0)) || after.len() as i64 >= end {
                break told;
            }
        };
        assert_eq!(
            after,
            (damage.to + 1..end).collect::<Vec<_>>(),
            "after the damage"
        );
        assert!(
            matches!(told, KafkaError::PartitionEOF(0)),
            "the end: {told}"
        );
    }
}

fn poll_to_an_event(consumer: &BaseConsumer) -> (Vec<i64>, KafkaError) {
    let mut offsets = Vec::new();
    let end = std::time::Instant::now() + WITHIN;
    loop {
        assert!(
            std::time::Instant::now() < end,
            "neither an error nor an end after {offsets:?}"
        );
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => offsets.push(message.offset()),
            Some(Err(error)) => return (offsets, error),
        }
    }
}

fn counted_once(broker: &Broker, damage: &Damage) {
    let metrics = broker.metrics();
    let labels = [("stage", damage.stage), ("source", damage.source)];
    let counted: Vec<_> = metrics
        .select("keelson_wal_decode_errors_total", &[])
        .filter(|(_, value)| *value != 0.0)
        .collect();
    assert_eq!(counted.len(), 1, "one series: {counted:?}");
    assert_eq!(
        metrics.sum("keelson_wal_decode_errors_total", &labels),
        1.0,
        "{counted:?}"
    );
    assert_eq!(metrics.sum("keelson_log_quarantined_ranges", &[]), 1.0);
    assert_eq!(
        metrics.sum("keelson_log_quarantined_records", &[]),
        (damage.to - damage.from + 1) as f64
    );
    assert_eq!(
        metrics.sum("keelson_wal_health", &[("state", "corrupt")]),
        1.0
    );
    assert_eq!(metrics.sum("keelson_wal_health", &[("state", "ok")]), 0.0);
    assert_eq!(
        metrics.sum("keelson_fetch_invariant_violations_total", &[]),
        0.0
    );
    assert_eq!(
        metrics.sum("keelson_wal_torn_tail_truncations_total", &[]),
        0.0
    );
}

fn told_in_the_admin_state(broker: &Broker, damage: &Damage) {
    let state = broker.log_state();
    let unhealthy = state["unhealthy"].as_array().expect("a list");
    assert_eq!(unhealthy.len(), 1, "{state}");
    let range = &unhealthy[0];
    assert_eq!(range["topic"], "orders", "{state}");
    assert_eq!(range["partition"], 0, "{state}");
    assert_eq!(
        (range["from"].as_i64(), range["to"].as_i64()),
        (Some(damage.from), Some(damage.to)),
        "{state}"
    );
    assert_eq!(range["stage"], damage.stage, "{state}");
    assert_eq!(range["source"], damage.source, "{state}");
    let file = range["file"].as_str().expect("a file");
    assert!(
        damage.place.file.ends_with(file),
        "{file} is not {}",
        damage.place.file.display()
    );
    let position = range["position"].as_u64().expect("a position");
    assert!(
        position <= damage.place.position,
        "{position} lies behind the damage at {}",
        damage.place.position
    );
}

fn verify_names_the_place(broker: &Broker, damage: &Damage) {
    let (code, text) = broker.verify();
    assert_eq!(code, 1, "{text}");
    let name = damage
        .place
        .file
        .file_name()
        .expect("a file name")
        .to_string_lossy()
        .into_owned();
    let line = text
        .lines()
        .find(|line| line.contains(&name))
        .unwrap_or_else(|| panic!("{name} is not named:\n{text}"));
    for word in [damage.from.to_string(), damage.to.to_string()] {
        assert!(line.contains(&word), "{word} is not in: {line}");
    }
}
