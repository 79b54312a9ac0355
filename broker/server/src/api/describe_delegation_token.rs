//! DescribeDelegationToken (key 41), versions 1–3.
//!
//! - 1: nothing new on the wire. 2: flexible. 3: who asked for a token (KIP-373).
//!
//! Left out: delegation tokens: on a connection without authentication they are refused
//! (DELEGATION_TOKEN_REQUEST_NOT_ALLOWED), as Kafka does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{
    DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
};

use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct DescribeDelegationToken;

impl Api for DescribeDelegationToken {
    type Request = DescribeDelegationTokenRequest;
    type Response = DescribeDelegationTokenResponse;

    fn handle(
        _: &Arc<Broker>,
        _: Call<DescribeDelegationTokenRequest>,
    ) -> Outcome<DescribeDelegationTokenResponse> {
        let error = ErrorCode::DelegationTokenRequestNotAllowed;
        let response = DescribeDelegationTokenResponse::default().with_error_code(error.code());
        Outcome::Ready(Answer::failed(response, error))
    }
}
