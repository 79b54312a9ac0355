//! What a Fetch is answered with, on a real log.

use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::fetch_response::PartitionData;
use keelson_protocol::kafka_protocol::messages::{FetchRequest, FetchResponse};
use keelson_protocol::{BatchHeader, ErrorCode};
use uuid::Uuid;

use crate::testing::{TestBroker, name};

fn partition(index: i32, offset: i64, bytes_max: i32) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(bytes_max)
}

fn request(topic: &str, partitions: Vec<FetchPartition>, bytes_max: i32) -> FetchRequest {
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(partitions);
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_topics(vec![topic])
}

fn parts(response: &FetchResponse) -> &[PartitionData] {
    &response.responses[0].partitions
}

/// Base offset and record count of every batch.
fn batches(data: &PartitionData) -> Vec<(i64, i32)> {
    let records = data.records.clone().unwrap();
    let mut rest = &records[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest).unwrap();
        keelson_protocol::verify_crc(rest).unwrap();
        found.push((header.base_offset, header.records_count));
        rest = &rest[header.size()..];
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_twice_counts_as_it_stands_last_where_it_stood_first() {
    let test = TestBroker::start(&["num.partitions=2"]).await;
    test.create(&["a", "b"]).await;
    for value in [b"x", b"y"] {
        test.produce("a", 1, &[value]).await;
    }
    let topic = |topic: &str, offsets: &[(i32, i64)]| {
        let partitions = offsets
            .iter()
            .map(|(index, offset)| partition(*index, *offset, 1 << 20));
        FetchTopic::default()
            .with_topic(name(topic))
            .with_partitions(partitions.collect())
    };
    let check = async |topics: Vec<FetchTopic>, expected: &[(&str, i32, usize)]| {
        let wanted = request("a", vec![], 1 << 20).with_topics(topics);
        let response = test.call_version(wanted, 12).await;
        let topics = response.responses.iter();
        let told: Vec<(&str, i32, usize)> = topics
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|data| (&**topic.topic, data.partition_index, batches(data).len()))
            })
            .collect();
        assert_eq!(told, expected);
    };
    check(
        vec![topic("a", &[(1, 0), (0, 0), (1, 1)])],
        &[("a", 1, 1), ("a", 0, 0)],
    )
    .await;
    check(
        vec![
            topic("a", &[(1, 1)]),
            topic("b", &[(0, 0)]),
            topic("a", &[(1, 0)]),
            topic("none", &[(0, 0), (0, 0)]),
        ],
        &[("a", 1, 2), ("b", 0, 0), ("none", 0, 0)],
    )
    .await;
    check(
        vec![topic("a", &[(0, 0), (1, 0)])],
        &[("a", 0, 0), ("a", 1, 2)],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_fails_on_is_an_unknown_error() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let unknown = ErrorCode::UnknownServerError.code();
    let negative = request("orders", vec![partition(0, 0, -1)], 1 << 20);
    let response = test.call_version(negative.clone(), 12).await;
    assert_eq!(parts(&response)[0].error_code, 0, "nothing is there");
    test.produce("orders", 0, &[b"x"]).await;
    let response = test.call_version(negative, 12).await;
    assert_eq!(parts(&response)[0].error_code, unknown);
    let level = request("orders", vec![partition(0, 0, 1 << 20)], 1 << 20).with_isolation_level(2);
    for version in [4, 7, 12] {
        let response = test.call_version(level.clone(), version).await;
        assert_eq!(response.error_code == unknown, version >= 7);
        assert_eq!(parts(&response)[0].error_code, unknown, "version {version}");
    }
    let id = test.broker.partitions.topic("orders").unwrap().topic.id;
    let mut by_id = level;
    by_id.topics[0].topic_id = Uuid::from_bytes(id);
    by_id.topics[0].topic = name("");
    let response = test.call_version(by_id, 13).await;
    assert_eq!(
        (response.error_code, response.responses.len()),
        (unknown, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_batches_from_any_offset_within_the_limits() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    for _ in 0..10 {
        test.produce("orders", 0, &[&[1; 1000], &[2; 1000], &[3; 1000]])
            .await;
    }
    let fetch = async |offset: i64, part_max: i32, max: i32| {
        let wanted = request("orders", vec![partition(0, offset, part_max)], max);
        let response = test.call_version(wanted, 12).await;
        let data = &parts(&response)[0];
        assert_eq!((data.error_code, data.high_watermark), (0, 30));
        batches(data)
    };
    let all: Vec<(i64, i32)> = (0..10).map(|n| (n * 3, 3)).collect();
    assert_eq!(fetch(0, 1 << 20, 1 << 20).await, all);
    // The middle of a batch returns the whole batch.
    assert_eq!(fetch(28, 1 << 20, 1 << 20).await, [(27, 3)]);
    // Whole batches only, and never more than allowed …
    assert_eq!(fetch(0, 7000, 1 << 20).await, [(0, 3), (3, 3)]);
    assert_eq!(fetch(0, 1 << 20, 7000).await, [(0, 3), (3, 3)]);
    // … but the first one always.
    assert_eq!(fetch(0, 10, 1 << 20).await, [(0, 3)]);
    assert_eq!(fetch(0, 0, 0).await, [(0, 3)]);
    assert_eq!(fetch(30, 1 << 20, 1 << 20).await, []);
}

/// A client that reads a length takes -1 for a message set of -1 bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e8_nothing_to_read_is_records_of_no_bytes_and_never_null() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let id = test.broker.partitions.topic("orders").unwrap().topic.id;
    for version in 4..=17 {
        let mut wanted = request("orders", vec![partition(0, 0, 1000)], 1000);
        wanted.topics[0].topic_id = uuid::Uuid::from_bytes(id);
        let response = test.call_version(wanted, version).await;
        let data = &parts(&response)[0];
        assert_eq!(data.error_code, 0, "version {version}");
        assert_eq!(data.records.as_deref(), Some(&b""[..]), "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_partitions_are_kafkas() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    test.produce("orders", 0, &[b"x"]).await;
    let check = async |topic: &str, wanted: FetchPartition, error: ErrorCode| {
        let response = test
            .call_version(request(topic, vec![wanted], 1 << 20), 12)
            .await;
        assert_eq!(parts(&response)[0].error_code, error.code(), "{topic}");
        assert_eq!(parts(&response)[0].records.as_ref().unwrap().len(), 0);
    };
    let one = || partition(0, 0, 1 << 20);
    check("none", one(), ErrorCode::UnknownTopicOrPartition).await;
    check(
        "orders",
        partition(9, 0, 1),
        ErrorCode::UnknownTopicOrPartition,
    )
    .await;
    check(
        "orders",
        partition(-1, 0, 1),
        ErrorCode::UnknownTopicOrPartition,
    )
    .await;
    check("orders", partition(0, 2, 1), ErrorCode::OffsetOutOfRange).await;
    check("orders", partition(0, -1, 1), ErrorCode::OffsetOutOfRange).await;
    let newer = one().with_current_leader_epoch(7);
    check("orders", newer, ErrorCode::UnknownLeaderEpoch).await;
    let dir = test.stop();
    let test = TestBroker::start_in(dir, &[]).await;
    let older = one().with_current_leader_epoch(0);
    let response = test
        .call_version(request("orders", vec![older], 1 << 20), 12)
        .await;
    assert_eq!(
        parts(&response)[0].error_code,
        ErrorCode::FencedLeaderEpoch.code()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_by_id() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    test.produce("orders", 0, &[b"x"]).await;
    let id = test.broker.partitions.topic("orders").unwrap().topic.id;
    let by_id = |id: Uuid| {
        let mut wanted = request("", vec![partition(0, 0, 1 << 20)], 1 << 20);
        wanted.topics[0].topic_id = id;
        wanted
    };
    let response = test.call_version(by_id(Uuid::from_bytes(id)), 17).await;
    assert_eq!(response.responses[0].topic_id, Uuid::from_bytes(id));
    assert_eq!(batches(&parts(&response)[0]), [(0, 1)]);
    let response = test.call_version(by_id(Uuid::from_u128(1)), 17).await;
    assert_eq!(
        parts(&response)[0].error_code,
        ErrorCode::UnknownTopicId.code()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_partitions_with_a_small_limit_give_no_false_violation() {
    let test = TestBroker::start(&["num.partitions=50"]).await;
    test.create(&["orders"]).await;
    for index in 0..50 {
        test.produce("orders", index, &[&[7; 2000]]).await;
    }
    let mut next = vec![0; 50];
    let mut rounds = 0;
    while next.iter().any(|offset| *offset < 1) {
        let wanted = (0..50).map(|n| partition(n, next[n as usize], 3000));
        let response = test
            .call_version(request("orders", wanted.collect(), 5000), 12)
            .await;
        for data in parts(&response) {
            assert_eq!(data.error_code, 0);
            if let Some((base, count)) = batches(data).last() {
                next[data.partition_index as usize] = base + i64::from(*count);
            }
        }
        rounds += 1;
        assert!(rounds <= 50, "{next:?}");
    }
    let violations = test
        .metric("keelson_fetch_invariant_violations_total{reason=\"empty_below_high_watermark\"}");
    assert_eq!(violations, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_bytes_and_max_wait_decide_how_long() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let waiting = request("orders", vec![partition(0, 0, 1 << 20)], 1 << 20);
    let empty = test
        .call_version(waiting.clone().with_max_wait_ms(5), 12)
        .await;
    assert_eq!(batches(&parts(&empty)[0]), []);
    let many = waiting.with_max_wait_ms(60_000).with_min_bytes(5_000);
    let writes = async {
        for _ in 0..6 {
            test.produce("orders", 0, &[&[7; 1000]]).await;
        }
    };
    let (response, ()) = tokio::join!(test.call_version(many, 12), writes);
    let bytes = parts(&response)[0].records.as_ref().unwrap().len();
    assert!(bytes >= 5_000, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_read_from_files() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    for n in 0..100_u8 {
        test.produce("orders", 0, &[&[n; 5000]]).await;
    }
    let dir = test.stop();
    let test = TestBroker::start_in(dir, &[]).await;
    let mut next = 0;
    while next < 100 {
        let wanted = request("orders", vec![partition(0, next, 30_000)], 1 << 20);
        let response = test.call_version(wanted, 12).await;
        let data = &parts(&response)[0];
        assert_eq!((data.error_code, data.high_watermark), (0, 100));
        for (base, count) in batches(data) {
            assert_eq!(base, next);
            next = base + i64::from(count);
        }
    }
    assert_eq!(test.produce("orders", 0, &[b"x"]).await, (0, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_any_more_is_not_read_from_files() {
    let test = TestBroker::start(&["num.partitions=40"]).await;
    test.create(&["orders"]).await;
    for index in 0..40 {
        for n in 0..2_u8 {
            test.produce("orders", index, &[&[n; 5_000]]).await;
        }
    }
    let dir = test.stop();
    let test = TestBroker::start_in(dir, &["num.partitions=40"]).await;
    let wanted = (0..40).map(|n| partition(n, 0, 1 << 20)).collect();
    let response = test
        .call_version(request("orders", wanted, 14_000), 12)
        .await;
    let told: Vec<usize> = parts(&response).iter().map(|p| batches(p).len()).collect();
    assert_eq!(&told[..3], [2, 0, 0], "room for two of three batches");
    assert_eq!(told[3..].iter().sum::<usize>(), 0);
    let read = test.metric("keelson_wal_bytes_decoded_total{stage=\"fetch\"}");
    assert!(
        (10_000.0..31_000.0).contains(&read),
        "{read} bytes for 10,000"
    );
}
