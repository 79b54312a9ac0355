//! IncrementalAlterConfigs (key 44), versions 0–1.
//!
//! - 0: all there is (KIP-339): set, delete, append, subtract. 1: flexible.
//!
//! Topics only. Left out: dynamic configs of brokers, loggers, client metrics and groups; a broker's configuration is a
//! file, so changing it here is refused with INVALID_CONFIG and the reason. A resource changes as a whole or not at
//! all.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use keelson_protocol::kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use keelson_state::metadata::{AlterOp, Alteration};

use super::common::text;
use super::describe_configs::{BROKER, TOPIC, check_broker_id};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct IncrementalAlterConfigs;

impl Api for IncrementalAlterConfigs {
    type Request = IncrementalAlterConfigsRequest;
    type Response = IncrementalAlterConfigsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<IncrementalAlterConfigsRequest>,
    ) -> Outcome<IncrementalAlterConfigsResponse> {
        let broker = Arc::clone(broker);
        let body = call.body;
        Outcome::later(async move {
            let mut first = None;
            let planned = plan(&broker, &body.resources);
            let wanted: Vec<_> = planned
                .iter()
                .filter_map(|plan| plan.clone().ok())
                .collect();
            let outcomes = broker
                .metadata
                .alter_configs(wanted, body.validate_only)
                .await;
            let mut outcomes = outcomes.into_iter();
            let responses = body.resources.iter().zip(planned).map(|(resource, plan)| {
                let error = match plan {
                    Err(refused) => Some(refused),
                    Ok(_) => outcomes
                        .next()
                        .and_then(Result::err)
                        .map(|error| (errors::change(&error), error.to_string())),
                };
                response(resource, error, &mut first)
            });
            let responses = responses.collect();
            let body = IncrementalAlterConfigsResponse::default().with_responses(responses);
            Answer::new(body, first)
        })
    }
}

type Plan = Result<(String, Vec<Alteration>), (ErrorCode, String)>;

fn plan(broker: &Broker, resources: &[AlterConfigsResource]) -> Vec<Plan> {
    let key = |resource: &AlterConfigsResource| {
        (resource.resource_type, resource.resource_name.to_string())
    };
    let mut seen: HashMap<(i8, String), usize> = HashMap::new();
    for resource in resources {
        *seen.entry(key(resource)).or_default() += 1;
    }
    let plan_one = |resource: &AlterConfigsResource| {
        if seen[&key(resource)] > 1 {
            let message = "Each resource must appear at most once.".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
        let name = resource.resource_name.as_str();
        match resource.resource_type {
            TOPIC => Ok((name.to_owned(), alterations(resource)?)),
            BROKER => {
                if !name.is_empty() {
                    check_broker_id(broker, name)?;
                }
                let message = "The configuration of a broker is a file: change it there and restart the broker.";
                Err((ErrorCode::InvalidConfig, message.to_owned()))
            }
            other => {
                let message = format!("Resource type {other} is not supported.");
                Err((ErrorCode::InvalidRequest, message))
            }
        }
    };
    resources.iter().map(plan_one).collect()
}

fn alterations(resource: &AlterConfigsResource) -> Result<Vec<Alteration>, (ErrorCode, String)> {
    let convert = |config: &_| {
        let config: &keelson_protocol::kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig = config;
        let op = match config.config_operation {
            0 => AlterOp::Set,
            1 => AlterOp::Delete,
            2 => AlterOp::Append,
            3 => AlterOp::Subtract,
            other => {
                let message = format!("Unknown operation {other} for {}", config.name.as_str());
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        Ok(Alteration {
            key: config.name.to_string(),
            op,
            value: config.value.as_ref().map(|value| value.to_string()),
        })
    };
    resource.configs.iter().map(convert).collect()
}

fn response(
    resource: &AlterConfigsResource,
    error: Option<(ErrorCode, String)>,
    first: &mut Option<ErrorCode>,
) -> AlterConfigsResourceResponse {
    let response = AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    match error {
        None => response,
        Some((code, message)) => {
            first.get_or_insert(code);
            response
                .with_error_code(code.code())
                .with_error_message(Some(text(message)))
        }
    }
}
