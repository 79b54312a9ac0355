//! Reading without changing: descriptions and lists. What it shows is durable.

use std::collections::{BTreeSet, HashSet};

use super::machine::TransactionCoordinator;
use super::types::TopicPartition;
use super::value::TransactionState;

/// A transactional id as DescribeTransactions shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// Where its transaction stands.
    pub state: TransactionState,
    /// How long a transaction may take.
    pub timeout_ms: i32,
    /// When the transaction began; −1 is not yet.
    pub start_ms: i64,
    /// Its producer id and epoch.
    pub producer: (i64, i16),
    /// The partitions in its transaction.
    pub partitions: BTreeSet<TopicPartition>,
}

/// One line of ListTransactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// Where its transaction stands.
    pub state: TransactionState,
}

/// Which transactional ids are listed; what is empty lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Those in one of these states. None of them: nobody asked.
    pub states: Option<Vec<TransactionState>>,
    /// Those with one of these producer ids.
    pub producer_ids: HashSet<i64>,
    /// Those whose transaction has run for longer; negative: all.
    pub duration_ms: i64,
}

impl TransactionCoordinator {
    /// One transactional id; none when it is not known.
    pub fn describe(&self, id: &str) -> Option<DescribedTransaction> {
        let value = &self
            .transactions
            .get(id)
            .filter(|t| t.value.epoch >= 0)?
            .value;
        Some(DescribedTransaction {
            state: value.state,
            timeout_ms: value.timeout_ms,
            start_ms: value.start_ms,
            producer: (value.producer_id, value.epoch),
            partitions: value.partitions.clone(),
        })
    }

    /// Transactional ids that pass a filter, in no order.
    pub fn list(&self, now_ms: i64, filter: &ListFilter) -> Vec<ListedTransaction> {
        let passes = |value: &super::TransactionValue| {
            let states = filter.states.as_ref();
            value.epoch >= 0
                && states.is_none_or(|states| states.contains(&value.state))
                && (filter.producer_ids.is_empty()
                    || filter.producer_ids.contains(&value.producer_id))
                && (filter.duration_ms < 0 || now_ms - value.start_ms > filter.duration_ms)
        };
        let all = self.transactions.values().filter(|t| passes(&t.value));
        all.map(|transaction| ListedTransaction {
            transactional_id: transaction.id.to_string(),
            producer_id: transaction.value.producer_id,
            state: transaction.value.state,
        })
        .collect()
    }
}
