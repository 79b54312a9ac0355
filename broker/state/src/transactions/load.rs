//! Rebuilding the machine from the records of its partition, after a start. It never persists before all are in.

use std::sync::Arc;

use super::machine::TransactionCoordinator;
use super::transaction::Transaction;
use super::types::Effect;
use super::value::{TransactionState, TransactionValue, decode_key};
use crate::codec::CodecError;

impl TransactionCoordinator {
    /// Takes over one record, in log order.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CodecError> {
        let id: Arc<str> = decode_key(key)?.into();
        let Some(value) = value else {
            self.transactions.remove(&id);
            return Ok(());
        };
        let value = TransactionValue::decode(value)?;
        match value.state {
            TransactionState::Dead | TransactionState::PrepareEpochFence => {
                return Err(CodecError::Kind {
                    what: "transaction state that is never written",
                    kind: value.state as i32,
                });
            }
            TransactionState::Empty
            | TransactionState::Ongoing
            | TransactionState::PrepareCommit
            | TransactionState::PrepareAbort
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {}
        }
        self.transactions
            .insert(id.clone(), Transaction::of(id, value));
        Ok(())
    }

    /// All records are in: what was decided and not carried out goes on.
    pub fn finish_load(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        let mut ids: Vec<Arc<str>> = self.transactions.keys().cloned().collect();
        ids.sort_unstable();
        for id in ids {
            if self.transactions[&id].is_prepared() {
                self.begin_markers(now_ms, &id, out);
            }
            self.arm(&id);
        }
    }
}
