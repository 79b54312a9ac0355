//! The API server is slow, fails, forgets and hangs up: nothing is missed, nothing is done twice, and where nothing
//! changes, nothing is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keelson_tests::apiproxy::{ApiProxy, Asked, Fault};
use keelson_tests::kube::{OPERATOR_WITHIN, shared};
use keelson_tests::stage::{Stage, config, topic};
use keelson_tests::wait_until;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// Longer than any test: then a watch is the only news there is.
pub(crate) const NO_RESYNC_SECONDS: u32 = 3_600;

/// A rule that lets `fault` happen to the next watch of `kinds`. The counter says how many are still to come.
pub(crate) fn to_a_watch(proxy: &ApiProxy, kinds: &'static str, fault: Fault) -> Arc<AtomicUsize> {
    let left = Arc::new(AtomicUsize::new(1));
    let counter = Arc::clone(&left);
    proxy.rule(move |asked| {
        let due = asked.is_watch()
            && asked.path.contains(kinds)
            && counter
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1))
                .is_ok();
        if due { fault.clone() } else { Fault::Pass }
    });
    left
}

#[test]
fn a_watch_that_is_lost_or_expired_misses_nothing() {
    let stage = Stage::new("watchloss");
    let proxy = ApiProxy::start();
    let _operator = stage
        .setup()
        .through("watchloss", "watchloss-proxied", &proxy)
        .resync_seconds(NO_RESYNC_SECONDS)
        .start();
    stage.apply("a", json!({ "partitions": 1, "deletionPolicy": "Delete" }));
    stage.ready("a");
    proxy.end_watches();
    stage.apply("b", json!({ "partitions": 1 }));
    stage.ready("b");
    // The API server's own 410, the same as an answer, and no answer: each time something happens meanwhile.
    for (name, fault) in [
        ("c", Fault::Ancient),
        ("d", Fault::Answer(410)),
        ("e", Fault::Cut),
        ("f", Fault::Answer(500)),
    ] {
        let left = to_a_watch(&proxy, "/topics", fault.clone());
        proxy.end_watches();
        stage.apply(name, json!({ "partitions": 1 }));
        stage.ready(name);
        assert_eq!(left.load(Ordering::SeqCst), 0, "{fault:?} was met");
    }
    // Also what is not there any more is noticed.
    to_a_watch(&proxy, "/topics", Fault::Ancient);
    proxy.end_watches();
    shared().delete("topic", &stage.namespace, "a");
    shared().wait_gone("topic", &stage.namespace, "a");
    assert_eq!(topic(&stage.broker, "a"), None);
}

/// One request in three is slow, refused or lost, as the seed says.
pub(crate) fn fail_at_times(proxy: &ApiProxy) {
    let seed = std::env::var("KEELSON_SEED").map_or(7, |it| it.parse().expect("a number"));
    println!("KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // The lease is left alone: who loses it starts over, which is another test.
    proxy.rule(move |asked| match random.random_range(0..20) {
        _ if asked.is_lease() => Fault::Pass,
        0 | 1 => Fault::Slow(Duration::from_millis(random.random_range(50..400))),
        2 => Fault::Answer(500),
        3 => Fault::Answer(429),
        4 => Fault::Cut,
        5 if asked.is_write() => Fault::Lose,
        // Somebody else changed the object first.
        6 if asked.is_write() => Fault::Answer(409),
        _ => Fault::Pass,
    });
}

#[test]
fn a_slow_and_failing_api_server() {
    const TOPICS: usize = 6;
    let stage = Stage::new("failing");
    let proxy = ApiProxy::start();
    fail_at_times(&proxy);
    let _operator = stage
        .setup()
        .through("failing", "failing-proxied", &proxy)
        .start();
    let name = |at: usize| format!("t{at}");
    for at in 0..TOPICS {
        stage.apply(
            &name(at),
            json!({ "partitions": 1, "deletionPolicy": "Delete" }),
        );
    }
    for at in 0..TOPICS {
        stage.ready(&name(at));
    }
    for at in 0..TOPICS {
        let spec = json!({ "partitions": 2, "deletionPolicy": "Delete", "config": { "retention.ms": 1000 } });
        stage.apply(&name(at), spec);
    }
    for at in 0..TOPICS {
        let object = stage.ready(&name(at));
        let (id, partitions) = topic(&stage.broker, &name(at)).expect("it is there");
        assert_eq!(
            (object["status"]["topicId"].as_str(), partitions),
            (Some(id.as_str()), 2)
        );
        let value = config(&stage.broker, &name(at), "retention.ms");
        assert_eq!(value.as_deref(), Some("1000"));
        shared().delete("topic", &stage.namespace, &name(at));
    }
    for at in 0..TOPICS {
        shared().wait_gone("topic", &stage.namespace, &name(at));
        assert_eq!(topic(&stage.broker, &name(at)), None);
    }
}

/// The writes that are about Topics or Events, and not about the lease.
fn writes(proxy: &ApiProxy) -> Vec<Asked> {
    let told = |it: &Asked| it.is_write() && !it.is_lease();
    proxy.asked().into_iter().filter(told).collect()
}

#[test]
fn where_nothing_changes_nothing_is_written() {
    const LOOKS: f64 = 40.0;
    let mut stage = Stage::new("steady");
    stage.statefulset();
    let proxy = ApiProxy::start();
    let operator = stage
        .setup()
        .through("steady", "steady-proxied", &proxy)
        .resync_seconds(1)
        .start();
    stage.apply("well", json!({ "partitions": 1 }));
    stage.ready("well");
    // The more objects, the more looks in a second.
    let others: Vec<String> = (0..6).map(|at| format!("other{at}")).collect();
    for name in &others {
        stage.apply(name, json!({ "partitions": 1 }));
    }
    for name in &others {
        stage.ready(name);
        stage.wait(name, "LogHealthy", "True", "LogHealthy");
    }
    stage.apply("conflict", json!({ "topicName": "well" }));
    stage.apply("refused", json!({ "replicationFactor": 3 }));
    stage.wait("conflict", "Conflict", "True", "OwnedByAnother");
    stage.wait("refused", "Ready", "False", "BrokerRefused");
    stage.wait("well", "LogHealthy", "True", "LogHealthy");
    let looks = || {
        operator
            .metrics()
            .sum("keelson_operator_reconcile_total", &[("kind", "Topic")])
    };
    let quiet = |what: &str| {
        // Events come behind the status that was waited for.
        let begun = looks();
        wait_until("some more looks", OPERATOR_WITHIN, || {
            looks() > begun + LOOKS / 2.0
        });
        let (before, begun) = (writes(&proxy).len(), looks());
        wait_until("many more looks", OPERATOR_WITHIN, || {
            looks() > begun + LOOKS
        });
        let more = writes(&proxy).split_off(before);
        assert!(more.is_empty(), "{what}: {more:?}");
    };
    quiet("all is well, or refused");
    stage.broker.kill9();
    let first = ["well", "conflict", "refused"];
    for name in first.into_iter().chain(others.iter().map(String::as_str)) {
        stage.wait(name, "Ready", "Unknown", "BrokerUnreachable");
    }
    // Events come right behind the status.
    let told = |name| {
        let reasons = shared().event_reasons(&stage.namespace, name);
        reasons.iter().any(|it| it == "BrokerUnreachable")
    };
    for name in others.iter().map(String::as_str).chain(["well"]) {
        wait_until("Events tell it", OPERATOR_WITHIN, || told(name));
        wait_until("the log is not known", OPERATOR_WITHIN, || {
            stage.condition_is(name, "LogHealthy", "LogUnknown")
        });
    }
    quiet("the broker is away");
}
