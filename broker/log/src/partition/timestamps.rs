//! From timestamps to offsets: through the sparse index to a batch, through its records to the exact one.

use std::io;

use bytes::Bytes;
use keelson_protocol::batch::{BatchHeader, TimestampType};
use keelson_protocol::records::{RecordWalker, decompressed};

use super::extent::SegmentReader;
use super::segments::record_timestamp;
use super::walk::reason_of;
use super::{Partition, ReadError, ReadOutcome, ReadRequest};
use crate::files::Kind;
use crate::metrics::Stage;

/// A stored batch is decompressed to see its records no further than this: twice what a produced one may have, since
/// compaction may write longer timestamps.
pub(super) const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;

impl Partition {
    /// The first record whose timestamp is at least `timestamp`: (offset, timestamp).
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let mut from = self.log_start();
        let end = self.durable_offset();
        while from < end {
            let start = self.seek_timestamp(from, timestamp)?;
            let request = ReadRequest {
                from: start,
                up_to: end,
                max_bytes: 1024 * 1024,
                min_one: true,
                tail_only: false,
            };
            let ReadOutcome::Data { chunks, next, .. } = self.read_as(request, Stage::Fetch)?
            else {
                return Ok(None);
            };
            if let Some(found) = self.first_in(&chunks, timestamp)? {
                return Ok(Some(found));
            }
            if next <= from {
                return Ok(None);
            }
            from = next;
        }
        Ok(None)
    }

    /// The record with the largest timestamp, the first of them: (offset, timestamp).
    pub fn max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        let newest = {
            let state = self.state.lock();
            let segments = state
                .slots
                .manifest
                .segments
                .iter()
                .map(|s| s.max_timestamp)
                .max();
            segments.max(state.tail.durable().map(|b| b.max_timestamp).max())
        };
        match newest {
            Some(newest) if newest >= 0 => self.offset_for_timestamp(newest),
            Some(_) | None => Ok(None),
        }
    }

    /// The newest record timestamp of the batch that contains `offset`, or of the first after it.
    pub fn batch_timestamp(&self, offset: i64) -> Result<Option<i64>, ReadError> {
        let request = ReadRequest {
            from: offset,
            up_to: i64::MAX,
            max_bytes: 1,
            min_one: true,
            tail_only: false,
        };
        match self.read_as(request, Stage::Fetch)? {
            ReadOutcome::Data { chunks, .. } => {
                // The empty batch over what was given up has none.
                let mut found = batches(&chunks).into_iter();
                Ok(found
                    .find(|(h, _)| h.records_count > 0)
                    .map(|(h, _)| h.max_timestamp))
            }
            ReadOutcome::NeedsDisk => Ok(None),
        }
    }

    /// An offset at or behind `from` such that no record between them has the timestamp.
    fn seek_timestamp(&self, mut from: i64, timestamp: i64) -> Result<i64, ReadError> {
        loop {
            let view = {
                let state = self.state.lock();
                self.segment_with(&state, from)
            };
            let Some(view) = view else { return Ok(from) };
            if view.entry.max_timestamp < timestamp {
                from = view.end_offset;
                continue;
            }
            let mut reader = SegmentReader::new(&self.shared().files, &view);
            let seek = |reader: &mut SegmentReader<'_>| -> io::Result<i64> {
                let number = reader.extent_for_timestamp(timestamp)?;
                if number >= reader.extents() {
                    return Ok(from);
                }
                let sum = reader.stored_sum(number)?;
                Ok(sum.map_or(from, |sum| sum.base_offset.max(from)))
            };
            let found = seek(&mut reader);
            self.finish_reader(&reader, Stage::Fetch);
            return found.map_err(|e| ReadError::Io {
                file: self.shared().files.told(&reader.key(Kind::Idx)),
                message: e.to_string(),
            });
        }
    }

    fn first_in(&self, chunks: &[Bytes], timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        for (header, batch) in batches(chunks) {
            if record_timestamp(&header) < timestamp {
                continue;
            }
            if let Some(found) = self.first_record(&header, &batch, timestamp)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record of a batch with the timestamp, at or behind the log start.
    fn first_record(
        &self,
        header: &BatchHeader,
        batch: &Bytes,
        timestamp: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let log_start = self.log_start();
        if header.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(Some((
                header.base_offset.max(log_start),
                header.max_timestamp,
            )));
        }
        let undecodable = |error| ReadError::Io {
            file: format!("partition {}, offset {}", self.id(), header.base_offset),
            message: format!("{}: {error}", reason_of(&error)),
        };
        let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(undecodable)?;
        for record in RecordWalker::new(&records, header.records_count) {
            let record = record.map_err(undecodable)?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let time = header.base_timestamp + record.timestamp_delta;
            if time >= timestamp && offset >= log_start {
                return Ok(Some((offset, time)));
            }
        }
        Ok(None)
    }
}

/// Splits chunks of whole batches.
fn batches(chunks: &[Bytes]) -> Vec<(BatchHeader, Bytes)> {
    let mut out = Vec::new();
    super::read::each_in(chunks, &mut |header, batch| out.push((*header, batch)));
    out
}
