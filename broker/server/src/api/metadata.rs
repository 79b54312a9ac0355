//! Metadata (key 3), versions 0–13.
//!
//! - 0: no controller; an empty list of topics means all. 1: null means all; controller, rack, internal flag.
//! - 2: cluster id. 3: throttle time. 4: auto-creation is asked for. 5: offline replicas. 7: leader epoch (KIP-320).
//! - 8: authorised operations (KIP-430). 9: flexible. 10: topic ids (KIP-516). 11: no cluster operations.
//! - 12: topics by id. 13: an error for the whole answer.
//!
//! Left out: racks; authorised operations are all of them, since nobody is refused anything. A topic that the request
//! names and that does not exist is created when both sides want that, and the answer then shows it: it is durable.

use std::collections::HashSet;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use keelson_protocol::kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::{
    BrokerId, MetadataRequest, MetadataResponse, TopicName,
};
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::metadata::{is_internal, validate_topic_name};
use uuid::Uuid;

use super::common::{OPERATIONS_UNKNOWN, TOPIC_OPERATIONS};
use crate::broker::Broker;
use crate::config::Listener;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::partitions::TopicState;

/// Bits of every operation on the cluster: create, alter, describe, cluster action, configs, idempotent write.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// First version that asks for topics by id.
const BY_ID_VERSION_MIN: i16 = 12;

/// First version that knows the error.
const LISTENER_NOT_FOUND_VERSION_MIN: i16 = 6;

/// The handler.
pub struct Metadata;

impl Api for Metadata {
    type Request = MetadataRequest;
    type Response = MetadataResponse;

    fn handle(broker: &Arc<Broker>, call: Call<MetadataRequest>) -> Outcome<MetadataResponse> {
        let Call {
            version,
            body,
            client,
            ..
        } = call;
        let view = View {
            version,
            this: broker.advertised(client.listener),
            topic_operations: body.include_topic_authorized_operations,
            cluster_operations: body.include_cluster_authorized_operations,
        };
        let wanted = match body.topics {
            None => return Outcome::ok(view.all(broker)),
            Some(topics) if topics.is_empty() && version == 0 => {
                return Outcome::ok(view.all(broker));
            }
            Some(topics) => once_each(topics),
        };
        let unnamed =
            |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
        if version < BY_ID_VERSION_MIN && wanted.iter().any(unnamed) {
            return Outcome::Ready(view.refused(wanted));
        }
        let may_create = body.allow_auto_topic_creation && broker.config.auto_create_topics;
        let missing = if may_create {
            missing_names(broker, &wanted)
        } else {
            Vec::new()
        };
        if missing.is_empty() {
            return Outcome::Ready(view.some(broker, wanted, &[]));
        }
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            let failed = crate::metadata::auto_create(&broker, missing).await;
            view.some(&broker, wanted, &failed)
        })
    }
}

/// What stands twice in a request is told once, where it stood first.
fn once_each(topics: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    let mut seen = HashSet::new();
    let key = |topic: &MetadataRequestTopic| (topic.name.clone(), topic.topic_id);
    topics
        .into_iter()
        .filter(|topic| seen.insert(key(topic)))
        .collect()
}

/// Names that can be created: lawful, not there, not the broker's own.
fn missing_names(broker: &Broker, wanted: &[MetadataRequestTopic]) -> Vec<String> {
    let names = wanted.iter().filter_map(|topic| topic.name.as_ref());
    names
        .filter(|name| broker.partitions.topic(name).is_none())
        .filter(|name| validate_topic_name(name).is_ok() && !is_internal(name))
        .map(|name| name.to_string())
        .collect()
}

/// What of the answer depends on the request.
struct View {
    version: i16,
    /// Where this broker is reached from where the client is.
    this: Option<Listener>,
    topic_operations: bool,
    cluster_operations: bool,
}

