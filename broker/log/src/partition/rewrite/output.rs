//! The files of a segment that compaction writes anew, as they grow.
//!
//! Owns what stands in them: batches as they are given, and batches without records over the offsets of which nothing is
//! left. Decides nothing about records, and names nothing in a manifest.

use std::io;
use std::sync::Arc;

use keelson_protocol::batch::BatchHeader;
use keelson_protocol::builder::empty_batch;

use super::Stopped;
use crate::disk::{DiskFile, Durability};
use crate::files::{FileKey, Kind, is_no_room};
use crate::partition::format::SegmentEntry;
use crate::partition::segments::{Build, FlushError, record_timestamp};
use crate::partition::{Partition, epochs};

/// New bytes are synced in such pieces: one sync of a whole segment would be felt by every commit.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// Length and checksum of bytes that come in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    bytes: u64,
    crc: u32,
}

impl Sum {
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, piece);
    }
}

/// The files of a new segment, as they are written.
pub(super) struct Output<'a> {
    partition: &'a Partition,
    keys: [FileKey; 3],
    files: [Arc<dyn DiskFile>; 3],
    build: Build,
    sum: Sum,
    unsynced: u64,
    /// Offset after the last batch that was taken.
    next: i64,
    /// Where a run of offsets begins of which nothing is left.
    run: Option<i64>,
    /// Inclusive ranges that the WAL lost: there were no batches, and there are none.
    pub(super) gaps: Arc<[(i64, i64)]>,
    pub(super) epochs: Arc<[(i32, i64)]>,
}

impl<'a> Output<'a> {
    pub(super) fn create(partition: &'a Partition, target: SegmentEntry) -> Result<Self, Stopped> {
        let keys = Kind::ALL.map(|kind| target.key(partition.id(), kind));
        let files = &partition.shared().files;
        let create = |key: &FileKey| {
            let file = files.create(key);
            file.map_err(|error| Stopped::from(FlushError::new(files.path(key), error)))
        };
        Ok(Output {
            partition,
            files: [create(&keys[0])?, create(&keys[1])?, create(&keys[2])?],
            keys,
            build: Build::new(target, None),
            sum: Sum::default(),
            unsynced: 0,
            next: target.base_offset,
            run: None,
            gaps: [].into(),
            epochs: [].into(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.build.segment.log_bytes == 0 && self.run.is_none()
    }

    fn failed(&self, file: usize, error: io::Error) -> Stopped {
        let path = self.partition.shared().files.path(&self.keys[file]);
        match is_no_room(&error) {
            true => Stopped::NoMeans(format!("{}: {error}", path.display())),
            false => FlushError::new(path, error).into(),
        }
    }

    /// The next batch of the old segments begins here: offsets before it that none of them holds are gone, and where the
    /// WAL lost them, they stay a gap.
    pub(super) fn up_to(&mut self, offset: i64) -> Result<(), Stopped> {
        let gaps = Arc::clone(&self.gaps);
        for (from, to) in gaps.iter() {
            if *to < self.next || *from >= offset {
                continue;
            }
            self.skip_to(*from);
            self.fill()?;
            self.next = to + 1;
        }
        self.skip_to(offset);
        Ok(())
    }

    /// Nothing is left of the offsets up to this one.
    pub(super) fn skip_to(&mut self, offset: i64) {
        if self.next < offset {
            self.run.get_or_insert(self.next);
            self.next = offset;
        }
    }

    /// Writes batches without records over a run of offsets.
    fn fill(&mut self) -> Result<(), Stopped> {
        let Some(mut from) = self.run.take() else {
            return Ok(());
        };
        while from < self.next {
            let last = (self.next - 1).min(from + i64::from(i32::MAX));
            let epoch = epochs::at(&self.epochs, from).unwrap_or(-1);
            let batch = empty_batch(from, last, epoch);
            let header = BatchHeader::parse(&batch).expect("a batch that was just built parses");
            self.write(&header, &batch)?;
            from = last + 1;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), Stopped> {
        self.fill()?;
        self.write(header, batch)?;
        self.next = header.last_offset() + 1;
        Ok(())
    }

    fn write(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), Stopped> {
        let bytes = batch.len() as u64;
        if self.build.is_full(bytes) {
            let written = self.build.write_extent(&*self.files[0]);
            written.map_err(|error| self.failed(0, error))?;
        }
        let place = (
            header.base_offset,
            header.last_offset(),
            record_timestamp(header),
        );
        self.build.push(place, &[batch]);
        self.sum.add(batch);
        self.unsynced += bytes;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            let synced = self.files[0].sync_data();
            synced.map_err(|error| self.failed(0, error))?;
        }
        Ok(())
    }

    /// Everything is durable under its name.
    pub(super) fn finish(mut self) -> Result<(SegmentEntry, Sum), Stopped> {
        self.fill()?;
        let written = self.build.write_extent(&*self.files[0]);
        written.map_err(|error| self.failed(0, error))?;
        for (file, bytes) in [(1, &self.build.sums), (2, &self.build.idxs)] {
            let written = self.files[file].write_at(bytes, 0, Durability::Later);
            written.map_err(|error| self.failed(file, error))?;
        }
        for file in 0..self.files.len() {
            let synced = self.files[file].sync_data();
            synced.map_err(|error| self.failed(file, error))?;
        }
        let files = &self.partition.shared().files;
        let dir = files.partition_dir(self.partition.id());
        let synced = files.disk().sync_dir(&dir);
        synced.map_err(|error| FlushError::new(dir, error))?;
        let metrics = &self.partition.shared().metrics;
        metrics.compaction.written_bytes.inc_by(self.sum.bytes);
        Ok((self.build.segment, self.sum))
    }
}
