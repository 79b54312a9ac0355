//! Truncation: everything from an offset on is taken back, as a follower does when it diverged from its leader.
//!
//! Owns the order of its steps. The frame goes through the queue of the partition's own appends, so that none overtakes
//! the other; once it is durable the tail and the offsets go back; the flusher then cuts the segments before it writes
//! anything else, and only after that the caller may append again. Replay does the same in one go. Whole segments go,
//! the last one is cut at a batch.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::ends::Tails;
use super::extent::{SegmentReader, SegmentView};
use super::format::{IDX_ENTRY_BYTES, SUM_ENTRY_BYTES, SegmentEntry, SumEntry, encode_sum};
use super::segments::{FlushError, record_timestamp};
use super::tail::TailBatch;
use super::{Partition, ReadError, ReadOutcome, ReadRequest, State};
use crate::files::Kind;
use crate::health::UnhealthyRange;
use crate::wal::{Class, Frame, FrameBody, WalPosition};

/// What [`Partition::truncating_to`] says when nothing is truncated.
pub(crate) const NOT_TRUNCATING: i64 = i64::MAX;

/// Why a truncation was not begun. Nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TruncateError {
    /// The partition was deleted.
    #[error("the partition is deleted")]
    Deleted,
    /// The log is shutting down.
    #[error("the log is shutting down")]
    Closed,
    /// The write-ahead log's queue is full; try again later.
    #[error("the write-ahead log's queue is full")]
    QueueFull,
    /// Another truncation of the partition is not done yet.
    #[error("the partition is being truncated")]
    Pending,
    /// The offset is not between the log start and the end.
    #[error("offset {offset} is outside {log_start}..={end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// Log start offset.
        log_start: i64,
        /// Next offset.
        end: i64,
    },
    /// The offset lies inside a batch; batches are whole.
    #[error("offset {offset} lies inside the batch at {base_offset}")]
    InsideBatch {
        /// The offset asked for.
        offset: i64,
        /// Base offset of the batch.
        base_offset: i64,
    },
    /// What stands at the offset cannot be told.
    #[error(transparent)]
    Read(ReadError),
}

/// A truncation on its way.
pub(crate) struct Truncation {
    /// The new end; known for good once the frame is durable.
    to: i64,
    is_durable: bool,
    done: Box<dyn FnOnce() + Send>,
}

impl Truncation {
    /// Its frame is still on its way to the disk.
    pub(super) fn is_queued(&self) -> bool {
        !self.is_durable
    }
}

impl Partition {
    /// See [`crate::Log::truncate`]. `commits` is held over the submit, so that no log start is asked for meanwhile.
    pub(crate) fn truncate(
        &self,
        to: i64,
        done: Box<dyn FnOnce() + Send>,
        commits: &Mutex<()>,
    ) -> Result<(), TruncateError> {
        let (log_start, end) = (self.log_start(), self.next_offset());
        if to < log_start || to > end {
            return Err(TruncateError::OutOfRange {
                offset: to,
                log_start,
                end,
            });
        }
        if to > log_start && to < end {
            self.check_boundary(to)?;
        }
        if self.shared().admit_control(0).is_err() {
            return Err(TruncateError::Closed);
        }
        let _one_at_a_time = commits.lock();
        let mut state = self.state.lock();
        if self.is_deleted() {
            return Err(TruncateError::Deleted);
        }
        if state.truncation.is_some() {
            return Err(TruncateError::Pending);
        }
        // Without an append since the start nothing is queued, and no later append is shorter and could overtake.
        let class = state.class.unwrap_or(Class::Control);
        let frame = Frame {
            partition: self.id(),
            body: FrameBody::Truncate { to },
        };
        if self.shared().submit(class, vec![frame]).is_err() {
            return Err(TruncateError::QueueFull);
        }
        self.truncating_to.store(to, Ordering::Release);
        state.truncation = Some(Box::new(Truncation {
            to,
            is_durable: false,
            done,
        }));
        Ok(())
    }

