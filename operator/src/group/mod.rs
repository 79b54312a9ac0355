//! The ConsumerGroup kind: observe and judge.
//!
//! Owns how offsets become lag and lag becomes a condition. It changes nothing at the broker and never claims to
//! create a group.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_crds::{
    ConditionStatus, ConditionType, ConsumerGroupSpec, ConsumerGroupStatus, GroupTopicStatus,
    LagObjective, Reason, find, same_but_for_time, set,
};

use crate::kafka::{CallError, GroupFacts, PartitionOffsets};

/// Most topics in the status: the limit of the schema.
const TOPICS_MAX: usize = 256;

/// The lag of a group, with what is not known about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) total: i64,
    pub(crate) topics: Vec<GroupTopicStatus>,
    /// Why the total is only a part of the truth.
    pub(crate) gaps: Vec<String>,
}

/// Adds up. A partition without a committed offset has no lag if it is empty, and an unknown one otherwise; an offset
/// beyond the end of the log (a topic that was created anew) is unknown, too.
pub(crate) fn lag(facts: &GroupFacts) -> Lag {
    let mut lag = Lag::default();
    for (topic, partitions) in &facts.offsets {
        let mut sum = GroupTopicStatus {
            name: topic.clone(),
            partitions: 0,
            lag: 0,
        };
        let (mut uncommitted, mut beyond) = (0, 0);
        for it in partitions {
            match judge_partition(it) {
                PartitionLag::Known(records) => {
                    sum.partitions += i32::from(it.committed.is_some());
                    sum.lag = sum.lag.saturating_add(records);
                }
                PartitionLag::Uncommitted => uncommitted += 1,
                PartitionLag::BeyondEnd => beyond += 1,
            }
        }
        if uncommitted > 0 {
            lag.gaps.push(format!(
                "{uncommitted} partitions of {topic} with records have no committed offset"
            ));
        }
        if beyond > 0 {
            lag.gaps.push(format!(
                "{beyond} committed offsets lie beyond the end of {topic}"
            ));
        }
        lag.total = lag.total.saturating_add(sum.lag);
        lag.topics.push(sum);
    }
    lag.gaps.extend(
        facts
            .missing_topics
            .iter()
            .map(|topic| format!("topic {topic} does not exist")),
    );
    lag.topics.sort_by(|left, right| {
        right
            .lag
            .cmp(&left.lag)
            .then_with(|| left.name.cmp(&right.name))
    });
    lag
}

enum PartitionLag {
    Known(i64),
    Uncommitted,
    BeyondEnd,
}

fn judge_partition(it: &PartitionOffsets) -> PartitionLag {
    match it.committed {
        None if it.start == it.end => PartitionLag::Known(0),
        None => PartitionLag::Uncommitted,
        Some(committed) if committed > it.end => PartitionLag::BeyondEnd,
        // What retention removed cannot be lagged behind.
        Some(committed) => PartitionLag::Known(it.end - committed.max(it.start)),
    }
}

fn is_absent(facts: &GroupFacts) -> bool {
    facts.state == "Dead"
        && facts.members == 0
        && facts
            .offsets
            .values()
            .flatten()
            .all(|it| it.committed.is_none())
}

/// The new status from what was seen.
pub(crate) fn build(
    spec: &ConsumerGroupSpec,
    old: &ConsumerGroupStatus,
    seen: &Result<GroupFacts, CallError>,
    generation: Option<i64>,
    now: &Time,
) -> ConsumerGroupStatus {
    let mut new = ConsumerGroupStatus {
        observed_generation: generation,
        conditions: old.conditions.clone(),
        ..ConsumerGroupStatus::default()
    };
    let (ready, within) = match seen {
        Err(error) => {
            let kept = old.clone();
            new = ConsumerGroupStatus {
                observed_generation: generation,
                ..kept
            };
            let (status, message) = match error {
                CallError::Unreachable { .. } => (ConditionStatus::Unknown, error.to_string()),
                CallError::Refused { .. } | CallError::Unexpected { .. } => {
                    (ConditionStatus::False, error.to_string())
                }
            };
            (
                (status, error.reason(), message.clone()),
                (ConditionStatus::Unknown, error.reason(), message),
            )
        }
        Ok(facts) => observed(spec, facts, &mut new),
    };
    set(
        &mut new.conditions,
        ConditionType::Ready,
        ready,
        generation,
        now,
    );
    set(
        &mut new.conditions,
        ConditionType::LagWithinObjective,
        within,
        generation,
        now,
    );
    new
}

