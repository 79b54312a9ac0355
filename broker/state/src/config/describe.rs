//! What DescribeConfigs shows of a topic's key: the value in force, and the values found on the way to it. It never decides
//! which one counts.

use std::collections::BTreeMap;

use super::keys::{Source, TopicKey};
use super::layers::{LayeredDefaults, broker_default};
use super::table::TOPIC_KEYS;

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
pub fn describe(topic: &BTreeMap<String, String>, defaults: &LayeredDefaults) -> Vec<ConfigEntry> {
    TOPIC_KEYS
        .iter()
        .map(|key| describe_one(key, topic, defaults))
        .collect()
}

fn describe_one(
    key: &'static TopicKey,
    topic: &BTreeMap<String, String>,
    defaults: &LayeredDefaults,
) -> ConfigEntry {
    let set = topic.get(key.name);
    let mut synonyms: Vec<SynonymEntry> = set
        .map(|value| SynonymEntry {
            name: key.name,
            value: Some(value.clone()),
            source: Source::Topic,
        })
        .into_iter()
        .collect();
    if let Some(first) = key.synonyms.first() {
        synonyms.extend(chain(key, first.name, defaults));
    }
    ConfigEntry {
        key,
        value: set.cloned().or_else(|| broker_default(key, defaults)),
        source: synonyms.first().map_or(Source::Default, |one| one.source),
        synonyms,
    }
}

/// The values of a topic key's broker keys, layer by layer. Like Kafka, it shows nothing before the first value under the
/// name that was asked for: other units alone are not shown.
pub(super) fn chain(key: &TopicKey, name: &str, defaults: &LayeredDefaults) -> Vec<SynonymEntry> {
    let set = defaults.layers().into_iter().flat_map(|(source, layer)| {
        key.synonyms.iter().filter_map(move |synonym| {
            Some(SynonymEntry {
                name: synonym.name,
                value: Some(layer.get(synonym.name)?.to_owned()),
                source,
            })
        })
    });
    let not_set = key.synonyms.iter().filter_map(|synonym| {
        Some(SynonymEntry {
            name: synonym.name,
            value: Some(synonym.default?.to_owned()),
            source: Source::Default,
        })
    });
    set.chain(not_set)
        .skip_while(|entry| entry.name != name)
        .collect()
}

impl LayeredDefaults {
    /// The values of a broker key and of its other names, as DescribeConfigs shows them; none for a key that sets no
    /// default of a topic.
    pub fn chain(&self, name: &str) -> Vec<SynonymEntry> {
        let found = super::layers::TopicDefaults::find(name);
        found.map_or_else(Vec::new, |(key, _)| chain(key, name, self))
    }
}
