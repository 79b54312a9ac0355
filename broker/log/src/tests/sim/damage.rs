//! A disk that lies: flipped bits, wiped sectors, blocks that cannot be read, writes that went astray.
//!
//! Owns one rule: whatever was acknowledged is read back as it was (less what a compaction may remove), or it is told (an
//! error at its offsets and a counter above 0), or the start is refused in words. Never other bytes, never an offset twice,
//! never silence: an injury to bytes in use moves a counter, whether it costs something or is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use keelson_protocol::batch::BatchHeader;

use super::life::{Act, DIR, Life, PARTS, sim_options};
use super::points::{number, random_act};
use super::told::{Content, Record, Sent, Told, records_of};
use crate::disk::{Astray, BLOCK_BYTES, SimDisk, SimFaults};
use crate::partition::slots::MANIFEST;
use crate::stepped::Stepped;
use crate::tests::in_use::{Class, Span, classes, spans};
use crate::tests::support::{Rng, read_everything};
use crate::{Partition, PartitionId};

/// What became of a damaged disk.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    refused: u64,
    told: u64,
    harmless: u64,
    /// Lives with a segment that compaction wrote.
    compacted: u64,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.refused += other.refused;
        self.told += other.told;
        self.harmless += other.harmless;
        self.compacted += other.compacted;
    }
}

/// What must be there of a partition, and what may be.
struct Truth {
    id: PartitionId,
    log_start: i64,
    content: Content,
    sent: Vec<Sent>,
    /// Whether a compaction ran, and the offsets of records that it may have taken away.
    is_compacted: bool,
    removable: BTreeSet<i64>,
    /// Whether nothing is promised of it.
    is_outside: bool,
}

impl Truth {
    /// `whole`: everything that was sent is acknowledged.
    fn of(told: &Told, whole: bool) -> Truth {
        Truth {
            id: told.id,
            log_start: told.log_start,
            content: match whole {
                true => told.content(told.ops.len()),
                false => told.certain(),
            },
            sent: told.sent(),
            is_compacted: told.compacted_to > 0,
            removable: told.removable.clone(),
            is_outside: false,
        }
    }

    /// Whether every record that must still be there of a batch is, or is told to be lost.
    fn has_what_counts(&self, sent: &Sent, found: &BTreeMap<i64, Record>, lost: &Lost) -> bool {
        self.is_compacted
            && records_of(&sent.bytes).into_iter().all(|(offset, record)| {
                offset < self.log_start
                    || self.removable.contains(&offset)
                    || found.get(&offset) == Some(&record)
                    || lost.covers(offset, offset)
            })
    }

    /// Whether a batch was sent, or has only records that were sent at these offsets.
    fn knows(&self, base: i64, bytes: &[u8]) -> bool {
        let sent = || self.sent.iter();
        let is_verbatim = sent().any(|sent| sent.base == base && sent.bytes == bytes);
        is_verbatim
            || self.is_compacted
                && records_of(bytes).into_iter().all(|(offset, record)| {
                    let of = sent().filter(|sent| (sent.base..=sent.last).contains(&offset));
                    of.flat_map(|sent| records_of(&sent.bytes))
                        .any(|sent| sent == (offset, record.clone()))
                })
    }
}

/// Ranges that answer with an error, ascending.
struct Lost(Vec<(i64, i64)>);

impl Lost {
    /// In one range or in several that follow each other.
    fn covers(&self, from: i64, to: i64) -> bool {
        let reach = self
            .0
            .iter()
            .fold(from, |next, (first, last)| match *first <= next {
                true => next.max(*last + 1),
                false => next,
            });
        reach > to
    }
}

/// Starts on a damaged disk and holds what it finds against the truth. `before`: errors that the run before has counted; what
/// it has entered into a manifest is not counted again. `astray`: whose batches a write may have put over others'.
fn observe(
    disk: &SimDisk,
    (truth, astray): (&[Truth], &[Truth]),
    before: u64,
    what: &str,
) -> Outcome {
    let stepped = match Stepped::open(disk, sim_options()) {
        Ok(stepped) => stepped,
        Err(error) => {
            let words = error.to_string();
            assert!(
                words.contains(DIR),
                "{what}: refused without a place: {words}"
            );
            return Outcome {
                refused: 1,
                ..Outcome::default()
            };
        }
    };
    let mut lost_any = false;
    for id in stepped.log.partition_ids() {
        let partition = stepped.log.partition(id).expect("listed");
        partition
            .producers()
            .unwrap_or_else(|error| panic!("{what}: {id}: {error}"));
    }
    for one in truth.iter().filter(|one| !one.is_outside) {
        let Some(partition) = stepped.log.partition(one.id) else {
            assert_eq!(one.content.next, 0, "{what}: {} is gone", one.id);
            continue;
        };
        lost_any |= check_partition(&partition, (one, astray), what);
    }
    let metrics = stepped.metrics();
    assert!(
        before + metrics.decode_errors_total() > 0 || !lost_any,
        "{what}: lost without a word"
    );
    // What nobody has asked for is seen by the scrubber.
    stepped.scrub();
    let told = metrics.decode_errors_total() + metrics.torn_tail_truncations.get();
    Outcome {
        told: u64::from(told > 0),
        harmless: u64::from(told == 0),
        ..Outcome::default()
    }
}

