//! The operator against a real kube-apiserver and a real broker: what is asked for happens, what cannot be is told, and
//! whatever is killed in between, nothing is lost and nobody is held for ever.

use std::process::Command;
use std::time::Duration;

use keelson_tests::disk::{self, Place};
use keelson_tests::kube::{OPERATOR_WITHIN, condition, shared};
use keelson_tests::records::{batch, payload};
use keelson_tests::stage::{Stage, config, message, now_ms, tamper, topic};
use keelson_tests::wire::Wire;
use keelson_tests::{tools, wait_until};
use serde_json::{Value, json};

#[path = "operator_kube/faults.rs"]
mod faults;
#[path = "operator_kube/groups.rs"]
mod groups;
#[path = "operator_kube/identity.rs"]
mod identity;
#[path = "operator_kube/kills.rs"]
mod kills;
#[path = "operator_kube/lease.rs"]
mod lease;
#[path = "operator_kube/namespaces.rs"]
mod namespaces;
#[path = "operator_kube/reasons.rs"]
mod reasons;

const OWNER: &str = "keelson.owner";

#[test]
fn applied_changed_and_retained() {
    let stage = Stage::new("retain");
    let _operator = stage.operator();
    stage.apply(
        "orders",
        json!({ "partitions": 3, "config": { "retention.ms": 86_400_000 } }),
    );
    let object = stage.ready("orders");
    let (id, partitions) = topic(&stage.broker, "orders").expect("the topic exists");
    assert_eq!(partitions, 3);
    assert_eq!(
        config(&stage.broker, "orders", "retention.ms").as_deref(),
        Some("86400000")
    );
    assert_eq!(object["status"]["topicId"], id);
    assert_eq!(object["status"]["ownership"]["state"], "Owned");
    assert_eq!(
        object["metadata"].get("finalizers"),
        None,
        "Retain needs no finalizer"
    );
    let uid = shared().kubectl(
        &[
            "get",
            "namespace",
            "kube-system",
            "-o",
            "jsonpath={.metadata.uid}",
        ],
        "",
    );
    let owner = format!("{uid}/{}/orders", stage.namespace);
    assert_eq!(config(&stage.broker, "orders", OWNER), Some(owner));

    stage.apply(
        "orders",
        json!({ "partitions": 5, "config": { "retention.ms": "1000" } }),
    );
    let object = stage.ready("orders");
    assert_eq!(object["status"]["partitions"], 5);
    assert_eq!(topic(&stage.broker, "orders"), Some((id.clone(), 5)));
    assert_eq!(
        config(&stage.broker, "orders", "retention.ms").as_deref(),
        Some("1000")
    );

    let other = json!({ "partitions": 5, "replicationFactor": 3 });
    let refused = shared().try_apply("Topic", &stage.namespace, "orders", &other);
    assert!(refused.is_err_and(|text| text.contains("replicationFactor cannot be changed")));

    shared().delete("topic", &stage.namespace, "orders");
    shared().wait_gone("topic", &stage.namespace, "orders");
    assert_eq!(
        topic(&stage.broker, "orders"),
        Some((id.clone(), 5)),
        "the topic stays"
    );
    stage.apply("orders", json!({ "partitions": 5 }));
    assert_eq!(
        stage.ready("orders")["status"]["topicId"],
        id,
        "the same object gets its topic back"
    );
}

