//! CreateTopics (key 19), versions 2–7.
//!
//! - 2: throttle time. 3: nothing new on the wire. 4: −1 as number of partitions or replication factor is the default.
//! - 5: flexible; the answer has the topic's configs, partitions and replication factor (KIP-525).
//! - 6: quota errors. 7: topic ids (KIP-516).
//!
//! Left out: quotas; more than one replica (INVALID_REPLICATION_FACTOR). The timeout is not looked at: an answer comes
//! when the creation is durable, which is never long.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::create_topics_request::CreatableTopic;
use keelson_protocol::kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, TopicName,
};
use keelson_state::config;
use keelson_state::metadata::CreateTopic;
use uuid::Uuid;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::metadata::{ChangeError, Created};

/// The handler.
pub struct CreateTopics;

impl Api for CreateTopics {
    type Request = CreateTopicsRequest;
    type Response = CreateTopicsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<CreateTopicsRequest>,
    ) -> Outcome<CreateTopicsResponse> {
        let broker = Arc::clone(broker);
        let Call { version, body, .. } = call;
        Outcome::later(async move {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for topic in &body.topics {
                *seen.entry(topic.name.to_string()).or_default() += 1;
            }
            let (once, twice): (Vec<_>, Vec<_>) = body
                .topics
                .into_iter()
                .partition(|topic| seen[topic.name.as_str()] == 1);
            let names: Vec<TopicName> = once.iter().map(|topic| topic.name.clone()).collect();
            let wants = once.into_iter().map(wanted).collect();
            let results = broker
                .metadata
                .create_topics(wants, false, body.validate_only)
                .await;
            let mut first = None;
            let mut topics: Vec<CreatableTopicResult> = names
                .into_iter()
                .zip(results)
                .map(|(name, result)| match result {
                    Ok(created) => succeeded(&broker, version, name, &created),
                    Err(error) => failed(name, &error, &mut first),
                })
                .collect();
            topics.extend(duplicates(twice, &mut first));
            Answer::new(CreateTopicsResponse::default().with_topics(topics), first)
        })
    }
}

fn wanted(topic: CreatableTopic) -> CreateTopic {
    let assignments = topic.assignments.into_iter().map(|assignment| {
        let brokers = assignment.broker_ids.iter().map(|id| id.0).collect();
        (assignment.partition_index, brokers)
    });
    let configs = topic.configs.into_iter().map(|config| {
        let value = config.value.map(|value| value.to_string());
        (config.name.to_string(), value)
    });
    CreateTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        configs: configs.collect(),
    }
}

fn succeeded(
    broker: &Broker,
    version: i16,
    name: TopicName,
    created: &Created,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name)
        .with_error_message(None)
        .with_topic_id(Uuid::from_bytes(created.id));
    if version < 5 {
        return result;
    }
    let set: BTreeMap<String, String> = created.configs.iter().cloned().collect();
    let configs = config::describe(&set, &broker.live().topic_defaults)
        .into_iter()
        .map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(entry.key.name))
                .with_value(entry.value.map(text))
                .with_config_source(entry.source.code())
        });
    result
        .with_num_partitions(created.partitions)
        .with_replication_factor(1)
        .with_configs(Some(configs.collect()))
}

fn failed(
    name: TopicName,
    error: &ChangeError,
    first: &mut Option<ErrorCode>,
) -> CreatableTopicResult {
    let code = errors::change(error);
    first.get_or_insert(code);
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(code.code())
        .with_error_message(Some(text(error.to_string())))
}

/// A name that stands twice in a request is refused, once.
fn duplicates(
    twice: Vec<CreatableTopic>,
    first: &mut Option<ErrorCode>,
) -> Vec<CreatableTopicResult> {
    let names: BTreeMap<String, TopicName> = twice
        .into_iter()
        .map(|topic| (topic.name.to_string(), topic.name))
        .collect();
    let mut refuse = |name| {
        first.get_or_insert(ErrorCode::InvalidRequest);
        CreatableTopicResult::default()
            .with_name(name)
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_error_message(Some(text("Duplicate topic name.")))
    };
    names.into_values().map(&mut refuse).collect()
}
