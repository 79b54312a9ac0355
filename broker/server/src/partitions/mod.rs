//! Every topic and partition that this broker serves, by name and by id.
//!
//! Owns the map from names to owners. It follows the metadata image: whoever applied records calls
//! [`Partitions::sync`] with the topics they touched. Never creates or deletes anything on its own.

mod owner;
mod waiters;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use keelson_log::{CompactionConfig, Log, Partition, PartitionConfig, PartitionId, TopicId};
use keelson_protocol::kafka_protocol::messages::TopicName;
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::config::{LayeredDefaults, TopicSettings, settings};
use keelson_state::metadata::{Image, Topic, TopicUuid};
use keelson_state::producers::ProducerTable;
use parking_lot::RwLock;

pub use owner::{Ended, Ending, EnterError, Incoming, PartitionOwner, Placed};
pub use waiters::{AckGroup, Waiters, Watch};

/// A topic with the values in force and its partitions.
pub struct TopicState {
    /// What the image says.
    pub topic: Arc<Topic>,
    /// Its name as answers carry it, so that none has to make a copy.
    pub name: TopicName,
    /// Its configuration in force.
    pub settings: TopicSettings,
    /// Leader epoch of its partitions.
    pub leader_epoch: i32,
    /// Its partitions, by number.
    pub partitions: Vec<Arc<PartitionOwner>>,
}

impl TopicState {
    /// The partition of this number.
    pub fn partition(&self, index: i32) -> Option<&Arc<PartitionOwner>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

#[derive(Default)]
struct Maps {
    by_name: HashMap<Arc<str>, Arc<TopicState>>,
    by_id: HashMap<TopicUuid, Arc<TopicState>>,
}

/// All topics and partitions.
pub struct Partitions {
    log: Arc<Log>,
    defaults: RwLock<LayeredDefaults>,
    maps: RwLock<Maps>,
}

impl Partitions {
    /// None yet.
    pub fn new(log: Arc<Log>, defaults: LayeredDefaults) -> Self {
        Self {
            log,
            defaults: RwLock::new(defaults),
            maps: RwLock::new(Maps::default()),
        }
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.maps.read().by_name.get(name).cloned()
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: &TopicUuid) -> Option<Arc<TopicState>> {
        self.maps.read().by_id.get(id).cloned()
    }

    /// The partition of this topic and number.
    pub fn partition(&self, topic: &str, index: i32) -> Option<Arc<PartitionOwner>> {
        self.maps
            .read()
            .by_name
            .get(topic)?
            .partition(index)
            .cloned()
    }

    /// All topics, in no order.
    pub fn topics(&self) -> Vec<Arc<TopicState>> {
        self.maps.read().by_name.values().cloned().collect()
    }

    /// Forgets producers that were idle for too long, in every partition.
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        for state in self.topics() {
            for partition in &state.partitions {
                partition.expire_producers(now_ms, expiration_ms);
            }
        }
    }

    /// Takes over what the image says about these topics: new ones, grown ones, changed configurations, removed ones.
    /// Called by the owner of the metadata after each change, in the order of the changes. Touches no file: a new
    /// partition's folder comes with its first flush.
    pub fn sync(&self, image: &Image, changed: &[TopicUuid]) {
        for id in changed {
            match image.topic_by_id(id) {
                Some(topic) => self.upsert(image, topic),
                None => self.remove(id),
            }
        }
    }

    /// Takes over every topic of the image: at the start, and when the defaults change.
    pub fn sync_all(&self, image: &Image) {
        for topic in image.topics() {
            self.upsert(image, topic);
        }
    }

    /// Other defaults for topics: all of them are configured anew.
    pub fn set_defaults(&self, defaults: LayeredDefaults, image: &Image) {
        if *self.defaults.read() == defaults {
            return;
        }
        *self.defaults.write() = defaults;
        self.sync_all(image);
    }

