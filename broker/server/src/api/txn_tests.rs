//! Transactions against a broker on a real log: both versions of the protocol, restarts, what readers see.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use keelson_protocol::kafka_protocol::messages::describe_producers_request::TopicRequest;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use keelson_protocol::kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use keelson_protocol::kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use keelson_protocol::kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest,
    DescribeProducersRequest, DescribeTransactionsRequest, EndTxnRequest, FetchRequest,
    FetchResponse, FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListGroupsRequest,
    ListOffsetsRequest, ListTransactionsRequest, OffsetFetchRequest, ProducerId, TransactionalId,
    TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};
use keelson_protocol::{BatchHeader, ErrorCode, records};

use super::common::text;
use crate::broker::now_ms;
use crate::metrics::coordinators;
use crate::partitions::{AckGroup, Incoming};
use crate::testing::{TestBroker, base_offset, name, produce_request};

const SETS: &[&str] = &[
    "transaction.state.log.num.partitions=2",
    "offsets.topic.num.partitions=2",
    "num.partitions=2",
];
/// Something that happens in the background gives up after this.
const PATIENCE: Duration = Duration::from_secs(20);

type Producer = (i64, i16);

fn id() -> TransactionalId {
    TransactionalId(text("tx"))
}

async fn broker() -> TestBroker {
    let broker = TestBroker::start(SETS).await;
    broker.create(&["t"]).await;
    for key_type in [0, 1] {
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![text("tx")]);
        let found = broker.call(request).await;
        assert_eq!(found.coordinators[0].error_code, 0);
    }
    broker
}

/// The same directory under a new broker, once its coordinators have read their logs.
async fn restarted(broker: TestBroker) -> TestBroker {
    let broker = TestBroker::start_in(broker.stop(), SETS).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let loading = ErrorCode::CoordinatorLoadInProgress.code();
    loop {
        let transactions = broker.call(ListTransactionsRequest::default()).await;
        let groups = broker.call(ListGroupsRequest::default()).await;
        if transactions.error_code != loading && groups.error_code != loading {
            return broker;
        }
        assert!(tokio::time::Instant::now() < deadline, "it never loads");
        tokio::task::yield_now().await;
    }
}

async fn init(broker: &TestBroker) -> Producer {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = broker.call(request).await;
        if answer.error_code == 0 {
            return (answer.producer_id.0, answer.producer_epoch);
        }
        assert_eq!(answer.error_code, ErrorCode::ConcurrentTransactions.code());
        assert!(tokio::time::Instant::now() < deadline, "it never begins");
        tokio::task::yield_now().await;
    }
}

fn batch((producer_id, epoch): Producer, sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(now_ms())
        .producer(producer_id, epoch, sequence)
        .transactional();
    builder.push(Some(b"k"), Some(value.as_bytes()));
    builder.build()
}

async fn produce(
    broker: &TestBroker,
    version: i16,
    (producer, partition, sequence): (Producer, i32, i32),
    value: &str,
) -> Result<i64, i16> {
    let batch = batch(producer, sequence, value);
    let request = produce_request("t", partition, batch, -1).with_transactional_id(Some(id()));
    base_offset(&broker.call_version(request, version).await)
}

async fn add(broker: &TestBroker, version: i16, producer: Producer, partitions: &[i32]) -> i16 {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(name("t"))
        .with_partitions(partitions.to_vec());
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_producer_id(ProducerId(producer.0))
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic]);
    let answer = broker.call_version(request, version).await;
    let topics = answer.results_by_topic_v3_and_below;
    topics[0].results_by_partition[0].partition_error_code
}

async fn end(
    broker: &TestBroker,
    version: i16,
    producer: Producer,
    commit: bool,
) -> Result<Producer, i16> {
    let request = EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    let answer = broker.call_version(request, version).await;
    match answer.error_code {
        0 => Ok((answer.producer_id.0, answer.producer_epoch)),
        code => Err(code),
    }
}

async fn fetch(broker: &TestBroker, partition: i32, isolation: i8) -> FetchResponse {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    broker.call_version(request, 12).await
}

