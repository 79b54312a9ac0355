//! Truncation: its order among queued appends, deletions and moves of the log start, and what a reader sees.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sim::sim_options;
use super::support::{
    Rng, append, batch, open_log, open_partition, options, partition_id, read, read_everything,
    wait_durable, wait_until,
};
use crate::disk::{Disk, SimDisk, SimFaults};
use crate::partition::extent::SegmentView;
use crate::partition::format::SegmentEntry;
use crate::stepped::Stepped;
use crate::{Entry, Log, Options, Partition, PartitionConfig, ReadError, TruncateError};

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 700,
        ..PartitionConfig::default()
    }
}

fn begin(log: &Log, partition: &Partition, to: i64) -> Result<Arc<AtomicBool>, TruncateError> {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    log.truncate(
        partition,
        to,
        Box::new(move || flag.store(true, Ordering::Release)),
    )?;
    Ok(done)
}

fn bases(partition: &Partition) -> Vec<i64> {
    let (batches, lost) = read_everything(partition, 1 << 16);
    assert_eq!(lost, []);
    batches.iter().map(|(base, _)| *base).collect()
}

#[test]
fn it_follows_every_append_that_was_queued_before() {
    let disk = SimDisk::new(4);
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = || Options {
        flush_pending_bytes: 1,
        ..options(Path::new("/data"))
    };
    let opened = open_log(&dyn_disk, options()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&opened.log, id, config());
    let mut rng = Rng::new(4);
    let mut put = |partition: &Partition| append(partition, &batch(&mut rng, 1000, 2, 60)).unwrap();
    wait_durable(&partition, put(&partition).last_offset + 1);
    // The disk stalls: nothing is durable meanwhile, and all of this is queued.
    let wal = PathBuf::from("wal/00000000000000000001.wal");
    disk.set_faults(SimFaults {
        stalled: vec![wal],
        ..SimFaults::default()
    });
    for _ in 0..10 {
        put(&partition);
    }
    let done = begin(&opened.log, &partition, 8).unwrap();
    assert!(matches!(
        begin(&opened.log, &partition, 4),
        Err(TruncateError::Pending)
    ));
    assert!(!done.load(Ordering::Acquire), "nothing is durable yet");
    assert_eq!(
        (partition.next_offset(), partition.durable_offset()),
        (22, 2)
    );
    disk.set_faults(SimFaults::default());
    wait_until("truncated", || done.load(Ordering::Acquire));
    assert_eq!(
        (partition.next_offset(), partition.durable_offset()),
        (8, 8)
    );
    assert_eq!(put(&partition).base_offset, 8);
    wait_durable(&partition, 10);
    assert_eq!(bases(&partition), [0, 2, 4, 6, 8]);
    for kill in [true, false] {
        let opened = open_log(&dyn_disk, options());
        assert!(opened.is_err(), "the first one holds the lock: {kill}");
    }
    drop((partition, opened));
    disk.kill();
    let opened = open_log(&dyn_disk, options()).unwrap();
    assert_eq!(bases(&opened.log.partition(id).unwrap()), [0, 2, 4, 6, 8]);
    assert_eq!(opened.metrics.decode_errors_total(), 0);
}

#[test]
fn it_ends_at_a_batch_inside_the_log_or_is_refused() {
    let disk = SimDisk::new(5);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&stepped.log, id, config());
    let mut rng = Rng::new(5);
    for round in 0..3 {
        append(&partition, &batch(&mut rng, 1000, 3, 60)).unwrap();
        stepped.write().unwrap();
        if round == 0 {
            stepped.settle().unwrap();
        }
    }
    for (to, base) in [(1, 0), (5, 3)] {
        let refused = begin(&stepped.log, &partition, to).unwrap_err();
        let inside = matches!(refused, TruncateError::InsideBatch { offset, base_offset } if offset == to && base_offset == base);
        assert!(inside, "{refused}");
    }
    for to in [-1, 10] {
        let refused = begin(&stepped.log, &partition, to).unwrap_err();
        assert!(
            matches!(refused, TruncateError::OutOfRange { .. }),
            "{refused}"
        );
    }
    let done = begin(&stepped.log, &partition, 3).unwrap();
    // A log start that is asked for now ends at the new end, whichever of the two frames comes first.
    let entry = Entry::LogStart {
        partition: id,
        offset: 7,
    };
    stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.settle().unwrap();
    assert!(done.load(Ordering::Acquire));
    assert_eq!((partition.log_start(), partition.next_offset()), (3, 3));
    assert!(matches!(
        read(&partition, 4, 1),
        Err(ReadError::OutOfRange { .. })
    ));
    assert_eq!(
        append(&partition, &batch(&mut rng, 1000, 1, 60))
            .unwrap()
            .base_offset,
        3
    );
    stepped.write().unwrap();
    drop((partition, stepped));
    disk.kill();
    let stepped = Stepped::open(&disk, sim_options()).unwrap();
    let partition = stepped.log.partition(id).unwrap();
    assert_eq!((partition.log_start(), partition.next_offset()), (3, 4));
    assert_eq!(bases(&partition), [3]);
}

