//! The group APIs against a broker on a real log, in every version, with restarts.

use std::time::Duration;

use bytes::Bytes;
use keelson_protocol::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use keelson_protocol::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use keelson_protocol::kafka_protocol::messages::leave_group_request::MemberIdentity;
use keelson_protocol::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use keelson_protocol::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use keelson_protocol::kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use keelson_protocol::{ErrorCode, api};
use tempfile::TempDir;

use super::common::text;
use crate::testing::{TestBroker, name};

/// A wait for the coordinator gives up after this.
const PATIENCE: Duration = Duration::from_secs(20);

const SETS: &[&str] = &[
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=3",
];

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let spec = api::spec(key as i16).unwrap();
    spec.min..=spec.max
}

/// A broker with a topic `t` of two partitions and a coordinator.
async fn broker() -> TestBroker {
    let mut sets = SETS.to_vec();
    sets.push("num.partitions=2");
    let broker = TestBroker::start(&sets).await;
    broker.create(&["t"]).await;
    find(&broker, 4).await;
    broker
}

async fn restarted(dir: TempDir) -> TestBroker {
    let broker = TestBroker::start_in(dir, SETS).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while list(&broker, 4).await.is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "groups were not loaded in time"
        );
        tokio::task::yield_now().await;
    }
    broker
}

async fn find(broker: &TestBroker, version: i16) -> (i16, i32) {
    let request = if version >= 4 {
        FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")])
    } else {
        FindCoordinatorRequest::default().with_key(text("g"))
    };
    let response = broker.call_version(request, version).await;
    match response.coordinators.first() {
        Some(found) => (found.error_code, found.port),
        None => (response.error_code, response.port),
    }
}

/// State of each group; none while loading.
async fn list(broker: &TestBroker, version: i16) -> Option<Vec<(String, String)>> {
    let response = broker
        .call_version(ListGroupsRequest::default(), version)
        .await;
    let listed = response.groups.iter();
    let listed = listed.map(|group| (group.group_id.to_string(), group.group_state.to_string()));
    (response.error_code == 0).then(|| listed.collect())
}

async fn join(broker: &TestBroker, version: i16, id: &str, member: &str) -> JoinGroupResponse {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"topics"));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 {
        request.rebalance_timeout_ms = 10_000;
    }
    broker.call_version(request, version).await
}

/// Joins alone, whatever the version asks for, and gets the assignment: member id and generation.
async fn enter(broker: &TestBroker, version: i16, id: &str) -> (String, i32) {
    let mut joined = join(broker, version, id, "").await;
    if joined.error_code == ErrorCode::MemberIdRequired.code() {
        assert!(version >= 4);
        joined = join(broker, version, id, &joined.member_id).await;
    }
    assert_eq!(joined.error_code, 0, "v{version}");
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members[0].metadata, Bytes::from_static(b"topics"));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"all"));
    let mut request = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    let synced = broker.call_version(request, version.min(5)).await;
    assert_eq!(
        (synced.error_code, &synced.assignment[..]),
        (0, &b"all"[..]),
        "v{version}"
    );
    (joined.member_id.to_string(), joined.generation_id)
}

async fn heartbeat(
    broker: &TestBroker,
    version: i16,
    id: &str,
    member: &str,
    generation: i32,
) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(id))
        .with_generation_id(generation)
        .with_member_id(text(member));
    broker.call_version(request, version).await.error_code
}

async fn leave(broker: &TestBroker, version: i16, id: &str, member: &str) -> i16 {
    let request = LeaveGroupRequest::default().with_group_id(group(id));
    if version < 3 {
        let request = request.with_member_id(text(member));
        return broker.call_version(request, version).await.error_code;
    }
    let identity = MemberIdentity::default().with_member_id(text(member));
    let response = broker
        .call_version(request.with_members(vec![identity]), version)
        .await;
    assert_eq!(response.error_code, 0);
    response.members[0].error_code
}

