//! ApiVersions (key 18), versions 0–4.
//!
//! - 0: the list of APIs with their versions.
//! - 1: throttle time.
//! - 2: nothing new on the wire.
//! - 3: flexible; the client names its software (KIP-511); features (KIP-584). The response header stays version 0.
//! - 4: features may start at 0.
//!
//! Left out: features (none is supported), throttling. The list is printed from `keelson_protocol::api`; a test
//! holds that each row has a handler. An unknown version is answered by the connection, with a body of version 0, error
//! 35 and the list.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use keelson_protocol::legacy;

use crate::broker::Broker;
use crate::dispatch::{Api, Call, Outcome};

/// The handler.
pub struct ApiVersions;

impl Api for ApiVersions {
    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    fn handle(_broker: &Arc<Broker>, _call: Call<ApiVersionsRequest>) -> Outcome<Self::Response> {
        Outcome::ok(ApiVersionsResponse::default().with_api_keys(legacy::advertised()))
    }
}
