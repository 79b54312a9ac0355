//! The order of what was acknowledged: a producer's records stand in the order in which it sent them, and what was
//! acknowledged before another record was sent stands before it.
//!
//! Only acknowledged records have an order: a request that was given up may be carried out after those that followed it.

use std::collections::{HashMap, HashSet};

use super::anomaly::Kind;
use super::checker::Found;
use super::facts::{Facts, Fate};
use super::history::{Action, Key, Outcome, Send};

/// A record that was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Acked {
    offset: i64,
    op: usize,
}

pub(super) fn check(facts: &Facts<'_>, found: &mut Found) {
    let mut told = HashSet::new();
    in_order_of_each_process(facts, &mut told, found);
    in_order_of_time(facts, &mut told, found);
}

/// The records of an operation whose acknowledgements count.
fn acked<'a>(facts: &Facts<'a>, op: usize) -> impl Iterator<Item = (Key, i64)> + use<'a> {
    let operation = &facts.history.ops[op];
    let counts = facts.fates[op] == Fate::Done && operation.outcome == Outcome::Ok;
    let place = |send: &Send| Some((send.key, send.offset?));
    operation.sends().filter_map(place).filter(move |_| counts)
}

fn in_order_of_each_process(facts: &Facts<'_>, told: &mut HashSet<(Key, i64)>, found: &mut Found) {
    let mut last: HashMap<(u32, Key), Acked> = HashMap::new();
    for (op, operation) in facts.history.ops.iter().enumerate() {
        let in_order = match &operation.action {
            Action::Send { idempotent, .. } => *idempotent,
            Action::Txn { .. } => true,
            _ => false,
        };
        if !in_order {
            continue;
        }
        for (key, offset) in acked(facts, op) {
            let before = last
                .entry((operation.process, key))
                .or_insert(Acked { offset: -1, op });
            if offset <= before.offset {
                let kind = match before.op == op {
                    true => Kind::IntNonmonotonicSend,
                    false => Kind::NonmonotonicSend,
                };
                tell(facts, kind, key, (*before, Acked { offset, op }), found);
                told.insert((key, offset));
            } else {
                *before = Acked { offset, op };
            }
        }
    }
}

fn in_order_of_time(facts: &Facts<'_>, told: &mut HashSet<(Key, i64)>, found: &mut Found) {
    let ops = &facts.history.ops;
    let sending: Vec<usize> = (0..ops.len())
        .filter(|op| acked(facts, *op).next().is_some())
        .collect();
    let mut by_start = sending.clone();
    by_start.sort_by_key(|op| ops[*op].invoked_us);
    let mut by_end = sending;
    by_end.sort_by_key(|op| ops[*op].completed_us);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: HashMap<Key, Acked> = HashMap::new();
    for op in by_start {
        while let Some(before) =
            ended.next_if(|before| ops[*before].completed_us < ops[op].invoked_us)
        {
            for (key, offset) in acked(facts, before) {
                let known = highest.entry(key).or_insert(Acked { offset, op: before });
                if offset > known.offset {
                    *known = Acked { offset, op: before };
                }
            }
        }
        for (key, offset) in acked(facts, op) {
            let Some(before) = highest.get(&key).filter(|before| before.offset >= offset) else {
                continue;
            };
            if told.insert((key, offset)) {
                let pair = (*before, Acked { offset, op });
                tell(facts, Kind::NonmonotonicSend, key, pair, found);
            }
        }
    }
}

fn tell(
    facts: &Facts<'_>,
    kind: Kind,
    key: Key,
    (before, after): (Acked, Acked),
    found: &mut Found,
) {
    let places = [
        facts.place(key, before.offset),
        facts.place(key, after.offset),
    ];
    found.at(kind, key, &places, &[before.op, after.op]);
}
