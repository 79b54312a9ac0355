//! DescribeGroups (key 15), versions 0–6.
//!
//! - 1: throttle time. 2: nothing new on the wire. 3: authorised operations (KIP-430). 4: instance ids (KIP-345).
//! - 5: flexible. 6: a group that does not exist is GROUP_ID_NOT_FOUND, with a message (KIP-1043).
//!
//! Left out: nothing. Below version 6 a group that does not exist is "Dead", without an error. Authorised operations are
//! all of them, since nobody is refused anything.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_groups_response::{
    DescribedGroup, DescribedGroupMember,
};
use keelson_protocol::kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
};
use keelson_state::groups::{self, GroupState};

use super::common::{OPERATIONS_UNKNOWN, text};
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// Bits of every operation on a group: read, delete, describe, and configs (KIP-430).
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The handler.
pub struct DescribeGroups;

impl Api for DescribeGroups {
    type Request = DescribeGroupsRequest;
    type Response = DescribeGroupsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeGroupsRequest>,
    ) -> Outcome<DescribeGroupsResponse> {
        let broker = Arc::clone(broker);
        let Call { version, body, .. } = call;
        Outcome::later(async move {
            let mut first = None;
            let mut groups = Vec::with_capacity(body.groups.len());
            for id in body.groups {
                let found = broker.coordinator.describe(id.to_string()).await;
                let group = answer(version, id, found, &mut first);
                let operations = if version >= 3 && body.include_authorized_operations {
                    GROUP_OPERATIONS
                } else {
                    OPERATIONS_UNKNOWN
                };
                groups.push(group.with_authorized_operations(operations));
            }
            Answer::new(DescribeGroupsResponse::default().with_groups(groups), first)
        })
    }
}

fn answer(
    version: i16,
    id: GroupId,
    found: Result<Option<groups::DescribedGroup>, CoordinatorError>,
    first: &mut Option<ErrorCode>,
) -> DescribedGroup {
    match found {
        Ok(Some(group)) => described(id, group),
        Ok(None) if version < 6 => DescribedGroup::default()
            .with_group_id(id)
            .with_group_state(text(GroupState::Dead.name())),
        Ok(None) => {
            first.get_or_insert(ErrorCode::GroupIdNotFound);
            let message = format!("Group {} not found.", id.as_str());
            DescribedGroup::default()
                .with_group_id(id)
                .with_group_state(text(GroupState::Dead.name()))
                .with_error_code(ErrorCode::GroupIdNotFound.code())
                .with_error_message(Some(text(message)))
        }
        Err(error) => {
            let code = errors::coordinator(&error);
            first.get_or_insert(code);
            DescribedGroup::default()
                .with_group_id(id)
                .with_error_code(code.code())
        }
    }
}

fn described(id: GroupId, group: groups::DescribedGroup) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    DescribedGroup::default()
        .with_group_id(id)
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol))
        .with_members(members.collect())
}
