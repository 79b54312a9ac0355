//! Reads: from the tail without copying, else from segments, verified.
//!
//! Owns the rule that a read below the durable offset brings data or an error, never an empty answer: what is damaged
//! is an error at its first offset, and everything before and behind it is served.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};

use super::extent::{Extent, SegmentReader, SegmentView};
use super::tail::{Slices, Span};
use super::walk::Hole;
use super::{Partition, State};
use crate::files::Kind;
use crate::health::UnhealthyRange;
use crate::metrics::{Reason, Source, Stage};
use crate::shared::now_ms;

/// Bytes that one step of a walk over a whole partition reads.
const WALK_STEP_BYTES: u64 = 1024 * 1024;

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// First offset wanted; a batch that contains it is returned whole.
    pub from: i64,
    /// Offsets from here on are not returned (a batch that starts below it is). Capped to the durable offset.
    pub up_to: i64,
    /// Bytes to return at most.
    pub max_bytes: u64,
    /// Return the first batch even if it is larger than `max_bytes`.
    pub min_one: bool,
    /// Never touch a file: answer `NeedsDisk` instead.
    pub tail_only: bool,
}

/// What a read found.
#[derive(Debug, Clone)]
pub enum ReadOutcome {
    /// Whole batches, verbatim, in order. Empty only at the end (`from >= up_to`) or when the first batch is larger than
    /// `max_bytes` and `min_one` is not set.
    Data {
        /// The bytes, to be written one after the other.
        chunks: Vec<Bytes>,
        /// Sum of their lengths.
        bytes: u64,
        /// Base offset of the first batch; equals `next` when nothing was returned.
        first: i64,
        /// Offset after the last batch returned.
        next: i64,
    },
    /// The offset is not in memory and `tail_only` was set.
    NeedsDisk,
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log start or above the end.
    #[error("offset {offset} is outside {log_start}..={end}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// Log start offset.
        log_start: i64,
        /// The durable offset.
        end: i64,
    },
    /// The bytes at this offset cannot be decoded; reading may go on at `range.to + 1`.
    #[error(
        "offsets {}..={} cannot be read: {} at {}+{}",
        .range.from, .range.to, .range.reason, .range.file, .range.position
    )]
    Corrupt {
        /// The range and its place.
        range: Box<UnhealthyRange>,
    },
    /// The partition was deleted.
    #[error("the partition is deleted")]
    Deleted,
    /// A segment could not be read for a reason that says nothing about the bytes (no descriptor, no memory).
    #[error("{file}: {message}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        message: String,
    },
}

impl ReadError {
    fn corrupt(range: UnhealthyRange) -> Self {
        ReadError::Corrupt {
            range: Box::new(range),
        }
    }
}

/// Where the bytes are.
enum Plan {
    Done(ReadOutcome),
    Cold(SegmentView, Span),
}

impl Partition {
    /// Reads whole batches.
    pub fn read(&self, request: ReadRequest) -> Result<ReadOutcome, ReadError> {
        self.read_as(request, Stage::Fetch)
    }

    /// What compaction emptied is answered together with the records behind it: librdkafka takes several answers in a
    /// row without a record for one record that is too large.
    pub(crate) fn read_as(
        &self,
        request: ReadRequest,
        stage: Stage,
    ) -> Result<ReadOutcome, ReadError> {
        let mut outcome = self.read_passing_over(request, stage)?;
        let mut at = request;
        while let ReadOutcome::Data {
            chunks,
            bytes,
            next,
            ..
        } = &mut outcome
            && *next > at.from
            && *next < request.up_to.min(self.durable_offset())
            && are_empty(chunks)
            && *bytes < request.max_bytes
        {
            at = ReadRequest {
                from: *next,
                max_bytes: request.max_bytes - *bytes,
                min_one: false,
                ..request
            };
            match self.read_passing_over(at, stage) {
                Ok(ReadOutcome::Data {
                    chunks: more,
                    bytes: more_bytes,
                    next: behind,
                    ..
                }) => {
                    chunks.extend(more);
                    *bytes += more_bytes;
                    *next = behind;
                }
                // Told when it is asked for by itself.
                Ok(ReadOutcome::NeedsDisk) | Err(_) => break,
            }
        }
        Ok(outcome)
    }