#[test]
fn admission_refuses_what_cannot_change() {
    let namespace = "admission";
    shared().kubectl(&["create", "namespace", namespace], "");
    shared().apply("Topic", namespace, "orders", &json!({ "partitions": 5 }));
    let taken = json!({ "partitions": 5, "config": {
        "retention.ms": null, "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.5",
        "cleanup.policy": "compact, delete", "retention.bytes": -1, "preallocate": "False",
    } });
    shared().apply("Topic", namespace, "orders", &taken);
    let config = |config: Value| json!({ "partitions": 5, "config": config });
    for (spec, words) in [
        (config(json!({ "no.such.key": 1 })), "no topic config"),
        (
            config(json!({ "retention.ms": "soon" })),
            "retention.ms: a whole number of at least -1 is needed",
        ),
        (
            config(json!({ "segment.bytes": 1 })),
            "segment.bytes: a whole number of at least 4096",
        ),
        (
            config(json!({ "min.compaction.lag.ms": 2, "max.compaction.lag.ms": "1" })),
            "min.compaction.lag.ms is more than",
        ),
        (json!({ "partitions": 4 }), "partitions may only grow"),
        (
            json!({ "partitions": 5, "topicName": "other" }),
            "topicName is immutable",
        ),
        (
            config(json!({ "keelson.owner": "me" })),
            "keelson.owner is set by the operator",
        ),
    ] {
        shared().refuses(("Topic", namespace, "orders"), &spec, words);
    }
}

#[test]
fn deleted_with_its_topic() {
    let stage = Stage::new("delete");
    let mut operator = stage.operator();
    stage.apply(
        "orders",
        json!({ "partitions": 2, "deletionPolicy": "Delete" }),
    );
    let object = stage.ready("orders");
    assert_eq!(
        object["metadata"]["finalizers"],
        json!(["keelson.dev/delete-topic"])
    );
    stage.apply("kept", json!({ "deletionPolicy": "Delete" }));
    stage.ready("kept");
    stage.apply("kept", json!({ "deletionPolicy": "Retain" }));
    wait_until("the finalizer follows the policy", OPERATOR_WITHIN, || {
        shared()
            .get("topic", &stage.namespace, "kept")
            .is_some_and(|it| it["metadata"].get("finalizers").is_none())
    });
    // While nobody is there to delete the topic, the object is held; afterwards the topic goes first.
    operator.stop();
    shared().delete("topic", &stage.namespace, "orders");
    assert!(shared().get("topic", &stage.namespace, "orders").is_some());
    operator.restart();
    shared().wait_gone("topic", &stage.namespace, "orders");
    assert_eq!(topic(&stage.broker, "orders"), None);
    shared().delete("topic", &stage.namespace, "kept");
    shared().wait_gone("topic", &stage.namespace, "kept");
    assert!(topic(&stage.broker, "kept").is_some());
}

#[test]
fn a_namespace_is_deleted_while_the_broker_is_away() {
    let mut stage = Stage::new("away");
    stage.statefulset();
    let _operator = stage.operator();
    stage.apply("orders", json!({ "deletionPolicy": "Delete" }));
    stage.ready("orders");
    stage.broker.kill9();
    shared().kubectl(
        &["delete", "namespace", &stage.namespace, "--wait=false"],
        "",
    );
    // Only unreachable: held, with the reason and an end.
    let held = wait_deleting(&stage);
    assert!(
        message(&held, "Deleting").contains("the object is let go at"),
        "{held}"
    );
    // Gone for good: let go.
    shared().kubectl(&["delete", "statefulset", "-n", "away", "away-broker"], "");
    shared().wait_gone("namespace", "default", &stage.namespace);
}

fn wait_deleting(stage: &Stage) -> Value {
    shared().wait_condition(
        ("topic", &stage.namespace, "orders"),
        "Deleting",
        "True",
        "DeletionHeld",
    )
}

#[test]
fn everything_goes_at_once_and_nobody_is_held() {
    let stage = Stage::new("uninstall");
    stage.statefulset();
    let mut operator = stage.operator();
    stage.apply("orders", json!({ "deletionPolicy": "Delete" }));
    stage.ready("orders");
    shared().kubectl(&["delete", "namespace", stage.cluster, "--wait=false"], "");
    wait_until("the operator lets its objects go", OPERATOR_WITHIN, || {
        shared()
            .get("topic", &stage.namespace, "orders")
            .is_some_and(|it| it["metadata"].get("finalizers").is_none())
    });
    operator.stop();
    assert!(
        topic(&stage.broker, "orders").is_some(),
        "letting go deletes nothing"
    );
    shared().delete("topic", &stage.namespace, "orders");
    shared().wait_gone("topic", &stage.namespace, "orders");
}

