//! All judgement about topics.
//!
//! Owns the answer to one question: given this spec and this sight of the world, what is to be done, and what is to be
//! said? It has no client, no clock and no memory; equal input gives equal output.

use std::collections::BTreeMap;
use std::fmt;

use keelson_crds::{
    AdoptionPolicy, ConditionStatus, ConditionType, ConfigPolicy, DRIFT_ENTRIES_MAX,
    DeletionPolicy, DriftEntry, DriftPolicy, OWNER_CONFIG, Reason,
};
use uuid::Uuid;

use super::facts::{
    ClusterView, Deleting, Desired, HOLD_MAX, ObjectView, Observed, Owner, TopicUpdate, TopicView,
    Verdict,
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
    let mut decision = match cluster {
        ClusterView::Unreachable(message) | ClusterView::Gone(message) => {
            unreachable_cluster(object, message)
        }
        ClusterView::Reachable(TopicView::Absent) => absent(desired, object),
        ClusterView::Reachable(TopicView::Present(facts, owner)) => {
            present(desired, object, facts, owner)
        }
    };
    decision.verdict.say(
        ConditionType::Deleting,
        ConditionStatus::False,
        Reason::NotDeleting,
        "",
    );
    finalizer(desired, object, &mut decision);
    decision
}

/// The finalizer follows the policy. It is put on before a topic is created or adopted, and never for a topic that
/// belongs to somebody else, since such an object has nothing to delete.
fn finalizer(desired: &Desired, object: &ObjectView, decision: &mut Decision) {
    if !object.finalizers_exist {
        return;
    }
    let conflict = decision.verdict.conditions.get(&ConditionType::Conflict);
    let in_conflict = conflict.is_some_and(|it| it.0 == ConditionStatus::True);
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

fn unreachable_cluster(object: &ObjectView, message: &str) -> Decision {
    let mut verdict = Verdict::default();
    let reason = Reason::BrokerUnreachable;
    if object.applied {
        verdict.say(
            ConditionType::Synced,
            ConditionStatus::True,
            Reason::Applied,
            "",
        );
    } else {
        verdict.say(
            ConditionType::Synced,
            ConditionStatus::False,
            reason,
            message,
        );
    }
    verdict.say(
        ConditionType::Ready,
        ConditionStatus::Unknown,
        reason,
        message,
    );
    verdict.say(
        ConditionType::Drifted,
        ConditionStatus::Unknown,
        reason,
        message,
    );
    verdict.say(
        ConditionType::Conflict,
        ConditionStatus::Unknown,
        reason,
        message,
    );
    Decision {
        actions: Vec::new(),
        verdict,
    }
}

fn absent(desired: &Desired, object: &ObjectView) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    verdict.say(
        ConditionType::Conflict,
        ConditionStatus::False,
        Reason::NoConflict,
        "",
    );
    let was_there = object.applied && object.known_id.is_some();
    let entry = DriftEntry {
        key: "topic".into(),
        desired: Some(desired.topic.clone()),
        actual: None,
    };
    if was_there {
        verdict.topic = TopicUpdate::Gone;
        verdict.drift.push(entry);
        let words = format!("topic {} was deleted by somebody else", desired.topic);
        verdict.say(
            ConditionType::Drifted,
            ConditionStatus::True,
            Reason::TopicMissing,
            words.clone(),
        );
        if desired.drift_policy == DriftPolicy::Report {
            verdict.say(
                ConditionType::Synced,
                ConditionStatus::True,
                Reason::Applied,
                "",
            );
            verdict.say(
                ConditionType::Ready,
                ConditionStatus::False,
                Reason::TopicMissing,
                words,
            );
            return decision;
        }
    } else {
        verdict.topic = TopicUpdate::None;
        verdict.say(
            ConditionType::Drifted,
            ConditionStatus::False,
            Reason::TopicAbsent,
            "",
        );
    }
    let why = if desired.paused {
        Reason::Paused
    } else {
        Reason::TopicAbsent
    };
    verdict.fail(why, &format!("topic {} does not exist", desired.topic));
    if !desired.paused {
        let mut config: BTreeMap<String, String> = desired
            .config
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .collect();
        config.insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
        decision.actions.push(Action::Create(NewTopic {
            name: desired.topic.clone(),
            partitions: desired.partitions,
            replication_factor: desired.replication_factor,
            config,
        }));
    }
    decision
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
        owned(desired, object, facts, owner, &difference)
    } else {
        adoption(desired, facts, owner, &difference)
    };
    decision.verdict.ownership = Some(owner.ownership(&desired.owner));
    decision
}

