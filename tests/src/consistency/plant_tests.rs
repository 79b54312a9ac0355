//! One anomaly put into a lawful history: the checker must find exactly its kind.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::anomaly::Kind;
use super::check;
use super::history::{Action, End, History, Key, Op, Outcome, Read, Send, Step, Value};
use super::model_tests::{self, IN, LAST, MIXED};

/// A process that the model does not have.
const STRANGER: u32 = 70;
const SEEDS: u64 = 20;
const OPS: usize = 300;

#[test]
fn lawful_histories_are_clean() {
    for seed in 0..SEEDS {
        let history = model_tests::history(seed, OPS);
        let found = check(&history);
        let told: Vec<String> = found.iter().map(|it| it.tell(&history)).collect();
        assert!(found.is_empty(), "seed {seed}:\n{}", told.join("\n"));
    }
}

#[test]
fn a_planted_anomaly_is_found_and_no_other() {
    let mut planted: BTreeMap<Kind, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let lawful = model_tests::history(seed, OPS);
        for kind in Kind::ALL {
            let mut history = lawful.clone();
            if plant(&mut history, kind).is_none() {
                continue;
            }
            *planted.entry(kind).or_default() += 1;
            let found = check(&history);
            let kinds: BTreeSet<Kind> = found.iter().map(|it| it.kind).collect();
            let told: Vec<String> = found.iter().map(|it| it.tell(&history)).collect();
            assert!(
                kinds == BTreeSet::from([kind]),
                "seed {seed}, planted {}, found:\n{}",
                kind.name(),
                told.join("\n")
            );
        }
    }
    for kind in Kind::ALL {
        let times = planted.get(&kind).copied().unwrap_or_default();
        assert!(times > SEEDS / 2, "{} planted {times} times", kind.name());
    }
}

/// Puts one in; `None` when the history has no place for it.
fn plant(history: &mut History, kind: Kind) -> Option<()> {
    match kind {
        Kind::LostWrite => lost_write(history),
        Kind::Unseen => unseen(history),
        Kind::Duplicate => duplicate(history),
        Kind::AbortedRead => aborted_read(history),
        Kind::PrecommittedRead => precommitted_read(history),
        Kind::InconsistentOffsets => inconsistent_offsets(history),
        Kind::PollSkip => poll_skip(history, false),
        Kind::IntPollSkip => poll_skip(history, true),
        Kind::NonmonotonicPoll => back(history, false),
        Kind::IntNonmonotonicPoll => back(history, true),
        Kind::NonmonotonicSend => swapped(history, false),
        Kind::IntNonmonotonicSend => swapped(history, true),
        Kind::NeverSent => {
            let (key, next) = (IN[0], end_of(history, IN[0]));
            add_read(history, key, next, None);
            Some(())
        }
        Kind::LostCommit => lost_commit(history),
        Kind::DoubleProcessing => double_processing(history),
        Kind::Unprocessed => unprocessed(history),
    }
}

