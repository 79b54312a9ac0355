//! The first batch of a transaction in a partition: its coordinator is asked before it enters (KIP-890).
//!
//! Owns which batches need that, and what a client is told when the coordinator says no. The batch itself is judged by its
//! partition, which takes it only with the coordinator's word.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::ProduceRequest;
use keelson_protocol::{BatchHeader, ErrorCode, claims_transaction};
use keelson_state::transactions::{AddRequest, TopicPartition, TransactionError};

use super::{Refused, Request};
use crate::broker::Broker;
use crate::errors;
use crate::transactions::TransactionsError;

/// First version in which a batch adds its partition to the transaction by itself.
const ADDS_VERSION_MIN: i16 = 12;
/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 11;

/// What the coordinator is to be asked.
pub(super) struct Enrolment {
    request: AddRequest,
    version: i16,
}

/// What must be asked before the batches of a request enter; mostly nothing.
pub(super) fn needed(
    request: &Request,
    version: i16,
    body: &ProduceRequest,
) -> Result<Option<Enrolment>, Refused> {
    let mut producer = None;
    let mut partitions: BTreeSet<TopicPartition> = BTreeSet::new();
    for topic in &body.topic_data {
        for partition in &topic.partition_data {
            let records = partition.records.as_deref().unwrap_or_default();
            // Most batches are of none, and their header is read when they are judged.
            if !claims_transaction(records) {
                continue;
            }
            let Ok(header) = BatchHeader::parse(records) else {
                // It will be refused.
                continue;
            };
            if !header.has_producer_id() {
                continue;
            }
            let of_batch = (header.producer_id, header.producer_epoch);
            if *producer.get_or_insert(of_batch) != of_batch {
                return Err(Refused::new(
                    ErrorCode::InvalidProducerIdMapping,
                    "the request has batches of more than one transactional producer".to_owned(),
                ));
            }
            let Ok(state) = request.find(&topic.name, topic.topic_id.as_bytes()) else {
                continue;
            };
            let owner = state.partition(partition.index);
            if owner.is_some_and(|owner| !owner.may_write(of_batch.0, of_batch.1)) {
                partitions.insert((Arc::clone(&state.topic.name), partition.index));
            }
        }
    }
    let Some(producer) = producer else {
        return Ok(None);
    };
    let Some(transactional_id) = &body.transactional_id else {
        return Err(Refused::new(
            ErrorCode::TransactionalIdAuthorizationFailed,
            "records of a transaction without a transactional id".to_owned(),
        ));
    };
    if body.acks == 0 {
        return Err(Refused::new(
            ErrorCode::InvalidRequiredAcks,
            "records of a transaction must be acknowledged".to_owned(),
        ));
    }
    if partitions.is_empty() {
        return Ok(None);
    }
    Ok(Some(Enrolment {
        request: AddRequest {
            transactional_id: transactional_id.to_string(),
            producer,
            partitions,
            bumps_epoch: version >= ADDS_VERSION_MIN,
        },
        version,
    }))
}

impl Enrolment {
    /// Asks the coordinator: what is refused, by partition.
    pub(super) async fn ask(self, broker: &Arc<Broker>) -> HashMap<TopicPartition, Refused> {
        let partitions = self.request.partitions.clone();
        let all = |refused: Refused| {
            let each = partitions.iter().cloned();
            each.map(|place| (place, refused.clone())).collect()
        };
        if self.version >= ADDS_VERSION_MIN {
            return match broker.transactions.add(self.request).await {
                Ok(()) => HashMap::new(),
                Err(error) => all(refused(&error, self.version)),
            };
        }
        match broker.transactions.verify(self.request).await {
            Ok(missing) => {
                let abortable = TransactionError::TransactionAbortable.into();
                let refused = refused(&abortable, self.version);
                let each = missing.into_iter();
                each.map(|place| (place, refused.clone())).collect()
            }
            Err(error) => all(refused(&error, self.version)),
        }
    }
}

/// What a producer is told; only errors that producers of this version know.
fn refused(error: &TransactionsError, version: i16) -> Refused {
    let knows_concurrent = version >= ADDS_VERSION_MIN;
    let code = match errors::transaction(error, false) {
        ErrorCode::TransactionAbortable if version < ABORTABLE_VERSION_MIN => {
            ErrorCode::InvalidTxnState
        }
        // Retriable for every client, and it makes none look for another leader.
        ErrorCode::ConcurrentTransactions if !knows_concurrent => ErrorCode::NotEnoughReplicas,
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        code => code,
    };
    let message = match error {
        TransactionsError::Refused(error) => error.to_string(),
        TransactionsError::Loading
        | TransactionsError::NotCoordinator
        | TransactionsError::Unavailable => {
            "the transaction's coordinator cannot be asked now".to_owned()
        }
    };
    Refused::new(code, message)
}
