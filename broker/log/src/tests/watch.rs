//! The watchmen: what nobody reads is looked at all the same, what is found is told once, and what cannot be read can be
//! given up, and nothing else.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelson_protocol::batch::BatchHeader;

use super::support::{
    Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read,
    read_everything, stored, wait_durable, wait_until,
};
use crate::accept::{AcceptRequest, accept_loss_on};
use crate::disk::{Disk, SimDisk, SimFaults};
use crate::health::Health;
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::verify::verify_directory;
use crate::{Options, PartitionConfig, PartitionId, ReadError, ReadOutcome, ReadRequest};

const DIR: &str = "/data";
/// Batches of two records each.
const BATCHES: i64 = 30;

fn id() -> PartitionId {
    partition_id(1, 0)
}

/// Small segments, so that there are several.
fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 2500,
        ..PartitionConfig::default()
    }
}

/// A simulated volume with one partition.
struct Volume {
    disk: SimDisk,
    batches: Vec<(i64, Vec<u8>)>,
    /// When the last full pass that was waited for ended.
    scrubbed_at: Cell<f64>,
}

impl Volume {
    /// Filled, and stopped (`clean`: everything is in segments) or killed (everything is in the WAL, with its witness).
    fn filled(seed: u64, clean: bool) -> Self {
        let disk = SimDisk::new(seed);
        let volume = Volume {
            disk,
            batches: Vec::new(),
            scrubbed_at: Cell::new(0.0),
        };
        let opened = volume.open(0);
        let partition = open_partition(&opened.log, id(), config());
        let mut rng = Rng::new(seed);
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let bytes = batch(&mut rng, 1000, 2, 60);
            let appended = append(&partition, &bytes).unwrap();
            batches.push((appended.base_offset, stored(&bytes, appended.base_offset)));
            wait_durable(&partition, appended.last_offset + 1);
        }
        if clean {
            opened.log.shutdown();
        } else {
            let last = partition.state.lock().last_durable.group;
            wait_until("seal", || {
                partition.shared().wal().stats().durable_group > last
            });
        }
        drop((partition, opened));
        volume.disk.kill();
        Volume { batches, ..volume }
    }

    fn dyn_disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn options(&self, scrub_bytes_per_second: u64) -> Options {
        Options {
            scrub_bytes_per_second,
            flush_after: Duration::from_secs(3600),
            ..options(Path::new(DIR))
        }
    }

    fn open(&self, scrub_bytes_per_second: u64) -> Opened {
        open_log(&self.dyn_disk(), self.options(scrub_bytes_per_second)).unwrap()
    }

    /// Waits for a full pass that ended later than the last one.
    fn wait_for_a_pass(&self, opened: &Opened) {
        let last = self.scrubbed_at.get();
        let full_pass = &opened.metrics.scrub_last_full_pass;
        wait_until("a full pass", || full_pass.get() > last);
        self.scrubbed_at.set(full_pass.get());
    }

    /// Opens, lets the scrubber see everything, and ends; returns the health and the counted errors by what found them.
    fn scrubbed(&self) -> (Health, u64, u64) {
        let opened = self.open(u64::MAX);
        self.wait_for_a_pass(&opened);
        let health = opened.log.health();
        let all = opened.metrics.decode_errors_total();
        let by_scrub = Reason::ALL.iter().flat_map(|reason| {
            let count = |source| {
                opened
                    .metrics
                    .decode_errors_with(Stage::Scrub, source, *reason)
            };
            [count(Source::Segment), count(Source::Index)]
        });
        let by_scrub = by_scrub.sum();
        opened.log.shutdown();
        assert_eq!(*opened.fatal.0.lock(), None);
        drop(opened);
        self.disk.kill();
        (health, all, by_scrub)
    }

    fn segment_files(&self, extension: &str) -> Vec<PathBuf> {
        let mut files = self.disk.files(&Path::new(DIR).join("p"));
        files.retain(|file| file.extension().is_some_and(|e| e == extension));
        files
    }

    /// Flips a byte in the records of batch `number`, wherever it lies.
    fn damage(&self, number: usize) -> (i64, i64) {
        let (base, bytes) = &self.batches[number];
        let needle = &bytes[61..];
        let files = self.disk.files(Path::new(DIR));
        let mut hits = 0;
        for file in files {
            let content = self.disk.contents(&file).unwrap();
            let found = content.windows(needle.len()).position(|w| w == needle);
            let is_wal = file.extension().is_some_and(|e| e == "wal");
            if let Some(at) = found
                && (!is_wal || self.segment_files("log").is_empty())
            {
                self.disk.flip(&file, at as u64 + 10, 0x10);
                hits += 1;
            }
        }
        assert_eq!(hits, 1, "a batch lies in one place");
        let header = BatchHeader::parse(bytes).unwrap();
        (*base, header.last_offset())
    }

    fn accept(&self, from: i64, to: i64) -> Result<usize, String> {
        let request = AcceptRequest {
            partition: id(),
            topic: "orders".to_owned(),
            from,
            to,
            by: "a test".to_owned(),
        };
        accept_loss_on(&self.dyn_disk(), Path::new(DIR), &request)
            .map(|losses| losses.len())
            .map_err(|error| error.to_string())
    }

    /// What `log verify` says: problems and its lines.
    fn verify(&self) -> (u64, String) {
        let directory =
            crate::offline::Directory::open_on(self.dyn_disk(), Path::new(DIR)).unwrap();
        let mut out = Vec::new();
        let report = verify_directory(&directory, &|_| None, &mut out).unwrap();
        (report.problems, String::from_utf8(out).unwrap())
    }

    /// The batches without these.
    fn without(&self, lost: &[usize]) -> Vec<(i64, Vec<u8>)> {
        let numbered = self.batches.iter().enumerate();
        let kept = numbered.filter(|(number, _)| !lost.contains(number));
        kept.map(|(_, batch)| batch.clone()).collect()
    }
}

