//! DeleteRecords (key 21), versions 0–2.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: flexible.
//!
//! Left out: nothing. All moves of a request are one commit, and the answer comes when it is durable; the timeout is not
//! looked at. It needs no room for data, so that a full volume can be helped by it.

use std::sync::Arc;

use keelson_log::{AppendError, Entry};
use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, TopicName,
};
use keelson_state::metadata::is_internal;

use super::common::{NONE, code};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;
use crate::partitions::{PartitionOwner, TopicState};

/// In place of an offset: everything up to the high watermark.
const HIGH_WATERMARK: i64 = -1;
/// The low watermark beside an error.
const NO_LOW_WATERMARK: i64 = -1;

/// The handler.
pub struct DeleteRecords;

/// One partition that is asked for: to be moved to an offset, or refused.
struct Move {
    index: i32,
    target: Result<(Arc<PartitionOwner>, i64), ErrorCode>,
}

impl Api for DeleteRecords {
    type Request = DeleteRecordsRequest;
    type Response = DeleteRecordsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DeleteRecordsRequest>,
    ) -> Outcome<DeleteRecordsResponse> {
        let asked = call.body.topics.into_iter().map(|topic| {
            let state = find(broker, &topic.name);
            let moves = topic.partitions.iter().map(|partition| Move {
                index: partition.partition_index,
                target: target(&state, partition.partition_index, partition.offset),
            });
            (topic.name, moves.collect())
        });
        let mut asked: Vec<(TopicName, Vec<Move>)> = asked.collect();
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            if let Err(error) = commit(&broker, &asked).await {
                refuse(&mut asked, errors::append(&error));
            }
            answer(asked)
        })
    }
}