/// Nobody knows where the batches of a damaged range began. Damage of seed 721.
#[test]
fn a_damaged_range_is_not_cut_inside_and_is_told() {
    let disk = SimDisk::new(721);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&stepped.log, id, config());
    for records in [2, 1, 1] {
        append(&partition, &batch(&mut Rng::new(721), 1000, records, 60)).unwrap();
    }
    stepped.write().unwrap();
    stepped.settle().unwrap();
    let folder = stepped.files().partition_dir(id);
    let log = folder.join(format!("{:020}.log", 0));
    let bytes = disk.contents(&log).unwrap();
    disk.overwrite(&log, 0, &vec![0xff; bytes.len() / 4 * 3]);
    let refused = begin(&stepped.log, &partition, 2).unwrap_err();
    let inside = TruncateError::InsideBatch {
        offset: 2,
        base_offset: 0,
    };
    assert_eq!(refused.to_string(), inside.to_string());
    assert_eq!(stepped.metrics().decode_errors_total(), 1);
    assert_eq!(partition.next_offset(), 4, "nothing has changed");
    let done = begin(&stepped.log, &partition, 0).unwrap();
    stepped.write().unwrap();
    stepped.settle().unwrap();
    assert!(done.load(Ordering::Acquire) && partition.next_offset() == 0);
}

#[test]
fn a_deletion_ends_it_and_the_log_forgets_both() {
    let disk = SimDisk::new(6);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&stepped.log, id, config());
    let mut rng = Rng::new(6);
    for _ in 0..3 {
        append(&partition, &batch(&mut rng, 1000, 1, 60)).unwrap();
    }
    let done = begin(&stepped.log, &partition, 1).unwrap();
    let delete = vec![Entry::DeletePartition(id)];
    stepped.log.commit(delete, Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.settle().unwrap();
    assert!(
        !done.load(Ordering::Acquire),
        "there is nothing left to truncate"
    );
    assert!(stepped.log.partition(id).is_none());
    drop((partition, stepped));
    disk.kill();
    let stepped = Stepped::open(&disk, sim_options()).unwrap();
    assert_eq!(stepped.log.partition_ids(), []);
}

/// A deletion is written before what the partition itself has queued. While a truncation of it is on its way, a start must find
/// the deletion, or it takes the truncation for one of a partition that it does not know.
#[test]
fn a_deletion_is_not_forgotten_before_a_truncation_that_it_overtook() {
    let (id, other) = (partition_id(1, 0), partition_id(2, 0));
    let mut alone = 0;
    // Of these sizes, some leave no room for the truncation in the group of the deletion.
    for size in (11_800..12_600).step_by(24) {
        let disk = SimDisk::new(7);
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        let partitions = [id, other].map(|id| open_partition(&stepped.log, id, config()));
        let mut rng = Rng::new(7);
        for _ in 0..2 {
            append(&partitions[0], &batch(&mut rng, 1000, 1, 60)).unwrap();
        }
        stepped.write().unwrap();
        for size in [12_000, size] {
            append(&partitions[1], &batch(&mut rng, 1000, 1, size)).unwrap();
        }
        begin(&stepped.log, &partitions[0], 1).unwrap();
        let delete = vec![Entry::DeletePartition(id)];
        stepped.log.commit(delete, Box::new(|| {})).unwrap();
        let before = stepped.log.health().wal.durable_group;
        stepped.write().unwrap();
        stepped.settle().unwrap();
        stepped.write().unwrap();
        alone += usize::from(stepped.log.health().wal.durable_group > before + 1);
        stepped.settle().unwrap();
        drop((partitions, stepped));
        disk.kill();
        let stepped = Stepped::open(&disk, sim_options()).unwrap();
        assert_eq!(stepped.log.partition_ids(), [other], "{size}");
        assert_eq!(stepped.metrics().decode_errors_total(), 0, "{size}");
    }
    assert!(alone > 0, "some were written behind the deletion's group");
}