#[test]
fn release_takes_only_our_finalizers_off() {
    let stage = Stage::new("release");
    let mut operator = stage.operator();
    stage.apply("orders", json!({ "deletionPolicy": "Delete" }));
    stage.ready("orders");
    let policy = json!({ "deletionPolicy": "Delete" });
    shared().apply("ConsumerGroup", &stage.namespace, "billing", &policy);
    let billing = ("consumergroup", stage.namespace.as_str(), "billing");
    shared().wait_condition(billing, "Ready", "True", "GroupAbsent");
    let another = json!({ "deletionPolicy": "Delete", "clusterRef": { "name": "another" } });
    stage.apply("theirs", another);
    let held = json!({ "metadata": { "finalizers": ["keelson.dev/delete-topic"] } }).to_string();
    let namespace = stage.namespace.as_str();
    let patch = [
        "patch",
        "topic",
        "-n",
        namespace,
        "theirs",
        "--type=merge",
        "-p",
        &held,
    ];
    shared().kubectl(&patch, "");
    operator.stop();
    let output = Command::new(tools::workspace_bin("keelson-operator"))
        .args([
            "release",
            "--cluster",
            "release",
            "--deployment",
            "release-operator",
        ])
        .args(["--namespace", namespace])
        .env("KUBECONFIG", shared().kubeconfig(stage.cluster))
        .output()
        .expect("the operator can be started");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "2 objects were let go\n"
    );
    let get = |name| shared().get("topic", namespace, name).expect("it is there");
    assert_eq!(get("orders")["metadata"]["finalizers"], Value::Null);
    let group = shared().get("consumergroup", namespace, "billing");
    let group = group.expect("it is there");
    assert_eq!(group["metadata"]["finalizers"], Value::Null);
    let theirs = get("theirs");
    assert_eq!(
        theirs["metadata"]["finalizers"],
        json!(["keelson.dev/delete-topic"])
    );
    assert_eq!(theirs.get("status"), None, "of another cluster: left alone");
    assert!(
        topic(&stage.broker, "orders").is_some(),
        "letting go deletes nothing"
    );
}

#[test]
fn the_operator_is_killed_in_the_middle() {
    const TOPICS: usize = 12;
    let stage = Stage::new("killed");
    let mut operator = stage.operator();
    let name = |at: usize| format!("t{at}");
    for at in 0..TOPICS {
        stage.apply(
            &name(at),
            json!({ "partitions": 1, "deletionPolicy": "Delete" }),
        );
        if at % 3 == 2 {
            stage.bury(&mut operator);
            operator.restart();
        }
    }
    let ids: Vec<Value> = (0..TOPICS)
        .map(|at| stage.ready(&name(at))["status"]["topicId"].clone())
        .collect();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(
            topic(&stage.broker, &name(at)).map(|it| json!(it.0)),
            Some(id.clone()),
            "created once"
        );
    }
    for at in 0..TOPICS {
        shared().delete("topic", &stage.namespace, &name(at));
        if at % 3 == 2 {
            stage.bury(&mut operator);
            operator.restart();
        }
    }
    for at in 0..TOPICS {
        shared().wait_gone("topic", &stage.namespace, &name(at));
        assert_eq!(topic(&stage.broker, &name(at)), None);
    }
}