fn find(broker: &Broker, name: &TopicName) -> Result<Arc<TopicState>, ErrorCode> {
    if is_internal(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let state = broker.partitions.topic(name);
    state.ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn target(
    state: &Result<Arc<TopicState>, ErrorCode>,
    index: i32,
    offset: i64,
) -> Result<(Arc<PartitionOwner>, i64), ErrorCode> {
    let state = state.as_ref().map_err(|code| *code)?;
    let owner = state
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // The newest record of each key is meant to stay.
    if !state.settings.deletes {
        return Err(ErrorCode::PolicyViolation);
    }
    let high_watermark = owner.high_watermark();
    let offset = match offset {
        HIGH_WATERMARK => high_watermark,
        offset if (0..=high_watermark).contains(&offset) => offset,
        _ => return Err(ErrorCode::OffsetOutOfRange),
    };
    Ok((Arc::clone(owner), offset))
}

/// Moves every log start, in one commit; comes back when it is durable.
async fn commit(broker: &Broker, asked: &[(TopicName, Vec<Move>)]) -> Result<(), AppendError> {
    let moves = asked.iter().flat_map(|(_, moves)| moves);
    let entries: Vec<Entry> = moves
        .filter_map(|one| one.target.as_ref().ok())
        .map(|(owner, offset)| Entry::LogStart {
            partition: owner.id(),
            offset: *offset,
        })
        .collect();
    if entries.is_empty() {
        return Ok(());
    }
    let (durable, waiting) = tokio::sync::oneshot::channel();
    let log = Arc::clone(&broker.log);
    let told = Box::new(move || {
        // Whoever asks may have gone by then.
        let _ = durable.send(());
    });
    // A commit waits for the one before it.
    let committed = tokio::task::spawn_blocking(move || log.commit(entries, told));
    // A runtime or a log that stops answers nobody any more: the move is not confirmed.
    committed.await.map_err(|_| AppendError::Closed)??;
    waiting.await.map_err(|_| AppendError::Closed)
}

fn refuse(asked: &mut [(TopicName, Vec<Move>)], code: ErrorCode) {
    for one in asked.iter_mut().flat_map(|(_, moves)| moves) {
        if one.target.is_ok() {
            one.target = Err(code);
        }
    }
}

fn answer(asked: Vec<(TopicName, Vec<Move>)>) -> Answer<DeleteRecordsResponse> {
    let mut first = None;
    let topics = asked.into_iter().map(|(name, moves)| {
        let partitions = moves.into_iter().map(|one| {
            let low_watermark = one.low_watermark();
            first = first.or(low_watermark.err());
            DeleteRecordsPartitionResult::default()
                .with_partition_index(one.index)
                .with_low_watermark(low_watermark.unwrap_or(NO_LOW_WATERMARK))
                .with_error_code(low_watermark.map_or_else(|error| code(Some(error)), |_| NONE))
        });
        DeleteRecordsTopicResult::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    let body = DeleteRecordsResponse::default().with_topics(topics.collect());
    Answer::new(body, first)
}

impl Move {
    /// The log start after the commit.
    fn low_watermark(&self) -> Result<i64, ErrorCode> {
        let (owner, _) = self.target.as_ref().map_err(|error| *error)?;
        if owner.waiters().is_removed() {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        Ok(owner.log().log_start())
    }
}

#[cfg(test)]
mod tests {
    use keelson_protocol::kafka_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };

    use super::*;
    use crate::testing::{TestBroker, name};

    /// Asks for one partition; gives error code and low watermark.
    async fn ask(test: &TestBroker, topic: &str, offset: i64, version: i16) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let response = test.call_version(request, version).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.low_watermark)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_log_start_moves_up_to_the_high_watermark_and_never_back() {
        let test = TestBroker::start(&[]).await;
        test.create(&["orders"]).await;
        for value in [b"0", b"1", b"2", b"3", b"4"] {
            test.produce("orders", 0, &[value]).await;
        }
        let out_of_range = (ErrorCode::OffsetOutOfRange.code(), -1);
        assert_eq!(ask(&test, "orders", 2, 0).await, (0, 2));
        assert_eq!(ask(&test, "orders", 1, 1).await, (0, 2), "never back");
        assert_eq!(ask(&test, "orders", 6, 2).await, out_of_range);
        assert_eq!(ask(&test, "orders", -2, 2).await, out_of_range);
        assert_eq!(ask(&test, "orders", 3, 2).await, (0, 3));
        let log = test.broker.partitions.partition("orders", 0).unwrap();
        assert_eq!(log.log().log_start(), 3);
        drop(log);
        let test = TestBroker::start_in(test.stop(), &[]).await;
        let log = test.broker.partitions.partition("orders", 0).unwrap();
        assert_eq!(log.log().log_start(), 3, "it is durable");
        assert_eq!(ask(&test, "orders", -1, 2).await, (0, 5));
        assert_eq!(test.produce("orders", 0, &[b"5"]).await, (0, 5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_not_there_or_belongs_to_the_broker_is_refused() {
        let test = TestBroker::start(&[]).await;
        let unknown = (ErrorCode::UnknownTopicOrPartition.code(), -1);
        assert_eq!(ask(&test, "nothing", 0, 2).await, unknown);
        let internal = (ErrorCode::InvalidTopicException.code(), -1);
        assert_eq!(ask(&test, "__consumer_offsets", 0, 2).await, internal);
        test.create(&["orders"]).await;
        let partitions = [-1, 0, 1].map(|index| {
            DeleteRecordsPartition::default()
                .with_partition_index(index)
                .with_offset(0)
        });
        let topic = DeleteRecordsTopic::default()
            .with_name(name("orders"))
            .with_partitions(partitions.to_vec());
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let response = test.call(request).await;
        let found: Vec<(i16, i64)> = response.topics[0]
            .partitions
            .iter()
            .map(|p| (p.error_code, p.low_watermark))
            .collect();
        assert_eq!(found, [unknown, (0, 0), unknown]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_same_move_asked_for_at_once_is_answered_to_all() {
        let test = TestBroker::start(&[]).await;
        test.create(&["orders"]).await;
        for value in 0..40_u8 {
            test.produce("orders", 0, &[&[value]]).await;
        }
        for offset in 1..40 {
            let ask = || ask(&test, "orders", offset, 2);
            let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
            assert_eq!([a, b, c, d], [(0, offset); 4]);
        }
    }
}
