//! Scripted workloads, one per part of a partition's life: the power fails, and the process ends, at every disk operation
//! of each.

use super::life::Act::*;
use super::life::{Act, Life};
use crate::disk::SimFaults;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    PowerCut,
    Kill,
}

impl Ending {
    pub(super) fn happen(self, life: &mut Life) {
        life.end();
        match self {
            Ending::PowerCut => life.disk.power_cut(),
            Ending::Kill => life.disk.kill(),
        }
    }
}

/// Appends and makes each a group of its own.
fn groups(number: usize, count: usize) -> Vec<Act> {
    [Append(number), Write].repeat(count)
}

fn append() -> Vec<Act> {
    let mut acts = vec![Append(0), Append(1), Write, Append(0), Append(0), Append(2)];
    acts.extend([
        Write,
        Epoch(0),
        Append(0),
        Append(1),
        Write,
        Seal,
        Append(2),
        Write,
    ]);
    acts
}

fn flush() -> Vec<Act> {
    let mut acts = groups(0, 2);
    acts.extend([Flush(0), Append(0), Append(1), Write, Flush(0), Flush(1)]);
    acts.extend([Epoch(0), Append(0), Write, Flush(0), Append(0), Write]);
    acts
}

fn together() -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..4 {
        acts.extend(groups(0, 2));
        acts.extend([Append(1), Produce(2), Write, FlushTogether]);
    }
    acts.extend([Truncate(0), Produce(1), Write, Append(2), Write]);
    acts.extend([FlushTogether, LogStart(1), Append(0), Write, FlushTogether]);
    acts.extend([Delete(2), Append(1), Write, FlushTogether, Checkpoint]);
    acts
}

fn roll() -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..5 {
        acts.extend(groups(0, 4));
        acts.push(Flush(0));
    }
    acts
}

fn retention() -> Vec<Act> {
    let mut acts = roll();
    acts.extend([
        Retain(0),
        Append(0),
        Write,
        Flush(0),
        Retain(0),
        Write,
        Settle,
    ]);
    acts.extend(groups(0, 2));
    acts.extend([Flush(0), Retain(0), Write, Flush(0), Append(0), Write]);
    acts
}

fn deletion() -> Vec<Act> {
    let mut acts = groups(0, 3);
    acts.extend([Append(1), Write, Flush(0), Append(0), Append(0), Delete(0)]);
    acts.extend([Append(0), Write, Settle, Append(0), Write, Flush(0)]);
    acts.extend([Delete(1), Write, Settle, Append(1), Write, Delete(0), Write]);
    acts
}

fn truncation() -> Vec<Act> {
    let mut acts = groups(0, 3);
    // In the tail; behind queued appends; in a segment; across segments; and going on after each.
    acts.extend([
        Truncate(0),
        Write,
        Flush(0),
        Append(0),
        Append(0),
        Append(0),
    ]);
    acts.extend([
        Truncate(0),
        Write,
        Flush(0),
        Epoch(0),
        Produce(0),
        Append(0),
        Write,
    ]);
    acts.extend([
        Flush(0),
        Truncate(0),
        Write,
        Flush(0),
        Produce(0),
        Write,
        Flush(0),
    ]);
    acts.extend(roll());
    acts.extend([Truncate(0), Write, Settle, Append(0), Write, Flush(0)]);
    acts.extend([
        Truncate(0),
        Write,
        Flush(0),
        Truncate(0),
        Write,
        Settle,
        Append(0),
        Write,
    ]);
    acts
}

fn compaction() -> Vec<Act> {
    let mut acts = roll();
    acts.extend([Compact(0), Epoch(0), Produce(0), Append(0), Write, Flush(0)]);
    acts.extend(roll());
    acts.extend([Compact(0), LogStart(0), Write, Flush(0), Truncate(0), Write]);
    acts.extend([Flush(0), Produce(0), Append(0), Write, Flush(0), Compact(0)]);
    acts.extend([Append(0), Write, Flush(0), Delete(0), Write, Settle]);
    acts
}

