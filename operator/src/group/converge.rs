//! Look, decide, act, look again.
//!
//! Owns the loop of one reconciliation. An order is never believed: after every change the group is looked at again, and
//! only what is seen there counts. What concerns the object (finalizer, status, annotation) is left to the caller.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use keelson_crds::{ConditionStatus, ConditionType, Reason};

use super::decide::{Decision, Step, Verdict, decide};
use super::facts::{ClusterView, Desired, Memory, ObjectView, Observed};
use crate::kafka::{CallError, Kafka, Mode};
use crate::outcome::{Failure, Refusal};

/// Looks per reconciliation: a time to look up, offsets to provision, a reset, its effect, and two for races.
const LOOKS_MAX: usize = 6;

/// Where the object lives.
pub(crate) trait Surroundings: Sync {
    /// Asked when no broker answers: why the cluster will never be back, if that is known.
    fn gone(&self) -> impl Future<Output = Option<String>> + Send;
    /// Puts the finalizer on.
    fn add_finalizer(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Keeps what outlives the status.
    fn remember(&self, memory: &Memory) -> impl Future<Output = Result<(), String>> + Send;
    /// Writes the status now; what follows relies on it.
    fn record(&self, verdict: &Verdict) -> impl Future<Output = Result<(), String>> + Send;
    /// What time it is.
    fn now(&self) -> Timestamp;
}

/// How the reconciliation of a group ended.
pub(crate) type Outcome = crate::outcome::Outcome<Verdict>;

/// One reconciliation of one group, up to the status.
pub(crate) async fn converge<K: Kafka, S: Surroundings>(
    kafka: &K,
    surroundings: &S,
    desired: &Desired,
    object: ObjectView,
    mode: Mode,
) -> Outcome {
    let mut turn = Turn {
        kafka,
        surroundings,
        desired,
        mode,
        object,
        times: BTreeSet::new(),
        outcome: Outcome::default(),
    };
    for _ in 0..LOOKS_MAX {
        if !turn.look().await {
            return turn.outcome;
        }
    }
    // Somebody else changes the group all the time. What was seen last is told, and the next turn goes on.
    turn.outcome
}

struct Turn<'a, K, S> {
    kafka: &'a K,
    surroundings: &'a S,
    desired: &'a Desired,
    mode: Mode,
    object: ObjectView,
    /// Times whose offsets are wanted by now.
    times: BTreeSet<i64>,
    outcome: Outcome,
}

