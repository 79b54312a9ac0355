//! The client and its calls about clusters, topics and configs.
//!
//! Owns how each call becomes a request and its answer a struct. Never holds state of its own.

use std::collections::BTreeMap;

use keelson_protocol::frame::encode_request;
use keelson_protocol::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use keelson_protocol::kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig,
};
use keelson_protocol::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use keelson_protocol::kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use keelson_protocol::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use keelson_protocol::kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use keelson_protocol::kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    MetadataRequest,
};
use keelson_protocol::kafka_protocol::protocol::{Decodable, Request, StrBytes};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::connection::{malformed, spec};
use crate::owner::{CALLS_MAX, Call, Owner};
use crate::{
    AlterOp, Broker, BrokerError, ClusterMetadata, ConfigEntry, ConfigSource, CreatedTopic, Error,
    NewTopic, Options, Partition, Resource, Topic,
};

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
const ALTER_SET: i8 = 0;
const ALTER_DELETE: i8 = 1;

/// A client of one cluster; cheap to clone, all clones share one connection.
///
/// Calls go out one at a time. Each waits at most the request timeout once it is sent, plus the connect timeout for each
/// bootstrap server if it has to connect first. Nothing is repeated by itself.
#[derive(Debug, Clone)]
pub struct AdminClient {
    calls: mpsc::Sender<Call>,
    client_id: String,
    /// How long the broker may take, in ms; a little less than the client waits.
    pub(crate) broker_timeout_ms: i32,
}

impl AdminClient {
    /// A client that connects at its first call. `bootstrap` is `host:port`, several separated by commas.
    ///
    /// Must be called within a tokio runtime, which runs its task.
    pub fn new(bootstrap: &str, options: Options) -> Result<Self, Error> {
        let wrong = |reason| Error::Bootstrap {
            given: bootstrap.to_owned(),
            reason,
        };
        let addresses: Vec<String> = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if addresses.is_empty() {
            return Err(wrong("is empty"));
        }
        for address in &addresses {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            match port {
                Some(Ok(_)) => {}
                Some(Err(_)) => return Err(wrong("has a port that is no number")),
                None => return Err(wrong("has no port")),
            }
        }
        let (calls, receiver) = mpsc::channel(CALLS_MAX);
        let client_id = options.client_id.clone();
        let broker_timeout = options.request_timeout.mul_f32(0.9).as_millis();
        let broker_timeout_ms = i32::try_from(broker_timeout).unwrap_or(i32::MAX);
        tokio::spawn(
            Owner {
                bootstrap: addresses,
                options,
                calls: receiver,
            }
            .run(),
        );
        Ok(Self {
            calls,
            client_id,
            broker_timeout_ms,
        })
    }

    /// Sends `request(version)` and decodes the answer.
    pub(crate) async fn call<R>(
        &self,
        key: ApiKey,
        request: impl Fn(i16) -> R + Send + Sync + 'static,
    ) -> Result<R::Response, Error>
    where
        R: Request,
    {
        let spec = spec(key);
        let client_id = self.client_id.clone();
        let encode = move |version, correlation_id| {
            encode_request(
                R::KEY,
                version,
                correlation_id,
                &client_id,
                &request(version),
            )
            .map_err(|error| error.to_string())
        };
        let (reply, answer) = oneshot::channel();
        let call = Call {
            spec,
            encode: Box::new(encode),
            reply,
        };
        let closed = || Error::Closed { api: spec.name };
        self.calls.send(call).await.map_err(|_| closed())?;
        let (version, mut body) = answer.await.map_err(|_| closed())??;
        R::Response::decode(&mut body, version).map_err(|error| malformed(spec.name, error))
    }

