//! Targets over whole data directories: the WAL's walk as `log verify` does it, and a start of the log.
//!
//! Owns what must hold whatever was damaged: no panic, no end without words, no wrong bytes, no silence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use keelson_log::disk::{Disk, Durability, OpenMode, SimDisk, SimFaults};
use keelson_log::fuzz::{self, ByHand};
use keelson_log::verify::Report;
use keelson_log::{LogMetrics, Partition, PartitionId, ReadError, ReadOutcome, ReadRequest};
use keelson_protocol::BatchHeader;

use crate::mangle::{
    DATA_DIR, Done, Files, mangle, newest_witness, open_partitions, options, template,
};

/// Where the base offset and the leader epoch stand in a batch: its own checksum covers neither.
const BASE_OFFSET: std::ops::Range<usize> = 0..8;
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// Far more than is needed, far less than a forged length claims: a simulated disk has no holes in its files.
const VOLUME_BYTES: u64 = 16 * 1024 * 1024;

fn disk_of(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.set_faults(SimFaults {
        capacity_bytes: Some(VOLUME_BYTES),
        ..SimFaults::default()
    });
    let root = Path::new(DATA_DIR);
    let mut made = "";
    for (name, bytes) in files {
        let folder = name.rsplit_once('/').map_or(".", |(folder, _)| folder);
        if folder != made {
            let created = disk.create_dir_all(&root.join(folder));
            created.expect("a healthy disk");
            made = folder;
        }
        let path = root.join(name);
        let file = disk.open(&path, OpenMode::Create).expect("a healthy disk");
        file.write_at(bytes, 0, Durability::Later)
            .expect("a healthy disk");
    }
    disk
}

/// The WAL of a mangled directory.
pub(crate) fn wal_scan(input: &[u8]) {
    let mut files: Files = template()
        .files
        .iter()
        .filter(|(name, _)| name.starts_with("wal/"))
        .map(|(name, bytes)| (name.clone(), Arc::clone(bytes)))
        .collect();
    mangle(&mut files, input, |_| true);
    let disk: Arc<dyn Disk> = Arc::new(disk_of(&files));
    if let Err(reason) = fuzz::scan_wal(disk, Path::new(DATA_DIR)) {
        assert!(!reason.is_empty(), "a refusal has words");
    }
}

/// What a start gave.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    /// Batches by partition and base offset.
    served: BTreeMap<(PartitionId, i64), Vec<u8>>,
    /// Ranges that answer with an error.
    lost: Vec<(PartitionId, i64, i64)>,
    /// Damage was counted, or a torn tail.
    told: bool,
}

/// A start on a mangled directory, and everything read. Every second input lets the flusher do its work before the process
/// is killed, so that the second start finds in segments what the first one found in the WAL.
pub(crate) fn recovery(input: &[u8]) {
    let mut files = template().files.clone();
    let done = mangle(&mut files, input, |name| name != "LOCK");
    let disk = disk_of(&files);
    let report = verified(&disk);
    let settles = !input.len().is_multiple_of(2);
    let Some(first) = opened(&disk, done, settles) else {
        return;
    };
    if !done.forged {
        no_wrong_bytes_and_no_silence(&first, done, newest_witness(&files));
        if report.is_some_and(|report| report.problems == 0) {
            assert_eq!(first.lost, [], "log verify found nothing");
        }
    }
    disk.kill();
    let Some(second) = opened(&disk, done, true) else {
        // Lengths that no disk makes can fill the volume between the two.
        assert!(done.forged, "what started once starts again");
        return;
    };
    if !done.forged {
        assert_eq!(first.served, second.served, "a second start gives the same");
        assert_eq!(first.lost, second.lost, "a second start gives the same");
    }
}

fn verified(disk: &SimDisk) -> Option<Report> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    fuzz::verify_on(shared, Path::new(DATA_DIR), &mut std::io::sink()).ok()
}

/// Hundreds of series: made once, for all runs.
fn metrics() -> Arc<LogMetrics> {
    static METRICS: OnceLock<Arc<LogMetrics>> = OnceLock::new();
    Arc::clone(METRICS.get_or_init(|| Arc::new(LogMetrics::unregistered())))
}

fn told(metrics: &LogMetrics) -> u64 {
    metrics.decode_errors_total() + metrics.torn_tail_truncations.get()
}

