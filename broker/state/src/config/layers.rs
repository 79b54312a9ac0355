//! The part of the broker's own configuration that sets defaults of topics: what a file set, and what the API set, for this
//! broker or for all. It never judges a topic's own value.

use std::collections::BTreeMap;

use super::judge::{ConfigError, ConfigLimits, check_number, shortened, validate};
use super::keys::{Kind, Source, Synonym, TopicKey};
use super::table::TOPIC_KEYS;

/// One layer: values by broker key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicDefaults {
    set: BTreeMap<&'static str, String>,
}

impl TopicDefaults {
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

    /// The topic key and the synonym of this name.
    pub fn find(name: &str) -> Option<(&'static TopicKey, &'static Synonym)> {
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
            });
        };
        if synonym.factor == 1 {
            validate(key.name, value, limits).map_err(|error| rename(error, name))?;
        } else {
            let min = match key.name {
                "segment.ms" => 1,
                "segment.jitter.ms" => 0,
                _ => -1,
            };
            check_number((name, Kind::Int), value, min, i64::from(i32::MAX))?;
        }
        self.set.insert(synonym.name, value.trim().to_owned());
        Ok(())
    }

    /// What the layer sets for this broker key.
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
        | ConfigError::Conflict { .. }
        | ConfigError::BrokerKey { .. }
        | ConfigError::Null { .. }
        | ConfigError::NotAList { .. }
        | ConfigError::Owned { .. } => error,
    }
}

/// All layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayeredDefaults {
    /// Set on this broker, through the API.
    pub dynamic_broker: TopicDefaults,
    /// Set for all brokers, through the API.
    pub dynamic_default: TopicDefaults,
    /// Set in the file.
    pub statics: TopicDefaults,
}

impl LayeredDefaults {
    /// The layers, strongest first.
    pub fn layers(&self) -> [(Source, &TopicDefaults); 3] {
        [
            (Source::DynamicBroker, &self.dynamic_broker),
            (Source::DynamicDefaultBroker, &self.dynamic_default),
            (Source::StaticBroker, &self.statics),
        ]
    }

    /// The strongest value of a broker key, unless it is the default.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.layers().iter().find_map(|(_, layer)| layer.get(name))
    }
}

/// A value in the unit of the topic key: hours and minutes become milliseconds, −1 stays −1.
fn scaled(value: &str, factor: i64) -> String {
    match value.parse::<i64>() {
        Ok(number) if factor != 1 && number >= 0 => number.saturating_mul(factor).to_string(),
        Ok(_) | Err(_) => value.to_owned(),
    }
}

/// The value of `key` that the broker's configuration gives to topics that do not set it. Of several names the first one
/// that is set counts, in whatever layer it is.
pub fn broker_default(key: &TopicKey, defaults: &LayeredDefaults) -> Option<String> {
    let set = |synonym: &Synonym| {
        let value = defaults.get(synonym.name)?;
        Some(scaled(value, synonym.factor))
    };
    let found = key.synonyms.iter().find_map(set);
    found.or_else(|| key.default.map(str::to_owned))
}