impl View {
    fn all(&self, broker: &Broker) -> MetadataResponse {
        let mut topics = broker.partitions.topics();
        topics.sort_by(|a, b| a.topic.name.cmp(&b.topic.name));
        let topics = topics.iter().map(|state| self.topic(broker, state));
        self.response(broker, topics.collect())
    }

    fn some(
        &self,
        broker: &Broker,
        wanted: Vec<MetadataRequestTopic>,
        failed: &[(String, ErrorCode)],
    ) -> Answer<MetadataResponse> {
        let mut first_error = None;
        let topics = wanted.into_iter().map(|topic| {
            self.find(broker, &topic, failed).unwrap_or_else(|error| {
                first_error.get_or_insert(error);
                self.unknown(topic, error)
            })
        });
        let topics = topics.collect();
        Answer::new(self.response(broker, topics), first_error)
    }

    /// Ids in a version that cannot ask by them: nothing is told but that.
    fn refused(&self, wanted: Vec<MetadataRequestTopic>) -> Answer<MetadataResponse> {
        let error = ErrorCode::InvalidRequest;
        let topics = wanted.into_iter().map(|topic| self.unknown(topic, error));
        let response = MetadataResponse::default()
            .with_topics(topics.collect())
            .with_controller_id(BrokerId(-1))
            .with_cluster_authorized_operations(OPERATIONS_UNKNOWN);
        Answer::failed(response, error)
    }

    fn find(
        &self,
        broker: &Broker,
        wanted: &MetadataRequestTopic,
        failed: &[(String, ErrorCode)],
    ) -> Result<MetadataResponseTopic, ErrorCode> {
        let name = match &wanted.name {
            Some(name) if wanted.topic_id.is_nil() => name,
            // An id counts, whatever name stands beside it.
            _ => {
                return match broker.partitions.topic_by_id(wanted.topic_id.as_bytes()) {
                    Some(state) => Ok(self.topic(broker, &state)),
                    None => Err(ErrorCode::UnknownTopicId),
                };
            }
        };
        validate_topic_name(name).map_err(|error| errors::metadata(&error))?;
        if let Some(state) = broker.partitions.topic(name) {
            return Ok(self.topic(broker, &state));
        }
        let refused = failed
            .iter()
            .find(|(failed, _)| failed.as_str() == name.as_str());
        Err(refused.map_or(ErrorCode::UnknownTopicOrPartition, |(_, error)| *error))
    }

