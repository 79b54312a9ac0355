//! What a partition remembers of its producers, case by case.

use super::*;
use crate::codec::CodecError;

fn batch(epoch: i16, base_sequence: i32, last_sequence: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id: 7,
        epoch,
        base_sequence,
        last_sequence,
        transactional: false,
    }
}

/// A table where producer 7, epoch 1, wrote six batches of ten records at offsets 100, 110, …
fn table() -> ProducerTable {
    let mut table = ProducerTable::new();
    for i in 0..6 {
        let next = batch(1, i * 10, i * 10 + 9);
        assert_eq!(table.check(&next), Ok(Verdict::Append));
        let base = 100 + i64::from(i) * 10;
        table.record(&next, base, base + 9, 1_000 + i64::from(i));
    }
    table
}

fn out_of_order(expected: i32, found: i32) -> Result<Verdict, ProducerError> {
    Err(ProducerError::OutOfOrderSequence {
        producer_id: 7,
        expected,
        found,
    })
}

#[test]
fn judges_every_kind_of_next_batch() {
    let table = table();
    let cases = [
        ("next", batch(1, 60, 69), Ok(Verdict::Append)),
        (
            "last again",
            batch(1, 50, 59),
            Ok(Verdict::Duplicate {
                base_offset: 150,
                last_offset: 159,
            }),
        ),
        (
            "fifth last again",
            batch(1, 10, 19),
            Ok(Verdict::Duplicate {
                base_offset: 110,
                last_offset: 119,
            }),
        ),
        ("sixth last again", batch(1, 0, 9), out_of_order(60, 0)),
        (
            "same start, other end",
            batch(1, 50, 58),
            out_of_order(60, 50),
        ),
        ("gap", batch(1, 61, 61), out_of_order(60, 61)),
        ("new epoch from 0", batch(2, 0, 0), Ok(Verdict::Append)),
        (
            "new epoch, not from 0",
            batch(2, 60, 69),
            out_of_order(0, 60),
        ),
        (
            "old epoch",
            batch(0, 60, 69),
            Err(ProducerError::InvalidEpoch {
                producer_id: 7,
                current: 1,
                found: 0,
            }),
        ),
        (
            "unknown producer",
            ProducerBatch {
                producer_id: 8,
                ..batch(0, 41, 41)
            },
            Ok(Verdict::Append),
        ),
    ];
    for (name, next, want) in cases {
        assert_eq!(table.check(&next), want, "{name}");
    }
}

#[test]
fn sequences_wrap_at_the_largest_number() {
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 2, 4), 1);
    assert_eq!(advance_sequence(-1, 1), 0);
    let mut table = ProducerTable::new();
    table.record(&batch(0, i32::MAX - 1, 0), 0, 2, 0);
    assert_eq!(table.check(&batch(0, 1, 1)), Ok(Verdict::Append));
    assert_eq!(
        table.check(&batch(0, i32::MAX - 1, 0)),
        Ok(Verdict::Duplicate {
            base_offset: 0,
            last_offset: 2
        })
    );
}

#[test]
fn expiry_forgets() {
    let mut held = table();
    assert_eq!(held.expire(1_005 + 99, 100), 0);
    assert_eq!(held.expire(1_005 + 100, 100), 1);
    assert!(held.is_empty());
}

#[test]
fn bounded_by_forgetting_the_least_recently_active() {
    let mut held = ProducerTable::new();
    for id in 0..=PRODUCERS_MAX as i64 {
        held.record(
            &ProducerBatch {
                producer_id: id,
                ..batch(0, 5, 5)
            },
            id,
            id,
            id,
        );
    }
    assert_eq!(held.len(), PRODUCERS_MAX - EVICTED_AT_ONCE + 1);
    assert_eq!(
        held.check(&ProducerBatch {
            producer_id: 0,
            ..batch(0, 9, 9)
        }),
        Ok(Verdict::Append)
    );
    assert!(
        held.check(&ProducerBatch {
            producer_id: 65_536,
            ..batch(0, 9, 9)
        })
        .is_err()
    );
}

