//! Damage anywhere in a durable group is told, and costs exactly what it hit.

use super::super::format::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES};
use super::super::*;
use super::rig::*;
use crate::disk::{SimDisk, SimFaults};

/// Groups 2 to 6 hold three batches each; then the end of the script decides on what follows.
fn written(end: fn(Started)) -> SimDisk {
    let disk = SimDisk::new(1);
    let started = start(&disk).unwrap();
    let mut done = 0;
    for group in 0..5 {
        let frames = (0..3)
            .map(|index| append(index, group * 10, 400 + 900 * index as usize))
            .collect();
        assert!(commit(&started, &mut done, Class::Data, frames));
    }
    end(started);
    disk
}

/// Groups of 16 KiB with one batch each, from group 2 on, over as many files as they need; then a kill.
fn written_over_files(count: i64) -> SimDisk {
    let disk = SimDisk::new(2);
    let started = start(&disk).unwrap();
    let mut done = 0;
    for group in 0..count {
        let frames = vec![append(0, group * 10, 13_000)];
        assert!(commit(&started, &mut done, Class::Data, frames));
    }
    drop(started);
    disk
}

fn sealed(started: Started) {
    started.wal.shutdown();
}

fn abandoned(started: Started) {
    drop(started);
}

/// Flips each byte of a group in turn, and checks what a reader says about it.
fn check_every_byte(disk: &SimDisk, seq: u64) {
    let all = groups(disk);
    let group = all[&seq].clone();
    let intact = frames(&read(disk));
    let file = path(&group);
    for at in 0..group.length {
        // The tables' and headers' bytes all, of batches and padding every thirteenth.
        if at > 600 && at % 13 != 0 {
            continue;
        }
        let position = group.position + at;
        disk.flip(&file, position, 0x10);
        let recovered = read(disk);
        let says = format!("group {seq}, byte {at}");
        let found = damaged(&recovered);
        assert_eq!(found.len(), 1, "{says}: {found:?}");
        let hit = &found[0];
        assert_eq!(
            (hit.seq, hit.position, &hit.file),
            (seq, group.position, &group.file),
            "{says}"
        );
        let expected: Vec<&RecoveredFrame> = group
            .frames
            .iter()
            .filter(|frame| match &frame.frame.body {
                FrameBody::Append { batch, .. } => (frame.file_position
                    ..frame.file_position + batch.size() as u64)
                    .contains(&position),
                _ => false,
            })
            .collect();
        assert_eq!(hit.lost.len(), expected.len(), "{says}: {:?}", hit.lost);
        for (lost, frame) in hit.lost.iter().zip(&expected) {
            assert_eq!(
                (lost.at, lost.partition),
                (frame.at, frame.frame.partition),
                "{says}"
            );
            assert_eq!(
                lost.base_offset..=lost.last_offset,
                offsets(&frame.frame),
                "{says}"
            );
            assert_eq!(lost.file_position, frame.file_position, "{says}");
        }
        let kept: Vec<Frame> = intact
            .iter()
            .filter(|frame| !expected.iter().any(|lost| lost.frame == **frame))
            .cloned()
            .collect();
        assert_eq!(frames(&recovered), kept, "{says}");
        disk.flip(&file, position, 0x10);
    }
    assert!(damaged(&read(disk)).is_empty());
}

fn offsets(frame: &Frame) -> std::ops::RangeInclusive<i64> {
    match &frame.body {
        FrameBody::Append {
            base_offset,
            last_offset,
            ..
        } => *base_offset..=*last_offset,
        other => panic!("{other:?} has no offsets"),
    }
}

#[test]
fn every_byte_of_a_group_in_the_middle() {
    check_every_byte(&written(abandoned), 3);
}

#[test]
fn every_byte_of_the_last_acknowledged_group_behind_a_seal() {
    check_every_byte(&written(sealed), 6);
}

#[test]
fn every_byte_of_the_last_group_behind_a_boot_group() {
    let disk = written(abandoned);
    drop(start(&disk).unwrap());
    check_every_byte(&disk, 6);
}

