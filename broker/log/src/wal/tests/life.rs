//! The running WAL: sealing, recycling, reserves, failures, and readers beside it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::*;
use super::rig::*;
use crate::disk::{Disk, OpenMode, SimDisk, SimFaults};

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_idle_writer_seals_once() {
    let disk = SimDisk::new(1);
    let options = WalOptions {
        seal_after: Duration::from_millis(1),
        ..options()
    };
    let started = start_with(&disk, options).unwrap();
    let seals = || {
        let all = groups(&disk);
        let seals = all
            .values()
            .filter(|g| g.frames[0].frame.body == FrameBody::Seal)
            .count();
        (all.len(), seals)
    };
    wait_for("a seal behind the boot group", || seals() == (2, 1));
    let mut done = 0;
    commit(&started, &mut done, Class::Data, vec![append(0, 0, 100)]);
    wait_for("a seal behind the group", || seals() == (4, 2));
    started.wal.shutdown();
    assert_eq!(seals(), (4, 2), "a sealed log is not sealed again");
}

#[test]
fn files_are_recycled_behind_the_checkpoint_and_their_former_life_never_comes_back() {
    let disk = SimDisk::new(3);
    let started = start(&disk).unwrap();
    let mut done = 0;
    for group in 0..200 {
        assert!(commit(
            &started,
            &mut done,
            Class::Data,
            vec![append(0, group * 10, 9000)]
        ));
        started
            .wal
            .set_checkpoint(started.wal.durable_group())
            .unwrap();
    }
    assert_eq!(started.wal.stats().files, 4);
    assert_eq!(started.wal.stats().size_bytes, 4 * FILE_BYTES);
    drop(started);
    let again = start(&disk).unwrap();
    assert_eq!(frames(&again.recovered), [append(0, 1990, 9000)]);
    assert!(damaged(&again.recovered).is_empty());
}

/// The head of the next life says that the file is whole: what it lacks would be missed by every later start.
#[test]
fn a_file_that_was_shortened_is_not_recycled() {
    let disk = SimDisk::new(3);
    let started = start(&disk).unwrap();
    let mut done = 0;
    let mut shortened = false;
    for group in 0..40 {
        let frames = vec![append(0, group * 10, 9000)];
        assert!(commit(&started, &mut done, Class::Data, frames));
        let checkpoint = started.wal.durable_group();
        if group == 12 {
            // The writer has left the first file, and nothing in it is needed any more.
            let first = Path::new(DIR).join("wal").join(file_name(1));
            if let Ok(file) = disk.open(&first, OpenMode::Write) {
                file.set_len(FILE_BYTES - 2).unwrap();
                shortened = true;
            }
        }
        if group >= 12 {
            started.wal.set_checkpoint(checkpoint).unwrap();
        }
        for path in disk.files(&Path::new(DIR).join("wal")) {
            let is_next_life =
                path.extension().is_some_and(|it| it == "wal") && !path.ends_with(file_name(1));
            let length = disk
                .contents(&path)
                .map_or(FILE_BYTES, |it| it.len() as u64);
            assert!(
                !is_next_life || length == FILE_BYTES,
                "{}: {length} bytes",
                path.display()
            );
        }
    }
    assert!(shortened, "the first file was recycled before");
    drop(started);
    let again = start(&disk).unwrap();
    assert_eq!(frames(&again.recovered), [append(0, 390, 9000)]);
    assert!(damaged(&again.recovered).is_empty());
}

/// The checkpoint is set to the group that comes next, and that one happens to be the first of another file. Until a slot
/// says that it is there, the file before it must stay.
#[test]
fn a_file_is_recycled_only_when_no_slot_names_it() {
    let life = |disk: &SimDisk, checkpoint_behind: i64| {
        let Ok(started) = start(disk) else { return };
        let mut done = 0;
        // So many that the third file is begun, and the first one may be recycled.
        for group in 0..11 {
            let frames = vec![append(0, group * 10, 9000)];
            if !commit(&started, &mut done, Class::Data, frames) {
                return;
            }
            let next = started.wal.durable_group() + 1;
            if group == checkpoint_behind && started.wal.set_checkpoint(next).is_err() {
                return;
            }
        }
    };
    for checkpoint_behind in 2..6 {
        let whole = SimDisk::new(5);
        life(&whole, checkpoint_behind);
        for at in 1..=whole.operations() {
            let disk = SimDisk::new(5);
            disk.set_faults(SimFaults {
                cut_at: Some(at),
                ..SimFaults::default()
            });
            life(&disk, checkpoint_behind);
            disk.power_cut();
            if let Err(error) = start(&disk) {
                panic!(
                    "checkpoint behind {checkpoint_behind}, power cut at operation {at}: {error}"
                );
            }
        }
    }
}

