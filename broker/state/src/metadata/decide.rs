//! Which changes of topics are lawful, and the records they yield. It never applies or writes a record.

use std::collections::{BTreeMap, BTreeSet};

use super::alter::BrokerKeys;
use super::image::{Image, Topic};
use super::name::{TopicUuid, collide, is_internal, validate_topic_name};
use super::placement::check_replicas;
use super::record::Record;
use crate::config::{self, ConfigError, ConfigLimits, LayeredDefaults};

/// Partitions of one topic: Kafka's own limit for one request.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 10_000;

/// Partitions of all topics: what open bookkeeping of a few hundred bytes each may cost one broker.
pub const PARTITIONS_TOTAL_MAX: i64 = 50_000;

/// Producer ids taken at once, as Kafka does: one durable record per thousand.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;

/// What a decision needs to know of the broker.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// This broker.
    pub broker_id: i32,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// Limits on values.
    pub limits: ConfigLimits,
    /// Defaults set by the broker's configuration.
    pub defaults: &'a LayeredDefaults,
    /// What is known of the broker's own keys.
    pub broker_keys: BrokerKeys,
}

/// A refused change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// INVALID_TOPIC_EXCEPTION.
    #[error("Topic name is invalid: {reason}")]
    InvalidTopicName {
        /// What is wrong.
        reason: String,
    },
    /// INVALID_TOPIC_EXCEPTION.
    #[error("Topic '{name}' collides with existing topic: {other}")]
    Collision {
        /// The new name.
        name: String,
        /// The old one.
        other: String,
    },
    /// TOPIC_ALREADY_EXISTS.
    #[error("Topic '{name}' already exists.")]
    Exists {
        /// The name.
        name: String,
    },
    /// UNKNOWN_TOPIC_OR_PARTITION.
    #[error("The topic '{name}' does not exist.")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// UNKNOWN_TOPIC_OR_PARTITION, in the words of what was asked.
    #[error("{reason}")]
    Nowhere {
        /// What is not there.
        reason: String,
    },
    /// ELECTION_NOT_NEEDED.
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    /// NO_REASSIGNMENT_IN_PROGRESS.
    #[error("No partition reassignment is in progress.")]
    NoReassignment,
    /// UNKNOWN_TOPIC_ID.
    #[error("This server does not host this topic ID.")]
    UnknownId {
        /// The id.
        id: TopicUuid,
    },
    /// INVALID_PARTITIONS.
    #[error("{reason}")]
    InvalidPartitions {
        /// What is wrong.
        reason: String,
    },
    /// POLICY_VIOLATION.
    #[error("{reason}")]
    TooManyPartitions {
        /// What is wrong.
        reason: String,
    },
    /// INVALID_REPLICATION_FACTOR.
    #[error("{reason}")]
    InvalidReplicationFactor {
        /// What is wrong.
        reason: String,
    },
    /// INVALID_REPLICA_ASSIGNMENT.
    #[error("{reason}")]
    InvalidReplicaAssignment {
        /// What is wrong.
        reason: String,
    },
    /// INVALID_CONFIG.
    #[error(transparent)]
    InvalidConfig(#[from] ConfigError),
    /// INVALID_REQUEST.
    #[error("{reason}")]
    InvalidRequest {
        /// What is wrong.
        reason: String,
    },
    /// INVALID_REQUEST: the topic belongs to the broker.
    #[error("{action} of internal topic {name} is prohibited.")]
    Internal {
        /// What was asked.
        action: &'static str,
        /// The topic.
        name: String,
    },
}

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Partitions; −1 is the broker's default.
    pub partitions: i32,
    /// Copies of each; −1 is the broker's default.
    pub replication_factor: i16,
    /// Brokers of each partition, where the client chose them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Configs.
    pub configs: Vec<(String, Option<String>)>,
}

