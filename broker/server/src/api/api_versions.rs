//! ApiVersions (key 18), versions 0–4.
//!
//! - 0: the list of APIs with their versions.
//! - 1: throttle time.
//! - 2: nothing new on the wire.
//! - 3: flexible; the client names its software (KIP-511); features (KIP-584). The response header stays version 0.
//! - 4: features may start at 0.
//!
//! Left out: features (none is supported), throttling. The list is printed from `keelson_protocol::api`, narrowed to
//! what has a route. An unknown version is answered with a body of version 0, error 35 and the list.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::api_versions_response::ApiVersion;
use keelson_protocol::kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::broker::Broker;
use crate::dispatch::{Api, Call, Outcome, ROUTES, route};

/// The handler.
pub struct ApiVersions;

impl Api for ApiVersions {
    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    fn handle(_broker: &Arc<Broker>, _call: Call<ApiVersionsRequest>) -> Outcome<Self::Response> {
        Outcome::ok(response())
    }
}

/// The list of what is served, without an error.
fn response() -> ApiVersionsResponse {
    let mut keys: Vec<ApiVersion> = ROUTES
        .iter()
        .filter_map(|r| route(r.key))
        .map(|(spec, _)| {
            ApiVersion::default()
                .with_api_key(spec.key as i16)
                .with_min_version(spec.advertised_min)
                .with_max_version(spec.max)
        })
        .collect();
    keys.sort_by_key(|key| key.api_key);
    ApiVersionsResponse::default().with_api_keys(keys)
}

/// What a client gets that asks in a version we do not speak; to be encoded as version 0.
pub fn unsupported_version() -> ApiVersionsResponse {
    response().with_error_code(ErrorCode::UnsupportedVersion.code())
}
