//! ElectLeaders (key 43), versions 0–2.
//!
//! - 0: preferred leaders (KIP-183). 1: unclean ones (KIP-460), an error for the whole answer. 2: flexible.
//!
//! Left out: elections: the one broker leads every partition, and is its preferred leader, so that none is needed
//! (ELECTION_NOT_NEEDED; left out of the answer when all partitions are meant, as Kafka does).

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::elect_leaders_response::{
    PartitionResult, ReplicaElectionResult,
};
use keelson_protocol::kafka_protocol::messages::{
    ElectLeadersRequest, ElectLeadersResponse, TopicName,
};
use keelson_state::metadata::check_election;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// Preferred and unclean.
const ELECTION_TYPES: [i8; 2] = [0, 1];

/// The handler.
pub struct ElectLeaders;

impl Api for ElectLeaders {
    type Request = ElectLeadersRequest;
    type Response = ElectLeadersResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<ElectLeadersRequest>,
    ) -> Outcome<ElectLeadersResponse> {
        let Call { version, body, .. } = call;
        if version >= 1 && !ELECTION_TYPES.contains(&body.election_type) {
            let error = ErrorCode::InvalidRequest;
            let response = ElectLeadersResponse::default().with_error_code(error.code());
            return Outcome::Ready(Answer::failed(response, error));
        }
        let image = broker.image();
        let Some(topics) = body.topic_partitions else {
            let nothing =
                |name: &str| ReplicaElectionResult::default().with_topic(TopicName(text(name)));
            let results = image.topics().map(|topic| nothing(&topic.name)).collect();
            let response = ElectLeadersResponse::default().with_replica_election_results(results);
            return Outcome::ok(response);
        };
        let mut first = None;
        let mut results = Vec::with_capacity(topics.len());
        for topic in topics {
            let partitions = topic.partitions.into_iter().map(|index| {
                let error = check_election(&image, &topic.topic, index);
                let code = errors::metadata(&error);
                first.get_or_insert(code);
                PartitionResult::default()
                    .with_partition_id(index)
                    .with_error_code(code.code())
                    .with_error_message(Some(text(error.to_string())))
            });
            let partitions = partitions.collect();
            results.push(
                ReplicaElectionResult::default()
                    .with_topic(topic.topic)
                    .with_partition_result(partitions),
            );
        }
        let response = ElectLeadersResponse::default().with_replica_election_results(results);
        Outcome::Ready(Answer::new(response, first))
    }
}
