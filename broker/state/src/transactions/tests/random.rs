//! Random schedules: producers of both versions that take over from each other, partitions and a coordinator whose log is
//! slow and sometimes refuses, markers that fail, crashes that lose what is not durable, and a clock that jumps.
//! `KEELSON_SEED=n` replays one schedule, `KEELSON_SCHEDULES=n` runs more of them.
//!
//! Held after each step: the last stable offset never goes back, and what a read_committed reader has seen stays as it is.
//! Held in the end: of each transaction all is visible or nothing, as its producer was told; none is open for ever; and no
//! producer wrote anything after another had taken over.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::model::{Entry, Partition, Random};
use super::*;
use crate::producers::{Marker, MarkerVerdict, Verdict};

const SCHEDULES: u64 = 1_000;
const STEPS: usize = 250;
const PARTITIONS: usize = 3;
const IDS: [&str; 2] = ["t", "u"];
const SETTLE_STEPS_MAX: usize = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has yet to begin.
    Out,
    Ready,
    /// Its end is asked for until it is answered.
    Ending(bool),
    Dead,
}

struct Client {
    id: &'static str,
    bumps_epoch: bool,
    phase: Phase,
    producer: (i64, i16),
    /// It has begun before, and says so.
    known: bool,
    waiting: Option<Token>,
    sequences: BTreeMap<usize, i32>,
    /// Partitions it has added, in version 1.
    added: HashSet<usize>,
    transaction: Option<usize>,
    /// Records of the transaction that are not durable yet.
    unacked: Vec<(usize, usize)>,
    /// Something of the transaction may be lost.
    must_abort: bool,
    /// Another has taken over.
    superseded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Committed,
    Aborted,
}

enum Asked {
    Init,
    Produce(usize),
    End(bool),
}

/// Markers, where they stand in their partitions, and the partitions that refused them.
type Marked = (Marking, Vec<(usize, usize)>, Vec<TopicPartition>);

