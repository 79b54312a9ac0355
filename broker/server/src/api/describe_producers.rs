//! DescribeProducers (key 61), versions 0–0.
//!
//! - 0: all there is (KIP-664).
//!
//! Left out: nothing. Producers of a partition that have not expired, with their open transactions.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use keelson_protocol::kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId,
};
use keelson_state::producers::ProducerView;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct DescribeProducers;

impl Api for DescribeProducers {
    type Request = DescribeProducersRequest;
    type Response = DescribeProducersResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeProducersRequest>,
    ) -> Outcome<DescribeProducersResponse> {
        let mut first = None;
        let mut topics = Vec::with_capacity(call.body.topics.len());
        for topic in call.body.topics {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let answer = PartitionResponse::default().with_partition_index(*index);
                match broker.partitions.partition(&topic.name, *index) {
                    Some(owner) => answer.with_active_producers(
                        owner.producer_views().into_iter().map(state).collect(),
                    ),
                    None => {
                        let error = ErrorCode::UnknownTopicOrPartition;
                        first.get_or_insert(error);
                        answer
                            .with_error_code(error.code())
                            .with_error_message(Some(text("there is no such partition")))
                    }
                }
            });
            let partitions = partitions.collect();
            topics.push(
                TopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        let response = DescribeProducersResponse::default().with_topics(topics);
        Outcome::Ready(Answer::new(response, first))
    }
}

fn state(view: ProducerView) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(view.producer_id))
        .with_producer_epoch(view.epoch.into())
        .with_last_sequence(view.last_sequence)
        .with_last_timestamp(view.last_active_ms)
        .with_coordinator_epoch(view.coordinator_epoch)
        .with_current_txn_start_offset(view.open_from)
}