#[test]
fn every_byte_of_the_last_group_of_a_file_and_of_the_first_of_the_next() {
    let disk = written_over_files(8);
    let all = groups(&disk);
    let first = all
        .values()
        .find(|group| group.generation == 2)
        .unwrap()
        .seq;
    assert!(first < 8, "{first}");
    check_every_byte(&disk, first - 1);
    check_every_byte(&disk, first);
}

#[test]
fn a_start_tells_damage_every_time_until_the_checkpoint_passes_it() {
    let disk = written(sealed);
    let group = groups(&disk)[&6].clone();
    disk.flip(&path(&group), group.frames[1].file_position + 20, 1);
    for _ in 0..2 {
        let started = start(&disk).unwrap();
        let found = damaged(&started.recovered);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].lost.len(), 1);
        assert_eq!(found[0].lost[0].partition, partition(1));
        assert_eq!(found[0].lost[0].reason, Reason::PayloadCrc);
    }
    let started = start(&disk).unwrap();
    started.wal.set_checkpoint(7).unwrap();
    drop(started);
    assert!(damaged(&start(&disk).unwrap().recovered).is_empty());
}

/// The rest of a file and the first group of the next are damaged: the groups behind still testify.
#[test]
fn a_witness_behind_the_damaged_start_of_the_next_file_is_found() {
    let disk = written_over_files(8);
    let all = groups(&disk);
    let first = all
        .values()
        .find(|group| group.generation == 2)
        .unwrap()
        .seq;
    for seq in 2..=first {
        disk.flip(&path(&all[&seq]), all[&seq].position, 4);
    }
    assert!(
        all[&2].position < 4096 * 8,
        "so early that no group would have left the file"
    );
    let started = start(&disk).unwrap();
    let found: Vec<u64> = damaged(&started.recovered).iter().map(|g| g.seq).collect();
    assert_eq!(found, (2..=first).collect::<Vec<_>>());
    let kept = frames(&started.recovered).len();
    assert_eq!(kept, 8, "their tables still say where everything is");
}

/// The same with nothing left of the groups: zeros are what a file holds behind the end of a WAL, and what the next one holds
/// before its first group.
#[test]
fn a_witness_behind_the_wiped_start_of_the_next_file_is_found() {
    let disk = written_over_files(5);
    let all = groups(&disk);
    let (second, mut of_next) = (&all[&2], all.values().filter(|group| group.generation == 2));
    let first = of_next.next().unwrap();
    assert!(of_next.next().is_some(), "a group testifies");
    assert!(
        all.values().all(|group| group.generation <= 2),
        "and no later file"
    );
    let file_bytes = disk.contents(&path(second)).unwrap().len() as u64;
    wipe(
        &disk,
        &path(second),
        second.position,
        file_bytes - second.position,
    );
    wipe(&disk, &path(first), first.position, 4096);
    let error = start(&disk).err().unwrap().to_string();
    assert!(error.contains("commit group 2 at position"), "{error}");
}

#[test]
fn an_unwitnessed_damaged_group_is_a_torn_tail() {
    let disk = written(abandoned);
    let group = groups(&disk)[&6].clone();
    disk.flip(&path(&group), group.position + 1000, 1);
    let started = start(&disk).unwrap();
    assert!(damaged(&started.recovered).is_empty());
    let torn = Recovered::Torn(TornTail {
        file: group.file.clone(),
        position: group.position,
        bytes: group.length,
    });
    assert_eq!(started.recovered.last(), Some(&torn));
    drop(started);
    // The boot group names what was discarded, and took its sequence number.
    let boot = groups(&disk)[&6].clone();
    assert_eq!(
        boot.frames[0].frame.body,
        FrameBody::Boot {
            discarded: Some(Discarded {
                generation: 1,
                position: group.position,
                length: group.length,
            }),
        }
    );
    assert_eq!(boot.position, group.position);
}

