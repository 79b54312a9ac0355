//! What a log is opened with, and what a partition is configured with.
//!
//! Owns the limits of this crate with their units and reasons. Never reads a configuration file: the binary parses
//! keys, this module holds values.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::directory::DirectoryAt;

/// A partition is flushed to its segment when this many bytes wait (256 KiB: one large sequential write).
pub const FLUSH_PENDING_BYTES: u64 = 256 * 1024;

/// Size at which segments roll while a log is replayed before its topic configuration is known (design §6).
pub(crate) const REPLAY_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Open segment files kept at once over all partitions: descriptors are bounded, whatever the number of partitions.
pub(crate) const OPEN_FILES_MAX: u64 = 256;

/// Bytes of verified extents that are cached over all partitions: a hundred readers with one extent each.
pub(crate) const EXTENT_CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// What the scrubber reads per second unless told otherwise: 8 MiB/s see 690 GB a day, and leave a disk to its clients.
pub const SCRUB_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;

/// What compaction reads and writes per second unless told otherwise: it must not be felt by clients.
pub const COMPACTION_BYTES_PER_SECOND: f64 = 32.0 * 1024.0 * 1024.0;

/// Memory for the newest offsets of keys unless told otherwise: about a million keys in one pass.
pub const COMPACTION_MEMORY_BYTES: u64 = 32 * 1024 * 1024;

/// Commit groups that a start reads back before it samples: enough to see a sick disk or a new version's mistake at once.
const READ_BACK_GROUPS: u64 = 5_000;

/// How a data directory is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory; created when it does not exist.
    pub data_dir: PathBuf,
    /// This broker's id; must match the one the directory was made with.
    pub broker_id: i32,
    /// Cluster id the directory must belong to; `None` takes the stored one or makes a new one.
    pub cluster_id: Option<String>,
    /// What the directory is accepted in place of; it keeps that. `None`: nothing, or what it says itself.
    pub replaces: Option<DirectoryAt>,
    /// Upper bound of the WAL in bytes; `None` is the smaller of 2 GiB and a tenth of the volume.
    pub wal_bytes_max: Option<u64>,
    /// Size of one WAL file in bytes; `None` is 64 MiB, smaller on small volumes.
    pub wal_file_bytes: Option<u64>,
    /// Bound of the memory that holds what is not yet in a segment (`keelson.tail.memory.bytes`).
    pub tail_bytes_max: u64,
    /// Bytes of verified extents that are cached over all partitions.
    pub extent_cache_bytes_max: u64,
    /// Pending bytes at which a partition is flushed.
    pub flush_pending_bytes: u64,
    /// An idle WAL writer appends a seal group this long after the last group.
    pub seal_after: Duration,
    /// Pending bytes older than this are flushed although nothing presses, so that an idle broker's replay stays short.
    pub flush_after: Duration,
    /// Whether WAL files are prepared by a thread of their own; off only under the simulator.
    pub wal_background: bool,
    /// Free bytes below which the volume takes no more produce (it resumes above one and a half times this).
    pub disk_reserve_bytes: Option<u64>,
    /// So many groups of a start are read back from the WAL, all of them; a sample of the later ones. 0: none.
    pub read_back_groups: u64,
    /// How compaction goes on; [`crate::Log::set_compaction`] changes it.
    pub compaction: CompactionPace,
    /// Bytes per second that the scrubber reads (`keelson.scrub.bytes.per.second`); 0: it does not run.
    pub scrub_bytes_per_second: u64,
}

impl Options {
    /// Defaults for `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Options {
            data_dir: data_dir.into(),
            broker_id: 0,
            cluster_id: None,
            replaces: None,
            wal_bytes_max: None,
            wal_file_bytes: None,
            tail_bytes_max: 256 * 1024 * 1024,
            extent_cache_bytes_max: EXTENT_CACHE_BYTES,
            flush_pending_bytes: FLUSH_PENDING_BYTES,
            seal_after: Duration::from_millis(50),
            flush_after: Duration::from_secs(10),
            wal_background: true,
            disk_reserve_bytes: None,
            read_back_groups: READ_BACK_GROUPS,
            compaction: CompactionPace::default(),
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
        }
    }
}

/// What compaction may take of disk and memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionPace {
    /// Bytes that it reads and writes per second (`log.cleaner.io.max.bytes.per.second`).
    pub bytes_per_second: f64,
    /// Memory for the newest offsets of keys (`log.cleaner.dedupe.buffer.size`); more keys take more passes.
    pub memory_bytes: u64,
    /// How long it rests when there is nothing to clean (`log.cleaner.backoff.ms`); zero at the start: it never runs.
    pub pause: Duration,
}

impl Default for CompactionPace {
    fn default() -> Self {
        CompactionPace {
            bytes_per_second: COMPACTION_BYTES_PER_SECOND,
            memory_bytes: COMPACTION_MEMORY_BYTES,
            pause: Duration::from_secs(15),
        }
    }
}

/// Segment and retention settings of one partition. Negative retention means "no limit", as in Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionConfig {
    /// A segment rolls before it would exceed this size (`segment.bytes`).
    pub segment_bytes: u64,
    /// A segment rolls when its first batch is older than this (`segment.ms`).
    pub segment_ms: i64,
    /// Segments whose newest timestamp is older than this are deleted (`retention.ms`); negative: never.
    pub retention_ms: i64,
    /// Oldest segments are deleted while the rest is still at least this large (`retention.bytes`); negative: never.
    pub retention_bytes: i64,
    /// How the partition is compacted (`cleanup.policy` with `compact`), if it is.
    pub compaction: Option<Arc<CompactionConfig>>,
}

/// When and how a partition is compacted: Kafka's keys of the same names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactionConfig {
    /// Compaction begins once more than this part of what could be cleaned is dirty (`min.cleanable.dirty.ratio`).
    pub min_cleanable_dirty_ratio: f64,
    /// Segments with a record younger than this are left alone (`min.compaction.lag.ms`).
    pub min_lag_ms: i64,
    /// Compaction begins whatever the ratio once a dirty segment is older than this (`max.compaction.lag.ms`).
    pub max_lag_ms: i64,
    /// Tombstones go this long after the first pass over them (`delete.retention.ms`).
    pub delete_retention_ms: i64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        CompactionConfig {
            min_cleanable_dirty_ratio: 0.5,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl Default for PartitionConfig {
    fn default() -> Self {
        PartitionConfig {
            segment_bytes: 1024 * 1024 * 1024,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            compaction: None,
        }
    }
}
