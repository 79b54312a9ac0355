//! A fetch that cannot be answered at once: it waits for data, for memory, or for a file.
//!
//! Owns its entries in the lists of waiters and takes them off again, however it ends. Never polls.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::encode::FetchBody;
use super::finish;
use super::plan::Plan;
use super::read::{self, Files, Round};
use crate::broker::Broker;
use crate::dispatch::Answer;
use crate::partitions::PartitionOwner;

/// Waits until the plan has its bytes or its time is up, then answers.
pub(super) async fn fetch(broker: Arc<Broker>, plan: Plan, first: Round) -> Answer<FetchBody> {
    let plan = Arc::new(plan);
    let deadline = Instant::now() + plan.wait;
    let mut round = first;
    let entries = Entries::new(&broker, &plan);
    let mut in_time = true;
    loop {
        if round.needs_files {
            drop(round);
            return with_files(broker, plan).await;
        }
        if round.is_enough(&plan) || !in_time {
            // Memory for the reply may take a while, but the data is there: no deadline ends this wait.
            let gate = Arc::clone(&broker.budgets.replies);
            let reserve = gate.reserve(broker.ticket(), round.bytes.min(gate.bytes_max()));
            let permit = reserve.await;
            return finish(&plan, round, permit);
        }
        let held = round.bytes;
        // Without an error in the round (it would be enough) every part has an owner, in the same order.
        let ends = round.parts.iter().map(|part| part.high_watermark).collect();
        drop(round);
        in_time = entries.wait(held, ends, deadline).await;
        round = read::round(&broker, &plan, Files::Leave);
    }
}

/// Reads everything again on a thread that may block, once there is a permit and memory for the reply.
async fn with_files(broker: Arc<Broker>, plan: Arc<Plan>) -> Answer<FetchBody> {
    let gate = Arc::clone(&broker.budgets.replies);
    let wanted: u64 = plan.parts().map(|part| part.bytes_max).sum();
    let bytes = wanted.min(plan.bytes_max).min(gate.bytes_max());
    let reservation = gate.reserve(broker.ticket(), bytes).await;
    // The semaphore is never closed; without a permit the read would still be right, only unbounded.
    let _permit = broker.cold_reads.acquire().await;
    let (reader, reader_plan) = (Arc::clone(&broker), Arc::clone(&plan));
    let read = tokio::task::spawn_blocking(move || read::round(&reader, &reader_plan, Files::Read));
    match read.await {
        Ok(round) => finish(&plan, round, reservation),
        // A panic of ours ends the process before this; the runtime ends blocking work only when the process stops.
        Err(error) => {
            tracing::warn!(%error, "a read was given up");
            let error = keelson_protocol::ErrorCode::UnknownServerError;
            Answer::failed(FetchBody::failed(error), error)
        }
    }
}

/// The places of one fetch in the lists of waiters.
struct Entries {
    plan: Arc<Plan>,
    ticket: u64,
    wake: Arc<Notify>,
}

impl Entries {
    fn new(broker: &Broker, plan: &Arc<Plan>) -> Self {
        Self {
            plan: Arc::clone(plan),
            ticket: broker.ticket(),
            wake: Arc::new(Notify::new()),
        }
    }

    /// Waits until there may be more than the `held` bytes above the `ends`, the high watermarks that the last pass
    /// saw, or until the deadline; `false` when the time is up.
    async fn wait(&self, held: u64, mut ends: Vec<i64>, deadline: Instant) -> bool {
        let sizes = self.sizes();
        let needed = self.plan.bytes_min.saturating_sub(held);
        loop {
            if !self.register(&ends)
                && tokio::time::timeout_at(deadline, self.wake.notified())
                    .await
                    .is_err()
            {
                return false;
            }
            // A small append among many that are needed is not worth a pass over all partitions.
            let grown = self.sizes().saturating_sub(sizes);
            // Where a transaction ended, more may be readable than has grown.
            if self.plan.read_committed || needed <= 1 || grown == 0 || grown >= needed {
                return true;
            }
            ends = self.owners().map(|o| o.high_watermark()).collect();
        }
    }

    /// Takes a place in every list; true if there is no need to wait.
    fn register(&self, ends: &[i64]) -> bool {
        self.forget();
        let mut ready = false;
        for (owner, end) in self.owners().zip(ends) {
            ready |= owner
                .waiters()
                .await_readable(self.ticket, *end, &self.wake);
        }
        ready
    }

    fn owners(&self) -> impl Iterator<Item = &Arc<PartitionOwner>> {
        self.plan
            .parts()
            .filter_map(|part| part.owner.as_ref().ok())
    }

    fn sizes(&self) -> u64 {
        self.owners().map(|owner| owner.log().size_bytes()).sum()
    }

    fn forget(&self) {
        for owner in self.owners() {
            owner.waiters().forget_readable(self.ticket);
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.forget();
    }
}
