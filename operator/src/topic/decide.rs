//! All judgement about topics.
//!
//! Owns the answer to one question: given this spec and this sight of the world, what is to be done, and what is to be
//! said? It has no client, no clock and no memory; equal input gives equal output.

use std::collections::BTreeMap;
use std::fmt;

use keelson_crds::ConditionStatus::{False, True, Unknown};
use keelson_crds::{
    AdoptionPolicy, ConditionType as Type, DRIFT_ENTRIES_MAX, DeletionPolicy, DriftEntry,
    DriftPolicy, OWNER_CONFIG, Reason,
};
use uuid::Uuid;

use super::deletion::decide_deletion;
use super::difference::{Difference, words};
use super::facts::{
    ClusterView, Desired, ObjectView, Observed, Owner, TopicUpdate, TopicView, Verdict,
};
use crate::kafka::{ConfigChange, NewTopic, TopicFacts};

/// One thing to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Before anything is created that would have to be deleted.
    AddFinalizer,
    Create(NewTopic),
    AlterConfigs {
        change: ConfigChange,
        cause: Reason,
    },
    AddPartitions {
        from: i32,
        total: i32,
    },
    DeleteTopic {
        id: Uuid,
    },
    RemoveFinalizer {
        reason: Reason,
        message: String,
    },
}

impl Action {
    /// True if it changes the broker; then the topic must be looked at again.
    pub(crate) fn changes_broker(&self) -> bool {
        match self {
            Self::Create(_)
            | Self::AlterConfigs { .. }
            | Self::AddPartitions { .. }
            | Self::DeleteTopic { .. } => true,
            Self::AddFinalizer | Self::RemoveFinalizer { .. } => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer => f.write_str("hold the object until the topic is deleted"),
            Self::Create(new) => {
                write!(f, "create topic {}", new.name)?;
                if let Some(count) = new.partitions {
                    write!(f, " with {count} partitions")?;
                }
                Ok(())
            }
            Self::AlterConfigs { change, .. } => {
                let set = change
                    .set
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"));
                let reset = change.reset.iter().map(|key| format!("{key}=(default)"));
                let all: Vec<String> = set.chain(reset).collect();
                write!(f, "set {}", all.join(", "))
            }
            Self::AddPartitions { from, total } => {
                write!(f, "grow from {from} to {total} partitions")
            }
            Self::DeleteTopic { id } => write!(f, "delete the topic with id {id}"),
            Self::RemoveFinalizer { reason, message } => {
                write!(f, "let the object go ({}: {message})", reason.as_str())
            }
        }
    }
}

/// What to do and what to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    pub(crate) actions: Vec<Action>,
    pub(crate) verdict: Verdict,
}

/// The one entry.
pub(crate) fn decide(desired: &Desired, observed: &Observed) -> Decision {
    let object = &observed.object;
    let mut decision = match &object.deleting {
        Some(deleting) => decide_deletion(desired, object, deleting, &observed.cluster),
        None => decide_life(desired, object, &observed.cluster),
    };
    decision.verdict.drift.truncate(DRIFT_ENTRIES_MAX);
    decision
}

fn decide_life(desired: &Desired, object: &ObjectView, cluster: &ClusterView) -> Decision {
    let mut decision = if desired.topic.starts_with(&desired.prefix) {
        decide_allowed(desired, object, cluster)
    } else {
        not_allowed(desired)
    };
    decision
        .verdict
        .say(Type::Deleting, False, Reason::NotDeleting, "");
    finalizer(desired, object, &mut decision);
    decision
}

fn decide_allowed(desired: &Desired, object: &ObjectView, cluster: &ClusterView) -> Decision {
    match cluster {
        ClusterView::Unreachable(message) | ClusterView::Gone(message) => {
            unreachable_cluster(object, message)
        }
        ClusterView::Reachable(TopicView::Absent) => absent(desired, object),
        ClusterView::Reachable(TopicView::Present(facts, owner)) => {
            present(desired, object, facts, owner)
        }
    }
}

/// The finalizer follows the policy. It is put on before a topic is created or adopted, and never for a topic that
/// belongs to somebody else, since such an object has nothing to delete.
fn finalizer(desired: &Desired, object: &ObjectView, decision: &mut Decision) {
    if !object.finalizers_exist {
        return;
    }
    let conflict = decision.verdict.conditions.get(&Type::Conflict);
    let in_conflict = conflict.is_some_and(|it| it.0 == True);
    match desired.deletion_policy {
        DeletionPolicy::Delete if !object.has_finalizer && !in_conflict && !desired.paused => {
            decision.actions.insert(0, Action::AddFinalizer);
        }
        DeletionPolicy::Retain if object.has_finalizer => {
            let message = "deletionPolicy is Retain".to_owned();
            decision.actions.push(Action::RemoveFinalizer {
                reason: Reason::TopicRetained,
                message,
            });
        }
        DeletionPolicy::Delete | DeletionPolicy::Retain => {}
    }
}

