//! The families of transactions and of groups as a whole, rendered from what the coordinators count at each scrape.
//!
//! Owns their names and text, and the rule by which a transaction is late. Keeps nothing between scrapes; no label names a
//! group or a transactional id, so that the number of series is always the same.

use keelson_state::groups::{GroupCensus, GroupState};
use keelson_state::transactions::{Outcome, TransactionCensus};

use super::exporter::Family;
use crate::broker::Broker;

/// So much longer than `transaction.max.timeout.ms` a transaction may be silent in a partition before it counts as late:
/// its coordinator has ended it long before (KIP-664).
const LATE_BUFFER_MS: i64 = 300_000;

/// What the coordinators count now. None where one cannot be asked: then its families are missing, as a counter that
/// falls to 0 would stand for a restart.
#[derive(Debug, Default)]
pub struct Counted {
    groups: Option<GroupCensus>,
    transactions: Option<TransactionCensus>,
}

impl Counted {
    /// Asks them.
    pub async fn now(broker: &Broker) -> Self {
        Self {
            groups: broker.coordinator.census().await,
            transactions: broker.transactions.census().await,
        }
    }
}

/// Writes every family.
pub fn render(broker: &Broker, counted: &Counted, out: &mut String) {
    if let Some(census) = &counted.transactions {
        transactions(census, broker.now_ms(), out);
    }
    Family::new(
        out,
        "keelson_partitions_with_late_transactions",
        "Partitions with an open transaction that no coordinator can still know of",
    )
    .plain(late(broker));
    if let Some(census) = &counted.groups {
        groups(census, out);
    }
}

fn transactions(census: &TransactionCensus, now_ms: i64, out: &mut String) {
    let mut ids = Family::new(
        out,
        "keelson_transactional_ids",
        "Transactional ids by the state of their transaction",
    );
    for state in TransactionCensus::STATES {
        ids.labelled(&format!("state=\"{}\"", state.name()), census.ids(state));
    }
    Family::new(
        out,
        "keelson_transaction_oldest_open_age_seconds",
        "Time since the oldest open transaction began, 0 without one",
    )
    .plain(seconds_since(census.oldest_start_ms, now_ms));
    Family::new(
        out,
        "keelson_transaction_overdue_seconds",
        "Time since the first open transaction should have been over, 0 without one",
    )
    .plain(seconds_since(census.first_due_ms, now_ms));
    let mut ended = Family::counter(
        out,
        "keelson_transactions_ended_total",
        "Transactions that were decided, by outcome",
    );
    for outcome in Outcome::ALL {
        let labels = format!("outcome=\"{}\"", outcome.label());
        ended.labelled(&labels, census.ended.of(outcome));
    }
}

fn groups(census: &GroupCensus, out: &mut String) {
    let mut groups = Family::new(out, "keelson_consumergroups", "Groups by state");
    for state in GroupState::ALL {
        groups.labelled(&format!("state=\"{}\"", state.name()), census.groups(state));
    }
    Family::counter(
        out,
        "keelson_consumergroup_rebalances_total",
        "Rebalances that began, over all groups",
    )
    .plain(census.happened.rebalances);
    Family::counter(
        out,
        "keelson_consumergroup_expired_offsets_total",
        "Committed offsets that were removed because their time was over",
    )
    .plain(census.happened.offsets_expired);
}

/// What lies ahead is 0 seconds ago.
fn seconds_since(at_ms: Option<i64>, now_ms: i64) -> f64 {
    at_ms.map_or(0.0, |at_ms| {
        now_ms.saturating_sub(at_ms).max(0) as f64 / 1000.0
    })
}

fn late(broker: &Broker) -> usize {
    let patience_ms = i64::from(broker.config.transaction_max_timeout_ms) + LATE_BUFFER_MS;
    let late_before_ms = broker.now_ms() - patience_ms;
    let topics = broker.partitions.topics();
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let silent_since = partitions.filter_map(|partition| partition.oldest_open_ms());
    silent_since
        .filter(|since_ms| *since_ms < late_before_ms)
        .count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keelson_state::transactions::{
        TransactionConfig, TransactionCoordinator, TransactionState, TransactionValue, encode_key,
    };

    use super::*;
    use crate::testing::TestBroker;

    #[tokio::test]
    async fn every_series_is_there_from_the_start() {
        for sets in [&[][..], &["keelson.metrics.partitions=false"]] {
            let test = TestBroker::start(sets).await;
            let mut text = String::new();
            render(&test.broker, &Counted::now(&test.broker).await, &mut text);
            for family in [
                "keelson_transactional_ids gauge",
                "keelson_transaction_oldest_open_age_seconds gauge",
                "keelson_transaction_overdue_seconds gauge",
                "keelson_transactions_ended_total counter",
                "keelson_partitions_with_late_transactions gauge",
                "keelson_consumergroups gauge",
                "keelson_consumergroup_rebalances_total counter",
                "keelson_consumergroup_expired_offsets_total counter",
            ] {
                assert!(text.contains(&format!("# TYPE {family}\n")), "{text}");
            }
            let series: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
            assert_eq!(series.len(), 6 + 1 + 1 + 4 + 1 + 5 + 1 + 1, "{text}");
            assert!(series.iter().all(|line| line.ends_with(" 0")), "{text}");
        }
    }

    #[test]
    fn ages_are_in_seconds_and_never_below_0() {
        let value = TransactionValue {
            producer_id: 1,
            previous_producer_id: -1,
            next_producer_id: -1,
            epoch: 0,
            timeout_ms: 3_000,
            state: TransactionState::Ongoing,
            partitions: BTreeSet::new(),
            updated_ms: 1_000,
            start_ms: 1_000,
            client_version: 0,
        };
        let mut machine = TransactionCoordinator::new(TransactionConfig::default());
        let key = encode_key("t");
        machine.replay(&key, Some(&value.encode())).unwrap();
        let mut census = TransactionCensus::default();
        machine.count_into(&mut census);
        for (now_ms, age, overdue) in [(0, "0", "0"), (3_500, "2.5", "0"), (4_500, "3.5", "0.5")] {
            let mut text = String::new();
            transactions(&census, now_ms, &mut text);
            for line in [
                format!("keelson_transaction_oldest_open_age_seconds {age}"),
                format!("keelson_transaction_overdue_seconds {overdue}"),
            ] {
                assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
            }
        }
    }
}
