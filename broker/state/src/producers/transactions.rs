//! The transactions of one partition: which are open, which were aborted, and up to where none is open.
//!
//! It owns the judgement over markers (KIP-98, KIP-890) and the last stable offset. A transaction whose marker is not
//! durable yet still holds that offset back: nobody may read behind what a crash could take away.

use super::{ProducerError, ProducerTable};

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// Behind its marker, the offset below which no transaction was open.
    pub stable_offset: i64,
}

/// The end of a transaction, as a control batch says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Whose.
    pub producer_id: i64,
    /// The epoch that the producer has from here on.
    pub epoch: i16,
    /// Epoch of the coordinator that decided it.
    pub coordinator_epoch: i32,
    /// Commit, or abort.
    pub commit: bool,
}

/// What to do with a marker that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerVerdict {
    /// Append it, then `record_marker` it.
    Append,
    /// It is here already: the open transaction, if there is one, is a later one.
    Done,
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerView {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record; −1 is none.
    pub last_sequence: i32,
    /// When it was last active.
    pub last_active_ms: i64,
    /// Epoch of the coordinator that wrote its newest marker; −1 is none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction; −1 is none.
    pub open_from: i64,
}

impl ProducerTable {
    /// Whether a producer has a transaction open with this epoch.
    pub fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        let known = self.producers.get(&producer_id);
        known.is_some_and(|known| known.epoch == epoch && known.open_from.is_some())
    }

    /// Whether any transaction is open, or waits for its marker to be durable.
    pub fn has_unstable(&self) -> bool {
        !self.open.is_empty() || !self.ending.is_empty()
    }

    /// When the producer of an open transaction was last active, the one that was silent for longest.
    pub fn oldest_open_ms(&self) -> Option<i64> {
        let open = self.open.values().filter_map(|id| self.producers.get(id));
        open.map(|producer| producer.last_active_ms).min()
    }

    /// Judges a marker. Changes nothing. Where ends bump the epoch (`bumps_epoch`), a marker with the epoch that the
    /// producer has already was written before, and must not end what the producer has begun since.
    pub fn check_marker(
        &self,
        marker: &Marker,
        bumps_epoch: bool,
    ) -> Result<MarkerVerdict, ProducerError> {
        let Some(known) = self.producers.get(&marker.producer_id) else {
            return Ok(MarkerVerdict::Append);
        };
        let producer_id = marker.producer_id;
        if marker.epoch < known.epoch {
            return Err(ProducerError::InvalidEpoch {
                producer_id,
                current: known.epoch,
                found: marker.epoch,
            });
        }
        if marker.coordinator_epoch < known.coordinator_epoch {
            return Err(ProducerError::CoordinatorFenced {
                producer_id,
                current: known.coordinator_epoch,
                found: marker.coordinator_epoch,
            });
        }
        if bumps_epoch && marker.epoch == known.epoch {
            return Ok(MarkerVerdict::Done);
        }
        Ok(MarkerVerdict::Append)
    }

    /// Remembers a marker that was appended (or is replayed) at this offset.
    pub fn record_marker(&mut self, marker: &Marker, offset: i64, now_ms: i64) {
        let known = self.known(marker.producer_id, marker.epoch, now_ms);
        known.coordinator_epoch = known.coordinator_epoch.max(marker.coordinator_epoch);
        let Some(first_offset) = known.open_from.take() else {
            return;
        };
        self.open.remove(&first_offset);
        self.ending.insert(first_offset, offset);
        if !marker.commit {
            let stable_offset = self.open.keys().next().copied();
            self.aborted.push(AbortedTransaction {
                producer_id: marker.producer_id,
                first_offset,
                last_offset: offset,
                stable_offset: stable_offset.unwrap_or(offset + 1),
            });
        }
    }

    /// The first offset that may still be taken back or aborted, when all below `durable_offset` is durable.
    pub fn first_unstable(&mut self, durable_offset: i64) -> Option<i64> {
        self.ending.retain(|_, marker| *marker >= durable_offset);
        let open = self.open.keys().next();
        let ending = self.ending.keys().next();
        match (open, ending) {
            (Some(open), Some(ending)) => Some(*open.min(ending)),
            (one, other) => one.or(other).copied(),
        }
    }

    /// Aborted transactions with an offset in `from..to`, in the order of their markers. All transactions that begin below
    /// `to` must have ended.
    pub fn aborted_in(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let first = self.aborted.partition_point(|a| a.last_offset < from);
        let mut found = Vec::new();
        for aborted in &self.aborted[first..] {
            if aborted.first_offset < to {
                found.push(*aborted);
            }
            if aborted.stable_offset >= to {
                // What ends later begins at or above it.
                break;
            }
        }
        found
    }

    /// All aborted transactions, in the order of their markers.
    pub fn aborted(&self) -> &[AbortedTransaction] {
        &self.aborted
    }

    /// The log starts here now: aborted transactions below are of no use any more.
    pub fn forget_below(&mut self, log_start: i64) {
        let gone = self.aborted.partition_point(|a| a.last_offset < log_start);
        self.aborted.drain(..gone);
    }

    /// Whether the newest thing that is known of a producer is a marker with this epoch: nothing else in the log says it.
    pub fn ends_with_marker(&self, producer_id: i64, epoch: i16) -> bool {
        let known = self.producers.get(&producer_id);
        known.is_some_and(|known| known.batches.is_empty() && known.epoch == epoch)
    }

    /// Every producer, by id.
    pub fn views(&self) -> Vec<ProducerView> {
        let view = |(id, known): (&i64, &super::Producer)| ProducerView {
            producer_id: *id,
            epoch: known.epoch,
            last_sequence: known.last_sequence(),
            last_active_ms: known.last_active_ms,
            coordinator_epoch: known.coordinator_epoch,
            open_from: known.open_from.unwrap_or(-1),
        };
        let mut views: Vec<ProducerView> = self.producers.iter().map(view).collect();
        views.sort_unstable_by_key(|view| view.producer_id);
        views
    }
}
