//! ListPartitionReassignments (key 46), versions 0–0.
//!
//! - 0: all there is (KIP-455), flexible.
//!
//! Left out: nothing: with one broker no partition is ever on its way to another, so that the list is empty.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::broker::Broker;
use crate::dispatch::{Api, Call, Outcome};

/// The handler.
pub struct ListPartitionReassignments;

impl Api for ListPartitionReassignments {
    type Request = ListPartitionReassignmentsRequest;
    type Response = ListPartitionReassignmentsResponse;

    fn handle(
        _: &Arc<Broker>,
        _: Call<ListPartitionReassignmentsRequest>,
    ) -> Outcome<ListPartitionReassignmentsResponse> {
        let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
        Outcome::ok(response)
    }
}
