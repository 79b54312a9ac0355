//! What a Produce is answered with, on a real log.

use bytes::{Bytes, BytesMut};
use keelson_log::{PartitionId, TopicId};
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::kafka_protocol::messages::ProduceResponse;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::produce_response::PartitionProduceResponse;
use keelson_protocol::kafka_protocol::messages::{FetchRequest, TopicName};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_protocol::{BatchHeader, Compression, ErrorCode};
use keelson_state::metadata::CLUSTER_METADATA_ID;

use crate::broker::now_ms;
use crate::testing::{TestBroker, base_offset, batch, produce_request};

fn answer(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

fn sequenced(producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(now_ms()).producer(producer, epoch, sequence);
    builder.push(None, Some(b"value"));
    builder.build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_kafkas() {
    let test = TestBroker::start(&["message.max.bytes=2000"]).await;
    test.create(&["orders"]).await;
    let check = async |topic: &str, partition: i32, bytes: Bytes, error: ErrorCode| {
        let request = produce_request(topic, partition, bytes, -1);
        let response = test.call_version(request, 9).await;
        assert_eq!(answer(&response).error_code, error.code(), "{error:?}");
        assert_eq!(answer(&response).base_offset, -1);
    };
    let good = || batch(&[b"x"]);
    check("none", 0, good(), ErrorCode::UnknownTopicOrPartition).await;
    check("orders", 1, good(), ErrorCode::UnknownTopicOrPartition).await;
    check("bad name", 0, good(), ErrorCode::UnknownTopicOrPartition).await;
    check("orders", 0, Bytes::new(), ErrorCode::InvalidRecord).await;
    check(
        "orders",
        0,
        batch(&[&[1; 3000]]),
        ErrorCode::MessageTooLarge,
    )
    .await;
    let mut flipped = BytesMut::from(&good()[..]);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    check("orders", 0, flipped.freeze(), ErrorCode::CorruptMessage).await;
    let two = [good(), good()].concat();
    check("orders", 0, two.into(), ErrorCode::InvalidRecord).await;
    let mut future = BatchBuilder::new(now_ms() + 7_200_000);
    future.push(None, Some(b"x"));
    check("orders", 0, future.build(), ErrorCode::InvalidTimestamp).await;
    let request = produce_request("orders", 0, good(), 2);
    let response = test.call_version(request, 9).await;
    assert_eq!(
        base_offset(&response),
        Err(ErrorCode::InvalidRequiredAcks.code())
    );
    // None of it left a trace.
    assert_eq!(test.produce("orders", 0, &[b"x"]).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_stored_in_the_codec_of_the_topic() {
    let test = TestBroker::start(&["compression.type=lz4", "message.max.bytes=2000"]).await;
    test.create(&["orders"]).await;
    let values: [&[u8]; 2] = [&[7; 900], &[8; 900]];
    assert_eq!(test.produce("orders", 0, &values).await, (0, 0));
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("orders")))
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    let response = test.call_version(fetch, 12).await;
    let stored = response.responses[0].partitions[0].records.clone().unwrap();
    assert!(stored.len() < 300, "{} bytes", stored.len());
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!(header.compression(), Ok(Compression::Lz4));
    let records = decompressed(&stored, 4000).unwrap();
    let walked = RecordWalker::new(&records, header.records_count);
    let read: Vec<Vec<u8>> = walked.map(|r| r.unwrap().value.unwrap().to_vec()).collect();
    assert_eq!(read, values);
}

/// KIP-467: the producer drops the records at fault and may send the others again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_at_fault_is_named() {
    let test = TestBroker::start(&["log.cleanup.policy=compact"]).await;
    test.create(&["orders"]).await;
    let refused = async |bytes: Bytes, version: i16| {
        let request = produce_request("orders", 0, bytes, -1);
        let response = test.call_version(request, version).await;
        let partition = answer(&response).clone();
        let named = partition.record_errors.iter().map(|e| e.batch_index);
        (partition.error_code, named.collect::<Vec<_>>())
    };
    let mut keys = BatchBuilder::new(now_ms());
    for n in 0..10 {
        keys.push((n % 3 != 1).then_some(&b"k"[..]), Some(b"x"));
    }
    let keys = keys.build();
    let invalid = ErrorCode::InvalidRecord.code();
    assert_eq!(refused(keys.clone(), 9).await, (invalid, vec![1, 4, 7]));
    assert_eq!(
        refused(keys, 7).await,
        (invalid, vec![]),
        "version 8 has them first"
    );
    let mut times = BatchBuilder::new(now_ms() + 7_200_000);
    times.push(Some(b"k"), Some(b"x"));
    times.push(Some(b"k"), Some(b"y"));
    let invalid = ErrorCode::InvalidTimestamp.code();
    assert_eq!(refused(times.build(), 9).await, (invalid, vec![0, 1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_is_answered() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let id = test.broker.partitions.topic("orders").unwrap().topic.id;
    for (n, version) in (3..=13).enumerate() {
        let mut request = produce_request("orders", 0, batch(&[b"x"]), 1);
        if version >= 13 {
            request.topic_data[0].topic_id = uuid::Uuid::from_bytes(id);
        }
        let response = test.call_version(request, version).await;
        assert_eq!(base_offset(&response), Ok(n as i64), "version {version}");
        let refused = produce_request("orders", 7, batch(&[b"x"]), 1);
        let response = test.call_version(refused, version).await;
        assert_ne!(answer(&response).error_code, 0, "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_produce_writes_no_metadata() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let metadata = PartitionId {
        topic: TopicId(CLUSTER_METADATA_ID),
        index: 0,
    };
    let written = || {
        let partition = test.broker.log.partition(metadata);
        partition.expect("there is metadata").next_offset()
    };
    let before = written();
    for offset in 0..50 {
        assert_eq!(test.produce("orders", 0, &[b"x"]).await, (0, offset));
    }
    assert_eq!(written(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_gets_the_first_offset_and_is_not_stored_twice_also_after_a_restart() {
    let mut test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    for _ in 0..2 {
        let check = async |bytes: Bytes, expected: Result<i64, ErrorCode>| {
            let request = produce_request("orders", 0, bytes, -1);
            let response = test.call_version(request, 9).await;
            assert_eq!(base_offset(&response), expected.map_err(|e| e.code()));
        };
        check(sequenced(7, 0, 0), Ok(0)).await;
        check(sequenced(7, 0, 1), Ok(1)).await;
        check(sequenced(7, 0, 0), Ok(0)).await;
        check(sequenced(7, 0, 5), Err(ErrorCode::OutOfOrderSequenceNumber)).await;
        let next = test
            .broker
            .partitions
            .partition("orders", 0)
            .unwrap()
            .log()
            .next_offset();
        assert_eq!(next, 2);
        test = TestBroker::start_in(test.stop(), &[]).await;
    }
    let request = produce_request("orders", 0, sequenced(7, 1, 0), -1);
    assert_eq!(base_offset(&test.call_version(request, 9).await), Ok(2));
    let request = produce_request("orders", 0, sequenced(7, 0, 2), -1);
    assert_eq!(
        base_offset(&test.call_version(request, 9).await),
        Err(ErrorCode::InvalidProducerEpoch.code())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_append_time_is_the_brokers() {
    let test = TestBroker::start(&["log.message.timestamp.type=LogAppendTime"]).await;
    test.create(&["orders"]).await;
    let before = now_ms();
    let mut old = BatchBuilder::new(5);
    old.push(None, Some(b"x"));
    let request = produce_request("orders", 0, old.build(), -1);
    let response = test.call_version(request, 9).await;
    assert!(answer(&response).log_append_time_ms >= before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_lie_around_the_brokers_clock() {
    const HOUR: i64 = 3_600_000;
    let test = TestBroker::start(&[
        "log.message.timestamp.before.max.ms=7200000",
        "log.message.timestamp.after.max.ms=1800000",
    ])
    .await;
    test.create(&["orders"]).await;
    let now = now_ms();
    let cases: [(&[i64], &[i32]); 5] = [
        (&[now - HOUR, now, now + HOUR / 4], &[]),
        (&[now - 3 * HOUR], &[0]),
        (&[now, now + HOUR, now - 3 * HOUR], &[1, 2]),
        (&[now, -1], &[]),
        (&[-1], &[]),
    ];
    for (times, at_fault) in cases {
        let mut builder = BatchBuilder::new(times[0]);
        for time in times {
            builder.push_with(*time, None, Some(b"x"), &[]);
        }
        let request = produce_request("orders", 0, builder.build(), -1);
        let response = test.call_version(request, 9).await;
        let answer = answer(&response);
        let refused = !at_fault.is_empty();
        let error = ErrorCode::InvalidTimestamp.code();
        assert_eq!(
            answer.error_code,
            if refused { error } else { 0 },
            "{times:?}"
        );
        let named = answer.record_errors.iter().map(|one| one.batch_index);
        assert_eq!(named.collect::<Vec<_>>(), at_fault, "{times:?}");
    }
}