#[test]
fn two_objects_for_one_topic() {
    let stage = Stage::new("conflict");
    let _operator = stage.operator();
    stage.apply("first", json!({ "topicName": "orders" }));
    stage.ready("first");
    stage.apply(
        "second",
        json!({ "topicName": "orders", "adoptionPolicy": "Always", "deletionPolicy": "Delete" }),
    );
    let second = stage.wait("second", "Conflict", "True", "OwnedByAnother");
    assert!(
        message(&second, "Conflict").ends_with(&format!("/{}/first", stage.namespace)),
        "{second}"
    );
    assert_eq!(
        condition(&second, "Ready").expect("Ready is there")["status"],
        "False"
    );
    // The loser goes without taking the topic along.
    shared().delete("topic", &stage.namespace, "second");
    shared().wait_gone("topic", &stage.namespace, "second");
    assert!(topic(&stage.broker, "orders").is_some());
    // Once the first is gone, its claim is stale.
    stage.apply("third", json!({ "topicName": "orders" }));
    stage.wait("third", "Conflict", "True", "OwnedByAnother");
    shared().delete("topic", &stage.namespace, "first");
    stage.ready("third");
}

#[test]
fn existing_topics_are_adopted_only_when_they_match() {
    let stage = Stage::new("adopt");
    let _operator = stage.operator();
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.create_topic("matching", 2, &[("retention.ms", "1000")]);
    wire.create_topic("other", 2, &[]);
    wire.create_topic("never", 2, &[]);
    stage.apply(
        "matching",
        json!({ "partitions": 2, "config": { "retention.ms": 1000 } }),
    );
    stage.ready("matching");
    stage.apply("other", json!({ "partitions": 3 }));
    let other = stage.wait("other", "Conflict", "True", "DoesNotMatch");
    assert_eq!(
        other["status"]["drift"],
        json!([{ "key": "partitions", "desired": "3", "actual": "2" }])
    );
    assert_eq!(
        topic(&stage.broker, "other").map(|it| it.1),
        Some(2),
        "left alone"
    );
    stage.apply("never", json!({ "adoptionPolicy": "Never" }));
    stage.wait("never", "Conflict", "True", "AdoptionRefused");
    assert_eq!(
        config(&stage.broker, "never", OWNER).unwrap_or_default(),
        ""
    );
    stage.apply(
        "other",
        json!({ "partitions": 3, "adoptionPolicy": "Always" }),
    );
    stage.ready("other");
    assert_eq!(topic(&stage.broker, "other").map(|it| it.1), Some(3));
}

#[test]
fn drift_is_corrected_or_reported() {
    let stage = Stage::new("drift");
    let _operator = stage.operator();
    let spec = |policy| json!({ "config": { "retention.ms": 1000 }, "driftPolicy": policy });
    stage.apply("enforced", spec("Enforce"));
    stage.apply("reported", spec("Report"));
    stage.ready("enforced");
    stage.ready("reported");
    tamper(&stage.broker, "enforced", "retention.ms", "5");
    tamper(&stage.broker, "reported", "retention.ms", "5");
    wait_until("the config is set back", OPERATOR_WITHIN, || {
        config(&stage.broker, "enforced", "retention.ms").as_deref() == Some("1000")
    });
    stage.event("enforced", "DriftCorrected");
    let reported = stage.wait("reported", "Drifted", "True", "DriftFound");
    assert_eq!(
        reported["status"]["drift"],
        json!([{ "key": "config.retention.ms", "desired": "1000", "actual": "5" }])
    );
    assert_eq!(
        config(&stage.broker, "reported", "retention.ms").as_deref(),
        Some("5")
    );
    stage.apply(
        "reported",
        json!({ "config": { "retention.ms": 7 }, "driftPolicy": "Report" }),
    );
    wait_until("a new wish is no drift", OPERATOR_WITHIN, || {
        config(&stage.broker, "reported", "retention.ms").as_deref() == Some("7")
    });
}