/// Whatever is there: objects of this namespace may not speak of it. A topic that was owned before the rule stays as it
/// is.
fn not_allowed(desired: &Desired) -> Decision {
    let mut verdict = Verdict::default();
    let (name, prefix) = (&desired.topic, &desired.prefix);
    let words = format!("topic {name}: names of this namespace begin with {prefix:?}");
    let reason = Reason::NameNotAllowed;
    verdict.say(Type::Conflict, True, reason, words.clone());
    verdict.say(Type::Drifted, Unknown, reason, words.clone());
    verdict.fail(reason, &words);
    Decision {
        actions: Vec::new(),
        verdict,
    }
}

fn unreachable_cluster(object: &ObjectView, message: &str) -> Decision {
    let mut verdict = Verdict::default();
    let reason = Reason::BrokerUnreachable;
    if object.applied {
        verdict.say(Type::Synced, True, Reason::Applied, "");
    } else {
        verdict.say(Type::Synced, False, reason, message);
    }
    verdict.say(Type::Ready, Unknown, reason, message);
    verdict.say(Type::Drifted, Unknown, reason, message);
    verdict.say(Type::Conflict, Unknown, reason, message);
    Decision {
        actions: Vec::new(),
        verdict,
    }
}

fn absent(desired: &Desired, object: &ObjectView) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    let name = &desired.topic;
    verdict.say(Type::Conflict, False, Reason::NoConflict, "");
    if object.applied && object.known_id.is_some() {
        verdict.topic = TopicUpdate::Gone;
        verdict.drift.push(DriftEntry {
            key: "topic".into(),
            desired: Some(name.clone()),
            actual: None,
        });
        let words = format!("topic {name} was deleted by somebody else");
        verdict.say(Type::Drifted, True, Reason::TopicMissing, words.clone());
        if desired.drift_policy == DriftPolicy::Report {
            verdict.say(Type::Synced, True, Reason::Applied, "");
            verdict.say(Type::Ready, False, Reason::TopicMissing, words);
            return decision;
        }
    } else {
        verdict.topic = TopicUpdate::None;
        verdict.say(Type::Drifted, False, Reason::TopicAbsent, "");
    }
    let words = format!("topic {name} does not exist");
    if desired.paused {
        verdict.fail(Reason::Paused, &words);
    } else {
        verdict.fail(Reason::TopicAbsent, &words);
        decision.actions.push(Action::Create(new_topic(desired)));
    }
    decision
}

fn new_topic(desired: &Desired) -> NewTopic {
    let listed = desired.config.iter();
    let mut config: BTreeMap<String, String> = listed
        .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
        .collect();
    config.insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
    NewTopic {
        name: desired.topic.clone(),
        partitions: desired.partitions,
        replication_factor: desired.replication_factor,
        config,
    }
}

fn present(desired: &Desired, object: &ObjectView, facts: &TopicFacts, owner: &Owner) -> Decision {
    let difference = Difference::between(desired, facts);
    let ours = match owner {
        Owner::Ours => true,
        // Somebody took the tag off a topic that is known to be ours.
        Owner::Nobody => object.known_id == Some(facts.id),
        Owner::Stale(_) | Owner::Foreign(_) => false,
    };
    let mut decision = if ours {
        owned(desired, object, facts, (owner, &difference))
    } else {
        adoption(desired, facts, (owner, &difference))
    };
    decision.verdict.ownership = Some(owner.ownership(&desired.owner));
    decision
}

