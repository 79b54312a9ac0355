//! What the long runs have found, each as a short story that needs no chance.
//!
//! A random life that fails says what is wrong, not what must be right: here that is stated, for each cause that was
//! repaired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use keelson_protocol::builder::BatchBuilder;
use keelson_state::producers::{ProducerBatch, Verdict};

use super::life::sim_options;
use crate::disk::{SimDisk, SimFaults};
use crate::flusher::by_hand::Piece;
use crate::metrics::{Reason, Source, Stage};
use crate::stepped::{Dead, Stepped};
use crate::tests::support::{Rng, append_in, batch, open_partition, partition_id, read_everything};
use crate::{Entry, Partition, PartitionConfig};

fn open(disk: &SimDisk) -> (Stepped, Arc<Partition>) {
    let stepped = Stepped::open(disk, sim_options()).expect("a good disk");
    let partition = open_partition(&stepped.log, partition_id(1, 0), PartitionConfig::default());
    (stepped, partition)
}

fn flush(stepped: &mut Stepped) -> Result<(), Dead> {
    let pieces = stepped.pieces().into_iter();
    pieces
        .filter(|piece| matches!(piece, Piece::Flush(_)))
        .try_for_each(|piece| stepped.run(piece))
}

fn put(partition: &Partition, records: u64, epoch: i32) {
    send(
        partition,
        batch(&mut Rng::new(records), 1_000, records, 40),
        epoch,
    );
}

fn send(partition: &Partition, bytes: Bytes, epoch: i32) {
    append_in(partition, &bytes, epoch).unwrap();
}

fn move_log_start(stepped: &Stepped, partition: &Partition, offset: i64) {
    let entry = Entry::LogStart {
        partition: partition.id(),
        offset,
    };
    stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
}

/// The power fails at each operation of the flush that follows `before`; `check` looks at what a start makes of it.
fn cut_a_flush(before: impl Fn(&mut Stepped, &Partition), check: impl Fn(&Partition, &str)) {
    for cut_behind in 1.. {
        let disk = SimDisk::new(96);
        let (mut stepped, partition) = open(&disk);
        before(&mut stepped, &partition);
        disk.set_faults(SimFaults {
            cut_at: Some(disk.operations() + cut_behind),
            ..SimFaults::default()
        });
        let is_done = flush(&mut stepped).is_ok();
        drop((partition, stepped));
        disk.power_cut();
        let (_stepped, partition) = open(&disk);
        check(&partition, &format!("cut behind {cut_behind} operations"));
        if is_done {
            return;
        }
    }
}

/// A whole segment was overwritten with another one, of batches with the same offsets and the same length: its checksum
/// knows them. Seed 1293.
#[test]
fn the_batches_of_another_partition_are_not_served() {
    let disk = SimDisk::new(1293);
    let (mut stepped, partition) = open(&disk);
    let id = partition_id(2, 0);
    let other = open_partition(&stepped.log, id, PartitionConfig::default());
    for (partition, value) in [(&partition, b"this"), (&other, b"that")] {
        let mut builder = BatchBuilder::new(1_000);
        builder.push(None, Some(value));
        send(partition, builder.build(), 0);
    }
    stepped.write().unwrap();
    let segments = [&partition, &other].map(|partition| {
        let folder = stepped.files().partition_dir(partition.id());
        folder.join(format!("{:020}.log", 0))
    });
    drop((partition, other));
    stepped.stop().unwrap();
    disk.kill();
    let foreign = disk.contents(&segments[1]).unwrap();
    disk.overwrite(&segments[0], 0, &foreign);
    let (stepped, partition) = open(&disk);
    let (batches, lost) = read_everything(&partition, 1 << 16);
    assert_eq!((batches, lost), (vec![], vec![(0, 0)]));
    let told = |reason| {
        let metrics = stepped.metrics();
        metrics.decode_errors_with(Stage::Fetch, Source::Segment, reason)
    };
    assert_eq!(told(Reason::ExtentCrc), 1);
    assert_eq!(stepped.metrics().decode_errors_total(), 1);
}

