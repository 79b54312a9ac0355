//! DescribeConfigs (key 32), versions 1–4.
//!
//! - 1: sources and synonyms (KIP-226). 2: nothing new on the wire. 3: types and documentation (KIP-569). 4: flexible.
//!
//! Resources: a topic shows every topic key with its value in force; a broker shows every key of its configuration; the
//! broker "" shows what the API has set for all brokers. Client metrics and groups have no configs here, so that any of
//! them is empty; of loggers there is one, `root`. Left out: nothing. No key holds a secret yet, so none is marked
//! sensitive.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use keelson_protocol::kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use keelson_protocol::kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use keelson_state::config::{self, ConfigEntry, Kind, Source, SynonymEntry, TopicDefaults};
use keelson_state::metadata::{ALL_BROKERS, MetadataError, validate_topic_name};

use super::common::text;
use super::config_change::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::loggers;
use crate::broker::Broker;
use crate::config::{KEYS, Link};
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct DescribeConfigs;

impl Api for DescribeConfigs {
    type Request = DescribeConfigsRequest;
    type Response = DescribeConfigsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeConfigsRequest>,
    ) -> Outcome<DescribeConfigsResponse> {
        let view = View {
            synonyms: call.body.include_synonyms,
            documentation: call.body.include_documentation,
        };
        let mut first = None;
        let results = call.body.resources.into_iter().map(|resource| {
            let described = view.describe(broker, &resource);
            result(resource, described, &mut first)
        });
        let results = results.collect();
        let body = DescribeConfigsResponse::default().with_results(results);
        Outcome::Ready(Answer::new(body, first))
    }
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)>;

/// What of an entry the client asked for.
struct View {
    synonyms: bool,
    documentation: bool,
}

impl View {
    fn describe(&self, broker: &Broker, resource: &DescribeConfigsResource) -> Described {
        let name = resource.resource_name.as_str();
        let entries = match resource.resource_type {
            TOPIC => self.topic(broker, name)?,
            BROKER if name.is_empty() => self.all_brokers(broker),
            BROKER => self.broker(broker, name)?,
            BROKER_LOGGER => Self::loggers(broker, name)?,
            CLIENT_METRICS | GROUP if !name.is_empty() => Vec::new(),
            other => {
                let message = format!("Unsupported resource type: {other}");
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        let wanted = resource.configuration_keys.as_deref().unwrap_or_default();
        let asked = |entry: &DescribeConfigsResourceResult| {
            wanted.is_empty() || wanted.contains(&entry.name)
        };
        Ok(entries.into_iter().filter(asked).collect())
    }

    fn topic(&self, broker: &Broker, name: &str) -> Described {
        let fail = |error: MetadataError| (errors::metadata(&error), error.to_string());
        validate_topic_name(name).map_err(fail)?;
        let image = broker.image();
        // Kafka has no words here.
        let unknown = (ErrorCode::UnknownTopicOrPartition, String::new());
        let topic = image.topic(name).ok_or(unknown)?;
        let entries = config::describe(&topic.configs, &broker.live().topic_defaults);
        Ok(entries
            .into_iter()
            .map(|entry| self.topic_entry(entry))
            .collect())
    }

    fn topic_entry(&self, entry: ConfigEntry) -> DescribeConfigsResourceResult {
        let synonyms = entry.synonyms.into_iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(synonym.value.map(text))
                .with_source(synonym.source.code())
        });
        DescribeConfigsResourceResult::default()
            .with_name(text(entry.key.name))
            .with_value(entry.value.map(text))
            .with_config_source(entry.source.code())
            .with_synonyms(if self.synonyms {
                synonyms.collect()
            } else {
                Vec::new()
            })
            .with_config_type(entry.key.kind.code())
            .with_documentation(self.documentation.then(|| text(entry.key.doc)))
    }

    fn broker(&self, broker: &Broker, name: &str) -> Described {
        check_broker_id(broker, name)?;
        let image = broker.image();
        let (all, own) = (
            image.broker_configs(ALL_BROKERS),
            image.broker_configs(broker.id()),
        );
        let live = broker.live();
        let keys = KEYS.iter().map(|key| BrokerKey {
            name: key.name,
            kind: key.kind,
            doc: key.doc,
            is_dynamic: key.is_dynamic,
            value: worked_out(broker, key.name),
            chain: broker.config.chain(key, all, own),
        });
        let defaults = TopicDefaults::keys().map(|(key, synonym)| BrokerKey {
            name: synonym.name,
            kind: key.kind,
            doc: key.doc,
            is_dynamic: synonym.is_dynamic,
            value: None,
            chain: links(live.topic_defaults.chain(synonym.name)),
        });
        let mut keys: Vec<BrokerKey> = keys.chain(defaults).collect();
        keys.sort_by_key(|key| key.name);
        Ok(keys.into_iter().map(|key| self.broker_entry(key)).collect())
    }

