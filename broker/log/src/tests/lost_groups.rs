//! Commit groups of which nobody knows what they held: the start stops in words, and goes on only after somebody has given
//! them up; then no offset is used twice, and what can be read is read.

use std::path::Path;
use std::sync::Arc;

use super::sim::sim_options;
use super::support::{
    EPOCH, Everything, Rng, append_in, batch, groups, open_partition, partition_id, read,
    read_everything, verify,
};
use crate::accept::group::accept_group_on;
use crate::accept::{AcceptRequest, GroupRequest, KnownPartition, accept_loss_on};
use crate::disk::{BLOCK_BYTES, Disk, OpenMode, SimDisk};
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::stepped::Stepped;
use crate::wal::format::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES};
use crate::wal::{FrameBody, RecoveredGroup};
use crate::{AcceptedLoss, Partition, PartitionConfig, PartitionId};

const DIR: &str = "/data";
/// Has appends behind the lost group.
const GOES_ON: (u8, i32) = (1, 0);
/// Its last append is in the lost group.
const ENDS: (u8, i32) = (2, 0);
/// All it has is in the lost group.
const BEGINS: (u8, i32) = (3, 0);
/// Its segments reflect everything.
const FLUSHED: (u8, i32) = (4, 0);

fn id((topic, index): (u8, i32)) -> PartitionId {
    partition_id(topic, index)
}

fn part(stepped: &Stepped, name: (u8, i32)) -> Arc<Partition> {
    open_partition(&stepped.log, id(name), PartitionConfig::default())
}

fn put(stepped: &Stepped, name: (u8, i32)) -> i64 {
    let bytes = batch(&mut Rng::new(7), 1_000, 2, 40);
    let appended = append_in(&part(stepped, name), &bytes, EPOCH).unwrap();
    appended.base_offset
}

fn open(disk: &SimDisk) -> Result<Stepped, String> {
    Stepped::open(disk, sim_options()).map_err(|error| error.to_string())
}

/// Three groups, the one in the middle with a batch of each partition; `ends`: nothing is written behind it.
fn written(ends: bool) -> (SimDisk, RecoveredGroup) {
    let disk = SimDisk::new(6);
    let mut stepped = open(&disk).unwrap();
    for name in [GOES_ON, ENDS, FLUSHED] {
        put(&stepped, name);
    }
    stepped.write().unwrap();
    for name in [GOES_ON, ENDS, BEGINS, FLUSHED] {
        put(&stepped, name);
    }
    stepped.write().unwrap();
    if !ends {
        put(&stepped, GOES_ON);
        put(&stepped, FLUSHED);
        stepped.seal().unwrap();
        for piece in stepped.pieces() {
            if piece == crate::flusher::by_hand::Piece::Flush(id(FLUSHED)) {
                stepped.run(piece).unwrap();
            }
        }
    }
    drop(stepped);
    disk.kill();
    let lost = groups(&disk).into_iter().find(|group| {
        let bodies = group.frames.iter().map(|frame| &frame.frame);
        let of_begins = bodies.filter(|frame| frame.partition == id(BEGINS));
        of_begins
            .into_iter()
            .any(|f| matches!(f.body, FrameBody::Append { .. }))
    });
    (disk, lost.unwrap())
}

/// Both copies of a frame header.
fn damage_tables(disk: &SimDisk, lost: &RecoveredGroup) {
    let next = groups(disk)
        .into_iter()
        .find(|group| group.seq == lost.seq + 1)
        .unwrap();
    let own = lost.position + GROUP_HEADER_BYTES as u64 + 9;
    let copy = GROUP_HEADER_BYTES + next.frames.len() * FRAME_HEADER_BYTES + 9;
    disk.flip(&Path::new(DIR).join(&lost.file), own, 1);
    disk.flip(
        &Path::new(DIR).join(&next.file),
        next.position + copy as u64,
        1,
    );
}

fn give_up(disk: &SimDisk, group: u64) -> Result<Vec<AcceptedLoss>, String> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let named = [GOES_ON, ENDS, BEGINS, FLUSHED].map(|name| KnownPartition {
        id: id(name),
        topic: format!("topic-{}", name.0),
        is_plain: false,
    });
    let request = GroupRequest {
        group,
        partitions: named.to_vec(),
        by: "a test".to_owned(),
    };
    let given_up = accept_group_on(&shared, Path::new(DIR), &request);
    given_up.map_err(|error| error.to_string())
}

