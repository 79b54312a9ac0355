//! A small data directory with known content, and the ways in which an input mangles it.
//!
//! Owns the template, made by the log itself, and the meaning of an input: a list of damages. Never reads what it damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use keelson_log::disk::{BLOCK_BYTES, SimDisk};
use keelson_log::fuzz::{self, ByHand};
use keelson_log::{
    Entry, Log, LogMetrics, Observer, Options, Partition, PartitionConfig, PartitionId,
    ProducedBatch, TopicId,
};
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::{BatchHeader, patch_offset_and_epoch};

/// Where the directory is on its disk.
pub(crate) const DATA_DIR: &str = "/data";
const PARTITIONS: [PartitionId; 2] = [
    PartitionId {
        topic: TopicId([0x11; 16]),
        index: 0,
    },
    PartitionId {
        topic: TopicId([0x22; 16]),
        index: 5,
    },
];
const EPOCH: i32 = 3;
/// Damages in one input; more would only be slower.
const DAMAGES_MAX: usize = 24;
/// Bytes that one damage writes at most.
const WRITE_BYTES_MAX: usize = 64;

/// Names that a foreign file gets.
const FOREIGN_NAMES: [&str; 5] = [
    "00000000000000000007.log",
    "x",
    "manifest.new",
    "9.wal",
    "manifest",
];

/// Batches of a partition in each life of the template; the second begins and ends with a WAL that is in segments, what the
/// third wrote is only there.
const BATCHES: [i64; 3] = [4, 3, 4];

/// File contents by path, relative to the data directory. A copy of all of them copies no content.
pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A batch as it must be read back.
pub(crate) struct Known {
    pub(crate) partition: PartitionId,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) bytes: Vec<u8>,
    /// The commit group that holds it, if the write-ahead log still does.
    pub(crate) group: Option<u64>,
}

/// A directory after two clean stops and a kill.
pub(crate) struct Template {
    pub(crate) files: Files,
    pub(crate) batches: Vec<Known>,
}

struct Nobody;

impl Observer for Nobody {
    fn durable(&self, _: i64) {}
    fn log_start(&self, _: i64) {}
}

/// The smallest files in which a WAL still changes from one to the next and recycles: a run is fast when it moves few bytes.
pub(crate) fn options() -> Options {
    Options {
        wal_file_bytes: Some(6 * BLOCK_BYTES as u64),
        wal_bytes_max: Some(36 * BLOCK_BYTES as u64),
        tail_bytes_max: 8 * 1024 * 1024,
        wal_background: false,
        disk_reserve_bytes: Some(0),
        scrub_bytes_per_second: 0,
        read_back_groups: 0,
        ..Options::new(DATA_DIR)
    }
}

/// The partitions of the template, opened in a log.
pub(crate) fn open_partitions(log: &Log) -> Vec<Arc<Partition>> {
    let config = PartitionConfig {
        segment_bytes: 600,
        ..PartitionConfig::default()
    };
    PARTITIONS
        .iter()
        .map(|id| log.open_partition(*id, config.clone(), Arc::new(Nobody)))
        .collect()
}

/// Made once.
pub(crate) fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(make)
}

fn make() -> Template {
    let disk = SimDisk::new(1);
    let metrics = Arc::new(LogMetrics::unregistered());
    let mut batches = Vec::new();
    for (life, count) in BATCHES.into_iter().enumerate() {
        let mut log = ByHand::open(&disk, options(), &metrics).expect("a healthy disk");
        let partitions = open_partitions(log.log());
        for number in 0..count {
            // The second partition is smaller.
            let writes = if number % 2 == 0 { 2 } else { 1 };
            for partition in &partitions[..writes] {
                batches.push(append(partition, life as i64 * 100 + number));
            }
            log.write().expect("a healthy disk");
        }
        let entry = Entry::LogStart {
            partition: PARTITIONS[0],
            offset: 2 * life as i64,
        };
        let committed = log.log().commit(vec![entry], Box::new(|| {}));
        committed.expect("a healthy disk");
        log.write().expect("a healthy disk");
        if life < 2 {
            log.stop();
        }
    }
    disk.kill();
    let files = contents(&disk);
    for batch in &mut batches {
        let holds = |block: &&[u8]| block.windows(batch.bytes.len()).any(|w| w == batch.bytes);
        let mut holding = groups(&files).filter(|(.., block)| holds(block));
        batch.group = holding.next().map(|(_, _, seq, _)| seq);
    }
    Template { files, batches }
}

/// The groups in the write-ahead log of a template, each of which has a block of its own: file, place, number and bytes.
fn groups(files: &Files) -> impl Iterator<Item = (&str, usize, u64, &[u8])> {
    const MAGIC: &[u8] = b"KEELWALG";
    const SEQ_AT: usize = 32;
    let wal = files.iter().filter(|(name, _)| name.starts_with("wal/"));
    let blocks = wal.flat_map(|(name, bytes)| {
        let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
        blocks.map(move |(number, block)| (name.as_str(), number * BLOCK_BYTES, block))
    });
    let groups = blocks.filter(|(.., block)| block.starts_with(MAGIC));
    groups.map(|(name, at, block)| {
        let seq = block[SEQ_AT..].first_chunk().expect("a block is larger");
        (name, at, u64::from_le_bytes(*seq), block)
    })
}