async fn commit(
    broker: &TestBroker,
    version: i16,
    id: &str,
    who: (&str, i32),
    offset: i64,
) -> [i16; 2] {
    let partition = |index| {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("note")));
        if version >= 6 {
            partition.with_committed_leader_epoch(3)
        } else {
            partition
        }
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition(1), partition(9)]);
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(who.0))
        .with_generation_id_or_member_epoch(who.1)
        .with_topics(vec![topic]);
    if version <= 4 {
        request.retention_time_ms = -1;
    }
    let response = broker.call_version(request, version).await;
    let partitions = &response.topics[0].partitions;
    [partitions[0].error_code, partitions[1].error_code]
}

/// Partition, offset, leader epoch, note of what is committed, by partition; `named` asks for two partitions.
async fn fetch(
    broker: &TestBroker,
    version: i16,
    id: &str,
    named: bool,
) -> Vec<(i32, i64, i32, String)> {
    if version >= 8 {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0, 1]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group(id))
            .with_member_epoch(-1)
            .with_topics(named.then(|| vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let response = broker.call_version(request, version).await;
        assert_eq!(response.groups[0].error_code, 0);
        let found = response.groups[0]
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions);
        return found
            .map(|p| {
                (
                    p.partition_index,
                    p.committed_offset,
                    p.committed_leader_epoch,
                    p.metadata.as_deref().unwrap().to_owned(),
                )
            })
            .collect();
    }
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![0, 1]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group(id))
        .with_topics(named.then(|| vec![topic]));
    let response = broker.call_version(request, version).await;
    assert_eq!(response.error_code, 0);
    let found = response.topics.iter().flat_map(|topic| &topic.partitions);
    found
        .map(|p| {
            (
                p.partition_index,
                p.committed_offset,
                p.committed_leader_epoch,
                p.metadata.as_deref().unwrap().to_owned(),
            )
        })
        .collect()
}

#[tokio::test]
async fn the_first_who_asks_for_a_coordinator_makes_the_offsets_topic() {
    let broker = TestBroker::start(SETS).await;
    assert_eq!(
        heartbeat(&broker, 4, "g", "m", 1).await,
        ErrorCode::NotCoordinator.code()
    );
    for version in versions(ApiKey::FindCoordinator) {
        assert_eq!(find(&broker, version).await, (0, 9092), "v{version}");
    }
    let topic = broker
        .broker
        .partitions
        .topic("__consumer_offsets")
        .unwrap();
    assert_eq!((topic.partitions.len(), topic.settings.deletes), (3, false));
    let other = FindCoordinatorRequest::default()
        .with_key_type(2)
        .with_coordinator_keys(vec![text("g:topic:0")]);
    let refused = broker.call(other).await;
    assert_eq!(
        refused.coordinators[0].error_code,
        ErrorCode::InvalidRequest.code()
    );
}

#[tokio::test]
async fn every_version_of_the_group_protocol_works() {
    let broker = broker().await;
    for version in versions(ApiKey::JoinGroup) {
        let id = format!("g{version}");
        let (member, generation) = enter(&broker, version, &id).await;
        let version = version.min(4);
        assert_eq!(
            heartbeat(&broker, version, &id, &member, generation).await,
            0
        );
        let illegal = heartbeat(&broker, version, &id, &member, generation + 1).await;
        assert_eq!(illegal, ErrorCode::IllegalGeneration.code());
        let unknown = leave(&broker, version, &id, "nobody").await;
        assert_eq!(unknown, ErrorCode::UnknownMemberId.code(), "v{version}");
        assert_eq!(leave(&broker, version, &id, &member).await, 0, "v{version}");
    }
    assert_eq!(
        leave(&broker, 5, "g9", "nobody").await,
        ErrorCode::UnknownMemberId.code()
    );
}