    fn upsert(&self, image: &Image, topic: &Arc<Topic>) {
        let settings = settings(&topic.configs, &self.defaults.read());
        let config = |index| partition_config(&settings, (&topic.id, index));
        let mut partitions = self
            .topic_by_id(&topic.id)
            .map(|state| state.partitions.clone())
            .unwrap_or_default();
        for partition in &partitions {
            let config = config(partition.id().index);
            partition.log().update_config(config);
        }
        for index in i32::try_from(partitions.len()).unwrap_or(i32::MAX)..topic.partitions {
            partitions.push(self.open(topic.id, index, config(index)));
        }
        let state = Arc::new(TopicState {
            topic: Arc::clone(topic),
            name: TopicName(StrBytes::from_string(topic.name.to_string())),
            settings,
            leader_epoch: image.leader_epoch(topic),
            partitions,
        });
        let mut maps = self.maps.write();
        maps.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&state));
        maps.by_id.insert(topic.id, state);
    }

    fn open(&self, topic: TopicUuid, index: i32, config: PartitionConfig) -> Arc<PartitionOwner> {
        let id = PartitionId {
            topic: TopicId(topic),
            index,
        };
        let waiters = Arc::new(Waiters::new(0));
        let log = self
            .log
            .open_partition(id, config, Arc::clone(&waiters) as Arc<_>);
        keelson_log::Observer::durable(&*waiters, log.durable_offset());
        let producers = recovered_producers(&log);
        Arc::new(PartitionOwner::new(log, producers, waiters))
    }

    fn remove(&self, id: &TopicUuid) {
        let removed = {
            let mut maps = self.maps.write();
            let removed = maps.by_id.remove(id);
            if let Some(state) = &removed {
                maps.by_name.remove(&state.topic.name);
            }
            removed
        };
        if let Some(state) = removed {
            for partition in &state.partitions {
                partition.waiters().remove();
            }
        }
    }
}

/// What the log knows of producers. A new partition has none; nothing is read for it.
fn recovered_producers(log: &Partition) -> ProducerTable {
    if log.durable_offset() == 0 {
        return ProducerTable::new();
    }
    log.producers().unwrap_or_else(|error| {
        // The log has counted and quarantined the damage; a producer that is not remembered may go on (KIP-360).
        tracing::warn!(partition = %log.id(), %error, "the state of producers is lost");
        ProducerTable::new()
    })
}

/// How much earlier than `segment.ms` a partition rolls: an amount of its own below the jitter, the same after a start.
fn jitter_ms(settings: &TopicSettings, (topic, index): (&TopicUuid, i32)) -> i64 {
    let most = settings.segment_jitter_ms.min(settings.segment_ms);
    if most == 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (topic, index).hash(&mut hasher);
    i64::try_from(hasher.finish() >> 1).unwrap_or(0) % most
}

fn partition_config(settings: &TopicSettings, id: (&TopicUuid, i32)) -> PartitionConfig {
    // What is only compacted is never too old or too much; and a record that is due must be in a closed segment.
    let unless_kept = |limit: i64| if settings.deletes { limit } else { -1 };
    let roll_ms = settings
        .compaction
        .map_or(i64::MAX, |compaction| compaction.max_lag_ms);
    PartitionConfig {
        segment_bytes: u64::try_from(settings.segment_bytes).unwrap_or(0),
        segment_ms: (settings.segment_ms - jitter_ms(settings, id)).min(roll_ms),
        retention_ms: unless_kept(settings.retention_ms),
        retention_bytes: unless_kept(settings.retention_bytes),
        compaction: settings.compaction.map(|c| {
            Arc::new(CompactionConfig {
                min_cleanable_dirty_ratio: c.min_cleanable_dirty_ratio,
                min_lag_ms: c.min_lag_ms,
                max_lag_ms: c.max_lag_ms,
                delete_retention_ms: c.delete_retention_ms,
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn segments_roll_earlier_by_an_amount_of_each_partitions_own() {
        let of = |jitter: &str, segment: &str| {
            let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            let topic =
                BTreeMap::from([set("segment.ms", segment), set("segment.jitter.ms", jitter)]);
            let settings = settings(&topic, &LayeredDefaults::default());
            let config = |index| partition_config(&settings, (&[7; 16], index)).segment_ms;
            (0..100).map(config).collect::<Vec<i64>>()
        };
        assert!(of("0", "1000").iter().all(|ms| *ms == 1000));
        let jittered = of("100", "1000");
        assert!(jittered.iter().all(|ms| (901..=1000).contains(ms)));
        assert!(jittered.iter().any(|ms| *ms != jittered[0]));
        assert_eq!(jittered, of("100", "1000"), "the same after a start");
        // Never later than that, and never at once.
        assert!(of("5000", "10").iter().all(|ms| (1..=10).contains(ms)));
    }
}
