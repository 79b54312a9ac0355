//! The scrubber: a background pass over every segment of every partition, at a set rate, so that damage is found before
//! somebody needs the bytes.
//!
//! Owns the order of a pass and its pace. Never decodes by itself: it reads as clients do, but past all caches, and what
//! it finds is entered, told and repaired exactly as a read would do it. Holds no lock over I/O, and one extent in memory.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::background::{Background, Pace};
use crate::files::Kind;
use crate::ids::PartitionId;
use crate::metrics::{Reason, Stage};
use crate::partition::Partition;
use crate::partition::extent::{Extent, SegmentReader, SegmentView};
use crate::shared::{Shared, now_ms};

/// A pass begins no sooner than this after the one before it began: a small directory needs no reading all day.
const PASS_PERIOD: Duration = Duration::from_secs(3600);
/// After a pass that could not see everything (no descriptor, an index under repair) the next one begins so soon.
const RETRY_PERIOD: Duration = Duration::from_secs(60);
/// The thread and how it is ended.
pub(crate) struct Scrubber {
    thread: Background,
}

impl Scrubber {
    /// A scrubber that does not run yet; the time of the last full pass is told from the start.
    pub(crate) fn new(shared: &Shared) -> Self {
        let last_ms = shared.node.scrubbed_ms();
        if last_ms > 0 {
            let seconds = last_ms as f64 / 1000.0;
            shared.metrics.scrub_last_full_pass.set(seconds);
        }
        Scrubber {
            thread: Background::new("scrubber"),
        }
    }

    /// Starts the thread; a rate of 0 starts none.
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        let rate = shared.options.scrub_bytes_per_second;
        if rate == 0 {
            return Ok(());
        }
        let shared = Arc::clone(shared);
        self.thread
            .start(rate as f64, move |pace| Pass { shared, pace }.run())
    }

    /// Ends the thread; waits for the read it is in.
    pub(crate) fn stop(&self) {
        self.thread.stop();
    }
}

/// One pass on the caller's thread, as fast as it goes.
#[cfg(test)]
pub(crate) fn pass_by_hand(shared: &Arc<Shared>) {
    let pace = Background::new("scrubber").pace(f64::INFINITY);
    let shared = Arc::clone(shared);
    Pass { shared, pace }.everything();
}

/// How far a pass, or a part of it, got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Everything was looked at.
    All,
    /// Something could not be looked at, for a reason that says nothing about the bytes.
    Part,
    /// The scrubber is to end.
    Ended,
}

struct Pass {
    shared: Arc<Shared>,
    pace: Pace,
}

impl Pass {
    /// The thread's body. A start begins with a pass.
    fn run(mut self) {
        loop {
            let began = Instant::now();
            let period = match self.everything() {
                Seen::Ended => return,
                Seen::Part => RETRY_PERIOD,
                Seen::All => {
                    if let Err(error) = self.finished() {
                        self.shared.fail(&format!("node.meta: {error}"));
                        return;
                    }
                    PASS_PERIOD
                }
            };
            if self.pace.wait(period.saturating_sub(began.elapsed())) {
                return;
            }
        }
    }

    fn finished(&self) -> io::Result<()> {
        let now = now_ms();
        self.shared.node.record_scrub(now)?;
        let seconds = now as f64 / 1000.0;
        self.shared.metrics.scrub_last_full_pass.set(seconds);
        Ok(())
    }

    /// Every partition there is now; those deleted meanwhile are passed over.
    fn everything(&mut self) -> Seen {
        let mut ids: Vec<PartitionId> = self.shared.partitions.read().keys().copied().collect();
        ids.sort_unstable();
        let mut seen = Seen::All;
        for id in ids {
            let Some(partition) = self.shared.partition(id) else {
                continue;
            };
            for base in partition.segment_bases() {
                match self.segment(&partition, base) {
                    Seen::All => {}
                    Seen::Part => seen = Seen::Part,
                    Seen::Ended => return Seen::Ended,
                }
            }
        }
        seen
    }

    fn segment(&mut self, partition: &Partition, base: i64) -> Seen {
        let view = {
            let state = partition.state.lock();
            partition
                .segment_with(&state, base)
                .filter(|view| view.entry.base_offset == base)
        };
        let Some(view) = view else { return Seen::All };
        let shared = Arc::clone(&self.shared);
        let mut reader = SegmentReader::past_caches(&shared.files, &view);
        let result = self.extents(partition, &mut reader, &view);
        partition.finish_reader(&reader, Stage::Scrub);
        result.unwrap_or_else(|error| match partition.scrub_failed(&view, &error) {
            true => Seen::All,
            false => Seen::Part,
        })
    }

    fn extents(
        &mut self,
        partition: &Partition,
        reader: &mut SegmentReader<'_>,
        view: &SegmentView,
    ) -> io::Result<Seen> {
        let mut index = IndexCursor::default();
        let (mut number, mut next) = (0, view.entry.base_offset);
        while number < reader.extents() {
            if reader.stored_sum(number)?.is_none() {
                // Without its checksums a segment is one piece of any length: they are rebuilt first.
                return Ok(Seen::Part);
            }
            let (extent, behind) = reader.load(number)?;
            if !partition.lists(view) {
                return Ok(Seen::All);
            }
            partition.note_extent(view, &extent, Stage::Scrub);
            if let Some(hole) = view.passed_over(next, &extent) {
                partition.hole_range(view, &extent, hole, Stage::Scrub);
            }
            index.check(partition, reader, &extent)?;
            next = extent.end_offset;
            number = behind;
            let bytes = extent.bytes.len() as u64;
            drop(extent);
            self.shared.metrics.scrub_bytes.inc_by(bytes);
            if self.pace.pause(bytes) || self.shared.has_failed() {
                return Ok(Seen::Ended);
            }
        }
        partition.note_end(view, next, Stage::Scrub);
        Ok(Seen::All)
    }
}

/// Goes along the sparse index beside the extents.
#[derive(Default)]
struct IndexCursor {
    next: u64,
    /// A damaged entry was met: the whole index is rebuilt, the rest of it says nothing.
    damaged: bool,
}

impl IndexCursor {
    /// Every entry that points into the extent must point at a batch, or at a damaged one, which was told.
    fn check(
        &mut self,
        partition: &Partition,
        reader: &mut SegmentReader<'_>,
        extent: &Extent,
    ) -> io::Result<()> {
        let end = extent.position + extent.bytes.len() as u64;
        while !self.damaged && self.next < reader.idx_entries()? {
            let Some(entry) = reader.idx(self.next)? else {
                self.damaged = true;
                break;
            };
            if entry.position >= end {
                break;
            }
            let Some(at) = entry.position.checked_sub(extent.position) else {
                // Into an extent before, which was shorter than it must be: that was told.
                self.next += 1;
                continue;
            };
            let found = extent
                .batches
                .binary_search_by_key(&(at as usize), |piece| piece.at);
            let hits = found.is_ok_and(|i| extent.batches[i].header.base_offset == entry.offset);
            let is_lost =
                |hole: &crate::partition::walk::Hole| (hole.from..=hole.to).contains(&entry.offset);
            if !hits && !extent.holes.iter().any(is_lost) {
                let position = self.next * reader.entry_bytes(Kind::Idx);
                let place = (Kind::Idx, position);
                partition.note_small_file(reader.view(), place, Reason::IndexEntry, Stage::Scrub);
                self.damaged = true;
                break;
            }
            self.next += 1;
        }
        Ok(())
    }
}