/// `None`: refused, in words.
fn opened(disk: &SimDisk, done: Done, settles: bool) -> Option<Opened> {
    let metrics = metrics();
    let before = told(&metrics);
    let mut log = match ByHand::open(disk, options(), &metrics) {
        Ok(log) => log,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal has words");
            return None;
        }
    };
    let mut opened = Opened {
        served: BTreeMap::new(),
        lost: Vec::new(),
        told: false,
    };
    for partition in open_partitions(log.log()) {
        read_all(&partition, &mut opened, done);
    }
    opened.told = told(&metrics) > before;
    if settles && let Err(reason) = log.settle() {
        assert!(done.forged, "damage must not end the process: {reason}");
    }
    Some(opened)
}

fn read_all(partition: &Partition, opened: &mut Opened, done: Done) {
    let id = partition.id();
    let mut from = partition.log_start();
    while from < partition.durable_offset() {
        let request = ReadRequest {
            from,
            up_to: i64::MAX,
            max_bytes: 1,
            min_one: true,
            tail_only: false,
        };
        let next = match partition.read(request) {
            Ok(ReadOutcome::Data { chunks, next, .. }) => {
                let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
                let header = BatchHeader::parse(&bytes).expect("what is served is a batch");
                opened.served.insert((id, header.base_offset), bytes);
                next
            }
            Ok(ReadOutcome::NeedsDisk) => panic!("not asked for"),
            Err(ReadError::Corrupt { range }) => {
                match opened.lost.last_mut() {
                    // Where one range ends and the next begins may be told in another way.
                    Some(last) if last.0 == id && last.2.checked_add(1) == Some(range.from) => {
                        last.2 = range.to
                    }
                    _ => opened.lost.push((id, range.from, range.to)),
                }
                range.to.saturating_add(1)
            }
            Err(error) if done.forged => {
                assert!(!error.to_string().is_empty(), "an error has words");
                return;
            }
            Err(error) => panic!("{id} at {from}: {error}"),
        };
        // Forged manifests may claim 2^63 offsets; reading one range of them is enough.
        assert!(next > from, "{id}: a read at {from} must move on");
        from = next;
    }
}

/// Whether batches differ at most in something.
fn same_but_for(range: std::ops::Range<usize>, known: &[u8], bytes: &[u8]) -> bool {
    let without = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[range.clone()].fill(0);
        bytes
    };
    without(known) == without(bytes)
}

/// `witness` is the newest commit group that is as it was written.
fn no_wrong_bytes_and_no_silence(opened: &Opened, done: Done, witness: u64) {
    let known = &template().batches;
    for ((id, base), bytes) in &opened.served {
        let batch = known
            .iter()
            .find(|known| known.partition == *id && known.base_offset == *base);
        // Where a manifest and the extent's checksum are lost together, and told, nothing is left that covers the leader
        // epoch: the broker stamps it.
        let same = batch.is_some_and(|batch| {
            batch.bytes == *bytes || opened.told && same_but_for(LEADER_EPOCH, &batch.bytes, bytes)
        });
        // Something of another place over a part of an extent, or while the extent's checksum was lost, too: no batch says
        // whose it is. Its offset may be another after a second damage.
        let misplaced = || {
            let mut others = known.iter();
            others.any(|other| same_but_for(BASE_OFFSET, &other.bytes, bytes))
        };
        let is_double_fault = done.moved && opened.told && misplaced();
        assert!(
            same || is_double_fault,
            "{id}: other bytes at {base} than were written there"
        );
    }
    for batch in known {
        let (id, base) = (batch.partition, batch.base_offset);
        let answered = opened.served.contains_key(&(id, base))
            || opened
                .lost
                .iter()
                .any(|(lost, from, to)| *lost == id && *from <= base && batch.last_offset <= *to);
        // Below the log start, which the template moved to 4.
        let deleted = id == known[0].partition && batch.last_offset < 4;
        // Outside the promise (docs/log-format.md): a group that the disk lost together with all its witnesses.
        let untestified = batch.group.is_some_and(|group| group > witness);
        assert!(
            answered || deleted || untestified || opened.told || done.moved,
            "{id}: {base} is gone, and nobody was told"
        );
    }
}