#[test]
fn without_a_checkpoint_data_waits_and_control_goes_on() {
    let disk = SimDisk::new(3);
    let started = start(&disk).unwrap();
    let mut submitted = 0;
    let mut done = 0;
    while started.wal.wants_checkpoint().is_none() && submitted < 100 {
        submitted += 1;
        assert!(commit(
            &started,
            &mut done,
            Class::Data,
            vec![append(0, submitted * 10, 9000)]
        ));
    }
    for _ in 0..20 {
        submitted += 1;
        started
            .wal
            .submit(Class::Data, vec![append(0, submitted * 10, 9000)])
            .unwrap();
    }
    wait_for("data waits", || started.wal.is_starved());
    let stuck = started.sink.frames().len();
    let control = Frame {
        partition: partition(5),
        body: FrameBody::DeletePartition,
    };
    started
        .wal
        .submit(Class::Control, vec![control.clone()])
        .unwrap();
    assert!(started.sink.wait(stuck + 1));
    assert_eq!(started.sink.frames().last(), Some(&control));
    assert!(started.wal.is_starved());
    let (_, freed_at) = started.wal.oldest_file().unwrap();
    assert!(started.wal.wants_checkpoint() == Some(freed_at));
    while started.sink.frames().len() < submitted as usize + 1 {
        let seen = started.sink.frames().len();
        let next = started.wal.durable_group() + 1;
        started.wal.set_checkpoint(next).unwrap();
        wait_for("more becomes durable", || {
            started.sink.frames().len() > seen
        });
    }
}

#[test]
fn a_submit_is_one_group_and_never_split() {
    let disk = SimDisk::new(4);
    let started = start(&disk).unwrap();
    let most = started.wal.submit_bytes_max();
    let frames: Vec<Frame> = (0..5).map(|i| append(i, 0, most / 5 - 64)).collect();
    let mut done = 0;
    assert!(commit(&started, &mut done, Class::Control, frames.clone()));
    let all: Vec<Frame> = (0..most / 64)
        .map(|_| Frame {
            partition: partition(0),
            body: FrameBody::DeletePartition,
        })
        .collect();
    // The longest table, and the longest group behind it, which carries that table once more.
    assert!(commit(&started, &mut done, Class::Control, all.clone()));
    assert!(commit(&started, &mut done, Class::Control, frames));
    drop(started);
    let found = groups(&disk);
    let sizes: Vec<usize> = found.values().map(|group| group.frames.len()).collect();
    assert_eq!(sizes, [1, 5, all.len(), 5]);
}

#[test]
fn a_failed_write_keeps_its_reason_and_acknowledges_nothing() {
    let disk = SimDisk::new(4);
    let started = start(&disk).unwrap();
    let mut done = 0;
    assert!(commit(
        &started,
        &mut done,
        Class::Data,
        vec![append(0, 0, 100)]
    ));
    disk.set_faults(SimFaults {
        sync_fails_at: Some(disk.operations() + 1),
        ..SimFaults::default()
    });
    assert!(!commit(
        &started,
        &mut done,
        Class::Data,
        vec![append(0, 10, 100)]
    ));
    assert_eq!(started.sink.frames().len(), 1);
    assert!(
        started
            .sink
            .reason
            .lock()
            .contains("write-ahead log cannot be written")
    );
    drop(started);
    disk.kill();
    let node = node(&disk).unwrap();
    assert!(
        node.last_exit()
            .contains("write-ahead log cannot be written"),
        "{}",
        node.last_exit()
    );
}

#[test]
fn a_full_queue_refuses_and_an_empty_one_takes_anything() {
    let disk = SimDisk::new(4);
    let options = WalOptions {
        data_queue_bytes_max: 1000,
        ..options()
    };
    let started = start_with(&disk, options).unwrap();
    let mut submitted = 0;
    // Starved, so that the queue fills.
    while !started.wal.is_starved() {
        submitted += i64::from(
            started
                .wal
                .submit(Class::Data, vec![append(0, submitted * 10, 9000)])
                .is_ok(),
        );
        std::thread::yield_now();
    }
    assert!(
        started
            .wal
            .submit(Class::Data, vec![append(0, submitted * 10, 9000)])
            .is_err()
    );
}

#[test]
fn too_small_a_volume_is_refused_in_words() {
    let disk = SimDisk::new(4);
    disk.set_faults(SimFaults {
        capacity_bytes: Some(32 << 20),
        ..SimFaults::default()
    });
    let options = WalOptions {
        sizing: None,
        ..options()
    };
    let error = start_with(&disk, options).err().unwrap().to_string();
    assert!(
        error.contains("the write-ahead log needs 67108864"),
        "{error}"
    );
}

