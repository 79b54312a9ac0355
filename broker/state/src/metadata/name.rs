//! Names and ids of topics: which are lawful, which belong to the broker. It never looks at an image.

use super::decide::MetadataError;

/// A topic's id as raw bytes; nil is none.
pub type TopicUuid = [u8; 16];

/// The topic that holds this module's records.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Kafka's fixed id for it: 00000000-0000-0000-0000-000000000001.
pub const CLUSTER_METADATA_ID: TopicUuid = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The topic that holds groups and committed offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The name that transactions will use; it belongs to the broker from the start.
pub const TRANSACTION_STATE: &str = "__transaction_state";

/// Kafka's limit, so that a folder named after topic and partition fits a file system.
const NAME_BYTES_MAX: usize = 249;

/// Whether only the broker may create, change or delete a topic of this name.
pub fn is_internal(name: &str) -> bool {
    matches!(
        name,
        CLUSTER_METADATA | CONSUMER_OFFSETS | TRANSACTION_STATE
    )
}

/// Refuses what Kafka refuses.
pub fn validate_topic_name(name: &str) -> Result<(), MetadataError> {
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > NAME_BYTES_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}")
    } else if !name.bytes().all(lawful) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(MetadataError::InvalidTopicName { reason })
}

/// Whether two names differ only in `.` against `_`.
pub(super) fn collide(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}
