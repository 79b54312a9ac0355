//! One flipped byte, everywhere: told, and exactly what it costs is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{
    Everything, Rng, append, batch, open_log, open_partition, options, partition_id,
    read_everything, stored, wait_durable, wait_until,
};
use crate::disk::{Disk, RealDisk, SimDisk, SimFaults};
use crate::metrics::HealthState;
use crate::{Options, PartitionConfig, PartitionId};

const DAMAGED: (u8, i32) = (1, 0);
const OTHER: (u8, i32) = (2, 5);

/// A directory with two partitions, and what they hold.
struct Fixture {
    dir: tempfile::TempDir,
    batches: Vec<(i64, Vec<u8>)>,
    other: Vec<(i64, Vec<u8>)>,
}

fn id((topic, index): (u8, i32)) -> PartitionId {
    partition_id(topic, index)
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 3000,
        ..PartitionConfig::default()
    }
}

/// Options under which nothing is flushed before the end (`in_wal`), or everything at the end.
fn fixture_options(dir: &Path) -> Options {
    Options {
        flush_after: std::time::Duration::from_secs(3600),
        ..options(dir)
    }
}

fn fixture(in_wal: bool, count: u64) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = open_log(&disk, fixture_options(dir.path())).unwrap();
    let mut rng = Rng::new(7);
    let mut content = [Vec::new(), Vec::new()];
    for (which, name) in [DAMAGED, OTHER].into_iter().enumerate() {
        let partition = open_partition(&opened.log, id(name), config());
        for number in 0..count {
            let bytes = batch(&mut rng, 1000 + number as i64, 1 + number % 3, 40);
            let appended = append(&partition, &bytes).unwrap();
            content[which].push((appended.base_offset, stored(&bytes, appended.base_offset)));
            wait_durable(&partition, appended.last_offset + 1);
        }
    }
    if in_wal {
        // A kill: nothing is flushed. The last group gets its witness first.
        let partition = opened.log.partition(id(OTHER)).unwrap();
        let last = partition.state.lock().last_durable.group;
        wait_until("seal", || {
            partition.shared().wal().stats().durable_group > last
        });
    } else {
        opened.log.shutdown();
    }
    drop(opened);
    let [batches, other] = content;
    Fixture {
        dir,
        batches,
        other,
    }
}

impl Fixture {
    /// Copies the directory, flips a byte, opens it and reads everything of both partitions.
    fn with_flip(&self, file: &Path, at: u64, bit: u8) -> Outcome {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        let path = copy.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at as usize] ^= bit;
        fs::write(&path, bytes).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let first = observe(&disk, copy.path(), &format!("{}+{at}", file.display()));
        if !at.is_multiple_of(4) {
            return first;
        }
        let second = observe(&disk, copy.path(), "again");
        assert_eq!(
            first.damaged,
            second.damaged,
            "{}+{at}: another answer after a restart",
            file.display()
        );
        assert_eq!(first.other, second.other);
        assert_eq!(first.ranges, second.ranges, "{}+{at}", file.display());
        if first.ranges > 0 {
            assert_eq!(second.errors, 0, "{}+{at}: counted again", file.display());
        }
        first
    }

    fn file(&self, extension: &str) -> Vec<PathBuf> {
        let folder = self
            .dir
            .path()
            .join("p")
            .join(id(DAMAGED).topic.to_string())
            .join("0");
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(extension))
            .map(|path| path.strip_prefix(self.dir.path()).unwrap().to_owned())
            .collect();
        files.sort();
        files
    }
}

/// What one open saw.
struct Outcome {
    damaged: Everything,
    other: Everything,
    errors: u64,
    ranges: u64,
    states: Vec<HealthState>,
}

