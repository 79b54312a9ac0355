//! The machine: finds the transactional id of an input, keeps the persists under way, fires deadlines. The rules of each
//! request stand in the modules beside it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::census::{Ended, Outcome};
use super::transaction::{Markers, Next, Transaction};
use super::types::{
    AddRequest, Effect, Input, MarkersId, NAME_BYTES_MAX, PARTITIONS_PER_TRANSACTION_MAX,
    ProducerIds, RETRY_MS, Reply, StoredRecord, TopicPartition, TransactionConfig,
    TransactionError, VerifyRequest,
};
use super::value::TransactionState;
use crate::persist::{FailedBecause, PersistId, Token};

/// What follows once a change is durable.
#[derive(Debug)]
pub(super) enum Then {
    /// A beginning is answered.
    Init(Token),
    /// An addition is answered.
    Add(Token),
    /// Markers go out; the end is answered when they are written.
    End(Token),
    /// Markers go out; a beginning, if one asked for it, is told to come again.
    Fence(Fenced),
    /// The end is answered.
    Complete,
    /// The transactional id is forgotten.
    Expire,
}

/// Why the coordinator aborts a transaction by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fenced {
    /// It took too long.
    Late,
    /// This beginning is of another producer.
    By(Token),
    /// This beginning is of its own producer, which gives it up so.
    ByItself(Token),
}

impl Fenced {
    fn token(self) -> Option<Token> {
        match self {
            Fenced::Late => None,
            Fenced::By(token) | Fenced::ByItself(token) => Some(token),
        }
    }
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Change {
    id: Arc<str>,
    next: Option<Next>,
    then: Then,
}

/// All transactional ids of one `__transaction_state` partition.
#[derive(Debug)]
pub struct TransactionCoordinator {
    pub(super) config: TransactionConfig,
    pub(super) transactions: HashMap<Arc<str>, Transaction>,
    /// When each is due, at the earliest.
    timers: BTreeSet<(i64, Arc<str>)>,
    changes: HashMap<PersistId, Change>,
    /// Whose markers these are.
    markers: HashMap<MarkersId, Arc<str>>,
    last_persist: u64,
    last_markers: u64,
    /// Transactions that were decided in this run, by outcome.
    pub(super) ended: Ended,
}

impl TransactionCoordinator {
    /// A machine that knows of nothing.
    pub fn new(config: TransactionConfig) -> Self {
        TransactionCoordinator {
            config,
            transactions: HashMap::new(),
            timers: BTreeSet::new(),
            changes: HashMap::new(),
            markers: HashMap::new(),
            last_persist: 0,
            last_markers: 0,
            ended: Ended::default(),
        }
    }

    /// When `Input::Tick` is due next. It may turn out that nothing happens then.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes one input, changes the state and says what is to be done, in order. Takes from `ids` when a transactional id
    /// needs a new producer id; where none is left, the request is to be tried again.
    pub fn apply(
        &mut self,
        now_ms: i64,
        input: Input,
        ids: &mut ProducerIds,
        out: &mut Vec<Effect>,
    ) {
        match input {
            Input::Init(token, request) => self.init(now_ms, (token, &request), ids, out),
            Input::Add(token, request) => self.add(now_ms, token, request, out),
            Input::Verify(token, request) => {
                out.push(Effect::Reply(token, Reply::Verify(self.verify(&request))));
            }
            Input::End(token, request) => self.end(now_ms, (token, &request), ids, out),
            Input::Persisted(id) => self.persisted(now_ms, id, out),
            Input::PersistFailed(id, why) => self.persist_failed(now_ms, id, why, out),
            Input::MarkersWritten(id, failed) => self.markers_written(now_ms, id, failed, out),
            Input::Tick => self.tick(now_ms, out),
        }
    }

    fn add(&mut self, now_ms: i64, token: Token, request: AddRequest, out: &mut Vec<Effect>) {
        let decided = self.decide_add(now_ms, &request);
        match decided {
            Ok(Some(next)) => self.change(&request.transactional_id, next, Then::Add(token), out),
            Ok(None) => out.push(Effect::Reply(token, Reply::Add(Ok(())))),
            Err(error) => out.push(Effect::Reply(token, Reply::Add(Err(error)))),
        }
    }

