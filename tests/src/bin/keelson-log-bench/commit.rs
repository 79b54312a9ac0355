//! Commits: batches in flight over many partitions, counted and timed at their acknowledgement.
//!
//! One thread appends and measures. It keeps a fixed number of batches unacknowledged; since all of them pass one queue,
//! acknowledgements come in the order of the appends, up to the order within one group.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use keelson_log::disk::{Disk, RealDisk};
use keelson_log::node::{Node, NodeOptions};
use keelson_log::wal::{Batch, Class, DurableGroup, Frame, FrameBody, Wal, WalOptions, WalSink};
use keelson_log::{
    AppendError, LogMetrics, Observer, Options, Partition, PartitionConfig, PartitionId,
    ProducedBatch, TopicId,
};
use keelson_protocol::batch::BatchHeader;
use serde_json::{Value, json};

use crate::cold::{Nobody, in_segments};
use crate::sized_batch;

/// How long the driver waits before it looks again whether there is room.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How often it looks whether every partition has its folder: many are listed, and that is not to be felt.
const LOOK_AT_FOLDERS: Duration = Duration::from_millis(500);
/// No acknowledgement takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// What `/proc` counts a thread's time in, on every Linux.
const CPU_TICK_MS: u64 = 10;
const LEADER_EPOCH: i32 = 0;

/// What is appended.
pub(crate) struct Load {
    pub(crate) partitions: i32,
    pub(crate) outstanding: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) measured: Duration,
    /// Time before that, once every partition has been flushed if any is.
    pub(crate) warm_up: Duration,
    /// Bytes that another partition holds in segments, for what runs beside the load to look at.
    pub(crate) prefilled_bytes: u64,
    pub(crate) scrubs: bool,
    pub(crate) compacts: bool,
}

fn id(index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([1; 16]),
        index,
    }
}

/// The partition that is there for what runs beside the load.
fn other() -> PartitionId {
    PartitionId {
        topic: TopicId([2; 16]),
        index: 0,
    }
}

/// Tells the driver how many batches of a partition became durable; each holds one record.
struct Acks {
    told: AtomicI64,
    acks: Mutex<Sender<usize>>,
}

impl Observer for Acks {
    fn durable(&self, durable_offset: i64) {
        let before = self.told.swap(durable_offset, Ordering::Relaxed);
        let sender = self.acks.lock().expect("no holder panics");
        // The driver has gone once it has measured.
        let _ = sender.send((durable_offset - before) as usize);
    }

    fn log_start(&self, _: i64) {}
}

/// The same for the write-ahead log alone.
struct Sink(Mutex<Sender<usize>>);

impl WalSink for Sink {
    fn durable(&self, group: &mut DurableGroup) {
        let count = group.frames.len();
        group.frames.clear();
        let _ = self.0.lock().expect("no holder panics").send(count);
    }

    fn fatal(&self, reason: &str) -> ! {
        eprintln!("keelson-log-bench: {reason}");
        std::process::exit(1);
    }
}

/// The log with its flusher and default options.
pub(crate) fn whole_log(dir: &Path, load: &Load) -> Result<Value> {
    if load.prefilled_bytes > 0 {
        in_segments(dir, other(), load.prefilled_bytes)?;
    }
    if load.prefilled_bytes == 0 && load.compacts {
        bail!("there is nothing to compact without --prefilled-bytes");
    }
    let metrics = Arc::new(LogMetrics::unregistered());
    let mut options = Options::new(dir);
    if !load.scrubs {
        options.scrub_bytes_per_second = 0;
    }
    if load.compacts {
        // At once, and never for long without: with many partitions, looking at each of them so often is a load of its own.
        options.compaction.pause = LOOK_AGAIN;
    }
    let log = keelson_log::open(options, Arc::clone(&metrics), Arc::new(Nobody))?;
    if load.compacts {
        let config = PartitionConfig {
            compaction: Some(Arc::default()),
            ..PartitionConfig::default()
        };
        log.open_partition(other(), config, Arc::new(Nobody));
    }
    let (sender, receiver) = channel();
    let partitions: Vec<Arc<Partition>> = (0..load.partitions)
        .map(|index| {
            let observer = Acks {
                told: AtomicI64::new(0),
                acks: Mutex::new(sender.clone()),
            };
            log.open_partition(id(index), PartitionConfig::default(), Arc::new(observer))
        })
        .collect();
    let bytes = sized_batch(load.batch_bytes);
    let header = BatchHeader::parse(&bytes).context("a batch of our own")?;
    let append = |number: usize| {
        let batch = ProducedBatch {
            bytes: bytes.clone(),
            header,
            pin: None,
        };
        match partitions[number % partitions.len()].append(batch, LEADER_EPOCH) {
            Ok(_) => Ok(true),
            Err(AppendError::TailFull) => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    // The first flush of a partition makes its folder and its files, which is not what a long run is made of.
    let folders = dir.join("p").join(id(0).topic.to_string());
    let all_flushed = || {
        let made = std::fs::read_dir(&folders).map_or(0, Iterator::count);
        made >= load.partitions as usize
    };
    let measured = drive(load, &metrics, &receiver, append, all_flushed)?;
    let scrubbed_bytes = metrics.scrub_bytes.get();
    log.shutdown();
    if load.scrubs && load.prefilled_bytes > 0 && scrubbed_bytes >= load.prefilled_bytes {
        bail!("the scrubber was through before the load was");
    }
    let compacted_bytes = metrics.compaction.read_bytes.get();
    if load.compacts && (compacted_bytes == 0 || metrics.compaction.done.get() > 0) {
        bail!("the compaction did not run beside all of the load: {compacted_bytes} bytes");
    }
    Ok(measured.report(load, scrubbed_bytes, compacted_bytes))
}

/// The write-ahead log alone: a checkpoint follows its writer, so that its files are used round and round.
pub(crate) fn wal_alone(dir: &Path, load: &Load) -> Result<Value> {
    let metrics = Arc::new(LogMetrics::unregistered());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = NodeOptions {
        data_dir: dir.to_owned(),
        broker_id: 0,
        cluster_id: None,
        replaces: None,
    };
    let node = Arc::new(Node::open(Arc::clone(&disk), &options)?);
    let mut recovery = Wal::open(disk, node, WalOptions::default())?;
    if recovery.next()?.is_some() {
        bail!("{} is not empty", dir.display());
    }
    let (sender, receiver) = channel();
    let sink = Arc::new(Sink(Mutex::new(sender)));
    let wal = recovery.finish(sink, Arc::clone(&metrics))?;
    let bytes = sized_batch(load.batch_bytes);
    let over = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| follow(&wal, &over));
        let append = |number: usize| {
            let index = (number % load.partitions as usize) as i32;
            let offset = (number / load.partitions as usize) as i64;
            Ok(wal
                .submit(Class::Data, vec![frame(index, offset, &bytes)])
                .is_ok())
        };
        let measured = drive(load, &metrics, &receiver, append, || true);
        over.store(true, Ordering::Relaxed);
        checkpoints.thread().unpark();
        checkpoints.join().expect("it does not panic")?;
        measured
    })?;
    wal.shutdown();
    Ok(measured.report(load, 0, 0))
}

