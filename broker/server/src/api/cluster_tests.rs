//! What administrators ask about one broker: every version answers, and every refusal has its code.

use keelson_protocol::kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use keelson_protocol::kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use keelson_protocol::kafka_protocol::messages::create_acls_request::AclCreation;
use keelson_protocol::kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use keelson_protocol::kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use keelson_protocol::kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use keelson_protocol::kafka_protocol::messages::describe_quorum_request::{
    PartitionData, TopicData,
};
use keelson_protocol::kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor, TopicRequest,
};
use keelson_protocol::kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use keelson_protocol::kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use keelson_protocol::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiKey, BrokerId,
    CreateAclsRequest, CreateDelegationTokenRequest, DeleteAclsRequest, DescribeAclsRequest,
    DescribeClientQuotasRequest, DescribeDelegationTokenRequest, DescribeLogDirsRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, ExpireDelegationTokenRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, ListTransactionsRequest,
    RenewDelegationTokenRequest,
};
use keelson_protocol::{ErrorCode, api};

use super::common::text;
use crate::testing::{TestBroker, name};

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let spec = api::spec(key as i16).unwrap();
    spec.min..=spec.max
}

#[tokio::test]
async fn there_is_no_authorizer() {
    let broker = TestBroker::start(&[]).await;
    let disabled = ErrorCode::SecurityDisabled.code();
    for version in versions(ApiKey::DescribeAcls) {
        let request = DescribeAclsRequest::default();
        let answer = broker.call_version(request, version).await;
        assert_eq!(answer.error_code, disabled);
        let request = CreateAclsRequest::default().with_creations(vec![AclCreation::default(); 2]);
        let answer = broker.call_version(request, version).await;
        let codes: Vec<i16> = answer.results.iter().map(|one| one.error_code).collect();
        assert_eq!(codes, [disabled; 2]);
        let filters = vec![DeleteAclsFilter::default(); 2];
        let request = DeleteAclsRequest::default().with_filters(filters);
        let answer = broker.call_version(request, version).await;
        let codes: Vec<i16> = answer
            .filter_results
            .iter()
            .map(|one| one.error_code)
            .collect();
        assert_eq!(codes, [disabled; 2]);
    }
}

#[tokio::test]
async fn nobody_gets_a_delegation_token_without_authentication() {
    let broker = TestBroker::start(&[]).await;
    let refused = ErrorCode::DelegationTokenRequestNotAllowed.code();
    for version in versions(ApiKey::CreateDelegationToken) {
        let mut request = CreateDelegationTokenRequest::default();
        if version >= 3 {
            request.owner_principal_type = Some(text("User"));
            request.owner_principal_name = Some(text("alice"));
        }
        let answer = broker.call_version(request, version).await;
        assert_eq!(
            (answer.error_code, answer.issue_timestamp_ms),
            (refused, -1)
        );
        let owner = if version >= 3 { "alice" } else { "ANONYMOUS" };
        assert_eq!(answer.principal_name.as_str(), owner);
        let request = DescribeDelegationTokenRequest::default();
        let answer = broker.call_version(request, version).await;
        assert_eq!(answer.error_code, refused);
    }
    for version in versions(ApiKey::RenewDelegationToken) {
        let request = RenewDelegationTokenRequest::default();
        let answer = broker.call_version(request, version).await;
        assert_eq!(
            (answer.error_code, answer.expiry_timestamp_ms),
            (refused, -1)
        );
        let request = ExpireDelegationTokenRequest::default();
        let answer = broker.call_version(request, version).await;
        assert_eq!(
            (answer.error_code, answer.expiry_timestamp_ms),
            (refused, -1)
        );
    }
}

