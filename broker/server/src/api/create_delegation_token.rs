//! CreateDelegationToken (key 38), versions 1–3.
//!
//! - 1: nothing new on the wire. 2: flexible. 3: an owner other than the one who asks (KIP-373).
//!
//! Left out: delegation tokens: on a connection without authentication they are refused
//! (DELEGATION_TOKEN_REQUEST_NOT_ALLOWED), as Kafka does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse,
};
use keelson_protocol::kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// No time, in fields of a token that there is not.
const NO_TIME: i64 = -1;

/// Who everybody is without authentication: type and name.
const ANONYMOUS: (&str, &str) = ("User", "ANONYMOUS");

fn no_owner(name: &Option<StrBytes>) -> bool {
    name.as_ref().is_none_or(|name| name.is_empty())
}

/// The handler.
pub struct CreateDelegationToken;

impl Api for CreateDelegationToken {
    type Request = CreateDelegationTokenRequest;
    type Response = CreateDelegationTokenResponse;

    fn handle(
        _: &Arc<Broker>,
        call: Call<CreateDelegationTokenRequest>,
    ) -> Outcome<CreateDelegationTokenResponse> {
        let body = call.body;
        let of = |given: Option<StrBytes>, anonymous: &'static str| {
            let given = given.filter(|_| !no_owner(&body.owner_principal_name));
            given.unwrap_or(StrBytes::from_static_str(anonymous))
        };
        let error = ErrorCode::DelegationTokenRequestNotAllowed;
        let mut response = CreateDelegationTokenResponse::default()
            .with_error_code(error.code())
            .with_principal_type(of(body.owner_principal_type.clone(), ANONYMOUS.0))
            .with_principal_name(of(body.owner_principal_name.clone(), ANONYMOUS.1))
            .with_issue_timestamp_ms(NO_TIME)
            .with_expiry_timestamp_ms(NO_TIME)
            .with_max_timestamp_ms(NO_TIME);
        if call.version >= 3 {
            response = response
                .with_token_requester_principal_type(StrBytes::from_static_str(ANONYMOUS.0))
                .with_token_requester_principal_name(StrBytes::from_static_str(ANONYMOUS.1));
        }
        Outcome::Ready(Answer::failed(response, error))
    }
}
