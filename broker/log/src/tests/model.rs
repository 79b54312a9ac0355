//! Random operations against a log and against the simplest thing that could be one: a list of batches.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::support::{
    DEADLINE, Opened, Rng, append, batch, open_log, open_partition, options, partition_id, read,
    read_everything, stored, wait_durable, wait_until,
};
use crate::disk::{Disk, SimDisk};
use crate::{Entry, Partition, PartitionConfig, PartitionId, ReadError};

const DIR: &str = "/data";

/// What a partition must hold.
#[derive(Default)]
struct Model {
    batches: Vec<(i64, i64, Vec<u8>)>,
    next: i64,
    log_start: i64,
}

impl Model {
    fn expected(&self) -> Vec<(i64, Vec<u8>)> {
        let live = self
            .batches
            .iter()
            .filter(|(_, last, _)| *last >= self.log_start);
        live.map(|(base, _, bytes)| (*base, bytes.clone()))
            .collect()
    }
}

struct Run {
    sim: SimDisk,
    disk: Arc<dyn Disk>,
    opened: Option<Opened>,
    partitions: BTreeMap<PartitionId, (Arc<Partition>, Model)>,
    rng: Rng,
    now_ms: i64,
    topics: u8,
}

fn config() -> PartitionConfig {
    PartitionConfig {
        segment_bytes: 40_000,
        segment_ms: 60_000,
        retention_ms: -1,
        retention_bytes: -1,
        compaction: None,
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let sim = SimDisk::new(seed);
        let mut run = Run {
            disk: Arc::new(sim.clone()),
            sim,
            opened: None,
            partitions: BTreeMap::new(),
            rng: Rng::new(seed),
            now_ms: 1_000_000,
            topics: 0,
        };
        run.open();
        for index in 0..3 {
            run.create(index);
        }
        run
    }

    fn log(&self) -> &crate::Log {
        &self.opened.as_ref().unwrap().log
    }

    fn open(&mut self) {
        self.opened = Some(open_log(&self.disk, options(Path::new(DIR))).unwrap());
    }

    fn create(&mut self, index: i32) {
        self.topics += 1;
        let id = partition_id(self.topics, index);
        let partition = open_partition(self.log(), id, config());
        self.partitions.insert(id, (partition, Model::default()));
    }

    fn pick(&mut self) -> PartitionId {
        let at = self.rng.below(self.partitions.len() as u64) as usize;
        *self.partitions.keys().nth(at).unwrap()
    }

    fn append(&mut self) {
        let id = self.pick();
        let records = 1 + self.rng.below(5);
        let size = if self.rng.below(20) == 0 {
            20_000
        } else {
            self.rng.below(900)
        };
        let now_ms = self.now_ms;
        let bytes: Bytes = batch(&mut self.rng, now_ms, records, size / records);
        let (partition, model) = self.partitions.get_mut(&id).unwrap();
        let appended = append(partition, &bytes).unwrap();
        assert_eq!(appended.base_offset, model.next);
        model.batches.push((
            appended.base_offset,
            appended.last_offset,
            stored(&bytes, appended.base_offset),
        ));
        model.next = appended.last_offset + 1;
    }

    fn check_read(&mut self) {
        let id = self.pick();
        let from = self.rng.below(self.partitions[&id].1.next as u64 + 2) as i64;
        let max_bytes = self.rng.below(30_000);
        let (partition, model) = &self.partitions[&id];
        wait_durable(partition, model.next);
        match read(partition, from, max_bytes) {
            Err(ReadError::OutOfRange { .. }) => {
                assert!(from < model.log_start || from > model.next)
            }
            Err(error) => panic!("{error}"),
            Ok((bytes, _)) if from == model.next => assert!(bytes.is_empty()),
            Ok((bytes, next)) => {
                let wanted: Vec<u8> = model
                    .batches
                    .iter()
                    .filter(|(base, last, _)| *last >= from && *base < next)
                    .flat_map(|(_, _, bytes)| bytes.iter().copied())
                    .collect();
                assert!(!bytes.is_empty(), "an empty answer at {from}");
                assert!(bytes == wanted, "other bytes at {from}..{next}");
            }
        }
    }

    fn move_log_start(&mut self) {
        let id = self.pick();
        let (partition, model) = &self.partitions[&id];
        wait_durable(partition, model.next);
        let offset =
            model.log_start + self.rng.below((model.next - model.log_start + 1) as u64) as i64;
        self.log()
            .commit(
                vec![Entry::LogStart {
                    partition: id,
                    offset,
                }],
                Box::new(|| {}),
            )
            .unwrap();
        let (partition, model) = self.partitions.get_mut(&id).unwrap();
        wait_until("log start", || partition.log_start() >= offset);
        model.log_start = model.log_start.max(offset);
        assert_eq!(partition.log_start(), model.log_start);
    }

    fn retain(&mut self) {
        let id = self.pick();
        let (partition, model) = self.partitions.get_mut(&id).unwrap();
        wait_durable(partition, model.next);
        partition.update_config(PartitionConfig {
            retention_bytes: 60_000,
            ..config()
        });
        let now_ms = self.now_ms;
        self.log().tick(now_ms);
        let (partition, model) = self.partitions.get_mut(&id).unwrap();
        partition.update_config(config());
        let target = partition.state.lock().retention_target;
        wait_until("retention", || partition.log_start() >= target);
        assert!(partition.log_start() >= model.log_start);
        let boundary = model
            .batches
            .iter()
            .any(|(base, _, _)| *base == partition.log_start());
        assert!(
            boundary
                || partition.log_start() == model.log_start
                || partition.log_start() == model.next,
            "retention cuts between batches"
        );
        model.log_start = partition.log_start();
    }

    fn delete(&mut self) {
        let id = self.pick();
        self.log()
            .commit(vec![Entry::DeletePartition(id)], Box::new(|| {}))
            .unwrap();
        let (partition, model) = self.partitions.remove(&id).unwrap();
        assert!(matches!(
            read(&partition, model.log_start, 1),
            Err(ReadError::Deleted)
        ));
        let folder = Path::new(DIR).join("p").join(id.topic.to_string());
        wait_until("the folder is gone", || !self.disk.exists(&folder).unwrap());
        self.create(id.index);
    }

    fn reopen(&mut self) {
        let clean = self.rng.below(2) == 0;
        for (partition, model) in self.partitions.values() {
            wait_durable(partition, model.next);
        }
        let opened = self.opened.take().unwrap();
        if clean {
            opened.log.shutdown();
        }
        // The old handles would keep the directory locked.
        let models: Vec<(PartitionId, Model)> = std::mem::take(&mut self.partitions)
            .into_iter()
            .map(|(id, (_, model))| (id, model))
            .collect();
        drop(opened);
        if !clean {
            self.sim.kill();
        }
        self.open();
        for (id, model) in models {
            let partition = open_partition(self.log(), id, config());
            assert_eq!(partition.next_offset(), model.next, "{id}");
            assert_eq!(partition.log_start(), model.log_start, "{id}");
            self.partitions.insert(id, (partition, model));
        }
    }

    fn check_all(&self) {
        for (id, (partition, model)) in &self.partitions {
            wait_durable(partition, model.next);
            for max_bytes in [1, 10_000, 1 << 20] {
                let (batches, lost) = read_everything(partition, max_bytes);
                assert_eq!(lost, []);
                assert!(batches == model.expected(), "{id}: other content");
            }
        }
        let opened = self.opened.as_ref().unwrap();
        assert_eq!(opened.metrics.decode_errors_total(), 0);
        assert_eq!(*opened.fatal.0.lock(), None);
    }

    fn step(&mut self) {
        self.now_ms += self.rng.below(2000) as i64;
        match self.rng.below(100) {
            0..70 => self.append(),
            70..88 => self.check_read(),
            88..92 => self.move_log_start(),
            92..95 => self.retain(),
            95..96 => self.delete(),
            _ => self.reopen(),
        }
    }
}

fn check(seed: u64, steps: u64) {
    println!("seed {seed}");
    let started = std::time::Instant::now();
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    run.check_all();
    run.reopen();
    run.check_all();
    assert!(started.elapsed() < 4 * DEADLINE, "seed {seed} is too slow");
}

#[test]
fn a_log_behaves_like_a_list_of_batches() {
    for seed in 1..=8 {
        check(seed, 300);
    }
}
