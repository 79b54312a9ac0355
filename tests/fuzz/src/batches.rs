//! Targets for what a client sends: the validator of produced batches, the record walker, the decompressors.
//!
//! Owns what must hold of whatever is accepted: it can be read again by the readers of the broker, and gives the same.

use keelson_protocol::batch::BATCH_HEADER_BYTES;
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_protocol::{
    BatchHeader, Compression, TimestampType, ValidateLimits, rewrite_timestamps, validate_produced,
};

/// Small, so that an input that asks for more is refused early and a run stays fast.
const DECOMPRESSED_BYTES_MAX: usize = 4 * 1024 * 1024;
const LIMITS: ValidateLimits = ValidateLimits {
    batch_bytes_max: 1024 * 1024,
    decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    produce_version: 9,
};
const HEADER_LENGTH: std::ops::Range<usize> = 8..12;
const HEADER_ATTRIBUTES: usize = 22;

/// The batch with a length and a checksum that hold, as a hostile client would send it.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut batch = input.to_vec();
    if batch.len() >= BATCH_HEADER_BYTES {
        let length = (batch.len() - HEADER_LENGTH.end) as i32;
        batch[HEADER_LENGTH].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        if let Ok(header) = BatchHeader::parse(&batch) {
            // Sets what is there already, and the CRC.
            rewrite_timestamps(&mut batch, header.timestamp_type(), header.max_timestamp)
                .expect("the length holds");
        }
    }
    batch
}

/// A produced batch, as it is and with its checksum set right.
pub(crate) fn validator(input: &[u8]) {
    for batch in [input, &sealed(input)] {
        let Ok(validated) = validate_produced(batch, &LIMITS) else {
            continue;
        };
        let header = validated.header;
        assert_eq!(header.size(), batch.len(), "one batch and nothing else");
        // Nothing that a consumer could not read is ever accepted.
        let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).expect("accepted: decompresses");
        assert_eq!(records.len(), validated.decompressed_bytes);
        let mut newest = i64::MIN;
        let mut count = 0;
        for record in RecordWalker::new(&records, header.records_count) {
            let record = record.expect("accepted: every record is read");
            assert_eq!(record.offset_delta, count, "offsets have no holes");
            newest = newest.max(header.base_timestamp + record.timestamp_delta);
            count += 1;
        }
        assert_eq!(count, header.records_count, "every record is there");
        assert_eq!(newest, validated.max_timestamp);
        let mut stamped = batch.to_vec();
        rewrite_timestamps(&mut stamped, TimestampType::CreateTime, newest)
            .expect("an accepted batch can be stamped");
        let again = validate_produced(&stamped, &LIMITS).expect("and is still accepted");
        assert!(!again.max_timestamp_wrong());
    }
}

/// Records, as they lie behind a batch's header: a count, then the records.
pub(crate) fn record_walker(input: &[u8]) {
    let Some((count, records)) = input.split_first_chunk::<4>() else {
        return;
    };
    let count = i32::from_be_bytes(*count);
    let mut seen = 0_u64;
    let mut bytes = 0;
    for record in RecordWalker::new(records, count) {
        let Ok(record) = record else { break };
        seen += 1;
        bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        bytes += record
            .headers()
            .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
            .sum::<usize>();
    }
    assert!(bytes <= records.len(), "no byte is given twice");
    // A record has at least seven bytes, so that no count makes the walk long.
    assert!(seen * 7 <= records.len() as u64);
    assert!(seen <= u64::from(count.max(0).unsigned_abs()));
}

/// Compressed data: the codec in the first byte, then the data as they stand in a batch.
pub(crate) fn decompressors(input: &[u8]) {
    let Some((codec, data)) = input.split_first() else {
        return;
    };
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch[HEADER_ATTRIBUTES] = codec % 5;
    batch.extend_from_slice(data);
    let batch = sealed(&batch);
    let (small, large) = (64 * 1024, DECOMPRESSED_BYTES_MAX);
    let whole = decompressed(&batch, large);
    let cut = decompressed(&batch, small);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert!(whole == cut, "the limit changes no byte"),
        // Uncompressed data need no limit: they are not larger than what was sent.
        (Ok(whole), Err(_)) => assert!(whole.len() > small && codec % 5 != 0),
        (Err(_), Ok(_)) => panic!("a higher limit refuses what a lower one takes"),
        (Err(_), Err(_)) => {}
    }
    if let Ok(whole) = &whole {
        assert!(whole.len() <= large.max(data.len()));
    }
}

fn example() -> Vec<u8> {
    let mut builder = BatchBuilder::new(1_000);
    builder.push(Some(b"a"), Some(b"first"));
    builder.push_with(
        1_005,
        None,
        Some(b"second"),
        &[(b"h", Some(b"1")), (b"h", None)],
    );
    builder.push_with(999, Some(b"c"), None, &[]);
    builder.build().to_vec()
}

/// What real clients wrote, one batch per codec.
fn golden() -> Vec<Vec<u8>> {
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex digits"))
            .collect()
    };
    include_str!("../../../broker/protocol/golden/kafka-python.hex")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(_, hex)| unhex(hex))
        .collect()
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    let mut seeds = golden();
    seeds.push(example());
    seeds
}

pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    let batch = example();
    let mut seed = 3_i32.to_be_bytes().to_vec();
    seed.extend_from_slice(&batch[BATCH_HEADER_BYTES..]);
    vec![seed]
}

pub(crate) fn compressed_seeds() -> Vec<Vec<u8>> {
    let seed = |batch: Vec<u8>| {
        let codec = BatchHeader::parse(&batch).and_then(|header| header.compression());
        let mut seed = vec![codec.unwrap_or(Compression::None).id() as u8];
        seed.extend_from_slice(&batch[BATCH_HEADER_BYTES..]);
        seed
    };
    golden().into_iter().map(seed).collect()
}
