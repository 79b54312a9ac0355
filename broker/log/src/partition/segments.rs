//! From the tail into segments: what a pass of the flusher moves, and how it is written.
//!
//! Owns which batches go into which segment, and the bytes of its three files. The order of steps is `pass`'s.

use std::io;
use std::path::PathBuf;

use keelson_protocol::batch::BatchHeader;
use keelson_state::producers::ProducerTable;

use super::ends::Tails;
use super::format::{
    IDX_ENTRY_BYTES, IdxEntry, Manifest, SUM_ENTRY_BYTES, SegmentEntry, SnapshotRef, SumEntry,
    decode_idx, encode_idx, encode_sum,
};
use super::tail::TailBatch;
use super::unsynced::Unsynced;
use super::{Partition, ReadError, State};
use crate::disk::{DiskFile, Durability};
use crate::files::{Files, Kind, is_medium_error, is_no_room, read_up_to};
use crate::wal::WalPosition;

/// An extent is closed before it would exceed this: what a cold read must read at least.
pub(crate) const EXTENT_BYTES_MAX: usize = 256 * 1024;
/// One index entry per this many bytes, as in Kafka (`log.index.interval.bytes`).
pub(crate) const INDEX_INTERVAL_BYTES: u64 = 4096;
/// Bytes that one pass moves at most: memory is given back pass by pass.
const PASS_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Entries of `.sum` that a manifest alone holds, in bytes: a dozen flushes, and little memory for a partition that is idle
/// afterwards.
const SUM_TAIL_BYTES_MAX: usize = if SOON { 3 * SUM_ENTRY_BYTES } else { 512 };
/// The same of `.idx`: so many are half a dozen flushes of a partition that gets its share of tail memory as one of 10,000.
const IDX_TAIL_BYTES_MAX: usize = if SOON { 3 * IDX_ENTRY_BYTES } else { 1536 };
/// Simulated lives are short: their files get entries after a few flushes, too.
const SOON: bool = cfg!(any(test, feature = "fuzz"));

/// Why a pass did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    /// No room; nothing is lost, the pass can be repeated.
    #[error("no room to write {}: {error}", .path.display())]
    NoRoom { path: PathBuf, error: io::Error },
    /// A write or sync failed: the process must end.
    #[error("cannot write {}: {error}", .path.display())]
    Fatal { path: PathBuf, error: io::Error },
    /// The partition was deleted meanwhile: its folder is left as it is, since a crash may still take the deletion back.
    #[error("the partition is deleted")]
    Deleted,
}

impl FlushError {
    pub(crate) fn new(path: PathBuf, error: io::Error) -> Self {
        if is_no_room(&error) {
            FlushError::NoRoom { path, error }
        } else {
            FlushError::Fatal { path, error }
        }
    }

    /// What was to be written could not be read from `path`.
    pub(crate) fn unread(path: PathBuf, error: &ReadError) -> Self {
        match error {
            ReadError::Deleted => FlushError::Deleted,
            ReadError::OutOfRange { .. } | ReadError::Corrupt { .. } | ReadError::Io { .. } => {
                let error = io::Error::other(error.to_string());
                FlushError::Fatal { path, error }
            }
        }
    }
}

/// What one pass writes, decided under the partition's lock.
pub(super) struct Plan {
    pub(super) manifest: Manifest,
    pub(super) batches: Vec<TailBatch>,
    /// The segment to append to; new when the manifest does not list it.
    pub(super) segment: SegmentEntry,
    pub(super) is_new: bool,
    /// Producers before `batches`, where their snapshot is damaged and somebody has read the batches for them.
    pub(super) producers: Option<ProducerTable>,
    /// Nothing that was durable is left over.
    pub(super) all: bool,
}