/// A flush finds no room behind its first write, and what it wrote is taken back: no start may find it proven by its
/// bytes. Seeds 1795843228224 and 1795843228399.
#[test]
fn what_a_flush_without_room_began_is_truncated_too() {
    for full_behind in 1..40 {
        let disk = SimDisk::new(8);
        let (mut stepped, partition) = open(&disk);
        put(&partition, 1, 0);
        stepped.write().unwrap();
        flush(&mut stepped).unwrap();
        put(&partition, 2, 0);
        put(&partition, 3, 0);
        stepped.write().unwrap();
        let full_at = disk.operations() + full_behind;
        disk.set_faults(SimFaults {
            full_between: Some(full_at..u64::MAX),
            ..SimFaults::default()
        });
        flush(&mut stepped).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let tell = Box::new(move || flag.store(true, Ordering::Release));
        stepped.log.truncate(&partition, 1, tell).unwrap();
        stepped.write().unwrap();
        stepped.settle().unwrap();
        let what = format!("full behind {full_behind} operations");
        assert!(done.load(Ordering::Acquire), "{what}: it needs no room");
        drop((partition, stepped));
        disk.kill();
        let (stepped, partition) = open(&disk);
        assert_eq!(partition.next_offset(), 1, "{what}");
        assert_eq!(stepped.metrics().decode_errors_total(), 0, "{what}");
    }
}

/// A truncation is carried out while a deletion is queued: a crash takes the deletion back, and the producers that the
/// truncation left must be known. Seed 2319.
#[test]
fn a_deletion_that_is_only_queued_costs_no_producer() {
    cut_a_flush(
        |stepped, partition| {
            for sequence in 0..2 {
                let mut builder = BatchBuilder::new(1_000).producer(7, 0, sequence);
                builder.push(None, Some(b"value"));
                send(partition, builder.build(), 0);
            }
            stepped.write().unwrap();
            flush(stepped).unwrap();
            stepped.log.truncate(partition, 1, Box::new(|| {})).unwrap();
            stepped.write().unwrap();
            let entry = Entry::DeletePartition(partition.id());
            stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
        },
        |partition, what| {
            assert_eq!(partition.next_offset(), 1, "{what}");
            let first = ProducerBatch {
                producer_id: 7,
                epoch: 0,
                base_sequence: 0,
                last_sequence: 0,
            };
            let verdict = partition.producers().unwrap().check(&first);
            let duplicate = Verdict::Duplicate {
                base_offset: 0,
                last_offset: 0,
            };
            assert_eq!(verdict, Ok(duplicate), "{what}");
        },
    );
}

/// A first flush whose last slot is lost is taken back from the segment, which begins at the log start. Seed 96.
#[test]
fn an_epoch_begins_below_the_first_segment_if_the_wal_says_so() {
    cut_a_flush(
        |stepped, partition| {
            put(partition, 2, 3);
            stepped.write().unwrap();
            move_log_start(stepped, partition, 2);
            put(partition, 3, 3);
            stepped.write().unwrap();
        },
        |partition, what| {
            assert_eq!(
                (partition.log_start(), partition.next_offset()),
                (2, 5),
                "{what}"
            );
            assert_eq!(partition.epochs(), [(3, 0)], "{what}");
        },
    );
}

/// The same behind a flush that went well: the epoch in between is in no segment. Seed 1814.
#[test]
fn an_epoch_that_is_in_no_segment_is_known_from_the_wal() {
    cut_a_flush(
        |stepped, partition| {
            put(partition, 2, 0);
            stepped.write().unwrap();
            flush(stepped).unwrap();
            put(partition, 1, 1);
            stepped.write().unwrap();
            move_log_start(stepped, partition, 3);
            put(partition, 3, 2);
            stepped.write().unwrap();
        },
        |partition, what| {
            assert_eq!(
                (partition.log_start(), partition.next_offset()),
                (3, 6),
                "{what}"
            );
            let epochs = partition.epochs();
            assert!(
                [(0, 0), (1, 2), (2, 3)].ends_with(&epochs) && !epochs.is_empty(),
                "{what}: {epochs:?}"
            );
        },
    );
}
