//! Topic configuration keys: their types, defaults, meaning and rules, in one table; and where a value is found: topic,
//! then the broker's own configuration (Kafka's synonyms such as `log.retention.hours`, in three layers), then the default.
//!
//! It never reads a file and never stores anything.

mod describe;
mod judge;
mod keys;
mod layers;
mod settings;
mod table;

pub use describe::{ConfigEntry, SynonymEntry, describe};
pub use judge::{
    ConfigError, ConfigLimits, check_together, find, list_elements, parse_boolean, validate,
};
pub use keys::{
    Kind, OWNER_BYTES_MAX, OWNER_KEY, Rule, SEGMENT_BYTES_MIN, Source, Synonym, TopicKey,
};
pub use layers::{LayeredDefaults, TopicDefaults, broker_default};
pub use settings::{
    CompactionSettings, CompressionLevels, CompressionType, TimestampType, TopicSettings, settings,
};
pub use table::TOPIC_KEYS;

#[cfg(test)]
mod tests;
