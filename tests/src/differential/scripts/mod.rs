//! The scripts, one file per family of APIs, and the few requests that several of them build.
//!
//! A script says what a client may say, right and wrong; it never says what the answer is.

pub(super) mod admin;
pub(super) mod cluster;
pub(super) mod configs;
pub(super) mod data;
pub(super) mod groups;
pub(super) mod offsets;
pub(super) mod topics;
pub(super) mod transactions;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};

use super::case::Case;
use crate::wire::text;

/// A topic's name as the protocol's own type.
fn named(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Produces a batch to partition 0, which must succeed; gives its base offset.
#[track_caller]
fn produced(case: &mut Case<'_>, topic: &str, batch: Vec<u8>) -> i64 {
    produced_as(case, None, topic, batch)
}

/// The same with a transactional id.
#[track_caller]
fn produced_as(
    case: &mut Case<'_>,
    transactional_id: Option<&str>,
    topic: &str,
    batch: Vec<u8>,
) -> i64 {
    let data = PartitionProduceData::default().with_records(Some(Bytes::from(batch)));
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| text(id).into()))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(named(topic))
                .with_partition_data(vec![data]),
        ]);
    let answer = case.quietly(9, &request);
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0, "producing to {topic}");
    partition.base_offset
}
