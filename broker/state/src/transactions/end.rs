//! EndTxn: commit or abort, and what a repeated request is told.

use super::machine::{Then, TransactionCoordinator, check_id};
use super::transaction::{EPOCH_BUMP_VERSION, EPOCH_EXHAUSTED, Next, Transaction};
use super::types::{Effect, EndRequest, ProducerIds, Reply, TransactionError};
use super::value::TransactionState;
use crate::persist::Token;

/// What an end leads to.
enum Ending {
    /// This, and the markers.
    To(Next),
    /// It was carried out before; the client goes on with this producer id and epoch.
    Done((i64, i16)),
}

impl TransactionCoordinator {
    pub(super) fn end(
        &mut self,
        now_ms: i64,
        (token, request): (Token, &EndRequest),
        ids: &mut ProducerIds,
        out: &mut Vec<Effect>,
    ) {
        let id = request.transactional_id.as_str();
        let known = self.transactions.get(id);
        let decided = check_id(id)
            .and_then(|()| known.ok_or(TransactionError::InvalidProducerIdMapping))
            .and_then(|transaction| transaction.decide_end(now_ms, request, ids));
        match decided {
            Ok(Ending::To(next)) => self.change(id, next, Then::End(token), out),
            Ok(Ending::Done(producer)) => {
                out.push(Effect::Reply(token, Reply::End(Ok(producer))));
            }
            Err(error) => out.push(Effect::Reply(token, Reply::End(Err(error)))),
        }
    }
}

impl Transaction {
    fn decide_end(
        &self,
        now_ms: i64,
        request: &EndRequest,
        ids: &mut ProducerIds,
    ) -> Result<Ending, TransactionError> {
        let value = &self.value;
        let (producer_id, epoch) = request.producer;
        let again = self.is_end_again(producer_id, epoch);
        if value.producer_id != producer_id && !again {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        let bumped = value.client_version >= EPOCH_BUMP_VERSION;
        if !again && epoch != value.epoch {
            return Err(TransactionError::ProducerFenced);
        }
        // A client that has its new epoch already, from an answer that did not wait for markers, waits for them here.
        if self.pending || (bumped && !again && self.is_prepared()) {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let wrong = Err(TransactionError::InvalidTxnState);
        // Before epochs were bumped by it, an end that is asked for once more cannot be told from one of nothing.
        let maybe_again = again || !bumped;
        match (value.state, request.commit) {
            (TransactionState::Ongoing, _) => self.ending(request, ids, now_ms),
            // It comes too late: the coordinator has aborted what took too long (KAFKA-20785).
            (TransactionState::PrepareAbort | TransactionState::CompleteAbort, true) if again => {
                Err(TransactionError::ProducerFenced)
            }
            (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
                Err(TransactionError::ConcurrentTransactions)
            }
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
                if maybe_again =>
            {
                Ok(Ending::Done((value.producer_id, value.epoch)))
            }
            // Nothing was added, but something may be on its way: the bumped epoch fences it.
            (TransactionState::Empty, false) if request.bumps_epoch => {
                self.ending(request, ids, now_ms)
            }
            (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false)
                if request.bumps_epoch && !maybe_again =>
            {
                self.ending(request, ids, now_ms)
            }
            (
                TransactionState::Empty
                | TransactionState::PrepareCommit
                | TransactionState::PrepareAbort
                | TransactionState::CompleteCommit
                | TransactionState::CompleteAbort,
                _,
            ) => wrong,
            (TransactionState::Dead | TransactionState::PrepareEpochFence, _) => {
                unreachable!("neither is ever in the log")
            }
        }
    }

    fn ending(
        &self,
        request: &EndRequest,
        ids: &mut ProducerIds,
        now_ms: i64,
    ) -> Result<Ending, TransactionError> {
        self.ended(request.commit, request.bumps_epoch, ids, now_ms)
            .map(Ending::To)
    }

    /// Whether a client whose epoch this end has bumped asks for it once more.
    fn is_end_again(&self, producer_id: i64, epoch: i16) -> bool {
        let value = &self.value;
        let has_ended = match value.state {
            TransactionState::PrepareCommit
            | TransactionState::PrepareAbort
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => true,
            TransactionState::Empty
            | TransactionState::Ongoing
            | TransactionState::Dead
            | TransactionState::PrepareEpochFence => false,
        };
        if !has_ended || value.client_version < EPOCH_BUMP_VERSION {
            return false;
        }
        let bumped = value.producer_id == producer_id && epoch.checked_add(1) == Some(value.epoch);
        // The epoch above all that clients have: only the coordinator ends with it, and nobody goes on with it.
        let is_used_up = !self.is_prepared() && value.epoch > EPOCH_EXHAUSTED;
        let went_on_with_a_new_id = !self.is_prepared()
            && value.previous_producer_id == producer_id
            && epoch == EPOCH_EXHAUSTED
            && value.epoch == 0;
        (bumped && !is_used_up) || went_on_with_a_new_id
    }
}
