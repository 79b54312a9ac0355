//! What admin calls take and give, as plain structs.
//!
//! Owns no behaviour beyond defaults and small look-ups.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::BrokerError;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sent with every request, for the broker's logs.
    pub client_id: String,
    /// Limit for reaching one bootstrap server, negotiation included.
    pub connect_timeout: Duration,
    /// Limit for one request.
    pub request_timeout: Duration,
    /// Largest answer that is read.
    pub response_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: "keelson-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            // Metadata of 10,000 partitions takes some 500 KB.
            response_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// A broker as the cluster names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub id: i32,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
    /// Its rack.
    pub rack: Option<String>,
}

/// The answer of Metadata or DescribeCluster (without topics).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// Node id of the controller, if there is one.
    pub controller_id: Option<i32>,
    /// All brokers.
    pub brokers: Vec<Broker>,
    /// The topics asked for, or all.
    pub topics: Vec<Topic>,
}

impl ClusterMetadata {
    /// The topic of that name, if it was found.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics
            .iter()
            .find(|topic| topic.name == name && topic.error.is_none())
    }
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name; empty if it was asked for by an unknown id.
    pub name: String,
    /// Its id; nil if the broker does not tell.
    pub id: Uuid,
    /// True for `__consumer_offsets` and the like.
    pub internal: bool,
    /// Its partitions, by index.
    pub partitions: Vec<Partition>,
    /// Why there is nothing about it, such as UNKNOWN_TOPIC_OR_PARTITION.
    pub error: Option<BrokerError>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its index.
    pub index: i32,
    /// Node id of its leader, if it has one.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 if unknown.
    pub leader_epoch: i32,
    /// Node ids of its replicas.
    pub replicas: Vec<i32>,
    /// Node ids of those in sync.
    pub in_sync: Vec<i32>,
    /// Why it cannot be used now.
    pub error: Option<BrokerError>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` leaves it to the broker.
    pub partitions: Option<i32>,
    /// How many replicas; `None` leaves it to the broker.
    pub replication_factor: Option<i16>,
    /// Its configs.
    pub configs: BTreeMap<String, String>,
}

/// What CreateTopics says about a new topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; nil from a broker that does not tell, and when only validating.
    pub id: Uuid,
    /// Its partitions; -1 if the broker does not tell.
    pub partitions: i32,
    /// Its replicas; -1 if the broker does not tell.
    pub replication_factor: i16,
}

/// What has configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A topic, by name.
    Topic(String),
    /// A broker, by node id.
    Broker(i32),
}

/// Where a config value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the broker, while running.
    DynamicBroker,
    /// Set as a default for all brokers, while running.
    DynamicDefaultBroker,
    /// Set in the broker's file.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// Something newer than this client.
    Other(i8),
}

/// One config of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its key.
    pub name: String,
    /// Its value; `None` if it is sensitive or has none.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// True if it cannot be changed while running.
    pub read_only: bool,
    /// True if its value is not shown.
    pub sensitive: bool,
}

impl ConfigEntry {
    /// True if somebody set it on the topic itself.
    pub fn set_on_topic(&self) -> bool {
        self.source == ConfigSource::Topic
    }
}

/// A change of one config (IncrementalAlterConfigs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlterOp {
    /// Set it.
    Set(String),
    /// Back to the default.
    Delete,
}

/// A group as ListGroups names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub id: String,
    /// `consumer`, or empty for a group that only commits.
    pub protocol_type: String,
    /// Such as `Stable`; empty from a broker that does not tell.
    pub state: String,
}

/// A group as DescribeGroups tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub id: String,
    /// `Stable`, `Empty`, `Dead`, `PreparingRebalance`, `CompletingRebalance`. `Dead`: it does not exist.
    pub state: String,
    /// `consumer`, or empty for a group that only commits.
    pub protocol_type: String,
    /// The assignor that was chosen.
    pub assignor: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Its member id.
    pub id: String,
    /// Its static id.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// What it was assigned, if it is a consumer: partitions by topic.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// The coordinator of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// Its node id.
    pub id: i32,
    /// Its advertised host.
    pub host: String,
    /// Its advertised port.
    pub port: u16,
}

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the last record read; `None` if unknown.
    pub leader_epoch: Option<i32>,
    /// What the committer noted down.
    pub metadata: String,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// A note that stays with it until the next commit.
    pub metadata: String,
}

/// Which offset to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first there is.
    Earliest,
    /// The next one to be written (the high watermark).
    Latest,
    /// The first with a timestamp at or after this one, in ms since the epoch.
    Timestamp(i64),
}

/// The answer of ListOffsets for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset, or the partition's error. `Ok(None)`: nothing has such a timestamp.
    pub offset: Result<Option<i64>, BrokerError>,
    /// Timestamp of that record; -1 if not asked for by timestamp.
    pub timestamp: i64,
}
