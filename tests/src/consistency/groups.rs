//! What a group promises: it goes on from its committed offsets, its members together see everything, and with offsets in
//! transactions each record is processed in exactly one that was committed.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::anomaly::{Anomaly, Kind};
use super::checker::Found;
use super::facts::{Facts, Fate};
use super::history::{Action, Key, Op, Outcome, Step, Value};

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    let groups = Groups::gather(facts);
    committed_offsets_stay(facts, &groups, found);
    everything_is_seen(facts, &groups, found);
    everything_is_processed_once(facts, &groups, found);
}

/// The groups of a history.
#[derive(Default)]
struct Groups<'a> {
    /// By operation: the group of its process at that time.
    of: Vec<Option<&'a str>>,
    keys: BTreeMap<&'a str, HashSet<Key>>,
    /// Those that commit offsets with transactions.
    processing: HashSet<&'a str>,
}

impl<'a> Groups<'a> {
    fn gather(facts: &Facts<'a>) -> Self {
        let mut groups = Self::default();
        let mut current: HashMap<u32, &'a str> = HashMap::new();
        for op in &facts.history.ops {
            match &op.action {
                Action::Subscribe { group, keys } => {
                    current.insert(op.process, group);
                    groups.keys.entry(group).or_default().extend(keys);
                }
                Action::Assign(_) | Action::Crash => {
                    current.remove(&op.process);
                }
                Action::Txn { steps, .. } => {
                    let named = steps.iter().filter_map(|step| match step {
                        Step::Offsets { group, .. } => Some(group.as_str()),
                        Step::Send(_) | Step::Poll(_) | Step::Rebalance { .. } => None,
                    });
                    groups.processing.extend(named);
                }
                _ => {}
            }
            groups.of.push(current.get(&op.process).copied());
        }
        groups
    }
}

/// One member gets a partition, somewhen between two times.
struct Given {
    op: usize,
    earliest_us: u64,
    latest_us: u64,
}

/// What is known of a group's offsets in one partition.
#[derive(Default)]
struct Offsets {
    /// When it was known to be committed, and which offset.
    committed: Vec<(u64, i64)>,
    /// Commits without an outcome: since when one may be carried out, and its offset.
    unknown: Vec<(u64, i64)>,
    given: Vec<Given>,
}

/// What a rebalance gave and took.
type Moves<'a> = (&'a [Key], &'a [Key]);

/// Rebalances in an operation.
fn rebalances(op: &Op) -> impl Iterator<Item = Moves<'_>> {
    let (one, steps): (Option<Moves<'_>>, &[Step]) = match &op.action {
        Action::Rebalance { assigned, revoked } => (Some((assigned, revoked)), &[]),
        Action::Txn { steps, .. } => (None, steps),
        _ => (None, &[]),
    };
    let within = steps.iter().filter_map(|step| match step {
        Step::Rebalance { assigned, revoked } => Some((assigned.as_slice(), revoked.as_slice())),
        Step::Send(_) | Step::Poll(_) | Step::Offsets { .. } => None,
    });
    one.into_iter().chain(within)
}

/// No member begins before an offset that was committed when it got the partition.
fn committed_offsets_stay(facts: &Facts<'_>, groups: &Groups<'_>, found: &mut Found) {
    let floors = floors(facts, groups);
    let mut pending: HashMap<u32, HashMap<Key, (usize, i64)>> = HashMap::new();
    for (op, operation) in facts.history.ops.iter().enumerate() {
        let waiting = pending.entry(operation.process).or_default();
        match &operation.action {
            Action::Assign(_) | Action::Seek(_) | Action::Subscribe { .. } | Action::Crash => {
                waiting.clear();
            }
            Action::Rebalance { .. } | Action::Txn { .. } => {
                for (assigned, revoked) in rebalances(operation) {
                    waiting.retain(|key, _| !revoked.contains(key));
                    let known = assigned
                        .iter()
                        .filter_map(|key| Some((*key, (op, *floors.get(&(op, *key))?))));
                    waiting.extend(known);
                }
            }
            Action::Send { .. } | Action::Poll(_) | Action::Commit(_) => {}
        }
        // Reads of a transaction that gets partitions may come before or after: they are left alone.
        if waiting.is_empty() || rebalances(operation).next().is_some() {
            continue;
        }
        for read in operation.reads() {
            let Some((given, floor)) = waiting.remove(&read.key) else {
                continue;
            };
            if read.offset < floor {
                found.add(Anomaly {
                    kind: Kind::LostCommit,
                    key: read.key,
                    offsets: vec![floor, read.offset],
                    values: read.value.into_iter().collect(),
                    ops: vec![given, op],
                    group: groups.of[op].map(str::to_owned),
                });
            }
        }
    }
}

