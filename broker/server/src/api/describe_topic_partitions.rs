//! DescribeTopicPartitions (key 75), versions 0–0.
//!
//! - 0: all there is (KIP-966), flexible.
//!
//! Topics come in order of name, and partitions up to a limit (the client's, or `max.request.partition.size.limit`): what is left begins at the cursor of the answer. Left
//! out: eligible leader replicas, of which one broker has none. Authorised operations are all of them, since nobody is
//! refused anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use keelson_state::metadata::{Image, Topic, is_internal, validate_topic_name};
use uuid::Uuid;

use super::common::{OPERATIONS_UNKNOWN, TOPIC_OPERATIONS, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct DescribeTopicPartitions;

impl Api for DescribeTopicPartitions {
    type Request = DescribeTopicPartitionsRequest;
    type Response = DescribeTopicPartitionsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeTopicPartitionsRequest>,
    ) -> Outcome<DescribeTopicPartitionsResponse> {
        let body = call.body;
        let image = broker.image();
        let all = body.topics.is_empty();
        let (from, from_partition) = match &body.cursor {
            Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
            None => ("", 0),
        };
        let names: BTreeSet<&str> = if all {
            image.topics().map(|topic| &*topic.name).collect()
        } else {
            body.topics
                .iter()
                .map(|topic| topic.name.as_str())
                .collect()
        };
        let lacks_cursor = !all && body.cursor.is_some() && !names.contains(from);
        if lacks_cursor || from_partition < 0 {
            return Outcome::Ready(refused(names));
        }
        let answer = Page {
            broker: BrokerId(broker.id()),
            image: &image,
            room: body
                .response_partition_limit
                .clamp(1, broker.config.max_request_partitions),
            topics: Vec::new(),
            next: None,
        };
        Outcome::Ready(answer.fill(names, from, from_partition))
    }
}

/// An answer that is being filled.
struct Page<'a> {
    broker: BrokerId,
    image: &'a Image,
    /// Partitions that it still takes.
    room: i32,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page<'_> {
    fn fill(
        mut self,
        names: BTreeSet<&str>,
        from: &str,
        from_partition: i32,
    ) -> Answer<DescribeTopicPartitionsResponse> {
        let mut first = None;
        for name in names.range(from..) {
            let start = if *name == from { from_partition } else { 0 };
            if self.room == 0 {
                self.next = Some(cursor(name, 0));
            } else if let Some(topic) = self.image.topic(name).cloned() {
                self.topic(&topic, start);
            } else {
                let error = validate_topic_name(name).err();
                let error = error.map_or(ErrorCode::UnknownTopicOrPartition, |error| {
                    errors::metadata(&error)
                });
                first.get_or_insert(error);
                self.topics.push(unknown(name, error));
            }
            if self.next.is_some() {
                break;
            }
        }
        let response = DescribeTopicPartitionsResponse::default()
            .with_topics(self.topics)
            .with_next_cursor(self.next);
        Answer::new(response, first)
    }

    fn topic(&mut self, topic: &Topic, start: i32) {
        let end = topic.partitions.min(start.saturating_add(self.room));
        let (this, epoch) = (self.broker, self.image.leader_epoch(topic));
        let partitions = (start..end).map(|index| {
            DescribeTopicPartitionsResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(this)
                .with_leader_epoch(epoch)
                .with_replica_nodes(vec![this])
                .with_isr_nodes(vec![this])
                .with_eligible_leader_replicas(Some(Vec::new()))
                .with_last_known_elr(Some(Vec::new()))
        });
        self.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(TopicName(text(&*topic.name))))
                .with_topic_id(Uuid::from_bytes(topic.id))
                .with_is_internal(is_internal(&topic.name))
                .with_partitions(partitions.collect())
                .with_topic_authorized_operations(TOPIC_OPERATIONS),
        );
        if end < topic.partitions {
            self.next = Some(cursor(&topic.name, end));
        }
        self.room -= (end - start).max(0);
    }
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(text(topic)))
        .with_partition_index(partition)
}

fn unknown(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(TopicName(text(name))))
        .with_is_internal(is_internal(name))
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
}

/// The answer has no error of its own: every topic says it.
fn refused(names: BTreeSet<&str>) -> Answer<DescribeTopicPartitionsResponse> {
    let error = ErrorCode::InvalidRequest;
    let topics = names.into_iter().map(|name| unknown(name, error)).collect();
    let response = DescribeTopicPartitionsResponse::default().with_topics(topics);
    Answer::failed(response, error)
}
