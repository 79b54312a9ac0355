//! Carrying out a compaction: segments are written anew beside those that count, read back, and swapped in one slot write.
//!
//! Owns the order of steps: the new files are named in a slot; written, synced, and their folder synced; read back from
//! the medium through the decoder that reads use; then one slot replaces the old segments by the new one; then the old files
//! are unlinked. Until that slot, nothing that counts is touched, and a crash leaves only what a start removes. Never runs
//! on a partition with a range in quarantine. What is durable counts as committed, as it is on one broker.
//!
//! Offsets stay: a batch keeps its first and last offset whatever is taken out of it, and a run of batches of which
//! nothing is left becomes one batch without records. So batches go on without a gap, and a read of any offset leads on.

mod fate;
mod output;

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use keelson_protocol::BatchError;
use keelson_protocol::batch::BatchHeader;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_state::producers::ProducerTable;

use self::fate::Fate;
use self::output::{Output, Sum};
use super::compact::{Aborted, Cleanable, Filter, OffsetMap, cleanable, groups};
use super::extent::{Extent, SegmentReader, SegmentView};
use super::format::{Manifest, SegmentEntry};
use super::segments::FlushError;
use super::timestamps::DECOMPRESSED_BYTES_MAX;
use super::walk::reason_of;
use super::{Partition, ReadError, State};
use crate::files::{Files, Kind};
use crate::metrics::{Reason, Source, Stage};
use crate::options::CompactionConfig;

/// Generations are numbered in 31 bits.
const GENERATION_MAX: u32 = (1 << 31) - 1;

/// Why a compaction did not come to its end. What counts is untouched, but for segments that were swapped before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    /// The process or the log ends.
    #[error("the log is stopping")]
    Ended,
    /// The segments are no longer those that were chosen.
    #[error("the partition changed meanwhile")]
    Changed,
    /// Some range cannot be read; it is in quarantine and told.
    #[error("a range of it cannot be read")]
    Damaged,
    /// A batch whose checksum is right has records that do not decode.
    #[error("the batch at offset {offset}: {error}")]
    Undecodable { offset: i64, error: BatchError },
    /// What was written did not read back as it was meant.
    #[error("{file}: what was written anew does not read back")]
    ReadBack { file: String },
    /// A file could not be read or written for want of means; the next turn may have them.
    #[error("{0}")]
    NoMeans(String),
    /// A write or sync failed: the process must end.
    #[error("{0}")]
    Fatal(String),
}

impl From<FlushError> for Stopped {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::NoRoom { .. } => Stopped::NoMeans(error.to_string()),
            FlushError::Deleted => Stopped::Changed,
            FlushError::Fatal { .. } => Stopped::Fatal(error.to_string()),
        }
    }
}

/// Told how many bytes were handled; true when the work is to end.
pub(crate) type Ends<'a> = &'a mut dyn FnMut(u64) -> bool;

/// What one compaction is about.
struct Job {
    config: Arc<CompactionConfig>,
    segment_bytes: u64,
    segments: Vec<SegmentEntry>,
    cleanable: Cleanable,
    /// Offset after the last segment that can be cleaned.
    end_offset: i64,
}

impl Job {
    fn new(state: &State, cleanable: Cleanable) -> Option<Job> {
        let segments = state.slots.manifest.segments.clone();
        Some(Job {
            config: state.config.compaction.clone()?,
            segment_bytes: state.config.segment_bytes,
            end_offset: segments.get(cleanable.end)?.base_offset,
            segments,
            cleanable,
        })
    }

    /// Offset after the segment at this place.
    fn end_of(&self, at: usize) -> i64 {
        self.segments
            .get(at + 1)
            .map_or(i64::MAX, |s| s.base_offset)
    }
}

/// Takes a batch; false: no more.
type Each<'a> = &'a mut dyn FnMut(&BatchHeader, &[u8]) -> Result<bool, Stopped>;

impl Partition {
    /// How much of what could be cleaned is dirty, if the partition is to be compacted now.
    pub(crate) fn dirty_ratio(&self, now_ms: i64) -> Option<f64> {
        let state = self.state.lock();
        let found = self.to_clean(&state, now_ms)?;
        Some(found.ratio(&state.slots.manifest.segments))
    }

