//! AddPartitionsToTxn (key 24), versions 0–5.
//!
//! - 0: one transaction. 1: nothing new on the wire. 2: PRODUCER_FENCED. 3: flexible.
//! - 4: many transactions at once, and questions only, as brokers ask (KIP-890). 5: TRANSACTION_ABORTABLE.
//!
//! Left out: nothing. All partitions of a transaction are added or none; then those that could have been are
//! OPERATION_NOT_ATTEMPTED.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use keelson_protocol::kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
};
use keelson_state::transactions::{AddRequest, TopicPartition};

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// First version with many transactions.
const BATCHED_VERSION_MIN: i16 = 4;
/// First version whose clients know PRODUCER_FENCED.
const FENCED_VERSION_MIN: i16 = 2;
/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION_MIN: i16 = 4;

/// The handler.
pub struct AddPartitionsToTxn;

/// Errors of partitions.
type Codes = BTreeMap<TopicPartition, Option<ErrorCode>>;

impl Api for AddPartitionsToTxn {
    type Request = AddPartitionsToTxnRequest;
    type Response = AddPartitionsToTxnResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<AddPartitionsToTxnRequest>,
    ) -> Outcome<AddPartitionsToTxnResponse> {
        let Call { version, body, .. } = call;
        let broker = Arc::clone(broker);
        let batched = version >= BATCHED_VERSION_MIN;
        let transactions = if batched {
            body.transactions
        } else {
            vec![
                AddPartitionsToTxnTransaction::default()
                    .with_transactional_id(body.v3_and_below_transactional_id)
                    .with_producer_id(body.v3_and_below_producer_id)
                    .with_producer_epoch(body.v3_and_below_producer_epoch)
                    .with_topics(body.v3_and_below_topics),
            ]
        };
        Outcome::later(async move {
            let mut results = Vec::with_capacity(transactions.len());
            for transaction in transactions {
                let id = transaction.transactional_id.clone();
                let codes = one(&broker, version, transaction).await;
                results.push((id, codes));
            }
            let mut codes = results.iter().flat_map(|(_, codes)| codes.values());
            let first = codes.find_map(|code| *code);
            let response = AddPartitionsToTxnResponse::default();
            let response = if batched {
                let each = results.into_iter().map(|(id, codes)| {
                    AddPartitionsToTxnResult::default()
                        .with_transactional_id(id)
                        .with_topic_results(by_topic(codes))
                });
                response.with_results_by_transaction(each.collect())
            } else {
                let only = results.pop().map(|(_, codes)| by_topic(codes));
                response.with_results_by_topic_v3_and_below(only.unwrap_or_default())
            };
            Answer::new(response, first)
        })
    }
}

fn places(topics: &[AddPartitionsToTxnTopic]) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|topic| {
        let name: Arc<str> = topic.name.to_string().into();
        let each = topic.partitions.iter();
        each.map(move |index| (Arc::clone(&name), *index))
    })
}

async fn one(broker: &Broker, version: i16, asked: AddPartitionsToTxnTransaction) -> Codes {
    let exists = |(topic, index): &TopicPartition| {
        let partition = broker.partitions.partition(topic, *index);
        partition.is_some()
    };
    let mut codes: Codes = places(&asked.topics).map(|place| (place, None)).collect();
    if !codes.keys().all(exists) {
        for (place, code) in &mut codes {
            *code = Some(match exists(place) {
                true => ErrorCode::OperationNotAttempted,
                false => ErrorCode::UnknownTopicOrPartition,
            });
        }
        return codes;
    }
    let request = AddRequest {
        transactional_id: asked.transactional_id.to_string(),
        producer: (asked.producer_id.0, asked.producer_epoch),
        partitions: codes.keys().cloned().collect(),
        bumps_epoch: false,
    };
    let result = if asked.verify_only {
        broker.transactions.verify(request).await
    } else {
        let added = broker.transactions.add(request).await;
        added.map(|()| Vec::new())
    };
    match result {
        Ok(missing) => {
            let abortable = match version >= ABORTABLE_VERSION_MIN {
                true => ErrorCode::TransactionAbortable,
                false => ErrorCode::InvalidTxnState,
            };
            for place in missing {
                codes.insert(place, Some(abortable));
            }
        }
        Err(error) => {
            let error = errors::transaction(&error, version >= FENCED_VERSION_MIN);
            for code in codes.values_mut() {
                *code = Some(error);
            }
        }
    }
    codes
}

fn by_topic(codes: Codes) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut topics: BTreeMap<Arc<str>, Vec<AddPartitionsToTxnPartitionResult>> = BTreeMap::new();
    for ((topic, index), code) in codes {
        topics.entry(topic).or_default().push(
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(super::common::code(code)),
        );
    }
    topics
        .into_iter()
        .map(|(name, results)| {
            AddPartitionsToTxnTopicResult::default()
                .with_name(text(&*name).into())
                .with_results_by_partition(results)
        })
        .collect()
}
