//! EndTxn (key 26), versions 0–5.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: PRODUCER_FENCED. 3: flexible. 4: TRANSACTION_ABORTABLE.
//! - 5: the producer goes on with the id and epoch in the answer (KIP-890).
//!
//! Left out: nothing. The decision is durable before the answer, and unless a partition cannot be written, so are its
//! markers: whoever reads after the answer sees the end. Where a transaction of version 2 took too long and was aborted,
//! its client's abort is granted with the new epoch; its commit is PRODUCER_FENCED (KAFKA-20785; 4.3.1 still says
//! INVALID_TXN_STATE).

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use keelson_state::transactions::EndRequest;

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// First version that bumps the epoch.
const BUMP_VERSION_MIN: i16 = 5;
/// First version whose clients know PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;

/// The handler.
pub struct EndTxn;

impl Api for EndTxn {
    type Request = EndTxnRequest;
    type Response = EndTxnResponse;

    fn handle(broker: &Arc<Broker>, call: Call<EndTxnRequest>) -> Outcome<EndTxnResponse> {
        let Call { version, body, .. } = call;
        let bumps_epoch = version >= BUMP_VERSION_MIN;
        let ended = broker.transactions.end(EndRequest {
            transactional_id: body.transactional_id.to_string(),
            producer: (body.producer_id.0, body.producer_epoch),
            commit: body.committed,
            bumps_epoch,
        });
        Outcome::later(async move {
            match ended.await {
                Ok((producer_id, epoch)) if bumps_epoch => Answer::ok(
                    EndTxnResponse::default()
                        .with_producer_id(ProducerId(producer_id))
                        .with_producer_epoch(epoch),
                ),
                Ok(_) => Answer::ok(EndTxnResponse::default()),
                Err(error) => {
                    let error = errors::transaction(&error, version >= FENCED_VERSION_MIN);
                    Answer::failed(
                        EndTxnResponse::default().with_error_code(error.code()),
                        error,
                    )
                }
            }
        })
    }
}
