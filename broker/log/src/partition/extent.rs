//! Reading one segment: finding the extent that holds an offset or a timestamp, reading it, verifying it.
//!
//! Owns cold reads. Trusts nothing: an extent must match its checksum and every batch its own, `.sum` and `.idx` entries
//! carry checksums and are replaced by what their neighbours imply when they fail. Never writes.

use std::collections::BTreeSet;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskFile, OpenMode};
use crate::files::{FileKey, Files, Kind, read_salvaging, read_up_to};
use crate::ids::PartitionId;
use crate::metrics::Reason;
use crate::partition::ends::Tails;
use crate::partition::format::{
    IDX_ENTRY_BYTES, IdxEntry, SUM_ENTRY_BYTES, SegmentEntry, SumEntry, decode_idx, decode_sum,
};
use crate::partition::lost::{LostRun, Span};
use crate::partition::segments::EXTENT_BYTES_MAX;
use crate::partition::walk::{Expect, Hole, Piece, walk};

/// A verified extent: which batches can be served, which offsets cannot.
#[derive(Debug)]
pub(crate) struct Extent {
    /// Position of its first byte in the segment.
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) bytes: Bytes,
    pub(crate) batches: Vec<Piece>,
    pub(crate) holes: Vec<Hole>,
}

impl Extent {
    /// Memory it takes.
    pub(crate) fn weight_bytes(&self) -> u64 {
        (self.bytes.len() + self.batches.len() * size_of::<Piece>() + size_of::<Extent>()) as u64
    }
}

/// A small file is damaged at this entry; its content was replaced by what its neighbours imply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BadEntry {
    pub(crate) kind_is_sum: bool,
    pub(crate) entry: u64,
}

impl BadEntry {
    /// Whether `other` is the entry behind this one.
    pub(crate) fn is_followed_by(&self, other: &BadEntry) -> bool {
        self.kind_is_sum == other.kind_is_sum && self.entry + 1 == other.entry
    }
}

/// What a reader must know about a segment, copied from the partition's state.
#[derive(Debug, Clone)]
pub(crate) struct SegmentView {
    pub(crate) partition: PartitionId,
    pub(crate) entry: SegmentEntry,
    /// Offset after its last batch.
    pub(crate) end_offset: i64,
    pub(crate) epochs: Arc<[(i32, i64)]>,
    /// Inclusive offset ranges that have no bytes in the segment.
    pub(crate) gaps: Arc<[(i64, i64)]>,
    /// The ends of `.sum` and `.idx`, which the manifest alone holds.
    pub(crate) tails: Option<Arc<Tails>>,
}

impl SegmentView {
    /// Whether the segment is one of these, and was not cut since. A directory that another process writes to shows a cut by the
    /// length alone.
    pub(crate) fn is_in(&self, segments: &[SegmentEntry]) -> bool {
        let (identity, bytes) = (self.entry.identity(), self.entry.log_bytes);
        let is_this = |s: &SegmentEntry| s.identity() == identity && s.log_bytes >= bytes;
        segments.iter().any(is_this)
    }

    /// What should stand between the offset `next` and an extent, and is not known to be missing: an entry of `.sum` that is
    /// out of date passes over it.
    pub(crate) fn passed_over(&self, next: i64, extent: &Extent) -> Option<Hole> {
        let mut from = next.max(self.entry.base_offset);
        for (first, last) in self.gaps.iter() {
            if (*first..=*last).contains(&from) {
                from = last + 1;
            }
        }
        (from < extent.base_offset).then_some(Hole {
            at: 0,
            from,
            to: extent.base_offset - 1,
            reason: Reason::Offsets,
        })
    }
}

/// Reads one segment.
pub(crate) struct SegmentReader<'a> {
    files: &'a Files,
    view: &'a SegmentView,
    /// Entries found damaged on the way.
    pub(crate) bad: BTreeSet<BadEntry>,
    /// The run of lost entries that was met last.
    lost: Option<LostRun>,
    /// Records and bytes decoded, not counting what came from the cache.
    pub(crate) decoded: (u64, u64),
    /// Batches are read from the medium: neither our cache of extents nor the page cache answers or is filled.
    past_caches: bool,
    /// The segment's batches, opened past the page cache.
    direct: Option<Arc<dyn DiskFile>>,
}

impl<'a> SegmentReader<'a> {
    pub(crate) fn new(files: &'a Files, view: &'a SegmentView) -> Self {
        SegmentReader {
            files,
            view,
            bad: BTreeSet::new(),
            lost: None,
            decoded: (0, 0),
            past_caches: false,
            direct: None,
        }
    }

