//! The status of a Topic.
//!
//! Owns how a verdict and the state of the log become `status`, and when two statuses say the same. It reads no clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_crds::{
    ConditionStatus, ConditionType, LogStatus, Reason, TopicStatus, find, same_but_for_time, set,
};

use super::facts::{TopicUpdate, Verdict};

/// What the brokers' logs mean for one topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogView {
    pub(crate) status: Option<LogStatus>,
    pub(crate) condition: (ConditionStatus, Reason, String),
}

/// Everything that goes into a status beside the verdict.
pub(crate) struct Frame<'a> {
    pub(crate) topic: &'a str,
    pub(crate) generation: Option<i64>,
    pub(crate) now: &'a Time,
}

/// The new status. Conditions keep their time unless their status changes.
pub(crate) fn build(
    old: &TopicStatus,
    verdict: &Verdict,
    log: &LogView,
    frame: &Frame<'_>,
) -> TopicStatus {
    let mut new = TopicStatus {
        observed_generation: frame.generation,
        topic_name: Some(frame.topic.to_owned()),
        ownership: verdict.ownership.clone(),
        drift: verdict.drift.clone(),
        log: log.status.clone(),
        conditions: old.conditions.clone(),
        ..TopicStatus::default()
    };
    match &verdict.topic {
        TopicUpdate::Keep => {
            new.topic_id = old.topic_id.clone();
            new.partitions = old.partitions;
            new.replication_factor = old.replication_factor;
            new.ownership = verdict.ownership.clone().or_else(|| old.ownership.clone());
        }
        TopicUpdate::Gone => new.topic_id = old.topic_id.clone(),
        TopicUpdate::None => {}
        TopicUpdate::Is(facts) => {
            new.topic_id = Some(facts.id.to_string());
            new.partitions = Some(facts.partitions);
            new.replication_factor = Some(facts.replication_factor);
        }
    }
    let said = verdict
        .conditions
        .iter()
        .map(|(type_, it)| (*type_, it.clone()));
    for (type_, it) in said.chain([(ConditionType::LogHealthy, log.condition.clone())]) {
        set(&mut new.conditions, type_, it, frame.generation, frame.now);
    }
    new
}

/// True if there is nothing to write: equal in everything but the times.
pub(crate) fn same(left: &TopicStatus, right: &TopicStatus) -> bool {
    let bare = |it: &TopicStatus| TopicStatus {
        conditions: Vec::new(),
        ..it.clone()
    };
    bare(left) == bare(right) && same_but_for_time(&left.conditions, &right.conditions)
}

/// True if the status says Ready for this generation.
pub(crate) fn is_ready(status: &TopicStatus) -> bool {
    find(&status.conditions, ConditionType::Ready)
        .is_some_and(|it| it.status == ConditionStatus::True)
}
