//! Names of topics for the offline tools, as far as the metadata log of a data directory still tells them.
//!
//! Owns the map from ids to names. A topic that was deleted keeps its name here, and what cannot be decoded is left out:
//! saying so is the business of the pass over the log itself.

use std::collections::{HashMap, HashSet};
use std::path::Path;

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
                    Record::TopicCreated { id, name, .. } => {
                        names.insert(TopicId(id), name);
                    }
                    Record::TopicRemoved { id } => {
                        removed.insert(TopicId(id));
                    }
                    Record::BrokerStarted { .. }
                    | Record::PartitionsGrown { .. }
                    | Record::ConfigChanged { .. }
                    | Record::ProducerIds { .. } => {}
                }
            }
        })?;
        Ok(Self { names, removed })
    }

    /// The name of an id.
    pub fn name(&self, id: TopicId) -> Option<String> {
        self.names.get(&id).cloned()
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
