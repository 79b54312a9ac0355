//! `accepted-losses`: the ranges that somebody has given up by `log accept-loss`, kept for ever.
//!
//! Owns that file and its bytes, and which offsets of a partition are given up. Never decides whether a range may be given
//! up ([`crate::accept`] does), and never hides bytes that can be read: a range given up only makes what cannot be read
//! no error any more.
//!
//! ```text
//!   0  magic "KEELLOSS"        8
//!   8  version u16 (1), zero u16
//!  12  length u32 (with CRC)
//!  16  records u32
//!  20  records, in the order in which they were accepted; CRC u32 of all before
//!   record  topic id (16), partition i32, accepted i64 (Unix ms), then a range as in a partition's manifest (from i64,
//!           to i64, position u64, since i64, stage, source, reason, file), then topic, by
//!   text    length u8, UTF-8
//! ```
//! Little-endian. The file is written anew beside the old one, synced, and renamed over it.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, Durability, OpenMode};
use crate::files::read_up_to;
use crate::health::UnhealthyRange;
use crate::ids::{PartitionId, TopicId};
use crate::metrics::{Reason, Source};
use crate::partition::format::{
    Cursor, checked_body, put_i64, put_range, put_text, put_u16, put_u32, take_range,
};

/// The file's name in the data directory.
pub(crate) const LOSSES: &str = "accepted-losses";
/// The next form of it; a crash may leave it.
const LOSSES_NEW: &str = "accepted-losses.new";
const MAGIC: &[u8; 8] = b"KEELLOSS";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 20;
const CRC_BYTES: usize = 4;
/// The file is never longer: more than ten thousand losses are no list that a person reads.
pub(crate) const LOSSES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// In place of a partition: a whole commit group of which nobody knows what it held; its number is both offsets.
pub(crate) const GROUP: PartitionId = PartitionId {
    topic: TopicId([0; 16]),
    index: -1,
};

/// A range that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// What could not be read, where, and why. Its partition is set, unless it is a whole commit group.
    pub range: UnhealthyRange,
    /// The topic's name at that time.
    pub topic: String,
    /// Who ran the command: user id and host.
    pub by: String,
    /// When, Unix time in ms.
    pub accepted_ms: i64,
}

impl AcceptedLoss {
    /// The commit group, if a whole one was given up.
    pub fn group(&self) -> Option<u64> {
        let is_group = self.range.partition == Some(GROUP);
        is_group.then(|| u64::try_from(self.range.from).unwrap_or(0))
    }
}

/// Everything that was given up.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    all: Vec<AcceptedLoss>,
    by_partition: HashMap<PartitionId, GivenUp>,
    groups: BTreeSet<u64>,
}

/// What of one partition is given up.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenUp {
    /// Inclusive offset ranges, ascending and apart.
    pub(crate) ranges: Vec<(i64, i64)>,
    /// Those that were lost in the WAL: no segment has bytes for them.
    pub(crate) without_bytes: Vec<(i64, i64)>,
}

impl GivenUp {
    /// The first offset at or behind `offset` that is not given up.
    pub(crate) fn behind(&self, offset: i64) -> i64 {
        let mut next = offset;
        for (from, to) in &self.ranges {
            if (*from..=*to).contains(&next) {
                next = to + 1;
            }
        }
        next
    }
}

impl Losses {
    pub(crate) fn new(all: Vec<AcceptedLoss>) -> Self {
        let mut by_partition: HashMap<PartitionId, GivenUp> = HashMap::new();
        let groups = all.iter().filter_map(AcceptedLoss::group).collect();
        for AcceptedLoss { range, .. } in all.iter().filter(|loss| loss.group().is_none()) {
            let Some(id) = range.partition else { continue };
            let given_up = by_partition.entry(id).or_default();
            given_up.ranges.push((range.from, range.to));
            if range.source == Source::Wal {
                given_up.without_bytes.push((range.from, range.to));
            }
        }
        for given_up in by_partition.values_mut() {
            given_up.ranges = joined(std::mem::take(&mut given_up.ranges));
            given_up.without_bytes.sort_unstable();
        }
        Losses {
            all,
            by_partition,
            groups,
        }
    }

    /// In the order in which they were accepted.
    pub(crate) fn all(&self) -> &[AcceptedLoss] {
        &self.all
    }

    /// Commit groups that were given up whole.
    pub(crate) fn groups(&self) -> &BTreeSet<u64> {
        &self.groups
    }

