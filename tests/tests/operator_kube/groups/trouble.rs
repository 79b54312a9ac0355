//! What goes wrong around a group is told: by the broker, by Kubernetes, or since one of them is away.

use std::sync::atomic::Ordering;

use kafka_protocol::messages::ApiKey;
use keelson_tests::apiproxy::{ApiProxy, Fault};
use keelson_tests::groups::commit;
use keelson_tests::kafkaproxy::{KafkaFault, KafkaProxy};
use keelson_tests::kube::{OPERATOR_WITHIN, Operator, shared};
use keelson_tests::stage::{Stage, message};
use keelson_tests::wait_until;
use serde_json::{Value, json};

use super::{GROUP, apply, at, commits, ended, event, offsets, orders, reset, wait};
use crate::faults::{NO_RESYNC_SECONDS, fail_at_times, to_a_watch};
use crate::reasons::age_deletion;

/// A group that has committed something, and goes with its object.
fn deletable(stage: &Stage) {
    orders(stage, 3);
    commit(&stage.broker, GROUP, "orders", &[(0, 1, ""), (1, 1, "")]);
    apply(stage, json!({ "deletionPolicy": "Delete" }));
}

#[test]
fn a_broker_that_makes_no_sense() {
    let stage = Stage::new("groupnonsense");
    let kafka = KafkaProxy::start(stage.broker.bootstrap());
    let _operator = stage.setup().bootstrap(kafka.address()).start();
    let only = |api: ApiKey| {
        kafka.rule(move |asked| match asked == api as i16 {
            true => KafkaFault::Garble,
            false => KafkaFault::Pass,
        });
    };
    deletable(&stage);
    wait(&stage, "Ready", "True", "Observed");
    only(ApiKey::OffsetFetch);
    wait(&stage, "Ready", "False", "BrokerAnswerUnexpected");
    wait(
        &stage,
        "LagWithinObjective",
        "Unknown",
        "BrokerAnswerUnexpected",
    );
    kafka.calm();
    wait(&stage, "Ready", "True", "Observed");
    only(ApiKey::DeleteGroups);
    let (kind, namespace, name) = at(&stage);
    shared().delete(kind, namespace, name);
    wait(&stage, "Deleting", "True", "DeletingGroup");
    kafka.calm();
    event(&stage, "GroupDeleted");
    shared().wait_gone(kind, namespace, name);
    assert!(offsets(&stage).is_empty(), "deleted with its offsets");
}

#[test]
fn what_kubernetes_refuses_is_told() {
    let stage = Stage::new("groupforbidden");
    let api = ApiProxy::start();
    let operator = stage
        .setup()
        .through("groupforbidden", "groupforbidden-proxied", &api)
        .start();
    // The finalizer, and not the status.
    api.rule(|asked| {
        match asked.method == "PATCH" && asked.path.contains("/consumergroups/billing?") {
            true => Fault::Answer(403),
            false => Fault::Pass,
        }
    });
    apply(&stage, json!({ "deletionPolicy": "Delete" }));
    wait(&stage, "Ready", "False", "KubernetesError");
    let counted = [("kind", "ConsumerGroup"), ("reason", "KubernetesError")];
    wait_until("it is counted", OPERATOR_WITHIN, || {
        let metrics = operator.metrics();
        metrics.sum("keelson_operator_reconcile_errors_total", &counted) > 0.5
    });
    api.calm();
    wait(&stage, "Ready", "True", "GroupAbsent");
}

#[test]
fn a_watch_that_is_lost_or_expired_misses_nothing() {
    let stage = Stage::new("groupwatch");
    let proxy = ApiProxy::start();
    let _operator = stage
        .setup()
        .through("groupwatch", "groupwatch-proxied", &proxy)
        .resync_seconds(NO_RESYNC_SECONDS)
        .start();
    apply(&stage, json!({}));
    wait(&stage, "Ready", "True", "GroupAbsent");
    for (name, fault) in [
        ("ancient", Fault::Ancient),
        ("gone", Fault::Answer(410)),
        ("cut", Fault::Cut),
    ] {
        let left = to_a_watch(&proxy, "/consumergroups", fault);
        proxy.end_watches();
        shared().apply("ConsumerGroup", &stage.namespace, name, &json!({}));
        let group = ("consumergroup", stage.namespace.as_str(), name);
        shared().wait_condition(group, "Ready", "True", "GroupAbsent");
        assert_eq!(left.load(Ordering::SeqCst), 0, "{name} was met");
    }
}

