//! RenewDelegationToken (key 39), versions 1–2.
//!
//! - 1: nothing new on the wire. 2: flexible.
//!
//! Left out: delegation tokens: on a connection without authentication they are refused
//! (DELEGATION_TOKEN_REQUEST_NOT_ALLOWED), as Kafka does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// No time, in fields of a token that there is not.
const NO_TIME: i64 = -1;

/// The handler.
pub struct RenewDelegationToken;

impl Api for RenewDelegationToken {
    type Request = RenewDelegationTokenRequest;
    type Response = RenewDelegationTokenResponse;

    fn handle(
        _: &Arc<Broker>,
        _: Call<RenewDelegationTokenRequest>,
    ) -> Outcome<RenewDelegationTokenResponse> {
        let error = ErrorCode::DelegationTokenRequestNotAllowed;
        let response = RenewDelegationTokenResponse::default()
            .with_error_code(error.code())
            .with_expiry_timestamp_ms(NO_TIME);
        Outcome::Ready(Answer::failed(response, error))
    }
}
