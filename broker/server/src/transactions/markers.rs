//! The way of markers into their partitions.
//!
//! Owns the order: memory, append, durable. A marker that a partition refuses for good (a newer epoch is known, the topic is
//! gone) is none that anybody waits for; one that cannot be written now is told of, and tried again by whoever decides.

use std::future::poll_fn;
use std::sync::Arc;

use keelson_log::AppendError;
use keelson_state::metadata::CONSUMER_OFFSETS;
use keelson_state::persist::FailedBecause;
use keelson_state::producers::{Marker, ProducerError};
use keelson_state::transactions::{MarkersId, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Message;
use crate::broker::Broker;
use crate::budgets::Turn;
use crate::partitions::{AckGroup, Ending, EnterError, PartitionOwner};

/// What a marker takes of memory until it is in a segment, at most.
const MARKER_BYTES: u64 = 128;

/// Markers of one transaction on their way.
pub(super) struct Job {
    pub(super) shard: i32,
    pub(super) id: MarkersId,
    pub(super) marker: Marker,
    pub(super) bumps_epoch: bool,
    pub(super) partitions: Vec<TopicPartition>,
}

/// What became of them.
pub(super) struct Written {
    pub(super) shard: i32,
    pub(super) id: MarkersId,
    /// Partitions that have none yet.
    pub(super) failed: Vec<TopicPartition>,
}

/// Why a marker is not in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerFailure {
    /// It cannot be written now.
    Unavailable,
    /// There is no such partition.
    Unknown,
    /// The partition knows of something newer.
    Refused,
    /// The partition knows of a newer coordinator.
    CoordinatorFenced,
}

/// Writes the markers of a transaction, and tells the owner.
pub(super) async fn write(broker: Arc<Broker>, job: Job, owner: mpsc::WeakSender<Message>) {
    let mut ends = JoinSet::new();
    for place in job.partitions.iter().cloned() {
        let (broker, marker, bumps_epoch) = (Arc::clone(&broker), job.marker, job.bumps_epoch);
        ends.spawn(async move {
            let ended = end_in(&broker, &place, marker, bumps_epoch).await;
            (place, ended)
        });
    }
    let mut failed = Vec::new();
    for (place, result) in ends.join_all().await {
        match result {
            // A topic that is gone has nothing to end.
            Ok(()) | Err(MarkerFailure::Unknown) => {}
            Err(MarkerFailure::Unavailable) => failed.push(place),
            Err(refused @ (MarkerFailure::Refused | MarkerFailure::CoordinatorFenced)) => {
                tracing::warn!(
                    topic = %place.0,
                    partition = place.1,
                    producer_id = job.marker.producer_id,
                    ?refused,
                    "a marker came too late"
                );
            }
        }
    }
    drop(broker);
    let written = Written {
        shard: job.shard,
        id: job.id,
        failed,
    };
    if let Some(owner) = owner.upgrade() {
        // An owner that is gone starts again from the log.
        let _ = owner.send(Message::Written(written)).await;
    }
}

/// Ends a producer's transaction in one partition, durably.
///
/// # Errors
/// If the marker is not there.
pub async fn end_in(
    broker: &Broker,
    (topic, index): &TopicPartition,
    marker: Marker,
    bumps_epoch: bool,
) -> Result<(), MarkerFailure> {
    let state = broker.partitions.topic(topic);
    let state = state.ok_or(MarkerFailure::Unknown)?;
    let owner = state.partition(*index).ok_or(MarkerFailure::Unknown)?;
    if **topic == *CONSUMER_OFFSETS {
        // Its offsets count or are gone with it, so it stands in the line of whoever keeps them.
        let ended = broker
            .coordinator
            .end_transaction(*index, marker, bumps_epoch);
        return ended.await.map_err(|why| match why {
            FailedBecause::Unavailable | FailedBecause::TooLarge => MarkerFailure::Unavailable,
            FailedBecause::Fenced => MarkerFailure::Refused,
        });
    }
    let ending = Ending {
        marker,
        bumps_epoch,
        leader_epoch: state.leader_epoch,
        now_ms: broker.now_ms(),
    };
    enter(broker, owner, &ending).await
}

async fn enter(
    broker: &Broker,
    owner: &PartitionOwner,
    ending: &Ending,
) -> Result<(), MarkerFailure> {
    let gate = Arc::clone(&broker.budgets.records);
    let turn = Turn::own(broker.ticket());
    let pin = gate.reserve(turn, MARKER_BYTES).await;
    let group = Arc::new(AckGroup::default());
    owner
        .end_transaction(ending, Some(Arc::new(pin)), 0, &group)
        .map_err(|error| match error {
            EnterError::Producer(ProducerError::CoordinatorFenced { .. }) => {
                MarkerFailure::CoordinatorFenced
            }
            EnterError::Producer(_) | EnterError::NotInTransaction => MarkerFailure::Refused,
            EnterError::Append(AppendError::Deleted) => MarkerFailure::Unknown,
            EnterError::Append(
                AppendError::ReadOnly
                | AppendError::TailFull
                | AppendError::TooLarge { .. }
                | AppendError::Closed,
            ) => MarkerFailure::Unavailable,
        })?;
    poll_fn(|cx| group.poll_done(cx)).await;
    match group.removed_slots().is_empty() {
        true => Ok(()),
        false => Err(MarkerFailure::Unknown),
    }
}
