//! What a partition does about damage: which offsets are news, what of it was given up, and what a client is told there.
//!
//! Owns the rule that each offset is entered into the quarantine once, and that what somebody gave up (`log
//! accept-loss`) is passed over like a gap that compaction left. Never hides what can be read.

use std::io;
use std::sync::Arc;

use keelson_protocol::BATCH_HEADER_BYTES;
use keelson_protocol::builder::empty_batch;

use super::epochs;
use super::extent::{BadEntry, Extent, SegmentReader, SegmentView};
use super::read::{ReadOutcome, ReadRequest};
use super::walk::Hole;
use super::{Partition, State};
use crate::files::Kind;
use crate::health::UnhealthyRange;
use crate::losses::{GivenUp, uncovered};
use crate::metrics::{Reason, Source, Stage};
use crate::shared::now_ms;

impl Partition {
    /// Base offsets of the segments that there are now.
    pub(crate) fn segment_bases(&self) -> Vec<i64> {
        let state = self.state.lock();
        let segments = &state.slots.manifest.segments;
        segments.iter().map(|s| s.base_offset).collect()
    }

    /// Offsets of this partition that were given up: inclusive ranges, ascending and apart.
    pub fn accepted_losses(&self) -> Vec<(i64, i64)> {
        self.given_up().map_or(Vec::new(), |g| g.ranges.clone())
    }

    /// What of this partition was given up.
    pub(crate) fn given_up(&self) -> Option<&GivenUp> {
        self.shared().losses().of(self.id())
    }

    /// The parts of `from..=to` that are neither in quarantine nor given up.
    pub(crate) fn news_of(&self, state: &State, from: i64, to: i64) -> Vec<(i64, i64)> {
        let from = from.max(self.log_start());
        let given_up = self.given_up().map_or(&[][..], |g| &g.ranges);
        let mut known: Vec<(i64, i64)> = state.quarantined.iter().map(|r| (r.from, r.to)).collect();
        known.extend_from_slice(given_up);
        known.sort_unstable();
        uncovered(known, from, to)
    }

    /// Enters what is news of a range; returns whether anything was.
    pub(crate) fn enter(&self, state: &mut State, range: &UnhealthyRange) -> bool {
        let news = self.news_of(state, range.from, range.to);
        for (from, to) in &news {
            let part = UnhealthyRange {
                from: *from,
                to: *to,
                ..range.clone()
            };
            self.quarantine(state, part);
        }
        !news.is_empty()
    }

    /// Inclusive ranges that have no bytes in any segment: they were lost in the WAL, and perhaps given up since.
    pub(crate) fn gaps(&self, state: &State) -> Arc<[(i64, i64)]> {
        gaps(&state.quarantined, self.given_up())
    }

    /// Whether any of these offsets (inclusive) is known to be lost in the WAL.
    pub(crate) fn has_gap_in(&self, (from, to): (i64, i64)) -> bool {
        let gaps = self.gaps(&self.state.lock());
        gaps.iter()
            .any(|(first, last)| *first <= to && *last >= from)
    }

    /// Enters what is damaged in an extent into the quarantine, each range once.
    pub(crate) fn note_extent(&self, view: &SegmentView, extent: &Extent, stage: Stage) {
        for hole in &extent.holes {
            // What a truncation takes back is nobody's loss.
            if hole.to >= self.log_start() && hole.from < self.next_offset() {
                self.enter_hole(view, extent.position + hole.at as u64, *hole, stage);
            }
        }
    }

    pub(crate) fn hole_range(
        &self,
        view: &SegmentView,
        extent: &Extent,
        hole: Hole,
        stage: Stage,
    ) -> UnhealthyRange {
        self.enter_hole(view, extent.position + hole.at as u64, hole, stage)
    }

    /// A start enters nothing: what it reads, for a truncation that it replays, may be from behind that truncation and
    /// contradict what is known so far, or lie below a log start that comes later. The first read enters what stays.
    pub(crate) fn enter_hole(
        &self,
        view: &SegmentView,
        position: u64,
        hole: Hole,
        stage: Stage,
    ) -> UnhealthyRange {
        let mut range = self.place(view, (Kind::Log, position), hole.reason, stage);
        range.from = hole.from.max(self.log_start());
        range.to = hole.to.min(self.next_offset() - 1);
        let mut state = self.state.lock();
        if !self.is_deleted() && lists(&state, view) && !self.shared().is_starting() {
            self.enter(&mut state, &range);
        }
        range
    }

    /// Whether a segment still belongs to the partition; its files go only after it does not.
    pub(crate) fn lists(&self, view: &SegmentView) -> bool {
        !self.is_deleted() && lists(&self.state.lock(), view)
    }

    /// A range of no offsets at a place in a segment's file.
    pub(crate) fn place(
        &self,
        view: &SegmentView,
        (kind, position): (Kind, u64),
        reason: Reason,
        stage: Stage,
    ) -> UnhealthyRange {
        let key = view.entry.key(view.partition, kind);
        let source = match kind {
            Kind::Log => Source::Segment,
            Kind::Sum | Kind::Idx => Source::Index,
        };
        UnhealthyRange {
            partition: Some(view.partition),
            from: view.entry.base_offset,
            to: view.entry.base_offset - 1,
            file: self.shared().files.told(&key),
            position,
            reason,
            source,
            stage,
            since_ms: now_ms(),
        }
    }