#[tokio::test]
async fn offsets_come_back_in_every_version_and_after_a_restart() {
    let broker = broker().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for version in versions(ApiKey::OffsetCommit) {
        let offset = 100 + i64::from(version);
        assert_eq!(
            commit(&broker, version, "g", ("", -1), offset).await,
            [0, unknown]
        );
    }
    let note = |text: &str| text.to_owned();
    for version in versions(ApiKey::OffsetFetch) {
        let epoch = if version >= 5 { 3 } else { -1 };
        let want = vec![(0, -1, -1, note("")), (1, 109, epoch, note("note"))];
        assert_eq!(fetch(&broker, version, "g", true).await, want, "v{version}");
        if version >= 2 {
            assert_eq!(
                fetch(&broker, version, "g", false).await,
                want[1..],
                "v{version}"
            );
        }
        let nothing = vec![(0, -1, -1, note("")), (1, -1, -1, note(""))];
        assert_eq!(
            fetch(&broker, version, "unknown", true).await,
            nothing,
            "v{version}"
        );
    }
    let broker = restarted(broker.stop()).await;
    assert_eq!(
        fetch(&broker, 9, "g", false).await,
        [(1, 109, 3, note("note"))]
    );
}

#[tokio::test]
async fn a_group_goes_on_after_a_restart() {
    let broker = broker().await;
    let (member, generation) = enter(&broker, 9, "g").await;
    assert_eq!(
        commit(&broker, 9, "g", (&member, generation), 5).await[0],
        0
    );
    let refused = commit(&broker, 9, "g", ("", -1), 6).await[0];
    assert_eq!(refused, ErrorCode::UnknownMemberId.code());
    let broker = restarted(broker.stop()).await;
    assert_eq!(heartbeat(&broker, 4, "g", &member, generation).await, 0);
    assert_eq!(
        commit(&broker, 9, "g", (&member, generation), 7).await[0],
        0
    );
    assert_eq!(fetch(&broker, 9, "g", true).await[1].1, 7);
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let broker = broker().await;
    commit(&broker, 9, "offsets-only", ("", -1), 5).await;
    let (member, _) = enter(&broker, 9, "g").await;
    for version in versions(ApiKey::ListGroups) {
        let listed = list(&broker, version).await.unwrap();
        let names: Vec<&str> = listed.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["g", "offsets-only"], "v{version}");
    }
    let empty = ListGroupsRequest::default().with_states_filter(vec![text("empty")]);
    assert_eq!(broker.call(empty).await.groups.len(), 1);
    for version in versions(ApiKey::DescribeGroups) {
        let groups = vec![group("g"), group("none")];
        let request = DescribeGroupsRequest::default().with_groups(groups);
        let response = broker.call_version(request, version).await;
        let found = &response.groups[0];
        assert_eq!(
            (found.error_code, found.group_state.as_str()),
            (0, "Stable"),
            "v{version}"
        );
        assert_eq!(
            found.members[0].member_assignment,
            Bytes::from_static(b"all")
        );
        let none = &response.groups[1];
        let want = if version >= 6 {
            ErrorCode::GroupIdNotFound.code()
        } else {
            0
        };
        assert_eq!(
            (none.error_code, none.group_state.as_str()),
            (want, "Dead"),
            "v{version}"
        );
    }
    let ask = || {
        let names = vec![group("g"), group("offsets-only"), group("none")];
        DeleteGroupsRequest::default().with_groups_names(names)
    };
    let codes = |response: keelson_protocol::kafka_protocol::messages::DeleteGroupsResponse| {
        let results = response.results.iter();
        results.map(|result| result.error_code).collect::<Vec<_>>()
    };
    let not_found = ErrorCode::GroupIdNotFound.code();
    let first = codes(broker.call_version(ask(), 0).await);
    assert_eq!(first, [ErrorCode::NonEmptyGroup.code(), 0, not_found]);
    leave(&broker, 5, "g", &member).await;
    assert_eq!(
        codes(broker.call_version(ask(), 2).await),
        [0, not_found, not_found]
    );
    let broker = restarted(broker.stop()).await;
    assert_eq!(list(&broker, 5).await, Some(vec![]));
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_are_gone() {
    let broker = broker().await;
    commit(&broker, 9, "g", ("", -1), 5).await;
    let state = DeleteTopicState::default().with_name(Some(name("t")));
    broker
        .call(DeleteTopicsRequest::default().with_topics(vec![state]))
        .await;
    broker.create(&["t"]).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !fetch(&broker, 9, "g", false).await.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the offsets stay");
        tokio::task::yield_now().await;
    }
    let broker = restarted(broker.stop()).await;
    assert_eq!(fetch(&broker, 9, "g", false).await, []);
}

