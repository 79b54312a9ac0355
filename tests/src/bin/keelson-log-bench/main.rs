//! `keelson-log-bench`: what the log costs without a network, beside what the disk itself gives.
//!
//! Owns the command line; each measurement stands in a file of its own and prints one line of JSON. Never judges its numbers:
//! `tests/python/log_bench.py` does.

mod cold;
mod commit;
mod disk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use keelson_tests::records::{fresh_batch, payload};

/// The broker's own: what is measured allocates as a broker does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a batch of one record without key adds to the value: header, and the record's own fields.
const BATCH_OVERHEAD_BYTES: usize = 72;

/// Measures the log on a directory of its own, which is created and must be empty.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Directory to work in.
    #[arg(long)]
    dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Appends batches round robin over partitions, a fixed number of them unacknowledged.
    Commit {
        /// Partitions.
        #[arg(long, default_value_t = 1)]
        partitions: i32,
        /// Batches that wait for their acknowledgement at any time.
        #[arg(long, default_value_t = 128)]
        outstanding: usize,
        /// Size of a batch in bytes.
        #[arg(long, default_value_t = 1024)]
        batch_bytes: usize,
        /// Seconds that are measured.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Seconds before that, from when every partition has been flushed once.
        #[arg(long, default_value_t = 5)]
        warm_up: u64,
        /// The write-ahead log alone: nothing goes into segments.
        #[arg(long)]
        wal_alone: bool,
        /// Bytes that another partition holds in segments, for what runs beside the load to look at.
        #[arg(long, default_value_t = 0)]
        prefilled_bytes: u64,
        /// The scrubber does not run; else it does at its default rate.
        #[arg(long)]
        no_scrub: bool,
        /// That partition is compacted, at the default rate; half of its records are out of date.
        #[arg(long)]
        compact: bool,
    },
    /// Synchronous direct writes of one size into one preallocated file: what the disk gives.
    Disk {
        /// Size of a write in bytes, a multiple of 4,096.
        #[arg(long, default_value_t = 4096)]
        bytes: usize,
        /// Seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Reads a partition whose segments are not in the page cache, and the same files by `pread` alone.
    Cold {
        /// Bytes of the partition.
        #[arg(long, default_value_t = 512 << 20)]
        bytes: u64,
    },
}

/// A batch of one record, of about this size.
fn sized_batch(bytes: usize) -> Bytes {
    let value = payload(bytes.saturating_sub(BATCH_OVERHEAD_BYTES).max(16), 0, 0);
    fresh_batch(&[&value]).into()
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("keelson-log-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<serde_json::Value> {
    match args.what {
        What::Commit {
            partitions,
            outstanding,
            batch_bytes,
            seconds,
            warm_up,
            wal_alone,
            prefilled_bytes,
            no_scrub,
            compact,
        } => {
            let load = commit::Load {
                partitions,
                outstanding,
                batch_bytes,
                measured: Duration::from_secs(seconds),
                warm_up: Duration::from_secs(warm_up),
                prefilled_bytes,
                scrubs: !no_scrub,
                compacts: compact,
            };
            if wal_alone {
                commit::wal_alone(&args.dir, &load)
            } else {
                commit::whole_log(&args.dir, &load)
            }
        }
        What::Disk { bytes, seconds } => {
            disk::synced_writes(&args.dir, bytes, Duration::from_secs(seconds))
        }
        What::Cold { bytes } => cold::reads(&args.dir, bytes),
    }
}
