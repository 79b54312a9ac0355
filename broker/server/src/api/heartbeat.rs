//! Heartbeat (key 12), versions 0–4.
//!
//! - 1: throttle time. 2: nothing new on the wire. 3: static members (KIP-345). 4: flexible.
//!
//! Left out: nothing.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use keelson_state::groups;

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct Heartbeat;

impl Api for Heartbeat {
    type Request = HeartbeatRequest;
    type Response = HeartbeatResponse;

    fn handle(broker: &Arc<Broker>, call: Call<HeartbeatRequest>) -> Outcome<HeartbeatResponse> {
        let body = call.body;
        let heard = broker.coordinator.heartbeat(groups::HeartbeatRequest {
            group: body.group_id.to_string(),
            generation: body.generation_id,
            member_id: body.member_id.to_string(),
            instance_id: body.group_instance_id.map(|id| id.to_string()),
        });
        Outcome::later(async move {
            match heard.await {
                Ok(()) => Answer::ok(HeartbeatResponse::default()),
                Err(error) => {
                    let code = errors::coordinator(&error);
                    Answer::failed(
                        HeartbeatResponse::default().with_error_code(code.code()),
                        code,
                    )
                }
            }
        })
    }
}
