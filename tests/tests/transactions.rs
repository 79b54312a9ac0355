//! Transactions as real clients use them: librdkafka's producer and its read_committed consumer, kills at the worst moments.
//!
//! Each transaction writes one record to each partition. Whoever reads committed records must find all of them or none, as
//! the producer was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ProducerId, TransactionalId,
};
use keelson_tests::kube::free_port;
use keelson_tests::rdk::{self, CLIENT_WITHIN};
use keelson_tests::records::{fresh_batch, seal_batch};
use keelson_tests::strace::Strace;
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup, wait_until};
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const TOPIC: &str = "accounts";
const PARTITIONS: i32 = 3;
const WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// It polls in a thread of its own, as an abort needs it.
type Producer = ThreadedProducer<DefaultProducerContext>;

fn producer(bootstrap: &str, transactional_id: &str) -> Producer {
    let mut config = rdk::config(bootstrap);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "30000")
        .set("reconnect.backoff.max.ms", "200")
        .set("linger.ms", "1");
    Producer::from_config(&config).expect("a producer")
}

/// Puts one record into each partition.
fn write(producer: &Producer, value: &str) -> Result<(), KafkaError> {
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<str, str>::to(TOPIC)
            .partition(partition)
            .key("k")
            .payload(value);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// Every record that a reader of committed records sees: how often each value stands in the topic.
#[track_caller]
fn committed(bootstrap: &str) -> BTreeMap<String, usize> {
    let consumer: BaseConsumer = rdk::config(bootstrap)
        .set("group.id", "readers")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .expect("an assignment");
    }
    consumer.assign(&assignment).expect("an assignment");
    let (mut open, mut seen) = (PARTITIONS, BTreeMap::new());
    let end = Instant::now() + CLIENT_WITHIN;
    while open > 0 {
        assert!(Instant::now() < end, "{open} partitions gave no end");
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
                *seen.entry(value.into_owned()).or_default() += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => panic!("reading: {error}"),
        }
    }
    seen
}

#[test]
fn librdkafka_commits_and_aborts() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic(TOPIC, PARTITIONS, &[]);
    let first = producer(broker.bootstrap(), "tx");
    first.init_transactions(WITHIN).expect("a beginning");
    for number in 0..20 {
        first.begin_transaction().expect("a transaction");
        let commit = number % 3 != 1;
        write(&first, &format!("{number} {commit}")).expect("records");
        match commit {
            true => first.commit_transaction(WITHIN).expect("a commit"),
            false => first.abort_transaction(WITHIN).expect("an abort"),
        }
    }
    first.begin_transaction().expect("a transaction");
    write(&first, "open").expect("records");
    first.flush(WITHIN).expect("all is delivered");
    let seen = committed(broker.bootstrap());
    let whole = |number: &str| seen.get(number) == Some(&(PARTITIONS as usize));
    assert!(
        seen.keys()
            .all(|value| value.ends_with("true") && whole(value)),
        "{seen:?}"
    );
    assert_eq!(seen.len(), 13, "{seen:?}");
    // Another takes over: what was open is aborted, and the first is told that it is fenced.
    let second = producer(broker.bootstrap(), "tx");
    second.init_transactions(WITHIN).expect("a beginning");
    let fenced = first.commit_transaction(WITHIN).expect_err("it is fenced");
    assert!(is_fatal(&fenced), "{fenced}");
    second.begin_transaction().expect("a transaction");
    write(&second, "second true").expect("records");
    second.commit_transaction(WITHIN).expect("a commit");
    let seen = committed(broker.bootstrap());
    assert_eq!((seen.len(), seen.get("open")), (14, None), "{seen:?}");
    let metrics = broker.metrics();
    // Of an abort that comes before any partition was added the broker never hears.
    for (outcome, count) in [("committed", 14.0), ("fenced", 1.0)] {
        let labels = [("outcome", outcome)];
        let ended = metrics.sum("keelson_transactions_ended_total", &labels);
        assert_eq!(ended, count, "{outcome}");
    }
    assert_eq!(metrics.sum("keelson_transactional_ids", &[]), 1.0);
}