    fn decide_add(
        &self,
        now_ms: i64,
        request: &AddRequest,
    ) -> Result<Option<Next>, TransactionError> {
        let transaction = self.of_producer(&request.transactional_id, request.producer)?;
        let value = &transaction.value;
        if transaction.pending || transaction.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let ongoing = value.state == TransactionState::Ongoing;
        if ongoing && request.partitions.is_subset(&value.partitions) {
            return Ok(None);
        }
        if value.partitions.len() + request.partitions.len() > PARTITIONS_PER_TRANSACTION_MAX {
            return Err(TransactionError::RecordTooLarge);
        }
        Ok(Some(transaction.with_partitions(request, now_ms)))
    }

    fn verify(
        &self,
        request: &VerifyRequest,
    ) -> Result<BTreeSet<TopicPartition>, TransactionError> {
        let transaction = self.of_producer(&request.transactional_id, request.producer)?;
        if transaction.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let known = &transaction.value.partitions;
        Ok(request.partitions.difference(known).cloned().collect())
    }

    /// The transactional id, if this is its producer.
    fn of_producer(
        &self,
        id: &str,
        (producer_id, epoch): (i64, i16),
    ) -> Result<&Transaction, TransactionError> {
        check_id(id)?;
        let transaction = self.transactions.get(id);
        let transaction = transaction.ok_or(TransactionError::InvalidProducerIdMapping)?;
        if transaction.value.producer_id != producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if transaction.value.epoch != epoch {
            return Err(TransactionError::ProducerFenced);
        }
        Ok(transaction)
    }

    /// Puts a change on its way to the log.
    pub(super) fn change(&mut self, id: &str, next: Next, then: Then, out: &mut Vec<Effect>) {
        self.persist(id, Some(next), then, out);
    }

    /// The same; `None` is the end of the transactional id.
    fn persist(&mut self, id: &str, next: Option<Next>, then: Then, out: &mut Vec<Effect>) {
        let transaction = self.transactions.get_mut(id);
        let transaction = transaction.expect("only what is known changes");
        assert!(!transaction.pending, "{id}: two changes at once");
        transaction.pending = true;
        transaction.retry_ms = None;
        let id = transaction.id.clone();
        self.last_persist += 1;
        let persist = PersistId(self.last_persist);
        let record = StoredRecord {
            transactional_id: id.clone(),
            value: next.as_ref().map(|next| next.value.encode()),
        };
        self.changes.insert(persist, Change { id, next, then });
        out.push(Effect::Persist(persist, record));
    }

    fn persisted(&mut self, now_ms: i64, id: PersistId, out: &mut Vec<Effect>) {
        let change = self.changes.remove(&id);
        let Change { id, next, then } = change.expect("each persist is confirmed once");
        let Some(next) = next else {
            self.forget(&id);
            return;
        };
        let transaction = self.transactions.get_mut(&id);
        let transaction = transaction.expect("it stays while it changes");
        transaction.pending = false;
        if transaction.value.state == TransactionState::Ongoing
            && let Some(outcome) = outcome(&then, next.value.state)
        {
            self.ended.count(outcome);
        }
        transaction.value = next.value;
        transaction.last_epoch = next.last_epoch;
        let current = (transaction.value.producer_id, transaction.value.epoch);
        match then {
            Then::Init(token) => out.push(Effect::Reply(token, Reply::Init(Ok(current)))),
            Then::Add(token) => out.push(Effect::Reply(token, Reply::Add(Ok(())))),
            Then::End(token) => {
                transaction.ending = Some(token);
                self.begin_markers(now_ms, &id, out);
            }
            Then::Fence(fenced) => {
                if let Some(token) = fenced.token() {
                    let again = Err(TransactionError::ConcurrentTransactions);
                    out.push(Effect::Reply(token, Reply::Init(again)));
                }
                self.begin_markers(now_ms, &id, out);
            }
            Then::Complete => answer_end(transaction, out),
            Then::Expire => unreachable!("an expiry has no next value"),
        }
        self.arm(&id);
    }

