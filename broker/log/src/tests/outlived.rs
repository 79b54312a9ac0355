//! Damage to appends in the WAL that nobody asks for any more, while the start still has to read their group: it costs no
//! offset, and it is told all the same.

use std::path::Path;

use super::sim::sim_options;
use super::support::{
    EPOCH, Rng, append_in, batch, groups, open_partition, partition_id, read_everything,
};
use crate::disk::SimDisk;
use crate::flusher::by_hand::Piece;
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::stepped::Stepped;
use crate::wal::FrameBody;
use crate::{Entry, PartitionConfig, PartitionId};

const DIR: &str = "/data";
/// What one append holds.
const BATCH_OFFSETS: i64 = 2;

/// Its append is damaged, after it was outlived.
fn outlived() -> PartitionId {
    partition_id(1, 0)
}

/// Its append of the same group is in no segment, so that the group is read.
fn needed() -> PartitionId {
    partition_id(2, 0)
}

fn put(stepped: &Stepped, id: PartitionId) {
    let partition = open_partition(&stepped.log, id, PartitionConfig::default());
    let bytes = batch(&mut Rng::new(7), 1_000, BATCH_OFFSETS as u64, 40);
    append_in(&partition, &bytes, EPOCH).unwrap();
}

/// A bit of the batch that is outlived.
fn damage(disk: &SimDisk) {
    for group in groups(disk) {
        let mut frames = group.frames.iter();
        let found = frames.find(|frame| {
            frame.frame.partition == outlived()
                && matches!(frame.frame.body, FrameBody::Append { .. })
        });
        if let Some(frame) = found {
            let file = Path::new(DIR).join(&group.file);
            disk.flip(&file, frame.file_position + 30, 1);
            return;
        }
    }
    panic!("the WAL has no append of {}", outlived());
}

/// Two starts over one damage.
fn check(disk: &SimDisk, what: &str) {
    damage(disk);
    for start in 0..2 {
        let stepped = Stepped::open(disk, sim_options()).unwrap();
        let metrics = stepped.metrics();
        let told = metrics.decode_errors_with(Stage::Replay, Source::Wal, Reason::PayloadCrc);
        let all = metrics.decode_errors_total();
        assert_eq!((told, all), (1, 1), "{what}, start {start}");
        let states = stepped.log.health().states;
        assert_eq!(states, [HealthState::Ok], "{what}, start {start}");
        let partition = stepped.log.partition(needed()).unwrap();
        let (batches, lost) = read_everything(&partition, 1 << 16);
        assert_eq!((batches.len(), lost.len()), (1, 0), "{what}, start {start}");
        drop((partition, stepped));
        disk.kill();
    }
}

/// A group with an append of each; `is_flushed`: a segment has the one that is outlived by `entry`. Looks after every step
/// of the flusher that leaves the other one where it is.
fn check_each_step(what: &str, is_flushed: bool, entry: Option<Entry>) {
    let disk = SimDisk::new(4);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    put(&stepped, outlived());
    put(&stepped, needed());
    stepped.write().unwrap();
    if is_flushed {
        stepped.run(Piece::Flush(outlived())).unwrap();
    }
    if let Some(entry) = entry {
        stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
        stepped.write().unwrap();
    }
    stepped.seal().unwrap();
    let mut looked = 0;
    let mut before = Vec::new();
    check(&disk.copy(looked), what);
    while stepped.pieces() != before {
        before = stepped.pieces();
        for piece in before.iter().filter(|p| **p != Piece::Flush(needed())) {
            stepped.run(*piece).unwrap();
            looked += 1;
            let what = format!("{what}, flushed {is_flushed}, behind {piece:?}");
            check(&disk.copy(looked), &what);
        }
    }
    assert!(looked > 0, "{what}");
}

#[test]
fn damage_in_front_of_the_log_start_is_told() {
    for is_flushed in [false, true] {
        let entry = Entry::LogStart {
            partition: outlived(),
            offset: BATCH_OFFSETS,
        };
        check_each_step("log start", is_flushed, Some(entry));
    }
}

#[test]
fn damage_of_what_a_segment_holds_is_told() {
    check_each_step("flush", true, None);
}

#[test]
fn damage_of_a_deleted_partition_is_told() {
    for is_flushed in [false, true] {
        let entry = Entry::DeletePartition(outlived());
        check_each_step("deletion", is_flushed, Some(entry));
    }
}

#[test]
fn damage_behind_a_deletion_that_overtook_it_is_told() {
    let disk = SimDisk::new(4);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    put(&stepped, outlived());
    put(&stepped, needed());
    let deletion = vec![Entry::DeletePartition(outlived())];
    stepped.log.commit(deletion, Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.seal().unwrap();
    check(&disk.copy(4), "deleted before");
}
