//! The loop against a cluster in memory, killed wherever it can be: a request moves the group once, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_crds::{ConsumerGroupStatus, DeletionPolicy, ResetOffset, find};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::group::facts::{Start, Target, Wish};
use crate::group::fixture::{self, GROUP, desired, wish};
use crate::group::status::build;
use crate::kafka::fake::FakeKafka;
use crate::kafka::{
    BrokerAddress, ConfigChange, GroupFacts, GroupOffset, GroupQuery, NewTopic, TopicFacts,
};

/// Where the operator dies: before or after this many effects. Afterwards nothing has any effect.
#[derive(Clone, Copy, Debug)]
struct Death {
    effects: u32,
    after: bool,
}

/// What is outside of the operator, and outlives it.
struct World {
    kafka: FakeKafka,
    status: Mutex<ConsumerGroupStatus>,
    memory: Mutex<Memory>,
    second: Mutex<i64>,
    /// How often the offsets of each request were committed.
    moved: Mutex<BTreeMap<String, u32>>,
    death: Mutex<Option<Death>>,
}

impl World {
    fn new(logs: &[(i64, i64)]) -> Arc<Self> {
        let world = Self {
            kafka: FakeKafka::default(),
            status: Mutex::default(),
            memory: Mutex::default(),
            second: Mutex::new(1_000),
            moved: Mutex::default(),
            death: Mutex::new(None),
        };
        world.kafka.have_topic("t", logs);
        Arc::new(world)
    }

    /// One effect. `Err`: the operator is dead, before or after it.
    async fn effect<T, E>(
        &self,
        dead: E,
        effect: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let death = *self.death.lock().unwrap();
        let Some(death) = death else {
            return effect.await;
        };
        if death.effects > 0 {
            let left = death.effects - 1;
            *self.death.lock().unwrap() = Some(Death {
                effects: left,
                ..death
            });
            return effect.await;
        }
        if death.after {
            let last = Death {
                effects: 0,
                after: false,
            };
            *self.death.lock().unwrap() = Some(last);
            effect.await?;
        }
        Err(dead)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(*self.second.lock().unwrap()).unwrap()
    }

    fn members(&self, members: usize) {
        self.kafka.tamper_group(GROUP, |it| it.members = members);
    }

    fn commit(&self, partition: i32, offset: i64) {
        self.kafka.tamper_group(GROUP, |it| {
            let key = ("t".to_owned(), partition);
            it.committed.insert(key, (offset, String::new()))
        });
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        self.kafka.tamper_group(GROUP, |it| {
            let found = it.committed.get(&("t".to_owned(), partition));
            found.map(|it| it.0)
        })
    }

    fn moved(&self, id: &str) -> u32 {
        self.moved.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    fn result(&self) -> Option<(String, String)> {
        let status = self.status.lock().unwrap();
        let last = status.last_reset.as_ref()?;
        Some((last.request_id.clone(), last.result.clone()))
    }

    /// One turn of an operator that dies, or does not.
    async fn turn(self: &Arc<Self>, desired: &Desired, death: Option<Death>) -> Outcome {
        *self.death.lock().unwrap() = death;
        let status = self.status.lock().unwrap().clone();
        let said = find(&status.conditions, ConditionType::ResetSucceeded);
        let object = ObjectView {
            lasting: true,
            last: status.last_reset.clone(),
            last_words: said.map(|it| it.message.clone()).unwrap_or_default(),
            memory: self.memory.lock().unwrap().clone(),
            ..ObjectView::default()
        };
        let kafka = Mortal(Arc::clone(self));
        let outcome = converge(&kafka, &**self, desired, object, Mode::Execute).await;
        // The last effect of a turn is its status; a dead operator writes none.
        let _ = self.record(&outcome.verdict).await;
        *self.death.lock().unwrap() = None;
        outcome
    }
}

impl Surroundings for World {
    async fn gone(&self) -> Option<String> {
        None
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        Ok(())
    }

    async fn remember(&self, memory: &Memory) -> Result<(), String> {
        self.effect("dead".to_owned(), async {
            *self.memory.lock().unwrap() = memory.clone();
            Ok(())
        })
        .await
    }

    async fn record(&self, verdict: &Verdict) -> Result<(), String> {
        self.effect("dead".to_owned(), async {
            let mut status = self.status.lock().unwrap();
            *status = build(&status, verdict, Some(1), &Time(Timestamp::UNIX_EPOCH));
            Ok(())
        })
        .await
    }

