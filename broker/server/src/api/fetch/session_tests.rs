//! Fetch sessions through the dispatch table, on a real log.

use std::collections::BTreeMap;
use std::time::Duration;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use keelson_protocol::kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic,
};
use keelson_protocol::kafka_protocol::messages::fetch_response::PartitionData;
use keelson_protocol::kafka_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, FetchResponse,
};
use keelson_state::metadata::TopicRef;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use crate::testing::{TestBroker, name};

/// Nothing in these tests takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

type Key = (String, i32);

fn wanted(index: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
}

fn of(topic: &str, partitions: Vec<FetchPartition>) -> FetchTopic {
    FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(partitions)
}

fn request(session: (i32, i32), topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

/// Partition, error and number of bytes of everything that an answer names, in its order.
fn named(response: &FetchResponse) -> Vec<(i32, i16, usize)> {
    assert_eq!(response.error_code, 0);
    let parts = response.responses.iter().flat_map(|t| &t.partitions);
    let about = |p: &PartitionData| {
        let bytes = p.records.as_ref().map_or(0, |r| r.len());
        (p.partition_index, p.error_code, bytes)
    };
    parts.map(about).collect()
}

fn indexes(response: &FetchResponse) -> Vec<i32> {
    named(response).iter().map(|(index, ..)| *index).collect()
}

async fn started(sets: &[&str]) -> TestBroker {
    let test = TestBroker::start(&[&["num.partitions=4"], sets].concat()).await;
    test.create(&["orders"]).await;
    test
}

async fn fetch(test: &TestBroker, request: FetchRequest) -> FetchResponse {
    let answer = test.call_version(request, 12);
    tokio::time::timeout(DEADLINE, answer).await.unwrap()
}

/// A session that has these partitions of "orders", from the start on; its id.
async fn session(test: &TestBroker, partitions: &[i32]) -> i32 {
    let wanted = partitions.iter().map(|n| wanted(*n, 0)).collect();
    let response = fetch(test, request((0, 0), vec![of("orders", wanted)])).await;
    assert_eq!(indexes(&response), partitions);
    assert_ne!(response.session_id, 0);
    response.session_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_fetch_names_what_has_changed_and_nothing_else() {
    let test = started(&[]).await;
    let id = session(&test, &[0, 1, 2, 3]).await;
    let response = fetch(&test, request((id, 1), vec![])).await;
    assert_eq!((response.session_id, indexes(&response)), (id, vec![]));
    test.produce("orders", 2, &[b"x"]).await;
    let response = fetch(&test, request((id, 2), vec![])).await;
    let [(2, 0, bytes)] = named(&response)[..] else {
        panic!("{response:?}");
    };
    assert!(bytes > 61);
    // The same offset again: the same records again.
    let response = fetch(&test, request((id, 3), vec![])).await;
    assert_eq!(named(&response), [(2, 0, bytes)]);
    let read = of("orders", vec![wanted(2, 1)]);
    let response = fetch(&test, request((id, 4), vec![read])).await;
    assert!(indexes(&response).is_empty());
    // The log start moves without a record.
    test.produce("orders", 1, &[b"x"]).await;
    let read = of("orders", vec![wanted(1, 1)]);
    let response = fetch(&test, request((id, 5), vec![read])).await;
    assert_eq!(named(&response), [(1, 0, 0)], "a new high watermark");
    delete_records(&test, "orders", 1, 1).await;
    let response = fetch(&test, request((id, 6), vec![])).await;
    assert_eq!(named(&response), [(1, 0, 0)]);
    assert_eq!(response.responses[0].partitions[0].log_start_offset, 1);
    let response = fetch(&test, request((id, 7), vec![])).await;
    assert!(indexes(&response).is_empty());
}

async fn delete_records(test: &TestBroker, topic: &str, index: i32, offset: i64) {
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(index)
        .with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(name(topic))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
    let response = test.call(request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_used_in_order_or_not_at_all() {
    let test = started(&[]).await;
    let id = session(&test, &[0]).await;
    let error = async |request: FetchRequest, version: i16| {
        let response = test.call_version(request, version).await;
        assert!(response.responses.is_empty());
        assert_eq!(response.session_id, 0);
        response.error_code
    };
    let (not_found, epoch) = (
        ErrorCode::FetchSessionIdNotFound.code(),
        ErrorCode::InvalidFetchSessionEpoch.code(),
    );
    assert_eq!(error(request((id, 2), vec![]), 12).await, epoch);
    assert_eq!(error(request((id ^ 1, 1), vec![]), 12).await, not_found);
    assert_eq!(error(request((0, 1), vec![]), 12).await, not_found);
    assert_eq!(error(request((-5, -7), vec![]), 12).await, not_found);
    let by_id = error(request((id, 1), vec![]), 17).await;
    assert_eq!(by_id, ErrorCode::FetchSessionTopicIdError.code());
    fetch(&test, request((id, 1), vec![])).await;
    assert_eq!(error(request((id, 1), vec![]), 12).await, epoch);
    // A full fetch closes it; with epoch -1 there is no other.
    let all = || vec![of("orders", vec![wanted(0, 0)])];
    let response = fetch(&test, request((id, -1), all())).await;
    assert_eq!((response.session_id, indexes(&response)), (0, vec![0]));
    assert_eq!(error(request((id, 2), vec![]), 12).await, not_found);
    let id = session(&test, &[0]).await;
    let response = fetch(&test, request((id, 0), all())).await;
    assert!(response.session_id != 0 && response.session_id != id);
    assert_eq!(error(request((id, 1), vec![]), 12).await, not_found);
    assert_eq!(test.metric("keelson_fetch_sessions"), 1.0);
    assert_eq!(test.metric("keelson_fetch_session_partitions"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_not_named_and_an_empty_session_ends() {
    let test = started(&[]).await;
    let id = session(&test, &[0, 1]).await;
    let forget = |partitions: Vec<i32>| {
        ForgottenTopic::default()
            .with_topic(name("orders"))
            .with_partitions(partitions)
    };
    test.produce("orders", 0, &[b"x"]).await;
    test.produce("orders", 1, &[b"x"]).await;
    let less = request((id, 1), vec![]).with_forgotten_topics_data(vec![forget(vec![0, 3])]);
    assert_eq!(indexes(&fetch(&test, less).await), [1]);
    let more = request((id, 2), vec![of("orders", vec![wanted(0, 1)])]);
    assert_eq!(indexes(&fetch(&test, more).await), [1, 0]);
    let none = request((id, 3), vec![]).with_forgotten_topics_data(vec![forget(vec![0, 1])]);
    let response = fetch(&test, none).await;
    assert_eq!((response.session_id, indexes(&response)), (0, vec![]));
    assert_eq!(test.metric("keelson_fetch_sessions"), 0.0);
    assert_eq!(test.metric("keelson_fetch_session_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_later_is_found_and_one_that_goes_is_told() {
    let test = started(&[]).await;
    let topics = vec![
        of("later", vec![wanted(0, 0)]),
        of("orders", vec![wanted(0, 0)]),
    ];
    let response = fetch(&test, request((0, 0), topics)).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    // What is not known comes last.
    assert_eq!(named(&response), [(0, 0, 0), (0, unknown, 0)]);
    let id = response.session_id;
    let response = fetch(&test, request((id, 1), vec![])).await;
    assert_eq!(named(&response), [(0, unknown, 0)], "each time");
    test.create(&["later"]).await;
    let response = fetch(&test, request((id, 2), vec![])).await;
    assert_eq!(named(&response), [(0, 0, 0)]);
    let response = fetch(&test, request((id, 3), vec![])).await;
    assert!(named(&response).is_empty());
    let gone = vec![TopicRef::Name("later".to_owned())];
    test.broker.metadata.delete_topics(gone).await;
    let response = fetch(&test, request((id, 4), vec![])).await;
    assert_eq!(named(&response), [(0, unknown, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_by_id_tell_what_became_of_them() {
    let test = started(&[]).await;
    let id_of = |topic: &str| {
        let state = test.broker.partitions.topic(topic).unwrap();
        Uuid::from_bytes(state.topic.id)
    };
    let by_id = |id: Uuid| of("", vec![wanted(0, 0)]).with_topic_id(id);
    let topics = vec![by_id(Uuid::from_u128(5)), by_id(id_of("orders"))];
    let response = test.call_version(request((0, 0), topics), 17).await;
    let unknown_id = ErrorCode::UnknownTopicId.code();
    assert_eq!(named(&response), [(0, 0, 0), (0, unknown_id, 0)]);
    assert_eq!(response.responses[1].topic_id, Uuid::from_u128(5));
    let id = response.session_id;
    let next = async |epoch: i32| {
        let response = test.call_version(request((id, epoch), vec![]), 17).await;
        let errors = named(&response).into_iter().map(|(_, error, _)| error);
        errors.collect::<Vec<i16>>()
    };
    assert_eq!(next(1).await, [unknown_id]);
    let orders = || vec![TopicRef::Name("orders".to_owned())];
    test.broker.metadata.delete_topics(orders()).await;
    let gone = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(next(2).await, [gone, unknown_id]);
    test.create(&["orders"]).await;
    let again = ErrorCode::InconsistentTopicId.code();
    assert_eq!(next(3).await, [again, unknown_id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_partition_starves_when_answers_are_small() {
    let test = started(&[]).await;
    for index in 0..4 {
        for _ in 0..3 {
            test.produce("orders", index, &[&[7; 1000]]).await;
        }
    }
    let all = (0..4).map(|n| wanted(n, 0)).collect();
    let mut small = request((0, 0), vec![of("orders", all)]).with_max_bytes(100);
    let mut next = [0; 4];
    let mut order = Vec::new();
    for epoch in 1..=12 {
        let response = fetch(&test, small).await;
        let served: Vec<i32> = named(&response)
            .iter()
            .filter(|(.., bytes)| *bytes > 0)
            .map(|(index, ..)| *index)
            .collect();
        let [index] = served[..] else {
            panic!("one batch at a time: {served:?}");
        };
        order.push(index);
        next[index as usize] += 1;
        let read = wanted(index, next[index as usize]);
        small = request((response.session_id, epoch), vec![of("orders", vec![read])])
            .with_max_bytes(100);
    }
    assert_eq!(next, [3; 4]);
    // The full answer of the beginning turns nothing, then everybody has a turn before anybody has another.
    assert_eq!(order[..5], [0, 0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_session_is_woken_by_any_of_its_partitions() {
    let test = started(&[]).await;
    let id = session(&test, &[0, 1, 2, 3]).await;
    let mut read = Vec::new();
    for epoch in 1..=20 {
        let index = epoch % 4;
        let waiting = request((id, epoch), vec![of("orders", read)])
            .with_max_wait_ms(60_000)
            .with_min_bytes(1);
        let (response, _) = tokio::join!(
            fetch(&test, waiting),
            test.produce("orders", index, &[b"x"])
        );
        assert_eq!(indexes(&response), [index]);
        let end = response.responses[0].partitions[0].high_watermark;
        read = vec![wanted(index, end)];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_holds_nobody_up_and_wakes_nobody() {
    let test = started(&[]).await;
    let topics = vec![
        of("none", vec![wanted(0, 0)]),
        of("orders", vec![wanted(0, 0)]),
    ];
    let waiting = |session, topics| {
        request(session, topics)
            .with_max_wait_ms(60_000)
            .with_min_bytes(1)
    };
    // As Kafka: a topic that is not known does not end the wait for the others.
    let (response, _) = tokio::join!(
        fetch(&test, waiting((0, 0), topics)),
        test.produce("orders", 0, &[b"x"])
    );
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let [(0, 0, bytes), (0, error, 0)] = named(&response)[..] else {
        panic!("{response:?}");
    };
    assert!(bytes > 0 && error == unknown);
    // Alone it is answered at once.
    let none = vec![of("none", vec![wanted(0, 0)])];
    let response = fetch(&test, waiting((0, -1), none)).await;
    assert_eq!(named(&response), [(0, unknown, 0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_while_another_waits_takes_the_session_over() {
    let test = started(&[]).await;
    let id = session(&test, &[0, 1]).await;
    let waiting = |epoch| {
        request((id, epoch), vec![])
            .with_max_wait_ms(60_000)
            .with_min_bytes(1)
    };
    let later = async {
        // Its epoch is due only once the first has been taken.
        loop {
            let response = test.call_version(waiting(2), 12).await;
            if response.error_code == 0 {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    let produced = async {
        let live = test.broker.fetch_sessions.get(id).unwrap();
        while live.held.lock().session.epoch() < 3 {
            tokio::task::yield_now().await;
        }
        test.produce("orders", 1, &[b"x"]).await
    };
    let all = async { tokio::join!(fetch_any(&test, waiting(1)), later, produced) };
    let (first, second, _) = tokio::time::timeout(DEADLINE, all).await.unwrap();
    assert_eq!(
        (first.error_code, first.session_id),
        (ErrorCode::InvalidFetchSessionEpoch.code(), id)
    );
    assert_eq!(indexes(&second), [1], "nothing that woke the first is lost");
}

async fn fetch_any(test: &TestBroker, request: FetchRequest) -> FetchResponse {
    test.call_version(request, 12).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_slot_there_is_no_session_and_nothing_else_is_missing() {
    let test = started(&["max.incremental.fetch.session.cache.slots=1"]).await;
    let id = session(&test, &[0]).await;
    let wanted = (0..4).map(|n| wanted(n, 0)).collect();
    let response = fetch(&test, request((0, 0), vec![of("orders", wanted)])).await;
    // The first session is young: it does not go even for a larger one.
    assert_eq!(response.session_id, 0);
    assert_eq!(indexes(&response), [0, 1, 2, 3]);
    let response = fetch(&test, request((id, 1), vec![])).await;
    assert_eq!(response.session_id, id);
    assert_eq!(test.metric("keelson_fetch_session_evictions_total"), 0.0);
}

/// What a client knows of a partition: error, high watermark, log start.
type Picture = BTreeMap<Key, (i16, i64, i64)>;

fn paint(picture: &mut Picture, response: &FetchResponse) -> BTreeMap<Key, usize> {
    let mut bytes = BTreeMap::new();
    for topic in &response.responses {
        for part in &topic.partitions {
            let key = (topic.topic.to_string(), part.partition_index);
            let told = (part.error_code, part.high_watermark, part.log_start_offset);
            picture.insert(key.clone(), told);
            bytes.insert(key, part.records.as_ref().map_or(0, |r| r.len()));
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_shows_what_full_fetches_show() {
    const STEPS: usize = 300;
    let seed = std::env::var("KEELSON_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or(11);
    eprintln!("KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let test = started(&[]).await;
    let topics = ["orders", "a", "b"];
    let mut positions: BTreeMap<Key, i64> = BTreeMap::new();
    for topic in topics {
        for index in 0..4 {
            positions.insert((topic.to_owned(), index), 0);
        }
    }
    let mut changed = positions.clone();
    let (mut id, mut epoch) = (0, 0);
    let mut picture = Picture::new();
    for _ in 0..STEPS {
        let topic = topics[random.random_range(0..3)];
        let index = random.random_range(0..4);
        let exists = test.broker.partitions.topic(topic).is_some();
        match random.random_range(0..12) {
            0 if exists => {
                let gone = vec![TopicRef::Name(topic.to_owned())];
                test.broker.metadata.delete_topics(gone).await;
            }
            1 if exists => delete_records(&test, topic, index, -1).await,
            2..=5 if exists => {
                test.produce(topic, index, &[b"x"]).await;
            }
            2..=5 => test.create(&[topic]).await,
            _ => {}
        }
        let all: Vec<FetchTopic> = in_topics(&positions);
        let full = fetch(&test, request((0, -1), all)).await;
        let mut expected = Picture::new();
        let expected_bytes = paint(&mut expected, &full);
        let delta = request((id, epoch), in_topics(&changed));
        let response = fetch(&test, delta).await;
        assert_eq!(response.error_code, 0);
        let bytes = paint(&mut picture, &response);
        assert_eq!(picture, expected);
        for (key, expected) in expected_bytes {
            assert_eq!(bytes.get(&key).copied().unwrap_or(0), expected, "{key:?}");
        }
        (id, epoch) = (response.session_id, epoch + 1);
        changed.clear();
        // The client reads some of it, and resets where it is out of range or the topic is another one.
        for (key, (error, high_watermark, log_start)) in &picture {
            let position = positions.get_mut(key).unwrap();
            let next = match error {
                0 if random.random_bool(0.7) => (*high_watermark).max(*log_start),
                0 => continue,
                _ => 0,
            };
            if std::mem::replace(position, next) != next {
                changed.insert(key.clone(), next);
            }
        }
    }
}

fn in_topics(positions: &BTreeMap<Key, i64>) -> Vec<FetchTopic> {
    let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
    for ((topic, index), offset) in positions {
        topics
            .entry(topic)
            .or_default()
            .push(wanted(*index, *offset));
    }
    topics.into_iter().map(|(t, p)| of(t, p)).collect()
}
