//! Whether a value is lawful, in Kafka's words where Kafka has some. It never stores anything.

use std::collections::BTreeMap;

use super::keys::{Kind, Rule, TopicKey};
use super::layers::LayeredDefaults;
use super::settings::Found;
use super::table::TOPIC_KEYS;

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
    #[error("Unknown topic config name: {key}")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// Two values that do not go together.
    #[error("conflict topic config setting {low} ({low_value}) > {high} ({high_value})")]
    Conflict {
        /// The key that must not be above the other.
        low: &'static str,
        /// Its value.
        low_value: i64,
        /// The other.
        high: &'static str,
        /// Its value.
        high_value: i64,
    },
    /// A key of the broker that cannot be set, and why.
    #[error("{reason}")]
    BrokerKey {
        /// The key and the reason.
        reason: String,
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

pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn bad_value(key: &str, value: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::BadValue {
        key: key.to_owned(),
        value: shortened(value),
        reason: reason.into(),
    }
}

/// The key of this name.
pub fn find(name: &str) -> Result<&'static TopicKey, ConfigError> {
    let known = TOPIC_KEYS.iter().find(|key| key.name == name);
    known.ok_or_else(|| ConfigError::UnknownKey {
        key: shortened(name),
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

/// `true` or `false`, in any case.
pub fn parse_boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
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

/// Whether the values in force of a topic go together.
pub fn check_together(
    topic: &BTreeMap<String, String>,
    defaults: &LayeredDefaults,
) -> Result<(), ConfigError> {
    let (low, high) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let found = Found { topic, defaults };
    let (low_value, high_value) = (found.long(low), found.long(high));
    if low_value > high_value {
        return Err(ConfigError::Conflict {
            low,
            low_value,
            high,
            high_value,
        });
    }
    Ok(())
}

pub(super) fn check_value(key: &TopicKey, value: &str) -> Result<(), ConfigError> {
    if value.len() > VALUE_BYTES_MAX {
        let reason = format!("A value has at most {VALUE_BYTES_MAX} bytes");
        return Err(bad_value(key.name, value, reason));
    }
    match key.rule {
        Rule::Range { min, max } => check_number((key.name, key.kind), value, min, max).map(|_| ()),
        Rule::GzipLevel => match check_number((key.name, key.kind), value, i64::MIN, i64::MAX)? {
            -1 | 1..=9 => Ok(()),
            _ => {
                let reason = "Value must be between 1 and 9 or equal to -1";
                Err(bad_value(key.name, value, reason))
            }
        },
        Rule::Ratio => check_ratio(key.name, value),
        Rule::Boolean => check_boolean(key.name, value).map(|_| ()),
        Rule::OneOf(words) => check_words(key, value, words),
        Rule::Replicas => check_replicas(key.name, value),
        Rule::Only {
            value: only,
            reason,
        } => check_only(key, value, only, reason),
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

fn check_ratio(name: &str, value: &str) -> Result<(), ConfigError> {
    match value.trim().parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
        Ok(ratio) if ratio < 0.0 => Err(bad_value(name, value, "Value must be at least 0")),
        Ok(_) => Err(bad_value(name, value, "Value must be no more than 1")),
        Err(_) => Err(bad_value(name, value, "Not a number of type DOUBLE")),
    }
}

fn check_boolean(name: &str, value: &str) -> Result<bool, ConfigError> {
    let reason = "Expected value to be either true or false";
    parse_boolean(value).ok_or_else(|| bad_value(name, value, reason))
}

fn check_words(key: &TopicKey, value: &str, words: &[&str]) -> Result<(), ConfigError> {
    let given = match key.kind {
        Kind::List => list_elements(value),
        Kind::Boolean | Kind::String | Kind::Int | Kind::Long | Kind::Double => vec![value.trim()],
    };
    match given.iter().find(|word| !words.contains(word)) {
        None => Ok(()),
        Some(word) => {
            let reason = format!("String must be one of: {}", words.join(", "));
            Err(bad_value(key.name, word, reason))
        }
    }
}

fn check_replicas(name: &str, value: &str) -> Result<(), ConfigError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_replica = |element: &&str| match element.split_once(':') {
        Some((partition, broker)) => is_number(partition) && is_number(broker),
        None => false,
    };
    let elements = list_elements(value);
    if elements == ["*"] || elements.iter().all(is_replica) {
        return Ok(());
    }
    let reason = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(bad_value(
        name,
        &format!("[{}]", elements.join(", ")),
        reason,
    ))
}

fn check_only(
    key: &TopicKey,
    value: &str,
    only: &str,
    reason: &'static str,
) -> Result<(), ConfigError> {
    let is_it = match key.kind {
        Kind::Boolean => check_boolean(key.name, value)? == (only == "true"),
        Kind::Int | Kind::Long => {
            let given = check_number((key.name, key.kind), value, i64::MIN, i64::MAX)?;
            only.parse() == Ok(given)
        }
        Kind::String | Kind::Double | Kind::List => value.trim() == only,
    };
    if is_it {
        return Ok(());
    }
    let reason = format!("Only {only} is supported here: {reason}");
    Err(bad_value(key.name, value, reason))
}

pub(super) fn check_number(
    (name, kind): (&str, Kind),
    value: &str,
    min: i64,
    max: i64,
) -> Result<i64, ConfigError> {
    let parsed = value.trim().parse::<i64>().ok();
    let fits = |number: &i64| kind != Kind::Int || i32::try_from(*number).is_ok();
    let Some(number) = parsed.filter(fits) else {
        let reason = format!("Not a number of type {}", kind.name());
        return Err(bad_value(name, value, reason));
    };
    if number < min {
        let reason = format!("Value must be at least {min}");
        return Err(bad_value(name, value, reason));
    }
    if number > max {
        let reason = format!("Value must be no more than {max}");
        return Err(bad_value(name, value, reason));
    }
    Ok(number)
}
