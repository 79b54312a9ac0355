//! Golden data directories: the bytes of `broker/log/golden/` are what this version writes, and what it reads.
//!
//! Owns both directions. A directory there is opened, and everything readable is held against the listing beside it; and
//! the same work is done again on a simulated disk, which must give the same bytes. Who changes the format on purpose
//! writes them anew with `KEELSON_GOLDEN=write cargo test -p keelson-log --lib golden`, looks at the difference of the
//! `.txt` files, and says in `docs/log-format.md` what has changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_protocol::builder::BatchBuilder;

use super::support::{
    Rng, append_in, batch, open_log, open_partition, partition_id, read_everything,
};
use crate::disk::{Disk, RealDisk, SimDisk};
use crate::dump::{DumpFilter, dump};
use crate::shared::NOW_MS;
use crate::stepped::Stepped;
use crate::{Entry, Log, Options, Partition, PartitionConfig, TopicId};

const DIR: &str = "/data";
const HOW: &str =
    "if the format is meant to change: KEELSON_GOLDEN=write cargo test -p keelson-log --lib golden";

fn options(dir: &Path) -> Options {
    Options {
        cluster_id: Some("golden-cluster".to_owned()),
        wal_file_bytes: Some(8 * 4096),
        wal_bytes_max: Some(4 * 8 * 4096),
        ..super::support::options(dir)
    }
}

/// One directory, and the work that makes it.
struct Golden {
    name: &'static str,
    make: fn(&SimDisk),
}

const ALL: [Golden; 5] = [
    Golden {
        name: "clean-stop",
        make: clean_stop,
    },
    Golden {
        name: "killed-with-tail",
        make: killed_with_tail,
    },
    Golden {
        name: "quarantined",
        make: quarantined,
    },
    Golden {
        name: "producers-and-epochs",
        make: producers_and_epochs,
    },
    Golden {
        name: "compacted",
        make: compacted,
    },
];

fn open(disk: &SimDisk) -> Stepped {
    Stepped::open(disk, options(Path::new(DIR))).expect("a good disk")
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 1000,
        ..PartitionConfig::default()
    }
}

fn put(log: &Log, topic: u8, bytes: bytes::Bytes, epoch: i32) -> Arc<Partition> {
    let partition = open_partition(log, partition_id(topic, 0), config());
    append_in(&partition, &bytes, epoch).unwrap();
    partition
}

/// Batches of two partitions, a group each, the first partition with several segments.
fn some(stepped: &mut Stepped, rng: &mut Rng, count: i64) {
    for number in 0..count {
        for topic in [1, 2] {
            let bytes = batch(rng, 1_700_000_000_000 + number, 1 + rng_below(number), 150);
            put(&stepped.log, topic, bytes, 3);
        }
        stepped.write().unwrap();
        if number % 3 == 2 {
            stepped.settle().unwrap();
        }
    }
}

fn rng_below(number: i64) -> u64 {
    number as u64 % 3
}

fn clean_stop(disk: &SimDisk) {
    let mut stepped = open(disk);
    some(&mut stepped, &mut Rng::new(1), 8);
    let entry = Entry::LogStart {
        partition: partition_id(1, 0),
        offset: 4,
    };
    stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.stop().unwrap();
}

