//! The operator is killed in the middle of resets, at each step and at any request, and a request moves the group once.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use keelson_tests::groups::commit;
use keelson_tests::kube::{OPERATOR_WITHIN, Operator};
use keelson_tests::reaper::{Reaper, Request};
use keelson_tests::stage::Stage;
use keelson_tests::wait::try_wait_for;
use keelson_tests::wait_until;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{GROUP, apply, commits, end, ended, moves, offsets, orders, reset, wait};

/// A step of a reset, known by the request that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What is replaced is kept in the annotation.
    Remember,
    /// The offsets that are there are marked.
    Claim,
    /// From and to of every partition are recorded in the status.
    Record,
    /// The record is told as an Event.
    Tell,
    /// The new offsets are committed.
    Commit,
    /// The status tells the end.
    End,
}

impl Step {
    /// Whether a request takes this step. An operator that carries a reset on writes no second record.
    fn point(self) -> impl FnMut(&Request<'_>) -> bool + Send + 'static {
        let mut recorded = false;
        move |request| match request {
            Request::Kafka(asked) => {
                let commits = asked.api == ApiKey::OffsetCommit as i16;
                match self {
                    Self::Claim => commits && asked.says(": planned"),
                    Self::Commit => commits && asked.says(": done"),
                    Self::Remember | Self::Record | Self::Tell | Self::End => false,
                }
            }
            Request::Kubernetes(asked) => {
                let object = asked.method == "PATCH" && asked.path.contains("/billing?");
                let status = asked.method == "PATCH" && asked.path.contains("/billing/status?");
                let event = asked.method == "POST" && asked.path.contains("/events");
                let second = status && recorded;
                recorded |= status;
                match self {
                    Self::Remember => object,
                    Self::Record => status,
                    Self::Tell => event,
                    Self::End => second,
                    Self::Claim | Self::Commit => false,
                }
            }
        }
    }
}

/// A stage with a group that was at 8 and 6 of ten records each, when the first operator saw it.
fn begin(cluster: &'static str) -> (Stage, Reaper, Operator) {
    let stage = Stage::new(cluster);
    orders(&stage, 10);
    let (reaper, mut operator) = Reaper::of(&stage);
    commit(&stage.broker, GROUP, "orders", &[(0, 8, ""), (1, 6, "")]);
    // The reset that the first one takes the place of.
    apply(&stage, reset("first", json!({ "to": "Latest" })));
    operator.restart();
    wait(&stage, "ResetSucceeded", "True", "OffsetsReset");
    stage.bury(&mut operator);
    (stage, reaper, operator)
}

/// One death, and what may have happened in the group before the next operator comes.
struct Case {
    step: Step,
    after: bool,
    meanwhile: &'static [(i32, i64, &'static str)],
    result: &'static str,
    /// From and to.
    moves: [(i64, i64); 2],
    /// Where the group is in the end.
    offsets: [i64; 2],
}

fn check(stage: &Stage, (reaper, operator): (&Reaper, &mut Operator), case: &Case) {
    let Case { step, after, .. } = case;
    let after_words = if *after { "after" } else { "before" };
    let id = format!("{after_words}-{step:?}-{}", case.meanwhile.len());
    println!("{id}");
    commit(&stage.broker, GROUP, "orders", &[(0, 8, ""), (1, 6, "")]);
    apply(stage, reset(&id, json!({ "to": "Earliest" })));
    operator.spawn();
    reaper.arm(operator, *after, step.point());
    wait_until("the operator dies", OPERATOR_WITHIN, || reaper.struck());
    stage.bury(operator);
    if (*step, *after) == (Step::Commit, false) {
        let found = wait(stage, "ResetPending", "True", "ResetRunning");
        assert_eq!(found["status"]["lastReset"]["result"], "ResetRunning");
        assert_eq!(offsets(stage), [8, 6], "not yet");
    }
    if !case.meanwhile.is_empty() {
        commit(&stage.broker, GROUP, "orders", case.meanwhile);
    }
    operator.restart();
    let found = ended(stage, &id);
    assert_eq!(found["status"]["lastReset"]["result"], case.result, "{id}");
    let [zero, one] = case.moves.map(|(from, to)| (Some(from), to));
    assert_eq!(moves(&found), BTreeMap::from([(0, zero), (1, one)]), "{id}");
    assert_eq!(offsets(stage), case.offsets, "{id}");
    assert_eq!(commits(reaper.kafka(), &id), 1, "{id}");
    stage.bury(operator);
}

