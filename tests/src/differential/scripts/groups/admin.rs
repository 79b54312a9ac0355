//! What is asked about groups: FindCoordinator, DescribeGroups, ListGroups, DeleteGroups.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
    ListGroupsResponse,
};

use super::super::super::case::Script;
use super::super::offsets::committed;
use super::{group_id, joined, second_waits, stable};
use crate::wire::text;

pub(super) fn run(script: &mut Script) {
    find_coordinator(script);
    describe_groups(script);
    list_groups(script);
    delete_groups(script);
}

fn find_coordinator(script: &mut Script) {
    script.each::<FindCoordinatorRequest>("find a coordinator", |case| {
        let version = case.version;
        let find = |keys: &[&str], kind: i8| {
            let request = FindCoordinatorRequest::default();
            let request = if version >= 4 {
                request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect())
            } else {
                request.with_key(text(keys[0]))
            };
            if version >= 1 {
                request.with_key_type(kind)
            } else {
                request
            }
        };
        case.call("of a group", &find(&["g"], 0));
        case.call("of a group without a name", &find(&[""], 0));
        if version >= 1 {
            case.call("of a transaction", &find(&["tx"], 1));
            case.call("of a transaction without a name", &find(&[""], 1));
            case.call("of a share group without its parts", &find(&["g"], 2));
            case.call("of no kind", &find(&["g"], 9));
        }
        if version >= 4 {
            case.call("of two", &find(&["g", "h"], 0));
            case.call("of none", &find(&[], 0));
            case.call("of one twice", &find(&["g", "g"], 0));
        }
    });
}

fn describe_groups(script: &mut Script) {
    script.each::<DescribeGroupsRequest>("describe groups", |case| {
        let (version, group) = (case.version, case.group("g"));
        let describe = |groups: &[&str]| {
            let groups = groups.iter().map(|group| group_id(group)).collect();
            DescribeGroupsRequest::default().with_groups(groups)
        };
        case.call("unknown", &describe(&[&group]));
        let member = joined(case, &group);
        case.call("before the assignment", &describe(&[&group]));
        let shares = [(member.id.as_str(), "all")];
        case.quietly(3, &super::sync(3, &member, &shares));
        case.call("stable", &describe(&[&group]));
        if version >= 3 {
            let with = describe(&[&group]).with_include_authorized_operations(true);
            case.call("with operations", &with);
        }
        let _waiting = second_waits(case, &member);
        let request = describe(&[&group]);
        case.edited("in a rebalance", version, &request, |answer| {
            answer.groups[0]
                .members
                .sort_by_key(|other| other.member_id != *member.id);
        });
        let topic = case.topic("orders", 1, &[]);
        let offsets = case.group("offsets");
        committed(case, &offsets, &topic, 0, 5);
        case.call("only offsets", &describe(&[&offsets]));
        let request = describe(&[&offsets, &case.name("nobody")]);
        case.edited("two, one of them unknown", version, &request, |answer| {
            answer
                .groups
                .sort_by_key(|group| group.group_id.to_string());
        });
        case.call("the same twice", &describe(&[&offsets, &offsets]));
        case.call("none", &describe(&[]));
    });
}

fn list_groups(script: &mut Script) {
    script.each::<ListGroupsRequest>("list groups", |case| {
        let version = case.version;
        let own = case.name("");
        let edit = |answer: &mut ListGroupsResponse| {
            answer
                .groups
                .retain(|group| group.group_id.ends_with(&*own));
            answer
                .groups
                .sort_by_key(|group| group.group_id.to_string());
        };
        let topic = case.topic("orders", 1, &[]);
        let group = case.group("stable");
        stable(case, &group);
        let group = case.group("empty");
        committed(case, &group, &topic, 0, 5);
        let group = case.group("unassigned");
        joined(case, &group);
        let all = ListGroupsRequest::default();
        case.edited("all", version, &all, edit);
        let names = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        if version >= 4 {
            for states in [
                &["Stable"][..],
                &["stable", "Empty"],
                &["CompletingRebalance"],
                &["Burning"],
                &[""],
            ] {
                let request = all.clone().with_states_filter(names(states));
                case.edited(&format!("states {states:?}"), version, &request, edit);
            }
        }
        if version >= 5 {
            for types in [
                &["classic"][..],
                &["Classic"],
                &["consumer"],
                &["share"],
                &["burning"],
                &[""],
            ] {
                let request = all.clone().with_types_filter(names(types));
                case.edited(&format!("types {types:?}"), version, &request, edit);
            }
        }
    });
}

fn delete_groups(script: &mut Script) {
    script.each::<DeleteGroupsRequest>("delete groups", |case| {
        let version = case.version;
        let delete = |groups: &[&str]| {
            let names = groups.iter().map(|group| group_id(group)).collect();
            DeleteGroupsRequest::default().with_groups_names(names)
        };
        let topic = case.topic("orders", 1, &[]);
        let group = case.group("empty");
        committed(case, &group, &topic, 0, 5);
        case.call("only offsets", &delete(&[&group]));
        case.call("it is gone", &delete(&[&group]));
        let group = case.group("stable");
        stable(case, &group);
        case.call("with a member", &delete(&[&group]));
        case.call("unknown", &delete(&[&case.name("nobody")]));
        case.call("none", &delete(&[]));
        let group = case.group("again");
        committed(case, &group, &topic, 0, 5);
        let request = delete(&[&group, &case.name("nobody"), &group]);
        case.edited(
            "one, an unknown one, the same again",
            version,
            &request,
            |answer| {
                answer
                    .results
                    .sort_by_key(|result| (result.group_id.to_string(), result.error_code));
            },
        );
    });
}
