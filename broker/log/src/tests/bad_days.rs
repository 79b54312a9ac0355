//! Bad days of a data directory: what is missing, foreign, full, slow or failing, and what a log then does. The table is
//! in `docs/bad-days.md`; its other rows are tested where a client or a process is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{
    Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read_everything,
    stored, wait_durable, wait_until,
};
use crate::disk::{Disk, RealDisk, SimDisk, SimFaults};
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::partition::format::{SUM_ENTRY_BYTES, SegmentEntry, SumEntry, decode_sum, encode_sum};
use crate::partition::segments::EXTENT_BYTES_MAX;
use crate::{AppendError, Log, Options, PartitionConfig, PartitionId};

type Batches = Vec<(i64, Vec<u8>)>;

fn id() -> PartitionId {
    partition_id(1, 0)
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 3000,
        ..PartitionConfig::default()
    }
}

fn open(dir: &Path) -> Opened {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    open_log(&disk, options(dir)).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(dir: &Path) -> String {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match open_log(&disk, options(dir)) {
        Ok(_) => panic!("the log was opened"),
        Err(error) => error.to_string(),
    }
}

fn fill(log: &Log, count: u64) -> Batches {
    let partition = open_partition(log, id(), config());
    let mut rng = Rng::new(9);
    let mut written = Vec::new();
    for _ in 0..count {
        let producer = 77;
        let mut builder = keelson_protocol::builder::BatchBuilder::new(1000).producer(
            producer,
            0,
            written.len() as i32,
        );
        let value: Vec<u8> = (0..300).map(|_| rng.next() as u8).collect();
        builder.push(None, Some(&value));
        let bytes = builder.build();
        let appended = append(&partition, &bytes).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
        written.push((appended.base_offset, stored(&bytes, appended.base_offset)));
    }
    written
}

/// A directory after a clean stop, everything in several segments.
fn stopped() -> (tempfile::TempDir, Batches) {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let written = fill(&opened.log, 30);
    opened.log.shutdown();
    (dir, written)
}

fn folder(dir: &Path) -> PathBuf {
    dir.join("p").join(id().topic.to_string()).join("0")
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(extension))
        .collect();
    found.sort();
    found
}

/// Opens, reads everything; returns content, lost ranges, and (reason, source) of what is in the book of health.
fn observe(dir: &Path) -> (Batches, Vec<(i64, i64)>, u64, Opened) {
    let opened = open(dir);
    let partition = open_partition(&opened.log, id(), config());
    let (batches, lost) = read_everything(&partition, 1 << 16);
    let errors = opened.metrics.decode_errors_total();
    (batches, lost, errors, opened)
}

#[test]
fn a_lost_index_or_checksum_file_is_told_and_made_anew() {
    for extension in [".sum", ".idx"] {
        let (dir, written) = stopped();
        let lost_file = files(&folder(dir.path()), extension)[1].clone();
        let before = fs::read(&lost_file).unwrap();
        fs::remove_file(&lost_file).unwrap();
        let (batches, lost, errors, opened) = observe(dir.path());
        assert_eq!((batches == written, lost), (true, vec![]), "{extension}");
        assert!(errors > 0, "{extension}: nobody was told");
        wait_until("made anew", || {
            fs::read(&lost_file).is_ok_and(|bytes| bytes.len() == before.len())
        });
        let counted = |opened: &Opened| {
            opened
                .log
                .health()
                .unhealthy
                .iter()
                .any(|r| r.source == Source::Index)
        };
        assert!(!counted(&opened), "{extension}: no offset is lost by it");
        opened.log.shutdown();
        drop(opened);
        let (batches, lost, errors, _) = observe(dir.path());
        assert_eq!(
            (batches == written, lost, errors),
            (true, vec![], 0),
            "{extension}"
        );
    }
}

/// A directory after four clean stops, 400 batches of 20 kB in one segment; the stops end extents in odd places.
fn stopped_often() -> (tempfile::TempDir, Batches) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(5);
    let mut written = Vec::new();
    for round in 1..=4 {
        let opened = open(dir.path());
        let partition = open_partition(&opened.log, id(), PartitionConfig::default());
        for number in 0..100 {
            let bytes = batch(&mut rng, 1000 + number, 2, 10_000);
            let appended = append(&partition, &bytes).unwrap();
            written.push((appended.base_offset, stored(&bytes, appended.base_offset)));
        }
        wait_durable(&partition, 200 * round);
        opened.log.shutdown();
    }
    (dir, written)
}

