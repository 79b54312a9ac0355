//! Random worlds: a client with a session keeps the picture that full fetches would give it, and no partition starves.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::topic;

const TOPICS: usize = 3;
const PARTITIONS: i32 = 4;
/// What an answer gives: so few records that partitions compete for them.
const RECORDS_PER_ANSWER: i64 = 2;

type Key = (usize, i32);

/// A small generator of its own: the crate draws no random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn key(&mut self) -> Key {
        let topic = self.below(TOPICS as u64) as usize;
        (topic, self.below(PARTITIONS as u64) as i32)
    }
}

/// A partition of the broker.
#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    log_start: i64,
    stable: i64,
    high_watermark: i64,
}

/// What a client knows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Failed,
    Ends { high_watermark: i64, log_start: i64 },
}

struct World {
    random: Random,
    /// The partitions that exist.
    partitions: BTreeMap<Key, Partition>,
    session: Option<Session<Key>>,
    /// Slots of settled partitions: who changes one marks it.
    watched: BTreeMap<u32, Key>,
    /// What the client reads, from where on.
    positions: BTreeMap<Key, i64>,
    /// What the client has sent of that.
    sent: BTreeMap<Key, i64>,
    picture: BTreeMap<Key, Known>,
    /// Answers in which a partition could have given records and did not.
    passed_over: BTreeMap<Key, usize>,
    committed_only: bool,
}