impl Partition {
    pub(super) fn plan_flush(&self, state: &mut State) -> Option<Plan> {
        state.flush_queued = false;
        let has_batches = state.tail.first_position().is_some();
        if self.is_deleted()
            || !(has_batches || state.manifest_dirty || state.control_hold.is_some())
        {
            return None;
        }
        let mut manifest = state.slots.manifest.clone();
        manifest.log_start = self.log_start();
        manifest.epochs = epochs_from(&state.epochs, manifest.log_start);
        manifest.quarantined = state.quarantined.clone();
        // Those of a pass that could not unlink them are still named.
        let dropped = drop_segments(&mut manifest);
        manifest.dropped.extend(dropped);
        manifest.next_offset = manifest.next_offset.max(manifest.log_start);
        if manifest.segments.is_empty() {
            manifest.tails = Tails::default();
        }
        let (segment, is_new) = choose_segment(state, &manifest);
        let batches = choose_batches(state, &segment, is_new);
        let all = batches.len() == state.tail.durable().count();
        let applied = match batches.last() {
            Some(last) if !all => last.position.expect("durable batches have a position"),
            Some(_) | None => state.last_durable,
        };
        manifest.applied_group = applied.group;
        manifest.applied_frame = applied.frame;
        if all && !state.tail.has_queued() {
            // Offsets lost in the WAL count as assigned.
            manifest.next_offset = self.durable_offset();
        } else if let Some(last) = batches.last() {
            manifest.next_offset = last.last_offset + 1;
        }
        state.manifest_dirty = false;
        let flushed = state.slots.manifest.next_offset;
        let read = state.producers_read.take();
        let producers = read.filter(|read| read.0 == flushed);
        Some(Plan {
            manifest,
            batches,
            segment,
            is_new,
            producers: producers.map(|read| read.1),
            all,
        })
    }

    /// The same without data: what it says of the log start, dropped segments and quarantined ranges.
    pub(super) fn plan_manifest(&self, state: &mut State) -> Option<Plan> {
        let mut plan = self.plan_flush(state)?;
        if state.tail.first_position().is_some() {
            let held = &state.slots.manifest;
            plan.manifest.applied_group = held.applied_group;
            plan.manifest.applied_frame = held.applied_frame;
            plan.manifest.next_offset = held.next_offset.max(plan.manifest.log_start);
        }
        plan.batches.clear();
        plan.all = true;
        Some(plan)
    }

    /// The last segment is left for a new one: its small files get what the manifest alone held of them.
    pub(super) fn put_tails(&self, manifest: &mut Manifest) -> Result<(), FlushError> {
        let tails = std::mem::take(&mut manifest.tails);
        let Some(last) = manifest.segments.last() else {
            return Ok(());
        };
        let writer = SegmentWriter {
            files: &self.shared().files,
            partition: self.id(),
        };
        let mut unsynced = Unsynced::default();
        for kind in [Kind::Sum, Kind::Idx] {
            writer.put_tail(last, (kind, &tails), &mut unsynced)?;
        }
        self.sync(unsynced)
    }

    /// Makes durable what was written for this partition alone.
    fn sync(&self, unsynced: Unsynced) -> Result<(), FlushError> {
        let files = &self.shared().files;
        let synced = unsynced.sync(files);
        synced.map_err(|e| FlushError::new(files.partition_dir(self.id()), e))
    }

    /// Names a segment that is about to be created.
    pub(super) fn announce(&self, base_offset: i64) -> Result<(), FlushError> {
        let mut manifest = self.state.lock().slots.manifest.clone();
        if !manifest.created.contains(&base_offset) {
            manifest.created.push(base_offset);
        }
        self.write_slot(manifest)
    }

    /// Writes a slot; it counts from here on.
    pub(crate) fn write_slot(&self, manifest: Manifest) -> Result<(), FlushError> {
        let mut slots = self.state.lock().slots.place();
        let files = &self.shared().files;
        slots
            .write(files, manifest)
            .map_err(|e| FlushError::new(files.partition_dir(self.id()), e))?;
        // The one before is freed without the lock.
        let _before = std::mem::replace(&mut self.state.lock().slots, slots);
        Ok(())
    }

    /// Removes the files of segments that the slot that counts has dropped. The other slot may still list them: it gets
    /// the same before, or damage to the newer one would cost what stands in other files now, or bring back what was
    /// deleted.
    pub(crate) fn unlink_dropped(&self, dropped: &[i64]) -> Result<(), FlushError> {
        if dropped.is_empty() {
            return Ok(());
        }
        let manifest = self.state.lock().slots.manifest.clone();
        self.write_slot(manifest)?;
        let files = &self.shared().files;
        let dir = files.partition_dir(self.id());
        let listed = self.state.lock().slots.manifest.segments.clone();
        files
            .unlink_segments(self.id(), dropped, &listed)
            .map_err(|e| FlushError::new(dir.clone(), e))?;
        files
            .disk()
            .sync_dir(&dir)
            .map_err(|e| FlushError::new(dir, e))
    }

