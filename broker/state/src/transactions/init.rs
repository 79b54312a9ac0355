//! InitProducerId with a transactional id: a new producer takes over from all before it.

use std::sync::Arc;

use super::machine::{Fenced, Then, TransactionCoordinator, check_id};
use super::transaction::{Next, Transaction};
use super::types::{
    Effect, InitRequest, ProducerIds, Reply, TRANSACTIONAL_IDS_MAX, TransactionError,
};
use super::value::TransactionState;
use crate::persist::Token;

/// How a producer begins.
enum Begin {
    /// With this.
    At(Next),
    /// Not before the transaction of the one before it is aborted.
    Fence,
}

impl TransactionCoordinator {
    pub(super) fn init(
        &mut self,
        now_ms: i64,
        (token, request): (Token, &InitRequest),
        ids: &mut ProducerIds,
        out: &mut Vec<Effect>,
    ) {
        let id = request.transactional_id.as_str();
        match self.decide_init(now_ms, request, ids) {
            Ok(Begin::At(next)) => self.change(id, next, Then::Init(token), out),
            Ok(Begin::Fence) => {
                // It was checked that this is its producer, if it says that it has one.
                let fenced = match request.expected {
                    Some(_) => Fenced::ByItself(token),
                    None => Fenced::By(token),
                };
                self.fence(now_ms, id, fenced, out);
            }
            Err(error) => out.push(Effect::Reply(token, Reply::Init(Err(error)))),
        }
    }

    fn decide_init(
        &mut self,
        now_ms: i64,
        request: &InitRequest,
        ids: &mut ProducerIds,
    ) -> Result<Begin, TransactionError> {
        let id = request.transactional_id.as_str();
        check_id(id)?;
        if request.timeout_ms <= 0 || request.timeout_ms > self.config.timeout_ms_max {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        if !self.transactions.contains_key(id) {
            if self.transactions.len() >= TRANSACTIONAL_IDS_MAX {
                return Err(TransactionError::CoordinatorNotAvailable);
            }
            let id: Arc<str> = id.into();
            let fresh = Transaction::fresh(id.clone(), ids.take()?, request.timeout_ms, now_ms);
            self.transactions.insert(id, fresh);
        }
        let transaction = &self.transactions[id];
        if transaction.pending {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if !transaction.knows(request.expected) {
            return Err(TransactionError::ProducerFenced);
        }
        match transaction.value.state {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                Err(TransactionError::ConcurrentTransactions)
            }
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => transaction
                .begin(request.timeout_ms, request.expected, ids, now_ms)
                .map(Begin::At),
            TransactionState::Ongoing => Ok(Begin::Fence),
            TransactionState::Dead | TransactionState::PrepareEpochFence => {
                unreachable!("neither is ever in the log")
            }
        }
    }
}
