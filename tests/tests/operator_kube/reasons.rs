//! Reasons that no other test has a use for, and the check that each one of the closed list is reached by some test.

use std::collections::BTreeSet;
use std::path::Path;

use kafka_protocol::messages::ApiKey;
use keelson_crds::Reason;
use keelson_tests::apiproxy::{ApiProxy, Fault};
use keelson_tests::http::{self, Canned};
use keelson_tests::kafkaproxy::{KafkaFault, KafkaProxy};
use keelson_tests::kube::{OPERATOR_WITHIN, shared};
use keelson_tests::stage::{Stage, config, message, tamper, topic};
use keelson_tests::wire::Wire;
use keelson_tests::{tools, wait_until};
use regex::Regex;
use serde_json::{Value, json};

const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// A life without trouble, with every Event of it.
#[test]
fn what_goes_well_is_told() {
    let stage = Stage::new("told");
    let _operator = stage.operator();
    let delete = json!({ "partitions": 1, "deletionPolicy": "Delete" });
    stage.apply("orders", delete);
    stage.wait("orders", "Ready", "True", "AsDescribed");
    stage.wait("orders", "Synced", "True", "Applied");
    stage.wait("orders", "Drifted", "False", "NoDrift");
    stage.wait("orders", "Conflict", "False", "NoConflict");
    stage.wait("orders", "Deleting", "False", "NotDeleting");
    stage.event("orders", "TopicCreated");
    stage.apply(
        "orders",
        json!({ "partitions": 2, "config": { "retention.ms": 1000 }, "deletionPolicy": "Delete" }),
    );
    stage.ready("orders");
    stage.event("orders", "PartitionsAdded");
    stage.event("orders", "ConfigChanged");
    Wire::connect(stage.broker.bootstrap()).create_topic("old", 1, &[]);
    stage.apply("old", json!({ "deletionPolicy": "Delete" }));
    stage.ready("old");
    stage.event("old", "TopicAdopted");
    shared().delete("topic", &stage.namespace, "orders");
    stage.event("orders", "TopicDeleted");
    // Somebody took the topic away from its object: it is nobody's to delete.
    stage.apply("old", json!({ "deletionPolicy": "Delete", "paused": true }));
    stage.wait("old", "Ready", "True", "Paused");
    tamper(&stage.broker, "old", "keelson.owner", "");
    shared().delete("topic", &stage.namespace, "old");
    stage.event("old", "TopicRetained");
    assert!(topic(&stage.broker, "old").is_some());
}

#[test]
fn what_is_missing_or_cannot_be_is_told() {
    let stage = Stage::new("missing");
    let _operator = stage.operator();
    stage.apply("lost", json!({ "partitions": 1, "driftPolicy": "Report" }));
    let lost = stage.ready("lost");
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.delete_topic("lost");
    stage.wait("lost", "Ready", "False", "TopicMissing");
    stage.wait("lost", "LogHealthy", "Unknown", "TopicAbsent");
    wire.create_topic("lost", 1, &[]);
    stage.apply(
        "lost",
        json!({ "partitions": 1, "driftPolicy": "Report", "adoptionPolicy": "Always" }),
    );
    let found = stage.ready("lost");
    assert_ne!(found["status"]["topicId"], lost["status"]["topicId"]);
    stage.apply("paused", json!({ "paused": true }));
    stage.wait("paused", "Ready", "False", "Paused");
    stage.wait("paused", "Drifted", "False", "TopicAbsent");
    wire.create_topic("replicas", 1, &[]);
    stage.apply(
        "replicas",
        json!({ "replicationFactor": 3, "adoptionPolicy": "Always" }),
    );
    stage.wait(
        "replicas",
        "Ready",
        "False",
        "ReplicationFactorCannotChange",
    );
}

/// A broker that lies and stammers, by way of a proxy.
#[test]
fn a_broker_that_makes_no_sense() {
    let stage = Stage::new("nonsense");
    let kafka = KafkaProxy::start(stage.broker.bootstrap());
    let _operator = stage.setup().bootstrap(kafka.address()).start();
    let only = |api: ApiKey, fault| {
        kafka.rule(move |asked| match asked == api as i16 {
            true => fault,
            false => KafkaFault::Pass,
        });
    };
    stage.apply(
        "orders",
        json!({ "partitions": 1, "deletionPolicy": "Delete" }),
    );
    stage.ready("orders");
    only(ApiKey::IncrementalAlterConfigs, KafkaFault::Pretend);
    stage.apply(
        "orders",
        json!({ "config": { "retention.ms": 1000 }, "partitions": 1, "deletionPolicy": "Delete" }),
    );
    let orders = stage.wait("orders", "Ready", "False", "NotConverging");
    let words = message(&orders, "Ready");
    assert!(
        words.contains("accepted the changes, yet config.retention.ms is"),
        "{words}"
    );
    only(ApiKey::Metadata, KafkaFault::Garble);
    stage.wait("orders", "Ready", "False", "BrokerAnswerUnexpected");
    kafka.calm();
    stage.ready("orders");
    only(ApiKey::DeleteTopics, KafkaFault::Garble);
    shared().delete("topic", &stage.namespace, "orders");
    stage.wait("orders", "Deleting", "True", "DeletingTopic");
    kafka.calm();
    shared().wait_gone("topic", &stage.namespace, "orders");
    assert_eq!(topic(&stage.broker, "orders"), None);
}

