//! DeleteAcls (key 31), versions 1–3.
//!
//! - 1: patterns (KIP-290). 2: flexible. 3: user resources.
//!
//! Left out: ACLs: there is no authoriser, and the answer says so (SECURITY_DISABLED), as a Kafka broker without one does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use keelson_protocol::kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use super::common::{NO_AUTHORIZER, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct DeleteAcls;

impl Api for DeleteAcls {
    type Request = DeleteAclsRequest;
    type Response = DeleteAclsResponse;

    fn handle(_: &Arc<Broker>, call: Call<DeleteAclsRequest>) -> Outcome<DeleteAclsResponse> {
        let error = ErrorCode::SecurityDisabled;
        let refused = DeleteAclsFilterResult::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(NO_AUTHORIZER)));
        let results = vec![refused; call.body.filters.len()];
        let response = DeleteAclsResponse::default().with_filter_results(results);
        Outcome::Ready(Answer::failed(response, error))
    }
}
