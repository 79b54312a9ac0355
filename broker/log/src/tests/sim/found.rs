//! What the long runs have found, each as a short story that needs no chance.
//!
//! A random life that fails says what is wrong, not what must be right: here that is stated, for each cause that was
//! repaired.

use std::sync::Arc;

use super::life::sim_options;
use super::stepped::{Dead, Stepped};
use crate::disk::{SimDisk, SimFaults};
use crate::flusher::by_hand::Piece;
use crate::tests::support::{EPOCH, Rng, append, batch, open_partition, partition_id};
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

/// A first flush whose last slot is lost is taken back from the segment, which begins at the log start. Seed 96.
#[test]
fn an_epoch_begins_below_the_first_segment_if_the_wal_says_so() {
    let mut taken_back = 0;
    for cut_behind in 1.. {
        let disk = SimDisk::new(96);
        let (mut stepped, partition) = open(&disk);
        let mut rng = Rng::new(96);
        append(&partition, &batch(&mut rng, 1_000, 2, 40)).unwrap();
        stepped.write().unwrap();
        let entry = Entry::LogStart {
            partition: partition.id(),
            offset: 2,
        };
        stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
        append(&partition, &batch(&mut rng, 1_000, 3, 40)).unwrap();
        stepped.write().unwrap();
        disk.set_faults(SimFaults {
            cut_at: Some(disk.operations() + cut_behind),
            ..SimFaults::default()
        });
        let is_done = flush(&mut stepped).is_ok();
        drop((partition, stepped));
        disk.power_cut();
        let (_stepped, partition) = open(&disk);
        let found = (partition.log_start(), partition.next_offset());
        assert_eq!(found, (2, 5), "cut behind {cut_behind} operations");
        assert_eq!(
            partition.epochs(),
            [(EPOCH, 0)],
            "cut behind {cut_behind} operations"
        );
        let manifest = &partition.state.lock().slots.manifest;
        taken_back += u32::from(!manifest.segments.is_empty() && manifest.applied_group == 0);
        if is_done {
            break;
        }
    }
    assert!(taken_back > 0, "no cut left a segment without its slot");
}
