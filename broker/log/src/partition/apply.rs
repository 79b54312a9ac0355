//! What a durable frame does to a partition: on the WAL thread while the log runs, in replay when it starts.
//!
//! Owns the hold of a partition on the WAL: the oldest durable frame that its folder does not reflect yet.

use std::sync::atomic::Ordering;

use super::epochs;
use super::tail::TailBatch;
use super::{Partition, State};
use crate::health::UnhealthyRange;
use crate::wal::{FrameBody, WalPosition};

impl Partition {
    /// A frame that was queued became durable.
    pub(crate) fn frame_durable(&self, body: FrameBody, at: WalPosition) {
        match body {
            FrameBody::Append { base_offset, .. } => self.append_durable(base_offset, at),
            FrameBody::LogStart { offset } => self.log_start_durable(offset, at),
            FrameBody::EpochStart { epoch, offset } => self.epoch_durable(epoch, offset, at),
            FrameBody::DeletePartition => self.mark_deleted(),
            FrameBody::Truncate { to } => self.truncate_durable(to, at),
            FrameBody::Seal | FrameBody::Boot { .. } => {}
        }
    }

    /// The oldest queued batch became durable.
    pub(crate) fn append_durable(&self, base_offset: i64, position: WalPosition) {
        let mut state = self.state.lock();
        let durable = state.tail.mark_durable(base_offset, position);
        self.durable_offset.store(durable, Ordering::Release);
        assert!(
            durable <= self.next_offset(),
            "{}: durable above next",
            self.id
        );
        let freed = self.drop_below_log_start(&mut state);
        self.reflected_later(&mut state, position, false);
        self.flush_if_due(&mut state);
        drop(state);
        drop(freed);
    }

    /// Replay found a batch.
    pub(crate) fn append_replayed(&self, batch: TailBatch, position: WalPosition) {
        let next = batch.last_offset + 1;
        let mut state = self.state.lock();
        if let Ok(header) = batch.header() {
            // A salvage may have believed a damaged byte; the WAL's checksums cover this one.
            epochs::disprove(&mut state.epochs, header.partition_leader_epoch);
            epochs::disprove(
                &mut state.slots.manifest.epochs,
                header.partition_leader_epoch,
            );
            state.epoch_queued = state.epochs.last().map_or(-1, |(epoch, _)| *epoch);
        }
        state.tail.push_durable(batch);
        self.next_offset.store(next, Ordering::Release);
        self.durable_offset.store(next, Ordering::Release);
        let freed = self.drop_below_log_start(&mut state);
        self.reflected_later(&mut state, position, false);
        self.flush_if_due(&mut state);
        drop(state);
        drop(freed);
    }

    /// The log start moved; offsets below are gone, with their hold on memory and on the WAL.
    pub(crate) fn log_start_durable(&self, offset: i64, position: WalPosition) {
        let offset = offset.min(self.durable_offset());
        let mut freed = Vec::new();
        let mut state = self.state.lock();
        if self.log_start.fetch_max(offset, Ordering::AcqRel) < offset {
            freed = self.drop_below_log_start(&mut state);
            state.quarantined.retain(|range| range.to >= offset);
            self.shared
                .health
                .retain(self.id, |range| range.to >= offset);
            state.manifest_dirty = true;
        }
        self.reflected_later(&mut state, position, true);
        self.request_flush(&mut state);
        drop(state);
        drop(freed);
    }

    /// A leader epoch starts. Replay may meet one that is known from segments alone, by the first batch of it that they
    /// hold, or not at all: what was below the log start never got there. Where it began is what the frame says.
    pub(crate) fn epoch_durable(&self, epoch: i32, offset: i64, position: WalPosition) {
        let mut state = self.state.lock();
        match state
            .epochs
            .binary_search_by_key(&epoch, |(known, _)| *known)
        {
            Ok(at) => state.epochs[at].1 = offset.min(state.epochs[at].1),
            // Of one that a later truncation takes back, a segment may have the successor: it would stand too high.
            Err(at) if state.epochs.get(at).is_none_or(|(_, next)| offset < *next) => {
                state.epochs.insert(at, (epoch, offset));
                state.epoch_queued = state.epoch_queued.max(epoch);
            }
            Err(_) => {}
        }
        self.reflected_later(&mut state, position, true);
    }

