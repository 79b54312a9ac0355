//! One transactional id: what the log knows of it, and what is under way. It decides what each transition leads to and
//! never carries one out.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::types::{
    AddRequest, MarkersId, ProducerIds, TopicPartition, TransactionConfig, TransactionError,
};
use super::value::{TransactionState, TransactionValue};
use crate::persist::Token;

/// The transaction version from which each end bumps the epoch (KIP-890).
pub(super) const EPOCH_BUMP_VERSION: i16 = 2;

/// No client ever gets this epoch or the one after it... but one is left above what it may have, to fence it with.
pub(super) const EPOCH_EXHAUSTED: i16 = i16::MAX - 1;

/// The markers of a transaction that has ended.
#[derive(Debug)]
pub(super) struct Markers {
    pub(super) id: MarkersId,
    /// Partitions that have none yet.
    pub(super) left: Vec<TopicPartition>,
    /// Given out, and not yet heard of.
    pub(super) under_way: bool,
}

/// What the log is to say next.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) value: TransactionValue,
    pub(super) last_epoch: i16,
}

/// A transactional id.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: Arc<str>,
    /// What the log says.
    pub(super) value: TransactionValue,
    /// The epoch before; the log does not hold it, so that a retry over a restart is refused, as in Kafka. −1 is none.
    pub(super) last_epoch: i16,
    /// A record of it is on its way to the log.
    pub(super) pending: bool,
    pub(super) markers: Option<Markers>,
    /// The end that is answered once the transaction is complete.
    pub(super) ending: Option<Token>,
    /// When something that failed is tried again.
    pub(super) retry_ms: Option<i64>,
    /// The entry that stands for its deadline.
    pub(super) armed_ms: Option<i64>,
}

impl Transaction {
    pub(super) fn of(id: Arc<str>, value: TransactionValue) -> Self {
        Transaction {
            id,
            value,
            last_epoch: -1,
            pending: false,
            markers: None,
            ending: None,
            retry_ms: None,
            armed_ms: None,
        }
    }

    /// An id that nothing is known of yet.
    pub(super) fn fresh(id: Arc<str>, producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        let value = TransactionValue {
            producer_id,
            previous_producer_id: -1,
            next_producer_id: -1,
            epoch: -1,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            start_ms: -1,
            client_version: 0,
        };
        Self::of(id, value)
    }

    /// When time alone changes something, if it does.
    pub(super) fn deadline(&self, config: &TransactionConfig) -> Option<i64> {
        if self.pending {
            return None;
        }
        let value = &self.value;
        self.retry_ms.or(match value.state {
            TransactionState::Ongoing => Some(self.times_out_ms()),
            TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort => {
                Some(value.updated_ms.saturating_add(config.id_expiration_ms))
            }
            TransactionState::PrepareCommit
            | TransactionState::PrepareAbort
            | TransactionState::Dead
            | TransactionState::PrepareEpochFence => None,
        })
    }

    /// When its open transaction has taken too long.
    pub(super) fn times_out_ms(&self) -> i64 {
        self.value.start_ms + i64::from(self.value.timeout_ms)
    }

    /// Whether the producer that a client says it is may go on here (KIP-360).
    pub(super) fn knows(&self, expected: Option<(i64, i16)>) -> bool {
        let Some((producer_id, epoch)) = expected else {
            return true;
        };
        let value = &self.value;
        value.epoch == -1
            || producer_id == value.producer_id
            || (producer_id == value.previous_producer_id && epoch >= EPOCH_EXHAUSTED)
    }

