//! DeleteGroups (key 42), versions 0–2.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: flexible.
//!
//! Left out: nothing. A group goes with its offsets, once that is durable.

use std::collections::HashSet;
use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use keelson_protocol::kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, GroupId,
};

use super::common::code;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct DeleteGroups;

impl Api for DeleteGroups {
    type Request = DeleteGroupsRequest;
    type Response = DeleteGroupsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DeleteGroupsRequest>,
    ) -> Outcome<DeleteGroupsResponse> {
        let broker = Arc::clone(broker);
        let mut seen = HashSet::new();
        let named = call.body.groups_names.into_iter();
        let groups: Vec<GroupId> = named.filter(|group| seen.insert(group.clone())).collect();
        Outcome::later(async move {
            let mut first = None;
            let mut results = Vec::with_capacity(groups.len());
            for group in groups {
                let outcome = broker.coordinator.delete(group.to_string()).await;
                let failure = outcome.err().map(|error| errors::coordinator(&error));
                first = first.or(failure);
                let result = DeletableGroupResult::default()
                    .with_group_id(group)
                    .with_error_code(code(failure));
                results.push(result);
            }
            Answer::new(DeleteGroupsResponse::default().with_results(results), first)
        })
    }
}
