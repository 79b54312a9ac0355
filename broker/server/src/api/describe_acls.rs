//! DescribeAcls (key 29), versions 1–3.
//!
//! - 1: patterns (KIP-290). 2: flexible. 3: user resources.
//!
//! Left out: ACLs: there is no authoriser, and the answer says so (SECURITY_DISABLED), as a Kafka broker without one does.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use super::common::{NO_AUTHORIZER_ON_BROKER, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct DescribeAcls;

impl Api for DescribeAcls {
    type Request = DescribeAclsRequest;
    type Response = DescribeAclsResponse;

    fn handle(_: &Arc<Broker>, _: Call<DescribeAclsRequest>) -> Outcome<DescribeAclsResponse> {
        let error = ErrorCode::SecurityDisabled;
        let response = DescribeAclsResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(NO_AUTHORIZER_ON_BROKER)));
        Outcome::Ready(Answer::failed(response, error))
    }
}
