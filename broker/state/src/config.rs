//! Topic configuration keys: their types, defaults, meaning and rules, in one table.
//!
//! It owns which keys exist and what a lawful value is, and how a value is found: topic, then the broker's own
//! configuration (Kafka's synonyms such as `log.retention.hours`), then the default. It never reads a file and never
//! stores anything.

use std::collections::BTreeMap;

mod keys;

pub use keys::{
    Kind, OWNER_BYTES_MAX, OWNER_KEY, Rule, SEGMENT_BYTES_MIN, Source, Synonym, TOPIC_KEYS,
    TopicKey,
};

/// Longest value of any key: numbers may carry leading zeros, but not for ever.
const VALUE_BYTES_MAX: usize = 1_024;

/// Longest text echoed from a refused value, so that an answer stays small.
const ECHO_CHARS_MAX: usize = 128;

/// Limits of this broker that a value must respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigLimits {
    /// The largest batch that a WAL file and the tail memory can hold, in bytes.
    pub message_bytes_max: i32,
}

/// A refused configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The key is not one of ours.
    #[error("Unknown topic config name: {key}. Supported here: {supported}.")]
    UnknownKey {
        /// The key.
        key: String,
        /// All keys that there are.
        supported: String,
    },
    /// The value breaks the key's rule.
    #[error("Invalid value {value} for configuration {key}: {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// The value, shortened.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A null where a value is needed.
    #[error("Null value not supported for topic configs: {key}")]
    Null {
        /// The key.
        key: String,
    },
    /// APPEND or SUBTRACT on a key that is no list.
    #[error("Can't {operation} to key {key} because its type is not LIST.")]
    NotAList {
        /// The key.
        key: String,
        /// The operation.
        operation: &'static str,
    },
    /// `keelson.owner` would change from one owner to another.
    #[error("keelson.owner is {current:?} and cannot become {wanted:?}: remove it first")]
    Owned {
        /// The owner now.
        current: String,
        /// The owner asked for.
        wanted: String,
    },
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn bad_value(key: &str, value: &str, reason: String) -> ConfigError {
    ConfigError::BadValue {
        key: key.to_owned(),
        value: shortened(value),
        reason,
    }
}

/// The key of this name.
pub fn find(name: &str) -> Result<&'static TopicKey, ConfigError> {
    TOPIC_KEYS
        .iter()
        .find(|key| key.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = TOPIC_KEYS.iter().map(|key| key.name).collect();
            ConfigError::UnknownKey {
                key: shortened(name),
                supported: names.join(", "),
            }
        })
}

/// Elements of a LIST value.
pub fn list_elements(value: &str) -> Vec<&str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .collect()
}

/// Judges one value of one topic key; returns the key.
pub fn validate(
    name: &str,
    value: &str,
    limits: &ConfigLimits,
) -> Result<&'static TopicKey, ConfigError> {
    let key = find(name)?;
    check_value(key, value)?;
    if key.name == "max.message.bytes" {
        let max = limits.message_bytes_max;
        if value
            .trim()
            .parse::<i64>()
            .is_ok_and(|bytes| bytes > i64::from(max))
        {
            let reason = format!("This broker's log holds batches of at most {max} bytes");
            return Err(bad_value(name, value, reason));
        }
    }
    Ok(key)
}

