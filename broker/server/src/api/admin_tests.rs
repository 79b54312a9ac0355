//! The admin APIs against a broker on a real log: every version answers, every refusal has its code, and what was
//! answered is there after a restart.

use keelson_protocol::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use keelson_protocol::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use keelson_protocol::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use keelson_protocol::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use keelson_protocol::kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use keelson_protocol::kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, InitProducerIdRequest, TransactionalId,
};
use keelson_protocol::{ErrorCode, api};
use uuid::Uuid;

use super::common::text;
use super::config_tests::{self, Change};
use crate::testing::{TestBroker, name};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn topic(of: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(of))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
}

fn config(key: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(text(key))
        .with_value(Some(text(value)))
}

async fn create(broker: &TestBroker, topics: Vec<CreatableTopic>, version: i16) -> Vec<i16> {
    let request = CreateTopicsRequest::default().with_topics(topics);
    let response = broker.call_version(request, version).await;
    let each = response.topics.iter();
    each.map(|topic| topic.error_code).collect()
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let spec = api::spec(key as i16).unwrap();
    spec.min..=spec.max
}

#[tokio::test]
async fn topics_are_created_in_every_version_and_refused_with_a_reason() {
    let broker = TestBroker::start(&[]).await;
    for version in versions(ApiKey::CreateTopics) {
        let codes = create(&broker, vec![topic(&format!("t{version}"), 2)], version).await;
        assert_eq!(codes, [0], "v{version}");
    }
    let bad_config = topic("x", 1).with_configs(vec![config("preallocate", "true")]);
    let cases = [
        (topic("t7", 1), ErrorCode::TopicAlreadyExists),
        (topic("a b", 1), ErrorCode::InvalidTopicException),
        (topic("x", 0), ErrorCode::InvalidPartitions),
        (
            topic("x", 1).with_replication_factor(2),
            ErrorCode::InvalidReplicationFactor,
        ),
        (bad_config, ErrorCode::InvalidConfig),
        (topic("__consumer_offsets", 1), ErrorCode::InvalidRequest),
    ];
    for (topic, want) in cases {
        let codes = create(&broker, vec![topic.clone()], 7).await;
        assert_eq!(codes, [want.code()], "{topic:?}");
    }
    let codes = create(
        &broker,
        vec![topic("y", 1), topic("z", 1), topic("y", 1)],
        7,
    )
    .await;
    assert_eq!(
        codes,
        [0, ErrorCode::InvalidRequest.code()],
        "a name that stands twice"
    );
    assert!(broker.broker.partitions.topic("y").is_none());
}