#[test]
fn a_full_volume_with_data_starts() {
    let disk = SimDisk::new(4);
    let started = start(&disk).unwrap();
    let mut done = 0;
    assert!(commit(
        &started,
        &mut done,
        Class::Data,
        vec![append(0, 0, 100)]
    ));
    started.wal.shutdown();
    drop(started);
    disk.set_faults(SimFaults {
        capacity_bytes: Some(1),
        ..SimFaults::default()
    });
    assert_eq!(frames(&start(&disk).unwrap().recovered).len(), 1);
}

#[test]
fn a_reader_beside_a_busy_writer_sees_no_damage() {
    let disk = SimDisk::new(9);
    let options = WalOptions {
        background: true,
        ..options()
    };
    let started = start_with(&disk, options).unwrap();
    let mut offset = 0;
    for _ in 0..60 {
        for _ in 0..4 {
            started
                .wal
                .submit(Class::Data, vec![append(0, offset, 7000)])
                .unwrap();
            offset += 10;
        }
        started
            .wal
            .set_checkpoint(started.wal.durable_group())
            .unwrap();
        let found = damaged(&read(&disk));
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn sizes_follow_the_volume() {
    let mib = |n: u64| n << 20;
    for (volume, file, files) in [
        (mib(100), mib(16), 4),
        (mib(640), mib(16), 4),
        (mib(1280), mib(32), 4),
        (mib(10 * 1024), mib(64), 16),
        (mib(1024 * 1024), mib(64), 32),
    ] {
        let sizing = WalSizing::for_volume(volume, None, None);
        assert_eq!(
            (sizing.file_bytes, sizing.files_max),
            (file, files),
            "{volume}"
        );
        assert!(sizing.submit_bytes_max() as u64 * 2 <= file);
    }
}

#[test]
fn a_volume_that_grows_gives_room_to_a_wal_that_is_full() {
    let gib = |n: u64| n << 30;
    let on_volume = |disk: &SimDisk, bytes| {
        disk.set_faults(SimFaults {
            capacity_bytes: Some(bytes),
            ..SimFaults::default()
        });
    };
    let disk = SimDisk::new(4);
    on_volume(&disk, gib(1) / 2);
    let options = WalOptions {
        sizing: None,
        ..options()
    };
    let started = start_with(&disk, options).unwrap();
    assert_eq!(started.wal.files_max(), 4);
    let mut submitted = 0;
    while !started.wal.is_starved() {
        let frame = append(0, submitted * 10, 4 << 20);
        submitted += i64::from(started.wal.submit(Class::Data, vec![frame]).is_ok());
        std::thread::yield_now();
    }
    on_volume(&disk, gib(10));
    started.wal.follow_volume(gib(10));
    assert_eq!(started.wal.files_max(), 64, "files keep their 16 MiB");
    assert!(started.sink.wait(submitted as usize));
    assert!(started.wal.stats().files > 4);
    started.wal.follow_volume(gib(1) / 2);
    assert_eq!(started.wal.files_max(), 4);
    started.wal.shutdown();
    drop(started);
    assert_eq!(
        frames(&start(&disk).unwrap().recovered).len(),
        submitted as usize
    );
}

#[test]
fn a_wal_without_its_manifest_is_refused() {
    let disk = SimDisk::new(4);
    drop(start(&disk).unwrap());
    crate::disk::Disk::unlink(&disk, Path::new("/data/wal/manifest")).unwrap();
    let error = start(&disk).err().unwrap().to_string();
    assert!(error.contains("manifest"), "{error}");
}

#[test]
fn a_first_start_is_ready_before_its_file_is_zeroed_and_a_cut_in_between_loses_nothing() {
    for background in [true, false] {
        let options = || WalOptions {
            sizing: Some(WalSizing {
                file_bytes: 16 << 20,
                files_max: 4,
            }),
            background,
            ..options()
        };
        let disk = SimDisk::new(6);
        let recovery = Wal::open(disk_of(&disk), node(&disk).unwrap(), options()).unwrap();
        let length = || {
            disk.contents(Path::new("/data/wal/00000000000000000001.wal"))
                .unwrap()
                .len()
        };
        assert_eq!(length(), 8 << 20);
        drop(recovery);
        disk.power_cut();
        let started = start_with(&disk, options()).unwrap();
        let mut done = 0;
        for group in 0..14 {
            let frames = vec![append(0, group * 10, 1 << 20)];
            assert!(commit(&started, &mut done, Class::Data, frames));
        }
        assert_eq!(length(), 16 << 20);
        drop(started);
        disk.power_cut();
        let again = start_with(&disk, options()).unwrap();
        assert_eq!(frames(&again.recovered).len(), 14);
        assert!(damaged(&again.recovered).is_empty());
    }
}