#[test]
fn killed_at_each_step_of_a_reset() {
    let (stage, reaper, mut operator) = begin("groupsteps");
    let mut run = |case: Case| check(&stage, (&reaper, &mut operator), &case);
    let plain = |step, after| Case {
        step,
        after,
        meanwhile: &[],
        result: "OffsetsReset",
        moves: [(8, 0), (6, 0)],
        offsets: [0, 0],
    };
    for step in [
        Step::Remember,
        Step::Claim,
        Step::Record,
        Step::Tell,
        Step::Commit,
        Step::End,
    ] {
        for after in [false, true] {
            run(plain(step, after));
        }
    }
    // Nothing was committed, and the group has moved: it is reset from where it is now.
    run(Case {
        meanwhile: &[(0, 9, "")],
        moves: [(9, 0), (6, 0)],
        ..plain(Step::Record, true)
    });
    // The offsets were committed, and one partition has moved on since: it is not done again.
    run(Case {
        meanwhile: &[(1, 3, "")],
        offsets: [0, 3],
        ..plain(Step::Commit, true)
    });
    // Nobody can know: it is not done again.
    run(Case {
        meanwhile: &[(0, 9, ""), (1, 7, "")],
        result: "ResetInterrupted",
        offsets: [9, 7],
        ..plain(Step::Commit, true)
    });
    wait(&stage, "ResetSucceeded", "False", "ResetInterrupted");
}

/// Replayed one at a time with `KEELSON_SEED`.
const SEED: u64 = 1;
const RESETS: usize = 6;
/// Requests of an operator from its start to the end of a reset, about.
const REQUESTS: i32 = 30;
/// A life ends here if it asked for less than was expected.
const LIFE: Duration = Duration::from_secs(4);

/// Where a reset goes, and where that is from `now` in a log of ten records.
fn any_target(random: &mut StdRng, now: [i64; 2]) -> (Value, [i64; 2]) {
    match random.random_range(0..4) {
        0 => (json!({ "to": "Earliest" }), [0, 0]),
        1 => (json!({ "to": "Latest" }), [10, 10]),
        2 => {
            let by = random.random_range(-4..4);
            let shifted = now.map(|it: i64| (it + by).clamp(0, 10));
            (json!({ "to": "ShiftBy", "shiftBy": by }), shifted)
        }
        _ => {
            let to = [random.random_range(0..=10), random.random_range(0..=10)];
            let list: Vec<Value> = (0..)
                .zip(to)
                .map(|(at, offset)| json!({ "topic": "orders", "partition": at, "offset": offset }))
                .collect();
            (json!({ "to": "Offsets", "offsets": list }), to)
        }
    }
}

#[test]
fn killed_again_and_again_in_resets() {
    let seed = std::env::var("KEELSON_SEED").map_or(SEED, |it| it.parse().expect("a number"));
    println!("KEELSON_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (stage, reaper, mut operator) = begin("groupkills");
    let mut now = [10, 10];
    let (mut lives, mut deaths) = (0, 0);
    for at in 0..RESETS {
        let id = format!("r{at}");
        let (target, to) = any_target(&mut random, now);
        apply(&stage, reset(&id, target.clone()));
        for _ in 0..random.random_range(1..4) {
            let (mut left, after) = (random.random_range(0..REQUESTS), random.random_bool(0.5));
            if end(&stage, &id).is_some() {
                continue;
            }
            lives += 1;
            operator.spawn();
            reaper.arm(&operator, after, move |_| {
                left -= 1;
                left < 0
            });
            try_wait_for(LIFE, || {
                (reaper.struck() || end(&stage, &id).is_some()).then_some(())
            });
            deaths += usize::from(reaper.struck());
            reaper.disarm();
            stage.bury(&mut operator);
        }
        operator.restart();
        let found = ended(&stage, &id);
        assert_eq!(found["status"]["lastReset"]["result"], "OffsetsReset");
        let one = |at: usize| (at as i64, (Some(now[at]), to[at]));
        assert_eq!(moves(&found), BTreeMap::from([one(0), one(1)]), "{id}");
        assert_eq!(offsets(&stage), to, "{id} {target}");
        assert_eq!(commits(reaper.kafka(), &id), 1, "{id}");
        stage.bury(&mut operator);
        now = to;
    }
    println!("{deaths} of {lives} lives ended at a request");
    assert!(2 * deaths > lives, "{deaths} of {lives} lives");
}
