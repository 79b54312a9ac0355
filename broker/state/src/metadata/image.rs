//! The image: what all records so far amount to. It never changes while it is shared; `apply` works on a copy.
//!
//! A copy shares the topics, so that an image of thousands of topics is cheap to change and cheaper to read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::decide::PRODUCER_ID_BLOCK;
use super::name::TopicUuid;
use super::record::Record;

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicUuid,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, numbered from 0.
    pub partitions: i32,
    /// The broker epoch it was created in.
    pub broker_epoch: i64,
    /// Configs set on it.
    pub configs: BTreeMap<String, String>,
}

/// A record that cannot follow those before it: the log is damaged or not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A topic is created whose name or id is taken.
    #[error("topic {name} is created twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A record names a topic that does not exist.
    #[error("a record of kind {kind} names the unknown topic id {id:02x?}")]
    UnknownTopic {
        /// The kind of record.
        kind: &'static str,
        /// The id.
        id: TopicUuid,
    },
    /// A number goes back that may only grow.
    #[error("{what} goes from {from} to {to}")]
    Backwards {
        /// The number.
        what: &'static str,
        /// Its value.
        from: i64,
        /// The value in the record.
        to: i64,
    },
}

/// What all records so far amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicUuid, Arc<Topic>>,
    partitions_total: i64,
    broker_epoch: i64,
    next_producer_id: i64,
    broker_configs: BTreeMap<i32, BTreeMap<String, String>>,
}

impl Image {
    /// Configs of a broker that were set through the API; of [`super::ALL_BROKERS`], those for all.
    pub fn broker_configs(&self, broker_id: i32) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.broker_configs.get(&broker_id).unwrap_or(&NONE)
    }

    /// Topics by name, in order of name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Topics that there are.
    pub fn topic_count(&self) -> usize {
        self.by_name.len()
    }

    /// Partitions of all topics.
    pub fn partitions_total(&self) -> i64 {
        self.partitions_total
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: &TopicUuid) -> Option<&Arc<Topic>> {
        self.by_id.get(id)
    }

    /// Starts so far: the epoch of the newest one.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch
    }

    /// The first producer id that nobody has.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The leader epoch of a topic's partitions: broker starts since it was created.
    pub fn leader_epoch(&self, topic: &Topic) -> i32 {
        i32::try_from(self.broker_epoch - topic.broker_epoch).unwrap_or(i32::MAX)
    }

    /// Applies one record.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        match record {
            Record::BrokerStarted { epoch, .. } => {
                grow("the broker epoch", &mut self.broker_epoch, *epoch)
            }
            Record::ProducerIds {
                next_producer_id, ..
            } => grow(
                "the next producer id",
                &mut self.next_producer_id,
                *next_producer_id,
            ),
            Record::TopicCreated {
                id,
                name,
                partitions,
                broker_epoch,
                configs,
            } => {
                if self.by_name.contains_key(name.as_str()) || self.by_id.contains_key(id) {
                    return Err(ApplyError::Twice { name: name.clone() });
                }
                self.insert(Topic {
                    id: *id,
                    name: name.as_str().into(),
                    partitions: *partitions,
                    broker_epoch: *broker_epoch,
                    configs: configs.iter().cloned().collect(),
                });
                Ok(())
            }
            Record::TopicRemoved { id } => {
                let topic = self.remove(id, "TopicRemoved")?;
                drop(topic);
                Ok(())
            }
            Record::PartitionsGrown { id, partitions } => {
                let mut topic = self.copy_of(id, "PartitionsGrown")?;
                let mut number = i64::from(topic.partitions);
                grow("a topic's partitions", &mut number, i64::from(*partitions))?;
                topic.partitions = *partitions;
                self.replace(topic);
                Ok(())
            }
            Record::ConfigChanged { id, key, value } => {
                let mut topic = self.copy_of(id, "ConfigChanged")?;
                match value {
                    Some(value) => topic.configs.insert(key.clone(), value.clone()),
                    None => topic.configs.remove(key),
                };
                self.replace(topic);
                Ok(())
            }
            Record::BrokerConfigChanged {
                broker_id,
                key,
                value,
            } => {
                let configs = self.broker_configs.entry(*broker_id).or_default();
                match value {
                    Some(value) => configs.insert(key.clone(), value.clone()),
                    None => configs.remove(key),
                };
                Ok(())
            }
        }
    }

    /// Records were lost for good: numbers that only grow go on above whatever the lost ones may have said, which were
    /// at most so many starts and blocks of producer ids.
    pub fn pass_lost(&mut self, starts: i64, producer_id_blocks: i64) {
        self.broker_epoch = self.broker_epoch.saturating_add(starts);
        let ids = producer_id_blocks.saturating_mul(PRODUCER_ID_BLOCK);
        self.next_producer_id = self.next_producer_id.saturating_add(ids);
    }

    fn insert(&mut self, topic: Topic) {
        self.partitions_total += i64::from(topic.partitions);
        let topic = Arc::new(topic);
        self.by_name.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(topic.id, topic);
    }

    fn remove(&mut self, id: &TopicUuid, kind: &'static str) -> Result<Arc<Topic>, ApplyError> {
        let topic = self
            .by_id
            .remove(id)
            .ok_or(ApplyError::UnknownTopic { kind, id: *id })?;
        self.by_name.remove(&topic.name);
        self.partitions_total -= i64::from(topic.partitions);
        Ok(topic)
    }

    fn copy_of(&self, id: &TopicUuid, kind: &'static str) -> Result<Topic, ApplyError> {
        let topic = self
            .by_id
            .get(id)
            .ok_or(ApplyError::UnknownTopic { kind, id: *id })?;
        Ok(Topic::clone(topic))
    }

    fn replace(&mut self, topic: Topic) {
        self.remove(&topic.id, "replace")
            .expect("copy_of has just found it");
        self.insert(topic);
    }
}

fn grow(what: &'static str, number: &mut i64, to: i64) -> Result<(), ApplyError> {
    if to <= *number {
        return Err(ApplyError::Backwards {
            what,
            from: *number,
            to,
        });
    }
    *number = to;
    Ok(())
}
