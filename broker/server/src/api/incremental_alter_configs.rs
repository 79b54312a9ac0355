//! IncrementalAlterConfigs (key 44), versions 0–1.
//!
//! - 0: all there is (KIP-339): set, delete, append, subtract. 1: flexible.
//!
//! Topics, this broker, all brokers (the empty name), and the one logger `root`, whose level lasts until the broker ends.
//! A resource changes as a whole or not at all. Left out: client metrics and groups (INVALID_REQUEST); the cleanup.policy of
//! the broker's own topics.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use keelson_protocol::kafka_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use keelson_state::metadata::{AlterOp, Alteration, ConfigChange};

use super::config_change::{Refusal, Wanted, carry_out, told};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

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
            let wanted = body.resources.iter().map(|resource| Wanted {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.to_string(),
                change: alterations(resource).map(ConfigChange::Incremental),
            });
            let outcomes = carry_out(&broker, wanted.collect(), body.validate_only).await;
            let first = outcomes.iter().flatten().map(|(code, _)| *code).next();
            let answers = body.resources.into_iter().zip(outcomes);
            let responses = answers.map(|(resource, refusal)| {
                let (code, message) = told(refusal);
                AlterConfigsResourceResponse::default()
                    .with_resource_type(resource.resource_type)
                    .with_resource_name(resource.resource_name)
                    .with_error_code(code)
                    .with_error_message(message)
            });
            let responses = responses.collect();
            let body = IncrementalAlterConfigsResponse::default().with_responses(responses);
            Answer::new(body, first)
        })
    }
}

fn alterations(resource: &AlterConfigsResource) -> Result<Vec<Alteration>, Refusal> {
    let convert = |config: &AlterableConfig| {
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
