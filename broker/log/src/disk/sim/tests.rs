//! What the simulated disk promises to the tests that stand on it.

use super::*;

const DIR: &str = "/data";

fn disk_with_file(seed: u64) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.open(&path("a"), OpenMode::Create).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    (disk, file)
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

#[test]
fn synced_bytes_survive_every_power_cut_and_unsynced_ones_are_lost_kept_or_torn() {
    let mut seen = [false; 3];
    for seed in 0..200 {
        let (disk, file) = disk_with_file(seed);
        file.write_at(&[1; 2048], 0, Durability::Synced).unwrap();
        file.write_at(&[2; 2048], 2048, Durability::Later).unwrap();
        disk.power_cut();
        let bytes = disk.contents(&path("a")).unwrap();
        assert_eq!(bytes[..2048], [1; 2048], "seed {seed}");
        let kept = bytes[2048..].iter().filter(|b| **b == 2).count();
        assert_eq!(kept % 512, 0, "seed {seed}");
        seen[match kept {
            0 => 0,
            2048 => 1,
            _ => 2,
        }] = true;
        assert!(file.sync_data().is_err(), "a handle outlived its process");
    }
    assert_eq!(seen, [true; 3], "lost, kept and torn all happen");
}

#[test]
fn a_name_is_durable_only_after_its_folder_was_synced() {
    let lost = (0..50).filter(|seed| {
        let (disk, _file) = disk_with_file(*seed);
        disk.open(&path("b"), OpenMode::CreateNew).unwrap();
        disk.power_cut();
        assert!(disk.exists(&path("a")).unwrap());
        !disk.exists(&path("b")).unwrap()
    });
    assert!((1..50).contains(&lost.count()));
}

#[test]
fn the_operation_that_is_cut_fails_and_so_do_all_after_it() {
    let (disk, file) = disk_with_file(7);
    let at = disk.operations() + 2;
    disk.set_faults(SimFaults {
        cut_at: Some(at),
        ..SimFaults::default()
    });
    file.write_at(b"x", 0, Durability::Synced).unwrap();
    assert!(file.write_at(b"y", 1, Durability::Synced).is_err());
    assert!(file.len().is_err() && disk.is_cut());
    disk.power_cut();
    assert_eq!(disk.contents(&path("a")).unwrap()[..1], *b"x");
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept_though_the_next_succeeds() {
    let (disk, file) = disk_with_file(7);
    file.write_at(b"x", 0, Durability::Later).unwrap();
    disk.set_faults(SimFaults {
        sync_fails_at: Some(disk.operations() + 1),
        ..SimFaults::default()
    });
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.contents(&path("a")).unwrap(), b"x");
    disk.power_cut();
    assert_eq!(disk.contents(&path("a")).unwrap(), b"");
}

#[test]
fn a_full_volume_refuses_growth_and_a_killed_process_loses_nothing() {
    let (disk, file) = disk_with_file(7);
    disk.set_faults(SimFaults {
        capacity_bytes: Some(10),
        ..SimFaults::default()
    });
    file.write_at(&[1; 10], 0, Durability::Later).unwrap();
    file.write_at(&[2; 5], 5, Durability::Later).unwrap();
    let error = file.write_at(&[1], 10, Durability::Later).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.space(Path::new(DIR)).unwrap().free_bytes, 0);
    disk.kill();
    assert_eq!(
        disk.contents(&path("a")).unwrap(),
        [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    );
    assert!(disk.files(Path::new(DIR)).contains(&path("a")));
}

#[test]
fn one_holder_per_lock() {
    let disk = SimDisk::new(1);
    let held = disk.lock(Path::new("/LOCK")).unwrap();
    assert!(matches!(
        disk.lock(Path::new("/LOCK")),
        Err(LockError::Held { .. })
    ));
    drop(held);
    disk.lock(Path::new("/LOCK")).unwrap();
}
