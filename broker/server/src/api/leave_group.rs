//! LeaveGroup (key 13), versions 0–5.
//!
//! - 0: one member. 1: throttle time. 2: nothing new on the wire. 3: many members, also by instance id (KIP-345).
//! - 4: flexible. 5: the client's reason (KIP-800).
//!
//! Left out: nothing; the reason is not kept.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::leave_group_request::MemberIdentity;
use keelson_protocol::kafka_protocol::messages::leave_group_response::MemberResponse;
use keelson_protocol::kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use keelson_state::groups::{GroupError, LeaveMember, LeaveRequest};

use super::common::code;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct LeaveGroup;

impl Api for LeaveGroup {
    type Request = LeaveGroupRequest;
    type Response = LeaveGroupResponse;

    fn handle(broker: &Arc<Broker>, call: Call<LeaveGroupRequest>) -> Outcome<LeaveGroupResponse> {
        let Call { version, body, .. } = call;
        if body.group_id.is_empty() {
            let code = ErrorCode::InvalidGroupId;
            let response = LeaveGroupResponse::default().with_error_code(code.code());
            return Outcome::Ready(Answer::failed(response, code));
        }
        let leavers = if version >= 3 {
            body.members
        } else {
            vec![MemberIdentity::default().with_member_id(body.member_id)]
        };
        let members = leavers.iter().map(|leaver| LeaveMember {
            member_id: leaver.member_id.to_string(),
            instance_id: leaver.group_instance_id.as_ref().map(|id| id.to_string()),
        });
        let left = broker.coordinator.leave(LeaveRequest {
            group: body.group_id.to_string(),
            members: members.collect(),
        });
        Outcome::later(async move {
            match left.await {
                Ok(results) => answer(version, leavers, &results),
                Err(error) => {
                    let code = errors::coordinator(&error);
                    Answer::failed(
                        LeaveGroupResponse::default().with_error_code(code.code()),
                        code,
                    )
                }
            }
        })
    }
}

fn answer(
    version: i16,
    leavers: Vec<MemberIdentity>,
    results: &[Result<(), GroupError>],
) -> Answer<LeaveGroupResponse> {
    let failures: Vec<Option<ErrorCode>> = results
        .iter()
        .map(|result| result.as_ref().err().map(errors::group))
        .collect();
    let first = failures.iter().flatten().next().copied();
    if version < 3 {
        let response = LeaveGroupResponse::default().with_error_code(code(first));
        return Answer::new(response, first);
    }
    let members = leavers.into_iter().zip(failures).map(|(leaver, failure)| {
        MemberResponse::default()
            .with_member_id(leaver.member_id)
            .with_group_instance_id(leaver.group_instance_id)
            .with_error_code(code(failure))
    });
    let response = LeaveGroupResponse::default().with_members(members.collect());
    Answer::new(response, first)
}