fn zeroed(file: &Path, from: u64, to: u64) {
    use std::os::unix::fs::FileExt;
    let open = fs::File::options().write(true).open(file).unwrap();
    open.write_all_at(&vec![0; (to - from) as usize], from)
        .unwrap();
}

#[test]
fn the_lost_checksums_of_a_long_segment_are_made_anew_in_small_extents() {
    let entry = SUM_ENTRY_BYTES as u64;
    for lost in [
        "the file",
        "its beginning",
        "its end, beside a running broker",
    ] {
        let (dir, written) = stopped_often();
        let sums = files(&folder(dir.path()), ".sum").remove(0);
        let length = fs::metadata(&sums).unwrap().len();
        match lost {
            "the file" => fs::remove_file(&sums).unwrap(),
            "its beginning" => zeroed(&sums, 0, length / 2),
            _ => {}
        }
        let opened = open(dir.path());
        if lost.starts_with("its end") {
            zeroed(&sums, length / entry / 2 * entry, length);
        }
        let partition = open_partition(&opened.log, id(), PartitionConfig::default());
        let (batches, holes) = read_everything(&partition, 1 << 20);
        assert!(batches == written && holes.is_empty(), "{lost}");
        let seed = SegmentEntry::empty(0).seed();
        let extents = || -> Option<Vec<SumEntry>> {
            let bytes = fs::read(&sums).unwrap();
            let entries = bytes.chunks(SUM_ENTRY_BYTES);
            entries.map(|entry| decode_sum(seed, entry).ok()).collect()
        };
        wait_until("made anew", || {
            extents().is_some_and(|found| found.len() as u64 == length / entry)
        });
        for extent in extents().unwrap() {
            assert!(extent.length as usize <= EXTENT_BYTES_MAX, "{extent:?}");
        }
        opened.log.shutdown();
        drop((partition, opened));
        let opened = open(dir.path());
        let partition = open_partition(&opened.log, id(), PartitionConfig::default());
        let (batches, holes) = read_everything(&partition, 1);
        assert!(batches == written && holes.is_empty(), "{lost}");
    }
}

/// Puts in the place of an entry of `.sum` what it was when its extent had one batch: true by itself, what a write that
/// was lost left. Returns the offsets that it passes over.
fn outdate_an_entry(sums: &Path, written: &Batches) -> (i64, i64) {
    let mut bytes = fs::read(sums).unwrap();
    let seed = SegmentEntry::empty(0).seed();
    for stored in bytes.chunks_exact_mut(SUM_ENTRY_BYTES) {
        let mut entry = decode_sum(seed, stored).unwrap();
        // A flush takes what is durable by then: the first one, above all, may be of one batch, which is all of its extent.
        if entry.batches == 1 {
            continue;
        }
        let last = entry.end_offset - 1;
        let find = |(base, _): &&(i64, Vec<u8>)| *base == entry.base_offset;
        let (base, first) = written.iter().find(find).unwrap();
        (entry.end_offset, entry.batches) = (base + 2, 1);
        (entry.length, entry.crc) = (first.len() as u32, crc32c::crc32c(first));
        stored.copy_from_slice(&encode_sum(seed, &entry));
        fs::write(sums, &bytes).unwrap();
        return (base + 2, last);
    }
    panic!("no extent has two batches");
}

