//! One partition as the broker sees it: sequence check, append, record, wait.
//!
//! Owns the order of what enters the partition. The lock covers check → append → record and is never held across an
//! await; the log assigns the offsets.

use std::sync::Arc;

use bytes::Bytes;
use keelson_log::{AppendError, Partition, PartitionId, ProducedBatch, Reservation};
use keelson_protocol::BatchHeader;
use keelson_state::producers::{ProducerBatch, ProducerError, ProducerTable, Verdict};
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
}

/// The owner of one partition.
pub struct PartitionOwner {
    log: Arc<Partition>,
    producers: Mutex<ProducerTable>,
    waiters: Arc<Waiters>,
}

impl PartitionOwner {
    pub(super) fn new(
        log: Arc<Partition>,
        producers: ProducerTable,
        waiters: Arc<Waiters>,
    ) -> Self {
        Self {
            log,
            producers: Mutex::new(producers),
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
        });
        if let Some(sequence) = &sequence
            && let Verdict::Duplicate {
                base_offset,
                last_offset,
            } = producers.check(sequence)?
        {
            self.waiters.await_durable(last_offset + 1, slot, group);
            return Ok(Placed {
                base_offset,
                log_start: self.log.log_start(),
                duplicate: true,
            });
        }
        let produced = ProducedBatch {
            bytes: batch.bytes,
            header: batch.header,
            pin: batch.pin,
        };
        let appended = self.log.append(produced, batch.leader_epoch)?;
        if let Some(sequence) = &sequence {
            producers.record(
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

    /// Forgets producers that were idle for too long.
    pub fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        let mut producers = self.producers.lock();
        if !producers.is_empty() {
            producers.expire(now_ms, expiration_ms);
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
