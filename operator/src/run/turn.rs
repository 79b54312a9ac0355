//! One turn of one object, as far as both kinds share it.
//!
//! Owns how a turn ends and when the next one comes, what is told of it, how an object is let go, and what is said about one
//! that cannot be understood. It judges nothing, and knows no spec.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{Condition, ConditionStatus, ConditionType, Kind, Reason, set};
use kube::runtime::controller::Action;
use tracing::{info, warn};

use super::context::Context;
use super::objects::{
    self, Finalizer, Notice, ObjectId, is_bad, merge_status, publish, set_finalizer, transitions,
};
use crate::outcome::Failure;

/// A failed request to Kubernetes; the broker's failures stand in the status instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ReconcileError(pub(super) String);

/// How a turn ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing failed. The object need not be Ready for that.
    Well,
    /// It may go better the next time.
    Failed(Reason),
    /// It will end like this until somebody changes something, in the object or in the cluster.
    Refused(Reason),
    /// It will end like this until the object is changed.
    Invalid,
}

impl Ended {
    pub(super) fn with(failure: Option<&Failure>) -> Self {
        match failure {
            None => Self::Well,
            Some(it) if it.settled => Self::Refused(it.reason),
            Some(it) => Self::Failed(it.reason),
        }
    }

    /// The failure that is counted.
    fn failure(self) -> Option<Reason> {
        match self {
            Self::Well => None,
            Self::Failed(reason) | Self::Refused(reason) => Some(reason),
            Self::Invalid => Some(Reason::InvalidSpec),
        }
    }
}

/// Counts a turn that ended, and says when the next one comes: `pause` is the longest time between two looks.
pub(super) fn finish(
    context: &Context,
    key: (Kind, String, String),
    begun: Instant,
    result: Result<(Ended, Duration), String>,
) -> Result<Action, ReconcileError> {
    if !context.leads() {
        // Whatever was done came too late, and the next leader looks at everything anew.
        return Ok(Action::await_change());
    }
    let failure = match &result {
        Ok((ended, _)) => ended.failure(),
        Err(_) => Some(Reason::KubernetesError),
    };
    context.metrics.reconciled(key.0, begun.elapsed(), failure);
    let (ended, pause) = result.map_err(ReconcileError)?;
    Ok(match ended {
        Ended::Well | Ended::Refused(_) => context.next_turn(key, None, pause),
        Ended::Failed(reason) => context.next_turn(key, Some(reason), pause),
        Ended::Invalid => {
            context.forget(&key);
            Action::await_change()
        }
    })
}

/// Says what was done, in the log and as Events.
pub(super) async fn tell(context: &Context, id: &ObjectId, events: &[(Reason, String)]) {
    for (reason, note) in events {
        info!(
            namespace = id.namespace,
            name = id.name,
            reason = reason.as_str(),
            "{note}"
        );
        let notice = Notice {
            warning: false,
            reason: reason.as_str().to_owned(),
            action: "Apply",
            note: note.clone(),
        };
        publish(&context.recorder, id, notice).await;
    }
}

/// Lets a deleted object go. The Event comes first: afterwards there is nothing to attach it to.
pub(super) async fn let_go(
    context: &Context,
    id: &ObjectId,
    (reason, message): &(Reason, String),
    told: &[(Reason, String)],
) -> Result<(), String> {
    if told.iter().all(|it| it.0 != *reason) {
        let warning = *reason == Reason::DeletionGivenUp;
        let notice = Notice {
            warning,
            reason: reason.as_str().to_owned(),
            action: "Release",
            note: message.clone(),
        };
        publish(&context.recorder, id, notice).await;
    }
    info!(
        namespace = id.namespace,
        name = id.name,
        reason = reason.as_str(),
        "released: {message}"
    );
    context.forget(&(id.kind, id.namespace.clone(), id.name.clone()));
    set_finalizer(&context.client, id, Finalizer::Off).await
}

/// An object that cannot be understood. It is reported, it stops nobody else, and it is not held: whatever it was about,
/// deleting by a spec that cannot be read would be a guess.
pub(super) async fn turn_invalid(
    context: &Context,
    id: &ObjectId,
    meta: &ObjectMeta,
    (error, types): (&str, &[ConditionType]),
) -> Result<(), String> {
    let mut finalizers = meta.finalizers.iter().flatten();
    let held = finalizers.any(|it| it == id.kind.finalizer());
    if meta.deletion_timestamp.is_some() {
        if held {
            warn!(
                namespace = id.namespace,
                name = id.name,
                "released though its spec cannot be read: {error}"
            );
            set_finalizer(&context.client, id, Finalizer::Off).await?;
        }
        return Ok(());
    }
    let said = (Reason::InvalidSpec, error);
    report_refusal(context, id, meta.generation, said, types).await
}

/// Says in these conditions why nothing is done about the object, and leaves the rest of the status as it is.
pub(super) async fn report_refusal(
    context: &Context,
    id: &ObjectId,
    generation: Option<i64>,
    (reason, words): (Reason, &str),
    types: &[ConditionType],
) -> Result<(), String> {
    let found = match objects::api(&context.client, id.kind, &id.namespace)
        .get(&id.name)
        .await
    {
        Ok(found) => found,
        Err(error) if objects::is_not_found(&error) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let old: Vec<Condition> = found
        .data
        .pointer("/status/conditions")
        .and_then(|it| serde_json::from_value(it.clone()).ok())
        .unwrap_or_default();
    let mut new = old.clone();
    let now = Time(Timestamp::now());
    for type_ in types {
        let said = (ConditionStatus::False, reason, words.to_owned());
        set(&mut new, *type_, said, generation, &now);
    }
    if keelson_crds::same_but_for_time(&old, &new) {
        return Ok(());
    }
    let status = serde_json::json!({ "observedGeneration": generation, "conditions": new });
    match merge_status(&context.client, id, &status).await {
        Ok(()) => {}
        // Kubernetes takes no status for an object whose spec its own rules cannot be evaluated on. Then an Event is
        // all that can be attached to it.
        Err(kube::Error::Api(refusal)) if refusal.code == 422 => {
            let notice = Notice {
                warning: true,
                reason: reason.as_str().to_owned(),
                action: "Observe",
                note: words.to_owned(),
            };
            publish(&context.recorder, id, notice).await;
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    }
    for notice in transitions(&old, &new, |it| is_bad(types, it)) {
        publish(&context.recorder, id, notice).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_go_better_is_tried_again_soon() {
        let refused = Failure {
            settled: true,
            ..Failure::passing(Reason::BrokerRefused, "no")
        };
        let away = Failure::passing(Reason::BrokerUnreachable, "away");
        assert_eq!(Ended::with(None), Ended::Well);
        let ended = Ended::with(Some(&refused));
        assert_eq!(ended, Ended::Refused(Reason::BrokerRefused));
        assert_eq!(ended.failure(), Some(Reason::BrokerRefused), "counted");
        let ended = Ended::with(Some(&away));
        assert_eq!(ended, Ended::Failed(Reason::BrokerUnreachable));
        assert_eq!(Ended::Invalid.failure(), Some(Reason::InvalidSpec));
    }
}
