//! `log verify`: reads a data directory, offline or beside a running broker, and says what does not decode. Never writes.
//!
//! One line per problem: `file`, `position`, `topic`, `partition`, `offsets`, `reason`. A torn tail is reported and is no
//! problem.

mod spans;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use keelson_state::producers::ProducerTable;

use crate::files::{FileKey, Kind};
use crate::ids::{PartitionId, TopicId};
use crate::losses::{LOSSES, uncovered};
use crate::metrics::{Reason, Source};
use crate::node::NODE_META;
use crate::offline::{Directory, Folder, views};
use crate::partition::extent::{SegmentReader, SegmentView};
use crate::partition::format::{IDX_ENTRY_BYTES, Manifest, decode_producers};
use crate::partition::slots::{MANIFEST, MANIFEST_NEW};
use crate::salvage::lost_behind;
use crate::wal::{FrameBody, Recovered};
use spans::Spans;

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Ranges or files that do not decode.
    pub problems: u64,
    /// Torn tails, which are no problem.
    pub torn_tails: u64,
    /// Batches that decode.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why a pass could not look (exit code 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(pub(crate) String);

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        VerifyError(error.to_string())
    }
}

/// Gives a topic its name, as the metadata log knows it.
pub type Names<'a> = &'a dyn Fn(TopicId) -> Option<String>;

/// Reads everything under `data_dir` and writes one line per problem.
pub fn verify(
    data_dir: &Path,
    names: Names<'_>,
    out: &mut dyn Write,
) -> Result<Report, VerifyError> {
    let directory = Directory::open(data_dir)?;
    verify_directory(&directory, names, out)
}

pub(crate) fn verify_directory(
    directory: &Directory,
    names: Names<'_>,
    out: &mut dyn Write,
) -> Result<Report, VerifyError> {
    let mut pass = Pass {
        directory,
        names,
        out,
        report: Report::default(),
        told: BTreeSet::new(),
        spans: Spans::default(),
    };
    if let Some(reason) = directory.losses_damage {
        pass.problem(&Place::file(LOSSES.to_owned(), reason, Source::Snapshot))?;
    }
    for (position, reason) in &directory.node_damage {
        pass.slot(&Place {
            position: *position,
            ..Place::file(NODE_META.to_owned(), *reason, Source::Snapshot)
        })?;
    }
    pass.wal()?;
    for folder in directory.folders()? {
        match folder {
            Folder::Partition(id) => pass.partition(id)?,
            Folder::Unknown(name) => {
                pass.problem(&Place::file(name, Reason::UnlistedFile, Source::Segment))?
            }
        }
    }
    pass.never_flushed()?;
    Ok(pass.report)
}

/// Where something does not decode.
struct Place {
    file: String,
    position: u64,
    partition: Option<PartitionId>,
    offsets: Option<(i64, i64)>,
    reason: Reason,
    source: Source,
}

impl Place {
    fn file(file: String, reason: Reason, source: Source) -> Self {
        Place {
            file,
            position: 0,
            partition: None,
            offsets: None,
            reason,
            source,
        }
    }
}

struct Pass<'a> {
    directory: &'a Directory,
    names: Names<'a>,
    out: &'a mut dyn Write,
    report: Report,
    /// Lost ranges that were told, so that WAL and manifest do not tell the same twice.
    told: BTreeSet<(PartitionId, i64, i64)>,
    /// What the WAL says of offsets. The folders of partitions that it deletes are on the way out.
    spans: Spans,
}

