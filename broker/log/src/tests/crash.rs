//! The power fails at every disk operation in turn; what was acknowledged is there afterwards, and nothing goes back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::support::{
    Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read_everything,
    stored, wait_until,
};
use crate::disk::{Disk, SimDisk, SimFaults};
use crate::{Entry, Options, Partition, PartitionConfig, PartitionId};

const DIR: &str = "/data";
const KEPT: (u8, i32) = (1, 0);
const TRIMMED: (u8, i32) = (2, 0);
const DELETED: (u8, i32) = (3, 0);

/// What a client was told about one partition.
#[derive(Debug, Default, Clone)]
struct Told {
    /// Acknowledged batches.
    batches: Vec<(i64, Vec<u8>)>,
    next: i64,
    log_start: i64,
    /// Its deletion was asked for (it may have happened) and acknowledged.
    deletion: (bool, bool),
}

fn sim_options() -> Options {
    // Every append asks for a flush, every flush for a checkpoint: as many different places to fail as can be.
    Options {
        flush_pending_bytes: 1,
        seal_after: Duration::from_millis(1),
        flush_after: Duration::ZERO,
        ..options(Path::new(DIR))
    }
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 700,
        ..PartitionConfig::default()
    }
}

fn id((topic, index): (u8, i32)) -> PartitionId {
    partition_id(topic, index)
}

/// The work of one process, until it is done or the disk fails under it.
struct Process {
    opened: Opened,
    partitions: Vec<Arc<Partition>>,
}

impl Process {
    fn start(disk: &SimDisk) -> Option<Process> {
        let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = open_log(&dyn_disk, sim_options()).ok()?;
        let partitions = [KEPT, TRIMMED, DELETED]
            .map(|name| open_partition(&opened.log, id(name), config()))
            .to_vec();
        Some(Process { opened, partitions })
    }

    fn failed(&self) -> bool {
        self.opened.fatal.0.lock().is_some()
    }

    /// Appends and waits for the acknowledgement.
    fn append(&self, rng: &mut Rng, which: usize, told: &mut Told) -> Option<()> {
        let partition = &self.partitions[which];
        let records = 1 + rng.below(3);
        let bytes = batch(rng, 1000, records, 60);
        let appended = append(partition, &bytes).ok()?;
        wait_until("durable or failed", || {
            partition.durable_offset() > appended.last_offset || self.failed()
        });
        if partition.durable_offset() > appended.last_offset {
            told.batches
                .push((appended.base_offset, stored(&bytes, appended.base_offset)));
            told.next = appended.last_offset + 1;
        }
        (!self.failed()).then_some(())
    }

    fn commit(&self, entry: Entry) -> Option<()> {
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let tell = move || flag.store(true, std::sync::atomic::Ordering::Release);
        self.opened.log.commit(vec![entry], Box::new(tell)).ok()?;
        let is_done = || done.load(std::sync::atomic::Ordering::Acquire);
        wait_until("committed or failed", || is_done() || self.failed());
        is_done().then_some(())
    }

    fn work(&self, rng: &mut Rng, told: &mut [Told; 3]) -> Option<()> {
        for round in 0..4 {
            for (which, told) in told.iter_mut().enumerate() {
                if !told.deletion.0 {
                    self.append(rng, which, told)?;
                }
            }
            if round == 1 {
                let offset = told[1].next / 2;
                self.commit(Entry::LogStart {
                    partition: id(TRIMMED),
                    offset,
                })?;
                told[1].log_start = offset;
            }
            if round == 2 {
                told[2].deletion.0 = true;
                self.commit(Entry::DeletePartition(id(DELETED)))?;
                told[2].deletion.1 = true;
            }
        }
        Some(())
    }
}

/// One process from start to (perhaps) a clean end; returns whether the disk held out.
fn run(disk: &SimDisk, seed: u64, told: &mut [Told; 3]) -> bool {
    let mut rng = Rng::new(seed);
    let Some(process) = Process::start(disk) else {
        return false;
    };
    let worked = process.work(&mut rng, told).is_some();
    if worked {
        process.opened.log.shutdown();
    }
    worked && !process.failed()
}

