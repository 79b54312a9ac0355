//! Fetch: positions right and wrong, limits, epochs, sessions, isolation.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use keelson_protocol::api;
use uuid::Uuid;

use super::super::super::batches::{self, By};
use super::super::super::case::{Case, Script};
use super::super::transactions::{added, ended};
use super::super::{named, produced, produced_as};
use super::produce::KEPT;

pub(super) fn run(script: &mut Script) {
    positions(script);
    limits(script);
    epochs(script);
    isolation(script);
    sessions(script);
}

/// A topic as this version names it, and whether by id.
struct Target {
    name: String,
    id: Uuid,
}

fn target(case: &mut Case<'_>, name: &str, partitions: i32) -> Target {
    let name = case.topic(name, partitions, &KEPT);
    let id = case.topic_id(&name);
    Target { name, id }
}

fn from(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
}

fn topic(case: &Case<'_>, target: &Target, partitions: Vec<FetchPartition>) -> FetchTopic {
    let topic = FetchTopic::default().with_partitions(partitions);
    if case.version >= 13 {
        topic.with_topic_id(target.id)
    } else {
        topic.with_topic(named(&target.name))
    }
}

fn request(case: &Case<'_>, topics: Vec<FetchTopic>) -> FetchRequest {
    let request = FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(50 << 20)
        .with_topics(topics);
    let request = if case.version >= 7 {
        request.with_session_epoch(-1)
    } else {
        request
    };
    if case.version <= 14 {
        request.with_replica_id(BrokerId(-1))
    } else {
        request
    }
}

fn one(case: &Case<'_>, target: &Target, partition: FetchPartition) -> FetchRequest {
    request(case, vec![topic(case, target, vec![partition])])
}

fn positions(script: &mut Script) {
    script.each::<FetchRequest>("fetch", |case| {
        let orders = target(case, "orders", 2);
        case.call("an empty partition", &one(case, &orders, from(0, 0)));
        produced(case, &orders.name, batches::plain(&["a", "b"]));
        produced(case, &orders.name, batches::plain(&["c"]));
        for (step, partition) in [
            ("from the start", from(0, 0)),
            ("from within a batch", from(0, 1)),
            ("the second batch", from(0, 2)),
            ("at the end", from(0, 3)),
            ("behind the end", from(0, 4)),
            ("a negative offset", from(0, -1)),
            ("unknown partition", from(2, 0)),
            ("negative partition", from(-1, 0)),
        ] {
            case.call(step, &one(case, &orders, partition));
        }
        let nobody = Target {
            name: case.name("nobody"),
            id: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        };
        case.call("unknown topic", &one(case, &nobody, from(0, 0)));
        let invalid = Target {
            name: "a b".to_owned(),
            id: Uuid::nil(),
        };
        case.call("a name that cannot be", &one(case, &invalid, from(0, 0)));
        case.call("no topic", &request(case, vec![]));
        let mixed = request(
            case,
            vec![
                topic(case, &nobody, vec![from(0, 0)]),
                topic(case, &orders, vec![from(0, 2)]),
            ],
        );
        case.edited("one topic that is there", case.version, &mixed, sort);
        case.delete_records(&orders.name, 2);
        case.call("below the start", &one(case, &orders, from(0, 1)));
        case.call("from the new start", &one(case, &orders, from(0, 2)));
    });
}

/// Errors may stand before data.
fn sort(answer: &mut FetchResponse) {
    answer.responses.sort_by_key(|topic| {
        topic
            .partitions
            .first()
            .map(|partition| partition.error_code)
    });
}

fn limits(script: &mut Script) {
    script.each::<FetchRequest>("fetch with limits", |case| {
        let orders = target(case, "orders", 1);
        produced(case, &orders.name, batches::plain(&["a", "b"]));
        produced(case, &orders.name, batches::plain(&["c"]));
        let small = from(0, 0).with_partition_max_bytes(1);
        case.call(
            "one byte of the partition",
            &one(case, &orders, small.clone()),
        );
        case.call(
            "one byte in all",
            &one(case, &orders, from(0, 0)).with_max_bytes(1),
        );
        case.call("no byte", &one(case, &orders, from(0, 0)).with_max_bytes(0));
        let one_batch = from(0, 0).with_partition_max_bytes(80);
        case.call("less than two batches", &one(case, &orders, one_batch));
        let negative = from(0, 0).with_partition_max_bytes(-1);
        case.call("a negative limit", &one(case, &orders, negative));
        let waits = one(case, &orders, from(0, 3))
            .with_max_wait_ms(20)
            .with_min_bytes(1);
        case.call("waits for more", &waits);
        let satisfied = one(case, &orders, from(0, 0))
            .with_max_wait_ms(60_000)
            .with_min_bytes(1);
        case.call("has enough", &satisfied);
        let twice = request(
            case,
            vec![topic(case, &orders, vec![from(0, 0), from(0, 2)])],
        );
        case.call("the same partition twice", &twice);
    });
}

