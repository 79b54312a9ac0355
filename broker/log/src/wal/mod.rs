//! Owns the write-ahead log of a volume: its types, and the handle through which frames are submitted. Never knows
//! segments, and never interprets a record batch.

mod files;
pub(crate) mod format;
mod found;
mod handle;
mod queue;
mod readback;
mod reader;
mod recovery;
mod scan;
mod sizing;
mod source;
#[cfg(test)]
mod tests;
mod unreadable;
mod witness;
mod writer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::PartitionId;
use crate::metrics::Reason;

use files::file_name;
pub(crate) use found::{Damaged, boots};
pub use handle::Wal;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use queue::Woken;
pub use reader::WalReader;
pub use recovery::WalRecovery;
pub use sizing::WalSizing;
pub(crate) use writer::Writer;

/// A place in replay order: the group, then the frame in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WalPosition {
    /// The group's sequence number, from 1.
    pub group: u64,
    /// The frame's index in its group, from 0.
    pub frame: u32,
}

/// Bytes of a batch that are patched (base offset, batch length, partition leader epoch), kept apart from the rest.
pub const BATCH_PREFIX_BYTES: usize = 16;

/// A record batch, verbatim: its patched first bytes and the rest as it was sliced off the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The first 16 bytes.
    pub prefix: [u8; BATCH_PREFIX_BYTES],
    /// Everything after them.
    pub body: Bytes,
}

impl Batch {
    /// Splits one whole batch. `None` if it is shorter than its prefix.
    pub fn from_bytes(batch: &Bytes) -> Option<Batch> {
        let prefix = batch.get(..BATCH_PREFIX_BYTES)?.try_into().ok()?;
        Some(Batch {
            prefix,
            body: batch.slice(BATCH_PREFIX_BYTES..),
        })
    }

    /// Length in bytes, prefix included.
    pub fn size(&self) -> usize {
        BATCH_PREFIX_BYTES + self.body.len()
    }

    /// Appends the whole batch to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.body);
    }
}

/// What a recovery cut off behind the last kept group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discarded {
    /// Generation of the file.
    pub generation: u64,
    /// Where the discarded bytes began.
    pub position: u64,
    /// How many there were.
    pub length: u64,
}

/// What a frame says about its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameBody {
    /// A record batch was appended.
    Append {
        /// Offset of the first record.
        base_offset: i64,
        /// Offset of the last record.
        last_offset: i64,
        /// The batch.
        batch: Batch,
    },
    /// Offsets from `to` on are gone.
    Truncate {
        /// The new next offset.
        to: i64,
    },
    /// The log starts at `offset`.
    LogStart {
        /// The new log start offset.
        offset: i64,
    },
    /// A leader epoch starts.
    EpochStart {
        /// The leader epoch.
        epoch: i32,
        /// Its first offset.
        offset: i64,
    },
    /// The partition and all its data are deleted.
    DeletePartition,
    /// Testifies for the group before it. Written by the WAL itself; never handed to the sink.
    Seal,
    /// A start of the broker. Written by the WAL itself; never handed to the sink.
    Boot {
        /// What the recovery before it cut off.
        discarded: Option<Discarded>,
    },
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The partition; the nil topic for `Seal` and `Boot`.
    pub partition: PartitionId,
    /// What it says.
    pub body: FrameBody,
}

/// Which queue and which reserves a submit uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Produced records.
    Data,
    /// Metadata records, log start, truncate, delete. May overtake `Data` that was submitted earlier.
    Control,
}

/// A group that has just become durable.
#[derive(Debug)]
pub struct DurableGroup {
    /// Its sequence number; frame `i` has `WalPosition { group: seq, frame: i }`.
    pub seq: u64,
    /// Generation of the file that holds it.
    pub generation: u64,
    /// Its frames, in order. The sink may take them (the vector is cleared and used again afterwards).
    pub frames: Vec<Frame>,
}

/// A group that was written, and cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// Its sequence number.
    pub seq: u64,
    /// Its file, relative to the data directory.
    pub file: PathBuf,
    /// Its position there.
    pub position: u64,
    /// What is wrong.
    pub reason: Reason,
}

/// Who is told about durability. Called on the WAL thread; must not block.
pub trait WalSink: Send + Sync {
    /// Called once per group that holds frames of partitions.
    fn durable(&self, group: &mut DurableGroup);
    /// A durable group does not come back from its file as it was written. Called on the thread that read it, and only
    /// where groups are read back.
    fn misread(&self, group: &Misread) {
        panic!("group {} was read back, and nobody is told", group.seq)
    }
    /// A write or sync failed. Nothing was or will be acknowledged after it; the process must end.
    fn fatal(&self, reason: &str) -> !;
}

