//! `ConsumerGroup`: a group that is watched, and moved where it is told to.
//!
//! Owns the fields of spec and status and what admission checks about them. A group is made by its consumers, never by
//! this object; what it can ask for is where a group without offsets starts, one reset at a time, and its deletion.

#![allow(unreachable_pub)] // kube's derive repeats each struct in a form that nobody exports

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::topic::{ClusterRef, DeletionPolicy};

/// Most partitions that one reset may touch: all of them are recorded, so that it can be carried on and undone.
pub const RESET_PARTITIONS_MAX: usize = 256;

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
    doc = "A consumer group of a Keelson cluster: its state, members and lag, judged by an objective; where it starts, and resets of its offsets.",
    validation = Rule::new("has(self.spec.groupId) || size(self.metadata.name) <= 249").message("metadata.name is longer than a group id may be (249): set spec.groupId"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.totalLag"),
    printcolumn(name = "Seconds", type_ = "integer", json_path = ".status.maxLagSeconds"),
    printcolumn(name = "Within", type_ = "string", json_path = ".status.conditions[?(@.type==\"LagWithinObjective\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(oldSelf.groupId) == has(self.groupId) && (!has(self.groupId) || self.groupId == oldSelf.groupId)").message("groupId is immutable"),
    validation = Rule::new("has(oldSelf.clusterRef) == has(self.clusterRef) && (!has(self.clusterRef) || self.clusterRef.name == oldSelf.clusterRef.name)").message("clusterRef is immutable"),
    validation = Rule::new("!has(self.initialOffsets) || (has(self.topics) && size(self.topics) > 0)").message("initialOffsets needs topics: where nothing is committed, nothing else tells which"),
    validation = Rule::new("!has(oldSelf.reset) || !has(self.reset) || oldSelf.reset.requestId != self.reset.requestId || oldSelf.reset == self.reset").message("a reset is changed by giving it another requestId")
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

    /// Where the group starts: committed for each of `topics` in which the group has committed nothing, while it has no
    /// members. Never overwrites a committed offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_offsets: Option<InitialOffsets>,

    /// How far behind the group may be before `LagWithinObjective` turns False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_objective: Option<LagObjective>,

    /// Moves the group's offsets, once per `requestId`, while it has no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,

    /// What happens to the group when this object is deleted. Retain (default): nothing. Delete: the group and its
    /// offsets are deleted, once it has no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// While true, the operator observes and reports, and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
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

/// Where a group without offsets starts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("(self.policy == 'Timestamp') == has(self.timestamp)").message("timestamp goes with policy Timestamp, and only with it")
)]
#[serde(rename_all = "camelCase")]
pub struct InitialOffsets {
    /// Earliest, Latest or Timestamp.
    pub policy: InitialPolicy,
    /// With Timestamp: the first record of this time or later, or the end where there is none (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub timestamp: Option<String>,
}

/// Where a group without offsets starts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialPolicy {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// At the first record of a time or later.
    Timestamp,
}

/// How far behind the group may be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("has(self.maxRecords) || has(self.maxSeconds)").message("maxRecords or maxSeconds is needed")
)]
#[serde(rename_all = "camelCase")]
pub struct LagObjective {
    /// Most records that the group may be behind, over all topics in scope together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_records: Option<i64>,
    /// Most seconds that the group may be behind, in the partition where it is most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_seconds: Option<i64>,
}

/// A move of the group's offsets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("(self.to == 'Timestamp') == has(self.timestamp)").message("timestamp goes with to: Timestamp, and only with it"),
    validation = Rule::new("(self.to == 'Offsets') == has(self.offsets)").message("offsets goes with to: Offsets, and only with it"),
    validation = Rule::new("(self.to == 'ShiftBy') == has(self.shiftBy)").message("shiftBy goes with to: ShiftBy, and only with it"),
    validation = Rule::new("self.to != 'Offsets' || !has(self.topics)").message("topics does not go with to: Offsets, which names its partitions itself")
)]
#[serde(rename_all = "camelCase")]
pub struct Reset {
    /// Names this request. A reset is carried out once per requestId; another one needs another.
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[a-zA-Z0-9]([a-zA-Z0-9._:-]*[a-zA-Z0-9])?$")
    )]
    pub request_id: String,
    /// Earliest, Latest, Timestamp, Offsets, ShiftBy, or Previous: where the group was before the last reset.
    pub to: ResetTo,
    /// With Timestamp: the first record of this time or later, or the end where there is none (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub timestamp: Option<String>,
    /// With Offsets: the partitions and their offsets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topic".into(), "partition".into()]))]
    pub offsets: Vec<ResetOffset>,
    /// With ShiftBy: how many records forwards, or backwards if negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift_by: Option<i64>,
    /// The topics to move; unless given, those of the spec, or else all that the group has committed offsets for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<TopicName>,
    /// When it is too late to begin (RFC 3339). Without it, the reset waits for as long as the group has members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time_schema")]
    pub deadline: Option<String>,
    /// While true, the offsets are found and recorded, and nothing is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Where a reset moves the group.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// To the first record there is.
    Earliest,
    /// Behind the last record there is.
    Latest,
    /// To the first record of a time or later.
    Timestamp,
    /// To offsets that are named.
    Offsets,
    /// Some records forwards or backwards.
    ShiftBy,
    /// To where it was before the last reset.
    Previous,
}

/// Where one partition is moved.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ResetOffset {
    /// Name of the topic.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Number of the partition.
    #[schemars(range(min = 0))]
    pub partition: i32,
    /// The offset of the next record to read.
    #[schemars(range(min = 0))]
    pub offset: i64,
}

/// RFC 3339 with an offset from UTC. The pattern is for what `format` lets pass.
fn time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 64,
        "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$",
    })
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

    /// Seconds that the group is behind, in the partition where it is most: the age of the newest record of the batch at
    /// the committed offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_seconds: Option<i64>,

    /// The same, topic by topic; at most 256, those with the most lag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub topics: Vec<GroupTopicStatus>,

    /// The last reset that was asked for and ended, or is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reset: Option<LastReset>,

    /// Ready, LagWithinObjective, ResetPending, ResetSucceeded and Deleting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The group's lag on one topic.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GroupTopicStatus {
    /// Name of the topic.
    pub name: String,
    /// Partitions that the group has a committed offset for.
    pub partitions: i32,
    /// Records between the committed offsets and the ends of the logs.
    pub lag: i64,
    /// Seconds behind, in the partition where it is most; missing if that is not known of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag_seconds: Option<i64>,
}

/// What became of a reset.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LastReset {
    /// The request.
    pub request_id: String,
    /// What became of it, as one word of the list of reasons; ResetRunning while it is under way.
    pub result: String,
    /// When it began.
    #[schemars(schema_with = "plain_time_schema")]
    pub started_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "plain_time_schema")]
    pub finished_at: Option<String>,
    /// Every partition of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["topic".into(), "partition".into()]))]
    pub partitions: Vec<PartitionReset>,
}

fn plain_time_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// The move of one partition.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct PartitionReset {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
    /// The committed offset before; missing if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// The committed offset after.
    pub to: i64,
}
