//! OffsetFetch (key 9), versions 1–9.
//!
//! - 1: from the log. 2: no list means all partitions; an error for the group. 3: throttle time. 5: leader epochs.
//! - 6: flexible. 7: `require_stable` (KIP-447). 8: many groups (KIP-709). 9: the new group protocol (KIP-848).
//!
//! Left out: groups of the new protocol (member id and epoch are not looked at); topic ids (version 10). With
//! `require_stable`, an offset that a transaction may still change is UNSTABLE_OFFSET_COMMIT. A partition without an
//! offset, also of an unknown group, is no error: offset −1.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use keelson_protocol::kafka_protocol::messages::{
    GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use super::common::text;
use crate::broker::Broker;
use crate::coordinator::{CoordinatorError, FetchedOffset};
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// What is asked of one group: topics with their partitions, or all there are.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

/// A topic with its partitions, found.
type Found = Vec<(TopicName, Vec<FetchedOffset>)>;

/// The handler.
pub struct OffsetFetch;

impl Api for OffsetFetch {
    type Request = OffsetFetchRequest;
    type Response = OffsetFetchResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<OffsetFetchRequest>,
    ) -> Outcome<OffsetFetchResponse> {
        let broker = Arc::clone(broker);
        let Call { version, body, .. } = call;
        Outcome::later(async move {
            if version >= 8 {
                return many(&broker, body).await;
            }
            let asked: Asked = body.topics.map(|topics| {
                let each = topics.into_iter();
                each.map(|topic| (topic.name, topic.partition_indexes))
                    .collect()
            });
            let asked_for = (asked.clone(), body.require_stable);
            let found = fetch(&broker, &body.group_id, asked_for).await;
            one(version, asked, found)
        })
    }
}

async fn fetch(
    broker: &Broker,
    group: &GroupId,
    (asked, require_stable): (Asked, bool),
) -> Result<Found, CoordinatorError> {
    let flat = asked.as_ref().map(|topics| {
        let each = topics.iter();
        each.flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(|partition| (topic.to_string(), *partition))
        })
        .collect()
    });
    let mut offsets = broker.coordinator.offsets(group.to_string(), flat).await?;
    if !require_stable {
        for offset in &mut offsets {
            offset.unstable = false;
        }
    }
    let Some(topics) = asked else {
        let mut by_topic: BTreeMap<String, Vec<FetchedOffset>> = BTreeMap::new();
        for offset in offsets {
            by_topic
                .entry(offset.topic.clone())
                .or_default()
                .push(offset);
        }
        let name = |topic| TopicName(text(topic));
        return Ok(by_topic
            .into_iter()
            .map(|(topic, found)| (name(topic), found))
            .collect());
    };
    let mut offsets = offsets.into_iter();
    let mut found = Vec::with_capacity(topics.len());
    for (topic, partitions) in topics {
        found.push((topic, offsets.by_ref().take(partitions.len()).collect()));
    }
    Ok(found)
}

async fn many(broker: &Broker, body: OffsetFetchRequest) -> Answer<OffsetFetchResponse> {
    let mut first = None;
    let mut groups = Vec::with_capacity(body.groups.len());
    for group in body.groups {
        let asked = group.topics.map(|topics| {
            let each = topics.into_iter();
            each.map(|topic| (topic.name, topic.partition_indexes))
                .collect()
        });
        let answer = match fetch(broker, &group.group_id, (asked, body.require_stable)).await {
            Ok(found) => {
                let topics = found.into_iter().map(|(topic, offsets)| {
                    OffsetFetchResponseTopics::default()
                        .with_name(topic)
                        .with_partitions(offsets.into_iter().map(of_many).collect())
                });
                OffsetFetchResponseGroup::default().with_topics(topics.collect())
            }
            Err(error) => {
                let code = errors::coordinator(&error);
                first.get_or_insert(code);
                OffsetFetchResponseGroup::default().with_error_code(code.code())
            }
        };
        groups.push(answer.with_group_id(group.group_id));
    }
    Answer::new(OffsetFetchResponse::default().with_groups(groups), first)
}

fn of_many(found: FetchedOffset) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(found.partition);
    match found.offset {
        _ if found.unstable => answer
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(text("")))
            .with_error_code(ErrorCode::UnstableOffsetCommit.code()),
        Some(held) => answer
            .with_committed_offset(held.offset)
            .with_committed_leader_epoch(held.leader_epoch)
            .with_metadata(Some(text(held.metadata))),
        None => answer
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(text(""))),
    }
}

fn of_one(found: FetchedOffset) -> OffsetFetchResponsePartition {
    let answer = of_many(found);
    OffsetFetchResponsePartition::default()
        .with_partition_index(answer.partition_index)
        .with_committed_offset(answer.committed_offset)
        .with_committed_leader_epoch(answer.committed_leader_epoch)
        .with_metadata(answer.metadata)
        .with_error_code(answer.error_code)
}

fn one(
    version: i16,
    asked: Asked,
    found: Result<Found, CoordinatorError>,
) -> Answer<OffsetFetchResponse> {
    let topic = |(name, partitions): (TopicName, Vec<OffsetFetchResponsePartition>)| {
        OffsetFetchResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions)
    };
    let error = match found {
        Ok(found) => {
            let each = found.into_iter();
            let topics = each
                .map(|(name, offsets)| topic((name, offsets.into_iter().map(of_one).collect())));
            return Answer::ok(OffsetFetchResponse::default().with_topics(topics.collect()));
        }
        Err(error) => errors::coordinator(&error),
    };
    let response = OffsetFetchResponse::default().with_error_code(error.code());
    if version >= 2 {
        return Answer::failed(response, error);
    }
    // Version 1 has no error for the group: each partition says it.
    let topics = asked
        .unwrap_or_default()
        .into_iter()
        .map(|(name, partitions)| {
            let failed = |index| of_failed(index, error);
            topic((name, partitions.into_iter().map(failed).collect()))
        });
    Answer::failed(
        OffsetFetchResponse::default().with_topics(topics.collect()),
        error,
    )
}

fn of_failed(index: i32, error: ErrorCode) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_metadata(Some(text("")))
        .with_error_code(error.code())
}
