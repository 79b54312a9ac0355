//! A cluster in memory, for tests of fetch and apply.
//!
//! Owns just the rules that the operator leans on: names are unique, owners are not overwritten, partitions only grow,
//! ids are never reused.

use std::collections::BTreeMap;
use std::sync::Mutex;

use uuid::Uuid;

use super::{
    BrokerAddress, CallError, ConfigChange, ConfigFact, GroupFacts, Kafka, Mode, NewTopic,
    TopicFacts,
};

/// See the module.
#[derive(Default)]
pub(crate) struct FakeKafka {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, TopicFacts>,
    next_id: u128,
    /// Every call fails with it while it is there.
    away: Option<CallError>,
    /// The broker accepts these changes and forgets them.
    deaf: bool,
    calls: Vec<String>,
}

impl FakeKafka {
    pub(crate) fn fail_with(&self, error: Option<CallError>) {
        self.state.lock().unwrap().away = error;
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

    async fn group(&self, _: &str, _: &[String]) -> Result<GroupFacts, CallError> {
        self.order(String::new(), Mode::ValidateOnly, |_| {
            Ok(GroupFacts {
                state: "Dead".into(),
                ..GroupFacts::default()
            })
        })
    }

    async fn brokers(&self) -> Result<Vec<BrokerAddress>, CallError> {
        self.order(String::new(), Mode::ValidateOnly, |_| Ok(Vec::new()))
    }
}
