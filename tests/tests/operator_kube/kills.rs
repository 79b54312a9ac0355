//! The operator is killed again and again, before and after single requests of its own, and the end is the same.

use std::collections::BTreeMap;

use keelson_tests::kube::shared;
use keelson_tests::reaper::Reaper;
use keelson_tests::stage::{Stage, config, topic};
use keelson_tests::wait::try_wait_for;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Replayed one at a time with `KEELSON_SEED`.
const SEEDS: [u64; 2] = [1, 2];
const ROUNDS: usize = 10;
/// Requests of a life in which something is to be done, about.
const REQUESTS: i32 = 40;
/// A life ends here if it asked for less than was expected.
const LIFE: std::time::Duration = std::time::Duration::from_secs(4);

fn spec(random: &mut StdRng) -> Value {
    json!({
        "partitions": random.random_range(1..4),
        "config": { "retention.ms": random.random_range(1000..1010) },
        "deletionPolicy": "Delete",
    })
}

/// One step of the people who write manifests; `wishes` is what they want in the end.
fn step(stage: &Stage, random: &mut StdRng, at: usize, wishes: &mut BTreeMap<String, Value>) {
    let names: Vec<String> = wishes.keys().cloned().collect();
    let name = match names.len() {
        0 => String::new(),
        count => names[random.random_range(0..count)].clone(),
    };
    match random.random_range(0..4) {
        0 if names.len() > 1 => {
            shared().delete("topic", &stage.namespace, &name);
            wishes.remove(&name);
        }
        1 if !names.is_empty() => {
            let mut new = spec(random);
            let before = wishes[&name]["partitions"].as_i64();
            new["partitions"] = json!(new["partitions"].as_i64().max(before));
            stage.apply(&name, new.clone());
            wishes.insert(name, new);
        }
        _ => {
            let (name, new) = (format!("t{at}"), spec(random));
            stage.apply(&name, new.clone());
            wishes.insert(name, new);
        }
    }
}

#[test]
fn killed_at_single_requests() {
    match std::env::var("KEELSON_SEED") {
        Ok(seed) => lives(seed.parse().expect("a number"), "replayed"),
        Err(_) => {
            for (seed, cluster) in SEEDS.into_iter().zip(["kills", "kills-two"]) {
                lives(seed, cluster);
            }
        }
    }
}

fn lives(seed: u64, cluster: &'static str) {
    println!("KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stage = Stage::new(cluster);
    let (reaper, mut operator) = Reaper::of(&stage);
    let mut wishes = BTreeMap::new();
    let mut deaths = 0;
    for at in 0..ROUNDS {
        step(&stage, &mut random, 2 * at, &mut wishes);
        operator.spawn();
        let mut left = random.random_range(0..REQUESTS);
        reaper.arm(&operator, random.random_bool(0.5), move |_| {
            left -= 1;
            left < 0
        });
        step(&stage, &mut random, 2 * at + 1, &mut wishes);
        let struck = try_wait_for(LIFE, || reaper.struck().then_some(()));
        deaths += usize::from(struck.is_some());
        reaper.disarm();
        stage.bury(&mut operator);
    }
    assert!(deaths > ROUNDS / 2, "{deaths} deaths at requests");
    operator.restart();
    the_end(&stage, &wishes);
}

/// Every wish is fulfilled, and nothing else is there.
fn the_end(stage: &Stage, wishes: &BTreeMap<String, Value>) {
    for at in 0..2 * ROUNDS {
        let name = format!("t{at}");
        let Some(wish) = wishes.get(&name) else {
            shared().wait_gone("topic", &stage.namespace, &name);
            assert_eq!(topic(&stage.broker, &name), None, "{name}");
            continue;
        };
        let object = stage.ready(&name);
        let (id, partitions) = topic(&stage.broker, &name).expect("it is there");
        assert_eq!(object["status"]["topicId"], id, "{name}");
        assert_eq!(json!(partitions), wish["partitions"], "{name}");
        let value = config(&stage.broker, &name, "retention.ms");
        assert_eq!(
            value,
            Some(wish["config"]["retention.ms"].to_string()),
            "{name}"
        );
        let owner = config(&stage.broker, &name, "keelson.owner").unwrap_or_default();
        assert!(
            owner.ends_with(&format!("/{}/{name}", stage.namespace)),
            "{owner}"
        );
        let finalizers = &object["metadata"]["finalizers"];
        assert_eq!(*finalizers, json!(["keelson.dev/delete-topic"]), "{name}");
    }
}
