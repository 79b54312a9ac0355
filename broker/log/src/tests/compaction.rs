//! Compaction: the newest record of each key stays at its offset, reads lead on everywhere, and whatever comes in between,
//! nothing that counted before is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_protocol::batch::BatchHeader;
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::control::EndMarker;
use keelson_protocol::records::{RecordWalker, decompressed};

use super::support::{
    Opened, Rng, append, open_log, open_partition, options, partition_id, read_everything,
    wait_durable,
};
use crate::disk::{Astray, Disk, SimDisk, SimFaults};
use crate::metrics::HealthState;
use crate::partition::pass::Pass;
use crate::partition::rewrite::Stopped;
use crate::verify::verify_directory;
use crate::{
    CompactionConfig, CompactionPace, Options, Partition, PartitionConfig, PartitionId, ReadError,
};

const DIR: &str = "/data";
/// When everything is written.
const NOW_MS: i64 = 1_000_000;
const DELETE_RETENTION_MS: i64 = 500;

fn id() -> PartitionId {
    partition_id(1, 0)
}

/// Small segments, compacted whenever there is anything new.
fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 2_000,
        retention_ms: -1,
        compaction: Some(Arc::new(CompactionConfig {
            min_cleanable_dirty_ratio: 0.0,
            delete_retention_ms: DELETE_RETENTION_MS,
            ..CompactionConfig::default()
        })),
        ..PartitionConfig::default()
    }
}

/// Flushed by the tests alone.
fn by_hand() -> Options {
    Options {
        flush_after: Duration::from_secs(3600),
        flush_pending_bytes: u64::MAX,
        seal_after: Duration::from_secs(3600),
        ..options(Path::new(DIR))
    }
}

/// A record as a consumer sees it: its key and, unless it is a tombstone, its value.
type Seen = (Vec<u8>, Option<Vec<u8>>);
/// What a consumer that reads everything has in the end, with the offset of each.
type State = BTreeMap<Vec<u8>, (i64, Vec<u8>)>;

/// A log with one partition, and what it must hold.
struct Fixture {
    disk: SimDisk,
    opened: Opened,
    partition: Arc<Partition>,
    rng: Rng,
    /// Every acknowledged record, by offset.
    sent: BTreeMap<i64, Seen>,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (opened, partition) = open(&disk).unwrap();
        Fixture {
            disk,
            opened,
            partition,
            rng: Rng::new(seed),
            sent: BTreeMap::new(),
        }
    }

    /// Appends batches of one to four records with keys below `keys`; a tenth are tombstones. Then all is in segments.
    fn fill(&mut self, batches: u64, keys: u64) {
        for _ in 0..batches {
            let mut records = Vec::new();
            for _ in 0..1 + self.rng.below(4) {
                let key = format!("key {}", self.rng.below(keys)).into_bytes();
                let value = format!("value {:016x}", self.rng.next()).into_bytes();
                records.push((key, (self.rng.below(10) > 0).then_some(value)));
            }
            self.send(&records);
        }
        self.flush();
    }

    fn send(&mut self, records: &[Seen]) {
        let mut builder = BatchBuilder::new(NOW_MS);
        for (key, value) in records {
            builder.push(Some(key), value.as_deref());
        }
        self.send_batch(&builder.build(), records);
    }

    fn send_batch(&mut self, batch: &Bytes, records: &[Seen]) {
        let appended = append(&self.partition, batch).unwrap();
        wait_durable(&self.partition, appended.last_offset + 1);
        for (offset, record) in (appended.base_offset..).zip(records) {
            self.sent.insert(offset, record.clone());
        }
    }

    fn flush(&self) {
        while self.partition.flush_pass().unwrap() == Pass::More {}
    }

    fn compact(&self, now_ms: i64) -> Result<(), Stopped> {
        self.partition.compact(now_ms, &mut |_| false)
    }

    /// The log is killed and opened again.
    fn restart(mut self) -> Self {
        let Fixture {
            opened, partition, ..
        } = self;
        drop((opened, partition));
        self.disk.kill();
        (self.opened, self.partition) = open(&self.disk).unwrap();
        self
    }

    fn segments(&self) -> Vec<crate::partition::format::SegmentEntry> {
        self.partition.state.lock().slots.manifest.segments.clone()
    }

    fn names(&self) -> Vec<String> {
        let files = self.disk.files(&Path::new(DIR).join("p"));
        let name = |file: &Path| file.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<String> = files.iter().map(|file| name(file)).collect();
        names.retain(|name| name.ends_with(".log"));
        names
    }

    /// The state that all sent records give.
    fn wanted(&self) -> State {
        state_of(self.sent.iter().map(|(o, s)| (*o, s.clone())))
    }

    /// Reads everything, checks that nothing is wrong, and gives the records.
    fn read(&self) -> BTreeMap<i64, Seen> {
        let found = records(&self.partition);
        assert_eq!(self.opened.metrics.decode_errors_total(), 0);
        assert_eq!(self.opened.log.health().states, [HealthState::Ok]);
        for (offset, record) in &found {
            assert_eq!(self.sent.get(offset), Some(record), "at {offset}");
        }
        found
    }

    fn verify(&self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let directory = crate::offline::Directory::open_on(disk, Path::new(DIR)).unwrap();
        let mut out = Vec::new();
        let report = verify_directory(&directory, &|_| None, &mut out).unwrap();
        assert_eq!(report.problems, 0, "{}", String::from_utf8_lossy(&out));
    }
}

