//! What AlterConfigs and IncrementalAlterConfigs share: from resources to changes, and the outcome of each. It owns no API.

use std::collections::HashMap;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::protocol::StrBytes;
use keelson_state::metadata::{ALL_BROKERS, Alteration, ConfigChange, ConfigTarget};

use super::common::text;
use super::loggers;
use crate::broker::Broker;
use crate::errors;

/// Resource type of a topic.
pub(super) const TOPIC: i8 = 2;
/// Resource type of a broker.
pub(super) const BROKER: i8 = 4;
/// Resource type of a broker's loggers.
pub(super) const BROKER_LOGGER: i8 = 8;
/// Resource type of a subscription to client metrics.
pub(super) const CLIENT_METRICS: i8 = 16;
/// Resource type of a group.
pub(super) const GROUP: i8 = 32;

/// Why a resource was refused.
pub(super) type Refusal = (ErrorCode, String);

/// What is asked for: a change of what is stored, or of a logger.
enum Plan {
    Stored(ConfigTarget, ConfigChange),
    Loggers(Vec<Alteration>),
}

/// A resource of a request: its type and name, and what is to be changed.
pub(super) struct Wanted {
    pub(super) resource_type: i8,
    pub(super) resource_name: String,
    pub(super) change: Result<ConfigChange, Refusal>,
}

/// Makes the changes that can be made; one outcome per resource, in the order asked. Each resource changes as a whole or
/// not at all.
pub(super) async fn carry_out(
    broker: &Broker,
    resources: Vec<Wanted>,
    validate_only: bool,
) -> Vec<Option<Refusal>> {
    let mut seen: HashMap<(i8, String), usize> = HashMap::new();
    for resource in &resources {
        let key = (resource.resource_type, resource.resource_name.clone());
        *seen.entry(key).or_default() += 1;
    }
    let (mut changes, mut stored) = (Vec::new(), Vec::new());
    let mut refusals: Vec<Option<Refusal>> = Vec::with_capacity(resources.len());
    for resource in resources {
        let twice = seen[&(resource.resource_type, resource.resource_name.clone())] > 1;
        match plan(broker, resource, twice) {
            Ok(Plan::Stored(target, change)) => {
                stored.push(refusals.len());
                changes.push((target, change));
                refusals.push(None);
            }
            Ok(Plan::Loggers(alterations)) => {
                refusals.push(loggers::alter(&alterations, validate_only).err());
            }
            Err(refusal) => refusals.push(Some(refusal)),
        }
    }
    let outcomes = broker.metadata.alter_configs(changes, validate_only).await;
    for (place, outcome) in stored.into_iter().zip(outcomes) {
        let error = outcome.err();
        refusals[place] = error.map(|error| (errors::change(&error), error.to_string()));
    }
    refusals
}

/// What an answer says of a resource: code and message, which is there with an error only.
pub(super) fn told(refusal: Option<Refusal>) -> (i16, Option<StrBytes>) {
    match refusal {
        None => (0, None),
        Some((code, message)) => (code.code(), Some(text(message))),
    }
}

fn plan(broker: &Broker, resource: Wanted, twice: bool) -> Result<Plan, Refusal> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    if twice {
        return invalid("Each resource must appear at most once.".to_owned());
    }
    let name = resource.resource_name;
    let target = match (resource.resource_type, &resource.change) {
        (TOPIC, _) => ConfigTarget::Topic(name),
        (BROKER, _) if name.is_empty() => ConfigTarget::Broker(ALL_BROKERS),
        (BROKER, _) => ConfigTarget::Broker(node_id(&name)?),
        (BROKER_LOGGER, Ok(ConfigChange::Incremental(alterations))) => {
            let id = node_id(&name)?;
            if id == broker.id() {
                return Ok(Plan::Loggers(alterations.clone()));
            }
            let message = "Unexpected broker id, expected";
            return invalid(format!("{message} {}, but received {id}", broker.id()));
        }
        (other, _) => return invalid(format!("Unknown resource type {other}")),
    };
    Ok(Plan::Stored(target, resource.change?))
}

/// The id that a broker resource is named by; whether it is this one is decided with the change.
fn node_id(name: &str) -> Result<i32, Refusal> {
    // Below 0 are no brokers, but marks of ours.
    let id = name.parse::<i32>().ok().filter(|id| *id >= 0);
    id.ok_or_else(|| {
        let message = format!("Node id must be an integer, but it is: {name}");
        (ErrorCode::InvalidRequest, message)
    })
}
