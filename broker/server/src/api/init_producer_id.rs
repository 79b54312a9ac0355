//! InitProducerId (key 22), versions 0–5.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: flexible. 3: a producer may name the id and epoch it has (KIP-360).
//! - 4: PRODUCER_FENCED. 5: an error for transactions (KIP-890).
//!
//! A request without a transactional id gets an id that nobody has had (ids come in blocks that are durable before any of
//! them is given out), epoch 0, whatever id the producer had. With one, the producer takes over from all before it. Left
//! out: two-phase commit (version 6, KIP-939).

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId,
};

use keelson_state::transactions::InitRequest;

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
            return transactional(broker, call);
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

fn transactional(
    broker: &Arc<Broker>,
    call: Call<InitProducerIdRequest>,
) -> Outcome<InitProducerIdResponse> {
    let Call { version, body, .. } = call;
    let expected = match (body.producer_id.0, body.producer_epoch) {
        _ if version < 3 => None,
        (-1, -1) => None,
        (-1, _) | (_, -1) => return Outcome::Ready(refused(ErrorCode::InvalidRequest)),
        expected => Some(expected),
    };
    let begun = broker.transactions.init(InitRequest {
        transactional_id: body.transactional_id.unwrap_or_default().to_string(),
        timeout_ms: body.transaction_timeout_ms,
        expected,
    });
    Outcome::later(async move {
        match begun.await {
            Ok((producer_id, epoch)) => Answer::ok(
                InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(producer_id))
                    .with_producer_epoch(epoch),
            ),
            Err(error) => refused(errors::transaction(&error, version >= 4)),
        }
    })
}

fn refused(error: ErrorCode) -> Answer<InitProducerIdResponse> {
    let response = InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    Answer::failed(response, error)
}