/// Whatever gets lost, each request moves the group once.
#[test]
fn a_slow_and_failing_api_server() {
    let stage = Stage::new("groupfailing");
    let (proxy, kafka) = (
        ApiProxy::start(),
        KafkaProxy::start(stage.broker.bootstrap()),
    );
    fail_at_times(&proxy);
    let _operator = stage
        .setup()
        .bootstrap(kafka.address())
        .through("groupfailing", "groupfailing-proxied", &proxy)
        .start();
    deletable(&stage);
    for (id, to, expected) in [
        ("a", "Latest", [3, 3]),
        ("b", "Earliest", [0, 0]),
        ("c", "Previous", [3, 3]),
    ] {
        let mut spec = reset(id, json!({ "to": to }));
        spec["deletionPolicy"] = json!("Delete");
        apply(&stage, spec);
        let found = ended(&stage, id);
        assert_eq!(found["status"]["lastReset"]["result"], "OffsetsReset");
        assert_eq!(offsets(&stage), expected, "{id}");
        assert_eq!(commits(&kafka, id), 1, "{id}");
    }
    let (kind, namespace, name) = at(&stage);
    shared().delete(kind, namespace, name);
    shared().wait_gone(kind, namespace, name);
    assert!(offsets(&stage).is_empty(), "deleted with its offsets");
}

/// It is neither looked at nor deleted, whatever its object says.
#[test]
fn a_group_without_the_prefix_of_its_namespace_is_left_alone() {
    let stage = Stage::new("grouptenant");
    let watched = format!("{}=team-", stage.namespace);
    let _operator = Operator::start("grouptenant", "grouptenant", &[&watched], &stage.broker);
    deletable(&stage);
    let found = wait(&stage, "Ready", "False", "NameNotAllowed");
    assert!(
        message(&found, "Ready").ends_with("begin with \"team-\""),
        "{found}"
    );
    assert_eq!(found["metadata"]["finalizers"], Value::Null);
    assert_eq!(found["status"]["state"], Value::Null);
    let (kind, namespace, name) = at(&stage);
    shared().delete(kind, namespace, name);
    shared().wait_gone(kind, namespace, name);
    assert_eq!(offsets(&stage), [1, 1]);
}

#[test]
fn a_cluster_that_is_away_holds_and_one_that_is_gone_lets_go() {
    let mut stage = Stage::new("groupaway");
    stage.statefulset();
    let _operator = stage.operator();
    let spec = json!({ "deletionPolicy": "Delete", "lagObjective": { "maxRecords": 5 } });
    apply(&stage, spec.clone());
    shared().apply("ConsumerGroup", &stage.namespace, "old", &spec);
    let old = ("consumergroup", stage.namespace.as_str(), "old");
    wait(&stage, "Ready", "True", "GroupAbsent");
    shared().wait_condition(old, "Ready", "True", "GroupAbsent");
    stage.broker.kill9();
    wait(&stage, "Ready", "Unknown", "BrokerUnreachable");
    wait(&stage, "LagWithinObjective", "Unknown", "BrokerUnreachable");
    for name in [GROUP, "old"] {
        shared().delete("consumergroup", &stage.namespace, name);
    }
    let held = wait(&stage, "Deleting", "True", "DeletionHeld");
    assert!(
        message(&held, "Deleting").contains("is let go at"),
        "{held}"
    );
    shared().wait_condition(old, "Deleting", "True", "DeletionHeld");
    age_deletion("consumergroups", &stage.namespace, "old");
    stage.event("old", "DeletionGivenUp");
    shared().wait_gone("consumergroup", &stage.namespace, "old");
    let (kind, namespace, name) = at(&stage);
    assert!(shared().get(kind, namespace, name).is_some(), "still held");
    let set = format!("{}-broker", stage.cluster);
    shared().delete("statefulset", stage.cluster, &set);
    event(&stage, "ClusterGone");
    shared().wait_gone(kind, namespace, name);
}

/// The broker takes no note, so a reset gets no further than its first step.
#[test]
fn the_brokers_refusal_stands_in_its_own_words() {
    let stage = Stage::with("grouprefused", &[("offset.metadata.max.bytes", "1")]);
    orders(&stage, 3);
    commit(&stage.broker, GROUP, "orders", &[(0, 1, ""), (1, 1, "")]);
    let _operator = stage.operator();
    apply(&stage, reset("a", json!({ "to": "Latest" })));
    let found = wait(&stage, "Ready", "False", "BrokerRefused");
    let words = message(&found, "Ready");
    assert!(words.contains("OFFSET_METADATA_TOO_LARGE"), "{words}");
    wait(&stage, "ResetPending", "True", "BrokerRefused");
    assert_eq!(
        found["status"].get("lastReset"),
        None,
        "nothing is recorded"
    );
    assert_eq!(offsets(&stage), [1, 1]);
}
