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

#[track_caller]
fn check_group(spec: Value, expected: &str) {
    let found = verdict(Kind::ConsumerGroup, &group(spec.clone()), None);
    let right = match expected {
        "ok" => found == "ok",
        words => found.contains(words),
    };
    assert!(right, "{spec}: {found}");
}

#[test]
fn groups() {
    check_group(json!({}), "ok");
    check_group(
        json!({ "groupId": "any id / at all", "lagObjective": { "maxRecords": 0 } }),
        "ok",
    );
    check_group(json!({ "lagObjective": { "maxSeconds": 60 } }), "ok");
    check_group(
        json!({ "lagObjective": {} }),
        "maxRecords or maxSeconds is needed",
    );
    for field in ["maxRecords", "maxSeconds"] {
        check_group(
            json!({ "lagObjective": { field: -1 } }),
            "must be at least 0",
        );
    }
    check_group(
        json!({ "topics": [{ "name": "a" }, { "name": "a" }] }),
        "duplicate entry",
    );
    check_group(
        json!({ "topics": [{}] }),
        "spec.topics[0].name: is required",
    );
    check_group(json!({ "deletionPolicy": "Delete", "paused": true }), "ok");
    check_group(
        json!({ "deletionPolicy": "Never" }),
        "must be one of Retain",
    );
    let change = |old, new, expected| check_change(Kind::ConsumerGroup, old, new, expected);
    let immutable = "groupId is immutable";
    change(
        json!({ "groupId": "a" }),
        json!({ "groupId": "b" }),
        immutable,
    );
    change(json!({}), json!({ "groupId": "b" }), immutable);
}

#[test]
fn where_a_group_starts() {
    let with =
        |topics: Value, initial: Value| json!({ "topics": topics, "initialOffsets": initial });
    let (topics, time) = (json!([{ "name": "a" }]), "2026-11-28T18:00:00Z");
    check_group(with(topics.clone(), json!({ "policy": "Earliest" })), "ok");
    check_group(with(topics.clone(), json!({ "policy": "Latest" })), "ok");
    let timed = json!({ "policy": "Timestamp", "timestamp": time });
    check_group(with(topics.clone(), timed), "ok");
    let needs = "initialOffsets needs topics";
    check_group(with(json!([]), json!({ "policy": "Earliest" })), needs);
    check_group(json!({ "initialOffsets": { "policy": "Latest" } }), needs);
    let goes = "timestamp goes with policy Timestamp";
    check_group(with(topics.clone(), json!({ "policy": "Timestamp" })), goes);
    let surplus = json!({ "policy": "Latest", "timestamp": time });
    check_group(with(topics.clone(), surplus), goes);
    check_group(with(topics.clone(), json!({})), "policy: is required");
    check_group(with(topics, json!({ "policy": "Now" })), "must be one of");
}

#[test]
fn times_are_as_rfc_3339_writes_them() {
    let deadline =
        |text: &str| json!({ "reset": { "requestId": "a", "to": "Latest", "deadline": text } });
    for time in [
        "2026-11-28T18:00:00Z",
        "2026-11-28T18:00:00.123456789+02:00",
        "2024-02-29T00:00:00-11:30",
    ] {
        check_group(deadline(time), "ok");
    }
    for time in [
        "2026-11-28",
        "2026-11-28T18:00:00",
        "2026-11-28 18:00:00Z",
        "28.11.2026",
        "tomorrow",
        "1764352800000",
        "",
    ] {
        check_group(deadline(time), "does not match");
    }
    for time in ["2026-13-28T18:00:00Z", "2026-02-30T18:00:00Z"] {
        check_group(deadline(time), "no time as RFC 3339 writes it");
    }
}

