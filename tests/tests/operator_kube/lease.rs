//! Two operators and one lease, when processes stop and leave in unusual ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keelson_tests::apiproxy::{ApiProxy, Fault};
use keelson_tests::kafkaproxy::{KafkaFault, KafkaProxy, is_order};
use keelson_tests::kube::{OPERATOR_WITHIN, shared};
use keelson_tests::stage::{Stage, config, tamper};
use keelson_tests::wait_until;
use rustix::process::Signal;
use serde_json::{Value, json};

fn holder(stage: &Stage) -> Option<Value> {
    let lease = shared().get(
        "lease",
        stage.cluster,
        &format!("{}-operator", stage.cluster),
    )?;
    Some(lease["spec"]["holderIdentity"].clone())
}

/// A leader is stopped for longer than its lease, and wakes up in the middle of its work.
#[test]
fn a_leader_that_slept_changes_nothing() {
    let stage = Stage::new("slept");
    let (api, kafka) = (
        ApiProxy::start(),
        KafkaProxy::start(stage.broker.bootstrap()),
    );
    let mut first = stage
        .setup()
        .bootstrap(kafka.address())
        .through("slept", "slept-proxied", &api)
        .start();
    wait_until("the first leads", OPERATOR_WITHIN, || first.leads());
    stage.apply("orders", json!({ "config": { "retention.ms": 1000 } }));
    stage.ready("orders");
    // The second one leads, and cannot reach the broker: whatever changes there, it was not the second.
    let mut second = stage.setup().bootstrap("127.0.0.1:1").start();
    first.signal(Signal::STOP);
    tamper(&stage.broker, "orders", "retention.ms", "5");
    wait_until("the second takes over", OPERATOR_WITHIN, || second.leads());
    stage.wait("orders", "Ready", "Unknown", "BrokerUnreachable");

    // From here on the first learns of the other only a second after it woke up, with all its timers over.
    let orders = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&orders);
    kafka.rule(move |key| {
        counter.fetch_add(usize::from(is_order(key)), Ordering::SeqCst);
        KafkaFault::Pass
    });
    api.rule(|asked| match asked.is_lease() {
        true => Fault::Slow(Duration::from_secs(1)),
        false => Fault::Pass,
    });
    let before = api.asked().len();
    first.signal(Signal::CONT);
    wait_until("the first asks for the lease", OPERATOR_WITHIN, || {
        api.asked()[before..].iter().any(|it| it.is_lease())
    });
    wait_until(
        "the first knows that it does not lead",
        OPERATOR_WITHIN,
        || first.log().contains("the lease is lost"),
    );
    let asked = api.asked();
    let wrote: Vec<_> = asked[before..].iter().filter(|it| it.is_write()).collect();
    assert!(wrote.is_empty(), "{wrote:?}");
    assert_eq!(orders.load(Ordering::SeqCst), 0, "orders to the broker");
    let found = config(&stage.broker, "orders", "retention.ms");
    assert_eq!(found.as_deref(), Some("5"));

    // Who leaves gives the lease back, and the next one need not wait for its end.
    api.calm();
    second.kill9();
    shared().delete("lease", "slept", "slept-operator");
    wait_until("the first leads again", OPERATOR_WITHIN, || first.leads());
    stage.ready("orders");
    first.stop();
    assert_eq!(holder(&stage), Some(Value::Null), "given back");
}
