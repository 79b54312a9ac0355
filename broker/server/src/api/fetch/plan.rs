//! What a Fetch asks for, in the form that waits: names resolved, limits applied, nothing of the frame held.

use std::sync::Arc;
use std::time::Duration;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::fetch_request::FetchPartition;
use keelson_protocol::kafka_protocol::messages::{FetchRequest, TopicName};
use uuid::Uuid;

use crate::broker::Broker;
use crate::budgets::REPLY_BYTES_MAX;
use crate::partitions::{PartitionOwner, TopicState};

/// First version whose topics are named by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;
/// The longest wait: longer ones are cut, so that a plan does not outlive what it was made from for long.
const WAIT_MS_MAX: i32 = 5 * 60 * 1000;

/// One partition of a plan.
pub(super) struct Part {
    pub(super) index: i32,
    pub(super) offset: i64,
    pub(super) bytes_max: u64,
    /// Its owner, or why there is nothing to read.
    pub(super) owner: Result<Arc<PartitionOwner>, ErrorCode>,
}

/// One topic of a plan, as the answer names it.
pub(super) struct PlanTopic {
    pub(super) name: TopicName,
    pub(super) id: Uuid,
    pub(super) parts: Vec<Part>,
}

/// What a Fetch asks for.
pub(super) struct Plan {
    pub(super) topics: Vec<PlanTopic>,
    pub(super) wait: Duration,
    pub(super) bytes_min: u64,
    pub(super) bytes_max: u64,
    pub(super) read_committed: bool,
}

impl Plan {
    pub(super) fn new(broker: &Broker, version: i16, request: FetchRequest) -> Self {
        let positive = |n: i32| u64::try_from(n).unwrap_or(0);
        let topics = request
            .topics
            .into_iter()
            .map(|topic| {
                let state = if version >= TOPIC_ID_VERSION_MIN {
                    broker
                        .partitions
                        .topic_by_id(topic.topic_id.as_bytes())
                        .ok_or(ErrorCode::UnknownTopicId)
                } else {
                    broker
                        .partitions
                        .topic(&topic.topic)
                        .ok_or(ErrorCode::UnknownTopicOrPartition)
                };
                let parts = topic
                    .partitions
                    .iter()
                    .map(|partition| part(&state, partition))
                    .collect();
                PlanTopic {
                    name: owned(&topic.topic),
                    id: topic.topic_id,
                    parts,
                }
            })
            .collect();
        Self {
            topics,
            wait: Duration::from_millis(positive(request.max_wait_ms.min(WAIT_MS_MAX))),
            bytes_min: positive(request.min_bytes),
            bytes_max: positive(request.max_bytes.min(broker.config.fetch_max_bytes))
                .min(REPLY_BYTES_MAX),
            read_committed: request.isolation_level == 1,
        }
    }

    /// Every partition, in the order of the request.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.topics.iter().flat_map(|topic| &topic.parts)
    }
}

/// A name that does not pin the frame it came in.
fn owned(name: &TopicName) -> TopicName {
    TopicName(keelson_protocol::kafka_protocol::protocol::StrBytes::from_string(name.to_string()))
}

fn part(state: &Result<Arc<TopicState>, ErrorCode>, wanted: &FetchPartition) -> Part {
    let owner = match state {
        Err(error) => Err(*error),
        Ok(state) => match state.partition(wanted.partition) {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(owner) => check_epoch(state.leader_epoch, wanted.current_leader_epoch)
                .map(|()| Arc::clone(owner)),
        },
    };
    Part {
        index: wanted.partition,
        offset: wanted.fetch_offset,
        bytes_max: u64::try_from(wanted.partition_max_bytes).unwrap_or(0),
        owner,
    }
}

/// Compares the epoch a client knows with ours; -1 is a client that does not say (KIP-320).
pub(crate) fn check_epoch(current: i32, claimed: i32) -> Result<(), ErrorCode> {
    if claimed < 0 || claimed == current {
        Ok(())
    } else if claimed < current {
        Err(ErrorCode::FencedLeaderEpoch)
    } else {
        Err(ErrorCode::UnknownLeaderEpoch)
    }
}