/// Returns whether offsets are lost.
fn check_partition(partition: &Partition, (truth, astray): (&Truth, &[Truth]), what: &str) -> bool {
    let Truth {
        log_start, content, ..
    } = truth;
    let log_start = *log_start;
    let (batches, lost) = read_everything(partition, 1 << 16);
    assert!(
        partition.next_offset() >= content.next,
        "{what}: {partition:?}: offsets up to {} were used",
        content.next
    );
    assert!(
        partition.log_start() <= log_start.max(content.next),
        "{what}: {partition:?}: the log started at {log_start}"
    );
    let lost = Lost(lost);
    // The window of `docs/log-format.md`: a write that goes astray over a part of an extent is told at its edges, and whole
    // batches of the other partition that it puts between them are served where their offsets fit.
    let is_anothers = |base: i64, bytes: &[u8]| {
        let others = astray.iter().filter(|other| other.id != truth.id);
        let mut sent = others.flat_map(|other| &other.sent);
        !lost.0.is_empty() && sent.any(|sent| sent.base == base && sent.bytes == bytes)
    };
    let posing = batches
        .iter()
        .filter(|(base, bytes)| is_anothers(*base, bytes));
    let posing =
        posing.map(|(base, bytes)| (*base, BatchHeader::parse(bytes).unwrap().last_offset()));
    let mut told_or_posed = Lost(lost.0.iter().copied().chain(posing).collect());
    told_or_posed.0.sort_unstable();
    let records = batches.iter().flat_map(|(_, bytes)| records_of(bytes));
    let records: BTreeMap<i64, Record> = records.collect();
    for sent in content.batches.iter().filter(|sent| sent.last >= log_start) {
        let found: Vec<_> = batches
            .iter()
            .filter(|(base, _)| *base == sent.base)
            .collect();
        let same = found.len() == 1 && found[0].1 == sent.bytes;
        let reaches = sent.base.max(partition.log_start());
        let is_told = found.is_empty() && told_or_posed.covers(reaches, sent.last);
        let is_anothers = found.len() == 1 && is_anothers(sent.base, &found[0].1);
        assert!(
            same || is_told || is_anothers || truth.has_what_counts(sent, &records, &lost),
            "{what}: {partition:?}: the batch at {}..={} is there {} times; lost {:?}",
            sent.base,
            sent.last,
            found.len(),
            lost.0
        );
    }
    let mut next = partition.log_start();
    for (base, bytes) in &batches {
        assert!(
            *base <= next || *base <= log_start || lost.covers(next.max(log_start), base - 1),
            "{what}: {partition:?}: nothing from {next} to {base}; lost {:?}",
            lost.0
        );
        let is_first = next == partition.log_start();
        assert!(
            *base >= next || is_first,
            "{what}: {partition:?}: {base} is there twice"
        );
        next = BatchHeader::parse(bytes).unwrap().last_offset() + 1;
        assert!(
            *base < log_start || truth.knows(*base, bytes) || is_anothers(*base, bytes),
            "{what}: {partition:?}: nobody wrote the batch at {base}"
        );
    }
    !lost.0.is_empty()
}

/// A life that comes to rest: everything acknowledged, the last group with its witness.
fn at_rest(seed: u64, rng: &mut Rng) -> (Life, Vec<Truth>) {
    let mut life = Life::new(seed);
    life.start().expect("a good disk");
    let mut acts: Vec<Act> = (0..30 + rng.below(40)).map(|_| random_act(rng)).collect();
    if rng.below(2) == 0 {
        acts.extend([Act::Restart]);
    }
    acts.extend([Act::Append(0), Act::Append(1), Act::Write, Act::Seal]);
    if rng.below(2) == 0 {
        acts.push(Act::Settle);
    }
    acts.extend(closing(rng));
    let mut run = |acts: &[Act]| {
        let result = life.run(acts);
        result.unwrap_or_else(|_| panic!("seed {seed}: {}", life.reason()));
        life.is_durable()
    };
    let mut is_durable = run(&acts);
    // A write is one group of what is queued, and waits where the log is full.
    for _ in 0..10 {
        is_durable = is_durable || run(&[Act::Settle, Act::Write, Act::Seal]);
    }
    assert!(is_durable, "seed {seed}: not at rest");
    let truth = life.told().map(|told| Truth::of(told, true)).collect();
    life.end();
    life.disk.kill();
    (life, truth)
}

