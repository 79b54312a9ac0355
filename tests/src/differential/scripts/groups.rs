//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups and DeleteGroups.

mod admin;
mod life;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
};

use super::super::case::{Case, Script};
use crate::wire::text;

pub(in super::super) fn run(script: &mut Script) {
    life::run(script);
    admin::run(script);
}

/// A version of JoinGroup that does everything a case needs.
const JOIN: i16 = 5;
const MEMBER_ID_REQUIRED: i16 = 79;
/// A consumer that wants no topic: Apache Kafka reads what members of this type say.
const SUBSCRIPTION: &[u8] = &[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// A group's id as the protocol's own type.
pub(super) fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// Who takes part in which generation of a group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) group: String,
    pub(super) id: String,
    pub(super) generation: i32,
}

fn join(version: i16, group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(SUBSCRIPTION));
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.with_rebalance_timeout_ms(60_000)
    } else {
        request
    }
}

fn sync(version: i16, member: &Member, assignments: &[(&str, &'static str)]) -> SyncGroupRequest {
    let assignments = assignments
        .iter()
        .map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(Bytes::from_static(assignment.as_bytes()))
        })
        .collect();
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(&member.group))
        .with_generation_id(member.generation)
        .with_member_id(text(&member.id))
        .with_assignments(assignments);
    if version >= 5 {
        request
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
    } else {
        request
    }
}

fn heartbeat(member: &Member) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group_id(&member.group))
        .with_generation_id(member.generation)
        .with_member_id(text(&member.id))
}

fn member_of(group: &str, answer: &JoinGroupResponse) -> Member {
    Member {
        group: group.to_owned(),
        id: answer.member_id.to_string(),
        generation: answer.generation_id,
    }
}

/// Joins alone; the group then waits for its assignment.
#[track_caller]
fn joined_as(case: &mut Case<'_>, group: &str, instance: Option<&str>) -> Member {
    let request = join(JOIN, group, "").with_group_instance_id(instance.map(text));
    let mut answer = case.quietly(JOIN, &request);
    if answer.error_code == MEMBER_ID_REQUIRED {
        answer = case.quietly(JOIN, &request.with_member_id(answer.member_id));
    }
    assert_eq!(answer.error_code, 0, "joining {group}");
    member_of(group, &answer)
}

#[track_caller]
fn joined(case: &mut Case<'_>, group: &str) -> Member {
    joined_as(case, group, None)
}

/// Joins alone and takes its own assignment: the group is stable.
#[track_caller]
pub(super) fn stable(case: &mut Case<'_>, group: &str) -> Member {
    stable_as(case, group, None)
}

#[track_caller]
fn stable_as(case: &mut Case<'_>, group: &str, instance: Option<&str>) -> Member {
    let member = joined_as(case, group, instance);
    let request =
        sync(3, &member, &[(&member.id, "all of it")]).with_group_instance_id(instance.map(text));
    let answer = case.quietly(3, &request);
    assert_eq!(answer.error_code, 0, "syncing {group}");
    member
}

/// A group that waits for its assignment.
#[track_caller]
pub(super) fn unassigned(case: &mut Case<'_>, group: &str) -> Member {
    joined(case, group)
}

/// Begins a rebalance with a second member; gives the connection that waits for it and its correlation id.
#[track_caller]
fn second_waits(case: &mut Case<'_>, first: &Member) -> (crate::wire::Wire, i32) {
    let mut wire = case.connect();
    let request = join(JOIN, &first.group, "");
    let answer = wire.call(JOIN, &request);
    assert_eq!(answer.error_code, MEMBER_ID_REQUIRED, "a second member");
    let request = request.with_member_id(answer.member_id);
    let id = wire.send(JOIN, &request).expect("a socket takes it");
    case.until("the rebalance begins", 3, &heartbeat(first), |answer| {
        answer.error_code == 27
    });
    (wire, id)
}
