//! Commits of one 4 KiB group through the WAL beside plain `pwritev2` of 4 KiB to a pre-written file.
//!
//! `cargo run --release -p keelson-log --example commit_rate -- <folder> [seconds]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use keelson_log::disk::{AlignedBuf, Disk, Durability, OpenMode, RealDisk};
use keelson_log::metrics::LogMetrics;
use keelson_log::node::{Node, NodeOptions};
use keelson_log::wal::{Batch, Class, DurableGroup, Frame, FrameBody, Wal, WalOptions, WalSink};
use keelson_log::{PartitionId, TopicId};

struct Notify(Sender<u64>);

impl WalSink for Notify {
    fn durable(&self, group: &mut DurableGroup) {
        // The receiver is gone only when the measurement is over.
        let _ = self.0.send(group.seq);
    }

    fn fatal(&self, reason: &str) -> ! {
        eprintln!("{reason}");
        std::process::exit(1)
    }
}

fn plain(dir: &Path, duration: Duration) -> anyhow_free::Result<f64> {
    let disk = RealDisk;
    let path = dir.join("plain");
    let file = disk.open(&path, OpenMode::Create)?;
    let length = 64_u64 << 20;
    file.zero_fill(0, length)?;
    file.sync_data()?;
    let direct = disk.open(&path, OpenMode::Direct)?;
    let block = AlignedBuf::zeroed(4096);
    let started = Instant::now();
    let mut commits = 0_u64;
    while started.elapsed() < duration {
        direct.write_at(&block, (commits * 4096) % length, Durability::Synced)?;
        commits += 1;
    }
    Ok(commits as f64 / started.elapsed().as_secs_f64())
}

fn wal(dir: &Path, duration: Duration) -> anyhow_free::Result<f64> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let started = Instant::now();
    let node = Node::open(
        Arc::clone(&disk),
        &NodeOptions {
            data_dir: dir.join("wal-data"),
            broker_id: 0,
            cluster_id: None,
            replaces: None,
        },
    )?;
    let mut recovery = Wal::open(disk, Arc::new(node), WalOptions::default())?;
    while recovery.next()?.is_some() {}
    let (sender, receiver) = channel();
    let wal = recovery.finish(
        Arc::new(Notify(sender)),
        Arc::new(LogMetrics::unregistered()),
    )?;
    println!("start: {:.3} s", started.elapsed().as_secs_f64());
    let batch = Batch {
        prefix: [1; 16],
        body: vec![7; 3000].into(),
    };
    let started = Instant::now();
    let mut commits = 0_u64;
    while started.elapsed() < duration {
        let frame = Frame {
            partition: PartitionId {
                topic: TopicId([1; 16]),
                index: 0,
            },
            body: FrameBody::Append {
                base_offset: commits as i64,
                last_offset: commits as i64,
                batch: batch.clone(),
            },
        };
        wal.submit(Class::Data, vec![frame])?;
        receiver.recv()?;
        commits += 1;
        if commits.is_multiple_of(1000) {
            wal.set_checkpoint(wal.durable_group())?;
        }
    }
    let rate = commits as f64 / started.elapsed().as_secs_f64();
    wal.shutdown();
    Ok(rate)
}

/// A result over any error, without a dependency for it.
mod anyhow_free {
    pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
}

fn main() -> anyhow_free::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(
        arguments
            .next()
            .ok_or("usage: commit_rate <folder> [seconds]")?,
    );
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let duration = Duration::from_secs(seconds);
    std::fs::create_dir_all(&dir)?;
    println!(
        "plain pwritev2 of 4 KiB: {:.0} commits/s",
        plain(&dir, duration)?
    );
    println!(
        "WAL, one 4 KiB group each: {:.0} commits/s",
        wal(&dir, duration)?
    );
    Ok(())
}
