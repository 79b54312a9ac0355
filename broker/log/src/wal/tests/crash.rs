//! The power fails during every operation of a scripted life, and nothing acknowledged is lost, changed or doubled.

use super::super::*;
use super::rig::*;
use crate::disk::{SimDisk, SimFaults};

/// A life: groups of several sizes over several files, checkpoints, a clean stop, a second start. Returns what was
/// submitted and what of it was acknowledged, and the highest checkpoint that was set (in frames).
struct Life {
    submitted: Vec<Frame>,
    acknowledged: usize,
    /// Frames that the checkpoint (perhaps) has passed, by the group they ended in.
    checkpointed: usize,
}

fn live(disk: &SimDisk) -> Life {
    let mut life = Life {
        submitted: Vec::new(),
        acknowledged: 0,
        checkpointed: 0,
    };
    for run in 0..2 {
        let Ok(started) = start(disk) else {
            return life;
        };
        let before = life.submitted.len();
        let mut done = 0;
        for step in 0..9_i64 {
            let offset = run * 1000 + step * 10;
            let frames = match step % 4 {
                0 => vec![append(0, offset, 300), append(1, offset, 5000)],
                1 => vec![append(0, offset, 15_000)],
                2 => vec![append(2, offset, 61), control(offset)],
                _ => vec![append(1, offset, 20_000)],
            };
            life.submitted.extend(frames.iter().cloned());
            if !commit(&started, &mut done, Class::Data, frames) {
                life.acknowledged = before + started.sink.frames().len();
                return life;
            }
            life.acknowledged = before + done;
            if step % 3 == 2 {
                life.checkpointed = life.acknowledged;
                if started
                    .wal
                    .set_checkpoint(started.wal.durable_group() + 1)
                    .is_err()
                {
                    return life;
                }
            }
        }
        started.wal.shutdown();
        if started.sink.is_dead() {
            return life;
        }
    }
    life
}

fn control(offset: i64) -> Frame {
    Frame {
        partition: partition(2),
        body: FrameBody::LogStart { offset },
    }
}

/// What replay gives is a run of what was submitted: up to the last acknowledged frame at least, from the checkpoint
/// at the latest.
fn check(life: &Life, recovered: &[Recovered], says: &str) -> Vec<Frame> {
    assert!(
        damaged(recovered).is_empty(),
        "{says}: a crash is no corruption: {recovered:?}"
    );
    let got = frames(recovered);
    let end = match got.last() {
        Some(last) => 1 + life.submitted.iter().rposition(|f| f == last).expect(says),
        None => life.acknowledged,
    };
    assert!(
        end >= life.acknowledged,
        "{says}: acknowledged frames are gone"
    );
    let start = end - got.len();
    assert_eq!(got, life.submitted[start..end], "{says}");
    assert!(
        start <= life.checkpointed,
        "{says}: frames above the checkpoint are gone"
    );
    got
}

#[test]
fn power_cut_at_every_operation() {
    let disk = SimDisk::new(0);
    live(&disk);
    let operations = disk.operations();
    assert!(operations > 60, "{operations}");
    for cut_at in 1..=operations {
        for seed in 0..3 {
            let says = format!("seed {seed}, cut at operation {cut_at}");
            let disk = SimDisk::new(seed);
            disk.set_faults(SimFaults {
                cut_at: Some(cut_at),
                ..SimFaults::default()
            });
            let life = live(&disk);
            disk.power_cut();
            let first = start(&disk).unwrap_or_else(|error| panic!("{says}: {error}"));
            let got = check(&life, &first.recovered, &says);
            // Nothing new was written but boot groups: the same comes back, also after another cut.
            drop(first);
            disk.power_cut();
            let second = start(&disk).unwrap_or_else(|error| panic!("{says}: {error}"));
            assert_eq!(frames(&second.recovered), got, "{says}: recovered twice");
            assert!(
                !second
                    .recovered
                    .iter()
                    .any(|step| matches!(step, Recovered::Torn(_))),
                "{says}: a torn tail is cut off once"
            );
        }
    }
}

#[test]
fn power_cut_at_every_operation_of_a_recovery() {
    for seed in 0..20 {
        // A life that ends in the middle of a group.
        let disk = SimDisk::new(seed);
        disk.set_faults(SimFaults {
            cut_at: Some(25 + seed * 3),
            ..SimFaults::default()
        });
        let life = live(&disk);
        disk.power_cut();
        for round in 1..40 {
            let says = format!("seed {seed}, cut at operation {round} of recovery {round}");
            disk.set_faults(SimFaults {
                cut_at: Some(disk.operations() + round),
                ..SimFaults::default()
            });
            let whole = match start(&disk) {
                Ok(started) => {
                    check(&life, &started.recovered, &says);
                    !disk.is_cut()
                }
                Err(error) => {
                    assert!(disk.is_cut(), "{says}: {error}");
                    false
                }
            };
            disk.power_cut();
            if whole {
                break;
            }
        }
        let last = start(&disk).unwrap();
        check(&life, &last.recovered, &format!("seed {seed}, at last"));
    }
}

#[test]
fn a_failed_sync_at_every_operation_gives_no_ack_after_it() {
    let disk = SimDisk::new(0);
    live(&disk);
    for fails_at in 1..=disk.operations() {
        let says = format!("sync fails at operation {fails_at}");
        let disk = SimDisk::new(fails_at);
        disk.set_faults(SimFaults {
            sync_fails_at: Some(fails_at),
            ..SimFaults::default()
        });
        let life = live(&disk);
        disk.power_cut();
        let started = start(&disk).unwrap_or_else(|error| panic!("{says}: {error}"));
        check(&life, &started.recovered, &says);
    }
}

#[test]
fn a_killed_process_loses_nothing_and_its_last_group_is_kept() {
    let disk = SimDisk::new(5);
    let started = start(&disk).unwrap();
    let mut done = 0;
    assert!(commit(
        &started,
        &mut done,
        Class::Data,
        vec![append(0, 0, 100)]
    ));
    disk.kill();
    drop(started);
    let again = start(&disk).unwrap();
    assert_eq!(frames(&again.recovered), [append(0, 0, 100)]);
    assert_eq!(again.wal.boot(), 2);
}
