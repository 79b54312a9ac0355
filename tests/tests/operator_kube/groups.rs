//! ConsumerGroups: observed, judged, started, reset once, deleted when empty. What was committed is asked of the broker by a client; no status is believed alone.

use std::collections::BTreeMap;
use std::process::Command;

use keelson_tests::groups::{commit, committed, member};
use keelson_tests::kafkaproxy::KafkaProxy;
use keelson_tests::kube::{OPERATOR_WITHIN, Operator, shared};
use keelson_tests::records::batch;
use keelson_tests::stage::{Stage, message, now_ms};
use keelson_tests::wire::Wire;
use keelson_tests::{rdk, wait_for, wait_until};
use serde_json::{Value, json};

#[path = "groups/kills.rs"]
mod kills;
#[path = "groups/trouble.rs"]
mod trouble;

const GROUP: &str = "billing";

/// The object, as `kubectl` names it.
fn at(stage: &Stage) -> (&str, &str, &str) {
    ("consumergroup", stage.namespace.as_str(), GROUP)
}

fn apply(stage: &Stage, spec: Value) {
    shared().apply("ConsumerGroup", &stage.namespace, GROUP, &spec);
}

#[track_caller]
fn wait(stage: &Stage, type_: &str, status: &str, reason: &str) -> Value {
    shared().wait_condition(at(stage), type_, status, reason)
}

/// A reset of `orders` with this request id; `more` are the fields of the target.
fn reset(id: &str, more: Value) -> Value {
    let mut reset = json!({ "requestId": id });
    let fields = reset.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    json!({ "topics": [{ "name": "orders" }], "reset": reset })
}

/// A topic with so many records of today in each of two partitions.
fn orders(stage: &Stage, records: usize) {
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    let values = vec![b"v".as_slice(); records];
    for partition in 0..2 {
        let produced = wire.produce("orders", partition, batch(&values, now_ms()));
        assert_eq!(produced, Ok(0));
    }
}

fn offsets(stage: &Stage) -> Vec<i64> {
    let found = committed(&stage.broker, GROUP, "orders", 2);
    found.into_values().collect()
}

/// From and to of every partition of the last reset.
fn moves(object: &Value) -> BTreeMap<i64, (Option<i64>, i64)> {
    let list = object["status"]["lastReset"]["partitions"].as_array();
    let number = |it: &Value| it.as_i64().expect("a number");
    list.into_iter()
        .flatten()
        .map(|it| {
            let from = it.get("from").map(number);
            (number(&it["partition"]), (from, number(&it["to"])))
        })
        .collect()
}

/// The object, if the reset with this id has ended, in whichever way.
fn end(stage: &Stage, id: &str) -> Option<Value> {
    let (kind, namespace, name) = at(stage);
    let found = shared().get(kind, namespace, name)?;
    let last = &found["status"]["lastReset"];
    (last["requestId"] == id && last["finishedAt"].is_string()).then_some(found)
}

#[track_caller]
fn ended(stage: &Stage, id: &str) -> Value {
    wait_for(&format!("reset {id} ends"), OPERATOR_WITHIN, || {
        end(stage, id)
    })
}

/// How often the new offsets of a reset came to the broker.
fn commits(kafka: &KafkaProxy, id: &str) -> usize {
    let words = format!("keelson reset {id}: done");
    let reached = kafka.reached();
    reached.iter().filter(|it| it.says(&words)).count()
}

fn resource_version(stage: &Stage) -> Value {
    let (kind, namespace, name) = at(stage);
    let object = shared().get(kind, namespace, name).expect("it is there");
    object["metadata"]["resourceVersion"].clone()
}

#[track_caller]
fn event(stage: &Stage, reason: &str) {
    stage.event(GROUP, reason);
}