    /// What of a partition is given up; nothing of most.
    pub(crate) fn of(&self, id: PartitionId) -> Option<&GivenUp> {
        self.by_partition.get(&id)
    }
}

/// Ranges in order, those that touch made one.
fn joined(mut ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    ranges.sort_unstable();
    let mut out: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match out.last_mut() {
            Some(last) if from <= last.1 + 1 => last.1 = last.1.max(to),
            Some(_) | None => out.push((from, to)),
        }
    }
    out
}

/// The parts of `from..=to` that none of `known` (ascending) covers.
pub(crate) fn uncovered(
    known: impl IntoIterator<Item = (i64, i64)>,
    from: i64,
    to: i64,
) -> Vec<(i64, i64)> {
    let mut rest = Vec::new();
    let mut next = from;
    for (first, last) in known {
        if first > to || next > to {
            break;
        }
        if first > next {
            rest.push((next, first - 1));
        }
        next = next.max(last + 1);
    }
    if next <= to {
        rest.push((next, to));
    }
    rest
}

/// Ranges without what is given up.
pub(crate) fn without(
    ranges: &[UnhealthyRange],
    given_up: Option<&GivenUp>,
) -> Vec<UnhealthyRange> {
    let Some(given_up) = given_up else {
        return ranges.to_vec();
    };
    let parts = ranges.iter().flat_map(|range| {
        let rest = uncovered(given_up.ranges.iter().copied(), range.from, range.to);
        rest.into_iter().map(|(from, to)| UnhealthyRange {
            from,
            to,
            ..range.clone()
        })
    });
    parts.collect()
}

/// What reading the file brought.
pub(crate) enum Read {
    /// What was given up; nothing where there is no file.
    Losses(Losses),
    /// The file does not verify.
    Damaged(Reason),
}

/// Reads the file of a data directory.
pub(crate) fn read(disk: &dyn Disk, data_dir: &Path) -> io::Result<Read> {
    let file = match disk.open(&data_dir.join(LOSSES), OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Read::Losses(Losses::default()));
        }
        Err(e) => return Err(e),
    };
    let length = file.len()?.min(LOSSES_BYTES_MAX as u64 + 1);
    let mut bytes = vec![0; length as usize];
    let read = match read_up_to(&*file, &mut bytes, 0) {
        Ok(read) => read,
        Err(e) if crate::files::is_medium_error(&e) => return Ok(Read::Damaged(Reason::Io)),
        Err(e) => return Err(e),
    };
    Ok(match decode(&bytes[..read]) {
        Ok(all) => Read::Losses(Losses::new(all)),
        Err(reason) => Read::Damaged(reason),
    })
}

/// Replaces the file, durably.
pub(crate) fn write(disk: &Arc<dyn Disk>, data_dir: &Path, all: &[AcceptedLoss]) -> io::Result<()> {
    let bytes = encode(all);
    if bytes.len() > LOSSES_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it would have {} bytes, and holds at most {LOSSES_BYTES_MAX}",
            bytes.len()
        )));
    }
    let new = data_dir.join(LOSSES_NEW);
    let file = disk.open(&new, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(&bytes, 0, Durability::Later)?;
    file.sync_data()?;
    disk.rename(&new, &data_dir.join(LOSSES))?;
    disk.sync_dir(data_dir)
}