type Content = Vec<(i64, Vec<u8>)>;

/// Opens the disk and holds it against what was told.
fn check(disk: &SimDisk, told: &[Told; 3], what: &str) -> [(i64, i64, Content); 3] {
    let dyn_disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open_log(&dyn_disk, sim_options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut number = 0;
    let found = [KEPT, TRIMMED, DELETED].map(|name| {
        let told = &told[number];
        number += 1;
        let existed = opened.log.partition(id(name)).is_some();
        assert!(
            !(told.deletion.1 && existed),
            "{what}: {name:?} was deleted"
        );
        let partition = open_partition(&opened.log, id(name), config());
        let (content, lost) = read_everything(&partition, 1 << 16);
        assert_eq!(lost, [], "{what}: {name:?}");
        if !told.deletion.0 {
            assert!(
                partition.next_offset() >= told.next,
                "{what}: {name:?}: {partition:?} {}",
                told.next
            );
            assert!(
                partition.log_start() >= told.log_start,
                "{what}: {name:?}: {partition:?}"
            );
            for batch in told
                .batches
                .iter()
                .filter(|(base, _)| *base >= partition.log_start())
            {
                let times = content.iter().filter(|found| *found == batch).count();
                assert_eq!(
                    times, 1,
                    "{what}: {name:?}: the batch at {} is there {times} times",
                    batch.0
                );
            }
        }
        (partition.log_start(), partition.next_offset(), content)
    });
    assert_eq!(
        opened.metrics.decode_errors_total(),
        0,
        "{what}: {:?}",
        opened.log.health()
    );
    drop(opened);
    disk.kill();
    found
}

fn cut_everywhere(seed: u64, step: u64) {
    println!("seed {seed}");
    let whole = SimDisk::new(seed);
    assert!(
        run(&whole, seed, &mut Default::default()),
        "without a fault everything works"
    );
    let operations = whole.operations();
    assert!(
        operations > 100,
        "{operations} operations are too few to say something"
    );
    let mut at = 1 + seed % step;
    while at <= operations {
        let what = format!("seed {seed}, cut at {at} of about {operations}");
        let disk = SimDisk::new(seed);
        disk.set_faults(SimFaults {
            cut_at: Some(at),
            ..SimFaults::default()
        });
        let mut told: [Told; 3] = Default::default();
        run(&disk, seed, &mut told);
        disk.power_cut();
        // The first start after it is cut, too, at some operation of its own.
        let again = disk.operations() + 1 + at % 23;
        disk.set_faults(SimFaults {
            cut_at: Some(again),
            ..SimFaults::default()
        });
        drop(Process::start(&disk));
        disk.power_cut();
        let first = check(&disk, &told, &what);
        let second = check(&disk, &told, &what);
        assert!(
            first == second,
            "{what}: recovering twice gives something else"
        );
        // And it goes on from there.
        let mut more = told.clone();
        more[2].deletion.0 = true;
        if let Some(process) = Process::start(&disk) {
            process
                .append(&mut Rng::new(at), 0, &mut more[0])
                .unwrap_or_else(|| panic!("{what}: {:?}", process.opened.fatal.0));
            process.opened.log.shutdown();
        }
        check(&disk, &more, &what);
        at += step;
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in 1..=3 {
        cut_everywhere(seed, 5);
    }
}

#[test]
fn a_failed_sync_ends_the_process_without_an_acknowledgement() {
    let seed = 11;
    let whole = SimDisk::new(seed);
    run(&whole, seed, &mut Default::default());
    let mut failures = 0;
    for at in (1..whole.operations()).step_by(5) {
        let disk = SimDisk::new(seed);
        disk.set_faults(SimFaults {
            sync_fails_at: Some(at),
            ..SimFaults::default()
        });
        let mut told: [Told; 3] = Default::default();
        if !run(&disk, seed, &mut told) {
            failures += 1;
        }
        disk.power_cut();
        check(&disk, &told, &format!("seed {seed}, sync {at} fails"));
    }
    assert!(failures > 5, "{failures} failed syncs were noticed");
}