/// What a reader of committed records shows to its user.
async fn committed(broker: &TestBroker, partition: i32) -> Vec<String> {
    let response = fetch(broker, partition, 1).await;
    let answer = &response.responses[0].partitions[0];
    assert_eq!(answer.error_code, 0);
    let mut aborted: Vec<(i64, i64)> = answer
        .aborted_transactions
        .as_ref()
        .unwrap()
        .iter()
        .map(|a| (a.first_offset, a.producer_id.0))
        .collect();
    aborted.sort_unstable();
    let mut skipped = std::collections::HashSet::new();
    let mut values = Vec::new();
    let mut rest = answer.records.clone().unwrap();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).unwrap();
        let batch = rest.split_to(header.size());
        assert!(header.base_offset < answer.last_stable_offset);
        while aborted.first().is_some_and(|a| a.0 <= header.last_offset()) {
            skipped.insert(aborted.remove(0).1);
        }
        if header.is_control() {
            skipped.remove(&header.producer_id);
        } else if !skipped.contains(&header.producer_id) {
            let plain = records::decompressed(&batch, 1 << 20).unwrap();
            for record in records::RecordWalker::new(&plain, header.records_count) {
                let value = record.unwrap().value.unwrap().to_vec();
                values.push(String::from_utf8(value).unwrap());
            }
        }
    }
    values
}