    pub(crate) fn finish_reader(&self, reader: &SegmentReader<'_>, stage: Stage) {
        let (records, bytes) = reader.decoded;
        if bytes > 0 {
            self.shared().metrics.decoded(stage, records, bytes);
        }
        if reader.bad.is_empty() || !self.lists(reader.view()) {
            return;
        }
        // A run is told as one: a file that was cut short and written behind its end can lack very many.
        let mut before = None;
        for bad in &reader.bad {
            let BadEntry { kind_is_sum, entry } = bad;
            if before
                .replace(bad)
                .is_some_and(|before| before.is_followed_by(bad))
            {
                continue;
            }
            let kind = if *kind_is_sum { Kind::Sum } else { Kind::Idx };
            let position = entry * reader.entry_bytes(kind);
            let place = self.place(reader.view(), (kind, position), Reason::SlotCrc, stage);
            self.shared().health.repaired(&place);
        }
        self.request_repair(reader.view());
    }

    pub(crate) fn request_repair(&self, view: &SegmentView) {
        self.shared()
            .flusher
            .request_repair(self.id(), view.entry.base_offset);
    }

    /// A segment's extents end at `next`: what its manifest counts beyond is lost.
    pub(crate) fn note_end(&self, view: &SegmentView, next: i64, stage: Stage) {
        if next < view.end_offset {
            let hole = Hole {
                at: 0,
                from: next,
                to: view.end_offset - 1,
                reason: Reason::Truncated,
            };
            self.enter_hole(view, view.entry.log_bytes, hole, stage);
        }
    }

    /// An entry of `.sum` or `.idx` is wrong: told, and the file is rebuilt.
    pub(crate) fn note_small_file(
        &self,
        view: &SegmentView,
        place: (Kind, u64),
        reason: Reason,
        stage: Stage,
    ) {
        let place = self.place(view, place, reason, stage);
        self.shared().health.repaired(&place);
        self.request_repair(view);
    }

    /// The scrubber could not read a segment. Returns whether that is dealt with: the segment is gone with reason, or its
    /// loss is entered; otherwise the process lacked the means, and the bytes are still to be looked at.
    pub(crate) fn scrub_failed(&self, view: &SegmentView, error: &io::Error) -> bool {
        if !self.lists(view) {
            return true;
        }
        if error.kind() != io::ErrorKind::NotFound {
            let file = self
                .place(view, (Kind::Log, 0), Reason::Io, Stage::Scrub)
                .file;
            tracing::warn!(file, %error, "the scrubber could not read a segment");
            return false;
        }
        let hole = Hole {
            at: 0,
            from: view.entry.base_offset,
            to: view.end_offset - 1,
            reason: Reason::MissingFile,
        };
        self.enter_hole(view, 0, hole, Stage::Scrub);
        true
    }

    /// What a read at an unreadable offset is answered with: where to go on if the offset was given up.
    pub(crate) fn pass_over(&self, request: ReadRequest) -> Option<i64> {
        let next = self.given_up()?.behind(request.from);
        (next > request.from).then_some(next)
    }

    /// Nothing readable lies between an offset that was given up and the end: an empty batch says so, as after a
    /// compaction, so that a client's position moves to the end and does not wait inside the range.
    pub(crate) fn nothing_up_to(&self, request: ReadRequest, end: i64) -> ReadOutcome {
        let from = request.from;
        let fits = request.min_one || request.max_bytes >= BATCH_HEADER_BYTES as u64;
        if !fits {
            return ReadOutcome::Data {
                chunks: Vec::new(),
                bytes: 0,
                first: from,
                next: from,
            };
        }
        let last = (end - 1).min(from + i64::from(i32::MAX));
        let batch = empty_batch(from, last, self.epoch_at(from));
        ReadOutcome::Data {
            bytes: batch.len() as u64,
            chunks: vec![batch],
            first: from,
            next: last + 1,
        }
    }

    fn epoch_at(&self, offset: i64) -> i32 {
        epochs::at(&self.state.lock().epochs, offset).unwrap_or(-1)
    }
}

fn lists(state: &State, view: &SegmentView) -> bool {
    view.is_in(&state.slots.manifest.segments)
}

/// Inclusive ranges without bytes, ascending: in quarantine, or given up.
pub(crate) fn gaps(
    quarantined: &[UnhealthyRange],
    given_up: Option<&GivenUp>,
) -> Arc<[(i64, i64)]> {
    let lost = quarantined.iter().filter(|r| r.source == Source::Wal);
    let mut gaps: Vec<(i64, i64)> = lost.map(|r| (r.from, r.to)).collect();
    if let Some(given_up) = given_up {
        gaps.extend_from_slice(&given_up.without_bytes);
        gaps.sort_unstable();
    }
    gaps.into()
}
