//! Random workloads under random faults. Each life is several runs on one disk; each run ends in a fault of its own, and
//! everything is checked after it.

use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::life::{Act, Life, PARTS};
use super::scripts::{self, Ending};
use crate::disk::SimFaults;
use crate::tests::support::Rng;

/// Runs of one life.
const RUNS: usize = 6;
/// Random points in `make test`, a few seconds of them; the scripts add some thousands.
const POINTS: u64 = 2_000;
/// Seeds of the scripts, beside the one of `make test`, per 100,000 points.
const SCRIPT_SEEDS: u64 = 12;

/// A number from the environment.
pub(super) fn number(variable: &str) -> Option<u64> {
    let word = std::env::var(variable).ok()?;
    Some(
        word.parse()
            .unwrap_or_else(|error| panic!("{variable}={word}: {error}")),
    )
}

pub(super) fn random_act(rng: &mut Rng) -> Act {
    let part = rng.below(PARTS as u64) as usize;
    match rng.below(100) {
        0..23 => Act::Append(part),
        23..25 => Act::Compact(part),
        25..35 => Act::Produce(part),
        35..38 => Act::Epoch(part),
        38..62 => Act::Write,
        62..65 => Act::Seal,
        65..79 => Act::Flush(part),
        79..82 => Act::Checkpoint,
        82..85 => Act::Settle,
        85..88 => Act::LogStart(part),
        88..91 => Act::Retain(part),
        91..93 => Act::Delete(part),
        93..98 => Act::Truncate(part),
        _ => Act::Restart,
    }
}

/// What goes wrong in a run, and how it ends.
fn random_faults(rng: &mut Rng, now: u64, expected: u64) -> (SimFaults, Ending) {
    let at = now + 1 + rng.below(expected);
    let ending = match rng.below(3) {
        0 => Ending::Kill,
        _ => Ending::PowerCut,
    };
    let none = SimFaults::default();
    let faults = match rng.below(100) {
        0..60 => SimFaults {
            cut_at: Some(at),
            ..none
        },
        60..75 => SimFaults {
            sync_fails_at: Some(at),
            ..none
        },
        75..83 => SimFaults {
            write_fails_at: Some(at),
            ..none
        },
        83..93 => SimFaults {
            full_between: Some(at..at + 1 + rng.below(40)),
            cut_at: Some(at + rng.below(80)),
            ..none
        },
        _ => none,
    };
    (faults, ending)
}

/// One life; returns the points.
fn life(seed: u64) -> u64 {
    let mut life = Life::new(seed);
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut points = 0;
    for run in 0..RUNS {
        let acts: Vec<Act> = (0..10 + rng.below(40))
            .map(|_| random_act(&mut rng))
            .collect();
        let expected = 30 + acts.len() as u64 * 3;
        let (faults, mut ending) = random_faults(&mut rng, life.disk.operations(), expected);
        let what = format!("seed {seed}, run {run}: {faults:?}, {ending:?}");
        life.disk.set_faults(faults);
        let result = life.start().and_then(|()| life.run(&acts));
        if result.is_ok() && life.has_failed() {
            panic!("{what}: the process failed and went on: {}", life.reason());
        }
        // The start after it is hit, too, at some operation of its own.
        while rng.below(3) == 0 {
            ending.happen(&mut life);
            points += 1;
            life.disk.set_faults(SimFaults {
                cut_at: Some(life.disk.operations() + 1 + rng.below(25)),
                ..SimFaults::default()
            });
            let _ = life.start();
            ending = Ending::PowerCut;
        }
        ending.happen(&mut life);
        life.check(&what);
        points += 1;
    }
    points
}

fn life_or_seed(seed: u64) -> u64 {
    catch_unwind(|| life(seed)).unwrap_or_else(|panic| {
        println!("KEELSON_SEED={seed} replays this life");
        resume_unwind(panic)
    })
}

/// Runs jobs side by side until `wanted` points are done.
fn side_by_side(wanted: u64, what: &str, job: impl Fn(u64) -> Option<u64> + Sync) -> u64 {
    let (started, next, done) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(4));
    let work = || {
        while done.load(Ordering::Relaxed) < wanted {
            let Some(points) = job(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let before = done.fetch_add(points, Ordering::Relaxed);
            if before / 10_000 != (before + points) / 10_000 {
                let seconds = started.elapsed().as_secs_f64();
                println!("{what}: {} points in {seconds:.1} s", before + points);
            }
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            if let Err(panic) = handle.join() {
                done.store(u64::MAX / 2, Ordering::Relaxed);
                resume_unwind(panic);
            }
        }
    });
    done.load(Ordering::Relaxed)
}

/// `KEELSON_SEED` replays one life; `KEELSON_SIM_POINTS` says how many points are wanted, from fresh seeds.
#[test]
fn random_lives() {
    if let Some(seed) = number("KEELSON_SEED") {
        println!("seed {seed}: {} points", life_or_seed(seed));
        return;
    }
    let wanted = number("KEELSON_SIM_POINTS");
    let first = match wanted {
        Some(_) => std::time::UNIX_EPOCH
            .elapsed()
            .map_or(1, |d| d.as_millis() as u64),
        None => 1,
    };
    println!("seeds from KEELSON_SEED={first} on");
    let random = wanted.unwrap_or(POINTS);
    let mut points = side_by_side(random, "random lives", |number| {
        Some(life_or_seed(first + number))
    });
    assert!(points >= random);
    if wanted.is_some() {
        points += long_scripts(first, random);
    }
    println!(
        "{points} points in all, each started twice and read through; nothing was lost, changed or doubled"
    );
}

/// The scripts with other seeds than in `make test`.
fn long_scripts(first: u64, random: u64) -> u64 {
    let jobs = SCRIPT_SEEDS * random / 100_000 + 1;
    let scripts = scripts::all();
    side_by_side(u64::MAX, "scripts", |number| {
        let (name, acts) = scripts[number as usize % scripts.len()];
        let seed = first + number / scripts.len() as u64;
        if number >= jobs * scripts.len() as u64 {
            return None;
        }
        Some(scripts::crash_everywhere(name, &acts(), seed))
    })
}