    fn unknown(&self, wanted: MetadataRequestTopic, error: ErrorCode) -> MetadataResponseTopic {
        let name = match wanted.name {
            Some(name) if wanted.topic_id.is_nil() || self.version < BY_ID_VERSION_MIN => {
                Some(name)
            }
            // Only versions that ask by id can say "no name".
            _ if self.version >= BY_ID_VERSION_MIN => None,
            _ => Some(TopicName::default()),
        };
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name)
            .with_topic_id(wanted.topic_id)
            .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
    }

    fn topic(&self, broker: &Broker, state: &TopicState) -> MetadataResponseTopic {
        let leader = BrokerId(broker.id());
        // Kafka names no leader that has no address on the client's listener.
        let (told, error) = match self.this {
            Some(_) => (leader, None),
            None if self.version >= LISTENER_NOT_FOUND_VERSION_MIN => {
                (BrokerId(-1), Some(ErrorCode::ListenerNotFound))
            }
            None => (BrokerId(-1), Some(ErrorCode::LeaderNotAvailable)),
        };
        let partitions = (0..state.topic.partitions).map(|index| {
            MetadataResponsePartition::default()
                .with_error_code(error.map_or(0, |it| it.code()))
                .with_partition_index(index)
                .with_leader_id(told)
                .with_leader_epoch(if self.version >= 7 {
                    state.leader_epoch
                } else {
                    -1
                })
                .with_replica_nodes(vec![leader])
                .with_isr_nodes(vec![leader])
        });
        let operations = if self.topic_operations && self.version >= 8 {
            TOPIC_OPERATIONS
        } else {
            OPERATIONS_UNKNOWN
        };
        MetadataResponseTopic::default()
            .with_name(Some(state.name.clone()))
            .with_topic_id(Uuid::from_bytes(state.topic.id))
            .with_is_internal(self.version >= 1 && is_internal(&state.topic.name))
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(operations)
    }

    fn response(&self, broker: &Broker, topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
        let this = self.this.as_ref().map(|address| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(broker.id()))
                .with_host(StrBytes::from_string(address.host.clone()))
                .with_port(i32::from(address.port))
        });
        let operations = if self.cluster_operations && (8..=10).contains(&self.version) {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_UNKNOWN
        };
        MetadataResponse::default()
            .with_brokers(this.into_iter().collect())
            .with_cluster_id(Some(StrBytes::from_string(
                broker.identity.cluster_id.clone(),
            )))
            .with_controller_id(BrokerId(broker.id()))
            .with_topics(topics)
            .with_cluster_authorized_operations(operations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestBroker, name};

    fn wanted(names: &[&str], create: bool) -> MetadataRequest {
        let topics = names
            .iter()
            .map(|n| MetadataRequestTopic::default().with_name(Some(name(n))));
        MetadataRequest::default()
            .with_topics(Some(topics.collect()))
            .with_allow_auto_topic_creation(create)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_version_shows_what_it_can() {
        let test = TestBroker::start(&["num.partitions=3"]).await;
        test.create(&["orders"]).await;
        for version in 0..=13 {
            let all = MetadataRequest::default().with_topics(if version == 0 {
                Some(vec![])
            } else {
                None
            });
            let response = test.call_version(all, version).await;
            assert_eq!(response.brokers[0].port, 9092);
            let orders = Some(name("orders"));
            let topic = response.topics.iter().find(|t| t.name == orders);
            assert_eq!(topic.unwrap().partitions.len(), 3, "version {version}");
            let new = format!("new-{version}");
            let missing = wanted(&[new.as_str()], version < 4);
            let response = test.call_version(missing, version).await;
            // Before version 4 everybody asks for creation.
            let created = version < 4;
            assert_eq!(response.topics[0].error_code == 0, created);
            assert_eq!(test.broker.partitions.topic(&new).is_some(), created);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn creation_needs_both_sides() {
        let test = TestBroker::start(&["auto.create.topics.enable=false"]).await;
        let check = async |test: &TestBroker, name: &str, create: bool, error: i16| {
            let response = test.call(wanted(&[name], create)).await;
            assert_eq!(response.topics[0].error_code, error, "{name}");
        };
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        check(&test, "a", true, unknown).await;
        let test = TestBroker::start(&[]).await;
        check(&test, "a", false, unknown).await;
        check(&test, "a", true, 0).await;
        check(&test, "a", false, 0).await;
        let invalid = ErrorCode::InvalidTopicException.code();
        check(&test, "no spaces", true, invalid).await;
        check(&test, "__cluster_metadata", true, unknown).await;
        let id = test.broker.partitions.topic("a").unwrap().topic.id;
        for (id, error) in [
            (Uuid::from_bytes(id), 0),
            (Uuid::from_u128(5), ErrorCode::UnknownTopicId.code()),
        ] {
            let by_id = MetadataRequestTopic::default()
                .with_name(None)
                .with_topic_id(id);
            let request = MetadataRequest::default().with_topics(Some(vec![by_id]));
            let response = test.call(request).await;
            assert_eq!(response.topics[0].error_code, error);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn topics_are_there_after_a_restart() {
        let test = TestBroker::start(&[]).await;
        test.create(&["a", "b"]).await;
        let test = TestBroker::start_in(test.stop(), &[]).await;
        let response = test
            .call(MetadataRequest::default().with_topics(None))
            .await;
        let names: Vec<_> = response.topics.iter().map(|t| t.name.clone()).collect();
        assert_eq!(names, [Some(name("a")), Some(name("b"))]);
        assert_eq!(response.topics[0].partitions[0].leader_epoch, 1);
    }
}