    /// A producer begins where no transaction is: the next epoch, or a new id when the epochs are used up.
    pub(super) fn begin(
        &self,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
        ids: &mut ProducerIds,
        now_ms: i64,
    ) -> Result<Next, TransactionError> {
        let value = &self.value;
        let expected_epoch = expected.map(|(_, epoch)| epoch);
        let mut next = TransactionValue {
            next_producer_id: -1,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            start_ms: -1,
            client_version: 0,
            ..value.clone()
        };
        let is_current = expected_epoch.is_none_or(|epoch| epoch == value.epoch);
        if value.epoch >= EPOCH_EXHAUSTED && is_current {
            next.previous_producer_id = value.producer_id;
            next.producer_id = ids.take()?;
            next.epoch = 0;
            return Ok(Next {
                value: next,
                last_epoch: expected_epoch.map_or(-1, |_| value.epoch),
            });
        }
        let last_epoch = match expected_epoch {
            None => -1,
            Some(_) if value.epoch == -1 || is_current => value.epoch,
            // It asks again for what it was given: nobody else was in between, or the last epoch would be gone.
            Some(epoch) if epoch == self.last_epoch => {
                return Ok(Next {
                    value: next,
                    last_epoch: self.last_epoch,
                });
            }
            Some(_) => return Err(TransactionError::ProducerFenced),
        };
        next.epoch = value.epoch + 1;
        Ok(Next {
            value: next,
            last_epoch,
        })
    }

    /// Partitions join.
    pub(super) fn with_partitions(&self, request: &AddRequest, now_ms: i64) -> Next {
        let mut value = self.value.clone();
        if value.state != TransactionState::Ongoing {
            value.start_ms = now_ms;
        }
        value.state = TransactionState::Ongoing;
        value.partitions.extend(request.partitions.iter().cloned());
        value.updated_ms = now_ms;
        value.client_version = match request.bumps_epoch {
            true => EPOCH_BUMP_VERSION,
            false => 0,
        };
        Next {
            value,
            last_epoch: self.last_epoch,
        }
    }

    /// The transaction is to end as the client says.
    pub(super) fn ended(
        &self,
        commit: bool,
        bumps_epoch: bool,
        ids: &mut ProducerIds,
        now_ms: i64,
    ) -> Result<Next, TransactionError> {
        let mut value = self.value.clone();
        let mut last_epoch = self.last_epoch;
        if value.state != TransactionState::Ongoing {
            value.start_ms = now_ms;
        }
        value.state = if commit {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        };
        value.updated_ms = now_ms;
        value.client_version = 0;
        if bumps_epoch {
            if value.epoch >= EPOCH_EXHAUSTED {
                value.next_producer_id = ids.take()?;
            }
            last_epoch = value.epoch;
            value.epoch = bumped(value.epoch);
            value.client_version = EPOCH_BUMP_VERSION;
        }
        Ok(Next { value, last_epoch })
    }

    /// The transaction is to end without its client, whose epoch is then an old one. Where nobody else has begun, a client of
    /// transaction version 2 learns its new epoch when it asks for the abort itself.
    pub(super) fn fenced(&self, only_late: bool, now_ms: i64) -> Next {
        let mut value = self.value.clone();
        value.state = TransactionState::PrepareAbort;
        value.epoch = bumped(value.epoch);
        value.updated_ms = now_ms;
        if !only_late {
            value.client_version = 0;
        }
        Next {
            value,
            last_epoch: -1,
        }
    }

    /// All markers are written.
    pub(super) fn completed(&self, now_ms: i64) -> Next {
        let mut value = self.value.clone();
        let mut last_epoch = self.last_epoch;
        value.state = if value.state == TransactionState::PrepareCommit {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        };
        value.partitions.clear();
        value.updated_ms = now_ms;
        if value.next_producer_id != -1 {
            last_epoch = value.epoch;
            value.previous_producer_id = value.producer_id;
            (value.producer_id, value.epoch) = self.goes_on_with();
            value.next_producer_id = -1;
        }
        Next { value, last_epoch }
    }

    /// Producer id and epoch that the client goes on with after this end.
    pub(super) fn goes_on_with(&self) -> (i64, i16) {
        let value = &self.value;
        match value.next_producer_id {
            -1 => (value.producer_id, value.epoch),
            next => (next, 0),
        }
    }

    pub(super) fn is_prepared(&self) -> bool {
        matches!(
            self.value.state,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        )
    }
}

fn bumped(epoch: i16) -> i16 {
    let above = epoch.checked_add(1);
    above.expect("one epoch is kept above what a client may have")
}