    /// Replay found that offsets below `offset` were assigned; they are not there.
    pub(crate) fn skip_to(&self, offset: i64) {
        let _state = self.state.lock();
        self.next_offset.fetch_max(offset, Ordering::AcqRel);
        self.durable_offset.fetch_max(offset, Ordering::AcqRel);
    }

    /// No offset is given out that somebody gave up: perhaps it was given out before.
    pub(crate) fn pass_given_up(&self) {
        if let Some(given_up) = self.given_up() {
            self.skip_to(given_up.behind(self.next_offset()));
        }
    }

    /// Replay found that these offsets were durable and cannot be read; the next offset resumes above them.
    pub(crate) fn lost_in_replay(&self, mut range: UnhealthyRange, position: WalPosition) {
        let mut state = self.state.lock();
        // What is below the next offset is in a segment already, or was found lost before: only the rest is news.
        range.from = range.from.max(self.next_offset());
        if range.to < range.from {
            return;
        }
        // Also where the range is known from an earlier start, or given up: an offset is never used twice.
        self.next_offset.store(range.to + 1, Ordering::Release);
        self.durable_offset.store(range.to + 1, Ordering::Release);
        self.enter(&mut state, &range);
        self.reflected_later(&mut state, position, true);
    }

    /// The newest frame that the folder reflects.
    pub(crate) fn applied(&self) -> WalPosition {
        let state = self.state.lock();
        let manifest = &state.slots.manifest;
        WalPosition {
            group: manifest.applied_group,
            frame: manifest.applied_frame,
        }
    }

    /// The start found that these offsets of a segment cannot be read.
    pub(crate) fn found_damage(&self, range: &UnhealthyRange) {
        let mut state = self.state.lock();
        self.enter(&mut state, range);
    }

    /// Enters a range that was found now: counted, told, kept in the manifest with the next flush.
    pub(crate) fn quarantine(&self, state: &mut State, range: UnhealthyRange) {
        let at = state.quarantined.partition_point(|r| r.from < range.from);
        state.quarantined.insert(at, range.clone());
        state.manifest_dirty = true;
        self.shared.health.found(range);
        self.request_flush(state);
    }

    /// The partition is deleted: nothing of it is kept in memory, and it holds nothing back any more. Returns how many
    /// of its appends and truncations are still queued; under the lock, since an append looks at the flag and is queued
    /// under it.
    pub(crate) fn delete_durable(&self) -> usize {
        let mut state = self.state.lock();
        self.mark_deleted();
        let tail = std::mem::take(&mut state.tail);
        state.quarantined = Vec::new();
        state.control_hold = None;
        let truncation = state.truncation.take();
        self.shared.health.retain(self.id, |_| false);
        self.rehold(&mut state);
        drop(state);
        let is_queued = truncation.as_ref().is_some_and(|t| t.is_queued());
        let queued = tail.queued() + usize::from(is_queued);
        drop((tail, truncation));
        self.shared.files.forget(self.id);
        queued
    }

    #[must_use = "to be dropped without the lock"]
    fn drop_below_log_start(&self, state: &mut State) -> Vec<TailBatch> {
        let freed = state.tail.drop_below(self.log_start());
        self.rehold(state);
        freed
    }

    /// A frame is durable that the folder does not reflect yet.
    pub(super) fn reflected_later(&self, state: &mut State, position: WalPosition, control: bool) {
        state.last_durable = position;
        if control || state.tail.first_position().is_none() {
            state.control_hold.get_or_insert(position);
        }
        self.rehold(state);
    }

    /// Computes the hold anew and tells the flusher when it changed.
    pub(crate) fn rehold(&self, state: &mut State) {
        let hold = match (state.tail.first_position(), state.control_hold) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if hold != state.hold {
            self.shared.flusher.hold_moved(self.id, state.hold, hold);
            state.hold = hold;
        }
    }

    fn flush_if_due(&self, state: &mut State) {
        if state.tail.bytes() >= self.shared.options.flush_pending_bytes {
            self.request_flush(state);
        }
    }

    /// Puts the partition into the flusher's queue, once.
    pub(crate) fn request_flush(&self, state: &mut State) {
        if !state.flush_queued {
            state.flush_queued = true;
            self.shared.flusher.request(self.id);
        }
    }
}
