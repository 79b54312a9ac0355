//! The real cluster, over the Kafka protocol.
//!
//! Owns the translation between the client's words and the operator's. Between two calls it keeps nothing but the ages of
//! batches that groups stand at, which do not change.
//!
//! How old the next batch of a group is, is asked for with Fetch: it is the number of the broker's metric
//! `keelson_consumergroup_lag_seconds`, but does not depend on the HTTP port, on `keelson.metrics.partitions` or on reading
//! the series of all other groups. Fetch gives no less than the batch, so a place is fetched once: a group that stands
//! still, however far behind, costs nothing more, and one that moves costs a batch for each partition and look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keelson_client::{
    AdminClient, AlterOp, BrokerError, CommittedOffset, Error, NewOffset, OffsetSpec, Options,
    Resource, Topic,
};
use uuid::Uuid;

use super::{
    BrokerAddress, CallError, ConfigChange, ConfigFact, GroupFacts, GroupOffset, GroupQuery, Kafka,
    Mode, NewTopic, PartitionOffsets, TopicFacts,
};
use crate::lease::Leadership;

/// Longest wait for a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// Longest wait for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Looks at a group whose coordinator is not there yet.
const GROUP_TRIES_MAX: u32 = 10;
/// Pause between two of them.
const GROUP_PAUSE: Duration = Duration::from_millis(300);
/// Batches whose age is remembered; then all are forgotten.
const AGES_MAX: usize = 20_000;
/// Kafka's name for "there is no such topic".
const UNKNOWN_TOPIC: &str = "UNKNOWN_TOPIC_OR_PARTITION";

/// A cluster behind bootstrap addresses.
pub(crate) struct RealKafka {
    client: AdminClient,
    leadership: Option<Leadership>,
    /// The newest timestamp of the batch at an offset, by topic, partition and offset.
    ages: Mutex<HashMap<(Uuid, i32, i64), i64>>,
}

impl RealKafka {
    /// Connects at the first call.
    pub(crate) fn new(bootstrap: &str) -> Result<Self, Error> {
        let options = Options {
            client_id: "keelson-operator".to_owned(),
            connect_timeout: CONNECT_WAIT_MAX,
            request_timeout: ANSWER_WAIT_MAX,
            ..Options::default()
        };
        Ok(Self {
            client: AdminClient::new(bootstrap, options)?,
            leadership: None,
            ages: Mutex::default(),
        })
    }

    /// From now on orders are given only while this process leads; looking is free.
    pub(crate) fn for_a_leader(self, leadership: Leadership) -> Self {
        Self {
            leadership: Some(leadership),
            ..self
        }
    }

