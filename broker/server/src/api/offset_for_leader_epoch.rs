//! OffsetForLeaderEpoch (key 23), versions 2–4.
//!
//! - 2: the leader epoch that the client knows; throttle time (KIP-320). 3: a replica id. 4: flexible.
//!
//! A consumer asks this when the leader epoch has changed since it read, which it has after every start of the broker:
//! where did the epoch end that I know, and was the log cut below my position? Some (kafka-python) read no further
//! without the answer. Left out: followers, of which there are none.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use keelson_protocol::kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::fetch::check_epoch;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::partitions::TopicState;

/// "There is none", for epochs and offsets.
const NONE: i32 = -1;

/// The handler.
pub struct OffsetForLeaderEpoch;

impl Api for OffsetForLeaderEpoch {
    type Request = OffsetForLeaderEpochRequest;
    type Response = OffsetForLeaderEpochResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<OffsetForLeaderEpochRequest>,
    ) -> Outcome<OffsetForLeaderEpochResponse> {
        let mut first = None;
        let topics = call.body.topics.into_iter().map(|topic| {
            let state = broker.partitions.topic(&topic.topic);
            let partitions = topic.partitions.iter().map(|wanted| {
                let answer = EpochEndOffset::default().with_partition(wanted.partition);
                match find(state.as_deref(), wanted) {
                    Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                    Err(error) => {
                        first.get_or_insert(error);
                        answer
                            .with_error_code(error.code())
                            .with_leader_epoch(NONE)
                            .with_end_offset(NONE.into())
                    }
                }
            });
            let partitions = partitions.collect();
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions)
        });
        let topics = topics.collect();
        let body = OffsetForLeaderEpochResponse::default().with_topics(topics);
        Outcome::Ready(Answer::new(body, first))
    }
}

fn find(
    state: Option<&TopicState>,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let state = state.ok_or(unknown)?;
    let owner = state.partition(wanted.partition).ok_or(unknown)?;
    check_epoch(state.leader_epoch, wanted.current_leader_epoch)?;
    let end = owner.high_watermark();
    let mut starts = owner.log().epochs();
    // The epoch of this start stands in the log with its first append; until then it begins at the end.
    if starts
        .last()
        .is_none_or(|(epoch, _)| *epoch < state.leader_epoch)
    {
        starts.push((state.leader_epoch, end));
    }
    Ok(end_of(&starts, wanted.leader_epoch, end))
}

/// The largest epoch up to the one asked for, and where it ends: at the start of the next one, the last at the end of
/// the log. `starts` ascends. An epoch that this log has never seen has no answer.
fn end_of(starts: &[(i32, i64)], asked: i32, end: i64) -> (i32, i64) {
    let above = starts.partition_point(|(epoch, _)| *epoch <= asked);
    let known = above.checked_sub(1).and_then(|last| starts.get(last));
    match (known, starts.get(above)) {
        (Some((epoch, _)), None) if *epoch == asked => (*epoch, end),
        (Some(_) | None, None) => (NONE, NONE.into()),
        (Some((epoch, _)), Some((_, next))) => (*epoch, *next),
        (None, Some(_)) if asked < 0 => (NONE, NONE.into()),
        (None, Some((_, next))) => (asked, *next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestBroker, name};
    use keelson_protocol::kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let starts = [(1, 0), (3, 10), (4, 10), (6, 25)];
        let cases = [
            (-1, (-1, -1)),
            (0, (0, 0)),
            (1, (1, 10)),
            (2, (1, 10)),
            (3, (3, 10)),
            (4, (4, 25)),
            (5, (4, 25)),
            (6, (6, 30)),
            (7, (-1, -1)),
        ];
        for (asked, want) in cases {
            assert_eq!(end_of(&starts, asked, 30), want, "epoch {asked}");
        }
        assert_eq!(end_of(&[], 0, 0), (-1, -1));
    }

    #[tokio::test]
    async fn a_consumer_learns_that_nothing_was_cut_over_a_restart() {
        let broker = TestBroker::start(&[]).await;
        broker.create(&["t"]).await;
        broker.produce("t", 0, &[b"one", b"two"]).await;
        let broker = TestBroker::start_in(broker.stop(), &[]).await;
        let ask = |current, epoch| {
            let partition = OffsetForLeaderPartition::default()
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
        };
        for version in 2..=4 {
            let response = broker.call_version(ask(1, 0), version).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!(
                (found.error_code, found.leader_epoch, found.end_offset),
                (0, 0, 2)
            );
        }
        let refused = broker.call(ask(0, 0)).await;
        let fenced = ErrorCode::FencedLeaderEpoch.code();
        assert_eq!(refused.topics[0].partitions[0].error_code, fenced);
        broker.produce("t", 0, &[b"three"]).await;
        let response = broker.call(ask(1, 0)).await;
        assert_eq!(response.topics[0].partitions[0].end_offset, 2);
        let response = broker.call(ask(1, 1)).await;
        assert_eq!(response.topics[0].partitions[0].end_offset, 3);
    }
}