#[test]
fn an_entry_that_passes_over_offsets_is_told_by_verify_by_the_scrubber_and_by_the_read() {
    let (dir, written) = stopped_often();
    let sums = files(&folder(dir.path()), ".sum").remove(0);
    let lost = outdate_an_entry(&sums, &written);
    let mut lines = Vec::new();
    let report = crate::verify::verify(dir.path(), &|_| None, &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(report.problems, 1, "{lines}");
    let words = format!("offsets={}..={} reason=offsets", lost.0, lost.1);
    assert!(lines.contains(&words), "{lines}");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let scrubbing = Options {
        scrub_bytes_per_second: u64::MAX,
        ..options(dir.path())
    };
    let opened = open_log(&disk, scrubbing).unwrap();
    let full_pass = &opened.metrics.scrub_last_full_pass;
    wait_until("a full pass", || full_pass.get() > 0.0);
    let told = opened.log.health().unhealthy;
    let ranges: Vec<_> = told.iter().map(|r| (r.from, r.to, r.stage)).collect();
    assert_eq!(ranges, [(lost.0, lost.1, Stage::Scrub)]);
    let partition = open_partition(&opened.log, id(), PartitionConfig::default());
    let (_, holes) = read_everything(&partition, 1);
    assert_eq!(holes, [lost]);
    assert_eq!(opened.metrics.decode_errors_total(), 1);
}

#[test]
fn a_lost_segment_file_costs_exactly_its_offsets() {
    let (dir, written) = stopped();
    let logs = files(&folder(dir.path()), ".log");
    fs::remove_file(&logs[1]).unwrap();
    let base = |path: &Path| -> i64 {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        stem.parse().unwrap()
    };
    let (from, end) = (base(&logs[1]), base(&logs[2]));
    let (batches, lost, errors, opened) = observe(dir.path());
    let rest: Batches = written
        .into_iter()
        .filter(|(b, _)| *b < from || *b >= end)
        .collect();
    assert!(batches == rest);
    assert_eq!((lost, errors), (vec![(from, end - 1)], 1));
    let range = &opened.log.health().unhealthy[0];
    assert_eq!(range.reason, Reason::MissingFile);
    assert!(opened.log.health().states.contains(&HealthState::Corrupt));
}

#[test]
fn a_partition_without_its_manifest_is_made_anew_from_its_segments() {
    // Missing, and both slots damaged.
    for damaged in [false, true] {
        let (dir, written) = stopped();
        let path = folder(dir.path()).join("manifest");
        if damaged {
            let mut bytes = fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            bytes[30] ^= 1;
            bytes[half + 30] ^= 1;
            fs::write(&path, bytes).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let (batches, lost, errors, opened) = observe(dir.path());
        assert!(batches == written, "damaged: {damaged}");
        assert_eq!(lost, []);
        assert!(errors > 0, "damaged: {damaged}: nobody was told");
        let partition = opened.log.partition(id()).unwrap();
        assert_eq!(partition.next_offset(), 30);
        assert_eq!(partition.epochs(), [(super::support::EPOCH, 0)]);
        assert_eq!(
            partition.producers().unwrap().len(),
            1,
            "damaged: {damaged}"
        );
        // It goes on from there, and the next start has nothing to tell.
        let bytes = batch(&mut Rng::new(1), 1000, 1, 50);
        assert_eq!(append(&partition, &bytes).unwrap().base_offset, 30);
        wait_durable(&partition, 31);
        opened.log.shutdown();
        drop((partition, opened));
        let (batches, lost, errors, _) = observe(dir.path());
        assert_eq!((batches.len(), lost, errors), (31, vec![], 0));
    }
}

#[test]
fn a_lost_producer_snapshot_is_told_read_from_the_batches_and_written_anew() {
    for damaged in [false, true] {
        let (dir, written) = stopped();
        let mut snapshots = files(&folder(dir.path()), "");
        snapshots.retain(|path| path.to_string_lossy().contains("producers."));
        for path in snapshots {
            let mut bytes = fs::read(&path).unwrap();
            bytes[50] ^= 1;
            match damaged {
                true => fs::write(path, bytes).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        let (batches, lost, _, opened) = observe(dir.path());
        assert_eq!((batches == written, lost), (true, vec![]));
        let table = opened.log.partition(id()).unwrap().producers().unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(opened.metrics.decode_errors_total(), 1);
        opened.log.shutdown();
        drop(opened);
        // No producer wrote since, and it is whole again: nobody has anything to tell.
        let mut lines = Vec::new();
        let report = crate::verify::verify(dir.path(), &|_| None, &mut lines).unwrap();
        assert_eq!(report.problems, 0, "{}", String::from_utf8_lossy(&lines));
        let (_, _, _, opened) = observe(dir.path());
        let again = opened.log.partition(id()).unwrap().producers().unwrap();
        assert_eq!(again, table, "damaged: {damaged}");
        assert_eq!(opened.metrics.decode_errors_total(), 0);
    }
}

#[test]
fn a_wal_file_that_is_missing_stops_the_start_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    fill(&opened.log, 3);
    drop(opened);
    let wal = files(&dir.path().join("wal"), ".wal")[0].clone();
    fs::remove_file(&wal).unwrap();
    let words = refusal(dir.path());
    let name = wal.display().to_string();
    assert!(
        words.contains(&name) && words.contains("missing"),
        "{words}"
    );
}

#[test]
fn a_foreign_file_among_the_segments_is_set_aside_and_told() {
    let (dir, written) = stopped();
    let foreign = folder(dir.path()).join("00000000000000009999.log");
    fs::write(&foreign, b"somebody's").unwrap();
    fs::write(folder(dir.path()).join("notes.txt"), b"nobody's").unwrap();
    let (batches, lost, errors, opened) = observe(dir.path());
    assert_eq!((batches == written, lost, errors), (true, vec![], 2));
    assert!(!foreign.exists());
    let aside = dir.path().join("quarantine");
    assert_eq!(
        fs::read_dir(&aside).unwrap().count(),
        2,
        "kept, not deleted"
    );
    let health = opened.log.health();
    assert_eq!(health.states, [HealthState::Degraded]);
    assert!(
        health
            .unhealthy
            .iter()
            .all(|r| r.reason == Reason::UnlistedFile)
    );
}

#[test]
fn the_folder_of_a_partition_of_another_cluster_is_told() {
    let (dir, _) = stopped();
    let (other, _) = stopped();
    let theirs = other.path().join("p").join(id().topic.to_string());
    let here = dir
        .path()
        .join("p")
        .join(partition_id(2, 0).topic.to_string());
    fs::rename(theirs, &here).unwrap();
    let opened = open(dir.path());
    // Its manifest names another topic: neither slot is this folder's.
    assert!(opened.metrics.decode_errors_total() > 0);
    let known = [id()].into_iter().collect();
    let moved = opened.log.quarantine_unknown(&known);
    assert_eq!(moved.len(), 1);
    assert!(!here.join("0").exists() && moved[0].exists());
    assert_eq!(opened.log.partition_ids(), [id()]);
}

#[test]
fn a_stalled_disk_acknowledges_nothing_and_loses_nothing() {
    let disk = SimDisk::new(8);
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open_log(&dyn_disk, options(Path::new("/data"))).unwrap();
    let written = fill(&opened.log, 2);
    let partition = opened.log.partition(id()).unwrap();
    disk.set_faults(SimFaults {
        stalled: vec![PathBuf::from("wal/00000000000000000001.wal")],
        ..SimFaults::default()
    });
    let bytes = batch(&mut Rng::new(8), 1000, 1, 100);
    append(&partition, &bytes).unwrap();
    // Reads go on beside the stalled write.
    assert!(read_everything(&partition, 1 << 16).0 == written);
    assert_eq!(
        (partition.durable_offset(), partition.next_offset()),
        (2, 3)
    );
    disk.set_faults(SimFaults::default());
    wait_durable(&partition, 3);
    assert_eq!(*opened.fatal.0.lock(), None);
}

/// A write or a sync that fails, anywhere: the process ends with the first reason, nothing is acknowledged after it, and
/// what was acknowledged before is there.
#[test]
fn a_failed_write_or_sync_ends_the_process_and_keeps_what_was_acknowledged() {
    let mut reasons = std::collections::BTreeSet::new();
    for at in 1..60 {
        for sync in [false, true] {
            let disk = SimDisk::new(at);
            let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
            let options = || Options {
                flush_pending_bytes: 1,
                ..options(Path::new("/data"))
            };
            let opened = open_log(&dyn_disk, options()).unwrap();
            let written = fill(&opened.log, 1);
            let number = Some(disk.operations() + at);
            disk.set_faults(SimFaults {
                write_fails_at: number.filter(|_| !sync),
                sync_fails_at: number.filter(|_| sync),
                ..SimFaults::default()
            });
            let partition = opened.log.partition(id()).unwrap();
            let mut acknowledged = written.len() as i64;
            let failed = || opened.fatal.0.lock().is_some();
            for number in 0..30 {
                let bytes = batch(&mut Rng::new(number), 1000, 1, 100);
                let Ok(appended) = append(&partition, &bytes) else {
                    wait_until("the reason of the refusal", failed);
                    break;
                };
                wait_until("durable or failed", || {
                    partition.durable_offset() > appended.last_offset || failed()
                });
                acknowledged = partition.durable_offset();
            }
            if let Some(reason) = opened.fatal.0.lock().clone() {
                let refused = append(&partition, &batch(&mut Rng::new(1), 1, 1, 1)).unwrap_err();
                assert_eq!(refused, AppendError::Closed);
                reasons.insert(reason.split(':').next().unwrap_or_default().to_owned());
            }
            drop((partition, opened));
            disk.power_cut();
            let opened = open_log(&dyn_disk, options()).unwrap();
            let partition = opened.log.partition(id()).unwrap();
            assert!(partition.next_offset() >= acknowledged, "{at} {sync}");
            assert_eq!(read_everything(&partition, 1 << 16).1, [], "{at} {sync}");
        }
    }
    assert!(
        reasons.len() > 1,
        "only one kind of write failed: {reasons:?}"
    );
}