    fn to_clean(&self, state: &State, now_ms: i64) -> Option<Cleanable> {
        let config = state.config.compaction.as_ref()?;
        if self.is_deleted() || self.is_truncating(state) || !state.quarantined.is_empty() {
            return None;
        }
        cleanable(&state.slots.manifest.segments, config, now_ms)
    }

    /// Compacts the partition, if it is due.
    pub(crate) fn compact(&self, now_ms: i64, ends: Ends<'_>) -> Result<(), Stopped> {
        let _one_at_a_time = self.compaction.lock();
        let job = |end_offset: Option<i64>| {
            let state = self.state.lock();
            let found = match end_offset {
                None => self.to_clean(&state, now_ms)?,
                Some(end) => rest(&state.slots.manifest.segments, end)?,
            };
            Job::new(&state, found)
        };
        let Some(mut work) = job(None) else {
            return Ok(());
        };
        let mut producers = self.producers().map_err(unreadable)?;
        // What may still be aborted is not looked at.
        if let Some(unstable) = producers.first_unstable(self.durable_offset())
            && unstable < work.end_offset
        {
            let bases = work.segments.iter().map(|s| s.base_offset);
            let end = bases.take_while(|base| *base <= unstable).last();
            match end.and_then(|end| job(Some(end))) {
                Some(stable) => work = stable,
                None => return Ok(()),
            }
        }
        let aborted = Aborted::new(producers.aborted());
        let mut from = i64::MIN;
        loop {
            let map = self.map_keys(&work, &aborted, from, ends)?;
            let kept = RefCell::default();
            let seen = |at: &usize| work.segments[*at].base_offset < map.end;
            let end = (0..work.cleanable.end).take_while(seen).count();
            for group in groups(&work.segments, end, work.segment_bytes) {
                let rewrite = Rewrite {
                    partition: self,
                    job: &work,
                    producers: &producers,
                    kept: &kept,
                    filter: Filter {
                        map: &map,
                        aborted: &aborted,
                        now_ms,
                    },
                };
                rewrite.group(group, ends)?;
            }
            if map.end >= work.end_offset {
                return Ok(());
            }
            // More keys than one map takes: the rest in another pass.
            from = map.end;
            work = job(Some(work.end_offset)).ok_or(Stopped::Changed)?;
        }
    }

    /// The newest offsets of the keys from the first dirty segment (or `from`) on, as far as they fit.
    fn map_keys(
        &self,
        job: &Job,
        aborted: &Aborted,
        from: i64,
        ends: Ends<'_>,
    ) -> Result<OffsetMap, Stopped> {
        let dirty = &job.segments[job.cleanable.dirty..job.cleanable.end];
        let from = from.max(dirty.first().map_or(job.end_offset, |s| s.base_offset));
        let mut map = OffsetMap::new(self.shared().compaction_pace().memory_bytes, from);
        for (at, segment) in job.segments.iter().enumerate().take(job.cleanable.end) {
            if at < job.cleanable.dirty || job.end_of(at) <= from {
                continue;
            }
            let view = self.view_of(segment)?;
            let mut each = |header: &BatchHeader, batch: &[u8]| {
                if header.base_offset < from {
                    return Ok(true);
                }
                if header.records_count > 0 && !header.is_control() && !aborted.has(header) {
                    if !map.has_room_for(header) {
                        return Ok(false);
                    }
                    note_keys(&mut map, header, batch)?;
                }
                map.end = header.last_offset() + 1;
                Ok(true)
            };
            if !self.each_in(&view, ends, &mut each)? {
                return Ok(map);
            }
            map.end = view.end_offset;
        }
        Ok(map)
    }

    fn view_of(&self, segment: &SegmentEntry) -> Result<SegmentView, Stopped> {
        let state = self.state.lock();
        let view = self.segment_with(&state, segment.base_offset);
        view.filter(|view| view.entry == *segment)
            .ok_or(Stopped::Changed)
    }

    /// Calls `each` with every batch of a segment, from the medium, until it says no; returns whether it never did.
    fn each_in(&self, view: &SegmentView, ends: Ends<'_>, each: Each<'_>) -> Result<bool, Stopped> {
        let mut reader = SegmentReader::past_caches(&self.shared().files, view);
        let result = self.each_of(&mut reader, ends, each);
        self.finish_reader(&reader, Stage::Compaction);
        result
    }