#[test]
fn the_scrubber_finds_what_nobody_reads_and_a_restart_counts_it_once() {
    let volume = Volume::filled(1, true);
    let lost = volume.damage(7);
    let (health, all, by_scrub) = volume.scrubbed();
    assert_eq!((all, by_scrub), (1, 1));
    assert_eq!(health.states, [HealthState::Degraded, HealthState::Corrupt]);
    let range = &health.unhealthy[0];
    assert_eq!((range.from, range.to), lost);
    assert_eq!(range.stage, Stage::Scrub);
    assert_eq!(range.reason, Reason::BatchCrc);
    // The next start knows it, and its own pass does not count it again.
    let (health, all, _) = volume.scrubbed();
    assert_eq!((health.quarantined_ranges, all), (1, 0));
    // A read in between does not either.
    let opened = volume.open(0);
    let partition = open_partition(&opened.log, id(), config());
    assert_eq!(
        read_everything(&partition, 1 << 20),
        (volume.without(&[7]), vec![lost])
    );
    assert_eq!(opened.metrics.decode_errors_total(), 0);
}

#[test]
fn a_pass_over_what_is_whole_tells_nothing_and_its_time_survives() {
    let volume = Volume::filled(2, true);
    let (health, all, _) = volume.scrubbed();
    assert_eq!((health.states, all), (vec![HealthState::Ok], 0));
    let opened = volume.open(0);
    assert!(opened.metrics.scrub_last_full_pass.get() > 1e9);
    assert_eq!(opened.metrics.scrub_bytes.get(), 0, "switched off");
}

#[test]
fn the_scrubber_reads_every_byte_once_in_a_pass_and_leaves_the_cache_alone() {
    let volume = Volume::filled(3, true);
    let opened = volume.open(u64::MAX);
    let stored: u64 = volume.batches.iter().map(|(_, b)| b.len() as u64).sum();
    volume.wait_for_a_pass(&opened);
    assert_eq!(opened.metrics.scrub_bytes.get(), stored);
    let partition = open_partition(&opened.log, id(), config());
    let cached = partition.segment_bases().into_iter().filter(|base| {
        let files = &partition.shared().files;
        let view = partition.segment_with(&partition.state.lock(), *base);
        files.cached_extent(&view.unwrap(), 0).is_some()
    });
    assert_eq!(cached.count(), 0);
    assert!(partition.segment_bases().len() > 1);
}