fn frame(index: i32, offset: i64, bytes: &Bytes) -> Frame {
    let batch = Batch::from_bytes(bytes).expect("a batch is longer than its prefix");
    Frame {
        partition: id(index),
        body: FrameBody::Append {
            base_offset: offset,
            last_offset: offset,
            batch,
        },
    }
}

/// Brings the checkpoint forward whenever a file can be freed by it.
fn follow(wal: &Wal, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        if wal.oldest_file().is_some() || wal.wants_checkpoint().is_some() {
            wal.set_checkpoint(wal.durable_group())?;
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Ok(())
}

/// What was seen in the measured time.
struct Measured {
    latency: Histogram<u64>,
    elapsed: Duration,
    groups: f64,
    disk_bytes: u64,
    cpu: Duration,
    refused: u64,
}

impl Measured {
    fn report(&self, load: &Load, scrubbed_bytes: u64, compacted_bytes: u64) -> Value {
        let (batches, seconds) = (self.latency.len(), self.elapsed.as_secs_f64());
        let acked = batches * load.batch_bytes as u64;
        json!({
            "partitions": load.partitions,
            "batches_per_second": batches as f64 / seconds,
            "groups_per_second": self.groups / seconds,
            "batches_per_group": batches as f64 / self.groups,
            "p50_us": self.latency.value_at_quantile(0.5),
            "p99_us": self.latency.value_at_quantile(0.99),
            "p999_us": self.latency.value_at_quantile(0.999),
            "disk_bytes_per_acked_byte": self.disk_bytes as f64 / acked as f64,
            "cpu_us_per_batch": self.cpu.as_secs_f64() * 1e6 / batches as f64,
            "waits_for_room": self.refused,
            "scrubbed_bytes": scrubbed_bytes,
            "compacted_bytes": compacted_bytes,
        })
    }
}

/// Appends until the time is over. `append` gives false when there is no room for now. The warm-up begins when
/// `is_settled` first holds.
fn drive(
    load: &Load,
    metrics: &LogMetrics,
    acks: &Receiver<usize>,
    append: impl Fn(usize) -> Result<bool>,
    is_settled: impl Fn() -> bool,
) -> Result<Measured> {
    let (mut looked, mut settled) = (Instant::now(), None);
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let (mut number, mut refused) = (0, 0);
    let mut latency = Histogram::<u64>::new(3)?;
    let mut begun: Option<(Instant, u64, u64, Duration)> = None;
    let groups = || metrics.group_bytes.get_sample_count();
    loop {
        if settled.is_none() && looked.elapsed() >= LOOK_AT_FOLDERS {
            looked = Instant::now();
            settled = is_settled().then_some(looked);
        }
        let is_warm = settled.is_some_and(|since| since.elapsed() >= load.warm_up);
        if begun.is_none() && is_warm {
            begun = Some((Instant::now(), groups(), written_bytes()?, cpu_time()?));
        }
        if let Some((at, groups_before, written_before, cpu_before)) = begun
            && at.elapsed() >= load.measured
        {
            return Ok(Measured {
                latency,
                elapsed: at.elapsed(),
                groups: (groups() - groups_before) as f64,
                disk_bytes: written_bytes()? - written_before,
                cpu: cpu_time()? - cpu_before,
                refused,
            });
        }
        while waiting.len() < load.outstanding {
            if !append(number)? {
                refused += 1;
                break;
            }
            waiting.push_back(Instant::now());
            number += 1;
        }
        let full = waiting.len() == load.outstanding;
        let count = match acks.recv_timeout(if full { PATIENCE } else { LOOK_AGAIN }) {
            Ok(count) => count,
            Err(RecvTimeoutError::Timeout) if !full => continue,
            Err(error) => bail!("no acknowledgement: {error}"),
        };
        for since in waiting.drain(..count) {
            if begun.is_some() {
                latency.record(since.elapsed().as_micros() as u64)?;
            }
        }
    }
}

/// Bytes that this process caused to be written to storage, by the kernel's own count.
fn written_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("/proc/self/io has no write_bytes")?.parse()?)
}

/// Time that the threads of this process, driver included, have had a core.
fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything: fields 14 and 15 of the line.
    let (_, fields) = text.rsplit_once(')').context("/proc/self/stat is odd")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * CPU_TICK_MS))
}