fn open(disk: &SimDisk) -> Result<(Opened, Arc<Partition>), String> {
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open_log(&dyn_disk, by_hand()).map_err(|e| e.to_string())?;
    let partition = open_partition(&opened.log, id(), config());
    Ok((opened, partition))
}

fn state_of(records: impl Iterator<Item = (i64, Seen)>) -> State {
    let mut state = State::new();
    for (offset, (key, value)) in records {
        match value {
            Some(value) => state.insert(key, (offset, value)),
            None => state.remove(&key),
        };
    }
    state
}

/// Every record of a partition by offset; batches go on without a gap.
fn records(partition: &Partition) -> BTreeMap<i64, Seen> {
    let (batches, lost) = read_everything(partition, 1 << 16);
    assert_eq!(lost, []);
    let mut next = partition.log_start();
    let mut found = BTreeMap::new();
    for (base, bytes) in batches {
        let header = BatchHeader::parse(&bytes).unwrap();
        assert!(base <= next && header.last_offset() >= next, "at {next}");
        next = header.last_offset() + 1;
        let plain = decompressed(&bytes, 1 << 20).unwrap();
        for record in RecordWalker::new(&plain, header.records_count) {
            let record = record.unwrap();
            let seen = (
                record.key.unwrap().to_vec(),
                record.value.map(<[u8]>::to_vec),
            );
            found.insert(base + i64::from(record.offset_delta), seen);
        }
    }
    assert_eq!(next, partition.durable_offset());
    found
}