fn checkpoint() -> Vec<Act> {
    // Several files of the WAL, so that they are left, freed and used again.
    let mut acts = Vec::new();
    for _ in 0..9 {
        acts.extend(groups(0, 5));
        acts.extend([Append(1), Write, Flush(0), Flush(1), Checkpoint]);
    }
    acts
}

fn delete_records() -> Vec<Act> {
    let mut acts = groups(0, 5);
    acts.extend([LogStart(0), Write, Flush(0), Append(0), LogStart(0), Write]);
    acts.extend(roll());
    acts.extend([
        LogStart(0),
        Write,
        Flush(0),
        LogStart(0),
        Append(0),
        Write,
        Settle,
    ]);
    acts
}

fn producers() -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..5 {
        acts.extend([
            Produce(0),
            Produce(1),
            Write,
            Flush(0),
            Append(0),
            Produce(0),
            Write,
        ]);
    }
    acts.extend([Flush(0), Flush(1), Produce(0), Write]);
    acts
}

fn restart() -> Vec<Act> {
    let mut acts = groups(0, 3);
    acts.extend([
        Produce(1),
        Restart,
        Append(0),
        Produce(1),
        Write,
        Flush(0),
        Restart,
    ]);
    acts.extend([Append(0), Delete(1), Restart, Append(1), Write]);
    acts
}

/// A workload and its name.
type Script = (&'static str, fn() -> Vec<Act>);

/// All workloads.
pub(super) fn all() -> [Script; 12] {
    [
        ("append", append),
        ("flush", flush),
        ("together", together),
        ("roll", roll),
        ("retention", retention),
        ("deletion", deletion),
        ("truncation", truncation),
        ("compaction", compaction),
        ("checkpoint", checkpoint),
        ("delete_records", delete_records),
        ("producers", producers),
        ("restart", restart),
    ]
}

/// Operations of a whole run without a fault: those of the start, and all.
fn whole(acts: &[Act], seed: u64) -> (u64, u64, u64) {
    let mut life = Life::new(seed);
    life.start().expect("a good disk");
    let started = life.disk.operations();
    let result = life.run(acts);
    assert!(result.is_ok() && !life.has_failed(), "{}", life.reason());
    (started, life.disk.operations(), life.disk.fingerprint())
}

/// Ends the process at each operation in turn; returns at how many.
pub(super) fn crash_everywhere(name: &str, acts: &[Act], seed: u64) -> u64 {
    let (started, all, _) = whole(acts, seed);
    // The first start is the same for all.
    let first = if name == "append" { 1 } else { started + 1 };
    let mut points = 0;
    for ending in [Ending::PowerCut, Ending::Kill] {
        for at in first..=all {
            let what = format!("{name}, seed {seed}, {ending:?} at operation {at} of {all}");
            let mut life = Life::new(seed);
            life.disk.set_faults(SimFaults {
                cut_at: Some(at),
                ..SimFaults::default()
            });
            let result = life.start().and_then(|()| life.run(acts));
            assert!(
                life.disk.is_cut(),
                "{what}: another run than before: {result:?}"
            );
            ending.happen(&mut life);
            life.check(&what);
            points += 1;
        }
    }
    points
}

#[test]
fn a_seed_replays_every_operation() {
    for (name, acts) in all() {
        assert_eq!(whole(&acts(), 5), whole(&acts(), 5), "{name}");
    }
}

/// One test per workload, so that a failure names it and they run side by side.
macro_rules! crash_at_every_operation {
    ($($name:ident),*) => {
        mod crash_at_every_operation_of {
            $(#[test]
            fn $name() {
                let points = super::crash_everywhere(stringify!($name), &super::$name(), 1);
                println!("{points} points");
                assert!(points > 60, "{points} are too few to say something");
            })*

            #[test]
            fn all_workloads() {
                let tested = [$(stringify!($name)),*];
                assert_eq!(tested, super::all().map(|(name, _)| name));
            }
        }
    };
}

crash_at_every_operation!(
    append,
    flush,
    together,
    roll,
    retention,
    deletion,
    truncation,
    compaction,
    checkpoint,
    delete_records,
    producers,
    restart
);