#[test]
fn observed_and_judged() {
    let stage = Stage::new("groups");
    let _operator = stage.operator();
    let records = json!({ "lagObjective": { "maxRecords": 5 } });
    apply(&stage, records.clone());
    wait(&stage, "Ready", "True", "GroupAbsent");
    wait(&stage, "LagWithinObjective", "Unknown", "GroupAbsent");
    wait(&stage, "ResetPending", "False", "NoReset");
    wait(&stage, "ResetSucceeded", "Unknown", "NoReset");
    wait(&stage, "Deleting", "False", "NotDeleting");
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let load = |from, to| rdk::Load {
        stream: 1,
        sequences: from..to,
        bytes: 100,
    };
    rdk::produce(stage.broker.bootstrap(), "orders", &load(0, 10), &[]);
    rdk::read_group(stage.broker.bootstrap(), "orders", GROUP, 10);
    wait(&stage, "LagWithinObjective", "True", "LagWithinObjective");
    let still = resource_version(&stage);
    rdk::produce(stage.broker.bootstrap(), "orders", &load(10, 17), &[]);
    let behind = wait(&stage, "LagWithinObjective", "False", "LagAboveObjective");
    assert_ne!(resource_version(&stage), still);
    assert_eq!(behind["status"]["totalLag"], 7);
    let topic = &behind["status"]["topics"][0];
    assert_eq!(
        (&topic["name"], &topic["lag"]),
        (&json!("orders"), &json!(7))
    );
    let words = message(&behind, "LagWithinObjective");
    assert!(words.contains("7 records behind, 5 are allowed"), "{words}");
    apply(&stage, json!({ "paused": false }));
    wait(&stage, "LagWithinObjective", "Unknown", "NoObjective");
    wait(&stage, "Ready", "True", "Observed");
    // A topic in scope whose records nobody has committed for.
    wire.create_topic("clicks", 1, &[]);
    assert_eq!(wire.produce("clicks", 0, batch(&[b"v"], now_ms())), Ok(0));
    let clicks = json!({ "topics": [{ "name": "clicks" }], "lagObjective": { "maxRecords": 5 } });
    apply(&stage, clicks);
    wait(&stage, "LagWithinObjective", "Unknown", "LagUnknown");
}

/// The age is that of the metric.
#[test]
fn lag_in_seconds() {
    let stage = Stage::new("groupage");
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.create_topic("orders", 2, &[]);
    let hour = 3_600_000;
    for age in [2 * hour, hour, 0] {
        let old = batch(&[b"a", b"b"], now_ms() - age);
        wire.produce("orders", 0, old).expect("produced");
    }
    commit(&stage.broker, GROUP, "orders", &[(0, 3, ""), (1, 0, "")]);
    let operator = stage.operator();
    apply(&stage, json!({ "lagObjective": { "maxSeconds": 3500 } }));
    let found = wait(&stage, "LagWithinObjective", "False", "LagAboveObjective");
    let words = message(&found, "LagWithinObjective");
    assert!(
        words.contains("3500 are allowed; the furthest on orders"),
        "{words}"
    );
    let labels = [("consumergroup", GROUP), ("partition", "0")];
    let metric = stage
        .broker
        .metrics()
        .sum("keelson_consumergroup_lag_seconds", &labels);
    let told = found["status"]["maxLagSeconds"].as_f64().expect("a number");
    assert!((3600.0..=metric.floor()).contains(&told), "{told} {metric}");
    assert_eq!(found["status"]["topics"][0]["maxLagSeconds"], told);
    commit(&stage.broker, GROUP, "orders", &[(0, 6, "")]);
    let found = wait(&stage, "LagWithinObjective", "True", "LagWithinObjective");
    assert_eq!(found["status"]["maxLagSeconds"], 0);
    // Nothing moves: nothing is written, however often the group is looked at.
    let still = resource_version(&stage);
    let looks = |operator: &Operator| {
        let labels = [("kind", "ConsumerGroup")];
        operator
            .metrics()
            .sum("keelson_operator_reconcile_total", &labels)
    };
    let before = looks(&operator);
    wait_until("it is looked at again and again", OPERATOR_WITHIN, || {
        looks(&operator) >= before + 3.0
    });
    assert_eq!(resource_version(&stage), still);
}

