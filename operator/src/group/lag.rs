//! How offsets become lag, and lag becomes a condition.
//!
//! Owns the arithmetic and its gaps: what is not known is never counted as nothing.

use keelson_crds::{ConditionStatus, GroupTopicStatus, LagObjective, Reason};

use super::decide::Said;
use crate::kafka::{GroupFacts, PartitionOffsets};

/// The lag of a group, with what is not known about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) total: i64,
    /// Seconds behind, in the partition where it is most, as far as known.
    pub(crate) seconds: Option<i64>,
    /// Most records behind first.
    pub(crate) topics: Vec<GroupTopicStatus>,
    /// Why the total is only a part of the truth.
    gaps: Vec<String>,
    /// Why the seconds are, beside those.
    age_gaps: Vec<String>,
}

/// Adds up. A partition without a committed offset has no lag if it is empty, and an unknown one otherwise; an offset
/// beyond the end of the log (a topic that was created anew) is unknown, too.
pub(crate) fn lag(facts: &GroupFacts, scope: &[String], now_ms: i64) -> Lag {
    let mut lag = Lag::default();
    let in_scope = |topic: &str, partitions: &[PartitionOffsets]| match scope {
        [] => partitions.iter().any(|it| it.committed.is_some()),
        _ => scope.iter().any(|it| it == topic),
    };
    for (topic, partitions) in &facts.offsets {
        if in_scope(topic, partitions) {
            lag.add(topic, partitions, now_ms);
        }
    }
    let missing = facts.missing_topics.iter();
    lag.gaps.extend(
        missing
            .filter(|topic| scope.is_empty() || scope.contains(topic))
            .map(|topic| format!("topic {topic} does not exist")),
    );
    lag.topics.sort_by(|left, right| {
        let most = right.lag.cmp(&left.lag);
        most.then_with(|| left.name.cmp(&right.name))
    });
    lag
}

impl Lag {
    fn add(&mut self, topic: &str, partitions: &[PartitionOffsets], now_ms: i64) {
        let mut sum = GroupTopicStatus {
            name: topic.to_owned(),
            partitions: 0,
            lag: 0,
            max_lag_seconds: None,
        };
        let (mut uncommitted, mut beyond, mut ageless) = (0, 0, 0);
        for it in partitions {
            sum.partitions += i32::from(it.committed.is_some());
            match judge_partition(it, now_ms) {
                PartitionLag::Known { records, seconds } => {
                    sum.lag = sum.lag.saturating_add(records);
                    sum.max_lag_seconds = sum.max_lag_seconds.max(seconds);
                    ageless += i32::from(seconds.is_none());
                }
                PartitionLag::Uncommitted => uncommitted += 1,
                PartitionLag::BeyondEnd => beyond += 1,
            }
        }
        if uncommitted > 0 {
            self.gaps.push(format!(
                "{uncommitted} partitions of {topic} with records have no committed offset"
            ));
        }
        if beyond > 0 {
            self.gaps.push(format!(
                "{beyond} committed offsets lie beyond the end of {topic}"
            ));
        }
        if ageless > 0 {
            self.age_gaps.push(format!(
                "in {ageless} partitions of {topic} the age of the next record is not known"
            ));
        }
        self.total = self.total.saturating_add(sum.lag);
        self.seconds = self.seconds.max(sum.max_lag_seconds);
        self.topics.push(sum);
    }

    /// Too much is too much, whatever else is unknown; little is only enough if all is known.
    pub(crate) fn within(&self, objective: Option<LagObjective>) -> Said {
        let Some(objective) = objective else {
            return (ConditionStatus::Unknown, Reason::NoObjective, String::new());
        };
        let excess = self.excess(objective);
        if !excess.is_empty() {
            return (
                ConditionStatus::False,
                Reason::LagAboveObjective,
                excess.join("; "),
            );
        }
        let mut gaps = self.gaps.clone();
        if objective.max_seconds.is_some() {
            gaps.extend(self.age_gaps.iter().cloned());
        }
        if !gaps.is_empty() {
            return (
                ConditionStatus::Unknown,
                Reason::LagUnknown,
                gaps.join("; "),
            );
        }
        let records = objective.max_records.map(|it| format!("{it} records"));
        let seconds = objective.max_seconds.map(|it| format!("{it} seconds"));
        let limits: Vec<String> = records.into_iter().chain(seconds).collect();
        (
            ConditionStatus::True,
            Reason::LagWithinObjective,
            format!("at most {} behind", limits.join(" and ")),
        )
    }

    fn excess(&self, objective: LagObjective) -> Vec<String> {
        let mut excess = Vec::new();
        if let Some(max) = objective.max_records.filter(|max| self.total > *max) {
            let worst = self.topics.first().map_or("", |it| it.name.as_str());
            let total = self.total;
            excess.push(format!(
                "{total} records behind, {max} are allowed; most of them on {worst}"
            ));
        }
        if let (Some(max), Some(seconds)) = (objective.max_seconds, self.seconds)
            && seconds > max
        {
            let worst = self.topics.iter().max_by_key(|it| it.max_lag_seconds);
            let worst = worst.map_or("", |it| it.name.as_str());
            excess.push(format!(
                "{seconds} seconds behind, {max} are allowed; the furthest on {worst}"
            ));
        }
        excess
    }
}