#[test]
fn the_scrubber_repairs_small_files_and_tells() {
    for (extension, at) in [("sum", 3), ("sum", 44), ("idx", 9), ("idx", 0)] {
        let volume = Volume::filled(4, true);
        let file = volume.segment_files(extension).remove(0);
        let before = volume.disk.contents(&file).unwrap();
        if before.len() as u64 <= at {
            continue;
        }
        volume.disk.flip(&file, at, 0x04);
        let opened = volume.open(u64::MAX);
        wait_until("the file is as it was", || {
            volume.disk.contents(&file).unwrap() == before
        });
        let told = opened
            .metrics
            .decode_errors_with(Stage::Scrub, Source::Index, Reason::SlotCrc);
        assert_eq!(told, 1, "{extension}+{at}");
        assert_eq!(opened.log.health().states, [HealthState::Ok]);
    }
}

#[test]
fn whole_small_files_that_are_lost_are_rebuilt_as_they_were() {
    for extension in ["sum", "idx"] {
        let volume = Volume::filled(5, true);
        let files = volume.segment_files(extension);
        // What is newest stands in the manifest alone.
        assert_eq!(files.len() + 1, volume.segment_files("log").len());
        for file in &files {
            let before = volume.disk.contents(file).unwrap();
            volume.dyn_disk().unlink(file).unwrap();
            let opened = volume.open(0);
            wait_until("the file is back", || {
                volume.disk.contents(file) == Some(before.clone())
            });
            let told = Reason::ALL.iter().map(|reason| {
                opened
                    .metrics
                    .decode_errors_with(Stage::Replay, Source::Index, *reason)
            });
            assert_eq!(told.sum::<u64>(), 1, "{}", file.display());
            let partition = open_partition(&opened.log, id(), config());
            let found = read_everything(&partition, 1 << 20);
            assert!(found == (volume.batches.clone(), vec![]));
            opened.log.shutdown();
            drop((partition, opened));
            volume.disk.kill();
            assert_eq!(volume.verify().0, 0, "{}", volume.verify().1);
        }
    }
}

#[test]
fn a_block_that_cannot_be_read_and_a_file_that_is_gone_are_found() {
    for gone in [false, true] {
        let volume = Volume::filled(6, true);
        let file = volume.segment_files("log").remove(1);
        if gone {
            volume.dyn_disk().unlink(&file).unwrap();
        } else {
            volume.disk.set_faults(SimFaults {
                unreadable: vec![file],
                ..SimFaults::default()
            });
        }
        let (health, all, _) = volume.scrubbed();
        assert_eq!((health.quarantined_ranges, all), (1, 1), "gone: {gone}");
        let wanted = if gone {
            Reason::MissingFile
        } else {
            Reason::Io
        };
        assert_eq!(health.unhealthy[0].reason, wanted);
    }
}

#[test]
fn only_what_cannot_be_read_can_be_given_up_and_only_while_no_broker_runs() {
    let volume = Volume::filled(7, true);
    let (from, to) = volume.damage(7);
    let opened = volume.open(0);
    let refused = volume.accept(from, to).unwrap_err();
    assert!(refused.contains("a broker is running"), "{refused}");
    opened.log.shutdown();
    drop(opened);
    volume.disk.kill();
    let end = 2 * BATCHES;
    for (from, to, words) in [
        (
            from - 1,
            to,
            vec![
                format!("{}..={}", from - 1, from - 1),
                format!("{from}..={to}"),
            ],
        ),
        (from, to + 3, vec![format!("{}..={}", to + 1, to + 3)]),
        (to, from, vec!["lies behind".to_owned()]),
        (end, end + 5, vec![format!("0..={}", end - 1)]),
        (-5, to, vec!["not among them".to_owned()]),
    ] {
        let refused = volume.accept(from, to).unwrap_err();
        for word in words {
            assert!(refused.contains(&word), "{refused:?} lacks {word:?}");
        }
    }
    assert_eq!(volume.verify().0, 1, "a refusal changes nothing");
    assert_eq!(volume.accept(from, to), Ok(1));
    assert_eq!(volume.accept(from, to), Ok(0), "given up before");
    assert_eq!(volume.verify().0, 0);
}

