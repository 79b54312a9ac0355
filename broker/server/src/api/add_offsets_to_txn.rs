//! AddOffsetsToTxn (key 25), versions 0–4.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: PRODUCER_FENCED. 3: flexible. 4: TRANSACTION_ABORTABLE.
//!
//! Left out: nothing. The partition of `__consumer_offsets` that holds the group joins the transaction.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use keelson_state::metadata::CONSUMER_OFFSETS;
use keelson_state::transactions::{AddRequest, TopicPartition};

use super::common::code;
use super::find_coordinator::ensure_offsets;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// First version whose clients know PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;

/// The handler.
pub struct AddOffsetsToTxn;

impl Api for AddOffsetsToTxn {
    type Request = AddOffsetsToTxnRequest;
    type Response = AddOffsetsToTxnResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<AddOffsetsToTxnRequest>,
    ) -> Outcome<AddOffsetsToTxnResponse> {
        let broker = Arc::clone(broker);
        let Call { version, body, .. } = call;
        Outcome::later(async move {
            let error = match ensure_offsets(&broker).await {
                Ok(()) => add(&broker, version, body).await,
                Err(_) => Some(ErrorCode::CoordinatorNotAvailable),
            };
            let response = AddOffsetsToTxnResponse::default().with_error_code(code(error));
            Answer::new(response, error)
        })
    }
}

async fn add(broker: &Broker, version: i16, body: AddOffsetsToTxnRequest) -> Option<ErrorCode> {
    let Some(place) = place_of(broker, &body.group_id) else {
        return Some(ErrorCode::CoordinatorNotAvailable);
    };
    let request = AddRequest {
        transactional_id: body.transactional_id.to_string(),
        producer: (body.producer_id.0, body.producer_epoch),
        partitions: [place].into(),
        bumps_epoch: false,
    };
    let added = broker.transactions.add(request).await;
    let error = added.err()?;
    Some(errors::transaction(&error, version >= FENCED_VERSION_MIN))
}

/// The partition of `__consumer_offsets` that holds a group.
pub(super) fn place_of(broker: &Broker, group: &str) -> Option<TopicPartition> {
    let topic = broker.partitions.topic(CONSUMER_OFFSETS)?;
    let index = keelson_state::offsets::partition_of(group, topic.topic.partitions);
    Some((CONSUMER_OFFSETS.into(), index))
}
