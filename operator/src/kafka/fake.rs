//! A cluster in memory, for tests of fetch and apply.
//!
//! Owns just the rules that the operator leans on: names are unique, owners are not overwritten, partitions only grow,
//! ids are never reused; offsets are committed from outside only while a group has no members.

use std::collections::BTreeMap;
use std::sync::Mutex;

use uuid::Uuid;

use super::{
    BrokerAddress, CallError, ConfigChange, ConfigFact, GroupFacts, GroupOffset, GroupQuery, Kafka,
    Mode, NewTopic, PartitionOffsets, TopicFacts,
};

/// See the module.
#[derive(Default)]
pub(crate) struct FakeKafka {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, TopicFacts>,
    groups: BTreeMap<String, FakeGroup>,
    /// First offset and end of each partition that is not empty.
    logs: BTreeMap<(String, i32), (i64, i64)>,
    next_id: u128,
    /// Every call fails with it while it is there.
    away: Option<CallError>,
    /// Every order fails with it while it is there; looks go well.
    refusing: Option<CallError>,
    /// The broker accepts these changes and forgets them.
    deaf: bool,
    calls: Vec<String>,
}

/// A group: how many members it has, and what was committed, with its note.
#[derive(Default)]
pub(crate) struct FakeGroup {
    pub(crate) members: usize,
    pub(crate) committed: BTreeMap<(String, i32), (i64, String)>,
}

impl FakeKafka {
    /// A topic whose partitions hold these offsets.
    pub(crate) fn have_topic(&self, name: &str, logs: &[(i64, i64)]) {
        let mut state = self.state.lock().unwrap();
        let facts = TopicFacts {
            partitions: i32::try_from(logs.len()).unwrap(),
            ..TopicFacts::default()
        };
        state.topics.insert(name.to_owned(), facts);
        for (partition, log) in logs.iter().enumerate() {
            let key = (name.to_owned(), i32::try_from(partition).unwrap());
            state.logs.insert(key, *log);
        }
    }

    /// Somebody else changes a group, or makes it.
    pub(crate) fn tamper_group<T>(&self, id: &str, change: impl FnOnce(&mut FakeGroup) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        change(state.groups.entry(id.to_owned()).or_default())
    }

    /// True if there is such a group.
    pub(crate) fn has_group(&self, id: &str) -> bool {
        self.state.lock().unwrap().groups.contains_key(id)
    }

    pub(crate) fn fail_with(&self, error: Option<CallError>) {
        self.state.lock().unwrap().away = error;
    }

    pub(crate) fn fail_orders_with(&self, error: Option<CallError>) {
        self.state.lock().unwrap().refusing = error;
    }

    pub(crate) fn be_deaf(&self) {
        self.state.lock().unwrap().deaf = true;
    }

    /// What was ordered so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Another client changes a topic.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut TopicFacts)) {
        change(self.state.lock().unwrap().topics.get_mut(name).unwrap());
    }

    pub(crate) fn remove(&self, name: &str) {
        self.state.lock().unwrap().topics.remove(name);
    }

    fn order<T>(
        &self,
        call: String,
        mode: Mode,
        act: impl FnOnce(&mut State) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let mut state = self.state.lock().unwrap();
        if let Some(error) = &state.away {
            return Err(error.clone());
        }
        if mode == Mode::Execute {
            state.calls.push(call);
            if let Some(error) = &state.refusing {
                return Err(error.clone());
            }
        }
        act(&mut state)
    }
}

fn no(error: &str, message: &str) -> CallError {
    CallError::Refused {
        error: error.into(),
        message: message.into(),
        retriable: false,
    }
}

fn explicit(value: &str) -> ConfigFact {
    ConfigFact {
        value: Some(value.into()),
        explicit: true,
    }
}

/// Records are one millisecond apart: the record at offset 7 is of the time 7.
fn place(
    group: &FakeGroup,
    log: Option<&(i64, i64)>,
    key: (String, i32),
    query: &GroupQuery,
) -> PartitionOffsets {
    let (start, end) = log.copied().unwrap_or((0, 0));
    let committed = group.committed.get(&key);
    PartitionOffsets {
        partition: key.1,
        committed: committed.map(|it| it.0),
        note: committed.map(|it| it.1.clone()).unwrap_or_default(),
        start,
        end,
        next_ms: committed.map(|it| it.0.max(start)).filter(|it| *it < end),
        at: query
            .times
            .iter()
            .map(|ms| (*ms, (*ms).clamp(start, end)))
            .collect(),
    }
}

impl Kafka for FakeKafka {
    async fn topic(&self, name: &str) -> Result<Option<TopicFacts>, CallError> {
        let state = self.state.lock().unwrap();
        match &state.away {
            Some(error) => Err(error.clone()),
            None => Ok(state.topics.get(name).cloned()),
        }
    }

    async fn topics(&self) -> Result<Vec<String>, CallError> {
        self.order(String::new(), Mode::ValidateOnly, |state| {
            Ok(state.topics.keys().cloned().collect())
        })
    }

