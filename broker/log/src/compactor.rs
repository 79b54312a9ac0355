//! The thread that compacts: round after round, in each the partition with the largest dirty part first.
//!
//! Owns the order and the pace. What is cleaned is decided in [`crate::partition::compact`] and carried out in
//! [`crate::partition::rewrite`]. A partition that cannot be compacted now is told and tried again after the pause.

use std::io;
use std::sync::Arc;

use crate::background::{Background, Pace};
use crate::partition::Partition;
use crate::partition::rewrite::Stopped;
use crate::shared::{Shared, now_ms};

/// The thread and how it is ended.
pub(crate) struct Compactor {
    thread: Background,
}

impl Compactor {
    /// One that does not run yet.
    pub(crate) fn new() -> Self {
        Compactor {
            thread: Background::new("compactor"),
        }
    }

    /// Starts the thread, unless it is switched off.
    pub(crate) fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        if shared.compaction_pace().pause.is_zero() {
            return Ok(());
        }
        let rate = shared.compaction_pace().bytes_per_second;
        let shared = Arc::clone(shared);
        self.thread.start(rate, move |pace| run(&shared, pace))
    }

    /// Ends the thread; what it is about to write anew is thrown away.
    pub(crate) fn stop(&self) {
        self.thread.stop();
    }
}

fn run(shared: &Arc<Shared>, mut pace: Pace) {
    loop {
        for partition in dirtiest_first(shared) {
            pace.set_rate(shared.compaction_pace().bytes_per_second);
            let mut ends = |bytes| pace.pause(bytes) || shared.has_failed();
            match partition.compact(now_ms(), &mut ends) {
                Err(Stopped::Ended) => return,
                Err(Stopped::Fatal(reason)) => {
                    shared.fail(&reason);
                    return;
                }
                result => tell(shared, &partition, result),
            }
        }
        if pace.wait(shared.compaction_pace().pause) {
            return;
        }
    }
}

/// Counts how a compaction ended, and says why when it did not come to its end.
fn tell(shared: &Shared, partition: &Partition, result: Result<(), Stopped>) {
    match result {
        Ok(()) => shared.metrics.compaction.done.inc(),
        // Retention, a truncation or a deletion was faster: nothing is wrong.
        Err(Stopped::Changed) => {}
        Err(stopped) => {
            shared.metrics.compaction.failures.inc();
            tracing::warn!(partition = %partition.id(), reason = %stopped, "not compacted");
        }
    }
}

/// The partitions that want to be compacted, each once.
fn dirtiest_first(shared: &Shared) -> Vec<Arc<Partition>> {
    let now_ms = now_ms();
    let partitions: Vec<Arc<Partition>> = shared.partitions.read().values().cloned().collect();
    let dirty = partitions
        .into_iter()
        .filter_map(|partition| Some((partition.dirty_ratio(now_ms)?, partition)));
    let mut dirty: Vec<(f64, Arc<Partition>)> = dirty.collect();
    dirty.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    dirty.into_iter().map(|(_, partition)| partition).collect()
}
