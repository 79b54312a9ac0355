//! A disk that lies: flipped bits, wiped sectors, blocks that cannot be read, writes that went astray.
//!
//! Owns one rule: whatever was acknowledged is read back as it was, or it is told (an error at its offsets and a counter
//! above 0), or the start is refused in words. Never other bytes, never an offset twice, never silence.

use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use super::life::{Act, DIR, Life, sim_options};
use super::points::{number, random_act};
use super::told::{Content, Sent, Told};
use crate::disk::{Astray, SimDisk, SimFaults};
use crate::stepped::Stepped;
use crate::tests::support::{Rng, read_everything};
use crate::{Partition, PartitionId};

/// What became of a damaged disk.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    refused: u64,
    told: u64,
    harmless: u64,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.refused += other.refused;
        self.told += other.told;
        self.harmless += other.harmless;
    }
}

/// What must be there of a partition, and what may be.
struct Truth {
    id: PartitionId,
    log_start: i64,
    content: Content,
    sent: Vec<Sent>,
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
        }
    }
}

/// Starts on a damaged disk and holds what it finds against the truth.
fn observe(disk: &SimDisk, truth: &[Truth], what: &str) -> Outcome {
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
    for truth in truth {
        let Some(partition) = stepped.log.partition(truth.id) else {
            assert_eq!(truth.content.next, 0, "{what}: {} is gone", truth.id);
            continue;
        };
        lost_any |= check_partition(&partition, truth, what);
    }
    let errors = stepped.metrics().decode_errors_total();
    assert!(errors > 0 || !lost_any, "{what}: lost without a word");
    Outcome {
        told: u64::from(errors > 0),
        harmless: u64::from(errors == 0),
        ..Outcome::default()
    }
}

/// Returns whether offsets are lost.
fn check_partition(partition: &Partition, truth: &Truth, what: &str) -> bool {
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
    for sent in content.batches.iter().filter(|sent| sent.last >= log_start) {
        let found: Vec<_> = batches
            .iter()
            .filter(|(base, _)| *base == sent.base)
            .collect();
        let same = found.len() == 1 && found[0].1 == sent.bytes;
        let reaches = sent.base.max(partition.log_start());
        // In one range or in several that follow each other.
        let told_up_to = lost.iter().fold(reaches, |next, (from, to)| {
            if *from <= next {
                next.max(*to + 1)
            } else {
                next
            }
        });
        let is_told = told_up_to > sent.last;
        assert!(
            same || (is_told && found.is_empty()),
            "{what}: {partition:?}: the batch at {}..={} is there {} times; lost {lost:?}",
            sent.base,
            sent.last,
            found.len()
        );
    }
    for (base, bytes) in batches.iter().filter(|(base, _)| *base >= log_start) {
        let known = truth
            .sent
            .iter()
            .any(|sent| sent.base == *base && sent.bytes == *bytes);
        assert!(
            known,
            "{what}: {partition:?}: nobody wrote the batch at {base}"
        );
    }
    !lost.is_empty()
}

/// Whether batches stay as they were sent: what is compacted is damaged in `tests::compaction`.
fn is_verbatim(act: &Act) -> bool {
    !matches!(act, Act::Compact(_))
}

/// A life that comes to rest: everything acknowledged, the last group with its witness.
fn at_rest(seed: u64, rng: &mut Rng) -> (Life, Vec<Truth>) {
    let mut life = Life::new(seed);
    life.start().expect("a good disk");
    let mut acts: Vec<Act> = (0..30 + rng.below(40)).map(|_| random_act(rng)).collect();
    acts.retain(is_verbatim);
    if rng.below(2) == 0 {
        acts.extend([Act::Restart]);
    }
    acts.extend([Act::Append(0), Act::Append(1), Act::Write, Act::Seal]);
    if rng.below(2) == 0 {
        acts.push(Act::Settle);
    }
    life.run(&acts)
        .unwrap_or_else(|_| panic!("seed {seed}: {}", life.reason()));
    let truth = life.told().map(|told| Truth::of(told, true)).collect();
    life.end();
    life.disk.kill();
    (life, truth)
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

/// Does one thing to the disk and says what.
fn injure(disk: &SimDisk, rng: &mut Rng) -> String {
    let (path, at) = place(disk, rng);
    let length = disk.contents(&path).map_or(0, |bytes| bytes.len() as u64);
    let sector = at / 512 * 512;
    let count = 512.min(length - sector) as usize;
    let name = path.display();
    match rng.below(8) {
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
    }
}

const INJURIES: u64 = 20;

fn injured_life(seed: u64) -> Outcome {
    let mut rng = Rng::new(seed ^ 0xda3a6e);
    let (life, truth) = at_rest(seed, &mut rng);
    let mut sum = Outcome::default();
    for number in 0..INJURIES {
        let disk = life.disk.copy(seed + number);
        let what = format!("seed {seed}, injury {number}: {}", injure(&disk, &mut rng));
        let first = observe(&disk, &truth, &what);
        disk.kill();
        observe(&disk, &truth, &format!("{what}, started again"));
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
    acts.retain(|act| *act != Act::Restart && is_verbatim(act));
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
    let truth: Vec<Truth> = life.told().map(|told| Truth::of(told, false)).collect();
    life.end();
    life.disk.power_cut();
    observe(&life.disk, &truth, &what)
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
    assert!(sum.told > sum.refused, "{sum:?}");
}

#[test]
fn a_write_that_went_astray_is_read_back_or_told_about() {
    lives("writes astray", 300, misled_life);
}