    /// Writes what is known of producers behind the pass's batches, if they change it.
    pub(super) fn write_snapshot(
        &self,
        plan: &mut Plan,
        unsynced: &mut Unsynced,
    ) -> Result<(), FlushError> {
        let table = self
            .table_after(
                (plan.manifest.snapshot, plan.producers.take()),
                &plan.batches,
            )
            .map_err(|e| FlushError::unread(self.snapshot_path(1), &e))?;
        let Some(table) = table else {
            return Ok(());
        };
        let offset = plan.manifest.next_offset;
        self.put_snapshot((&mut plan.manifest, offset), &table, unsynced)
    }

    /// Writes a table to the file that does not count, synced, and names it in `manifest`.
    pub(crate) fn store_snapshot(
        &self,
        manifest: &mut Manifest,
        offset: i64,
        table: &ProducerTable,
    ) -> Result<(), FlushError> {
        let mut unsynced = Unsynced::default();
        self.put_snapshot((manifest, offset), table, &mut unsynced)?;
        self.sync(unsynced)
    }

    fn put_snapshot(
        &self,
        (manifest, offset): (&mut Manifest, i64),
        table: &ProducerTable,
        unsynced: &mut Unsynced,
    ) -> Result<(), FlushError> {
        let file = if manifest.snapshot.is_some_and(|s| s.file == 1) {
            2
        } else {
            1
        };
        let path = self.snapshot_path(file);
        let bytes = super::format::encode_producers(self.id(), offset, &table.encode());
        let files = &self.shared().files;
        let written = files.write_whole(&path, &bytes);
        unsynced.written(written.map_err(|e| FlushError::new(path, e))?);
        if manifest.snapshot.is_none_or(|s| s.file == 1) {
            // Each of the two files is new once.
            unsynced.gains_names(files.partition_dir(self.id()));
        }
        manifest.snapshot = Some(SnapshotRef { file, offset });
        Ok(())
    }

    /// The slot is durable: WAL positions are given back, and, by whoever drops what is returned, memory.
    #[must_use = "to be dropped without the lock"]
    pub(super) fn settle(&self, state: &mut State, plan: &Plan) -> Vec<TailBatch> {
        let applied = WalPosition {
            group: plan.manifest.applied_group,
            frame: plan.manifest.applied_frame,
        };
        let freed = match plan.batches.last() {
            Some(last) => state.tail.drop_below(last.last_offset + 1),
            None => Vec::new(),
        };
        if state.control_hold.is_some_and(|hold| hold <= applied) {
            // Whether another control frame came meanwhile is not known: the next position holds, until the next pass.
            let behind = WalPosition {
                group: applied.group,
                frame: applied.frame + 1,
            };
            state.control_hold = (state.last_durable > applied).then_some(behind);
        }
        state.slots.manifest.dropped = Vec::new();
        state.roll_next &= plan.batches.is_empty();
        self.rehold(state);
        freed
    }
}

/// The newest time of a batch's records; one without records (compaction leaves such) has none.
pub(crate) fn record_timestamp(header: &BatchHeader) -> i64 {
    if header.records_count == 0 {
        i64::MIN
    } else {
        header.max_timestamp
    }
}

/// Epochs that still matter: the newest one at or below the log start, and all later ones.
fn epochs_from(epochs: &[(i32, i64)], log_start: i64) -> Vec<(i32, i64)> {
    let first = epochs
        .iter()
        .rposition(|(_, start)| *start <= log_start)
        .unwrap_or(0);
    epochs[first..].to_vec()
}

/// Takes segments that lie wholly below the log start out of the list; returns their names.
fn drop_segments(manifest: &mut Manifest) -> Vec<i64> {
    let ends: Vec<i64> = manifest
        .segments
        .iter()
        .skip(1)
        .map(|s| s.base_offset)
        .collect();
    let end_of = |at: usize| ends.get(at).copied().unwrap_or(manifest.next_offset);
    let count = (0..manifest.segments.len())
        .take_while(|at| end_of(*at) <= manifest.log_start)
        .count();
    manifest
        .segments
        .drain(..count)
        .map(|s| s.base_offset)
        .collect()
}

/// The segment that the next batch goes to, and whether it is a new one.
fn choose_segment(state: &State, manifest: &Manifest) -> (SegmentEntry, bool) {
    let first = state.tail.durable().next();
    if let Some(active) = manifest.segments.last()
        && !(state.roll_next && first.is_some())
        && first.is_none_or(|batch| fits(state, active, active.log_bytes, batch))
    {
        return (*active, false);
    }
    let segment = SegmentEntry {
        first_timestamp: first.map_or(-1, |batch| batch.max_timestamp),
        truncations: state.truncations,
        ..SegmentEntry::empty(first.map_or(manifest.next_offset, |batch| batch.base_offset))
    };
    (segment, true)
}

