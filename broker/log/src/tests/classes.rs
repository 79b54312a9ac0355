//! Every class of bytes in a data directory: each is damaged, and what must be told and counted is said here, row by row.
//!
//! Owns the promise that no byte in use changes without a counter above 0 and an error or a repair; and, beside it, the
//! rows of what is not in use and must be passed over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_protocol::builder::BatchBuilder;

use super::in_use::{Class, Span, spans};
use super::sim::sim_options;
use super::support::{
    Everything, Rng, append_in, batch, open_partition, partition_id, read_everything,
};
use crate::disk::{BLOCK_BYTES, Disk, Durability, OpenMode, SimDisk};
use crate::losses::{self, AcceptedLoss};
use crate::metrics::{Reason, Source, Stage};
use crate::offline::Directory;
use crate::stepped::Stepped;
use crate::wal::format::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES};
use crate::wal::{FrameBody, Recovered, RecoveredGroup};
use crate::{Entry, Partition, PartitionConfig, PartitionId, UnhealthyRange};

const DIR: &str = "/data";
/// Segments and a WAL's tail; its records carry producers.
const MAIN: (u8, i32) = (1, 0);
const COMPACTED: (u8, i32) = (2, 0);
const DELETED: (u8, i32) = (3, 0);
/// Never flushed before the end.
const IN_WAL: (u8, i32) = (4, 0);
const NOW_MS: i64 = 1_000_000;

/// How the process that wrote the directory ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A clean stop.
    Stopped,
    /// A kill; the last group has its witness.
    Killed,
}

/// What is done to the directory.
#[derive(Debug, Clone)]
enum Hit {
    Flip(PathBuf, u64),
    /// Zeros, `to` exclusive.
    Wipe(PathBuf, u64, u64),
    /// The block cannot be read any more.
    Broken(PathBuf, u64),
    Gone(PathBuf),
    /// A file that nobody has written.
    Foreign(PathBuf),
    /// Bytes behind the end.
    Longer(PathBuf),
    /// Two flips.
    Both((PathBuf, u64), (PathBuf, u64)),
}