/// Reads batch by batch and whole, as two consumers would.
fn consumed(opened: &Opened) -> Vec<(i64, Vec<u8>)> {
    let partition = open_partition(&opened.log, id(), config());
    let (mut batches, lost) = read_everything(&partition, 1 << 20);
    assert_eq!(lost, [], "nothing is in quarantine any more");
    batches.retain(|(_, bytes)| BatchHeader::parse(bytes).unwrap().records_count > 0);
    let (mut again, _) = read_everything(&partition, 1);
    again.retain(|(_, bytes)| BatchHeader::parse(bytes).unwrap().records_count > 0);
    assert!(batches == again, "the step of a reader matters");
    batches
}

#[test]
fn behind_a_loss_that_was_accepted_everybody_goes_on() {
    for clean in [true, false] {
        for number in [0, 7, BATCHES as usize - 1] {
            let what = format!("batch {number}, in segments: {clean}");
            let volume = Volume::filled(8, clean);
            let (from, to) = volume.damage(number);
            let accepted = if number % 2 == 0 {
                // Before any start has seen it.
                volume.accept(from, to)
            } else {
                volume.scrubbed();
                volume.accept(from, to)
            };
            assert_eq!(accepted, Ok(1), "{what}");
            for start in 0..2 {
                let opened = volume.open(u64::MAX);
                let partition = open_partition(&opened.log, id(), config());
                assert_eq!(partition.durable_offset(), 2 * BATCHES, "{what}");
                assert!(consumed(&opened) == volume.without(&[number]), "{what}");
                // Each offset inside leads on.
                for inside in [from, to] {
                    let (bytes, next) = read(&partition, inside, 1).unwrap();
                    let header = BatchHeader::parse(&bytes).unwrap();
                    assert!(next > to && header.last_offset() + 1 == next, "{what}");
                    assert_eq!(header.records_count == 0, to == 2 * BATCHES - 1, "{what}");
                }
                volume.wait_for_a_pass(&opened);
                assert_eq!(
                    opened.metrics.decode_errors_total(),
                    0,
                    "{what}, start {start}"
                );
                let health = opened.log.health();
                assert_eq!(health.states, [HealthState::Ok], "{what}");
                assert_eq!(health.accepted.len(), 1, "{what}");
                assert_eq!(
                    (health.accepted[0].range.from, health.accepted[0].range.to),
                    (from, to)
                );
                opened.log.shutdown();
                drop((partition, opened));
                volume.disk.kill();
                assert_eq!(volume.verify().0, 0, "{what}: {}", volume.verify().1);
            }
            // New offsets lie above everything.
            let opened = volume.open(0);
            let partition = open_partition(&opened.log, id(), config());
            let bytes = batch(&mut Rng::new(9), 1000, 1, 10);
            let appended = append(&partition, &bytes).unwrap();
            assert_eq!(appended.base_offset, 2 * BATCHES, "{what}");
        }
    }
}

#[test]
fn a_part_of_a_damaged_range_can_be_given_up_and_the_rest_stays_an_error() {
    for clean in [true, false] {
        let volume = Volume::filled(10, clean);
        let (from, to) = volume.damage(5);
        assert_eq!(from + 1, to);
        assert_eq!(volume.accept(from, from), Ok(1));
        // From the tail (or segments) at first, after a clean stop from segments in any case.
        for start in 0..2 {
            let opened = volume.open(0);
            let partition = open_partition(&opened.log, id(), config());
            let (batches, lost) = read_everything(&partition, 1 << 20);
            assert_eq!(lost, [(to, to)], "in segments: {clean}, start {start}");
            // In its place an empty batch leads up to what is still an error.
            let (empty, full): (Vec<_>, Vec<_>) = batches
                .into_iter()
                .partition(|(_, bytes)| BatchHeader::parse(bytes).unwrap().records_count == 0);
            assert_eq!(
                empty.iter().map(|(base, _)| *base).collect::<Vec<_>>(),
                [from]
            );
            assert!(full == volume.without(&[5]));
            assert_eq!(opened.metrics.quarantined_records.get(), 1);
            opened.log.shutdown();
            drop((partition, opened));
            volume.disk.kill();
        }
    }
}

