//! DescribeCluster (key 60), versions 0–2.
//!
//! - 0: all there is (KIP-700), flexible. 1: endpoint type (KIP-919). 2: fenced brokers (KIP-1073).
//!
//! Left out: endpoints of controllers (MISMATCHED_ENDPOINT_TYPE: this is a broker); racks; fenced brokers, of which
//! there are none. Authorised operations are all of them, since nobody is refused anything.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use keelson_protocol::kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse,
};

use super::common::{OPERATIONS_UNKNOWN, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// Endpoint type of brokers.
const BROKERS: i8 = 1;
/// Endpoint type of controllers.
const CONTROLLERS: i8 = 2;
/// Bits of every operation on the cluster: create, alter, describe, cluster action, configs, idempotent write.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The handler.
pub struct DescribeCluster;

impl Api for DescribeCluster {
    type Request = DescribeClusterRequest;
    type Response = DescribeClusterResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeClusterRequest>,
    ) -> Outcome<DescribeClusterResponse> {
        let Call {
            version,
            body,
            client,
            ..
        } = call;
        let refused = match body.endpoint_type {
            BROKERS => None,
            CONTROLLERS => Some((
                ErrorCode::MismatchedEndpointType,
                "This is a broker, not a controller.",
            )),
            _ => Some((ErrorCode::UnsupportedEndpointType, "Unknown endpoint type.")),
        };
        if let Some((code, message)) = refused.filter(|_| version >= 1) {
            let response = DescribeClusterResponse::default()
                .with_error_code(code.code())
                .with_error_message(Some(text(message)));
            return Outcome::Ready(Answer::failed(response, code));
        }
        let this = broker.advertised(client.listener).map(|address| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.id()))
                .with_host(text(address.host))
                .with_port(i32::from(address.port))
        });
        let operations = if body.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_UNKNOWN
        };
        let response = DescribeClusterResponse::default()
            .with_cluster_id(text(broker.identity.cluster_id.clone()))
            .with_controller_id(BrokerId(broker.id()))
            .with_brokers(this.into_iter().collect())
            .with_cluster_authorized_operations(operations);
        Outcome::ok(response)
    }
}