/// What must come of it.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// It was not in use.
    Nothing,
    /// The benign counter alone.
    Torn,
    /// So many decode errors, each with this source and one of these reasons.
    Errors(u64, Source, &'static [Reason]),
    /// The same, one for each entry that was hit.
    EachEntry(Source, &'static [Reason]),
    /// The same, one for each range that is lost.
    EachRange(Source, &'static [Reason]),
    /// The start is refused, in these words.
    Refused(&'static str),
}

struct Row {
    label: &'static str,
    end: End,
    hits: fn(&Volume) -> Vec<Hit>,
    told: Told,
    costs: Costs,
}

/// What cannot be read afterwards as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Costs {
    Nothing,
    /// Some offsets answer with an error.
    Offsets,
    /// A log start inside the first segment is forgotten: what was deleted there is back.
    LogStart,
}

struct Volume {
    disk: SimDisk,
    spans: Vec<Span>,
    groups: Vec<RecoveredGroup>,
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 900,
        ..PartitionConfig::default()
    }
}

fn open(disk: &SimDisk) -> Result<Stepped, String> {
    Stepped::open(disk, sim_options()).map_err(|error| error.to_string())
}

fn part(stepped: &Stepped, (topic, index): (u8, i32)) -> Arc<Partition> {
    open_partition(&stepped.log, partition_id(topic, index), config())
}

/// One batch, a group of its own.
fn put(stepped: &mut Stepped, name: (u8, i32), number: i32, epoch: i32) {
    let mut builder = BatchBuilder::new(NOW_MS).producer(70, 0, number);
    let value = [number as u8; 90];
    builder.push(Some(&[b'k', number as u8 % 3]), Some(&value));
    append_in(&part(stepped, name), &builder.build(), epoch).unwrap();
    stepped.write().unwrap();
}

fn commit(stepped: &mut Stepped, entry: Entry) {
    stepped.log.commit(vec![entry], Box::new(|| {})).unwrap();
    stepped.write().unwrap();
}

fn compact(stepped: &mut Stepped) {
    let partition = part(stepped, COMPACTED);
    partition.update_config(PartitionConfig {
        compaction: Some(Arc::default()),
        ..config()
    });
    stepped.compact(&partition, NOW_MS).unwrap();
}

/// Segments of two partitions, one compacted; several files of the WAL, left and used again; a log start inside the
/// first segment.
fn first_run(disk: &SimDisk) {
    let mut stepped = open(disk).unwrap();
    for number in 0..30 {
        put(&mut stepped, MAIN, number, 3);
        put(&mut stepped, COMPACTED, number, 3);
        if number == 3 {
            // The bytes of the first batches stay in their segment.
            let partition = partition_id(MAIN.0, MAIN.1);
            let offset = 2;
            commit(&mut stepped, Entry::LogStart { partition, offset });
        }
        if number % 5 == 4 {
            stepped.settle().unwrap();
        }
    }
    put(&mut stepped, DELETED, 0, 3);
    compact(&mut stepped);
    stepped.settle().unwrap();
    stepped.stop().unwrap();
}

/// A group of each kind, none of which a folder reflects.
fn tail(stepped: &mut Stepped) {
    let mut rng = Rng::new(4);
    for number in 30..33 {
        put(stepped, MAIN, number, 4);
    }
    for _ in 0..3 {
        let bytes = batch(&mut rng, NOW_MS, 2, 40);
        append_in(&part(stepped, IN_WAL), &bytes, 4).unwrap();
        stepped.write().unwrap();
    }
    let in_wal = part(stepped, IN_WAL);
    stepped.log.truncate(&in_wal, 4, Box::new(|| {})).unwrap();
    stepped.write().unwrap();
    stepped.seal().unwrap();
    let partition = partition_id(MAIN.0, MAIN.1);
    commit(
        stepped,
        Entry::LogStart {
            partition,
            offset: 3,
        },
    );
    let deleted = partition_id(DELETED.0, DELETED.1);
    commit(stepped, Entry::DeletePartition(deleted));
    put(stepped, MAIN, 33, 4);
    stepped.seal().unwrap();
}

fn volume(end: End) -> Volume {
    let disk = SimDisk::new(5);
    first_run(&disk);
    disk.kill();
    let given_up = AcceptedLoss {
        range: UnhealthyRange {
            partition: Some(partition_id(9, 0)),
            from: 0,
            to: 4,
            file: "wal/x".to_owned(),
            position: 0,
            reason: Reason::PayloadCrc,
            source: Source::Wal,
            stage: Stage::Replay,
            since_ms: 1,
        },
        topic: "gone".to_owned(),
        by: "a test".to_owned(),
        accepted_ms: 1,
    };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    losses::write(&shared, Path::new(DIR), &[given_up]).unwrap();
    let aside = Path::new(DIR).join("quarantine");
    disk.create_dir_all(&aside).unwrap();
    write_file(&disk, &aside.join("old"));
    let mut stepped = open(&disk).unwrap();
    tail(&mut stepped);
    if end == End::Stopped {
        stepped.settle().unwrap();
        stepped.stop().unwrap();
    } else {
        drop(stepped);
    }
    disk.kill();
    let directory = Directory::open_on(shared, Path::new(DIR)).unwrap();
    let mut steps = directory.wal().unwrap();
    let mut groups = Vec::new();
    while let Some(step) = steps.next().unwrap() {
        if let Recovered::Group(group) = step {
            groups.push(group);
        }
    }
    Volume {
        spans: spans(&disk, Path::new(DIR)),
        groups,
        disk,
    }
}

fn write_file(disk: &SimDisk, path: &Path) {
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.write_at(b"somebody's", 0, Durability::Later).unwrap();
}

impl Volume {
    fn of(&self, class: Class) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.class == class)
    }

    /// Some bytes of each stretch: its ends, and a few between them.
    fn flips(&self, class: Class, wanted: impl Fn(&Span) -> bool) -> Vec<Hit> {
        let mut hits = Vec::new();
        for span in self.of(class).filter(|span| wanted(span)) {
            let step = ((span.to - span.from) / 6).max(1) as usize;
            for at in (span.from..span.to).step_by(step).chain([span.to - 1]) {
                hits.push(Hit::Flip(span.path.clone(), at));
            }
        }
        hits
    }

    fn aged(&self, class: Class, age: u32) -> Vec<Hit> {
        self.flips(class, |span| span.age == age)
    }

    fn wiped(&self, class: Class) -> Vec<Hit> {
        let wipe = |span: &Span| Hit::Wipe(span.path.clone(), span.from, span.to);
        self.of(class).map(wipe).collect()
    }

    fn broken(&self, class: Class) -> Vec<Hit> {
        let broken = |span: &Span| Hit::Broken(span.path.clone(), span.from);
        self.of(class).map(broken).collect()
    }

    fn gone(&self, class: Class) -> Vec<Hit> {
        let paths: BTreeSet<&PathBuf> = self.of(class).map(|span| &span.path).collect();
        paths.into_iter().cloned().map(Hit::Gone).collect()
    }

    /// Both slots of a file.
    fn both(&self, class: Class) -> Vec<Hit> {
        let newest = self.of(class).filter(|span| span.age == 0);
        let pair = |span: &Span| {
            let same = |other: &&Span| other.path == span.path && other.age == 1;
            let older = self.of(class).find(same).unwrap();
            Hit::Both(
                (span.path.clone(), span.from + 30),
                (older.path.clone(), older.from + 30),
            )
        };
        newest.map(pair).collect()
    }

    /// Behind each stretch, in the same block.
    fn behind(&self, class: Class) -> Vec<Hit> {
        let behind = |span: &Span| Hit::Flip(span.path.clone(), span.to + 9);
        self.of(class).map(behind).collect()
    }

    /// Groups that a replay needs, with the one behind each: all but the last.
    fn witnessed(&self) -> impl Iterator<Item = (&RecoveredGroup, &RecoveredGroup)> {
        self.groups.iter().zip(self.groups.iter().skip(1))
    }

    fn path(&self, group: &RecoveredGroup) -> PathBuf {
        Path::new(DIR).join(&group.file)
    }

    /// In the frame headers of one kind of frame.
    fn frames(&self, is_wanted: fn(&FrameBody) -> bool) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (group, _) in self.witnessed() {
            for (number, frame) in group.frames.iter().enumerate() {
                if is_wanted(&frame.frame.body) {
                    let entry = GROUP_HEADER_BYTES + number * FRAME_HEADER_BYTES;
                    for at in [0, 5, 30, 45, 63] {
                        let at = group.position + (entry + at) as u64;
                        hits.push(Hit::Flip(self.path(group), at));
                    }
                }
            }
        }
        hits
    }

    fn own_and_copy(&self) -> Vec<Hit> {
        let pair = |(group, next): (&RecoveredGroup, &RecoveredGroup)| {
            let own = group.position + GROUP_HEADER_BYTES as u64 + 9;
            let copy = GROUP_HEADER_BYTES + next.frames.len() * FRAME_HEADER_BYTES + 9;
            Hit::Both(
                (self.path(group), own),
                (self.path(next), next.position + copy as u64),
            )
        };
        self.witnessed().map(pair).collect()
    }

    fn copies(&self) -> Vec<Hit> {
        let copy = |(_, next): (&RecoveredGroup, &RecoveredGroup)| {
            let at = GROUP_HEADER_BYTES + next.frames.len() * FRAME_HEADER_BYTES + 9;
            (next.seq < self.groups.last().unwrap().seq)
                .then(|| Hit::Flip(self.path(next), next.position + at as u64))
        };
        self.witnessed().filter_map(copy).collect()
    }

    /// Batches of the partitions that are still there when replay is done.
    fn batches(&self) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (group, _) in self.witnessed() {
            for frame in &group.frames {
                let is_live = frame.frame.partition == id(MAIN);
                if let FrameBody::Append { batch, .. } = &frame.frame.body
                    && is_live
                {
                    for at in [0, 13, 20, batch.size() as u64 - 1] {
                        hits.push(Hit::Flip(self.path(group), frame.file_position + at));
                    }
                }
            }
        }
        hits
    }

    fn padding(&self) -> Vec<Hit> {
        let last = |(group, _): (&RecoveredGroup, &RecoveredGroup)| {
            Hit::Flip(self.path(group), group.position + group.length - 1)
        };
        self.witnessed().map(last).collect()
    }

    fn headers(&self) -> Vec<Hit> {
        let of = |(group, _): (&RecoveredGroup, &RecoveredGroup)| {
            let at = [0, 9, 14, 20, 34, 43, 50, 57, 61, 66, 70, 74, 79];
            at.map(|at| Hit::Flip(self.path(group), group.position + at))
        };
        self.witnessed().flat_map(of).collect()
    }

    fn end(&self) -> (PathBuf, u64) {
        let last = self.groups.last().unwrap();
        (self.path(last), last.position + last.length)
    }

    /// Every file with one of these endings.
    fn files(&self, ending: &str) -> impl Iterator<Item = PathBuf> {
        let files = self.disk.files(Path::new(DIR)).into_iter();
        files.filter(move |path| path.to_string_lossy().ends_with(ending))
    }
}