    /// A reader that asks the medium for every batch, and leaves the caches to others.
    pub(crate) fn past_caches(files: &'a Files, view: &'a SegmentView) -> Self {
        SegmentReader {
            past_caches: true,
            ..SegmentReader::new(files, view)
        }
    }

    /// The file with the batches.
    fn log(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        let key = self.key(Kind::Log);
        if !self.past_caches {
            return self.files.open(&key);
        }
        if let Some(file) = &self.direct {
            return Ok(Arc::clone(file));
        }
        let path = self.files.path(&key);
        let file = self.files.disk().open(&path, OpenMode::ReadDirect)?;
        self.direct = Some(Arc::clone(&file));
        Ok(file)
    }

    pub(crate) fn view(&self) -> &'a SegmentView {
        self.view
    }

    /// Size of the entries of a kind of file.
    pub(crate) fn entry_bytes(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Log => 1,
            Kind::Sum => SUM_ENTRY_BYTES as u64,
            Kind::Idx => IDX_ENTRY_BYTES as u64,
        }
    }

    pub(crate) fn key(&self, kind: Kind) -> FileKey {
        self.view.entry.key(self.view.partition, kind)
    }

    /// Number of extents.
    pub(crate) fn extents(&self) -> u64 {
        self.view.entry.sum_bytes / SUM_ENTRY_BYTES as u64
    }

    /// Number of the first extent that ends above `offset`.
    pub(crate) fn extent_with(&mut self, offset: i64) -> io::Result<u64> {
        self.search(|sum| sum.end_offset <= offset)
    }

    /// Number of the first extent that reaches beyond `position`.
    fn extent_at(&mut self, position: u64) -> io::Result<u64> {
        self.search(|sum| sum.position + u64::from(sum.length) <= position)
    }

    /// The first extent for which `below` does not hold; it holds for a prefix.
    fn search(&mut self, below: impl Fn(&SumEntry) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.extents());
        while low < high {
            let middle = low + (high - low) / 2;
            let (sum, last) = self.sum(middle)?;
            if below(&sum) {
                low = last + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The entry of extent `number`. Where it is damaged, an entry without checksum for a piece of the damaged run; then the
    /// second value is the last number that the piece stands for, else `number`.
    fn sum(&mut self, number: u64) -> io::Result<(SumEntry, u64)> {
        if let Some(piece) = self.lost.as_ref().and_then(|run| run.piece(number)) {
            return Ok(piece);
        }
        if let Some(sum) = self.stored_sum(number)? {
            return Ok((sum, number));
        }
        let (numbers, span) = self.lost_around(number)?;
        let run = if span.to.saturating_sub(span.from) > EXTENT_BYTES_MAX as u64 {
            self.cut(&numbers, span)?
        } else {
            LostRun::whole(&numbers, span)
        };
        let piece = run.piece(number).expect("a run has its own numbers");
        self.lost = Some(run);
        Ok(piece)
    }

    /// The run of lost entries around a lost one, and what its neighbours say of it.
    fn lost_around(&mut self, number: u64) -> io::Result<(RangeInclusive<u64>, Span)> {
        let absent = self.absent_sums()?;
        let (mut first, mut last) = (number, number);
        let mut before = None;
        while first > 0 {
            if absent.contains(&(first - 1)) {
                first = absent.start;
                continue;
            }
            before = self.stored_sum(first - 1)?;
            if before.is_some() {
                break;
            }
            first -= 1;
        }
        let mut behind = None;
        while last + 1 < self.extents() {
            if absent.contains(&(last + 1)) {
                last = absent.end - 1;
                continue;
            }
            behind = self.stored_sum(last + 1)?;
            if behind.is_some() {
                break;
            }
            last += 1;
        }
        let entry = &self.view.entry;
        let span = Span {
            from: before.map_or(0, |b| b.position + u64::from(b.length)),
            to: behind.map_or(entry.log_bytes, |b| b.position),
            base_offset: before.map_or(entry.base_offset, |b| b.end_offset),
            end_offset: behind.map_or(self.view.end_offset, |b| b.base_offset),
        };
        Ok((first..=last, span))
    }

    fn cut(&mut self, numbers: &RangeInclusive<u64>, span: Span) -> io::Result<LostRun> {
        let file = self.log()?;
        let expect = Expect {
            base_offset: span.base_offset,
            end_offset: span.end_offset,
            epochs: &self.view.epochs,
            gaps: &self.view.gaps,
            anchors: &[],
        };
        LostRun::cut(numbers, span, expect, |position, length| {
            read_salvaging(&*file, position, length).map(|read| read.bytes)
        })
    }

    /// Numbers of entries that are nowhere: behind the end of the file, and before what the manifest holds. A list that
    /// was cut short, or a manifest that claims too much, is not looked through entry by entry.
    fn absent_sums(&self) -> io::Result<Range<u64>> {
        let held = self.view.tails.as_deref().map_or(0, |t| t.sum.len() as u64);
        let first_held = self.extents().saturating_sub(held / SUM_ENTRY_BYTES as u64);
        Ok(self.stored_entries(Kind::Sum)?..first_held)
    }

    /// Entries that there are in a file, the last one perhaps in part.
    fn stored_entries(&self, kind: Kind) -> io::Result<u64> {
        match self.files.open(&self.key(kind)) {
            Ok(file) => Ok(file.len()?.div_ceil(self.entry_bytes(kind))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// The entry as it is stored; `None` when it does not decode or contradicts the manifest.
    pub(crate) fn stored_sum(&mut self, number: u64) -> io::Result<Option<SumEntry>> {
        let mut bytes = [0; SUM_ENTRY_BYTES];
        let read = self.read_entry(Kind::Sum, number * SUM_ENTRY_BYTES as u64, &mut bytes)?;
        let decoded = decode_sum(self.view.entry.seed(), &bytes[..read]);
        let fits = |sum: &SumEntry| {
            sum.position + u64::from(sum.length) <= self.view.entry.log_bytes
                && sum.end_offset <= self.view.end_offset
        };
        match decoded {
            Ok(sum) if fits(&sum) => Ok(Some(sum)),
            Ok(_) | Err(_) => {
                self.bad.insert(BadEntry {
                    kind_is_sum: true,
                    entry: number,
                });
                Ok(None)
            }
        }
    }

    /// The bytes of an entry that the manifest holds.
    fn tail_entry(&self, kind: Kind, position: u64, length: usize) -> Option<&[u8]> {
        let tails = self.view.tails.as_deref()?;
        let (tail, total) = match kind {
            Kind::Log => return None,
            Kind::Sum => (&tails.sum, self.view.entry.sum_bytes),
            Kind::Idx => (&tails.idx, self.view.entry.idx_bytes),
        };
        let at = position.checked_sub(total.checked_sub(tail.len() as u64)?)? as usize;
        tail.get(at..at + length)
    }

    /// Reads an entry; an unreadable or missing file reads as empty, so that the entry fails its checksum.
    fn read_entry(&self, kind: Kind, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(tail) = self.tail_entry(kind, position, bytes.len()) {
            bytes.copy_from_slice(tail);
            return Ok(bytes.len());
        }
        let file = match self.files.open(&self.key(kind)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(e),
        };
        match read_up_to(&*file, bytes, position) {
            Err(e) if crate::files::is_medium_error(&e) => Ok(0),
            other => other,
        }
    }

    /// Extent `number` (or the piece of a lost run that it is in), verified, and the number of the extent behind it.
    pub(crate) fn load(&mut self, number: u64) -> io::Result<(Arc<Extent>, u64)> {
        let (sum, last) = self.sum(number)?;
        // One that stood for lost entries, which are there again, may reach elsewhere.
        let fits = |extent: &Arc<Extent>| {
            extent.bytes.len() == sum.length as usize && extent.end_offset == sum.end_offset
        };
        let cached = || self.files.cached_extent(self.view, sum.position);
        if !self.past_caches
            && let Some(extent) = cached().filter(fits)
        {
            return Ok((extent, last + 1));
        }
        let lost = |run: &LostRun| run.piece(number).is_some();
        let stored = !self.lost.as_ref().is_some_and(lost);
        let extent = Arc::new(self.read_extent(&sum, stored)?);
        if !self.past_caches {
            self.files.cache_extent(self.view, &extent);
        }
        Ok((extent, last + 1))
    }

    /// Reads and verifies one extent; `has_crc` is false for one whose entry is lost.
    pub(crate) fn read_extent(&mut self, sum: &SumEntry, has_crc: bool) -> io::Result<Extent> {
        let file = self.log()?;
        let read = read_salvaging(&*file, sum.position, sum.length as usize)?;
        let crc_fits = has_crc && crc32c::crc32c(&read.bytes) == sum.crc;
        let expect = Expect {
            base_offset: sum.base_offset,
            end_offset: sum.end_offset,
            epochs: &self.view.epochs,
            gaps: &self.view.gaps,
            anchors: &[],
        };
        let mut walked = walk(&read.bytes, expect);
        if !walked.holes.is_empty() {
            let anchors = self.anchors(sum)?;
            walked = walk(
                &read.bytes,
                Expect {
                    anchors: &anchors,
                    ..expect
                },
            );
        }
        if has_crc && !crc_fits && walked.holes.is_empty() {
            // Intact batches in the right places, and not those that were written: whose they are, none of them says.
            walked.batches.clear();
            walked.holes.push(Hole {
                at: 0,
                from: sum.base_offset,
                to: sum.end_offset - 1,
                reason: Reason::ExtentCrc,
            });
        }
        if read.unreadable {
            for hole in &mut walked.holes {
                hole.reason = Reason::Io;
            }
        }
        let records: i64 = walked
            .batches
            .iter()
            .map(|p| i64::from(p.header.records_count))
            .sum();
        self.decoded.0 += records.max(0) as u64;
        self.decoded.1 += read.bytes.len() as u64;
        Ok(Extent {
            position: sum.position,
            base_offset: sum.base_offset,
            end_offset: sum.end_offset,
            bytes: Bytes::from(read.bytes),
            batches: walked.batches,
            holes: walked.holes,
        })
    }

    /// Index entries that point into an extent, as (offset, position in it).
    fn anchors(&mut self, sum: &SumEntry) -> io::Result<Vec<(i64, usize)>> {
        let end = sum.position + u64::from(sum.length);
        let (first, _) = self.idx_search(|idx| idx.position < sum.position)?;
        let mut anchors = Vec::new();
        for number in first..self.idx_entries()? {
            let Some(idx) = self.idx(number)? else {
                continue;
            };
            if idx.position >= end {
                break;
            }
            if idx.position >= sum.position {
                anchors.push((idx.offset, (idx.position - sum.position) as usize));
            }
        }
        Ok(anchors)
    }

    /// Number of the first index entry for which `below` does not hold (it holds for a prefix), and the entry before it.
    /// Damaged entries are stepped over.
    fn idx_search(
        &mut self,
        below: impl Fn(&IdxEntry) -> bool,
    ) -> io::Result<(u64, Option<IdxEntry>)> {
        let (mut low, mut high) = (0, self.idx_entries()?);
        let mut last_below = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let mut probe = middle;
            let mut found = self.idx(probe)?;
            while found.is_none() && probe + 1 < high {
                probe += 1;
                found = self.idx(probe)?;
            }
            match found {
                Some(idx) if below(&idx) => {
                    last_below = Some(idx);
                    low = probe + 1;
                }
                Some(_) | None => high = middle,
            }
        }
        Ok((low, last_below))
    }

    /// Index entries that can be read. Where the file is too short, those that only the manifest holds do not count: the
    /// index is a help, and is made anew.
    pub(crate) fn idx_entries(&self) -> io::Result<u64> {
        let listed = self.idx_listed();
        let held = self.view.tails.as_deref().map_or(0, |t| t.idx.len() as u64);
        let first_held = listed.saturating_sub(held / IDX_ENTRY_BYTES as u64);
        let stored = self.stored_entries(Kind::Idx)?;
        Ok(if stored < first_held { stored } else { listed })
    }

    /// Index entries that the manifest counts.
    pub(crate) fn idx_listed(&self) -> u64 {
        self.view.entry.idx_bytes / IDX_ENTRY_BYTES as u64
    }

    pub(crate) fn idx(&mut self, number: u64) -> io::Result<Option<IdxEntry>> {
        let mut bytes = [0; IDX_ENTRY_BYTES];
        let read = self.read_entry(Kind::Idx, number * IDX_ENTRY_BYTES as u64, &mut bytes)?;
        match decode_idx(self.view.entry.seed(), &bytes[..read]) {
            Ok(idx) if idx.position < self.view.entry.log_bytes => Ok(Some(idx)),
            Ok(_) | Err(_) => {
                self.bad.insert(BadEntry {
                    kind_is_sum: false,
                    entry: number,
                });
                Ok(None)
            }
        }
    }

    /// Number of an extent such that no batch before it has a timestamp of `timestamp` or more.
    pub(crate) fn extent_for_timestamp(&mut self, timestamp: i64) -> io::Result<u64> {
        let (_, last) = self.idx_search(|idx| idx.max_timestamp_before < timestamp)?;
        self.extent_at(last.map_or(0, |idx| idx.position))
    }
}
