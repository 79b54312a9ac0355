//! The Kubernetes types of Keelson: `Topic` and `ConsumerGroup`, with their limits, conditions and reasons.
//!
//! Owns the one vocabulary that the operator speaks (field names, CEL rules, condition types, reasons) and the YAML
//! that is generated from it. It never talks to Kubernetes or to a broker, and it takes no decision about either.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod condition;
mod configs;
mod group;
mod reason;
mod topic;
mod yaml;

pub use admission::{Kind, Problem, check, unknown_fields};
pub use condition::{
    Condition, ConditionStatus, ConditionType, MESSAGE_BYTES_MAX, find, same_but_for_time, set,
};
pub use group::{
    ConsumerGroup, ConsumerGroupSpec, ConsumerGroupStatus, GroupTopicStatus, InitialOffsets,
    InitialPolicy, LagObjective, LastReset, PartitionReset, RESET_PARTITIONS_MAX, Reset,
    ResetOffset, ResetTo, TopicName,
};
pub use reason::{Reason, reasons_markdown};
pub use topic::{
    AdoptionPolicy, ClusterRef, ConfigPolicy, ConfigValue, DRIFT_ENTRIES_MAX, DeletionPolicy,
    DriftEntry, DriftPolicy, LogState, LogStatus, Ownership, OwnershipState, PARTITIONS_MAX, Topic,
    TopicSpec, TopicStatus,
};
pub use yaml::{crd_json, crd_yaml, crds_yaml};

/// API group of all kinds.
pub const GROUP: &str = "keelson.dev";
/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as a manifest spells it.
pub const API_VERSION: &str = "keelson.dev/v1alpha1";
/// The finalizer of a Topic with `deletionPolicy: Delete`.
pub const FINALIZER: &str = "keelson.dev/delete-topic";
/// The finalizer of a ConsumerGroup with `deletionPolicy: Delete`.
pub const GROUP_FINALIZER: &str = "keelson.dev/delete-group";
/// The annotation in which the operator keeps, of a ConsumerGroup's earlier resets, what `status.lastReset` has no room
/// for: the request ids that were used, and how to undo the last one that moved anything.
pub const RESETS_ANNOTATION: &str = "keelson.dev/resets";
/// The topic config that names the object a topic belongs to.
pub const OWNER_CONFIG: &str = "keelson.owner";
