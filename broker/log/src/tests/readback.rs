//! Groups that the disk confirms and does not keep: noticed while their bytes are still in memory, told, and saved.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::support::{
    Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read_everything,
    stored, wait_durable, wait_until,
};
use crate::disk::{
    DirEntry, Disk, DiskFile, DiskLock, Durability, LockError, OpenMode, SimDisk, Space, Volume,
};
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::{Options, PartitionConfig};

const DIR: &str = "/data";
/// Nothing is changed.
const HONEST: u64 = u64::MAX;
/// The whole write is forgotten.
const FORGET: u64 = u64::MAX - 1;

/// A disk that spoils the next synced write to a WAL file: flips the byte at this place of it, or forgets it.
#[derive(Clone)]
struct Liar {
    disk: SimDisk,
    spoil: Arc<AtomicU64>,
}

struct LiarFile {
    file: Arc<dyn DiskFile>,
    spoil: Arc<AtomicU64>,
}

impl Disk for Liar {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        if mode == OpenMode::Direct {
            let spoil = Arc::clone(&self.spoil);
            return Ok(Arc::new(LiarFile { file, spoil }));
        }
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn volume(&self, path: &Path) -> io::Result<Arc<dyn Volume>> {
        self.disk.volume(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        self.disk.lock(path)
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.random(bytes)
    }
}

impl DiskFile for LiarFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(bytes, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64, durability: Durability) -> io::Result<()> {
        let mut written = bytes.to_vec();
        match self.spoil.swap(HONEST, Ordering::SeqCst) {
            HONEST => {}
            FORGET => return Ok(()),
            at => written[at as usize] ^= 0x20,
        }
        self.file.write_at(&written, position, durability)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn zero_fill(&self, position: u64, length: u64) -> io::Result<()> {
        self.file.zero_fill(position, length)
    }

    fn is_direct(&self) -> bool {
        self.file.is_direct()
    }
}

fn open(disk: &Arc<dyn Disk>) -> Opened {
    let options = Options {
        read_back_groups: 1_000_000,
        flush_after: Duration::from_secs(3600),
        // No seal comes between an append and what is spoiled.
        seal_after: Duration::from_secs(3600),
        ..options(Path::new(DIR))
    };
    open_log(disk, options).unwrap()
}

/// Ten batches, of which the disk spoils the sixth.
fn check(spoil: u64, reasons: &[Reason]) {
    let liar = Liar {
        disk: SimDisk::new(1),
        spoil: Arc::new(AtomicU64::new(HONEST)),
    };
    let disk: Arc<dyn Disk> = Arc::new(liar.clone());
    let opened = open(&disk);
    let id = partition_id(1, 0);
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    let mut rng = Rng::new(1);
    let mut batches = Vec::new();
    for number in 0..10 {
        if number == 5 {
            liar.spoil.store(spoil, Ordering::SeqCst);
        }
        let bytes = batch(&mut rng, 1000, 1, 500);
        let appended = append(&partition, &bytes).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
        batches.push((appended.base_offset, stored(&bytes, appended.base_offset)));
    }
    assert_eq!(liar.spoil.load(Ordering::SeqCst), HONEST, "it was spoiled");
    let counted = || {
        let count = |reason: &Reason| {
            let metrics = &opened.metrics;
            metrics.decode_errors_with(Stage::Append, Source::Wal, *reason)
        };
        reasons.iter().map(count).sum::<u64>()
    };
    wait_until("it is told", || counted() == 1);
    // Everything that the group holds goes into segments, and then nobody needs the group any more.
    wait_until("health is back", || {
        opened.log.health().states == [HealthState::Ok]
    });
    assert_eq!(opened.metrics.decode_errors_total(), 1);
    assert_eq!(partition.segment_bases(), [0]);
    assert_eq!(*opened.fatal.0.lock(), None);
    drop((partition, opened));
    liar.disk.kill();
    // A start loses nothing and finds nothing.
    let opened = open(&disk);
    let partition = open_partition(&opened.log, id, PartitionConfig::default());
    assert!(read_everything(&partition, 1 << 20) == (batches, vec![]));
    assert_eq!(opened.log.health().quarantined_ranges, 0);
}

#[test]
fn a_flipped_byte_of_a_header() {
    check(20, &[Reason::HeaderCrc]);
}

#[test]
fn a_flipped_byte_of_a_batch() {
    check(400, &[Reason::PayloadCrc]);
}

#[test]
fn a_write_that_was_confirmed_and_forgotten() {
    // Whether a later group testifies for it by then is a matter of time.
    check(FORGET, &[Reason::HeaderCrc, Reason::MissingGroup]);
}

#[test]
fn what_is_whole_is_read_back_and_nothing_is_told() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
    let opened = open(&disk);
    let partition = open_partition(&opened.log, partition_id(1, 0), PartitionConfig::default());
    let mut rng = Rng::new(2);
    // Several files' worth, so that files are used again while groups wait to be read back.
    for _ in 0..300 {
        let appended = append(&partition, &batch(&mut rng, 1000, 1, 4000)).unwrap();
        wait_durable(&partition, appended.last_offset + 1);
    }
    wait_until("groups are read back", || {
        opened.metrics.bytes_decoded(Stage::Append) > 300 * 4000 / 2
    });
    assert_eq!(opened.metrics.decode_errors_total(), 0);
    assert_eq!(opened.log.health().states, [HealthState::Ok]);
}