fn epochs(script: &mut Script) {
    let spec = api::spec(1).expect("Fetch is served");
    script.each_of("fetch with epochs", spec, 9..=spec.max, |case| {
        let orders = target(case, "orders", 1);
        produced(case, &orders.name, batches::plain(&["a"]));
        for (step, epoch) in [
            ("this one", 0),
            ("of the future", 5),
            ("none", -1),
            ("a negative one", -2),
        ] {
            case.call(
                step,
                &one(case, &orders, from(0, 0).with_current_leader_epoch(epoch)),
            );
        }
        if case.version >= 12 {
            for (step, epoch) in [
                ("fetched in this one", 0),
                ("fetched in a later one", 5),
                ("fetched in none", -1),
            ] {
                case.call(
                    step,
                    &one(case, &orders, from(0, 1).with_last_fetched_epoch(epoch)),
                );
            }
        }
    });
    script.each_of("fetch as a follower", spec, 9..=spec.max, |case| {
        let orders = target(case, "orders", 1);
        produced(case, &orders.name, batches::plain(&["a"]));
        let request = one(case, &orders, from(0, 0));
        let request = if case.version <= 14 {
            request.with_replica_id(BrokerId(7))
        } else {
            let state = kafka_protocol::messages::fetch_request::ReplicaState::default()
                .with_replica_id(BrokerId(7))
                .with_replica_epoch(3);
            request.with_replica_state(state)
        };
        case.call("one that is not there", &request);
    });
}

fn isolation(script: &mut Script) {
    script.each::<FetchRequest>("fetch with isolation", |case| {
        let orders = target(case, "orders", 1);
        let owned = case.transactional("tx");
        let (transaction, id, epoch) = owned.clone();
        let batch = |sequence, value| {
            batches::by(
                By {
                    id,
                    epoch,
                    sequence,
                    transactional: true,
                },
                &[value],
            )
        };
        let committed = |case: &Case<'_>| one(case, &orders, from(0, 0)).with_isolation_level(1);
        produced(case, &orders.name, batches::plain(&["before"]));
        added(case, &owned, &orders.name, &[0]);
        produced_as(case, Some(&transaction), &orders.name, batch(0, "aborted"));
        case.call("while it is open", &committed(case));
        case.call("while it is open, all", &one(case, &orders, from(0, 0)));
        ended(case, &owned, false);
        case.settled_offset(&orders.name, 0, 3);
        case.call("aborted", &committed(case));
        case.call("aborted, all", &one(case, &orders, from(0, 0)));
        added(case, &owned, &orders.name, &[0]);
        produced_as(case, Some(&transaction), &orders.name, batch(1, "kept"));
        ended(case, &owned, true);
        case.settled_offset(&orders.name, 0, 5);
        case.call(
            "committed",
            &one(case, &orders, from(0, 3)).with_isolation_level(1),
        );
        case.call(
            "no such level",
            &one(case, &orders, from(0, 0)).with_isolation_level(2),
        );
    });
}

fn sessions(script: &mut Script) {
    let spec = api::spec(1).expect("Fetch is served");
    script.each_of("fetch in a session", spec, 7..=spec.max, |case| {
        let orders = target(case, "orders", 3);
        produced(case, &orders.name, batches::plain(&["a"]));
        let all = vec![from(0, 0), from(1, 0), from(2, 0)];
        let open = request(case, vec![topic(case, &orders, all)]).with_session_epoch(0);
        let id = case.call("opened", &open).session_id;
        let next = |case: &Case<'_>, topics, epoch| {
            request(case, topics)
                .with_session_id(id)
                .with_session_epoch(epoch)
        };
        case.call(
            "nothing new",
            &next(case, vec![topic(case, &orders, vec![from(0, 1)])], 1),
        );
        produced(case, &orders.name, batches::plain(&["b"]));
        case.call("something new", &next(case, vec![], 2));
        let moved = topic(case, &orders, vec![from(0, 2)]);
        case.call("moved on", &next(case, vec![moved], 3));
        let forgotten = ForgottenTopic::default().with_partitions(vec![2]);
        let forgotten = if case.version >= 13 {
            forgotten.with_topic_id(orders.id)
        } else {
            forgotten.with_topic(named(&orders.name))
        };
        let forget = next(case, vec![], 4).with_forgotten_topics_data(vec![forgotten]);
        case.call("one forgotten", &forget);
        case.call("an epoch too high", &next(case, vec![], 9));
        case.call("the epoch once more", &next(case, vec![], 5));
        let behind = topic(case, &orders, vec![from(0, 99)]);
        case.call("out of range", &next(case, vec![behind], 6));
        case.call(
            "unknown session",
            &next(case, vec![], 1).with_session_id(12_345_678),
        );
        let close = next(case, vec![topic(case, &orders, vec![from(0, 0)])], -1);
        case.call("closed", &close);
        case.call("after its end", &next(case, vec![], 7));
        let negative = next(case, vec![], -2);
        case.call("a negative epoch", &negative);
    });
}
