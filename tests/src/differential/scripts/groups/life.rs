//! A member's life: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use keelson_protocol::api;

use super::super::super::case::{Case, Script};
use super::{
    Member, SUBSCRIPTION, group_id, heartbeat, join, joined, member_of, second_waits, stable,
    stable_as, sync,
};
use crate::wire::text;

/// Names with values, or with none.
type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

pub(super) fn run(script: &mut Script) {
    join_group(script);
    join_group_wrongly(script);
    join_group_of_two(script);
    join_group_as_instance(script);
    sync_group(script);
    heartbeats(script);
    leave_group(script);
}

fn nobody(group: &str) -> Member {
    Member {
        group: group.to_owned(),
        id: "nobody".to_owned(),
        generation: 1,
    }
}

fn join_group(script: &mut Script) {
    script.each::<JoinGroupRequest>("join a group", |case| {
        let version = case.version;
        let group = case.group("g");
        let mut answer = case.call("first", &join(version, &group, ""));
        if version >= 4 {
            let request = join(version, &group, &answer.member_id);
            answer = case.call("with the id that was given", &request);
        }
        let member = member_of(&group, &answer);
        case.call(
            "again, before its assignment",
            &join(version, &group, &member.id),
        );
        let again = Member {
            generation: 1,
            ..member.clone()
        };
        case.quietly(3, &sync(3, &again, &[(&member.id, "all")]));
        case.call("the leader again", &join(version, &group, &member.id));
        case.call("somebody unknown", &join(version, &group, "nobody"));
        if version >= 8 {
            let request = join(version, &group, &member.id).with_reason(Some(text("curious")));
            case.call("with a reason", &request);
        }
    });
}

fn join_group_wrongly(script: &mut Script) {
    script.each::<JoinGroupRequest>("join a group wrongly", |case| {
        let version = case.version;
        let group = case.group("g");
        case.call("somebody unknown", &join(version, &group, "nobody"));
        let good = || join(version, &group, "");
        case.call("no group", &join(version, "", ""));
        case.call("a short session", &good().with_session_timeout_ms(1));
        case.call("a long session", &good().with_session_timeout_ms(i32::MAX));
        case.call("no protocol", &good().with_protocols(vec![]));
        case.call("no type", &good().with_protocol_type(text("")));
        let member = stable(case, &group);
        case.call("another type", &good().with_protocol_type(text("connect")));
        let other = JoinGroupRequestProtocol::default()
            .with_name(text("another"))
            .with_metadata(Bytes::from_static(SUBSCRIPTION));
        case.call("another protocol", &good().with_protocols(vec![other]));
        let lost = join(version, &group, &member.id).with_protocol_type(text("connect"));
        case.call("a member with another type", &lost);
        case.call(
            "a member without protocols",
            &join(version, &group, &member.id).with_protocols(vec![]),
        );
    });
}

fn join_group_of_two(script: &mut Script) {
    script.each::<JoinGroupRequest>("join a group of two", |case| {
        let version = case.version;
        let group = case.group("g");
        let first = stable(case, &group);
        let mut wire = case.connect();
        let mut request = join(version, &group, "");
        if version >= 4 {
            let answer = wire.call(version, &request);
            case.note_answer::<JoinGroupRequest>("the second, without an id", version, &answer);
            request = request.with_member_id(answer.member_id);
        }
        let id = wire.send(version, &request).expect("a socket takes it");
        case.until("the rebalance begins", 3, &heartbeat(&first), |answer| {
            answer.error_code == 27
        });
        let request = join(version, &group, &first.id);
        let one = case.edited("the first, again", version, &request, |answer| {
            answer.members.truncate(2);
        });
        let two = wire
            .receive::<JoinGroupRequest>(version, id)
            .expect("an answer");
        case.note_answer::<JoinGroupRequest>("the second", version, &two);
        let (one, two) = (member_of(&group, &one), member_of(&group, &two));
        let waits = wire
            .send(3, &sync(3, &two, &[]))
            .expect("a socket takes it");
        case.call_at("heartbeat before the assignment", 3, &heartbeat(&one));
        let shares = [(one.id.as_str(), "left"), (two.id.as_str(), "right")];
        case.call_at("the leader assigns", 3, &sync(3, &one, &shares));
        let answer = wire
            .receive::<SyncGroupRequest>(3, waits)
            .expect("an answer");
        case.note_answer::<SyncGroupRequest>("the second is assigned", 3, &answer);
        case.call(
            "the second again, nothing changed",
            &join(version, &group, &two.id),
        );
    });
}

fn join_group_as_instance(script: &mut Script) {
    let spec = api::spec(11).expect("JoinGroup is served");
    script.each_of("join a group as an instance", spec, 5..=spec.max, |case| {
        let version = case.version;
        let group = case.group("g");
        let request = |member: &str, instance: &str| {
            join(version, &group, member).with_group_instance_id(Some(text(instance)))
        };
        let answer = case.call("first", &request("", "one"));
        let old = member_of(&group, &answer);
        let assign = sync(3, &old, &[(&old.id, "all")]).with_group_instance_id(Some(text("one")));
        case.quietly(3, &assign);
        let answer = case.call("the same from elsewhere", &request("", "one"));
        let new = member_of(&group, &answer);
        case.call("the old one", &request(&old.id, "one"));
        case.call("the new one under another name", &request(&new.id, "two"));
        let beat = |member: &Member| heartbeat(member).with_group_instance_id(Some(text("one")));
        case.call_at("heartbeat of the old one", 4, &beat(&old));
        case.call_at("heartbeat of the new one", 4, &beat(&new));
        case.call_at(
            "heartbeat under another name",
            4,
            &heartbeat(&new).with_group_instance_id(Some(text("two"))),
        );
        case.call_at(
            "assignment of the old one",
            4,
            &sync(4, &old, &[]).with_group_instance_id(Some(text("one"))),
        );
    });
}