#[tokio::test]
async fn the_one_broker_leads_everything_and_nothing_moves() {
    let broker = TestBroker::start(&["num.partitions=2"]).await;
    broker.create(&["t"]).await;
    for version in versions(ApiKey::ElectLeaders) {
        let topics = ["t", "none"].map(|topic| {
            TopicPartitions::default()
                .with_topic(name(topic))
                .with_partitions(vec![0, 7])
        });
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(topics.to_vec()));
        let answer = broker.call_version(request, version).await;
        let results = answer.replica_election_results.iter();
        let codes: Vec<i16> = results
            .flat_map(|topic| topic.partition_result.iter().map(|one| one.error_code))
            .collect();
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let wanted = [
            ErrorCode::ElectionNotNeeded.code(),
            unknown,
            unknown,
            unknown,
        ];
        assert_eq!(codes, wanted, "v{version}");
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        let answer = broker.call_version(all, version).await;
        assert!(
            answer.replica_election_results[0]
                .partition_result
                .is_empty()
        );
    }
    let odd = ElectLeadersRequest::default().with_election_type(9);
    let answer = broker.call(odd).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
    let listed = broker
        .call(ListPartitionReassignmentsRequest::default())
        .await;
    assert!(listed.topics.is_empty() && listed.error_code == 0);
}

#[tokio::test]
async fn a_partition_can_be_moved_to_where_it_is() {
    let broker = TestBroker::start(&[]).await;
    broker.create(&["t"]).await;
    let move_to = |topic: &str, index, replicas: Option<Vec<i32>>| {
        let replicas = replicas.map(|ids| ids.into_iter().map(BrokerId).collect());
        let partition = ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(replicas);
        let topic = ReassignableTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
    };
    let cases = [
        ("t", 0, Some(vec![0]), None),
        (
            "t",
            0,
            Some(vec![0, 0]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        (
            "t",
            0,
            Some(vec![1]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        (
            "t",
            0,
            Some(vec![]),
            Some(ErrorCode::InvalidReplicaAssignment),
        ),
        ("t", 0, None, Some(ErrorCode::NoReassignmentInProgress)),
        (
            "t",
            1,
            Some(vec![0]),
            Some(ErrorCode::UnknownTopicOrPartition),
        ),
        (
            "none",
            0,
            Some(vec![0]),
            Some(ErrorCode::UnknownTopicOrPartition),
        ),
    ];
    for version in versions(ApiKey::AlterPartitionReassignments) {
        for (topic, index, replicas, error) in cases.clone() {
            let request = move_to(topic, index, replicas.clone());
            let answer = broker.call_version(request, version).await;
            let code = answer.responses[0].partitions[0].error_code;
            let wanted = error.map_or(0, |error| error.code());
            assert_eq!(code, wanted, "{topic} {index} {replicas:?}");
        }
    }
}

#[tokio::test]
async fn the_data_directory_and_what_lies_in_it() {
    let broker = TestBroker::start(&["num.partitions=2"]).await;
    broker.create(&["t", "u"]).await;
    assert_eq!(broker.produce("t", 1, &[b"value"]).await, (0, 0));
    let mut dir = text("");
    for version in versions(ApiKey::DescribeLogDirs) {
        let all = DescribeLogDirsRequest::default().with_topics(None);
        let answer = broker.call_version(all, version).await;
        let result = &answer.results[0];
        assert_eq!((answer.results.len(), result.error_code), (1, 0));
        let names: Vec<&str> = result
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect();
        assert_eq!(names, ["t", "u"]);
        let sizes: Vec<i64> = result.topics[0]
            .partitions
            .iter()
            .map(|partition| partition.partition_size)
            .collect();
        assert!(sizes[0] == 0 && sizes[1] > 0, "{sizes:?}");
        assert_eq!(result.total_bytes > 0, version >= 4, "v{version}");
        let asked = [("t", vec![1, 1, 9]), ("none", vec![0]), ("u", vec![5])];
        let asked = asked.map(|(topic, partitions)| {
            DescribableLogDirTopic::default()
                .with_topic(name(topic))
                .with_partitions(partitions)
        });
        let some = DescribeLogDirsRequest::default().with_topics(Some(asked.to_vec()));
        let answer = broker.call_version(some, version).await;
        let topics = &answer.results[0].topics;
        assert_eq!((topics.len(), topics[0].partitions.len()), (1, 1));
        dir = result.log_dir.clone();
    }
    let place = |path, index| {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![index]);
        let dir = AlterReplicaLogDir::default()
            .with_path(path)
            .with_topics(vec![topic]);
        AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
    };
    for (path, index, error) in [
        (dir.clone(), 0, 0),
        (dir, 9, ErrorCode::UnknownTopicOrPartition.code()),
        (text("/elsewhere"), 0, ErrorCode::LogDirNotFound.code()),
    ] {
        let answer = broker.call(place(path, index)).await;
        assert_eq!(answer.results[0].partitions[0].error_code, error);
    }
}

fn pages(answer: &DescribeTopicPartitionsResponse) -> Vec<(String, Vec<i32>, i16)> {
    let page = |topic: &keelson_protocol::kafka_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic| {
        let partitions = topic.partitions.iter().map(|one| one.partition_index);
        let name = topic.name.as_ref().unwrap().to_string();
        (name, partitions.collect(), topic.error_code)
    };
    answer.topics.iter().map(page).collect()
}

#[tokio::test]
async fn topics_come_in_pages() {
    let broker = TestBroker::start(&["num.partitions=3"]).await;
    broker.create(&["a", "b", "c"]).await;
    let ask = |names: &[&str], limit, cursor: Option<(&str, i32)>| {
        let topics = names
            .iter()
            .map(|topic| TopicRequest::default().with_name(name(topic)));
        let cursor = cursor.map(|(topic, partition)| {
            Cursor::default()
                .with_topic_name(name(topic))
                .with_partition_index(partition)
        });
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor)
    };
    let answer = broker.call(ask(&[], 4, None)).await;
    let page = |name: &str, partitions: &[i32]| (name.to_owned(), partitions.to_vec(), 0);
    assert_eq!(pages(&answer), [page("a", &[0, 1, 2]), page("b", &[0])]);
    let next = answer.next_cursor.unwrap();
    assert_eq!((next.topic_name.as_str(), next.partition_index), ("b", 1));
    let answer = broker.call(ask(&[], 2, Some(("b", 1)))).await;
    assert_eq!(pages(&answer), [page("b", &[1, 2])]);
    let next = answer.next_cursor.unwrap();
    assert_eq!((next.topic_name.as_str(), next.partition_index), ("c", 0));
    let answer = broker.call(ask(&["c", "b"], 100, Some(("b", 2)))).await;
    assert_eq!(pages(&answer), [page("b", &[2]), page("c", &[0, 1, 2])]);
    assert!(answer.next_cursor.is_none());
    // What does not exist is said, and a cursor must be one of the topics.
    let answer = broker.call(ask(&["a", "none", "a b"], 100, None)).await;
    let codes: Vec<i16> = answer.topics.iter().map(|topic| topic.error_code).collect();
    let invalid = ErrorCode::InvalidTopicException.code();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, invalid, unknown]);
    for cursor in [("z", 0), ("a", -1)] {
        let answer = broker.call(ask(&["a"], 100, Some(cursor))).await;
        let error = ErrorCode::InvalidRequest.code();
        assert_eq!(pages(&answer), [("a".to_owned(), vec![], error)]);
    }
}

