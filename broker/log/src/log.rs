//! The log of one data volume: opening it, committing to it, its periodic work, its health, its end.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::budget::TailBudget;
use crate::health::Health;
use crate::ids::PartitionId;
use crate::metrics::LogMetrics;
use crate::options::{Options, PartitionConfig};
use crate::partition::{AppendError, Observer, Partition, ProducedBatch};

/// What the log tells the process.
pub trait Hooks: Send + Sync {
    /// Durability can no longer be promised: the process must exit with a code that is not 0. Called once.
    fn fatal(&self, reason: &str);
    /// Replay has this many WAL bytes left.
    fn recovery_progress(&self, remaining_bytes: u64);
}

/// Why a data directory could not be opened. The text is for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OpenError {
    message: String,
}

/// Who this volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id.
    pub cluster_id: String,
    /// Broker id.
    pub broker_id: i32,
    /// Id of this data directory, made once.
    pub directory_id: String,
    /// Starts of this directory, this one included.
    pub boot: u64,
}

/// One part of a [`Log::commit`].
pub enum Entry {
    /// Append a batch.
    Append {
        /// To this partition.
        partition: Arc<Partition>,
        /// The batch; its offsets are assigned here.
        batch: ProducedBatch,
        /// Leader epoch to stamp.
        leader_epoch: i32,
    },
    /// Delete the partition and give its disk back. No append to it succeeds afterwards.
    DeletePartition(PartitionId),
    /// Move the log start (DeleteRecords). Lower than now: ignored.
    LogStart {
        /// Of this partition.
        partition: PartitionId,
        /// First offset that stays readable.
        offset: i64,
    },
}

/// An open data directory.
pub struct Log {}

/// Opens a data directory: takes the lock, replays the WAL, starts the threads. Blocks until all that is done.
pub fn open(
    options: Options,
    metrics: Arc<LogMetrics>,
    hooks: Arc<dyn Hooks>,
) -> Result<Log, OpenError> {
    let _ = (options, metrics, hooks);
    unimplemented!()
}

impl Log {
    /// Who this volume is.
    pub fn identity(&self) -> &Identity {
        unimplemented!()
    }

    /// The partitions that the start found, in order.
    pub fn partition_ids(&self) -> Vec<PartitionId> {
        unimplemented!()
    }

    /// The partition with this id: the one that recovery found, or a new, empty one.
    pub fn open_partition(
        &self,
        id: PartitionId,
        config: PartitionConfig,
        observer: Arc<dyn Observer>,
    ) -> Arc<Partition> {
        let _ = (id, config, observer);
        unimplemented!()
    }

    /// Moves the folder of every partition that is not `known` to `quarantine/`; returns where they went.
    pub fn quarantine_unknown(&self, known: &HashSet<PartitionId>) -> Vec<PathBuf> {
        let _ = known;
        unimplemented!()
    }

    /// Commits all entries in one group of the control class; `done` is called on the WAL thread once they are durable.
    pub fn commit(
        &self,
        entries: Vec<Entry>,
        done: Box<dyn FnOnce() + Send>,
    ) -> Result<(), AppendError> {
        let _ = (entries, done);
        unimplemented!()
    }

    /// The bound on tail memory.
    pub fn tail_budget(&self) -> Arc<TailBudget> {
        unimplemented!()
    }

    /// Rolls by age and applies retention. Called about once a second, from a thread that may block.
    pub fn tick(&self, now_ms: i64) {
        let _ = now_ms;
        unimplemented!()
    }

    /// Health now.
    pub fn health(&self) -> Health {
        unimplemented!()
    }

    /// Flushes everything, seals the WAL, writes the checkpoint and ends the threads. Appends fail afterwards.
    pub fn shutdown(&self) {
        unimplemented!()
    }
}
