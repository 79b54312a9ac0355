//! ListConfigResources (key 74), versions 0–1.
//!
//! - 0: names of client metrics only (KIP-1000). 1: names of any type of resource (KIP-1142).
//!
//! Left out: client metrics and groups have no configuration here, so none of them is listed.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::list_config_resources_response::ConfigResource;
use keelson_protocol::kafka_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse,
};

use super::common::text;
use super::config_change::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct ListConfigResources;

impl Api for ListConfigResources {
    type Request = ListConfigResourcesRequest;
    type Response = ListConfigResourcesResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<ListConfigResourcesRequest>,
    ) -> Outcome<ListConfigResourcesResponse> {
        let Call { version, body, .. } = call;
        let supported: &[i8] = if version == 0 {
            &[CLIENT_METRICS]
        } else {
            &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP]
        };
        let mut wanted = body.resource_types;
        if wanted.iter().any(|kind| !supported.contains(kind)) {
            let error = ErrorCode::UnsupportedVersion;
            let response = ListConfigResourcesResponse::default().with_error_code(error.code());
            return Outcome::Ready(Answer::failed(response, error));
        }
        if wanted.is_empty() {
            wanted = supported.to_vec();
        }
        let resource = |kind: i8, name: String| {
            ConfigResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
        };
        let mut resources = Vec::new();
        for kind in [BROKER_LOGGER, BROKER] {
            if wanted.contains(&kind) {
                resources.push(resource(kind, broker.id().to_string()));
            }
        }
        if wanted.contains(&TOPIC) {
            let image = broker.image();
            resources.extend(image.topics().map(|t| resource(TOPIC, t.name.to_string())));
        }
        let response = ListConfigResourcesResponse::default().with_config_resources(resources);
        Outcome::ok(response)
    }
}