    fn persist_failed(
        &mut self,
        now_ms: i64,
        id: PersistId,
        why: FailedBecause,
        out: &mut Vec<Effect>,
    ) {
        let change = self.changes.remove(&id);
        let Change { id, then, .. } = change.expect("each persist is confirmed once");
        let error = match why {
            FailedBecause::Unavailable | FailedBecause::Fenced => {
                TransactionError::CoordinatorNotAvailable
            }
            FailedBecause::TooLarge => TransactionError::RecordTooLarge,
        };
        let transaction = self.transactions.get_mut(&id);
        let transaction = transaction.expect("it stays while it changes");
        transaction.pending = false;
        match then {
            Then::Init(token) => out.push(Effect::Reply(token, Reply::Init(Err(error)))),
            Then::Add(token) => out.push(Effect::Reply(token, Reply::Add(Err(error)))),
            Then::End(token) => out.push(Effect::Reply(token, Reply::End(Err(error)))),
            Then::Fence(fenced) => {
                transaction.retry_ms = Some(now_ms + RETRY_MS);
                if let Some(token) = fenced.token() {
                    transaction.retry_ms = None;
                    out.push(Effect::Reply(token, Reply::Init(Err(error))));
                }
            }
            Then::Complete => {
                // What was decided is durable; only that it is carried out is not on record yet.
                answer_end(transaction, out);
                transaction.retry_ms = Some(now_ms + RETRY_MS);
            }
            Then::Expire => transaction.retry_ms = Some(now_ms + RETRY_MS),
        }
        if transaction.value.epoch == -1 {
            // Nothing of it is anywhere.
            self.forget(&id);
            return;
        }
        // A transaction that is overdue would be looked at again and again.
        let overdue = transaction
            .deadline(&self.config)
            .is_some_and(|at_ms| at_ms <= now_ms);
        if overdue {
            transaction.retry_ms = Some(now_ms + RETRY_MS);
        }
        self.arm(&id);
    }

    /// The decision is durable: its markers go out. A transaction without partitions has none.
    pub(super) fn begin_markers(&mut self, now_ms: i64, id: &str, out: &mut Vec<Effect>) {
        self.last_markers += 1;
        let markers = MarkersId(self.last_markers);
        let transaction = self.transactions.get_mut(id);
        let transaction = transaction.expect("it has just changed");
        let left: Vec<TopicPartition> = transaction.value.partitions.iter().cloned().collect();
        if left.is_empty() {
            self.complete(now_ms, id, out);
            return;
        }
        transaction.markers = Some(Markers {
            id: markers,
            left,
            under_way: false,
        });
        self.markers.insert(markers, transaction.id.clone());
        self.send_markers(id, out);
    }

    fn send_markers(&mut self, id: &str, out: &mut Vec<Effect>) {
        let transaction = self.transactions.get_mut(id);
        let transaction = transaction.expect("markers are of something known");
        let value = &transaction.value;
        let markers = transaction.markers.as_mut().expect("some are left");
        markers.under_way = true;
        out.push(Effect::WriteMarkers {
            id: markers.id,
            producer: (value.producer_id, value.epoch),
            commit: value.state == TransactionState::PrepareCommit,
            bumps_epoch: value.client_version > 0,
            partitions: markers.left.clone(),
        });
    }

    fn markers_written(
        &mut self,
        now_ms: i64,
        markers_id: MarkersId,
        failed: Vec<TopicPartition>,
        out: &mut Vec<Effect>,
    ) {
        let id = self.markers.get(&markers_id).cloned();
        let id = id.expect("markers are heard of while they are under way");
        let transaction = self.transactions.get_mut(&id);
        let transaction = transaction.expect("it stays until its markers are written");
        if failed.is_empty() {
            transaction.markers = None;
            self.markers.remove(&markers_id);
            self.complete(now_ms, &id, out);
        } else {
            let markers = transaction.markers.as_mut().expect("they are under way");
            markers.left = failed;
            markers.under_way = false;
            transaction.retry_ms = Some(now_ms + RETRY_MS);
            // The client need not wait for what may take long: the decision is durable.
            answer_end(transaction, out);
        }
        self.arm(&id);
    }