/// Decides a creation. `by_broker` allows internal topics.
pub fn create_topic(
    image: &Image,
    rules: &Rules<'_>,
    want: &CreateTopic,
    id: TopicUuid,
    by_broker: bool,
) -> Result<Record, MetadataError> {
    validate_topic_name(&want.name)?;
    check_name_is_free(image, &want.name)?;
    if is_internal(&want.name) && !by_broker {
        return Err(MetadataError::Internal {
            action: "Creation",
            name: want.name.clone(),
        });
    }
    let partitions = partitions_of(rules, want)?;
    check_partition_limits(image, partitions, partitions)?;
    let configs = configs_of(rules, &want.configs)?;
    let broker_epoch = image.broker_epoch();
    Ok(Record::TopicCreated {
        id,
        name: want.name.clone(),
        partitions,
        broker_epoch,
        configs,
    })
}

fn check_name_is_free(image: &Image, name: &str) -> Result<(), MetadataError> {
    if image.topic(name).is_some() {
        return Err(MetadataError::Exists {
            name: name.to_owned(),
        });
    }
    if name.contains(['.', '_'])
        && let Some(other) = image.topics().find(|topic| collide(&topic.name, name))
    {
        return Err(MetadataError::Collision {
            name: name.to_owned(),
            other: other.name.to_string(),
        });
    }
    Ok(())
}

fn partitions_of(rules: &Rules<'_>, want: &CreateTopic) -> Result<i32, MetadataError> {
    if !want.assignments.is_empty() {
        if want.replication_factor != -1 {
            let reason = "A manual partition assignment was specified, but replication factor was not set to -1.";
            return Err(MetadataError::InvalidRequest {
                reason: reason.to_owned(),
            });
        }
        if want.partitions != -1 {
            let reason =
                "A manual partition assignment was specified, but numPartitions was not set to -1.";
            return Err(MetadataError::InvalidRequest {
                reason: reason.to_owned(),
            });
        }
        return assigned_partitions(rules, &want.assignments);
    }
    match want.replication_factor {
        -1 | 1 => {}
        factor if factor < -1 || factor == 0 => {
            let reason =
                "Replication factor must be larger than 0, or -1 to use the default value."
                    .to_owned();
            return Err(MetadataError::InvalidReplicationFactor { reason });
        }
        factor => {
            let reason = format!(
                "Unable to replicate the partition {factor} time(s): this cluster has one broker, so the \
                 replication factor is 1."
            );
            return Err(MetadataError::InvalidReplicationFactor { reason });
        }
    }
    match want.partitions {
        -1 => Ok(rules.default_partitions),
        count if count <= 0 => {
            let reason =
                "Number of partitions was set to an invalid non-positive value.".to_owned();
            Err(MetadataError::InvalidPartitions { reason })
        }
        count => Ok(count),
    }
}

fn assigned_partitions(
    rules: &Rules<'_>,
    assignments: &[(i32, Vec<i32>)],
) -> Result<i32, MetadataError> {
    let mut indexes = BTreeSet::new();
    for (index, _) in assignments {
        if !indexes.insert(*index) {
            let reason =
                format!("Found multiple manual partition assignments for partition {index}");
            return Err(MetadataError::InvalidReplicaAssignment { reason });
        }
    }
    let count = i32::try_from(assignments.len()).unwrap_or(i32::MAX);
    if indexes.first() != Some(&0) || indexes.last() != Some(&(count - 1)) {
        let reason = "partitions should be a consecutive 0-based integer sequence".to_owned();
        return Err(MetadataError::InvalidReplicaAssignment { reason });
    }
    for (_, brokers) in assignments {
        check_replicas(rules.broker_id, brokers)?;
    }
    Ok(count)
}

fn check_partition_limits(image: &Image, of_topic: i32, more: i32) -> Result<(), MetadataError> {
    if of_topic > PARTITIONS_PER_TOPIC_MAX {
        let reason =
            format!("A topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions, not {of_topic}.");
        return Err(MetadataError::TooManyPartitions { reason });
    }
    let total = image.partitions_total() + i64::from(more);
    if total > PARTITIONS_TOTAL_MAX {
        let reason = format!(
            "A broker has at most {PARTITIONS_TOTAL_MAX} partitions in all; this would make {total}."
        );
        return Err(MetadataError::TooManyPartitions { reason });
    }
    Ok(())
}

