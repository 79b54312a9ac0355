//! Lawful histories at random: a broker of a few lines, and clients that send, poll, commit, abort, give up and are rebalanced.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::history::{Action, End, Header, History, Key, Op, Outcome, Read, Send, Step, Value};

/// Partitions that the movers read.
pub(super) const IN: [Key; 2] = [Key(0), Key(1)];
/// Partitions that only the movers write.
pub(super) const OUT: [Key; 2] = [Key(2), Key(3)];
/// Partitions with transactions and without.
pub(super) const MIXED: [Key; 2] = [Key(4), Key(5)];
pub(super) const MOVERS: &str = "movers";
pub(super) const WATCHERS: &str = "watchers";
/// The process that reads everything at the end.
pub(super) const LAST: u32 = 99;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Visible,
    Open(u64),
    Hidden,
}

struct Entry {
    value: Value,
    state: State,
}

#[derive(Default)]
struct Group {
    name: &'static str,
    keys: Vec<Key>,
    members: Vec<u32>,
    committed: BTreeMap<Key, i64>,
    /// Of each member.
    positions: BTreeMap<u32, BTreeMap<Key, i64>>,
}

/// A transaction that is open.
struct Open {
    id: u64,
    op: Op,
    steps: Vec<Step>,
    starts: BTreeMap<Key, i64>,
}

/// A send of which nobody knows yet what becomes.
struct Late {
    key: Key,
    value: Value,
}

pub(super) struct Model {
    random: StdRng,
    now_us: u64,
    values: u64,
    transactions: u64,
    logs: BTreeMap<Key, Vec<Entry>>,
    groups: Vec<Group>,
    readers: BTreeMap<u32, BTreeMap<Key, i64>>,
    open: BTreeMap<u32, Open>,
    late: Vec<Late>,
    ops: Vec<Op>,
}

