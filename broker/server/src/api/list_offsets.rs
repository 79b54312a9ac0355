//! ListOffsets (key 2), versions 1–10.
//!
//! - 1: one offset per partition, with its timestamp. 2: isolation level; throttle time. 4: leader epoch (KIP-320).
//! - 6: flexible. 7: max timestamp, -3 (KIP-734). 8: earliest local offset, -4 (KIP-405). 9: last tiered offset, -5.
//! - 10: timeout (KIP-1075).
//!
//! Left out: tiered storage (-4 is the log start, -5 finds nothing) and the timeout (nothing remote is asked). With
//! read_committed the newest offset is the last stable one, and what is found by time lies below it.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_log::ReadError;
use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use keelson_protocol::kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use keelson_protocol::kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, TopicName,
};

use super::fetch::check_epoch;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::partitions::{PartitionOwner, TopicState};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// "There is none", for offsets, timestamps and epochs.
const NONE: i64 = -1;

/// The handler.
pub struct ListOffsets;

/// One question, with its owner found.
struct Question {
    index: i32,
    timestamp: i64,
    leader_epoch: i32,
    committed_only: bool,
    owner: Result<Arc<PartitionOwner>, ErrorCode>,
}

impl Api for ListOffsets {
    type Request = ListOffsetsRequest;
    type Response = ListOffsetsResponse;

    fn handle(broker: &Arc<Broker>, call: Call<ListOffsetsRequest>) -> Outcome<Self::Response> {
        let version = call.version;
        let committed_only = call.body.isolation_level == 1;
        let questions: Vec<(TopicName, Vec<Question>)> = call
            .body
            .topics
            .into_iter()
            .map(|topic| {
                let state = broker.partitions.topic(&topic.name);
                (
                    topic.name,
                    ask(
                        state.as_deref(),
                        &topic.partitions,
                        (version, committed_only),
                    ),
                )
            })
            .collect();
        let needs_log = questions
            .iter()
            .flat_map(|(_, asked)| asked)
            .any(Question::needs_log);
        if !needs_log {
            return Outcome::Ready(answer(questions, version));
        }
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            let _permit = broker.cold_reads.acquire().await;
            let names: Vec<TopicName> = questions.iter().map(|(name, _)| name.clone()).collect();
            tokio::task::spawn_blocking(move || answer(questions, version))
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "a search for offsets was given up");
                    given_up(names)
                })
        })
    }
}

/// An answer that no client takes for an offset: the broker is stopping.
fn given_up(names: Vec<TopicName>) -> Answer<ListOffsetsResponse> {
    let topics = names
        .into_iter()
        .map(|name| ListOffsetsTopicResponse::default().with_name(name));
    Answer::failed(
        ListOffsetsResponse::default().with_topics(topics.collect()),
        ErrorCode::UnknownServerError,
    )
}

/// The questions about a topic. A partition that stands there twice is refused, once.
fn ask(
    state: Option<&TopicState>,
    partitions: &[ListOffsetsPartition],
    how: (i16, bool),
) -> Vec<Question> {
    let mut times: HashMap<i32, usize> = HashMap::new();
    for partition in partitions {
        *times.entry(partition.partition_index).or_default() += 1;
    }
    let mut questions = Vec::with_capacity(partitions.len());
    for partition in partitions {
        match times.get_mut(&partition.partition_index) {
            Some(0) => {}
            Some(1) => questions.push(question(state, partition, how)),
            Some(more) => {
                *more = 0;
                let mut refused = question(state, partition, how);
                refused.owner = Err(ErrorCode::InvalidRequest);
                questions.push(refused);
            }
            None => unreachable!("every partition was counted"),
        }
    }
    questions
}

fn question(
    state: Option<&TopicState>,
    wanted: &ListOffsetsPartition,
    (version, committed_only): (i16, bool),
) -> Question {
    let mut leader_epoch = -1;
    let owner = match state {
        None => Err(ErrorCode::UnknownTopicOrPartition),
        Some(state) => {
            leader_epoch = state.leader_epoch;
            match state.partition(wanted.partition_index) {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(owner) => check_epoch(state.leader_epoch, wanted.current_leader_epoch)
                    .and_then(|()| check_kind(wanted.timestamp, version))
                    .map(|()| Arc::clone(owner)),
            }
        }
    };
    Question {
        index: wanted.partition_index,
        timestamp: wanted.timestamp,
        leader_epoch,
        committed_only,
        owner,
    }
}

