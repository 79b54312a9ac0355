//! Admission as a table: what is refused, and by which words.

use serde_json::{Value, json};

use super::*;

fn topic(spec: Value) -> Value {
    json!({ "apiVersion": "keelson.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "orders" }, "spec": spec })
}

fn group(spec: Value) -> Value {
    json!({ "apiVersion": "keelson.dev/v1alpha1", "kind": "ConsumerGroup", "metadata": { "name": "billing" }, "spec": spec })
}

fn verdict(kind: Kind, new: &Value, old: Option<&Value>) -> String {
    match check(kind, new, old) {
        Ok(()) => "ok".to_owned(),
        Err(problems) => problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; "),
    }
}

#[track_caller]
fn check_topic(spec: Value, expected: &str) {
    let found = verdict(Kind::Topic, &topic(spec.clone()), None);
    assert!(
        if expected == "ok" {
            found == "ok"
        } else {
            found.contains(expected)
        },
        "{spec}: {found}"
    );
}

#[track_caller]
fn check_change(kind: Kind, old: Value, new: Value, expected: &str) {
    let wrap = |spec| match kind {
        Kind::Topic => topic(spec),
        Kind::ConsumerGroup => group(spec),
    };
    let found = verdict(kind, &wrap(new.clone()), Some(&wrap(old.clone())));
    assert!(
        if expected == "ok" {
            found == "ok"
        } else {
            found.contains(expected)
        },
        "{old} -> {new}: {found}"
    );
}

#[test]
fn topics_at_creation() {
    check_topic(json!({}), "ok");
    check_topic(json!({ "partitions": 1 }), "ok");
    check_topic(json!({ "partitions": 10_000 }), "ok");
    check_topic(
        json!({ "partitions": 0 }),
        "spec.partitions: must be at least 1, not 0",
    );
    check_topic(
        json!({ "partitions": -1 }),
        "spec.partitions: must be at least 1",
    );
    check_topic(json!({ "partitions": 10_001 }), "must be at most 10000");
    check_topic(json!({ "partitions": 1.5 }), "must be of type integer");
    check_topic(json!({ "partitions": "3" }), "must be of type integer");
    check_topic(json!({ "partitions": null }), "must be of type integer");
    check_topic(json!({ "replicationFactor": 1 }), "ok");
    check_topic(json!({ "replicationFactor": 0 }), "must be at least 1");
    check_topic(json!({ "topicName": "Orders_v1.2-x" }), "ok");
    check_topic(
        json!({ "topicName": "" }),
        "must have at least 1 characters",
    );
    check_topic(json!({ "topicName": "a b" }), "does not match");
    check_topic(json!({ "topicName": "." }), "this name is reserved");
    check_topic(json!({ "topicName": ".." }), "this name is reserved");
    check_topic(
        json!({ "topicName": "__consumer_offsets" }),
        "this name is reserved",
    );
    check_topic(
        json!({ "topicName": "__cluster_metadata" }),
        "this name is reserved",
    );
    check_topic(json!({ "topicName": "__own" }), "ok");
    check_topic(json!({ "topicName": "a".repeat(249) }), "ok");
    check_topic(
        json!({ "topicName": "a".repeat(250) }),
        "must have at most 249",
    );
    check_topic(
        json!({ "config": { "retention.ms": 604_800_000, "segment.bytes": "1048576", "cleanup.policy": null } }),
        "ok",
    );
    check_topic(
        json!({ "config": { "retention.ms": 9_007_199_254_740_993_i64 } }),
        "ok",
    );
    check_topic(
        json!({ "config": { "retention.ms": true } }),
        "must be an integer or a string",
    );
    check_topic(
        json!({ "config": { "retention.ms": 1.5 } }),
        "must be an integer or a string",
    );
    check_topic(
        json!({ "config": { "keelson.owner": "me" } }),
        "keelson.owner is set by the operator",
    );
    check_topic(
        json!({ "deletionPolicy": "Delete", "driftPolicy": "Report", "paused": true }),
        "ok",
    );
    check_topic(
        json!({ "deletionPolicy": "delete" }),
        "must be one of Retain, Delete",
    );
    check_topic(
        json!({ "configPolicy": "Exclusive", "adoptionPolicy": "Never" }),
        "ok",
    );
    check_topic(
        json!({ "adoptionPolicy": "Sometimes" }),
        "must be one of IfMatching, Always, Never",
    );
    check_topic(json!({ "clusterRef": { "name": "k" } }), "ok");
    check_topic(
        json!({ "clusterRef": {} }),
        "spec.clusterRef.name: is required",
    );
    let many: serde_json::Map<String, Value> =
        (0..65).map(|it| (format!("k{it}"), json!(1))).collect();
    check_topic(json!({ "config": many }), "must have at most 64 entries");
}

#[test]
fn topics_at_change() {
    let change = |old, new, expected| check_change(Kind::Topic, old, new, expected);
    change(json!({ "partitions": 3 }), json!({ "partitions": 3 }), "ok");
    change(json!({ "partitions": 3 }), json!({ "partitions": 4 }), "ok");
    change(json!({}), json!({ "partitions": 4 }), "ok");
    change(
        json!({ "partitions": 3 }),
        json!({ "partitions": 2 }),
        "partitions may only grow",
    );
    change(
        json!({ "partitions": 3 }),
        json!({}),
        "partitions may only grow",
    );
    change(
        json!({ "topicName": "a" }),
        json!({ "topicName": "a" }),
        "ok",
    );
    change(
        json!({ "topicName": "a" }),
        json!({ "topicName": "b" }),
        "topicName is immutable",
    );
    change(
        json!({ "topicName": "a" }),
        json!({}),
        "topicName is immutable",
    );
    change(
        json!({}),
        json!({ "topicName": "b" }),
        "topicName is immutable",
    );
    change(
        json!({ "clusterRef": { "name": "a" } }),
        json!({ "clusterRef": { "name": "b" } }),
        "clusterRef is immutable",
    );
    change(
        json!({}),
        json!({ "clusterRef": { "name": "b" } }),
        "clusterRef is immutable",
    );
    change(
        json!({ "deletionPolicy": "Delete" }),
        json!({ "deletionPolicy": "Retain", "paused": false }),
        "ok",
    );
}

/// What the status says of the topic is known at admission, too.
#[test]
fn topics_that_exist() {
    let object = |spec: &Value, status: &Value| {
        let mut it = topic(spec.clone());
        it["status"] = status.clone();
        it
    };
    let change = |status: Value, old: Value, new: Value, expected: &str| {
        let (old, new) = (object(&old, &status), object(&new, &status));
        let found = verdict(Kind::Topic, &new, Some(&old));
        let as_expected = match expected {
            "ok" => found == "ok",
            words => found.contains(words),
        };
        assert!(as_expected, "{old} -> {new}: {found}");
    };
    let five = || json!({ "partitions": 5, "replicationFactor": 1 });
    let (less, other) = (
        "has more partitions already",
        "replicationFactor cannot be changed",
    );
    change(five(), json!({}), json!({ "partitions": 4 }), less);
    change(
        five(),
        json!({ "partitions": 2 }),
        json!({ "partitions": 4 }),
        less,
    );
    change(
        five(),
        json!({ "partitions": 2 }),
        json!({ "partitions": 5 }),
        "ok",
    );
    // The object of an adopted topic is as impossible as before; whoever changes something else need not mend it.
    change(
        five(),
        json!({ "partitions": 2 }),
        json!({ "partitions": 2, "paused": true }),
        "ok",
    );
    change(five(), json!({}), json!({ "replicationFactor": 3 }), other);
    change(
        five(),
        json!({ "replicationFactor": 3 }),
        json!({ "replicationFactor": 1 }),
        "ok",
    );
    change(five(), json!({ "replicationFactor": 1 }), json!({}), "ok");
    change(
        json!({}),
        json!({ "replicationFactor": 3 }),
        json!({ "replicationFactor": 1 }),
        "ok",
    );
}

#[test]
fn a_name_too_long_for_kafka_needs_a_topic_name() {
    let long = |spec| json!({ "metadata": { "name": "a".repeat(250) }, "spec": spec });
    assert!(verdict(Kind::Topic, &long(json!({})), None).contains("set spec.topicName"));
    assert_eq!(
        verdict(Kind::Topic, &long(json!({ "topicName": "a" })), None),
        "ok"
    );
    assert!(verdict(Kind::ConsumerGroup, &long(json!({})), None).contains("set spec.groupId"));
}

#[test]
fn groups() {
    let ok = |spec| verdict(Kind::ConsumerGroup, &group(spec), None);
    assert_eq!(ok(json!({})), "ok");
    assert_eq!(
        ok(json!({ "groupId": "any id / at all", "lagObjective": { "maxRecords": 0 } })),
        "ok"
    );
    assert!(ok(json!({ "lagObjective": {} })).contains("maxRecords: is required"));
    assert!(ok(json!({ "lagObjective": { "maxRecords": -1 } })).contains("must be at least 0"));
    assert!(
        ok(json!({ "topics": [{ "name": "a" }, { "name": "a" }] })).contains("duplicate entry")
    );
    assert!(ok(json!({ "topics": [{}] })).contains("spec.topics[0].name: is required"));
    check_change(
        Kind::ConsumerGroup,
        json!({ "groupId": "a" }),
        json!({ "groupId": "b" }),
        "groupId is immutable",
    );
    check_change(
        Kind::ConsumerGroup,
        json!({}),
        json!({ "groupId": "b" }),
        "groupId is immutable",
    );
}

#[test]
fn fields_of_later_versions_are_unknown_not_ignored() {
    let names = |kind, object: &Value| -> Vec<String> {
        unknown_fields(kind, object)
            .into_iter()
            .map(|it| it.path)
            .collect()
    };
    let known = topic(
        json!({ "partitions": 1, "config": { "anything.goes": 1 }, "clusterRef": { "name": "a" } }),
    );
    assert_eq!(names(Kind::Topic, &known), Vec::<String>::new());
    let odd = topic(json!({ "partition": 1, "clusterRef": { "name": "a", "namespace": "b" } }));
    assert_eq!(
        names(Kind::Topic, &odd),
        ["spec.clusterRef.namespace", "spec.partition"]
    );
    for later in ["initialOffsets", "reset", "deletionPolicy", "paused"] {
        let object = group(json!({ later: {} }));
        assert_eq!(
            names(Kind::ConsumerGroup, &object),
            [format!("spec.{later}")]
        );
    }
    let seconds = group(json!({ "lagObjective": { "maxRecords": 1, "maxSeconds": 1 } }));
    assert_eq!(
        names(Kind::ConsumerGroup, &seconds),
        ["spec.lagObjective.maxSeconds"]
    );
    let cased = unknown_fields(Kind::Topic, &topic(json!({ "topicname": "x" })));
    assert_eq!(
        cased[0].to_string(),
        "spec.topicname: unknown field (did you mean topicName?)"
    );
}

#[test]
fn every_pattern_compiles_and_every_rule_is_understood() {
    fn walk(value: &Value) {
        if let Value::Object(map) = value {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                Regex::new(pattern).unwrap();
            }
            map.values().for_each(walk);
        } else if let Value::Array(list) = value {
            list.iter().for_each(walk);
        }
    }
    for kind in Kind::ALL {
        walk(&rules(*kind).schema);
        assert!(
            !rules(*kind).cel.has_errors(),
            "{:?}",
            rules(*kind).cel.compilation_errors()
        );
    }
}

/// kube's own entry points see the same rules.
#[test]
fn the_derived_types_agree() {
    use crate::{Topic, TopicSpec};
    let make = |partitions| {
        Topic::new(
            "orders",
            TopicSpec {
                partitions: Some(partitions),
                ..TopicSpec::default()
            },
        )
    };
    assert!(make(4).validate_cel().is_ok());
    assert!(make(4).validate_cel_update(&make(3)).is_ok());
    let errors = make(2).validate_cel_update(&make(3)).unwrap_err();
    assert_eq!(errors.as_slice()[0].message, "partitions may only grow");
}
