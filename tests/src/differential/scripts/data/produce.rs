//! Produce: batches right and wrong, producers in order and out of it.

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{DescribeProducersRequest, ProduceRequest, ProduceResponse};
use uuid::Uuid;

use super::super::super::batches::{self, By};
use super::super::super::case::{Case, Script};
use super::super::super::normal::CHOSEN_PRODUCER_ID;
use super::super::named;
use super::super::transactions::{added, completed, ended};
use crate::records::now_ms;
use crate::wire::text;

/// Settings of topics whose old timestamps must not fall to retention, nor begin a new segment beside the broker's own.
pub(in super::super) const KEPT: [(&str, &str); 2] = [
    ("retention.ms", "-1"),
    ("segment.ms", "9223372036854775807"),
];

pub(super) fn run(script: &mut Script) {
    acks(script);
    wrong_batches(script);
    settings(script);
    sequences(script);
    transactional(script);
    describe_producers(script);
}

/// A topic as this version names it.
struct Target {
    name: String,
    id: Uuid,
}

fn target(case: &mut Case<'_>, name: &str, configs: &[(&str, &str)]) -> Target {
    let configs = [&KEPT[..], configs].concat();
    let name = case.topic(name, 2, &configs);
    let id = case.topic_id(&name);
    Target { name, id }
}

fn topic(case: &Case<'_>, target: &Target, partitions: Vec<(i32, Vec<u8>)>) -> TopicProduceData {
    let partitions = partitions
        .into_iter()
        .map(|(index, batch)| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(Some(Bytes::from(batch)))
        })
        .collect();
    let topic = TopicProduceData::default().with_partition_data(partitions);
    if case.version >= 13 {
        topic.with_topic_id(target.id)
    } else {
        topic.with_name(named(&target.name))
    }
}

fn request(topics: Vec<TopicProduceData>) -> ProduceRequest {
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(topics)
}

fn one(case: &Case<'_>, target: &Target, batch: Vec<u8>) -> ProduceRequest {
    request(vec![topic(case, target, vec![(0, batch)])])
}

/// Partitions answer in an order of the broker's own.
fn sort(answer: &mut ProduceResponse) {
    for topic in &mut answer.responses {
        topic
            .partition_responses
            .sort_by_key(|partition| partition.index);
    }
}

fn acks(script: &mut Script) {
    script.each::<ProduceRequest>("produce", |case| {
        let orders = target(case, "orders", &[]);
        let batch = || batches::plain(&["a", "b"]);
        case.call("to all", &one(case, &orders, batch()));
        case.call("to the leader", &one(case, &orders, batch()).with_acks(1));
        case.call("two acks", &one(case, &orders, batch()).with_acks(2));
        case.call("minus two acks", &one(case, &orders, batch()).with_acks(-2));
        let version = case.version;
        let silent = one(case, &orders, batch()).with_acks(0);
        let mut wire = case.connect();
        wire.send(version, &silent).expect("a socket takes it");
        // Answers come in order: what is answered next was not the silent one.
        let second = one(case, &orders, batch());
        let id = wire.send(version, &second).expect("a socket takes it");
        let answer = wire.receive::<ProduceRequest>(version, id);
        case.note_answer::<ProduceRequest>(
            "after one without acks",
            version,
            &answer.expect("an answer"),
        );
        case.call(
            "unknown partition",
            &request(vec![topic(case, &orders, vec![(2, batch())])]),
        );
        case.call(
            "negative partition",
            &request(vec![topic(case, &orders, vec![(-1, batch())])]),
        );
        let nobody = Target {
            name: case.name("nobody"),
            id: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        };
        case.call("unknown topic", &one(case, &nobody, batch()));
        let invalid = Target {
            name: "a b".to_owned(),
            id: Uuid::nil(),
        };
        case.call("a name that cannot be", &one(case, &invalid, batch()));
        case.call("no topic", &request(vec![]));
        case.call("no partition", &request(vec![topic(case, &orders, vec![])]));
        let two = topic(case, &orders, vec![(0, batch()), (1, batch())]);
        case.edited("two partitions", version, &request(vec![two]), sort);
        let mixed = topic(case, &orders, vec![(0, batch()), (7, batch())]);
        case.edited(
            "one partition that is there",
            version,
            &request(vec![mixed]),
            sort,
        );
        let internal = Target {
            name: "__consumer_offsets".to_owned(),
            id: case.topic_id("__consumer_offsets"),
        };
        case.call(
            "to the broker's own topic",
            &one(case, &internal, batches::keyed("k", "v")),
        );
    });
}