/// Whether a batch may go into a segment that has `log_bytes` by then (`segment.bytes`, `segment.ms`).
fn fits(state: &State, segment: &SegmentEntry, log_bytes: u64, batch: &TailBatch) -> bool {
    let age_ms = batch.max_timestamp.saturating_sub(segment.first_timestamp);
    let aged = segment.first_timestamp >= 0
        && batch.max_timestamp >= 0
        && age_ms > state.config.segment_ms;
    log_bytes == 0 || (!aged && log_bytes + batch.size() <= state.config.segment_bytes)
}

fn choose_batches(state: &State, segment: &SegmentEntry, is_new: bool) -> Vec<TailBatch> {
    let mut log_bytes = if is_new { 0 } else { segment.log_bytes };
    let mut bytes = 0;
    let mut chosen = Vec::with_capacity(state.tail.durable().len());
    for batch in state.tail.durable() {
        if bytes > 0
            && (bytes + batch.size() > PASS_BYTES_MAX || !fits(state, segment, log_bytes, batch))
        {
            break;
        }
        bytes += batch.size();
        log_bytes += batch.size();
        chosen.push(batch.clone());
    }
    chosen
}

/// Appends batches to one segment.
pub(super) struct SegmentWriter<'a> {
    pub(super) files: &'a Files,
    pub(super) partition: crate::ids::PartitionId,
}

impl SegmentWriter<'_> {
    /// Writes, and begins to bring the batches to the medium. Nothing counts before [`Unsynced::sync`]. An empty `buffer` is
    /// used for the extents, and comes back for the next append, so that none is allocated for each.
    pub(super) fn append(
        &self,
        (segment, tails): (&mut SegmentEntry, &mut Tails),
        is_new: bool,
        batches: &[TailBatch],
        (buffer, unsynced): (&mut Vec<u8>, &mut Unsynced),
    ) -> Result<(), FlushError> {
        let key = segment.key(self.partition, Kind::Log);
        let failed = |e| FlushError::new(self.files.path(&key), e);
        let log = if is_new {
            self.files.create(&key)
        } else {
            self.files.open(&key)
        };
        let log = log.map_err(failed)?;
        let last_indexed = self.last_indexed(segment, tails)?;
        let mut build = Build::new(*segment, last_indexed);
        build.extent = std::mem::take(buffer);
        for batch in batches {
            if build.is_full(batch.size()) {
                build.write_extent(&*log).map_err(failed)?;
            }
            build.push(
                (batch.base_offset, batch.last_offset, batch.max_timestamp),
                &[&batch.batch.prefix, &batch.batch.body],
            );
        }
        build.write_extent(&*log).map_err(failed)?;
        *buffer = build.extent;
        log.start_write_back(segment.log_bytes).map_err(failed)?;
        unsynced.written(log);
        if is_new {
            unsynced.gains_names(self.files.partition_dir(self.partition));
        }
        *segment = build.segment;
        tails.sum.extend_from_slice(&build.sums);
        tails.idx.extend_from_slice(&build.idxs);
        // The manifest makes the newest entries durable; their files get them once that is too much to keep there.
        if tails.sum.len() > SUM_TAIL_BYTES_MAX {
            self.put_tail(segment, (Kind::Sum, tails), unsynced)?;
            tails.sum = Vec::new();
        }
        if tails.idx.len() > IDX_TAIL_BYTES_MAX {
            self.put_tail(segment, (Kind::Idx, tails), unsynced)?;
            tails.idx = Vec::new();
        }
        Ok(())
    }

    /// Writes what the manifest alone held of a small file to its end.
    fn put_tail(
        &self,
        segment: &SegmentEntry,
        (kind, tails): (Kind, &Tails),
        unsynced: &mut Unsynced,
    ) -> Result<(), FlushError> {
        if tails.of(kind).is_empty() {
            return Ok(());
        }
        let key = segment.key(self.partition, kind);
        let position = tails.in_file(segment, kind);
        let put = || {
            let file = if position == 0 {
                self.files.create(&key)?
            } else {
                // One that is lost is told, and rebuilt once the flusher has nothing better to do.
                self.files.open_or_make(&key)?
            };
            file.write_at(tails.of(kind), position, Durability::Later)?;
            Ok(file)
        };
        let file = put().map_err(|e| FlushError::new(self.files.path(&key), e))?;
        unsynced.written(file);
        if position == 0 {
            unsynced.gains_names(self.files.partition_dir(self.partition));
        }
        Ok(())
    }

    /// Position of the newest index entry; `None` before the first (or when it does not decode).
    fn last_indexed(
        &self,
        segment: &SegmentEntry,
        tails: &Tails,
    ) -> Result<Option<u64>, FlushError> {
        let Some(at) = segment.idx_bytes.checked_sub(IDX_ENTRY_BYTES as u64) else {
            return Ok(None);
        };
        let mut bytes = [0; IDX_ENTRY_BYTES];
        let read = match tails.idx.last_chunk() {
            Some(entry) => {
                bytes = *entry;
                IDX_ENTRY_BYTES
            }
            None => {
                let key = segment.key(self.partition, Kind::Idx);
                let read = self.files.open(&key);
                match read.and_then(|idx| read_up_to(&*idx, &mut bytes, at)) {
                    Err(e) if is_medium_error(&e) || e.kind() == io::ErrorKind::NotFound => 0,
                    read => read.map_err(|e| FlushError::new(self.files.path(&key), e))?,
                }
            }
        };
        let entry = decode_idx(segment.seed(), &bytes[..read]);
        Ok(entry.ok().map(|entry| entry.position))
    }
}

