//! What the tests of the whole log share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_protocol::batch::{BatchHeader, patch_offset_and_epoch};
use keelson_protocol::builder::BatchBuilder;
use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, SimDisk};
use crate::metrics::LogMetrics;
use crate::offline::Directory;
use crate::stepped::Fatal;
use crate::verify::verify_directory;
use crate::wal::{Recovered, RecoveredGroup};
use crate::{
    AppendError, Appended, CompactionPace, Hooks, Log, Observer, OpenError, Options, Partition,
    PartitionConfig, PartitionId, ProducedBatch, ReadError, ReadOutcome, ReadRequest, TopicId,
    open_on,
};

/// How long anything may take before a test fails.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Leader epoch of all test batches.
pub(super) const EPOCH: i32 = 3;

/// A small generator with a printable seed (xorshift64*).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Remembers how far the log is durable.
#[derive(Default)]
pub(super) struct Watch {
    durable: Mutex<i64>,
    moved: Condvar,
}

impl Observer for Watch {
    fn durable(&self, durable_offset: i64) {
        *self.durable.lock() = durable_offset;
        self.moved.notify_all();
    }

    fn log_start(&self, _: i64) {
        self.moved.notify_all();
    }
}

impl Watch {
    /// Waits until `done` holds; false when the deadline passes first.
    pub(super) fn wait(&self, done: impl Fn() -> bool) -> bool {
        let end = Instant::now() + DEADLINE;
        let mut durable = self.durable.lock();
        while !done() {
            // The condition may also change without a call of the observer: look again now and then.
            self.moved.wait_for(&mut durable, Duration::from_millis(1));
            if Instant::now() > end {
                return false;
            }
        }
        true
    }
}

/// Waits until `done` holds.
pub(super) fn wait_until(what: &str, done: impl Fn() -> bool) {
    assert!(
        Watch::default().wait(done),
        "did not happen in time: {what}"
    );
}

/// An open log of a test.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) metrics: Arc<LogMetrics>,
    pub(super) fatal: Arc<Fatal>,
}

/// Small sizes, so that rolls, passes and recycling happen with little data.
pub(super) fn options(dir: &Path) -> Options {
    Options {
        wal_file_bytes: Some(256 * 1024),
        wal_bytes_max: Some(1024 * 1024),
        tail_bytes_max: 8 * 1024 * 1024,
        flush_pending_bytes: 16 * 1024,
        seal_after: Duration::from_millis(2),
        flush_after: Duration::from_millis(20),
        wal_background: false,
        disk_reserve_bytes: Some(0),
        scrub_bytes_per_second: 0,
        compaction: CompactionPace {
            pause: Duration::ZERO,
            ..CompactionPace::default()
        },
        read_back_groups: 0,
        ..Options::new(dir)
    }
}

pub(super) fn open_log(disk: &Arc<dyn Disk>, options: Options) -> Result<Opened, OpenError> {
    let metrics = Arc::new(LogMetrics::unregistered());
    let fatal = Arc::new(Fatal::default());
    let hooks: Arc<dyn Hooks> = Arc::clone(&fatal) as Arc<dyn Hooks>;
    let log = open_on(Arc::clone(disk), options, Arc::clone(&metrics), hooks)?;
    Ok(Opened {
        log,
        metrics,
        fatal,
    })
}

pub(super) fn partition_id(topic: u8, index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([topic; 16]),
        index,
    }
}

pub(super) fn open_partition(
    log: &Log,
    id: PartitionId,
    config: PartitionConfig,
) -> Arc<Partition> {
    log.open_partition(id, config, Arc::new(Watch::default()))
}

/// A batch with recognisable content.
pub(super) fn batch(rng: &mut Rng, timestamp: i64, records: u64, value_bytes: u64) -> Bytes {
    let mut builder = BatchBuilder::new(timestamp);
    for _ in 0..records {
        let value: Vec<u8> = (0..value_bytes).map(|_| rng.next() as u8).collect();
        builder.push(None, Some(&value));
    }
    builder.build()
}

/// The batch as it must be read back.
pub(super) fn stored(batch: &Bytes, base_offset: i64) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    patch_offset_and_epoch(&mut bytes, base_offset, EPOCH);
    bytes
}

pub(super) fn append(partition: &Partition, bytes: &Bytes) -> Result<Appended, AppendError> {
    append_in(partition, bytes, EPOCH)
}

/// The same in a leader epoch of the caller's.
pub(super) fn append_in(
    partition: &Partition,
    bytes: &Bytes,
    epoch: i32,
) -> Result<Appended, AppendError> {
    let header = BatchHeader::parse(bytes).unwrap();
    partition.append(
        ProducedBatch {
            bytes: bytes.clone(),
            header,
            pin: None,
        },
        epoch,
    )
}

pub(super) fn wait_durable(partition: &Partition, offset: i64) {
    wait_until("durable", || partition.durable_offset() >= offset);
}

/// One read: bytes and next offset.
pub(super) fn read(
    partition: &Partition,
    from: i64,
    max_bytes: u64,
) -> Result<(Vec<u8>, i64), ReadError> {
    let request = ReadRequest {
        from,
        up_to: i64::MAX,
        max_bytes,
        min_one: true,
        tail_only: false,
    };
    match partition.read(request)? {
        ReadOutcome::Data {
            chunks,
            bytes,
            next,
            ..
        } => {
            let joined: Vec<u8> = chunks.iter().flat_map(|c| c.iter().copied()).collect();
            assert_eq!(joined.len() as u64, bytes);
            Ok((joined, next))
        }
        ReadOutcome::NeedsDisk => panic!("not asked for"),
    }
}

/// Everything readable from the log start on, as (base offset, bytes), and the ranges that are not.
pub(super) type Everything = (Vec<(i64, Vec<u8>)>, Vec<(i64, i64)>);

pub(super) fn read_everything(partition: &Partition, max_bytes: u64) -> Everything {
    let (mut batches, mut lost) = (Vec::new(), Vec::new());
    let mut from = partition.log_start();
    while from < partition.durable_offset() {
        match read(partition, from, max_bytes) {
            Ok((bytes, next)) => {
                assert!(
                    next > from,
                    "an empty answer at {from} below {}",
                    partition.durable_offset()
                );
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let header = BatchHeader::parse(rest).unwrap();
                    let (batch, behind) = rest.split_at(header.size());
                    batches.push((header.base_offset, batch.to_vec()));
                    rest = behind;
                }
                from = next;
            }
            Err(ReadError::Corrupt { range }) => {
                assert!(
                    range.from <= from && range.to >= from,
                    "{range:?} at {from}"
                );
                lost.push((range.from, range.to));
                from = range.to + 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (batches, lost)
}

fn directory(disk: &SimDisk) -> Directory {
    Directory::open_on(Arc::new(disk.clone()), Path::new("/data")).unwrap()
}

/// Where the groups of the WAL lie, on a disk that no process uses.
pub(super) fn groups(disk: &SimDisk) -> Vec<RecoveredGroup> {
    let mut steps = directory(disk).wal().unwrap();
    let mut groups = Vec::new();
    while let Some(step) = steps.next().unwrap() {
        if let Recovered::Group(group) = step {
            groups.push(group);
        }
    }
    groups
}

/// What `log verify` says: problems and its lines.
pub(super) fn verify(disk: &SimDisk) -> (u64, String) {
    let mut out = Vec::new();
    let report = verify_directory(&directory(disk), &|_| None, &mut out).unwrap();
    (report.problems, String::from_utf8(out).unwrap())
}
