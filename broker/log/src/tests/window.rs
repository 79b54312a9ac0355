//! What is outside the promise, as `docs/log-format.md` lists it ("The window that remains"): shown, so that nobody has to
//! guess where it begins. Beside each, the same damage one witness later, which is inside.

use std::path::{Path, PathBuf};

use super::sim::sim_options;
use super::support::{
    Rng, append, batch, open_partition, partition_id, read_everything, stored, verify,
};
use crate::disk::{Astray, Disk, Durability, OpenMode, SimDisk, SimFaults};
use crate::flusher::by_hand::Piece;
use crate::stepped::Stepped;
use crate::{PartitionConfig, PartitionId};

fn id() -> PartitionId {
    partition_id(1, 0)
}

/// Two acknowledged batches in the WAL. `sealed`: the last one has its witness. The second one's write is led astray, or
/// a byte of it is flipped once the process has ended.
fn two_batches(sealed: bool, lost_by_the_disk: bool) -> SimDisk {
    let disk = SimDisk::new(3);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let partition = open_partition(&stepped.log, id(), PartitionConfig::default());
    let mut rng = Rng::new(3);
    append(&partition, &batch(&mut rng, 1000, 1, 100)).unwrap();
    stepped.seal().unwrap();
    let second = batch(&mut rng, 1000, 1, 100);
    append(&partition, &second).unwrap();
    if lost_by_the_disk {
        disk.set_faults(SimFaults {
            astray_at: Some((disk.operations() + 1, Astray::Lost)),
            ..SimFaults::default()
        });
    }
    stepped.write().unwrap();
    assert_eq!(partition.durable_offset(), 2, "acknowledged");
    if sealed {
        stepped.seal().unwrap();
    }
    drop((partition, stepped));
    disk.kill();
    if !lost_by_the_disk {
        let (path, at) = find(&disk, &second[61..]);
        disk.flip(&path, at, 1);
    }
    disk
}

fn find(disk: &SimDisk, needle: &[u8]) -> (PathBuf, u64) {
    position(disk, "wal", needle).expect("the batch is in no file of the WAL")
}

/// Where bytes stand below a folder of the data directory.
fn position(disk: &SimDisk, dir: &str, needle: &[u8]) -> Option<(PathBuf, u64)> {
    let files = disk.files(&Path::new("/data").join(dir)).into_iter();
    let mut places = files.filter_map(|path| {
        let bytes = disk.contents(&path)?;
        let at = bytes.windows(needle.len()).position(|w| w == needle)?;
        Some((path, at as u64))
    });
    places.next()
}

/// Opens; returns next offset, lost ranges, decode errors, torn tails.
fn look(disk: &SimDisk) -> (i64, Vec<(i64, i64)>, u64, u64) {
    let stepped = Stepped::open(disk, sim_options()).unwrap();
    let partition = stepped.log.partition(id()).unwrap();
    let (batches, lost) = read_everything(&partition, 1 << 16);
    assert_eq!(batches[0].0, 0, "the first batch is there in any case");
    (
        partition.next_offset(),
        lost,
        stepped.metrics().decode_errors_total(),
        stepped.metrics().torn_tail_truncations.get(),
    )
}

#[test]
fn damage_to_the_last_group_before_its_witness_is_taken_for_a_torn_tail() {
    assert_eq!(look(&two_batches(false, false)), (1, vec![], 0, 1));
    // With its witness it is corruption: the offset is not used again, and its loss is told.
    assert_eq!(look(&two_batches(true, false)), (2, vec![(1, 1)], 1, 0));
}

#[test]
fn a_confirmed_write_that_the_disk_lost_with_all_its_witnesses_is_not_missed() {
    assert_eq!(look(&two_batches(false, true)), (1, vec![], 0, 0));
    // One witness is enough.
    assert_eq!(look(&two_batches(true, true)), (2, vec![(1, 1)], 1, 0));
}

#[test]
fn the_last_group_and_every_header_behind_it_damaged_together_are_a_torn_tail() {
    let disk = two_batches(true, false);
    // The seal is the last block that is not zero.
    let path = disk
        .files(Path::new("/data/wal"))
        .into_iter()
        .find(|p| p.ends_with("00000000000000000001.wal"))
        .unwrap();
    let bytes = disk.contents(&path).unwrap();
    let last = bytes
        .chunks(4096)
        .rposition(|block| block.iter().any(|b| *b != 0))
        .unwrap();
    disk.flip(&path, last as u64 * 4096 + 20, 1);
    let (next, lost, errors, torn) = look(&disk);
    assert_eq!((next, lost, errors, torn), (1, vec![], 0, 1));
}

/// The batches of a second flush, whose writes a disk confirmed.
const SECOND: std::ops::Range<usize> = 2..5;

