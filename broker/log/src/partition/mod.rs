//! One partition: its offsets, its tail in memory, its segments on disk.
//!
//! Owns the offsets and their order: `next_offset >= durable_offset >= log_start`. Nothing is kept per idle partition
//! but this struct: no buffer, no open file.

pub(crate) mod apply;
pub(crate) mod compact;
pub(crate) mod damage;
pub(crate) mod ends;
pub(crate) mod epochs;
pub(crate) mod extent;
pub(crate) mod format;
mod lost;
pub(crate) mod pass;
pub(crate) mod producers;
pub(crate) mod read;
mod rebuild;
pub(crate) mod rewrite;
pub(crate) mod segments;
pub(crate) mod slots;
pub(crate) mod tail;
mod timestamps;
pub(crate) mod truncate;
mod unsynced;
pub(crate) mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;
use keelson_protocol::batch::{BATCH_PREFIX_BYTES, BatchHeader, patch_offset_and_epoch};
use keelson_state::producers::ProducerTable;
use parking_lot::Mutex;

pub use self::read::{ReadError, ReadOutcome, ReadRequest};
use self::slots::Slots;
use self::tail::{Tail, TailBatch};
pub use self::truncate::TruncateError;
use self::truncate::{NOT_TRUNCATING, Truncation};
use crate::budget::Reservation;
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::losses;
use crate::metrics::Stage;
use crate::options::PartitionConfig;
use crate::shared::Shared;
use crate::wal::{Batch, Class, Frame, FrameBody, WalPosition};

/// A record batch as it came off the socket, validated.
#[derive(Debug)]
pub struct ProducedBatch {
    /// The whole batch; base offset and leader epoch are patched, the rest is stored and served as it is.
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

/// A batch with its offsets, not yet queued.
pub(crate) struct Staged {
    base_offset: i64,
    pub(crate) last_offset: i64,
    max_timestamp: i64,
    batch: Batch,
    new_epoch: Option<i32>,
}

impl Staged {
    /// Its frames: the start of its leader epoch if it is the first in it, and the append.
    pub(crate) fn frames(&self, id: PartitionId) -> Vec<Frame> {
        let Staged {
            base_offset,
            last_offset,
            ..
        } = *self;
        let mut frames = Vec::with_capacity(2);
        if let Some(epoch) = self.new_epoch {
            let body = FrameBody::EpochStart {
                epoch,
                offset: base_offset,
            };
            frames.push(Frame {
                partition: id,
                body,
            });
        }
        let body = FrameBody::Append {
            base_offset,
            last_offset,
            batch: self.batch.clone(),
        };
        frames.push(Frame {
            partition: id,
            body,
        });
        frames
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }
}

/// One partition of an open log.
pub struct Partition {
    id: PartitionId,
    shared: Arc<Shared>,
    next_offset: AtomicI64,
    durable_offset: AtomicI64,
    log_start: AtomicI64,
    /// The end that a truncation on its way will leave.
    truncating_to: AtomicI64,
    deleted: AtomicBool,
    /// Held while segments are written anew beside those that count, and by whoever removes the folder; taken before
    /// `folder`.
    pub(crate) compaction: Mutex<()>,
    /// Held by whoever writes to the folder; taken before `state`.
    pub(crate) folder: Mutex<()>,
    pub(crate) state: Mutex<State>,
}

/// What of a partition changes under its lock.
pub(crate) struct State {
    pub(crate) config: PartitionConfig,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Which queue its appends go through; a partition uses one of them, or their order would be lost.
    class: Option<Class>,
    pub(crate) tail: Tail,
    /// What its folder holds.
    pub(crate) slots: Slots,
    /// Ranges that cannot be read, ascending and apart.
    pub(crate) quarantined: Vec<UnhealthyRange>,
    /// Leader epochs and the offsets they start at, ascending.
    pub(crate) epochs: Vec<(i32, i64)>,
    /// Newest epoch that a queued frame starts.
    epoch_queued: i32,
    /// Oldest frame that is durable and not reflected in the folder: it holds back the checkpoint.
    pub(crate) hold: Option<WalPosition>,
    /// Oldest such frame that is not an append.
    pub(crate) control_hold: Option<WalPosition>,
    /// Newest durable frame.
    pub(crate) last_durable: WalPosition,
    /// The manifest says less than this state (a quarantined range, a moved log start).
    pub(crate) manifest_dirty: bool,
    /// Producers as of an offset, read from the batches in the place of a damaged snapshot: the next pass writes them.
    pub(crate) producers_read: Option<Box<(i64, ProducerTable)>>,
    /// Waits in the flusher's queue.
    pub(crate) flush_queued: bool,
    /// A truncation on its way.
    truncation: Option<Box<Truncation>>,
    /// Those that were carried out since the start.
    truncations: u32,
    /// Base offset of a segment that compaction is writing anew: its name stays among the created ones.
    pub(crate) compacting: Option<i64>,
    /// The next batch goes to a new segment.
    pub(crate) roll_next: bool,
    /// Log start that retention has asked for.
    pub(crate) retention_target: i64,
    /// Newest group that touched the partition.
    touched_group: u64,
    /// What the observer was told last.
    told: (i64, i64),
}

impl Partition {
    pub(crate) fn new(shared: &Arc<Shared>, id: PartitionId, slots: Slots) -> Self {
        let manifest = &slots.manifest;
        let (next, start) = (manifest.next_offset, manifest.log_start);
        let last_durable = WalPosition {
            group: manifest.applied_group,
            frame: manifest.applied_frame,
        };
        let state = State {
            config: shared.replay_config(),
            observer: None,
            class: None,
            tail: Tail::default(),
            quarantined: losses::without(&manifest.quarantined, shared.losses().of(id)),
            epoch_queued: manifest.epochs.last().map_or(-1, |(epoch, _)| *epoch),
            epochs: manifest.epochs.clone(),
            slots,
            hold: None,
            control_hold: None,
            last_durable,
            manifest_dirty: false,
            producers_read: None,
            flush_queued: false,
            truncation: None,
            truncations: 0,
            compacting: None,
            roll_next: false,
            retention_target: start,
            touched_group: 0,
            told: (next, start),
        };
        Partition {
            id,
            shared: Arc::clone(shared),
            next_offset: AtomicI64::new(next),
            durable_offset: AtomicI64::new(next),
            log_start: AtomicI64::new(start),
            truncating_to: AtomicI64::new(NOT_TRUNCATING),
            deleted: AtomicBool::new(false),
            compaction: Mutex::new(()),
            folder: Mutex::new(()),
            state: Mutex::new(state),
        }
    }