    fn complete(&mut self, now_ms: i64, id: &str, out: &mut Vec<Effect>) {
        let next = self.transactions[id].completed(now_ms);
        self.change(id, next, Then::Complete, out);
    }

    pub(super) fn fence(&mut self, now_ms: i64, id: &str, fenced: Fenced, out: &mut Vec<Effect>) {
        let next = self.transactions[id].fenced(fenced.token().is_none(), now_ms);
        self.change(id, next, Then::Fence(fenced), out);
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        while self.next_deadline().is_some_and(|at_ms| at_ms <= now_ms) {
            let (_, id) = self.timers.pop_first().expect("it was just seen");
            let transaction = self.transactions.get_mut(&id);
            let transaction = transaction.expect("what is forgotten has no deadline");
            transaction.armed_ms = None;
            let deadline = transaction.deadline(&self.config);
            if deadline.is_some_and(|at_ms| at_ms <= now_ms) {
                transaction.retry_ms = None;
                self.due(now_ms, &id, out);
            }
            self.arm(&id);
        }
    }

    fn due(&mut self, now_ms: i64, id: &Arc<str>, out: &mut Vec<Effect>) {
        let transaction = &self.transactions[id];
        match transaction.value.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                match &transaction.markers {
                    Some(markers) if !markers.under_way => self.send_markers(id, out),
                    Some(_) => {}
                    None => self.complete(now_ms, id, out),
                }
                return;
            }
            TransactionState::Ongoing
            | TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {}
            TransactionState::Dead | TransactionState::PrepareEpochFence => {
                unreachable!("neither is ever in the log")
            }
        }
        // After a retry's pause, the time for it may not have come.
        let deadline = transaction.deadline(&self.config);
        if deadline.is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        if transaction.value.state == TransactionState::Ongoing {
            self.fence(now_ms, id, Fenced::Late, out);
        } else {
            self.persist(id, None, Then::Expire, out);
        }
    }

    /// Sets the entry that stands for a deadline. One that moves later leaves the entry, which fires early.
    pub(super) fn arm(&mut self, id: &Arc<str>) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        let Some(at_ms) = transaction.deadline(&self.config) else {
            return;
        };
        if let Some(armed) = transaction.armed_ms {
            if armed <= at_ms {
                return;
            }
            self.timers.remove(&(armed, id.clone()));
        }
        transaction.armed_ms = Some(at_ms);
        self.timers.insert((at_ms, id.clone()));
    }

    pub(super) fn forget(&mut self, id: &Arc<str>) {
        if let Some(transaction) = self.transactions.remove(id)
            && let Some(armed) = transaction.armed_ms
        {
            self.timers.remove(&(armed, id.clone()));
        }
    }
}

/// How a transaction ends that goes to this state, if it ends.
fn outcome(then: &Then, state: TransactionState) -> Option<Outcome> {
    match then {
        Then::End(_) if state == TransactionState::PrepareCommit => Some(Outcome::Committed),
        Then::End(_) => Some(Outcome::Aborted),
        Then::Fence(Fenced::Late) => Some(Outcome::TimedOut),
        Then::Fence(Fenced::By(_)) => Some(Outcome::Fenced),
        Then::Fence(Fenced::ByItself(_)) => Some(Outcome::Aborted),
        Then::Init(_) | Then::Add(_) | Then::Complete | Then::Expire => None,
    }
}

/// Answers the end that waits, if one does.
fn answer_end(transaction: &mut Transaction, out: &mut Vec<Effect>) {
    if let Some(token) = transaction.ending.take() {
        let producer = transaction.goes_on_with();
        out.push(Effect::Reply(token, Reply::End(Ok(producer))));
    }
}

/// Whether a transactional id can be stored and makes sense.
pub(super) fn check_id(id: &str) -> Result<(), TransactionError> {
    if id.is_empty() || id.len() > NAME_BYTES_MAX {
        return Err(TransactionError::InvalidRequest);
    }
    Ok(())
}