    /// The end that a truncation on its way will leave: no log start above it may be asked for.
    pub(crate) fn truncating_to(&self) -> i64 {
        self.truncating_to.load(Ordering::Acquire)
    }

    fn check_boundary(&self, to: i64) -> Result<(), TruncateError> {
        let in_tail = self.state.lock().tail.base_of(to);
        let base_offset = match in_tail {
            Some(base_offset) => base_offset,
            None => self.base_in_segments(to)?,
        };
        if base_offset == to {
            return Ok(());
        }
        Err(TruncateError::InsideBatch {
            offset: to,
            base_offset,
        })
    }

    /// Base offset of the batch (or of the damaged range) that holds `offset`.
    fn base_in_segments(&self, offset: i64) -> Result<i64, TruncateError> {
        let request = ReadRequest {
            from: offset,
            up_to: i64::MAX,
            max_bytes: 1,
            min_one: true,
            tail_only: false,
        };
        match self.read(request) {
            Ok(ReadOutcome::Data { first, .. }) => Ok(first),
            Ok(ReadOutcome::NeedsDisk) => unreachable!("files were allowed"),
            Err(ReadError::Corrupt { range }) => Ok(range.from),
            Err(error) => Err(TruncateError::Read(error)),
        }
    }

    /// The frame of [`Partition::truncate`] became durable. No append was queued behind it.
    pub(crate) fn truncate_durable(&self, to: i64, position: WalPosition) {
        let mut state = self.state.lock();
        assert!(
            !state.tail.has_queued(),
            "{}: appends overtook a truncation to {to}",
            self.id()
        );
        let (to, freed) = self.take_back(&mut state, to, position);
        let truncation = state.truncation.as_mut();
        let truncation = truncation
            .unwrap_or_else(|| panic!("{}: a truncation to {to} that nobody queued", self.id()));
        truncation.to = to;
        truncation.is_durable = true;
        self.request_flush(&mut state);
        drop(state);
        drop(freed);
    }

    /// Replay found a truncation: what the tail holds from `to` on is gone. Segments were cut before.
    pub(crate) fn truncate_replayed(&self, to: i64, position: WalPosition) {
        let mut state = self.state.lock();
        let (_, freed) = self.take_back(&mut state, to, position);
        drop(state);
        drop(freed);
    }

    /// Tail, offsets, epochs and quarantine without what stood at `to` and above. A log start that came first wins.
    #[must_use = "what is freed is to be dropped without the lock"]
    fn take_back(
        &self,
        state: &mut State,
        to: i64,
        position: WalPosition,
    ) -> (i64, Vec<TailBatch>) {
        let to = to.max(self.log_start());
        let freed = state.tail.drop_from(to);
        state.epochs.retain(|(_, start)| *start < to);
        state.epoch_queued = state.epochs.last().map_or(-1, |(epoch, _)| *epoch);
        clip(&mut state.quarantined, to);
        self.shared()
            .health
            .retain(self.id(), |range| range.to < to);
        for range in state.quarantined.iter().filter(|range| range.to + 1 == to) {
            self.shared().health.known(range.clone());
        }
        state.manifest_dirty = true;
        self.next_offset.store(to, Ordering::Release);
        self.durable_offset.store(to, Ordering::Release);
        state.told.0 = state.told.0.min(to);
        self.reflected_later(state, position, true);
        (to, freed)
    }

    /// What `plan` decides is to be written to the folder, whose lock is held. A durable truncation is carried out before: its
    /// offsets are taken back, and a slot that says so must not come before the cut. Looked for under the lock of the plan, as one
    /// may become durable at any moment.
    pub(super) fn plan_behind_truncation<T>(
        &self,
        plan: impl Fn(&Self, &mut State) -> T,
    ) -> Result<T, FlushError> {
        loop {
            let to = {
                let mut state = self.state.lock();
                match &state.truncation {
                    Some(truncation) if truncation.is_durable => truncation.to,
                    Some(_) | None => return Ok(plan(self, &mut state)),
                }
            };
            self.cut_segments(to)?;
            let truncation = {
                let mut state = self.state.lock();
                self.truncating_to.store(NOT_TRUNCATING, Ordering::Release);
                state.truncation.take()
            };
            if let Some(truncation) = truncation {
                (truncation.done)();
            }
        }
    }

