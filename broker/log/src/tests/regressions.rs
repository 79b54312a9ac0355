//! Failures that logs of this kind have really had, each caught by a test named after its row in `tests/REGRESSIONS.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_protocol::batch::{BATCH_PREFIX_BYTES, patch_offset_and_epoch};
use keelson_protocol::builder::BatchBuilder;

use super::support::{
    Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read,
    read_everything, stored, wait_durable, wait_until,
};
use crate::disk::{Disk, RealDisk, SimDisk};
use crate::{Entry, Options, Partition, PartitionConfig, PartitionId, ReadOutcome, ReadRequest};

const DIR: &str = "/data";

/// A disk, a log on it, and what its partitions must hold.
struct Run {
    sim: SimDisk,
    disk: Arc<dyn Disk>,
    opened: Option<Opened>,
    expected: BTreeMap<PartitionId, Vec<(i64, Vec<u8>)>>,
}

/// Nothing is flushed before it is asked for.
fn lazy() -> Options {
    Options {
        flush_after: Duration::from_secs(3600),
        flush_pending_bytes: 64 << 20,
        ..options(Path::new(DIR))
    }
}

impl Run {
    fn new() -> Self {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let opened = Some(open_log(&disk, lazy()).unwrap());
        Run {
            sim,
            disk,
            opened,
            expected: BTreeMap::new(),
        }
    }

    fn log(&self) -> &Opened {
        self.opened.as_ref().unwrap()
    }

    fn partition(&self, id: PartitionId) -> Arc<Partition> {
        open_partition(&self.log().log, id, PartitionConfig::default())
    }

    fn put(&mut self, id: PartitionId, bytes: &Bytes) -> i64 {
        let partition = self.partition(id);
        let appended = append(&partition, bytes).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
        let kept = (appended.base_offset, stored(bytes, appended.base_offset));
        self.expected.entry(id).or_default().push(kept);
        appended.base_offset
    }

    #[track_caller]
    fn check(&self, when: &str) {
        for (id, expected) in &self.expected {
            let partition = self.partition(*id);
            for max_bytes in [1, 100, 1 << 20] {
                let (found, lost) = read_everything(&partition, max_bytes);
                assert_eq!(lost, [], "{id} {when}");
                assert_eq!(found.len(), expected.len(), "{id} {when}: batches");
                assert!(found == *expected, "{id} {when}: other bytes");
            }
        }
    }

    /// From memory, from the WAL after a kill, and from segments after a stop.
    #[track_caller]
    fn check_every_way(&mut self) {
        self.check("from memory");
        self.opened = None;
        self.sim.kill();
        self.opened = Some(open_log(&self.disk, lazy()).unwrap());
        self.check("after replay");
        self.log().log.shutdown();
        self.opened = None;
        self.opened = Some(open_log(&self.disk, lazy()).unwrap());
        self.check("from segments");
        for id in self.expected.keys() {
            let tail = self.partition(*id).state.lock().tail.first_position();
            assert_eq!(tail, None, "{id} is read from segments alone");
        }
    }
}

/// What real clients wrote, one batch per codec.
fn golden() -> Vec<Bytes> {
    let unhex = |text: &str| -> Bytes {
        let digits = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        (0..text.len() / 2).map(digits).collect()
    };
    include_str!("../../../protocol/golden/kafka-python.hex")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| unhex(line.split_once(' ').unwrap().1))
        .collect()
}

#[test]
fn a3_the_smallest_batches_all_come_back() {
    let mut run = Run::new();
    for _ in 0..10 {
        // No key, no value: seven bytes behind the header.
        let mut builder = BatchBuilder::new(0);
        builder.push(None, None);
        let bytes = builder.build();
        assert_eq!(bytes.len(), 68);
        run.put(partition_id(1, 0), &bytes);
    }
    run.check_every_way();
}

#[test]
fn a7_every_way_to_read_gives_the_same_bytes() {
    let mut run = Run::new();
    let mut rng = Rng::new(7);
    for number in 0..60 {
        let bytes = batch(&mut rng, 1_000 + number, 1 + rng_records(number), 90);
        run.put(partition_id(1 + (number % 2) as u8, 0), &bytes);
    }
    run.check_every_way();
}