type Said = (ConditionStatus, Reason, String);

/// Ready and LagWithinObjective of a group that was looked at; the facts go into the status.
fn observed(
    spec: &ConsumerGroupSpec,
    facts: &GroupFacts,
    new: &mut ConsumerGroupStatus,
) -> (Said, Said) {
    new.state = Some(facts.state.clone());
    new.members = Some(i32::try_from(facts.members).unwrap_or(i32::MAX));
    if is_absent(facts) {
        let why = match spec.lag_objective {
            Some(_) => Reason::GroupAbsent,
            None => Reason::NoObjective,
        };
        return (
            (ConditionStatus::True, Reason::GroupAbsent, String::new()),
            (ConditionStatus::Unknown, why, String::new()),
        );
    }
    let lag = lag(facts);
    new.protocol_type = Some(facts.protocol_type.clone()).filter(|it| !it.is_empty());
    new.assignor = Some(facts.assignor.clone()).filter(|it| !it.is_empty());
    new.total_lag = Some(lag.total);
    new.topics = lag.topics.iter().take(TOPICS_MAX).cloned().collect();
    let ready = (ConditionStatus::True, Reason::Observed, String::new());
    (ready, within(spec.lag_objective, &lag))
}

/// Too much is too much, whatever else is unknown; little is only enough if all is known.
///
/// The message names the objective and the topic that is furthest behind, never the momentary lag of a healthy group:
/// that stands in `status.totalLag`.
fn within(objective: Option<LagObjective>, lag: &Lag) -> (ConditionStatus, Reason, String) {
    let Some(LagObjective { max_records }) = objective else {
        return (ConditionStatus::Unknown, Reason::NoObjective, String::new());
    };
    if lag.total > max_records {
        let worst = lag.topics.first().map_or("", |it| it.name.as_str());
        let words = format!(
            "{} records behind, {max_records} are allowed; most of them on {worst}",
            lag.total
        );
        return (ConditionStatus::False, Reason::LagAboveObjective, words);
    }
    if lag.gaps.is_empty() {
        return (
            ConditionStatus::True,
            Reason::LagWithinObjective,
            format!("at most {max_records} records behind"),
        );
    }
    (
        ConditionStatus::Unknown,
        Reason::LagUnknown,
        lag.gaps.join("; "),
    )
}

/// True if there is nothing to write: equal in everything but the times.
pub(crate) fn same(left: &ConsumerGroupStatus, right: &ConsumerGroupStatus) -> bool {
    let bare = |it: &ConsumerGroupStatus| ConsumerGroupStatus {
        conditions: Vec::new(),
        ..it.clone()
    };
    bare(left) == bare(right) && same_but_for_time(&left.conditions, &right.conditions)
}

