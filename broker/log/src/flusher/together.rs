//! Many partitions flushed together.
//!
//! Owns how many. That they take each step together, so that what they wrote is synced at once, is `pass`'s.

use std::sync::Arc;

use super::{flush, put_off};
use crate::ids::PartitionId;
use crate::partition::Partition;
use crate::partition::pass::{Pass, flush_passes};
use crate::partition::segments::FlushError;
use crate::shared::Shared;

/// Partitions flushed together.
pub(crate) const TOGETHER_MAX: usize = 128;
/// Bytes that they write before the first sync: what fills the disk's queue is what commits wait behind.
const TOGETHER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// So many are flushed together, however much they hold.
const TOGETHER_MIN: usize = 16;

/// Flushes partitions, and comes back when all are done.
pub(crate) fn flush_many(shared: &Arc<Shared>, ids: Vec<PartitionId>) -> Result<(), String> {
    let mut left = ids;
    while !left.is_empty() && !shared.is_read_only() {
        left = flush_in_step(shared, left)?;
    }
    left.into_iter().try_for_each(|id| flush(shared, id))
}

/// One pass over each partition. Returns those that have more to do.
pub(super) fn flush_in_step(
    shared: &Arc<Shared>,
    mut ids: Vec<PartitionId>,
) -> Result<Vec<PartitionId>, String> {
    // A partition may wait in the queue twice, and its folder has one writer at a time.
    ids.sort_unstable();
    ids.dedup();
    let found = ids.into_iter().filter_map(|id| shared.partition(id));
    let partitions: Vec<Arc<Partition>> = found.collect();
    let mut rest = &partitions[..];
    let mut left = Vec::new();
    while !rest.is_empty() && !shared.is_read_only() {
        let (round, others) = rest.split_at(round(rest));
        flush_round(shared, round, &mut left)?;
        rest = others;
    }
    left.extend(rest.iter().map(|partition| partition.id()));
    Ok(left)
}

/// How many partitions from the front are flushed together.
fn round(partitions: &[Arc<Partition>]) -> usize {
    let mut bytes = 0;
    let fits = |partition: &&Arc<Partition>| {
        bytes += partition.state.lock().tail.bytes();
        bytes <= TOGETHER_BYTES_MAX
    };
    let count = partitions.iter().take_while(fits).count();
    count.max(TOGETHER_MIN).min(partitions.len())
}

fn flush_round(
    shared: &Shared,
    partitions: &[Arc<Partition>],
    left: &mut Vec<PartitionId>,
) -> Result<(), String> {
    let round: Vec<&Partition> = partitions.iter().map(|p| &**p).collect();
    let results = flush_passes(&shared.files, &round);
    for (partition, result) in round.iter().zip(results) {
        match result {
            Ok(Pass::More) => left.push(partition.id()),
            Ok(Pass::Done | Pass::Idle) | Err(FlushError::Deleted) => {}
            Err(error @ FlushError::Fatal { .. }) => return Err(error.to_string()),
            Err(error @ FlushError::NoRoom { .. }) => {
                put_off(shared, &error);
                left.push(partition.id());
            }
        }
    }
    Ok(())
}