enum PartitionLag {
    Known { records: i64, seconds: Option<i64> },
    Uncommitted,
    BeyondEnd,
}

fn judge_partition(it: &PartitionOffsets, now_ms: i64) -> PartitionLag {
    let none = PartitionLag::Known {
        records: 0,
        seconds: Some(0),
    };
    match it.next() {
        None if it.start == it.end => none,
        None => PartitionLag::Uncommitted,
        Some(next) if next > it.end => PartitionLag::BeyondEnd,
        Some(next) if next == it.end => none,
        Some(next) => PartitionLag::Known {
            records: it.end - next,
            seconds: it
                .next_ms
                .map(|then| now_ms.saturating_sub(then).max(0) / 1000),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(committed: impl Into<Option<i64>>, start: i64, end: i64) -> PartitionOffsets {
        PartitionOffsets {
            committed: committed.into(),
            start,
            end,
            ..PartitionOffsets::default()
        }
    }

    fn aged(committed: i64, end: i64, next_ms: i64) -> PartitionOffsets {
        PartitionOffsets {
            next_ms: Some(next_ms),
            ..at(committed, 0, end)
        }
    }

    fn facts(offsets: &[(&str, Vec<PartitionOffsets>)]) -> GroupFacts {
        let offsets: BTreeMap<_, _> = offsets
            .iter()
            .map(|(topic, list)| ((*topic).to_owned(), list.clone()))
            .collect();
        GroupFacts {
            offsets,
            ..GroupFacts::default()
        }
    }

    const NOW: i64 = 100_000;

    #[test]
    fn lag_adds_up() {
        let seen = facts(&[
            ("a", vec![at(5, 0, 10), at(10, 0, 10)]),
            ("b", vec![at(0, 100, 110), at(None, 7, 7)]),
            ("c", vec![aged(5, 6, 95_500), aged(5, 6, 200_000)]),
            ("other", vec![at(None, 0, 50)]),
        ]);
        let found = lag(&seen, &[], NOW);
        assert_eq!((found.total, found.seconds), (17, Some(4)));
        assert_eq!(found.gaps, Vec::<String>::new(), "no commit, no claim");
        assert_eq!(found.age_gaps.len(), 2);
        let rows: Vec<_> = found
            .topics
            .iter()
            .map(|it| (it.name.as_str(), it.partitions, it.lag, it.max_lag_seconds))
            .collect();
        assert_eq!(
            rows,
            [
                ("b", 1, 10, Some(0)),
                ("a", 2, 5, Some(0)),
                ("c", 2, 2, Some(4))
            ]
        );
        let scope = ["c".to_owned(), "d".to_owned()];
        let found = lag(&seen, &scope, NOW);
        assert_eq!((found.total, found.topics.len()), (2, 1));
        let gaps = GroupFacts {
            missing_topics: vec!["c".into(), "elsewhere".into()],
            ..facts(&[("a", vec![at(None, 0, 1), at(9, 0, 1)])])
        };
        let scope = ["a".to_owned(), "c".to_owned()];
        let gaps = lag(&gaps, &scope, NOW).gaps;
        assert_eq!(gaps.len(), 3, "{gaps:?}");
    }

    #[track_caller]
    fn check(
        (records, seconds): (Option<i64>, Option<i64>),
        offsets: Vec<PartitionOffsets>,
        expected: (ConditionStatus, Reason),
        words: &str,
    ) {
        let objective = (records.is_some() || seconds.is_some()).then_some(LagObjective {
            max_records: records,
            max_seconds: seconds,
        });
        let said = lag(&facts(&[("a", offsets)]), &["a".to_owned()], NOW).within(objective);
        assert_eq!((said.0, said.1), expected, "{}", said.2);
        assert!(said.2.contains(words), "{}", said.2);
    }

    #[test]
    fn judged_by_the_objective() {
        use ConditionStatus::{False, True, Unknown};
        let (within, above) = (
            (True, Reason::LagWithinObjective),
            (False, Reason::LagAboveObjective),
        );
        let unknown = (Unknown, Reason::LagUnknown);
        let five = || vec![at(5, 0, 10)];
        check((Some(5), None), five(), within, "at most 5 records behind");
        let words = "5 records behind, 4 are allowed; most of them on a";
        check((Some(4), None), five(), above, words);
        check((Some(0), None), vec![at(10, 0, 10)], within, "");
        let uncommitted = |from| vec![at(from, 0, 10), at(None, 0, 3)];
        check((Some(5), None), uncommitted(10), unknown, "no committed");
        check((Some(5), None), uncommitted(0), above, "10 records");
        check((Some(5), None), vec![at(11, 0, 10)], unknown, "beyond");
        check((None, None), five(), (Unknown, Reason::NoObjective), "");
        let old = || vec![aged(5, 10, 40_000), aged(0, 10, 99_000)];
        check((None, Some(60)), old(), within, "at most 60 seconds behind");
        let words = "60 seconds behind, 59 are allowed; the furthest on a";
        check((None, Some(59)), old(), above, words);
        let both = "at most 15 records and 60 seconds behind";
        check((Some(15), Some(60)), old(), within, both);
        check((Some(14), Some(59)), old(), above, "; 60 seconds behind");
        check((None, Some(60)), five(), unknown, "age of the next record");
        check((Some(5), None), five(), within, "");
    }
}
