//! Names for the offline tools: which id a topic has in a data directory.

use std::path::Path;

use keelson_log::{PartitionId, TopicId};
use keelson_state::metadata::{CLUSTER_METADATA, CLUSTER_METADATA_ID};

/// The partition that a topic's name or id and a number stand for.
///
/// # Errors
/// If there is no such topic.
pub fn partition(_data_dir: &Path, topic: &str, index: i32) -> anyhow::Result<PartitionId> {
    let id = if topic == CLUSTER_METADATA {
        TopicId(CLUSTER_METADATA_ID)
    } else {
        topic.parse()?
    };
    Ok(PartitionId { topic: id, index })
}