#[test]
fn admission_refuses_what_does_not_go_together() {
    let namespace = "groupadmission";
    shared().kubectl(&["create", "namespace", namespace], "");
    let dry = json!({ "reset": { "requestId": "a", "to": "Latest", "dryRun": true } });
    shared().apply("ConsumerGroup", namespace, GROUP, &dry);
    for (spec, words) in [
        (json!({ "groupId": "b" }), "groupId is immutable"),
        (
            json!({ "initialOffsets": { "policy": "Latest" } }),
            "initialOffsets needs topics",
        ),
        (json!({ "lagObjective": {} }), "maxRecords or maxSeconds"),
        (
            json!({ "reset": { "requestId": "a", "to": "Latest" } }),
            "a reset is changed by giving it another requestId",
        ),
        (
            json!({ "reset": { "requestId": "b", "to": "Timestamp" } }),
            "timestamp goes with",
        ),
        (
            json!({ "reset": { "requestId": "b", "to": "Latest", "deadline": "2026-02-30T00:00:00Z" } }),
            "spec.reset.deadline",
        ),
        (
            json!({ "reset": { "requestId": "b", "to": "Offsets" } }),
            "offsets goes with",
        ),
        (
            json!({ "reset": { "requestId": "b", "to": "ShiftBy" } }),
            "shiftBy goes with",
        ),
    ] {
        shared().refuses(("ConsumerGroup", namespace, GROUP), &spec, words);
    }
    // The largest that may be is within the budget of the rules, also when it is changed.
    let list: Vec<Value> = (0..256)
        .map(|it| json!({ "topic": "t".repeat(249), "partition": it, "offset": it }))
        .collect();
    for id in ["large", "larger"] {
        let reset = json!({ "requestId": id, "to": "Offsets", "offsets": list });
        shared().apply(
            "ConsumerGroup",
            namespace,
            GROUP,
            &json!({ "reset": reset }),
        );
    }
}

#[test]
fn a_new_group_starts_where_it_is_told() {
    let stage = Stage::new("groupstart");
    let _operator = stage.operator();
    let start = |policy: &str| json!({ "topics": [{ "name": "orders" }], "initialOffsets": { "policy": policy } });
    // The topic may come later than the object.
    apply(&stage, start("Latest"));
    wait(&stage, "Ready", "True", "GroupAbsent");
    orders(&stage, 4);
    wait(&stage, "Ready", "True", "Observed");
    event(&stage, "OffsetsProvisioned");
    // Each partition from its end at that moment, which may have been before the records came.
    let found = offsets(&stage);
    assert!(
        found.len() == 2 && found.iter().all(|it| [0, 4].contains(it)),
        "{found:?}"
    );
    commit(&stage.broker, GROUP, "orders", &[(0, 3, ""), (1, 3, "")]);
    apply(&stage, start("Earliest"));
    wait(&stage, "Ready", "True", "Observed");
    assert_eq!(offsets(&stage), [3, 3], "a committed offset is left alone");
}

/// RFC 3339, with whole seconds.
fn rfc3339(ms: i64) -> String {
    let args = ["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"];
    let at = format!("@{}", ms / 1000);
    let output = Command::new("date").args(args).arg(at).output();
    let text = output.expect("date can be started").stdout;
    String::from_utf8(text).expect("text").trim().to_owned()
}