/// Extents, checksums and index entries of one append, built in order.
pub(crate) struct Build {
    pub(crate) segment: SegmentEntry,
    /// Bytes of the extent being built.
    pub(crate) extent: Vec<u8>,
    /// Position of its first byte.
    pub(crate) written: u64,
    base_offset: i64,
    end_offset: i64,
    batches: u32,
    last_indexed: Option<u64>,
    pub(crate) sums: Vec<u8>,
    pub(crate) idxs: Vec<u8>,
}

impl Build {
    pub(crate) fn new(segment: SegmentEntry, last_indexed: Option<u64>) -> Self {
        Build {
            written: segment.log_bytes,
            segment,
            extent: Vec::new(),
            base_offset: 0,
            end_offset: 0,
            batches: 0,
            last_indexed,
            sums: Vec::new(),
            idxs: Vec::new(),
        }
    }

    /// Whether the extent has no room for a batch of this size.
    pub(crate) fn is_full(&self, size: u64) -> bool {
        self.batches > 0 && self.extent.len() + size as usize > EXTENT_BYTES_MAX
    }

    /// Adds a batch, given in pieces, with its base offset, last offset and newest timestamp.
    pub(crate) fn push(&mut self, (base, last, newest): (i64, i64, i64), pieces: &[&[u8]]) {
        let size = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.note(base, last, newest, size);
        for piece in pieces {
            self.extent.extend_from_slice(piece);
        }
    }

    /// Writes the extent, if there is anything in it, and begins the next one.
    pub(crate) fn write_extent(&mut self, log: &dyn DiskFile) -> io::Result<()> {
        if self.batches == 0 {
            return Ok(());
        }
        self.close_extent();
        log.write_at(&self.extent, self.written, Durability::Later)?;
        self.written += self.extent.len() as u64;
        self.extent.clear();
        self.batches = 0;
        Ok(())
    }

    /// Counts a batch of `size` bytes at the segment's end, with an index entry where one is due.
    pub(crate) fn note(
        &mut self,
        base_offset: i64,
        last_offset: i64,
        max_timestamp: i64,
        size: u64,
    ) {
        let position = self.segment.log_bytes;
        if self
            .last_indexed
            .is_none_or(|last| position - last >= INDEX_INTERVAL_BYTES)
        {
            let entry = IdxEntry {
                offset: base_offset,
                position,
                max_timestamp_before: self.segment.max_timestamp,
            };
            self.idxs
                .extend_from_slice(&encode_idx(self.segment.seed(), &entry));
            self.segment.idx_bytes += IDX_ENTRY_BYTES as u64;
            self.last_indexed = Some(position);
        }
        if self.batches == 0 {
            self.base_offset = base_offset;
        }
        self.batches += 1;
        self.end_offset = last_offset + 1;
        self.segment.log_bytes += size;
        self.segment.max_timestamp = self.segment.max_timestamp.max(max_timestamp);
    }

    /// Makes the checksum entry of the extent.
    fn close_extent(&mut self) {
        let entry = SumEntry {
            position: self.written,
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            length: self.extent.len() as u32,
            crc: crc32c::crc32c(&self.extent),
            batches: self.batches,
        };
        self.sums
            .extend_from_slice(&encode_sum(self.segment.seed(), &entry));
        self.segment.sum_bytes += SUM_ENTRY_BYTES as u64;
    }
}