fn rng_records(number: i64) -> u64 {
    number.unsigned_abs() % 5
}

#[test]
fn a9_a_segment_is_the_batches_and_nothing_else() {
    let mut run = Run::new();
    let id = partition_id(1, 0);
    let mut rng = Rng::new(9);
    for _ in 0..20 {
        run.put(id, &batch(&mut rng, 1_000, 2, 50));
    }
    run.log().log.shutdown();
    let in_files: Vec<u8> = segments(&run.sim, id)
        .iter()
        .flat_map(|path| run.sim.contents(path).unwrap())
        .collect();
    let written = run.expected[&id]
        .iter()
        .flat_map(|(_, bytes)| bytes.clone());
    assert!(in_files == written.collect::<Vec<u8>>());
}

fn segments(sim: &SimDisk, id: PartitionId) -> Vec<PathBuf> {
    let folder = Path::new(DIR).join(format!("p/{}/{}", id.topic, id.index));
    let mut found = sim.files(&folder);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found
}

#[test]
fn a10_the_base_offset_of_the_client_is_not_believed() {
    let mut run = Run::new();
    let id = partition_id(1, 0);
    let mut rng = Rng::new(10);
    for (claimed, assigned) in [(999, 0), (0, 2), (-5, 4), (i64::MAX - 1, 6)] {
        let mut bytes = batch(&mut rng, 1_000, 2, 10).to_vec();
        patch_offset_and_epoch(&mut bytes, claimed, 77);
        assert_eq!(run.put(id, &bytes.into()), assigned);
    }
    run.check_every_way();
}

#[test]
fn a14_every_partition_has_segments_of_its_own() {
    let mut run = Run::new();
    let mut rng = Rng::new(14);
    for index in 0..4 {
        for _ in 0..3 {
            run.put(partition_id(1, index), &batch(&mut rng, 1_000, 1, 40));
        }
    }
    run.check_every_way();
    for index in 0..4 {
        let files = segments(&run.sim, partition_id(1, index));
        let bytes: usize = files
            .iter()
            .map(|file| run.sim.contents(file).unwrap().len())
            .sum();
        assert!(bytes > 0, "partition {index} is in segments");
    }
}

