//! `ConsumerGroup`: a group that is watched.
//!
//! Owns the fields of spec and status. In this version the kind observes and judges; it never changes a group, so it
//! has no field that asks for a change.

#![allow(unreachable_pub)] // kube's derive repeats each struct in a form that nobody exports

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::topic::ClusterRef;

/// A consumer group of a Keelson cluster, observed and judged.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "keelson.dev",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    plural = "consumergroups",
    singular = "consumergroup",
    shortname = "kgroup",
    category = "keelson",
    namespaced,
    cel,
    status = "ConsumerGroupStatus",
    derive = "PartialEq",
    doc = "A consumer group of a Keelson cluster: its state, members and lag, judged by an objective.",
    validation = Rule::new("has(self.spec.groupId) || size(self.metadata.name) <= 249").message("metadata.name is longer than a group id may be (249): set spec.groupId"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.totalLag"),
    printcolumn(name = "Within", type_ = "string", json_path = ".status.conditions[?(@.type==\"LagWithinObjective\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(oldSelf.groupId) == has(self.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)").message("groupId is immutable"),
    validation = Rule::new("has(oldSelf.clusterRef) == has(self.clusterRef) && (!has(self.clusterRef) || self.clusterRef.name == oldSelf.clusterRef.name)").message("clusterRef is immutable")
)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerGroupSpec {
    /// The cluster (Helm release) that coordinates the group. Without it, the operator that watches this namespace
    /// serves the object. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,

    /// The `group.id` of the consumers; `metadata.name` unless given. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    pub group_id: Option<String>,

    /// The topics whose lag counts; all that the group has committed offsets for unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<TopicName>,

    /// How far behind the group may be before `LagWithinObjective` turns False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_objective: Option<LagObjective>,
}

impl ConsumerGroupSpec {
    /// The group's id in Kafka.
    #[must_use]
    pub fn group_id<'a>(&'a self, metadata_name: &'a str) -> &'a str {
        self.group_id.as_deref().unwrap_or(metadata_name)
    }

    /// True if an operator with `--cluster cluster` serves this object.
    #[must_use]
    pub fn served_by(&self, cluster: &str) -> bool {
        self.cluster_ref
            .as_ref()
            .is_none_or(|it| it.name == cluster)
    }
}

/// One topic of the group's scope.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicName {
    /// Name of the topic in Kafka.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub name: String,
}

/// How far behind the group may be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LagObjective {
    /// Most records that the group may be behind, over all topics in scope together.
    #[schemars(range(min = 0))]
    pub max_records: i64,
}

/// What the operator last saw.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerGroupStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Kafka's name of the group's state: Empty, PreparingRebalance, CompletingRebalance, Stable or Dead (unknown).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,

    /// What the members agreed on: `consumer` for consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_type: Option<String>,

    /// The partition assignor that the members chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignor: Option<String>,

    /// Number of members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<i32>,

    /// Records between the committed offsets and the ends of the logs, over all topics in scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_lag: Option<i64>,

    /// The same, topic by topic; at most 256, those with the most lag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<GroupTopicStatus>,

    /// Ready and LagWithinObjective.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The group's lag on one topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct GroupTopicStatus {
    /// Name of the topic.
    pub name: String,
    /// Partitions that the group has a committed offset for.
    pub partitions: i32,
    /// Records between the committed offsets and the ends of the logs.
    pub lag: i64,
}
