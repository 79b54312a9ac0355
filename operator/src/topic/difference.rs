//! Where a topic differs from its spec, and what would change that.
//!
//! Owns the comparison, key by key. Whether a difference may be changed is not judged here.

use keelson_crds::{ConfigPolicy, DRIFT_ENTRIES_MAX, DriftEntry, OWNER_CONFIG, Reason};

use super::decide::Action;
use super::facts::Desired;
use crate::kafka::{ConfigChange, TopicFacts};

/// Where a topic differs from the spec.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) entries: Vec<DriftEntry>,
    /// What the broker is to change.
    pub(super) change: ConfigChange,
    grow_to: Option<i32>,
    /// What no change can reach.
    pub(super) impossible: Option<(Reason, String)>,
}

impl Difference {
    pub(super) fn between(desired: &Desired, facts: &TopicFacts) -> Self {
        let mut it = Self::default();
        it.shape(desired, facts);
        for (key, value) in desired
            .config
            .iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        {
            let actual = facts
                .configs
                .get(key)
                .and_then(|fact| fact.value.as_deref());
            if !actual.is_some_and(|actual| same_value(actual, value)) {
                it.note(format!("config.{key}"), Some(value), actual);
                it.change.set.insert(key.clone(), value.clone());
            }
        }
        if desired.config_policy == ConfigPolicy::Exclusive {
            let listed = |key: &str| key == OWNER_CONFIG || desired.config.contains_key(key);
            for (key, fact) in facts
                .configs
                .iter()
                .filter(|(key, fact)| fact.explicit && !listed(key))
            {
                it.note(format!("config.{key}"), None, fact.value.as_deref());
                it.change.reset.push(key.clone());
            }
        }
        it
    }

    fn shape(&mut self, desired: &Desired, facts: &TopicFacts) {
        if let Some(wish) = desired.partitions.filter(|wish| *wish != facts.partitions) {
            self.note(
                "partitions".into(),
                Some(&wish.to_string()),
                Some(&facts.partitions.to_string()),
            );
            if wish > facts.partitions {
                self.grow_to = Some(wish);
            } else {
                let words = format!(
                    "topic {} has {} partitions, the spec asks for {wish}, and partitions cannot be removed",
                    desired.topic, facts.partitions
                );
                self.impossible = Some((Reason::PartitionsCannotShrink, words));
            }
        }
        if let Some(wish) = desired
            .replication_factor
            .filter(|wish| *wish != facts.replication_factor)
        {
            self.note(
                "replicationFactor".into(),
                Some(&wish.to_string()),
                Some(&facts.replication_factor.to_string()),
            );
            let words = format!(
                "topic {} has {} replicas, the spec asks for {wish}, and that cannot be changed",
                desired.topic, facts.replication_factor
            );
            self.impossible = Some((Reason::ReplicationFactorCannotChange, words));
        }
    }

    fn note(&mut self, key: String, desired: Option<&str>, actual: Option<&str>) {
        let own = |it: Option<&str>| it.map(str::to_owned);
        self.entries.push(DriftEntry {
            key,
            desired: own(desired),
            actual: own(actual),
        });
    }

    pub(super) fn growth(&self, facts: &TopicFacts) -> Option<Action> {
        self.grow_to.map(|total| Action::AddPartitions {
            from: facts.partitions,
            total,
        })
    }

    pub(super) fn words(&self) -> String {
        words(&self.entries)
    }
}

pub(super) fn words(entries: &[DriftEntry]) -> String {
    let one = |it: &DriftEntry| {
        let value = |it: &Option<String>| it.clone().unwrap_or_else(|| "(default)".into());
        format!(
            "{} is {}, should be {}",
            it.key,
            value(&it.actual),
            value(&it.desired)
        )
    };
    let shown: Vec<String> = entries.iter().take(DRIFT_ENTRIES_MAX).map(one).collect();
    let rest = entries.len().saturating_sub(DRIFT_ENTRIES_MAX);
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join("; "))
}

/// Kafka's configs are strings; `1000` and `01000`, `a, b` and `a,b` mean the same to the broker.
fn same_value(left: &str, right: &str) -> bool {
    if let (Ok(left), Ok(right)) = (left.trim().parse::<i64>(), right.trim().parse::<i64>()) {
        return left == right;
    }
    let parts = |it: &str| {
        it.split(',')
            .map(|part| part.trim().to_owned())
            .collect::<Vec<_>>()
    };
    parts(left) == parts(right)
}
