//! OffsetCommit (key 8), versions 2–9.
//!
//! - 2: retention time. 3: throttle time. 4: nothing new on the wire. 5: no retention time any more (KIP-211).
//! - 6: leader epochs (KIP-320). 7: static members (KIP-345). 8: flexible. 9: the new group protocol (KIP-848).
//!
//! Left out: groups of the new protocol; topic ids (version 10). The retention time of versions 2 to 4 counts for the
//! offsets it comes with, as in Kafka. Commits from members and from outside a group (generation −1) both count once durable.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use keelson_protocol::kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use keelson_state::groups::{CommitEntry, CommitRequest, GroupError};

use super::common::{code, first_error};
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// "As the broker likes", in the field of versions 2 to 4.
const DEFAULT_RETENTION: i64 = -1;

/// First version whose clients know GROUP_ID_NOT_FOUND here.
const NO_GROUP_VERSION_MIN: i16 = 9;

/// The handler.
pub struct OffsetCommit;

impl Api for OffsetCommit {
    type Request = OffsetCommitRequest;
    type Response = OffsetCommitResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<OffsetCommitRequest>,
    ) -> Outcome<OffsetCommitResponse> {
        let Call { version, body, .. } = call;
        let (mut topics, entries, places) = split(broker, body.topics);
        let count = entries.len();
        let request = CommitRequest {
            group: body.group_id.to_string(),
            generation: body.generation_id_or_member_epoch,
            member_id: body.member_id.to_string(),
            instance_id: body.group_instance_id.map(|id| id.to_string()),
            producer: None,
            retention_ms: Some(body.retention_time_ms).filter(|ms| *ms != DEFAULT_RETENTION),
            entries,
        };
        let committed = broker.coordinator.commit(request);
        Outcome::later(async move {
            let failures = failures(committed.await);
            let failures = failures.unwrap_or_else(|error| vec![Some(error); count]);
            for ((topic, partition), failure) in places.into_iter().zip(failures) {
                let answer: &mut OffsetCommitResponseTopic = &mut topics[topic];
                let failure = failure.map(|error| known(error, version));
                answer.partitions[partition].error_code = code(failure);
            }
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            let first = first_error(partitions.map(|partition| partition.error_code));
            Answer::new(OffsetCommitResponse::default().with_topics(topics), first)
        })
    }
}

/// Members of a group that is not there are told so from version 9 on.
fn known(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::GroupIdNotFound if version < NO_GROUP_VERSION_MIN => {
            ErrorCode::IllegalGeneration
        }
        error => error,
    }
}

/// What became of each entry, or why there is no answer.
pub(super) fn failures(
    committed: Result<Vec<Result<(), GroupError>>, CoordinatorError>,
) -> Result<Vec<Option<ErrorCode>>, ErrorCode> {
    let results = committed.map_err(|error| errors::coordinator(&error))?;
    let failure = |result: &Result<(), GroupError>| result.as_ref().err().map(errors::group);
    Ok(results.iter().map(failure).collect())
}

type Split = (
    Vec<OffsetCommitResponseTopic>,
    Vec<CommitEntry>,
    Vec<(usize, usize)>,
);

/// The answer with what is unknown refused in it, the rest as entries, and where each entry stands in the answer.
fn split(broker: &Broker, topics: Vec<OffsetCommitRequestTopic>) -> Split {
    let (mut answers, mut entries, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for topic in topics {
        let known = broker.partitions.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let answer = OffsetCommitResponsePartition::default().with_partition_index(index);
            let exists = known
                .as_ref()
                .is_some_and(|known| known.partition(index).is_some());
            if !exists {
                let unknown = ErrorCode::UnknownTopicOrPartition.code();
                partitions.push(answer.with_error_code(unknown));
                continue;
            }
            places.push((answers.len(), partitions.len()));
            partitions.push(answer);
            entries.push(CommitEntry {
                topic: topic.name.to_string(),
                partition: index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition
                    .committed_metadata
                    .map(|metadata| metadata.to_string())
                    .unwrap_or_default(),
            });
        }
        let answer = OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions);
        answers.push(answer);
    }
    (answers, entries, places)
}