fn id((topic, index): (u8, i32)) -> PartitionId {
    partition_id(topic, index)
}

const SLOT: &[Reason] = &[
    Reason::SlotCrc,
    Reason::Magic,
    Reason::Version,
    Reason::Length,
];
const BATCH: &[Reason] = &[
    Reason::BatchCrc,
    Reason::BatchHeader,
    Reason::Offsets,
    Reason::Length,
];

fn row(label: &'static str, end: End, hits: fn(&Volume) -> Vec<Hit>, told: Told) -> Row {
    Row {
        label,
        end,
        hits,
        told,
        costs: Costs::Nothing,
    }
}

fn forgets(label: &'static str, end: End, hits: fn(&Volume) -> Vec<Hit>, told: Told) -> Row {
    Row {
        costs: Costs::LogStart,
        ..row(label, end, hits, told)
    }
}

fn costs(label: &'static str, end: End, hits: fn(&Volume) -> Vec<Hit>, told: Told) -> Row {
    Row {
        costs: Costs::Offsets,
        ..row(label, end, hits, told)
    }
}

/// The files of the data directory itself.
fn directory_rows() -> Vec<Row> {
    use End::*;
    use Told::*;
    let node = Errors(1, Source::Snapshot, SLOT);
    vec![
        row(
            "node.meta: newest slot",
            Stopped,
            |v| v.aged(Class::NodeSlot, 0),
            node,
        ),
        row(
            "node.meta: older slot",
            Stopped,
            |v| v.aged(Class::NodeSlot, 1),
            node,
        ),
        row(
            "node.meta: a slot of zeros",
            Stopped,
            |v| v.wiped(Class::NodeSlot),
            node,
        ),
        row(
            "node.meta: unreadable",
            Stopped,
            |v| v.broken(Class::NodeSlot),
            Errors(1, Source::Snapshot, &[Reason::Io]),
        ),
        // What is left says that the run before was stopped.
        row(
            "node.meta: newest slot, killed",
            Killed,
            |v| v.aged(Class::NodeSlot, 0),
            node,
        ),
        row(
            "node.meta: older slot, killed",
            Killed,
            |v| v.aged(Class::NodeSlot, 1),
            Torn,
        ),
        row(
            "node.meta: behind the text",
            Stopped,
            |v| v.behind(Class::NodeSlot),
            Nothing,
        ),
        row(
            "node.meta: both slots",
            Stopped,
            |v| v.both(Class::NodeSlot),
            Refused("no slot verifies"),
        ),
        row(
            "node.meta: gone",
            Stopped,
            |v| v.gone(Class::NodeSlot),
            Refused("it is missing"),
        ),
        row(
            "accepted-losses",
            Stopped,
            |v| v.flips(Class::Losses, |_| true),
            Errors(1, Source::Snapshot, SLOT),
        ),
        row(
            "quarantine",
            Stopped,
            |v| v.files("quarantine/old").map(|p| Hit::Flip(p, 3)).collect(),
            Nothing,
        ),
        row(
            "a foreign file in p/",
            Stopped,
            |_| vec![Hit::Foreign(Path::new(DIR).join("p/notes"))],
            Errors(1, Source::Segment, &[Reason::UnlistedFile]),
        ),
        row(
            "a foreign file of a topic",
            Stopped,
            |v| foreign(v, 1),
            Errors(1, Source::Segment, &[Reason::UnlistedFile]),
        ),
        row(
            "a foreign file of a partition",
            Stopped,
            |v| foreign(v, 0),
            Errors(1, Source::Segment, &[Reason::UnlistedFile]),
        ),
    ]
}

