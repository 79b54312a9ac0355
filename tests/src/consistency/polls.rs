//! Where each consumer stands in each partition: it passes over nothing that others read, and never goes back.
//!
//! An assignment or a seek says where it stands; a rebalance takes the place away, and the next read gives a new one.

use std::collections::HashMap;

use super::anomaly::Kind;
use super::checker::Found;
use super::facts::Facts;
use super::history::{Action, Key, Read, Step};

/// Values passed over that are told.
const SKIPPED_MAX: usize = 20;

/// The last offset that is behind a consumer, and the operation that says so.
#[derive(Debug, Clone, Copy)]
struct Position {
    last: i64,
    op: usize,
}

type Positions = HashMap<Key, Position>;

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    let mut processes: HashMap<u32, Positions> = HashMap::new();
    for (op, operation) in facts.history.ops.iter().enumerate() {
        let positions = processes.entry(operation.process).or_default();
        match &operation.action {
            Action::Send { .. } | Action::Commit(_) => {}
            Action::Poll(reads) => follow(facts, positions, op, reads, found),
            Action::Txn { steps, .. } => {
                for step in steps {
                    match step {
                        Step::Send(_) | Step::Offsets { .. } => {}
                        Step::Poll(reads) => follow(facts, positions, op, reads, found),
                        Step::Rebalance { assigned, revoked } => {
                            forget(positions, assigned, revoked);
                        }
                    }
                }
            }
            Action::Assign(to) => {
                positions.clear();
                place(positions, op, to);
            }
            Action::Seek(to) => place(positions, op, to),
            Action::Rebalance { assigned, revoked } => forget(positions, assigned, revoked),
            Action::Subscribe { .. } | Action::Crash => positions.clear(),
        }
    }
}

fn place(positions: &mut Positions, op: usize, to: &[(Key, i64)]) {
    for (key, offset) in to {
        let last = offset - 1;
        positions.insert(*key, Position { last, op });
    }
}

fn forget(positions: &mut Positions, assigned: &[Key], revoked: &[Key]) {
    for key in assigned.iter().chain(revoked) {
        positions.remove(key);
    }
}

fn follow(
    facts: &Facts<'_>,
    positions: &mut Positions,
    op: usize,
    reads: &[Read],
    found: &mut Found,
) {
    for read in reads {
        let (key, next) = (read.key, read.offset);
        let position = positions
            .entry(key)
            .or_insert(Position { last: next - 1, op });
        let internal = position.op == op;
        if next <= position.last {
            let kind = match internal {
                true => Kind::IntNonmonotonicPoll,
                false => Kind::NonmonotonicPoll,
            };
            let places = [facts.place(key, position.last), (next, read.value)];
            found.at(kind, key, &places, &[position.op, op]);
        } else if next > position.last + 1 {
            let visible = facts.visible(key);
            let from = visible.partition_point(|offset| *offset <= position.last);
            let to = visible.partition_point(|offset| *offset < next);
            let skipped = &visible[from..to];
            if !skipped.is_empty() {
                let kind = match internal {
                    true => Kind::IntPollSkip,
                    false => Kind::PollSkip,
                };
                let places: Vec<_> = skipped
                    .iter()
                    .take(SKIPPED_MAX)
                    .map(|offset| facts.place(key, *offset))
                    .collect();
                found.at(kind, key, &places, &[position.op, op]);
            }
        }
        // Who was sent back once is not told of each step of the way up again.
        position.last = position.last.max(next);
        position.op = op;
    }
}