fn killed_with_tail(disk: &SimDisk) {
    let mut stepped = open(disk);
    let mut rng = Rng::new(2);
    some(&mut stepped, &mut rng, 4);
    let partition = put(
        &stepped.log,
        3,
        batch(&mut rng, 1_700_000_000_000, 2, 90),
        3,
    );
    for records in 1..4 {
        put(
            &stepped.log,
            3,
            batch(&mut rng, 1_700_000_000_000, records, 90),
            4,
        );
    }
    stepped.write().unwrap();
    stepped
        .log
        .truncate(&partition, 3, Box::new(|| {}))
        .unwrap();
    let delete = vec![Entry::DeletePartition(partition_id(2, 0))];
    stepped.log.commit(delete, Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.seal().unwrap();
    drop(stepped);
    disk.kill();
}

fn quarantined(disk: &SimDisk) {
    let mut stepped = open(disk);
    some(&mut stepped, &mut Rng::new(3), 6);
    stepped.stop().unwrap();
    disk.kill();
    let log = format!("{DIR}/p/{}/0/{:020}.log", partition_id(1, 0).topic, 0);
    disk.flip(Path::new(&log), 100, 4);
    let mut stepped = open(disk);
    let partition = open_partition(&stepped.log, partition_id(1, 0), config());
    let (_, lost) = read_everything(&partition, 1 << 16);
    assert_eq!(lost.len(), 1);
    drop(partition);
    stepped.settle().unwrap();
    stepped.stop().unwrap();
}

fn producers_and_epochs(disk: &SimDisk) {
    let mut stepped = open(disk);
    for number in 0..6_i32 {
        for producer in [7, 9] {
            let mut builder =
                BatchBuilder::new(1_700_000_000_000).producer(producer, 1, number * 2);
            builder.push(Some(b"key"), Some(format!("value {number}").as_bytes()));
            builder.push(None, None);
            put(&stepped.log, 1, builder.build(), 3 + number / 2);
        }
        stepped.write().unwrap();
        if number % 2 == 1 {
            stepped.settle().unwrap();
        }
    }
    let entry = Entry::LogStart {
        partition: partition_id(1, 0),
        offset: 9,
    };
    stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.stop().unwrap();
}

/// Segments of generation 1 and 2 beside one that is not compacted, tombstones with a delete horizon, batches without
/// records, and one that only keeps its producer's sequence.
fn compacted(disk: &SimDisk) {
    let now_ms = 1_700_000_000_000;
    let mut stepped = open(disk);
    let mut number = 0;
    for round in 0..3 {
        for _ in 0..14 {
            number += 1;
            let mut builder = BatchBuilder::new(now_ms);
            if number == 2 {
                builder = builder.producer(7, 1, 0);
            }
            let value = format!("{:0100}", number);
            builder.push(Some(&[b'k', number % 5]), Some(value.as_bytes()));
            let value = (number % 4 > 0).then_some(&b"short"[..]);
            builder.push(Some(&[b's', number % 3]), value);
            put(&stepped.log, 1, builder.build(), 3);
            stepped.write().unwrap();
        }
        stepped.settle().unwrap();
        if round < 2 {
            let partition = stepped.log.partition(partition_id(1, 0)).unwrap();
            let mut config = config();
            config.compaction = Some(Arc::default());
            partition.update_config(config);
            partition.compact(now_ms, &mut |_| false).unwrap();
        }
    }
    stepped.stop().unwrap();
}

/// The files of the work, by their names below the data directory.
fn made(golden: &Golden) -> Vec<(PathBuf, Vec<u8>)> {
    NOW_MS.set(Some(1_700_000_000_000));
    let disk = SimDisk::new(1);
    (golden.make)(&disk);
    NOW_MS.set(None);
    let files = disk.files(Path::new(DIR)).into_iter();
    files
        .map(|path| {
            let name = path.strip_prefix(DIR).unwrap().to_owned();
            (name, disk.contents(&path).unwrap())
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn files_below(dir: &Path, at: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    let mut entries: Vec<_> = fs::read_dir(dir.join(at))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = at.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            files_below(dir, &name, found);
        } else {
            found.push((name, fs::read(entry.path()).unwrap()));
        }
    }
}

fn write_files(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Everything readable: what `log dump` prints of the directory as it is, and then what an open log holds.
fn listing(files: &[(PathBuf, Vec<u8>)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_files(dir.path(), files);
    let mut dumped = Vec::new();
    dump(
        dir.path(),
        DumpFilter::default(),
        &|_: TopicId| None,
        &mut dumped,
    )
    .unwrap();
    let mut text = format!("== log dump\n{}", String::from_utf8(dumped).unwrap());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = open_log(&disk, options(dir.path())).unwrap();
    let identity = opened.log.identity();
    writeln!(
        text,
        "== opened: cluster {} broker {} directory {} boot {} last exit {:?}",
        identity.cluster_id,
        identity.broker_id,
        identity.directory_id,
        identity.boot,
        identity.last_exit
    )
    .unwrap();
    for id in opened.log.partition_ids() {
        list_partition(&opened.log.partition(id).unwrap(), &mut text);
    }
    writeln!(
        text,
        "decode errors {}",
        opened.metrics.decode_errors_total()
    )
    .unwrap();
    text
}

fn list_partition(partition: &Partition, text: &mut String) {
    let (batches, lost) = read_everything(partition, 1 << 16);
    writeln!(
        text,
        "partition {} log_start={} next={} epochs={:?} lost={lost:?}",
        partition.id(),
        partition.log_start(),
        partition.next_offset(),
        partition.epochs()
    )
    .unwrap();
    for range in partition.quarantined() {
        writeln!(
            text,
            "  quarantined {}..={} {}+{} {} since {}",
            range.from, range.to, range.file, range.position, range.reason, range.since_ms
        )
        .unwrap();
    }
    let table = partition.producers().unwrap();
    writeln!(text, "  producers {} {:02x?}", table.len(), table.encode()).unwrap();
    for (base, bytes) in batches {
        writeln!(
            text,
            "  batch {base} {} bytes crc {:08x}",
            bytes.len(),
            crc32c::crc32c(&bytes)
        )
        .unwrap();
    }
}

#[test]
fn golden_directories_are_what_this_version_writes_and_reads() {
    let write = std::env::var("KEELSON_GOLDEN").is_ok_and(|word| word == "write");
    for golden in &ALL {
        let dir = root().join(golden.name);
        let told = root().join(format!("{}.txt", golden.name));
        let made = made(golden);
        if write {
            let _ = fs::remove_dir_all(&dir);
            write_files(&dir, &made);
            fs::write(&told, listing(&made)).unwrap();
        }
        let mut kept = Vec::new();
        files_below(&dir, Path::new(""), &mut kept);
        kept.sort();
        let text = fs::read_to_string(&told).unwrap();
        assert_eq!(
            listing(&kept),
            text,
            "{}: the directory reads differently; {HOW}",
            golden.name
        );
        let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        let mut made = made;
        made.sort();
        assert_eq!(names(&made), names(&kept), "{}; {HOW}", golden.name);
        for ((name, now), (_, then)) in made.iter().zip(&kept) {
            let first = now.iter().zip(then).position(|(a, b)| a != b);
            assert!(
                now == then,
                "{}: {} is written differently from byte {first:?} on; {HOW}",
                golden.name,
                name.display()
            );
        }
    }
}