    fn loggers(broker: &Broker, name: &str) -> Described {
        if name.is_empty() {
            let message = "Broker id must not be empty".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
        check_broker_id(broker, name)?;
        let root = DescribeConfigsResourceResult::default()
            .with_name(text(loggers::ROOT))
            .with_value(Some(text(loggers::level())))
            .with_config_source(loggers::SOURCE)
            .with_documentation(None);
        Ok(vec![root])
    }

    /// What is set for all brokers, and nothing else.
    fn all_brokers(&self, broker: &Broker) -> Vec<DescribeConfigsResourceResult> {
        let image = broker.image();
        let set = image.broker_configs(ALL_BROKERS).iter();
        let entries = set.filter_map(|(name, value)| {
            let (name, kind, doc) = named(name)?;
            Some(self.broker_entry(BrokerKey {
                name,
                kind,
                doc,
                is_dynamic: true,
                value: Some(value.clone()),
                chain: vec![Link {
                    name,
                    value: value.clone(),
                    source: Source::DynamicDefaultBroker,
                }],
            }))
        });
        entries.collect()
    }

    fn broker_entry(&self, key: BrokerKey) -> DescribeConfigsResourceResult {
        let of_name = key.chain.iter().find(|link| link.name == key.name);
        let value = key.value.or_else(|| of_name.map(|link| link.value.clone()));
        let source = key
            .chain
            .first()
            .map_or(Source::Default, |link| link.source);
        let synonyms = key.chain.into_iter().map(|link| {
            DescribeConfigsSynonym::default()
                .with_name(text(link.name))
                .with_value(Some(text(link.value)))
                .with_source(link.source.code())
        });
        DescribeConfigsResourceResult::default()
            .with_name(text(key.name))
            .with_value(value.map(text))
            .with_read_only(!key.is_dynamic)
            .with_config_source(source.code())
            .with_synonyms(if self.synonyms {
                synonyms.collect()
            } else {
                Vec::new()
            })
            .with_config_type(key.kind.code())
            .with_documentation(self.documentation.then(|| text(key.doc)))
    }
}

/// One key of the broker's own configuration.
struct BrokerKey {
    name: &'static str,
    kind: Kind,
    doc: &'static str,
    is_dynamic: bool,
    /// Where it is not the first of the chain under this name.
    value: Option<String>,
    chain: Vec<Link>,
}

/// The value in force of a key whose default no table can tell.
fn worked_out(broker: &Broker, name: &str) -> Option<String> {
    match name {
        "advertised.listeners" => broker.listeners().map(|all| all.to_string()),
        "broker.id" => Some(broker.id().to_string()),
        "keelson.cluster.id" => Some(broker.identity.cluster_id.clone()),
        "keelson.tail.memory.bytes" => Some(broker.config.tail_memory_bytes().to_string()),
        _ => None,
    }
}

fn links(chain: Vec<SynonymEntry>) -> Vec<Link> {
    let link = |entry: SynonymEntry| {
        Some(Link {
            name: entry.name,
            value: entry.value?,
            source: entry.source,
        })
    };
    chain.into_iter().filter_map(link).collect()
}

/// Name, type and meaning of a key of the broker.
fn named(name: &str) -> Option<(&'static str, Kind, &'static str)> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Some((key.name, key.kind, key.doc));
    }
    let (key, synonym) = TopicDefaults::find(name)?;
    Some((synonym.name, key.kind, key.doc))
}

/// Whether the name of a broker resource is this broker.
fn check_broker_id(broker: &Broker, name: &str) -> Result<(), (ErrorCode, String)> {
    let message = match name.parse::<i32>() {
        Ok(id) if id == broker.id() => return Ok(()),
        Ok(id) => format!(
            "Unexpected broker id, expected {} or empty string, but received {id}",
            broker.id()
        ),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, message))
}

fn result(
    resource: DescribeConfigsResource,
    described: Described,
    first: &mut Option<ErrorCode>,
) -> DescribeConfigsResult {
    let DescribeConfigsResource {
        resource_type,
        resource_name,
        ..
    } = resource;
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource_type)
        .with_resource_name(resource_name);
    match described {
        Ok(configs) => result.with_configs(configs),
        Err((code, message)) => {
            first.get_or_insert(code);
            result
                .with_error_code(code.code())
                .with_error_message(Some(text(message)))
        }
    }
}
