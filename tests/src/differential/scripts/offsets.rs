//! OffsetCommit and OffsetFetch.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};
use keelson_protocol::api;

use super::super::case::{Case, Script};
use super::groups::{Member, group_id, stable, unassigned};
use super::named;
use super::transactions::{added_offsets, ended, txn_commit};
use crate::wire::text;

pub(in super::super) fn run(script: &mut Script) {
    commit_alone(script);
    commit_as_member(script);
    fetch(script);
    fetch_stable(script);
    fetch_groups(script);
}

/// A version of OffsetCommit that does everything a case needs.
const COMMIT: i16 = 7;

fn at(partition: i32, offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")))
}

/// A commit from outside of the group's members.
fn commit(
    group: &str,
    topic: &str,
    partitions: Vec<OffsetCommitRequestPartition>,
) -> OffsetCommitRequest {
    let topic = OffsetCommitRequestTopic::default()
        .with_name(named(topic))
        .with_partitions(partitions);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

/// Commits an offset, which must succeed.
#[track_caller]
pub(super) fn committed(
    case: &mut Case<'_>,
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) {
    let answer = case.quietly(COMMIT, &commit(group, topic, vec![at(partition, offset)]));
    assert_eq!(
        answer.topics[0].partitions[0].error_code, 0,
        "committing to {group}"
    );
}

fn commit_alone(script: &mut Script) {
    script.each::<OffsetCommitRequest>("commit from outside", |case| {
        let version = case.version;
        let topic = case.topic("orders", 2, &[]);
        let group = case.group("g");
        case.call("an offset", &commit(&group, &topic, vec![at(0, 5)]));
        case.call("back", &commit(&group, &topic, vec![at(0, 3)]));
        case.call(
            "no note",
            &commit(&group, &topic, vec![at(0, 5).with_committed_metadata(None)]),
        );
        let long = text(&"x".repeat(4097));
        case.call(
            "a long note",
            &commit(
                &group,
                &topic,
                vec![at(0, 5).with_committed_metadata(Some(long))],
            ),
        );
        case.call(
            "a negative offset",
            &commit(&group, &topic, vec![at(0, -1)]),
        );
        case.call("unknown partition", &commit(&group, &topic, vec![at(2, 5)]));
        case.call(
            "negative partition",
            &commit(&group, &topic, vec![at(-1, 5)]),
        );
        case.call(
            "unknown topic",
            &commit(&group, &case.name("nobody"), vec![at(0, 5)]),
        );
        case.call(
            "a name that cannot be",
            &commit(&group, "a b", vec![at(0, 5)]),
        );
        let mixed = commit(&group, &topic, vec![at(0, 5), at(9, 5)]);
        case.edited("one good, one unknown", version, &mixed, |answer| {
            answer.topics[0]
                .partitions
                .sort_by_key(|partition| partition.partition_index);
        });
        case.call("no partition", &commit(&group, &topic, vec![]));
        case.call(
            "no topic",
            &commit(&group, &topic, vec![]).with_topics(vec![]),
        );
        case.call("no group", &commit("", &topic, vec![at(0, 5)]));
        let twice = commit(&group, &topic, vec![at(0, 6), at(0, 7)]);
        case.call("the same twice", &twice);
        if version >= 6 {
            case.call(
                "with an epoch",
                &commit(
                    &group,
                    &topic,
                    vec![at(1, 8).with_committed_leader_epoch(4)],
                ),
            );
        }
        let fetch = OffsetFetchRequest::default()
            .with_group_id(group_id(&group))
            .with_topics(None);
        case.edited_fetch("what is kept", 6, &fetch);
    });
}

fn commit_as_member(script: &mut Script) {
    script.each::<OffsetCommitRequest>("commit as a member", |case| {
        let version = case.version;
        let topic = case.topic("orders", 1, &[]);
        let by = |member: &Member| {
            commit(&member.group, &topic, vec![at(0, 5)])
                .with_generation_id_or_member_epoch(member.generation)
                .with_member_id(text(&member.id))
        };
        let group = case.group("unknown");
        let nobody = Member {
            group,
            id: "nobody".to_owned(),
            generation: 1,
        };
        case.call("unknown group", &by(&nobody));
        let group = case.group("g");
        let member = stable(case, &group);
        case.call("a member", &by(&member));
        for generation in [0, 2] {
            let stale = Member {
                generation,
                ..member.clone()
            };
            case.call(&format!("generation {generation}"), &by(&stale));
        }
        case.call(
            "a member without a generation",
            &by(&Member {
                generation: -1,
                ..member.clone()
            }),
        );
        case.call(
            "unknown member",
            &by(&Member {
                group: group.clone(),
                ..nobody
            }),
        );
        case.call("from outside", &commit(&group, &topic, vec![at(0, 5)]));
        if version >= 7 {
            let instance = by(&member).with_group_instance_id(Some(text("one")));
            case.call("unknown instance", &instance);
        }
        let group = case.group("unassigned");
        let member = unassigned(case, &group);
        case.call("before the assignment", &by(&member));
    });
}

/// Topics and partitions of an answer in order: a broker may keep them in any.
fn sort(answer: &mut OffsetFetchResponse) {
    answer.topics.sort_by_key(|topic| topic.name.to_string());
    for topic in &mut answer.topics {
        topic
            .partitions
            .sort_by_key(|partition| partition.partition_index);
    }
    for group in &mut answer.groups {
        group.topics.sort_by_key(|topic| topic.name.to_string());
        for topic in &mut group.topics {
            topic
                .partitions
                .sort_by_key(|partition| partition.partition_index);
        }
    }
}

impl Case<'_> {
    #[track_caller]
    fn edited_fetch(&mut self, step: &str, version: i16, request: &OffsetFetchRequest) {
        self.edited(step, version, request, sort);
    }
}

