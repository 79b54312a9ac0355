//! What `decide` is told and what it answers with.
//!
//! Owns the plain types of the judgement. No client, no clock, no Kubernetes object is in them.

use std::collections::BTreeMap;

use keelson_crds::{
    AdoptionPolicy, ConditionStatus, ConditionType, ConfigPolicy, DeletionPolicy, DriftEntry,
    DriftPolicy, Ownership, OwnershipState, Reason, TopicSpec,
};
use uuid::Uuid;

pub(crate) use crate::deletion::Deleting;
use crate::kafka::TopicFacts;

/// The spec with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) topic: String,
    pub(crate) partitions: Option<i32>,
    pub(crate) replication_factor: Option<i32>,
    /// `None`: this key is left alone.
    pub(crate) config: BTreeMap<String, Option<String>>,
    pub(crate) config_policy: ConfigPolicy,
    pub(crate) adoption_policy: AdoptionPolicy,
    pub(crate) drift_policy: DriftPolicy,
    pub(crate) deletion_policy: DeletionPolicy,
    pub(crate) paused: bool,
    /// The value of `keelson.owner` that means this object.
    pub(crate) owner: String,
    /// How every topic name of the object's namespace begins; empty: anyhow.
    pub(crate) prefix: String,
}

impl Desired {
    /// Applies the defaults.
    pub(crate) fn new(spec: &TopicSpec, metadata_name: &str, owner: String) -> Self {
        let value = |it: &Option<keelson_crds::ConfigValue>| it.as_ref().map(ToString::to_string);
        Self {
            topic: spec.topic_name(metadata_name).to_owned(),
            partitions: spec.partitions,
            replication_factor: spec.replication_factor,
            config: spec
                .config
                .iter()
                .map(|(key, it)| (key.clone(), value(it)))
                .collect(),
            config_policy: spec.config_policy.unwrap_or_default(),
            adoption_policy: spec.adoption_policy.unwrap_or_default(),
            drift_policy: spec.drift_policy.unwrap_or_default(),
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
            paused: spec.paused.unwrap_or(false),
            owner,
            prefix: String::new(),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) object: ObjectView,
    pub(crate) cluster: ClusterView,
}

/// What the object itself tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectView {
    /// Our finalizer is on it.
    pub(crate) has_finalizer: bool,
    /// It lives where finalizers exist.
    pub(crate) finalizers_exist: bool,
    /// It is being deleted.
    pub(crate) deleting: Option<Deleting>,
    /// This generation of the spec was applied before: a difference now is drift, not a wish.
    pub(crate) applied: bool,
    /// The id of the topic that belonged to it when last seen.
    pub(crate) known_id: Option<Uuid>,
}

/// The cluster as far as it could be reached.
pub(crate) type ClusterView = crate::deletion::ClusterView<TopicView>;

/// The topic, if it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicView {
    Absent,
    Present(TopicFacts, Owner),
}

/// Whom a topic belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This object.
    Ours,
    /// Nobody.
    Nobody,
    /// An object of this Kubernetes cluster that is gone.
    Stale(String),
    /// Another object.
    Foreign(String),
}

impl Owner {
    pub(crate) fn ownership(&self, ours: &str) -> Ownership {
        let (state, owner) = match self {
            Self::Ours => (OwnershipState::Owned, Some(ours.to_owned())),
            Self::Nobody => (OwnershipState::Unowned, None),
            Self::Stale(owner) => (OwnershipState::Stale, Some(owner.clone())),
            Self::Foreign(owner) => (OwnershipState::Foreign, Some(owner.clone())),
        };
        Ownership { state, owner }
    }
}

/// What the status will say. It holds as seen, provided that no action is pending.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Every condition but `LogHealthy`.
    pub(crate) conditions: BTreeMap<ConditionType, (ConditionStatus, Reason, String)>,
    pub(crate) drift: Vec<DriftEntry>,
    pub(crate) ownership: Option<Ownership>,
    /// The topic that belongs to the object.
    pub(crate) topic: TopicUpdate,
}

/// What becomes of the topic's facts in the status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum TopicUpdate {
    /// They could not be looked at: what stood there stays.
    #[default]
    Keep,
    /// It is this one.
    Is(TopicFacts),
    /// It is gone; its id is kept, since deletion goes by it.
    Gone,
    /// There is none that belongs to the object.
    None,
}

impl Verdict {
    pub(crate) fn say(
        &mut self,
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.conditions
            .insert(type_, (status, reason, message.into()));
    }

    /// The verdict after an order failed: neither applied nor ready, in the words of whoever refused.
    pub(crate) fn fail(&mut self, reason: Reason, message: &str) {
        self.say(
            ConditionType::Synced,
            ConditionStatus::False,
            reason,
            message,
        );
        self.say(
            ConditionType::Ready,
            ConditionStatus::False,
            reason,
            message,
        );
    }
}
