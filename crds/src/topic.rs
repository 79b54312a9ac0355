//! `Topic`: the wish for one Kafka topic.
//!
//! Owns the fields of spec and status and what admission checks about them. Defaults are applied by the operator and
//! never baked into the schema, so that a later default reaches objects that never named the field.

#![allow(unreachable_pub)] // kube's derive repeats each struct in a form that nobody exports

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// Most partitions a Topic may ask for: what one broker is tested with.
pub const PARTITIONS_MAX: i32 = 10_000;
/// Most entries of `status.drift`; more would only bloat the object.
pub const DRIFT_ENTRIES_MAX: usize = 16;

/// A topic of a Keelson cluster, kept as described here.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "keelson.dev",
    version = "v1alpha1",
    kind = "Topic",
    plural = "topics",
    singular = "topic",
    shortname = "ktopic",
    category = "keelson",
    namespaced,
    cel,
    status = "TopicStatus",
    derive = "PartialEq",
    doc = "A topic of a Keelson cluster, created and kept as described here.",
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249").message("metadata.name is longer than a topic name may be (249): set spec.topicName"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.partitions) || !has(self.spec.partitions) || (has(oldSelf.spec.partitions) && oldSelf.spec.partitions == self.spec.partitions) || self.spec.partitions >= oldSelf.status.partitions").message("the topic has more partitions already, and they may only grow"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.replicationFactor) || !has(self.spec.replicationFactor) || (has(oldSelf.spec.replicationFactor) && oldSelf.spec.replicationFactor == self.spec.replicationFactor) || self.spec.replicationFactor == oldSelf.status.replicationFactor").message("the topic exists, and its replicationFactor cannot be changed"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topicName"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".status.partitions"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Log", type_ = "string", json_path = ".status.conditions[?(@.type==\"LogHealthy\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(oldSelf.topicName) == has(self.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)").message("topicName is immutable"),
    validation = Rule::new("has(oldSelf.clusterRef) == has(self.clusterRef) && (!has(self.clusterRef) || self.clusterRef.name == oldSelf.clusterRef.name)").message("clusterRef is immutable"),
    validation = Rule::new("!has(oldSelf.partitions) || (has(self.partitions) && self.partitions >= oldSelf.partitions)").message("partitions may only grow")
)]
#[serde(rename_all = "camelCase")]
pub struct TopicSpec {
    /// The cluster (Helm release) that holds the topic. Without it, the operator that watches this namespace serves
    /// the object. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,

    /// Name of the topic in Kafka; `metadata.name` unless given. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..', '__consumer_offsets', '__transaction_state', '__cluster_metadata'])").message("this name is reserved"))]
    pub topic_name: Option<String>,

    /// Number of partitions; may only grow. Without it, the broker's `num.partitions` at creation, and whatever is
    /// there afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub partitions: Option<i32>,

    /// Number of replicas; the broker's default unless given. It cannot be changed for an existing topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32_767))]
    pub replication_factor: Option<i32>,

    /// Topic configs, as Kafka names them; values are integers or strings, and must be lawful ones. `null` means: leave this key alone,
    /// whatever `configPolicy` says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "config_schema")]
    pub config: BTreeMap<String, Option<ConfigValue>>,

    /// Merge (default): keys that are not listed are left alone. Exclusive: they are set back to the broker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_policy: Option<ConfigPolicy>,

    /// What to do with a topic that exists and belongs to nobody. IfMatching (default): take it over when it is as
    /// described. Always: take it over and change it. Never: leave it alone and report a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption_policy: Option<AdoptionPolicy>,

    /// What to do when the topic was changed by somebody else. Enforce (default): change it back. Report: say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_policy: Option<DriftPolicy>,

    /// What happens to the topic when this object is deleted. Retain (default): nothing. Delete: the topic and its
    /// records are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// While true, the operator observes and reports, and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

impl TopicSpec {
    /// The topic's name in Kafka.
    #[must_use]
    pub fn topic_name<'a>(&'a self, metadata_name: &'a str) -> &'a str {
        self.topic_name.as_deref().unwrap_or(metadata_name)
    }

    /// True if an operator with `--cluster cluster` serves this object.
    #[must_use]
    pub fn served_by(&self, cluster: &str) -> bool {
        self.cluster_ref
            .as_ref()
            .is_none_or(|it| it.name == cluster)
    }
}

/// The Helm release of a Keelson cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRef {
    /// Name of the cluster: the Helm release, and `--cluster` of its operator.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A config value: Kafka's configs are strings, and most of them read as numbers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum ConfigValue {
    /// Written as a number.
    Int(i64),
    /// Written as a string.
    String(String),
}

impl std::fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::String(value) => f.write_str(value),
        }
    }
}

fn config_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "x-kubernetes-int-or-string": true, "nullable": true },
        "x-kubernetes-validations": crate::configs::validations(),
    })
}

/// What happens to configs that the Topic does not list. Merge (default): they are left alone. Exclusive: they are
/// set back to the broker's default.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigPolicy {
    /// They are left alone.
    #[default]
    Merge,
    /// They are set back to the broker's default.
    Exclusive,
}

/// What happens with a topic that exists and belongs to nobody. IfMatching (default): it is taken over when it is as
/// described. Always: it is taken over and changed. Never: it is left alone, and a conflict is reported.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptionPolicy {
    /// It is taken over when it is as described.
    #[default]
    IfMatching,
    /// It is taken over and changed.
    Always,
    /// It is left alone.
    Never,
}

/// What happens when the topic was changed by somebody else. Enforce (default): it is changed back. Report: it is
/// reported.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriftPolicy {
    /// It is changed back.
    #[default]
    Enforce,
    /// It is reported.
    Report,
}

/// What happens to what this object describes when the object is deleted. Retain (default): nothing. Delete: a topic is
/// deleted with its records, a group with its offsets once it has no members.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// What the operator last saw and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Name of the topic in Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,

    /// Id of the topic that belongs to this object; deletion is by this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,

    /// Number of partitions the topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<i32>,

    /// Number of replicas the topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,

    /// Whom the topic belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,

    /// Where the topic differs from the spec; at most 16 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub drift: Vec<DriftEntry>,

    /// What the brokers say about the topic's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogStatus>,

    /// Ready, Synced, Drifted, Conflict, LogHealthy and Deleting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Whom the topic belongs to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Owned, Unowned, Stale or Foreign.
    pub state: OwnershipState,
    /// The topic's `keelson.owner`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// How the topic's owner relates to this object.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipState {
    /// The topic belongs to this object.
    Owned,
    /// The topic belongs to nobody.
    Unowned,
    /// The topic belongs to an object of this Kubernetes cluster that is gone.
    Stale,
    /// The topic belongs to another object.
    Foreign,
}

/// One difference between spec and topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct DriftEntry {
    /// `partitions`, `replicationFactor`, `topic`, or a config key with the prefix `config.`.
    pub key: String,
    /// What the spec says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What the topic has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
}

/// What the brokers say about the topic's log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    /// Healthy, Damaged, ReadOnly, Degraded or Unknown.
    pub state: LogState,
    /// Ranges of offsets of this topic that cannot be served.
    pub quarantined_ranges: i64,
    /// Damaged places of this topic that brokers report, those that cost no record among them.
    pub decode_errors: i64,
}

/// State of a topic's log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// Everything decodes and can be written.
    Healthy,
    /// Records of this topic cannot be decoded.
    Damaged,
    /// A broker accepts no writes.
    ReadOnly,
    /// Damage was found that cost no record.
    Degraded,
    /// Not every broker could be asked.
    Unknown,
}