/// Often a compaction of what there is, and more behind it.
fn closing(rng: &mut Rng) -> Vec<Act> {
    let part = rng.below(PARTS as u64) as usize;
    let mut acts = [Act::Append(part), Act::Write, Act::Flush(part)].repeat(8);
    acts.extend([Act::Compact(part), Act::Append(part), Act::Write, Act::Seal]);
    acts.truncate(acts.len() * rng.below(2) as usize);
    acts
}

fn is_compacted(disk: &SimDisk) -> bool {
    let files = disk.files(Path::new(DIR)).into_iter();
    let mut logs = files.filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.any(|path| path.to_string_lossy().contains("-1.log"))
}

/// A place that is not in a stretch of zeros.
fn place(disk: &SimDisk, rng: &mut Rng) -> (PathBuf, u64) {
    let files = disk.files(Path::new(DIR));
    for _ in 0..1000 {
        let path = &files[rng.below(files.len() as u64) as usize];
        let bytes = disk.contents(path).unwrap_or_default();
        if bytes.is_empty() {
            continue;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        if bytes[at..bytes.len().min(at + 64)]
            .iter()
            .any(|byte| *byte != 0)
        {
            return (path.clone(), at as u64);
        }
    }
    panic!("a directory of zeros");
}

/// Batches and entries do not say whose they are, and can fit by chance where all segments begin at offset 0: one of the
/// windows that `docs/log-format.md` names. A whole extent is in `found`.
fn can_pose(from: &Path, over: &Path) -> bool {
    let in_segments = ["log", "sum", "idx"].map(Some);
    let extension = from.extension().map(|extension| extension.to_str());
    extension == over.extension().map(|extension| extension.to_str())
        && from.parent() != over.parent()
        && extension.is_some_and(|extension| in_segments.contains(&extension))
}

/// What was done to the disk.
struct Injury {
    what: String,
    path: PathBuf,
    /// The bytes that are not what they were.
    changed: Vec<u64>,
    is_flip: bool,
}

impl Injury {
    /// Whether something that is in use was hit. The last group, which nobody testifies for, may end without a trace if
    /// all of its headers are gone.
    fn must_be_told(&self, spans: &[Span]) -> bool {
        let hit = |at: &u64| classes(spans, &self.path, *at, at + 1);
        let mut hit: BTreeSet<Class> = self.changed.iter().flat_map(hit).collect();
        if !self.is_flip {
            hit.remove(&Class::LastGroup);
        }
        !hit.is_empty()
    }
}

/// Does one thing to the disk and says what.
fn injure(disk: &SimDisk, rng: &mut Rng) -> Injury {
    let (path, at) = place(disk, rng);
    let before = disk.contents(&path).unwrap_or_default();
    let length = before.len() as u64;
    let sector = at / 512 * 512;
    let count = 512.min(length - sector) as usize;
    let name = path.display();
    let kind = rng.below(8);
    let what = match kind {
        0..5 => {
            let bit = rng.below(8);
            disk.flip(&path, at, 1 << bit);
            format!("bit {bit} of {name}+{at} flipped")
        }
        5 => {
            disk.overwrite(&path, sector, &vec![0; count]);
            format!("{name}+{sector} wiped")
        }
        6 => {
            let (from, there) = loop {
                let (from, there) = place(disk, rng);
                if !can_pose(&from, &path) {
                    break (from, there);
                }
            };
            let bytes = disk.contents(&from).unwrap_or_default();
            let start = there as usize / 512 * 512;
            let bytes = &bytes[start..bytes.len().min(start + count)];
            disk.overwrite(&path, sector, bytes);
            format!(
                "{name}+{sector} overwritten with {}+{start}",
                from.display()
            )
        }
        _ => {
            disk.break_block(&path, at);
            format!("{name}+{at} cannot be read")
        }
    };
    let block = at / BLOCK_BYTES as u64;
    let changed = match kind {
        7 => block * BLOCK_BYTES as u64..length.min((block + 1) * BLOCK_BYTES as u64),
        _ => 0..length,
    };
    let after = disk.contents(&path).unwrap_or_default();
    let differs = |at: &u64| kind == 7 || before[*at as usize] != after[*at as usize];
    Injury {
        what,
        changed: changed.filter(differs).collect(),
        path,
        is_flip: kind < 5,
    }
}

const INJURIES: u64 = 20;

fn injured_life(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed ^ 0xda3a6e);
    let (life, truth) = at_rest(seed, &mut rng);
    let spans = spans(&life.disk, Path::new(DIR));
    let mut sum = Outcome {
        compacted: u64::from(is_compacted(&life.disk)),
        ..Outcome::default()
    };
    for number in 0..INJURIES {
        let disk = life.disk.copy(seed + number);
        let injury = injure(&disk, &mut rng);
        let what = format!("seed {seed}, injury {number}: {}", injury.what);
        let first = observe(&disk, (&truth, &[]), 0, &what);
        assert!(
            first.harmless == 0 || !injury.must_be_told(&spans),
            "{what}: it was in use, and nothing was counted"
        );
        disk.kill();
        let what = format!("{what}, started again");
        observe(&disk, (&truth, &[]), first.told, &what);
        sum.add(first);
    }
    sum
}