/// A request for one group, as each version says it; `None` asks for all topics.
fn ask(version: i16, group: &str, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequest {
    if version >= 8 {
        let topics = topics.map(|topics| {
            let one = |(name, partitions): &(&str, &[i32])| {
                OffsetFetchRequestTopics::default()
                    .with_name(named(name))
                    .with_partition_indexes(partitions.to_vec())
            };
            topics.iter().map(one).collect()
        });
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_topics(topics);
        return OffsetFetchRequest::default()
            .with_groups(vec![group])
            .with_topics(Some(vec![]));
    }
    let topics = topics.map(|topics| {
        let one = |(name, partitions): &(&str, &[i32])| {
            OffsetFetchRequestTopic::default()
                .with_name(named(name))
                .with_partition_indexes(partitions.to_vec())
        };
        topics.iter().map(one).collect()
    });
    OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(topics)
}

fn fetch(script: &mut Script) {
    script.each::<OffsetFetchRequest>("fetch offsets", |case| {
        let version = case.version;
        let topic = case.topic("orders", 3, &[]);
        let group = case.group("g");
        let request = commit(
            &group,
            &topic,
            vec![at(0, 5).with_committed_leader_epoch(4), at(1, 6)],
        );
        case.quietly(COMMIT, &request);
        let asked = |topics: &[(&str, &[i32])]| ask(version, &group, Some(topics));
        case.edited_fetch("one", version, &asked(&[(&topic, &[0])]));
        case.edited_fetch(
            "one that was not committed",
            version,
            &asked(&[(&topic, &[2])]),
        );
        case.edited_fetch(
            "one that is not there",
            version,
            &asked(&[(&topic, &[9, -1])]),
        );
        let nobody = case.name("nobody");
        case.edited_fetch("unknown topic", version, &asked(&[(&nobody, &[0])]));
        case.edited_fetch("no partition", version, &asked(&[(&topic, &[])]));
        case.edited_fetch("no topic", version, &asked(&[]));
        case.edited_fetch("the same twice", version, &asked(&[(&topic, &[0, 0])]));
        let unknown = case.group("unknown");
        case.edited_fetch(
            "unknown group",
            version,
            &ask(version, &unknown, Some(&[(&topic, &[0])])),
        );
        case.edited_fetch(
            "no group",
            version,
            &ask(version, "", Some(&[(&topic, &[0])])),
        );
        if version >= 2 {
            case.edited_fetch("all", version, &ask(version, &group, None));
            case.edited_fetch(
                "all of an unknown group",
                version,
                &ask(version, &unknown, None),
            );
        }
        if version >= 9 {
            let mut request = asked(&[(&topic, &[0])]);
            request.groups[0].member_id = Some(text("somebody"));
            request.groups[0].member_epoch = 3;
            case.edited_fetch("as a member of the new protocol", version, &request);
        }
    });
}

fn fetch_stable(script: &mut Script) {
    let spec = api::spec(9).expect("OffsetFetch is served");
    script.each_of("fetch stable offsets", spec, 7..=spec.max, |case| {
        let version = case.version;
        let topic = case.topic("orders", 2, &[]);
        let group = case.group("g");
        committed(case, &group, &topic, 0, 5);
        committed(case, &group, &topic, 1, 5);
        let transaction = case.transactional("tx");
        added_offsets(case, &transaction, &group);
        let pending = txn_commit(3, &transaction, &group, &topic, &[(0, 7)]);
        let answer = case.quietly(3, &pending);
        assert_eq!(
            answer.topics[0].partitions[0].error_code, 0,
            "a pending offset"
        );
        let ask =
            |stable| ask(version, &group, Some(&[(&topic, &[0, 1])])).with_require_stable(stable);
        case.edited_fetch("while it is open", version, &ask(true));
        case.edited_fetch("while it is open, also unstable", version, &ask(false));
        ended(case, &transaction, true);
        case.until(
            "the offset is stable",
            7,
            &self::ask(7, &group, Some(&[(&topic, &[0])])).with_require_stable(true),
            |answer| answer.topics[0].partitions[0].error_code == 0,
        );
        case.edited_fetch("after its end", version, &ask(true));
    });
}

fn fetch_groups(script: &mut Script) {
    let spec = api::spec(9).expect("OffsetFetch is served");
    script.each_of("fetch offsets of groups", spec, 8..=spec.max, |case| {
        let version = case.version;
        let topic = case.topic("orders", 1, &[]);
        let (one, two) = (case.group("one"), case.group("two"));
        committed(case, &one, &topic, 0, 5);
        let mut request = ask(version, &one, None);
        request
            .groups
            .extend(ask(version, &two, Some(&[(&topic, &[0])])).groups);
        case.edited("two", version, &request, |answer| {
            sort(answer);
            answer
                .groups
                .sort_by_key(|group| group.group_id.to_string());
        });
        let none = OffsetFetchRequest::default().with_topics(Some(vec![]));
        case.edited_fetch("none", version, &none);
    });
}