    /// Removes what segments hold at `to` and above, in replay. Repeating it changes nothing.
    pub(crate) fn truncate_segments(&self, to: i64) -> Result<(), FlushError> {
        let _only_writer = self.folder.lock();
        self.cut_segments(to.max(self.log_start()))
    }

    fn cut_segments(&self, to: i64) -> Result<(), FlushError> {
        let (mut manifest, view) = {
            let state = self.state.lock();
            (state.slots.manifest.clone(), self.segment_with(&state, to))
        };
        if manifest.next_offset <= to {
            // A pass without room may have written what no slot counts, or an earlier try may have got no further.
            return self.finish_cut();
        }
        let bases = manifest.segments.iter().map(|s| s.base_offset);
        let dropped: Vec<i64> = bases.filter(|base| *base >= to).collect();
        if manifest.snapshot.is_some_and(|s| s.offset > to) {
            let table = self
                .scan_producers(to)
                .map_err(|e| FlushError::unread(self.snapshot_path(1), &e))?;
            self.store_snapshot(&mut manifest, to, &table)?;
        }
        manifest.segments.retain(|s| s.base_offset < to);
        let view = view.filter(|view| view.entry.base_offset < to);
        // Where to cut is a matter of offsets. In replay, batches that are taken back here have seemed to disprove the epochs
        // of those that took their place, which a salvage has found already.
        let epochs = Arc::new([]);
        let view = view.map(|view| SegmentView { epochs, ..view });
        let files = &self.shared().files;
        if let (Some(view), Some(last)) = (&view, manifest.segments.last_mut()) {
            let path = files.path(&SegmentReader::new(files, view).key(Kind::Log));
            let cut = self.cut_last(view, last, to);
            // Not into the file: until the slot is durable, the old entry is the one that counts.
            manifest.tails = cut.map_err(|error| FlushError::new(path, error))?;
        } else {
            manifest.tails = Tails::default();
        }
        manifest.next_offset = to;
        manifest.epochs.retain(|(_, start)| *start < to);
        clip(&mut manifest.quarantined, to);
        manifest.dropped.extend(dropped);
        let truncations = {
            let mut state = self.state.lock();
            // A reader may still be in the cut segment: nothing is written over what it looks at.
            state.roll_next = true;
            state.truncations += 1;
            state.truncations
        };
        if let Some(last) = manifest.segments.last_mut() {
            last.truncations = truncations;
        }
        self.write_slot(manifest)?;
        self.finish_cut()
    }

    /// The slot that counts less is durable: what it does not count goes, listed or not, or a later salvage could take it
    /// for the log's. Repeating it changes nothing.
    fn finish_cut(&self) -> Result<(), FlushError> {
        self.shared().files.forget(self.id());
        let manifest = self.state.lock().slots.manifest.clone();
        if let Some(last) = manifest.segments.last() {
            self.shorten(last, &manifest.tails)?;
        }
        let listed = |base: &i64| manifest.segments.iter().any(|s| s.base_offset == *base);
        let begun = manifest.created.iter().filter(|base| !listed(base));
        let gone: Vec<i64> = manifest.dropped.iter().chain(begun).copied().collect();
        self.unlink_dropped(&gone)?;
        self.state.lock().slots.manifest.dropped = Vec::new();
        Ok(())
    }

