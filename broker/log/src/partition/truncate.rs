//! Truncation of segments, when replay meets a truncate frame: whole segments go, the last one is cut at a batch.

use std::io;

use super::Partition;
use super::extent::SegmentReader;
use super::format::{SUM_ENTRY_BYTES, SumEntry, Tails, encode_sum};
use super::segments::FlushError;
use crate::disk::Durability;
use crate::files::Kind;

impl Partition {
    /// Removes what segments hold at `to` and above. Repeating it changes nothing.
    pub(crate) fn truncate_segments(&self, to: i64) -> Result<(), FlushError> {
        let _only_writer = self.folder.lock();
        let (mut manifest, view) = {
            let state = self.state.lock();
            (state.slots.manifest.clone(), self.segment_with(&state, to))
        };
        if manifest.next_offset <= to {
            return Ok(());
        }
        let bases = manifest.segments.iter().map(|s| s.base_offset);
        let dropped: Vec<i64> = bases.filter(|base| *base >= to).collect();
        manifest.segments.retain(|s| s.base_offset < to);
        let files = &self.shared().files;
        if let Some(view) = view
            && let Some(last) = manifest.segments.last_mut()
            && last.base_offset == view.entry.base_offset
        {
            let path = files.path(&SegmentReader::new(files, &view).key(Kind::Sum));
            let mut cut = || -> io::Result<()> {
                let mut reader = SegmentReader::new(files, &view);
                let number = reader.extent_with(to)?;
                if number >= reader.extents() {
                    return Ok(());
                }
                let (extent, _) = reader.load(number)?;
                let kept = extent
                    .batches
                    .partition_point(|p| p.header.last_offset() < to);
                let length = extent
                    .batches
                    .get(kept)
                    .map_or(extent.bytes.len(), |p| p.at);
                last.log_bytes = extent.position + length as u64;
                last.sum_bytes = number * SUM_ENTRY_BYTES as u64;
                if length > 0 {
                    let entry = SumEntry {
                        position: extent.position,
                        base_offset: extent.base_offset,
                        end_offset: to,
                        length: length as u32,
                        crc: crc32c::crc32c(&extent.bytes[..length]),
                        batches: kept as u32,
                    };
                    let file = files.open(&reader.key(Kind::Sum))?;
                    file.write_at(
                        &encode_sum(last.base_offset, &entry),
                        last.sum_bytes,
                        Durability::Later,
                    )?;
                    file.sync_data()?;
                    last.sum_bytes += SUM_ENTRY_BYTES as u64;
                }
                last.idx_bytes = crate::salvage::index_bytes(files, view.partition, last)?;
                for kind in [Kind::Sum, Kind::Idx] {
                    files.open(&reader.key(kind))?.sync_data()?;
                }
                Ok(())
            };
            cut().map_err(|error| FlushError::new(path, error))?;
        }
        manifest.tails = Tails::default();
        manifest.next_offset = to;
        manifest.dropped = dropped.clone();
        self.write_slot(manifest)?;
        files.forget(self.id());
        self.unlink_dropped(&dropped)
    }
}
