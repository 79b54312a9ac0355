//! ListTransactions (key 66), versions 0–1.
//!
//! - 0: by state and producer id (KIP-664). 1: by how long a transaction has run (KIP-994).
//!
//! Left out: transactional ids by pattern (version 2).

use std::sync::Arc;

use keelson_protocol::kafka_protocol::messages::list_transactions_response::TransactionState as Listed;
use keelson_protocol::kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId,
};
use keelson_state::transactions::{ListFilter, TransactionState};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

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
                    let each = listed.into_iter().map(|one| {
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