/// A write in the middle of a life is acknowledged and goes astray; life goes on, then the power fails.
fn misled_life(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed ^ 0xa57a);
    let mut life = Life::new(seed);
    life.start().expect("a good disk");
    let how = match rng.below(2) {
        0 => Astray::Lost,
        _ => Astray::Elsewhere,
    };
    let at = life.disk.operations() + 1 + rng.below(120);
    life.disk.set_faults(SimFaults {
        astray_at: Some((at, how)),
        ..SimFaults::default()
    });
    let what = format!("seed {seed}: write {at} goes {how:?}");
    let mut acts: Vec<Act> = (0..50).map(|_| random_act(&mut rng)).collect();
    acts.retain(|act| *act != Act::Restart);
    acts.extend(closing(&mut rng));
    // Witnesses for whatever was written last.
    acts.extend([
        Act::Append(0),
        Act::Write,
        Act::Settle,
        Act::Append(1),
        Act::Write,
        Act::Seal,
    ]);
    if life.run(&acts).is_err() {
        // The log saw that something is not as it was, and ended in words.
        assert!(!life.reason().is_empty(), "{what}");
    }
    let mut truth: Vec<Truth> = life.told().map(|told| Truth::of(told, false)).collect();
    let before = life.decode_errors();
    life.end();
    life.disk.power_cut();
    if let Some(folder) = slot_over_its_segment(&life.disk) {
        for one in &mut truth {
            one.is_outside = folder.ends_with(format!("{}/{}", one.id.topic, one.id.index));
        }
    }
    Outcome {
        compacted: u64::from(is_compacted(&life.disk)),
        ..observe(&life.disk, (&truth, &truth), before, &what)
    }
}

/// The window of `docs/log-format.md`: a slot that was written over the batches that it counts is lost together with what would
/// prove it. Returns the partition's folder.
fn slot_over_its_segment(disk: &SimDisk) -> Option<PathBuf> {
    let (meant, hit) = disk.went_astray()?;
    let folder = meant.parent()?;
    let is_own = meant.ends_with(MANIFEST) && hit.parent() == Some(folder);
    is_own.then(|| folder.to_owned())
}

/// One life is replayed: it need not have everything.
fn is_one() -> bool {
    number("KEELSON_SEED").is_some()
}

fn lives(name: &str, count: u64, life: fn(u64) -> Outcome) -> Outcome {
    let mut sum = Outcome::default();
    let first = number("KEELSON_SEED").unwrap_or(1);
    let count = number("KEELSON_SIM_POINTS").map_or(count, |points| points / 50);
    let count = number("KEELSON_SEED").map_or(count, |_| 1);
    for seed in first..first + count {
        let outcome = catch_unwind(|| life(seed)).unwrap_or_else(|panic| {
            println!("KEELSON_SEED={seed} replays this life");
            resume_unwind(panic)
        });
        sum.add(outcome);
    }
    println!("{name}: {count} lives from seed {first}: {sum:?}");
    sum
}

#[test]
fn an_injured_disk_is_read_back_or_told_about() {
    let sum = lives("injuries", 60, injured_life);
    let enough = sum.told > sum.refused && sum.compacted > 10;
    assert!(enough || is_one(), "{sum:?}");
}

#[test]
fn a_write_that_went_astray_is_read_back_or_told_about() {
    let sum = lives("writes astray", 300, misled_life);
    assert!(sum.compacted > 50 || is_one(), "{sum:?}");
}
