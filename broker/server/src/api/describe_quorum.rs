//! DescribeQuorum (key 55), versions 0–2.
//!
//! - 0: all there is (KIP-595), flexible. 1: times of the last fetch (KIP-836). 2: directory ids, nodes, messages (KIP-853).
//!
//! The quorum of `__cluster_metadata` is this broker alone: it leads, in the epoch of its start, and everything durable
//! is committed. Left out: observers, of which there are none. Its endpoint is the one that clients are told.

use std::sync::Arc;

use keelson_log::PartitionId;
use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_quorum_request as ask;
use keelson_protocol::kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use keelson_protocol::kafka_protocol::messages::{
    BrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
};
use keelson_state::metadata::{CLUSTER_METADATA, CLUSTER_METADATA_ID};
use uuid::Uuid;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::listeners::Listeners;

/// The handler.
pub struct DescribeQuorum;

impl Api for DescribeQuorum {
    type Request = DescribeQuorumRequest;
    type Response = DescribeQuorumResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeQuorumRequest>,
    ) -> Outcome<DescribeQuorumResponse> {
        let Call { version, body, .. } = call;
        let known = match body.topics.as_slice() {
            [topic] => {
                topic.topic_name.as_str() == CLUSTER_METADATA
                    && matches!(topic.partitions.as_slice(), [p] if p.partition_index == 0)
            }
            _ => false,
        };
        if !known {
            return Outcome::Ready(unknown(version, body.topics));
        }
        let topic = TopicData::default()
            .with_topic_name(body.topics[0].topic_name.clone())
            .with_partitions(vec![quorum(broker, version)]);
        let response = DescribeQuorumResponse::default()
            .with_topics(vec![topic])
            .with_nodes(if version >= 2 {
                nodes(broker)
            } else {
                Vec::new()
            });
        Outcome::ok(response)
    }
}

fn quorum(broker: &Broker, version: i16) -> PartitionData {
    let this = BrokerId(broker.id());
    let log = broker.log.partition(PartitionId {
        topic: keelson_log::TopicId(CLUSTER_METADATA_ID),
        index: 0,
    });
    let durable = log.as_ref().map_or(-1, |log| log.durable_offset());
    let now_ms = broker.now_ms();
    let mut voter = ReplicaState::default()
        .with_replica_id(this)
        .with_log_end_offset(log.map_or(-1, |log| log.next_offset()));
    if version >= 1 {
        voter = voter
            .with_last_fetch_timestamp(now_ms)
            .with_last_caught_up_timestamp(now_ms);
    }
    if version >= 2 {
        voter = voter.with_replica_directory_id(directory_id(broker));
    }
    let epoch = i32::try_from(broker.image().broker_epoch()).unwrap_or(i32::MAX);
    PartitionData::default()
        .with_leader_id(this)
        .with_leader_epoch(epoch)
        .with_high_watermark(durable)
        .with_current_voters(vec![voter])
}

fn directory_id(broker: &Broker) -> Uuid {
    // A directory of an older version may have an id of another form: then none is shown.
    Uuid::parse_str(&broker.identity.directory_id).unwrap_or_default()
}

fn nodes(broker: &Broker) -> Vec<Node> {
    let views = broker.listeners().into_iter().flat_map(Listeners::views);
    let listeners = views.filter_map(|view| {
        let address = view.advertised.address.as_ref()?;
        let listener = Listener::default()
            .with_name(text(view.name.to_owned()))
            .with_host(text(address.host.clone()))
            .with_port(address.port);
        Some(listener)
    });
    let node = Node::default()
        .with_node_id(BrokerId(broker.id()))
        .with_listeners(listeners.collect());
    vec![node]
}

fn unknown(version: i16, topics: Vec<ask::TopicData>) -> Answer<DescribeQuorumResponse> {
    let error = ErrorCode::UnknownTopicOrPartition;
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let answer = PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code());
            match version >= 2 {
                true => answer.with_error_message(Some(text("there is no such partition"))),
                false => answer,
            }
        });
        TopicData::default()
            .with_topic_name(topic.topic_name)
            .with_partitions(partitions.collect())
    });
    let response = DescribeQuorumResponse::default().with_topics(topics.collect());
    Answer::failed(response, error)
}