#[test]
fn a_segment_that_is_gone_can_be_given_up_whole() {
    let volume = Volume::filled(11, true);
    let file = volume.segment_files("log").remove(1);
    volume.dyn_disk().unlink(&file).unwrap();
    let (health, _, _) = volume.scrubbed();
    let range = health.unhealthy[0].clone();
    assert_eq!(volume.accept(range.from, range.to), Ok(1));
    let opened = volume.open(u64::MAX);
    let kept: Vec<_> = volume
        .batches
        .iter()
        .filter(|(base, _)| !(range.from..=range.to).contains(base))
        .cloned()
        .collect();
    assert!(consumed(&opened) == kept);
    volume.wait_for_a_pass(&opened);
    assert_eq!(opened.log.health().states, [HealthState::Ok]);
}

#[test]
fn what_lies_in_memory_behind_an_accepted_loss_is_read_too() {
    let volume = Volume::filled(12, false);
    let (from, to) = volume.damage(BATCHES as usize - 1);
    assert_eq!(volume.accept(from, to), Ok(1));
    let opened = volume.open(0);
    let partition = open_partition(&opened.log, id(), config());
    let request = |max_bytes, min_one| ReadRequest {
        from,
        up_to: i64::MAX,
        max_bytes,
        min_one,
        tail_only: true,
    };
    let empty = |outcome: Result<ReadOutcome, ReadError>| match outcome.unwrap() {
        ReadOutcome::Data { bytes, next, .. } => (bytes, next),
        ReadOutcome::NeedsDisk => panic!("it is in memory"),
    };
    assert_eq!(empty(partition.read(request(10, false))), (0, from));
    assert_eq!(empty(partition.read(request(10, true))), (61, to + 1));
    let bytes = batch(&mut Rng::new(9), 1000, 1, 10);
    let appended = append(&partition, &bytes).unwrap();
    wait_durable(&partition, appended.last_offset + 1);
    let (found, next) = read(&partition, from, 1).unwrap();
    assert_eq!(found, stored(&bytes, appended.base_offset));
    assert_eq!(next, appended.last_offset + 1);
}

#[test]
fn a_list_of_losses_that_does_not_verify_is_told_and_its_ranges_are_damage_again() {
    let volume = Volume::filled(13, true);
    let (from, to) = volume.damage(7);
    assert_eq!(volume.accept(from, to), Ok(1));
    volume.scrubbed();
    let list = Path::new(DIR).join("accepted-losses");
    volume.disk.flip(&list, 40, 0x01);
    assert_eq!(volume.verify().0, 2, "{}", volume.verify().1);
    let refused = volume.accept(from, to).unwrap_err();
    assert!(refused.contains("start the broker once"), "{refused}");
    let (health, all, by_scrub) = volume.scrubbed();
    assert_eq!((all, by_scrub), (2, 1));
    assert_eq!(health.quarantined_ranges, 1);
    assert_eq!(health.accepted_total, 0);
    // Given up once more, everything is well again.
    assert_eq!(volume.accept(from, to), Ok(1));
    let (health, all, _) = volume.scrubbed();
    assert_eq!((health.states, all), (vec![HealthState::Ok], 0));
}

#[test]
fn a_stop_does_not_wait_for_a_slow_pass() {
    let volume = Volume::filled(14, true);
    let opened = volume.open(1);
    wait_until("the pass has begun", || {
        opened.metrics.scrub_bytes.get() > 0
    });
    let started = std::time::Instant::now();
    opened.log.shutdown();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(*opened.fatal.0.lock(), None);
    drop(opened);
    let opened = volume.open(0);
    assert_eq!(opened.metrics.scrub_last_full_pass.get(), 0.0);
}
