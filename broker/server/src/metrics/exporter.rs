//! kafka_exporter's families under their own names, rendered from live state at each scrape.
//!
//! Owns their names and text. Keeps nothing between scrapes, so that a deleted topic's series end with it, and 10,000
//! partitions cost nothing while nobody looks.

use std::fmt::Write;

use super::groups;
use crate::broker::Broker;
use crate::coordinator::GroupSnapshot;
use crate::partitions::TopicState;

/// One family being written.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    pub(super) fn new(out: &'a mut String, name: &'static str, help: &str) -> Self {
        Self::of_kind(out, name, "gauge", help)
    }

    pub(super) fn counter(out: &'a mut String, name: &'static str, help: &str) -> Self {
        Self::of_kind(out, name, "counter", help)
    }

    fn of_kind(out: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        put(
            out,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
        Self { out, name }
    }

    pub(super) fn plain(&mut self, value: impl std::fmt::Display) {
        put(self.out, format_args!("{} {value}\n", self.name));
    }

    /// One series; `labels` without braces, already escaped.
    pub(super) fn labelled(&mut self, labels: &str, value: impl std::fmt::Display) {
        put(
            self.out,
            format_args!("{}{{{labels}}} {value}\n", self.name),
        );
    }

    fn topic(&mut self, topic: &str, value: i64) {
        put(
            self.out,
            format_args!("{}{{topic=\"{topic}\"}} {value}\n", self.name),
        );
    }

    fn partition(&mut self, topic: &str, partition: usize, value: i64) {
        put(
            self.out,
            format_args!(
                "{}{{partition=\"{partition}\",topic=\"{topic}\"}} {value}\n",
                self.name
            ),
        );
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

/// Escapes a label value (group names are any text).
pub(super) fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Writes every family; topic names hold nothing that needs an escape. `groups` are the coordinator's, of this moment.
pub fn render(broker: &Broker, groups: &[GroupSnapshot], out: &mut String) {
    Family::new(out, "kafka_brokers", "Number of brokers in the cluster").plain(1);
    if !broker.config.metrics_partitions {
        return;
    }
    let mut topics = broker.partitions.topics();
    topics.sort_by(|a, b| a.topic.name.cmp(&b.topic.name));
    let mut counts = Family::new(
        out,
        "kafka_topic_partitions",
        "Number of partitions of a topic",
    );
    for state in &topics {
        counts.topic(
            &state.topic.name,
            i64::try_from(state.partitions.len()).unwrap_or(i64::MAX),
        );
    }
    offsets(&topics, out);
    placement(broker, &topics, out);
    groups::render(broker, groups, out);
}

fn offsets(topics: &[std::sync::Arc<TopicState>], out: &mut String) {
    let mut current = Family::new(
        out,
        "kafka_topic_partition_current_offset",
        "Offset after the newest durable record",
    );
    for state in topics {
        for (n, partition) in state.partitions.iter().enumerate() {
            current.partition(&state.topic.name, n, partition.high_watermark());
        }
    }
    let mut oldest = Family::new(
        out,
        "kafka_topic_partition_oldest_offset",
        "Offset of the oldest record",
    );
    for state in topics {
        for (n, partition) in state.partitions.iter().enumerate() {
            oldest.partition(&state.topic.name, n, partition.log().log_start());
        }
    }
}

fn placement(broker: &Broker, topics: &[std::sync::Arc<TopicState>], out: &mut String) {
    let id = i64::from(broker.id());
    for (name, help, value) in [
        ("kafka_topic_partition_leader", "Broker that leads", id),
        (
            "kafka_topic_partition_leader_is_preferred",
            "1 if the preferred broker leads",
            1,
        ),
        ("kafka_topic_partition_replicas", "Number of replicas", 1),
        (
            "kafka_topic_partition_in_sync_replica",
            "Number of in-sync replicas",
            1,
        ),
        (
            "kafka_topic_partition_under_replicated_partition",
            "1 if a replica is not in sync",
            0,
        ),
    ] {
        let mut family = Family::new(out, name, help);
        for state in topics {
            for n in 0..state.partitions.len() {
                family.partition(&state.topic.name, n, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBroker;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn series_are_kafka_exporters() {
        let test = TestBroker::start(&["num.partitions=2"]).await;
        test.create(&["orders"]).await;
        test.produce("orders", 1, &[b"a", b"b"]).await;
        let mut text = String::new();
        let group = GroupSnapshot {
            group: "a \"b\"".to_owned(),
            members: 3,
            offsets: vec![
                ("orders".to_owned(), 0, 0),
                ("orders".to_owned(), 1, 1),
                ("gone".to_owned(), 0, 1),
            ],
        };
        render(&test.broker, &[group], &mut text);
        for line in [
            "# TYPE kafka_brokers gauge",
            "kafka_brokers 1",
            "kafka_topic_partitions{topic=\"orders\"} 2",
            "kafka_topic_partition_current_offset{partition=\"0\",topic=\"orders\"} 0",
            "kafka_topic_partition_current_offset{partition=\"1\",topic=\"orders\"} 2",
            "kafka_topic_partition_oldest_offset{partition=\"1\",topic=\"orders\"} 0",
            "kafka_topic_partition_leader{partition=\"1\",topic=\"orders\"} 0",
            "kafka_topic_partition_leader_is_preferred{partition=\"0\",topic=\"orders\"} 1",
            "kafka_topic_partition_replicas{partition=\"0\",topic=\"orders\"} 1",
            "kafka_topic_partition_in_sync_replica{partition=\"0\",topic=\"orders\"} 1",
            "kafka_topic_partition_under_replicated_partition{partition=\"0\",topic=\"orders\"} 0",
            "kafka_consumergroup_members{consumergroup=\"a \\\"b\\\"\"} 3",
            "kafka_consumergroup_lag{consumergroup=\"a \\\"b\\\"\",partition=\"0\",topic=\"orders\"} 0",
            "kafka_consumergroup_lag{consumergroup=\"a \\\"b\\\"\",partition=\"1\",topic=\"orders\"} 1",
            "kafka_consumergroup_current_offset_sum{consumergroup=\"a \\\"b\\\"\",topic=\"orders\"} 1",
            "kafka_consumergroup_lag_sum{consumergroup=\"a \\\"b\\\"\",topic=\"orders\"} 1",
            "keelson_consumergroup_lag_seconds{consumergroup=\"a \\\"b\\\"\",partition=\"0\",topic=\"orders\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let test = TestBroker::start(&["keelson.metrics.partitions=false"]).await;
        test.create(&["orders"]).await;
        let mut text = String::new();
        render(&test.broker, &[], &mut text);
        assert!(
            text.contains("kafka_brokers 1") && !text.contains("orders"),
            "{text}"
        );
    }
}