fn wrong_batches(script: &mut Script) {
    script.each::<ProduceRequest>("produce wrong batches", |case| {
        let orders = target(case, "orders", &[]);
        let good = || batches::plain(&["a", "b"]);
        case.call("empty records", &one(case, &orders, Vec::new()));
        let mut torn = good();
        torn[20] ^= 1;
        case.call("a wrong checksum", &one(case, &orders, torn));
        case.call(
            "two batches",
            &one(case, &orders, [good(), good()].concat()),
        );
        let short = good();
        case.call(
            "cut short",
            &one(case, &orders, short[..short.len() - 1].to_vec()),
        );
        case.call(
            "cut in the header",
            &one(case, &orders, short[..30].to_vec()),
        );
        let with = |change: fn(&mut [u8])| batches::changed(good(), change);
        let wrong: [(&str, Vec<u8>); 13] = [
            ("magic 0", with(|batch| batch[16] = 0)),
            ("magic 1", with(|batch| batch[16] = 1)),
            ("magic 3", with(|batch| batch[16] = 3)),
            ("a base offset", with(|batch| batch[7] = 9)),
            ("an unknown compression", with(|batch| batch[22] = 7)),
            (
                "compression of nothing compressed",
                with(|batch| batch[22] = 1),
            ),
            ("a control batch", with(|batch| batch[22] = 0x20)),
            (
                "one record more than there are",
                with(|batch| batch[60] = 3),
            ),
            (
                "one record fewer than there are",
                with(|batch| batch[60] = 1),
            ),
            ("no record", with(|batch| batch[57..61].fill(0))),
            ("a last offset too high", with(|batch| batch[26] = 5)),
            ("a last offset too low", with(|batch| batch[26] = 0)),
            ("a length too long", with(|batch| batch[11] += 1)),
        ];
        for (step, batch) in wrong {
            case.call(step, &one(case, &orders, batch));
        }
        let records = case.topic_ends(&orders.name);
        case.found("where the log ends", records.into());
    });
}

fn settings(script: &mut Script) {
    script.each::<ProduceRequest>("produce under settings", |case| {
        let small = target(case, "small", &[("max.message.bytes", "100")]);
        let value = "x".repeat(100);
        case.call("too large", &one(case, &small, batches::plain(&[&value])));
        case.call("small enough", &one(case, &small, batches::plain(&["x"])));
        let clocked = target(
            case,
            "clocked",
            &[("message.timestamp.type", "LogAppendTime")],
        );
        case.call(
            "the broker's time",
            &one(case, &clocked, batches::plain(&["x"])),
        );
        let future = batches::at(now_ms() + 7_200_000, &["x"]);
        case.call("of the future", &one(case, &small, future));
        case.call(
            "of the past",
            &one(case, &small, batches::plain(&["a", "b"])),
        );
        case.call(
            "of today",
            &one(case, &small, batches::at(now_ms(), &["x"])),
        );
        let table = target(case, "table", &[("cleanup.policy", "compact")]);
        case.call("without a key", &one(case, &table, batches::plain(&["x"])));
        case.call("with a key", &one(case, &table, batches::keyed("k", "v")));
    });
}

fn by(id: i64, epoch: i16, sequence: i32) -> By {
    By {
        id,
        epoch,
        sequence,
        transactional: false,
    }
}

fn sequences(script: &mut Script) {
    script.each::<ProduceRequest>("produce in sequence", |case| {
        let orders = target(case, "orders", &[]);
        let (id, epoch) = case.init_producer(None);
        assert_eq!(epoch, 0, "a new producer");
        let two = |by| batches::by(by, &["a", "b"]);
        for (step, by) in [
            ("the first", by(id, 0, 0)),
            ("the second", by(id, 0, 2)),
            ("the second again", by(id, 0, 2)),
            ("the first again", by(id, 0, 0)),
            ("a gap", by(id, 0, 9)),
            ("back", by(id, 0, 1)),
            ("a new epoch not from zero", by(id, 1, 4)),
            ("a new epoch", by(id, 1, 0)),
            ("the old epoch", by(id, 0, 4)),
            ("somebody not from zero", by(CHOSEN_PRODUCER_ID, 3, 5)),
            ("without an epoch", by(id, -1, 2)),
            ("without a sequence", by(id, 1, -1)),
            ("a negative id", by(-2, 0, 0)),
        ] {
            case.call(step, &one(case, &orders, two(by)));
        }
        let both = [two(by(id, 1, 2)), two(by(id, 1, 4))].concat();
        case.call("two batches", &one(case, &orders, both));
        case.call("and on", &one(case, &orders, two(by(id, 1, 4))));
        let wrapped = target(case, "wrapped", &[]);
        let last = by(id, 1, i32::MAX);
        case.call(
            "the last number, not from zero",
            &one(case, &wrapped, two(last)),
        );
    });
}

