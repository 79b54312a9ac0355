//! Look, decide, act, look again.
//!
//! Owns the loop of one reconciliation. An order is never believed: after every change the topic is looked at again,
//! and only what is seen there makes it Ready. What concerns the object (finalizers, status) is left to the caller.

use keelson_crds::{ConditionStatus, ConditionType, Reason};

use super::facts::{ClusterView, Desired, ObjectView, Observed, Owner, TopicUpdate, Verdict};
use super::{Action, decide, execute, fetch};
use crate::kafka::{CallError, Kafka, Mode};
use crate::outcome::{Failure, Refusal};

/// Looks per reconciliation: one to see, one to see the effect, one more for a race with somebody else.
const LOOKS_MAX: usize = 3;

/// Where owners are told apart, where a cluster is known to be gone, and where finalizers live.
pub(crate) trait Surroundings: Sync {
    /// Whom a topic with this `keelson.owner` belongs to.
    fn classify(&self, topic: &str, tag: Option<String>) -> impl Future<Output = Owner> + Send;
    /// Asked when no broker answers: why the cluster will never be back, if that is known.
    fn gone(&self) -> impl Future<Output = Option<String>> + Send;
    /// Puts the finalizer on.
    fn add_finalizer(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// How the reconciliation of a topic ended.
pub(crate) type Outcome = crate::outcome::Outcome<Verdict>;

/// One reconciliation of one topic, up to the status.
pub(crate) async fn converge<K: Kafka, S: Surroundings>(
    kafka: &K,
    surroundings: &S,
    desired: &Desired,
    mut object: ObjectView,
    mode: Mode,
) -> Outcome {
    let mut outcome = Outcome::default();
    for _ in 0..LOOKS_MAX {
        let classify = async |tag| surroundings.classify(&desired.topic, tag).await;
        let (cluster, failure) = match fetch(kafka, &desired.topic, classify).await {
            Ok(topic) => (ClusterView::Reachable(topic), None),
            Err(CallError::Unreachable { message }) => {
                let failure = Some(Failure::passing(Reason::BrokerUnreachable, &message));
                match surroundings.gone().await {
                    Some(why) => (ClusterView::Gone(format!("{why}; {message}")), failure),
                    None => (ClusterView::Unreachable(message), failure),
                }
            }
            Err(error @ (CallError::Refused { .. } | CallError::Unexpected { .. })) => {
                outcome.verdict = failed(&object, &error);
                outcome.failure = Some((&error).into());
                return outcome;
            }
        };
        outcome.failure = failure;
        let decision = decide(
            desired,
            &Observed {
                object: object.clone(),
                cluster,
            },
        );
        outcome.verdict = decision.verdict;
        let mut changed = false;
        for action in &decision.actions {
            match act(
                (kafka, surroundings),
                (&desired.topic, mode),
                action,
                &mut object,
                &mut outcome,
            )
            .await
            {
                Ok(()) => changed |= action.changes_broker(),
                Err(refusal) if refusal.is_stale_view() && mode == Mode::Execute => {
                    changed = true;
                    break;
                }
                Err(refusal) => {
                    let failure = Failure::from(&refusal);
                    outcome.verdict.fail(failure.reason, &failure.message);
                    outcome.failure = Some(failure);
                    return outcome;
                }
            }
        }
        if !changed || mode == Mode::ValidateOnly {
            return outcome;
        }
    }
    not_converging(&mut outcome, object.deleting.is_some());
    outcome
}

async fn act<K: Kafka, S: Surroundings>(
    (kafka, surroundings): (&K, &S),
    (topic, mode): (&str, Mode),
    action: &Action,
    object: &mut ObjectView,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    match action {
        Action::AddFinalizer => {
            surroundings
                .add_finalizer()
                .await
                .map_err(Refusal::Kubernetes)?;
            object.has_finalizer = true;
        }
        Action::RemoveFinalizer { reason, message } => {
            outcome.release = Some((*reason, message.clone()));
            object.has_finalizer = false;
        }
        Action::Create(_)
        | Action::AlterConfigs { .. }
        | Action::AddPartitions { .. }
        | Action::DeleteTopic { .. } => {
            let done = execute(kafka, topic, action, mode)
                .await
                .map_err(Refusal::Broker)?;
            outcome.events.extend(done);
        }
    }
    Ok(())
}

/// The topic could not even be looked at, though a broker answered.
fn failed(object: &ObjectView, error: &CallError) -> Verdict {
    let mut verdict = Verdict::default();
    let (reason, message) = (error.reason(), error.to_string());
    verdict.fail(reason, &message);
    if object.applied {
        verdict.say(
            ConditionType::Synced,
            ConditionStatus::True,
            Reason::Applied,
            "",
        );
    }
    verdict.say(
        ConditionType::Drifted,
        ConditionStatus::Unknown,
        reason,
        message.clone(),
    );
    verdict.say(
        ConditionType::Conflict,
        ConditionStatus::Unknown,
        reason,
        message.clone(),
    );
    let deleting = if object.deleting.is_some() {
        (ConditionStatus::True, Reason::DeletionHeld, message)
    } else {
        (ConditionStatus::False, Reason::NotDeleting, String::new())
    };
    verdict.conditions.insert(ConditionType::Deleting, deleting);
    verdict.topic = TopicUpdate::Keep;
    verdict
}

fn not_converging(outcome: &mut Outcome, deleting: bool) {
    let seen = outcome
        .verdict
        .conditions
        .get(&ConditionType::Ready)
        .map(|it| it.2.clone())
        .unwrap_or_default();
    let message = if deleting {
        format!("the broker accepted the deletion, yet the topic is still there: {seen}")
    } else {
        format!("the broker accepted the changes, yet {seen}")
    };
    outcome.verdict.fail(Reason::NotConverging, &message);
    outcome.failure = Some(Failure::passing(Reason::NotConverging, message));
}

#[cfg(test)]
mod tests;
