//! Record batches: golden ones of real clients, the failures of class B, and everything a producer may get wrong.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::batch::{BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, seal};
use crate::builder::BatchBuilder;
use crate::records::{RecordWalker, decompressed};
use crate::*;

const LIMITS: ValidateLimits = ValidateLimits {
    batch_bytes_max: 1 << 20,
    decompressed_bytes_max: 4 << 20,
    produce_version: 9,
};

/// Key, value and headers of a record.
type Flat = (
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

fn golden() -> Vec<(String, Vec<u8>)> {
    let unhex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    include_str!("../../golden/kafka-python.hex")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, hex)| (name.to_owned(), unhex(hex)))
        .collect()
}

fn walk(batch: &[u8]) -> Vec<Flat> {
    let header = BatchHeader::parse(batch).unwrap();
    let records = decompressed(batch, LIMITS.decompressed_bytes_max).unwrap();
    RecordWalker::new(&records, header.records_count)
        .map(|record| {
            let record = record.unwrap();
            let headers = record
                .headers()
                .map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)))
                .collect();
            (
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers,
            )
        })
        .collect()
}

fn three() -> Vec<u8> {
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

/// The batch with other records (already compressed if `codec` says so) and another header.
fn with(records: &[u8], codec: Compression, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader::parse(&three()).unwrap();
    header.attributes = codec.id();
    change(&mut header);
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch.extend_from_slice(records);
    seal(&mut batch, &header);
    batch
}

/// Snappy as one raw block, as some clients write it; the others as we write them.
fn compress(codec: Compression, data: &[u8]) -> Vec<u8> {
    match codec {
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(data).unwrap(),
        Compression::None | Compression::Gzip | Compression::Lz4 | Compression::Zstd => {
            crate::compression::compress(codec, data).unwrap()
        }
    }
}

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

#[track_caller]
fn refused(batch: &[u8], expected: &str) {
    let error = validate_produced(batch, &LIMITS).unwrap_err().to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

#[test]
fn golden_batches_of_every_codec_are_read() {
    let value = b"value-".repeat(20);
    let expected: Vec<Flat> = vec![
        (Some(b"key-0".to_vec()), Some(value.clone()), vec![]),
        (None, Some(value.clone()), vec![]),
        (
            Some(b"key-2".to_vec()),
            Some(value),
            vec![(b"h".to_vec(), Some(b"1".to_vec())); 2],
        ),
    ];
    let batches = golden();
    assert_eq!(batches.len(), CODECS.len());
    for ((name, batch), codec) in batches.iter().zip(CODECS) {
        let validated = validate_produced(batch, &LIMITS).unwrap();
        assert_eq!(validated.header.compression().unwrap(), codec);
        assert_eq!(codec.name(), name);
        assert_eq!(validated.header.size(), batch.len());
        assert_eq!(validated.header.last_offset(), 2);
        assert_eq!(validated.max_timestamp, 1_700_000_000_002);
        assert!(!validated.max_timestamp_wrong());
        assert!(!validated.all_have_keys);
        let found = |most, at_fault: fn(i64, bool) -> bool| {
            let max = LIMITS.decompressed_bytes_max;
            records_at_fault(batch, max, most, at_fault).unwrap()
        };
        assert_eq!(found(9, |_, has_key| !has_key), [1], "{name}");
        assert_eq!(
            found(9, |time, _| time > 1_700_000_000_000),
            [1, 2],
            "{name}"
        );
        assert_eq!(found(2, |_, _| true), [0, 1], "{name}");
        let walked = walk(batch);
        assert_eq!(walked[..2], expected[..2], "{name}");
        assert_eq!(walked[2].0, expected[2].0, "{name}");
        assert_eq!(walked[2].2.len(), 2, "duplicate header keys stay: {name}");
    }
}

#[test]
fn b1_the_checksum_is_crc32c_of_everything_behind_it() {
    for (name, batch) in golden() {
        verify_crc(&batch).unwrap_or_else(|error| panic!("{name}: {error}"));
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.crc, crc32c::crc32c(&batch[21..]));
    }
}

#[test]
fn b2_every_flipped_bit_is_found() {
    let (_, batch) = golden().swap_remove(0);
    for at in 0..batch.len() * 8 {
        let mut bad = batch.clone();
        bad[at / 8] ^= 1 << (at % 8);
        let outside_crc = at / 8 < 8 || (12..16).contains(&(at / 8));
        assert_eq!(
            validate_produced(&bad, &LIMITS).is_ok(),
            outside_crc,
            "bit {at}"
        );
    }
}

#[test]
fn b3_bytes_before_or_behind_the_batch_are_refused() {
    let batch = three();
    for padding in 1..9 {
        let mut behind = batch.clone();
        behind.extend(std::iter::repeat_n(0, padding));
        refused(&behind, "follow the batch");
        let mut before = vec![0; padding];
        before.extend_from_slice(&batch);
        assert!(validate_produced(&before, &LIMITS).is_err());
    }
    let mut two = batch.clone();
    two.extend_from_slice(&batch);
    refused(&two, "follow the batch");
}

#[test]
fn b4_patching_offset_and_epoch_changes_those_bytes_only() {
    for (name, batch) in golden() {
        let mut patched = batch.clone();
        patch_offset_and_epoch(
            &mut patched[..BATCH_PREFIX_BYTES],
            0x0102_0304_0506_0708,
            77,
        );
        verify_crc(&patched).unwrap_or_else(|error| panic!("{name}: {error}"));
        let header = BatchHeader::parse(&patched).unwrap();
        assert_eq!(
            (header.base_offset, header.partition_leader_epoch),
            (0x0102_0304_0506_0708, 77)
        );
        assert_eq!(header.last_offset(), 0x0102_0304_0506_0708 + 2);
        assert_eq!(patched[8..12], batch[8..12]);
        assert_eq!(patched[16..], batch[16..]);
        assert_eq!(walk(&patched), walk(&batch), "{name}");
    }
}

#[test]
fn b6_older_message_formats_are_refused_by_name() {
    for magic in [0, 1, 3, -1i8] {
        let mut batch = three();
        batch[16] = magic as u8;
        assert_eq!(
            validate_produced(&batch, &LIMITS).unwrap_err(),
            BatchError::Magic { magic }
        );
    }
}

#[test]
fn b9_a_batch_of_ours_has_kafkas_checksum_and_layout() {
    let batch = three();
    let validated = validate_produced(&batch, &LIMITS).unwrap();
    assert_eq!(
        validated.header.crc.to_be_bytes(),
        crc32c::crc32c(&batch[21..]).to_be_bytes()
    );
    assert_eq!(batch[17..21], validated.header.crc.to_be_bytes());
    assert_eq!(validated.header.batch_length as usize, batch.len() - 12);
    assert_eq!(validated.max_timestamp, 1_005);
    assert_eq!(
        walk(&batch)[1].2,
        vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None)]
    );
}

