//! ListOffsets and OffsetForLeaderEpoch.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use super::super::super::batches::{self, By, TIMESTAMP_MS};
use super::super::super::case::{Case, Script};
use super::super::transactions::{added, ended};
use super::super::{named, produced, produced_as};
use super::produce::KEPT;

pub(super) fn run(script: &mut Script) {
    list_offsets(script);
    isolation(script);
    leader_epochs(script);
}

fn at(partition: i32, timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_timestamp(timestamp)
}

fn request(topic: &str, partitions: Vec<ListOffsetsPartition>) -> ListOffsetsRequest {
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(named(topic))
                .with_partitions(partitions),
        ])
}

fn list_offsets(script: &mut Script) {
    script.each::<ListOffsetsRequest>("list offsets", |case| {
        let orders = case.topic("orders", 2, &KEPT);
        for second in 0..3 {
            let batch = batches::at(TIMESTAMP_MS + 1_000 * second, &["a", "b"]);
            produced(case, &orders, batch);
        }
        for (step, timestamp) in [
            ("the newest", -1),
            ("the oldest", -2),
            ("the highest timestamp", -3),
            ("the oldest that is local", -4),
            ("the newest that is remote", -5),
            ("the oldest that waits", -6),
            ("no such question", -7),
            ("long before", 0),
            ("the first", TIMESTAMP_MS),
            ("after the first", TIMESTAMP_MS + 1),
            ("the last", TIMESTAMP_MS + 2_000),
            ("after the last", TIMESTAMP_MS + 2_001),
        ] {
            case.call(step, &request(&orders, vec![at(0, timestamp)]));
        }
        for (step, timestamp) in [
            ("the newest of nothing", -1),
            ("the oldest of nothing", -2),
            ("the highest timestamp of nothing", -3),
            ("by time in nothing", 0),
        ] {
            case.call(step, &request(&orders, vec![at(1, timestamp)]));
        }
        case.call("unknown partition", &request(&orders, vec![at(2, -1)]));
        case.call("negative partition", &request(&orders, vec![at(-1, -1)]));
        case.call(
            "unknown topic",
            &request(&case.name("nobody"), vec![at(0, -1)]),
        );
        case.call("a name that cannot be", &request("a b", vec![at(0, -1)]));
        case.call(
            "the same twice",
            &request(&orders, vec![at(0, -1), at(0, -2)]),
        );
        case.call("no partition", &request(&orders, vec![]));
        if case.version >= 4 {
            for (step, epoch) in [
                ("in this epoch", 0),
                ("in an epoch of the future", 5),
                ("in a negative epoch", -2),
            ] {
                let partition = at(0, -1).with_current_leader_epoch(epoch);
                case.call(step, &request(&orders, vec![partition]));
            }
        }
        case.delete_records(&orders, 3);
        case.call(
            "the oldest after deletion",
            &request(&orders, vec![at(0, -2)]),
        );
        case.call("by time after deletion", &request(&orders, vec![at(0, 0)]));
        let follower = request(&orders, vec![at(0, -1)]).with_replica_id(BrokerId(7));
        case.call("as a follower", &follower);
    });
}

fn isolation(script: &mut Script) {
    let spec = keelson_protocol::api::spec(2).expect("ListOffsets is served");
    script.each_of("list offsets with isolation", spec, 2..=spec.max, |case| {
        let orders = case.topic("orders", 1, &KEPT);
        let owned = case.transactional("tx");
        let (transaction, id, epoch) = owned.clone();
        let committed =
            |timestamp| request(&orders, vec![at(0, timestamp)]).with_isolation_level(1);
        produced(case, &orders, batches::plain(&["before"]));
        added(case, &owned, &orders, &[0]);
        let by = By {
            id,
            epoch,
            sequence: 0,
            transactional: true,
        };
        produced_as(
            case,
            Some(&transaction),
            &orders,
            batches::by(by, &["open"]),
        );
        let check = |case: &mut Case<'_>, when: &str| {
            case.call(&format!("the newest {when}"), &committed(-1));
            case.call(&format!("the oldest {when}"), &committed(-2));
            case.call(&format!("by time {when}"), &committed(TIMESTAMP_MS));
        };
        check(case, "while it is open");
        ended(case, &owned, true);
        case.settled_offset(&orders, 0, 3);
        check(case, "after its end");
    });
}

fn leader_epochs(script: &mut Script) {
    script.each::<OffsetForLeaderEpochRequest>("offset for leader epoch", |case| {
        let orders = case.topic("orders", 1, &KEPT);
        let version = case.version;
        let asked = |topic: &str, partition: i32, current: i32, epoch: i32| {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(named(topic))
                .with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            if version >= 3 {
                request.with_replica_id(BrokerId(-1))
            } else {
                request
            }
        };
        case.call("of nothing", &asked(&orders, 0, -1, 0));
        produced(case, &orders, batches::plain(&["a", "b"]));
        for (step, current, epoch) in [
            ("this one", -1, 0),
            ("this one, said twice", 0, 0),
            ("a later one", -1, 5),
            ("none", -1, -1),
            ("told of the future", 5, 0),
            ("told of a negative one", -2, 0),
        ] {
            case.call(step, &asked(&orders, 0, current, epoch));
        }
        case.call("unknown partition", &asked(&orders, 1, -1, 0));
        case.call("unknown topic", &asked(&case.name("nobody"), 0, -1, 0));
    });
}