    async fn create_topic(&self, new: &NewTopic, mode: Mode) -> Result<(), CallError> {
        self.order(format!("create {}", new.name), mode, |state| {
            if state.topics.contains_key(&new.name) {
                return Err(no("TOPIC_ALREADY_EXISTS", "it exists"));
            }
            if new.config.contains_key("bad.key") {
                return Err(no("INVALID_CONFIG", "bad.key is not a topic config"));
            }
            if mode == Mode::Execute && !state.deaf {
                state.next_id += 1;
                let configs = new
                    .config
                    .iter()
                    .map(|(key, value)| (key.clone(), explicit(value)))
                    .collect();
                let facts = TopicFacts {
                    id: Uuid::from_u128(state.next_id),
                    partitions: new.partitions.unwrap_or(1),
                    replication_factor: new.replication_factor.unwrap_or(1),
                    configs,
                };
                state.topics.insert(new.name.clone(), facts);
            }
            Ok(())
        })
    }

    async fn add_partitions(&self, name: &str, total: i32, mode: Mode) -> Result<(), CallError> {
        self.order(format!("grow {name} {total}"), mode, |state| {
            let topic = state
                .topics
                .get_mut(name)
                .ok_or_else(|| no("UNKNOWN_TOPIC_OR_PARTITION", "no such topic"))?;
            if total <= topic.partitions {
                return Err(no("INVALID_PARTITIONS", "partitions only grow"));
            }
            if mode == Mode::Execute && !state.deaf {
                topic.partitions = total;
            }
            Ok(())
        })
    }

    async fn alter_configs(
        &self,
        name: &str,
        change: &ConfigChange,
        mode: Mode,
    ) -> Result<(), CallError> {
        self.order(format!("alter {name}"), mode, |state| {
            let topic = state
                .topics
                .get_mut(name)
                .ok_or_else(|| no("UNKNOWN_TOPIC_OR_PARTITION", "no such topic"))?;
            let owner = topic
                .configs
                .get(keelson_crds::OWNER_CONFIG)
                .and_then(|it| it.value.clone());
            let new = change.set.get(keelson_crds::OWNER_CONFIG);
            if let (Some(old), Some(new)) = (owner, new)
                && old != *new
            {
                return Err(no("INVALID_CONFIG", "the topic has another owner"));
            }
            if mode == Mode::Execute && !state.deaf {
                topic.configs.extend(
                    change
                        .set
                        .iter()
                        .map(|(key, value)| (key.clone(), explicit(value))),
                );
                topic.configs.retain(|key, _| !change.reset.contains(key));
            }
            Ok(())
        })
    }

    async fn delete_topic(&self, id: Uuid) -> Result<(), CallError> {
        self.order(format!("delete {id}"), Mode::Execute, |state| {
            let before = state.topics.len();
            state.topics.retain(|_, it| it.id != id);
            if state.topics.len() == before {
                Err(no("UNKNOWN_TOPIC_ID", "no such id"))
            } else {
                Ok(())
            }
        })
    }

    async fn group(&self, id: &str, query: &GroupQuery) -> Result<GroupFacts, CallError> {
        self.order(String::new(), Mode::ValidateOnly, |state| {
            let none = FakeGroup::default();
            let group = state.groups.get(id);
            let mut facts = GroupFacts {
                state: match group {
                    None => "Dead".into(),
                    Some(group) if group.members == 0 => "Empty".into(),
                    Some(_) => "Stable".into(),
                },
                ..GroupFacts::default()
            };
            let group = group.unwrap_or(&none);
            facts.members = group.members;
            let mut names = query.also.clone();
            match query.scope.is_empty() {
                true => names.extend(group.committed.keys().map(|it| it.0.clone())),
                false => names.extend(query.scope.iter().cloned()),
            }
            for name in names {
                match state.topics.get(&name) {
                    None => facts.missing_topics.push(name),
                    Some(topic) => {
                        let places = (0..topic.partitions).map(|partition| {
                            let key = (name.clone(), partition);
                            place(group, state.logs.get(&key), key, query)
                        });
                        facts.offsets.insert(name.clone(), places.collect());
                    }
                }
            }
            Ok(facts)
        })
    }

    async fn commit(&self, group: &str, offsets: &[GroupOffset]) -> Result<(), CallError> {
        self.order(format!("commit {group}"), Mode::Execute, |state| {
            let group = state.groups.entry(group.to_owned()).or_default();
            if group.members > 0 {
                return Err(no("UNKNOWN_MEMBER_ID", "the group has members"));
            }
            for it in offsets {
                let key = (it.topic.clone(), it.partition);
                group.committed.insert(key, (it.offset, it.note.clone()));
            }
            Ok(())
        })
    }

    async fn delete_group(&self, id: &str) -> Result<(), CallError> {
        self.order(
            format!("delete group {id}"),
            Mode::Execute,
            |state| match state.groups.get(id) {
                None => Err(no("GROUP_ID_NOT_FOUND", "no such group")),
                Some(group) if group.members > 0 => Err(no("NON_EMPTY_GROUP", "it has members")),
                Some(_) => {
                    state.groups.remove(id);
                    Ok(())
                }
            },
        )
    }

    async fn brokers(&self) -> Result<Vec<BrokerAddress>, CallError> {
        self.order(String::new(), Mode::ValidateOnly, |_| Ok(Vec::new()))
    }
}
