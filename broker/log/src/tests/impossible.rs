//! What no disk does by itself and a lost or forged manifest can claim: more than there is, or less than there was.

use std::path::Path;
use std::sync::Arc;

use super::sim::sim_options;
use super::support::{Rng, append, batch, open_partition, partition_id, read_everything};
use crate::disk::{Disk, Durability, OpenMode, SimDisk};
use crate::files::Files;
use crate::offline::Directory;
use crate::partition::slots::Slots;
use crate::stepped::Stepped;
use crate::verify::verify_directory;
use crate::{PartitionConfig, PartitionId};

const DIR: &str = "/data";

fn id() -> PartitionId {
    partition_id(1, 0)
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 700,
        ..PartitionConfig::default()
    }
}

/// Appends batches of two records, one commit group each.
fn put(stepped: &mut Stepped, rng: &mut Rng, count: usize) {
    let partition = open_partition(&stepped.log, id(), config());
    for _ in 0..count {
        append(&partition, &batch(rng, 1000, 2, 100)).unwrap();
        stepped.write().unwrap();
    }
}

/// A disk with offsets 0..=3 in one segment, 4..=5 in a second one, and 6..=7 in the WAL only.
fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut rng = Rng::new(1);
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    put(&mut stepped, &mut rng, 2);
    stepped.settle().unwrap();
    put(&mut stepped, &mut rng, 1);
    stepped.settle().unwrap();
    put(&mut stepped, &mut rng, 1);
    drop(stepped);
    disk.kill();
    disk
}

fn files(disk: &SimDisk) -> Files {
    Files::new(Arc::new(disk.clone()), Path::new(DIR))
}

/// What `log verify` says.
fn verified(disk: &SimDisk) -> (u64, String) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = Directory::open_on(shared, Path::new(DIR)).unwrap();
    let mut out = Vec::new();
    let report = verify_directory(&directory, &|_| None, &mut out).unwrap();
    (report.problems, String::from_utf8(out).unwrap())
}

/// What a start gives up.
fn lost(disk: &SimDisk) -> Vec<(i64, i64)> {
    let stepped = Stepped::open(disk, sim_options()).unwrap();
    let lost = read_everything(&open_partition(&stepped.log, id(), config()), 1).1;
    drop(stepped);
    disk.kill();
    lost
}

#[test]
fn verify_tells_offsets_between_the_end_of_a_manifest_and_the_wal() {
    let disk = disk();
    assert_eq!(verified(&disk), (0, String::new()));
    // The newest slot is lost, and with it all that names the last segment; its batches are gone, too.
    let slots = Slots::load(&files(&disk), id()).unwrap().unwrap().slots;
    let newest = slots.unwrap().manifest;
    assert_eq!(newest.segments.len(), 2, "{newest:?}");
    let folder = files(&disk).partition_dir(id());
    let path = folder.join("manifest");
    let bytes = disk.contents(&path).unwrap();
    let half = bytes.len() / 2;
    let at = [0, half].into_iter().find(|at| {
        let decoded = crate::partition::format::decode_manifest(&bytes[*at..*at + half]);
        decoded.is_ok_and(|manifest| manifest.seq == newest.seq)
    });
    let manifest = disk.open(&path, OpenMode::Write).unwrap();
    let position = at.unwrap() as u64;
    manifest
        .write_at(&vec![0; half], position, Durability::Synced)
        .unwrap();
    disk.unlink(&folder.join("00000000000000000004.log"))
        .unwrap();
    let (problems, said) = verified(&disk);
    assert_eq!(problems, 1, "{said}");
    assert!(
        said.contains("offsets=4..=5 reason=offsets source=wal"),
        "{said}"
    );
    assert_eq!(lost(&disk), [(4, 5)], "a start finds the same");
}

#[test]
fn verify_tells_what_a_folder_held_that_is_gone() {
    let disk = disk();
    let folder = files(&disk).partition_dir(id());
    for file in disk.files(&folder) {
        disk.unlink(&file).unwrap();
    }
    let (problems, said) = verified(&disk);
    assert_eq!(problems, 1, "{said}");
    assert!(
        said.contains("offsets=0..=5 reason=offsets source=wal"),
        "{said}"
    );
    assert_eq!(lost(&disk), [(0, 5)], "a start finds the same");
}

#[test]
fn a_manifest_that_claims_more_entries_than_its_files_hold_costs_no_time() {
    for (sum_bytes, idx_bytes) in [(40 << 30, 64), (80, 32 << 26), (40 << 30, 32 << 26)] {
        let disk = disk();
        let files = files(&disk);
        let loaded = Slots::load(&files, id()).unwrap().unwrap();
        let mut slots = loaded.slots.unwrap();
        let mut manifest = slots.manifest.clone();
        manifest.segments[0].sum_bytes = sum_bytes;
        manifest.segments[0].idx_bytes = idx_bytes;
        slots.write(&files, manifest).unwrap();
        let (problems, said) = verified(&disk);
        assert!(problems > 0, "{said}");
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        let partition = open_partition(&stepped.log, id(), config());
        assert_eq!(
            read_everything(&partition, 1).1,
            [],
            "the batches are whole"
        );
        stepped.settle().unwrap();
        assert_eq!(stepped.reason(), "");
    }
}

#[test]
fn a_tail_that_belongs_far_behind_the_end_of_its_file_is_told_once() {
    let disk = disk();
    let files = files(&disk);
    let loaded = Slots::load(&files, id()).unwrap().unwrap();
    let mut slots = loaded.slots.unwrap();
    let mut manifest = slots.manifest.clone();
    assert!(!manifest.tails.sum.is_empty() && !manifest.tails.idx.is_empty());
    let last = manifest.segments.last_mut().unwrap();
    last.sum_bytes += 40 << 10;
    last.idx_bytes += 32 << 10;
    slots.write(&files, manifest).unwrap();
    let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
    let partition = open_partition(&stepped.log, id(), config());
    assert_eq!(
        read_everything(&partition, 1).1,
        [],
        "the batches are whole"
    );
    stepped.settle().unwrap();
    assert_eq!(read_everything(&partition, 1).1, []);
    let told = stepped.metrics().decode_errors_total();
    assert!(
        (1..20).contains(&told),
        "{told}: each run of lost entries once"
    );
}
