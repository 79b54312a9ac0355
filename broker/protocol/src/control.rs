//! Control batches: the markers that end a transaction (KIP-98).
//!
//! Owns how a marker stands in a batch. Never judges whether one is due.
//!
//! ```text
//! a batch of one record, transactional and control, with the producer's id and epoch and no sequence
//! key    version i16 | type i16: 0 abort, 1 commit
//! value  version i16 | coordinator epoch i32
//! ```

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::builder::BatchBuilder;
use crate::records::RecordWalker;

const VERSION: [u8; 2] = [0, 0];
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// Commit, or abort.
    pub commit: bool,
    /// Epoch of the coordinator that decided it.
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// A batch that ends a producer's transaction.
    pub fn batch(&self, (producer_id, epoch): (i64, i16), timestamp: i64) -> Bytes {
        let kind = if self.commit { COMMIT } else { ABORT };
        let key = [VERSION, kind.to_be_bytes()].concat();
        let value = [&VERSION[..], &self.coordinator_epoch.to_be_bytes()].concat();
        let mut builder = BatchBuilder::new(timestamp)
            .producer(producer_id, epoch, -1)
            .control();
        builder.push(Some(&key), Some(&value));
        builder.build()
    }

    /// The marker in a control batch, given what follows its header. `None`: it is of another kind, or of a later version,
    /// or compaction has taken its record; none of these ends a transaction.
    pub fn of(header: &BatchHeader, records: &[u8]) -> Option<Self> {
        if !header.is_control() {
            return None;
        }
        let record = RecordWalker::new(records, header.records_count)
            .next()?
            .ok()?;
        let (key, value) = (record.key?, record.value?);
        let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
        let coordinator_epoch = i32::from_be_bytes(value.get(2..6)?.try_into().ok()?);
        let commit = match kind {
            ABORT => false,
            COMMIT => true,
            _ => return None,
        };
        Some(EndMarker {
            commit,
            coordinator_epoch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BATCH_HEADER_BYTES, verify_crc};

    #[test]
    fn a_marker_is_golden() {
        for (commit, kind) in [(true, 1), (false, 0)] {
            let marker = EndMarker {
                commit,
                coordinator_epoch: 0x0102_0304,
            };
            let batch = marker.batch((7, 3), 99);
            let header = BatchHeader::parse(&batch).unwrap();
            assert_eq!(verify_crc(&batch), Ok(()));
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
            assert_eq!((header.base_sequence, header.records_count), (-1, 1));
            let records = &batch[BATCH_HEADER_BYTES..];
            // Length, attributes, two deltas, key of 4, value of 6, no headers; lengths are zigzag.
            let golden = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 1, 2, 3, 4, 0];
            assert_eq!(records, golden);
            assert_eq!(EndMarker::of(&header, records), Some(marker));
            assert_eq!(EndMarker::of(&header, &records[..9]), None);
        }
    }
}