fn sync_group(script: &mut Script) {
    script.each::<SyncGroupRequest>("sync a group", |case| {
        let version = case.version;
        let group = case.group("g");
        case.call("unknown group", &sync(version, &nobody(&group), &[]));
        case.call("no group", &sync(version, &nobody(""), &[]));
        let member = joined(case, &group);
        case.call("unknown member", &sync(version, &nobody(&group), &[]));
        for generation in [0, 2, -1] {
            let stale = Member {
                generation,
                ..member.clone()
            };
            case.call(
                &format!("generation {generation}"),
                &sync(version, &stale, &[]),
            );
        }
        if version >= 5 {
            let good = || sync(version, &member, &[]);
            case.call(
                "another type",
                &good().with_protocol_type(Some(text("connect"))),
            );
            case.call(
                "another protocol",
                &good().with_protocol_name(Some(text("other"))),
            );
            let unsaid = good().with_protocol_type(None).with_protocol_name(None);
            case.call("no type", &unsaid);
        }
        let shares = [(member.id.as_str(), "all"), ("nobody", "rest")];
        case.call("the leader assigns", &sync(version, &member, &shares));
        case.call("asked again", &sync(version, &member, &[]));
        let other = [(member.id.as_str(), "something else")];
        case.call("assigned again", &sync(version, &member, &other));
    });
    script.each::<SyncGroupRequest>("sync a group without an assignment", |case| {
        let version = case.version;
        let group = case.group("g");
        let member = joined(case, &group);
        case.call("nothing is assigned", &sync(version, &member, &[]));
    });
    script.each::<SyncGroupRequest>("sync a group that rebalances", |case| {
        let version = case.version;
        let group = case.group("g");
        let member = stable(case, &group);
        let _waiting = second_waits(case, &member);
        case.call("while the second waits", &sync(version, &member, &[]));
    });
}

fn heartbeats(script: &mut Script) {
    script.each::<HeartbeatRequest>("heartbeat", |case| {
        let version = case.version;
        let group = case.group("g");
        case.call("unknown group", &heartbeat(&nobody(&group)));
        case.call("no group", &heartbeat(&nobody("")));
        let member = joined(case, &group);
        case.call("before the assignment", &heartbeat(&member));
        case.quietly(3, &sync(3, &member, &[(&member.id, "all")]));
        case.call("stable", &heartbeat(&member));
        case.call("unknown member", &heartbeat(&nobody(&group)));
        case.call(
            "no member",
            &heartbeat(&Member {
                id: String::new(),
                ..member.clone()
            }),
        );
        for generation in [0, 2, -1] {
            let stale = Member {
                generation,
                ..member.clone()
            };
            case.call(&format!("generation {generation}"), &heartbeat(&stale));
        }
        if version >= 3 {
            let instance = heartbeat(&member).with_group_instance_id(Some(text("one")));
            case.call("unknown instance", &instance);
        }
        let _waiting = second_waits(case, &member);
        case.call("while the second waits", &heartbeat(&member));
    });
}

fn leave_group(script: &mut Script) {
    script.each::<LeaveGroupRequest>("leave a group", |case| {
        let group = case.group("g");
        let version = case.version;
        let leave = |group: &str, members: &[(&str, Option<&str>)]| {
            let request = LeaveGroupRequest::default().with_group_id(group_id(group));
            if version < 3 {
                return request.with_member_id(text(members[0].0));
            }
            let members = members
                .iter()
                .map(|(member, instance)| {
                    MemberIdentity::default()
                        .with_member_id(text(member))
                        .with_group_instance_id(instance.map(text))
                })
                .collect();
            request.with_members(members)
        };
        case.call("unknown group", &leave(&group, &[("nobody", None)]));
        case.call("no group", &leave("", &[("nobody", None)]));
        let member = stable(case, &group);
        case.call("unknown member", &leave(&group, &[("nobody", None)]));
        case.call("no member", &leave(&group, &[("", None)]));
        case.call("a member", &leave(&group, &[(&member.id, None)]));
        case.call("it is gone", &leave(&group, &[(&member.id, None)]));
        if version >= 3 {
            leave_as_instance(case, &leave);
        }
    });
}

fn leave_as_instance(case: &mut Case<'_>, leave: &dyn Fn(&str, Pairs<'_>) -> LeaveGroupRequest) {
    let group = case.group("static");
    let member = stable_as(case, &group, Some("one"));
    case.call("nobody at all", &leave(&group, &[]));
    case.call("unknown instance", &leave(&group, &[("", Some("two"))]));
    case.call(
        "instance of another member",
        &leave(&group, &[("nobody", Some("one"))]),
    );
    let two = [("nobody", None), ("", Some("one"))];
    case.call("an unknown member and an instance", &leave(&group, &two));
    let member = Member {
        generation: member.generation + 1,
        ..member
    };
    case.call_at("heartbeat after it left", 4, &heartbeat(&member));
}
