//! JoinGroup (key 11), versions 0–9.
//!
//! - 0: all but: 1: a rebalance timeout of its own. 2: throttle time. 3: nothing new on the wire.
//! - 4: a new member must come back with the id it is given (KIP-394). 5: static members (KIP-345). 6: flexible.
//! - 7: the answer names protocol and its type (KIP-559). 8: the client's reason (KIP-800). 9: a leader may be told to
//!   skip the assignment (KIP-814).
//!
//! Left out: nothing; the reason is not kept. Served from 0, since librdkafka refuses a broker that does not. A join
//! that waits for others holds no part of the request.

use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use keelson_protocol::kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::groups::{JoinRequest, Joined};
use uuid::Uuid;

use super::common::text;
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::dispatch::{Answer, Api, Call, Client, Outcome};
use crate::errors;

/// The handler.
pub struct JoinGroup;

impl Api for JoinGroup {
    type Request = JoinGroupRequest;
    type Response = JoinGroupResponse;

    fn handle(broker: &Arc<Broker>, call: Call<JoinGroupRequest>) -> Outcome<JoinGroupResponse> {
        let version = call.version;
        let request = request(version, call.body, &call.client);
        let joined = broker.coordinator.join(request);
        Outcome::later(async move {
            match joined.await {
                Ok(joined) => Answer::ok(response(joined)),
                Err((error, member_id)) => refused(version, &error, member_id),
            }
        })
    }
}

/// What the group machine needs, copied: the frame goes while the join waits.
fn request(version: i16, body: JoinGroupRequest, client: &Client) -> JoinRequest {
    let client_id = client
        .id
        .as_ref()
        .map(StrBytes::to_string)
        .unwrap_or_default();
    let instance_id = body.group_instance_id.map(|id| id.to_string());
    let named = instance_id.as_deref().unwrap_or(&client_id);
    let protocols = body.protocols.iter().map(|protocol| {
        let metadata = Bytes::copy_from_slice(&protocol.metadata);
        (protocol.name.to_string(), metadata)
    });
    JoinRequest {
        group: body.group_id.to_string(),
        member_id: body.member_id.to_string(),
        fresh_member_id: format!("{named}-{}", Uuid::new_v4()),
        require_known_member_id: version >= 4 && instance_id.is_none(),
        instance_id,
        client_host: format!("/{}", client.host),
        rebalance_timeout_ms: if version >= 1 {
            body.rebalance_timeout_ms
        } else {
            body.session_timeout_ms
        },
        session_timeout_ms: body.session_timeout_ms,
        protocol_type: body.protocol_type.to_string(),
        protocols: protocols.collect(),
        supports_skipping_assignment: version >= 9,
        client_id,
    }
}

fn response(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(text))
        .with_protocol_name(Some(joined.protocol.map(text).unwrap_or_default()))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member_id))
        .with_members(members.collect())
}

fn refused(version: i16, error: &CoordinatorError, member_id: String) -> Answer<JoinGroupResponse> {
    let code = errors::coordinator(error);
    let response = JoinGroupResponse::default()
        .with_error_code(code.code())
        .with_generation_id(-1)
        // Only version 7 and later can say "no protocol".
        .with_protocol_name((version < 7).then(StrBytes::default))
        .with_member_id(text(member_id));
    Answer::failed(response, code)
}