#[test]
fn a_reader_of_a_segment_that_is_cut_is_never_told_of_damage() {
    let disk = SimDisk::new(7);
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk);
    let options = Options {
        flush_pending_bytes: 1,
        ..options(Path::new("/data"))
    };
    let opened = open_log(&dyn_disk, options).unwrap();
    let partition = open_partition(&opened.log, partition_id(1, 0), PartitionConfig::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !over.load(Ordering::Acquire) {
                for from in 0..30 {
                    match read(&partition, from, 1 << 16) {
                        Ok(_) => reads += 1,
                        Err(ReadError::OutOfRange { .. }) => {}
                        Err(error) => panic!("at {from}: {error}"),
                    }
                }
            }
            reads
        });
        let mut rng = Rng::new(7);
        for _ in 0..30 {
            while partition.next_offset() < 30 {
                append(&partition, &batch(&mut rng, 1000, 1, 200)).unwrap();
            }
            wait_durable(&partition, 30);
            wait_until("flushed", || {
                partition.state.lock().slots.manifest.next_offset == 30
            });
            let done = begin(&opened.log, &partition, 1 + rng.below(28) as i64).unwrap();
            wait_until("truncated", || done.load(Ordering::Acquire));
        }
        over.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(opened.metrics.decode_errors_total(), 0);
    assert_eq!(*opened.fatal.0.lock(), None);
}

/// What a reader that is late finds, or puts into the cache, is of the segment that was there before, although the new one has its
/// name, its place and its length.
#[test]
fn a_segment_that_takes_the_place_of_one_cut_away_is_another() {
    let disk = SimDisk::new(9);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let partition = open_partition(&stepped.log, partition_id(1, 0), PartitionConfig::default());
    let files = &partition.shared().files;
    let mut rng = Rng::new(9);
    let mut filled = |stepped: &mut Stepped| {
        append(&partition, &batch(&mut rng, 1000, 1, 60)).unwrap();
        stepped.write().unwrap();
        stepped.settle().unwrap();
        let view = partition.segment_with(&partition.state.lock(), 0).unwrap();
        let stored = read_everything(&partition, 1 << 16).0;
        (view, stored)
    };
    let (before, stored_before) = filled(&mut stepped);
    let late = files.cached_extent(&before, 0).unwrap();
    begin(&stepped.log, &partition, 0).unwrap();
    stepped.write().unwrap();
    stepped.settle().unwrap();
    let (after, stored_after) = filled(&mut stepped);
    assert_ne!(stored_before, stored_after);
    let name = |view: &SegmentView| (view.entry.base_offset, view.entry.generation);
    assert_eq!(name(&before), name(&after));
    assert_eq!(before.entry.log_bytes, after.entry.log_bytes);
    assert!(!partition.lists(&before) && partition.lists(&after));
    let cut = SegmentEntry {
        log_bytes: after.entry.log_bytes - 1,
        ..after.entry
    };
    assert!(!after.is_in(&[cut]), "all that another process sees of it");
    files.cache_extent(&before, &late);
    assert_eq!(read_everything(&partition, 1 << 16).0, stored_after);
}

/// A file whose cut could not be synced is short in the cache alone: the start after it must see to the cut, or the next power
/// cut gives back, as whole batches, what was taken back.
#[test]
fn what_was_taken_back_stays_so_whichever_sync_failed_and_the_power_after_it() {
    let mut failures = 0;
    for number in 0.. {
        let disk = SimDisk::new(8);
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        let id = partition_id(1, 0);
        let partition = open_partition(&stepped.log, id, config());
        let mut rng = Rng::new(8);
        for _ in 0..5 {
            append(&partition, &batch(&mut rng, 1000, 1, 60)).unwrap();
        }
        stepped.write().unwrap();
        stepped.settle().unwrap();
        begin(&stepped.log, &partition, 2).unwrap();
        stepped.write().unwrap();
        let before = disk.operations();
        disk.set_faults(SimFaults {
            sync_fails_at: Some(before + number),
            ..SimFaults::default()
        });
        failures += usize::from(stepped.settle().is_err());
        let is_past = disk.operations() < before + number;
        drop((partition, stepped));
        disk.kill();
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        assert_eq!(stepped.log.partition(id).unwrap().next_offset(), 2);
        stepped.settle().unwrap();
        drop(stepped);
        disk.power_cut();
        let stepped = Stepped::open(&disk, sim_options()).unwrap();
        let partition = stepped.log.partition(id).unwrap();
        assert_eq!(
            (bases(&partition), partition.next_offset()),
            (vec![0, 1], 2),
            "operation {number} of the truncation"
        );
        if is_past {
            break;
        }
    }
    assert!(failures > 2, "{failures} syncs failed");
}