#[test]
fn rewritten_timestamps_keep_the_records() {
    let mut batch = three();
    rewrite_timestamps(&mut batch, TimestampType::LogAppendTime, 5_000).unwrap();
    verify_crc(&batch).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(
        (header.timestamp_type(), header.max_timestamp),
        (TimestampType::LogAppendTime, 5_000)
    );
    assert_eq!(walk(&batch), walk(&three()));
    refused(&batch, "append time is set by brokers only");
    rewrite_timestamps(&mut batch, TimestampType::CreateTime, 1_005).unwrap();
    assert_eq!(batch, three());
}

#[test]
fn a_wrong_max_timestamp_is_reported_not_refused() {
    let records = &three()[BATCH_HEADER_BYTES..];
    let batch = with(records, Compression::None, |header| {
        header.max_timestamp = 1
    });
    let validated = validate_produced(&batch, &LIMITS).unwrap();
    assert!(validated.max_timestamp_wrong());
    assert_eq!(validated.max_timestamp, 1_005);
}

#[test]
fn header_fields_are_judged() {
    let good = three();
    let records = &good[BATCH_HEADER_BYTES..];
    let check = |expected: &str, change: fn(&mut BatchHeader)| {
        refused(&with(records, Compression::None, change), expected)
    };
    check("records_count 0", |h| h.records_count = 0);
    check("records_count -3", |h| h.records_count = -3);
    check("disagree", |h| h.last_offset_delta = 3);
    check("disagree", |h| h.records_count = i32::MIN);
    check("record 3", |h| {
        (h.records_count, h.last_offset_delta) = (4, 3)
    });
    check("bytes follow the last of 2", |h| {
        (h.records_count, h.last_offset_delta) = (2, 1)
    });
    check("codec 5 is unknown", |h| h.attributes = 5);
    check("by brokers only", |h| h.attributes = 0x20);
    check("by brokers only", |h| h.attributes = 0x08);
    check("compaction only", |h| h.attributes = 0x40);
    check("needs a producer id", |h| h.attributes = 0x10);
    check("id is negative", |h| h.producer_id = -2);
    check("needs an epoch", |h| {
        (h.producer_id, h.base_sequence) = (7, 0)
    });
    check("needs a sequence", |h| {
        (h.producer_id, h.producer_epoch) = (7, 0)
    });
    check("overflows the timestamp", |h| h.base_timestamp = i64::MAX);
    let idempotent = with(records, Compression::None, |h| {
        (h.producer_id, h.producer_epoch, h.base_sequence) = (7, 0, i32::MAX - 1);
    });
    let header = validate_produced(&idempotent, &LIMITS).unwrap().header;
    assert_eq!(
        header.last_sequence(),
        0,
        "sequences wrap from i32::MAX to 0"
    );
}