/// Offsets that are in closed segments and out of date: a later record in a closed segment has their key.
fn outdated(sent: &BTreeMap<i64, Seen>, end: i64) -> Vec<i64> {
    let closed = sent.range(..end);
    let newest: BTreeMap<&[u8], i64> = closed.clone().map(|(o, (key, _))| (&key[..], *o)).collect();
    closed
        .filter(|(offset, (key, _))| newest[&key[..]] > **offset)
        .map(|(offset, _)| *offset)
        .collect()
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset_and_every_read_leads_on() {
    for seed in 1..=5 {
        let mut fixture = Fixture::new(seed);
        fixture.fill(120, 12);
        let before = fixture.partition.size_bytes();
        let active = fixture.segments().last().unwrap().base_offset;
        fixture.compact(NOW_MS).unwrap();
        let mut wanted = fixture.sent.clone();
        for offset in outdated(&fixture.sent, active) {
            wanted.remove(&offset);
        }
        assert!(fixture.read() == wanted, "seed {seed}");
        assert!(fixture.partition.size_bytes() < before / 2);
        let segments = fixture.segments();
        assert!(
            segments
                .iter()
                .rev()
                .skip(1)
                .all(|s| s.cleaned && s.generation == 1)
        );
        assert_eq!(fixture.names().len(), segments.len());
        // What is clean is left alone.
        assert_eq!(fixture.partition.dirty_ratio(NOW_MS), None);
        // A client may ask for any offset.
        for offset in 0..fixture.partition.durable_offset() {
            let (_, next) = super::support::read(&fixture.partition, offset, 1).unwrap();
            assert!(next > offset);
        }
        let fixture = fixture.restart();
        assert!(fixture.read() == wanted);
        fixture.verify();
        // And again, with more on top.
        let mut fixture = fixture;
        fixture.fill(60, 20);
        let active = fixture.segments().last().unwrap().base_offset;
        fixture.compact(NOW_MS).unwrap();
        let mut wanted = fixture.sent.clone();
        for offset in outdated(&fixture.sent, active) {
            wanted.remove(&offset);
        }
        let fixture = fixture.restart();
        assert!(fixture.read() == wanted);
        assert_eq!(state_of(fixture.read().into_iter()), fixture.wanted());
        fixture.verify();
    }
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let mut fixture = Fixture::new(6);
    let key = |n: u8| vec![b'k', n];
    fixture.send(&[
        (key(1), Some(b"old".to_vec())),
        (key(2), Some(b"stays".to_vec())),
    ]);
    fixture.send(&[(key(1), None)]);
    for n in 10..60 {
        fixture.send(&[(key(n), Some(vec![n; 100]))]);
    }
    fixture.flush();
    fixture.compact(NOW_MS).unwrap();
    let found = fixture.read();
    assert_eq!((found.get(&0), found.contains_key(&1)), (None, true));
    assert_eq!(found.get(&2), Some(&(key(1), None)), "its time begins now");
    // Another pass, one millisecond before its time, and one when it has come.
    for (now_ms, is_there) in [(NOW_MS + 499, true), (NOW_MS + 500, false)] {
        for n in 100..140 {
            fixture.send(&[(key(n), Some(vec![n; 100]))]);
        }
        fixture.flush();
        fixture.compact(now_ms).unwrap();
        assert_eq!(fixture.read().contains_key(&2), is_there, "at {now_ms}");
    }
    let fixture = fixture.restart();
    assert_eq!(state_of(fixture.read().into_iter()), fixture.wanted());
    fixture.verify();
}

#[test]
fn more_keys_than_fit_into_memory_take_more_passes() {
    let mut fixture = Fixture::new(7);
    // The smallest map holds 1,024 keys.
    for round in 0..2 {
        for n in 0..1_500_u32 {
            let value = format!("{round} of {n}").into_bytes();
            fixture.send(&[(n.to_be_bytes().to_vec(), Some(value))]);
        }
    }
    fixture.flush();
    let disk: Arc<dyn Disk> = Arc::new(fixture.disk.clone());
    let Fixture {
        opened, partition, ..
    } = fixture;
    drop((opened, partition));
    let small = Options {
        compaction: CompactionPace {
            memory_bytes: 1,
            ..by_hand().compaction
        },
        ..by_hand()
    };
    let opened = open_log(&disk, small).unwrap();
    let partition = open_partition(&opened.log, id(), config());
    let active = partition.segment_bases().last().copied().unwrap();
    partition.compact(NOW_MS, &mut |_| false).unwrap();
    let mut wanted = fixture.sent.clone();
    for offset in outdated(&fixture.sent, active) {
        wanted.remove(&offset);
    }
    assert!(records(&partition) == wanted);
    assert_eq!(partition.dirty_ratio(NOW_MS), None);
}

#[test]
fn an_idempotent_producer_goes_on_though_nothing_of_its_records_is_left() {
    let mut fixture = Fixture::new(8);
    let record = (b"k".to_vec(), Some(b"v".to_vec()));
    for sequence in 0..3 {
        let mut builder = BatchBuilder::new(NOW_MS).producer(77, 2, sequence);
        builder.push(Some(b"k"), Some(b"v"));
        fixture.send_batch(&builder.build(), std::slice::from_ref(&record));
    }
    fixture.fill(60, 3);
    fixture.send(&[record]);
    fixture.fill(60, 3);
    fixture.compact(NOW_MS).unwrap();
    let found = fixture.read();
    assert!((0..3).all(|offset| !found.contains_key(&offset)));
    // Both snapshots are lost: the sequence comes from the batch that was kept for it.
    for file in fixture.disk.files(&Path::new(DIR).join("p")) {
        if file.to_string_lossy().contains("producers.") {
            Disk::unlink(&fixture.disk, &file).unwrap();
        }
    }
    let producers = fixture.partition.producers().unwrap();
    assert_eq!(producers.last_offset(77), Some(2));
    let (bytes, _) = super::support::read(&fixture.partition, 2, 1).unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.base_offset, header.records_count), (2, 0));
    assert_eq!((header.producer_id, header.last_sequence()), (77, 2));
}