fn foreign(volume: &Volume, up: usize) -> Vec<Hit> {
    let folder = |path: PathBuf| path.ancestors().nth(1 + up).unwrap().join("notes");
    volume
        .files("/manifest")
        .filter(|path| !path.starts_with(Path::new(DIR).join("wal")))
        .map(folder)
        .map(Hit::Foreign)
        .take(1)
        .collect()
}

fn wal_rows() -> Vec<Row> {
    use End::*;
    use Told::*;
    let slot = Errors(1, Source::Checkpoint, SLOT);
    let header = Errors(1, Source::Wal, &[Reason::HeaderCrc]);
    let frame = Errors(1, Source::Wal, &[Reason::FrameCrc]);
    let payload = Errors(1, Source::Wal, &[Reason::PayloadCrc]);
    vec![
        row(
            "WAL manifest: newest slot",
            Stopped,
            |v| v.aged(Class::WalSlot, 0),
            slot,
        ),
        row(
            "WAL manifest: older slot",
            Stopped,
            |v| v.aged(Class::WalSlot, 1),
            slot,
        ),
        row(
            "WAL manifest: a slot of zeros",
            Stopped,
            |v| v.wiped(Class::WalSlot),
            slot,
        ),
        row(
            "WAL manifest: unreadable",
            Stopped,
            |v| v.broken(Class::WalSlot),
            Errors(1, Source::Checkpoint, &[Reason::Io]),
        ),
        row(
            "WAL manifest: newest slot, killed",
            Killed,
            |v| v.aged(Class::WalSlot, 0),
            Torn,
        ),
        row(
            "WAL manifest: older slot, killed",
            Killed,
            |v| v.aged(Class::WalSlot, 1),
            Torn,
        ),
        row(
            "WAL manifest: both slots",
            Stopped,
            |v| v.both(Class::WalSlot),
            Refused("neither of its slots verifies"),
        ),
        row(
            "WAL manifest: gone",
            Stopped,
            |v| v.gone(Class::WalSlot),
            Refused("manifest is missing"),
        ),
        row(
            "WAL file: head",
            Stopped,
            |v| v.flips(Class::WalHead, |_| true),
            header,
        ),
        row(
            "WAL file: head, killed",
            Killed,
            |v| v.flips(Class::WalHead, |_| true),
            header,
        ),
        row(
            "WAL file: head wiped",
            Killed,
            |v| v.wiped(Class::WalHead),
            header,
        ),
        row(
            "WAL file: head unreadable",
            Killed,
            |v| v.broken(Class::WalHead),
            Errors(1, Source::Wal, &[Reason::Io]),
        ),
        row(
            "WAL file: behind the head",
            Killed,
            |v| v.behind(Class::WalHead),
            Nothing,
        ),
        row(
            "WAL file: gone",
            Killed,
            |v| {
                v.groups
                    .iter()
                    .map(|g| Hit::Gone(v.path(g)))
                    .take(1)
                    .collect()
            },
            Refused("it is missing"),
        ),
        row("group: header", Killed, Volume::headers, header),
        row(
            "frame header: append",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::Append { .. })),
            frame,
        ),
        row(
            "frame header: truncate",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::Truncate { .. })),
            frame,
        ),
        row(
            "frame header: log start",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::LogStart { .. })),
            frame,
        ),
        row(
            "frame header: epoch start",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::EpochStart { .. })),
            frame,
        ),
        row(
            "frame header: delete",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::DeletePartition)),
            frame,
        ),
        row(
            "frame header: seal",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::Seal)),
            frame,
        ),
        row(
            "frame header: boot",
            Killed,
            |v| v.frames(|b| matches!(b, FrameBody::Boot { .. })),
            frame,
        ),
        row(
            "group: copy of the frame headers before",
            Killed,
            Volume::copies,
            payload,
        ),
        row("group: padding", Killed, Volume::padding, payload),
        costs("group: batch", Killed, Volume::batches, payload),
        row(
            "group: both copies of a frame header",
            Killed,
            Volume::own_and_copy,
            Refused("was durable"),
        ),
        row(
            "last group, without a witness",
            Killed,
            |v| v.flips(Class::LastGroup, |_| true),
            Torn,
        ),
        row(
            "a group that the checkpoint has passed",
            Killed,
            passed,
            Nothing,
        ),
        row("a file's former life", Killed, former_life, Nothing),
        row(
            "zeros behind the end",
            Killed,
            |v| vec![Hit::Flip(v.end().0, v.end().1 + 300)],
            Nothing,
        ),
    ]
}

