//! ListGroups (key 16), versions 0–5.
//!
//! - 1: throttle time. 2: nothing new on the wire. 3: flexible. 4: filter by state (KIP-518). 5: type of group, and a
//!   filter by it (KIP-848).
//!
//! Left out: groups of other types than "classic": there are none. Groups that only hold offsets are listed, too.

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::list_groups_response::ListedGroup;
use keelson_protocol::kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use keelson_protocol::kafka_protocol::protocol::StrBytes;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The one type of group there is.
const CLASSIC: &str = "classic";

/// The handler.
pub struct ListGroups;

impl Api for ListGroups {
    type Request = ListGroupsRequest;
    type Response = ListGroupsResponse;

    fn handle(broker: &Arc<Broker>, call: Call<ListGroupsRequest>) -> Outcome<ListGroupsResponse> {
        let listed = broker.coordinator.list();
        let body = call.body;
        Outcome::later(async move {
            let groups = match listed.await {
                Ok(groups) => groups,
                Err(error) => {
                    let code = errors::coordinator(&error);
                    return Answer::failed(
                        ListGroupsResponse::default().with_error_code(code.code()),
                        code,
                    );
                }
            };
            let passes = |filter: &[StrBytes], value: &str| {
                filter.is_empty()
                    || filter
                        .iter()
                        .any(|wanted| wanted.eq_ignore_ascii_case(value))
            };
            let groups = groups
                .into_iter()
                .filter(|group| passes(&body.states_filter, group.state.name()))
                .filter(|_| passes(&body.types_filter, CLASSIC))
                .map(|group| {
                    ListedGroup::default()
                        .with_group_id(GroupId(text(group.group)))
                        .with_protocol_type(text(group.protocol_type))
                        .with_group_state(text(group.state.name()))
                        .with_group_type(text(CLASSIC))
                });
            Answer::ok(ListGroupsResponse::default().with_groups(groups.collect()))
        })
    }
}
