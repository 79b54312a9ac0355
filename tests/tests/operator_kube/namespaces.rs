//! Namespaces: which ones are looked after, with which names, under which rights, and how they go.

use std::process::Command;

use keelson_tests::apiproxy::{ApiProxy, Fault};
use keelson_tests::kube::{self, Operator, condition, shared};
use keelson_tests::operator::OperatorSetup;
use keelson_tests::stage::{Stage, message, topic};
use keelson_tests::{tools, wait_until};
use serde_json::{Value, json};

use kube::OPERATOR_WITHIN;

#[test]
fn names_begin_with_the_prefix_of_their_namespace() {
    let stage = Stage::new("tenant");
    let watched = format!("{}=team-", stage.namespace);
    shared().namespace("tenant-unwatched");
    shared().apply("Topic", "tenant-unwatched", "team-orders", &json!({}));
    let _operator = Operator::start("tenant", "tenant", &[&watched], &stage.broker);
    stage.apply("orders", json!({ "deletionPolicy": "Delete" }));
    let orders = stage.wait("orders", "Ready", "False", "NameNotAllowed");
    assert_eq!(
        condition(&orders, "Conflict").expect("it is there")["status"],
        "True"
    );
    assert!(
        message(&orders, "Ready").ends_with("begin with \"team-\""),
        "{orders}"
    );
    assert_eq!(orders["metadata"]["finalizers"], Value::Null);
    stage.apply("team-orders", json!({}));
    stage.ready("team-orders");
    stage.apply("renamed", json!({ "topicName": "team-renamed" }));
    stage.ready("renamed");
    let group = |name: &str, status: &str, reason: &str| {
        let at = ("consumergroup", stage.namespace.as_str(), name);
        shared().apply("ConsumerGroup", &stage.namespace, name, &json!({}));
        shared().wait_condition(at, "Ready", status, reason);
    };
    group("billing", "False", "NameNotAllowed");
    group("team-billing", "True", "GroupAbsent");
    assert_eq!(topic(&stage.broker, "orders"), None);
    let elsewhere = shared().get("topic", "tenant-unwatched", "team-orders");
    assert_eq!(
        elsewhere.expect("it is there")["status"],
        Value::Null,
        "not looked at"
    );
}

/// Renders the chart's accounts and rights for a release in a namespace of the same name, and returns a token of its
/// operator.
fn rights(release: &str, more: &[&str]) -> String {
    let output = Command::new(kube::binary("helm"))
        .args(["template", release])
        .arg(tools::root().join("charts/keelson"))
        .args(["--namespace", release])
        .args(["--show-only", "templates/operator-rbac.yaml"])
        .args(["--show-only", "templates/serviceaccounts.yaml"])
        .args(more)
        .output()
        .expect("helm can be started");
    assert!(output.status.success(), "{output:?}");
    let rendered = String::from_utf8(output.stdout).expect("YAML is UTF-8");
    // A namespace that is given here would have to be that of every object.
    let config = shared().kubeconfig(release);
    let config = config.to_str().expect("a UTF-8 path");
    let apply = ["--kubeconfig", config, "apply", "--server-side", "-f", "-"];
    shared().kubectl(&apply, &rendered);
    let account = format!("{release}-operator");
    let token = shared().kubectl(&["create", "token", "-n", release, &account], "");
    token.trim().to_owned()
}