struct World {
    random: Random,
    bench: Bench,
    partitions: Vec<Partition>,
    clients: Vec<Client>,
    asked: HashMap<Token, (usize, Asked)>,
    queued: VecDeque<(PersistId, StoredRecord)>,
    /// Markers on their way.
    marking: Vec<Marked>,
    told: Vec<Told>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            random: Random(seed),
            bench: Bench::new(),
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            clients: Vec::new(),
            asked: HashMap::new(),
            queued: VecDeque::new(),
            marking: Vec::new(),
            told: Vec::new(),
        };
        if world.random.one_in(3) {
            world.start_near_the_last_epoch();
        }
        world
    }

    fn start_near_the_last_epoch(&mut self) {
        self.bench.begun(None).unwrap();
        let record = self.bench.log.last_mut().unwrap();
        let mut value = TransactionValue::decode(record.value.as_ref().unwrap()).unwrap();
        value.epoch = i16::MAX - 4;
        record.value = Some(value.encode());
        self.bench.restart();
    }

    fn spawn(&mut self) {
        let id = IDS[self.random.below(2) as usize];
        let bumps_epoch = self.random.one_in(2);
        self.clients.push(Client {
            id,
            bumps_epoch,
            phase: Phase::Out,
            producer: (-1, -1),
            known: false,
            waiting: None,
            sequences: BTreeMap::new(),
            added: HashSet::new(),
            transaction: None,
            unacked: Vec::new(),
            must_abort: false,
            superseded: false,
        });
    }

    fn ask(&mut self, client: usize, asked: Asked, input: impl FnOnce(Token) -> Input) {
        let token = self.bench.ask(input);
        self.clients[client].waiting = Some(token);
        self.asked.insert(token, (client, asked));
        self.after();
    }

    /// Takes over what the machine gave out.
    fn after(&mut self) {
        self.queued.extend(std::mem::take(&mut self.bench.persists));
        for marking in std::mem::take(&mut self.bench.markers) {
            self.write_markers(marking);
        }
        while let Some((token, reply)) = self.bench.replies.pop_first() {
            let Some((client, asked)) = self.asked.remove(&token) else {
                continue;
            };
            self.clients[client].waiting = None;
            self.react(client, asked, reply);
        }
    }

    fn write_markers(&mut self, marking: Marking) {
        let marker = Marker {
            producer_id: marking.producer.0,
            epoch: marking.producer.1,
            coordinator_epoch: 0,
            commit: marking.commit,
        };
        let (mut written, mut failed) = (Vec::new(), Vec::new());
        for place in &marking.partitions {
            let index = place.1 as usize;
            if self.random.one_in(15) {
                failed.push(place.clone());
                continue;
            }
            let partition = &mut self.partitions[index];
            let verdict = partition.table.check_marker(&marker, marking.bumps_epoch);
            match verdict.expect("the coordinator's epochs are the newest") {
                MarkerVerdict::Append => {
                    partition.push(Entry::End(marker));
                    written.push((index, partition.log.len()));
                }
                MarkerVerdict::Done => written.push((index, partition.log.len())),
            }
        }
        self.marking.push((marking, written, failed));
    }

    fn confirm_markers(&mut self) {
        let done = self.marking.iter().position(|(_, written, _)| {
            let mut each = written.iter();
            each.all(|(index, end)| self.partitions[*index].durable >= *end)
        });
        if let Some(at) = done {
            let (marking, _, failed) = self.marking.remove(at);
            self.bench.feed(Input::MarkersWritten(marking.id, failed));
            self.after();
        }
    }

    fn confirm_persist(&mut self, calm: bool) {
        let Some((id, record)) = self.queued.pop_front() else {
            return;
        };
        if !calm && self.random.one_in(15) {
            let why = FailedBecause::Unavailable;
            self.bench.feed(Input::PersistFailed(id, why));
        } else {
            self.bench.log.push(record);
            self.bench.feed(Input::Persisted(id));
        }
        self.after();
    }

    fn act(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.waiting.is_some() {
            return;
        }
        let (id, producer, known) = (client.id, client.producer, client.known);
        match client.phase {
            Phase::Dead => {}
            Phase::Out => {
                let expected = known.then_some(producer);
                self.ask(number, Asked::Init, |token| {
                    Input::Init(token, init(id, expected))
                });
            }
            Phase::Ready => self.act_ready(number),
            Phase::Ending(commit) => self.end(number, commit),
        }
    }

    fn act_ready(&mut self, number: usize) {
        let client = &self.clients[number];
        let (some, unacked) = (client.transaction.is_some(), !client.unacked.is_empty());
        if client.must_abort || (some && self.random.one_in(8)) {
            self.clients[number].phase = Phase::Ending(false);
        } else if some && !unacked && self.random.one_in(3) {
            self.clients[number].phase = Phase::Ending(true);
        } else {
            let partition = self.random.below(PARTITIONS as u64) as usize;
            self.produce(number, partition);
        }
    }

    fn produce(&mut self, number: usize, partition: usize) {
        let client = &self.clients[number];
        let (id, producer) = (client.id, client.producer);
        let request = AddRequest {
            bumps_epoch: client.bumps_epoch,
            ..add(id, producer, &[partition as i32])
        };
        let held = &self.partitions[partition];
        let permitted = held.permits.get(&producer.0) == Some(&producer.1)
            || held.table.is_open(producer.0, producer.1);
        let asked = Asked::Produce(partition);
        if client.bumps_epoch && !permitted
            || !client.bumps_epoch && !client.added.contains(&partition)
        {
            self.ask(number, asked, |token| Input::Add(token, request));
        } else if !permitted {
            self.ask(number, asked, |token| Input::Verify(token, request));
        } else {
            self.append(number, partition);
        }
    }

    fn append(&mut self, number: usize, partition: usize) {
        let client = &mut self.clients[number];
        let transaction = *client.transaction.get_or_insert_with(|| {
            self.told.push(Told::Nothing);
            self.told.len() - 1
        });
        let sequence = client.sequences.entry(partition).or_insert(0);
        let entry = Entry::Data {
            producer: client.producer,
            sequence: *sequence,
            transaction,
        };
        let batch = Partition::batch(&entry).unwrap();
        let held = &mut self.partitions[partition];
        match held.table.check(&batch) {
            Ok(Verdict::Append) => {
                assert!(!client.superseded, "a zombie wrote: {entry:?}");
                *sequence += 1;
                held.push(entry);
                client.unacked.push((partition, held.log.len()));
            }
            Ok(Verdict::Duplicate { .. }) => unreachable!("nothing is sent twice"),
            Err(crate::producers::ProducerError::InvalidEpoch { .. }) => client.phase = Phase::Dead,
            Err(error) => panic!("{error} for {entry:?}"),
        }
    }

    fn end(&mut self, number: usize, commit: bool) {
        let client = &self.clients[number];
        let request = EndRequest {
            transactional_id: client.id.to_owned(),
            producer: client.producer,
            commit,
            bumps_epoch: client.bumps_epoch,
        };
        self.ask(number, Asked::End(commit), |token| {
            Input::End(token, request)
        });
    }

    fn react(&mut self, number: usize, asked: Asked, reply: Reply) {
        use TransactionError as E;
        match (asked, reply) {
            (Asked::Init, Reply::Init(Ok(producer))) => self.begun(number, producer),
            (Asked::Produce(partition), Reply::Add(Ok(()))) => {
                let client = &mut self.clients[number];
                client.added.insert(partition);
                let (producer_id, epoch) = client.producer;
                let permits = &mut self.partitions[partition].permits;
                permits.insert(producer_id, epoch);
                self.append(number, partition);
            }
            (Asked::Produce(partition), Reply::Verify(Ok(missing))) => {
                assert!(missing.is_empty(), "what was added is in it");
                let (producer_id, epoch) = self.clients[number].producer;
                let permits = &mut self.partitions[partition].permits;
                permits.insert(producer_id, epoch);
                self.append(number, partition);
            }
            (Asked::End(commit), Reply::End(Ok(producer))) => self.ended(number, commit, producer),
            (
                _,
                Reply::Init(Err(error))
                | Reply::Add(Err(error))
                | Reply::Verify(Err(error))
                | Reply::End(Err(error)),
            ) => match error {
                E::ConcurrentTransactions | E::CoordinatorNotAvailable => {}
                E::ProducerFenced | E::InvalidProducerIdMapping => {
                    self.clients[number].phase = Phase::Dead;
                }
                // The abort of what never began, in version 1.
                E::InvalidTxnState if self.clients[number].added.is_empty() => {
                    self.forget(number);
                }
                error => panic!("{error}"),
            },
            (_, reply) => panic!("a reply of another kind: {reply:?}"),
        }
    }

    fn begun(&mut self, number: usize, producer: (i64, i16)) {
        let id = self.clients[number].id;
        for (other, client) in self.clients.iter_mut().enumerate() {
            client.superseded |= other != number && client.id == id && client.known;
        }
        let client = &mut self.clients[number];
        // Whoever began before and comes back late is told that it is fenced.
        client.superseded = false;
        client.phase = Phase::Ready;
        client.producer = producer;
        client.known = true;
        client.sequences.clear();
        client.added.clear();
    }

    fn ended(&mut self, number: usize, commit: bool, producer: (i64, i16)) {
        let client = &mut self.clients[number];
        if let Some(transaction) = client.transaction {
            self.told[transaction] = match commit {
                true => Told::Committed,
                false => Told::Aborted,
            };
        }
        if client.producer != producer {
            client.sequences.clear();
        }
        client.producer = producer;
        self.forget(number);
    }

    fn forget(&mut self, number: usize) {
        let client = &mut self.clients[number];
        // In version 1, sequences that may be lost need a new epoch.
        let uncertain = client.must_abort || !client.unacked.is_empty();
        let anew = uncertain && !client.bumps_epoch;
        client.phase = if anew { Phase::Out } else { Phase::Ready };
        client.transaction = None;
        client.must_abort = false;
        client.unacked.clear();
        client.added.clear();
    }

    fn acknowledge(&mut self) {
        for client in &mut self.clients {
            let partitions = &self.partitions;
            client
                .unacked
                .retain(|(partition, end)| partitions[*partition].durable < *end);
        }
    }

    fn flush(&mut self, partition: usize) {
        let held = &mut self.partitions[partition];
        let left = (held.log.len() - held.durable) as u64;
        held.durable += self.random.below(left + 1) as usize;
        self.acknowledge();
    }

    fn crash(&mut self) {
        self.queued.clear();
        self.marking.clear();
        self.asked.clear();
        for partition in &mut self.partitions {
            partition.crash(&mut self.random);
        }
        for client in &mut self.clients {
            let was_waiting = client.waiting.take().is_some();
            let ending = matches!(client.phase, Phase::Ending(_));
            client.must_abort |= !client.unacked.is_empty() || (was_waiting && !ending);
            client.must_abort &= client.phase != Phase::Out;
            client.unacked.clear();
        }
        self.bench.restart();
        self.after();
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=2 => self.spawn(),
            3..=44 if !self.clients.is_empty() => {
                let number = self.random.below(self.clients.len() as u64) as usize;
                self.act(number);
            }
            45..=64 => self.confirm_persist(false),
            65..=79 => {
                let partition = self.random.below(PARTITIONS as u64) as usize;
                self.flush(partition);
            }
            80..=91 => self.confirm_markers(),
            92..=97 => {
                let ms = match self.random.below(30) {
                    0 => 8 * 24 * 3_600_000,
                    1..=5 => 12_000,
                    _ => 200,
                };
                self.bench.advance(ms);
                self.after();
            }
            98 => self.crash(),
            _ => {}
        }
        for partition in &mut self.partitions {
            partition.look();
        }
    }

    /// Nobody does anything new, and time passes until all is decided.
    fn settle(&mut self) {
        for _ in 0..SETTLE_STEPS_MAX {
            for partition in &mut self.partitions {
                partition.durable = partition.log.len();
            }
            self.acknowledge();
            self.confirm_persist(true);
            self.confirm_markers();
            if self.queued.is_empty() && self.marking.is_empty() {
                self.bench.advance(1_000);
                self.after();
            }
            let open = self.partitions.iter().any(|p| p.table.has_unstable());
            for partition in &mut self.partitions {
                partition.look();
            }
            if !open && self.queued.is_empty() && self.marking.is_empty() {
                break;
            }
        }
        for partition in &self.partitions {
            assert_eq!(
                partition.stable,
                partition.log.len() as i64,
                "a transaction is open for ever"
            );
        }
    }

    fn check_outcomes(&self) {
        let mut written: HashMap<usize, usize> = HashMap::new();
        let mut visible: HashMap<usize, usize> = HashMap::new();
        for partition in &self.partitions {
            for entry in &partition.log {
                if let Entry::Data { transaction, .. } = entry {
                    *written.entry(*transaction).or_default() += 1;
                }
            }
            for (_, transaction) in &partition.seen {
                *visible.entry(*transaction).or_default() += 1;
            }
        }
        for (transaction, told) in self.told.iter().enumerate() {
            let written = written.get(&transaction).copied().unwrap_or_default();
            let visible = visible.get(&transaction).copied().unwrap_or_default();
            let name =
                format!("transaction {transaction}: {visible} of {written} visible, {told:?}");
            assert!(visible == 0 || visible == written, "{name}");
            assert!(*told != Told::Committed || visible == written, "{name}");
            assert!(*told != Told::Aborted || visible == 0, "{name}");
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    world.spawn();
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check_outcomes();
}

#[test]
fn random_schedules_hold_every_promise() {
    let of = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    if let Some(seed) = of("KEELSON_SEED") {
        return run(seed);
    }
    for seed in 0..of("KEELSON_SCHEDULES").unwrap_or(SCHEDULES) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(
            outcome.is_ok(),
            "seed {seed}: KEELSON_SEED={seed} replays it"
        );
    }
}
