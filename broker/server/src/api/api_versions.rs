//! ApiVersions (key 18), versions 0–4.
//!
//! - 0: the list of APIs with their versions.
//! - 1: throttle time.
//! - 2: nothing new on the wire.
//! - 3: flexible; the client names its software (KIP-511); features (KIP-584). The response header stays version 0.
//! - 4: features may start at 0.
//!
//! One feature is told of: `transaction.version` 2 (KIP-890), which makes producers take a new epoch with each transaction.
//!
//! Left out: other features, throttling. The list is printed from `keelson_protocol::api`; a test
//! holds that each row has a handler. An unknown version is answered by the connection, with a body of version 0, error
//! 35 and the list.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::api_versions_response::{
    FinalizedFeatureKey, SupportedFeatureKey,
};
use keelson_protocol::kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use keelson_protocol::{ErrorCode, legacy};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// First version with features.
const FEATURES_VERSION_MIN: i16 = 3;
/// First version whose features may start at 0.
const FEATURES_FROM_ZERO_VERSION_MIN: i16 = 4;
/// The features never change while a cluster lives.
const FEATURES_EPOCH: i64 = 0;
const TRANSACTION_VERSION: &str = "transaction.version";
const TRANSACTION_VERSION_LEVEL: i16 = 2;

/// The handler.
pub struct ApiVersions;

impl Api for ApiVersions {
    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    fn handle(_broker: &Arc<Broker>, call: Call<ApiVersionsRequest>) -> Outcome<Self::Response> {
        let response = ApiVersionsResponse::default().with_api_keys(legacy::advertised());
        if call.version < FEATURES_VERSION_MIN {
            return Outcome::ok(response);
        }
        let body = &call.body;
        if !is_software(&body.client_software_name) || !is_software(&body.client_software_version) {
            let error = ErrorCode::InvalidRequest;
            let refused = ApiVersionsResponse::default().with_error_code(error.code());
            return Outcome::Ready(Answer::failed(refused, error));
        }
        let finalized = FinalizedFeatureKey::default()
            .with_name(text(TRANSACTION_VERSION))
            .with_min_version_level(TRANSACTION_VERSION_LEVEL)
            .with_max_version_level(TRANSACTION_VERSION_LEVEL);
        let supported = SupportedFeatureKey::default()
            .with_name(text(TRANSACTION_VERSION))
            .with_min_version(0)
            .with_max_version(TRANSACTION_VERSION_LEVEL);
        // Clients of version 3 take a feature that starts at 0 for a broken answer (KIP-1022).
        let supported = if call.version >= FEATURES_FROM_ZERO_VERSION_MIN {
            vec![supported]
        } else {
            Vec::new()
        };
        Outcome::ok(
            response
                .with_supported_features(supported)
                .with_finalized_features_epoch(FEATURES_EPOCH)
                .with_finalized_features(vec![finalized]),
        )
    }
}

/// Whether a name or version of client software is as KIP-511 wants it: letters, digits, and within it dots and dashes.
fn is_software(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    outer(name.chars().next()) && outer(name.chars().next_back()) && name.chars().all(inner)
}