/// The topic is not ours: may it be taken over?
fn adoption(
    desired: &Desired,
    facts: &TopicFacts,
    (owner, difference): (&Owner, &Difference),
) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    verdict.topic = TopicUpdate::None;
    if let Owner::Foreign(_) = owner {
        // How somebody else's topic looks is none of this object's business.
        verdict.say(Type::Drifted, Unknown, Reason::OwnedByAnother, "");
    } else {
        verdict.drift = difference.entries.clone();
        say_drift(verdict);
    }
    if let Some((reason, message)) = refusal(desired, owner, difference) {
        verdict.say(Type::Conflict, True, reason, message.clone());
        verdict.fail(reason, &message);
        return decision;
    }
    verdict.say(Type::Conflict, False, Reason::NoConflict, "");
    let words = format!("topic {} exists and is not adopted yet", desired.topic);
    if desired.paused {
        verdict.fail(Reason::Paused, &words);
        return decision;
    }
    verdict.fail(Reason::DriftFound, &words);
    if let Owner::Stale(_) = owner {
        // The broker refuses to replace one owner by another: the old one goes first.
        let change = ConfigChange {
            reset: vec![OWNER_CONFIG.to_owned()],
            ..ConfigChange::default()
        };
        let cause = Reason::ConfigChanged;
        decision
            .actions
            .push(Action::AlterConfigs { change, cause });
    }
    let mut change = difference.change.clone();
    change
        .set
        .insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
    let cause = Reason::TopicAdopted;
    decision
        .actions
        .push(Action::AlterConfigs { change, cause });
    decision.actions.extend(difference.growth(facts));
    decision
}

/// Why a topic that is not ours is left alone.
fn refusal(desired: &Desired, owner: &Owner, difference: &Difference) -> Option<(Reason, String)> {
    let name = &desired.topic;
    if let Owner::Foreign(other) = owner {
        let words = format!("topic {name} belongs to {other}");
        return Some((Reason::OwnedByAnother, words));
    }
    match desired.adoption_policy {
        AdoptionPolicy::Always => None,
        AdoptionPolicy::IfMatching if difference.entries.is_empty() => None,
        AdoptionPolicy::IfMatching => {
            let differs = difference.words();
            let words = format!("topic {name} exists and is not as described: {differs}");
            Some((Reason::DoesNotMatch, words))
        }
        AdoptionPolicy::Never => {
            let words = format!("topic {name} exists and adoptionPolicy is Never");
            Some((Reason::AdoptionRefused, words))
        }
    }
}

fn say_drift(verdict: &mut Verdict) {
    if verdict.drift.is_empty() {
        verdict.say(Type::Drifted, False, Reason::NoDrift, "");
    } else {
        let words = words(&verdict.drift);
        verdict.say(Type::Drifted, True, Reason::DriftFound, words);
    }
}

/// The topic is ours: is it as described?
fn owned(
    desired: &Desired,
    object: &ObjectView,
    facts: &TopicFacts,
    (owner, difference): (&Owner, &Difference),
) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    verdict.topic = TopicUpdate::Is(facts.clone());
    verdict.drift = difference.entries.clone();
    verdict.say(Type::Conflict, False, Reason::NoConflict, "");
    let mut change = difference.change.clone();
    if *owner != Owner::Ours {
        change
            .set
            .insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
        let entry = DriftEntry {
            key: format!("config.{OWNER_CONFIG}"),
            desired: Some(desired.owner.clone()),
            actual: None,
        };
        verdict.drift.insert(0, entry);
    }
    say_drift(verdict);
    let reported_only = object.applied && desired.drift_policy == DriftPolicy::Report;
    judge_owned(desired, object, difference, verdict);
    if desired.paused || reported_only {
        return decision;
    }
    if change != ConfigChange::default() {
        let cause = match object.applied {
            true => Reason::DriftCorrected,
            false => Reason::ConfigChanged,
        };
        decision
            .actions
            .push(Action::AlterConfigs { change, cause });
    }
    decision.actions.extend(difference.growth(facts));
    decision
}

/// Synced and Ready of a topic of ours, from most to least severe.
fn judge_owned(
    desired: &Desired,
    object: &ObjectView,
    difference: &Difference,
    verdict: &mut Verdict,
) {
    let words = words(&verdict.drift);
    if let Some((reason, message)) = &difference.impossible {
        verdict.fail(*reason, message);
    } else if verdict.drift.is_empty() {
        verdict.say(Type::Synced, True, Reason::Applied, "");
        let why = match desired.paused {
            true => Reason::Paused,
            false => Reason::AsDescribed,
        };
        verdict.say(Type::Ready, True, why, "");
    } else if desired.paused {
        let kept = if object.applied { True } else { False };
        verdict.say(Type::Synced, kept, Reason::Paused, words.clone());
        verdict.say(Type::Ready, False, Reason::Paused, words);
    } else if object.applied && desired.drift_policy == DriftPolicy::Report {
        verdict.say(Type::Synced, True, Reason::Applied, "");
        verdict.say(Type::Ready, True, Reason::DriftFound, words);
    } else {
        verdict.fail(Reason::DriftFound, &words);
    }
}

#[cfg(test)]
mod tests;