#[test]
fn what_kubernetes_refuses_is_told() {
    let stage = Stage::new("forbidden");
    let api = ApiProxy::start();
    let operator = stage
        .setup()
        .through("forbidden", "forbidden-proxied", &api)
        .start();
    // The finalizer, and not the status.
    api.rule(
        |asked| match asked.method == "PATCH" && asked.path.contains("/topics/orders?") {
            true => Fault::Answer(403),
            false => Fault::Pass,
        },
    );
    stage.apply(
        "orders",
        json!({ "partitions": 1, "deletionPolicy": "Delete" }),
    );
    stage.wait("orders", "Ready", "False", "KubernetesError");
    assert_eq!(
        topic(&stage.broker, "orders"),
        None,
        "no finalizer, no topic"
    );
    let counted = [("kind", "Topic"), ("reason", "KubernetesError")];
    wait_until("it is counted", OPERATOR_WITHIN, || {
        let metrics = operator.metrics();
        metrics.sum("keelson_operator_reconcile_errors_total", &counted) > 0.5
    });
    api.calm();
    stage.ready("orders");
}

#[test]
fn what_brokers_say_of_their_logs_is_told() {
    let stage = Stage::new("logs");
    let answer = |health: &str, unhealthy: Value| {
        json!({ "health": [health], "truncated": false, "unhealthy": unhealthy }).to_string()
    };
    let log = Canned::start(&answer("readonly", json!([])));
    let _operator = stage.setup().http_port(log.port).start();
    stage.apply("orders", json!({ "partitions": 1 }));
    stage.wait("orders", "LogHealthy", "False", "LogReadOnly");
    log.say("what?");
    stage.wait("orders", "LogHealthy", "Unknown", "LogUnknown");
    let place = json!({ "topic": "orders", "partition": 0, "from": 5, "to": 4, "file": "f", "position": 7, "reason": "crc" });
    log.say(&answer("degraded", json!([place])));
    stage.wait("orders", "LogHealthy", "True", "LogDegraded");
    log.say(&answer("ok", json!([])));
    stage.wait("orders", "LogHealthy", "True", "LogHealthy");
}

#[test]
fn a_deletion_that_waits_is_told_and_ends() {
    let mut stage = Stage::new("waits");
    stage.statefulset();
    let _operator = stage.operator();
    let delete = || json!({ "partitions": 1, "deletionPolicy": "Delete" });
    stage.apply("old", delete());
    stage.apply("gone", delete());
    stage.ready("old");
    stage.ready("gone");
    stage.broker.kill9();
    stage.wait("gone", "Ready", "Unknown", "BrokerUnreachable");
    for name in ["old", "gone"] {
        shared().delete("topic", &stage.namespace, name);
        stage.wait(name, "Deleting", "True", "DeletionHeld");
    }
    age_deletion("topics", &stage.namespace, "old");
    stage.event("old", "DeletionGivenUp");
    shared().wait_gone("topic", &stage.namespace, "old");
    assert!(shared().get("topic", &stage.namespace, "gone").is_some());
    shared().delete("statefulset", stage.cluster, "waits-broker");
    stage.event("gone", "ClusterGone");
    shared().wait_gone("topic", &stage.namespace, "gone");
    stage.broker.restart();
    assert!(
        topic(&stage.broker, "old").is_some(),
        "letting go deletes nothing"
    );
    assert_eq!(
        config(&stage.broker, "gone", "retention.ms").as_deref(),
        Some("604800000")
    );
}

