//! What a history says of each value and of each place: who sent it, whether that counts, where it stands, who read it.
//!
//! Tells of what needs no order of operations: writes that are lost, unseen, doubled or never made, offsets with two values,
//! reads of what was aborted or not yet committed.

use std::collections::{HashMap, HashSet};

use super::anomaly::Kind;
use super::checker::Found;
use super::history::{Action, End, History, Key, Outcome, Read, Value};

/// What became of an operation that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was told to be done, or what it sent was read and could not be without the rest.
    Done,
    /// Nobody knows, and nobody read it.
    Unknown,
    /// It was never done.
    Never,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
struct Sent {
    key: Key,
    op: usize,
    offset: Option<i64>,
    may_be_twice: bool,
}

/// A history, looked through once.
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    /// By operation.
    pub(super) fates: Vec<Fate>,
    /// Offsets of values that were read by anybody and that may be, in order.
    visible: HashMap<Key, Vec<i64>>,
    /// The value at each place and the operation that says so.
    places: HashMap<(Key, i64), (Value, usize)>,
    sent: HashMap<Value, Sent>,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(history: &'a History, found: &mut Found) -> Self {
        let mut facts = Self {
            history,
            fates: Vec::new(),
            visible: HashMap::new(),
            places: HashMap::new(),
            sent: HashMap::new(),
        };
        facts.note_sends();
        let read: HashSet<Value> = history
            .ops
            .iter()
            .flat_map(|op| op.reads().filter_map(|read| read.value))
            .collect();
        facts.note_fates(&read);
        facts.place_values(found);
        facts.judge_reads(found);
        facts.judge_sends(&read, found);
        facts
    }

    /// Offsets of a partition at which somebody read what may be read, in order.
    pub(super) fn visible(&self, key: Key) -> &[i64] {
        self.visible.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The value at a place.
    pub(super) fn value(&self, key: Key, offset: i64) -> Option<Value> {
        self.places.get(&(key, offset)).map(|(value, _)| *value)
    }

    /// A place with its value, as evidence.
    pub(super) fn place(&self, key: Key, offset: i64) -> (i64, Option<Value>) {
        (offset, self.value(key, offset))
    }

    fn note_sends(&mut self) {
        for (op, operation) in self.history.ops.iter().enumerate() {
            let may_be_twice = matches!(
                operation.action,
                Action::Send {
                    idempotent: false,
                    ..
                }
            );
            for send in operation.sends() {
                let sent = Sent {
                    key: send.key,
                    op,
                    offset: send.offset,
                    may_be_twice,
                };
                let before = self.sent.insert(send.value, sent);
                assert!(before.is_none(), "sent twice by the run: {:?}", send.value);
            }
        }
    }

    /// Of a transaction everything is committed or nothing, so one value that was read speaks for all.
    fn note_fates(&mut self, read: &HashSet<Value>) {
        let fates = self.history.ops.iter().map(|op| {
            let aborted = matches!(
                op.action,
                Action::Txn {
                    end: End::Abort,
                    ..
                }
            );
            match op.outcome {
                _ if aborted => Fate::Never,
                Outcome::Fail => Fate::Never,
                Outcome::Ok => Fate::Done,
                Outcome::Info if op.sends().any(|send| read.contains(&send.value)) => Fate::Done,
                Outcome::Info => Fate::Unknown,
            }
        });
        self.fates = fates.collect();
    }

    /// Every acknowledgement and every read says which value stands where.
    fn place_values(&mut self, found: &mut Found) {
        let mut stands: HashMap<Value, (Key, i64, usize)> = HashMap::new();
        let (mut contested, mut doubled) = (HashSet::new(), HashSet::new());
        for (op, operation) in self.history.ops.iter().enumerate() {
            let acked = operation
                .sends()
                .filter_map(|send| Some((send.key, send.offset?, send.value)));
            let read = operation
                .reads()
                .filter_map(|read| Some((read.key, read.offset, read.value?)));
            for (key, offset, value) in acked.chain(read) {
                let Some(sent) = self.sent.get(&value).filter(|sent| sent.key == key) else {
                    continue;
                };
                let (known, by) = *self.places.entry((key, offset)).or_insert((value, op));
                if known != value && contested.insert((key, offset)) {
                    let places = [(offset, Some(known)), (offset, Some(value))];
                    found.at(Kind::InconsistentOffsets, key, &places, &[by, op]);
                }
                let (_, first, by) = *stands.entry(value).or_insert((key, offset, op));
                if first != offset && !sent.may_be_twice && doubled.insert((value, offset)) {
                    let places = [(first, Some(value)), (offset, Some(value))];
                    found.at(Kind::Duplicate, key, &places, &[by, op]);
                }
            }
        }
    }

    fn judge_reads(&mut self, found: &mut Found) {
        let mut visible: HashMap<Key, HashSet<i64>> = HashMap::new();
        let mut told = HashSet::new();
        for (op, operation) in self.history.ops.iter().enumerate() {
            for read in operation.reads() {
                match self.judge_read(op, read) {
                    None => {
                        visible.entry(read.key).or_default().insert(read.offset);
                    }
                    Some((kind, by)) => {
                        if kind == Kind::PrecommittedRead {
                            visible.entry(read.key).or_default().insert(read.offset);
                        }
                        if told.insert((kind, read.key, read.offset)) {
                            let ops = by.map_or(vec![op], |by| vec![by, op]);
                            found.at(kind, read.key, &[(read.offset, read.value)], &ops);
                        }
                    }
                }
            }
        }
        for (key, offsets) in visible {
            let mut offsets: Vec<i64> = offsets.into_iter().collect();
            offsets.sort_unstable();
            self.visible.insert(key, offsets);
        }
    }

    /// What is wrong with a read by itself, and which operation shows it.
    fn judge_read(&self, op: usize, read: &Read) -> Option<(Kind, Option<usize>)> {
        let sent = read.value.and_then(|value| self.sent.get(&value));
        let Some(sent) = sent.filter(|sent| sent.key == read.key) else {
            return Some((Kind::NeverSent, None));
        };
        if self.fates[sent.op] == Fate::Never {
            return Some((Kind::AbortedRead, Some(sent.op)));
        }
        let Action::Txn { asked_us, .. } = self.history.ops[sent.op].action else {
            return None;
        };
        let too_early = sent.op == op || self.history.ops[op].read_by_us() < asked_us;
        too_early.then_some((Kind::PrecommittedRead, Some(sent.op)))
    }

    fn judge_sends(&self, read: &HashSet<Value>, found: &mut Found) {
        for (op, operation) in self.history.ops.iter().enumerate() {
            if self.fates[op] != Fate::Done {
                continue;
            }
            for send in operation.sends().filter(|send| !read.contains(&send.value)) {
                let sent = self.sent[&send.value];
                let highest = self.visible(sent.key).last().copied().unwrap_or(-1);
                let kind = match sent.offset {
                    Some(offset) if offset <= highest => Kind::LostWrite,
                    Some(_) | None => Kind::Unseen,
                };
                let place = (sent.offset.unwrap_or(-1), Some(send.value));
                found.at(kind, sent.key, &[place], &[op]);
            }
        }
    }
}
