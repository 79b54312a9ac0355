//! Many partitions flushed together.
//!
//! Owns that all of them take one step of their passes before any takes the next. Syncs that wait side by side share a
//! flush of the disk's cache, which delays the commits beside it. The order of steps within a partition is the pass's own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};

use parking_lot::Mutex;

use super::{flush, put_off};
use crate::ids::PartitionId;
use crate::partition::Partition;
use crate::partition::pass::{FlushPass, Pass};
use crate::partition::segments::FlushError;
use crate::shared::Shared;

/// Partitions flushed together. With more of them commits were not faster, and whoever is in the queue waits longer.
pub(super) const TOGETHER_MAX: usize = 128;
/// Bytes that they write before the first sync: what fills the disk's queue is what commits wait behind.
const TOGETHER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Threads that flush them.
pub(crate) const PARALLEL_MAX: usize = 16;

/// Flushes partitions, and comes back when all are done.
pub(crate) fn flush_many(shared: &Arc<Shared>, ids: Vec<PartitionId>) -> Result<(), String> {
    let mut left = ids;
    while !left.is_empty() && !shared.is_read_only() {
        left = flush_in_step(shared, left, PARALLEL_MAX)?;
    }
    left.into_iter().try_for_each(|id| flush(shared, id))
}

/// One pass over each partition, on up to so many threads. Returns those that have more to do.
pub(super) fn flush_in_step(
    shared: &Arc<Shared>,
    mut ids: Vec<PartitionId>,
    threads_max: usize,
) -> Result<Vec<PartitionId>, String> {
    // A partition may wait in the queue twice, and its folder has one writer at a time.
    ids.sort_unstable();
    ids.dedup();
    let partitions: Vec<Arc<Partition>> = ids
        .into_iter()
        .filter_map(|id| shared.partition(id))
        .collect();
    let mut rest = &partitions[..];
    let mut left = Vec::new();
    while !rest.is_empty() && !shared.is_read_only() {
        let (round, others) = rest.split_at(round(rest));
        left.extend(flush_round(shared, round, threads_max)?);
        rest = others;
    }
    left.extend(rest.iter().map(|partition| partition.id()));
    Ok(left)
}

/// How many partitions from the front are flushed together: at least as many as there are threads.
fn round(partitions: &[Arc<Partition>]) -> usize {
    let mut bytes = 0;
    let fits = |partition: &&Arc<Partition>| {
        bytes += partition.state.lock().tail.bytes();
        bytes <= TOGETHER_BYTES_MAX
    };
    let count = partitions.iter().take_while(fits).count();
    count.max(PARALLEL_MAX).min(partitions.len())
}

fn flush_round(
    shared: &Arc<Shared>,
    partitions: &[Arc<Partition>],
    threads_max: usize,
) -> Result<Vec<PartitionId>, String> {
    let share = partitions.len().div_ceil(threads_max).max(1);
    let shares: Vec<&[Arc<Partition>]> = partitions.chunks(share).collect();
    let (all, one) = (Barrier::new(shares.len()), Mutex::default());
    if let [share] = shares[..] {
        return flush_share(shared, share, (&all, &one));
    }
    let results: Vec<_> = std::thread::scope(|scope| {
        let rules = (&all, &one);
        let threads: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || flush_share(shared, share, rules)))
            .collect();
        let panicked = |_| Err("a flush panicked".to_owned());
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect()
    });
    let mut left = Vec::new();
    for result in results {
        left.extend(result?);
    }
    Ok(left)
}

type Under<'a> = Vec<Result<Option<FlushPass<'a>>, FlushError>>;

/// What one thread does: all steps for its share of the partitions, in step with the other threads.
fn flush_share<'a>(
    shared: &Shared,
    partitions: &'a [Arc<Partition>],
    (all, one): (&Barrier, &Mutex<Vec<u8>>),
) -> Result<Vec<PartitionId>, String> {
    let begin = |partition: &'a Partition| match partition.begin_pass()? {
        Some(pass) => {
            // Writing needs a core and waits for nothing: many threads at once would take the cores from the commits.
            let written = pass.write(&mut one.lock()).map(Some);
            std::thread::yield_now();
            written
        }
        None => Ok(None),
    };
    let begun = in_step(all, || {
        let begun: Under<'_> = partitions.iter().map(|p| begin(p)).collect();
        Ok(begun)
    });
    let synced = in_step(all, || {
        let passes = begun?.into_iter();
        let synced: Under<'_> = passes
            .map(|pass| pass?.map(FlushPass::sync).transpose())
            .collect();
        Ok(synced)
    });
    let mut left = Vec::new();
    for (partition, pass) in partitions.iter().zip(synced?) {
        match pass.and_then(|pass| pass.map_or(Ok(Pass::Idle), FlushPass::finish)) {
            Ok(Pass::More) => left.push(partition.id()),
            Ok(Pass::Done | Pass::Idle) | Err(FlushError::Deleted) => {}
            Err(error @ FlushError::Fatal { .. }) => return Err(error.to_string()),
            Err(error @ FlushError::NoRoom { .. }) => {
                put_off(shared, &error);
                left.push(partition.id());
            }
        }
    }
    Ok(left)
}

/// Takes a step and waits until all threads have taken it; also behind a panic, or the others would wait for ever.
fn in_step<R>(all: &Barrier, step: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    let result = catch_unwind(AssertUnwindSafe(step));
    all.wait();
    result.unwrap_or_else(|_| Err("a flush panicked".to_owned()))
}
