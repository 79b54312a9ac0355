//! Folders whose manifest lost its newest slot: what their segments prove is taken back, with leader epochs and producers.
//!
//! Only durable batches are ever written to a segment, so whatever extent is intact and goes on where the last one ended
//! belongs to the log, whether a manifest still counts it or not.

use std::io;
use std::sync::Arc;

use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use keelson_state::producers::ProducerTable;

use crate::disk::{Durability, OpenMode};
use crate::files::{FileKey, Files, Kind, is_medium_error, read_up_to};
use crate::folders::set_aside;
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::partition::ends::Tails;
use crate::partition::epochs;
use crate::partition::extent::{Extent, SegmentReader, SegmentView};
use crate::partition::format::{
    IDX_ENTRY_BYTES, Manifest, SUM_ENTRY_BYTES, SegmentEntry, SnapshotRef, SumEntry, decode_idx,
    decode_producers, decode_sum, encode_producers, encode_sum,
};
use crate::partition::producers::record;
use crate::partition::segments::record_timestamp;
use crate::partition::slots::Slots;
use crate::partition::walk::{Expect, end_of_suffix, walk};
use crate::shared::Shared;

/// Bytes behind the counted ones that are looked through at once: any batch fits.
const BEHIND_BYTES_MAX: usize = 8 << 20;

/// A manifest from nothing but the files: both slots are lost. The loss is in `problems` already.
pub(crate) fn from_files(
    shared: &Arc<Shared>,
    id: PartitionId,
    names: &[String],
    problems: &mut Vec<UnhealthyRange>,
) -> io::Result<Slots> {
    let mut manifest = Manifest::empty(id);
    let keys = names.iter().filter_map(|name| FileKey::parse(id, name));
    let mut keys: Vec<FileKey> = keys.collect();
    keys.sort_unstable_by_key(|key| (key.base_offset, key.generation));
    let logs: Vec<FileKey> = keys
        .iter()
        .filter(|k| k.kind == Kind::Log)
        .copied()
        .collect();
    manifest.log_start = logs.first().map_or(0, |key| key.base_offset);
    manifest.next_offset = manifest.log_start;
    let mut producers = Producers::newest(&shared.files, id)?;
    for key in &logs {
        add_segment(shared, &mut manifest, &mut producers, key)?;
    }
    for key in keys {
        // The other half of a compaction, before or after its swap: what it holds is in the segments that were chosen.
        let is_listed = |s: &SegmentEntry| s.key(id, key.kind) == key;
        if !manifest.segments.iter().any(is_listed) {
            problems.push(set_aside(shared, &shared.files.path(&key), Some(id))?);
        }
    }
    // Offsets up to the snapshot were assigned, whether a segment still holds them or not.
    let assigned = producers.snapshot.map_or(0, |snapshot| snapshot.offset);
    if assigned > manifest.next_offset {
        manifest.next_offset = assigned;
        // What goes on there, the next start would find.
        extend(&shared.files, &mut manifest, &mut producers)?;
    }
    if manifest.segments.is_empty() {
        manifest.log_start = manifest.next_offset;
    }
    producers.store(&shared.files, &mut manifest)?;
    tracing::error!(
        partition = %id,
        segments = manifest.segments.len(),
        next_offset = manifest.next_offset,
        problems = problems.len(),
        "the manifest is lost and was made anew from the segments"
    );
    let mut slots = Slots::none(id);
    slots.write(&shared.files, manifest)?;
    Ok(slots)
}

/// Takes a segment's file into a manifest that is made from files, in order of base offset and generation. Of two files
/// over the same offsets the older one counts, which has all that the compacted one has, unless it does not reach as far.
fn add_segment(
    shared: &Shared,
    manifest: &mut Manifest,
    producers: &mut Producers,
    key: &FileKey,
) -> io::Result<()> {
    let before = manifest.clone();
    let is_again = |s: &SegmentEntry| s.base_offset == key.base_offset;
    if manifest.segments.last().is_some_and(is_again) {
        manifest.segments.pop();
        manifest.next_offset = key.base_offset;
    }
    if manifest.next_offset > key.base_offset {
        *manifest = before;
        return Ok(());
    }
    manifest.next_offset = key.base_offset;
    manifest.segments.push(SegmentEntry {
        generation: key.generation,
        ..SegmentEntry::empty(key.base_offset)
    });
    extend(&shared.files, manifest, producers)?;
    let is_better = manifest.next_offset > before.next_offset;
    if !is_better && before.segments.last().is_some_and(is_again) {
        *manifest = before;
    }
    Ok(())
}