/// For each operation in which a member gets a partition: the lowest offset at which it may begin.
fn floors(facts: &Facts<'_>, groups: &Groups<'_>) -> HashMap<(usize, Key), i64> {
    let mut floors: HashMap<(usize, Key), i64> = HashMap::new();
    for ((_, key), mut offsets) in offsets(facts, groups) {
        offsets.committed.sort_unstable();
        offsets.given.sort_by_key(|given| given.earliest_us);
        let mut committed = offsets.committed.iter().peekable();
        let (mut floor, mut since_us) = (0, 0);
        for given in &offsets.given {
            while let Some((_, offset)) = committed.next_if(|(at, _)| *at < given.earliest_us) {
                floor = floor.max(*offset);
            }
            // The broker may carry out what a member gave up, after what followed it, but not after the next rebalance.
            let late = offsets
                .unknown
                .iter()
                .filter(|(since, _)| (since_us..=given.latest_us).contains(since))
                .map(|(_, offset)| *offset)
                .min();
            floor = floor.min(late.unwrap_or(floor));
            since_us = given.earliest_us;
            let known = floors.entry((given.op, key)).or_insert(floor);
            *known = floor.min(*known);
        }
    }
    floors
}

fn offsets<'a>(facts: &Facts<'a>, groups: &Groups<'a>) -> HashMap<(&'a str, Key), Offsets> {
    let mut all: HashMap<(&'a str, Key), Offsets> = HashMap::new();
    for (place, op) in facts.history.ops.iter().enumerate() {
        let mut note = |group: &'a str, offsets: &[(Key, i64)]| {
            for (key, offset) in offsets {
                let known = all.entry((group, *key)).or_default();
                match op.outcome {
                    Outcome::Ok => known.committed.push((op.completed_us, *offset)),
                    Outcome::Info => known.unknown.push((op.invoked_us, *offset)),
                    Outcome::Fail => {}
                }
            }
        };
        match (&op.action, groups.of[place]) {
            (Action::Commit(offsets), Some(group)) => note(group, offsets),
            (Action::Txn { steps, .. }, _) if facts.fates[place] == Fate::Done => {
                for step in steps {
                    if let Step::Offsets { group, offsets } = step {
                        note(group, offsets);
                    }
                }
            }
            _ => {}
        }
        let Some(group) = groups.of[place] else {
            continue;
        };
        for key in rebalances(op).flat_map(|(assigned, _)| assigned) {
            all.entry((group, *key)).or_default().given.push(Given {
                op: place,
                earliest_us: op.invoked_us,
                latest_us: op.read_by_us(),
            });
        }
    }
    all
}

/// What anybody read, the members of each group read, too.
fn everything_is_seen(facts: &Facts<'_>, groups: &Groups<'_>, found: &mut Found) {
    let mut seen: HashMap<&str, HashSet<Value>> = HashMap::new();
    for (place, op) in facts.history.ops.iter().enumerate() {
        if let Some(group) = groups.of[place] {
            let values = op.reads().filter_map(|read| read.value);
            seen.entry(group).or_default().extend(values);
        }
    }
    for (group, keys) in &groups.keys {
        if groups.processing.contains(group) {
            continue;
        }
        let seen = seen.remove(group).unwrap_or_default();
        for key in keys {
            let visible = facts.visible(*key).iter();
            for place in visible.map(|offset| facts.place(*key, *offset)) {
                if place.1.is_some_and(|value| !seen.contains(&value)) {
                    found.add(missing(Kind::Unseen, group, *key, place));
                }
            }
        }
    }
}

fn missing(kind: Kind, group: &str, key: Key, place: (i64, Option<Value>)) -> Anomaly {
    Anomaly {
        kind,
        key,
        offsets: vec![place.0],
        values: place.1.into_iter().collect(),
        ops: Vec::new(),
        group: Some(group.to_owned()),
    }
}

/// Exactly once: committed transactions read every record of the group's partitions, and none of them twice.
fn everything_is_processed_once(facts: &Facts<'_>, groups: &Groups<'_>, found: &mut Found) {
    let mut processed: HashMap<(&str, Key, i64), usize> = HashMap::new();
    for (op, operation) in facts.history.ops.iter().enumerate() {
        let Some(group) = groups.of[op].filter(|group| groups.processing.contains(group)) else {
            continue;
        };
        if facts.fates[op] != Fate::Done || !matches!(operation.action, Action::Txn { .. }) {
            continue;
        }
        for read in operation.reads() {
            let place = (read.offset, read.value);
            let by = *processed
                .entry((group, read.key, read.offset))
                .or_insert(op);
            if by != op {
                found.add(Anomaly {
                    ops: vec![by, op],
                    ..missing(Kind::DoubleProcessing, group, read.key, place)
                });
            }
        }
    }
    for group in &groups.processing {
        for key in groups.keys.get(group).into_iter().flatten() {
            for offset in facts.visible(*key) {
                if !processed.contains_key(&(*group, *key, *offset)) {
                    let place = facts.place(*key, *offset);
                    found.add(missing(Kind::Unprocessed, group, *key, place));
                }
            }
        }
    }
}
