//! Produce (key 0), versions 3–13.
//!
//! - 3: record batches of format v2 only; transactional id.
//! - 4: KAFKA_STORAGE_ERROR. 5: log start offset. 7: zstd (KIP-110). 8: errors per record (KIP-467).
//! - 9: flexible. 10: the current leader beside an error (KIP-951). 11, 12: transactions 2 (KIP-890), nothing on the wire.
//! - 13: topics by id (KIP-516).
//!
//! Left out: the current leader beside an error (there is one broker). Versions 0–2 are advertised, as Kafka does, and
//! answered with UNSUPPORTED_VERSION by the connection.
//!
//! The first batch of a transaction in a partition asks the transaction's coordinator: from version 12 on that adds the
//! partition, before it must have been added. Nothing else of the connection starts meanwhile, so that the order stays.
//!
//! The path: every batch is validated and enters its partition before the handler returns, so that requests of one
//! connection enter in arrival order; the answer waits until all of them are durable. acks=1 and acks=all are the same
//! on one broker; acks=0 has no answer, and an error closes the connection, the only way to tell.

mod enrol;
mod validate;
mod wait;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::produce_request::PartitionProduceData;
use keelson_protocol::kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use keelson_protocol::kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::metadata::is_internal;
use keelson_state::transactions::TopicPartition;

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::partitions::{AckGroup, Incoming, TopicState};

pub(super) use validate::Refused;
use wait::DurableWait;

/// First version whose topics are named by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// The handler.
pub struct Produce;

impl Api for Produce {
    type Request = ProduceRequest;
    type Response = ProduceResponse;

    fn handle(broker: &Arc<Broker>, call: Call<ProduceRequest>) -> Outcome<ProduceResponse> {
        let request = Request::new(broker, &call);
        match enrol::needed(&request, call.version, &call.body) {
            Ok(None) => request.carry_out(call.body),
            Ok(Some(enrolment)) => Outcome::Alone(Box::pin(async move {
                let mut request = request;
                request.refusals = enrolment.ask(&request.broker).await;
                match request.carry_out(call.body) {
                    Outcome::Ready(answer) => answer,
                    Outcome::Later(later) | Outcome::Alone(later) => later.await,
                    Outcome::Silent | Outcome::Close(_) => {
                        unreachable!("a batch of a transaction is always acknowledged")
                    }
                }
            })),
            Err(refused) => Request {
                refusal: Some(refused),
                ..request
            }
            .carry_out(call.body),
        }
    }
}

/// What is the same for all batches of a request.
struct Request {
    broker: Arc<Broker>,
    version: i16,
    /// An error that refuses every batch.
    refusal: Option<Refused>,
    /// Errors that refuse the batches of some partitions.
    refusals: HashMap<TopicPartition, Refused>,
    pin: Option<Arc<keelson_log::Reservation>>,
    group: Arc<AckGroup>,
    now_ms: i64,
}

impl Request {
    fn new(broker: &Arc<Broker>, call: &Call<ProduceRequest>) -> Self {
        let refusal = if !(-1..=1).contains(&call.body.acks) {
            Some(Refused::new(
                ErrorCode::InvalidRequiredAcks,
                format!("acks = {} is none of -1, 0, 1", call.body.acks),
            ))
        } else {
            None
        };
        Self {
            broker: Arc::clone(broker),
            version: call.version,
            refusal,
            refusals: HashMap::new(),
            pin: call.pin.clone(),
            group: Arc::new(AckGroup::default()),
            now_ms: broker.now_ms(),
        }
    }

    /// Appends everything, then waits until it is durable.
    fn carry_out(self, body: ProduceRequest) -> Outcome<ProduceResponse> {
        let (acks, timeout_ms) = (body.acks, body.timeout_ms);
        let group = Arc::clone(&self.group);
        let (body, error) = self.append_all(body);
        if acks == 0 {
            return match error {
                None => Outcome::Silent,
                Some(_) => Outcome::Close("a produce with acks=0 failed"),
            };
        }
        if group.is_done() {
            return Outcome::Ready(settle(body, &group, false));
        }
        Outcome::later(async move {
            let timed_out = DurableWait::new(Arc::clone(&group), timeout_ms).await;
            settle(body, &group, timed_out)
        })
    }