#[test]
fn resets_at_creation() {
    let reset = |it: Value| {
        let mut reset = json!({ "requestId": "2026-11-28.a:1" });
        let fields = reset.as_object_mut().unwrap();
        fields.extend(it.as_object().unwrap().clone());
        json!({ "reset": reset })
    };
    let time = "2026-11-28T18:00:00Z";
    let offset = json!({ "topic": "a", "partition": 0, "offset": 7 });
    for it in [
        json!({ "to": "Earliest" }),
        json!({ "to": "Latest", "topics": [{ "name": "a" }], "dryRun": true, "deadline": time }),
        json!({ "to": "Timestamp", "timestamp": time }),
        json!({ "to": "Offsets", "offsets": [offset] }),
        json!({ "to": "ShiftBy", "shiftBy": -3 }),
        json!({ "to": "Previous" }),
    ] {
        check_group(reset(it), "ok");
    }
    for (it, words) in [
        (json!({}), "spec.reset.to: is required"),
        (json!({ "to": "Beginning" }), "must be one of Earliest"),
        (json!({ "to": "Timestamp" }), "timestamp goes with"),
        (
            json!({ "to": "Latest", "timestamp": time }),
            "timestamp goes",
        ),
        (json!({ "to": "Offsets" }), "offsets goes with"),
        (
            json!({ "to": "Latest", "offsets": [offset] }),
            "offsets goes",
        ),
        (
            json!({ "to": "Offsets", "offsets": [] }),
            "at least 1 entries",
        ),
        (json!({ "to": "ShiftBy" }), "shiftBy goes with"),
        (
            json!({ "to": "Previous", "shiftBy": 1 }),
            "shiftBy goes with",
        ),
        (
            json!({ "to": "Latest", "topics": [] }),
            "at least 1 entries",
        ),
        (
            json!({ "to": "Offsets", "offsets": [offset], "topics": [{ "name": "a" }] }),
            "topics does not go with",
        ),
        (
            json!({ "to": "Offsets", "offsets": [offset, offset] }),
            "duplicate entry",
        ),
        (
            json!({ "to": "Offsets", "offsets": [{ "topic": "a", "partition": -1, "offset": 0 }] }),
            "must be at least 0",
        ),
        (
            json!({ "to": "Offsets", "offsets": [{ "topic": "a", "partition": 0 }] }),
            "offset: is required",
        ),
    ] {
        check_group(reset(it), words);
    }
    let many: Vec<Value> = (0..257)
        .map(|it| json!({ "topic": "a", "partition": it, "offset": 0 }))
        .collect();
    let many = json!({ "to": "Offsets", "offsets": many });
    check_group(reset(many), "at most 256");
    let named = |id: &str| json!({ "reset": { "requestId": id, "to": "Latest" } });
    check_group(named(""), "at least 1 characters");
    check_group(named("a b"), "does not match");
    check_group(named("-a"), "does not match");
    check_group(named(&"a".repeat(65)), "at most 64");
    check_group(
        json!({ "reset": { "to": "Latest" } }),
        "requestId: is required",
    );
}

#[test]
fn a_reset_is_changed_by_another_request_id() {
    let change = |old, new, expected| check_change(Kind::ConsumerGroup, old, new, expected);
    let reset = |id: &str, to: &str, dry: bool| json!({ "reset": { "requestId": id, "to": to, "dryRun": dry } });
    let refused = "a reset is changed by giving it another requestId";
    change(reset("a", "Latest", true), reset("a", "Latest", true), "ok");
    change(
        reset("a", "Latest", true),
        reset("b", "Earliest", false),
        "ok",
    );
    change(reset("a", "Latest", true), json!({}), "ok");
    change(json!({}), reset("a", "Latest", true), "ok");
    change(
        reset("a", "Latest", true),
        reset("a", "Latest", false),
        refused,
    );
    change(
        reset("a", "Latest", true),
        reset("a", "Earliest", true),
        refused,
    );
}

#[test]
fn fields_that_do_not_exist_are_unknown_not_ignored() {
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
    for odd in ["reset", "initialOffsets", "lagObjective"] {
        let object = group(json!({ odd: { "when": "now" } }));
        assert_eq!(
            names(Kind::ConsumerGroup, &object),
            [format!("spec.{odd}.when")]
        );
    }
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
