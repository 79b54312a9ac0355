//! Consumer groups as tests play with them: members that stay, commits from outside, and what a client finds committed.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::rdk::{CLIENT_WITHIN, config};
use crate::wire::{Wire, text};
use crate::{Broker, wait_until};

fn consumer(broker: &Broker, group: &str) -> BaseConsumer {
    config(broker.bootstrap())
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer")
}

/// A member that has its partitions, and stays in the group until it is dropped.
#[track_caller]
pub fn member(broker: &Broker, topic: &str, group: &str) -> BaseConsumer {
    let member = consumer(broker, group);
    member.subscribe(&[topic]).expect("a subscription");
    wait_until("the member has its partitions", CLIENT_WITHIN, || {
        let _ = member.poll(std::time::Duration::from_millis(50));
        member.assignment().is_ok_and(|it| it.count() > 0)
    });
    member
}

/// What librdkafka finds committed by a group in these partitions.
#[track_caller]
pub fn committed(broker: &Broker, group: &str, topic: &str, partitions: i32) -> BTreeMap<i32, i64> {
    let mut wanted = TopicPartitionList::new();
    for partition in 0..partitions {
        wanted.add_partition(topic, partition);
    }
    let found = consumer(broker, group)
        .committed_offsets(wanted, CLIENT_WITHIN)
        .expect("committed offsets");
    let of = |offset| match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    found
        .elements()
        .iter()
        .filter_map(|it| Some((it.partition(), of(it.offset())?)))
        .collect()
}

/// Commits from outside of the group, with a note each: partition, offset, note.
#[track_caller]
pub fn commit(broker: &Broker, group: &str, topic: &str, offsets: &[(i32, i64, &str)]) {
    let partition = |(index, offset, note): &(i32, i64, &str)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*index)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text(note)))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(offsets.iter().map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    // A cluster that had no group yet makes its coordinators when the first one is asked for.
    let asked = FindCoordinatorRequest::default().with_key(text(group));
    wait_until("the coordinator takes the commit", CLIENT_WITHIN, || {
        let mut wire = Wire::connect(broker.bootstrap());
        wire.call(2, &asked);
        let answer = wire.call(7, &request);
        let partitions = &answer.topics[0].partitions;
        partitions.iter().all(|it| it.error_code == 0)
    });
}