/// Runs a whole life with two compactions in it, until it is done or the disk fails; returns what was acknowledged, and
/// the operation at which the first compaction began if everything was done.
fn life(disk: &SimDisk, seed: u64) -> (BTreeMap<i64, Seen>, Option<u64>) {
    let mut began = None;
    let Ok((opened, partition)) = open(disk) else {
        return (BTreeMap::new(), None);
    };
    let mut fixture = Fixture {
        disk: disk.clone(),
        opened,
        partition,
        rng: Rng::new(seed),
        sent: BTreeMap::new(),
    };
    for batches in [28, 14] {
        for _ in 0..batches {
            let key = format!("key {}", fixture.rng.below(5)).into_bytes();
            let value = (fixture.rng.below(8) > 0).then(|| vec![7; 120]);
            let mut builder = BatchBuilder::new(NOW_MS);
            builder.push(Some(&key), value.as_deref());
            let failed = || fixture.opened.fatal.0.lock().is_some();
            let Ok(appended) = append(&fixture.partition, &builder.build()) else {
                return (fixture.sent, None);
            };
            super::support::wait_until("durable or failed", || {
                failed() || fixture.partition.durable_offset() > appended.last_offset
            });
            if fixture.partition.durable_offset() <= appended.last_offset {
                return (fixture.sent, None);
            }
            fixture.sent.insert(appended.base_offset, (key, value));
        }
        loop {
            match fixture.partition.flush_pass() {
                Ok(Pass::More) => {}
                Ok(Pass::Done | Pass::Idle) => break,
                Err(_) => return (fixture.sent, None),
            }
        }
        began.get_or_insert(disk.operations());
        if fixture.compact(NOW_MS).is_err() {
            return (fixture.sent, None);
        }
    }
    (fixture.sent, began)
}