/// The newest group of the template that mangled files still hold, unharmed and in its place: it testifies for itself and
/// for all before it.
pub(crate) fn newest_witness(files: &Files) -> u64 {
    let unharmed = groups(&template().files).filter(|(name, at, _, block)| {
        let now = files.get(*name).and_then(|bytes| bytes.get(*at..));
        now.is_some_and(|now| now.starts_with(block))
    });
    unharmed.map(|(_, _, seq, _)| seq).max().unwrap_or(0)
}

fn append(partition: &Partition, number: i64) -> Known {
    let sequence = partition.next_offset() as i32;
    let mut builder = BatchBuilder::new(1_000 + number).producer(7, 0, sequence);
    for record in 0..=number % 3 {
        let value = format!("{} record {number}.{record}", partition.id().topic);
        builder.push(None, Some(value.as_bytes()));
    }
    let bytes = builder.build();
    let header = BatchHeader::parse(&bytes).expect("what is built is read");
    let batch = ProducedBatch {
        bytes: bytes.clone(),
        header,
        pin: None,
    };
    let appended = partition.append(batch, EPOCH).expect("there is room");
    let mut bytes = bytes.to_vec();
    patch_offset_and_epoch(&mut bytes, appended.base_offset, EPOCH);
    Known {
        partition: partition.id(),
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        bytes,
        group: None,
    }
}

fn contents(disk: &SimDisk) -> Files {
    let root = Path::new(DATA_DIR);
    let name = |path: &PathBuf| {
        let inside = path.strip_prefix(root).expect("below the data directory");
        inside.to_string_lossy().into_owned()
    };
    let paths = disk.files(root);
    let named = paths.iter().map(|path| {
        let bytes = disk.contents(path).expect("a file that is listed");
        (name(path), Arc::new(bytes))
    });
    named.collect()
}

/// What an input has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Checksums were set right again: not what a disk does by itself.
    pub(crate) forged: bool,
    /// Files are gone, or came from elsewhere.
    pub(crate) moved: bool,
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A place in something of this length.
    fn place(&mut self, length: usize) -> Option<usize> {
        let (low, high) = (self.byte()?, self.byte()?);
        Some((usize::from(u16::from_le_bytes([low, high])) * length) >> 16)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken.to_vec()
    }
}

/// Damages the files that `takes` names, as the input says.
pub(crate) fn mangle(files: &mut Files, input: &[u8], takes: impl Fn(&str) -> bool) -> Done {
    let mut input = Input { rest: input };
    let mut done = Done::default();
    for _ in 0..DAMAGES_MAX {
        if damage(files, &mut input, &mut done, &takes).is_none() {
            break;
        }
    }
    done
}

/// One damage: kind, file, place, and what the kind needs. `None` at the end of the input.
fn damage(
    files: &mut Files,
    input: &mut Input<'_>,
    done: &mut Done,
    takes: &impl Fn(&str) -> bool,
) -> Option<()> {
    let (kind, chosen) = (input.byte()? % 10, usize::from(input.byte()?));
    let names: Vec<&String> = files.keys().filter(|name| takes(name)).collect();
    let name = (*names.get(chosen % names.len().max(1))?).clone();
    let other = names[(chosen / names.len() + 1 + chosen) % names.len()];
    let source = Arc::clone(&files[other]);
    let at = input.place(files[&name].len())?;
    match kind {
        8 => {
            files.remove(&name);
            done.moved = true;
        }
        9 => {
            // A foreign file: the content of another one under a name of its own.
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let new = format!("{folder}/{}", FOREIGN_NAMES[at % FOREIGN_NAMES.len()]);
            files.insert(new.trim_start_matches('/').to_owned(), source);
            done.moved = true;
        }
        5 => Arc::make_mut(files.get_mut(&name)?).truncate(at),
        7 => {
            let count = usize::from(input.byte()?) % WRITE_BYTES_MAX;
            Arc::make_mut(files.get_mut(&name)?).extend(input.bytes(count));
        }
        _ => {
            let (place, bytes) = written(kind, at, &source, input)?;
            let file = Arc::make_mut(files.get_mut(&name)?);
            let flips = kind == 0;
            for (byte, new) in file.iter_mut().skip(place).zip(&bytes) {
                *byte = if flips { *byte ^ new } else { *new };
            }
            done.moved |= kind == 6;
            if kind == 2 {
                fuzz::reseal(&name, file, at);
                done.forged = true;
            }
        }
    }
    Some(())
}

/// Where a damage that overwrites begins, and with what.
fn written(kind: u8, at: usize, source: &[u8], input: &mut Input<'_>) -> Option<(usize, Vec<u8>)> {
    const SECTOR_BYTES: usize = 512;
    let block = at / BLOCK_BYTES * BLOCK_BYTES;
    Some(match kind {
        0 => (at, vec![input.byte()?]),
        3 => (at / SECTOR_BYTES * SECTOR_BYTES, vec![0; SECTOR_BYTES]),
        4 => (block, vec![0; BLOCK_BYTES]),
        6 => {
            // A misdirected write: a block of another file, or of another place in this one.
            let from = input.place(source.len())? / BLOCK_BYTES * BLOCK_BYTES;
            let end = (from + BLOCK_BYTES).min(source.len());
            (block, source[from..end].to_vec())
        }
        _ => {
            let count = usize::from(input.byte()?) % WRITE_BYTES_MAX;
            (at, input.bytes(count))
        }
    })
}

/// One damage of each kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (0..10_u8)
        .map(|kind| vec![kind, 3, 0, 40, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        .collect()
}