/// Makes an object look as if it had been deleted long ago: in etcd, since the API server lets nobody say so.
pub(crate) fn age_deletion(kinds: &str, namespace: &str, name: &str) {
    let key = base64(format!("/registry/keelson.dev/{kinds}/{namespace}/{name}").as_bytes());
    let etcd = |path: &str, body: Value| -> Value {
        let call = ("POST", path);
        let answer = http::request(shared().etcd(), call, "application/json", &body.to_string())
            .expect("etcd answers");
        serde_json::from_str(&answer.body).expect("etcd's gateway speaks JSON")
    };
    let found = etcd("/v3/kv/range", json!({ "key": key }));
    let value = found["kvs"][0]["value"]
        .as_str()
        .unwrap_or_else(|| panic!("the object is there: {found}"));
    let mut object: Value =
        serde_json::from_slice(&unbase64(value)).expect("custom resources are stored as JSON");
    assert!(
        object["metadata"]["deletionTimestamp"].is_string(),
        "it is being deleted"
    );
    object["metadata"]["deletionTimestamp"] = json!(LONG_AGO);
    etcd(
        "/v3/kv/put",
        json!({ "key": key, "value": base64(object.to_string().as_bytes()) }),
    );
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let group = |chunk: &[u8]| {
        let word = chunk
            .iter()
            .fold(0_u32, |word, it| word << 8 | u32::from(*it))
            << (8 * (3 - chunk.len()));
        let digit = move |at: usize| match at <= chunk.len() {
            true => char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    let (mut bytes, mut word, mut bits) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter(|it| *it != b'=') {
        let value = ALPHABET.iter().position(|it| *it == digit).expect("base64");
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 255) as u8);
        }
    }
    bytes
}

/// Reasons that only one of the two kinds can have. All others both can.
const OF_TOPICS: &str = "AsDescribed Applied PartitionsCannotShrink ReplicationFactorCannotChange NotConverging NoDrift \
    DriftFound DriftCorrected TopicMissing TopicAbsent NoConflict OwnedByAnother DoesNotMatch AdoptionRefused LogHealthy \
    LogDamaged LogReadOnly LogDegraded LogUnknown DeletingTopic TopicCreated TopicAdopted PartitionsAdded ConfigChanged \
    TopicDeleted TopicRetained";
const OF_GROUPS: &str = "Observed GroupAbsent DeletingGroup GroupNotEmpty LagWithinObjective LagAboveObjective NoObjective \
    LagUnknown NoReset WaitingForEmptyGroup ResetRunning OffsetsReset DryRun DeadlinePassed ResetImpossible \
    ResetInterrupted RequestIdUsed OffsetsProvisioned GroupDeleted GroupRetained";
/// It says that objects are not those of a Kubernetes: `keelson-operator apply` gives it, and its tests reach it.
const NOT_HERE: &str = "NoRecordKept";

/// The reasons that a source waits for: of Topics, and of groups.
fn waited_for(text: &str, is_of_groups: bool, reached: &mut [BTreeSet<String>; 2]) {
    let waits =
        Regex::new(r#"(?:"(?:True|False|Unknown)",\s*|\bevent\(\s*[^,]+,\s*)"([A-Za-z]+)""#)
            .expect("a pattern");
    for statement in text.split(';') {
        let of_groups = is_of_groups || statement.contains("consumergroup");
        let found = waits.captures_iter(statement).map(|it| it[1].to_owned());
        reached[usize::from(of_groups)].extend(found);
    }
}

/// A test that waits for a reason and passes has reached it; the sources tell which ones are waited for.
#[test]
fn every_reason_is_reached_by_a_test() {
    let tests = tools::root().join("tests/tests");
    let source = |path: &Path| std::fs::read_to_string(path).expect("a source");
    let mut folders = vec![tests.join("operator_kube")];
    let mut reached = [BTreeSet::new(), BTreeSet::new()];
    waited_for(
        &source(&tests.join("operator_kube.rs")),
        false,
        &mut reached,
    );
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder)
            .expect("a folder of tests")
            .flatten()
        {
            let path = path.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let within = path.strip_prefix(&tests).expect("it lies there");
                    let of_groups = within.to_string_lossy().contains("groups");
                    waited_for(&source(&path), of_groups, &mut reached);
                }
            }
        }
    }
    let only = |list: &'static str| list.split_whitespace().collect::<BTreeSet<_>>();
    let (topics, groups) = (only(OF_TOPICS), only(OF_GROUPS));
    for (kind, others, reached) in [
        ("Topic", &groups, &reached[0]),
        ("group", &topics, &reached[1]),
    ] {
        let missing: Vec<&str> = Reason::ALL
            .iter()
            .map(|it| it.as_str())
            .filter(|it| *it != NOT_HERE && !others.contains(it) && !reached.contains(*it))
            .collect();
        assert!(missing.is_empty(), "of a {kind}, by no test: {missing:?}");
    }
    assert!(source(&tests.join("operator_apply.rs")).contains(NOT_HERE));
}
