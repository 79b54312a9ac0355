//! Counting for metrics: how many transactional ids stand where, how long the oldest transaction is open, how they ended.
//!
//! It reads what the machine knows anyway; only how transactions ended is counted as they do, since nothing remembers it.

use std::collections::BTreeMap;

use super::machine::TransactionCoordinator;
use super::transaction::Transaction;
use super::value::TransactionState;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Its client committed it.
    Committed,
    /// Its client aborted it, or began anew without ending it (KIP-360).
    Aborted,
    /// It took longer than its timeout, and the coordinator aborted it.
    TimedOut,
    /// A new producer with its transactional id took over, and the coordinator aborted it.
    Fenced,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 4] = [
        Outcome::Committed,
        Outcome::Aborted,
        Outcome::TimedOut,
        Outcome::Fenced,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Committed => "committed",
            Outcome::Aborted => "aborted",
            Outcome::TimedOut => "timed_out",
            Outcome::Fenced => "fenced",
        }
    }
}

/// Transactions by outcome. One counts when its decision is durable; those of an earlier run are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended(BTreeMap<Outcome, u64>);

impl Ended {
    pub(super) fn count(&mut self, outcome: Outcome) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// How many ended so.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(&outcome).copied().unwrap_or(0)
    }
}

/// Numbers of one or several machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionCensus {
    ids: BTreeMap<TransactionState, u64>,
    /// How transactions ended.
    pub ended: Ended,
    /// When the oldest transaction began that is open: ongoing, or decided and not all of its markers written.
    pub oldest_start_ms: Option<i64>,
    /// When the first of these should have been over, which may lie ahead: an ongoing one when its time is up, a decided one
    /// when it was decided.
    pub first_due_ms: Option<i64>,
}

impl TransactionCensus {
    /// The states that a transactional id can be in.
    pub const STATES: [TransactionState; 6] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ];

    /// Transactional ids in a state.
    pub fn ids(&self, state: TransactionState) -> u64 {
        self.ids.get(&state).copied().unwrap_or(0)
    }
}

impl TransactionCoordinator {
    /// Adds what this machine knows.
    pub fn count_into(&self, census: &mut TransactionCensus) {
        for transaction in self.transactions.values().filter(|t| t.value.epoch >= 0) {
            *census.ids.entry(transaction.value.state).or_default() += 1;
            if let Some(due_ms) = transaction.due_ms() {
                earlier(&mut census.oldest_start_ms, transaction.value.start_ms);
                earlier(&mut census.first_due_ms, due_ms);
            }
        }
        for outcome in Outcome::ALL {
            *census.ended.0.entry(outcome).or_default() += self.ended.of(outcome);
        }
    }
}

impl Transaction {
    /// When its open transaction should be over, if one is open.
    fn due_ms(&self) -> Option<i64> {
        match self.value.state {
            TransactionState::Ongoing => Some(self.times_out_ms()),
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Some(self.value.updated_ms)
            }
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort
            | TransactionState::Dead
            | TransactionState::PrepareEpochFence => None,
        }
    }
}

fn earlier(known_ms: &mut Option<i64>, at_ms: i64) {
    *known_ms = Some(known_ms.map_or(at_ms, |known_ms| known_ms.min(at_ms)));
}