/// Groups of the first file that is needed, below the checkpoint.
fn passed(volume: &Volume) -> Vec<Hit> {
    let first = &volume.groups[0];
    let blocks = (BLOCK_BYTES as u64..first.position).step_by(BLOCK_BYTES);
    let path = volume.path(first);
    let at = blocks.flat_map(|block| [block + 20, block + 90, block + 200]);
    at.map(|at| Hit::Flip(path.clone(), at)).collect()
}

/// Bytes behind the end, in the same file or in those that stand by, that are not zeros.
fn former_life(volume: &Volume) -> Vec<Hit> {
    let (path, end) = volume.end();
    let files = volume.files(".wal").filter(|other| *other >= path);
    let stale = files.flat_map(|other| {
        let bytes = volume.disk.contents(&other).unwrap();
        let from = if other == path {
            end
        } else {
            BLOCK_BYTES as u64
        };
        let blocks = (from..bytes.len() as u64).step_by(BLOCK_BYTES);
        let used = blocks
            .filter(|at| bytes[*at as usize] != 0)
            .collect::<Vec<_>>();
        used.into_iter()
            .map(move |at| Hit::Flip(other.clone(), at + 20))
    });
    stale.collect()
}

fn partition_rows() -> Vec<Row> {
    use End::*;
    use Told::*;
    let slot = Errors(1, Source::Snapshot, SLOT);
    let entry = Errors(1, Source::Index, &[Reason::SlotCrc]);
    let batch = Errors(1, Source::Segment, BATCH);
    vec![
        row(
            "partition manifest: newest slot",
            Stopped,
            |v| v.aged(Class::Slot, 0),
            slot,
        ),
        row(
            "partition manifest: older slot",
            Stopped,
            |v| v.aged(Class::Slot, 1),
            slot,
        ),
        row(
            "partition manifest: a slot of zeros",
            Stopped,
            |v| v.wiped(Class::Slot),
            slot,
        ),
        row(
            "partition manifest: newest slot, killed",
            Killed,
            |v| v.aged(Class::Slot, 0),
            Torn,
        ),
        row(
            "partition manifest: older slot, killed",
            Killed,
            |v| v.aged(Class::Slot, 1),
            Torn,
        ),
        row(
            "partition manifest: behind the slot",
            Stopped,
            |v| v.behind(Class::Slot),
            Nothing,
        ),
        forgets(
            "partition manifest: both slots",
            Stopped,
            |v| v.both(Class::Slot),
            Errors(2, Source::Snapshot, SLOT),
        ),
        forgets(
            "partition manifest: gone",
            Stopped,
            |v| v.gone(Class::Slot),
            Errors(1, Source::Snapshot, &[Reason::MissingFile]),
        ),
        costs(
            "segment: batch",
            Stopped,
            |v| v.flips(Class::Log, |_| true),
            batch,
        ),
        costs(
            "segment: unreadable",
            Stopped,
            |v| v.broken(Class::Log),
            EachRange(Source::Segment, &[Reason::Io]),
        ),
        costs(
            "segment: gone",
            Stopped,
            |v| v.gone(Class::Log),
            Errors(1, Source::Segment, &[Reason::MissingFile]),
        ),
        row(
            "segment: below the log start",
            Stopped,
            below_log_start,
            Nothing,
        ),
        row(
            "segment: bytes behind what counts",
            Stopped,
            |v| {
                v.of(Class::Log)
                    .map(|s| Hit::Longer(s.path.clone()))
                    .collect()
            },
            Nothing,
        ),
        row(
            ".sum: entry",
            Stopped,
            |v| v.flips(Class::Sum, |_| true),
            entry,
        ),
        row(
            ".sum: unreadable",
            Stopped,
            |v| v.broken(Class::Sum),
            EachEntry(Source::Index, &[Reason::SlotCrc]),
        ),
        row(
            ".idx: entry",
            Stopped,
            |v| v.flips(Class::Idx, |_| true),
            entry,
        ),
        row(
            "producers: the one that counts",
            Stopped,
            |v| v.flips(Class::Producers, |_| true),
            Errors(1, Source::Snapshot, SLOT),
        ),
        row(
            "producers: gone",
            Stopped,
            |v| v.gone(Class::Producers),
            Errors(1, Source::Snapshot, &[Reason::MissingFile]),
        ),
        row(
            "producers: the other one",
            Stopped,
            other_producers,
            Nothing,
        ),
    ]
}