#[test]
fn snapshot_round_trips_and_refuses_every_cut() {
    let held = table();
    let bytes = held.encode();
    assert_eq!(ProducerTable::decode(&bytes), Ok(held));
    for cut in 0..bytes.len() {
        assert!(
            ProducerTable::decode(&bytes[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(ProducerTable::decode(&longer).is_err());
    assert!(matches!(
        ProducerTable::decode(&[3]),
        Err(CodecError::Version { version: 3, .. })
    ));
    assert!(
        ProducerTable::decode(&[1, 0x7f, 0xff, 0xff, 0xff]).is_err(),
        "a count the bytes cannot hold"
    );
}

fn of(producer_id: i64, epoch: i16, sequence: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id,
        epoch,
        base_sequence: sequence,
        last_sequence: sequence,
        transactional: true,
    }
}

fn end(producer_id: i64, epoch: i16, commit: bool) -> Marker {
    Marker {
        producer_id,
        epoch,
        coordinator_epoch: 3,
        commit,
    }
}

#[test]
fn open_transactions_hold_the_stable_offset_back_until_their_markers_are_durable() {
    let mut held = ProducerTable::new();
    assert_eq!(held.first_unstable(0), None);
    held.record(&of(1, 0, 0), 10, 10, 0);
    held.record(&of(2, 0, 0), 11, 11, 0);
    held.record(&of(1, 0, 1), 12, 12, 0);
    assert_eq!(held.first_unstable(13), Some(10));
    held.record_marker(&end(1, 0, true), 13, 0);
    assert_eq!(
        held.first_unstable(13),
        Some(10),
        "the marker is not durable"
    );
    assert_eq!(held.first_unstable(14), Some(11));
    held.record_marker(&end(2, 0, false), 14, 0);
    assert_eq!(held.first_unstable(14), Some(11));
    assert_eq!(held.first_unstable(15), None);
    assert!(!held.has_unstable());
    // A marker without a transaction changes nothing but the epoch.
    held.record_marker(&end(3, 7, false), 15, 0);
    assert_eq!(held.aborted().len(), 1);
    assert_eq!(held.first_unstable(16), None);
}

#[test]
fn of_open_transactions_the_one_whose_producer_is_silent_for_longest_is_told() {
    let mut held = ProducerTable::new();
    held.record(&batch(0, 0, 0), 9, 9, 1);
    assert_eq!(held.oldest_open_ms(), None, "no transaction is open");
    held.record(&of(1, 0, 0), 10, 10, 20);
    held.record(&of(2, 0, 0), 11, 11, 30);
    assert_eq!(held.oldest_open_ms(), Some(20));
    held.record(&of(1, 0, 1), 12, 12, 40);
    assert_eq!(held.oldest_open_ms(), Some(30));
    held.record_marker(&end(2, 0, true), 13, 50);
    assert_eq!(held.oldest_open_ms(), Some(40));
    held.record_marker(&end(1, 0, false), 14, 60);
    assert_eq!(held.oldest_open_ms(), None);
}

#[test]
fn aborted_transactions_are_found_by_range() {
    let mut held = ProducerTable::new();
    // 1: 0..=4 aborted, 2: 1..=9 aborted, 3: 5..=6 committed, 1 again: 7..=8 aborted.
    held.record(&of(1, 0, 0), 0, 0, 0);
    held.record(&of(2, 0, 0), 1, 3, 0);
    held.record_marker(&end(1, 0, false), 4, 0);
    held.record(&of(3, 0, 0), 5, 5, 0);
    held.record_marker(&end(3, 0, true), 6, 0);
    held.record(&of(1, 0, 1), 7, 7, 0);
    held.record_marker(&end(1, 0, false), 8, 0);
    held.record_marker(&end(2, 0, false), 9, 0);
    let found = |from, to| -> Vec<(i64, i64)> {
        let found = held.aborted_in(from, to);
        found
            .iter()
            .map(|a| (a.producer_id, a.first_offset))
            .collect()
    };
    assert_eq!(found(0, 10), [(1, 0), (1, 7), (2, 1)]);
    assert_eq!(found(0, 1), [(1, 0)]);
    assert_eq!(found(5, 7), [(2, 1)]);
    assert_eq!(found(5, 8), [(1, 7), (2, 1)]);
    assert_eq!(found(9, 10), [(2, 1)]);
    assert_eq!(found(10, 11), []);
    let mut later = held.clone();
    later.forget_below(9);
    assert_eq!(later.aborted().len(), 1);
}

#[test]
fn a_marker_fences_and_starts_sequences_anew() {
    let mut held = ProducerTable::new();
    held.record(&of(1, 5, 0), 0, 0, 0);
    let outside = ProducerBatch {
        transactional: false,
        ..of(1, 5, 1)
    };
    assert_eq!(
        held.check(&outside),
        Err(ProducerError::NotTransactional { producer_id: 1 })
    );
    assert_eq!(
        held.check_marker(&end(1, 6, true), true),
        Ok(MarkerVerdict::Append)
    );
    held.record_marker(&end(1, 6, true), 1, 0);
    assert!(held.ends_with_marker(1, 6));
    // Again, as after a crash: it is there, also when the next transaction has begun.
    assert_eq!(
        held.check_marker(&end(1, 6, true), true),
        Ok(MarkerVerdict::Done)
    );
    assert_eq!(
        held.check_marker(&end(1, 6, true), false),
        Ok(MarkerVerdict::Append)
    );
    assert!(held.check(&of(1, 5, 1)).is_err(), "the epoch is an old one");
    assert!(held.check(&of(1, 6, 1)).is_err(), "sequences begin at 0");
    assert_eq!(held.check(&of(1, 6, 0)), Ok(Verdict::Append));
    assert!(!held.is_open(1, 6));
    held.record(&of(1, 6, 0), 2, 2, 0);
    assert!(held.is_open(1, 6) && !held.is_open(1, 5));
    assert_eq!(
        held.check_marker(&end(1, 6, true), true),
        Ok(MarkerVerdict::Done)
    );
    assert!(held.check_marker(&end(1, 5, true), true).is_err());
    let old = Marker {
        coordinator_epoch: 2,
        ..end(1, 7, true)
    };
    assert!(matches!(
        held.check_marker(&old, true),
        Err(ProducerError::CoordinatorFenced {
            current: 3,
            found: 2,
            ..
        })
    ));
}

#[test]
fn a_coordinators_batches_have_no_sequence() {
    let mut held = ProducerTable::new();
    let batch = of(1, 0, -1);
    for offset in 0..3 {
        assert_eq!(held.check(&batch), Ok(Verdict::Append));
        held.record(&batch, offset, offset, 0);
    }
    assert_eq!(held.first_unstable(3), Some(0));
    held.record_marker(&end(1, 1, true), 3, 0);
    assert!(held.check(&batch).is_err(), "an old epoch all the same");
}

#[test]
fn open_transactions_outlive_expiry_and_snapshots() {
    let mut held = ProducerTable::new();
    held.record(&of(1, 0, 0), 0, 0, 0);
    held.record(&of(2, 0, 0), 1, 1, 0);
    held.record_marker(&end(2, 1, false), 2, 0);
    held.record(&batch(1, 0, 9), 3, 12, 0);
    held.first_unstable(13);
    let bytes = held.encode();
    assert_eq!(bytes[0], 2);
    assert_eq!(ProducerTable::decode(&bytes), Ok(held.clone()));
    for cut in 0..bytes.len() {
        assert!(
            ProducerTable::decode(&bytes[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    assert_eq!(held.expire(1_000, 100), 2);
    assert_eq!(held.first_unstable(13), Some(0));
    let golden = b"\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\
        \0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
        \0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0";
    assert_eq!(held.encode(), golden);
}
