//! Cluster metadata: typed records, the image they make, and the decisions that yield new records.
//!
//! It owns what a topic is and which changes are lawful. It never writes a log and never draws an id: the owner in the
//! server passes ids in, commits the records, and applies them to the image once they are durable.

mod alter;
mod decide;
mod image;
mod name;
mod placement;
mod record;

pub use alter::{
    AlterOp, Alteration, BrokerKey, BrokerKeys, ConfigChange, ConfigTarget, alter_configs,
};
pub use decide::{
    CreatePartitions, CreateTopic, MetadataError, PARTITIONS_PER_TOPIC_MAX, PARTITIONS_TOTAL_MAX,
    PRODUCER_ID_BLOCK, Rules, TopicRef, create_partitions, create_topic, delete_topic,
    producer_id_block, register_start,
};
pub use image::{ApplyError, Image, Topic};
pub use name::{
    CLUSTER_METADATA, CLUSTER_METADATA_ID, CONSUMER_OFFSETS, TRANSACTION_STATE, TopicUuid,
    is_internal, validate_topic_name,
};
pub use placement::{check_election, check_reassignment};
pub use record::{ALL_BROKERS, Record};

#[cfg(test)]
mod tests;
