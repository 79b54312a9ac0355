//! What is outside the promise, as `docs/log-format.md` lists it ("The window that remains"): shown, so that nobody has to
//! guess where it begins. Beside each, the same damage one witness later, which is inside.

use super::sim::sim_options;
use super::support::{Rng, append, batch, open_partition, partition_id, read_everything};
use crate::disk::{Astray, SimDisk, SimFaults};
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

fn find(disk: &SimDisk, needle: &[u8]) -> (std::path::PathBuf, u64) {
    for path in disk.files(std::path::Path::new("/data/wal")) {
        let bytes = disk.contents(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            return (path, at as u64);
        }
    }
    panic!("the batch is in no file of the WAL");
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
        .files(std::path::Path::new("/data/wal"))
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