/// Opens the disk twice and holds it against what was acknowledged.
fn check(disk: &SimDisk, sent: &BTreeMap<i64, Seen>, what: &str) {
    let mut before = None;
    for start in 0..2 {
        let (opened, partition) = open(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        let found = records(&partition);
        let errors = opened.metrics.decode_errors_total();
        assert_eq!(
            errors,
            0,
            "{what}, start {start}: {:?}",
            opened.log.health()
        );
        let end = sent.keys().last().map_or(0, |last| last + 1);
        assert!(partition.durable_offset() >= end, "{what}");
        let acknowledged = found.range(..end);
        for (offset, record) in acknowledged.clone() {
            assert_eq!(sent.get(offset), Some(record), "{what}: at {offset}");
        }
        let wanted = state_of(sent.iter().map(|(o, s)| (*o, s.clone())));
        let is = state_of(acknowledged.map(|(o, s)| (*o, s.clone())));
        assert!(is == wanted, "{what}, start {start}");
        assert!(before.is_none_or(|before| before == found), "{what}: twice");
        before = Some(found);
        drop((opened, partition));
        disk.kill();
    }
}

#[test]
fn a_power_cut_or_a_kill_at_any_operation_loses_no_newest_record() {
    for seed in 1..=2 {
        let whole = SimDisk::new(seed);
        let began = life(&whole, seed)
            .1
            .expect("without a fault everything works");
        let operations = whole.operations();
        let mut reached = 0;
        for at in began..=operations {
            let what = format!("seed {seed}, cut at {at} of {operations}");
            let disk = SimDisk::new(seed);
            disk.set_faults(SimFaults {
                cut_at: Some(at),
                ..SimFaults::default()
            });
            let (sent, _) = life(&disk, seed);
            reached += u64::from(sent.len() == 42);
            match at % 3 {
                0 => disk.kill(),
                _ => disk.power_cut(),
            }
            check(&disk, &sent, &what);
        }
        assert!(reached > 20, "{reached} cuts in the last compaction");
    }
}

#[test]
fn a_failed_sync_ends_the_process_and_loses_no_newest_record() {
    let seed = 3;
    let whole = SimDisk::new(seed);
    let began = life(&whole, seed).1.unwrap();
    for at in began..whole.operations() {
        let disk = SimDisk::new(seed);
        disk.set_faults(SimFaults {
            sync_fails_at: Some(at),
            ..SimFaults::default()
        });
        let (sent, _) = life(&disk, seed);
        // The cache that a kill leaves may hold what the sync did not bring to the medium.
        match at % 2 {
            0 => disk.kill(),
            _ => disk.power_cut(),
        }
        check(&disk, &sent, &format!("seed {seed}, sync {at} fails"));
    }
}

#[test]
fn what_does_not_read_back_is_thrown_away_and_told() {
    let seed = 4;
    let mut told = 0;
    let mut begun = Fixture::new(seed);
    begun.fill(60, 6);
    let from = begun.disk.operations();
    begun.compact(NOW_MS).unwrap();
    for at in from + 1..=begun.disk.operations() {
        let mut fixture = Fixture::new(seed);
        fixture.fill(60, 6);
        assert_eq!(fixture.disk.operations(), from);
        fixture.disk.set_faults(SimFaults {
            astray_at: Some((at, Astray::Lost)),
            ..SimFaults::default()
        });
        let result = fixture.compact(NOW_MS);
        let errors = fixture.opened.metrics.decode_errors_total();
        match result {
            Err(Stopped::ReadBack { file }) => {
                assert!(file.ends_with(".log"), "{file}");
                assert_eq!(errors, 1, "write {at} is lost");
                told += 1;
                assert!(fixture.segments().iter().any(|s| s.generation == 0));
            }
            // Of a manifest slot, which reads do not look at.
            result => assert!(result.is_ok() && errors == 0, "{at}: {result:?}"),
        }
        let found = records(&fixture.partition);
        assert!(state_of(found.into_iter()) == fixture.wanted(), "{at}");
    }
    assert!(told > 3, "{told} lost writes were noticed");
}

#[test]
fn a_partition_with_damage_is_left_alone_and_told() {
    let mut fixture = Fixture::new(9);
    fixture.fill(80, 8);
    let files = fixture.disk.files(&Path::new(DIR).join("p"));
    let logs: Vec<_> = files
        .iter()
        .filter(|f| f.to_string_lossy().ends_with(".log"))
        .collect();
    assert!(logs.len() > 3);
    fixture.disk.flip(logs[1], 300, 0x20);
    let fixture = fixture.restart();
    assert!(matches!(fixture.compact(NOW_MS), Err(Stopped::Damaged)));
    assert_eq!(fixture.opened.metrics.decode_errors_total(), 1);
    assert_eq!(fixture.partition.quarantined().len(), 1);
    // From now on it is not even tried.
    assert_eq!(fixture.partition.dirty_ratio(NOW_MS), None);
    assert!(fixture.segments().iter().all(|s| s.generation == 0));
    let range = &fixture.partition.quarantined()[0];
    let error = super::support::read(&fixture.partition, range.from, 1).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { .. }));
}

