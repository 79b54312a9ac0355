//! What the long runs have found, each as a short story that needs no chance.
//!
//! A random life that fails says what is wrong, not what must be right: here that is stated, for each cause that was
//! repaired.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use keelson_protocol::builder::BatchBuilder;
use keelson_state::producers::{ProducerBatch, Verdict};

use super::life::{DIR, sim_options};
use crate::disk::{Disk, SimDisk, SimFaults};
use crate::flusher::by_hand::Piece;
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::stepped::{Dead, Stepped};
use crate::tests::in_use::{Class, spans};
use crate::tests::support::{
    Rng, append_in, batch, open_log, open_partition, partition_id, read_everything,
};
use crate::{Entry, Options, Partition, PartitionConfig};

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
    let opened = |disk: &SimDisk| {
        let (mut stepped, partition) = open(disk);
        before(&mut stepped, &partition);
        (stepped, partition)
    };
    cut_a_flush_of(opened, check);
}

fn cut_a_flush_of(
    before: impl Fn(&SimDisk) -> (Stepped, Arc<Partition>),
    check: impl Fn(&Partition, &str),
) {
    for cut_behind in 1.. {
        let disk = SimDisk::new(96);
        let (mut stepped, partition) = before(&disk);
        disk.set_faults(SimFaults {
            cut_at: Some(disk.operations() + cut_behind),
            ..SimFaults::default()
        });
        let is_done = flush(&mut stepped).is_ok();
        drop((partition, stepped));
        disk.power_cut();
        let (stepped, partition) = open(&disk);
        let what = format!("cut behind {cut_behind} operations");
        check(&partition, &what);
        let metrics = stepped.metrics();
        assert_eq!(metrics.decode_errors_total(), 0, "{what}: {metrics:?}");
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
                transactional: false,
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

/// The newest slot is lost, and the producer snapshot that the older one names is damaged: what is taken back from the
/// segments does not make half a table of it.
#[test]
fn a_salvage_builds_on_no_damaged_snapshot() {
    let disk = SimDisk::new(32);
    let (mut stepped, partition) = open(&disk);
    for producer in [7, 9] {
        let mut builder = BatchBuilder::new(1_000).producer(producer, 0, 0);
        builder.push(None, Some(b"value"));
        send(&partition, builder.build(), 0);
        stepped.write().unwrap();
        flush(&mut stepped).unwrap();
    }
    drop((partition, stepped));
    disk.kill();
    for class in [Class::Slot, Class::Producers] {
        // Once the newest slot is gone, the older one says which snapshot counts.
        let all = spans(&disk, Path::new(DIR));
        let counts = all.iter().find(|span| span.class == class && span.age == 0);
        let counts = counts.unwrap();
        disk.flip(&counts.path, counts.from + 30, 1);
    }
    for start in 0..2 {
        let (stepped, partition) = open(&disk);
        assert_eq!(partition.next_offset(), 2, "start {start}");
        assert_eq!(partition.producers().unwrap().len(), 2, "start {start}");
        let told = stepped.metrics().decode_errors_total();
        assert_eq!(told, 1, "start {start}: the snapshot is told");
        drop((partition, stepped));
        disk.kill();
    }
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

type Batches = Vec<(i64, Vec<u8>)>;

/// A log that nothing was flushed of, and before the start that finds no room for its boot group: what is left behind the
/// records, the starts themselves have used up. A partition was deleted, and nothing is known to be gone.
fn full_wal() -> (SimDisk, Batches) {
    let disk = SimDisk::new(66631);
    let (mut stepped, partition) = open(&disk);
    let gone = open_partition(&stepped.log, partition_id(2, 0), PartitionConfig::default());
    put(&gone, 1, 0);
    stepped.write().unwrap();
    let delete = vec![Entry::DeletePartition(gone.id())];
    stepped.log.commit(delete, Box::new(|| {})).unwrap();
    for _ in 0..100 {
        put(&partition, 60, 0);
        stepped.write().unwrap();
    }
    let durable = partition.durable_offset();
    assert!(durable < partition.next_offset(), "the WAL is not full");
    let mut batches = read_everything(&partition, 1 << 16).0;
    batches.retain(|(base, _)| *base < durable);
    let checkpoint = stepped.log.health().wal.oldest_group;
    drop((gone, partition, stepped));
    disk.kill();
    for _ in 0..100 {
        let before = disk.copy(66631);
        let (stepped, partition) = open(&disk);
        let found = read_everything(&partition, 1 << 16);
        assert!(found == (batches.clone(), vec![]));
        if stepped.log.health().wal.oldest_group > checkpoint {
            return (before, batches);
        }
        drop((partition, stepped));
        disk.kill();
    }
    panic!("starts need no room");
}

/// Seeds 1795849766631 and 1795849768035.
#[test]
fn a_start_that_finds_the_wal_full_flushes_first() {
    let (full, batches) = full_wal();
    for cut_behind in 1.. {
        let disk = full.copy(cut_behind);
        disk.set_faults(SimFaults {
            cut_at: Some(disk.operations() + cut_behind),
            ..SimFaults::default()
        });
        let is_done = Stepped::open(&disk, sim_options()).is_ok();
        disk.power_cut();
        let (mut stepped, partition) = open(&disk);
        let found = read_everything(&partition, 1 << 16);
        assert!(
            found == (batches.clone(), vec![]),
            "cut behind {cut_behind} operations"
        );
        assert_eq!(stepped.metrics().decode_errors_total(), 0);
        put(&partition, 1, 0);
        stepped.settle().unwrap();
        stepped.write().unwrap();
        assert_eq!(partition.durable_offset(), partition.next_offset());
        if is_done {
            return;
        }
    }
}

/// What is kept back on a volume is for this, too; where that is used up, words say what helps.
#[test]
fn a_full_wal_on_a_full_volume_starts_read_only_or_is_refused() {
    let (full, batches) = full_wal();
    let disk = full.copy(1);
    let read_only = Options {
        disk_reserve_bytes: Some(u64::MAX / 2),
        ..sim_options()
    };
    let stepped = Stepped::open(&disk, read_only).expect("the room that is kept back");
    assert_eq!(stepped.log.health().states, [HealthState::ReadOnly]);
    drop(stepped);

    let disk = full.copy(2);
    let no_room = SimFaults {
        capacity_bytes: Some(0),
        ..SimFaults::default()
    };
    for _ in 0..3 {
        disk.set_faults(no_room.clone());
        let refused = Stepped::open(&disk, sim_options());
        let words = refused.err().expect("no room at all").to_string();
        assert!(
            words.starts_with("/data/wal: ") && words.contains("make room"),
            "{words}"
        );
        disk.kill();
    }
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    assert!(open_log(&shared, sim_options()).is_err());
    assert_eq!(
        Arc::strong_count(&shared),
        1,
        "of a refused start nothing is left"
    );
    disk.set_faults(SimFaults::default());
    let (_stepped, partition) = open(&disk);
    assert!(read_everything(&partition, 1 << 16) == (batches, vec![]));
}

/// A truncation is durable and carried out nowhere when the process ends; `behind` follows in the next one.
fn behind_a_truncation(
    disk: &SimDisk,
    before: impl Fn(&mut Stepped, &Partition),
    (to, behind): (i64, impl Fn(&mut Stepped, &Partition)),
) -> (Stepped, Arc<Partition>) {
    let (mut stepped, partition) = open(disk);
    before(&mut stepped, &partition);
    let done = Box::new(|| {});
    stepped.log.truncate(&partition, to, done).unwrap();
    stepped.write().unwrap();
    drop((partition, stepped));
    disk.kill();
    let (mut stepped, partition) = open(disk);
    behind(&mut stepped, &partition);
    stepped.write().unwrap();
    (stepped, partition)
}

fn produce(partition: &Partition, sequence: i32, epoch: i32) {
    let mut builder = BatchBuilder::new(1_000).producer(7, 0, sequence);
    builder.push(None, Some(b"value"));
    send(partition, builder.build(), epoch);
}

/// A flush behind a log start whose slot is lost is taken back from the segment, which begins above the one before. The
/// truncation that replay meets first looks at the offsets between: they are nowhere, and nobody's loss. Seed 1795855209210.
#[test]
fn a_start_tells_of_no_gap_that_a_later_log_start_explains() {
    let before = |stepped: &mut Stepped, partition: &Partition| {
        produce(partition, 0, 0);
        stepped.write().unwrap();
        flush(stepped).unwrap();
        put(partition, 1, 0);
        put(partition, 1, 0);
        stepped.write().unwrap();
    };
    let behind = |stepped: &mut Stepped, partition: &Partition| {
        put(partition, 1, 0);
        stepped.write().unwrap();
        move_log_start(stepped, partition, 3);
        stepped.write().unwrap();
        produce(partition, 1, 0);
    };
    cut_a_flush_of(
        |disk| behind_a_truncation(disk, before, (2, behind)),
        |partition, what| {
            let offsets = (partition.log_start(), partition.next_offset());
            assert_eq!(offsets, (3, 4), "{what}");
        },
    );
}

/// The same with another epoch behind the truncation: the batches that it takes back, still in the WAL, seem to disprove
/// that epoch, until replay is past the truncation. Seeds 1795855212796 and, cut where an extent begins, 1795858226566.
#[test]
fn a_start_does_not_take_what_follows_a_truncation_for_damage() {
    for is_flushed in [false, true] {
        let before = |stepped: &mut Stepped, partition: &Partition| {
            put(partition, 1, 0);
            stepped.write().unwrap();
            if is_flushed {
                flush(stepped).unwrap();
            }
            put(partition, 5, 0);
            stepped.write().unwrap();
        };
        let behind = |_: &mut Stepped, partition: &Partition| {
            put(partition, 1, 2);
            produce(partition, 0, 2);
        };
        cut_a_flush_of(
            |disk| behind_a_truncation(disk, before, (1, behind)),
            |partition, what| {
                let what = format!("{what}, flushed before: {is_flushed}");
                assert_eq!(partition.next_offset(), 3, "{what}");
                assert_eq!(partition.epochs(), [(0, 0), (2, 1)], "{what}");
                let (batches, lost) = read_everything(partition, 1);
                assert_eq!((batches.len(), lost), (3, vec![]), "{what}");
            },
        );
    }
}
