//! A broker, an operator and two namespaces: what a test of the operator plays on.
//!
//! Owns the broker's own view of topics, asked for over the wire, so that no test believes a status alone.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest, TopicName,
};
use serde_json::{Value, json};

use crate::Broker;
use crate::broker::BrokerSetup;
use crate::kube::{self, OPERATOR_WITHIN, condition, shared};
use crate::operator::{Operator, OperatorSetup};
use crate::wait_until;
use crate::wire::{Wire, text};

/// Kafka's number for topics in config requests.
const TOPIC_RESOURCE: i8 = 2;

/// Id and number of partitions of a topic, as the broker tells it.
pub fn topic(broker: &Broker, name: &str) -> Option<(String, usize)> {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_allow_auto_topic_creation(false);
    let answer = Wire::connect(broker.bootstrap()).call(12, &request);
    let found = &answer.topics[0];
    (found.error_code == 0).then(|| (found.topic_id.to_string(), found.partitions.len()))
}

/// A config of a topic, as the broker tells it.
pub fn config(broker: &Broker, name: &str, key: &str) -> Option<String> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = Wire::connect(broker.bootstrap()).call(4, &request);
    let entry = answer.results[0]
        .configs
        .iter()
        .find(|it| it.name.as_str() == key)?;
    entry.value.as_ref().map(ToString::to_string)
}

/// Another client changes a config.
pub fn tamper(broker: &Broker, name: &str, key: &str, value: &str) {
    let change = AlterableConfig::default()
        .with_name(text(key))
        .with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC_RESOURCE)
        .with_resource_name(text(name))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = Wire::connect(broker.bootstrap()).call(1, &request);
    assert_eq!(
        answer.responses[0].error_code, 0,
        "{:?}",
        answer.responses[0].error_message
    );
}

/// A broker, a namespace for the operator (also the cluster's name) and one for the objects.
#[derive(Debug)]
pub struct Stage {
    /// The broker, on a fixed port.
    pub broker: Broker,
    /// The cluster's name, and the operator's own namespace.
    pub cluster: &'static str,
    /// Where the objects are.
    pub namespace: String,
}

impl Stage {
    /// Starts a broker and creates both namespaces.
    pub fn new(cluster: &'static str) -> Self {
        Self::with(cluster, &[])
    }

    /// The same with settings of the broker.
    pub fn with(cluster: &'static str, settings: &[(&str, &str)]) -> Self {
        let listener = format!("PLAINTEXT://127.0.0.1:{}", kube::free_port());
        let setup = BrokerSetup::new()
            .set("listeners", listener)
            .set("auto.create.topics.enable", "false")
            // A member that comes alone has its partitions at once.
            .set("group.initial.rebalance.delay.ms", "0");
        let broker = settings
            .iter()
            .fold(setup, |setup, (key, value)| setup.set(key, value))
            .start();
        let namespace = format!("{cluster}-objects");
        for name in [cluster, namespace.as_str()] {
            shared().namespace(name);
        }
        Self {
            broker,
            cluster,
            namespace,
        }
    }

    /// An operator that looks after the objects.
    pub fn operator(&self) -> Operator {
        self.setup().start()
    }

    /// The same operator before it starts.
    pub fn setup(&self) -> OperatorSetup {
        OperatorSetup::new(self.cluster, self.cluster, &[&self.namespace], &self.broker)
    }

    /// Kills an operator. Its lease goes with it: how long the next one respects it is another test.
    pub fn bury(&self, operator: &mut Operator) {
        operator.kill9();
        let lease = format!("{}-operator", self.cluster);
        if shared().get("lease", self.cluster, &lease).is_some() {
            shared().delete("lease", self.cluster, &lease);
        }
    }

    /// The StatefulSet that says that the cluster still exists. No controller acts on it here.
    pub fn statefulset(&self) {
        let name = format!("{}-broker", self.cluster);
        let labels = json!({ "app": name });
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": { "name": name, "namespace": self.cluster },
            "spec": {
                "replicas": 1, "serviceName": name, "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "broker", "image": "none" }] },
                },
            },
        });
        shared().kubectl(&["apply", "--server-side", "-f", "-"], &set.to_string());
    }

    /// Applies a Topic.
    pub fn apply(&self, name: &str, spec: Value) {
        shared().apply("Topic", &self.namespace, name, &spec);
    }

    /// Waits until a Topic is as described.
    pub fn ready(&self, name: &str) -> Value {
        self.wait(name, "Ready", "True", "AsDescribed")
    }

    /// Whether a condition of a Topic has this reason at this moment.
    pub fn condition_is(&self, name: &str, type_: &str, reason: &str) -> bool {
        let found = shared().get("topic", &self.namespace, name);
        found
            .as_ref()
            .and_then(|it| condition(it, type_))
            .is_some_and(|it| it["reason"] == reason)
    }

    /// Waits for an Event about an object of this name.
    #[track_caller]
    pub fn event(&self, name: &str, reason: &str) {
        let what = format!("an Event {reason} about {name}");
        wait_until(&what, OPERATOR_WITHIN, || {
            let found = shared().event_reasons(&self.namespace, name);
            found.iter().any(|it| it == reason)
        });
    }

    /// Waits for a condition of a Topic.
    #[track_caller]
    pub fn wait(&self, name: &str, type_: &str, status: &str, reason: &str) -> Value {
        shared().wait_condition(("topic", &self.namespace, name), type_, status, reason)
    }
}

/// The message of a condition of an object.
#[track_caller]
pub fn message(object: &Value, type_: &str) -> String {
    condition(object, type_).expect("the condition is there")["message"]
        .as_str()
        .expect("a string")
        .to_owned()
}

/// Records of today: old ones would be gone before their damage could be told.
pub fn now_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time that fits")
}
