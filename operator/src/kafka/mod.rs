//! What the operator needs of a Kafka cluster, and in which words it gets it.
//!
//! Owns the boundary between judgement and the wire: facts come in, orders go out, and every failure is one of three
//! kinds. It holds no opinion about topics; `decide` has all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use keelson_crds::Reason;
use uuid::Uuid;

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod real;

/// A topic as the brokers describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicFacts {
    /// The topic's id.
    pub(crate) id: Uuid,
    /// Number of partitions.
    pub(crate) partitions: i32,
    /// Number of replicas of its first partition.
    pub(crate) replication_factor: i32,
    /// Every config that the broker lists for it.
    pub(crate) configs: BTreeMap<String, ConfigFact>,
}

/// One config of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigFact {
    /// The value in force.
    pub(crate) value: Option<String>,
    /// True if it was set on this very topic, false if it is a default.
    pub(crate) explicit: bool,
}

/// A topic to create. What is `None` is the broker's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    pub(crate) partitions: Option<i32>,
    pub(crate) replication_factor: Option<i32>,
    pub(crate) config: BTreeMap<String, String>,
}

/// Changes to a topic's configs, made in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigChange {
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) reset: Vec<String>,
}

/// A consumer group as its coordinator describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupFacts {
    /// Kafka's name of the state.
    pub(crate) state: String,
    pub(crate) protocol_type: String,
    pub(crate) assignor: String,
    pub(crate) members: usize,
    /// Per topic and partition: where the group is and where the log is.
    pub(crate) offsets: BTreeMap<String, Vec<PartitionOffsets>>,
    /// Topics that were asked for and do not exist.
    pub(crate) missing_topics: Vec<String>,
}

/// Where the group and the log are on one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionOffsets {
    pub(crate) partition: i32,
    /// The committed offset, if there is one.
    pub(crate) committed: Option<i64>,
    /// The note that stands with it.
    pub(crate) note: String,
    /// First offset of the log.
    pub(crate) start: i64,
    /// The offset after the last one.
    pub(crate) end: i64,
    /// The newest timestamp, in ms, of the batch that the group reads next, if it can be known.
    pub(crate) next_ms: Option<i64>,
    /// The first offset at each time that was asked for, in ms; the end if there is none.
    pub(crate) at: BTreeMap<i64, i64>,
}

impl PartitionOffsets {
    /// The offset that the group reads next: what retention removed cannot be read.
    pub(crate) fn next(&self) -> Option<i64> {
        self.committed.map(|committed| committed.max(self.start))
    }
}

/// What is asked about a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupQuery {
    /// The topics that count; all with committed offsets if empty.
    pub(crate) scope: Vec<String>,
    /// More topics to look at.
    pub(crate) also: BTreeSet<String>,
    /// Times, in ms, whose offsets are wanted.
    pub(crate) times: BTreeSet<i64>,
}

/// An offset to commit for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) note: String,
}

/// A broker of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    pub(crate) id: i32,
    pub(crate) host: String,
}

/// Whether an order is carried out or only checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Execute,
    ValidateOnly,
}

/// Why a call had no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// No broker answered.
    #[error("{message}")]
    Unreachable { message: String },
    /// The broker said no, in its own words.
    #[error("{error}: {message}")]
    Refused {
        error: String,
        message: String,
        /// Kafka says that the same request may be taken later.
        retriable: bool,
    },
    /// The answer makes no sense.
    #[error("{message}")]
    Unexpected { message: String },
}

impl CallError {
    /// The reason that conditions, metrics and Events give for it.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::BrokerUnreachable,
            Self::Refused { .. } => Reason::BrokerRefused,
            Self::Unexpected { .. } => Reason::BrokerAnswerUnexpected,
        }
    }

    /// True if the same request would be refused again, until somebody changes something.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Refused { retriable, .. } => !retriable,
            Self::Unreachable { .. } | Self::Unexpected { .. } => false,
        }
    }

    /// True if the topic was created, deleted or replaced, or the group found members or was deleted, between look and
    /// order: look again.
    pub(crate) fn is_stale_view(&self) -> bool {
        match self {
            Self::Refused { error, .. } => [
                "TOPIC_ALREADY_EXISTS",
                "UNKNOWN_TOPIC_OR_PARTITION",
                "UNKNOWN_TOPIC_ID",
                "UNKNOWN_MEMBER_ID",
                "NON_EMPTY_GROUP",
                "GROUP_ID_NOT_FOUND",
            ]
            .contains(&error.as_str()),
            Self::Unreachable { .. } | Self::Unexpected { .. } => false,
        }
    }
}

/// A Kafka cluster. Two forms exist: the real one, and one in memory for tests of fetch and apply.
pub(crate) trait Kafka: Send + Sync + 'static {
    /// The topic of this name, if it exists.
    fn topic(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<TopicFacts>, CallError>> + Send;
    /// The names of all topics but Kafka's own.
    fn topics(&self) -> impl Future<Output = Result<Vec<String>, CallError>> + Send;
    /// Creates a topic.
    fn create_topic(
        &self,
        new: &NewTopic,
        mode: Mode,
    ) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Grows a topic to `total` partitions.
    fn add_partitions(
        &self,
        name: &str,
        total: i32,
        mode: Mode,
    ) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Changes configs of a topic, all or none.
    fn alter_configs(
        &self,
        name: &str,
        change: &ConfigChange,
        mode: Mode,
    ) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Deletes the topic of this id, and no other.
    fn delete_topic(&self, id: Uuid) -> impl Future<Output = Result<(), CallError>> + Send;
    /// A group with its offsets.
    fn group(
        &self,
        id: &str,
        query: &GroupQuery,
    ) -> impl Future<Output = Result<GroupFacts, CallError>> + Send;
    /// Commits offsets of a group that has no members.
    fn commit(
        &self,
        group: &str,
        offsets: &[GroupOffset],
    ) -> impl Future<Output = Result<(), CallError>> + Send;
    /// Deletes a group that has no members, with its offsets.
    fn delete_group(&self, id: &str) -> impl Future<Output = Result<(), CallError>> + Send;
    /// The brokers that the cluster has now.
    fn brokers(&self) -> impl Future<Output = Result<Vec<BrokerAddress>, CallError>> + Send;
}
