//! FindCoordinator (key 10), versions 0–6.
//!
//! - 0: one group. 1: a key type, throttle time, error message. 2: nothing new on the wire. 3: flexible.
//! - 4: many keys at once (KIP-699). 5: an error for transactions. 6: share groups.
//!
//! Groups and transactions. Left out: coordinators of share groups (INVALID_REQUEST: no client goes on with what is not
//! there). The first one who asks makes `__consumer_offsets` or `__transaction_state`.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::find_coordinator_response::Coordinator;
use keelson_protocol::kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::metadata::CONSUMER_OFFSETS;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::listeners::ListenerId;
use crate::metadata::{ChangeError, InternalTopic};
use crate::transactions;

/// Key type of a group.
const GROUP: i8 = 0;
/// Key type of a transactional id.
const TRANSACTION: i8 = 1;

/// The handler.
pub struct FindCoordinator;

impl Api for FindCoordinator {
    type Request = FindCoordinatorRequest;
    type Response = FindCoordinatorResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<FindCoordinatorRequest>,
    ) -> Outcome<FindCoordinatorResponse> {
        let broker = Arc::clone(broker);
        let Call {
            version,
            body,
            client,
            ..
        } = call;
        Outcome::later(async move {
            let keys = if version >= 4 {
                body.coordinator_keys
            } else {
                vec![body.key]
            };
            let ready = match body.key_type {
                GROUP => unavailable(ensure_offsets(&broker).await),
                TRANSACTION => unavailable(transactions::ensure_topic(&broker).await),
                other => {
                    let message = format!("Coordinator type {other} is not supported.");
                    Err((ErrorCode::InvalidRequest, message))
                }
            };
            let mut first = None;
            let found: Vec<Coordinator> = keys
                .into_iter()
                .map(|key| {
                    let found = ready
                        .clone()
                        .and_then(|()| locate(&broker, client.listener));
                    coordinator(key, found, &mut first)
                })
                .collect();
            Answer::new(response(version, found), first)
        })
    }
}

type Found = Result<(BrokerId, StrBytes, i32), (ErrorCode, String)>;

/// `__consumer_offsets` is there, or is made.
pub(super) async fn ensure_offsets(broker: &Broker) -> Result<(), ChangeError> {
    if broker.partitions.topic(CONSUMER_OFFSETS).is_some() {
        return Ok(());
    }
    let config = &broker.config;
    let wanted = InternalTopic {
        name: CONSUMER_OFFSETS,
        partitions: config.offsets_topic_partitions,
        segment_bytes: config.offsets_topic_segment_bytes,
    };
    broker.metadata.ensure_internal_topic(wanted).await
}

fn unavailable(made: Result<(), ChangeError>) -> Result<(), (ErrorCode, String)> {
    made.map_err(|error| (ErrorCode::CoordinatorNotAvailable, error.to_string()))
}

fn locate(broker: &Broker, listener: ListenerId) -> Found {
    let address = broker.advertised(listener).ok_or_else(|| {
        let message = "Nobody knows yet where the broker is reached from outside.".to_owned();
        (ErrorCode::CoordinatorNotAvailable, message)
    })?;
    Ok((
        BrokerId(broker.id()),
        text(address.host),
        i32::from(address.port),
    ))
}

fn coordinator(key: StrBytes, found: Found, first: &mut Option<ErrorCode>) -> Coordinator {
    let answer = Coordinator::default().with_key(key);
    match found {
        Ok((node, host, port)) => answer.with_node_id(node).with_host(host).with_port(port),
        Err((code, message)) => {
            first.get_or_insert(code);
            answer
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(code.code())
                .with_error_message(Some(text(message)))
        }
    }
}

fn response(version: i16, mut found: Vec<Coordinator>) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    if version >= 4 {
        return response.with_coordinators(found);
    }
    let only = found.pop().unwrap_or_default();
    response
        .with_error_code(only.error_code)
        .with_error_message(only.error_message)
        .with_node_id(only.node_id)
        .with_host(only.host)
        .with_port(only.port)
}