/// True if the status says Ready.
pub(crate) fn is_ready(status: &ConsumerGroupStatus) -> bool {
    find(&status.conditions, ConditionType::Ready)
        .is_some_and(|it| it.status == ConditionStatus::True)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keelson_crds::Condition;

    use super::*;

    fn at(committed: impl Into<Option<i64>>, start: i64, end: i64) -> PartitionOffsets {
        PartitionOffsets {
            partition: 0,
            committed: committed.into(),
            start,
            end,
        }
    }

    fn facts(offsets: &[(&str, Vec<PartitionOffsets>)]) -> GroupFacts {
        let offsets: BTreeMap<_, _> = offsets
            .iter()
            .map(|(topic, list)| ((*topic).to_owned(), list.clone()))
            .collect();
        GroupFacts {
            state: "Stable".into(),
            protocol_type: "consumer".into(),
            assignor: "range".into(),
            members: 2,
            offsets,
            missing_topics: Vec::new(),
        }
    }

    fn spec(max_records: Option<i64>) -> ConsumerGroupSpec {
        ConsumerGroupSpec {
            lag_objective: max_records.map(|max_records| LagObjective { max_records }),
            ..ConsumerGroupSpec::default()
        }
    }

    fn status(max: Option<i64>, seen: Result<GroupFacts, CallError>) -> ConsumerGroupStatus {
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        build(
            &spec(max),
            &ConsumerGroupStatus::default(),
            &seen,
            Some(1),
            &now,
        )
    }

    #[track_caller]
    fn check(
        max: Option<i64>,
        seen: Result<GroupFacts, CallError>,
        ready: Reason,
        within: (ConditionStatus, Reason),
        words: &str,
    ) {
        let status = status(max, seen);
        let condition = |type_| -> &Condition { find(&status.conditions, type_).unwrap() };
        assert_eq!(condition(ConditionType::Ready).reason, ready.as_str());
        let lag = condition(ConditionType::LagWithinObjective);
        assert_eq!(
            (lag.status, lag.reason.as_str()),
            (within.0, within.1.as_str())
        );
        assert!(lag.message.contains(words), "{}", lag.message);
    }

    #[test]
    fn lag_adds_up() {
        let found = lag(&facts(&[
            ("a", vec![at(5, 0, 10), at(10, 0, 10)]),
            ("b", vec![at(0, 100, 110), at(None, 7, 7)]),
        ]));
        assert_eq!(found.total, 15);
        assert_eq!(found.gaps, Vec::<String>::new());
        let rows: Vec<_> = found
            .topics
            .iter()
            .map(|it| (it.name.as_str(), it.partitions, it.lag))
            .collect();
        assert_eq!(rows, [("b", 1, 10), ("a", 2, 5)]);
        let gaps = lag(&GroupFacts {
            missing_topics: vec!["c".into()],
            ..facts(&[("a", vec![at(None, 0, 1), at(9, 0, 1)])])
        })
        .gaps;
        assert_eq!(gaps.len(), 3, "{gaps:?}");
    }

    #[test]
    fn judged_by_the_objective() {
        use ConditionStatus::{False, True, Unknown};
        let group = |offsets| Ok(facts(&[("a", offsets)]));
        check(
            Some(5),
            group(vec![at(5, 0, 10)]),
            Reason::Observed,
            (True, Reason::LagWithinObjective),
            "at most 5",
        );
        check(
            Some(4),
            group(vec![at(5, 0, 10)]),
            Reason::Observed,
            (False, Reason::LagAboveObjective),
            "5 records behind, 4 are allowed; most of them on a",
        );
        check(
            Some(0),
            group(vec![at(10, 0, 10)]),
            Reason::Observed,
            (True, Reason::LagWithinObjective),
            "",
        );
        check(
            Some(5),
            group(vec![at(10, 0, 10), at(None, 0, 3)]),
            Reason::Observed,
            (Unknown, Reason::LagUnknown),
            "no committed offset",
        );
        check(
            Some(5),
            group(vec![at(0, 0, 10), at(None, 0, 3)]),
            Reason::Observed,
            (False, Reason::LagAboveObjective),
            "10 records",
        );
        check(
            Some(5),
            group(vec![at(11, 0, 10)]),
            Reason::Observed,
            (Unknown, Reason::LagUnknown),
            "beyond the end",
        );
        check(
            None,
            group(vec![at(5, 0, 10)]),
            Reason::Observed,
            (Unknown, Reason::NoObjective),
            "",
        );
        let nobody = GroupFacts {
            state: "Dead".into(),
            ..GroupFacts::default()
        };
        check(
            Some(5),
            Ok(nobody),
            Reason::GroupAbsent,
            (Unknown, Reason::GroupAbsent),
            "",
        );
        let away = CallError::Unreachable {
            message: "connection refused".into(),
        };
        check(
            Some(5),
            Err(away),
            Reason::BrokerUnreachable,
            (Unknown, Reason::BrokerUnreachable),
            "connection refused",
        );
        let no = CallError::Refused {
            error: "COORDINATOR_NOT_AVAILABLE".into(),
            message: "later".into(),
            retriable: false,
        };
        check(
            Some(5),
            Err(no),
            Reason::BrokerRefused,
            (Unknown, Reason::BrokerRefused),
            "COORDINATOR_NOT_AVAILABLE: later",
        );
    }

    #[test]
    fn the_status_tells_what_was_seen() {
        let found = status(Some(9), Ok(facts(&[("a", vec![at(5, 0, 10)])])));
        assert_eq!(found.state.as_deref(), Some("Stable"));
        assert_eq!(
            (found.members, found.total_lag, found.assignor.as_deref()),
            (Some(2), Some(5), Some("range"))
        );
        assert!(is_ready(&found));
        assert!(same(&found, &found.clone()));
    }

    #[test]
    fn an_unreachable_broker_erases_nothing() {
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let old = status(Some(9), Ok(facts(&[("a", vec![at(5, 0, 10)])])));
        let away = Err(CallError::Unreachable {
            message: "away".into(),
        });
        let new = build(&spec(Some(9)), &old, &away, Some(2), &now);
        assert_eq!(
            (new.total_lag, new.state.as_deref(), new.topics.len()),
            (Some(5), Some("Stable"), 1)
        );
        assert!(!is_ready(&new));
    }
}
