//! The one table of what is served: API, versions, frame class.
//!
//! Owns what ApiVersions advertises. Never lists what the server does not implement.

use kafka_protocol::messages::ApiKey;

use crate::shape::{self, Shape};

/// Which budget and limit a request frame falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameClass {
    /// Carries record batches (Produce): large frames, own budget.
    Records,
    /// Everything else: small frames, own budget.
    Control,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct ApiSpec {
    /// Which API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The lowest version served.
    pub min: i16,
    /// The highest version served.
    pub max: i16,
    /// The lowest version advertised; differs from `min` for Produce only (KIP-896 and librdkafka).
    pub advertised_min: i16,
    /// Which budget its requests draw on.
    pub class: FrameClass,
    /// What its request bodies look like.
    pub body: &'static Shape,
}

impl ApiSpec {
    /// True if this version is served.
    pub fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// True if this version uses compact types and tagged fields (KIP-482).
    pub fn flexible(&self, version: i16) -> bool {
        self.request_header_version(version) >= 2
    }

    /// Version of the request header.
    pub fn request_header_version(&self, version: i16) -> i16 {
        self.key.request_header_version(version)
    }

    /// Version of the response header.
    pub fn response_header_version(&self, version: i16) -> i16 {
        self.key.response_header_version(version)
    }
}

/// Builds the table: name, versions, shape.
macro_rules! apis {
    ($($key:ident: $min:literal..=$max:literal, $body:expr;)*) => {
        &[$(ApiSpec {
            key: ApiKey::$key,
            name: stringify!($key),
            min: $min,
            max: $max,
            advertised_min: if matches!(ApiKey::$key, ApiKey::Produce) { 0 } else { $min },
            class: if matches!(ApiKey::$key, ApiKey::Produce) { FrameClass::Records } else { FrameClass::Control },
            body: &$body,
        },)*]
    };
}

/// Every API that is served.
///
/// The lowest versions are those of Kafka 4 (KIP-896), which every client of the last years speaks: librdkafka 2.0,
/// kafka-python, franz-go, Java. The highest are what `kafka-protocol` decodes, less what only brokers need
/// (Fetch 18).
pub const APIS: &[ApiSpec] = apis! {
    Produce: 3..=13, shape::PRODUCE;
    Fetch: 4..=17, shape::FETCH;
    ListOffsets: 1..=10, shape::LIST_OFFSETS;
    Metadata: 0..=13, shape::METADATA;
    OffsetCommit: 2..=9, shape::OFFSET_COMMIT;
    OffsetFetch: 1..=9, shape::OFFSET_FETCH;
    FindCoordinator: 0..=6, shape::FIND_COORDINATOR;
    JoinGroup: 0..=9, shape::JOIN_GROUP;
    Heartbeat: 0..=4, shape::HEARTBEAT;
    LeaveGroup: 0..=5, shape::LEAVE_GROUP;
    SyncGroup: 0..=5, shape::SYNC_GROUP;
    DescribeGroups: 0..=6, shape::DESCRIBE_GROUPS;
    ListGroups: 0..=5, shape::LIST_GROUPS;
    ApiVersions: 0..=4, shape::API_VERSIONS;
    CreateTopics: 2..=7, shape::CREATE_TOPICS;
    DeleteTopics: 1..=6, shape::DELETE_TOPICS;
    DeleteRecords: 0..=2, shape::DELETE_RECORDS;
    InitProducerId: 0..=5, shape::INIT_PRODUCER_ID;
    OffsetForLeaderEpoch: 2..=4, shape::OFFSET_FOR_LEADER_EPOCH;
    AddPartitionsToTxn: 0..=5, shape::ADD_PARTITIONS_TO_TXN;
    AddOffsetsToTxn: 0..=4, shape::ADD_OFFSETS_TO_TXN;
    EndTxn: 0..=5, shape::END_TXN;
    WriteTxnMarkers: 1..=1, shape::WRITE_TXN_MARKERS;
    TxnOffsetCommit: 0..=5, shape::TXN_OFFSET_COMMIT;
    DescribeAcls: 1..=3, shape::DESCRIBE_ACLS;
    CreateAcls: 1..=3, shape::CREATE_ACLS;
    DeleteAcls: 1..=3, shape::DELETE_ACLS;
    DescribeConfigs: 1..=4, shape::DESCRIBE_CONFIGS;
    AlterConfigs: 0..=2, shape::ALTER_CONFIGS;
    AlterReplicaLogDirs: 1..=2, shape::ALTER_REPLICA_LOG_DIRS;
    DescribeLogDirs: 1..=4, shape::DESCRIBE_LOG_DIRS;
    CreatePartitions: 0..=3, shape::CREATE_PARTITIONS;
    CreateDelegationToken: 1..=3, shape::CREATE_DELEGATION_TOKEN;
    RenewDelegationToken: 1..=2, shape::RENEW_DELEGATION_TOKEN;
    ExpireDelegationToken: 1..=2, shape::EXPIRE_DELEGATION_TOKEN;
    DescribeDelegationToken: 1..=3, shape::DESCRIBE_DELEGATION_TOKEN;
    DeleteGroups: 0..=2, shape::DELETE_GROUPS;
    ElectLeaders: 0..=2, shape::ELECT_LEADERS;
    IncrementalAlterConfigs: 0..=1, shape::INCREMENTAL_ALTER_CONFIGS;
    AlterPartitionReassignments: 0..=1, shape::ALTER_PARTITION_REASSIGNMENTS;
    ListPartitionReassignments: 0..=0, shape::LIST_PARTITION_REASSIGNMENTS;
    OffsetDelete: 0..=0, shape::OFFSET_DELETE;
    DescribeClientQuotas: 0..=1, shape::DESCRIBE_CLIENT_QUOTAS;
    DescribeUserScramCredentials: 0..=0, shape::DESCRIBE_USER_SCRAM_CREDENTIALS;
    DescribeQuorum: 0..=2, shape::DESCRIBE_QUORUM;
    DescribeCluster: 0..=2, shape::DESCRIBE_CLUSTER;
    DescribeProducers: 0..=0, shape::DESCRIBE_PRODUCERS;
    DescribeTransactions: 0..=0, shape::DESCRIBE_TRANSACTIONS;
    ListTransactions: 0..=2, shape::LIST_TRANSACTIONS;
    ListConfigResources: 0..=1, shape::LIST_CONFIG_RESOURCES;
    DescribeTopicPartitions: 0..=0, shape::DESCRIBE_TOPIC_PARTITIONS;
};

/// The row of an API, if it is served.
pub fn spec(api_key: i16) -> Option<&'static ApiSpec> {
    APIS.iter().find(|spec| spec.key as i16 == api_key)
}