/// The last group went to the next file, since it did not fit into the one before. Damage of seed 1562.
#[test]
fn an_unwitnessed_group_without_its_header_is_a_torn_tail_at_the_start_of_a_file_too() {
    let disk = SimDisk::new(2);
    let started = start(&disk).unwrap();
    let mut done = 0;
    let mut last = 0;
    while groups(&disk).values().all(|group| group.generation == 1) {
        last += 1;
        let frames = vec![append(0, last * 10, 13_000)];
        assert!(commit(&started, &mut done, Class::Data, frames));
    }
    drop(started);
    let group = groups(&disk).into_values().last().unwrap();
    disk.flip(&path(&group), group.position + 46, 4);
    let started = start(&disk).unwrap();
    let torn = Recovered::Torn(TornTail {
        file: group.file.clone(),
        position: group.position,
        bytes: group.length,
    });
    assert_eq!(started.recovered.last(), Some(&torn));
    drop(started);
    let rest = &disk.contents(&path(&group)).unwrap()[2 * 4096..];
    assert!(rest.iter().all(|byte| *byte == 0), "remains are cleared");
}

#[test]
fn a_wiped_block_loses_only_the_batches_in_it() {
    let disk = written(sealed);
    let group = groups(&disk)[&4].clone();
    wipe(&disk, &path(&group), group.position, 4096);
    let found = damaged(&read(&disk));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].damage, Some(Reason::MissingGroup));
    let lost: Vec<PartitionId> = found[0].lost.iter().map(|lost| lost.partition).collect();
    let whole = |frame: &RecoveredFrame| frame.file_position >= group.position + 4096;
    let expected: Vec<PartitionId> = group
        .frames
        .iter()
        .filter(|f| !whole(f))
        .map(|f| f.frame.partition)
        .collect();
    assert_eq!(lost, expected);
    assert!(!expected.is_empty());
}

#[test]
fn both_copies_of_a_table_gone_refuse_the_start_in_words_and_are_reported_by_a_reader() {
    let disk = written(sealed);
    let all = groups(&disk);
    let (group, next) = (all[&4].clone(), all[&5].clone());
    disk.flip(
        &path(&group),
        group.position + GROUP_HEADER_BYTES as u64 + 30,
        1,
    );
    // Its copy lies behind the next group's own three entries.
    let copy = next.position + (GROUP_HEADER_BYTES + 3 * FRAME_HEADER_BYTES) as u64;
    disk.flip(&path(&next), copy + 30, 1);
    let error = start(&disk).err().unwrap().to_string();
    assert!(error.contains("neither copy of its frame table"), "{error}");
    let found = damaged(&read(&disk));
    assert_eq!(found[0].damage, Some(Reason::TablesLost));
    assert_eq!((found[0].seq, found[1].seq), (4, 5));
    // Another entry of the copy: either copy fills what the other lacks.
    disk.flip(&path(&next), copy + 30, 1);
    disk.flip(&path(&next), copy + FRAME_HEADER_BYTES as u64, 1);
    let started = start(&disk).unwrap();
    assert_eq!(damaged(&started.recovered).len(), 2);
    assert_eq!(frames(&started.recovered).len(), 15);
}

#[test]
fn headers_of_two_neighbours_gone() {
    let disk = written(sealed);
    let all = groups(&disk);
    for seq in [3, 4] {
        disk.flip(&path(&all[&seq]), all[&seq].position + 20, 1);
    }
    let recovered = read(&disk);
    assert_eq!(
        damaged(&recovered)
            .iter()
            .map(|g| g.seq)
            .collect::<Vec<_>>(),
        [3, 4]
    );
    assert!(
        damaged(&recovered)
            .iter()
            .all(|g| g.damage == Some(Reason::HeaderCrc))
    );
    assert_eq!(
        frames(&recovered).len(),
        15,
        "their tables still say where everything is"
    );
}

#[test]
fn what_cannot_be_read_and_has_no_witness_is_never_taken_for_the_end() {
    let disk = written(sealed);
    let group = groups(&disk)[&2].clone();
    disk.set_faults(SimFaults {
        unreadable: vec![group.file.clone()],
        ..SimFaults::default()
    });
    let error = start(&disk).err().unwrap().to_string();
    assert!(
        error.contains("the disk cannot read it at position 4096"),
        "{error}"
    );
    assert_eq!(damaged(&read(&disk))[0].damage, Some(Reason::Io));
    disk.set_faults(SimFaults::default());
    assert_eq!(frames(&start(&disk).unwrap().recovered).len(), 15);
}