#[tokio::test]
async fn e13_each_topic_of_a_request_has_the_partitions_it_asked_for() {
    let broker = TestBroker::start(&[]).await;
    let wanted = [("one", 1), ("three", 3), ("two", 2)];
    let topics = wanted.map(|(of, partitions)| topic(of, partitions));
    assert_eq!(create(&broker, topics.to_vec(), 7).await, [0; 3]);
    for (of, partitions) in wanted {
        for index in 0..partitions {
            assert_eq!(
                broker.produce(of, index, &[b"x"]).await,
                (0, 0),
                "{of}-{index}"
            );
        }
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(
            broker.produce(of, partitions, &[b"x"]).await.0,
            unknown,
            "{of}"
        );
    }
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let broker = TestBroker::start(&[]).await;
    let request = CreateTopicsRequest::default()
        .with_topics(vec![
            topic("t", -1).with_configs(vec![config("retention.ms", "5")]),
        ])
        .with_validate_only(true);
    let response = broker.call(request).await;
    let answer = &response.topics[0];
    assert_eq!((answer.error_code, answer.num_partitions), (0, 1));
    assert!(answer.topic_id.is_nil());
    let configs = answer.configs.as_ref().unwrap();
    let retention = configs
        .iter()
        .find(|config| &*config.name == "retention.ms");
    assert_eq!(retention.unwrap().value.as_deref(), Some("5"));
    assert!(broker.broker.image().topic("t").is_none());
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let broker = TestBroker::start(&[]).await;
    let configs = vec![
        config("retention.ms", "777"),
        config("keelson.owner", "a/b/c"),
    ];
    create(
        &broker,
        vec![topic("kept", 3).with_configs(configs), topic("gone", 1)],
        7,
    )
    .await;
    assert_eq!(broker.produce("kept", 2, &[b"one"]).await, (0, 0));
    let growth = CreatePartitionsTopic::default()
        .with_name(name("kept"))
        .with_count(5)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![growth]);
    assert_eq!(broker.call(request).await.results[0].error_code, 0);
    let request = DeleteTopicsRequest::default().with_topics(vec![
        DeleteTopicState::default().with_name(Some(name("gone"))),
    ]);
    assert_eq!(broker.call(request).await.responses[0].error_code, 0);
    assert_eq!(
        broker.produce("gone", 0, &[b"x"]).await.0,
        ErrorCode::UnknownTopicOrPartition.code()
    );

    let broker = TestBroker::start_in(broker.stop(), &[]).await;
    let state = broker.broker.partitions.topic("kept").unwrap();
    assert_eq!(
        (state.partitions.len(), state.settings.retention_ms),
        (5, 777)
    );
    assert_eq!(state.leader_epoch, 1, "one start later");
    assert_eq!(state.partition(2).unwrap().high_watermark(), 1);
    assert!(broker.broker.partitions.topic("gone").is_none());
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id_in_every_version() {
    let broker = TestBroker::start(&[]).await;
    for version in versions(ApiKey::DeleteTopics) {
        create(&broker, vec![topic("t", 1)], 7).await;
        let by_name = DeleteTopicState::default().with_name(Some(name("t")));
        let request = if version >= 6 {
            DeleteTopicsRequest::default().with_topics(vec![by_name])
        } else {
            DeleteTopicsRequest::default().with_topic_names(vec![name("t"), name("none")])
        };
        let response = broker.call_version(request, version).await;
        assert_eq!(response.responses[0].error_code, 0, "v{version}");
        if version < 6 {
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(response.responses[1].error_code, unknown, "v{version}");
        }
        assert!(broker.broker.partitions.topic("t").is_none());
    }
    create(&broker, vec![topic("t", 1)], 7).await;
    let id = Uuid::from_bytes(broker.broker.image().topic("t").unwrap().id);
    let by_id = |id| DeleteTopicState::default().with_topic_id(id);
    let topics = vec![
        by_id(Uuid::from_u128(99)),
        by_id(id),
        DeleteTopicState::default(),
    ];
    let response = broker
        .call(DeleteTopicsRequest::default().with_topics(topics))
        .await;
    let code = |id: Uuid| {
        let found = response
            .responses
            .iter()
            .find(|answer| answer.topic_id == id);
        found.unwrap().error_code
    };
    assert_eq!(code(id), 0);
    assert_eq!(code(Uuid::from_u128(99)), ErrorCode::UnknownTopicId.code());
    assert_eq!(code(Uuid::nil()), ErrorCode::InvalidRequest.code());
}

#[tokio::test]
async fn growth_answers_every_topic() {
    let broker = TestBroker::start(&[]).await;
    create(&broker, vec![topic("a", 1), topic("b", 2)], 7).await;
    let grow = |of: &str, count| {
        CreatePartitionsTopic::default()
            .with_name(name(of))
            .with_count(count)
            .with_assignments(None)
    };
    for version in versions(ApiKey::CreatePartitions) {
        let more = 3 + i32::from(version);
        let topics = vec![grow("a", more), grow("b", 1), grow("none", 5)];
        let request = CreatePartitionsRequest::default().with_topics(topics);
        let response = broker.call_version(request, version).await;
        let codes: Vec<i16> = response
            .results
            .iter()
            .map(|result| result.error_code)
            .collect();
        let want = [
            0,
            ErrorCode::InvalidPartitions.code(),
            ErrorCode::UnknownTopicOrPartition.code(),
        ];
        assert_eq!(codes, want, "v{version}");
        let grown = broker.broker.partitions.topic("a").unwrap();
        assert_eq!(grown.partitions.len(), usize::try_from(more).unwrap());
    }
}

async fn describe(broker: &TestBroker, kind: i8, of: &str, version: i16) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    broker
        .call_version(request, version)
        .await
        .results
        .remove(0)
}

