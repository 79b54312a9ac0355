//! One partition: its offsets, its tail in memory, its segments on disk.

use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::batch::BatchHeader;

use crate::budget::Reservation;
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::options::PartitionConfig;

/// A record batch as it came off the socket, validated.
#[derive(Debug)]
pub struct ProducedBatch {
    /// The whole batch; its first 16 bytes are replaced, the rest is stored and served as it is.
    pub bytes: Bytes,
    /// Its parsed header.
    pub header: BatchHeader,
    /// The reservation that covers the buffer these bytes are a slice of; kept until the batch is in a segment.
    pub pin: Option<Arc<Reservation>>,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Log start offset now.
    pub log_start: i64,
}

/// Why a batch was not taken. Nothing of it will ever be visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The volume has no room; try again later.
    #[error("the volume has no room for a segment and is read-only until it has")]
    ReadOnly,
    /// Tail memory is used up; try again later.
    #[error("tail memory is full")]
    TailFull,
    /// The partition was deleted.
    #[error("the partition is deleted")]
    Deleted,
    /// The batch is larger than the WAL or the tail can hold.
    #[error("a batch of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The log is shutting down.
    #[error("the log is shutting down")]
    Closed,
}

/// Told about one partition's progress, once per commit group, on the WAL thread; must never block.
pub trait Observer: Send + Sync {
    /// All offsets below `durable_offset` are durable.
    fn durable(&self, durable_offset: i64);
    /// The log now starts at `offset`.
    fn log_start(&self, offset: i64);
}

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// First offset wanted; a batch that contains it is returned whole.
    pub from: i64,
    /// Offsets from here on are not returned (a batch that starts below it is). Never above the durable offset.
    pub up_to: i64,
    /// Bytes to return at most.
    pub max_bytes: u64,
    /// Return the first batch even if it is larger than `max_bytes`.
    pub min_one: bool,
    /// Never touch a file: answer `NeedsDisk` instead.
    pub tail_only: bool,
}

/// What a read found.
#[derive(Debug, Clone)]
pub enum ReadOutcome {
    /// Whole batches, verbatim, in order.
    Data {
        /// The bytes, to be written one after the other.
        chunks: Vec<Bytes>,
        /// Sum of their lengths.
        bytes: u64,
        /// Base offset of the first batch; equals `next` when nothing was returned.
        first: i64,
        /// Offset after the last batch returned.
        next: i64,
    },
    /// The offset is not in memory and `tail_only` was set.
    NeedsDisk,
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log start or above the end.
    #[error("offset {offset} is outside {log_start}..={end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// Log start offset.
        log_start: i64,
        /// Next offset to be assigned.
        end: i64,
    },
    /// The bytes at this offset cannot be decoded; reading may go on at `range.to + 1`.
    #[error("offsets {}..={} cannot be read: {} at {}+{}", .range.from, .range.to, .range.reason, .range.file, .range.position)]
    Corrupt {
        /// The range and its place.
        range: Box<UnhealthyRange>,
    },
    /// The partition was deleted.
    #[error("the partition is deleted")]
    Deleted,
    /// A segment could not be read for a reason that says nothing about the bytes (no descriptor, no memory).
    #[error("{file}: {message}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        message: String,
    },
}

/// One partition of an open log.
pub struct Partition {}

impl Partition {
    /// Its id.
    pub fn id(&self) -> PartitionId {
        unimplemented!()
    }

    /// Assigns offsets, patches them in and queues the batch for the next group. The caller serialises appends of one
    /// partition. The batch is visible to reads once it is durable.
    pub fn append(&self, batch: ProducedBatch, leader_epoch: i32) -> Result<Appended, AppendError> {
        let _ = (batch, leader_epoch);
        unimplemented!()
    }

    /// Next offset to be assigned.
    pub fn next_offset(&self) -> i64 {
        unimplemented!()
    }

    /// All offsets below are durable. On one broker this is the high watermark.
    pub fn durable_offset(&self) -> i64 {
        unimplemented!()
    }

    /// First readable offset.
    pub fn log_start(&self) -> i64 {
        unimplemented!()
    }

    /// Reads whole batches.
    pub fn read(&self, request: ReadRequest) -> Result<ReadOutcome, ReadError> {
        let _ = request;
        unimplemented!()
    }

    /// The first record whose timestamp is at least `timestamp`: (offset, timestamp).
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let _ = timestamp;
        unimplemented!()
    }

    /// The record with the largest timestamp: (offset, timestamp).
    pub fn max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        unimplemented!()
    }

    /// The newest record timestamp of the batch that contains `offset`, or of the first after it; from the index.
    pub fn batch_timestamp(&self, offset: i64) -> Result<Option<i64>, ReadError> {
        let _ = offset;
        unimplemented!()
    }

    /// Calls `each` with every durable batch from `from` on (header, whole batch), in order. A damaged range ends it
    /// with an error; the caller may go on behind it.
    pub fn replay_batches(
        &self,
        from: i64,
        each: &mut dyn FnMut(&BatchHeader, Bytes),
    ) -> Result<(), ReadError> {
        let _ = (from, each);
        unimplemented!()
    }

    /// Ranges of this partition that cannot be read.
    pub fn quarantined(&self) -> Vec<UnhealthyRange> {
        unimplemented!()
    }

    /// Bytes in segments and tail.
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Replaces the configuration; the next tick applies it.
    pub fn update_config(&self, config: PartitionConfig) {
        let _ = config;
        unimplemented!()
    }
}
