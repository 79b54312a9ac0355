//! A fetch that cannot be answered at once: it waits for data, for memory, or for a file.
//!
//! Owns its places among those who watch its partitions and gives them up again, however it ends; those of a session stay
//! with the session. Never polls.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use tokio::time::Instant;

use super::encode::FetchBody;
use super::plan::{Part, Plan, Scope};
use super::read::{self, Files, PartAnswer, Round};
use super::{finish, incremental};
use crate::broker::Broker;
use crate::budgets::{Rank, Turn};
use crate::dispatch::Answer;
use crate::partitions::{PartitionOwner, Watch};

/// What a waiting fetch keeps for each partition: its part of the plan, and its place among those who watch it.
const WAITING_PART_BYTES: usize = 256;
/// A fetch that keeps no more than this waits whatever others do.
const WAITING_FREE_BYTES: usize = 16 * 1024;

/// Waits until the plan has its bytes or its time is up, then answers.
pub(super) async fn fetch(broker: Arc<Broker>, mut plan: Plan, first: Round) -> Answer<FetchBody> {
    let deadline = Instant::now() + plan.params.wait;
    let mut round = first;
    let mut entries = Entries::default();
    let mut in_time = true;
    let kept = plan.parts.len() * WAITING_PART_BYTES;
    let mut permit = None;
    if kept > WAITING_FREE_BYTES && !round.is_enough(&plan) {
        permit = broker.budgets.waiting.try_reserve(kept as u64);
        // Without room for what it waits with it is answered now: it is asked again.
        in_time = permit.is_some();
    }
    loop {
        if round.needs_files {
            drop((round, entries, permit));
            return with_files(broker, plan).await;
        }
        if round.is_enough(&plan) || !in_time {
            // Memory for the reply may take a while, but the data is there: no deadline ends this wait.
            let gate = Arc::clone(&broker.budgets.replies);
            let reserve = gate.reserve(turn(&broker, &plan), round.bytes.min(gate.bytes_max()));
            let permit = reserve.await;
            return finish(&broker, plan, round, permit);
        }
        let moved = match &plan.scope {
            Scope::Whole { .. } => Ok(entries.wait(&plan, round, deadline).await),
            Scope::Session { live, epoch } => {
                let settled = incremental::settle(live, *epoch, &plan.parts, &round);
                drop(round);
                match settled {
                    Ok(()) => Ok(tokio::time::timeout_at(deadline, live.watch.wait())
                        .await
                        .is_ok()),
                    Err(error) => Err(error),
                }
            }
        };
        in_time = match moved.and_then(|in_time| plan.collect(&broker).map(|()| in_time)) {
            Ok(in_time) => in_time,
            Err(error) => {
                return Answer::failed(FetchBody::failed(error, plan.session_id()), error);
            }
        };
        round = read::round(&broker, &plan, Files::Leave);
    }
}

fn turn(broker: &Broker, plan: &Plan) -> Turn {
    Turn {
        ticket: broker.ticket(),
        address: Some(plan.params.host),
        rank: Rank::Complete,
    }
}

/// Reads everything again on a thread that may block, once there is a permit and memory for the reply.
async fn with_files(broker: Arc<Broker>, plan: Plan) -> Answer<FetchBody> {
    let gate = Arc::clone(&broker.budgets.replies);
    let wanted: u64 = plan.parts.iter().map(Part::bytes_max).sum();
    let bytes = wanted.min(plan.params.bytes_max).min(gate.bytes_max());
    let reservation = gate.reserve(turn(&broker, &plan), bytes).await;
    // The semaphore is never closed; without a permit the read would still be right, only unbounded.
    let _permit = broker.cold_reads.acquire().await;
    let reader = Arc::clone(&broker);
    let read = tokio::task::spawn_blocking(move || {
        let round = read::round(&reader, &plan, Files::Read);
        (plan, round)
    });
    match read.await {
        Ok((plan, round)) => finish(&broker, plan, round, reservation),
        // A panic of ours ends the process before this; the runtime ends blocking work only when the process stops.
        Err(error) => {
            tracing::warn!(%error, "a read was given up");
            let error = ErrorCode::UnknownServerError;
            Answer::failed(FetchBody::failed(error, 0), error)
        }
    }
}

/// The places of a fetch without a session among those who watch its partitions.
#[derive(Default)]
struct Entries {
    watch: Arc<Watch>,
    owners: Vec<Option<Arc<PartitionOwner>>>,
    /// Which of them will tell when they move.
    watched: Vec<bool>,
}

impl Entries {
    /// Waits until there may be more than the last pass saw, or until the deadline; `false` when the time is up.
    async fn wait(&mut self, plan: &Plan, round: Round, deadline: Instant) -> bool {
        if self.owners.is_empty() {
            self.owners = plan.parts.iter().map(|p| p.owner().cloned()).collect();
            self.watched = vec![false; plan.parts.len()];
        }
        let needed = plan.params.bytes_min.saturating_sub(round.bytes);
        // Where a transaction ended, more may be readable than has grown.
        let counts = needed > 1 && !plan.params.read_committed;
        let sizes = if counts { self.sizes() } else { 0 };
        let mut ends: Vec<i64> = round.parts.iter().map(end).collect();
        drop(round);
        loop {
            if !self.register(&ends)
                && tokio::time::timeout_at(deadline, self.watch.wait())
                    .await
                    .is_err()
            {
                return false;
            }
            for slot in self.watch.take_moved() {
                self.watched[slot as usize] = false;
            }
            if !counts {
                return true;
            }
            // A small append among many that are needed is not worth a pass over all partitions.
            let grown = self.sizes().saturating_sub(sizes);
            if grown == 0 || grown >= needed {
                return true;
            }
            for (owner, end) in self.owners.iter().zip(&mut ends) {
                *end = owner.as_ref().map_or(-1, |owner| owner.high_watermark());
            }
        }
    }

    /// Takes a place wherever there is none; true if there is no need to wait.
    fn register(&mut self, ends: &[i64]) -> bool {
        let mut moved = false;
        let places = self.owners.iter().zip(&mut self.watched).zip(ends);
        for (((owner, watched), end), slot) in places.zip(0..) {
            if let Some(owner) = owner
                && !*watched
            {
                *watched = !owner.waiters().watch(*end, &self.watch, slot);
                moved |= !*watched;
            }
        }
        moved
    }

    fn sizes(&self) -> u64 {
        let owners = self.owners.iter().flatten();
        owners.map(|owner| owner.log().size_bytes()).sum()
    }
}

/// Up to where a pass saw the partition.
fn end(answer: &PartAnswer) -> i64 {
    answer.high_watermark
}

impl Drop for Entries {
    fn drop(&mut self) {
        for (owner, watched) in self.owners.iter().zip(&self.watched) {
            if let Some(owner) = owner
                && *watched
            {
                owner.waiters().forget(&self.watch);
            }
        }
    }
}
