//! The flusher's work, one piece at a time, in the order that a test asks for.
//!
//! Owns nothing: the pieces are those of the thread, only their order is the caller's, so that a seed replays it.

use std::collections::BTreeSet;
use std::sync::Arc;

#[cfg(test)]
use super::together::flush_in_step;
use super::{bury, checkpoint, flush, repair};
use crate::ids::PartitionId;
use crate::shared::Shared;

/// Something that the flusher could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Piece {
    Flush(PartitionId),
    Bury(PartitionId),
    Repair(PartitionId, i64),
    Checkpoint(u64),
}

/// All of them, in a fixed order.
pub(crate) fn pieces(shared: &Shared) -> Vec<Piece> {
    let work = shared.flusher.work.lock();
    let mut found: BTreeSet<Piece> = work.queue.iter().copied().map(Piece::Flush).collect();
    found.extend(work.holds.keys().map(|(_, id)| Piece::Flush(*id)));
    let left = work.graves.iter().filter(|(_, grave)| grave.left.is_some());
    found.extend(left.map(|(id, _)| Piece::Bury(*id)));
    found.extend(
        work.repairs
            .iter()
            .map(|(id, base)| Piece::Repair(*id, *base)),
    );
    if work.candidate() > work.checkpoint {
        found.insert(Piece::Checkpoint(work.candidate()));
    }
    found.into_iter().collect()
}

/// Does one piece. `Err` is the reason why the process must end.
pub(crate) fn run(shared: &Arc<Shared>, piece: Piece) -> Result<(), String> {
    match piece {
        Piece::Flush(id) => {
            shared
                .flusher
                .work
                .lock()
                .queue
                .retain(|queued| *queued != id);
            flush(shared, id)
        }
        Piece::Bury(id) => bury(shared, id),
        Piece::Repair(id, base) => {
            let mut work = shared.flusher.work.lock();
            work.repairs.retain(|queued| *queued != (id, base));
            drop(work);
            repair(shared, id, base)
        }
        Piece::Checkpoint(group) => checkpoint(shared, group),
    }
}

/// Flushes every partition that could be flushed, all of them together.
#[cfg(test)]
pub(crate) fn flush_together(shared: &Arc<Shared>) -> Result<(), String> {
    let flushes = pieces(shared).into_iter().filter_map(|piece| match piece {
        Piece::Flush(id) => Some(id),
        Piece::Bury(_) | Piece::Repair(..) | Piece::Checkpoint(_) => None,
    });
    let ids: Vec<PartitionId> = flushes.collect();
    shared.flusher.work.lock().queue.clear();
    let left = flush_in_step(shared, ids)?;
    left.into_iter().try_for_each(|id| flush(shared, id))
}
