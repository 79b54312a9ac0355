//! Names of topics for the offline tools, as far as the metadata log of a data directory still tells them.
//!
//! Owns the map from ids to names. A topic that was deleted keeps its name here, and what cannot be decoded is left out:
//! saying so is the business of the pass over the log itself.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use keelson_log::accept::KnownPartition;
use keelson_log::verify::VerifyError;
use keelson_log::{PartitionId, TopicId, read_partition};
use keelson_protocol::BATCH_HEADER_BYTES;
use keelson_protocol::records::RecordWalker;
use keelson_state::metadata::{CLUSTER_METADATA, CLUSTER_METADATA_ID, Record};
use thiserror::Error;

/// Why a topic named on the command line is not known.
#[derive(Debug, Error)]
#[error("there is no topic {topic} here (neither a name nor an id); known are: {known}")]
pub struct NoSuchTopic {
    topic: String,
    known: String,
}

/// What the metadata log tells.
pub struct Names {
    names: HashMap<TopicId, String>,
    removed: HashSet<TopicId>,
    partitions: HashMap<TopicId, i32>,
}

impl Names {
    /// Reads the metadata log; works beside a running broker.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn read(data_dir: &Path) -> Result<Self, VerifyError> {
        let metadata = TopicId(CLUSTER_METADATA_ID);
        let mut names = HashMap::from([(metadata, CLUSTER_METADATA.to_owned())]);
        let mut removed = HashSet::new();
        let mut partitions = HashMap::from([(metadata, 1)]);
        let id = PartitionId {
            topic: metadata,
            index: 0,
        };
        read_partition(data_dir, id, &mut |header, batch| {
            let records = batch.get(BATCH_HEADER_BYTES..).unwrap_or_default();
            let values = RecordWalker::new(records, header.records_count)
                .map_while(Result::ok)
                .filter_map(|record| Record::decode(record.value?).ok());
            for record in values {
                match record {
                    Record::TopicCreated {
                        id,
                        name,
                        partitions: count,
                        ..
                    } => {
                        names.insert(TopicId(id), name);
                        partitions.insert(TopicId(id), count);
                    }
                    Record::PartitionsGrown {
                        id,
                        partitions: count,
                    } => {
                        partitions.insert(TopicId(id), count);
                    }
                    Record::TopicRemoved { id } => {
                        removed.insert(TopicId(id));
                    }
                    Record::BrokerStarted { .. }
                    | Record::BrokerConfigChanged { .. }
                    | Record::ConfigChanged { .. }
                    | Record::ProducerIds { .. } => {}
                }
            }
        })?;
        Ok(Self {
            names,
            removed,
            partitions,
        })
    }

    /// The name of an id.
    pub fn name(&self, id: TopicId) -> Option<String> {
        self.names.get(&id).cloned()
    }

    /// Every partition that there should be, the metadata's own too.
    pub fn partitions(&self) -> Vec<KnownPartition> {
        let topics = self.partitions.iter();
        let topics = topics.filter(|(topic, _)| !self.removed.contains(*topic));
        let partitions = topics.flat_map(|(topic, count)| {
            (0..*count).map(|index| KnownPartition {
                id: PartitionId {
                    topic: *topic,
                    index,
                },
                topic: self.name(*topic).unwrap_or_default(),
                is_plain: topic.0 == CLUSTER_METADATA_ID,
            })
        });
        partitions.collect()
    }

    /// The partition that a topic's name or id and a number stand for. Of several topics that had the name, the one that
    /// has it now, else any.
    ///
    /// # Errors
    /// If the metadata log tells of no such topic and it is no id.
    pub fn partition(&self, topic: &str, index: i32) -> Result<PartitionId, NoSuchTopic> {
        let named = self.names.iter().filter(|(_, name)| *name == topic);
        let named = named.min_by_key(|(id, _)| self.removed.contains(id));
        let id = match named {
            Some((id, _)) => *id,
            None => topic.parse().map_err(|_| self.unknown(topic))?,
        };
        Ok(PartitionId { topic: id, index })
    }

    fn unknown(&self, topic: &str) -> NoSuchTopic {
        let mut known: Vec<&str> = self.names.values().map(String::as_str).collect();
        known.sort_unstable();
        NoSuchTopic {
            topic: topic.to_owned(),
            known: known.join(", "),
        }
    }
}