fn below_log_start(volume: &Volume) -> Vec<Hit> {
    let spans = volume.of(Class::Log).filter(|span| span.from > 0);
    let at = |span: &Span| [5, 20, 80].map(|at| Hit::Flip(span.path.clone(), at));
    spans.flat_map(at).collect()
}

fn other_producers(volume: &Volume) -> Vec<Hit> {
    let counts: BTreeSet<PathBuf> = volume
        .of(Class::Producers)
        .map(|span| span.path.clone())
        .collect();
    let files = volume
        .files("producers.1")
        .chain(volume.files("producers.2"));
    files
        .filter(|path| !counts.contains(path))
        .map(|path| Hit::Flip(path, 20))
        .collect()
}

fn rows() -> Vec<Row> {
    let mut rows = directory_rows();
    rows.extend(wal_rows());
    rows.extend(partition_rows());
    rows
}

fn inflict(disk: &SimDisk, hit: &Hit) {
    match hit {
        Hit::Flip(path, at) => disk.flip(path, *at, 0x10),
        Hit::Wipe(path, from, to) => {
            disk.overwrite(path, *from, &vec![0; (to - from) as usize]);
        }
        Hit::Broken(path, at) => disk.break_block(path, *at),
        Hit::Gone(path) => disk.unlink(path).unwrap(),
        Hit::Foreign(path) => write_file(disk, path),
        Hit::Longer(path) => {
            let file = disk.open(path, OpenMode::Write).unwrap();
            let end = file.len().unwrap();
            file.write_at(&[7; 300], end, Durability::Later).unwrap();
        }
        Hit::Both(one, other) => {
            disk.flip(&one.0, one.1, 0x10);
            disk.flip(&other.0, other.1, 0x10);
        }
    }
}

