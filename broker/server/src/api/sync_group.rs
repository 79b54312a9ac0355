//! SyncGroup (key 14), versions 0–5.
//!
//! - 1: throttle time. 2: nothing new on the wire. 3: static members (KIP-345). 4: flexible.
//! - 5: protocol and its type, asked and answered (KIP-559).
//!
//! Left out: nothing. The assignment is durable before anybody gets it.

use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::groups::SyncRequest;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// First version that must name the protocol and its type.
const PROTOCOL_VERSION_MIN: i16 = 5;

/// The handler.
pub struct SyncGroup;

impl Api for SyncGroup {
    type Request = SyncGroupRequest;
    type Response = SyncGroupResponse;

    fn handle(broker: &Arc<Broker>, call: Call<SyncGroupRequest>) -> Outcome<SyncGroupResponse> {
        let body = &call.body;
        let named = body.protocol_type.is_some() && body.protocol_name.is_some();
        if call.version >= PROTOCOL_VERSION_MIN && !named {
            let code = ErrorCode::InconsistentGroupProtocol;
            let response = SyncGroupResponse::default().with_error_code(code.code());
            return Outcome::Ready(Answer::failed(response, code));
        }
        let synced = broker.coordinator.sync(request(call.body));
        Outcome::later(async move {
            match synced.await {
                Ok(synced) => Answer::ok(
                    SyncGroupResponse::default()
                        .with_protocol_type(synced.protocol_type.map(text))
                        .with_protocol_name(synced.protocol.map(text))
                        .with_assignment(synced.assignment),
                ),
                Err(error) => {
                    let code = errors::coordinator(&error);
                    Answer::failed(
                        SyncGroupResponse::default().with_error_code(code.code()),
                        code,
                    )
                }
            }
        })
    }
}

/// What the group machine needs, copied: the frame goes while the member waits for the leader.
fn request(body: SyncGroupRequest) -> SyncRequest {
    let owned = |text: Option<StrBytes>| text.map(|text| text.to_string());
    let assignments = body.assignments.iter().map(|assignment| {
        let bytes = Bytes::copy_from_slice(&assignment.assignment);
        (assignment.member_id.to_string(), bytes)
    });
    SyncRequest {
        group: body.group_id.to_string(),
        generation: body.generation_id,
        member_id: body.member_id.to_string(),
        assignments: assignments.collect(),
        instance_id: owned(body.group_instance_id),
        protocol_type: owned(body.protocol_type),
        protocol: owned(body.protocol_name),
    }
}
