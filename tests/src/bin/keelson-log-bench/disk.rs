//! What the disk itself gives: synchronous direct writes, one after the other, in place.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use keelson_log::disk::{AlignedBuf, Disk, Durability, OpenMode, RealDisk};
use serde_json::{Value, json};

/// The size of one file of the write-ahead log on a large volume.
const FILE_BYTES: u64 = 64 << 20;

/// Writes `bytes` at a time, round and round in one zeroed file.
pub(crate) fn synced_writes(dir: &Path, bytes: usize, duration: Duration) -> Result<Value> {
    ensure!(
        bytes > 0 && bytes.is_multiple_of(4096) && bytes as u64 <= FILE_BYTES,
        "--bytes {bytes} is not a multiple of 4096 of at most {FILE_BYTES}"
    );
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let path = dir.join("disk");
    let file = RealDisk.open(&path, OpenMode::CreateNew)?;
    file.zero_fill(0, FILE_BYTES)?;
    file.sync_data()?;
    let file = RealDisk.open(&path, OpenMode::Direct)?;
    let mut buffer = AlignedBuf::zeroed(bytes);
    buffer.fill(7);
    let mut latency = Histogram::<u64>::new(3)?;
    let (started, mut position) = (Instant::now(), 0);
    while started.elapsed() < duration {
        let begun = Instant::now();
        file.write_at(&buffer, position, Durability::Synced)?;
        latency.record(begun.elapsed().as_micros() as u64)?;
        position += bytes as u64;
        if position + bytes as u64 > FILE_BYTES {
            position = 0;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(json!({
        "bytes": bytes,
        "writes_per_second": latency.len() as f64 / seconds,
        "p50_us": latency.value_at_quantile(0.5),
        "p99_us": latency.value_at_quantile(0.99),
    }))
}
