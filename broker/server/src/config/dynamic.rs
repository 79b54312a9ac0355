//! What the API can change of the configuration while the broker runs: for this broker, or for all.
//!
//! Owns how the layers are put together: this broker's own values, then those for all, then the file, then the defaults.
//! Never stores anything: the values stand in the metadata log.

use std::collections::BTreeMap;

use keelson_state::config::{ConfigLimits, Source, TopicDefaults};
use keelson_state::metadata::{BrokerKey, BrokerKeys};

use super::keys::{self, Key};
use super::{Config, refused};

/// One value of a key on the way to the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The key that is set; a key can have several names.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// What decisions need to know of the broker's keys.
pub fn broker_keys() -> BrokerKeys {
    BrokerKeys { find, check }
}

fn find(name: &str) -> Result<BrokerKey, String> {
    if let Some(key) = keys::find(name) {
        return Ok(BrokerKey {
            kind: key.kind,
            default: key.default,
            is_dynamic: key.is_dynamic,
        });
    }
    if let Some((key, synonym)) = TopicDefaults::find(name) {
        return Ok(BrokerKey {
            kind: key.kind,
            default: synonym.default,
            is_dynamic: synonym.is_dynamic,
        });
    }
    Err(match refused::reason(name) {
        Some(reason) => format!("{name} is not served: {reason}"),
        None => format!("Unknown broker config name: {name}"),
    })
}

fn check(name: &str, value: &str, limits: &ConfigLimits) -> Result<(), String> {
    match keys::find(name) {
        Some(key) => (key.set)(&mut Config::unset(), value)
            .map_err(|reason| format!("Invalid value {value} for configuration {name}: {reason}")),
        None => TopicDefaults::default()
            .set(name, value, limits)
            .map_err(|error| error.to_string()),
    }
}

impl Config {
    /// This configuration, which is the file's, with what the API has set: `all` for all brokers, `own` for this one, which wins. A value that
    /// is not lawful can only be of another version; it is told and left out.
    pub fn with_dynamic(
        &self,
        all: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
        limits: &ConfigLimits,
    ) -> Config {
        let mut config = self.clone();
        for (layer, values) in [(Layer::All, all), (Layer::Own, own)] {
            for (key, value) in values {
                if let Err(reason) = config.take_dynamic(layer, (key, value), limits) {
                    tracing::error!(
                        key,
                        value,
                        reason,
                        "a stored config of the broker is left out"
                    );
                }
            }
        }
        config
    }

    fn take_dynamic(
        &mut self,
        layer: Layer,
        (key, value): (&str, &str),
        limits: &ConfigLimits,
    ) -> Result<(), String> {
        if let Some(known) = keys::find(key) {
            return (known.set)(self, value);
        }
        let defaults = match layer {
            Layer::All => &mut self.topic_defaults.dynamic_default,
            Layer::Own => &mut self.topic_defaults.dynamic_broker,
        };
        let set = defaults.set(key, value, limits);
        set.map_err(|error| error.to_string())
    }

    /// The values of a key of the broker, strongest first, when the API has set `all` and `own`.
    pub fn chain(
        &self,
        key: &Key,
        all: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
    ) -> Vec<Link> {
        let of = |value: Option<&String>, source| {
            value.map(|value| Link {
                name: key.name,
                value: value.clone(),
                source,
            })
        };
        let default = key.default.map(str::to_owned);
        [
            of(own.get(key.name), Source::DynamicBroker),
            of(all.get(key.name), Source::DynamicDefaultBroker),
            of(self.set.get(key.name), Source::StaticBroker),
            of(default.as_ref(), Source::Default),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Whose values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Those for all brokers.
    All,
    /// Those of this broker.
    Own,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConfigLimits = ConfigLimits {
        message_bytes_max: 8 << 20,
    };

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn this_brokers_values_win_over_those_for_all_and_both_over_the_file() {
        let sets = [
            "log.cleaner.backoff.ms=1".to_owned(),
            "log.retention.ms=1".to_owned(),
        ];
        let config = Config::load(None, &sets).unwrap();
        let all = map(&[
            ("log.cleaner.backoff.ms", "2"),
            ("log.retention.ms", "2"),
            ("producer.id.expiration.ms", "2"),
            ("log.segment.bytes", "bad"),
        ]);
        let own = map(&[("log.cleaner.backoff.ms", "3"), ("log.retention.ms", "3")]);
        let live = config.with_dynamic(&all, &own, &LIMITS);
        assert_eq!(live.cleaner_backoff_ms, 3);
        assert_eq!(live.producer_id_expiration_ms, 2);
        assert_eq!(live.topic_defaults.get("log.retention.ms"), Some("3"));
        assert_eq!(live.topic_defaults.get("log.segment.bytes"), None);
        let key = keys::find("log.cleaner.backoff.ms").unwrap();
        let chain = config.chain(key, &all, &own);
        let chain: Vec<(&str, Source)> = chain
            .iter()
            .map(|link| (link.value.as_str(), link.source))
            .collect();
        let wanted = [
            ("3", Source::DynamicBroker),
            ("2", Source::DynamicDefaultBroker),
            ("1", Source::StaticBroker),
            ("15000", Source::Default),
        ];
        assert_eq!(chain, wanted);
        // Back to the file.
        let live = config.with_dynamic(&map(&[]), &map(&[]), &LIMITS);
        assert_eq!(live.topic_defaults.get("log.retention.ms"), Some("1"));
    }

    #[test]
    fn keys_are_found_with_a_reason_where_they_cannot_be_set() {
        assert!(find("log.retention.ms").unwrap().is_dynamic);
        assert!(!find("log.retention.hours").unwrap().is_dynamic);
        assert!(!find("num.partitions").unwrap().is_dynamic);
        assert!(find("num.io.threads").unwrap_err().contains("threads"));
        assert!(
            find("foo")
                .unwrap_err()
                .contains("Unknown broker config name")
        );
        assert!(
            check("log.retention.ms", "-2", &LIMITS)
                .unwrap_err()
                .contains("at least -1")
        );
        assert!(
            check("log.cleaner.backoff.ms", "x", &LIMITS)
                .unwrap_err()
                .contains("whole number")
        );
        assert!(check("log.cleaner.backoff.ms", "5", &LIMITS).is_ok());
    }
}