    /// Reckons what of the last segment counts; returns what the manifest holds of its small files, with the checksum
    /// entry of an extent that is cut in two.
    fn cut_last(&self, view: &SegmentView, last: &mut SegmentEntry, to: i64) -> io::Result<Tails> {
        let mut tails = view.tails.as_deref().cloned().unwrap_or_default();
        let mut reader = SegmentReader::new(&self.shared().files, view);
        let number = reader.extent_with(to)?;
        if number >= reader.extents() {
            return Ok(tails);
        }
        let (extent, _) = reader.load(number)?;
        let kept = extent
            .batches
            .partition_point(|p| p.header.last_offset() < to);
        let next = extent.batches.get(kept);
        let length = next.map_or(extent.bytes.len(), |p| p.at);
        last.log_bytes = extent.position + length as u64;
        last.sum_bytes = number * SUM_ENTRY_BYTES as u64;
        let in_file = tails.in_file(&view.entry, Kind::Sum);
        tails
            .sum
            .truncate(last.sum_bytes.saturating_sub(in_file) as usize);
        if length > 0 {
            let entry = SumEntry {
                position: extent.position,
                base_offset: extent.base_offset,
                end_offset: to,
                length: length as u32,
                crc: crc32c::crc32c(&extent.bytes[..length]),
                batches: kept as u32,
            };
            tails
                .sum
                .extend_from_slice(&encode_sum(last.seed(), &entry));
            last.sum_bytes += SUM_ENTRY_BYTES as u64;
        }
        let mut indexed = 0;
        while indexed < reader.idx_entries()?
            && let Some(entry) = reader.idx(indexed)?
            && entry.position < last.log_bytes
        {
            indexed += 1;
        }
        last.idx_bytes = indexed * IDX_ENTRY_BYTES as u64;
        let in_file = tails.in_file(&view.entry, Kind::Idx);
        tails
            .idx
            .truncate(last.idx_bytes.saturating_sub(in_file) as usize);
        last.max_timestamp = self.newest_timestamp(&mut reader, last, to)?;
        Ok(tails)
    }

    /// The newest timestamp below `to`: what the last index entry says, and the batches behind it.
    fn newest_timestamp(
        &self,
        reader: &mut SegmentReader<'_>,
        last: &SegmentEntry,
        to: i64,
    ) -> io::Result<i64> {
        let newest_indexed = match (last.idx_bytes / IDX_ENTRY_BYTES as u64).checked_sub(1) {
            Some(number) => reader.idx(number)?,
            None => None,
        };
        let (from, mut newest) = newest_indexed.map_or((last.base_offset, i64::MIN), |entry| {
            (entry.offset, entry.max_timestamp_before)
        });
        let mut number = reader.extent_with(from)?;
        while number < reader.extents() {
            let (extent, behind) = reader.load(number)?;
            if extent.base_offset >= to {
                break;
            }
            for piece in extent.batches.iter().map(|p| &p.header) {
                if piece.base_offset >= from && piece.last_offset() < to {
                    newest = newest.max(record_timestamp(piece));
                }
            }
            number = behind;
        }
        Ok(newest)
    }

    /// Files of the last segment, as long as they count.
    fn shorten(&self, last: &SegmentEntry, tails: &Tails) -> Result<(), FlushError> {
        let files = &self.shared().files;
        for kind in Kind::ALL {
            let (key, length) = (last.key(self.id(), kind), tails.in_file(last, kind));
            let shortened = || -> io::Result<()> {
                let file = files.open(&key)?;
                if file.len()? > length {
                    file.set_len(length)?;
                    file.sync_data()?;
                }
                Ok(())
            };
            match shortened() {
                Ok(()) => {}
                // Nothing of it was in the file, or a start has told of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(FlushError::new(files.path(&key), error)),
            }
        }
        Ok(())
    }
}

/// Ranges without the offsets from `to` on.
fn clip(ranges: &mut Vec<UnhealthyRange>, to: i64) {
    ranges.retain(|range| range.from < to);
    for range in ranges {
        range.to = range.to.min(to - 1);
    }
}