    fn each_of(
        &self,
        reader: &mut SegmentReader<'_>,
        ends: Ends<'_>,
        each: Each<'_>,
    ) -> Result<bool, Stopped> {
        let view = reader.view();
        let (mut number, mut next) = (0, view.entry.base_offset);
        while number < reader.extents() {
            let loaded = reader.load(number);
            let (extent, behind) = loaded.map_err(|error| self.cannot_read(view, &error))?;
            self.check_extent(view, &extent)?;
            for piece in &extent.batches {
                let batch = &extent.bytes[piece.at..piece.at + piece.length];
                if !each(&piece.header, batch)? {
                    return Ok(false);
                }
            }
            (number, next) = (behind, extent.end_offset);
            let bytes = extent.bytes.len() as u64;
            self.shared().metrics.compaction.read_bytes.inc_by(bytes);
            if ends(bytes) {
                return Err(Stopped::Ended);
            }
        }
        self.note_end(view, next, Stage::Compaction);
        self.check_readable()?;
        Ok(true)
    }

    /// What of an extent cannot be read is told; only what was given up does not stop the work.
    fn check_extent(&self, view: &SegmentView, extent: &Extent) -> Result<(), Stopped> {
        if !self.lists(view) {
            return Err(Stopped::Changed);
        }
        self.note_extent(view, extent, Stage::Compaction);
        self.check_readable()
    }

    fn check_readable(&self) -> Result<(), Stopped> {
        if self.state.lock().quarantined.is_empty() {
            Ok(())
        } else {
            Err(Stopped::Damaged)
        }
    }

    fn cannot_read(&self, view: &SegmentView, error: &io::Error) -> Stopped {
        if !self.lists(view) {
            return Stopped::Changed;
        }
        if error.kind() == io::ErrorKind::NotFound {
            self.scrub_failed(view, error);
            return Stopped::Damaged;
        }
        let file = self
            .shared()
            .files
            .told(&view.entry.key(self.id(), Kind::Log));
        Stopped::NoMeans(format!("{file}: {error}"))
    }
}

/// Segments up to `end_offset` that are still dirty.
fn rest(segments: &[SegmentEntry], end_offset: i64) -> Option<Cleanable> {
    let end = segments.iter().position(|s| s.base_offset >= end_offset)?;
    let dirty = segments[..end].iter().position(|s| !s.cleaned)?;
    Some(Cleanable { dirty, end })
}

fn unreadable(error: ReadError) -> Stopped {
    match error {
        ReadError::Corrupt { .. } => Stopped::Damaged,
        ReadError::OutOfRange { .. } | ReadError::Deleted => Stopped::Changed,
        ReadError::Io { .. } => Stopped::NoMeans(error.to_string()),
    }
}

fn note_keys(map: &mut OffsetMap, header: &BatchHeader, batch: &[u8]) -> Result<(), Stopped> {
    let undecodable = |error| Stopped::Undecodable {
        offset: header.base_offset,
        error,
    };
    let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(undecodable)?;
    for record in RecordWalker::new(&records, header.records_count) {
        let record = record.map_err(undecodable)?;
        if let Some(key) = record.key {
            map.note(key, header.base_offset + i64::from(record.offset_delta));
        }
    }
    Ok(())
}

/// Writes groups of segments anew by one map of keys.
struct Rewrite<'a> {
    partition: &'a Partition,
    job: &'a Job,
    producers: &'a ProducerTable,
    /// Producers that have a transactional batch among those that were kept since their last marker.
    kept: &'a RefCell<HashSet<i64>>,
    filter: Filter<'a>,
}

