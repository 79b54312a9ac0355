//! The status of a ConsumerGroup.
//!
//! Owns how a verdict becomes `status`, and when two statuses say the same. It reads no clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_crds::{
    ConditionStatus, ConditionType, ConsumerGroupStatus, find, same_but_for_time, set,
};

use super::decide::Verdict;

/// Most topics in the status: the limit of the schema.
const TOPICS_MAX: usize = 256;

/// The new status. Conditions keep their time unless their status changes.
pub(crate) fn build(
    old: &ConsumerGroupStatus,
    verdict: &Verdict,
    generation: Option<i64>,
    now: &Time,
) -> ConsumerGroupStatus {
    let mut new = match &verdict.seen {
        None => old.clone(),
        Some(seen) => {
            let text = |it: &String| Some(it.clone()).filter(|it| !it.is_empty());
            let lag = seen.lag.as_ref();
            ConsumerGroupStatus {
                state: Some(seen.state.clone()),
                protocol_type: text(&seen.protocol_type),
                assignor: text(&seen.assignor),
                members: Some(i32::try_from(seen.members).unwrap_or(i32::MAX)),
                total_lag: lag.map(|it| it.total),
                max_lag_seconds: lag.and_then(|it| it.seconds),
                topics: lag.map_or_else(Vec::new, |it| {
                    it.topics.iter().take(TOPICS_MAX).cloned().collect()
                }),
                conditions: old.conditions.clone(),
                ..ConsumerGroupStatus::default()
            }
        }
    };
    new.observed_generation = generation;
    new.last_reset.clone_from(&verdict.last);
    for (type_, it) in &verdict.conditions {
        set(&mut new.conditions, *type_, it.clone(), generation, now);
    }
    new
}

/// True if there is nothing to write: equal in everything but the times.
pub(crate) fn same(left: &ConsumerGroupStatus, right: &ConsumerGroupStatus) -> bool {
    let bare = |it: &ConsumerGroupStatus| ConsumerGroupStatus {
        conditions: Vec::new(),
        ..it.clone()
    };
    bare(left) == bare(right) && same_but_for_time(&left.conditions, &right.conditions)
}

/// True if nothing differs but the numbers that move on their own while a group lags, and the words about them.
pub(crate) fn same_but_for_numbers(
    left: &ConsumerGroupStatus,
    right: &ConsumerGroupStatus,
) -> bool {
    let calm = |it: &ConsumerGroupStatus| {
        let mut calm = it.clone();
        (calm.total_lag, calm.max_lag_seconds) = (None, None);
        for topic in &mut calm.topics {
            (topic.lag, topic.max_lag_seconds) = (0, None);
        }
        // Which ones have the most lag, and in which order, moves along with it.
        match calm.topics.len() < TOPICS_MAX {
            true => calm
                .topics
                .sort_by(|left, right| left.name.cmp(&right.name)),
            false => calm.topics.clear(),
        }
        for it in &mut calm.conditions {
            if it.type_ == ConditionType::LagWithinObjective.as_str() {
                it.message.clear();
            }
        }
        calm
    };
    same(&calm(left), &calm(right))
}

/// True if the status says Ready.
pub(crate) fn is_ready(status: &ConsumerGroupStatus) -> bool {
    find(&status.conditions, ConditionType::Ready)
        .is_some_and(|it| it.status == ConditionStatus::True)
}