#[test]
fn both_manifest_slots_lost_beside_two_generations_lose_nothing() {
    let seed = 10;
    let mut begun = Fixture::new(seed);
    begun.fill(60, 6);
    let from = begun.disk.operations();
    begun.compact(NOW_MS).unwrap();
    let wanted = begun.wanted();
    let mut both = 0;
    for at in from + 1..=begun.disk.operations() {
        let mut fixture = Fixture::new(seed);
        fixture.fill(60, 6);
        fixture.disk.set_faults(SimFaults {
            cut_at: Some(at),
            ..SimFaults::default()
        });
        assert!(fixture.compact(NOW_MS).is_err());
        let Fixture {
            disk,
            opened,
            partition,
            ..
        } = fixture;
        drop((opened, partition));
        disk.kill();
        let files = disk.files(&Path::new(DIR).join("p"));
        both += usize::from(files.iter().any(|f| f.to_string_lossy().contains("-1.log")));
        let manifest = files.iter().find(|f| f.ends_with("manifest")).unwrap();
        for block in 0..2 {
            disk.flip(manifest, block * 4096 + 20, 0xff);
        }
        let (opened, partition) = open(&disk).unwrap();
        assert!(opened.metrics.decode_errors_total() > 0);
        let found = records(&partition);
        assert!(state_of(found.into_iter()) == wanted, "cut at {at}");
    }
    assert!(both > 5, "{both} cuts left two generations");
}

#[test]
fn what_happens_meanwhile_ends_it_without_harm() {
    type Happening = fn(&Fixture);
    let happenings: [(&str, Happening); 3] = [
        ("truncation", |f| {
            let to = f.segments()[2].base_offset;
            let done: Box<dyn FnOnce() + Send> = Box::new(|| {});
            f.opened.log.truncate(&f.partition, to, done).unwrap();
            super::support::wait_until("cut", || {
                f.flush();
                f.partition.durable_offset() == to
            });
        }),
        ("log start", |f| {
            let offset = f.segments()[2].base_offset + 1;
            let entry = crate::Entry::LogStart {
                partition: id(),
                offset,
            };
            f.opened.log.commit(vec![entry], Box::new(|| {})).unwrap();
            super::support::wait_until("moved", || f.partition.log_start() == offset);
            f.flush();
        }),
        ("deletion", |f| {
            let entry = crate::Entry::DeletePartition(id());
            f.opened.log.commit(vec![entry], Box::new(|| {})).unwrap();
        }),
    ];
    for (name, happen) in happenings {
        // In each step of the work.
        for step in 1.. {
            let mut fixture = Fixture::new(11);
            fixture.fill(60, 6);
            let mut steps = 0;
            let result = fixture.partition.compact(NOW_MS, &mut |_| {
                steps += 1;
                if steps == step {
                    happen(&fixture);
                }
                false
            });
            if steps < step {
                assert!(result.is_ok());
                break;
            }
            match result {
                Ok(()) | Err(Stopped::Changed) => {}
                Err(other) => panic!("{name} in step {step}: {other}"),
            }
            assert_eq!(
                *fixture.opened.fatal.0.lock(),
                None,
                "{name} in step {step}"
            );
            if name == "deletion" {
                super::support::wait_until("the folder goes", || {
                    fixture.disk.files(&Path::new(DIR).join("p")).is_empty()
                });
                continue;
            }
            let (start, end) = (
                fixture.partition.log_start(),
                fixture.partition.durable_offset(),
            );
            let found = records(&fixture.partition);
            let kept: Vec<_> = fixture.sent.range(start..end).collect();
            let newest: BTreeMap<_, _> = kept.iter().map(|(o, (k, _))| (k, **o)).collect();
            // A truncation may take the newer record of a key after the older one is gone, as in Kafka.
            if name == "log start" {
                for (key, offset) in newest {
                    assert!(
                        found.contains_key(&offset),
                        "{name} in step {step}: {key:?}"
                    );
                }
            }
            let fixture = fixture.restart();
            assert!(
                records(&fixture.partition) == found,
                "{name} in step {step}"
            );
            fixture.verify();
        }
    }
}

