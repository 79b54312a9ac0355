//! Directed cases and random schedules of the transaction machine, on a virtual clock.

mod cases;
mod census;
mod model;
mod random;

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Markers that were given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marking {
    pub(super) id: MarkersId,
    pub(super) producer: (i64, i16),
    pub(super) commit: bool,
    pub(super) bumps_epoch: bool,
    pub(super) partitions: Vec<TopicPartition>,
}

/// A machine with a clock, whose persists and markers are confirmed by hand or at once.
pub(super) struct Bench {
    pub(super) machine: TransactionCoordinator,
    pub(super) now_ms: i64,
    pub(super) ids: ProducerIds,
    next_id: i64,
    pub(super) replies: BTreeMap<Token, Reply>,
    pub(super) persists: Vec<(PersistId, StoredRecord)>,
    pub(super) markers: Vec<Marking>,
    pub(super) log: Vec<StoredRecord>,
    tokens: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut bench = Bench {
            machine: TransactionCoordinator::new(TransactionConfig::default()),
            now_ms: 1_000,
            ids: ProducerIds::default(),
            next_id: 100,
            replies: BTreeMap::new(),
            persists: Vec::new(),
            markers: Vec::new(),
            log: Vec::new(),
            tokens: 0,
        };
        bench.refill();
        bench
    }

    pub(super) fn refill(&mut self) {
        while self.ids.len() < 3 {
            self.ids.push(self.next_id);
            self.next_id += 1;
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        let mut out = Vec::new();
        let mut ids = std::mem::take(&mut self.ids);
        self.machine.apply(self.now_ms, input, &mut ids, &mut out);
        self.ids = ids;
        self.refill();
        self.take_effects(out);
    }

    fn take_effects(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Reply(token, reply) => {
                    let earlier = self.replies.insert(token, reply);
                    assert!(earlier.is_none(), "{token:?} is answered twice");
                }
                Effect::Persist(id, record) => self.persists.push((id, record)),
                Effect::WriteMarkers {
                    id,
                    producer,
                    commit,
                    bumps_epoch,
                    partitions,
                } => self.markers.push(Marking {
                    id,
                    producer,
                    commit,
                    bumps_epoch,
                    partitions,
                }),
            }
        }
    }

    /// Feeds a request and gives its token.
    pub(super) fn ask(&mut self, input: impl FnOnce(Token) -> Input) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.feed(input(token));
        token
    }

    pub(super) fn persist_all(&mut self) {
        for (id, record) in std::mem::take(&mut self.persists) {
            self.log.push(record);
            self.feed(Input::Persisted(id));
        }
    }

    pub(super) fn fail_all(&mut self) {
        for (id, _) in std::mem::take(&mut self.persists) {
            self.feed(Input::PersistFailed(id, FailedBecause::Unavailable));
        }
    }

    /// Everything that was given out is done, and what follows from it.
    pub(super) fn settle(&mut self) {
        while !self.persists.is_empty() || !self.markers.is_empty() {
            self.persist_all();
            for marking in std::mem::take(&mut self.markers) {
                self.feed(Input::MarkersWritten(marking.id, Vec::new()));
            }
        }
    }

    /// Moves the clock, stopping at each deadline.
    pub(super) fn advance(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(next) = self.machine.next_deadline().filter(|next| *next <= end) {
            self.now_ms = self.now_ms.max(next);
            self.feed(Input::Tick);
        }
        self.now_ms = end;
    }

    /// A machine made from the log takes the place of this one.
    pub(super) fn restart(&mut self) {
        self.machine = TransactionCoordinator::new(TransactionConfig::default());
        self.persists.clear();
        self.markers.clear();
        self.replies.clear();
        for record in &self.log {
            let value = record.value.as_deref();
            self.machine.replay(&record.key(), value).unwrap();
        }
        let mut out = Vec::new();
        self.machine.finish_load(self.now_ms, &mut out);
        self.take_effects(out);
    }

    pub(super) fn take(&mut self, token: Token) -> Option<Reply> {
        self.replies.remove(&token)
    }

    pub(super) fn init(&mut self, expected: Option<(i64, i16)>) -> Token {
        self.ask(|token| Input::Init(token, init("t", expected)))
    }

    pub(super) fn add(&mut self, producer: (i64, i16), partitions: &[i32]) -> Token {
        self.ask(|token| Input::Add(token, add("t", producer, partitions)))
    }

    pub(super) fn end(&mut self, producer: (i64, i16), commit: bool, bumps_epoch: bool) -> Token {
        self.ask(|token| {
            let transactional_id = "t".to_owned();
            Input::End(
                token,
                EndRequest {
                    transactional_id,
                    producer,
                    commit,
                    bumps_epoch,
                },
            )
        })
    }

    /// The answer to a beginning once all is done.
    pub(super) fn begun(
        &mut self,
        expected: Option<(i64, i16)>,
    ) -> Result<(i64, i16), TransactionError> {
        let token = self.init(expected);
        self.settle();
        match self.take(token) {
            Some(Reply::Init(result)) => result,
            other => panic!("no answer to a beginning: {other:?}"),
        }
    }

    pub(super) fn added(
        &mut self,
        producer: (i64, i16),
        partitions: &[i32],
    ) -> Result<(), TransactionError> {
        let token = self.add(producer, partitions);
        self.settle();
        match self.take(token) {
            Some(Reply::Add(result)) => result,
            other => panic!("no answer to an addition: {other:?}"),
        }
    }

    pub(super) fn ended(
        &mut self,
        producer: (i64, i16),
        commit: bool,
        bumps_epoch: bool,
    ) -> Result<(i64, i16), TransactionError> {
        let token = self.end(producer, commit, bumps_epoch);
        self.settle();
        match self.take(token) {
            Some(Reply::End(result)) => result,
            other => panic!("no answer to an end: {other:?}"),
        }
    }

    pub(super) fn state(&self) -> TransactionState {
        self.machine.describe("t").expect("it is known").state
    }
}

pub(super) fn init(id: &str, expected: Option<(i64, i16)>) -> InitRequest {
    InitRequest {
        transactional_id: id.to_owned(),
        timeout_ms: 10_000,
        expected,
    }
}

pub(super) fn add(id: &str, producer: (i64, i16), partitions: &[i32]) -> AddRequest {
    AddRequest {
        transactional_id: id.to_owned(),
        producer,
        partitions: places(partitions),
        bumps_epoch: false,
    }
}

pub(super) fn places(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    partitions
        .iter()
        .map(|index| ("p".into(), *index))
        .collect()
}