#[tokio::test]
async fn the_quorum_is_this_broker() {
    let broker = TestBroker::start(&[]).await;
    broker.create(&["t"]).await;
    let ask = |topic: &str, index| {
        let partition = PartitionData::default().with_partition_index(index);
        let topic = TopicData::default()
            .with_topic_name(name(topic))
            .with_partitions(vec![partition]);
        DescribeQuorumRequest::default().with_topics(vec![topic])
    };
    for version in versions(ApiKey::DescribeQuorum) {
        let answer = broker
            .call_version(ask("__cluster_metadata", 0), version)
            .await;
        let quorum = &answer.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id.0), (0, 0));
        assert_eq!((quorum.leader_epoch, quorum.current_voters.len()), (1, 1));
        assert!(quorum.high_watermark >= 2, "a start and a topic");
        assert_eq!(
            quorum.current_voters[0].log_end_offset,
            quorum.high_watermark
        );
        assert_eq!(answer.nodes.len(), usize::from(version >= 2));
        if version >= 2 {
            assert!(!quorum.current_voters[0].replica_directory_id.is_nil());
        }
        for (topic, index) in [("t", 0), ("__cluster_metadata", 1)] {
            let answer = broker.call_version(ask(topic, index), version).await;
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(answer.topics[0].partitions[0].error_code, unknown);
        }
    }
}