fn encode(all: &[AcceptedLoss]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    put_u16(&mut out, VERSION);
    put_u16(&mut out, 0);
    put_u32(&mut out, 0);
    put_u32(&mut out, all.len() as u32);
    assert_eq!(out.len(), FIXED_BYTES, "the layout and its constant agree");
    for loss in all {
        let id = loss
            .range
            .partition
            .expect("a range that is given up is of a partition");
        out.extend_from_slice(&id.topic.0);
        put_u32(&mut out, id.index as u32);
        put_i64(&mut out, loss.accepted_ms);
        put_range(&mut out, &loss.range);
        put_text(&mut out, &loss.topic);
        put_text(&mut out, &loss.by);
    }
    let length = (out.len() + CRC_BYTES) as u32;
    out[12..16].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    put_u32(&mut out, crc);
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<AcceptedLoss>, Reason> {
    let body = checked_body(bytes, MAGIC, FIXED_BYTES, LOSSES_BYTES_MAX)?;
    let mut c = Cursor { rest: &body[16..] };
    let count = c.u32()?;
    let mut all = Vec::new();
    for _ in 0..count {
        let id = PartitionId {
            topic: TopicId(c.take::<16>()?),
            index: c.u32()? as i32,
        };
        let accepted_ms = c.i64()?;
        all.push(AcceptedLoss {
            range: take_range(&mut c, id)?,
            topic: c.text()?,
            by: c.text()?,
            accepted_ms,
        });
    }
    if c.rest.is_empty() && bytes.len() == body.len() + CRC_BYTES {
        Ok(all)
    } else {
        Err(Reason::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, SimFaults};
    use crate::metrics::Stage;

    fn loss(from: i64, to: i64, source: Source) -> AcceptedLoss {
        AcceptedLoss {
            range: UnhealthyRange {
                partition: Some(PartitionId {
                    topic: TopicId(*b"0123456789abcdef"),
                    index: 7,
                }),
                from,
                to,
                file: "p/x/7/00000000000000000000.log".to_owned(),
                position: 4096,
                reason: Reason::BatchCrc,
                source,
                stage: Stage::Scrub,
                since_ms: 77,
            },
            topic: "orders".to_owned(),
            by: "uid 1000 on host".to_owned(),
            accepted_ms: 88,
        }
    }

    #[test]
    fn the_file_round_trips_and_any_flipped_byte_is_noticed() {
        let all = vec![loss(5, 9, Source::Segment), loss(20, 20, Source::Wal)];
        let bytes = encode(&all);
        assert_eq!(decode(&bytes), Ok(all));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(decode(&longer), Err(Reason::Length));
    }

    #[test]
    fn the_file_golden() {
        let bytes = encode(&[loss(5, 9, Source::Segment)]);
        assert_eq!(&bytes[..20], b"KEELLOSS\x01\0\0\0\xa3\0\0\0\x01\0\0\0");
        assert_eq!(bytes.len(), 20 + 28 + 32 + 6 + 8 + 10 + 31 + 7 + 17 + 4);
    }

    #[test]
    fn a_power_cut_leaves_the_old_list_or_the_new_one() {
        let dir = Path::new("/data");
        let old = vec![loss(5, 9, Source::Segment)];
        let new = vec![loss(5, 9, Source::Segment), loss(20, 20, Source::Wal)];
        for cut_after in 0..8 {
            for seed in 0..20 {
                let sim = SimDisk::new(seed);
                let disk: Arc<dyn Disk> = Arc::new(sim.clone());
                disk.create_dir_all(dir).unwrap();
                disk.sync_dir(Path::new("/")).unwrap();
                write(&disk, dir, &old).unwrap();
                sim.set_faults(SimFaults {
                    cut_at: Some(sim.operations() + 1 + cut_after),
                    ..SimFaults::default()
                });
                let written = write(&disk, dir, &new).is_ok();
                sim.power_cut();
                let Read::Losses(found) = read(disk.as_ref(), dir).unwrap() else {
                    panic!("damaged after a cut at {cut_after}, seed {seed}");
                };
                let wanted = if written { &new } else { &old };
                assert!(
                    found.all() == wanted || !written && found.all() == new,
                    "cut at {cut_after}, seed {seed}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_covered() {
        let check = |known: &[(i64, i64)], from, to, wanted: &[(i64, i64)]| {
            assert_eq!(
                uncovered(known.iter().copied(), from, to),
                wanted,
                "{known:?}"
            );
        };
        check(&[], 3, 5, &[(3, 5)]);
        check(&[(0, 2), (6, 9)], 3, 5, &[(3, 5)]);
        check(&[(0, 3), (5, 9)], 3, 5, &[(4, 4)]);
        check(&[(4, 4)], 3, 5, &[(3, 3), (5, 5)]);
        check(&[(0, 9)], 3, 5, &[]);
        check(&[(3, 4), (5, 5)], 3, 5, &[]);
        check(&[(3, 4)], 7, 6, &[]);
    }

    #[test]
    fn ranges_that_touch_are_passed_in_one_step() {
        let losses = Losses::new(vec![
            loss(10, 19, Source::Wal),
            loss(5, 9, Source::Segment),
            loss(30, 30, Source::Segment),
        ]);
        let given_up = losses.of(loss(0, 0, Source::Wal).range.partition.unwrap());
        let given_up = given_up.unwrap();
        assert_eq!(given_up.ranges, [(5, 19), (30, 30)]);
        assert_eq!(given_up.without_bytes, [(10, 19)]);
        assert_eq!(
            [4, 5, 12, 20, 30].map(|o| given_up.behind(o)),
            [4, 20, 20, 20, 31]
        );
    }
}