#[test]
fn a17_a_start_holds_no_more_than_the_tail_may() {
    let sim = SimDisk::new(17);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    // The WAL is so large that it asks for no flush either.
    let large = Options {
        wal_file_bytes: Some(1 << 20),
        wal_bytes_max: Some(4 << 20),
        ..lazy()
    };
    let opened = open_log(&disk, large.clone()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    let mut rng = Rng::new(17);
    let mut written = Vec::new();
    for _ in 0..120 {
        let bytes = batch(&mut rng, 1_000, 1, 4_000);
        let appended = append(&partition, &bytes).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
        written.push((appended.base_offset, stored(&bytes, appended.base_offset)));
    }
    let before = opened.log.tail_budget().used_bytes();
    assert!(before > 400_000, "{before} bytes wait for their segment");
    drop((partition, opened));
    sim.kill();
    let small = Options {
        tail_bytes_max: 128 * 1024,
        ..large
    };
    let opened = open_log(&disk, small).unwrap();
    let budget = opened.log.tail_budget();
    assert!(
        budget.used_bytes() <= budget.bytes_max(),
        "{} of {} bytes are held after replay",
        budget.used_bytes(),
        budget.bytes_max()
    );
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    assert!(read_everything(&partition, 1 << 20) == (written, vec![]));
}

#[test]
fn b5_compressed_batches_come_back_byte_for_byte() {
    let mut run = Run::new();
    let id = partition_id(1, 0);
    let sent = golden();
    assert_eq!(sent.len(), 5, "a batch per codec");
    for bytes in &sent {
        run.put(id, bytes);
    }
    run.check_every_way();
    let (found, _) = read_everything(&run.partition(id), 1 << 20);
    for (sent, (_, found)) in sent.iter().zip(&found) {
        assert_eq!(sent[BATCH_PREFIX_BYTES..], found[BATCH_PREFIX_BYTES..]);
        assert_eq!(sent[8..12], found[8..12], "the length is the producer's");
    }
}

#[test]
fn c6_appending_leaves_the_log_start_where_it_is() {
    let mut run = Run::new();
    let id = partition_id(1, 0);
    let mut rng = Rng::new(6);
    for _ in 0..6 {
        run.put(id, &batch(&mut rng, 1_000, 1, 30));
    }
    let entry = Entry::LogStart {
        partition: id,
        offset: 4,
    };
    run.log().log.commit(vec![entry], Box::new(|| ())).unwrap();
    let partition = run.partition(id);
    wait_until("the log start moves", || partition.log_start() == 4);
    drop(partition);
    run.expected.get_mut(&id).unwrap().drain(..4);
    for _ in 0..3 {
        run.put(id, &batch(&mut rng, 1_000, 1, 30));
        assert_eq!(run.partition(id).log_start(), 4, "after an append");
    }
    run.check_every_way();
    assert_eq!(run.partition(id).log_start(), 4, "after restarts");
}

#[test]
fn i10_a_small_read_reads_little_of_a_large_segment() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    // A flush takes what its memory bound allows, and nothing earlier: extents of many batches.
    let large_extents = || Options {
        wal_file_bytes: Some(4 << 20),
        wal_bytes_max: Some(16 << 20),
        flush_after: Duration::from_secs(3600),
        flush_pending_bytes: 256 << 10,
        ..options(dir.path())
    };
    let opened = open_log(&disk, large_extents()).unwrap();
    let id = partition_id(1, 0);
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    let mut rng = Rng::new(10);
    let mut last = 0;
    for _ in 0..512 {
        last = append(&partition, &batch(&mut rng, 1_000, 1, 8_000))
            .unwrap()
            .last_offset;
        wait_durable(&partition, last + 1);
    }
    opened.log.shutdown();
    drop((partition, opened));
    let opened = open_log(&disk, large_extents()).unwrap();
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    let before = bytes_read_by_this_thread();
    let (bytes, _) = read(&partition, last / 2, 1_000).unwrap();
    let read = bytes_read_by_this_thread() - before;
    assert!(bytes.len() >= 8_000, "one batch");
    assert!(
        (8_000..1 << 20).contains(&read),
        "{read} bytes were read for one batch of a segment of 4 MB"
    );
    let chunks = |max_bytes| {
        let request = ReadRequest {
            from: last / 2,
            up_to: i64::MAX,
            max_bytes,
            min_one: true,
            tail_only: false,
        };
        match partition.read(request) {
            Ok(ReadOutcome::Data { chunks, .. }) => chunks,
            other => panic!("{other:?}"),
        }
    };
    let [small] = chunks(1_000).try_into().expect("one batch");
    assert!(small.is_unique(), "it does not hold the extent around it");
    let is_slice = |chunk: &Bytes| !chunk.is_unique();
    assert!(
        chunks(1 << 20).iter().any(is_slice),
        "a large one is no copy"
    );
}

fn bytes_read_by_this_thread() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_missing_segment_file_is_told_and_appending_goes_on() {
    let mut run = Run::new();
    let id = partition_id(1, 0);
    let mut rng = Rng::new(1);
    for _ in 0..5 {
        run.put(id, &batch(&mut rng, 1_000, 1, 40));
    }
    run.log().log.shutdown();
    run.opened = None;
    for file in segments(&run.sim, id) {
        run.disk.unlink(&file).unwrap();
    }
    for life in 0..3 {
        run.opened = Some(open_log(&run.disk, lazy()).unwrap());
        let partition = run.partition(id);
        let (found, lost) = read_everything(&partition, 1 << 20);
        assert_eq!(lost, [(0, 4)], "life {life}");
        assert_eq!(found.len(), life, "life {life}");
        drop(partition);
        run.put(id, &batch(&mut rng, 1_000, 1, 40));
        // Goes into the segment whose file was gone.
        run.log().log.shutdown();
        assert_eq!(*run.log().fatal.0.lock(), None, "life {life}");
        run.opened = None;
    }
}
