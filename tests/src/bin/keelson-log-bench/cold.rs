//! Cold reads: a partition from its segments, verified, and the same files by `pread` alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use keelson_log::{
    AppendError, Hooks, Log, LogMetrics, Observer, Options, Partition, PartitionConfig,
    PartitionId, ProducedBatch, ReadOutcome, ReadRequest, TopicId,
};
use keelson_protocol::batch::BatchHeader;
use rustix::fs::Advice;
use serde_json::{Value, json};

use keelson_tests::records::{keyed_batch, now_ms, payload};

/// A usual batch of a producer under load: 16 KiB.
const RECORDS_PER_BATCH: u64 = 16;
const RECORD_BYTES: usize = 1000;
/// Segments of a size that a test has several of.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What a consumer asks of one partition (`max.partition.fetch.bytes`).
const FETCH_BYTES: u64 = 1 << 20;
/// What the log reads at once.
const PREAD_BYTES: usize = 256 * 1024;

/// Watches nothing, and ends the program when the log fails, as a broker would.
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn durable(&self, _: i64) {}
    fn log_start(&self, _: i64) {}
}

impl Hooks for Nobody {
    fn fatal(&self, reason: &str) {
        eprintln!("keelson-log-bench: {reason}");
        std::process::exit(1);
    }

    fn recovery_progress(&self, _: u64) {}
}

/// Fills a partition, then reads it three times each way, in turn, from a cold page cache.
pub(crate) fn reads(dir: &Path, bytes: u64) -> Result<Value> {
    let id = PartitionId {
        topic: TopicId([1; 16]),
        index: 0,
    };
    in_segments(dir, id, bytes)?;
    let (log, partition) = open(dir, id)?;
    let files = segment_files(dir)?;
    let (mut by_log, mut by_pread) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        forget(&files)?;
        by_pread.push(pread_all(&files)?);
        forget(&files)?;
        by_log.push(read_all(&partition)?);
    }
    log.shutdown();
    let (log_rate, pread_rate) = (median(&mut by_log), median(&mut by_pread));
    Ok(json!({
        "bytes": bytes,
        "log_mb_per_second": log_rate,
        "pread_mb_per_second": pread_rate,
        "ratio": log_rate / pread_rate,
    }))
}

/// Brings so many bytes into segments of a partition. Each key is there twice.
pub(crate) fn in_segments(dir: &Path, id: PartitionId, bytes: u64) -> Result<()> {
    let (log, partition) = open(dir, id)?;
    fill(&partition, bytes)?;
    log.shutdown();
    Ok(())
}

fn open(dir: &Path, id: PartitionId) -> Result<(Log, Arc<Partition>)> {
    let metrics = Arc::new(LogMetrics::unregistered());
    let log = keelson_log::open(Options::new(dir), metrics, Arc::new(Nobody))?;
    let config = PartitionConfig {
        segment_bytes: SEGMENT_BYTES,
        ..PartitionConfig::default()
    };
    let partition = log.open_partition(id, config, Arc::new(Nobody));
    Ok((log, partition))
}

fn fill(partition: &Partition, bytes: u64) -> Result<()> {
    let keys = (bytes / RECORD_BYTES as u64 / 2).max(1);
    let value = payload(RECORD_BYTES, 0, 0);
    let (mut written, mut number) = (0, 0);
    while written < bytes {
        let chosen: Vec<[u8; 8]> = (number..number + RECORDS_PER_BATCH)
            .map(|n| (n % keys).to_be_bytes())
            .collect();
        let records: Vec<(Option<&[u8]>, &[u8])> = chosen
            .iter()
            .map(|key| (Some(&key[..]), &value[..]))
            .collect();
        let batch = Bytes::from(keyed_batch(&records, now_ms()));
        while !append(partition, &batch)? {
            std::thread::yield_now();
        }
        written += batch.len() as u64;
        number += RECORDS_PER_BATCH;
    }
    Ok(())
}

/// False when there is no room for now.
fn append(partition: &Partition, batch: &Bytes) -> Result<bool> {
    let produced = ProducedBatch {
        bytes: batch.clone(),
        header: BatchHeader::parse(batch).context("a batch of our own")?,
        pin: None,
    };
    match partition.append(produced, 0) {
        Ok(_) => Ok(true),
        Err(AppendError::TailFull) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn segment_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.join("p")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                files.push(path);
            }
        }
    }
    ensure!(!files.is_empty(), "no segment in {}", dir.display());
    Ok(files)
}

/// Drops the files from the page cache.
fn forget(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn pread_all(files: &[PathBuf]) -> Result<f64> {
    let started = Instant::now();
    let mut buffer = vec![0; PREAD_BYTES];
    let mut sum = 0_u64;
    for path in files {
        let (file, mut position) = (File::open(path)?, 0);
        loop {
            let count = file.read_at(&mut buffer, position)?;
            if count == 0 {
                break;
            }
            position += count as u64;
            sum += count as u64;
        }
    }
    ensure!(sum > 0, "the segments are empty");
    Ok(sum as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn read_all(partition: &Partition) -> Result<f64> {
    let started = Instant::now();
    let (mut from, mut sum) = (partition.log_start(), 0);
    while from < partition.durable_offset() {
        let request = ReadRequest {
            from,
            up_to: i64::MAX,
            max_bytes: FETCH_BYTES,
            min_one: true,
            tail_only: false,
        };
        let ReadOutcome::Data { bytes, next, .. } = partition.read(request)? else {
            unreachable!("only an answer to tail_only")
        };
        ensure!(next > from, "nothing at offset {from}");
        (from, sum) = (next, sum + bytes);
    }
    Ok(sum as f64 / 1e6 / started.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
