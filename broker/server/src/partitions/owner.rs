//! One partition as the broker sees it: sequence check, append, record, wait.
//!
//! Owns the order of what enters the partition. The lock covers check → append → record and is never held across an
//! await; the log assigns the offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use keelson_log::{AppendError, Partition, PartitionId, ProducedBatch, Reservation};
use keelson_protocol::BatchHeader;
use keelson_protocol::control::EndMarker;
use keelson_state::producers::{
    AbortedTransaction, Marker, MarkerVerdict, ProducerBatch, ProducerError, ProducerTable,
    ProducerView, Verdict,
};
use parking_lot::Mutex;
use thiserror::Error;

use super::waiters::{AckGroup, Waiters};

/// A validated batch on its way in.
#[derive(Debug)]
pub struct Incoming {
    /// The whole batch.
    pub bytes: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// What its buffer is charged to.
    pub pin: Option<Arc<Reservation>>,
    /// Leader epoch to stamp.
    pub leader_epoch: i32,
    /// Time of the append, Unix time in ms.
    pub now_ms: i64,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Log start offset.
    pub log_start: i64,
    /// Whether it was here already.
    pub duplicate: bool,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnterError {
    /// Its sequence is wrong.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log refused it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It would begin a transaction here that the coordinator does not know of.
    #[error("the partition is not in the producer's transaction")]
    NotInTransaction,
}

/// The end of a transaction on its way in.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// What it says.
    pub marker: Marker,
    /// Its epoch is above that of the transaction's batches (transaction version 2).
    pub bumps_epoch: bool,
    /// Leader epoch to stamp.
    pub leader_epoch: i32,
    /// Time of the append, Unix time in ms.
    pub now_ms: i64,
}

/// Whether a marker had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was.
    Now,
    /// It was there already.
    Before,
}

/// No transaction is open.
const NONE_UNSTABLE: i64 = i64::MAX;

#[derive(Default)]
struct Producers {
    table: ProducerTable,
    /// Epochs of producers whose transaction has this partition, as the coordinator says: they may write, until the
    /// marker. So no batch that comes late can begin a transaction that nobody would ever end (KIP-890).
    permits: HashMap<i64, i16>,
}

impl Producers {
    fn may_write(&self, producer_id: i64, epoch: i16) -> bool {
        self.permits.get(&producer_id) == Some(&epoch) || self.table.is_open(producer_id, epoch)
    }
}

/// The owner of one partition.
pub struct PartitionOwner {
    log: Arc<Partition>,
    producers: Mutex<Producers>,
    /// At most the first offset of any transaction that is open or whose marker is not durable; [`NONE_UNSTABLE`] without
    /// one. Lowered before a batch that begins one enters the log, so that whoever sees the batch sees this.
    unstable: AtomicI64,
    waiters: Arc<Waiters>,
}

impl PartitionOwner {
    pub(super) fn new(
        log: Arc<Partition>,
        mut table: ProducerTable,
        waiters: Arc<Waiters>,
    ) -> Self {
        let unstable = table.first_unstable(log.durable_offset());
        let producers = Producers {
            table,
            permits: HashMap::new(),
        };
        Self {
            log,
            producers: Mutex::new(producers),
            unstable: AtomicI64::new(unstable.unwrap_or(NONE_UNSTABLE)),
            waiters,
        }
    }

    /// Its id.
    pub fn id(&self) -> PartitionId {
        self.log.id()
    }

    /// Its log.
    pub fn log(&self) -> &Arc<Partition> {
        &self.log
    }

    /// Who waits for it.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// All offsets below are durable and visible. Read before what it is compared with: it only grows.
    pub fn high_watermark(&self) -> i64 {
        self.log.durable_offset()
    }

