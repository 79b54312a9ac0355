//! ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments, AlterReplicaLogDirs, DescribeLogDirs.

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId,
    DescribeLogDirsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
};

use super::super::super::batches;
use super::super::super::case::Script;
use super::super::{named, produced};
use crate::wire::text;

pub(super) fn run(script: &mut Script) {
    elect_leaders(script);
    reassignments(script);
    log_dirs(script);
}

fn elect_leaders(script: &mut Script) {
    script.each::<ElectLeadersRequest>("elect leaders", |case| {
        let version = case.version;
        let orders = case.topic("orders", 2, &[]);
        let elect = |kind: i8, topic: &str, partitions: &[i32]| {
            let topic = TopicPartitions::default()
                .with_topic(named(topic))
                .with_partitions(partitions.to_vec());
            let request = ElectLeadersRequest::default()
                .with_topic_partitions(Some(vec![topic]))
                .with_timeout_ms(30_000);
            if version >= 1 {
                request.with_election_type(kind)
            } else {
                request
            }
        };
        case.call("preferred", &elect(0, &orders, &[0]));
        if version >= 1 {
            case.call("unclean", &elect(1, &orders, &[0]));
            case.call("of no kind", &elect(9, &orders, &[0]));
        }
        case.call("unknown partition", &elect(0, &orders, &[7]));
        case.call("unknown topic", &elect(0, &case.name("nobody"), &[0]));
        case.call("no partition", &elect(0, &orders, &[]));
        let none = elect(0, &orders, &[]).with_topic_partitions(Some(vec![]));
        case.call("no topic", &none);
    });
}

fn reassignments(script: &mut Script) {
    script.each::<AlterPartitionReassignmentsRequest>("reassign partitions", |case| {
        let orders = case.topic("orders", 2, &[]);
        let assign = |topic: &str, partition: i32, replicas: Option<&[i32]>| {
            let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
            let partition = ReassignablePartition::default()
                .with_partition_index(partition)
                .with_replicas(replicas);
            let topic = ReassignableTopic::default()
                .with_name(named(topic))
                .with_partitions(vec![partition]);
            AlterPartitionReassignmentsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(30_000)
        };
        case.call("to where it is", &assign(&orders, 0, Some(&[1])));
        case.call(
            "to a broker that is not there",
            &assign(&orders, 0, Some(&[9])),
        );
        case.call("to nobody", &assign(&orders, 0, Some(&[])));
        case.call("to a negative broker", &assign(&orders, 0, Some(&[-1])));
        case.call(
            "to the same broker twice",
            &assign(&orders, 0, Some(&[1, 1])),
        );
        case.call("cancelled", &assign(&orders, 0, None));
        case.call("unknown partition", &assign(&orders, 7, Some(&[1])));
        case.call(
            "unknown topic",
            &assign(&case.name("nobody"), 0, Some(&[1])),
        );
        case.call("none", &AlterPartitionReassignmentsRequest::default());
    });
    script.each::<ListPartitionReassignmentsRequest>("list reassignments", |case| {
        let orders = case.topic("orders", 2, &[]);
        let list = |topic: &str, partitions: &[i32]| {
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(named(topic))
                .with_partition_indexes(partitions.to_vec());
            ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic]))
        };
        case.call(
            "all",
            &ListPartitionReassignmentsRequest::default().with_topics(None),
        );
        case.call("of a topic", &list(&orders, &[0, 1]));
        case.call("unknown partition", &list(&orders, &[7]));
        case.call("unknown topic", &list(&case.name("nobody"), &[0]));
    });
}

fn log_dirs(script: &mut Script) {
    script.each::<DescribeLogDirsRequest>("describe log directories", |case| {
        let orders = case.topic("orders", 1, &super::super::data::produce::KEPT);
        produced(case, &orders, batches::plain(&["a"]));
        let of = |topic: &str, partitions: &[i32]| {
            let topic = DescribableLogDirTopic::default()
                .with_topic(named(topic))
                .with_partitions(partitions.to_vec());
            DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
        };
        case.call("of a topic", &of(&orders, &[0]));
        case.call("unknown partition", &of(&orders, &[7]));
        case.call("unknown topic", &of(&case.name("nobody"), &[0]));
        case.call("no partition", &of(&orders, &[]));
        let none = DescribeLogDirsRequest::default().with_topics(Some(vec![]));
        case.call("no topic", &none);
        let all = DescribeLogDirsRequest::default().with_topics(None);
        case.edited("all", case.version, &all, |answer| {
            for dir in &mut answer.results {
                dir.topics.retain(|topic| topic.name.as_str() == orders);
            }
        });
    });
    script.each::<AlterReplicaLogDirsRequest>("move between log directories", |case| {
        let orders = case.topic("orders", 1, &[]);
        let to = |path: &str, topic: &str, partition: i32| {
            let topic = AlterReplicaLogDirTopic::default()
                .with_name(named(topic))
                .with_partitions(vec![partition]);
            let dir = AlterReplicaLogDir::default()
                .with_path(text(path))
                .with_topics(vec![topic]);
            AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
        };
        case.call("one that is not there", &to("/nowhere", &orders, 0));
        case.call("no absolute path", &to("nowhere", &orders, 0));
        case.call("unknown partition", &to("/nowhere", &orders, 7));
        case.call("unknown topic", &to("/nowhere", &case.name("nobody"), 0));
        case.call("none", &AlterReplicaLogDirsRequest::default());
    });
}