/// Every list of reads.
fn lists(op: &mut Op) -> Vec<&mut Vec<Read>> {
    match &mut op.action {
        Action::Poll(reads) => vec![reads],
        Action::Txn { steps, .. } => steps
            .iter_mut()
            .filter_map(|step| match step {
                Step::Poll(reads) => Some(reads),
                Step::Send(_) | Step::Rebalance { .. } | Step::Offsets { .. } => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn sends(op: &mut Op) -> Vec<&mut Send> {
    match &mut op.action {
        Action::Send { send, .. } => vec![send],
        Action::Txn { steps, .. } => steps
            .iter_mut()
            .filter_map(|step| match step {
                Step::Send(send) => Some(send),
                Step::Poll(_) | Step::Rebalance { .. } | Step::Offsets { .. } => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// What the last process read: everything that is there.
fn all_reads(history: &History, key: Key) -> Vec<Read> {
    let last = history.ops.iter().filter(|op| op.process == LAST);
    last.flat_map(Op::reads)
        .filter(|read| read.key == key)
        .copied()
        .collect()
}

/// An offset behind all that was read or acknowledged.
fn end_of(history: &History, key: Key) -> i64 {
    let reads = history.ops.iter().flat_map(Op::reads);
    let read = reads.filter(|read| read.key == key).map(|read| read.offset);
    let sends = history.ops.iter().flat_map(Op::sends);
    let acked = sends
        .filter(|send| send.key == key)
        .filter_map(|send| send.offset);
    read.chain(acked).max().map_or(0, |offset| offset + 1)
}

/// Values that were acknowledged outside of transactions by producers with idempotence.
fn acked(history: &History, key: Key) -> HashSet<Value> {
    let plain = history.ops.iter().filter(|op| {
        let plain = matches!(
            op.action,
            Action::Send {
                idempotent: true,
                ..
            }
        );
        plain && op.outcome == Outcome::Ok
    });
    plain
        .flat_map(Op::sends)
        .filter(|send| send.key == key)
        .map(|send| send.value)
        .collect()
}

/// Nobody reads this value any more.
fn hide(history: &mut History, value: Value) {
    for op in &mut history.ops {
        for reads in lists(op) {
            reads.retain(|read| read.value != Some(value));
        }
    }
}

/// The very last of all reads.
fn add_read(history: &mut History, key: Key, offset: i64, value: Option<Value>) {
    let last = history
        .ops
        .iter_mut()
        .rfind(|op| op.process == LAST)
        .expect("the last process reads");
    let mut lists = lists(last);
    lists[0].push(Read { key, offset, value });
}

fn lost_write(history: &mut History) -> Option<()> {
    let acked = acked(history, MIXED[0]);
    let all = all_reads(history, MIXED[0]);
    let (_, below) = all.split_last()?;
    let lost = below
        .iter()
        .filter_map(|read| read.value)
        .find(|value| acked.contains(value))?;
    hide(history, lost);
    Some(())
}

fn unseen(history: &mut History) -> Option<()> {
    let last = [IN, MIXED].concat().into_iter().find_map(|key| {
        let last = all_reads(history, key).last()?.value?;
        acked(history, key).contains(&last).then_some(last)
    })?;
    hide(history, last);
    Some(())
}

fn duplicate(history: &mut History) -> Option<()> {
    let acked = acked(history, MIXED[0]);
    let all = all_reads(history, MIXED[0]);
    let value = all
        .iter()
        .find(|read| acked.contains(&read.value.unwrap_or(Value(0))))?;
    let next = end_of(history, MIXED[0]);
    add_read(history, MIXED[0], next, value.value);
    Some(())
}

fn aborted_read(history: &mut History) -> Option<()> {
    let aborted = history.ops.iter().find_map(|op| match &op.action {
        Action::Txn {
            end: End::Abort, ..
        } => op.sends().find(|send| send.offset.is_some()).copied(),
        _ => None,
    })?;
    let last = history.ops.iter_mut().rfind(|op| op.process == LAST)?;
    let mut lists = lists(last);
    let offset = aborted.offset?;
    let place = lists[0]
        .iter()
        .position(|read| read.key == aborted.key && read.offset > offset);
    let place = place.unwrap_or(lists[0].len());
    let read = Read {
        key: aborted.key,
        offset,
        value: Some(aborted.value),
    };
    lists[0].insert(place, read);
    Some(())
}

fn precommitted_read(history: &mut History) -> Option<()> {
    let read_by = |value: Value| {
        let mut readers = history.ops.iter().filter(|op| op.process != LAST);
        readers.find(|op| op.reads().any(|read| read.value == Some(value)))
    };
    let (place, later) = history.ops.iter().enumerate().find_map(|(place, op)| {
        let is_txn = matches!(op.action, Action::Txn { .. });
        let value = op.sends().next().filter(|_| is_txn)?.value;
        Some((place, read_by(value)?.read_by_us() + 1))
    })?;
    let op = &mut history.ops[place];
    op.completed_us = later + 1;
    if let Action::Txn { asked_us, .. } = &mut op.action {
        *asked_us = later;
    }
    Some(())
}

fn inconsistent_offsets(history: &mut History) -> Option<()> {
    let value = Value(1_000_000);
    let key = MIXED[1];
    let send = Send {
        key,
        value,
        offset: None,
    };
    history.ops.push(Op {
        process: STRANGER,
        invoked_us: 0,
        completed_us: 1,
        outcome: Outcome::Info,
        action: Action::Send {
            send,
            idempotent: true,
        },
        note: None,
    });
    let last = history
        .ops
        .iter_mut()
        .find(|op| op.process == LAST && op.reads().next().is_some())?;
    let mut lists = lists(last);
    let read = lists[0].iter_mut().find(|read| read.key == key)?;
    read.value = Some(value);
    Some(())
}

/// A reader by assignment misses one record, at the beginning of a poll or within.
fn poll_skip(history: &mut History, within: bool) -> Option<()> {
    let mut seen: HashSet<(u32, Key)> = HashSet::new();
    for op in history
        .ops
        .iter_mut()
        .filter(|op| (40..42).contains(&op.process))
    {
        let process = op.process;
        if matches!(op.action, Action::Assign(_)) {
            seen.clear();
        }
        for reads in lists(op) {
            for place in 1..reads.len().saturating_sub(1) {
                let key = reads[place].key;
                let first = reads[place - 1].key != key;
                let more = reads[place + 1].key == key;
                if more && first != within && (within || seen.contains(&(process, key))) {
                    reads.remove(place);
                    return Some(());
                }
            }
            seen.extend(reads.iter().map(|read| (process, read.key)));
        }
    }
    None
}

/// A reader by assignment gets a record again.
fn back(history: &mut History, within: bool) -> Option<()> {
    let mut before: BTreeMap<(u32, Key), Read> = BTreeMap::new();
    for op in history
        .ops
        .iter_mut()
        .filter(|op| (40..42).contains(&op.process))
    {
        let process = op.process;
        if matches!(op.action, Action::Assign(_)) {
            before.clear();
        }
        for reads in lists(op) {
            let Some(first) = reads.first().copied() else {
                continue;
            };
            if within {
                reads.insert(1, first);
                return Some(());
            }
            if let Some(old) = before.get(&(process, first.key)) {
                reads.insert(0, *old);
                return Some(());
            }
            before.extend(reads.iter().map(|read| ((process, read.key), *read)));
        }
    }
    None
}

/// Two records of one producer, or of one transaction, stand the other way round.
fn swapped(history: &mut History, within: bool) -> Option<()> {
    let mut before: BTreeMap<(u32, Key), Send> = BTreeMap::new();
    let (first, second) = history.ops.iter().find_map(|op| {
        match &op.action {
            Action::Send {
                idempotent: true, ..
            } if !within && op.outcome == Outcome::Ok => {}
            Action::Txn {
                end: End::Commit, ..
            } if within && op.outcome == Outcome::Ok => before.clear(),
            _ => return None,
        }
        op.sends()
            .filter(|send| send.offset.is_some())
            .find_map(|send| {
                let first = before.insert((op.process, send.key), *send)?;
                Some((first, *send))
            })
    })?;
    for op in &mut history.ops {
        for read in lists(op).into_iter().flatten() {
            if read.value == Some(first.value) {
                read.value = Some(second.value);
            } else if read.value == Some(second.value) {
                read.value = Some(first.value);
            }
        }
        for send in sends(op) {
            if send.value == first.value {
                send.offset = second.offset;
            } else if send.value == second.value {
                send.offset = first.offset;
            }
        }
    }
    Some(())
}

/// A member begins one record before what its group has committed.
fn lost_commit(history: &mut History) -> Option<()> {
    let committed_before = |key: Key, at: u64| {
        let mut committed = None;
        for op in &history.ops {
            let Action::Commit(offsets) = &op.action else {
                continue;
            };
            let of_key = offsets.iter().find(|(it, _)| *it == key);
            let Some((_, offset)) = of_key.filter(|_| op.invoked_us < at) else {
                continue;
            };
            match op.outcome {
                Outcome::Ok => committed = committed.max(Some(*offset)),
                Outcome::Info => return None,
                Outcome::Fail => {}
            }
        }
        committed
    };
    let mut given: BTreeMap<(u32, Key), u64> = BTreeMap::new();
    let mut place = None;
    'all: for (place_of_op, op) in history.ops.iter().enumerate() {
        match &op.action {
            Action::Rebalance { assigned, .. } => {
                given.extend(
                    assigned
                        .iter()
                        .map(|key| ((op.process, *key), op.invoked_us)),
                );
            }
            Action::Poll(reads) => {
                for (n, read) in reads.iter().enumerate() {
                    let Some(at) = given.remove(&(op.process, read.key)) else {
                        continue;
                    };
                    let all = all_reads(history, read.key);
                    let before = all.iter().rfind(|it| it.offset < read.offset);
                    let floor = committed_before(read.key, at).unwrap_or_default();
                    if let Some(before) = before.filter(|it| it.offset < floor) {
                        place = Some((place_of_op, n, *before));
                        break 'all;
                    }
                }
            }
            _ => {}
        }
    }
    let (op, n, read) = place?;
    lists(&mut history.ops[op])[0].insert(n, read);
    Some(())
}

/// A mover's transaction that was aborted counts, too.
fn double_processing(history: &mut History) -> Option<()> {
    let op = history.ops.iter_mut().find(|op| {
        let never = match &op.action {
            Action::Txn { end, .. } => *end == End::Abort || op.outcome == Outcome::Fail,
            _ => false,
        };
        never && op.reads().next().is_some()
    })?;
    op.outcome = Outcome::Ok;
    if let Action::Txn { steps, end, .. } = &mut op.action {
        *end = End::Commit;
        steps.retain(|step| matches!(step, Step::Poll(_)));
    }
    Some(())
}

fn unprocessed(history: &mut History) -> Option<()> {
    let (key, value) = (IN[1], Value(2_000_000));
    let offset = end_of(history, key);
    add_read(history, key, offset, Some(value));
    let after = history.ops.iter().map(|op| op.completed_us).max()? + 1;
    history.ops.push(Op {
        process: STRANGER,
        invoked_us: after,
        completed_us: after + 1,
        outcome: Outcome::Ok,
        action: Action::Send {
            send: Send {
                key,
                value,
                offset: Some(offset),
            },
            idempotent: true,
        },
        note: None,
    });
    Some(())
}