#[tokio::test]
async fn two_members_share_a_group_and_learn_of_each_other() {
    let broker = broker().await;
    let (first, generation) = enter(&broker, 3, "g").await;
    let (second, again) = tokio::join!(join(&broker, 3, "g", ""), async {
        let rebalancing = ErrorCode::RebalanceInProgress.code();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while heartbeat(&broker, 3, "g", &first, generation).await != rebalancing {
            assert!(tokio::time::Instant::now() < deadline, "no rebalance began");
            tokio::task::yield_now().await;
        }
        join(&broker, 3, "g", &first).await
    });
    assert_eq!((second.error_code, again.error_code), (0, 0));
    assert_eq!(
        (second.generation_id, again.generation_id),
        (generation + 1, generation + 1)
    );
    assert_eq!((again.members.len(), second.members.len()), (2, 0));
}

/// Deletes offsets of `t` and of a topic that does not exist: the error of all, or those of each partition.
async fn delete_offsets(broker: &TestBroker, id: &str) -> Result<Vec<i16>, i16> {
    let topics = [("t", vec![0, 1, 9]), ("none", vec![0])].map(|(topic, partitions)| {
        let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
        OffsetDeleteRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(partitions.into_iter().map(partition).collect())
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(group(id))
        .with_topics(topics.to_vec());
    let response = broker.call(request).await;
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    match response.error_code {
        0 => Ok(partitions.map(|partition| partition.error_code).collect()),
        error => Err(error),
    }
}

#[tokio::test]
async fn single_offsets_are_deleted_and_stay_away() {
    let broker = broker().await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_found = ErrorCode::GroupIdNotFound.code();
    assert_eq!(delete_offsets(&broker, "g").await, Err(not_found));
    commit(&broker, 9, "g", ("", -1), 5).await;
    assert_eq!(
        delete_offsets(&broker, "g").await,
        Ok(vec![0, 0, unknown, unknown])
    );
    assert_eq!(fetch(&broker, 9, "g", false).await, []);
    // The subscription of these members cannot be read, so they may read everything.
    let (member, generation) = enter(&broker, 3, "g").await;
    commit(&broker, 9, "g", (&member, generation), 5).await;
    let in_use = ErrorCode::GroupSubscribedToTopic.code();
    let codes = vec![in_use, in_use, unknown, unknown];
    assert_eq!(delete_offsets(&broker, "g").await, Ok(codes));
    leave(&broker, 3, "g", &member).await;
    assert_eq!(
        delete_offsets(&broker, "g").await,
        Ok(vec![0, 0, unknown, unknown])
    );
    let broker = restarted(broker.stop()).await;
    assert_eq!(fetch(&broker, 9, "g", false).await, []);
}

#[tokio::test]
async fn offsets_expire_by_the_owners_clock() {
    let sets = [SETS, &["offsets.retention.check.interval.ms=1"]].concat();
    let broker = TestBroker::start(&sets).await;
    broker.create(&["t"]).await;
    find(&broker, 4).await;
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name("t"))
        .with_partitions(vec![partition]);
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    request.retention_time_ms = -1;
    broker.call_version(request.clone(), 4).await;
    assert_eq!(list(&broker, 4).await.map(|groups| groups.len()), Some(1));
    request.retention_time_ms = 0;
    let response = broker.call_version(request, 4).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while list(&broker, 4).await != Some(vec![]) {
        assert!(tokio::time::Instant::now() < deadline, "the offset stays");
        tokio::task::yield_now().await;
    }
    let broker = restarted(broker.stop()).await;
    assert_eq!(list(&broker, 4).await, Some(vec![]));
}
