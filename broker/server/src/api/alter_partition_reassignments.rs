//! AlterPartitionReassignments (key 45), versions 0–1.
//!
//! - 0: all there is (KIP-455), flexible. 1: whether the number of replicas may change (KIP-860).
//!
//! Left out: moving anything: there is one broker. To be where it is succeeds at once, every other placement is refused
//! as Kafka refuses it with one broker, and there is never a move to cancel (NO_REASSIGNMENT_IN_PROGRESS).

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use keelson_protocol::kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use keelson_protocol::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use keelson_state::metadata::check_reassignment;

use super::common::{first_error, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct AlterPartitionReassignments;

impl Api for AlterPartitionReassignments {
    type Request = AlterPartitionReassignmentsRequest;
    type Response = AlterPartitionReassignmentsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<AlterPartitionReassignmentsRequest>,
    ) -> Outcome<AlterPartitionReassignmentsResponse> {
        let Call { version, body, .. } = call;
        let image = broker.image();
        let answer = |topic: &str, partition: ReassignablePartition| {
            let replicas = partition
                .replicas
                .map(|replicas| replicas.iter().map(|id| id.0).collect::<Vec<i32>>());
            let index = partition.partition_index;
            let response = ReassignablePartitionResponse::default().with_partition_index(index);
            match check_reassignment(&image, broker.id(), (topic, index), replicas.as_deref()) {
                Ok(()) => response.with_error_message(None),
                Err(error) => response
                    .with_error_code(errors::metadata(&error).code())
                    .with_error_message(Some(text(error.to_string()))),
            }
        };
        let mut responses = Vec::with_capacity(body.topics.len());
        for topic in body.topics {
            let partitions = topic.partitions.into_iter();
            let partitions = partitions.map(|partition| answer(&topic.name, partition));
            let partitions = partitions.collect();
            responses.push(
                ReassignableTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        let partitions = responses.iter().flat_map(|topic| &topic.partitions);
        let error = first_error(partitions.map(|partition| partition.error_code));
        let may_change = version < 1 || body.allow_replication_factor_change;
        let response = AlterPartitionReassignmentsResponse::default()
            .with_error_message(None)
            .with_allow_replication_factor_change(may_change)
            .with_responses(responses);
        Outcome::Ready(Answer::new(response, error))
    }
}
