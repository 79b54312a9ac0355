//! DescribeTransactions (key 65), versions 0–0.
//!
//! - 0: all there is (KIP-664).
//!
//! Left out: nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState,
};
use keelson_protocol::kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId,
};
use keelson_state::transactions::DescribedTransaction;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct DescribeTransactions;

impl Api for DescribeTransactions {
    type Request = DescribeTransactionsRequest;
    type Response = DescribeTransactionsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeTransactionsRequest>,
    ) -> Outcome<DescribeTransactionsResponse> {
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            let mut first = None;
            let mut states = Vec::with_capacity(call.body.transactional_ids.len());
            for id in call.body.transactional_ids {
                let answer = match broker.transactions.describe(id.to_string()).await {
                    Ok(Some(found)) => Ok(found),
                    Ok(None) => Err(ErrorCode::TransactionalIdNotFound),
                    Err(error) => Err(errors::transaction(&error, true)),
                };
                let state = answer.map_or_else(
                    |error| {
                        first.get_or_insert(error);
                        TransactionState::default().with_error_code(error.code())
                    },
                    described,
                );
                states.push(state.with_transactional_id(id));
            }
            let response = DescribeTransactionsResponse::default();
            Answer::new(response.with_transaction_states(states), first)
        })
    }
}

fn described(found: DescribedTransaction) -> TransactionState {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in found.partitions {
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(text(&*topic).into())
            .with_partitions(partitions)
    });
    TransactionState::default()
        .with_transaction_state(text(found.state.name()))
        .with_transaction_timeout_ms(found.timeout_ms)
        .with_transaction_start_time_ms(found.start_ms)
        .with_producer_id(ProducerId(found.producer.0))
        .with_producer_epoch(found.producer.1)
        .with_topics(topics.collect())
}