    fn read_passing_over(
        &self,
        request: ReadRequest,
        stage: Stage,
    ) -> Result<ReadOutcome, ReadError> {
        let mut at = request;
        loop {
            let result = self.read_once(at, stage);
            if !matches!(result, Err(ReadError::Corrupt { .. })) {
                return result;
            }
            let end = request.up_to.min(self.durable_offset());
            match self.pass_over(at) {
                Some(next) if next < end => at.from = next,
                Some(_) => return Ok(self.nothing_up_to(request, end)),
                // Damage that nobody gave up lies behind: it is told at its own offset.
                None if at.from > request.from => return Ok(self.nothing_up_to(request, at.from)),
                None => return result,
            }
        }
    }

    fn read_once(&self, request: ReadRequest, stage: Stage) -> Result<ReadOutcome, ReadError> {
        let plan = self.plan(&mut self.state.lock(), request, stage)?;
        match plan {
            Plan::Done(outcome) => Ok(outcome),
            Plan::Cold(..) if request.tail_only => Ok(ReadOutcome::NeedsDisk),
            Plan::Cold(view, span) => {
                let result = self.read_cold(&view, span, stage);
                if result.is_err() && !self.lists(&view) {
                    // Retention, a deletion or a truncation took the segment while it was read, or a compaction replaced it.
                    self.check_range(span.from)?;
                    return self.read_as(request, stage);
                }
                result
            }
        }
    }

    fn plan(
        &self,
        state: &mut State,
        request: ReadRequest,
        stage: Stage,
    ) -> Result<Plan, ReadError> {
        let from = request.from;
        self.check_range(from)?;
        let mut span = Span {
            from,
            up_to: request.up_to.min(self.durable_offset()),
            max_bytes: request.max_bytes,
            min_one: request.min_one,
        };
        if from >= span.up_to || (span.max_bytes == 0 && !span.min_one) {
            return Ok(Plan::Done(nothing_at(from)));
        }
        for range in state.quarantined.iter().filter(|r| r.to >= from) {
            if range.from <= from {
                return Err(ReadError::corrupt(range.clone()));
            }
            span.up_to = span.up_to.min(range.from);
        }
        // What a flush has just moved is in both for a moment: memory is faster.
        let in_tail = state.tail.first_offset().is_some_and(|first| first <= from);
        if !in_tail && let Some(view) = self.segment_with(state, from) {
            return Ok(Plan::Cold(view, span));
        }
        let slices = state.tail.read(span);
        match slices.first {
            Some(first) if first <= from => Ok(Plan::Done(data(slices))),
            None if state.tail.holds(from) => Ok(Plan::Done(nothing_at(from))),
            // Neither a segment nor the tail holds the offset although it was assigned: it is lost, and told.
            Some(_) | None => Err(ReadError::corrupt(self.missing(state, span, stage))),
        }
    }

    pub(crate) fn check_range(&self, from: i64) -> Result<(), ReadError> {
        if self.is_deleted() {
            return Err(ReadError::Deleted);
        }
        let (log_start, end) = (self.log_start(), self.durable_offset());
        if from < log_start || from > end {
            return Err(ReadError::OutOfRange {
                offset: from,
                log_start,
                end,
            });
        }
        Ok(())
    }

    /// The segment that holds `offset` or the first after it, if it is not in the tail.
    pub(crate) fn segment_with(&self, state: &State, offset: i64) -> Option<SegmentView> {
        let segments = &state.slots.manifest.segments;
        let flushed_end = state.slots.manifest.next_offset;
        let end_of = |at: usize| segments.get(at + 1).map_or(flushed_end, |s| s.base_offset);
        let at = (0..segments.len())
            .rev()
            .find(|at| segments[*at].base_offset <= offset)
            .unwrap_or(0);
        let entry = *segments.get(at)?;
        let end_offset = end_of(at);
        (offset < end_offset && entry.log_bytes > 0).then(|| SegmentView {
            partition: self.id(),
            entry,
            end_offset,
            // Those of what is in segments: until a truncation is carried out, they hold more than the partition does.
            epochs: state.slots.manifest.epochs.as_slice().into(),
            gaps: self.gaps(state),
            tails: (at + 1 == segments.len() && !state.slots.manifest.tails.is_empty())
                .then(|| Arc::new(state.slots.manifest.tails.clone())),
        })
    }

