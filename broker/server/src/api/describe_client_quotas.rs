//! DescribeClientQuotas (key 48), versions 0–1.
//!
//! - 0: all there is (KIP-546). 1: flexible.
//!
//! Left out: quotas: none can be set, so that no lawful filter finds any.

use std::collections::BTreeSet;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use keelson_protocol::kafka_protocol::messages::{
    DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The entity is the one named.
const EXACT: i8 = 0;
/// The entity is the default one.
const DEFAULT: i8 = 1;
/// Any entity of the type.
const SPECIFIED: i8 = 2;

/// The handler.
pub struct DescribeClientQuotas;

impl Api for DescribeClientQuotas {
    type Request = DescribeClientQuotasRequest;
    type Response = DescribeClientQuotasResponse;

    fn handle(
        _: &Arc<Broker>,
        call: Call<DescribeClientQuotasRequest>,
    ) -> Outcome<DescribeClientQuotasResponse> {
        let response = DescribeClientQuotasResponse::default();
        Outcome::Ready(match check(&call.body.components) {
            Ok(()) => Answer::ok(response.with_entries(Some(Vec::new()))),
            Err((error, message)) => {
                let response = response
                    .with_error_code(error.code())
                    .with_error_message(Some(text(message)))
                    .with_entries(None);
                Answer::failed(response, error)
            }
        })
    }
}

/// Whether the filter makes sense.
fn check(components: &[ComponentData]) -> Result<(), (ErrorCode, String)> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    let mut seen = BTreeSet::new();
    for component in components {
        let entity = component.entity_type.as_str();
        if entity.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if !seen.insert(entity) {
            return invalid(format!(
                "Entity type {entity} stands more than once in the filter."
            ));
        }
        if !matches!(entity, "user" | "client-id" | "ip") {
            let message = format!("Unsupported entity type {entity}");
            return Err((ErrorCode::UnsupportedVersion, message));
        }
        match (component.match_type, &component._match) {
            (EXACT, Some(_)) | (DEFAULT | SPECIFIED, None) => {}
            (EXACT, None) => return invalid(format!("An exact match of {entity} needs a name.")),
            (DEFAULT | SPECIFIED, Some(_)) => {
                return invalid(format!("This kind of match of {entity} takes no name."));
            }
            (other, _) => return invalid(format!("Unknown match type {other}")),
        }
    }
    if seen.contains("ip") && seen.len() > 1 {
        return invalid("The entity type ip stands alone in a filter.".to_owned());
    }
    Ok(())
}