    /// Its id.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Assigns offsets, patches them in and queues the batch for the next group. The caller serialises appends of one
    /// partition. The batch is visible to reads once it is durable.
    pub fn append(&self, batch: ProducedBatch, leader_epoch: i32) -> Result<Appended, AppendError> {
        self.shared.admit(batch.bytes.len() as u64)?;
        let pin = match batch.pin {
            Some(pin) => pin,
            None => {
                let bytes = batch.bytes.len() as u64;
                Arc::new(
                    self.shared
                        .budget
                        .try_reserve(bytes)
                        .ok_or(AppendError::TailFull)?,
                )
            }
        };
        let batch = ProducedBatch {
            pin: Some(pin),
            ..batch
        };
        // The lock is kept over the submit: queue order is offset order.
        let mut state = self.state.lock();
        let staged = self.stage(
            &mut state,
            Class::Data,
            &batch,
            (self.next_offset(), leader_epoch),
        )?;
        self.shared.submit(Class::Data, staged.frames(self.id))?;
        Ok(self.adopt(&mut state, staged, batch.pin))
    }

    /// Patches a batch for `base_offset`. Changes nothing that a refused submit would have to undo.
    pub(crate) fn stage(
        &self,
        state: &mut State,
        class: Class,
        batch: &ProducedBatch,
        (base_offset, leader_epoch): (i64, i32),
    ) -> Result<Staged, AppendError> {
        if self.is_deleted() {
            return Err(AppendError::Deleted);
        }
        assert!(
            state.truncation.is_none(),
            "{}: an append before the truncation was done",
            self.id
        );
        let used = *state.class.get_or_insert(class);
        assert_eq!(
            used, class,
            "{}: appends of one partition go through one queue",
            self.id
        );
        let mut prefix = [0_u8; BATCH_PREFIX_BYTES];
        prefix.copy_from_slice(&batch.bytes[..BATCH_PREFIX_BYTES]);
        patch_offset_and_epoch(&mut prefix, base_offset, leader_epoch);
        Ok(Staged {
            base_offset,
            last_offset: base_offset + i64::from(batch.header.last_offset_delta),
            max_timestamp: batch.header.max_timestamp,
            batch: Batch {
                prefix,
                body: batch.bytes.slice(BATCH_PREFIX_BYTES..),
            },
            new_epoch: (leader_epoch > state.epoch_queued).then_some(leader_epoch),
        })
    }