/// The topic is not ours: may it be taken over?
fn adoption(
    desired: &Desired,
    facts: &TopicFacts,
    owner: &Owner,
    difference: &Difference,
) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    verdict.topic = TopicUpdate::None;
    verdict.drift = difference.entries.clone();
    let drifted = if difference.entries.is_empty() {
        (ConditionStatus::False, Reason::NoDrift, String::new())
    } else {
        (
            ConditionStatus::True,
            Reason::DriftFound,
            difference.words(),
        )
    };
    verdict.conditions.insert(ConditionType::Drifted, drifted);
    let name = &desired.topic;
    let refusal = match (owner, desired.adoption_policy) {
        (Owner::Foreign(other), _) => Some((
            Reason::OwnedByAnother,
            format!("topic {name} belongs to {other}"),
        )),
        (Owner::Ours | Owner::Nobody | Owner::Stale(_), AdoptionPolicy::Never) => Some((
            Reason::AdoptionRefused,
            format!("topic {name} exists and adoptionPolicy is Never"),
        )),
        (Owner::Ours | Owner::Nobody | Owner::Stale(_), AdoptionPolicy::IfMatching)
            if !difference.entries.is_empty() =>
        {
            let words = format!(
                "topic {name} exists and is not as described: {}",
                difference.words()
            );
            Some((Reason::DoesNotMatch, words))
        }
        (
            Owner::Ours | Owner::Nobody | Owner::Stale(_),
            AdoptionPolicy::IfMatching | AdoptionPolicy::Always,
        ) => None,
    };
    if let Some((reason, message)) = refusal {
        verdict.say(
            ConditionType::Conflict,
            ConditionStatus::True,
            reason,
            message.clone(),
        );
        verdict.fail(reason, &message);
        return decision;
    }
    verdict.say(
        ConditionType::Conflict,
        ConditionStatus::False,
        Reason::NoConflict,
        "",
    );
    let why = if desired.paused {
        Reason::Paused
    } else {
        Reason::DriftFound
    };
    verdict.fail(why, &format!("topic {name} exists and is not adopted yet"));
    if !desired.paused {
        if let Owner::Stale(_) = owner {
            // The broker refuses to replace one owner by another: the old one goes first.
            let change = ConfigChange {
                reset: vec![OWNER_CONFIG.to_owned()],
                ..ConfigChange::default()
            };
            decision.actions.push(Action::AlterConfigs {
                change,
                cause: Reason::ConfigChanged,
            });
        }
        let mut change = difference.change.clone();
        change
            .set
            .insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
        decision.actions.push(Action::AlterConfigs {
            change,
            cause: Reason::TopicAdopted,
        });
        decision.actions.extend(difference.growth(facts));
    }
    decision
}