    /// Offsets that were assigned and are nowhere.
    fn missing(&self, state: &mut State, span: Span, stage: Stage) -> UnhealthyRange {
        let next = state.tail.base_behind(span.from);
        let to = next.unwrap_or(span.up_to).min(span.up_to) - 1;
        let range = UnhealthyRange {
            partition: Some(self.id()),
            from: span.from,
            to,
            file: self
                .shared()
                .files
                .relative(&self.shared().files.partition_dir(self.id())),
            position: 0,
            reason: Reason::Offsets,
            source: Source::Segment,
            stage,
            since_ms: now_ms(),
        };
        if !self.shared().is_starting() {
            self.enter(state, &range);
        }
        range
    }

    fn read_cold(
        &self,
        view: &SegmentView,
        span: Span,
        stage: Stage,
    ) -> Result<ReadOutcome, ReadError> {
        let mut reader = SegmentReader::new(&self.shared().files, view);
        let result = self.read_segment(&mut reader, view, span, stage);
        self.finish_reader(&reader, stage);
        match result {
            Ok(Found::Data(slices)) => Ok(data(slices)),
            Ok(Found::Nothing) => Ok(nothing_at(span.from)),
            Ok(Found::Hole(range)) => Err(ReadError::corrupt(range)),
            Err(error) => self.cold_failure(view, stage, &error),
        }
    }

