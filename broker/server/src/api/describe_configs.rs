//! DescribeConfigs (key 32), versions 1–4.
//!
//! - 1: sources and synonyms (KIP-226). 2: nothing new on the wire. 3: types and documentation (KIP-569). 4: flexible.
//!
//! Resources: a topic shows every topic key with its value in force; a broker shows every key of its configuration,
//! read-only; the broker "" stands for cluster-wide dynamic defaults, of which there are none. Left out: broker loggers,
//! client metrics and groups as resources (INVALID_REQUEST); dynamic broker configs. No key holds a secret yet, so
//! none is marked sensitive.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use keelson_protocol::kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use keelson_protocol::kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use keelson_state::config::{self, ConfigEntry, Kind, Source, StaticConfig};
use keelson_state::metadata::{MetadataError, validate_topic_name};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// Resource type of a topic.
pub(super) const TOPIC: i8 = 2;
/// Resource type of a broker.
pub(super) const BROKER: i8 = 4;

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
            BROKER if name.is_empty() => Vec::new(),
            BROKER => self.broker(broker, name)?,
            other => {
                let message = format!("Resource type {other} is not supported.");
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
        let topic = image.topic(name).ok_or_else(|| {
            let name = name.to_owned();
            fail(MetadataError::UnknownName { name })
        })?;
        let entries = config::describe(&topic.configs, &broker.config.topic_defaults);
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
        let source = |set: bool| {
            if set {
                Source::StaticBroker
            } else {
                Source::Default
            }
        };
        let own = broker.config.entries().into_iter().map(|entry| {
            self.broker_entry(BrokerKey {
                name: entry.key.name,
                value: entry.value,
                source: source(entry.set),
                kind: entry.key.kind,
                doc: entry.key.doc,
            })
        });
        let defaults = StaticConfig::keys().map(|(key, synonym)| {
            let set = broker.config.topic_defaults.get(synonym.name);
            self.broker_entry(BrokerKey {
                name: synonym.name,
                value: set.or(synonym.default).map(str::to_owned),
                source: source(set.is_some()),
                kind: key.kind,
                doc: key.doc,
            })
        });
        let mut entries: Vec<_> = own.chain(defaults).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    fn broker_entry(&self, key: BrokerKey) -> DescribeConfigsResourceResult {
        let BrokerKey {
            name,
            value,
            source,
            kind,
            doc,
        } = key;
        let value = value.map(text);
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(value.clone())
            .with_source(source.code());
        DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(value)
            .with_read_only(true)
            .with_config_source(source.code())
            .with_synonyms(if self.synonyms {
                vec![synonym]
            } else {
                Vec::new()
            })
            .with_config_type(kind.code())
            .with_documentation(self.documentation.then(|| text(doc)))
    }
}

/// One key of the broker's own configuration.
struct BrokerKey {
    name: &'static str,
    value: Option<String>,
    source: Source,
    kind: Kind,
    doc: &'static str,
}

/// Whether the name of a broker resource is this broker.
pub(super) fn check_broker_id(broker: &Broker, name: &str) -> Result<(), (ErrorCode, String)> {
    let message = match name.parse::<i32>() {
        Ok(id) if id == broker.id() => return Ok(()),
        Ok(id) => format!(
            "Unexpected broker id, expected {}, but received {id}",
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
