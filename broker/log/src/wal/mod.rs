//! The shared write-ahead log of a data volume: commit groups in fixed-size files.
//!
//! Owns the files below `wal/`, the order of everything that is appended, and what recovery may believe. Never knows what
//! a frame does to a partition: it hands durable frames to a [`WalSink`] and recovered ones to its caller.

use bytes::Bytes;

use crate::ids::PartitionId;

/// Where a frame stands in the WAL: its group's sequence number, and its index in the group. Ordered as appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalPosition {
    /// Sequence number of the group.
    pub group: u64,
    /// Index in the group.
    pub frame: u32,
}

/// Bytes of a batch that are held apart from its body: they are patched when offsets are assigned.
pub const BATCH_PREFIX_BYTES: usize = 16;

/// A record batch, verbatim, in two pieces: the patched first 16 bytes, and the rest as a slice of what came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Base offset, batch length, partition leader epoch.
    pub prefix: [u8; BATCH_PREFIX_BYTES],
    /// All that follows.
    pub body: Bytes,
}

impl Batch {
    /// Splits a whole batch, which must be longer than the prefix.
    pub fn split(bytes: &Bytes) -> Option<Batch> {
        let prefix = bytes.get(..BATCH_PREFIX_BYTES)?.try_into().ok()?;
        Some(Batch {
            prefix,
            body: bytes.slice(BATCH_PREFIX_BYTES..),
        })
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        BATCH_PREFIX_BYTES + self.body.len()
    }
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameBody {
    /// A batch was appended at these offsets.
    Append {
        /// First offset.
        base_offset: i64,
        /// Last offset, inclusive.
        last_offset: i64,
        /// The batch.
        batch: Batch,
    },
    /// The log ends at `to` from here on.
    Truncate {
        /// First offset that is gone.
        to: i64,
    },
    /// Records below `offset` are gone.
    LogStart {
        /// First offset that stays.
        offset: i64,
    },
    /// A leader epoch begins.
    EpochStart {
        /// The epoch.
        epoch: i32,
        /// First offset written in it.
        offset: i64,
    },
    /// The partition is deleted.
    DeletePartition,
    /// An idle writer's witness that all before it is durable.
    Seal,
    /// A start: all that recovery kept is durable. Names what it discarded.
    Boot {
        /// Sequence of the group that was cut off, or -1.
        discarded_group: i64,
        /// Bytes that were cut off.
        discarded_bytes: i64,
    },
}

/// One entry of a commit group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whom it concerns; zeros for a seal and a boot frame.
    pub partition: PartitionId,
    /// What it says.
    pub body: FrameBody,
}

/// Which queue a frame waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Produced records: wait while the WAL has no room.
    Data,
    /// Metadata, log starts, truncations, deletions: first in line, and may use the last WAL file.
    Control,
}

/// A group that has just become durable.
#[derive(Debug)]
pub struct DurableGroup<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// Its frames; the index is the frame number of its [`WalPosition`].
    pub frames: &'a [Frame],
}

/// Who hears of the WAL's progress, on the WAL thread. Never blocks.
pub trait WalSink: Send + Sync {
    /// A group is durable. Called once per group, in order.
    fn durable(&self, group: &DurableGroup<'_>);
    /// The WAL runs out of free files: whoever holds back the oldest should flush.
    fn pressure(&self);
    /// A write or a sync failed: nothing more will become durable, and the process must end.
    fn fatal(&self, reason: &str);
}