impl Pass<'_> {
    fn problem(&mut self, place: &Place) -> Result<(), VerifyError> {
        if let (Some(id), Some((from, to))) = (place.partition, place.offsets) {
            if !self.told.insert((id, from, to)) {
                return Ok(());
            }
            // What was given up is no problem any more.
            let given_up = self.directory.losses.of(id);
            let given_up = given_up.map_or(&[][..], |g| &g.ranges);
            let rest = uncovered(given_up.iter().copied(), from, to);
            return rest
                .into_iter()
                .try_for_each(|offsets| self.line(place, Some(offsets)));
        }
        self.line(place, place.offsets)
    }

    /// A slot that is not whole while the other one counts: a problem after a clean stop only.
    fn slot(&mut self, place: &Place) -> Result<(), VerifyError> {
        if self.directory.is_stopped {
            return self.problem(place);
        }
        writeln!(
            self.out,
            "one slot is not whole, the other counts (no error): file={} position={} reason={}",
            place.file, place.position, place.reason
        )?;
        Ok(())
    }

    fn line(&mut self, place: &Place, offsets: Option<(i64, i64)>) -> Result<(), VerifyError> {
        self.report.problems += 1;
        let (topic, partition) = match place.partition {
            Some(id) => {
                let name = (self.names)(id.topic).unwrap_or_else(|| id.topic.to_string());
                (name, id.index.to_string())
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        let offsets = offsets.map_or_else(|| "-".to_owned(), |(from, to)| format!("{from}..={to}"));
        writeln!(
            self.out,
            "file={} position={} topic={topic} partition={partition} offsets={offsets} reason={} source={}",
            place.file, place.position, place.reason, place.source
        )?;
        Ok(())
    }

    fn wal(&mut self) -> Result<(), VerifyError> {
        let mut scan = self.directory.wal()?;
        let damaged = scan.damaged();
        for (file, position, reason) in damaged.slots {
            let file = file.display().to_string();
            self.slot(&Place {
                position,
                ..Place::file(file, reason, Source::Checkpoint)
            })?;
        }
        for (file, reason) in damaged.heads {
            let file = file.display().to_string();
            self.problem(&Place::file(file, reason, Source::Wal))?;
        }
        while let Some(step) = scan.next()? {
            let group = match step {
                Recovered::Torn(torn) => {
                    self.report.torn_tails += 1;
                    writeln!(
                        self.out,
                        "torn tail (never acknowledged, no error): file={} position={} bytes={}",
                        torn.file.display(),
                        torn.position,
                        torn.bytes
                    )?;
                    continue;
                }
                Recovered::Group(group) => group,
            };
            let file = group.file.display().to_string();
            self.report.bytes += group.length;
            let bodies = group.frames.iter().map(|frame| &frame.frame.body);
            let batches = bodies.filter(|body| matches!(body, FrameBody::Append { .. }));
            self.report.batches += batches.count() as u64;
            self.spans.group(&group);
            for lost in &group.lost {
                self.problem(&Place {
                    file: file.clone(),
                    position: lost.file_position,
                    partition: Some(lost.partition),
                    offsets: Some((lost.base_offset, lost.last_offset)),
                    reason: lost.reason,
                    source: Source::Wal,
                })?;
            }
            // A group that was given up is no problem any more.
            let given_up = self.directory.losses.groups().contains(&group.seq);
            if let Some(reason) = group.damage.filter(|_| group.lost.is_empty() && !given_up) {
                let position = group.position;
                self.problem(&Place {
                    position,
                    ..Place::file(file, reason, Source::Wal)
                })?;
            }
        }
        Ok(())
    }

    fn partition(&mut self, id: PartitionId) -> Result<(), VerifyError> {
        if self.spans.is_deleted(id) {
            return Ok(());
        }
        let before = self.directory.manifest(id)?;
        let manifest_file = self
            .directory
            .files
            .relative(&self.directory.files.partition_dir(id).join(MANIFEST));
        let Some(loaded) = before else {
            // A folder without a manifest holds nothing yet.
            for name in self.directory.names(id)? {
                if name != MANIFEST && name != MANIFEST_NEW {
                    let file = format!("{manifest_file}/../{name}");
                    self.problem(&Place::file(file, Reason::UnlistedFile, Source::Segment))?;
                }
            }
            return Ok(());
        };
        let Some(slots) = loaded.slots else {
            let (position, reason) = loaded
                .damaged
                .first()
                .copied()
                .unwrap_or((0, Reason::Magic));
            return self.problem(&Place {
                position,
                ..Place::file(manifest_file, reason, Source::Snapshot)
            });
        };
        for (position, reason) in &loaded.damaged {
            self.slot(&Place {
                position: *position,
                partition: Some(id),
                ..Place::file(manifest_file.clone(), *reason, Source::Snapshot)
            })?;
        }
        let manifest = slots.manifest;
        if manifest.deleted {
            return Ok(());
        }
        for view in views(&manifest, &self.directory.losses) {
            self.segment(&view, manifest.log_start)?;
        }
        for range in manifest
            .quarantined
            .iter()
            .filter(|r| r.source == Source::Wal)
        {
            self.problem(&Place {
                file: range.file.clone(),
                position: range.position,
                partition: Some(id),
                offsets: Some((range.from, range.to)),
                reason: range.reason,
                source: range.source,
            })?;
        }
        self.missing(id, &self.spans.missing(&manifest))?;
        self.uncounted(id, &manifest)?;
        self.snapshot(id, &manifest)?;
        self.unlisted(id, &manifest)
    }

    /// Offsets that neither a segment nor the WAL holds.
    fn missing(&mut self, id: PartitionId, ranges: &[(i64, i64)]) -> Result<(), VerifyError> {
        let files = &self.directory.files;
        let file = files.relative(&files.partition_dir(id));
        ranges.iter().try_for_each(|offsets| {
            self.problem(&Place {
                partition: Some(id),
                offsets: Some(*offsets),
                ..Place::file(file.clone(), Reason::Offsets, Source::Wal)
            })
        })
    }

    /// Batches behind damage that no slot counts, and no append of the WAL explains.
    fn uncounted(&mut self, id: PartitionId, manifest: &Manifest) -> Result<(), VerifyError> {
        let Some(lost) = lost_behind(&self.directory.files, manifest)? else {
            return Ok(());
        };
        // Beside a running broker, the WAL may have gone on since it was read, and the folder, too.
        let goes_on = self.spans.goes_on(manifest) || self.spans_now()?.goes_on(manifest);
        let now = self.directory.manifest(id)?.and_then(|loaded| loaded.slots);
        match goes_on || now.is_none_or(|slots| slots.manifest.seq != manifest.seq) {
            true => Ok(()),
            false => self.missing(id, &[lost]),
        }
    }

    fn spans_now(&self) -> Result<Spans, VerifyError> {
        let mut now = Spans::default();
        let mut scan = self.directory.wal()?;
        while let Some(step) = scan.next()? {
            if let Recovered::Group(group) = step {
                now.group(&group);
            }
        }
        Ok(now)
    }

    /// Partitions that are only in the WAL: it must hold them from their first offset on.
    fn never_flushed(&mut self) -> Result<(), VerifyError> {
        let missing = |spans: &Spans, id| spans.missing(&Manifest::empty(id));
        let ids: Vec<PartitionId> = self.spans.partitions().collect();
        for id in ids {
            let found = missing(&self.spans, id);
            if found.is_empty()
                || self.spans.is_deleted(id)
                || self.directory.manifest(id)?.is_some()
            {
                continue;
            }
            // Beside a running broker, a deletion may have taken the folder since the WAL was read.
            let now = self.spans_now()?;
            if !now.is_deleted(id) && missing(&now, id) == found {
                self.missing(id, &found)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, view: &SegmentView, log_start: i64) -> Result<(), VerifyError> {
        let mut reader = SegmentReader::new(&self.directory.files, view);
        let log = self.directory.files.told(&reader.key(Kind::Log));
        let mut positions = BTreeSet::new();
        let mut next = view.entry.base_offset;
        let mut number = 0;
        while number < reader.extents() {
            let (extent, behind) = match reader.load(number) {
                Ok(loaded) => loaded,
                Err(error) => return self.unreadable(view, &log, &error),
            };
            for piece in &extent.batches {
                self.report.batches += 1;
                self.report.bytes += piece.length as u64;
                positions.insert((extent.position + piece.at as u64, piece.header.base_offset));
            }
            let passed_over = view.passed_over(next, &extent);
            let holes = passed_over.iter().chain(&extent.holes);
            for hole in holes.filter(|h| h.to >= log_start) {
                self.problem(&Place {
                    file: log.clone(),
                    position: extent.position + hole.at as u64,
                    partition: Some(view.partition),
                    offsets: Some((hole.from, hole.to)),
                    reason: hole.reason,
                    source: Source::Segment,
                })?;
            }
            next = extent.end_offset;
            number = behind;
        }
        self.behind(view, (log, next), log_start)?;
        self.index(&mut reader, view, &positions)
    }

    /// The manifest counts offsets that no extent reaches: nothing else would tell of them.
    fn behind(
        &mut self,
        view: &SegmentView,
        (log, next): (String, i64),
        log_start: i64,
    ) -> Result<(), VerifyError> {
        let gaps = view.gaps.iter().copied();
        let lost = uncovered(gaps, next.max(log_start), view.end_offset - 1);
        if lost.is_empty() || !self.lists(view)? {
            return Ok(());
        }
        for offsets in lost {
            self.problem(&Place {
                position: view.entry.log_bytes,
                partition: Some(view.partition),
                offsets: Some(offsets),
                ..Place::file(log.clone(), Reason::Truncated, Source::Segment)
            })?;
        }
        Ok(())
    }

    /// Every index entry must decode and point at a batch (or at a damaged one, which was told).
    fn index(
        &mut self,
        reader: &mut SegmentReader<'_>,
        view: &SegmentView,
        positions: &BTreeSet<(u64, i64)>,
    ) -> Result<(), VerifyError> {
        let count = reader.idx_entries()?;
        if count < reader.idx_listed() {
            let position = count * IDX_ENTRY_BYTES as u64;
            self.index_problem(view, Kind::Idx, position, Reason::Truncated)?;
        }
        for number in 0..count {
            let position = number * IDX_ENTRY_BYTES as u64;
            if let Some(entry) = reader.idx(number)?
                && !positions.contains(&(entry.position, entry.offset))
                && !self.is_told(view.partition, entry.offset)
            {
                self.index_problem(view, Kind::Idx, position, Reason::IndexEntry)?;
            }
        }
        for bad in std::mem::take(&mut reader.bad) {
            let kind = if bad.kind_is_sum {
                Kind::Sum
            } else {
                Kind::Idx
            };
            self.index_problem(
                view,
                kind,
                bad.entry * reader.entry_bytes(kind),
                Reason::SlotCrc,
            )?;
        }
        Ok(())
    }

    fn is_told(&self, id: PartitionId, offset: i64) -> bool {
        self.told
            .iter()
            .any(|(p, from, to)| *p == id && (*from..=*to).contains(&offset))
    }

    fn index_problem(
        &mut self,
        view: &SegmentView,
        kind: Kind,
        position: u64,
        reason: Reason,
    ) -> Result<(), VerifyError> {
        let key = view.entry.key(view.partition, kind);
        self.problem(&Place {
            file: self.directory.files.told(&key),
            position,
            partition: Some(view.partition),
            offsets: None,
            reason,
            source: Source::Index,
        })
    }

    /// Whether the segment still belongs to its partition, as long as it was: beside a running broker, retention, a deletion
    /// or a truncation may have taken it since its manifest was read.
    fn lists(&self, view: &SegmentView) -> Result<bool, VerifyError> {
        let now = self.directory.manifest(view.partition)?;
        let now = now.and_then(|loaded| loaded.slots);
        Ok(now.is_some_and(|slots| view.is_in(&slots.manifest.segments)))
    }

    /// A `.log` that is not there: lost, unless retention or a deletion took it while this pass looked.
    fn unreadable(
        &mut self,
        view: &SegmentView,
        log: &str,
        error: &io::Error,
    ) -> Result<(), VerifyError> {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(VerifyError(format!("cannot read {log}: {error}")));
        }
        if !self.lists(view)? {
            return Ok(());
        }
        self.problem(&Place {
            file: log.to_owned(),
            position: 0,
            partition: Some(view.partition),
            offsets: Some((view.entry.base_offset, view.end_offset - 1)),
            reason: Reason::MissingFile,
            source: Source::Segment,
        })
    }

    fn snapshot(&mut self, id: PartitionId, manifest: &Manifest) -> Result<(), VerifyError> {
        let Some(snapshot) = manifest.snapshot else {
            return Ok(());
        };
        let files = &self.directory.files;
        let path = files
            .partition_dir(id)
            .join(format!("producers.{}", snapshot.file));
        let reason = match files.read_whole(&path)? {
            None => Some(Reason::MissingFile),
            Some(bytes) => match decode_producers(&bytes, id) {
                Err(reason) => Some(reason),
                // Beside a running broker the file may be one write ahead of the manifest that was read.
                Ok((offset, table)) if offset >= snapshot.offset => {
                    ProducerTable::decode(table).err().map(|_| Reason::Length)
                }
                Ok(_) => Some(Reason::Offsets),
            },
        };
        let Some(reason) = reason else { return Ok(()) };
        let still = self.directory.manifest(id)?.and_then(|l| l.slots);
        if still.is_none_or(|slots| slots.manifest.seq != manifest.seq) {
            return Ok(());
        }
        let file = self.directory.files.relative(&path);
        self.problem(&Place {
            partition: Some(id),
            ..Place::file(file, reason, Source::Snapshot)
        })
    }

    fn unlisted(&mut self, id: PartitionId, manifest: &Manifest) -> Result<(), VerifyError> {
        for name in self.directory.names(id)? {
            let known = match FileKey::parse(id, &name) {
                Some(key) => {
                    manifest.segments.iter().any(|s| s.key(id, key.kind) == key)
                        || manifest.created.contains(&key.base_offset)
                        || manifest.dropped.contains(&key.base_offset)
                        // Beside a running broker: made after the manifest was read.
                        || key.base_offset >= manifest.next_offset
                }
                None => {
                    [MANIFEST, MANIFEST_NEW, "producers.1", "producers.2"].contains(&name.as_str())
                }
            };
            // Beside a running broker, a compaction may have gone on since the manifest was read.
            let now = || Ok::<_, VerifyError>(self.directory.manifest(id)?.and_then(|l| l.slots));
            if !known && now()?.is_some_and(|slots| slots.manifest.seq == manifest.seq) {
                let path = self.directory.files.partition_dir(id).join(&name);
                let file = self.directory.files.relative(&path);
                self.problem(&Place {
                    partition: Some(id),
                    ..Place::file(file, Reason::UnlistedFile, Source::Segment)
                })?;
            }
        }
        Ok(())
    }
}