fn check_value(key: &TopicKey, value: &str) -> Result<(), ConfigError> {
    if value.len() > VALUE_BYTES_MAX {
        let reason = format!("A value has at most {VALUE_BYTES_MAX} bytes");
        return Err(bad_value(key.name, value, reason));
    }
    match key.rule {
        Rule::Range { min, max } => check_number(key.name, value, min, max).map(|_| ()),
        Rule::Ratio => {
            let ratio = value.trim().parse::<f64>().ok();
            let reason = match ratio {
                Some(ratio) if (0.0..=1.0).contains(&ratio) => return Ok(()),
                Some(_) => "Value must be from 0 to 1",
                None => "Not a number",
            };
            Err(bad_value(key.name, value, reason.to_owned()))
        }
        Rule::OneOf(words) => {
            let given = match key.kind {
                Kind::List => list_elements(value),
                Kind::Boolean | Kind::String | Kind::Int | Kind::Long | Kind::Double => vec![value],
            };
            if given.is_empty() || given.iter().any(|word| !words.contains(word)) {
                return Err(bad_value(
                    key.name,
                    value,
                    format!("Supported here: {}", words.join(", ")),
                ));
            }
            Ok(())
        }
        Rule::Text { bytes_max } => {
            if value.len() > bytes_max || value.chars().any(char::is_control) {
                let reason = format!(
                    "Text of at most {bytes_max} bytes without control characters is needed"
                );
                return Err(bad_value(key.name, value, reason));
            }
            Ok(())
        }
    }
}

fn check_number(name: &str, value: &str, min: i64, max: i64) -> Result<i64, ConfigError> {
    let Ok(number) = value.trim().parse::<i64>() else {
        return Err(bad_value(name, value, "Not a whole number".to_owned()));
    };
    if number < min {
        return Err(bad_value(
            name,
            value,
            format!("Value must be at least {min}"),
        ));
    }
    if number > max {
        return Err(bad_value(
            name,
            value,
            format!("Value must be no more than {max}"),
        ));
    }
    Ok(number)
}

/// The part of the broker's own configuration that sets defaults of topics: what the file set, by broker key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaticConfig {
    set: BTreeMap<&'static str, String>,
}

impl StaticConfig {
    /// Whether `name` is a broker key that belongs here.
    pub fn is_key(name: &str) -> bool {
        Self::find(name).is_some()
    }

    /// Every broker key that belongs here with its type, default and meaning, for the broker's own list of keys.
    pub fn keys() -> impl Iterator<Item = (&'static TopicKey, &'static Synonym)> {
        TOPIC_KEYS
            .iter()
            .flat_map(|key| key.synonyms.iter().map(move |synonym| (key, synonym)))
    }

    fn find(name: &str) -> Option<(&'static TopicKey, &'static Synonym)> {
        Self::keys().find(|(_, synonym)| synonym.name == name)
    }

    /// Sets one broker key; the value obeys the rule of its topic key, in its own unit.
    pub fn set(
        &mut self,
        name: &str,
        value: &str,
        limits: &ConfigLimits,
    ) -> Result<(), ConfigError> {
        let Some((key, synonym)) = Self::find(name) else {
            return Err(ConfigError::UnknownKey {
                key: shortened(name),
                supported: "see the list of keys".to_owned(),
            });
        };
        if synonym.factor == 1 {
            validate(key.name, value, limits).map_err(|error| rename(error, name))?;
        } else {
            let whole_ms = i64::from(i32::MAX);
            check_number(
                name,
                value,
                if key.name == "segment.ms" { 1 } else { -1 },
                whole_ms,
            )?;
        }
        self.set.insert(synonym.name, value.trim().to_owned());
        Ok(())
    }

    /// What the file set for this broker key.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }
}

fn rename(error: ConfigError, name: &str) -> ConfigError {
    match error {
        ConfigError::BadValue { value, reason, .. } => ConfigError::BadValue {
            key: name.to_owned(),
            value,
            reason,
        },
        ConfigError::UnknownKey { .. }
        | ConfigError::Null { .. }
        | ConfigError::NotAList { .. }
        | ConfigError::Owned { .. } => error,
    }
}

/// A value in the unit of the topic key: hours and minutes become milliseconds, −1 stays −1.
fn scaled(value: &str, factor: i64) -> String {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 && number >= 0 => number.saturating_mul(factor).to_string(),
        Ok(_) | Err(_) => value.to_owned(),
    }
}

