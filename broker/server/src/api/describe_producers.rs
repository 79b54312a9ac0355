//! DescribeProducers (key 61), versions 0–0.
//!
//! - 0: all there is (KIP-664).
//!
//! Left out: more producers in one answer than 100,000 and those of the partition that goes above (INVALID_REQUEST for
//! partitions behind it). Shown are producers that have not expired, with their open transactions.

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

/// Producers in one answer: a small request could else ask for those of one partition a thousand times.
const PRODUCERS_MAX: usize = 100_000;

/// The handler.
pub struct DescribeProducers;

impl Api for DescribeProducers {
    type Request = DescribeProducersRequest;
    type Response = DescribeProducersResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeProducersRequest>,
    ) -> Outcome<DescribeProducersResponse> {
        let (mut first, mut shown) = (None, 0);
        let mut topics = Vec::with_capacity(call.body.topics.len());
        for topic in call.body.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for index in topic.partition_indexes {
                let owner = broker.partitions.partition(&topic.name, index);
                let producers = match owner {
                    None => Err((
                        ErrorCode::UnknownTopicOrPartition,
                        "there is no such partition",
                    )),
                    Some(_) if shown >= PRODUCERS_MAX => Err((
                        ErrorCode::InvalidRequest,
                        "too many producers for one answer",
                    )),
                    Some(owner) => Ok(owner.producer_views()),
                };
                let answer = PartitionResponse::default().with_partition_index(index);
                partitions.push(match producers {
                    Ok(views) => {
                        shown += views.len();
                        answer.with_active_producers(views.into_iter().map(state).collect())
                    }
                    Err((error, message)) => {
                        first.get_or_insert(error);
                        answer
                            .with_error_code(error.code())
                            .with_error_message(Some(text(message)))
                    }
                });
            }
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