async fn newest(broker: &TestBroker, partition: i32, isolation: i8) -> i64 {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(-1)
        .with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    broker.call(request).await.topics[0].partitions[0].offset
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_version_2_is_seen_as_a_whole_or_not_at_all() {
    let mut broker = broker().await;
    let mut producer = init(&broker).await;
    for (round, commit) in [true, false, true].into_iter().enumerate() {
        for partition in [0, 1] {
            let place = (producer, partition, 0);
            let value = format!("{round}");
            assert!(produce(&broker, 12, place, &value).await.is_ok());
            assert!(
                produce(&broker, 12, (producer, partition, 1), &value)
                    .await
                    .is_ok()
            );
        }
        let before = newest(&broker, 0, 1).await;
        assert_eq!(newest(&broker, 0, 0).await, before + 2);
        broker = restarted(broker).await;
        assert_eq!(newest(&broker, 0, 1).await, before, "it is open still");
        let again = produce(&broker, 12, (producer, 0, 1), "again").await;
        assert_eq!(again, Ok(before + 1), "a repetition");
        let next = end(&broker, 5, producer, commit).await.unwrap();
        assert_eq!(next, (producer.0, producer.1 + 1));
        let asked_again = end(&broker, 5, producer, commit).await;
        assert_eq!(asked_again, Ok(next));
        let late = produce(&broker, 12, (producer, 0, 2), "late").await;
        assert_eq!(late, Err(ErrorCode::InvalidProducerEpoch.code()));
        assert_eq!(newest(&broker, 0, 1).await, before + 3, "a marker, too");
        producer = next;
    }
    let all = ["0", "0", "2", "2"];
    for _ in 0..2 {
        for partition in [0, 1] {
            assert_eq!(committed(&broker, partition).await, all);
        }
        let everything = fetch(&broker, 0, 0).await;
        let answer = &everything.responses[0].partitions[0];
        assert_eq!((answer.last_stable_offset, answer.high_watermark), (9, 9));
        assert_eq!(answer.aborted_transactions, None);
        broker = restarted(broker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_of_version_1_add_partitions_first() {
    let broker = broker().await;
    let producer = init(&broker).await;
    for (version, wanted) in [
        (10, ErrorCode::InvalidTxnState),
        (11, ErrorCode::TransactionAbortable),
    ] {
        let refused = produce(&broker, version, (producer, 0, 0), "early").await;
        assert_eq!(refused, Err(wanted.code()), "v{version}");
    }
    for version in 0..=3 {
        assert_eq!(add(&broker, version, producer, &[0]).await, 0, "v{version}");
    }
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_attempted = ErrorCode::OperationNotAttempted.code();
    assert_eq!(add(&broker, 3, producer, &[1, 9]).await, not_attempted);
    assert_eq!(add(&broker, 3, producer, &[9]).await, unknown);
    assert_eq!(produce(&broker, 9, (producer, 0, 0), "a").await, Ok(0));
    assert!(produce(&broker, 9, (producer, 1, 0), "b").await.is_err());
    assert!(end(&broker, 4, producer, true).await.is_ok());
    let late = produce(&broker, 9, (producer, 0, 1), "late").await;
    assert_eq!(late, Err(ErrorCode::InvalidTxnState.code()), "no open end");
    assert_eq!(add(&broker, 3, producer, &[0]).await, 0);
    assert_eq!(produce(&broker, 9, (producer, 0, 1), "c").await, Ok(2));
    // Another producer takes over: what is open is aborted.
    let next = init(&broker).await;
    assert_eq!(next, (producer.0, producer.1 + 2));
    for (version, wanted) in [
        (1, ErrorCode::InvalidProducerEpoch),
        (3, ErrorCode::ProducerFenced),
    ] {
        assert_eq!(add(&broker, version, producer, &[0]).await, wanted.code());
        assert_eq!(
            end(&broker, version, producer, true).await,
            Err(wanted.code())
        );
    }
    assert_eq!(committed(&broker, 0).await, ["a"]);
    assert_eq!(newest(&broker, 0, 1).await, 4);
}

async fn commit_offset(broker: &TestBroker, version: i16, producer: Producer, offset: i64) -> i16 {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(GroupId(text("g")))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_generation_id(-1)
        .with_topics(vec![topic]);
    broker.call_version(request, version).await.topics[0].partitions[0].error_code
}

/// Error and offset.
async fn offset(broker: &TestBroker, require_stable: bool) -> (i16, i64) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default()
        .with_groups(vec![group])
        .with_require_stable(require_stable);
    let answer = broker.call(request).await;
    let found = &answer.groups[0].topics[0].partitions[0];
    (found.error_code, found.committed_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_transaction_count_with_its_end() {
    let mut broker = broker().await;
    let mut producer = init(&broker).await;
    let unstable = ErrorCode::UnstableOffsetCommit.code();
    for (at, commit, shown) in [(5, true, 5), (7, false, 5), (9, true, 9)] {
        let before = offset(&broker, true).await;
        assert_eq!(commit_offset(&broker, 5, producer, at).await, 0);
        assert_eq!(offset(&broker, true).await, (unstable, -1));
        assert_eq!(offset(&broker, false).await, before);
        broker = restarted(broker).await;
        assert_eq!(offset(&broker, true).await, (unstable, -1));
        producer = end(&broker, 5, producer, commit).await.unwrap();
        for _ in 0..2 {
            assert_eq!(offset(&broker, true).await, (0, shown));
            broker = restarted(broker).await;
        }
    }
    // Version 1: the group is added first.
    let refused = commit_offset(&broker, 3, producer, 11).await;
    assert_eq!(refused, ErrorCode::InvalidTxnState.code());
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_group_id(GroupId(text("g")));
    assert_eq!(broker.call(request).await.error_code, 0);
    for version in 0..=4 {
        let committed = commit_offset(&broker, version, producer, 11).await;
        assert_eq!(committed, 0, "v{version}");
    }
    end(&broker, 4, producer, true).await.unwrap();
    assert_eq!(offset(&broker, true).await, (0, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_see_and_end_what_is_open() {
    let broker = broker().await;
    let producer = init(&broker).await;
    assert!(produce(&broker, 12, (producer, 1, 0), "a").await.is_ok());
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![id(), TransactionalId(text("none"))]);
    let described = broker.call(request).await.transaction_states;
    assert_eq!(described[0].transaction_state.as_str(), "Ongoing");
    assert_eq!(described[0].topics[0].partitions, [1]);
    assert_eq!(
        described[1].error_code,
        ErrorCode::TransactionalIdNotFound.code()
    );
    let request = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Nonsense")])
        .with_duration_filter(-1);
    let listed = broker.call(request).await;
    assert_eq!(listed.unknown_state_filters, [text("Nonsense")]);
    assert_eq!(listed.transaction_states[0].producer_id.0, producer.0);
    // A pattern must match all of the id.
    for (pattern, found) in [(".*", 1), (&*id().0, 1), ("^$", 0), ("[^a-z]*", 0)] {
        let request = ListTransactionsRequest::default()
            .with_duration_filter(-1)
            .with_transactional_id_pattern(Some(text(pattern)));
        let listed = broker.call(request).await;
        assert_eq!(listed.transaction_states.len(), found, "{pattern}");
    }
    let topic = TopicRequest::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![1, 9]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let producers = broker.call(request).await;
    let partitions = &producers.topics[0].partitions;
    let open = &partitions[0].active_producers[0];
    assert_eq!(
        (open.producer_id.0, open.current_txn_start_offset),
        (producer.0, 0)
    );
    assert_eq!(
        partitions[1].error_code,
        ErrorCode::UnknownTopicOrPartition.code()
    );
    assert_eq!(newest(&broker, 1, 1).await, 0);
    let topic = WritableTxnMarkerTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![1]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_coordinator_epoch(1)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let written = broker.call(request).await;
    assert_eq!(written.markers[0].topics[0].partitions[0].error_code, 0);
    assert_eq!(newest(&broker, 1, 1).await, 2);
    assert_eq!(committed(&broker, 1).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let broker = broker().await;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(50)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = broker.call(request).await;
    let producer = (answer.producer_id.0, answer.producer_epoch);
    assert!(produce(&broker, 12, (producer, 0, 0), "a").await.is_ok());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while newest(&broker, 0, 1).await < 2 {
        assert!(tokio::time::Instant::now() < deadline, "it stays open");
        tokio::task::yield_now().await;
    }
    let fenced = ErrorCode::ProducerFenced.code();
    // The marker is there before the coordinator has taken note of it; until then the client is to ask again.
    let waits = Err(ErrorCode::ConcurrentTransactions.code());
    let mut answer = end(&broker, 5, producer, true).await;
    while answer == waits {
        assert!(tokio::time::Instant::now() < deadline, "it stays under way");
        answer = end(&broker, 5, producer, true).await;
    }
    assert_eq!(answer, Err(fenced));
    assert_eq!(committed(&broker, 0).await, Vec::<String>::new());
}

/// The value of a series of `/metrics` that a coordinator counts.
async fn counted(broker: &TestBroker, series: &str) -> String {
    let mut text = String::new();
    let counted = coordinators::Counted::now(&broker.broker).await;
    coordinators::render(&broker.broker, &counted, &mut text);
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == series);
    found.expect("it is always there").1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_what_is_open_and_how_it_ended() {
    let ongoing = "keelson_transactional_ids{state=\"Ongoing\"}";
    let committed = "keelson_transactions_ended_total{outcome=\"committed\"}";
    let late = "keelson_partitions_with_late_transactions";
    let broker = broker().await;
    let producer = init(&broker).await;
    assert!(produce(&broker, 12, (producer, 0, 0), "a").await.is_ok());
    assert_eq!(counted(&broker, ongoing).await, "1");
    let age = counted(&broker, "keelson_transaction_oldest_open_age_seconds").await;
    assert!((0.0..60.0).contains(&age.parse().unwrap()), "{age}");
    assert_eq!(counted(&broker, late).await, "0");
    assert!(end(&broker, 5, producer, true).await.is_ok());
    assert_eq!(counted(&broker, ongoing).await, "0");
    assert_eq!(counted(&broker, committed).await, "1");
    // Something silent for longer than any coordinator lets it be.
    let group = Arc::new(AckGroup::default());
    let owner = broker.broker.partitions.partition("t", 1).unwrap();
    let late_ms = i64::from(broker.broker.config.transaction_max_timeout_ms) + 300_000;
    for (producer_id, silent_ms, seen) in [(7, late_ms - 60_000, "0"), (8, late_ms + 1, "1")] {
        owner.permit(producer_id, 0);
        let bytes = batch((producer_id, 0), 0, "forgotten");
        let incoming = Incoming {
            header: BatchHeader::parse(&bytes).unwrap(),
            bytes,
            pin: None,
            leader_epoch: 0,
            now_ms: now_ms() - silent_ms,
        };
        owner.append(incoming, 0, &group).unwrap();
        assert_eq!(counted(&broker, late).await, seen, "{producer_id}");
    }
}

#[tokio::test]
async fn what_a_client_may_not_do_is_refused() {
    let broker = broker().await;
    let producer = init(&broker).await;
    let without_id = produce_request("t", 0, batch(producer, 0, "a"), -1);
    let refused = base_offset(&broker.call_version(without_id, 12).await);
    let unauthorised = ErrorCode::TransactionalIdAuthorizationFailed.code();
    assert_eq!(refused, Err(unauthorised));
    let foreign = produce(&broker, 12, ((producer.0 + 50, 0), 0, 0), "a").await;
    assert_eq!(foreign, Err(ErrorCode::InvalidProducerIdMapping.code()));
    let nothing = end(&broker, 4, producer, false).await;
    assert_eq!(nothing, Err(ErrorCode::InvalidTxnState.code()));
    for version in [3, 4] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("tests"))
            .with_client_software_version(text("1.0-rc.1"));
        let features = broker.call_version(request.clone(), version).await;
        for name in ["", "a b", "-a", "a."] {
            let strange = request.clone().with_client_software_name(text(name));
            let refused = broker.call_version(strange, version).await;
            assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
            assert!(refused.finalized_features.is_empty());
        }
        assert_eq!(features.finalized_features[0].max_version_level, 2);
        assert_eq!(features.supported_features.len(), usize::from(version > 3));
    }
}