fn observe(disk: &Arc<dyn Disk>, dir: &Path, what: &str) -> Outcome {
    let opened = open_log(disk, fixture_options(dir)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let read = |name| {
        let partition = open_partition(&opened.log, id(name), config());
        let once = read_everything(&partition, 1);
        assert_eq!(
            once,
            read_everything(&partition, 1 << 20),
            "{what}: the step of a reader matters"
        );
        once
    };
    let (damaged, other) = (read(DAMAGED), read(OTHER));
    let health = opened.log.health();
    let errors = opened.metrics.decode_errors_total();
    assert_eq!(health.decode_errors, errors, "{what}");
    opened.log.shutdown();
    assert_eq!(*opened.fatal.0.lock(), None, "{what}");
    Outcome {
        damaged,
        other,
        errors,
        ranges: health.quarantined_ranges,
        states: health.states,
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The batches without the one at `lost`, and its range.
fn without(batches: &[(i64, Vec<u8>)], lost: usize) -> Everything {
    let mut rest = batches.to_vec();
    let (base, _) = rest.remove(lost);
    let end = batches.get(lost + 1).map_or_else(
        || {
            let header = keelson_protocol::batch::BatchHeader::parse(&batches[lost].1).unwrap();
            header.last_offset() + 1
        },
        |(next, _)| *next,
    );
    (rest, vec![(base, end - 1)])
}

#[test]
fn a_flip_in_a_segment_costs_exactly_its_batch() {
    let fixture = fixture(false, 24);
    let mut number = 0;
    for file in fixture.file(".log") {
        let length = fs::metadata(fixture.dir.path().join(&file)).unwrap().len();
        let mut at = 0;
        while at < length {
            let (header, size) = (at, fixture.batches[number].1.len() as u64);
            // Each field of the header once over all batches, and one byte of the records.
            for inside in [
                (number as u64 * 7) % 61,
                61 + (number as u64 * 13) % (size - 61),
            ] {
                let outcome = fixture.with_flip(&file, header + inside, 0x10);
                let what = format!("batch {number}, byte {inside}");
                assert!(
                    outcome.damaged == without(&fixture.batches, number),
                    "{what}: {:?}",
                    outcome.damaged.1
                );
                assert_eq!(outcome.other, (fixture.other.clone(), vec![]), "{what}");
                assert_eq!((outcome.errors, outcome.ranges), (1, 1), "{what}");
                assert_eq!(
                    outcome.states,
                    [HealthState::Degraded, HealthState::Corrupt],
                    "{what}"
                );
            }
            at += size;
            number += 1;
        }
    }
    assert_eq!(number, fixture.batches.len());
}

#[test]
fn a_flip_in_a_small_file_costs_nothing_and_is_told() {
    let fixture = fixture(false, 24);
    let whole = (fixture.batches.clone(), vec![]);
    for extension in [".sum", ".idx"] {
        for file in fixture.file(extension) {
            let length = fs::metadata(fixture.dir.path().join(&file)).unwrap().len();
            for at in (0..length).step_by(11) {
                let outcome = fixture.with_flip(&file, at, 0x04);
                assert!(outcome.damaged == whole, "{}+{at}", file.display());
                // An index entry is only looked at by what needs it.
                assert!(
                    outcome.errors == 1 || extension == ".idx",
                    "{}+{at}",
                    file.display()
                );
                assert_eq!((outcome.ranges, outcome.states), (0, vec![HealthState::Ok]));
            }
        }
    }
    for at in [
        0, 9, 13, 20, 50, 60, 70, 80, 120, 4096, 4100, 4110, 4150, 4180, 4200,
    ] {
        let outcome = fixture.with_flip(&fixture.file("manifest")[0], at, 0x04);
        assert!(outcome.damaged == whole, "manifest+{at}");
        assert_eq!(outcome.states, [HealthState::Ok]);
    }
}

#[test]
fn a_flip_in_the_wal_costs_at_most_its_batch_and_nobody_elses() {
    let fixture = fixture(true, 12);
    let wal = fixture.dir.path().join("wal");
    let mut files: Vec<PathBuf> = fs::read_dir(wal)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    files.sort();
    let content = fs::read(&files[0]).unwrap();
    let file = files[0].strip_prefix(fixture.dir.path()).unwrap();
    for (number, (_, bytes)) in fixture.batches.iter().enumerate() {
        let at = find(&content, &bytes[16..]).expect("every batch stands in the WAL") as u64;
        for inside in [0, bytes.len() as u64 / 2, bytes.len() as u64 - 17] {
            let outcome = fixture.with_flip(file, at + inside, 0x20);
            let what = format!("batch {number}, byte {inside} behind its prefix");
            assert!(
                outcome.damaged == without(&fixture.batches, number),
                "{what}: {:?}",
                outcome.damaged.1
            );
            assert_eq!(outcome.other, (fixture.other.clone(), vec![]), "{what}");
            assert_eq!((outcome.errors, outcome.ranges), (1, 1), "{what}");
        }
    }
}

#[test]
fn a_flip_anywhere_in_the_wal_costs_one_group_at_most_and_is_told() {
    let fixture = fixture(true, 6);
    let file = PathBuf::from("wal/00000000000000000001.wal");
    let content = fs::read(fixture.dir.path().join(&file)).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for at in (0..used).step_by(331) {
        let outcome = fixture.with_flip(&file, at, 0x08);
        let what = format!("byte {at} of {used}");
        let mut lost = 0;
        for (found, whole) in [
            (&outcome.damaged, &fixture.batches),
            (&outcome.other, &fixture.other),
        ] {
            let is_lost = |base: &i64| found.1.iter().any(|(from, to)| (from..=to).contains(&base));
            let rest: Vec<_> = whole
                .iter()
                .filter(|(base, _)| !is_lost(base))
                .cloned()
                .collect();
            assert!(
                found.0 == rest,
                "{what}: a batch is gone and nobody was told, or it changed"
            );
            lost += found.1.len();
        }
        assert!(lost <= 1, "{what}: {lost} batches lost");
        assert_eq!(outcome.ranges, lost as u64, "{what}");
        assert!(outcome.errors as usize >= lost, "{what}");
    }
}

#[test]
fn a_block_that_cannot_be_read_is_damage_and_not_the_end() {
    let disk = SimDisk::new(9);
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let dir = Path::new("/data");
    let opened = open_log(&dyn_disk, fixture_options(dir)).unwrap();
    let partition = open_partition(&opened.log, id(DAMAGED), config());
    let mut rng = Rng::new(9);
    for _ in 0..30 {
        let appended = append(&partition, &batch(&mut rng, 1000, 2, 100)).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
    }
    opened.log.shutdown();
    drop((partition, opened));
    disk.kill();
    let segment = disk
        .files(&dir.join("p"))
        .into_iter()
        .find(|f| f.extension().is_some_and(|e| e == "log"));
    disk.set_faults(SimFaults {
        unreadable: vec![segment.unwrap()],
        ..SimFaults::default()
    });
    let outcome = observe(&dyn_disk, dir, "unreadable");
    let (content, lost) = outcome.damaged;
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].0, 0);
    assert_eq!(content[0].0, lost[0].1 + 1);
    assert_eq!(content.last().unwrap().0, 58);
    assert_eq!(outcome.errors, 1);
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