    /// The client, for whatever changes the cluster.
    fn order(&self) -> Result<&AdminClient, CallError> {
        match &self.leadership {
            Some(leadership) if !leadership.holds(Instant::now()) => Err(CallError::Unexpected {
                message: "this process does not lead any more, and changes nothing".to_owned(),
            }),
            Some(_) | None => Ok(&self.client),
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        if let Some(refusal) = error.broker() {
            return refused(refusal);
        }
        let message = error.to_string();
        if error.is_unreachable() {
            Self::Unreachable { message }
        } else {
            Self::Unexpected { message }
        }
    }
}

fn refused(error: &BrokerError) -> CallError {
    let message = error
        .message
        .clone()
        .unwrap_or_else(|| "the broker gave no text".to_owned());
    CallError::Refused {
        error: error.name.to_owned(),
        message,
        retriable: error.retriable,
    }
}

/// A topic of an answer, or `None` if it says that there is none.
fn existing(topic: &Topic) -> Result<Option<&Topic>, CallError> {
    match &topic.error {
        None => Ok(Some(topic)),
        Some(error) if error.name == UNKNOWN_TOPIC => Ok(None),
        Some(error) => Err(refused(error)),
    }
}

impl Kafka for RealKafka {
    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, CallError> {
        let metadata = self.client.metadata(Some(&[name])).await?;
        let Some(topic) = metadata.topics.iter().find(|it| it.name == name) else {
            return Err(CallError::Unexpected {
                message: format!("Metadata says nothing about topic {name}"),
            });
        };
        let Some(topic) = existing(topic)? else {
            return Ok(None);
        };
        let configs = match self
            .client
            .describe_configs(&Resource::Topic(name.to_owned()))
            .await
        {
            Ok(configs) => configs,
            // Deleted between the two calls.
            Err(error) if error.broker_name() == Some(UNKNOWN_TOPIC) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let fact = |it: keelson_client::ConfigEntry| {
            let explicit = it.set_on_topic();
            (
                it.name,
                ConfigFact {
                    value: it.value,
                    explicit,
                },
            )
        };
        let count = |it: usize| i32::try_from(it).unwrap_or(i32::MAX);
        Ok(Some(TopicFacts {
            id: topic.id,
            partitions: count(topic.partitions.len()),
            replication_factor: topic
                .partitions
                .first()
                .map_or(0, |it| count(it.replicas.len())),
            configs: configs.into_values().map(fact).collect(),
        }))
    }

    async fn topics(&self) -> Result<Vec<String>, CallError> {
        let metadata = self.client.metadata(None).await?;
        let known = metadata.topics.into_iter().filter(|it| !it.internal);
        Ok(known.map(|it| it.name).collect())
    }

    async fn create_topic(&self, new: &NewTopic, mode: Mode) -> Result<(), CallError> {
        let new = keelson_client::NewTopic {
            name: new.name.clone(),
            partitions: new.partitions,
            replication_factor: new
                .replication_factor
                .map(|it| i16::try_from(it).unwrap_or(i16::MAX)),
            configs: new.config.clone(),
        };
        self.order()?
            .create_topic(&new, mode == Mode::ValidateOnly)
            .await?;
        Ok(())
    }

    async fn add_partitions(&self, name: &str, total: i32, mode: Mode) -> Result<(), CallError> {
        Ok(self
            .order()?
            .create_partitions(name, total, mode == Mode::ValidateOnly)
            .await?)
    }

    async fn alter_configs(
        &self,
        name: &str,
        change: &ConfigChange,
        mode: Mode,
    ) -> Result<(), CallError> {
        let set = change
            .set
            .iter()
            .map(|(key, value)| (key.clone(), AlterOp::Set(value.clone())));
        let reset = change
            .reset
            .iter()
            .map(|key| (key.clone(), AlterOp::Delete));
        let changes: BTreeMap<String, AlterOp> = set.chain(reset).collect();
        let topic = Resource::Topic(name.to_owned());
        Ok(self
            .order()?
            .incremental_alter_configs(&topic, &changes, mode == Mode::ValidateOnly)
            .await?)
    }

    async fn delete_topic(&self, id: Uuid) -> Result<(), CallError> {
        Ok(self.order()?.delete_topic_by_id(id).await?)
    }

    async fn group(&self, id: &str, query: &GroupQuery) -> Result<GroupFacts, CallError> {
        let mut tries = 1;
        loop {
            match self.look_at_group(id, query).await {
                Err(error) if tries < GROUP_TRIES_MAX && is_coordinator_away(&error) => {
                    tries += 1;
                    tokio::time::sleep(GROUP_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn commit(&self, group: &str, offsets: &[GroupOffset]) -> Result<(), CallError> {
        let new = |it: &GroupOffset| NewOffset {
            topic: it.topic.clone(),
            partition: it.partition,
            offset: it.offset,
            metadata: it.note.clone(),
        };
        let offsets: Vec<NewOffset> = offsets.iter().map(new).collect();
        Ok(self.order()?.offset_commit(group, &offsets).await?)
    }

    async fn delete_group(&self, id: &str) -> Result<(), CallError> {
        Ok(self.order()?.delete_group(id).await?)
    }

    async fn brokers(&self) -> Result<Vec<BrokerAddress>, CallError> {
        let metadata = self.client.metadata(Some(&[])).await?;
        let address = |it: keelson_client::Broker| BrokerAddress {
            id: it.id,
            host: it.host,
        };
        Ok(metadata.brokers.into_iter().map(address).collect())
    }
}

/// The coordinator is starting, moving, or not asked for yet.
fn is_coordinator_away(error: &CallError) -> bool {
    match error {
        CallError::Refused { error, .. } => [
            "COORDINATOR_NOT_AVAILABLE",
            "COORDINATOR_LOAD_IN_PROGRESS",
            "NOT_COORDINATOR",
        ]
        .contains(&error.as_str()),
        CallError::Unreachable { .. } | CallError::Unexpected { .. } => false,
    }
}

type Committed = BTreeMap<(String, i32), CommittedOffset>;

impl RealKafka {
    async fn look_at_group(&self, id: &str, query: &GroupQuery) -> Result<GroupFacts, CallError> {
        // A cluster that had no group yet makes its coordinators when the first one is asked for.
        self.client.find_coordinator(id).await?;
        let mut facts = match self.client.describe_group(id).await {
            Ok(it) => GroupFacts {
                state: it.state,
                protocol_type: it.protocol_type,
                assignor: it.assignor,
                members: it.members.len(),
                ..GroupFacts::default()
            },
            Err(error) if error.broker_name() == Some("GROUP_ID_NOT_FOUND") => GroupFacts {
                state: "Dead".to_owned(),
                ..GroupFacts::default()
            },
            Err(error) => return Err(error.into()),
        };
        let committed: Committed = match self.client.offset_fetch(id).await {
            Ok(list) => list
                .into_iter()
                .map(|it| ((it.topic.clone(), it.partition), it))
                .collect(),
            Err(error) if error.broker_name() == Some("GROUP_ID_NOT_FOUND") => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        let mut topics: BTreeSet<&str> = query.also.iter().map(String::as_str).collect();
        if query.scope.is_empty() {
            topics.extend(committed.keys().map(|(topic, _)| topic.as_str()));
        } else {
            topics.extend(query.scope.iter().map(String::as_str));
        }
        if topics.is_empty() {
            return Ok(facts);
        }
        let names: Vec<&str> = topics.iter().copied().collect();
        let metadata = self.client.metadata(Some(&names)).await?;
        for name in names {
            let Some(topic) = metadata.topics.iter().find(|it| it.name == name) else {
                return Err(CallError::Unexpected {
                    message: format!("Metadata says nothing about topic {name}"),
                });
            };
            match existing(topic)? {
                None => facts.missing_topics.push(name.to_owned()),
                Some(topic) => {
                    let mut offsets = self.offsets(topic, &committed).await?;
                    self.find_times(topic, &query.times, &mut offsets).await?;
                    for it in &mut offsets {
                        it.next_ms = self.next_ms(topic, it).await?;
                    }
                    facts.offsets.insert(name.to_owned(), offsets);
                }
            }
        }
        Ok(facts)
    }

    async fn offsets(
        &self,
        topic: &Topic,
        committed: &Committed,
    ) -> Result<Vec<PartitionOffsets>, CallError> {
        let partitions = partitions(topic);
        let starts = self.bounds(&partitions, OffsetSpec::Earliest).await?;
        let ends = self.bounds(&partitions, OffsetSpec::Latest).await?;
        let one = |(name, partition): &(&str, i32)| {
            let bound = |of: &BTreeMap<i32, i64>| {
                of.get(partition)
                    .copied()
                    .ok_or_else(|| CallError::Unexpected {
                        message: format!("ListOffsets says nothing about {name}-{partition}"),
                    })
            };
            let committed = committed.get(&((*name).to_owned(), *partition));
            Ok(PartitionOffsets {
                partition: *partition,
                committed: committed.map(|it| it.offset),
                note: committed.map(|it| it.metadata.clone()).unwrap_or_default(),
                start: bound(&starts)?,
                end: bound(&ends)?,
                ..PartitionOffsets::default()
            })
        };
        partitions.iter().map(one).collect()
    }

    async fn find_times(
        &self,
        topic: &Topic,
        times: &BTreeSet<i64>,
        offsets: &mut [PartitionOffsets],
    ) -> Result<(), CallError> {
        for time in times {
            let found = self
                .bounds(&partitions(topic), OffsetSpec::Timestamp(*time))
                .await?;
            for it in offsets.iter_mut() {
                let offset = found.get(&it.partition).copied().unwrap_or(it.end);
                it.at.insert(*time, offset);
            }
        }
        Ok(())
    }

    /// What cannot be fetched (a quarantined range, say) has no age; it is no failure of the look.
    async fn next_ms(
        &self,
        topic: &Topic,
        place: &PartitionOffsets,
    ) -> Result<Option<i64>, CallError> {
        let Some(offset) = place.next().filter(|offset| *offset < place.end) else {
            return Ok(None);
        };
        let key = (topic.id, place.partition, offset);
        let ages = || self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = ages().get(&key) {
            return Ok(Some(*found));
        }
        let name = (topic.name.as_str(), topic.id);
        let found = match self
            .client
            .batch_timestamp(name, place.partition, offset)
            .await
        {
            Ok(found) => found.filter(|ms| *ms >= 0),
            Err(error) if error.broker().is_some() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = found {
            let mut ages = ages();
            if ages.len() >= AGES_MAX {
                ages.clear();
            }
            ages.insert(key, found);
        }
        Ok(found)
    }

    async fn bounds(
        &self,
        partitions: &[(&str, i32)],
        which: OffsetSpec,
    ) -> Result<BTreeMap<i32, i64>, CallError> {
        let mut found = BTreeMap::new();
        for it in self.client.list_offsets(partitions, which).await? {
            let offset = it.offset.map_err(|error| refused(&error))?;
            found.extend(offset.map(|offset| (it.partition, offset)));
        }
        Ok(found)
    }
}

fn partitions(topic: &Topic) -> Vec<(&str, i32)> {
    let one = |it: &keelson_client::Partition| (topic.name.as_str(), it.index);
    topic.partitions.iter().map(one).collect()
}