#[test]
fn what_cannot_be_is_never_ready() {
    let stage = Stage::new("impossible");
    let operator = stage.operator();
    Wire::connect(stage.broker.bootstrap()).create_topic("big", 5, &[]);
    stage.apply(
        "big",
        json!({ "partitions": 2, "adoptionPolicy": "Always" }),
    );
    // No broker's log holds a batch of this size, which admission cannot know.
    let large = json!({ "config": { "max.message.bytes": 2_147_483_647 } });
    stage.apply("badvalue", large);
    stage.apply("replicas", json!({ "replicationFactor": 3 }));
    stage.wait("big", "Ready", "False", "PartitionsCannotShrink");
    let badvalue = stage.wait("badvalue", "Ready", "False", "BrokerRefused");
    assert!(
        message(&badvalue, "Ready").starts_with("INVALID_CONFIG: "),
        "{badvalue}"
    );
    assert!(
        message(&badvalue, "Ready").contains("max.message.bytes"),
        "{badvalue}"
    );
    let replicas = stage.wait("replicas", "Ready", "False", "BrokerRefused");
    assert!(
        message(&replicas, "Ready").starts_with("INVALID_REPLICATION_FACTOR"),
        "{replicas}"
    );
    assert!(
        topic(&stage.broker, "badvalue").is_none() && topic(&stage.broker, "replicas").is_none()
    );
    let refused = [("kind", "Topic"), ("reason", "BrokerRefused")];
    wait_until("the errors are counted", OPERATOR_WITHIN, || {
        operator
            .metrics()
            .sum("keelson_operator_reconcile_errors_total", &refused)
            >= 2.0
    });
}

#[test]
fn one_leads_and_another_takes_over() {
    let stage = Stage::new("lease");
    let mut first = stage.operator();
    wait_until("the first leads", OPERATOR_WITHIN, || first.leads());
    let mut second = stage.operator();
    stage.apply("a", json!({}));
    stage.ready("a");
    assert!(!second.leads() && first.leads());
    first.kill9();
    stage.apply("b", json!({}));
    wait_until(
        "the second takes over from a dead one",
        OPERATOR_WITHIN,
        || second.leads(),
    );
    stage.ready("b");
    first.restart();
    second.stop();
    wait_until(
        "the first takes over from one that left",
        Duration::from_secs(30),
        || first.leads(),
    );
    stage.apply("c", json!({}));
    stage.ready("c");
}

#[test]
fn damage_is_told_on_the_topic() {
    let mut stage = Stage::new("damage");
    stage.apply("orders", json!({ "partitions": 1 }));
    stage.apply("other", json!({ "partitions": 1 }));
    let mut operator = stage.operator();
    stage.ready("orders");
    stage.ready("other");
    stage.wait("orders", "LogHealthy", "True", "LogHealthy");
    let mut wire = Wire::connect(stage.broker.bootstrap());
    for at in 0..10 {
        assert_eq!(
            wire.produce("orders", 0, batch(&[&payload(120, 7, at)], now_ms())),
            Ok(at as i64)
        );
    }
    // Without a checkpoint: the start replays the log and finds it.
    stage.broker.kill9();
    let places = disk::find_all(stage.broker.data_dir(), &payload(120, 7, 4)[16..]);
    assert!(!places.is_empty());
    for place in &places {
        disk::flip(&Place {
            file: place.file.clone(),
            position: place.position + 20,
        });
    }
    operator.stop();
    stage.broker.restart();
    let operator = stage.operator();
    let orders = stage.wait("orders", "LogHealthy", "False", "LogDamaged");
    let words = message(&orders, "LogHealthy");
    for part in [
        "orders-0 offsets 4-4",
        " in ",
        " at position ",
        "(broker 0)",
    ] {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(orders["status"]["log"]["state"], "Damaged");
    stage.wait("other", "LogHealthy", "True", "LogHealthy");
    let labels = [("cluster", "damage"), ("broker", "0"), ("state", "corrupt")];
    wait_until("the metric has it, too", OPERATOR_WITHIN, || {
        operator
            .metrics()
            .sum("keelson_operator_cluster_wal_health", &labels)
            > 0.5
    });
}