/// A clean stop after two flushes (`rolls`: the second begins a segment), the `astray`th operation of the second one led astray; then the given batches are
/// damaged in their segment. `None` where the second flush has fewer operations.
fn two_flushes(rolls: bool, astray: u64, damaged: std::ops::Range<usize>) -> Option<SimDisk> {
    let disk = SimDisk::new(3);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let segment_bytes = if rolls { 1 } else { 1 << 20 };
    let config = PartitionConfig {
        segment_bytes,
        ..PartitionConfig::default()
    };
    let partition = open_partition(&stepped.log, id(), config);
    let mut rng = Rng::new(3);
    let mut batches = Vec::new();
    let mut put = |stepped: &mut Stepped| {
        let bytes = batch(&mut rng, 1000, 1, 100);
        let base = append(&partition, &bytes).unwrap().base_offset;
        batches.push(stored(&bytes, base));
        stepped.write().unwrap();
    };
    (0..SECOND.start).for_each(|_| put(&mut stepped));
    stepped.settle().unwrap();
    SECOND.for_each(|_| put(&mut stepped));
    let before = disk.operations();
    disk.set_faults(SimFaults {
        astray_at: Some((before + astray, Astray::Lost)),
        ..SimFaults::default()
    });
    stepped.run(Piece::Flush(id())).unwrap();
    let is_over = disk.operations() < before + astray;
    drop(partition);
    stepped.stop().unwrap();
    disk.power_cut();
    for bytes in &batches[damaged] {
        // Where the write of the batches is the one that is lost, they are not there.
        if let Some((path, at)) = position(&disk, "p", bytes) {
            disk.flip(&path, at + 70, 1);
        }
    }
    (!is_over).then_some(disk)
}

#[test]
fn a_slot_that_the_disk_lost_is_proved_by_one_batch_that_is_left() {
    for rolls in [false, true] {
        let mut operations = 0;
        for astray in 1.. {
            let Some(disk) = two_flushes(rolls, astray, 2..4) else {
                break;
            };
            operations = astray;
            let what = format!("rolls {rolls}, operation {astray}");
            let (problems, _) = verify(&disk);
            let (next, lost, told, _) = look(&disk);
            assert!(problems > 0, "{what}: log verify found nothing");
            assert_eq!(next, 5, "{what}");
            assert_eq!(lost.first().map(|(from, _)| *from), Some(2), "{what}");
            assert!(told > 0, "{what}");
            disk.kill();
            let (again, still, ..) = look(&disk);
            assert_eq!((again, still), (next, lost), "{what}");
        }
        assert!(operations > 3, "batches, a slot, and their syncs");
    }
}

#[test]
fn batches_behind_damage_count_where_both_slots_are_lost() {
    // The second operation is a sync: nothing goes astray.
    let disk = two_flushes(false, 2, 2..4).unwrap();
    let mut files = disk.files(Path::new("/data/p")).into_iter();
    let manifest = files.find(|path| path.ends_with("manifest")).unwrap();
    for slot in [0, 4096] {
        disk.flip(&manifest, slot + 20, 1);
    }
    for start in 0..2 {
        let (next, lost, ..) = look(&disk);
        assert_eq!((next, lost), (5, vec![(2, 4)]), "start {start}");
        disk.kill();
    }
}

#[test]
fn what_lies_behind_damage_says_nothing_where_the_wal_goes_on() {
    let disk = SimDisk::new(3);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let partition = open_partition(&stepped.log, id(), PartitionConfig::default());
    let mut rng = Rng::new(3);
    append(&partition, &batch(&mut rng, 1000, 1, 100)).unwrap();
    stepped.write().unwrap();
    stepped.settle().unwrap();
    append(&partition, &batch(&mut rng, 1000, 1, 100)).unwrap();
    stepped.write().unwrap();
    stepped.seal().unwrap();
    drop((partition, stepped));
    disk.kill();
    let mut files = disk.files(Path::new("/data/p")).into_iter();
    let log = files.find(|path| path.ends_with("00000000000000000000.log"));
    let log = log.unwrap();
    let length = disk.contents(&log).unwrap().len() as u64;
    let behind = [vec![7; 1_000], stored(&batch(&mut rng, 1000, 1, 100), 500)].concat();
    let file = disk.open(&log, OpenMode::Write).unwrap();
    file.write_at(&behind, length, Durability::Synced).unwrap();
    for start in 0..3 {
        assert_eq!(verify(&disk).0, 0, "start {start}");
        assert_eq!(look(&disk), (2, vec![], 0, 0), "start {start}");
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        stepped.settle().unwrap();
        drop(stepped);
        disk.kill();
    }
}

#[test]
fn a_slot_that_the_disk_lost_with_all_batches_that_it_counted_is_not_missed() {
    let mut missed = 0;
    for astray in 1.. {
        let Some(disk) = two_flushes(false, astray, SECOND) else {
            break;
        };
        let (next, lost, told, _) = look(&disk);
        match next {
            2 => assert_eq!((lost, told), (vec![], 0)),
            _ => assert_eq!((next, lost), (5, vec![(2, 4)])),
        }
        missed += u64::from(next == 2);
    }
    assert_eq!(missed, 1, "the write of the slot");
}