/// Times are times of records, the group need not have the object's name, and members decide for themselves.
#[test]
fn a_group_starts_at_a_time_once_it_is_empty() {
    let stage = Stage::new("grouptime");
    let mut wire = Wire::connect(stage.broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let (now, minute) = (now_ms(), 60_000);
    for age in [120, 60, 0] {
        let old = batch(&[b"a", b"b"], now - age * minute);
        wire.produce("orders", 0, old).expect("produced");
    }
    let found = || committed(&stage.broker, "payments", "orders", 1);
    let member = member(&stage.broker, "orders", "payments");
    let _operator = stage.operator();
    let start = json!({ "policy": "Timestamp", "timestamp": rfc3339(now - 90 * minute) });
    let spec = json!({
        "groupId": "payments", "topics": [{ "name": "orders" }], "initialOffsets": start,
    });
    apply(&stage, spec.clone());
    let status = wait(&stage, "Ready", "True", "Observed")["status"].clone();
    for (field, expected) in [
        ("observedGeneration", json!(1)),
        ("state", json!("Stable")),
        ("protocolType", json!("consumer")),
        ("assignor", json!("range")),
        ("members", json!(1)),
    ] {
        assert_eq!(status[field], expected, "{field}: {status}");
    }
    assert!(found().is_empty(), "it has members");
    drop(member);
    event(&stage, "OffsetsProvisioned");
    assert_eq!(found(), BTreeMap::from([(0, 2)]));
    let later = rfc3339(now - 30 * minute);
    let at = |offset| json!([{ "topic": "orders", "partition": 0, "offset": offset }]);
    for (id, target, expected) in [
        ("time", json!({ "to": "Timestamp", "timestamp": later }), 4),
        ("offset", json!({ "to": "Offsets", "offsets": at(1) }), 1),
        ("beyond", json!({ "to": "Offsets", "offsets": at(9) }), 6),
    ] {
        let mut spec = spec.clone();
        spec["reset"] = reset(id, target)["reset"].clone();
        apply(&stage, spec);
        let object = ended(&stage, id);
        assert_eq!(found(), BTreeMap::from([(0, expected)]), "{id}");
        assert_eq!(moves(&object)[&0].1, expected, "{id}");
    }
}

#[test]
fn a_reset_waits_is_done_once_and_can_be_undone() {
    let stage = Stage::new("groupreset");
    orders(&stage, 10);
    commit(&stage.broker, GROUP, "orders", &[(0, 8, ""), (1, 6, "")]);
    let member = member(&stage.broker, "orders", GROUP);
    let mut operator = stage.operator();
    apply(&stage, reset("one", json!({ "to": "Earliest" })));
    let waits = wait(&stage, "ResetPending", "True", "WaitingForEmptyGroup");
    assert!(
        message(&waits, "ResetPending").contains("the group is Stable with 1 members"),
        "{waits}"
    );
    wait(&stage, "ResetSucceeded", "Unknown", "WaitingForEmptyGroup");
    assert_eq!(offsets(&stage), [8, 6]);
    // A dry run waits for nobody. It takes the place of the request that waits.
    let dry = json!({ "to": "ShiftBy", "shiftBy": 3, "dryRun": true });
    apply(&stage, reset("dry", dry));
    let found = wait(&stage, "ResetSucceeded", "True", "DryRun");
    let expected = BTreeMap::from([(0, (Some(8), 10)), (1, (Some(6), 9))]);
    assert_eq!(moves(&found), expected, "clamped");
    assert_eq!(offsets(&stage), [8, 6], "nothing is committed");
    apply(&stage, reset("one", json!({ "to": "Earliest" })));
    wait(&stage, "ResetPending", "True", "WaitingForEmptyGroup");
    stage.bury(&mut operator);
    drop(member);
    operator.restart();
    let found = wait(&stage, "ResetSucceeded", "True", "OffsetsReset");
    wait(&stage, "ResetPending", "False", "OffsetsReset");
    let expected = BTreeMap::from([(0, (Some(8), 0)), (1, (Some(6), 0))]);
    assert_eq!(moves(&found), expected);
    assert_eq!(found["status"]["lastReset"]["requestId"], "one");
    assert_eq!(offsets(&stage), [0, 0]);
    // The same request again, after a restart, when the group has moved on: nothing happens.
    commit(&stage.broker, GROUP, "orders", &[(0, 5, "")]);
    stage.bury(&mut operator);
    operator.restart();
    let mut again = reset("one", json!({ "to": "Earliest" }));
    again["lagObjective"] = json!({ "maxRecords": 100 });
    apply(&stage, again);
    wait(&stage, "ResetSucceeded", "True", "OffsetsReset");
    assert_eq!(offsets(&stage), [5, 0]);
    apply(&stage, reset("undo", json!({ "to": "Previous" })));
    wait_until("the reset is undone", OPERATOR_WITHIN, || {
        offsets(&stage) == [8, 6]
    });
    let found = wait(&stage, "ResetSucceeded", "True", "OffsetsReset");
    let expected = BTreeMap::from([(0, (Some(5), 8)), (1, (Some(0), 6))]);
    wait_until("the undo is recorded", OPERATOR_WITHIN, || {
        let (kind, namespace, name) = at(&stage);
        let found = shared().get(kind, namespace, name).expect("it is there");
        moves(&found) == expected
    });
    assert!(found["metadata"]["annotations"]["keelson.dev/resets"].is_string());
    // An id of long ago is not taken again.
    apply(&stage, reset("one", json!({ "to": "Latest" })));
    wait(&stage, "ResetSucceeded", "False", "RequestIdUsed");
    assert_eq!(offsets(&stage), [8, 6]);
    event(&stage, "OffsetsReset");
}

#[test]
fn what_cannot_be_reset_says_why() {
    let stage = Stage::new("groupnever");
    orders(&stage, 3);
    let _operator = stage.operator();
    let mut elsewhere = reset("a", json!({ "to": "Latest" }));
    elsewhere["topics"] = json!([{ "name": "nowhere" }]);
    apply(&stage, elsewhere);
    let found = wait(&stage, "ResetSucceeded", "False", "ResetImpossible");
    let words = message(&found, "ResetSucceeded");
    assert!(words.contains("topic nowhere does not exist"), "{words}");
    let mut paused = reset("b", json!({ "to": "Latest" }));
    paused["paused"] = json!(true);
    apply(&stage, paused);
    wait(&stage, "ResetPending", "True", "Paused");
    wait(&stage, "Ready", "True", "Paused");
    let member = member(&stage.broker, "orders", GROUP);
    let soon = rfc3339(now_ms() + 2000);
    apply(
        &stage,
        reset("c", json!({ "to": "Earliest", "deadline": soon })),
    );
    let found = wait(&stage, "ResetSucceeded", "False", "DeadlinePassed");
    assert_eq!(found["status"]["lastReset"]["result"], "DeadlinePassed");
    assert!(moves(&found).is_empty());
    drop(member);
    assert!(offsets(&stage).is_empty(), "nothing was committed");
}

#[test]
fn deleted_when_told_and_empty() {
    let stage = Stage::new("groupdelete");
    orders(&stage, 3);
    commit(&stage.broker, GROUP, "orders", &[(0, 1, ""), (1, 1, "")]);
    let member = member(&stage.broker, "orders", GROUP);
    let _operator = stage.operator();
    let delete = |paused: bool| json!({ "deletionPolicy": "Delete", "paused": paused });
    apply(&stage, delete(false));
    let finalizers = |expected: Value| {
        let what = format!("the finalizers are {expected}");
        wait_until(&what, OPERATOR_WITHIN, || {
            let (kind, namespace, name) = at(&stage);
            let found = shared().get(kind, namespace, name);
            found.is_some_and(|it| it["metadata"]["finalizers"] == expected)
        });
    };
    finalizers(json!(["keelson.dev/delete-group"]));
    apply(&stage, json!({ "deletionPolicy": "Retain" }));
    finalizers(Value::Null);
    apply(&stage, delete(false));
    finalizers(json!(["keelson.dev/delete-group"]));
    let (kind, namespace, name) = at(&stage);
    shared().delete(kind, namespace, name);
    let held = wait(&stage, "Deleting", "True", "GroupNotEmpty");
    assert!(
        message(&held, "Deleting").contains("Stable with 1 members"),
        "{held}"
    );
    // The way out.
    apply(&stage, json!({ "deletionPolicy": "Retain" }));
    event(&stage, "GroupRetained");
    shared().wait_gone(kind, namespace, name);
    assert_eq!(offsets(&stage), [1, 1]);
    apply(&stage, delete(false));
    finalizers(json!(["keelson.dev/delete-group"]));
    shared().delete(kind, namespace, name);
    wait(&stage, "Deleting", "True", "GroupNotEmpty");
    apply(&stage, delete(true));
    wait(&stage, "Deleting", "True", "Paused");
    drop(member);
    assert_eq!(offsets(&stage), [1, 1]);
    apply(&stage, delete(false));
    shared().wait_gone(kind, namespace, name);
    event(&stage, "GroupDeleted");
    assert!(
        offsets(&stage).is_empty(),
        "the group is gone with its offsets"
    );
    // With Retain nobody is held, and nothing is deleted.
    commit(&stage.broker, GROUP, "orders", &[(0, 1, ""), (1, 1, "")]);
    apply(&stage, json!({ "paused": false }));
    wait(&stage, "Ready", "True", "Observed");
    shared().delete(kind, namespace, name);
    shared().wait_gone(kind, namespace, name);
    assert_eq!(offsets(&stage), [1, 1]);
}