fn names() -> Vec<TopicKey> {
    (0..TOPICS).map(|n| topic(&format!("t{n}"))).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            random: Random(seed),
            partitions: BTreeMap::new(),
            session: None,
            watched: BTreeMap::new(),
            positions: BTreeMap::new(),
            sent: BTreeMap::new(),
            picture: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            committed_only: false,
        }
    }

    fn moved(&mut self, key: Key) {
        let slots: Vec<u32> = self
            .watched
            .iter()
            .filter(|(_, watched)| **watched == key)
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            self.watched.remove(&slot);
            if let Some(session) = &mut self.session {
                session.mark(slot);
            }
        }
    }

    /// Something happens in the broker.
    fn change(&mut self) {
        let key = self.random.key();
        let dice = self.random.below(10);
        match self.partitions.get_mut(&key) {
            None => {
                self.partitions.insert(key, Partition::default());
            }
            Some(_) if dice == 0 => {
                self.partitions.remove(&key);
            }
            Some(partition) => match dice {
                1 => partition.log_start = partition.stable,
                2..=4 => partition.high_watermark += 1,
                _ => {
                    partition.high_watermark += 1;
                    partition.stable = partition.high_watermark;
                }
            },
        }
        self.moved(key);
    }

    fn read(&self, key: Key, offset: i64, left: i64) -> (Seen, i64) {
        let Some(partition) = self.partitions.get(&key) else {
            return (super::failed(), 0);
        };
        let Partition {
            log_start,
            stable,
            high_watermark,
        } = *partition;
        if offset < log_start || offset > high_watermark {
            return (super::failed(), 0);
        }
        let readable = if self.committed_only {
            stable
        } else {
            high_watermark
        };
        let count = (readable - offset).max(0).min(left);
        let seen = Seen {
            has_records: count > 0,
            failed: false,
            at_end: offset >= readable,
            high_watermark,
            log_start,
        };
        (seen, count)
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted {
            offset,
            ..super::from(0)
        }
    }

    /// The client takes partitions up and leaves others, and changes its mind about isolation.
    fn change_mind(&mut self) {
        let key = self.random.key();
        match self.random.below(4) {
            0 => {
                self.positions.remove(&key);
            }
            1 => {
                self.committed_only = !self.committed_only;
                if let Some(session) = &mut self.session {
                    session.mark_all();
                }
            }
            _ => {
                self.positions.entry(key).or_insert(0);
            }
        }
    }

    /// A fetch, from the request to the answer; without an answer if the client goes away meanwhile.
    fn fetch(&mut self, answered: bool) {
        if self.session.as_ref().is_none_or(Session::is_empty) {
            return self.fetch_all();
        }
        self.take_request();
        for _ in 0..self.random.below(3) {
            // Waits, and things happen meanwhile.
            self.pass();
            for _ in 0..self.random.below(4) {
                self.change();
            }
        }
        let seen = self.pass();
        if answered {
            self.answer(&seen);
        } else {
            self.session = None;
            self.watched.clear();
        }
    }

    fn take_request(&mut self) {
        let topics = names();
        let session = self.session.as_mut().expect("there is one");
        for (key, offset) in &self.positions {
            if self.sent.get(key) != Some(offset) {
                session.want(&topics[key.0], [(key.1, Self::wanted(*offset))]);
            }
        }
        for key in self.sent.keys().filter(|k| !self.positions.contains_key(k)) {
            session.forget(&topics[key.0], key.1).expect("it was there");
            self.watched.retain(|_, watched| watched != key);
            self.picture.remove(key);
            self.passed_over.remove(key);
        }
        self.sent = self.positions.clone();
        session.advance();
    }

    /// One pass over what is due; the settled partitions are watched.
    fn pass(&mut self) -> Vec<(u32, Key, Seen, i64)> {
        let topics = names();
        let Some(mut session) = self.session.take() else {
            return Vec::new();
        };
        let mut left = RECORDS_PER_ANSWER;
        let mut pass = Vec::new();
        for slot in session.due() {
            let cached = session.get_mut(slot).expect("due slots are in use");
            let at = topics.iter().position(|t| *t == cached.topic);
            let key = (at.expect("a topic of ours"), cached.index);
            let (seen, count) = self.read(key, cached.wanted.offset, left);
            left -= count;
            pass.push((slot, key, seen, count));
        }
        for (slot, key, seen, _) in &pass {
            if session.settle(*slot, seen) {
                self.watched.insert(*slot, *key);
            }
        }
        self.session = Some(session);
        pass
    }

    fn answer(&mut self, pass: &[(u32, Key, Seen, i64)]) {
        let mut served = BTreeSet::new();
        for (slot, key, seen, count) in pass {
            let session = self.session.as_mut().expect("there is one");
            let named = session.answer(*slot, seen);
            if session.settle(*slot, seen) {
                self.watched.insert(*slot, *key);
            }
            assert!(named || *count == 0, "records are never left out");
            if named {
                self.told(*key, seen, *count);
            }
            if *count > 0 {
                served.insert(*key);
            }
        }
        self.judge(&served);
    }

    fn told(&mut self, key: Key, seen: &Seen, count: i64) {
        let known = if seen.failed {
            Known::Failed
        } else {
            Known::Ends {
                high_watermark: seen.high_watermark,
                log_start: seen.log_start,
            }
        };
        self.picture.insert(key, known);
        *self.positions.get_mut(&key).expect("it was asked for") += count;
        if seen.failed && self.random.below(2) == 0 {
            let start = self.partitions.get(&key).map_or(0, |p| p.log_start);
            self.positions.insert(key, start);
        }
    }

    fn fetch_all(&mut self) {
        let topics = names();
        let mut session = Session::new(false);
        let mut left = RECORDS_PER_ANSWER;
        self.sent = self.positions.clone();
        self.picture.clear();
        self.watched.clear();
        let mut served = BTreeSet::new();
        for (key, offset) in self.sent.clone() {
            let (seen, count) = self.read(key, offset, left);
            left -= count;
            session.want(&topics[key.0], [(key.1, Self::wanted(offset))]);
            session.told(&topics[key.0], key.1, &seen);
            self.told(key, &seen, count);
            if count > 0 {
                served.insert(key);
            }
        }
        self.session = Some(session);
        self.passed_over.clear();
        self.judge(&served);
    }

    /// What the client knows now is what a full fetch would tell it, and everybody has a turn.
    fn judge(&mut self, served: &BTreeSet<Key>) {
        for (key, offset) in &self.sent {
            let (seen, count) = self.read(*key, *offset, i64::MAX);
            let known = if seen.failed {
                Known::Failed
            } else {
                Known::Ends {
                    high_watermark: seen.high_watermark,
                    log_start: seen.log_start,
                }
            };
            assert_eq!(self.picture.get(key), Some(&known), "{key:?}");
            if served.contains(key) || count == 0 {
                self.passed_over.remove(key);
            } else {
                let times = self.passed_over.entry(*key).or_default();
                *times += 1;
                assert!(*times <= self.sent.len(), "{key:?} starves");
            }
        }
    }
}

#[test]
fn a_client_with_a_session_sees_what_full_fetches_show() {
    const SEEDS: u64 = 400;
    const STEPS: usize = 200;
    let seeds = match std::env::var("KEELSON_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    for seed in seeds {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                match world.random.below(10) {
                    0..=4 => world.change(),
                    5..=6 => world.change_mind(),
                    7 => {
                        let answered = world.random.below(5) > 0;
                        world.fetch(answered);
                    }
                    _ => world.fetch(true),
                }
            }
        }));
        assert!(run.is_ok(), "replay with KEELSON_SEED={seed}");
    }
}