#[tokio::test]
async fn configs_are_described_with_their_sources() {
    let broker = TestBroker::start(&["log.retention.hours=2"]).await;
    let configs = vec![config("segment.ms", "9")];
    create(&broker, vec![topic("t", 1).with_configs(configs)], 7).await;
    for version in versions(ApiKey::DescribeConfigs) {
        let described = describe(&broker, TOPIC, "t", version).await;
        let entry = |key: &str| {
            let found = described.configs.iter().find(|entry| &*entry.name == key);
            let found = found.unwrap();
            (
                found.value.as_deref().unwrap().to_owned(),
                found.config_source,
                found.synonyms.len(),
            )
        };
        // Like in Kafka, values under names of other units alone are not shown.
        assert_eq!(entry("segment.ms"), ("9".to_owned(), 1, 1), "v{version}");
        assert_eq!(
            entry("retention.ms"),
            ("7200000".to_owned(), 5, 0),
            "v{version}"
        );
        assert_eq!(
            entry("cleanup.policy"),
            ("delete".to_owned(), 5, 1),
            "v{version}"
        );
        let described = describe(&broker, BROKER, "0", version).await;
        let hours = described
            .configs
            .iter()
            .find(|entry| &*entry.name == "log.retention.hours");
        assert_eq!(hours.unwrap().value.as_deref(), Some("2"));
        for entry in &described.configs {
            let is_dynamic = matches!(&*entry.name, "log.retention.ms" | "message.max.bytes");
            assert!(!is_dynamic || !entry.read_only, "{}", &*entry.name);
            assert!(!entry.is_sensitive);
        }
        assert!(hours.unwrap().read_only);
    }
    let cases = [
        (TOPIC, "none", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "a b", ErrorCode::InvalidTopicException),
        (BROKER, "7", ErrorCode::InvalidRequest),
        (BROKER, "x", ErrorCode::InvalidRequest),
        (64, "0", ErrorCode::InvalidRequest),
    ];
    for (kind, of, want) in cases {
        assert_eq!(
            describe(&broker, kind, of, 4).await.error_code,
            want.code(),
            "{kind} {of}"
        );
    }
}

async fn alter(broker: &TestBroker, kind: i8, of: &str, changes: &[Change<'_>]) -> i16 {
    config_tests::alter(broker, kind, of, changes).await.0
}

#[tokio::test]
async fn configs_are_changed_as_a_whole_or_not_at_all() {
    let broker = TestBroker::start(&[]).await;
    create(&broker, vec![topic("t", 1)], 7).await;
    let retention = || {
        broker
            .broker
            .partitions
            .topic("t")
            .unwrap()
            .settings
            .retention_ms
    };
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", 0, Some("5"))]).await,
        0
    );
    assert_eq!(retention(), 5);
    let invalid = ErrorCode::InvalidConfig.code();
    let both = [("retention.ms", 0, Some("6")), ("nope", 0, Some("1"))];
    assert_eq!(alter(&broker, TOPIC, "t", &both).await, invalid);
    assert_eq!(retention(), 5);
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", 1, None)]).await,
        0
    );
    assert_eq!(retention(), 604_800_000);
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("retention.ms", 2, Some("1"))]).await,
        invalid
    );
    assert_eq!(
        alter(
            &broker,
            TOPIC,
            "t",
            &[("cleanup.policy", 2, Some("delete"))]
        )
        .await,
        0
    );
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("keelson.owner", 0, Some("a"))]).await,
        0
    );
    assert_eq!(
        alter(&broker, TOPIC, "t", &[("keelson.owner", 0, Some("b"))]).await,
        invalid
    );
    assert_eq!(
        alter(&broker, BROKER, "0", &[("num.partitions", 0, Some("2"))]).await,
        ErrorCode::InvalidRequest.code()
    );
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(alter(&broker, TOPIC, "none", &[]).await, unknown);
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let mut broker = TestBroker::start(&[]).await;
    let mut last = -1;
    for _ in 0..3 {
        for version in versions(ApiKey::InitProducerId) {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response = broker.call_version(request, version).await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(response.producer_id.0 > last, "v{version}");
            last = response.producer_id.0;
        }
        broker = TestBroker::start_in(broker.stop(), &[]).await;
    }
    let id = Some(TransactionalId(text("tx")));
    let request = InitProducerIdRequest::default().with_transactional_id(id);
    let refused = broker.call(request).await;
    let nobody_asked = ErrorCode::NotCoordinator.code();
    assert_eq!(refused.error_code, nobody_asked);
}

#[tokio::test]
async fn the_cluster_is_described_in_every_version() {
    let broker = TestBroker::start(&[]).await;
    for version in versions(ApiKey::DescribeCluster) {
        let response = broker
            .call_version(DescribeClusterRequest::default(), version)
            .await;
        assert_eq!(
            (response.error_code, response.brokers.len()),
            (0, 1),
            "v{version}"
        );
        assert_eq!(
            response.cluster_id.as_str(),
            broker.broker.identity.cluster_id
        );
    }
    let controllers = DescribeClusterRequest::default().with_endpoint_type(2);
    let refused = broker.call(controllers).await;
    assert_eq!(refused.error_code, ErrorCode::MismatchedEndpointType.code());
}