fn configs_of(
    rules: &Rules<'_>,
    wanted: &[(String, Option<String>)],
) -> Result<Vec<(String, String)>, MetadataError> {
    // Of a key that stands twice the last value counts, as in Kafka.
    let wanted: BTreeMap<&String, &Option<String>> =
        wanted.iter().map(|(key, value)| (key, value)).collect();
    let mut configs = Vec::with_capacity(wanted.len());
    for (key, value) in wanted {
        let value = value
            .as_deref()
            .ok_or_else(|| ConfigError::Null { key: key.clone() })?;
        config::validate(key, value, &rules.limits)?;
        configs.push((key.clone(), value.to_owned()));
    }
    let set = configs.iter().cloned().collect();
    config::check_together(&set, rules.defaults)?;
    Ok(configs)
}

/// A topic by name or by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicUuid),
}

/// Decides a removal.
pub fn delete_topic(image: &Image, which: &TopicRef) -> Result<Record, MetadataError> {
    let topic = match which {
        TopicRef::Name(name) => known(image, name)?,
        TopicRef::Id(id) => image
            .topic_by_id(id)
            .ok_or(MetadataError::UnknownId { id: *id })?,
    };
    check_not_internal(topic, "Deletion")?;
    Ok(Record::TopicRemoved { id: topic.id })
}

pub(super) fn known<'a>(image: &'a Image, name: &str) -> Result<&'a Topic, MetadataError> {
    match image.topic(name) {
        Some(topic) => Ok(topic),
        None => Err(MetadataError::UnknownName {
            name: name.to_owned(),
        }),
    }
}

pub(super) fn check_not_internal(topic: &Topic, action: &'static str) -> Result<(), MetadataError> {
    if is_internal(&topic.name) {
        return Err(MetadataError::Internal {
            action,
            name: topic.name.to_string(),
        });
    }
    Ok(())
}

/// More partitions for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topic.
    pub name: String,
    /// Partitions in all.
    pub count: i32,
    /// Brokers of each new partition, where the client chose them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Decides a growth.
pub fn create_partitions(
    image: &Image,
    rules: &Rules<'_>,
    want: &CreatePartitions,
) -> Result<Record, MetadataError> {
    let topic = known(image, &want.name)?;
    check_not_internal(topic, "Growth")?;
    if want.count == topic.partitions {
        let reason = format!("Topic already has {} partition(s).", topic.partitions);
        return Err(MetadataError::InvalidPartitions { reason });
    }
    if want.count < topic.partitions {
        let reason = format!(
            "The topic {} currently has {} partition(s); {} would not be an increase.",
            topic.name, topic.partitions, want.count
        );
        return Err(MetadataError::InvalidPartitions { reason });
    }
    let more = want.count - topic.partitions;
    check_partition_limits(image, want.count, more)?;
    if let Some(assignments) = &want.assignments {
        if i32::try_from(assignments.len()) != Ok(more) {
            let reason = format!(
                "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(MetadataError::InvalidReplicaAssignment { reason });
        }
        for brokers in assignments {
            check_replicas(rules.broker_id, brokers)?;
        }
    }
    Ok(Record::PartitionsGrown {
        id: topic.id,
        partitions: want.count,
    })
}

/// The record of a broker's start.
pub fn register_start(image: &Image, broker_id: i32) -> Record {
    Record::BrokerStarted {
        broker_id,
        epoch: image.broker_epoch() + 1,
    }
}

/// A block of producer ids: the first one, and the record that must be durable before any of them is given out.
pub fn producer_id_block(image: &Image, broker_id: i32) -> (i64, Record) {
    let first = image.next_producer_id();
    let next_producer_id = first + PRODUCER_ID_BLOCK;
    (
        first,
        Record::ProducerIds {
            broker_id,
            next_producer_id,
        },
    )
}