fn transactional(script: &mut Script) {
    script.each::<ProduceRequest>("produce in a transaction", |case| {
        let orders = target(case, "orders", &[]);
        let owned = case.transactional("tx");
        let (transaction, id, epoch) = owned.clone();
        let batch = |epoch, sequence| {
            batches::by(
                By {
                    id,
                    epoch,
                    sequence,
                    transactional: true,
                },
                &["a"],
            )
        };
        let named = |case: &Case<'_>, batch| {
            one(case, &orders, batch).with_transactional_id(Some(text(&transaction).into()))
        };
        case.call("without its id", &one(case, &orders, batch(epoch, 0)));
        let loose = target(case, "loose", &[]);
        let request = one(case, &loose, batches::by(by(id, epoch, 0), &["a"]))
            .with_transactional_id(Some(text(&transaction).into()));
        case.call("a batch outside of it", &request);
        let request = named(case, batch(epoch, 0)).with_transactional_id(Some(text("").into()));
        case.call("an empty id", &request);
        if case.version < 12 {
            let request = named(case, batch(epoch, 0));
            once_verified(case, "before the partition was added", &request);
        }
        added(case, &owned, &orders.name, &[0]);
        case.call("in it", &named(case, batch(epoch, 0)));
        case.call("again", &named(case, batch(epoch, 0)));
        case.call("a gap", &named(case, batch(epoch, 5)));
        let (other, ..) = case.transactional("other");
        let elsewhere = target(case, "elsewhere", &[]);
        let others =
            one(case, &elsewhere, batch(epoch, 0)).with_transactional_id(Some(text(&other).into()));
        case.call("with another's id", &others);
        let early = target(case, "early", &[]);
        let request = one(case, &early, batch(epoch + 1, 0))
            .with_transactional_id(Some(text(&transaction).into()));
        case.call("an epoch not yet given", &request);
        completed(case, &owned, true);
        case.settled_offset(&orders.name, 0, 2);
        let request = named(case, batch(epoch, 1));
        once_verified(case, "after its end", &request);
    });
}

/// Apache Kafka says NOT_ENOUGH_REPLICAS or CONCURRENT_TRANSACTIONS while a partition still asks the coordinator, or the
/// coordinator still ends the transaction before.
#[track_caller]
fn once_verified(case: &mut Case<'_>, step: &str, request: &ProduceRequest) {
    let version = case.version;
    case.patiently(step, version, request, |answer| {
        ![19, 51].contains(&answer.responses[0].partition_responses[0].error_code)
    });
}

fn describe_producers(script: &mut Script) {
    script.each::<DescribeProducersRequest>("describe producers", |case| {
        let orders = case.topic("orders", 2, &KEPT);
        let request = |topic: &str, partitions: &[i32]| {
            let topic =
                kafka_protocol::messages::describe_producers_request::TopicRequest::default()
                    .with_name(named(topic))
                    .with_partition_indexes(partitions.to_vec());
            DescribeProducersRequest::default().with_topics(vec![topic])
        };
        case.call("nobody", &request(&orders, &[0]));
        let (id, epoch) = case.init_producer(None);
        super::super::produced(case, &orders, batches::by(by(id, epoch, 0), &["a", "b"]));
        case.call("one", &request(&orders, &[0]));
        let owned = case.transactional("tx");
        let (transaction, id, epoch) = owned.clone();
        added(case, &owned, &orders, &[1]);
        let batch = batches::by(
            By {
                id,
                epoch,
                sequence: 0,
                transactional: true,
            },
            &["a"],
        );
        let data = PartitionProduceData::default()
            .with_index(1)
            .with_records(Some(batch.into()));
        let topic = TopicProduceData::default()
            .with_name(named(&orders))
            .with_partition_data(vec![data]);
        let produce = super::produce::request(vec![topic])
            .with_transactional_id(Some(text(&transaction).into()));
        case.quietly(9, &produce);
        case.call("one in a transaction", &request(&orders, &[1]));
        ended(case, &owned, false);
        case.settled_offset(&orders, 1, 2);
        case.call("one after its transaction", &request(&orders, &[1]));
        case.call("unknown partition", &request(&orders, &[2]));
        case.call("negative partition", &request(&orders, &[-1]));
        case.call("unknown topic", &request(&case.name("nobody"), &[0]));
        case.call("a name that cannot be", &request("a b", &[0]));
        case.call("no partition", &request(&orders, &[]));
    });
}