/// The topic is ours: is it as described?
fn owned(
    desired: &Desired,
    object: &ObjectView,
    facts: &TopicFacts,
    owner: &Owner,
    difference: &Difference,
) -> Decision {
    let mut decision = Decision::default();
    let verdict = &mut decision.verdict;
    verdict.topic = TopicUpdate::Is(facts.clone());
    verdict.drift = difference.entries.clone();
    verdict.say(
        ConditionType::Conflict,
        ConditionStatus::False,
        Reason::NoConflict,
        "",
    );

    let mut change = difference.change.clone();
    if *owner != Owner::Ours {
        change
            .set
            .insert(OWNER_CONFIG.to_owned(), desired.owner.clone());
        let key = format!("config.{OWNER_CONFIG}");
        verdict.drift.insert(
            0,
            DriftEntry {
                key,
                desired: Some(desired.owner.clone()),
                actual: None,
            },
        );
    }
    let words = words(&verdict.drift);
    if verdict.drift.is_empty() {
        verdict.say(
            ConditionType::Drifted,
            ConditionStatus::False,
            Reason::NoDrift,
            "",
        );
    } else {
        verdict.say(
            ConditionType::Drifted,
            ConditionStatus::True,
            Reason::DriftFound,
            words.clone(),
        );
    }
    let reported_only = object.applied && desired.drift_policy == DriftPolicy::Report;
    if let Some((reason, message)) = &difference.impossible {
        verdict.fail(*reason, message);
    } else if verdict.drift.is_empty() {
        verdict.say(
            ConditionType::Synced,
            ConditionStatus::True,
            Reason::Applied,
            "",
        );
        let why = if desired.paused {
            Reason::Paused
        } else {
            Reason::AsDescribed
        };
        verdict.say(ConditionType::Ready, ConditionStatus::True, why, "");
    } else if desired.paused {
        let kept = if object.applied {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        verdict.say(ConditionType::Synced, kept, Reason::Paused, words.clone());
        verdict.say(
            ConditionType::Ready,
            ConditionStatus::False,
            Reason::Paused,
            words,
        );
    } else if reported_only {
        verdict.say(
            ConditionType::Synced,
            ConditionStatus::True,
            Reason::Applied,
            "",
        );
        verdict.say(
            ConditionType::Ready,
            ConditionStatus::True,
            Reason::DriftFound,
            words,
        );
    } else {
        verdict.fail(Reason::DriftFound, &words);
    }
    if desired.paused || reported_only {
        return decision;
    }
    if change != ConfigChange::default() {
        let cause = if object.applied {
            Reason::DriftCorrected
        } else {
            Reason::ConfigChanged
        };
        decision
            .actions
            .push(Action::AlterConfigs { change, cause });
    }
    decision.actions.extend(difference.growth(facts));
    decision
}

fn decide_deletion(
    desired: &Desired,
    object: &ObjectView,
    deleting: &Deleting,
    cluster: &ClusterView,
) -> Decision {
    let mut decision = Decision::default();
    if !object.has_finalizer {
        return decision;
    }
    let name = &desired.topic;
    let mut release = |reason: Reason, message: String| {
        decision
            .actions
            .push(Action::RemoveFinalizer { reason, message });
    };
    match (desired.deletion_policy, cluster) {
        (DeletionPolicy::Retain, _) => {
            release(Reason::TopicRetained, "deletionPolicy is Retain".into())
        }
        (DeletionPolicy::Delete, ClusterView::Gone(message)) => {
            release(Reason::ClusterGone, message.clone())
        }
        (DeletionPolicy::Delete, ClusterView::Unreachable(message)) if deleting.age >= HOLD_MAX => {
            let minutes = HOLD_MAX.as_secs() / 60;
            release(
                Reason::DeletionGivenUp,
                format!(
                    "topic {name} was not deleted: no broker could be reached for {minutes} minutes: {message}"
                ),
            );
        }
        (DeletionPolicy::Delete, ClusterView::Unreachable(message)) => {
            let words = format!(
                "topic {name} is not deleted yet: {message}; the object is let go at {}",
                deleting.until
            );
            decision.verdict.say(
                ConditionType::Deleting,
                ConditionStatus::True,
                Reason::DeletionHeld,
                words,
            );
            decision.verdict.say(
                ConditionType::Ready,
                ConditionStatus::False,
                Reason::BrokerUnreachable,
                message.clone(),
            );
        }
        (DeletionPolicy::Delete, ClusterView::Reachable(TopicView::Absent)) => {
            release(Reason::TopicDeleted, format!("topic {name} is gone"));
        }
        (
            DeletionPolicy::Delete,
            ClusterView::Reachable(TopicView::Present(facts, Owner::Ours)),
        ) => {
            let (reason, words) = if desired.paused {
                (
                    Reason::Paused,
                    format!("topic {name} is not deleted: the object is paused"),
                )
            } else {
                decision.actions.push(Action::DeleteTopic { id: facts.id });
                (
                    Reason::DeletingTopic,
                    format!("deleting topic {name} with id {}", facts.id),
                )
            };
            decision.verdict.say(
                ConditionType::Deleting,
                ConditionStatus::True,
                reason,
                words.clone(),
            );
            decision
                .verdict
                .say(ConditionType::Ready, ConditionStatus::False, reason, words);
        }
        (DeletionPolicy::Delete, ClusterView::Reachable(TopicView::Present(_, Owner::Nobody))) => {
            release(
                Reason::TopicRetained,
                format!("topic {name} belongs to nobody any more"),
            );
        }
        (
            DeletionPolicy::Delete,
            ClusterView::Reachable(TopicView::Present(
                _,
                Owner::Stale(other) | Owner::Foreign(other),
            )),
        ) => {
            release(
                Reason::TopicRetained,
                format!("topic {name} belongs to {other}"),
            );
        }
    }
    decision
}

/// Where a topic differs from the spec.
#[derive(Debug, Default)]
struct Difference {
    entries: Vec<DriftEntry>,
    change: ConfigChange,
    grow_to: Option<i32>,
    impossible: Option<(Reason, String)>,
}

impl Difference {
    fn between(desired: &Desired, facts: &TopicFacts) -> Self {
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

    fn growth(&self, facts: &TopicFacts) -> Option<Action> {
        self.grow_to.map(|total| Action::AddPartitions {
            from: facts.partitions,
            total,
        })
    }

    fn words(&self) -> String {
        words(&self.entries)
    }
}

fn words(entries: &[DriftEntry]) -> String {
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