    /// The frames of a staged batch are queued: it is part of the tail, and the next offset is above it.
    pub(crate) fn adopt(
        &self,
        state: &mut State,
        staged: Staged,
        pin: Option<Arc<Reservation>>,
    ) -> Appended {
        let Staged {
            base_offset,
            last_offset,
            max_timestamp,
            batch,
            new_epoch,
        } = staged;
        state.epoch_queued = new_epoch.unwrap_or(state.epoch_queued);
        state.tail.push_queued(TailBatch {
            base_offset,
            last_offset,
            max_timestamp,
            batch,
            pin,
            position: None,
        });
        self.next_offset.store(last_offset + 1, Ordering::Release);
        Appended {
            base_offset,
            last_offset,
            log_start: self.log_start(),
        }
    }

    /// Next offset to be assigned.
    pub fn next_offset(&self) -> i64 {
        self.next_offset.load(Ordering::Acquire)
    }

    /// All offsets below are durable. On one broker this is the high watermark.
    pub fn durable_offset(&self) -> i64 {
        self.durable_offset.load(Ordering::Acquire)
    }

    /// First readable offset.
    pub fn log_start(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// Whether a truncation is not done yet.
    pub(crate) fn is_truncating(&self, state: &State) -> bool {
        state.truncation.is_some()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Calls `each` with every durable batch from `from` on (header, whole batch), in order. A damaged range ends it
    /// with an error; the caller may go on behind it.
    pub fn replay_batches(
        &self,
        from: i64,
        each: &mut dyn FnMut(&BatchHeader, Bytes),
    ) -> Result<(), ReadError> {
        self.each_batch(from, self.durable_offset(), Stage::Replay, each)
    }

    /// What is known of producers, as of the durable offset: the snapshot, and what came after it.
    pub fn producers(&self) -> Result<ProducerTable, ReadError> {
        self.load_producers()
    }

    /// Ranges of this partition that cannot be read.
    pub fn quarantined(&self) -> Vec<UnhealthyRange> {
        self.state.lock().quarantined.clone()
    }

    /// Leader epochs and the offset each starts at, ascending.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        self.state.lock().epochs.clone()
    }

    /// Bytes in segments and tail.
    pub fn size_bytes(&self) -> u64 {
        let state = self.state.lock();
        let segments: u64 = state
            .slots
            .manifest
            .segments
            .iter()
            .map(|s| s.log_bytes)
            .sum();
        segments + state.tail.bytes()
    }

    /// Replaces the configuration; the next tick applies it.
    pub fn update_config(&self, config: PartitionConfig) {
        self.state.lock().config = config;
    }

    /// Whether this is the first frame of the partition in a group.
    pub(crate) fn first_touch(&self, group: u64) -> bool {
        let mut state = self.state.lock();
        let first = state.touched_group != group;
        state.touched_group = group;
        first
    }

    /// Tells the observer what moved. No lock is held meanwhile.
    pub(crate) fn tell_observer(&self) {
        let now = (self.durable_offset(), self.log_start());
        let (observer, before) = {
            let mut state = self.state.lock();
            (
                state.observer.clone(),
                std::mem::replace(&mut state.told, now),
            )
        };
        let Some(observer) = observer else { return };
        if now.1 > before.1 {
            observer.log_start(now.1);
        }
        if now.0 > before.0 {
            observer.durable(now.0);
        }
    }

    pub(crate) fn attach(&self, config: PartitionConfig, observer: Arc<dyn Observer>) {
        let mut state = self.state.lock();
        state.config = config;
        state.observer = Some(observer);
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (start, durable, next) = (self.log_start(), self.durable_offset(), self.next_offset());
        write!(f, "Partition({} {start}..{durable}..{next})", self.id)
    }
}
