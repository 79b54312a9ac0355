//! InitProducerId (key 22), versions 0–5.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: flexible. 3: a producer may name the id and epoch it has (KIP-360).
//! - 4: PRODUCER_FENCED. 5: an error for transactions (KIP-890).
//!
//! Idempotent producers only: each request gets an id that nobody has had (ids come in blocks that are durable before
//! any of them is given out), epoch 0, whatever id the producer had. Left out: transactions: a transactional id is
//! refused with INVALID_REQUEST, which clients do not retry.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId,
};

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct InitProducerId;

impl Api for InitProducerId {
    type Request = InitProducerIdRequest;
    type Response = InitProducerIdResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<InitProducerIdRequest>,
    ) -> Outcome<InitProducerIdResponse> {
        if call.body.transactional_id.is_some() {
            return Outcome::Ready(refused(ErrorCode::InvalidRequest));
        }
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            match broker.metadata.producer_id().await {
                Ok(id) => Answer::ok(
                    InitProducerIdResponse::default()
                        .with_producer_id(ProducerId(id))
                        .with_producer_epoch(0),
                ),
                Err(error) => refused(match errors::change(&error) {
                    // The one code that clients of this API wait and retry on.
                    ErrorCode::KafkaStorageError
                    | ErrorCode::RequestTimedOut
                    | ErrorCode::NotController => ErrorCode::CoordinatorNotAvailable,
                    other => other,
                }),
            }
        })
    }
}

fn refused(error: ErrorCode) -> Answer<InitProducerIdResponse> {
    let response = InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    Answer::failed(response, error)
}