#[test]
fn a_shortened_file_is_told() {
    let disk = written(sealed);
    let group = groups(&disk)[&5].clone();
    let file = crate::disk::Disk::open(&disk, &path(&group), crate::disk::OpenMode::Write).unwrap();
    file.set_len(group.position).unwrap();
    let error = start(&disk).err().unwrap().to_string();
    assert!(error.contains("the file was shortened"), "{error}");
    let found = damaged(&read(&disk));
    assert_eq!((found[0].seq, found[0].damage), (5, Some(Reason::Io)));
}

#[test]
fn record_bytes_never_pose_as_a_group() {
    let disk = written(sealed);
    let all = groups(&disk);
    let bytes = disk.contents(&path(&all[&3])).unwrap();
    let stolen = bytes[all[&3].position as usize..][..4096].to_vec();
    drop(all);
    let disk = SimDisk::new(77);
    let started = start(&disk).unwrap();
    let mut batch = vec![0; 3 * 4096];
    for block in batch.chunks_mut(4096) {
        block.copy_from_slice(&stolen);
    }
    // Shifted so that a copy lies on every block boundary of the group.
    let shift = 4096 - (GROUP_HEADER_BYTES + 2 * FRAME_HEADER_BYTES);
    let mut body = vec![0; shift];
    body.extend_from_slice(&batch);
    let frame = Frame {
        partition: partition(0),
        body: FrameBody::Append {
            base_offset: 0,
            last_offset: 0,
            batch: Batch::from_bytes(&body.into()).unwrap(),
        },
    };
    let mut done = 0;
    assert!(commit(
        &started,
        &mut done,
        Class::Data,
        vec![frame.clone()]
    ));
    started.wal.shutdown();
    let group = groups(&disk)[&2].clone();
    disk.flip(&path(&group), group.position, 1);
    let recovered = read(&disk);
    assert_eq!(frames(&recovered), [frame]);
    assert_eq!(damaged(&recovered).len(), 1);
}

#[test]
fn a_damaged_first_block_or_manifest_slot_is_mended() {
    let disk = written(sealed);
    let file = path(&groups(&disk)[&2]);
    disk.flip(&file, 25, 1);
    let reader = WalReader::open(disk_of(&disk), std::path::Path::new(DIR))
        .unwrap()
        .unwrap();
    assert_eq!(reader.damaged().heads.len(), 1);
    assert_eq!(frames(&start(&disk).unwrap().recovered).len(), 15);
    let reader = WalReader::open(disk_of(&disk), std::path::Path::new(DIR))
        .unwrap()
        .unwrap();
    assert!(reader.damaged().heads.is_empty());
    let manifest = std::path::Path::new(DIR).join("wal/manifest");
    for slot in [0, 4096] {
        disk.flip(&manifest, slot + 40, 1);
        assert_eq!(
            frames(&start(&disk).unwrap().recovered).len(),
            15,
            "slot at {slot}"
        );
    }
    for slot in [0, 4096] {
        disk.flip(&manifest, slot + 50, 1);
    }
    let error = start(&disk).err().unwrap().to_string();
    assert!(error.contains("manifest"), "{error}");
}

/// Its checksum holds, so that nothing but the number itself is wrong: no disk does that.
#[test]
fn a_header_that_is_impossibly_far_ahead_is_told_once() {
    let disk = written(sealed);
    let group = groups(&disk)[&3].clone();
    let file = path(&group);
    let bytes = disk.contents(&file).unwrap();
    let mut header = bytes[group.position as usize..][..GROUP_HEADER_BYTES].to_vec();
    header[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[24..32]), &header[..76]);
    header[76..80].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(&file, group.position, &header);
    let found = damaged(&read(&disk));
    assert!((1..10).contains(&found.len()), "{found:?}");
    let refused = start(&disk).err().unwrap().to_string();
    assert!(refused.contains("was durable"), "{refused}");
}