#[test]
fn lengths_and_sizes_are_judged() {
    let good = three();
    for cut in 0..good.len() {
        assert!(
            validate_produced(&good[..cut], &LIMITS).is_err(),
            "cut at {cut}"
        );
        assert!(decompressed(&good[..cut], 1 << 20).is_err(), "cut at {cut}");
        assert!(verify_crc(&good[..cut]).is_err(), "cut at {cut}");
    }
    for length in [i32::MIN, -1, 0, 48, i32::MAX] {
        let mut bad = good.clone();
        bad[8..12].copy_from_slice(&length.to_be_bytes());
        refused(&bad, "batch_length");
    }
    let small = ValidateLimits {
        batch_bytes_max: good.len() - 1,
        ..LIMITS
    };
    let error = validate_produced(&good, &small).unwrap_err();
    assert_eq!(
        error,
        BatchError::TooLarge {
            size: good.len(),
            max: good.len() - 1
        }
    );
    validate_produced(
        &good,
        &ValidateLimits {
            batch_bytes_max: good.len(),
            ..LIMITS
        },
    )
    .unwrap();
}

#[test]
fn malformed_records_are_refused_with_their_field() {
    // length, attributes, timestamp delta, offset delta, key, value, headers
    let one = |records: &[u8], expected: &str| {
        let batch = with(records, Compression::None, |h| {
            (h.records_count, h.last_offset_delta) = (1, 0)
        });
        refused(&batch, expected);
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let data = compress(codec, records);
            let batch = with(&data, codec, |h| {
                (h.records_count, h.last_offset_delta) = (1, 0)
            });
            refused(&batch, expected);
        }
    };
    one(&[12, 0, 0, 0, 1, 1, 2], "header key length");
    one(&[14, 0, 0, 0, 1, 1, 0, 0], "record 0: length 7: is longer");
    one(&[13, 0, 0, 0, 1, 1, 0], "length -7: is negative");
    one(&[12, 0, 0, 2, 1, 1, 0], "offset_delta 1: is not the index");
    one(&[12, 0, 0, 0, 3, 1, 0], "key length -2: is negative");
    one(
        &[12, 0, 0, 0, 100, 1, 0],
        "key length 50: lies outside the record",
    );
    one(&[12, 0, 0, 0, 1, 3, 0], "value length -2");
    one(&[12, 0, 0, 0, 1, 1, 1], "headers count -1: is negative");
    one(
        &[22, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0],
        "header value length",
    );
    one(
        &[20, 0, 0, 0, 1, 1, 2, 1, 1, 0, 0],
        "header key length -1: is negative",
    );
    one(&[0xff, 0xff, 0xff, 0xff, 0xff, 0], "overlong varint");
    one(&[0xff, 0xff, 0xff, 0xff, 0x7f, 0], "does not fit 32 bits");
    one(&[100, 0, 0, 0, 80], "ends behind the batch");
    one(&[12, 0, 0, 0, 1, 1, 0, 9], "bytes follow the last of 1");
}

#[test]
fn every_codec_round_trips_and_bombs_are_refused() {
    let plain = three();
    for codec in CODECS {
        let data = compress(codec, &plain[BATCH_HEADER_BYTES..]);
        let batch = with(&data, codec, |_| {});
        let validated = validate_produced(&batch, &LIMITS).unwrap();
        assert_eq!(
            validated.decompressed_bytes,
            plain.len() - BATCH_HEADER_BYTES
        );
        assert_eq!(walk(&batch), walk(&plain));
        // Half of it, and with a byte too many: cut or rotten data never pass.
        if codec != Compression::None {
            let cut = with(&data[..data.len() / 2], codec, |_| {});
            assert!(validate_produced(&cut, &LIMITS).is_err(), "{codec:?} cut");
        }
    }
    // One record whose value is 16 MiB of zeros.
    let value = vec![0u8; 16 << 20];
    let mut builder = BatchBuilder::new(0);
    builder.push(None, Some(&value));
    let big = builder.build();
    for codec in [
        Compression::Gzip,
        Compression::Lz4,
        Compression::Zstd,
        Compression::Snappy,
    ] {
        let batch = with(&compress(codec, &big[BATCH_HEADER_BYTES..]), codec, |h| {
            (h.records_count, h.last_offset_delta) = (1, 0);
        });
        let roomy = ValidateLimits {
            batch_bytes_max: 1 << 30,
            ..LIMITS
        };
        let error = validate_produced(&batch, &roomy).unwrap_err();
        assert!(
            matches!(
                error,
                BatchError::Bomb { .. } | BatchError::Decompress { .. }
            ),
            "{error}"
        );
        assert!(decompressed(&batch, 1 << 20).is_err());
    }
}