    fn read_segment(
        &self,
        reader: &mut SegmentReader<'_>,
        view: &SegmentView,
        span: Span,
        stage: Stage,
    ) -> io::Result<Found> {
        let mut taken = Slices::default();
        let mut number = reader.extent_with(span.from)?;
        let mut next = span.from;
        let is_lost = |next: i64| {
            let is_gap = view
                .gaps
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&next));
            is_gap || self.given_up().is_some_and(|g| g.behind(next) > next)
        };
        while number < reader.extents() && next < span.up_to {
            let (extent, behind) = reader.load(number)?;
            self.note_extent(view, &extent, stage);
            if let Some(hole) = view.passed_over(next, &extent).filter(|h| !is_lost(h.from)) {
                let range = self.hole_range(view, &extent, hole, stage);
                return Ok(match taken.first {
                    None => Found::Hole(range),
                    Some(_) => Found::Data(taken),
                });
            }
            match take(&extent, (span, next, is_lost(next)), &mut taken) {
                Taken::All(offset) => next = offset.max(next),
                Taken::Full => break,
                Taken::Hole(hole) if taken.first.is_none() => {
                    return Ok(Found::Hole(self.hole_range(view, &extent, hole, stage)));
                }
                Taken::Hole(_) => break,
            }
            number = behind;
        }
        if taken.first.is_some() {
            return Ok(Found::Data(taken));
        }
        if number >= reader.extents() {
            // The segment's extents do not reach its end: what lies behind them is lost.
            let hole = Hole {
                at: 0,
                from: next,
                to: view.end_offset.min(span.up_to) - 1,
                reason: Reason::Truncated,
            };
            let position = view.entry.log_bytes;
            return Ok(Found::Hole(self.enter_hole(view, position, hole, stage)));
        }
        Ok(Found::Nothing)
    }

    /// A file could not be opened or read: it is lost, or the process lacks the means.
    fn cold_failure(
        &self,
        view: &SegmentView,
        stage: Stage,
        error: &io::Error,
    ) -> Result<ReadOutcome, ReadError> {
        let key = view.entry.key(view.partition, Kind::Log);
        if error.kind() != io::ErrorKind::NotFound {
            let file = self.shared().files.told(&key);
            return Err(ReadError::Io {
                file,
                message: error.to_string(),
            });
        }
        let hole = Hole {
            at: 0,
            from: view.entry.base_offset,
            to: view.end_offset - 1,
            reason: Reason::MissingFile,
        };
        Err(ReadError::corrupt(self.enter_hole(view, 0, hole, stage)))
    }

    /// Calls `each` with every batch that reaches `from` and starts below `up_to`.
    pub(crate) fn each_batch(
        &self,
        from: i64,
        up_to: i64,
        stage: Stage,
        each: &mut dyn FnMut(&BatchHeader, Bytes),
    ) -> Result<(), ReadError> {
        let mut from = from.max(self.log_start());
        while from < up_to {
            let request = ReadRequest {
                from,
                up_to,
                max_bytes: WALK_STEP_BYTES,
                min_one: true,
                tail_only: false,
            };
            match self.read_as(request, stage)? {
                ReadOutcome::Data { chunks, next, .. } if next > from => {
                    each_in(&chunks, each);
                    from = next;
                }
                ReadOutcome::Data { .. } | ReadOutcome::NeedsDisk => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Whether there are batches, and not one of them has a record.
fn are_empty(chunks: &[Bytes]) -> bool {
    // A batch without records is nothing but its header: a chunk of any other length has one with records.
    let all_empty = |chunk: &Bytes| {
        let mut batches = chunk.chunks_exact(BATCH_HEADER_BYTES);
        let is_empty = |batch: &[u8]| {
            let header = BatchHeader::parse(batch);
            header.is_ok_and(|h| h.records_count == 0 && h.size() == BATCH_HEADER_BYTES)
        };
        batches.by_ref().all(is_empty) && batches.remainder().is_empty()
    };
    !chunks.is_empty() && chunks.iter().all(all_empty)
}

/// Splits chunks of verified batches.
pub(crate) fn each_in(chunks: &[Bytes], each: &mut dyn FnMut(&BatchHeader, Bytes)) {
    let mut joined;
    let mut rest = match chunks {
        [one] => one.clone(),
        many => {
            joined = Vec::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter()
                .for_each(|chunk| joined.extend_from_slice(chunk));
            Bytes::from(joined)
        }
    };
    while !rest.is_empty() {
        let header =
            BatchHeader::parse(&rest).expect("a read returns whole batches that were verified");
        let batch = rest.split_to(header.size());
        each(&header, batch);
    }
}

enum Found {
    Data(Slices),
    Hole(UnhealthyRange),
    /// The first batch is larger than allowed.
    Nothing,
}

enum Taken {
    /// Everything of the extent up to this offset; go on in the next one.
    All(i64),
    /// A bound was reached.
    Full,
    /// The next offset cannot be read.
    Hole(Hole),
}

/// A part of an extent. A small one is a copy: a reply of such would hold many times what it counts.
fn piece(extent: &Bytes, part: Range<usize>) -> Bytes {
    if part.len() < extent.len() / 2 {
        Bytes::copy_from_slice(&extent[part])
    } else {
        extent.slice(part)
    }
}

/// Takes batches of an extent from offset `next` on, as one slice.
fn take(extent: &Extent, (span, next, is_lost): (Span, i64, bool), taken: &mut Slices) -> Taken {
    let start = extent
        .batches
        .partition_point(|p| p.header.last_offset() < next);
    let hole = extent.holes.iter().find(|h| h.to >= next).copied();
    let mut run: Option<(usize, usize)> = None;
    let mut end = Taken::All(extent.end_offset);
    let mut bytes = taken.bytes;
    for piece in &extent.batches[start..] {
        let base = piece.header.base_offset;
        if let Some(hole) = hole.filter(|h| h.from < base) {
            end = Taken::Hole(hole);
            break;
        }
        let size = piece.length as u64;
        let first = taken.first.is_none() && run.is_none();
        if first && base >= span.up_to && is_lost {
            // The offsets wanted are nowhere: in quarantine, or given up. An empty answer would say that there are none.
            end = Taken::Hole(Hole {
                at: piece.at,
                from: next,
                to: span.up_to - 1,
                reason: Reason::Offsets,
            });
            break;
        }
        if base >= span.up_to || (bytes + size > span.max_bytes && !(first && span.min_one)) {
            end = Taken::Full;
            break;
        }
        bytes += size;
        taken.next = Some(piece.header.last_offset() + 1);
        if first {
            taken.first = Some(base);
        }
        run = Some((run.map_or(piece.at, |(at, _)| at), piece.at + piece.length));
    }
    if let Some((at, to)) = run {
        taken.chunks.push(piece(&extent.bytes, at..to));
    }
    taken.bytes = bytes;
    match (end, hole) {
        // The hole lies behind the last readable batch.
        (Taken::All(_), Some(hole)) => Taken::Hole(hole),
        (end, _) => end,
    }
}

fn nothing_at(from: i64) -> ReadOutcome {
    ReadOutcome::Data {
        chunks: Vec::new(),
        bytes: 0,
        first: from,
        next: from,
    }
}

fn data(slices: Slices) -> ReadOutcome {
    let first = slices.first.expect("only called with data");
    let next = slices.next.expect("only called with data");
    ReadOutcome::Data {
        chunks: slices.chunks,
        bytes: slices.bytes,
        first,
        next,
    }
}