#[test]
fn a_segment_that_a_flush_has_only_named_beside_a_compaction_leaves_nothing() {
    let mut fixture = Fixture::new(12);
    fixture.fill(60, 6);
    let mut record = BatchBuilder::new(NOW_MS);
    record.push(Some(b"large"), Some(&[7; 1_900]));
    let record = record.build();
    let mut steps = 0;
    let cut = fixture.partition.compact(NOW_MS, &mut |_| {
        steps += 1;
        let is_announced = fixture.partition.state.lock().compacting.is_some();
        if is_announced && fixture.partition.state.lock().slots.manifest.created.len() == 1 {
            // The next pass names a new segment, and then the process is killed.
            let appended = append(&fixture.partition, &record).unwrap();
            wait_durable(&fixture.partition, appended.last_offset + 1);
            drop(fixture.partition.begin_pass().unwrap());
            let created = fixture.partition.state.lock().slots.manifest.created.len();
            assert_eq!(created, 2);
            fixture.disk.set_faults(SimFaults {
                cut_at: Some(fixture.disk.operations() + 1),
                ..SimFaults::default()
            });
        }
        false
    });
    assert!(cut.is_err(), "{steps}");
    for _ in 0..2 {
        fixture = fixture.restart();
        assert_eq!(fixture.opened.metrics.decode_errors_total(), 0);
        fixture.flush();
    }
    fixture.verify();
}

/// Offset of a batch of one record of a producer's transaction.
fn send_transactional(
    fixture: &mut Fixture,
    producer: (i64, i16),
    key: &[u8],
    value: &[u8],
) -> i64 {
    let mut builder = BatchBuilder::new(NOW_MS)
        .producer(producer.0, producer.1, 0)
        .transactional();
    builder.push(Some(key), Some(value));
    let offset = fixture.partition.next_offset();
    let record = (key.to_vec(), Some(value.to_vec()));
    fixture.send_batch(&builder.build(), &[record]);
    offset
}

/// Offset of the end of a producer's transaction, which has the next epoch.
fn send_end(fixture: &mut Fixture, (producer_id, epoch): (i64, i16), commit: bool) -> i64 {
    let end = EndMarker {
        commit,
        coordinator_epoch: 4,
    };
    let batch = end.batch((producer_id, epoch + 1), NOW_MS);
    let record = (
        vec![0, 0, 0, u8::from(commit)],
        Some(vec![0, 0, 0, 0, 0, 4]),
    );
    let offset = fixture.partition.next_offset();
    fixture.send_batch(&batch, &[record]);
    offset
}

#[test]
fn what_was_aborted_goes_and_outdates_nothing() {
    let mut fixture = Fixture::new(21);
    let mut at = Vec::new();
    for (epoch, commit) in [(0, false), (1, true), (2, false)] {
        let value = format!("value {epoch}").into_bytes();
        at.push(send_transactional(&mut fixture, (9, epoch), b"k", &value));
        at.push(send_end(&mut fixture, (9, epoch), commit));
    }
    fixture.fill(60, 3);
    fixture.compact(NOW_MS).unwrap();
    let found = fixture.read();
    let left = |found: &BTreeMap<i64, Seen>| -> Vec<i64> {
        let left = at.iter().filter(|offset| found.contains_key(offset));
        left.copied().collect()
    };
    assert_eq!(
        left(&found),
        [1, 2, 3, 5],
        "what was committed, and all markers"
    );
    let aborted = |fixture: &Fixture| -> Vec<(i64, i64)> {
        let table = fixture.partition.producers().unwrap();
        let aborted = table.aborted().iter();
        aborted.map(|a| (a.first_offset, a.last_offset)).collect()
    };
    assert_eq!(aborted(&fixture), [(0, 1), (4, 5)]);
    // A newer value: the marker of the commit has nothing left to commit, and goes when its time is over.
    fixture.send(&[(b"k".to_vec(), Some(b"new".to_vec()))]);
    fixture.fill(60, 3);
    fixture.compact(NOW_MS).unwrap();
    assert_eq!(left(&fixture.read()), [1, 3, 5]);
    fixture = fixture.restart();
    fixture.fill(60, 3);
    fixture.compact(NOW_MS + DELETE_RETENTION_MS - 1).unwrap();
    assert_eq!(left(&fixture.read()), [1, 3, 5]);
    fixture.fill(60, 3);
    fixture.compact(NOW_MS + DELETE_RETENTION_MS).unwrap();
    assert_eq!(left(&fixture.read()), [1, 5]);
    assert_eq!(aborted(&fixture), [(0, 1), (4, 5)]);
    fixture.verify();
}

