//! Conditions, in the form that Kubernetes gives them.
//!
//! Owns the closed list of condition types and the rules of change: the transition time moves only with the status,
//! and two lists are compared without their times. It reads no clock; the caller says what time it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// Longest message of a condition: the limit of Kubernetes' own Condition type.
pub const MESSAGE_BYTES_MAX: usize = 32_768;

/// One aspect of an object's state.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// The generation of the spec that this was judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    #[schemars(schema_with = "time_schema")]
    pub last_transition_time: Time,
    /// Why, as one word of the closed list in docs/operator.md.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,
    /// Why, in words; the broker's own error name and text where there is one.
    #[schemars(length(min = 1, max = 32_768))]
    pub message: String,
}

fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// Status of a condition.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It could not be found out.
    Unknown,
}

impl ConditionStatus {
    /// The word as Kubernetes spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The closed list of condition types of both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The object is as described and can be used.
    Ready,
    /// The spec of this generation has been applied.
    Synced,
    /// The topic differs from the spec.
    Drifted,
    /// The topic belongs to somebody else, or may not be adopted.
    Conflict,
    /// Every record of the topic can be read and new ones can be written.
    LogHealthy,
    /// The object is being deleted and the operator holds it.
    Deleting,
    /// The group is no further behind than it may be.
    LagWithinObjective,
    /// A reset was asked for and has not ended.
    ResetPending,
    /// The last reset was carried out.
    ResetSucceeded,
}

impl ConditionType {
    /// The word as it stands in `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Synced => "Synced",
            Self::Drifted => "Drifted",
            Self::Conflict => "Conflict",
            Self::LogHealthy => "LogHealthy",
            Self::Deleting => "Deleting",
            Self::LagWithinObjective => "LagWithinObjective",
            Self::ResetPending => "ResetPending",
            Self::ResetSucceeded => "ResetSucceeded",
        }
    }

    /// The status that means trouble; a change to it is a Warning event.
    #[must_use]
    pub fn bad_status(self) -> ConditionStatus {
        match self {
            Self::Ready
            | Self::Synced
            | Self::LogHealthy
            | Self::LagWithinObjective
            | Self::ResetSucceeded => ConditionStatus::False,
            Self::Drifted | Self::Conflict | Self::Deleting | Self::ResetPending => {
                ConditionStatus::True
            }
        }
    }
}

/// Finds a condition by type.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|it| it.type_ == type_.as_str())
}

/// Sets a condition. Returns true if its status changed (or is new); only then does the time move to `now`.
///
/// An empty message becomes the reason's own words, and a message over the limit is cut at a character boundary:
/// Kubernetes refuses the whole status otherwise.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: ConditionType,
    (status, reason, message): (ConditionStatus, Reason, String),
    generation: Option<i64>,
    now: &Time,
) -> bool {
    let message = if message.is_empty() {
        reason.doc().to_owned()
    } else {
        cut(message)
    };
    let fresh = Condition {
        type_: type_.as_str().to_owned(),
        status,
        observed_generation: generation,
        last_transition_time: now.clone(),
        reason: reason.as_str().to_owned(),
        message,
    };
    match conditions.iter_mut().find(|it| it.type_ == fresh.type_) {
        Some(old) => {
            let changed = old.status != fresh.status;
            let time = if changed {
                fresh.last_transition_time.clone()
            } else {
                old.last_transition_time.clone()
            };
            *old = Condition {
                last_transition_time: time,
                ..fresh
            };
            changed
        }
        None => {
            conditions.push(fresh);
            true
        }
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - 3)
            .rev()
            .find(|at| message.is_char_boundary(*at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// True if two lists say the same, whatever the times.
#[must_use]
pub fn same_but_for_time(left: &[Condition], right: &[Condition]) -> bool {
    let key = |it: &Condition| {
        (
            it.type_.clone(),
            it.status.as_str(),
            it.observed_generation,
            it.reason.clone(),
            it.message.clone(),
        )
    };
    let sorted = |list: &[Condition]| {
        let mut keys: Vec<_> = list.iter().map(key).collect();
        keys.sort();
        keys
    };
    sorted(left) == sorted(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).expect("a valid second"))
    }

    #[test]
    fn time_moves_with_the_status_only() {
        let mut list = Vec::new();
        let ready = ConditionType::Ready;
        assert!(set(
            &mut list,
            ready,
            (ConditionStatus::False, Reason::BrokerRefused, "a".into()),
            Some(1),
            &at(1)
        ));
        assert!(!set(
            &mut list,
            ready,
            (ConditionStatus::False, Reason::Paused, "b".into()),
            Some(2),
            &at(2)
        ));
        assert_eq!(list[0].last_transition_time, at(1));
        assert_eq!(
            (list[0].reason.as_str(), list[0].message.as_str()),
            ("Paused", "b")
        );
        assert!(set(
            &mut list,
            ready,
            (ConditionStatus::True, Reason::AsDescribed, String::new()),
            Some(2),
            &at(3)
        ));
        assert_eq!(list[0].last_transition_time, at(3));
        assert!(
            !list[0].message.is_empty(),
            "an empty message is refused by Kubernetes"
        );
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn comparison_ignores_time_and_order() {
        let mut left = Vec::new();
        let mut right = Vec::new();
        let yes = || (ConditionStatus::True, Reason::AsDescribed, String::new());
        set(&mut left, ConditionType::Ready, yes(), Some(1), &at(1));
        set(&mut left, ConditionType::Synced, yes(), Some(1), &at(1));
        set(&mut right, ConditionType::Synced, yes(), Some(1), &at(9));
        set(&mut right, ConditionType::Ready, yes(), Some(1), &at(9));
        assert!(same_but_for_time(&left, &right));
        set(&mut right, ConditionType::Ready, yes(), Some(2), &at(9));
        assert!(!same_but_for_time(&left, &right));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut list = Vec::new();
        let long = "ä".repeat(MESSAGE_BYTES_MAX);
        set(
            &mut list,
            ConditionType::Ready,
            (ConditionStatus::False, Reason::BrokerRefused, long),
            None,
            &at(1),
        );
        assert!(list[0].message.len() <= MESSAGE_BYTES_MAX);
        assert!(list[0].message.ends_with("ä…"));
    }
}