#[test]
fn snappy_in_both_framings_and_with_lies() {
    let records = &three()[BATCH_HEADER_BYTES..];
    let mut xerial = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for part in records.chunks(10) {
        let block = compress(Compression::Snappy, part);
        xerial.extend_from_slice(&(block.len() as u32).to_be_bytes());
        xerial.extend_from_slice(&block);
    }
    validate_produced(&with(&xerial, Compression::Snappy, |_| {}), &LIMITS).unwrap();
    // Joined streams, as snappy-java reads them.
    let mut joined = xerial[..16].to_vec();
    joined.extend_from_slice(&xerial);
    validate_produced(&with(&joined, Compression::Snappy, |_| {}), &LIMITS).unwrap();
    for (lie, expected) in [
        (vec![0xff, 0xff, 0xff, 0xff, 0x0f], "impossible size"),
        ([&xerial[..16], &[0xff; 4]].concat(), "negative"),
        (
            [&xerial[..16], &[0x7f, 0xff, 0xff, 0xff, 1]].concat(),
            "cut off",
        ),
        (xerial[..18].to_vec(), "cut off"),
    ] {
        refused(&with(&lie, Compression::Snappy, |_| {}), expected);
    }
}

#[test]
fn zstd_needs_produce_7() {
    let (_, batch) = golden().pop().unwrap();
    let old = ValidateLimits {
        produce_version: 6,
        ..LIMITS
    };
    let error = validate_produced(&batch, &old).unwrap_err();
    assert_eq!(
        error,
        BatchError::CompressionVersion {
            version: 6,
            needed: 7
        }
    );
}

fn flat() -> impl Strategy<Value = Flat> {
    let bytes = || vec(any::<u8>(), 0..200);
    (
        option::of(bytes()),
        option::of(bytes()),
        vec((vec(any::<u8>(), 0..5), option::of(bytes())), 0..4),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_built_is_read(records in vec((flat(), -1_000i64..1_000), 1..20), codec in 0i16..5) {
        let mut builder = BatchBuilder::new(50_000);
        for ((key, value, headers), delta) in &records {
            let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            builder.push_with(50_000 + delta, key.as_deref(), value.as_deref(), &headers);
        }
        prop_assert_eq!(builder.count() as usize, records.len());
        let size = builder.size();
        let batch: Bytes = builder.build();
        prop_assert_eq!(batch.len(), size);
        let codec = Compression::from_id(codec).unwrap();
        let plain = BatchHeader::parse(&batch).unwrap();
        let data = compress(codec, &batch[BATCH_HEADER_BYTES..]);
        let batch = with(&data, codec, |h| *h = BatchHeader { attributes: codec.id(), ..plain });
        let validated = validate_produced(&batch, &LIMITS).unwrap();
        prop_assert!(!validated.max_timestamp_wrong());
        prop_assert_eq!(walk(&batch), records.into_iter().map(|(flat, _)| flat).collect::<Vec<_>>());
    }

    /// Records of random bytes with a right checksum: an answer, never a panic; and both readers agree.
    #[test]
    fn rotten_records_never_panic(
        noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        count in -1i32..5,
        codec in 0i16..5,
    ) {
        let mut records = three()[BATCH_HEADER_BYTES..].to_vec();
        for (at, byte) in &noise {
            let at = at.index(records.len());
            records[at] = *byte;
        }
        let set = |h: &mut BatchHeader| (h.records_count, h.last_offset_delta) = (count, count - 1);
        let plain = validate_produced(&with(&records, Compression::None, set), &LIMITS);
        let codec = Compression::from_id(codec).unwrap();
        let mut data = compress(codec, &records);
        let packed = validate_produced(&with(&data, codec, set), &LIMITS);
        prop_assert_eq!(plain.is_ok(), packed.is_ok());
        for (at, byte) in &noise {
            let at = at.index(data.len());
            data[at] = *byte;
        }
        let rotten = with(&data, codec, set);
        let _ = validate_produced(&rotten, &LIMITS);
        if let Ok(records) = decompressed(&rotten, LIMITS.decompressed_bytes_max) {
            for record in RecordWalker::new(&records, count).flatten() {
                let _ = record.headers().count();
            }
        }
    }

    #[test]
    fn random_bytes_are_no_batch(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(validate_produced(&bytes, &LIMITS).is_err());
        let _ = RecordWalker::new(&bytes, i32::MAX).count();
    }
}
