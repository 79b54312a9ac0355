//! Which changes of configurations are lawful, of topics and of brokers, and the records they yield. It never applies or
//! writes a record.
//!
//! A resource changes as a whole or not at all. What is judged is what would be set in the end: removing a key is lawful
//! whatever the key is.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::{MetadataError, Rules, check_not_internal, known};
use super::image::{Image, Topic};
use super::name::validate_topic_name;
use super::record::{ALL_BROKERS, Record};
use crate::config::{self, ConfigError, ConfigLimits, Kind, OWNER_KEY};

const CLEANUP_POLICY: &str = "cleanup.policy";

/// What to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOp {
    /// Set it.
    Set,
    /// Go back to the default.
    Delete,
    /// Add elements to a list.
    Append,
    /// Take elements from a list.
    Subtract,
}

/// One change of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// The key.
    pub key: String,
    /// What to do.
    pub op: AlterOp,
    /// With what; unused by Delete.
    pub value: Option<String>,
}

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// A topic.
    Topic(String),
    /// A broker, or [`ALL_BROKERS`].
    Broker(i32),
}

/// How it is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Key by key (IncrementalAlterConfigs).
    Incremental(Vec<Alteration>),
    /// These values in place of all there are (AlterConfigs).
    Replace(Vec<(String, Option<String>)>),
}

/// What is to be known of a broker's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerKey {
    /// Its type.
    pub kind: Kind,
    /// Its default.
    pub default: Option<&'static str>,
    /// Whether it can be set while the broker runs.
    pub is_dynamic: bool,
}

/// The broker's own keys, as far as decisions need them. They stand where they are read from a file.
#[derive(Debug, Clone, Copy)]
pub struct BrokerKeys {
    /// The key of a name, or why there is none.
    pub find: fn(&str) -> Result<BrokerKey, String>,
    /// What is wrong with a value of a key.
    pub check: fn(&str, &str, &ConfigLimits) -> Result<(), String>,
}

/// Decides a change of configs. No records when nothing would change.
pub fn alter_configs(
    image: &Image,
    rules: &Rules<'_>,
    target: &ConfigTarget,
    change: &ConfigChange,
) -> Result<Vec<Record>, MetadataError> {
    match target {
        ConfigTarget::Topic(name) => alter_topic(image, rules, name, change),
        ConfigTarget::Broker(id) => alter_broker(image, rules, *id, change),
    }
}

fn alter_topic(
    image: &Image,
    rules: &Rules<'_>,
    name: &str,
    change: &ConfigChange,
) -> Result<Vec<Record>, MetadataError> {
    if name.is_empty() {
        let reason = "Default topic resources are not allowed.".to_owned();
        return Err(MetadataError::InvalidRequest { reason });
    }
    validate_topic_name(name)?;
    let none = BTreeMap::new();
    let topic = image.topic(name);
    let current = topic.map_or(&none, |topic| &topic.configs);
    let of_list = |key: &str| {
        let key = config::find(key)?;
        Ok((key.kind, key.default))
    };
    let wanted = wanted(current, change, &of_list)?;
    for (key, value) in changed(current, &wanted) {
        if let Some(value) = value {
            config::validate(key, value, &rules.limits)?;
        }
    }
    config::check_together(&wanted, rules.defaults)?;
    // Only now whether it exists: Kafka looks at the values first.
    let topic = known(image, name)?;
    // What the broker keeps in its own topics would go with another policy.
    if changed(current, &wanted).any(|(key, _)| key == CLEANUP_POLICY) {
        check_not_internal(topic, "Alteration of the cleanup.policy")?;
    }
    check_owner(topic, wanted.get(OWNER_KEY).map(String::as_str))?;
    let record = |(key, value): (&String, Option<&String>)| Record::ConfigChanged {
        id: topic.id,
        key: key.clone(),
        value: value.cloned(),
    };
    Ok(changed(current, &wanted).map(record).collect())
}

fn alter_broker(
    image: &Image,
    rules: &Rules<'_>,
    broker_id: i32,
    change: &ConfigChange,
) -> Result<Vec<Record>, MetadataError> {
    if broker_id != ALL_BROKERS && broker_id != rules.broker_id {
        let reason = format!(
            "Unexpected broker id, expected {}, but received {broker_id}",
            rules.broker_id
        );
        return Err(MetadataError::InvalidRequest { reason });
    }
    let keys = &rules.broker_keys;
    let current = image.broker_configs(broker_id);
    let find = |key: &str| (keys.find)(key).map_err(|reason| ConfigError::BrokerKey { reason });
    let of_list = |key: &str| find(key).map(|key| (key.kind, key.default));
    let wanted = wanted(current, change, &of_list)?;
    let mut fixed = Vec::new();
    for (key, value) in changed(current, &wanted) {
        let Some(value) = value else {
            continue;
        };
        if find(key)?.is_dynamic {
            let checked = (keys.check)(key, value, &rules.limits);
            checked.map_err(|reason| MetadataError::InvalidRequest { reason })?;
        } else {
            fixed.push(key.as_str());
        }
    }
    if !fixed.is_empty() {
        let keys = fixed.join(", ");
        let reason = format!("Cannot update these configs dynamically: [{keys}]");
        return Err(MetadataError::InvalidRequest { reason });
    }
    let record = |(key, value): (&String, Option<&String>)| Record::BrokerConfigChanged {
        broker_id,
        key: key.clone(),
        value: value.cloned(),
    };
    Ok(changed(current, &wanted).map(record).collect())
}