    /// Brokers and topics: those named, or all. Never creates a topic. A topic that does not exist is in the answer,
    /// with its error.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<ClusterMetadata, Error> {
        let named: Option<Vec<StrBytes>> =
            topics.map(|topics| topics.iter().map(|name| text(name)).collect());
        let request = move |version| {
            let topics = named.as_ref().map(|names| {
                names
                    .iter()
                    .map(|name| {
                        MetadataRequestTopic::default().with_name(Some(name.clone().into()))
                    })
                    .collect()
            });
            // Version 0 has no null: an empty list asks for all.
            let topics = if version == 0 {
                Some(topics.unwrap_or_default())
            } else {
                topics
            };
            let request = MetadataRequest::default().with_topics(topics);
            if version >= 4 {
                request.with_allow_auto_topic_creation(false)
            } else {
                request
            }
        };
        self.metadata_with(request).await
    }

    /// The topics with these ids; an unknown one has the error UNKNOWN_TOPIC_ID.
    pub async fn metadata_by_id(&self, ids: &[Uuid]) -> Result<ClusterMetadata, Error> {
        let ids = ids.to_vec();
        let request = move |_| {
            let topics = ids
                .iter()
                .map(|id| {
                    MetadataRequestTopic::default()
                        .with_topic_id(*id)
                        .with_name(None)
                })
                .collect();
            MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(false)
        };
        self.metadata_with(request).await
    }

    async fn metadata_with(
        &self,
        request: impl Fn(i16) -> MetadataRequest + Send + Sync + 'static,
    ) -> Result<ClusterMetadata, Error> {
        let answer = self.call(ApiKey::Metadata, request).await?;
        refused("Metadata", String::new(), answer.error_code, None)?;
        let broker = |broker: keelson_protocol::kafka_protocol::messages::metadata_response::MetadataResponseBroker| {
            Ok(Broker {
                id: broker.node_id.0,
                host: broker.host.to_string(),
                port: port("Metadata", broker.port)?,
                rack: broker.rack.map(|rack| rack.to_string()),
            })
        };
        Ok(ClusterMetadata {
            cluster_id: answer.cluster_id.map(|id| id.to_string()),
            controller_id: (answer.controller_id.0 >= 0).then_some(answer.controller_id.0),
            brokers: answer
                .brokers
                .into_iter()
                .map(broker)
                .collect::<Result<_, Error>>()?,
            topics: answer.topics.into_iter().map(topic).collect(),
        })
    }

    /// Brokers, controller and cluster id.
    pub async fn describe_cluster(&self) -> Result<ClusterMetadata, Error> {
        let answer = self
            .call(ApiKey::DescribeCluster, |_| {
                DescribeClusterRequest::default()
            })
            .await?;
        refused(
            "DescribeCluster",
            String::new(),
            answer.error_code,
            answer.error_message.as_deref(),
        )?;
        let mut brokers = Vec::with_capacity(answer.brokers.len());
        for broker in answer.brokers {
            brokers.push(Broker {
                id: broker.broker_id.0,
                host: broker.host.to_string(),
                port: port("DescribeCluster", broker.port)?,
                rack: broker.rack.map(|rack| rack.to_string()),
            });
        }
        Ok(ClusterMetadata {
            cluster_id: Some(answer.cluster_id.to_string()),
            controller_id: (answer.controller_id.0 >= 0).then_some(answer.controller_id.0),
            brokers,
            topics: Vec::new(),
        })
    }

    /// Creates a topic, or only checks whether it could be created.
    pub async fn create_topic(
        &self,
        new: &NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, Error> {
        let configs = new.configs.iter();
        let configs = configs.map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(text(&new.name).into())
            .with_num_partitions(new.partitions.unwrap_or(-1))
            .with_replication_factor(new.replication_factor.unwrap_or(-1))
            .with_configs(configs.collect());
        let timeout_ms = self.broker_timeout_ms;
        let request = move |_| {
            CreateTopicsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_timeout_ms(timeout_ms)
                .with_validate_only(validate_only)
        };
        let answer = self.call(ApiKey::CreateTopics, request).await?;
        let result = only("CreateTopics", answer.topics)?;
        refused(
            "CreateTopics",
            new.name.clone(),
            result.error_code,
            result.error_message.as_deref(),
        )?;
        Ok(CreatedTopic {
            id: result.topic_id,
            partitions: result.num_partitions,
            replication_factor: result.replication_factor,
        })
    }

    /// Deletes the topic with this id, whatever its name is by now.
    pub async fn delete_topic_by_id(&self, id: Uuid) -> Result<(), Error> {
        let state = DeleteTopicState::default()
            .with_topic_id(id)
            .with_name(None);
        let timeout_ms = self.broker_timeout_ms;
        let request = move |_| {
            DeleteTopicsRequest::default()
                .with_topics(vec![state.clone()])
                .with_timeout_ms(timeout_ms)
        };
        let answer = self.call(ApiKey::DeleteTopics, request).await?;
        let result = only("DeleteTopics", answer.responses)?;
        refused(
            "DeleteTopics",
            id.to_string(),
            result.error_code,
            result.error_message.as_deref(),
        )
    }

    /// Grows a topic to `total` partitions.
    pub async fn create_partitions(
        &self,
        topic: &str,
        total: i32,
        validate_only: bool,
    ) -> Result<(), Error> {
        let wanted = CreatePartitionsTopic::default()
            .with_name(text(topic).into())
            .with_count(total)
            .with_assignments(None);
        let timeout_ms = self.broker_timeout_ms;
        let request = move |_| {
            CreatePartitionsRequest::default()
                .with_topics(vec![wanted.clone()])
                .with_timeout_ms(timeout_ms)
                .with_validate_only(validate_only)
        };
        let answer = self.call(ApiKey::CreatePartitions, request).await?;
        let result = only("CreatePartitions", answer.results)?;
        refused(
            "CreatePartitions",
            topic.to_owned(),
            result.error_code,
            result.error_message.as_deref(),
        )
    }

    /// All configs of a topic or broker, by key.
    pub async fn describe_configs(
        &self,
        resource: &Resource,
    ) -> Result<BTreeMap<String, ConfigEntry>, Error> {
        let (kind, name) = resource_parts(resource);
        let wanted = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configuration_keys(None);
        let request =
            move |_| DescribeConfigsRequest::default().with_resources(vec![wanted.clone()]);
        let answer = self.call(ApiKey::DescribeConfigs, request).await?;
        let result = only("DescribeConfigs", answer.results)?;
        refused(
            "DescribeConfigs",
            name,
            result.error_code,
            result.error_message.as_deref(),
        )?;
        let entry = |entry: keelson_protocol::kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult| {
            let name = entry.name.to_string();
            let found = ConfigEntry {
                name: name.clone(),
                value: entry.value.map(|value| value.to_string()),
                source: source(entry.config_source),
                read_only: entry.read_only,
                sensitive: entry.is_sensitive,
            };
            (name, found)
        };
        Ok(result.configs.into_iter().map(entry).collect())
    }

    /// Changes some configs of a topic or broker and leaves the others alone; all of them or none.
    pub async fn incremental_alter_configs(
        &self,
        resource: &Resource,
        changes: &BTreeMap<String, AlterOp>,
        validate_only: bool,
    ) -> Result<(), Error> {
        let (kind, name) = resource_parts(resource);
        let change = |(key, op): (&String, &AlterOp)| {
            let (operation, value) = match op {
                AlterOp::Set(value) => (ALTER_SET, Some(text(value))),
                AlterOp::Delete => (ALTER_DELETE, None),
            };
            AlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(operation)
                .with_value(value)
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configs(changes.iter().map(change).collect());
        let request = move |_| {
            IncrementalAlterConfigsRequest::default()
                .with_resources(vec![resource.clone()])
                .with_validate_only(validate_only)
        };
        let answer = self.call(ApiKey::IncrementalAlterConfigs, request).await?;
        let result = only("IncrementalAlterConfigs", answer.responses)?;
        refused(
            "IncrementalAlterConfigs",
            name,
            result.error_code,
            result.error_message.as_deref(),
        )
    }
}

fn topic(topic: MetadataResponseTopic) -> Topic {
    let ids = |ids: Vec<keelson_protocol::kafka_protocol::messages::BrokerId>| {
        ids.into_iter().map(|id| id.0).collect()
    };
    let mut partitions: Vec<Partition> = topic
        .partitions
        .into_iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
            leader_epoch: partition.leader_epoch,
            replicas: ids(partition.replica_nodes),
            in_sync: ids(partition.isr_nodes),
            error: BrokerError::from_code(partition.error_code, None),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    Topic {
        name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
        id: topic.topic_id,
        internal: topic.is_internal,
        partitions,
        error: BrokerError::from_code(topic.error_code, None),
    }
}

fn resource_parts(resource: &Resource) -> (i8, String) {
    match resource {
        Resource::Topic(name) => (RESOURCE_TOPIC, name.clone()),
        Resource::Broker(id) => (RESOURCE_BROKER, id.to_string()),
    }
}

fn source(code: i8) -> ConfigSource {
    match code {
        1 => ConfigSource::Topic,
        2 => ConfigSource::DynamicBroker,
        3 => ConfigSource::DynamicDefaultBroker,
        4 => ConfigSource::StaticBroker,
        5 => ConfigSource::Default,
        other => ConfigSource::Other(other),
    }
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub(crate) fn port(api: &'static str, port: i32) -> Result<u16, Error> {
    u16::try_from(port).map_err(|_| malformed(api, format_args!("port {port}")))
}

/// The answer to the one thing that was asked.
pub(crate) fn only<T>(api: &'static str, results: Vec<T>) -> Result<T, Error> {
    let count = results.len();
    let mut results = results.into_iter();
    match (results.next(), results.next()) {
        (Some(result), None) => Ok(result),
        _ => Err(malformed(
            api,
            format_args!("{count} results for one question"),
        )),
    }
}

pub(crate) fn refused(
    api: &'static str,
    subject: String,
    code: i16,
    message: Option<&str>,
) -> Result<(), Error> {
    BrokerError::check(code, message).map_err(|error| Error::Broker {
        api,
        subject,
        error,
    })
}
