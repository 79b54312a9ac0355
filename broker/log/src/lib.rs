//! DISK: the write-ahead log of a data volume, the segments of its partitions, recovery, and what decoding them can say.
//!
//! Owns every file below the data directory. Never touches the network, the clock of a client, or an async runtime: plain
//! threads over a `Disk` trait. What was acknowledged is durable, what is read was verified, and what cannot be decoded
//! is an error with a place, never an empty answer.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
mod background;
mod budget;
mod cache;
mod compactor;
mod directory;
pub mod disk;
pub mod dump;
mod files;
mod flusher;
mod folders;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod health;
mod ids;
mod log;
mod losses;
pub mod metrics;
pub mod node;
mod offline;
mod options;
mod partition;
mod recovery;
mod retention;
mod salvage;
mod scrub;
mod shared;
#[cfg(any(test, feature = "fuzz"))]
mod stepped;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod wal;

pub use budget::{Reservation, TailBudget};
pub use directory::{BadDirectoryAt, DirectoryAt, FoundDirectory, look};
pub use health::{Health, UNHEALTHY_RANGES_MAX, UnhealthyRange, WalNumbers};
pub use ids::{BadTopicId, PartitionId, TopicId};
pub use log::{Entry, Hooks, Identity, Log, OpenError, open, open_on};
pub use losses::AcceptedLoss;
pub use metrics::{HealthState, LogMetrics, Reason, Source, Stage};
pub use offline::read_partition;
pub use options::{
    COMPACTION_BYTES_PER_SECOND, COMPACTION_MEMORY_BYTES, CompactionConfig, CompactionPace,
    FLUSH_PENDING_BYTES, Options, PartitionConfig, SCRUB_BYTES_PER_SECOND,
};
pub use partition::{
    AppendError, Appended, Observer, Partition, ProducedBatch, ReadError, ReadOutcome, ReadRequest,
    TruncateError,
};
