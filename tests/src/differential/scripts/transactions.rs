//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn, WriteTxnMarkers, DescribeTransactions and
//! ListTransactions.

mod admin;
mod commit;
mod steps;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    TxnOffsetCommitRequest,
};

use super::super::case::{Case, Script};
use super::groups::group_id;
use super::named;
use crate::wire::text;

pub(in super::super) fn run(script: &mut Script) {
    steps::run(script);
    commit::run(script);
    admin::run(script);
}

/// A transactional id, its producer's id and epoch.
pub(super) type Transaction = (String, i64, i16);

/// The coordinator still ends the transaction before.
const CONCURRENT_TRANSACTIONS: i16 = 51;

fn txn_topic(topic: &str, partitions: &[i32]) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic::default()
        .with_name(named(topic))
        .with_partitions(partitions.to_vec())
}

/// A request as clients make it, up to version 3.
pub(super) fn add_partitions(
    (transactional_id, id, epoch): &Transaction,
    topic: &str,
    partitions: &[i32],
) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(text(transactional_id).into())
        .with_v3_and_below_producer_id((*id).into())
        .with_v3_and_below_producer_epoch(*epoch)
        .with_v3_and_below_topics(vec![txn_topic(topic, partitions)])
}

/// Adds partitions, once the transaction before has ended.
#[track_caller]
pub(super) fn added(
    case: &mut Case<'_>,
    transaction: &Transaction,
    topic: &str,
    partitions: &[i32],
) {
    let request = add_partitions(transaction, topic, partitions);
    let error = |answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    };
    let answer = case.until("the transaction before has ended", 3, &request, |answer| {
        error(answer) != CONCURRENT_TRANSACTIONS
    });
    assert_eq!(error(&answer), 0, "adding partitions");
}

pub(super) fn end((transactional_id, id, epoch): &Transaction, committed: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(text(transactional_id).into())
        .with_producer_id((*id).into())
        .with_producer_epoch(*epoch)
        .with_committed(committed)
}

/// Ends a transaction, which must succeed.
#[track_caller]
pub(super) fn ended(case: &mut Case<'_>, transaction: &Transaction, committed: bool) {
    let answer = case.quietly(3, &end(transaction, committed));
    assert_eq!(answer.error_code, 0, "ending a transaction");
}

/// Ends a transaction and waits until its coordinator has forgotten its partitions.
#[track_caller]
pub(super) fn completed(case: &mut Case<'_>, transaction: &Transaction, committed: bool) {
    ended(case, transaction, committed);
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(vec![text(&transaction.0).into()]);
    case.until("the transaction is complete", 0, &request, |answer| {
        let state = &answer.transaction_states[0].transaction_state;
        state.starts_with("Complete")
    });
}

fn add_offsets((transactional_id, id, epoch): &Transaction, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(text(transactional_id).into())
        .with_producer_id((*id).into())
        .with_producer_epoch(*epoch)
        .with_group_id(group_id(group))
}

/// Adds a group's offsets, which must succeed.
#[track_caller]
pub(super) fn added_offsets(case: &mut Case<'_>, transaction: &Transaction, group: &str) {
    let request = add_offsets(transaction, group);
    let answer = case.until("the transaction before has ended", 3, &request, |answer| {
        answer.error_code != CONCURRENT_TRANSACTIONS
    });
    assert_eq!(answer.error_code, 0, "adding offsets");
}

/// Commits offsets in a transaction.
pub(super) fn txn_commit(
    version: i16,
    (transactional_id, id, epoch): &Transaction,
    group: &str,
    topic: &str,
    offsets: &[(i32, i64)],
) -> TxnOffsetCommitRequest {
    let partitions = offsets
        .iter()
        .map(|(partition, offset)| {
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(text("note")))
        })
        .collect();
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(named(topic))
        .with_partitions(partitions);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(text(transactional_id).into())
        .with_group_id(group_id(group))
        .with_producer_id((*id).into())
        .with_producer_epoch(*epoch)
        .with_topics(vec![topic]);
    if version >= 3 {
        request.with_generation_id(-1)
    } else {
        request
    }
}
