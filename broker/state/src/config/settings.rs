//! The configuration of a topic as values in force. It never judges: what is stored was judged when it was set.

use std::collections::BTreeMap;

use super::judge::{check_value, find, list_elements};
use super::layers::{LayeredDefaults, broker_default};

/// How the timestamp of a record comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// `compression.type`: how batches are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are Kafka's.
pub enum CompressionType {
    /// As they were sent.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// How hard the broker compresses; LZ4 and Snappy have one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionLevels {
    /// `compression.gzip.level`; −1 is gzip's own default.
    pub gzip: i32,
    /// `compression.zstd.level`.
    pub zstd: i32,
}

/// How a topic is compacted, as values in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionSettings {
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// The configuration of a topic as values in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopicSettings {
    /// `retention.ms`; −1 is no limit.
    pub retention_ms: i64,
    /// `retention.bytes`; −1 is no limit.
    pub retention_bytes: i64,
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// `compression.*.level`.
    pub compression_levels: CompressionLevels,
    /// `cleanup.policy` names `delete`.
    pub deletes: bool,
    /// `cleanup.policy` names `compact`.
    pub compaction: Option<CompactionSettings>,
}

/// The values in force of one topic. Values were validated when they were set, so one that is not lawful here (it can
/// only come from data of another version) falls back to the broker's default.
pub fn settings(topic: &BTreeMap<String, String>, defaults: &LayeredDefaults) -> TopicSettings {
    let found = Found { topic, defaults };
    let policy = found.text("cleanup.policy");
    let policy = list_elements(&policy);
    TopicSettings {
        retention_ms: found.long("retention.ms"),
        retention_bytes: found.long("retention.bytes"),
        segment_bytes: found.int("segment.bytes"),
        segment_ms: found.long("segment.ms"),
        segment_jitter_ms: found.long("segment.jitter.ms"),
        max_message_bytes: found.int("max.message.bytes"),
        timestamp_type: match found.text("message.timestamp.type").as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: found.long("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: found.long("message.timestamp.after.max.ms"),
        compression_type: match found.text("compression.type").as_str() {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        },
        compression_levels: CompressionLevels {
            gzip: found.int("compression.gzip.level"),
            zstd: found.int("compression.zstd.level"),
        },
        deletes: policy.contains(&"delete"),
        compaction: policy.contains(&"compact").then(|| found.compaction()),
    }
}

/// Where the values of a topic are found.
pub(super) struct Found<'a> {
    pub(super) topic: &'a BTreeMap<String, String>,
    pub(super) defaults: &'a LayeredDefaults,
}

impl Found<'_> {
    fn text(&self, name: &'static str) -> String {
        let key = find(name).expect("the names in this file are in the table");
        let set = self
            .topic
            .get(name)
            .filter(|value| check_value(key, value).is_ok());
        let value = set.cloned().or_else(|| broker_default(key, self.defaults));
        value
            .expect("the keys in this file have defaults")
            .trim()
            .to_owned()
    }

    pub(super) fn long(&self, name: &'static str) -> i64 {
        let number = self.text(name).parse();
        number.expect("defaults and validated values are whole numbers")
    }

    fn int(&self, name: &'static str) -> i32 {
        i32::try_from(self.long(name)).expect("the rule of an INT keeps it in 32 bits")
    }

    fn compaction(&self) -> CompactionSettings {
        CompactionSettings {
            min_cleanable_dirty_ratio: self
                .text("min.cleanable.dirty.ratio")
                .parse()
                .expect("defaults and validated values are numbers"),
            min_lag_ms: self.long("min.compaction.lag.ms"),
            max_lag_ms: self.long("max.compaction.lag.ms"),
            delete_retention_ms: self.long("delete.retention.ms"),
        }
    }
}
