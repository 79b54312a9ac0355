//! AlterConfigs (key 33), versions 0–2.
//!
//! - 0: all there is (KIP-133). 1: nothing new on the wire. 2: flexible.
//!
//! All configs of a resource are replaced by those of the request: what it does not name goes back to the default, but for
//! a topic's `keelson.owner`, which only goes when it is named. Left out: loggers, client metrics and groups
//! (INVALID_REQUEST). A resource changes as a whole or not at all.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use keelson_protocol::kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use keelson_state::metadata::ConfigChange;

use super::config_change::{Wanted, carry_out, told};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct AlterConfigs;

impl Api for AlterConfigs {
    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<AlterConfigsRequest>,
    ) -> Outcome<AlterConfigsResponse> {
        let broker = Arc::clone(broker);
        let body = call.body;
        Outcome::later(async move {
            let wanted = body.resources.iter().map(|resource| {
                let values = resource.configs.iter().map(|config| {
                    let value = config.value.as_ref().map(|value| value.to_string());
                    (config.name.to_string(), value)
                });
                Wanted {
                    resource_type: resource.resource_type,
                    resource_name: resource.resource_name.to_string(),
                    change: Ok(ConfigChange::Replace(values.collect())),
                }
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
            Answer::new(
                AlterConfigsResponse::default().with_responses(responses),
                first,
            )
        })
    }
}