impl Rewrite<'_> {
    /// Writes these segments anew as one, and swaps it in if it differs.
    fn group(&self, range: Range<usize>, ends: Ends<'_>) -> Result<(), Stopped> {
        let sources = &self.job.segments[range.clone()];
        let newest = sources.iter().map(|s| s.generation).max().unwrap_or(0);
        if newest >= GENERATION_MAX {
            let file = self
                .files()
                .told(&sources[0].key(self.partition.id(), Kind::Log));
            let reason =
                format!("{file}: written anew {newest} times, which is as far as is counted");
            return Err(Stopped::NoMeans(reason));
        }
        let is_seen =
            |at: usize| self.job.segments[at].cleaned || self.job.end_of(at) <= self.filter.map.end;
        let target = SegmentEntry {
            generation: newest + 1,
            cleaned: range.clone().all(is_seen),
            first_timestamp: sources[0].first_timestamp,
            truncations: sources[0].truncations,
            ..SegmentEntry::empty(sources[0].base_offset)
        };
        self.announce(sources, &target)?;
        let written = self.write(sources, target, ends);
        let result = match written {
            Ok(Some(entry)) => return self.swap(sources, entry),
            Ok(None) if target.cleaned && !sources[0].cleaned => self.mark_cleaned(&sources[0]),
            Ok(None) => Ok(()),
            // Retention or a truncation may have taken the new files with the old ones.
            Err(Stopped::NoMeans(_)) if self.manifest(sources).is_err() => Err(Stopped::Changed),
            Err(stopped) => Err(stopped),
        };
        self.give_up(&target, result)
    }

    /// What was written is not needed any more. After a failed sync nobody knows which slot counts: the process ends, and
    /// the next start removes what its slot does not list.
    fn give_up(&self, target: &SegmentEntry, result: Result<(), Stopped>) -> Result<(), Stopped> {
        if !matches!(result, Err(Stopped::Fatal(_))) {
            self.discard(target)?;
        }
        result
    }

    fn files(&self) -> &Files {
        &self.partition.shared().files
    }

    /// The manifest as it is now, and where the segments that were chosen still stand in it.
    fn manifest(&self, sources: &[SegmentEntry]) -> Result<(Manifest, Range<usize>), Stopped> {
        let state = self.partition.state.lock();
        let manifest = &state.slots.manifest;
        let first = manifest.segments.iter().position(|s| s == &sources[0]);
        let place = first.map(|at| at..at + sources.len());
        let place = place.filter(|place| manifest.segments.get(place.clone()) == Some(sources));
        match place {
            Some(place)
                if !self.partition.is_deleted() && !self.partition.is_truncating(&state) =>
            {
                Ok((manifest.clone(), place))
            }
            Some(_) | None => Err(Stopped::Changed),
        }
    }

    /// Names what is about to be created.
    fn announce(&self, sources: &[SegmentEntry], target: &SegmentEntry) -> Result<(), Stopped> {
        let _only_writer = self.partition.folder.lock();
        let (mut manifest, _) = self.manifest(sources)?;
        manifest.created.push(target.base_offset);
        self.partition.state.lock().compacting = Some(target.base_offset);
        let written = self.partition.write_slot(manifest);
        if written.is_err() {
            self.partition.state.lock().compacting = None;
        }
        Ok(written?)
    }

    /// Removes what was written in vain.
    fn discard(&self, target: &SegmentEntry) -> Result<(), Stopped> {
        let _only_writer = self.partition.folder.lock();
        let (id, base) = (self.partition.id(), target.base_offset);
        let listed = self.partition.state.lock().slots.manifest.segments.clone();
        let dir = self.files().partition_dir(id);
        let removed = self.files().unlink_segments(id, &[base], &listed);
        let removed = removed.and_then(|()| self.files().disk().sync_dir(&dir));
        let mut state = self.partition.state.lock();
        state.compacting = None;
        // Not named any more by the next slot, whenever that comes.
        state
            .slots
            .manifest
            .created
            .retain(|created| *created != base);
        drop(state);
        removed.map_err(|error| FlushError::new(dir, error).into())
    }

    fn mark_cleaned(&self, segment: &SegmentEntry) -> Result<(), Stopped> {
        let _only_writer = self.partition.folder.lock();
        let (mut manifest, place) = self.manifest(std::slice::from_ref(segment))?;
        manifest.segments[place.start].cleaned = true;
        Ok(self.partition.write_slot(manifest)?)
    }

    /// One slot write: from here on the new segment counts.
    fn swap(&self, sources: &[SegmentEntry], entry: SegmentEntry) -> Result<(), Stopped> {
        let swapped = {
            let _only_writer = self.partition.folder.lock();
            self.manifest(sources).and_then(|(mut manifest, place)| {
                manifest.segments.splice(place, [entry]);
                manifest.created.retain(|base| *base != entry.base_offset);
                manifest.dropped = sources.iter().map(|s| s.base_offset).collect();
                let dropped = manifest.dropped.clone();
                self.partition.write_slot(manifest)?;
                self.partition.state.lock().compacting = None;
                self.partition.unlink_dropped(&dropped)?;
                self.partition.state.lock().slots.manifest.dropped = Vec::new();
                Ok(())
            })
        };
        let is_open = self.partition.state.lock().compacting.is_some();
        match swapped {
            Err(_) if is_open => self.give_up(&entry, swapped),
            swapped => swapped,
        }
    }

    /// Writes the new segment, synced and read back; `None` when it is what the old one was.
    fn write(
        &self,
        sources: &[SegmentEntry],
        target: SegmentEntry,
        ends: Ends<'_>,
    ) -> Result<Option<SegmentEntry>, Stopped> {
        let (mut epochs, mut end_offset) = (None, target.base_offset);
        let mut output = Output::create(self.partition, target)?;
        let mut before = Sum::default();
        for source in sources {
            let view = self.partition.view_of(source)?;
            output.gaps = Arc::clone(&view.gaps);
            output.epochs = Arc::clone(&view.epochs);
            // As much is written again, at most.
            let mut ends = |bytes| ends(2 * bytes);
            let mut each = |header: &BatchHeader, batch: &[u8]| {
                before.add(batch);
                output.up_to(header.base_offset)?;
                match self.fate(header, batch)? {
                    Fate::Same => output.push(header, batch)?,
                    Fate::Anew(batch) => {
                        let header = BatchHeader::parse(&batch);
                        let header = header.expect("a batch that was just built parses");
                        output.push(&header, &batch)?;
                    }
                    Fate::Gone => output.skip_to(header.last_offset() + 1),
                }
                Ok(true)
            };
            self.partition.each_in(&view, &mut ends, &mut each)?;
            output.up_to(view.end_offset)?;
            end_offset = view.end_offset;
            epochs = Some(view.epochs);
        }
        if output.is_empty() {
            return Ok(None);
        }
        let (entry, after) = output.finish()?;
        if sources.len() == 1 && after == before {
            return Ok(None);
        }
        let view = SegmentView {
            partition: self.partition.id(),
            entry,
            end_offset,
            epochs: epochs.unwrap_or_else(|| [].into()),
            gaps: self.partition.gaps(&self.partition.state.lock()),
            tails: None,
        };
        self.read_back(&view, after, ends)?;
        Ok(Some(entry))
    }

    /// Reads the new segment from the medium: every checksum, every batch, every record, and the same bytes in all.
    fn read_back(&self, view: &SegmentView, wanted: Sum, ends: Ends<'_>) -> Result<(), Stopped> {
        let mut reader = SegmentReader::past_caches(self.files(), view);
        let mut found = Sum::default();
        let mut number = 0;
        let file = || {
            self.files()
                .told(&view.entry.key(view.partition, Kind::Log))
        };
        while number < reader.extents() {
            let loaded = reader.load(number);
            let (extent, behind) =
                loaded.map_err(|e| Stopped::NoMeans(format!("{}: {e}", file())))?;
            found.add(&extent.bytes);
            if let Some((at, reason)) = first_wrong(&extent) {
                return Err(self.misread(view, extent.position + at as u64, reason));
            }
            number = behind;
            if ends(extent.bytes.len() as u64) {
                return Err(Stopped::Ended);
            }
        }
        match reader.bad.first() {
            Some(_) => Err(self.misread(view, 0, Reason::SlotCrc)),
            None if found != wanted => Err(self.misread(view, 0, Reason::ExtentCrc)),
            None => Ok(()),
        }
    }

    /// What was written anew is not what is read: counted and told; the old segment, which still counts, is untouched.
    fn misread(&self, view: &SegmentView, position: u64, reason: Reason) -> Stopped {
        let metrics = &self.partition.shared().metrics;
        metrics.decode_error(Stage::Compaction, Source::Segment, reason);
        let file = self
            .files()
            .told(&view.entry.key(view.partition, Kind::Log));
        tracing::error!(
            file,
            position,
            reason = reason.label(),
            "a segment that was just written does not read back: it is thrown away"
        );
        Stopped::ReadBack { file }
    }
}

/// The first thing in a new extent that is not as it must be: where, and what.
fn first_wrong(extent: &Extent) -> Option<(usize, Reason)> {
    if let Some(hole) = extent.holes.first() {
        return Some((hole.at, hole.reason));
    }
    extent.batches.iter().find_map(|piece| {
        let batch = &extent.bytes[piece.at..piece.at + piece.length];
        let walked = decompressed(batch, DECOMPRESSED_BYTES_MAX).and_then(|records| {
            let mut walker = RecordWalker::new(&records, piece.header.records_count);
            walker.try_for_each(|record| record.map(|_| ()))
        });
        walked.err().map(|error| (piece.at, reason_of(&error)))
    })
}
