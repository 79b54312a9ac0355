//! Connections over a pipe in memory: order, bounds, and what ends them.

use std::time::Duration;

use bytes::{Buf, Bytes};
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest,
};
use keelson_protocol::kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, End};
use crate::testing::{
    TestBroker, base_offset, batch, decode, frame, local_origin, name, produce_request,
};

/// Nothing in these tests takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

struct Peer {
    stream: DuplexStream,
    stopping: CancellationToken,
    served: JoinHandle<End>,
}

impl Peer {
    fn connect(test: &TestBroker) -> Self {
        Self::over(test, 1 << 20)
    }

    /// Over a pipe that holds this many bytes.
    fn over(test: &TestBroker, pipe_bytes: usize) -> Self {
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let stopping = CancellationToken::new();
        let connection = Connection::new(far, test.broker.clone(), local_origin());
        let served = tokio::spawn(connection.serve(stopping.clone().cancelled_owned()));
        Self {
            stream: near,
            stopping,
            served,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next response frame with its prefix, and its correlation id.
    async fn receive(&mut self) -> (Bytes, i32) {
        let read = async {
            let length = self.stream.read_u32().await.unwrap();
            let mut frame = vec![0; 4 + length as usize];
            frame[..4].copy_from_slice(&length.to_be_bytes());
            self.stream.read_exact(&mut frame[4..]).await.unwrap();
            Bytes::from(frame)
        };
        let frame = tokio::time::timeout(DEADLINE, read).await.unwrap();
        let correlation = frame.slice(4..).get_i32();
        (frame, correlation)
    }

    async fn end(self) -> End {
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .unwrap()
            .unwrap()
    }
}

fn fetch_request(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_leave_in_request_order_and_acks_0_has_none() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let mut peer = Peer::connect(&test);
    let mut bytes = Vec::new();
    for n in 0..50 {
        let acks = if n % 5 == 4 { 0 } else { -1 };
        let value = format!("value {n}");
        let request = produce_request("orders", 0, batch(&[value.as_bytes()]), acks);
        bytes.extend_from_slice(&frame(&request, 9, n));
    }
    bytes.extend_from_slice(&frame(&MetadataRequest::default(), 12, 1000));
    peer.send(&bytes).await;
    for n in (0..50).filter(|n| n % 5 != 4) {
        let (reply, correlation) = peer.receive().await;
        assert_eq!(correlation, n);
        let response = decode::<ProduceRequest>(reply, 9);
        assert_eq!(base_offset(&response), Ok(i64::from(n)));
    }
    assert_eq!(peer.receive().await.1, 1000);
    let Peer { stream, served, .. } = peer;
    drop(stream);
    assert!(matches!(served.await.unwrap(), End::Client));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_may_arrive_byte_by_byte_or_be_larger_than_one_read() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let mut peer = Peer::connect(&test);
    for byte in &frame(&ApiVersionsRequest::default(), 0, 1)[..] {
        peer.send(&[*byte]).await;
    }
    assert_eq!(peer.receive().await.1, 1);
    let value = vec![7; 600_000];
    let request = produce_request("orders", 0, batch(&[&value]), -1);
    peer.send(&frame(&request, 9, 2)).await;
    let response = decode::<ProduceRequest>(peer.receive().await.0, 9);
    assert_eq!(base_offset(&response), Ok(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fetch_is_woken_by_a_produce_of_another_connection() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let (mut reader, mut writer) = (Peer::connect(&test), Peer::connect(&test));
    reader
        .send(&frame(&fetch_request("orders", 0, 60_000), 12, 1))
        .await;
    let request = produce_request("orders", 0, batch(&[b"x"]), 1);
    writer.send(&frame(&request, 9, 2)).await;
    writer.receive().await;
    let response = decode::<FetchRequest>(reader.receive().await.0, 12);
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 1));
    assert!(partition.records.as_ref().is_some_and(|r| r.len() > 61));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_api_versions_gets_the_list() {
    let test = TestBroker::start(&[]).await;
    let mut peer = Peer::connect(&test);
    let mut bytes = frame(&ApiVersionsRequest::default(), 0, 5).to_vec();
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    peer.send(&bytes).await;
    let (reply, correlation) = peer.receive().await;
    assert_eq!(correlation, 5);
    let response = ApiVersionsResponse::decode(&mut reply.slice(8..), 0).unwrap();
    assert_eq!(response.error_code, 35);
    assert!(!response.api_keys.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_closes_the_connection() {
    let test = TestBroker::start(&[]).await;
    let check = async |bytes: Vec<u8>, fault: bool| {
        let mut peer = Peer::connect(&test);
        peer.send(&bytes).await;
        assert_eq!(peer.end().await.is_fault(), fault, "{bytes:?}");
    };
    let mut unknown_api = frame(&ApiVersionsRequest::default(), 0, 5).to_vec();
    unknown_api[4..6].copy_from_slice(&999_i16.to_be_bytes());
    check(unknown_api, true).await;
    let mut unknown_version = frame(&MetadataRequest::default(), 12, 5).to_vec();
    unknown_version[6..8].copy_from_slice(&99_i16.to_be_bytes());
    check(unknown_version, true).await;
    check(vec![0xff; 64], true).await;
    check(vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 9], true).await;
    let mut cut = frame(&MetadataRequest::default(), 12, 5).to_vec();
    cut.truncate(cut.len() - 2);
    let length = (cut.len() - 4) as u32;
    cut[..4].copy_from_slice(&length.to_be_bytes());
    check(cut, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_answers_what_was_asked_and_drops_what_waits() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let mut peer = Peer::connect(&test);
    peer.send(&frame(&fetch_request("orders", 0, 60_000), 12, 1))
        .await;
    let waiting = async {
        while test.metric("keelson_kafka_requests_total{api=\"Metadata\",error=\"NONE\"}") < 1.0 {
            let mut other = Peer::connect(&test);
            other.send(&frame(&MetadataRequest::default(), 12, 1)).await;
            other.receive().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    peer.stopping.cancel();
    assert!(matches!(peer.end().await, End::Stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed() {
    let test = TestBroker::start(&["connections.max.idle.ms=20"]).await;
    let peer = Peer::connect(&test);
    assert!(matches!(peer.end().await, End::Idle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_stops_arriving_does_not_hold_up_those_behind_it() {
    // Half of this is what frames of a class may hold while they arrive: one of these, not two.
    let test = TestBroker::start(&["keelson.tail.memory.bytes=16777216"]).await;
    test.create(&["orders"]).await;
    let value = vec![7; 900_000];
    let values: Vec<&[u8]> = vec![&value];
    let large = || frame(&produce_request("orders", 0, batch(&values), -1), 9, 1);
    let room = test.broker.budgets.arriving_for_tests(large().len());
    let held = room.try_reserve(room.bytes_max() - 1_000_000);
    assert!(held.is_some());
    let mut stuck = Peer::connect(&test);
    stuck.send(&large()[..500_000]).await;
    let has_begun = async {
        while room.free_bytes() > 500_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, has_begun).await.unwrap();
    // Small ones and those that are complete at once do not even notice.
    let mut small = Peer::connect(&test);
    let request = produce_request("orders", 0, batch(&[b"x"]), -1);
    small.send(&frame(&request, 9, 2)).await;
    let response = decode::<ProduceRequest>(small.receive().await.0, 9);
    assert_eq!(base_offset(&response), Ok(0));
    let mut behind = Peer::connect(&test);
    behind.send(&large()).await;
    assert!(matches!(stuck.end().await, End::Stalled(_)));
    let response = decode::<ProduceRequest>(behind.receive().await.0, 9);
    assert_eq!(base_offset(&response), Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_replies_goes_when_others_need_the_room() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    for _ in 0..5 {
        test.produce("orders", 0, &[&vec![7; 900_000]]).await;
    }
    let all = frame(
        &fetch_request("orders", 0, 0).with_max_bytes(8 << 20),
        12,
        1,
    );
    let replies = &test.broker.budgets.replies;
    let free = replies.free_bytes();
    // One batch is more than the pipe holds.
    let mut slow = Peer::over(&test, 64 << 10);
    slow.send(&frame(&fetch_all("orders"), 12, 1)).await;
    let is_held = async {
        while replies.free_bytes() == free {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, is_held).await.unwrap();
    let rest = async {
        let mut held = Vec::new();
        while !replies.is_pressed() {
            held.extend(replies.try_reserve(1 << 20));
        }
        held
    };
    let held = rest.await;
    assert!(matches!(slow.end().await, End::Stalled(_)));
    drop(held);
    let mut other = Peer::connect(&test);
    other.send(&all).await;
    assert_eq!(other.receive().await.1, 1);
}

fn fetch_all(topic: &str) -> FetchRequest {
    let mut request = fetch_request(topic, 0, 0).with_max_bytes(i32::MAX);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    request
}