#[tokio::test]
async fn nobody_has_a_quota_or_credentials() {
    let broker = TestBroker::start(&[]).await;
    let component = |entity: &str, kind, name: Option<&str>| {
        ComponentData::default()
            .with_entity_type(text(entity))
            .with_match_type(kind)
            .with_match(name.map(text))
    };
    let unsupported = Some(ErrorCode::UnsupportedVersion);
    let invalid = Some(ErrorCode::InvalidRequest);
    let user = component("user", 2, None);
    let cases = [
        (vec![], None),
        (
            vec![user.clone(), component("client-id", 0, Some("c"))],
            None,
        ),
        (vec![component("ip", 1, None)], None),
        (vec![component("", 2, None)], invalid),
        (vec![component("planet", 2, None)], unsupported),
        (vec![user.clone(), user.clone()], invalid),
        (vec![user, component("ip", 2, None)], invalid),
        (vec![component("user", 0, None)], invalid),
        (vec![component("user", 1, Some("u"))], invalid),
        (vec![component("user", 7, None)], invalid),
    ];
    for version in versions(ApiKey::DescribeClientQuotas) {
        for (components, error) in cases.clone() {
            let request = DescribeClientQuotasRequest::default().with_components(components);
            let answer = broker.call_version(request, version).await;
            let wanted = error.map_or(0, |error| error.code());
            assert_eq!(answer.error_code, wanted, "{answer:?}");
            assert_eq!(answer.entries.is_some(), error.is_none());
        }
    }
    let none = DescribeUserScramCredentialsRequest::default().with_users(None);
    assert!(broker.call(none).await.results.is_empty());
    let users = ["twice", "once", "twice"].map(|user| UserName::default().with_name(text(user)));
    let some = DescribeUserScramCredentialsRequest::default().with_users(Some(users.to_vec()));
    let answer = broker.call(some).await;
    let codes: Vec<i16> = answer.results.iter().map(|one| one.error_code).collect();
    let wanted = [ErrorCode::ResourceNotFound, ErrorCode::DuplicateResource];
    assert_eq!(codes, wanted.map(|error| error.code()));
}

#[tokio::test]
async fn resources_with_a_configuration_are_listed() {
    let broker = TestBroker::start(&[]).await;
    broker.create(&["t"]).await;
    let ask = |types: Vec<i8>| ListConfigResourcesRequest::default().with_resource_types(types);
    for (types, wanted) in [
        (vec![], vec![(8, "0"), (4, "0"), (2, "t")]),
        (vec![2], vec![(2, "t")]),
        (vec![8], vec![(8, "0")]),
        (vec![16, 32], vec![]),
    ] {
        let answer = broker.call(ask(types)).await;
        let listed = answer.config_resources.iter();
        let listed: Vec<(i8, &str)> = listed
            .map(|one| (one.resource_type, &*one.resource_name))
            .collect();
        assert_eq!((answer.error_code, listed), (0, wanted));
    }
    let answer = broker.call(ask(vec![2, 3])).await;
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
    let answer = broker.call_version(ask(vec![]), 0).await;
    assert!(answer.config_resources.is_empty() && answer.error_code == 0);
}

#[tokio::test]
async fn transactions_are_listed_by_pattern_or_the_pattern_is_refused() {
    let broker = TestBroker::start(&[]).await;
    for (pattern, error) in [
        (None, 0),
        (Some("a.*"), 0),
        (Some("a)|(b"), ErrorCode::InvalidRegularExpression.code()),
        (
            Some("(a{100}){100}{100}"),
            ErrorCode::InvalidRegularExpression.code(),
        ),
    ] {
        let request = ListTransactionsRequest::default()
            .with_duration_filter(-1)
            .with_transactional_id_pattern(pattern.map(text));
        let answer = broker.call(request).await;
        assert_eq!(answer.error_code, error, "{pattern:?}");
    }
}