    /// Appends every batch in the order of the request; the answer is right for those that will be durable.
    fn append_all(&self, body: ProduceRequest) -> (ProduceResponse, Option<ErrorCode>) {
        let mut first_error = None;
        let mut slot = 0;
        let mut topics = Vec::with_capacity(body.topic_data.len());
        for topic in body.topic_data {
            let state = self.find(&topic.name, topic.topic_id.as_bytes());
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for partition in topic.partition_data {
                let index = partition.index;
                let response = match self.append(&state, partition, slot) {
                    Ok(response) => response,
                    Err(refused) => {
                        first_error.get_or_insert(refused.code);
                        refused.response(index, self.version)
                    }
                };
                partitions.push(response);
                slot += 1;
            }
            topics.push(
                TopicProduceResponse::default()
                    .with_name(topic.name)
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(partitions),
            );
        }
        (
            ProduceResponse::default().with_responses(topics),
            first_error,
        )
    }

    fn find(&self, name: &TopicName, id: &[u8; 16]) -> Result<Arc<TopicState>, Refused> {
        if let Some(refused) = &self.refusal {
            return Err(refused.clone());
        }
        if self.version >= TOPIC_ID_VERSION_MIN {
            return self.broker.partitions.topic_by_id(id).ok_or_else(|| {
                Refused::new(
                    ErrorCode::UnknownTopicId,
                    "This server does not host this topic ID.".to_owned(),
                )
            });
        }
        let known = self.broker.partitions.topic(name);
        known.ok_or_else(unknown_partition)
    }

    fn append(
        &self,
        state: &Result<Arc<TopicState>, Refused>,
        partition: PartitionProduceData,
        slot: usize,
    ) -> Result<PartitionProduceResponse, Refused> {
        let state = state.as_ref().map_err(Refused::clone)?;
        if is_internal(&state.topic.name) {
            return Err(Refused::new(
                ErrorCode::InvalidTopicException,
                format!("Cannot append to internal topic {}", state.topic.name),
            ));
        }
        let owner = state
            .partition(partition.index)
            .ok_or_else(unknown_partition)?;
        if !self.refusals.is_empty() {
            let place = (Arc::clone(&state.topic.name), partition.index);
            if let Some(refused) = self.refusals.get(&place) {
                return Err(refused.clone());
            }
        }
        let records = partition.records.unwrap_or_default();
        let log_start = owner.log().log_start();
        let checked = validate::check(records, &state.settings, self.version, self.now_ms)
            .map_err(|refused| refused.by_records(log_start))?;
        let incoming = Incoming {
            bytes: checked.bytes,
            header: checked.header,
            pin: self.pin.clone(),
            leader_epoch: state.leader_epoch,
            now_ms: self.now_ms,
        };
        let placed = owner.append(incoming, slot, &self.group).map_err(|error| {
            Refused::new(errors::enter(&error), error.to_string()).by_records(log_start)
        })?;
        let append_time = if placed.duplicate {
            -1
        } else {
            checked.append_time_ms
        };
        Ok(PartitionProduceResponse::default()
            .with_index(partition.index)
            .with_base_offset(placed.base_offset)
            .with_log_append_time_ms(append_time)
            .with_log_start_offset(placed.log_start))
    }
}

fn unknown_partition() -> Refused {
    Refused::new(
        ErrorCode::UnknownTopicOrPartition,
        "This server does not host this topic-partition.".to_owned(),
    )
}

impl Refused {
    fn response(self, index: i32, version: i16) -> PartitionProduceResponse {
        // KAFKA_STORAGE_ERROR is known from version 4 on.
        let code = if version < 4 && self.code == ErrorCode::KafkaStorageError {
            ErrorCode::NotLeaderOrFollower
        } else {
            self.code
        };
        let response = PartitionProduceResponse::default()
            .with_index(index)
            .with_error_code(code.code())
            .with_base_offset(-1)
            .with_log_start_offset(self.log_start);
        if version < 8 {
            return response;
        }
        let records = self.records.into_iter().map(|(index, message)| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(index)
                .with_batch_index_error_message(Some(message))
        });
        response
            .with_record_errors(records.collect())
            .with_error_message(Some(StrBytes::from_string(self.message)))
    }
}

/// The answer once everything is durable, or as much of it as is true when it is not.
fn settle(mut body: ProduceResponse, group: &AckGroup, timed_out: bool) -> Answer<ProduceResponse> {
    let removed = group.removed_slots();
    let mut first_error = None;
    let partitions = body
        .responses
        .iter_mut()
        .flat_map(|topic| topic.partition_responses.iter_mut());
    for (slot, partition) in partitions.enumerate() {
        if partition.error_code == 0 {
            let error = if removed.contains(&slot) {
                Some(ErrorCode::UnknownTopicOrPartition)
            } else if timed_out {
                Some(ErrorCode::RequestTimedOut)
            } else {
                None
            };
            if let Some(error) = error {
                partition.error_code = error.code();
                partition.base_offset = -1;
            }
        }
        if let Some(error) = ErrorCode::try_from_code(partition.error_code) {
            first_error.get_or_insert(error);
        }
    }
    Answer::new(body, first_error)
}