/// What a start and everything behind it found.
struct Observed {
    content: Vec<(PartitionId, Everything)>,
    errors: u64,
    torn: u64,
    /// Labels of the errors.
    labels: Vec<(Stage, Source, Reason)>,
}

/// A start, every read, the producers, a pass of the scrubber, what the flusher repairs, and a clean stop.
fn observe(disk: &SimDisk) -> Result<Observed, String> {
    let mut stepped = open(disk)?;
    let mut content = Vec::new();
    for id in stepped.log.partition_ids() {
        let partition = stepped.log.partition(id).unwrap();
        content.push((id, read_everything(&partition, 1 << 16)));
        partition.producers().unwrap();
    }
    stepped.scrub();
    let metrics = stepped.metrics();
    let mut labels = Vec::new();
    for stage in Stage::ALL {
        for source in Source::ALL {
            for reason in Reason::ALL {
                let label = (*stage, *source, *reason);
                let count = metrics.decode_errors_with(label.0, label.1, label.2);
                labels.extend((0..count).map(|_| label));
            }
        }
    }
    let (errors, torn) = (
        metrics.decode_errors_total(),
        metrics.torn_tail_truncations.get(),
    );
    stepped.settle().unwrap();
    stepped.stop().unwrap();
    disk.kill();
    Ok(Observed {
        content,
        errors,
        torn,
        labels,
    })
}