/// A lawful history of about so many operations.
pub(super) fn history(seed: u64, ops: usize) -> History {
    let mut model = Model::new(seed);
    while model.ops.len() < ops {
        model.step();
    }
    model.finish();
    let keys = ["in/0", "in/1", "out/0", "out/1", "mixed/0", "mixed/1"].map(str::to_owned);
    model.ops.sort_by_key(|op| op.invoked_us);
    History {
        header: Header {
            seed,
            keys: keys.to_vec(),
        },
        ops: model.ops,
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let group = |name, keys: &[Key], members: &[u32]| Group {
            name,
            keys: keys.to_vec(),
            members: members.to_vec(),
            ..Group::default()
        };
        let mut model = Self {
            random: StdRng::seed_from_u64(seed),
            now_us: 0,
            values: 0,
            transactions: 0,
            logs: BTreeMap::new(),
            groups: vec![
                group(MOVERS, &IN, &[20, 21]),
                group(WATCHERS, &[OUT, MIXED].concat(), &[30, 31]),
            ],
            readers: BTreeMap::new(),
            open: BTreeMap::new(),
            late: Vec::new(),
            ops: Vec::new(),
        };
        for group in 0..model.groups.len() {
            for member in model.groups[group].members.clone() {
                model.subscribe(group, member);
            }
            model.rebalance(group);
        }
        for reader in [40, 41] {
            model.assign(reader, 0);
        }
        model
    }

    fn time(&mut self) -> u64 {
        self.now_us += self.random.random_range(1..5);
        self.now_us
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }

    fn value(&mut self) -> Value {
        self.values += 1;
        Value(self.values)
    }

    fn any_key(&mut self) -> Key {
        [IN, MIXED].concat()[self.random.random_range(0..4)]
    }

    fn log(&mut self, key: Key) -> &mut Vec<Entry> {
        self.logs.entry(key).or_default()
    }

    fn append(&mut self, key: Key, value: Value, state: State) -> i64 {
        let log = self.log(key);
        log.push(Entry { value, state });
        log.len() as i64 - 1
    }

    fn push(&mut self, process: u32, invoked_us: u64, outcome: Outcome, action: Action) {
        let op = Op {
            process,
            invoked_us,
            completed_us: self.time(),
            outcome,
            action,
            note: None,
        };
        self.ops.push(op);
    }

    fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..5 => self.send(),
            5..8 => self.transact(),
            8..12 => self.work(0),
            12..15 => self.watch(),
            15..18 => self.read(),
            18 => {
                let group = self.random.random_range(0..2);
                if !self.groups[group]
                    .members
                    .iter()
                    .any(|member| self.open.contains_key(member))
                {
                    self.rebalance(group);
                }
            }
            _ => self.settle_late(),
        }
    }

    /// A few records of one process, on their way at the same time.
    fn send(&mut self) {
        let process = self.random.random_range(0..3);
        let idempotent = process != 2;
        let count = self.random.random_range(1..4);
        let mut sent = Vec::new();
        for _ in 0..count {
            let (key, value, invoked_us) = (self.any_key(), self.value(), self.time());
            if self.one_in(12) {
                self.late.push(Late { key, value });
                sent.push((key, value, invoked_us, Outcome::Info, None));
                continue;
            }
            if !idempotent && self.one_in(6) {
                self.append(key, value, State::Visible);
            }
            let offset = self.append(key, value, State::Visible);
            sent.push((key, value, invoked_us, Outcome::Ok, Some(offset)));
        }
        for (key, value, invoked_us, outcome, offset) in sent {
            let send = Send { key, value, offset };
            let action = Action::Send { send, idempotent };
            self.push(process, invoked_us, outcome, action);
        }
    }

    /// What was given up is stored now, or never.
    fn settle_late(&mut self) {
        if let Some(late) = self.late.pop()
            && self.one_in(2)
        {
            self.append(late.key, late.value, State::Visible);
        }
    }

    fn begin(&mut self, process: u32) {
        self.transactions += 1;
        let invoked_us = self.time();
        let open = Open {
            id: self.transactions,
            op: Op {
                process,
                invoked_us,
                completed_us: invoked_us,
                outcome: Outcome::Ok,
                action: Action::Crash,
                note: None,
            },
            steps: Vec::new(),
            starts: BTreeMap::new(),
        };
        self.open.insert(process, open);
    }

    fn send_in(&mut self, process: u32, key: Key) {
        let value = self.value();
        let id = self.open[&process].id;
        let offset = self.append(key, value, State::Open(id));
        let known = !self.one_in(8);
        let offset = known.then_some(offset);
        let open = self.open.get_mut(&process).expect("it is open");
        open.steps.push(Step::Send(Send { key, value, offset }));
    }

    /// Ends a transaction; whether it is committed.
    fn end(&mut self, process: u32) -> (bool, Outcome) {
        let mut open = self.open.remove(&process).expect("it is open");
        let end = match self.one_in(3) {
            true => End::Abort,
            false => End::Commit,
        };
        let outcome = match self.random.random_range(0..8) {
            0 => Outcome::Info,
            1 => Outcome::Fail,
            _ => Outcome::Ok,
        };
        let commit = match (end, outcome) {
            (End::Abort, _) | (_, Outcome::Fail) => false,
            (End::Commit, Outcome::Ok) => true,
            (End::Commit, Outcome::Info) => self.one_in(2),
        };
        let asked_us = self.time();
        let touched: Vec<Key> = self.logs.keys().copied().collect();
        for key in touched {
            let log = self.log(key);
            let mut any = false;
            for entry in log.iter_mut().filter(|it| it.state == State::Open(open.id)) {
                any = true;
                entry.state = match commit {
                    true => State::Visible,
                    false => State::Hidden,
                };
            }
            if any {
                self.append(key, Value(0), State::Hidden);
            }
        }
        open.op.outcome = outcome;
        open.op.action = Action::Txn {
            steps: open.steps,
            end,
            asked_us,
        };
        open.op.completed_us = self.time();
        self.ops.push(open.op);
        (commit, outcome)
    }

    fn transact(&mut self) {
        let process = self.random.random_range(10..12);
        if !self.open.contains_key(&process) {
            self.begin(process);
        }
        for _ in 0..self.random.random_range(0..3) {
            let key = self.any_key();
            self.send_in(process, key);
        }
        if self.one_in(2) {
            self.end(process);
        }
    }

    /// Committed records from a position on, at most so many.
    fn fetch(&mut self, key: Key, position: &mut i64, max: usize) -> Vec<Read> {
        let log = self.log(key);
        let stable = log
            .iter()
            .position(|entry| matches!(entry.state, State::Open(_)))
            .unwrap_or(log.len());
        let mut reads = Vec::new();
        while (*position as usize) < stable && reads.len() < max {
            let entry = &log[*position as usize];
            if entry.state == State::Visible {
                reads.push(Read {
                    key,
                    offset: *position,
                    value: Some(entry.value),
                });
            }
            *position += 1;
        }
        reads
    }

    fn poll(&mut self, positions: &mut BTreeMap<Key, i64>, max: usize) -> Vec<Read> {
        let mut reads = Vec::new();
        for (key, position) in positions {
            reads.extend(self.fetch(*key, position, max));
        }
        reads
    }

    fn read(&mut self) {
        let reader = self.random.random_range(40..42);
        if self.one_in(15) {
            let from = self.random.random_range(0..30);
            self.assign(reader, from);
        }
        let mut positions = self.readers[&reader].clone();
        let (invoked_us, max) = (self.time(), self.random.random_range(1..8));
        let reads = self.poll(&mut positions, max);
        self.readers.insert(reader, positions);
        self.push(reader, invoked_us, Outcome::Ok, Action::Poll(reads));
    }

    fn assign(&mut self, reader: u32, from: i64) {
        let all = [IN, OUT, MIXED].concat();
        let positions: BTreeMap<Key, i64> = all.into_iter().map(|key| (key, from)).collect();
        let listed = positions.iter().map(|(key, from)| (*key, *from)).collect();
        self.readers.insert(reader, positions);
        let now_us = self.time();
        self.push(reader, now_us, Outcome::Ok, Action::Assign(listed));
    }

    fn subscribe(&mut self, group: usize, member: u32) {
        let now_us = self.time();
        let action = Action::Subscribe {
            group: self.groups[group].name.to_owned(),
            keys: self.groups[group].keys.clone(),
        };
        self.push(member, now_us, Outcome::Ok, action);
    }

    /// Everything is taken and given anew; reading goes on where the group has committed.
    fn rebalance(&mut self, group: usize) {
        let mut given: BTreeMap<u32, BTreeMap<Key, i64>> = BTreeMap::new();
        let it = &self.groups[group];
        let shift = self.random.random_range(0..it.members.len());
        for (n, key) in it.keys.iter().enumerate() {
            let member = it.members[(n + shift) % it.members.len()];
            let from = it.committed.get(key).copied().unwrap_or_default();
            given.entry(member).or_default().insert(*key, from);
        }
        let before = std::mem::replace(&mut self.groups[group].positions, given.clone());
        for (taken, of) in [(true, before), (false, given)] {
            for (member, positions) in of {
                let keys: Vec<Key> = positions.into_keys().collect();
                let (assigned, revoked) = match taken {
                    true => (Vec::new(), keys),
                    false => (keys, Vec::new()),
                };
                let now_us = self.time();
                let action = Action::Rebalance { assigned, revoked };
                self.push(member, now_us, Outcome::Ok, action);
            }
        }
    }

    fn watch(&mut self) {
        let members = &self.groups[1].members;
        let member = members[self.random.random_range(0..members.len())];
        let Some(mut positions) = self.groups[1].positions.get(&member).cloned() else {
            return;
        };
        let (invoked_us, max) = (self.time(), self.random.random_range(1..8));
        let reads = self.poll(&mut positions, max);
        self.push(member, invoked_us, Outcome::Ok, Action::Poll(reads));
        self.groups[1].positions.insert(member, positions.clone());
        if self.one_in(2) {
            let outcome = match self.random.random_range(0..10) {
                0 => Outcome::Info,
                1 => Outcome::Fail,
                _ => Outcome::Ok,
            };
            let done = outcome == Outcome::Ok || (outcome == Outcome::Info && self.one_in(2));
            let offsets: Vec<(Key, i64)> = positions.into_iter().collect();
            let invoked_us = self.time();
            if done {
                self.groups[1].committed.extend(offsets.clone());
            }
            self.push(member, invoked_us, outcome, Action::Commit(offsets));
        }
    }

    /// A mover polls, sends what follows from it, and commits both or neither.
    fn work(&mut self, group: usize) {
        let members = &self.groups[group].members;
        let member = members[self.random.random_range(0..members.len())];
        let Some(mut positions) = self.groups[group].positions.get(&member).cloned() else {
            return;
        };
        if !self.open.contains_key(&member) {
            self.begin(member);
            self.open.get_mut(&member).expect("open").starts = positions.clone();
        }
        let max = self.random.random_range(1..5);
        let reads = self.poll(&mut positions, max);
        self.groups[group]
            .positions
            .insert(member, positions.clone());
        let count = reads.len();
        let open = self.open.get_mut(&member).expect("open");
        open.steps.push(Step::Poll(reads));
        for _ in 0..count {
            let key = OUT[self.random.random_range(0..2)];
            self.send_in(member, key);
        }
        if self.one_in(2) {
            self.end_work(group, member);
        }
    }

    fn end_work(&mut self, group: usize, member: u32) {
        let positions = self.groups[group].positions[&member].clone();
        let open = self.open.get_mut(&member).expect("open");
        open.steps.push(Step::Offsets {
            group: self.groups[group].name.to_owned(),
            offsets: positions.clone().into_iter().collect(),
        });
        let starts = open.starts.clone();
        let (committed, outcome) = self.end(member);
        if committed {
            self.groups[group].committed.extend(positions);
        }
        if outcome == Outcome::Info {
            // It cannot know where to go on, so it begins anew, and its group is rebalanced.
            let now_us = self.time();
            self.push(member, now_us, Outcome::Ok, Action::Crash);
            for other in self.groups[group].members.clone() {
                if other != member && self.open.contains_key(&other) {
                    self.end_work(group, other);
                }
            }
            self.subscribe(group, member);
            self.rebalance(group);
        } else if !committed {
            self.seek(group, member, starts);
        }
    }

    fn seek(&mut self, group: usize, member: u32, to: BTreeMap<Key, i64>) {
        let now_us = self.time();
        let listed = to.iter().map(|(key, from)| (*key, *from)).collect();
        self.groups[group].positions.insert(member, to);
        self.push(member, now_us, Outcome::Ok, Action::Seek(listed));
    }

    /// The storm is over: all transactions end, the groups read to the end, and so does one more.
    fn finish(&mut self) {
        for process in [10, 11] {
            if self.open.contains_key(&process) {
                self.end(process);
            }
        }
        for member in [20, 21] {
            if self.open.contains_key(&member) {
                self.end_work(0, member);
            }
        }
        while IN.iter().any(|key| self.behind(0, *key)) {
            self.work(0);
        }
        for member in [20, 21] {
            if self.open.contains_key(&member) {
                self.end_work(0, member);
            }
        }
        while [OUT, MIXED].concat().iter().any(|key| self.behind(1, *key)) {
            self.watch();
        }
        // What a mover aborted last is still to be done.
        if IN.iter().any(|key| self.behind(0, *key)) {
            return self.finish();
        }
        for round in 0..2 {
            self.assign(LAST + round, 0);
            let mut positions = self.readers[&(LAST + round)].clone();
            let invoked_us = self.time();
            let reads = self.poll(&mut positions, usize::MAX);
            self.push(LAST + round, invoked_us, Outcome::Ok, Action::Poll(reads));
        }
    }

    /// Whether the group has not committed all there is.
    fn behind(&self, group: usize, key: Key) -> bool {
        let committed = self.groups[group].committed.get(&key).copied();
        let end = self.logs.get(&key).map_or(0, Vec::len) as i64;
        committed.unwrap_or_default() < end
    }
}
