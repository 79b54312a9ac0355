//! A disk that gives back an old version of a group: the one case in which a group verifies and its chain does not.

use super::super::*;
use super::rig::*;
use crate::disk::SimDisk;

/// Group 2 was cut off by a recovery and written anew, more groups follow it; then its old bytes come back.
fn old_version_comes_back(later: usize) -> (SimDisk, RecoveredGroup) {
    let disk = SimDisk::new(9);
    let started = start(&disk).unwrap();
    let mut done = 0;
    assert!(commit(
        &started,
        &mut done,
        Class::Data,
        vec![append(0, 0, 100)]
    ));
    drop(started);
    let old = groups(&disk)[&2].clone();
    let at = old.position as usize..(old.position + old.length) as usize;
    let bytes = disk.contents(&path(&old)).unwrap()[at].to_vec();
    disk.flip(&path(&old), old.position + 1000, 1);
    let started = start(&disk).unwrap();
    let mut done = 0;
    for number in 0..later as i64 {
        let frames = vec![append(0, 100 + 10 * number, 100)];
        assert!(commit(&started, &mut done, Class::Data, frames));
    }
    drop(started);
    let new = groups(&disk)[&2].clone();
    assert_eq!((new.position, new.length), (old.position, old.length));
    disk.overwrite(&path(&old), old.position, &bytes);
    (disk, old)
}

#[test]
fn a_whole_group_behind_an_old_version_is_applied_and_told_when_it_was_durable() {
    let (disk, _) = old_version_comes_back(2);
    let started = start(&disk).unwrap();
    let told = damaged(&started.recovered);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].seq, told[0].damage), (3, Some(Reason::Chain)));
    assert!(told[0].lost.is_empty());
    // The first group was never acknowledged; that it is back is what the break tells.
    let wanted = [append(0, 0, 100), append(0, 100, 100), append(0, 110, 100)];
    assert_eq!(frames(&started.recovered), wanted);
}

#[test]
fn a_whole_group_behind_an_old_version_is_cut_off_when_nobody_testifies() {
    let (disk, _) = old_version_comes_back(1);
    let started = start(&disk).unwrap();
    assert!(damaged(&started.recovered).is_empty());
    assert_eq!(frames(&started.recovered), [append(0, 0, 100)]);
    let last = started.recovered.last().unwrap();
    assert!(matches!(last, Recovered::Torn(_)), "{last:?}");
}