/// Files with more bytes than their manifest counts: of the last segment, or of one that it names as created. A flush that a
/// crash cut short, or one whose slot the disk lost.
fn longer(files: &Files, manifest: &Manifest) -> io::Result<Vec<(SegmentEntry, u64)>> {
    let last = manifest.segments.last();
    // Of a listed base, compaction was about to write another generation, which is nothing that a flush began.
    let is_listed = |base: &&i64| manifest.segments.iter().any(|s| s.base_offset == **base);
    let created = manifest
        .created
        .iter()
        .filter(|base| !is_listed(base))
        .map(|base| SegmentEntry::empty(*base));
    let mut longer = Vec::new();
    for segment in last.copied().into_iter().chain(created) {
        let key = segment.key(manifest.partition, Kind::Log);
        match files.disk().open(&files.path(&key), OpenMode::Read) {
            Ok(file) if file.len()? > segment.log_bytes => longer.push((segment, file.len()?)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(longer)
}

/// Whether the files hold more than their manifest counts.
pub(crate) fn has_more(files: &Files, manifest: &Manifest) -> io::Result<bool> {
    Ok(!longer(files, manifest)?.is_empty())
}

/// How far the partition had got, by batches behind what its manifest counts that cannot be taken back, as something in front
/// of them is damaged. The WAL has them, unless the disk lost the slot that counted them.
pub(crate) fn reached(files: &Files, manifest: &Manifest) -> io::Result<Option<i64>> {
    let mut reached = None;
    for (segment, length) in longer(files, manifest)? {
        let from = segment
            .log_bytes
            .max(length.saturating_sub(BEHIND_BYTES_MAX as u64));
        let mut behind = vec![0; (length - from) as usize];
        let key = segment.key(manifest.partition, Kind::Log);
        let read = read_entry(files, &key, &mut behind, from)?;
        behind.truncate(read);
        reached = reached.max(end_of_suffix(&behind));
    }
    // A client may have put a batch of any offset into the last header of a record whose own batch is damaged.
    let is_possible = |offset: &i64| *offset > manifest.next_offset && *offset < i64::MAX / 2;
    Ok(reached.filter(is_possible))
}

/// The offsets (inclusive) that a start would not take back, though batches behind them prove that they were assigned.
pub(crate) fn lost_behind(files: &Files, manifest: &Manifest) -> io::Result<Option<(i64, i64)>> {
    let Some(reached) = reached(files, manifest)? else {
        return Ok(None);
    };
    let mut next = manifest.next_offset;
    for (mut segment, _) in longer(files, manifest)? {
        if segment.log_bytes == 0 && segment.base_offset < next {
            continue;
        }
        let mut end = next.max(segment.base_offset);
        while let Some(behind) = next_behind(files, manifest.partition, &segment, end)? {
            count(&mut segment, &behind.sum);
            end = behind.sum.end_offset;
            next = end;
        }
    }
    Ok((next < reached).then_some((next, reached - 1)))
}

/// A slot is lost, perhaps the newest: extents behind what the other one counts are taken back. A `damaged` one is
/// written anew in any case.
pub(crate) fn roll_forward(
    shared: &Arc<Shared>,
    id: PartitionId,
    slots: &mut Slots,
    damaged: bool,
) -> io::Result<()> {
    let mut manifest = slots.manifest.clone();
    let mut producers = Producers::named(&shared.files, &manifest)?;
    if !manifest.segments.is_empty() {
        extend(&shared.files, &mut manifest, &mut producers)?;
    }
    let mut unused = Vec::new();
    for base in std::mem::take(&mut manifest.created) {
        if manifest.segments.iter().any(|s| s.base_offset == base) {
            // What compaction was about to write anew; the files of the listed generation count.
            unused.push(base);
            continue;
        }
        let before = manifest.clone();
        if base >= manifest.next_offset {
            manifest.segments.push(SegmentEntry::empty(base));
            manifest.next_offset = base;
            extend(&shared.files, &mut manifest, &mut producers)?;
        }
        if manifest
            .segments
            .last()
            .is_none_or(|s| s.base_offset != base || s.log_bytes == 0)
        {
            manifest = before;
            unused.push(base);
        }
    }
    manifest.created = unused;
    if manifest.next_offset == slots.manifest.next_offset && !damaged {
        return Ok(());
    }
    tracing::info!(
        partition = %id,
        from = slots.manifest.next_offset,
        to = manifest.next_offset,
        "the segments prove more than the manifest counts"
    );
    producers.store(&shared.files, &mut manifest)?;
    slots.write(&shared.files, manifest)
}

/// What is known of producers while segments are walked: the newest snapshot that decodes, and the batches behind it.
struct Producers {
    snapshot: Option<SnapshotRef>,
    table: ProducerTable,
    changed: bool,
    /// The snapshot that counts is damaged: it stays named, so that whoever needs the table tells, and reads all batches.
    is_lost: bool,
}

impl Producers {
    /// The newest snapshot of a folder whose manifest is lost. It is written anew in any case.
    fn newest(files: &Files, id: PartitionId) -> io::Result<Producers> {
        let (first, second) = (Producers::of(files, id, 1)?, Producers::of(files, id, 2)?);
        let offset = |producers: &Producers| producers.snapshot.map(|s| s.offset);
        let newest = if offset(&second) > offset(&first) {
            second
        } else {
            first
        };
        Ok(Producers {
            changed: newest.snapshot.is_some(),
            ..newest
        })
    }

    /// The snapshot that a manifest names; the other file may be one that was never synced.
    fn named(files: &Files, manifest: &Manifest) -> io::Result<Producers> {
        let file = manifest.snapshot.map_or(0, |s| s.file);
        let named = Producers::of(files, manifest.partition, file)?;
        Ok(Producers {
            is_lost: manifest.snapshot.is_some() && named.snapshot.is_none(),
            snapshot: manifest.snapshot,
            ..named
        })
    }

    fn of(files: &Files, id: PartitionId, file: u8) -> io::Result<Producers> {
        let path = files.partition_dir(id).join(format!("producers.{file}"));
        let bytes = files.read_whole(&path)?.unwrap_or_default();
        let decoded = decode_producers(&bytes, id)
            .ok()
            .and_then(|(offset, table)| {
                let snapshot = SnapshotRef { file, offset };
                Some((snapshot, ProducerTable::decode(table).ok()?))
            });
        Ok(Producers {
            snapshot: decoded.as_ref().map(|(snapshot, _)| *snapshot),
            table: decoded.map_or_else(ProducerTable::new, |(_, table)| table),
            changed: false,
            is_lost: false,
        })
    }

    fn note(&mut self, header: &BatchHeader, records: &[u8]) {
        let is_known = self.snapshot.is_some_and(|s| header.base_offset < s.offset);
        if !is_known && header.producer_id >= 0 {
            record(&mut self.table, header, records);
            self.changed = true;
        }
    }

    /// Names the snapshot in a manifest; a new one is written where the batches say more.
    fn store(&self, files: &Files, manifest: &mut Manifest) -> io::Result<()> {
        manifest.snapshot = self.snapshot;
        if !self.changed || self.is_lost {
            return Ok(());
        }
        let file = match self.snapshot {
            Some(SnapshotRef { file: 1, .. }) => 2,
            Some(_) | None => 1,
        };
        let offset = manifest.next_offset;
        let dir = files.partition_dir(manifest.partition);
        let bytes = encode_producers(manifest.partition, offset, &self.table.encode());
        files
            .write_whole(&dir.join(format!("producers.{file}")), &bytes)?
            .sync_data()?;
        files.disk().sync_dir(&dir)?;
        manifest.snapshot = Some(SnapshotRef { file, offset });
        Ok(())
    }
}

/// An intact extent behind what counts.
struct Behind {
    sum: SumEntry,
    /// Its checksum was made when the batches were written.
    is_vouched: bool,
    extent: Extent,
}

/// The extent behind a segment's counted length, if it goes on at `next` and is whole.
fn next_behind(
    files: &Files,
    partition: PartitionId,
    segment: &SegmentEntry,
    next: i64,
) -> io::Result<Option<Behind>> {
    let Some((sum, is_vouched)) = entry_behind(files, partition, segment, next)? else {
        return Ok(None);
    };
    let view = SegmentView {
        partition,
        entry: SegmentEntry {
            log_bytes: sum.position + u64::from(sum.length),
            ..*segment
        },
        end_offset: sum.end_offset,
        // The slot that is lost may have started one; the extent's own CRC covers what stands in the batches.
        epochs: Arc::new([]),
        gaps: Arc::new([]),
        tails: None,
    };
    let extent = match SegmentReader::new(files, &view).read_extent(&sum, true) {
        Ok(extent) if extent.holes.is_empty() => extent,
        Ok(_) => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(Behind {
        sum,
        is_vouched,
        extent,
    }))
}

fn count(segment: &mut SegmentEntry, sum: &SumEntry) {
    segment.log_bytes += u64::from(sum.length);
    segment.sum_bytes += SUM_ENTRY_BYTES as u64;
}

/// Takes intact extents behind the last segment's counted length into the manifest.
fn extend(files: &Files, manifest: &mut Manifest, producers: &mut Producers) -> io::Result<()> {
    let Some(mut segment) = manifest.segments.pop() else {
        return Ok(());
    };
    let mut next = manifest.next_offset;
    while let Some(behind) = next_behind(files, manifest.partition, &segment, next)? {
        let Behind {
            sum,
            is_vouched,
            extent,
        } = behind;
        write_again(files, manifest.partition, &segment, &sum, &extent.bytes)?;
        for piece in &extent.batches {
            let header = &piece.header;
            let start = (header.partition_leader_epoch, header.base_offset);
            epochs::note(&mut manifest.epochs, start, is_vouched);
            let batch = &extent.bytes[piece.at..piece.at + piece.length];
            producers.note(header, &batch[BATCH_HEADER_BYTES..]);
        }
        let newest = extent
            .batches
            .iter()
            .map(|p| record_timestamp(&p.header))
            .max();
        segment.max_timestamp = segment.max_timestamp.max(newest.unwrap_or(i64::MIN));
        if segment.log_bytes == 0 {
            segment.first_timestamp = extent
                .batches
                .first()
                .map_or(-1, |p| p.header.max_timestamp);
        }
        count(&mut segment, &sum);
        next = sum.end_offset;
    }
    segment.idx_bytes = index_bytes(files, manifest.partition, &segment)?;
    for kind in Kind::ALL {
        let key = segment.key(manifest.partition, kind);
        files.open_or_make(&key)?.sync_data()?;
    }
    files
        .disk()
        .sync_dir(&files.partition_dir(manifest.partition))?;
    manifest.tails = Tails::default();
    manifest.segments.push(segment);
    manifest.next_offset = next;
    Ok(())
}

/// An extent that is taken back is written again in place: a sync of it may have failed, and only the cache has it.
fn write_again(
    files: &Files,
    partition: PartitionId,
    segment: &SegmentEntry,
    sum: &SumEntry,
    bytes: &[u8],
) -> io::Result<()> {
    let entry = encode_sum(segment.seed(), sum);
    for (kind, bytes, position) in [
        (Kind::Log, bytes, sum.position),
        (Kind::Sum, &entry[..], segment.sum_bytes),
    ] {
        let key = segment.key(partition, kind);
        let file = files.open_or_make(&key)?;
        file.write_at(bytes, position, Durability::Later)?;
    }
    Ok(())
}

/// The `.sum` entry behind those that count: as it stands there, or as the batches behind the counted ones imply it,
/// since that file is not synced with each flush. The second value: its checksum was made when the batches were written.
fn entry_behind(
    files: &Files,
    partition: PartitionId,
    segment: &SegmentEntry,
    next: i64,
) -> io::Result<Option<(SumEntry, bool)>> {
    let mut bytes = [0; SUM_ENTRY_BYTES];
    let mut key = segment.key(partition, Kind::Sum);
    let read = read_entry(files, &key, &mut bytes, segment.sum_bytes)?;
    let stored = decode_sum(segment.seed(), &bytes[..read]).ok();
    let fits = |sum: &SumEntry| sum.position == segment.log_bytes && sum.base_offset >= next;
    if let Some(sum) = stored.filter(fits) {
        return Ok(Some((sum, true)));
    }
    key.kind = Kind::Log;
    let length = match files.disk().open(&files.path(&key), OpenMode::Read) {
        Ok(file) => file.len()?.saturating_sub(segment.log_bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    let mut behind = vec![0; BEHIND_BYTES_MAX.min(length as usize)];
    let read = read_entry(files, &key, &mut behind, segment.log_bytes)?;
    behind.truncate(read);
    let expect = Expect {
        base_offset: next,
        end_offset: i64::MAX,
        epochs: &[],
        gaps: &[],
        anchors: &[],
    };
    let found = walk(&behind, expect);
    let first_hole = found.holes.first().map_or(behind.len(), |hole| hole.at);
    let whole: Vec<_> = found
        .batches
        .iter()
        .take_while(|p| p.at < first_hole)
        .collect();
    let Some(last) = whole.last() else {
        return Ok(None);
    };
    let length = last.at + last.length;
    let sum = SumEntry {
        position: segment.log_bytes,
        base_offset: next,
        end_offset: last.header.last_offset() + 1,
        length: length as u32,
        crc: crc32c::crc32c(&behind[..length]),
        batches: whole.len() as u32,
    };
    Ok(Some((sum, false)))
}

/// Bytes of the `.idx` entries that point into what counts.
fn index_bytes(files: &Files, partition: PartitionId, segment: &SegmentEntry) -> io::Result<u64> {
    let key = segment.key(partition, Kind::Idx);
    let mut bytes = [0; IDX_ENTRY_BYTES];
    let mut counted = 0;
    loop {
        let read = read_entry(files, &key, &mut bytes, counted)?;
        match decode_idx(segment.seed(), &bytes[..read]) {
            Ok(entry) if entry.position < segment.log_bytes => counted += IDX_ENTRY_BYTES as u64,
            Ok(_) | Err(_) => return Ok(counted),
        }
    }
}

fn read_entry(files: &Files, key: &FileKey, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    match files.disk().open(&files.path(key), OpenMode::Read) {
        Ok(file) => match read_up_to(&*file, bytes, position) {
            Err(e) if is_medium_error(&e) => Ok(0),
            read => read,
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}