/// Negative timestamps are questions of their own, each known from some version on.
fn check_kind(timestamp: i64, version: i16) -> Result<(), ErrorCode> {
    let known_from = match timestamp {
        LATEST | EARLIEST | 0.. => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if version >= known_from {
        Ok(())
    } else {
        Err(ErrorCode::UnsupportedVersion)
    }
}

impl Question {
    /// True if only the log's indexes or batches know.
    fn needs_log(&self) -> bool {
        self.owner.is_ok() && (self.timestamp >= 0 || self.timestamp == MAX_TIMESTAMP)
    }

    /// Offset, timestamp and leader epoch.
    fn find(&self, owner: &PartitionOwner) -> Result<(i64, i64, i32), ReadError> {
        let found = match self.timestamp {
            LATEST => return Ok((self.end(owner), NONE, self.leader_epoch)),
            EARLIEST | EARLIEST_LOCAL => {
                let start = owner.log().log_start();
                return Ok((start, NONE, self.epoch_at(owner, start)));
            }
            LATEST_TIERED => None,
            MAX_TIMESTAMP => owner.log().max_timestamp()?,
            timestamp => owner.log().offset_for_timestamp(timestamp)?,
        };
        // As Kafka does: what is found above is not there yet.
        let end = self.end(owner);
        let found = found.filter(|(offset, _)| *offset < end);
        Ok(match found {
            Some((offset, timestamp)) => (offset, timestamp, self.epoch_at(owner, offset)),
            None => (NONE, NONE, -1),
        })
    }

    /// The leader epoch in which an offset was, or will be, written.
    fn epoch_at(&self, owner: &PartitionOwner, offset: i64) -> i32 {
        let log = owner.log();
        if offset >= log.next_offset() {
            return self.leader_epoch;
        }
        let starts = log.epochs();
        let above = starts.partition_point(|(_, start)| *start <= offset);
        let known = above.checked_sub(1).and_then(|last| starts.get(last));
        known.map_or(-1, |(epoch, _)| *epoch)
    }

    /// Where this reader's log ends.
    fn end(&self, owner: &PartitionOwner) -> i64 {
        let high_watermark = owner.high_watermark();
        if self.committed_only {
            owner.last_stable_offset(high_watermark)
        } else {
            high_watermark
        }
    }

    fn answer(&self, version: i16) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
        let owner = self.owner.as_ref().map_err(|error| *error)?;
        let (offset, timestamp, epoch) = self.find(owner).map_err(|error| errors::read(&error))?;
        Ok(ListOffsetsPartitionResponse::default()
            .with_partition_index(self.index)
            .with_offset(offset)
            .with_timestamp(timestamp)
            .with_leader_epoch(if version >= 4 { epoch } else { -1 }))
    }
}

fn answer(questions: Vec<(TopicName, Vec<Question>)>, version: i16) -> Answer<ListOffsetsResponse> {
    let mut first_error = None;
    let topics = questions.into_iter().map(|(name, asked)| {
        let partitions = asked.iter().map(|question| {
            question.answer(version).unwrap_or_else(|error| {
                first_error.get_or_insert(error);
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(question.index)
                    .with_error_code(error.code())
                    .with_offset(NONE)
                    .with_timestamp(NONE)
            })
        });
        ListOffsetsTopicResponse::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    let body = ListOffsetsResponse::default().with_topics(topics.collect());
    Answer::new(body, first_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestBroker, name, produce_request};
    use keelson_protocol::builder::BatchBuilder;
    use keelson_protocol::kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;

    async fn ask(test: &TestBroker, timestamp: i64, version: i16) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default()
            .with_timestamp(timestamp)
            .with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name("orders"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = test.call_version(request, version).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset, found.timestamp)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn earliest_latest_and_by_time() {
        let test = TestBroker::start(&[]).await;
        test.create(&["orders"]).await;
        assert_eq!(ask(&test, LATEST, 1).await, (0, 0, -1));
        assert_eq!(ask(&test, MAX_TIMESTAMP, 7).await, (0, -1, -1));
        for timestamp in [1000, 3000, 2000] {
            let mut builder = BatchBuilder::new(timestamp);
            builder.push(None, Some(b"a"));
            builder.push_with(timestamp + 5, None, Some(b"b"), &[]);
            let request = produce_request("orders", 0, builder.build(), -1);
            test.call_version(request, 9).await;
        }
        for version in 1..=10 {
            assert_eq!(ask(&test, LATEST, version).await, (0, 6, -1));
            assert_eq!(ask(&test, EARLIEST, version).await, (0, 0, -1));
            assert_eq!(ask(&test, 0, version).await, (0, 0, 1000));
            assert_eq!(ask(&test, 1001, version).await, (0, 1, 1005));
            assert_eq!(ask(&test, 1006, version).await, (0, 2, 3000));
            assert_eq!(ask(&test, 9999, version).await, (0, -1, -1));
        }
        assert_eq!(ask(&test, MAX_TIMESTAMP, 7).await, (0, 3, 3005));
        let unsupported = ErrorCode::UnsupportedVersion.code();
        assert_eq!(ask(&test, MAX_TIMESTAMP, 6).await.0, unsupported);
        assert_eq!(ask(&test, -9, 10).await.0, unsupported);
    }
}