fn check(row: &Row, volume: &Volume, whole: &Observed, hit: &Hit) {
    let what = format!("{}: {hit:?}", row.label);
    let disk = volume.disk.copy(1);
    inflict(&disk, hit);
    let found = match (observe(&disk), row.told) {
        (Err(words), Told::Refused(wanted)) => {
            assert!(words.contains(wanted), "{what}: {words}");
            return;
        }
        (Err(words), _) => panic!("{what}: refused: {words}"),
        (Ok(_), Told::Refused(_)) => panic!("{what}: not refused"),
        (Ok(found), _) => found,
    };
    let ranges = found.content.iter().map(|(_, (_, lost))| lost.len() as u64);
    let (errors, torn, source, reasons) = match row.told {
        Told::Nothing | Told::Refused(_) => (0, 0, Source::Wal, &[][..]),
        Told::Torn => (0, 1, Source::Wal, &[][..]),
        Told::Errors(count, source, reasons) => (count, 0, source, reasons),
        Told::EachEntry(source, reasons) => (found.errors.max(1), 0, source, reasons),
        Told::EachRange(source, reasons) => (ranges.sum(), 0, source, reasons),
    };
    let counted = (found.errors, found.torn);
    assert_eq!(counted, (errors, torn), "{what}: {:?}", found.labels);
    for label in &found.labels {
        let fits = label.1 == source && reasons.contains(&label.2);
        assert!(fits, "{what}: counted as {label:?}");
    }
    let lost = found.content.iter().any(|(_, (_, lost))| !lost.is_empty());
    assert_eq!(lost, row.costs == Costs::Offsets, "{what}: offsets lost");
    match row.costs {
        Costs::Nothing => assert!(found.content == whole.content, "{what}: other content"),
        Costs::LogStart => {
            let both = whole.content.iter().zip(&found.content);
            for ((id, (whole, _)), (_, (found, _))) in both {
                assert!(found.ends_with(whole), "{what}: other content of {id}");
            }
        }
        Costs::Offsets => {}
    }
    let again = observe(&disk).unwrap_or_else(|words| panic!("{what}: again: {words}"));
    assert!(
        again.content == found.content,
        "{what}: other content at the next start"
    );
    assert_eq!(
        (again.errors, again.torn),
        (0, 0),
        "{what}: again: {:?}",
        again.labels
    );
}

fn check_rows(rows: &[Row]) {
    for end in [End::Stopped, End::Killed] {
        let volume = volume(end);
        let whole = observe(&volume.disk.copy(1)).unwrap();
        assert_eq!(
            (whole.errors, whole.torn),
            (0, 0),
            "{end:?}: {:?}",
            whole.labels
        );
        for row in rows.iter().filter(|row| row.end == end) {
            let hits = (row.hits)(&volume);
            assert!(!hits.is_empty(), "{}: nothing to damage", row.label);
            for hit in &hits {
                check(row, &volume, &whole, hit);
            }
        }
    }
}

#[test]
fn damage_to_the_files_of_the_directory_is_told_and_counted() {
    check_rows(&directory_rows());
}

#[test]
fn damage_to_the_wal_is_told_and_counted() {
    check_rows(&wal_rows());
}

#[test]
fn damage_to_a_partition_is_told_and_counted() {
    check_rows(&partition_rows());
}

/// The rows reach every class that is in use, and no two have the same name.
#[test]
fn every_class_of_bytes_has_a_row() {
    let rows = rows();
    let labels: BTreeSet<&str> = rows.iter().map(|row| row.label).collect();
    assert_eq!(labels.len(), rows.len());
    let mut reached = BTreeSet::new();
    let mut all = BTreeSet::new();
    for end in [End::Stopped, End::Killed] {
        let volume = volume(end);
        all.extend(volume.spans.iter().map(|span| span.class));
        for row in rows
            .iter()
            .filter(|row| row.end == end && !matches!(row.told, Told::Nothing))
        {
            for hit in (row.hits)(&volume) {
                if let Hit::Flip(path, at) = hit {
                    reached.extend(super::in_use::classes(&volume.spans, &path, at, at + 1));
                }
            }
        }
    }
    assert_eq!(all.len(), 11, "the fixture has some of each: {all:?}");
    assert_eq!(reached, all);
}