fn is_fatal(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_fatal(),
        _ => false,
    }
}

#[test]
fn offsets_are_committed_with_the_transaction() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic(TOPIC, PARTITIONS, &[]);
    let group: BaseConsumer = rdk::config(broker.bootstrap())
        .set("group.id", "movers")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mover = producer(broker.bootstrap(), "mover");
    mover.init_transactions(WITHIN).expect("a beginning");
    let metadata = group.group_metadata().expect("a group");
    for (offset, commit) in [(3, true), (7, false), (9, true)] {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(TOPIC, 0, Offset::Offset(offset))
            .expect("an offset");
        mover.begin_transaction().expect("a transaction");
        write(&mover, "moved").expect("records");
        mover
            .send_offsets_to_transaction(&offsets, &metadata, WITHIN)
            .expect("offsets");
        match commit {
            true => mover.commit_transaction(WITHIN).expect("a commit"),
            false => mover.abort_transaction(WITHIN).expect("an abort"),
        }
        let mut asked = TopicPartitionList::new();
        asked.add_partition(TOPIC, 0);
        let found = group.committed_offsets(asked, WITHIN).expect("offsets");
        let shown = if commit { offset } else { 3 };
        assert_eq!(found.elements()[0].offset(), Offset::Offset(shown));
    }
}

/// A producer that goes on over kills of the broker, until it is told to stop: what it was told of each transaction.
fn work(bootstrap: &str, stop: &AtomicBool) -> BTreeMap<String, Option<bool>> {
    let mut told = BTreeMap::new();
    let mut life = 0;
    while !stop.load(Ordering::Relaxed) {
        life += 1;
        let producer = producer(bootstrap, "worker");
        if producer.init_transactions(CLIENT_WITHIN).is_err() {
            continue;
        }
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let value = format!("{life}-{number}");
            let commit = number % 4 != 3;
            told.insert(value.clone(), None);
            if transaction(&producer, &value, commit).is_err() {
                break;
            }
            told.insert(value, Some(commit));
        }
    }
    told
}

fn transaction(producer: &Producer, value: &str, commit: bool) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    write(producer, value)?;
    let end = Instant::now() + CLIENT_WITHIN;
    loop {
        let ended = match commit {
            true => producer.commit_transaction(CLIENT_WITHIN),
            false => producer.abort_transaction(CLIENT_WITHIN),
        };
        match ended {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {
            }
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                producer.abort_transaction(CLIENT_WITHIN)?;
                return Err(KafkaError::Transaction(error));
            }
            ended => return ended,
        }
    }
}

#[test]
fn no_kill_leaves_half_a_transaction() {
    const KILLS: u32 = 5;
    // The worker comes back to the same address.
    let listener = format!("PLAINTEXT://127.0.0.1:{}", free_port());
    let mut broker = BrokerSetup::new().set("listeners", listener).start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic(TOPIC, PARTITIONS, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let worker = {
        let (bootstrap, stop) = (broker.bootstrap().to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || work(&bootstrap, &stop))
    };
    for kill in 0..KILLS {
        // Not before something happened since the last one.
        let before = end_of(&broker);
        wait_until("the worker goes on", CLIENT_WITHIN, || {
            end_of(&broker) > before + 20 + i64::from(kill) * 7
        });
        broker.kill9();
        broker.restart();
    }
    stop.store(true, Ordering::Relaxed);
    let told = worker.join().expect("the worker ends");
    // What nobody ended is ended by the next one.
    let last = producer(broker.bootstrap(), "worker");
    last.init_transactions(CLIENT_WITHIN).expect("a beginning");
    let seen = committed(broker.bootstrap());
    for (value, told) in &told {
        let visible = seen.get(value).copied().unwrap_or_default();
        let whole = visible == PARTITIONS as usize;
        assert!(visible == 0 || whole, "{value}: {visible}, {told:?}");
        assert!(*told != Some(true) || whole, "{value} was committed");
        assert!(*told != Some(false) || visible == 0, "{value} was aborted");
    }
    let committed = told.values().filter(|told| **told == Some(true)).count();
    assert!(committed >= KILLS as usize, "{committed} commits");
    assert!(
        seen.keys().all(|value| told.contains_key(value)),
        "{seen:?}"
    );
}

fn end_of(broker: &Broker) -> i64 {
    Wire::connect(broker.bootstrap())
        .list_offset(TOPIC, 0, -1)
        .expect("an end")
}

/// A batch of one record of a transaction.
fn of_transaction(producer: (i64, i16), sequence: i32) -> Vec<u8> {
    let mut batch = fresh_batch(&[b"record"]);
    batch[22] |= 0x10;
    batch[43..51].copy_from_slice(&producer.0.to_be_bytes());
    batch[51..53].copy_from_slice(&producer.1.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    seal_batch(&mut batch);
    batch
}

fn begin(wire: &mut Wire) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("tx"))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let mut producer = (0, 0);
    wait_until("the producer begins", WITHIN, || {
        let answer = wire.call(5, &request);
        producer = (answer.producer_id.0, answer.producer_epoch);
        answer.error_code == 0
    });
    producer
}

