//! Rebuilding `.sum` and `.idx` of a segment from its batches, in place.
//!
//! Both are derived: an entry depends only on the batches (and, for `.sum`, on where extents end), so that every entry
//! written here is true by itself, and a crash in the middle leaves nothing that a reader would believe wrongly.

use std::io;

use keelson_protocol::BATCH_HEADER_BYTES;

use super::Partition;
use super::extent::{SegmentReader, SegmentView};
use super::format::{IDX_ENTRY_BYTES, IdxEntry, SUM_ENTRY_BYTES, SumEntry, encode_idx, encode_sum};
use super::segments::{FlushError, INDEX_INTERVAL_BYTES, record_timestamp};
use super::walk::Piece;
use crate::disk::Durability;
use crate::files::Kind;

/// What a walk over a segment derives.
struct Derived {
    sums: Vec<u8>,
    idxs: Vec<u8>,
}

impl Partition {
    /// Rebuilds the small files of the segment that starts at `base_offset`.
    pub(crate) fn rebuild_index(&self, base_offset: i64) -> Result<(), FlushError> {
        let _only_writer = self.folder.lock();
        let view = {
            let state = self.state.lock();
            // With the ends that the manifest holds: where those say that extents end, extents end.
            self.segment_with(&state, base_offset)
                .filter(|v| v.entry.base_offset == base_offset)
        };
        let Some(view) = view else { return Ok(()) };
        let files = &self.shared().files;
        let mut reader = SegmentReader::new(files, &view);
        let log = files.path(&reader.key(Kind::Log));
        let derived = match derive(&mut reader, &view) {
            Ok(derived) => derived,
            Err(error) => {
                // Reads report what cannot be read; without it there is nothing to rebuild from.
                tracing::warn!(file = %log.display(), %error, "index not rebuilt");
                return Ok(());
            }
        };
        let tails = view.tails.as_deref().cloned().unwrap_or_default();
        for (kind, bytes) in [(Kind::Sum, &derived.sums), (Kind::Idx, &derived.idxs)] {
            // A run of damaged batches can cost entries; what is listed beyond stays as it is.
            let in_file = tails.in_file(&view.entry, kind) as usize;
            let bytes = &bytes[..bytes.len().min(in_file)];
            let path = files.path(&reader.key(kind));
            let write = || -> io::Result<()> {
                let file = files.open_or_make(&reader.key(kind))?;
                file.write_at(bytes, 0, Durability::Later)?;
                file.sync_data()
            };
            write().map_err(|error| FlushError::new(path, error))?;
        }
        files.forget(self.id());
        Ok(())
    }
}

fn derive(reader: &mut SegmentReader<'_>, view: &SegmentView) -> io::Result<Derived> {
    let mut derived = Derived {
        sums: Vec::new(),
        idxs: Vec::new(),
    };
    let mut last_indexed: Option<u64> = None;
    let mut newest = i64::MIN;
    let mut number = 0;
    while number < reader.extents() {
        let (extent, behind) = reader.load(number)?;
        match reader.stored_sum(number)? {
            Some(sum) => derived
                .sums
                .extend_from_slice(&encode_sum(view.entry.seed(), &sum)),
            None if (behind - number) as usize > extent.bytes.len() / BATCH_HEADER_BYTES => {
                // Each extent has a batch at least.
                return Err(io::Error::other(
                    "it has room for fewer extents than are listed",
                ));
            }
            None => split(
                &extent,
                behind - number,
                view.entry.seed(),
                &mut derived.sums,
            ),
        }
        for piece in &extent.batches {
            let position = extent.position + piece.at as u64;
            if last_indexed.is_none_or(|last| position - last >= INDEX_INTERVAL_BYTES) {
                let entry = IdxEntry {
                    offset: piece.header.base_offset,
                    position,
                    max_timestamp_before: newest,
                };
                derived
                    .idxs
                    .extend_from_slice(&encode_idx(view.entry.seed(), &entry));
                last_indexed = Some(position);
            }
            newest = newest.max(record_timestamp(&piece.header));
        }
        number = behind;
    }
    assert_eq!(
        derived.sums.len() as u64,
        reader.extents() * SUM_ENTRY_BYTES as u64,
        "one entry per extent"
    );
    assert_eq!(derived.idxs.len() % IDX_ENTRY_BYTES, 0, "whole entries");
    Ok(derived)
}

/// Entries for a run of extents whose own entries are lost: its bytes, cut at batch boundaries into as many.
fn split(extent: &super::extent::Extent, count: u64, seed: i64, sums: &mut Vec<u8>) {
    let mut at = 0;
    let mut base = extent.base_offset;
    let per_extent = extent.batches.len() as u64 / count;
    for number in 1..=count {
        let cut = (number * per_extent) as usize;
        let next: Option<&Piece> = extent.batches.get(cut).filter(|_| number < count);
        let end_at = next.map_or(extent.bytes.len(), |piece| piece.at);
        let end = next.map_or(extent.end_offset, |piece| piece.header.base_offset);
        let entry = SumEntry {
            position: extent.position + at as u64,
            base_offset: base,
            end_offset: end,
            length: (end_at - at) as u32,
            crc: crc32c::crc32c(&extent.bytes[at..end_at]),
            batches: per_extent as u32,
        };
        sums.extend_from_slice(&encode_sum(seed, &entry));
        at = end_at;
        base = end;
    }
}
