//! Folders whose manifest lost its newest slot: what their segments prove is taken back.
//!
//! Only durable batches are ever written to a segment, so whatever extent is intact and goes on where the last one ended
//! belongs to the log, whether a manifest still counts it or not.

use std::io;
use std::sync::Arc;

use crate::disk::OpenMode;
use crate::files::{FileKey, Files, Kind, read_up_to};
use crate::health::UnhealthyRange;
use crate::ids::PartitionId;
use crate::partition::extent::{SegmentReader, SegmentView};
use crate::partition::format::{
    IDX_ENTRY_BYTES, Manifest, SUM_ENTRY_BYTES, SegmentEntry, SnapshotRef, SumEntry, Tails,
    decode_idx, decode_producers, decode_sum,
};
use crate::partition::slots::Slots;
use crate::shared::Shared;

/// A manifest from nothing but the files: both slots are lost. The loss is in `problems` already.
pub(crate) fn from_files(
    shared: &Arc<Shared>,
    id: PartitionId,
    names: &[String],
    problems: &mut [UnhealthyRange],
) -> io::Result<Slots> {
    let mut manifest = Manifest::empty(id);
    let mut bases: Vec<i64> = names
        .iter()
        .filter_map(|name| FileKey::parse(id, name))
        .filter(|key| key.kind == Kind::Log)
        .map(|key| key.base_offset)
        .collect();
    bases.sort_unstable();
    manifest.log_start = bases.first().copied().unwrap_or(0);
    manifest.next_offset = manifest.log_start;
    for base in bases {
        manifest.next_offset = manifest.next_offset.max(base);
        manifest.segments.push(empty_segment(base));
        extend(&shared.files, &mut manifest)?;
    }
    for file in [1, 2] {
        let path = shared
            .files
            .partition_dir(id)
            .join(format!("producers.{file}"));
        let Some(bytes) = shared.files.read_whole(&path)? else {
            continue;
        };
        if let Ok((offset, _)) = decode_producers(&bytes)
            && manifest.snapshot.is_none_or(|s| s.offset < offset)
        {
            manifest.snapshot = Some(SnapshotRef { file, offset });
        }
    }
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

/// One slot is lost, perhaps the newest: extents behind what the other one counts are taken back.
pub(crate) fn roll_forward(
    shared: &Arc<Shared>,
    id: PartitionId,
    slots: &mut Slots,
) -> io::Result<()> {
    let mut manifest = slots.manifest.clone();
    if !manifest.segments.is_empty() {
        extend(&shared.files, &mut manifest)?;
    }
    for base in std::mem::take(&mut manifest.created) {
        let known = manifest.segments.iter().any(|s| s.base_offset == base);
        if known || base < manifest.next_offset {
            continue;
        }
        let before = manifest.clone();
        manifest.segments.push(empty_segment(base));
        manifest.next_offset = base;
        extend(&shared.files, &mut manifest)?;
        if manifest.segments.last().is_some_and(|s| s.log_bytes == 0) {
            manifest = Manifest {
                created: vec![base],
                ..before
            };
        }
    }
    if manifest.next_offset != slots.manifest.next_offset {
        tracing::warn!(
            partition = %id,
            from = slots.manifest.next_offset,
            to = manifest.next_offset,
            "a manifest slot is lost; its segment proves more than the other slot counts"
        );
    }
    slots.write(&shared.files, manifest)
}

fn empty_segment(base_offset: i64) -> SegmentEntry {
    SegmentEntry {
        base_offset,
        log_bytes: 0,
        sum_bytes: 0,
        idx_bytes: 0,
        first_timestamp: -1,
        max_timestamp: i64::MIN,
    }
}

/// Takes intact extents behind the last segment's counted length into the manifest.
fn extend(files: &Files, manifest: &mut Manifest) -> io::Result<()> {
    let Some(mut segment) = manifest.segments.pop() else {
        return Ok(());
    };
    let mut next = manifest.next_offset;
    while let Some(sum) = entry_behind(files, manifest.partition, &segment)? {
        if sum.position != segment.log_bytes || sum.base_offset < next {
            break;
        }
        let view = SegmentView {
            partition: manifest.partition,
            entry: SegmentEntry {
                log_bytes: sum.position + u64::from(sum.length),
                ..segment
            },
            end_offset: sum.end_offset,
            epochs: manifest.epochs.as_slice().into(),
            gaps: Arc::new([]),
            tails: None,
        };
        let extent = match SegmentReader::new(files, &view).read_extent(&sum, true) {
            Ok(extent) => extent,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        };
        if !extent.holes.is_empty() || extent.sum_is_wrong {
            break;
        }
        let newest = extent.batches.iter().map(|p| p.header.max_timestamp).max();
        segment.max_timestamp = segment.max_timestamp.max(newest.unwrap_or(i64::MIN));
        if segment.log_bytes == 0 {
            segment.first_timestamp = extent
                .batches
                .first()
                .map_or(-1, |p| p.header.max_timestamp);
        }
        segment.log_bytes += u64::from(sum.length);
        segment.sum_bytes += SUM_ENTRY_BYTES as u64;
        next = sum.end_offset;
    }
    segment.idx_bytes = index_bytes(files, manifest.partition, &segment)?;
    for kind in [Kind::Sum, Kind::Idx] {
        let key = FileKey {
            partition: manifest.partition,
            base_offset: segment.base_offset,
            kind,
        };
        files.open_or_make(&key)?.sync_data()?;
    }
    manifest.tails = Tails::default();
    manifest.segments.push(segment);
    manifest.next_offset = next;
    Ok(())
}

/// The `.sum` entry behind those that count, if one is there.
fn entry_behind(
    files: &Files,
    partition: PartitionId,
    segment: &SegmentEntry,
) -> io::Result<Option<SumEntry>> {
    let mut bytes = [0; SUM_ENTRY_BYTES];
    let key = FileKey {
        partition,
        base_offset: segment.base_offset,
        kind: Kind::Sum,
    };
    let read = read_entry(files, &key, &mut bytes, segment.sum_bytes)?;
    Ok(decode_sum(segment.base_offset, &bytes[..read]).ok())
}

/// Bytes of the `.idx` entries that point into what counts.
pub(crate) fn index_bytes(
    files: &Files,
    partition: PartitionId,
    segment: &SegmentEntry,
) -> io::Result<u64> {
    let key = FileKey {
        partition,
        base_offset: segment.base_offset,
        kind: Kind::Idx,
    };
    let mut bytes = [0; IDX_ENTRY_BYTES];
    let mut counted = 0;
    loop {
        let read = read_entry(files, &key, &mut bytes, counted)?;
        match decode_idx(segment.base_offset, &bytes[..read]) {
            Ok(entry) if entry.position < segment.log_bytes => counted += IDX_ENTRY_BYTES as u64,
            Ok(_) | Err(_) => return Ok(counted),
        }
    }
}

fn read_entry(files: &Files, key: &FileKey, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    match files.disk().open(&files.path(key), OpenMode::Read) {
        Ok(file) => read_up_to(&*file, bytes, position),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}
