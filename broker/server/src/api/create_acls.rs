//! CreateAcls (key 30), versions 1–3.
//!
//! - 1: patterns (KIP-290). 2: flexible. 3: user resources.
//!
//! Left out: ACLs: there is no authoriser, and the answer says so (SECURITY_DISABLED), as a Kafka broker without one does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::create_acls_response::AclCreationResult;
use keelson_protocol::kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::common::{NO_AUTHORIZER_ON_BROKER, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct CreateAcls;

impl Api for CreateAcls {
    type Request = CreateAclsRequest;
    type Response = CreateAclsResponse;

    fn handle(_: &Arc<Broker>, call: Call<CreateAclsRequest>) -> Outcome<CreateAclsResponse> {
        let error = ErrorCode::SecurityDisabled;
        let refused = AclCreationResult::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(NO_AUTHORIZER_ON_BROKER)));
        let results = vec![refused; call.body.creations.len()];
        let response = CreateAclsResponse::default().with_results(results);
        Outcome::Ready(Answer::failed(response, error))
    }
}