/// Keys that differ, with the value they are to have; none removes it.
fn changed<'a>(
    current: &'a BTreeMap<String, String>,
    wanted: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a String, Option<&'a String>)> {
    let keys: BTreeSet<&String> = current.keys().chain(wanted.keys()).collect();
    let value = |key| (key, wanted.get(key));
    let differs = |(key, value): &(&String, Option<&String>)| current.get(*key) != *value;
    keys.into_iter().map(value).filter(differs)
}

/// Type and default of a key.
type OfList<'a> = &'a dyn Fn(&str) -> Result<(Kind, Option<&'static str>), ConfigError>;

/// Everything that would be set in the end.
fn wanted(
    current: &BTreeMap<String, String>,
    change: &ConfigChange,
    of_list: OfList<'_>,
) -> Result<BTreeMap<String, String>, MetadataError> {
    match change {
        ConfigChange::Incremental(alterations) => {
            let needs_value = |one: &&Alteration| one.op != AlterOp::Delete;
            let values = alterations.iter().filter(needs_value);
            check_keys(alterations.iter().map(|one| one.key.as_str()))?;
            check_values(values.map(|one| (&one.key, one.value.is_some())))?;
            let mut wanted = current.clone();
            for alteration in alterations {
                match altered(current, alteration, of_list)? {
                    Some(value) => wanted.insert(alteration.key.clone(), value),
                    None => wanted.remove(&alteration.key),
                };
            }
            Ok(wanted)
        }
        ConfigChange::Replace(values) => {
            check_keys(values.iter().map(|(key, _)| key.as_str()))?;
            check_values(values.iter().map(|(key, value)| (key, value.is_some())))?;
            let pair = |(key, value): &(String, Option<String>)| {
                value.as_ref().map(|value| (key.clone(), value.clone()))
            };
            let mut wanted: BTreeMap<String, String> = values.iter().filter_map(pair).collect();
            // Whoever replaces everything does not know of an owner, and must not take it away by that.
            if let Some(owner) = current.get(OWNER_KEY) {
                wanted.entry(OWNER_KEY.to_owned()).or_insert(owner.clone());
            }
            Ok(wanted)
        }
    }
}

fn check_keys<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), MetadataError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            let reason = "Error due to duplicate config keys".to_owned();
            return Err(MetadataError::InvalidRequest { reason });
        }
    }
    Ok(())
}

fn check_values<'a>(values: impl Iterator<Item = (&'a String, bool)>) -> Result<(), MetadataError> {
    let nulls: Vec<&str> = values
        .filter(|(_, is_there)| !is_there)
        .map(|(key, _)| key.as_str())
        .collect();
    if nulls.is_empty() {
        return Ok(());
    }
    let reason = format!("Null value not supported for : {}", nulls.join(", "));
    Err(MetadataError::InvalidRequest { reason })
}

/// The value a key would have; none is absent.
fn altered(
    current: &BTreeMap<String, String>,
    alteration: &Alteration,
    of_list: OfList<'_>,
) -> Result<Option<String>, MetadataError> {
    let given = alteration.value.as_deref().unwrap_or_default();
    let operation = match alteration.op {
        AlterOp::Delete => return Ok(None),
        AlterOp::Set => return Ok(Some(given.to_owned())),
        AlterOp::Append => "APPEND",
        AlterOp::Subtract => "SUBTRACT",
    };
    let (kind, default) = of_list(&alteration.key)?;
    if kind != Kind::List {
        return Err(ConfigError::NotAList {
            key: alteration.key.clone(),
            operation,
        }
        .into());
    }
    let now = current.get(&alteration.key).map(String::as_str).or(default);
    let mut elements = config::list_elements(now.unwrap_or_default());
    for element in config::list_elements(given) {
        let at = elements.iter().position(|one| *one == element);
        match (alteration.op, at) {
            (AlterOp::Append, None) => elements.push(element),
            (AlterOp::Subtract, Some(at)) => {
                elements.remove(at);
            }
            (AlterOp::Append, Some(_))
            | (AlterOp::Subtract, None)
            | (AlterOp::Set | AlterOp::Delete, _) => {}
        }
    }
    Ok(Some(elements.join(",")))
}

fn check_owner(topic: &Topic, wanted: Option<&str>) -> Result<(), MetadataError> {
    let current = topic.configs.get(OWNER_KEY).map_or("", String::as_str);
    let wanted = wanted.unwrap_or("");
    if !current.is_empty() && !wanted.is_empty() && current != wanted {
        let error = ConfigError::Owned {
            current: current.to_owned(),
            wanted: wanted.to_owned(),
        };
        return Err(error.into());
    }
    Ok(())
}