    /// All transactions that begin below have ended, durably; read_committed reads up to here. `high_watermark` must have
    /// been read before.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        if self.unstable.load(Ordering::Acquire) == NONE_UNSTABLE {
            return high_watermark;
        }
        let mut producers = self.producers.lock();
        let unstable = self.look_for_unstable(&mut producers, high_watermark);
        drop(producers);
        unstable.max(self.log.log_start()).min(high_watermark)
    }

    fn look_for_unstable(&self, producers: &mut Producers, durable_offset: i64) -> i64 {
        let unstable = producers.table.first_unstable(durable_offset);
        let unstable = unstable.unwrap_or(NONE_UNSTABLE);
        self.unstable.store(unstable, Ordering::Release);
        unstable
    }

    /// When the producer of a transaction that is open here was last active, the one that was silent for longest.
    pub fn oldest_open_ms(&self) -> Option<i64> {
        if self.unstable.load(Ordering::Acquire) == NONE_UNSTABLE {
            return None;
        }
        self.producers.lock().table.oldest_open_ms()
    }

    /// Aborted transactions that have an offset in `from..to`, which must not be above the last stable offset.
    pub fn aborted_in(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        self.producers.lock().table.aborted_in(from, to)
    }

    /// Every producer that is remembered.
    pub fn producer_views(&self) -> Vec<ProducerView> {
        self.producers.lock().table.views()
    }

    /// Whether a producer may write a batch of its transaction here without its coordinator being asked.
    pub fn may_write(&self, producer_id: i64, epoch: i16) -> bool {
        self.producers.lock().may_write(producer_id, epoch)
    }

    /// The coordinator says that the transaction of this producer has this partition.
    pub fn permit(&self, producer_id: i64, epoch: i16) {
        self.producers.lock().permits.insert(producer_id, epoch);
    }

    /// Takes the end of a transaction in; its ack joins `group` as `slot`.
    ///
    /// # Errors
    /// If a newer epoch is known or the log refuses it; nothing of it will be visible then.
    pub fn end_transaction(
        &self,
        ending: &Ending,
        pin: Option<Arc<Reservation>>,
        slot: usize,
        group: &Arc<AckGroup>,
    ) -> Result<Ended, EnterError> {
        let Ending {
            marker,
            bumps_epoch,
            leader_epoch,
            now_ms,
        } = *ending;
        let mut producers = self.producers.lock();
        if producers.table.check_marker(&marker, bumps_epoch)? == MarkerVerdict::Done {
            producers.permits.remove(&marker.producer_id);
            self.waiters
                .await_durable(self.log.next_offset(), slot, group);
            return Ok(Ended::Before);
        }
        let end = EndMarker {
            commit: marker.commit,
            coordinator_epoch: marker.coordinator_epoch,
        };
        let bytes = end.batch((marker.producer_id, marker.epoch), now_ms);
        let header = BatchHeader::parse(&bytes).expect("the builder makes well-formed batches");
        let produced = ProducedBatch { bytes, header, pin };
        let appended = self.log.append(produced, leader_epoch)?;
        producers
            .table
            .record_marker(&marker, appended.last_offset, now_ms);
        producers.permits.remove(&marker.producer_id);
        self.waiters
            .await_durable(appended.last_offset + 1, slot, group);
        drop(producers);
        self.assert_order();
        Ok(Ended::Now)
    }

    /// Takes a batch in; its ack joins `group` as `slot`. A duplicate is answered with the offsets it has, and waits
    /// for them to be durable like any other.
    ///
    /// # Errors
    /// If its sequence is wrong or the log refuses it; nothing of it will be visible then.
    pub fn append(
        &self,
        batch: Incoming,
        slot: usize,
        group: &Arc<AckGroup>,
    ) -> Result<Placed, EnterError> {
        let mut producers = self.producers.lock();
        let sequence = batch.header.has_producer_id().then(|| ProducerBatch {
            producer_id: batch.header.producer_id,
            epoch: batch.header.producer_epoch,
            base_sequence: batch.header.base_sequence,
            last_sequence: batch.header.last_sequence(),
            transactional: batch.header.is_transactional(),
        });
        if let Some(sequence) = &sequence
            && let Verdict::Duplicate {
                base_offset,
                last_offset,
            } = producers.table.check(sequence)?
        {
            self.waiters.await_durable(last_offset + 1, slot, group);
            return Ok(Placed {
                base_offset,
                log_start: self.log.log_start(),
                duplicate: true,
            });
        }
        let begins = match &sequence {
            Some(sequence) if sequence.transactional => {
                self.may_begin(&producers, sequence.producer_id, sequence.epoch)?
            }
            Some(_) | None => false,
        };
        let produced = ProducedBatch {
            bytes: batch.bytes,
            header: batch.header,
            pin: batch.pin,
        };
        let appended = match self.log.append(produced, batch.leader_epoch) {
            Ok(appended) => appended,
            Err(error) => {
                if begins {
                    self.look_for_unstable(&mut producers, self.log.durable_offset());
                }
                return Err(error.into());
            }
        };
        if let Some(sequence) = &sequence {
            producers.table.record(
                sequence,
                appended.base_offset,
                appended.last_offset,
                batch.now_ms,
            );
        }
        self.waiters
            .await_durable(appended.last_offset + 1, slot, group);
        drop(producers);
        self.assert_order();
        Ok(Placed {
            base_offset: appended.base_offset,
            log_start: appended.log_start,
            duplicate: false,
        })
    }

    /// Whether a batch of a transaction is the first one here; then the stable offset is held back before it enters.
    fn may_begin(
        &self,
        producers: &Producers,
        producer_id: i64,
        epoch: i16,
    ) -> Result<bool, EnterError> {
        if !producers.may_write(producer_id, epoch) {
            return Err(EnterError::NotInTransaction);
        }
        let begins = !producers.table.is_open(producer_id, epoch);
        if begins {
            // Appends of a partition are one after the other, so this is where it will be.
            self.unstable
                .fetch_min(self.log.next_offset(), Ordering::AcqRel);
        }
        Ok(begins)
    }

    /// Forgets producers that were idle for too long, and aborted transactions below the log's start.
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        let mut producers = self.producers.lock();
        if !producers.table.is_empty() {
            producers.table.expire(now_ms, expiration_ms);
            producers.table.forget_below(self.log.log_start());
        }
    }

    /// `next_offset ≥ durable_offset ≥ high_watermark`.
    fn assert_order(&self) {
        let high_watermark = self.high_watermark();
        let durable = self.log.durable_offset();
        let next = self.log.next_offset();
        assert!(
            next >= durable && durable >= high_watermark,
            "partition {}: next offset {next}, durable offset {durable}, high watermark {high_watermark}",
            self.id()
        );
    }
}