impl<K: Kafka, S: Surroundings> Turn<'_, K, S> {
    /// One look and what follows from it. True if the group has to be looked at again.
    async fn look(&mut self) -> bool {
        self.outcome.failure = None;
        let query = self.desired.query(&self.object, &self.times);
        let cluster = match self.kafka.group(&self.desired.group, &query).await {
            Ok(facts) => ClusterView::Reachable(facts),
            Err(CallError::Unreachable { message }) => {
                let failure = Failure::passing(Reason::BrokerUnreachable, &message);
                self.outcome.failure = Some(failure);
                match self.surroundings.gone().await {
                    Some(why) => ClusterView::Gone(format!("{why}; {message}")),
                    None => ClusterView::Unreachable(message),
                }
            }
            Err(error @ (CallError::Refused { .. } | CallError::Unexpected { .. })) => {
                self.fail(Verdict::default(), (&error).into());
                return false;
            }
        };
        let observed = Observed {
            object: self.object.clone(),
            cluster,
            now: self.surroundings.now(),
        };
        let decision = decide(self.desired, &observed);
        if decision.asks.iter().any(|it| !self.times.contains(it)) {
            self.times.extend(decision.asks);
            return true;
        }
        self.carry_out(decision).await
    }

    async fn carry_out(&mut self, decision: Decision) -> bool {
        let Decision { steps, verdict, .. } = decision;
        let mut changed = false;
        for step in &steps {
            match self.act(step, &verdict).await {
                Ok(()) => changed |= step.changes_broker(),
                Err(refusal) if refusal.is_stale_view() && self.mode == Mode::Execute => {
                    self.outcome.verdict = self.as_recorded(verdict);
                    return true;
                }
                Err(refusal) => {
                    self.fail(verdict, (&refusal).into());
                    return false;
                }
            }
        }
        self.outcome.verdict = verdict;
        changed && self.mode == Mode::Execute
    }

    async fn act(&mut self, step: &Step, verdict: &Verdict) -> Result<(), Refusal> {
        let group = &self.desired.group;
        let order = self.mode == Mode::Execute;
        match step {
            Step::AddFinalizer => {
                let done = self.surroundings.add_finalizer().await;
                done.map_err(Refusal::Kubernetes)?;
                self.object.has_finalizer = true;
            }
            Step::RemoveFinalizer { reason, message } => {
                self.outcome.release = Some((*reason, message.clone()));
                self.object.has_finalizer = false;
            }
            Step::Remember(memory) => {
                let done = self.surroundings.remember(memory).await;
                done.map_err(Refusal::Kubernetes)?;
                self.object.memory = memory.clone();
            }
            Step::Record(last) => {
                let done = self.surroundings.record(verdict).await;
                done.map_err(Refusal::Kubernetes)?;
                self.object.last = Some(last.clone());
                let said = verdict.conditions.get(&ConditionType::ResetSucceeded);
                self.object.last_words = said.map(|it| it.2.clone()).unwrap_or_default();
            }
            Step::Provision(offsets) => {
                if order {
                    let done = self.kafka.commit(group, offsets).await;
                    done.map_err(Refusal::Broker)?;
                }
                self.tell(Reason::OffsetsProvisioned, step);
            }
            Step::Claim(offsets) | Step::Reset(offsets) if order => {
                let done = self.kafka.commit(group, offsets).await;
                done.map_err(Refusal::Broker)?;
            }
            Step::Claim(_) | Step::Reset(_) => {}
            Step::DeleteGroup => {
                if order {
                    let done = self.kafka.delete_group(group).await;
                    done.map_err(Refusal::Broker)?;
                }
                self.tell(Reason::GroupDeleted, step);
            }
        }
        Ok(())
    }

    fn tell(&mut self, reason: Reason, step: &Step) {
        self.outcome.events.push((reason, step.to_string()));
    }

    /// Neither ready nor judged, in the words of whoever refused. If the group was looked at, its deletion is under way as
    /// decided; otherwise the object is held.
    fn fail(&mut self, verdict: Verdict, failure: Failure) {
        let half_way = verdict.last != self.object.last && verdict.seen.is_some();
        let mut verdict = self.as_recorded(verdict);
        let (reason, message) = (failure.reason, failure.message.as_str());
        let unknown = ConditionStatus::Unknown;
        let ready = ConditionStatus::False;
        verdict.say(ConditionType::Ready, ready, reason, message);
        if half_way {
            let pending = ConditionStatus::True;
            verdict.say(ConditionType::ResetPending, pending, reason, message);
            verdict.say(ConditionType::ResetSucceeded, unknown, reason, message);
        }
        if verdict.seen.is_none() {
            verdict.say(ConditionType::LagWithinObjective, unknown, reason, message);
            let (deleting, why, words) =
                match self.object.deleting.is_some() && self.object.has_finalizer {
                    true => (ConditionStatus::True, Reason::DeletionHeld, message),
                    false => (ConditionStatus::False, Reason::NotDeleting, ""),
                };
            verdict.say(ConditionType::Deleting, deleting, why, words);
        }
        self.outcome.verdict = verdict;
        self.outcome.failure = Some(failure);
    }

    /// The verdict without what was to be said of a reset whose steps were not all taken: it holds what is recorded.
    fn as_recorded(&self, mut verdict: Verdict) -> Verdict {
        if verdict.last != self.object.last {
            verdict.last.clone_from(&self.object.last);
            verdict.conditions.remove(&ConditionType::ResetPending);
            verdict.conditions.remove(&ConditionType::ResetSucceeded);
        }
        verdict
    }
}

#[cfg(test)]
mod tests;
