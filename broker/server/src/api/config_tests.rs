//! Configs of topics and brokers through the API: what is set is in force at once and after a restart, and what cannot be
//! set is refused with a reason.

use std::time::Duration;

use keelson_log::CompactionPace;
use keelson_protocol::kafka_protocol::messages::alter_configs_request as legacy;
use keelson_protocol::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use keelson_protocol::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use keelson_protocol::kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use keelson_protocol::kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use keelson_protocol::{ErrorCode, api};

use super::common::text;
use super::config_change::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::testing::{TestBroker, name};

const SET: i8 = 0;
const DELETE: i8 = 1;

pub(super) type Change<'a> = (&'a str, i8, Option<&'a str>);

/// The code and the words that a change of one resource is answered with.
pub(super) async fn alter(
    broker: &TestBroker,
    kind: i8,
    of: &str,
    changes: &[Change<'_>],
) -> (i16, String) {
    let changes = changes.iter().map(|(key, op, value)| {
        AlterableConfig::default()
            .with_name(text(*key))
            .with_config_operation(*op)
            .with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configs(changes.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = broker.call(request).await.responses.remove(0);
    let message = response.error_message.map(|text| text.to_string());
    (response.error_code, message.unwrap_or_default())
}

fn legacy(kind: i8, of: &str, values: &[(&str, Option<&str>)]) -> legacy::AlterConfigsResource {
    let values = values.iter().map(|(key, value)| {
        legacy::AlterableConfig::default()
            .with_name(text(*key))
            .with_value(value.map(text))
    });
    legacy::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configs(values.collect())
}

async fn replace(
    broker: &TestBroker,
    version: i16,
    resources: Vec<legacy::AlterConfigsResource>,
) -> Vec<i16> {
    let request = AlterConfigsRequest::default().with_resources(resources);
    let response = broker.call_version(request, version).await;
    let each = response.responses.iter();
    each.map(|response| response.error_code).collect()
}

async fn describe(broker: &TestBroker, kind: i8, of: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(of))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    broker.call(request).await.results.remove(0)
}

/// Value, source, and the sources of the values on the way.
async fn entry(
    broker: &TestBroker,
    kind: i8,
    of: &str,
    key: &str,
) -> (Option<String>, i8, Vec<(String, i8)>) {
    let described = describe(broker, kind, of).await;
    let found = described.configs.into_iter().find(|one| &*one.name == key);
    let found = found.unwrap_or_else(|| panic!("{key} is not described"));
    let synonyms = found.synonyms.iter();
    let synonyms = synonyms.map(|one| (one.name.to_string(), one.source));
    let value = found.value.map(|value| value.to_string());
    (value, found.config_source, synonyms.collect())
}

fn retention_ms(broker: &TestBroker) -> i64 {
    let topic = broker.broker.partitions.topic("t").unwrap();
    topic.settings.retention_ms
}

#[tokio::test]
async fn a_default_of_topics_is_in_force_at_once_and_after_a_restart() {
    let broker = TestBroker::start(&["log.retention.ms=4"]).await;
    broker.create(&["t"]).await;
    assert_eq!(retention_ms(&broker), 4);
    let all = [("log.retention.ms", SET, Some("5"))];
    assert_eq!(alter(&broker, BROKER, "", &all).await.0, 0);
    assert_eq!(retention_ms(&broker), 5);
    let own = [("log.retention.ms", SET, Some("6"))];
    assert_eq!(alter(&broker, BROKER, "0", &own).await.0, 0);
    assert_eq!(retention_ms(&broker), 6);
    let sources = |entries: &[(String, i8)]| -> Vec<i8> {
        entries.iter().map(|(_, source)| *source).collect()
    };
    let broker = TestBroker::start_in(broker.stop(), &["log.retention.ms=4"]).await;
    assert_eq!(retention_ms(&broker), 6);
    for (kind, of, key) in [
        (TOPIC, "t", "retention.ms"),
        (BROKER, "0", "log.retention.ms"),
    ] {
        let (value, source, chain) = entry(&broker, kind, of, key).await;
        assert_eq!((value.as_deref(), source), (Some("6"), 2), "{key}");
        // This broker, all brokers, the file, and the default in another unit.
        assert_eq!(sources(&chain), [2, 3, 4, 5], "{key}");
    }
    let (value, source, chain) = entry(&broker, BROKER, "", "log.retention.ms").await;
    assert_eq!((value.as_deref(), source), (Some("5"), 3));
    assert_eq!(sources(&chain), [3]);
    assert_eq!(describe(&broker, BROKER, "").await.configs.len(), 1);
    let delete = [("log.retention.ms", DELETE, None)];
    assert_eq!(alter(&broker, BROKER, "0", &delete).await.0, 0);
    assert_eq!(retention_ms(&broker), 5);
    assert_eq!(alter(&broker, BROKER, "", &delete).await.0, 0);
    assert_eq!(retention_ms(&broker), 4);
}

#[tokio::test]
async fn what_is_worked_out_is_shown_with_its_value() {
    let broker = TestBroker::start(&[]).await;
    for (key, value) in [
        ("advertised.listeners", "PLAINTEXT://localhost:9092"),
        ("broker.id", "0"),
        ("node.id", "0"),
        ("keelson.cluster.id", &broker.broker.identity.cluster_id),
    ] {
        assert_eq!(
            entry(&broker, BROKER, "0", key).await.0.as_deref(),
            Some(value)
        );
    }
    let (memory, source, chain) = entry(&broker, BROKER, "0", "keelson.tail.memory.bytes").await;
    assert!(memory.unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!((source, chain.len()), (5, 0));
}

#[tokio::test]
async fn keys_of_the_broker_are_in_force_at_once() {
    let broker = TestBroker::start(&["producer.id.expiration.ms=7"]).await;
    let live = || broker.broker.live().producer_id_expiration_ms;
    assert_eq!(live(), 7);
    let all = [("producer.id.expiration.ms", SET, Some("8"))];
    assert_eq!(alter(&broker, BROKER, "", &all).await.0, 0);
    assert_eq!(live(), 8);
    let (value, source, _) = entry(&broker, BROKER, "0", "producer.id.expiration.ms").await;
    assert_eq!((value.as_deref(), source), (Some("8"), 3));
    let cleaner = [
        ("log.cleaner.backoff.ms", SET, Some("77")),
        ("log.cleaner.dedupe.buffer.size", SET, Some("2097152")),
        ("log.cleaner.io.max.bytes.per.second", SET, Some("5e6")),
    ];
    assert_eq!(alter(&broker, BROKER, "0", &cleaner).await.0, 0);
    let pace = CompactionPace {
        bytes_per_second: 5e6,
        memory_bytes: 2_097_152,
        pause: Duration::from_millis(77),
    };
    assert_eq!(broker.broker.log.compaction(), pace);
    let broker = TestBroker::start_in(broker.stop(), &["producer.id.expiration.ms=7"]).await;
    assert_eq!(broker.broker.log.compaction(), pace);
    assert_eq!(broker.broker.live().producer_id_expiration_ms, 8);
    // A topic's own value, and the one of a key that is only known under another name.
    broker.create(&["t"]).await;
    let max = [("message.max.bytes", SET, Some("2000"))];
    assert_eq!(alter(&broker, BROKER, "0", &max).await.0, 0);
    let large = vec![7_u8; 3000];
    let too_large = ErrorCode::MessageTooLarge.code();
    assert_eq!(broker.produce("t", 0, &[&large]).await.0, too_large);
    let own = [("max.message.bytes", SET, Some("5000"))];
    assert_eq!(alter(&broker, TOPIC, "t", &own).await.0, 0);
    assert_eq!(broker.produce("t", 0, &[&large]).await.0, 0);
}

#[tokio::test]
async fn what_cannot_be_set_is_refused_with_a_reason() {
    let broker = TestBroker::start(&[]).await;
    broker.create(&["t"]).await;
    let request = ErrorCode::InvalidRequest;
    let config = ErrorCode::InvalidConfig;
    let set = |key, value| vec![(key, SET, Some(value))];
    let cases = [
        (
            BROKER,
            "0",
            set("num.partitions", "2"),
            request,
            "dynamically: [num.partitions]",
        ),
        (
            BROKER,
            "",
            set("log.retention.hours", "2"),
            request,
            "dynamically",
        ),
        (
            BROKER,
            "0",
            set("log.retention.ms", "-2"),
            request,
            "at least -1",
        ),
        (
            BROKER,
            "0",
            set("log.cleaner.backoff.ms", "x"),
            request,
            "whole number",
        ),
        (BROKER, "0", set("num.io.threads", "9"), config, "threads"),
        (
            BROKER,
            "0",
            set("foo", "9"),
            config,
            "Unknown broker config name: foo",
        ),
        (
            BROKER,
            "7",
            set("log.retention.ms", "9"),
            request,
            "expected 0",
        ),
        (
            BROKER,
            "x",
            set("log.retention.ms", "9"),
            request,
            "must be an integer",
        ),
        (
            BROKER,
            "-1",
            set("log.retention.ms", "9"),
            request,
            "must be an integer",
        ),
        (
            TOPIC,
            "",
            set("retention.ms", "9"),
            request,
            "Default topic",
        ),
        (
            TOPIC,
            "a b",
            set("retention.ms", "9"),
            ErrorCode::InvalidTopicException,
            "invalid",
        ),
        (
            TOPIC,
            "t",
            set("segment.index.bytes", "9"),
            config,
            "Only 10485760 is supported",
        ),
        (
            TOPIC,
            "t",
            vec![("retention.ms", SET, None)],
            request,
            "Null value",
        ),
        (
            TOPIC,
            "t",
            vec![("retention.ms", 9, None)],
            request,
            "Unknown operation",
        ),
        (
            TOPIC,
            "t",
            vec![("retention.ms", DELETE, None); 2],
            request,
            "duplicate",
        ),
        (GROUP, "g", set("x", "9"), request, "Unknown resource type"),
    ];
    for (kind, of, changes, error, words) in cases {
        let (code, message) = alter(&broker, kind, of, &changes).await;
        assert_eq!(code, error.code(), "{of} {changes:?}: {message}");
        assert!(message.contains(words), "{of} {changes:?}: {message}");
    }
    // What replicas are throttled by can be set and removed: there is none.
    for key in [
        "leader.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
    ] {
        assert_eq!(alter(&broker, BROKER, "0", &set(key, "5")).await.0, 0);
        assert_eq!(
            alter(&broker, BROKER, "0", &[(key, DELETE, None)]).await.0,
            0
        );
    }
    for (kind, of, error) in [
        (CLIENT_METRICS, "m", 0),
        (GROUP, "g", 0),
        (CLIENT_METRICS, "", request.code()),
        (BROKER_LOGGER, "", request.code()),
        (BROKER_LOGGER, "7", request.code()),
    ] {
        let described = describe(&broker, kind, of).await;
        assert_eq!(described.error_code, error, "{kind}");
        assert!(described.configs.is_empty());
    }
}

#[tokio::test]
async fn the_level_of_log_lines_can_be_changed() {
    let broker = TestBroker::start(&[]).await;
    let root = [("root", SET, Some("WARN"))];
    assert_eq!(alter(&broker, BROKER_LOGGER, "0", &root).await.0, 0);
    let (value, source, _) = entry(&broker, BROKER_LOGGER, "0", "root").await;
    assert_eq!((value.as_deref(), source), (Some("WARN"), 6));
    let root = [("root", SET, Some("INFO"))];
    assert_eq!(alter(&broker, BROKER_LOGGER, "0", &root).await.0, 0);
    let request = ErrorCode::InvalidRequest;
    let config = ErrorCode::InvalidConfig;
    for (of, change, error) in [
        ("7", ("root", SET, Some("INFO")), request),
        ("0", ("kafka.log", SET, Some("INFO")), config),
        ("0", ("root", SET, Some("LOUD")), config),
        ("0", ("root", DELETE, None), request),
        ("0", ("root", 2, Some("INFO")), request),
    ] {
        let (code, message) = alter(&broker, BROKER_LOGGER, of, &[change]).await;
        assert_eq!(code, error.code(), "{change:?}: {message}");
    }
    let old = vec![legacy(BROKER_LOGGER, "0", &[("root", Some("INFO"))])];
    assert_eq!(replace(&broker, 2, old).await, [request.code()]);
    let (value, ..) = entry(&broker, BROKER_LOGGER, "0", "root").await;
    assert_eq!(value.as_deref(), Some("INFO"));
}

#[tokio::test]
async fn the_old_way_replaces_everything() {
    let broker = TestBroker::start(&[]).await;
    broker.create(&["t"]).await;
    let spec = api::spec(ApiKey::AlterConfigs as i16).unwrap();
    for version in spec.min..=spec.max {
        let owner = [("keelson.owner", SET, Some("a/b/c"))];
        assert_eq!(alter(&broker, TOPIC, "t", &owner).await.0, 0);
        let resources = vec![
            legacy(
                TOPIC,
                "t",
                &[("retention.ms", Some("5")), ("flush.ms", Some("9"))],
            ),
            legacy(TOPIC, "none", &[("retention.ms", Some("5"))]),
            legacy(BROKER, "0", &[("log.segment.bytes", Some("9999"))]),
        ];
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(replace(&broker, version, resources).await, [0, unknown, 0]);
        assert_eq!(retention_ms(&broker), 5);
        let twice = vec![legacy(TOPIC, "t", &[]); 2];
        let refused = ErrorCode::InvalidRequest.code();
        assert_eq!(replace(&broker, version, twice).await, [refused; 2]);
        let resources = vec![
            legacy(TOPIC, "t", &[("segment.ms", Some("7"))]),
            legacy(BROKER, "0", &[]),
        ];
        assert_eq!(replace(&broker, version, resources).await, [0, 0]);
        let image = broker.broker.image();
        let configs = &image.topic("t").unwrap().configs;
        let keys: Vec<&str> = configs.keys().map(String::as_str).collect();
        assert_eq!(keys, ["keelson.owner", "segment.ms"]);
        assert!(image.broker_configs(0).is_empty());
        let null = vec![legacy(TOPIC, "t", &[("segment.ms", None)])];
        assert_eq!(replace(&broker, version, null).await, [refused]);
    }
    let check = AlterConfigsRequest::default()
        .with_resources(vec![legacy(TOPIC, "t", &[("retention.ms", Some("1"))])])
        .with_validate_only(true);
    assert_eq!(broker.call(check).await.responses[0].error_code, 0);
    assert_eq!(retention_ms(&broker), 604_800_000);
}

#[tokio::test]
async fn topics_stay_where_deletion_is_switched_off() {
    let broker = TestBroker::start(&["delete.topic.enable=false"]).await;
    broker.create(&["t"]).await;
    let topic = DeleteTopicState::default().with_name(Some(name("t")));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]);
    let answer = broker.call(request).await;
    let disabled = ErrorCode::TopicDeletionDisabled.code();
    assert_eq!(answer.responses[0].error_code, disabled);
    let old = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    let answer = broker.call_version(old, 2).await;
    let refused = ErrorCode::InvalidRequest.code();
    assert_eq!(answer.responses[0].error_code, refused);
    assert!(broker.broker.partitions.topic("t").is_some());
}