/// The whole life of a Topic, with no right that the chart does not give.
fn lives(operator: &Operator, stage: &Stage, namespace: &str) {
    let at = ("topic", namespace, "orders");
    let ready = || shared().wait_condition(at, "Ready", "True", "AsDescribed");
    let spec = |partitions: i32| json!({ "partitions": partitions, "deletionPolicy": "Delete" });
    shared().apply("Topic", namespace, "orders", &spec(1));
    ready();
    shared().apply("Topic", namespace, "orders", &spec(2));
    ready();
    wait_until("Events are told", OPERATOR_WITHIN, || {
        let reasons = shared().event_reasons(namespace, "orders");
        ["TopicCreated", "PartitionsAdded"]
            .iter()
            .all(|it| reasons.iter().any(|have| have == it))
    });
    shared().apply("ConsumerGroup", namespace, "billing", &json!({}));
    let group = ("consumergroup", namespace, "billing");
    shared().wait_condition(group, "Ready", "True", "GroupAbsent");
    shared().delete("topic", namespace, "orders");
    shared().wait_gone("topic", namespace, "orders");
    assert_eq!(topic(&stage.broker, "orders"), None);
    let log = operator.log();
    let forbidden: Vec<&str> = log.lines().filter(|it| it.contains("forbidden")).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

fn setup(stage: &Stage, namespaces: &[&str], more: &[&str]) -> OperatorSetup {
    let token = rights(stage.cluster, more);
    let name = format!("{}-limited", stage.cluster);
    OperatorSetup::new(stage.cluster, stage.cluster, namespaces, &stage.broker)
        .kubeconfig(shared().kubeconfig_with(stage.cluster, &name, &token))
}

/// The release's own namespace goes, with topics that are to be deleted: the Roles in it go at any time, the operator
/// is told to stop at any time.
#[test]
fn the_rights_of_the_chart_are_enough_until_the_very_end() {
    let stage = Stage::new("limited");
    let objects = stage.namespace.as_str();
    let watch = format!("operator.watchNamespaces={{limited,{objects}}}");
    let mut operator = setup(&stage, &["limited", objects], &["--set", &watch]).start();
    lives(&operator, &stage, objects);
    stage.statefulset();
    for at in 0..5 {
        for namespace in ["limited", objects] {
            let name = format!("{namespace}-t{at}");
            shared().apply(
                "Topic",
                namespace,
                &name,
                &json!({ "deletionPolicy": "Delete" }),
            );
            let at = ("topic", namespace, name.as_str());
            shared().wait_condition(at, "Ready", "True", "AsDescribed");
        }
    }
    shared().delete("namespace", "", "limited");
    wait_until("the operator sees it", OPERATOR_WITHIN, || {
        operator.log().contains("letting all objects go")
    });
    operator.stop();
    shared().wait_gone("namespace", "", "limited");
    shared().delete("namespace", "", objects);
    shared().wait_gone("namespace", "", objects);
}

/// Both forms, asked for verb by verb: an operator of all namespaces would meddle with every other test.
#[test]
fn rights_by_verb() {
    const RESOURCES: [&str; 2] = ["topics.keelson.dev", "consumergroups.keelson.dev"];
    for (release, more) in [
        ("narrow", "operator.allNamespaces=false"),
        ("wide", "operator.allNamespaces=true"),
    ] {
        shared().namespace(release);
        rights(release, &["--set", more]);
        let account = format!("--as=system:serviceaccount:{release}:{release}-operator");
        let can = |verb: &str, resource: &str, namespace: &str| {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let sub = format!("--subresource={sub}");
            let words = [
                "auth", "can-i", verb, resource, &sub, "-n", namespace, &account,
            ];
            shared().try_kubectl(&words, "").is_ok()
        };
        let elsewhere = release == "wide";
        for resource in RESOURCES {
            let status = format!("{resource}/status");
            assert!(can("get", &status, release));
            // Also where it does not serve: a namespace that is deleted loses its Role before its objects.
            for namespace in [release, "default"] {
                assert!(can("watch", resource, namespace) && can("patch", &status, namespace));
            }
            assert_eq!(
                can("get", &status, "default"),
                elsewhere,
                "{release} {status}"
            );
            for verb in ["create", "delete", "update"] {
                assert!(!can(verb, resource, release), "{release} {verb} {resource}");
            }
        }
        assert_eq!(
            can("create", "events.events.k8s.io", "default"),
            elsewhere,
            "{release} Events"
        );
        for (verb, resource) in [
            ("get", "secrets"),
            ("patch", "deployments.apps"),
            ("list", "pods"),
        ] {
            assert!(!can(verb, resource, release), "{release} {verb} {resource}");
        }
    }
}

/// The last words of an operator that is told to stop before it saw that its namespace goes, while the API server has
/// trouble of its own.
#[test]
fn letting_go_is_tried_again_at_the_end() {
    let stage = Stage::new("lastwords");
    let api = ApiProxy::start();
    let mut operator = stage
        .setup()
        .through("lastwords", "lastwords-proxied", &api)
        .start();
    stage.apply("orders", json!({ "deletionPolicy": "Delete" }));
    stage.ready("orders");
    // The look at the namespace, the list and the patch fail once each.
    let mut failing = vec!["/namespaces/lastwords", "/topics?", "/topics/orders?"];
    api.rule(move |asked| {
        let due = failing.iter().position(|it| {
            asked.path.contains(it) && !asked.path.contains("/lastwords/") && !asked.is_lease()
        });
        match due {
            _ if asked.is_watch() => Fault::Cut,
            Some(at) => {
                failing.remove(at);
                Fault::Answer(500)
            }
            None => Fault::Pass,
        }
    });
    api.end_watches();
    shared().delete("namespace", "", "lastwords");
    operator.stop();
    let orders = shared()
        .get("topic", &stage.namespace, "orders")
        .expect("it is there");
    assert_eq!(orders["metadata"]["finalizers"], Value::Null);
    shared().wait_gone("namespace", "", "lastwords");
}

#[test]
fn a_broken_object_stops_nobody() {
    let stage = Stage::new("brokenstage");
    let watched = ["broken", stage.namespace.as_str()];
    let _operator = Operator::start(stage.cluster, stage.cluster, &watched, &stage.broker);
    shared().apply("Topic", "broken", "sound", &json!({}));
    shared().wait_condition(("topic", "broken", "sound"), "Ready", "True", "AsDescribed");
    let invalid = |name| {
        let at = ("topic", "broken", name);
        let found = shared().wait_condition(at, "Ready", "False", "InvalidSpec");
        message(&found, "Ready")
    };
    let words = invalid("unreadable");
    assert!(words.contains("Sometimes"), "{words}");
    let words = invalid("impossible");
    assert!(
        words.contains("spec.partitions: must be at least 1"),
        "{words}"
    );
    shared().wait_condition(
        ("consumergroup", "broken", "aimless"),
        "Ready",
        "False",
        "InvalidSpec",
    );
    // Kubernetes itself takes no status for this one; an Event tells it.
    wait_until("an Event tells of the untyped one", OPERATOR_WITHIN, || {
        let reasons = shared().event_reasons("broken", "untyped");
        reasons.iter().any(|it| it == "InvalidSpec")
    });
    // Nobody knows what it meant, and it holds up nothing.
    shared().delete("topic", "broken", "stuck");
    shared().wait_gone("topic", "broken", "stuck");
}