/// The value of `key` that the broker's configuration gives to topics that do not set it.
pub fn broker_default(key: &TopicKey, statics: &StaticConfig) -> (Option<String>, Source) {
    for synonym in key.synonyms {
        if let Some(value) = statics.get(synonym.name) {
            return (Some(scaled(value, synonym.factor)), Source::StaticBroker);
        }
    }
    (key.default.map(str::to_owned), Source::Default)
}

/// One value in the chain that DescribeConfigs shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynonymEntry {
    /// Topic key or broker key.
    pub name: &'static str,
    /// The value, in the unit of that key.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// One line of DescribeConfigs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub key: &'static TopicKey,
    /// The value in force.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// The values found on the way, strongest first.
    pub synonyms: Vec<SynonymEntry>,
}

/// Every key of a topic, with the value in force, by name.
pub fn describe(topic: &BTreeMap<String, String>, statics: &StaticConfig) -> Vec<ConfigEntry> {
    TOPIC_KEYS
        .iter()
        .map(|key| describe_one(key, topic, statics))
        .collect()
}

fn describe_one(
    key: &'static TopicKey,
    topic: &BTreeMap<String, String>,
    statics: &StaticConfig,
) -> ConfigEntry {
    let mut synonyms = Vec::new();
    let set = topic.get(key.name);
    if let Some(value) = set {
        synonyms.push(SynonymEntry {
            name: key.name,
            value: Some(value.clone()),
            source: Source::Topic,
        });
    }
    for synonym in key.synonyms {
        if let Some(value) = statics.get(synonym.name) {
            let value = Some(value.to_owned());
            synonyms.push(SynonymEntry {
                name: synonym.name,
                value,
                source: Source::StaticBroker,
            });
        }
    }
    for synonym in key.synonyms {
        if let Some(value) = synonym.default {
            let value = Some(value.to_owned());
            synonyms.push(SynonymEntry {
                name: synonym.name,
                value,
                source: Source::Default,
            });
        }
    }
    let (value, source) = match set {
        Some(value) => (Some(value.clone()), Source::Topic),
        None => broker_default(key, statics),
    };
    ConfigEntry {
        key,
        value,
        source,
        synonyms,
    }
}

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
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// `cleanup.policy` names `delete`.
    pub deletes: bool,
    /// `cleanup.policy` names `compact`.
    pub compaction: Option<CompactionSettings>,
}

/// The values in force of one topic. Values were validated when they were set, so one that is not lawful here (it can
/// only come from data of another version) falls back to the broker's default.
pub fn settings(topic: &BTreeMap<String, String>, statics: &StaticConfig) -> TopicSettings {
    let text = |name: &'static str| -> String {
        let key = find(name).expect("the names below are in the table");
        let set = topic
            .get(name)
            .filter(|value| check_value(key, value).is_ok());
        let value = set.cloned().or_else(|| broker_default(key, statics).0);
        value.expect("the keys below have defaults")
    };
    let long = |name: &'static str| -> i64 {
        let number = text(name).trim().parse();
        number.expect("defaults and validated values are whole numbers")
    };
    let int = |name: &'static str| {
        i32::try_from(long(name)).expect("the rule of an INT keeps it in 32 bits")
    };
    let policy = text("cleanup.policy");
    let policy = list_elements(&policy);
    let compaction = CompactionSettings {
        min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio")
            .trim()
            .parse()
            .expect("defaults and validated values are numbers"),
        min_lag_ms: long("min.compaction.lag.ms"),
        max_lag_ms: long("max.compaction.lag.ms"),
        delete_retention_ms: long("delete.retention.ms"),
    };
    TopicSettings {
        retention_ms: long("retention.ms"),
        retention_bytes: long("retention.bytes"),
        segment_bytes: int("segment.bytes"),
        segment_ms: long("segment.ms"),
        max_message_bytes: int("max.message.bytes"),
        timestamp_type: match text("message.timestamp.type").as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        compression_type: match text("compression.type").as_str() {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        },
        deletes: policy.contains(&"delete"),
        compaction: policy.contains(&"compact").then_some(compaction),
    }
}

#[cfg(test)]
mod tests;