fn ranges(losses: &[AcceptedLoss]) -> Vec<(PartitionId, i64)> {
    let of_partitions = losses.iter().filter(|loss| loss.group().is_none());
    of_partitions
        .map(|loss| (loss.range.partition.unwrap(), loss.range.from))
        .collect()
}

fn bases(everything: &Everything) -> Vec<i64> {
    everything.0.iter().map(|(base, _)| *base).collect()
}

#[test]
fn a_group_without_its_tables_can_be_given_up_and_no_offset_is_used_twice() {
    let (disk, lost) = written(false);
    damage_tables(&disk, &lost);
    let words = open(&disk).err().unwrap();
    assert!(words.contains(&format!("--group {}", lost.seq)), "{words}");
    disk.kill();
    let refused = give_up(&disk, lost.seq + 1).unwrap_err();
    assert!(refused.contains("can be read"), "{refused}");
    let losses = give_up(&disk, lost.seq).unwrap();
    assert_eq!(losses[0].group(), Some(lost.seq));
    assert_eq!(losses[0].range.reason, Reason::TablesLost);
    assert_eq!(ranges(&losses), [(id(ENDS), 2), (id(BEGINS), 0)]);
    assert_eq!(give_up(&disk, lost.seq).unwrap(), [], "given up before");
    for start in 0..2 {
        let mut stepped = open(&disk).unwrap();
        let seen = |name| read_everything(&part(&stepped, name), 1 << 16);
        assert_eq!(bases(&seen(FLUSHED)), [0, 2, 4]);
        // What was in the group is known from what follows, exactly.
        let goes_on = seen(GOES_ON);
        assert_eq!((bases(&goes_on), goes_on.1), (vec![0, 4], vec![(2, 3)]));
        let ends = seen(ENDS);
        assert_eq!((ends.0[0].0, ends.1), (0, vec![]), "start {start}");
        let told =
            stepped
                .metrics()
                .decode_errors_with(Stage::Replay, Source::Wal, Reason::Offsets);
        let all = stepped.metrics().decode_errors_total();
        // The copy stands in the group behind, which is told, too.
        assert_eq!((told, all), (1 - start, 2 - 2 * start), "the gap, once");
        // A reader inside is led to the end, and what is new lies behind all that was in doubt.
        for name in [ENDS, BEGINS] {
            let partition = part(&stepped, name);
            let range = &losses
                .iter()
                .find(|l| l.range.partition == Some(id(name)))
                .unwrap()
                .range;
            let mut next = range.from;
            while next < partition.durable_offset() {
                next = read(&partition, next, 1).unwrap().1;
            }
            assert!(put(&stepped, name) > range.to, "start {start}");
        }
        stepped.write().unwrap();
        stepped.settle().unwrap();
        stepped.stop().unwrap();
        disk.kill();
    }
    // The gap of the others is given up as ever.
    let request = AcceptRequest {
        partition: id(GOES_ON),
        topic: "topic-1".to_owned(),
        from: 2,
        to: 3,
        by: "a test".to_owned(),
    };
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    assert_eq!(
        accept_loss_on(&shared, Path::new(DIR), &request)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(verify(&disk), (0, String::new()));
    let stepped = open(&disk).unwrap();
    assert_eq!(stepped.log.health().states, [HealthState::Ok]);
    assert_eq!(stepped.log.health().accepted_total, 4);
}

#[test]
fn verify_tells_a_lost_group_until_it_is_given_up() {
    let (disk, lost) = written(false);
    damage_tables(&disk, &lost);
    let (count, lines) = verify(&disk);
    assert!(count > 0 && lines.contains("reason=tables_lost"), "{lines}");
    give_up(&disk, lost.seq).unwrap();
    let (_, lines) = verify(&disk);
    assert!(!lines.contains("reason=tables_lost"), "{lines}");
}

/// The number that a refused start names.
fn named(words: &str) -> u64 {
    let number = words
        .split("--group ")
        .nth(1)
        .unwrap_or_else(|| panic!("{words}"));
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The last group cannot be read, or the file was cut before it, or is empty: acknowledged records may have been there.
#[test]
fn an_end_that_cannot_be_read_can_be_given_up_and_is_written_anew() {
    for cut_to in [None, Some(None), Some(Some(0))] {
        let (disk, lost) = written(true);
        let path = Path::new(DIR).join(&lost.file);
        let length = disk.contents(&path).unwrap().len();
        if let Some(cut_to) = cut_to {
            let file = disk.open(&path, OpenMode::Write).unwrap();
            file.set_len(cut_to.unwrap_or(lost.position)).unwrap();
        } else {
            disk.break_block(&path, lost.position);
        }
        let what = format!("cut to: {cut_to:?}");
        let group = named(&open(&disk).err().unwrap());
        disk.kill();
        let losses = give_up(&disk, group).unwrap();
        let next = match cut_to {
            Some(Some(_)) => 0,
            None | Some(None) => {
                assert_eq!(group, lost.seq, "{what}");
                2
            }
        };
        let wanted = [(GOES_ON, next), (ENDS, next), (BEGINS, 0), (FLUSHED, next)];
        assert_eq!(
            ranges(&losses),
            wanted.map(|(name, from)| (id(name), from)),
            "{what}"
        );
        let fits = (length as u64 - lost.position) / BLOCK_BYTES as u64;
        let to = losses[1].range.to as u64;
        assert!(to > fits, "{what}: at least a batch for each block, {to}");
        for start in 0..2 {
            let mut stepped = open(&disk).unwrap_or_else(|words| panic!("{what}: {words}"));
            for (loss, (name, _)) in losses[1..].iter().zip(wanted) {
                let partition = part(&stepped, name);
                assert!(partition.next_offset() > loss.range.to, "{what}");
                assert_eq!(read_everything(&partition, 1 << 16).1, [], "{what}");
            }
            put(&stepped, ENDS);
            stepped.write().unwrap();
            // The head of an empty file is damaged, and written again.
            let heads = u64::from(cut_to == Some(Some(0)) && start == 0);
            assert_eq!(stepped.metrics().decode_errors_total(), heads, "{what}");
            drop(stepped);
            disk.kill();
            assert_eq!(disk.contents(&path).unwrap().len(), length, "{what}");
        }
    }
}

/// A whole file of the log is empty, and groups follow in the next one.
#[test]
fn a_file_that_lost_all_its_groups_can_be_given_up() {
    let disk = SimDisk::new(6);
    let mut stepped = open(&disk).unwrap();
    let mut written = 0;
    for number in 0..40 {
        written = put(&stepped, GOES_ON) + 2;
        if number == 20 {
            put(&stepped, ENDS);
        }
        stepped.write().unwrap();
    }
    stepped.seal().unwrap();
    drop(stepped);
    disk.kill();
    let of_ends = |group: &&RecoveredGroup| {
        let mut frames = group.frames.iter();
        frames.any(|frame| frame.frame.partition == id(ENDS))
    };
    let all = groups(&disk);
    let lost = all.iter().find(of_ends).unwrap().file.clone();
    let used: std::collections::BTreeSet<_> = all.iter().map(|group| &group.file).collect();
    assert!(
        used.first() < Some(&&lost) && used.last() > Some(&&lost),
        "{used:?}"
    );
    let file = disk
        .open(&Path::new(DIR).join(&lost), OpenMode::Write)
        .unwrap();
    file.set_len(0).unwrap();
    let mut ranges = Vec::new();
    let opened = loop {
        match open(&disk) {
            Ok(opened) => break opened,
            Err(words) => {
                disk.kill();
                assert!(ranges.len() < 50, "no end: {words}");
                ranges.extend(give_up(&disk, named(&words)).unwrap());
            }
        }
    };
    let ends = part(&opened, ENDS);
    let of_ends = ranges
        .iter()
        .filter(|loss| loss.range.partition == Some(id(ENDS)));
    let to = of_ends.map(|loss| loss.range.to).max().unwrap();
    // A batch takes a block at most here.
    assert!(ends.next_offset() > to && to > 15 * 2, "{to}");
    let goes_on = part(&opened, GOES_ON);
    assert_eq!(goes_on.next_offset(), written);
    let (_, lost) = read_everything(&goes_on, 1 << 16);
    // The copy of the last one's table stands in the next file.
    let joined = lost
        .iter()
        .zip(&lost[1..])
        .all(|(one, other)| one.1 + 1 == other.0);
    assert!(joined && lost.len() == 2, "{lost:?}");
}
