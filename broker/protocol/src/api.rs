//! The one table of what is served: API, versions, frame class.
//!
//! Owns what ApiVersions advertises. Never lists what the server does not implement.

use kafka_protocol::messages::ApiKey;

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
}

impl ApiSpec {
    /// True if this version is served.
    pub fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
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

const fn row(key: ApiKey, name: &'static str, min: i16, max: i16) -> ApiSpec {
    ApiSpec {
        key,
        name,
        min,
        max,
        advertised_min: min,
        class: FrameClass::Control,
    }
}

/// Every API that is served, by key.
pub const APIS: &[ApiSpec] = &[
    ApiSpec {
        advertised_min: 0,
        class: FrameClass::Records,
        ..row(ApiKey::Produce, "Produce", 3, 13)
    },
    row(ApiKey::Fetch, "Fetch", 4, 17),
    row(ApiKey::ListOffsets, "ListOffsets", 1, 10),
    row(ApiKey::Metadata, "Metadata", 0, 13),
    row(ApiKey::OffsetCommit, "OffsetCommit", 2, 9),
    row(ApiKey::OffsetFetch, "OffsetFetch", 1, 9),
    row(ApiKey::FindCoordinator, "FindCoordinator", 0, 6),
    row(ApiKey::JoinGroup, "JoinGroup", 0, 9),
    row(ApiKey::Heartbeat, "Heartbeat", 0, 4),
    row(ApiKey::LeaveGroup, "LeaveGroup", 0, 5),
    row(ApiKey::SyncGroup, "SyncGroup", 0, 5),
    row(ApiKey::DescribeGroups, "DescribeGroups", 0, 6),
    row(ApiKey::ListGroups, "ListGroups", 0, 5),
    row(ApiKey::ApiVersions, "ApiVersions", 0, 4),
    row(ApiKey::CreateTopics, "CreateTopics", 2, 7),
    row(ApiKey::DeleteTopics, "DeleteTopics", 1, 6),
    row(ApiKey::InitProducerId, "InitProducerId", 0, 5),
    row(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4),
    row(ApiKey::CreatePartitions, "CreatePartitions", 0, 3),
    row(ApiKey::DeleteGroups, "DeleteGroups", 0, 2),
    row(
        ApiKey::IncrementalAlterConfigs,
        "IncrementalAlterConfigs",
        0,
        1,
    ),
    row(ApiKey::DescribeCluster, "DescribeCluster", 0, 2),
];

/// The row of an API, if it is served.
pub fn spec(api_key: i16) -> Option<&'static ApiSpec> {
    APIS.iter().find(|spec| spec.key as i16 == api_key)
}
