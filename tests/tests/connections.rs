//! What holds on one connection: replies in request order, no reply to acks=0, long polls that end with data, an end in order.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Buf;
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, BrokerSetup, http, wait_until};
use rustix::process::Signal;

const WITHIN: Duration = Duration::from_secs(20);

fn with_topic() -> (Broker, Wire) {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    (broker, wire)
}

#[test]
fn replies_leave_in_request_order() {
    const ROUNDS: u64 = 50;
    let (_broker, mut wire) = with_topic();
    // A produce waits for the disk, ApiVersions for nothing: answered as they are ready, they would change places.
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let partition = (round % 2) as i32;
        let request = Wire::produce_request(
            "orders",
            partition,
            fresh_batch(&[&payload(64, 1, round)]),
            1,
        );
        let produce = wire.send(8, &request).expect("sent");
        let versions = wire.send(2, &ApiVersionsRequest::default()).expect("sent");
        expected.push((produce, versions, (round / 2) as i64));
    }
    for (produce, versions, offset) in expected {
        let answer = wire
            .receive::<ProduceRequest>(8, produce)
            .expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset));
        wire.receive::<ApiVersionsRequest>(2, versions)
            .expect("an answer");
    }
}

#[test]
fn acks_0_is_stored_and_not_answered() {
    let (_broker, mut wire) = with_topic();
    for sequence in 0..10 {
        let request =
            Wire::produce_request("orders", 0, fresh_batch(&[&payload(64, 1, sequence)]), 0);
        wire.send(8, &request).expect("sent");
    }
    // The next answer on this connection is that of the next request.
    wire.call(2, &ApiVersionsRequest::default());
    wait_until("the records show", WITHIN, || {
        wire.list_offset("orders", 0, -1) == Ok(10)
    });
    let records = wire.read_all("orders", 0, 0).expect("readable");
    for (sequence, (_, value)) in records.iter().enumerate() {
        assert_eq!(value, &payload(64, 1, sequence as u64), "in order");
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_with_the_list() {
    let (_broker, mut wire) = with_topic();
    // Kafka's own rule (KIP-511): error 35 and the list, in version 0, with a version 0 header.
    let frame = [
        &[0_u8, 0, 0, 11][..],
        &[0, 18, 0, 99, 0, 0, 0, 7],
        &[0xff, 0xff, 0],
    ]
    .concat();
    std::io::Write::write_all(wire.stream(), &frame).expect("sent");
    let mut answer = wire.receive_frame().expect("an answer");
    assert_eq!(answer.get_i32(), 7, "the correlation id");
    assert_eq!(answer.get_i16(), 35, "UNSUPPORTED_VERSION");
    assert!(answer.get_i32() > 10, "the list of APIs");
}

#[test]
fn a_long_poll_ends_with_data() {
    let (broker, mut wire) = with_topic();
    let mut waiting = Wire::connect(broker.bootstrap());
    let started = Instant::now();
    let id = waiting.send(11, &poll(30_000)).expect("sent");
    // On a connection of its own, so that the poll really waits.
    wire.produce("orders", 0, fresh_batch(&[b"one"]))
        .expect("a record");
    let answer = waiting.receive::<FetchRequest>(11, id).expect("an answer");
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "the poll ended after {took:?}"
    );
    let bytes = answer.responses[0].partitions[0]
        .records
        .clone()
        .expect("records");
    assert_eq!(keelson_tests::records::read_batches(&bytes).len(), 1);
}

#[test]
fn a_long_poll_without_data_waits_its_time() {
    const WAIT_MS: i32 = 400;
    let (_broker, mut wire) = with_topic();
    let started = Instant::now();
    let answer = wire.call(11, &poll(WAIT_MS));
    assert!(
        started.elapsed() >= Duration::from_millis(WAIT_MS as u64),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(answer.responses[0].partitions[0].error_code, 0);
}

fn poll(max_wait_ms: i32) -> FetchRequest {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::{BrokerId, TopicName};
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(keelson_tests::wire::text("orders")))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

#[test]
fn sigterm_ends_it_within_seconds_whoever_waits() {
    let (mut broker, mut wire) = with_topic();
    wire.produce("orders", 1, fresh_batch(&[b"kept"]))
        .expect("a record");
    let mut waiting = Wire::connect(broker.bootstrap());
    waiting.send(11, &poll(60_000)).expect("sent");
    let _idle = Wire::connect(broker.bootstrap());
    let started = Instant::now();
    broker.stop();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let mut rest = Vec::new();
    // Answered or cut, but ended.
    let _ = waiting.stream().read_to_end(&mut rest);
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    assert_eq!(wire.read_all("orders", 1, 0).expect("readable").len(), 1);
}

#[test]
fn a_broker_that_is_told_to_stop_serves_on_until_it_is_withdrawn() {
    let mut broker = BrokerSetup::new()
        .set("keelson.shutdown.withdraw.ms", 600_000)
        .start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    broker.signal(Signal::TERM);
    wait_until("it says that it is not ready", WITHIN, || {
        http::get(broker.http(), "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    // Old connections and new ones: a Service may go on sending for a while.
    for wire in [&mut wire, &mut Wire::connect(broker.bootstrap())] {
        wire.produce("orders", 0, fresh_batch(&[&payload(64, 1, 0)]))
            .expect("stored");
    }
    // The second signal does not wait.
    broker.stop();
}
