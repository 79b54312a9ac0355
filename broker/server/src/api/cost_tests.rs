//! What a request costs: allocations on the connection's thread, from the frame to the encoded answer.
//!
//! Owns the bounds, which a change may only raise with a reason. The numbers stand in `docs/performance.md`. What other
//! threads allocate (the WAL's, the owners' of groups) is not counted.

use std::hint::black_box;

use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::frame::RequestHeader;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use keelson_protocol::kafka_protocol::messages::{
    FetchRequest, FetchResponse, HeartbeatRequest, MetadataRequest,
};
use keelson_protocol::kafka_protocol::protocol::{Encodable, Request, StrBytes};
use keelson_protocol::{BATCH_HEADER_BYTES, BatchHeader};

use crate::counting::allocations;
use crate::dispatch::{self, Dispatched};
use crate::partitions::{AckGroup, Incoming};
use crate::testing::{TestBroker, batch, decode, frame, name, produce_request};

/// Runs a frame up to its answer, or up to where it waits for another thread.
fn run<R: Request + Encodable>(test: &TestBroker, body: &R, version: i16) -> (u64, u64) {
    let bytes = frame(body, version, 7);
    let (dispatched, count, sum) = allocations(|| start::<R>(test, bytes.slice(4..)));
    drop(black_box(dispatched));
    (count, sum)
}

fn start<R: Request>(test: &TestBroker, mut bytes: bytes::Bytes) -> Dispatched {
    let header = RequestHeader::decode(&mut bytes).unwrap();
    let frame = dispatch::Frame {
        header,
        body: bytes,
        host: std::net::Ipv4Addr::LOCALHOST.into(),
        pin: None,
    };
    let route = dispatch::route(R::KEY).unwrap();
    dispatch::ROUTES[route].call(&test.broker, frame).unwrap()
}

/// The second run of a request: the first one fills what is made once.
fn cost<R: Request + Encodable>(test: &TestBroker, body: &R, version: i16) -> (u64, u64) {
    run(test, body, version);
    run(test, body, version)
}

fn tell(what: &str, (count, bytes): (u64, u64), max: u64) {
    eprintln!("| {what} | {count} | {bytes} |");
    assert!(
        count <= max,
        "{what}: {count} allocations, {max} are allowed"
    );
}

fn fetch_of(topic: &str, partitions: i32, session: (i32, i32)) -> FetchRequest {
    let partitions = (0..partitions).map(|n| {
        FetchPartition::default()
            .with_partition(n)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(vec![topic])
}

#[tokio::test]
async fn requests_allocate_no_more_than_they_must() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    for n in 0..100_u8 {
        test.produce("orders", 0, &[&[n; 100]]).await;
    }
    let values = vec![[7_u8; 100]; 1000];
    let values: Vec<&[u8]> = values.iter().map(|v| &v[..]).collect();
    let one = produce_request("orders", 0, batch(&values[..1]), 1);
    let thousand = produce_request("orders", 0, batch(&values), 1);
    tell("Produce 9, 1 record", cost(&test, &one, 9), 12);
    tell("Produce 9, 1,000 records", cost(&test, &thousand, 9), 12);
    let one = fetch_of("orders", 1, (0, -1));
    tell("Fetch 12, 100 batches", cost(&test, &one, 12), 26);
    let heartbeat = HeartbeatRequest::default().with_member_id(StrBytes::from_static_str("m"));
    tell("Heartbeat 4", cost(&test, &heartbeat, 4), 6);
}

#[tokio::test]
async fn an_incremental_fetch_of_1000_quiet_partitions_looks_at_none_of_them() {
    let test = TestBroker::start(&["num.partitions=1000"]).await;
    test.create(&["wide"]).await;
    let full = fetch_of("wide", 1000, (0, 0));
    let response: FetchResponse = test.call_version(full.clone(), 12).await;
    let id = response.session_id;
    let quiet = |epoch| {
        FetchRequest::default()
            .with_session_id(id)
            .with_session_epoch(epoch)
    };
    // The first one settles them.
    run(&test, &quiet(1), 12);
    tell(
        "Fetch 12, 1,000 partitions, in full",
        cost(&test, &fetch_of("wide", 1000, (0, -1)), 12),
        25,
    );
    tell(
        "Fetch 12, the same in a session, nothing new",
        run(&test, &quiet(2), 12),
        9,
    );
    test.produce("wide", 500, &[b"x"]).await;
    tell(
        "Fetch 12, the same, one has a record",
        run(&test, &quiet(3), 12),
        20,
    );
}

#[tokio::test]
async fn metadata_of_1000_topics_allocates_by_topic() {
    let test = TestBroker::start(&[]).await;
    let names: Vec<String> = (0..1000).map(|n| format!("topic-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    test.create(&names).await;
    let all = MetadataRequest::default().with_topics(None);
    tell(
        "Metadata 12, all of 1,000 topics",
        cost(&test, &all, 12),
        4_200,
    );
    let one = MetadataRequestTopic::default().with_name(Some(name("topic-7")));
    let one = MetadataRequest::default().with_topics(Some(vec![one]));
    tell("Metadata 12, 1 topic of 1,000", cost(&test, &one, 12), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_gives_records_that_nobody_could_decode() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    // Past validation, which would refuse it: a batch whose records are noise under a right checksum.
    let mut builder = BatchBuilder::new(0);
    builder.push(None, Some(&[7; 100]));
    let mut bytes = builder.build().to_vec();
    bytes[BATCH_HEADER_BYTES..].fill(0xff);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let owner = test.broker.partitions.partition("orders", 0).unwrap();
    let acks = std::sync::Arc::new(AckGroup::default());
    let incoming = Incoming {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes: bytes.clone().into(),
        pin: None,
        leader_epoch: 0,
        now_ms: 0,
    };
    owner.append(incoming, 0, &acks).unwrap();
    std::future::poll_fn(|cx| acks.poll_done(cx)).await;
    let answer = test.dispatch::<FetchRequest>(frame(&fetch_of("orders", 1, (0, -1)), 12, 7));
    let response = decode::<FetchRequest>(answer.await.0.unwrap(), 12);
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(&records[BATCH_HEADER_BYTES..], &bytes[BATCH_HEADER_BYTES..]);
}