fn state(wire: &mut Wire) -> String {
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![TransactionalId(text("tx"))]);
    let answer = wire.call(0, &request);
    answer.transaction_states[0].transaction_state.to_string()
}

#[test]
fn a_kill_between_decision_and_markers_loses_neither() {
    // The first commit of the log after the end is asked for is the decision, the second the markers, the third that all is
    // done: the broker dies as it begins the Nth.
    for (commit, state_then, is_seen) in [
        (1, "Ongoing", false),
        (2, "CompleteCommit", true),
        (3, "CompleteCommit", true),
    ] {
        let mut broker = Broker::start();
        let mut wire = Wire::connect(broker.bootstrap());
        wire.create_topic(TOPIC, PARTITIONS, &[]);
        let coordinator = FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_coordinator_keys(vec![text("tx")]);
        wire.call(6, &coordinator);
        let producer = begin(&mut wire);
        for partition in 0..PARTITIONS {
            let batch = of_transaction(producer, 0);
            let request = Wire::produce_request(TOPIC, partition, batch, -1)
                .with_transactional_id(Some(TransactionalId(text("tx"))));
            let answer = wire.call(12, &request);
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
        broker.wait_log_at_rest();
        let words = [
            "-e",
            "trace=pwritev2",
            "-e",
            &format!("inject=pwritev2:signal=SIGKILL:when={commit}"),
        ];
        let strace = Strace::attach(&broker, &words);
        let end = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text("tx")))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_committed(true);
        let answer = wire.try_call(5, &end);
        assert!(
            answer.is_err(),
            "answered before commit {commit}: {answer:?}"
        );
        broker.kill9();
        drop(strace);
        broker.restart();
        let mut wire = Wire::connect(broker.bootstrap());
        wait_until("what was decided is done", WITHIN, || {
            state(&mut wire) == state_then
        });
        let seen = committed(broker.bootstrap());
        let wanted = if is_seen { PARTITIONS as usize } else { 0 };
        let found = seen.get("record").copied().unwrap_or_default();
        assert_eq!(found, wanted, "killed at commit {commit}");
        // Asked again, the end says the same; before the decision, it is made now.
        wait_until("the end is answered", WITHIN, || {
            let answer = wire.call(5, &end);
            let next = (answer.producer_id.0, answer.producer_epoch);
            answer.error_code == 0 && next == (producer.0, producer.1 + 1)
        });
        let seen = committed(broker.bootstrap());
        assert_eq!(seen.get("record"), Some(&(PARTITIONS as usize)));
    }
}

#[test]
fn a_timeout_above_the_limit_is_refused() {
    let broker = Broker::start();
    let mut config = rdk::config(broker.bootstrap());
    config
        .set("transactional.id", "slow")
        .set("transaction.timeout.ms", "900001");
    let producer = Producer::from_config(&config).expect("a producer");
    let refused = producer.init_transactions(WITHIN).expect_err("too long");
    let code = refused.rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::InvalidTransactionTimeout));
}