#[test]
fn an_open_transaction_holds_compaction_back() {
    let mut fixture = Fixture::new(22);
    fixture.fill(60, 3);
    let open = send_transactional(&mut fixture, (9, 0), b"key 0", b"open");
    fixture.fill(60, 3);
    fixture.compact(NOW_MS).unwrap();
    let found = fixture.read();
    let behind = fixture.sent.range(open..).count();
    assert_eq!(
        found.range(open..).count(),
        behind,
        "nothing behind is looked at"
    );
    assert!(found.len() < fixture.sent.len(), "what lies before is");
    // What it would outdate stays, as it may be aborted.
    let newest_before = |key: &[u8]| {
        let mut before = fixture.sent.range(..open).rev();
        before
            .find(|(_, seen)| seen.0 == key)
            .map(|(offset, _)| *offset)
    };
    let kept = newest_before(b"key 0").unwrap();
    let first_unclean = fixture
        .segments()
        .iter()
        .find(|s| !s.cleaned)
        .unwrap()
        .base_offset;
    assert!(kept >= first_unclean || found.contains_key(&kept));
    fixture.compact(NOW_MS).unwrap();
    send_end(&mut fixture, (9, 0), true);
    fixture.fill(60, 3);
    fixture.compact(NOW_MS).unwrap();
    let active = fixture.segments().last().unwrap().base_offset;
    assert!(
        outdated(&fixture.sent, active)
            .iter()
            .all(|o| !fixture.read().contains_key(o))
    );
    fixture.verify();
}

#[test]
fn transactions_outlive_a_kill_wherever_their_batches_are() {
    for flushed in 0..6 {
        let mut fixture = Fixture::new(23);
        let steps: [(i64, Option<bool>); 6] = [
            (1, None),
            (2, None),
            (1, Some(false)),
            (3, None),
            (3, Some(true)),
            (4, None),
        ];
        for (step, (producer, end)) in steps.into_iter().enumerate() {
            match end {
                None => send_transactional(&mut fixture, (producer, 0), b"k", b"v"),
                Some(commit) => send_end(&mut fixture, (producer, 0), commit),
            };
            if step == flushed {
                fixture.flush();
            }
        }
        let before = fixture.partition.producers().unwrap();
        let mut fixture = fixture.restart();
        let mut after = fixture.partition.producers().unwrap();
        assert_eq!(
            after.encode(),
            before.encode(),
            "flushed after step {flushed}"
        );
        assert_eq!(after.first_unstable(6), Some(1));
        let aborted: Vec<i64> = after.aborted().iter().map(|a| a.first_offset).collect();
        assert_eq!(aborted, [0]);
        // Without a snapshot, the batches say the same.
        fixture.flush();
        for file in fixture.disk.files(&Path::new(DIR).join("p")) {
            if file.to_string_lossy().contains("producers.") {
                Disk::unlink(&fixture.disk, &file).unwrap();
            }
        }
        let scanned = fixture.partition.producers().unwrap();
        assert_eq!(scanned.encode(), before.encode());
        fixture = fixture.restart();
        send_end(&mut fixture, (2, 0), false);
        let mut table = fixture.partition.producers().unwrap();
        assert_eq!(table.first_unstable(7), Some(5), "the fourth is open still");
    }
}
