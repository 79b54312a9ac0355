//! ListTransactions (key 66), versions 0–2.
//!
//! - 0: by state and producer id (KIP-664). 1: by how long a transaction has run (KIP-994). 2: by a
//!   pattern of the transactional id (KIP-1152), which must match all of it; one that is none is
//!   INVALID_REGULAR_EXPRESSION.
//!
//! Left out: nothing.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use keelson_protocol::kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId,
};
use keelson_state::transactions::{ListFilter, TransactionState};
use regex::{Regex, RegexBuilder};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// What a compiled pattern may take of memory.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// The handler.
pub struct ListTransactions;

impl Api for ListTransactions {
    type Request = ListTransactionsRequest;
    type Response = ListTransactionsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<ListTransactionsRequest>,
    ) -> Outcome<ListTransactionsResponse> {
        let Call { version, body, .. } = call;
        let pattern = body.transactional_id_pattern.as_deref().unwrap_or("");
        let Ok(pattern) = whole(pattern) else {
            let error = ErrorCode::InvalidRegularExpression;
            let response = ListTransactionsResponse::default().with_error_code(error.code());
            return Outcome::Ready(Answer::failed(response, error));
        };
        let state_of = |name: &str| TransactionState::of_name(name);
        let (known, unknown): (Vec<_>, Vec<_>) = body
            .state_filters
            .into_iter()
            .partition(|name| state_of(name).is_some());
        let states: Vec<TransactionState> =
            known.iter().filter_map(|name| state_of(name)).collect();
        let asked = !states.is_empty() || !unknown.is_empty();
        let listed = broker.transactions.list(ListFilter {
            states: asked.then_some(states),
            producer_ids: body.producer_id_filters.iter().map(|id| id.0).collect(),
            duration_ms: if version >= 1 {
                body.duration_filter
            } else {
                -1
            },
        });
        Outcome::later(async move {
            let response = ListTransactionsResponse::default().with_unknown_state_filters(unknown);
            match listed.await {
                Ok(listed) => {
                    let passes = |id: &str| pattern.as_ref().is_none_or(|p| p.is_match(id));
                    let passing = listed
                        .into_iter()
                        .filter(|one| passes(&one.transactional_id));
                    let each = passing.map(|one| {
                        Listed::default()
                            .with_transactional_id(text(one.transactional_id).into())
                            .with_producer_id(ProducerId(one.producer_id))
                            .with_transaction_state(text(one.state.name()))
                    });
                    Answer::ok(response.with_transaction_states(each.collect()))
                }
                Err(error) => {
                    let code = errors::transaction(&error, true);
                    Answer::failed(response.with_error_code(code.code()), code)
                }
            }
        })
    }
}

/// A pattern that matches a whole id; an empty one is none.
fn whole(pattern: &str) -> Result<Option<Regex>, regex::Error> {
    if pattern.is_empty() {
        return Ok(None);
    }
    // Alone first: what closes a group of its own must not close ours.
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .build()?;
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map(Some)
}
