//! From a history to its anomalies: a pure function, linear but for sorting.
//!
//! What it takes for lawful: an operation without an outcome may have been done, also later; a rebalance lets a consumer go
//! on elsewhere; a producer without idempotence may store a record twice; what other producers send may stand between two
//! records of one. It takes the history for whole: somebody read each partition to its end after the last operation, and
//! each group read its partitions to their ends.

use std::collections::HashMap;

use super::anomaly::{Anomaly, Kind};
use super::facts::Facts;
use super::history::{History, Key, Value};
use super::{groups, polls, sends};

/// Of each kind so many are told: one shows the bug, and a broken broker has millions.
const ANOMALIES_OF_A_KIND_MAX: usize = 50;

/// Everything in a history that no broker may show to its clients.
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut found = Found::default();
    let facts = Facts::gather(history, &mut found);
    polls::check(&facts, &mut found);
    sends::check(&facts, &mut found);
    groups::check(&facts, &mut found);
    found.anomalies
}

/// The anomalies so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    anomalies: Vec<Anomaly>,
    of_kind: HashMap<Kind, usize>,
}

impl Found {
    /// One more, if there are not enough of its kind.
    pub(super) fn add(&mut self, anomaly: Anomaly) {
        let count = self.of_kind.entry(anomaly.kind).or_default();
        *count += 1;
        if *count <= ANOMALIES_OF_A_KIND_MAX {
            self.anomalies.push(anomaly);
        }
    }

    /// One that is about places in a partition.
    pub(super) fn at(
        &mut self,
        kind: Kind,
        key: Key,
        places: &[(i64, Option<Value>)],
        ops: &[usize],
    ) {
        self.add(Anomaly {
            kind,
            key,
            offsets: places.iter().map(|(offset, _)| *offset).collect(),
            values: places.iter().filter_map(|(_, value)| *value).collect(),
            ops: ops.to_vec(),
            group: None,
        });
    }
}
