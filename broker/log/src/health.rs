//! The state of the log as people and machines see it: which states are on, and which ranges cannot be read.
//!
//! Owns the list of damaged ranges over all partitions, and that each is counted exactly once. Decides nothing about
//! serving: a partition asks its own quarantine.

use crate::ids::PartitionId;
use crate::metrics::{HealthState, Reason, Source, Stage};

/// One offset range that cannot be read, and where the bytes stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyRange {
    /// The partition; `None` for damage that belongs to no partition (a checkpoint slot).
    pub partition: Option<PartitionId>,
    /// First offset that is lost.
    pub from: i64,
    /// Last offset that is lost, inclusive; below `from` when no offset is lost (an index that is rebuilt).
    pub to: i64,
    /// File, relative to the data directory.
    pub file: String,
    /// Byte position in the file.
    pub position: u64,
    /// Why.
    pub reason: Reason,
    /// Which kind of file.
    pub source: Source,
    /// What was being done when it was found.
    pub stage: Stage,
    /// When it was found, Unix time in ms.
    pub since_ms: i64,
}

/// Numbers about the WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalNumbers {
    /// Files.
    pub files: u64,
    /// Bytes in files.
    pub size_bytes: u64,
    /// Newest durable group.
    pub durable_group: u64,
    /// Oldest group that replay would need.
    pub oldest_group: u64,
    /// Boot counter.
    pub boot: u64,
}

/// A picture of the log's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Every state that is on; `Ok` exactly when no other is.
    pub states: Vec<HealthState>,
    /// WAL numbers.
    pub wal: WalNumbers,
    /// Damaged ranges counted since the start.
    pub decode_errors: u64,
    /// Ranges in quarantine now.
    pub quarantined_ranges: u64,
    /// The first ranges, at most [`UNHEALTHY_RANGES_MAX`].
    pub unhealthy: Vec<UnhealthyRange>,
    /// Whether there are more than `unhealthy` holds.
    pub truncated: bool,
}

/// Ranges that one health picture lists at most (the contract's bound).
pub const UNHEALTHY_RANGES_MAX: usize = 1000;
