//! TxnOffsetCommit (key 28), versions 0–5.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: leader epochs. 3: flexible; the member that commits (KIP-447).
//! - 4: TRANSACTION_ABORTABLE. 5: the group joins the transaction by this (KIP-890).
//!
//! Left out: groups of the new protocol. The offsets are pending until the transaction ends.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use keelson_protocol::kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use keelson_state::groups::{CommitEntry, CommitRequest};
use keelson_state::transactions::{AddRequest, TransactionError};

use super::add_offsets_to_txn::place_of;
use super::common::{code, first_error};
use super::offset_commit::failures;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::transactions::TransactionsError;

/// First version in which the group joins the transaction by this request.
const ADDS_VERSION_MIN: i16 = 5;
/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 4;
/// First version that names a member.
const MEMBER_VERSION_MIN: i16 = 3;
/// First version whose clients know COORDINATOR_LOAD_IN_PROGRESS here.
const LOADING_VERSION_MIN: i16 = 2;

/// The handler.
pub struct TxnOffsetCommit;

impl Api for TxnOffsetCommit {
    type Request = TxnOffsetCommitRequest;
    type Response = TxnOffsetCommitResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<TxnOffsetCommitRequest>,
    ) -> Outcome<TxnOffsetCommitResponse> {
        let broker = Arc::clone(broker);
        let Call {
            version, mut body, ..
        } = call;
        Outcome::later(async move {
            let asked = std::mem::take(&mut body.topics);
            let (mut topics, entries, places) = split(&broker, asked);
            let count = entries.len();
            let failures = if entries.is_empty() {
                Vec::new()
            } else {
                let failures = commit(&broker, version, &body, entries).await;
                failures.unwrap_or_else(|error| vec![Some(error); count])
            };
            for ((topic, partition), failure) in places.into_iter().zip(failures) {
                let answer: &mut TxnOffsetCommitResponseTopic = &mut topics[topic];
                let failure = failure.map(|error| known(error, version));
                answer.partitions[partition].error_code = code(failure);
            }
            let partitions = topics.iter().flat_map(|topic| &topic.partitions);
            let first = first_error(partitions.map(|partition| partition.error_code));
            Answer::new(
                TxnOffsetCommitResponse::default().with_topics(topics),
                first,
            )
        })
    }
}

/// Errors that clients of old versions do not expect here.
fn known(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::CoordinatorLoadInProgress if version < LOADING_VERSION_MIN => {
            ErrorCode::CoordinatorNotAvailable
        }
        // A member of a group that is not there is told of its generation, in every version.
        ErrorCode::GroupIdNotFound => ErrorCode::IllegalGeneration,
        error => error,
    }
}

async fn commit(
    broker: &Arc<Broker>,
    version: i16,
    body: &TxnOffsetCommitRequest,
    entries: Vec<CommitEntry>,
) -> Result<Vec<Option<ErrorCode>>, ErrorCode> {
    if body.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    enrol(broker, version, body).await?;
    let named = version >= MEMBER_VERSION_MIN;
    let instance_id = body.group_instance_id.as_ref();
    let request = CommitRequest {
        group: body.group_id.to_string(),
        generation: if named { body.generation_id } else { -1 },
        member_id: body.member_id.to_string(),
        instance_id: instance_id.map(|id| id.to_string()),
        producer: Some((body.producer_id.0, body.producer_epoch)),
        retention_ms: None,
        entries,
    };
    failures(broker.coordinator.commit(request).await)
}

/// The group's partition of `__consumer_offsets` must be in the transaction.
async fn enrol(
    broker: &Arc<Broker>,
    version: i16,
    body: &TxnOffsetCommitRequest,
) -> Result<(), ErrorCode> {
    let producer = (body.producer_id.0, body.producer_epoch);
    let place = place_of(broker, &body.group_id).ok_or(ErrorCode::NotCoordinator)?;
    let owner = broker.partitions.partition(&place.0, place.1);
    if owner.is_some_and(|owner| owner.may_write(producer.0, producer.1)) {
        return Ok(());
    }
    let request = AddRequest {
        transactional_id: body.transactional_id.to_string(),
        producer,
        partitions: [place].into(),
        bumps_epoch: version >= ADDS_VERSION_MIN,
    };
    let result = if version >= ADDS_VERSION_MIN {
        broker.transactions.add(request).await
    } else {
        let missing = broker.transactions.verify(request).await;
        missing.and_then(|missing| match missing.is_empty() {
            true => Ok(()),
            false => Err(TransactionError::TransactionAbortable.into()),
        })
    };
    result.map_err(|error| refused(&error, version))
}

fn refused(error: &TransactionsError, version: i16) -> ErrorCode {
    match errors::transaction(error, false) {
        ErrorCode::TransactionAbortable if version < ABORTABLE_VERSION_MIN => {
            ErrorCode::InvalidTxnState
        }
        // Every client tries again on this one.
        ErrorCode::ConcurrentTransactions => ErrorCode::CoordinatorLoadInProgress,
        code => code,
    }
}

type Split = (
    Vec<TxnOffsetCommitResponseTopic>,
    Vec<CommitEntry>,
    Vec<(usize, usize)>,
);

/// The answer with what is unknown refused in it, the rest as entries, and where each entry stands in the answer.
fn split(broker: &Broker, topics: Vec<TxnOffsetCommitRequestTopic>) -> Split {
    let (mut answers, mut entries, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for topic in topics {
        let known = broker.partitions.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let answer = TxnOffsetCommitResponsePartition::default().with_partition_index(index);
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
            let metadata = partition.committed_metadata;
            entries.push(CommitEntry {
                topic: topic.name.to_string(),
                partition: index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: metadata.map(|m| m.to_string()).unwrap_or_default(),
            });
        }
        answers.push(
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    (answers, entries, places)
}
