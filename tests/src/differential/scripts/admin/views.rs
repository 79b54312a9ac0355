//! DescribeQuorum, DescribeTopicPartitions, ListConfigResources, OffsetDelete.

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopicPartitionsRequest,
    ListConfigResourcesRequest, OffsetDeleteRequest,
};

use super::super::super::case::Script;
use super::super::groups::{group_id, stable};
use super::super::named;
use super::super::offsets::committed;

pub(super) fn run(script: &mut Script) {
    quorum(script);
    topic_partitions(script);
    config_resources(script);
    offset_delete(script);
}

/// Where the metadata log stands is no business of a script.
fn without_positions(answer: &mut DescribeQuorumResponse) {
    for partition in answer
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
    {
        partition.high_watermark = partition.high_watermark.min(0);
        partition.leader_epoch = partition.leader_epoch.min(0);
        for replica in partition
            .current_voters
            .iter_mut()
            .chain(&mut partition.observers)
        {
            replica.log_end_offset = replica.log_end_offset.min(0);
        }
    }
}

fn quorum(script: &mut Script) {
    script.each::<DescribeQuorumRequest>("describe the quorum", |case| {
        let version = case.version;
        let of = |topic: &str, index: i32| {
            let partition = PartitionData::default().with_partition_index(index);
            let topic = TopicData::default()
                .with_topic_name(named(topic))
                .with_partitions(vec![partition]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        case.edited(
            "of the metadata",
            version,
            &of("__cluster_metadata", 0),
            without_positions,
        );
        case.edited(
            "unknown partition",
            version,
            &of("__cluster_metadata", 7),
            without_positions,
        );
        case.edited(
            "of another topic",
            version,
            &of("orders", 0),
            without_positions,
        );
        case.edited(
            "of nothing",
            version,
            &DescribeQuorumRequest::default(),
            without_positions,
        );
    });
}

fn topic_partitions(script: &mut Script) {
    script.each::<DescribeTopicPartitionsRequest>("describe topic partitions", |case| {
        let (a, b) = (case.topic("a", 3, &[]), case.topic("b", 2, &[]));
        let of = |topics: &[&str], limit: i32, cursor: Option<(&str, i32)>| {
            let topics = topics
                .iter()
                .map(|topic| TopicRequest::default().with_name(named(topic)));
            let cursor = cursor.map(|(topic, index)| {
                Cursor::default()
                    .with_topic_name(named(topic))
                    .with_partition_index(index)
            });
            DescribeTopicPartitionsRequest::default()
                .with_topics(topics.collect())
                .with_response_partition_limit(limit)
                .with_cursor(cursor)
        };
        case.call("one", &of(&[&a], 2000, None));
        case.call("two, in another order", &of(&[&b, &a], 2000, None));
        case.call("no more than four partitions", &of(&[&a, &b], 4, None));
        case.call("on from there", &of(&[&a, &b], 4, Some((&b, 1))));
        case.call("from within the first", &of(&[&a, &b], 2000, Some((&a, 2))));
        case.call(
            "from behind the end of the first",
            &of(&[&a, &b], 2000, Some((&a, 9))),
        );
        case.call(
            "from a negative partition",
            &of(&[&a], 2000, Some((&a, -1))),
        );
        case.call("unknown topic", &of(&[&case.name("nobody")], 2000, None));
        case.call("a name that cannot be", &of(&["a b"], 2000, None));
        case.call("no name", &of(&[""], 2000, None));
        case.call("the same twice", &of(&[&a, &a], 2000, None));
        case.call("a limit of zero", &of(&[&a], 0, None));
        case.call("a negative limit", &of(&[&a], -1, None));
    });
}

fn config_resources(script: &mut Script) {
    script.each::<ListConfigResourcesRequest>("list config resources", |case| {
        let version = case.version;
        let orders = case.topic("orders", 1, &[]);
        if version == 0 {
            case.call("of client metrics", &ListConfigResourcesRequest::default());
            return;
        }
        let of = |types: &[i8]| {
            ListConfigResourcesRequest::default().with_resource_types(types.to_vec())
        };
        for (step, types) in [
            ("topics", &[2_i8][..]),
            ("brokers", &[4]),
            ("loggers", &[8]),
            ("client metrics", &[16]),
            ("groups", &[32]),
            ("of no kind", &[99]),
            ("all", &[]),
        ] {
            case.edited(step, version, &of(types), |answer| {
                answer.config_resources.retain(|resource| {
                    resource.resource_type != 2 || resource.resource_name.as_str() == orders
                });
                answer.config_resources.sort_by_key(|resource| {
                    (resource.resource_type, resource.resource_name.to_string())
                });
            });
        }
    });
}

fn offset_delete(script: &mut Script) {
    script.each::<OffsetDeleteRequest>("delete offsets", |case| {
        let topic = case.topic("orders", 2, &[]);
        let group = case.group("g");
        let delete = |group: &str, topic: &str, partitions: &[i32]| {
            let partitions = partitions
                .iter()
                .map(|index| OffsetDeleteRequestPartition::default().with_partition_index(*index));
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(named(topic))
                .with_partitions(partitions.collect());
            OffsetDeleteRequest::default()
                .with_group_id(group_id(group))
                .with_topics(vec![topic])
        };
        case.call("unknown group", &delete(&group, &topic, &[0]));
        committed(case, &group, &topic, 0, 5);
        case.call("one", &delete(&group, &topic, &[0]));
        committed(case, &group, &topic, 0, 5);
        committed(case, &group, &topic, 1, 5);
        case.call("one that was not committed", &delete(&group, &topic, &[0]));
        case.call("unknown partition", &delete(&group, &topic, &[7]));
        case.call("unknown topic", &delete(&group, &case.name("nobody"), &[0]));
        case.call("no partition", &delete(&group, &topic, &[]));
        let busy = case.group("busy");
        stable(case, &busy);
        case.call("of a group with a member", &delete(&busy, &topic, &[0]));
    });
}