    fn now(&self) -> Timestamp {
        World::now(self)
    }
}

/// The cluster as an operator sees it that may die.
struct Mortal(Arc<World>);

impl Kafka for Mortal {
    async fn group(&self, id: &str, query: &GroupQuery) -> Result<GroupFacts, CallError> {
        self.0.kafka.group(id, query).await
    }

    async fn commit(&self, group: &str, offsets: &[GroupOffset]) -> Result<(), CallError> {
        let dead = CallError::Unreachable {
            message: "dead".into(),
        };
        let world = &self.0;
        world
            .effect(dead, async {
                let before = |it: &GroupOffset| world.committed(it.partition);
                let claims = offsets.iter().filter(|it| it.note.ends_with("planned"));
                for it in claims {
                    assert_eq!(before(it), Some(it.offset), "a claim moves nothing");
                }
                world.kafka.commit(group, offsets).await?;
                let note = &offsets[0].note;
                if let Some(id) = note.strip_suffix(": done") {
                    let id = id.trim_start_matches("keelson reset ").to_owned();
                    *world.moved.lock().unwrap().entry(id).or_default() += 1;
                }
                Ok(())
            })
            .await
    }

    async fn delete_group(&self, id: &str) -> Result<(), CallError> {
        self.0.kafka.delete_group(id).await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, CallError> {
        self.0.kafka.topic(name).await
    }

    async fn topics(&self) -> Result<Vec<String>, CallError> {
        self.0.kafka.topics().await
    }

    async fn create_topic(&self, new: &NewTopic, mode: Mode) -> Result<(), CallError> {
        self.0.kafka.create_topic(new, mode).await
    }

    async fn add_partitions(&self, name: &str, total: i32, mode: Mode) -> Result<(), CallError> {
        self.0.kafka.add_partitions(name, total, mode).await
    }

    async fn alter_configs(
        &self,
        name: &str,
        change: &ConfigChange,
        mode: Mode,
    ) -> Result<(), CallError> {
        self.0.kafka.alter_configs(name, change, mode).await
    }

    async fn delete_topic(&self, id: uuid::Uuid) -> Result<(), CallError> {
        self.0.kafka.delete_topic(id).await
    }

    async fn brokers(&self) -> Result<Vec<BrokerAddress>, CallError> {
        self.0.kafka.brokers().await
    }
}

fn asking(id: &str, target: Target) -> Desired {
    fixture::asking(Wish {
        id: id.into(),
        ..wish(target)
    })
}

/// Every place where the operator can die in one turn.
fn deaths() -> impl Iterator<Item = Death> {
    (0..6).flat_map(|effects| [false, true].map(|after| Death { effects, after }))
}

#[tokio::test]
async fn killed_at_each_step_the_end_is_the_same() {
    for target in [
        Target::Start(Start::Earliest),
        Target::Start(Start::At(7)),
        Target::ShiftBy(-2),
    ] {
        for first in deaths() {
            for second in deaths() {
                let world = World::new(&[(0, 10), (3, 9)]);
                world.commit(0, 8);
                world.commit(1, 9);
                let desired = asking("a", target.clone());
                world.turn(&desired, Some(first)).await;
                world.turn(&desired, Some(second)).await;
                world.turn(&desired, None).await;
                let expected = match &target {
                    Target::Start(Start::Earliest) => (Some(0), Some(3)),
                    Target::ShiftBy(_) => (Some(6), Some(7)),
                    _ => (Some(7), Some(7)),
                };
                let found = (world.committed(0), world.committed(1));
                assert_eq!(found, expected, "{target:?} {first:?} {second:?}");
                assert_eq!(world.moved("a"), 1, "{target:?} {first:?} {second:?}");
                let end = Some(("a".to_owned(), "OffsetsReset".to_owned()));
                assert_eq!(world.result(), end);
            }
        }
    }
}

#[tokio::test]
async fn undone_and_done_again() {
    let world = World::new(&[(0, 10)]);
    world.commit(0, 8);
    let run = async |id: &str, target| world.turn(&asking(id, target), None).await;
    run("a", Target::Start(Start::Earliest)).await;
    assert_eq!(world.committed(0), Some(0));
    run("b", Target::Previous).await;
    assert_eq!(world.committed(0), Some(8));
    run("c", Target::Previous).await;
    assert_eq!(world.committed(0), Some(0), "the undo is a reset, too");
    run("d", Target::Start(Start::At(5))).await;
    run("a", Target::Start(Start::Earliest)).await;
    assert_eq!(world.committed(0), Some(5), "an id is never taken twice");
    let status = world.status.lock().unwrap().clone();
    let said = find(&status.conditions, ConditionType::ResetSucceeded).unwrap();
    assert_eq!(said.reason, "RequestIdUsed");
    assert_eq!(status.last_reset.unwrap().request_id, "d");
}

#[tokio::test]
async fn a_new_group_starts_where_it_is_told_and_is_then_left_alone() {
    let world = World::new(&[(2, 10), (0, 0)]);
    let start = |start| Desired {
        initial: Some(start),
        ..desired()
    };
    world.members(1);
    let outcome = world.turn(&start(Start::At(7)), None).await;
    assert!(outcome.events.is_empty(), "members decide for themselves");
    world.members(0);
    let outcome = world.turn(&start(Start::At(7)), None).await;
    assert_eq!(outcome.events[0].0, Reason::OffsetsProvisioned);
    assert_eq!((world.committed(0), world.committed(1)), (Some(7), Some(0)));
    let outcome = world.turn(&start(Start::Latest), None).await;
    assert!(outcome.events.is_empty());
    assert_eq!(world.committed(0), Some(7), "never overwritten");
}

#[tokio::test]
async fn deleted_once_it_is_empty() {
    let world = World::new(&[(0, 10)]);
    world.commit(0, 8);
    world.members(1);
    let object = ObjectView {
        has_finalizer: true,
        lasting: true,
        deleting: Some(crate::deletion::Deleting {
            age: std::time::Duration::ZERO,
            until: "later".into(),
        }),
        ..ObjectView::default()
    };
    let delete = Desired {
        deletion_policy: DeletionPolicy::Delete,
        ..desired()
    };
    let kafka = Mortal(Arc::clone(&world));
    let go = async || converge(&kafka, &*world, &delete, object.clone(), Mode::Execute).await;
    let outcome = go().await;
    assert_eq!(outcome.release, None);
    let held = &outcome.verdict.conditions[&ConditionType::Deleting];
    assert_eq!(held.1, Reason::GroupNotEmpty);
    world.members(0);
    // It could be looked at, and the order had no answer: the deletion is under way.
    let odd = || CallError::Unexpected {
        message: "odd".into(),
    };
    world.kafka.fail_orders_with(Some(odd()));
    let outcome = go().await;
    let held = &outcome.verdict.conditions[&ConditionType::Deleting];
    assert_eq!(held.1, Reason::DeletingGroup);
    world.kafka.fail_orders_with(None);
    let outcome = go().await;
    assert_eq!(outcome.release.unwrap().0, Reason::GroupDeleted);
    assert!(!world.kafka.has_group(GROUP));
    world.kafka.fail_with(Some(odd()));
    let outcome = go().await;
    let held = &outcome.verdict.conditions[&ConditionType::Deleting];
    assert_eq!(held.1, Reason::DeletionHeld);
}

/// What is refused for good waits, whether it is the look or an order; all else is tried again soon.
#[tokio::test]
async fn only_what_is_refused_for_good_is_settled() {
    let refused = |retriable| CallError::Refused {
        error: "INVALID_GROUP_ID".into(),
        message: "no".into(),
        retriable,
    };
    let message = || "away".to_owned();
    for (error, settled) in [
        (refused(false), true),
        (refused(true), false),
        (CallError::Unreachable { message: message() }, false),
        (CallError::Unexpected { message: message() }, false),
    ] {
        let world = World::new(&[(0, 10)]);
        world.commit(0, 8);
        let reset = asking("a", Target::Start(Start::Earliest));
        world.kafka.fail_orders_with(Some(error.clone()));
        let failure = world.turn(&reset, None).await.failure.unwrap();
        assert_eq!((failure.reason, failure.settled), (error.reason(), settled));
        world.kafka.fail_orders_with(None);
        world.kafka.fail_with(Some(error.clone()));
        let failure = world.turn(&reset, None).await.failure.unwrap();
        assert_eq!((failure.reason, failure.settled), (error.reason(), settled));
        world.kafka.fail_with(None);
        assert_eq!(world.turn(&reset, None).await.failure, None);
        assert_eq!(world.moved("a"), 1);
    }
}

fn any_target(random: &mut StdRng) -> Target {
    match random.random_range(0..6) {
        0 => Target::Start(Start::Earliest),
        1 => Target::Start(Start::Latest),
        2 => Target::Start(Start::At(random.random_range(0..30))),
        3 => Target::ShiftBy(random.random_range(-12..12)),
        4 => Target::Previous,
        _ => Target::Offsets(vec![ResetOffset {
            topic: "t".into(),
            partition: random.random_range(0..3),
            offset: random.random_range(0..30),
        }]),
    }
}

/// Whatever happens: operators that die anywhere, members that come, commit and go, wishes that change.
async fn schedule(seed: u64) -> BTreeMap<String, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new(&[(0, 20), (5, 20), (7, 7)]);
    for partition in 0..random.random_range(0..4) {
        world.commit(partition, random.random_range(5..20));
    }
    let mut wish = desired();
    let mut results: BTreeMap<String, String> = BTreeMap::new();
    let events = random.random_range(3..25);
    for _ in 0..events {
        match random.random_range(0..12) {
            0 => world.members(random.random_range(1..3)),
            1 => world.members(0),
            2 if world.kafka.tamper_group(GROUP, |it| it.members) > 0 => {
                world.commit(random.random_range(0..3), random.random_range(0..21));
            }
            3 => {
                let id = format!("r{}", random.random_range(0..4));
                let mut next = asking(&id, any_target(&mut random));
                if let Some(wish) = next.reset.as_mut() {
                    let soon = world.now() + std::time::Duration::from_secs(5);
                    wish.deadline = random.random_bool(0.3).then_some(soon);
                    wish.dry_run = random.random_bool(0.2);
                }
                wish = next;
            }
            4 if random.random_bool(0.3) => wish.reset = None,
            5 => wish.paused = random.random_bool(0.3),
            // A consumer comes, commits everywhere or almost, and goes.
            6 | 7 => {
                world.members(1);
                for partition in 0..3 {
                    if random.random_bool(0.8) {
                        world.commit(partition, random.random_range(0..21));
                    }
                }
                world.members(0);
            }
            8 => *world.second.lock().unwrap() += random.random_range(0..7),
            _ => {
                let death = random.random_bool(0.7).then(|| Death {
                    effects: random.random_range(0..6),
                    after: random.random_bool(0.5),
                });
                world.turn(&wish, death).await;
            }
        }
        note(&world, &mut results, seed);
    }
    world.members(0);
    wish.paused = false;
    for _ in 0..2 {
        world.turn(&wish, None).await;
        note(&world, &mut results, seed);
    }
    if let Some((id, result)) = world.result() {
        assert_ne!(result, "ResetRunning", "seed {seed}: {id} has no end");
    }
    let before = world.kafka.calls().len();
    world.turn(&wish, None).await;
    assert_eq!(before, world.kafka.calls().len(), "seed {seed}: at rest");
    for (id, result) in &results {
        let moved = world.moved(id);
        let right = match result.as_str() {
            "OffsetsReset" => moved == 1,
            "ResetInterrupted" => moved <= 1,
            "DeadlinePassed" | "ResetImpossible" | "DryRun" => moved == 0,
            other => panic!("seed {seed}: {other}"),
        };
        assert!(
            right,
            "seed {seed}: {id} is {result} and moved {moved} times"
        );
    }
    for (id, moved) in world.moved.lock().unwrap().iter() {
        assert!(*moved <= 1, "seed {seed}: {id} moved {moved} times");
    }
    results
}

/// An end that stands once stands for ever.
fn note(world: &World, results: &mut BTreeMap<String, String>, seed: u64) {
    if let Some((id, result)) = world.result().filter(|it| it.1 != "ResetRunning") {
        let first = results.entry(id.clone()).or_insert_with(|| result.clone());
        assert_eq!(*first, result, "seed {seed}: {id}");
    }
}

/// `KEELSON_SEED=n` replays one schedule.
#[tokio::test]
async fn thousands_of_schedules_never_move_a_group_twice() {
    let seeds = match std::env::var("KEELSON_SEED") {
        Ok(seed) => seed.parse().map_or(0..0, |seed: u64| seed..seed + 1),
        Err(_) => 0..5_000,
    };
    let several = seeds.end - seeds.start > 1;
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in seeds {
        for end in schedule(seed).await.into_values() {
            *ends.entry(end).or_default() += 1;
        }
    }
    let all = [
        "DeadlinePassed",
        "DryRun",
        "OffsetsReset",
        "ResetImpossible",
        "ResetInterrupted",
    ];
    let seen: Vec<&str> = ends.keys().map(String::as_str).collect();
    assert!(!several || seen == all, "{ends:?}");
}
