//! What a partition remembers of its producers, across restarts: a snapshot as of what is flushed, and the batches after.
//!
//! Owns the two snapshot files. Nothing of it stays in memory: the table of a running partition is its caller's.

use std::path::PathBuf;

use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use keelson_protocol::control::EndMarker;
use keelson_state::producers::{Marker, ProducerBatch, ProducerTable};

use super::format::{SnapshotRef, decode_producers};
use super::tail::TailBatch;
use super::{Partition, ReadError};
use crate::health::UnhealthyRange;
use crate::metrics::{Reason, Source, Stage};
use crate::shared::now_ms;

/// How long an idle producer is remembered in a snapshot (Kafka's `producer.id.expiration.ms`), by batch timestamps.
const PRODUCER_EXPIRATION_MS: i64 = 24 * 60 * 60 * 1000;

impl Partition {
    /// Where snapshot file 1 or 2 is.
    pub(crate) fn snapshot_path(&self, file: u8) -> PathBuf {
        self.shared()
            .files
            .partition_dir(self.id())
            .join(format!("producers.{file}"))
    }

    /// The table as of the durable offset.
    pub(crate) fn load_producers(&self) -> Result<ProducerTable, ReadError> {
        let (snapshot, flushed, tail) = {
            let state = self.state.lock();
            let tail: Vec<TailBatch> = state.tail.durable().cloned().collect();
            (
                state.slots.manifest.snapshot,
                state.slots.manifest.next_offset,
                tail,
            )
        };
        let mut table = match self.read_snapshot(snapshot) {
            Ok(table) => table,
            Err(reason) => {
                let table = self.scan_producers(flushed)?;
                // Without the means to read it, nobody knows that it is damaged.
                if reason != Reason::Io {
                    self.mend_snapshot(flushed, &table);
                }
                table
            }
        };
        for batch in &tail {
            if let Ok(header) = batch.header() {
                record(&mut table, &header, batch.records());
            }
        }
        table.forget_below(self.log_start());
        Ok(table)
    }

    /// The snapshot as of what is flushed is damaged, and this is what it must hold: it is written anew, or each start would
    /// read the batches again until a producer's next ones are flushed.
    fn mend_snapshot(&self, flushed: i64, table: &ProducerTable) {
        let mut state = self.state.lock();
        if !self.is_deleted() && !self.shared().is_starting() {
            state.producers_read = Some(Box::new((flushed, table.clone())));
            state.manifest_dirty = true;
            self.request_flush(&mut state);
        }
    }

    /// The table after `batches` are flushed on top of `snapshot`, or of `read`, which somebody has read in its place; `None`
    /// when the snapshot stays as it is.
    pub(crate) fn table_after(
        &self,
        (snapshot, read): (Option<SnapshotRef>, Option<ProducerTable>),
        batches: &[TailBatch],
    ) -> Result<Option<ProducerTable>, ReadError> {
        let parsed = batches
            .iter()
            .filter_map(|b| Some((b.header().ok()?, b.records())));
        let of_producers: Vec<(BatchHeader, &[u8])> =
            parsed.filter(|(h, _)| h.producer_id >= 0).collect();
        let newest = of_producers.iter().map(|(h, _)| h.max_timestamp).max();
        let (Some(newest), Some(first)) = (newest, batches.first()) else {
            return Ok(read);
        };
        let mut table = match read.map_or_else(|| self.read_snapshot(snapshot), Ok) {
            Ok(table) => table,
            Err(_) => self.scan_producers(first.base_offset)?,
        };
        for (header, records) in &of_producers {
            record(&mut table, header, records);
        }
        table.expire(newest, PRODUCER_EXPIRATION_MS);
        table.forget_below(self.log_start());
        Ok(Some(table))
    }

    /// The table of a snapshot (none yet: empty). An error is told: its file is damaged, or (`Io`) cannot be read now.
    fn read_snapshot(&self, snapshot: Option<SnapshotRef>) -> Result<ProducerTable, Reason> {
        let Some(snapshot) = snapshot else {
            return Ok(ProducerTable::new());
        };
        let path = self.snapshot_path(snapshot.file);
        let decoded = match self.shared().files.read_whole(&path) {
            Ok(Some(bytes)) => match decode_producers(&bytes, self.id()) {
                Ok((offset, table)) if offset == snapshot.offset => {
                    ProducerTable::decode(table).map_err(|_| Reason::Length)
                }
                Ok(_) => Err(Reason::Offsets),
                Err(reason) => Err(reason),
            },
            Ok(None) => Err(Reason::MissingFile),
            Err(_) => Err(Reason::Io),
        };
        let reason = match decoded {
            Ok(table) => return Ok(table),
            Err(reason) => reason,
        };
        self.shared().health.repaired(&UnhealthyRange {
            partition: Some(self.id()),
            from: snapshot.offset,
            to: snapshot.offset - 1,
            file: self.shared().files.relative(&path),
            position: 0,
            reason,
            source: Source::Snapshot,
            stage: Stage::Replay,
            since_ms: now_ms(),
        });
        Err(reason)
    }

    /// The table from the batches themselves, up to `end`; damaged ranges are told and left out. Whatever else keeps it
    /// from being read is an error: a table without half of the batches would be believed.
    pub(crate) fn scan_producers(&self, end: i64) -> Result<ProducerTable, ReadError> {
        let mut table = ProducerTable::new();
        let mut from = self.log_start();
        while from < end {
            let result = self.each_batch(from, end, Stage::Replay, &mut |header, batch| {
                record(&mut table, header, &batch[BATCH_HEADER_BYTES..]);
            });
            match result {
                Err(ReadError::Corrupt { range }) if range.to >= from => from = range.to + 1,
                Ok(()) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(table)
    }
}

/// Remembers a batch if a producer with an id wrote it, or the end of a producer's transaction. `records` is what follows
/// the header.
pub(crate) fn record(table: &mut ProducerTable, header: &BatchHeader, records: &[u8]) {
    if header.producer_id < 0 {
        return;
    }
    if header.is_control() {
        if let Some(end) = EndMarker::of(header, records) {
            let marker = Marker {
                producer_id: header.producer_id,
                epoch: header.producer_epoch,
                coordinator_epoch: end.coordinator_epoch,
                commit: end.commit,
            };
            table.record_marker(&marker, header.last_offset(), header.max_timestamp);
        }
        return;
    }
    let batch = ProducerBatch {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        transactional: header.is_transactional(),
    };
    table.record(
        &batch,
        header.base_offset,
        header.last_offset(),
        header.max_timestamp,
    );
}
