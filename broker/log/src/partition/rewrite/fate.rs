//! What compaction makes of each batch: left as it is, built anew with less in it, or gone.
//!
//! Owns the order of the questions; the rules stand in [`crate::partition::compact`]. Reads and writes nothing.

use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchHeader};
use keelson_protocol::compact::retain;
use keelson_protocol::control::EndMarker;
use keelson_protocol::records::{Record, RecordWalker, decompressed};

use super::{Rewrite, Stopped};
use crate::partition::compact::{MarkerFate, marker_fate};
use crate::partition::timestamps::DECOMPRESSED_BYTES_MAX;

/// What becomes of one batch.
pub(super) enum Fate {
    Same,
    Anew(bytes::Bytes),
    Gone,
}

impl Rewrite<'_> {
    pub(super) fn fate(&self, header: &BatchHeader, batch: &[u8]) -> Result<Fate, Stopped> {
        if header.is_control() && header.records_count > 0 {
            return self.fate_of_marker(header, batch);
        }
        let fate = self.fate_of_data(header, batch)?;
        if header.is_transactional() && !matches!(fate, Fate::Gone) {
            self.kept.borrow_mut().insert(header.producer_id);
        }
        Ok(fate)
    }

    fn fate_of_marker(&self, header: &BatchHeader, batch: &[u8]) -> Result<Fate, Stopped> {
        let records = &batch[BATCH_HEADER_BYTES..];
        let Some(end) = EndMarker::of(header, records) else {
            return Ok(Fate::Same);
        };
        let has_data = self.kept.borrow_mut().remove(&header.producer_id);
        let (producer_id, epoch) = (header.producer_id, header.producer_epoch);
        if self.filter.passes_over(header) || self.producers.ends_with_marker(producer_id, epoch) {
            return Ok(Fate::Same);
        }
        Ok(
            match marker_fate(header, end.commit, has_data, self.filter.now_ms) {
                MarkerFate::Stays => Fate::Same,
                MarkerFate::Goes => Fate::Gone,
                MarkerFate::Waits => {
                    let anew = retain(header, records, Some(self.horizon()), &mut |_| true);
                    Fate::Anew(anew.map_err(|error| Stopped::Undecodable {
                        offset: header.base_offset,
                        error,
                    })?)
                }
            },
        )
    }

    /// From when on a tombstone or marker that is seen now may go.
    fn horizon(&self) -> i64 {
        let now_ms = self.filter.now_ms;
        now_ms.saturating_add(self.job.config.delete_retention_ms)
    }

    fn fate_of_data(&self, header: &BatchHeader, batch: &[u8]) -> Result<Fate, Stopped> {
        // The sequence of a producer that may go on stays known, as in Kafka.
        let newest = self.producers.last_offset(header.producer_id);
        let is_newest = header.has_producer_id() && newest == Some(header.last_offset());
        if header.records_count == 0 {
            return Ok(if is_newest { Fate::Same } else { Fate::Gone });
        }
        if self.filter.passes_over(header) {
            return Ok(Fate::Same);
        }
        let undecodable = |error| Stopped::Undecodable {
            offset: header.base_offset,
            error,
        };
        let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(undecodable)?;
        let (mut staying, mut tombstones) = (0, false);
        for record in RecordWalker::new(&records, header.records_count) {
            let record = record.map_err(undecodable)?;
            if self.filter.stays(header, &record) {
                staying += 1;
                tombstones |= record.value.is_none();
            }
        }
        if staying == 0 && !is_newest {
            return Ok(Fate::Gone);
        }
        let horizon = (tombstones && !header.has_delete_horizon()).then(|| self.horizon());
        if staying == header.records_count && horizon.is_none() {
            return Ok(Fate::Same);
        }
        let mut keep = |record: &Record<'_>| self.filter.stays(header, record);
        let anew = retain(header, &records, horizon, &mut keep).map_err(undecodable)?;
        Ok(Fate::Anew(anew))
    }
}