/// How a WAL is opened.
#[derive(Clone)]
pub struct WalOptions {
    /// Sizes; `None` takes them from the volume.
    pub sizing: Option<WalSizing>,
    /// An idle writer seals the last group after this time.
    pub seal_after: Duration,
    /// Bound of the data queue in bytes.
    pub data_queue_bytes_max: usize,
    /// Bound of the control queue in bytes.
    pub control_queue_bytes_max: usize,
    /// So many groups of a start are read back, all of them; a sample of the later ones. 0: none.
    pub read_back_groups: u64,
    /// Commit groups that were given up: a start does not stop at them although nobody knows what they held.
    pub given_up: BTreeSet<u64>,
    /// The number of this start is at least this.
    pub boot_min: u64,
    /// Whether files are prepared by a helper thread; without it the writer prepares them itself (simulator).
    pub background: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions {
            sizing: None,
            seal_after: Duration::from_millis(50),
            data_queue_bytes_max: 256 << 20,
            control_queue_bytes_max: 64 << 20,
            read_back_groups: 0,
            given_up: BTreeSet::new(),
            boot_min: 1,
            background: true,
        }
    }
}

/// A frame as replay sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredFrame {
    /// Its place in replay order.
    pub at: WalPosition,
    /// Position of its batch (or of its group, without one) in the file.
    pub file_position: u64,
    /// The frame.
    pub frame: Frame,
}

/// An append whose batch is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAppend {
    /// Its place in replay order.
    pub at: WalPosition,
    /// The partition.
    pub partition: PartitionId,
    /// First lost offset.
    pub base_offset: i64,
    /// Last lost offset.
    pub last_offset: i64,
    /// Position of the batch in the file.
    pub file_position: u64,
    /// What is wrong with it.
    pub reason: Reason,
}

/// A group as replay sees it: whole, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Its sequence number.
    pub seq: u64,
    /// Generation of its file.
    pub generation: u64,
    /// Its file, relative to the data directory, e.g. `wal/00000000000000000001.wal`.
    pub file: PathBuf,
    /// Its position there.
    pub position: u64,
    /// Its length in bytes; 0 if it cannot be told any more.
    pub length: u64,
    /// The broker start that wrote it; 0 if it cannot be told any more.
    pub boot: u64,
    /// What decodes, in order (`Seal` and `Boot` included).
    pub frames: Vec<RecoveredFrame>,
    /// Set when the group was durable and something in it does not decode any more.
    pub damage: Option<Reason>,
    /// The appends that are lost with it, in order (empty when only copies or padding are damaged).
    pub lost: Vec<LostAppend>,
    /// Set when neither copy of its table is there: how much it can have held.
    pub unknown: Option<Unknown>,
}

/// Bounds for a group of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// It was not longer.
    pub bytes_max: u64,
    /// It had no more frames with a batch.
    pub frames_max: u64,
}

/// A tail that was never acknowledged, cut off as benign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Its file, relative to the data directory.
    pub file: PathBuf,
    /// Where it begins.
    pub position: u64,
    /// Its length in bytes, as far as it can be told.
    pub bytes: u64,
}

/// One step of a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// A group to apply.
    Group(RecoveredGroup),
    /// The end: bytes that were never acknowledged.
    Torn(TornTail),
}

/// Why a WAL cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalOpenError {
    /// The disk refused an operation.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Too little room.
    #[error("the volume of {} has {free_bytes} bytes free, but the write-ahead log needs {needed_bytes}", path.display())]
    NoRoom {
        /// The WAL's folder.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// A file with groups that replay needs is not there.
    #[error("{}: the WAL's manifest lists this file, and it is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// What is on disk cannot be used, and going on would lose data or use offsets twice.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
}

/// The submit queue has no room.
#[derive(Debug, thiserror::Error)]
#[error("the write-ahead log's queue is full")]
pub struct QueueFull;

/// Numbers for health and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalStats {
    /// Files on disk.
    pub files: usize,
    /// Their length in bytes, all together.
    pub size_bytes: u64,
    /// The highest durable group.
    pub durable_group: u64,
    /// The lowest group that the checkpoint still needs.
    pub oldest_group: u64,
    /// This start's number.
    pub boot: u64,
    /// Bytes waiting in the queues.
    pub queued_bytes: u64,
}
