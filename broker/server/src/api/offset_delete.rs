//! OffsetDelete (key 47), versions 0–0.
//!
//! - 0: all there is (KIP-496).
//!
//! Left out: nothing. Offsets of a topic that a live group of consumers reads stay (GROUP_SUBSCRIBED_TO_TOPIC); a live
//! group of another kind keeps all of them (NON_EMPTY_GROUP).

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use keelson_protocol::kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use keelson_state::groups::DeleteOffsetsRequest;

use super::common::{code, first_error};
use super::offset_commit::failures;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct OffsetDelete;

impl Api for OffsetDelete {
    type Request = OffsetDeleteRequest;
    type Response = OffsetDeleteResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<OffsetDeleteRequest>,
    ) -> Outcome<OffsetDeleteResponse> {
        let (mut topics, partitions, places) = split(broker, call.body.topics);
        let deleted = broker.coordinator.delete_offsets(DeleteOffsetsRequest {
            group: call.body.group_id.to_string(),
            partitions,
        });
        Outcome::later(async move {
            let response = OffsetDeleteResponse::default();
            let failures = match failures(deleted.await) {
                Ok(failures) => failures,
                Err(error) => {
                    return Answer::failed(response.with_error_code(error.code()), error);
                }
            };
            for ((topic, partition), failure) in places.into_iter().zip(failures) {
                let answer: &mut OffsetDeleteResponseTopic = &mut topics[topic];
                answer.partitions[partition].error_code = code(failure);
            }
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            let first = first_error(partitions.map(|partition| partition.error_code));
            Answer::new(response.with_topics(topics), first)
        })
    }
}

type Split = (
    Vec<OffsetDeleteResponseTopic>,
    Vec<(String, i32)>,
    Vec<(usize, usize)>,
);

/// The answer with what is unknown refused in it, the rest by name and number, and where each of the rest stands.
fn split(broker: &Broker, topics: Vec<OffsetDeleteRequestTopic>) -> Split {
    let (mut answers, mut asked, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for topic in topics {
        let known = broker.partitions.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let answer = OffsetDeleteResponsePartition::default().with_partition_index(index);
            let held = known.as_ref().and_then(|known| known.partition(index));
            if held.is_none() {
                let unknown = ErrorCode::UnknownTopicOrPartition.code();
                partitions.push(answer.with_error_code(unknown));
                continue;
            }
            places.push((answers.len(), partitions.len()));
            partitions.push(answer);
            asked.push((topic.name.to_string(), index));
        }
        answers.push(
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    (answers, asked, places)
}
