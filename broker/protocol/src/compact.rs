//! A batch without some of its records: the one place where a batch that a producer sent is built anew.
//!
//! Owns what such a batch keeps, by Kafka's rules (`MemoryRecords.filterTo`, KIP-534): base and last offset, leader epoch,
//! producer id, epoch and base sequence, timestamp type, codec, and all of the records that stay. Never decides which do.

use bytes::Bytes;

use crate::batch::{
    ATTRIBUTE_CODEC_MASK, ATTRIBUTE_DELETE_HORIZON, BATCH_HEADER_BYTES, BatchError, BatchHeader,
    TimestampType, seal,
};
use crate::builder::put_record;
use crate::compression::compress;
use crate::records::{Record, RecordWalker};

/// The batch with only the records that `keep` says yes to. `records` are those of the batch, decompressed. A
/// `delete_horizon_ms` is put in place of the base timestamp, as the time from which tombstones may go.
///
/// With no record left, the batch still spans its offsets and carries its producer's sequence.
///
/// # Errors
/// If a record is malformed, or the kept ones do not compress.
pub fn retain(
    header: &BatchHeader,
    records: &[u8],
    delete_horizon_ms: Option<i64>,
    keep: &mut dyn FnMut(&Record<'_>) -> bool,
) -> Result<Bytes, BatchError> {
    let mut kept = Vec::new();
    for record in RecordWalker::new(records, header.records_count) {
        let record = record?;
        if keep(&record) {
            kept.push(record);
        }
    }
    let Some(first) = kept.first() else {
        return Ok(empty_of(header));
    };
    let time = |record: &Record<'_>| header.base_timestamp + record.timestamp_delta;
    let base_timestamp = delete_horizon_ms
        .or(header.delete_horizon_ms())
        .unwrap_or_else(|| time(first));
    let mut attributes = header.attributes;
    if delete_horizon_ms.is_some() {
        attributes |= ATTRIBUTE_DELETE_HORIZON;
    }
    let mut body = Vec::new();
    for record in &kept {
        put_record(&mut body, record, time(record) - base_timestamp);
    }
    let newest = kept.iter().map(time).max();
    let codec = header.compression()?;
    let body = compress(codec, &body).map_err(|error| codec.failed(&error))?;
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch.extend_from_slice(&body);
    let header = BatchHeader {
        attributes,
        base_timestamp,
        max_timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => newest.unwrap_or(header.max_timestamp),
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        records_count: kept.len() as i32,
        ..*header
    };
    seal(&mut batch, &header);
    Ok(Bytes::from(batch))
}

/// The batch without its records.
fn empty_of(header: &BatchHeader) -> Bytes {
    let header = BatchHeader {
        attributes: header.attributes & !(ATTRIBUTE_CODEC_MASK | ATTRIBUTE_DELETE_HORIZON),
        base_timestamp: -1,
        records_count: 0,
        ..*header
    };
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    seal(&mut batch, &header);
    Bytes::from(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{patch_offset_and_epoch, verify_crc};
    use crate::builder::BatchBuilder;
    use crate::compression::Compression;
    use crate::records::decompressed;

    const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

    /// Four records: keys a, b, c, d; times 1000, 1005, 1003, 1004; c is a tombstone, b has headers.
    fn batch(codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1000).producer(7, 2, 40);
        builder.push_with(1000, Some(b"a"), Some(b"1"), &[]);
        let headers: [(&[u8], Option<&[u8]>); 3] =
            [(b"x", Some(b"1")), (b"x", Some(b"2")), (b"y", None)];
        builder.push_with(1005, Some(b"b"), Some(b"2"), &headers);
        builder.push_with(1003, Some(b"c"), None, &[]);
        builder.push_with(1004, Some(b"d"), Some(b"4"), &[]);
        let plain = builder.build();
        let header = BatchHeader::parse(&plain).unwrap();
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        bytes.extend(compress(codec, &plain[BATCH_HEADER_BYTES..]).unwrap());
        let header = BatchHeader {
            attributes: codec.id(),
            ..header
        };
        seal(&mut bytes, &header);
        patch_offset_and_epoch(&mut bytes, 100, 5);
        bytes
    }

    type Plain = (i32, i64, Vec<u8>, Option<Vec<u8>>, usize);

    /// Header, and each record: offset delta, time, key, value, headers.
    fn read(bytes: &[u8]) -> (BatchHeader, Vec<Plain>) {
        let header = BatchHeader::parse(bytes).unwrap();
        verify_crc(bytes).unwrap();
        assert_eq!(header.size(), bytes.len());
        let records = decompressed(bytes, DECOMPRESSED_BYTES_MAX).unwrap();
        let plain = RecordWalker::new(&records, header.records_count).map(|record| {
            let record = record.unwrap();
            (
                record.offset_delta,
                header.base_timestamp + record.timestamp_delta,
                record.key.unwrap().to_vec(),
                record.value.map(<[u8]>::to_vec),
                record.headers().count(),
            )
        });
        (header, plain.collect())
    }

    fn retained(bytes: &[u8], horizon: Option<i64>, keys: &[&[u8]]) -> Vec<u8> {
        let header = BatchHeader::parse(bytes).unwrap();
        let records = decompressed(bytes, DECOMPRESSED_BYTES_MAX).unwrap();
        let mut keep = |record: &Record<'_>| keys.contains(&record.key.unwrap());
        let kept = retain(&header, &records, horizon, &mut keep).unwrap();
        kept.to_vec()
    }

    #[test]
    fn what_stays_is_what_it_was_with_every_codec() {
        for id in 0..5 {
            let codec = Compression::from_id(id).unwrap();
            let before = batch(codec);
            let (old, all) = read(&before);
            let (new, kept) = read(&retained(&before, None, &[b"b", b"d"]));
            assert_eq!(kept, [all[1].clone(), all[3].clone()], "{codec:?}");
            assert_eq!(new.compression(), Ok(codec));
            let same = |h: &BatchHeader| {
                (
                    (h.base_offset, h.last_offset(), h.partition_leader_epoch),
                    (h.producer_id, h.producer_epoch, h.base_sequence),
                    h.last_sequence(),
                )
            };
            assert_eq!(same(&new), same(&old));
            assert_eq!((new.base_timestamp, new.max_timestamp), (1005, 1005));
            assert_eq!(new.records_count, 2);
        }
    }

    #[test]
    fn a_delete_horizon_is_set_once_and_times_stay() {
        let before = batch(Compression::Zstd);
        let first = retained(&before, Some(9_000), &[b"a", b"c"]);
        let (header, records) = read(&first);
        assert_eq!(header.delete_horizon_ms(), Some(9_000));
        let times: Vec<i64> = records.iter().map(|r| r.1).collect();
        assert_eq!((times, header.max_timestamp), (vec![1000, 1003], 1003));
        let (header, records) = read(&retained(&first, None, &[b"c"]));
        assert_eq!(header.delete_horizon_ms(), Some(9_000));
        assert_eq!((records[0].1, &records[0].3), (1003, &None));
    }

    #[test]
    fn nothing_left_still_spans_the_offsets_and_the_sequence() {
        let before = batch(Compression::Gzip);
        let after = retained(&before, None, &[]);
        let (header, records) = read(&after);
        assert_eq!((after.len(), records.len()), (BATCH_HEADER_BYTES, 0));
        assert_eq!((header.base_offset, header.last_offset()), (100, 103));
        assert_eq!((header.producer_id, header.last_sequence()), (7, 43));
        assert_eq!(header.compression(), Ok(Compression::None));
        // Its newest time stays: the producer's state expires by it.
        assert_eq!((header.base_timestamp, header.max_timestamp), (-1, 1005));
    }
}
