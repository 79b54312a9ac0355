//! One ConsumerGroup of Kubernetes, reconciled.
//!
//! Owns the way from object to judgement and back: what the object tells goes in; status, finalizer, annotation and
//! Events come out. It judges nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{
    ConditionStatus, ConditionType, ConsumerGroup, ConsumerGroupStatus, Kind, RESETS_ANNOTATION,
    Reason, check, find,
};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use tracing::warn;

use super::context::Context;
use super::objects::{
    Finalizer, Notice, ObjectId, annotate, is_bad, publish, set_finalizer, transitions,
    write_status,
};
use super::turn::{Ended, ReconcileError, finish, let_go, report_refusal, tell, turn_invalid};
use crate::deletion::Deleting;
use crate::group::{self, Desired, Memory, ObjectView, Outcome, Surroundings, Verdict, converge};
use crate::kafka::Mode;

/// Lag moves faster than topics do.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Behind a deadline, so that it has passed whatever the jitter.
const DEADLINE_SLACK: Duration = Duration::from_millis(50);
/// Somebody waits for a reset, or for a group to be empty.
const WAITING_PAUSE_MAX: Duration = Duration::from_secs(3);
const TYPES: [ConditionType; 5] = [
    ConditionType::Ready,
    ConditionType::LagWithinObjective,
    ConditionType::ResetPending,
    ConditionType::ResetSucceeded,
    ConditionType::Deleting,
];

/// One turn of one object.
pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<ConsumerGroup>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let meta = kube::Resource::meta(&*object);
    let id = ObjectId::new(Kind::ConsumerGroup, meta);
    let key = (id.kind, id.namespace.clone(), id.name.clone());
    let _turn = context.turn(id.kind).await;
    let begun = Instant::now();
    let result = match &object.0 {
        Ok(group) if !group.spec.served_by(&context.cluster) => {
            context.forget(&key);
            return Ok(Action::await_change());
        }
        Ok(group) => turn(&context, &id, group).await,
        Err(invalid) => {
            let said = (invalid.error.as_str(), &TYPES[..1]);
            turn_invalid(&context, &id, &invalid.metadata, said)
                .await
                .map(|()| (Ended::Invalid, PAUSE_MAX))
        }
    };
    let result = result.map(|(ended, pause)| (ended, pause.min(context.resync)));
    finish(&context, key, begun, result)
}

/// How it ended, and when to look again at the latest.
async fn turn(
    context: &Context,
    id: &ObjectId,
    object: &ConsumerGroup,
) -> Result<(Ended, Duration), String> {
    let quiet = (Ended::Well, PAUSE_MAX);
    let deleting = object.metadata.deletion_timestamp.is_some();
    let finalizer = id.kind.finalizer();
    let has_finalizer = object.finalizers().iter().any(|it| it == finalizer);
    if deleting && !has_finalizer {
        return Ok(quiet);
    }
    let desired = match desired(id, object) {
        Ok(desired) => desired,
        Err(words) => {
            let said = (words.as_str(), &TYPES[..1]);
            turn_invalid(context, id, &object.metadata, said).await?;
            return Ok((Ended::Invalid, PAUSE_MAX));
        }
    };
    let (group, prefix) = (&desired.group, context.scope.prefix(&id.namespace));
    if !group.starts_with(prefix) {
        if deleting {
            // Whatever its group is, it was never this object's to delete.
            set_finalizer(&context.client, id, Finalizer::Off).await?;
            return Ok(quiet);
        }
        let words = format!("group {group}: names of this namespace begin with {prefix:?}");
        let said = (Reason::NameNotAllowed, words.as_str());
        let generation = object.metadata.generation;
        report_refusal(context, id, generation, said, &TYPES[..1]).await?;
        return Ok(quiet);
    }
    let place = Place {
        context,
        id,
        object,
        status: Mutex::new(object.status.clone().unwrap_or_default()),
    };
    let view = view(object, has_finalizer);
    let outcome = converge(&context.kafka, &place, &desired, view, Mode::Execute).await;
    tell(context, id, &outcome.events).await;
    if let Some(release) = &outcome.release {
        if deleting {
            let_go(context, id, release, &outcome.events).await?;
            return Ok(quiet);
        }
        set_finalizer(&context.client, id, Finalizer::Off).await?;
    }
    place.report(&outcome).await?;
    let ended = Ended::with(outcome.failure.as_ref());
    let pause = pause(&desired, &outcome, Timestamp::now());
    Ok((ended, pause))
}

/// The spec as it was judged at admission, or why it cannot be taken. An object that goes is not asked.
fn desired(id: &ObjectId, object: &ConsumerGroup) -> Result<Desired, String> {
    if object.metadata.deletion_timestamp.is_none() {
        let json = serde_json::to_value(object).map_err(|error| error.to_string())?;
        if let Err(problems) = check(Kind::ConsumerGroup, &json, None) {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Err(words.join("; "));
        }
    }
    Desired::new(&object.spec, &id.name)
}

fn view(object: &ConsumerGroup, has_finalizer: bool) -> ObjectView {
    let status = object.status.as_ref();
    let asked = object.metadata.deletion_timestamp.as_ref();
    let said = status.and_then(|it| find(&it.conditions, ConditionType::ResetSucceeded));
    ObjectView {
        has_finalizer,
        lasting: true,
        deleting: asked.map(|since| Deleting::since(since.0, Timestamp::now())),
        last: status.and_then(|it| it.last_reset.clone()),
        last_words: said.map(|it| it.message.clone()).unwrap_or_default(),
        memory: memory(object),
    }
}

fn memory(object: &ConsumerGroup) -> Memory {
    let Some(text) = object.annotations().get(RESETS_ANNOTATION) else {
        return Memory::default();
    };
    serde_json::from_str(text).unwrap_or_else(|error| {
        let name = object.name_any();
        warn!(
            name,
            "the annotation {RESETS_ANNOTATION} cannot be read: {error}"
        );
        Memory::default()
    })
}

/// A group that somebody waits for is looked at more often, unless a broker refused for good, and a deadline when it is
/// reached.
fn pause(desired: &Desired, outcome: &Outcome, now: Timestamp) -> Duration {
    let is_true = |type_: ConditionType| {
        let said = outcome.verdict.conditions.get(&type_);
        said.is_some_and(|it| it.0 == ConditionStatus::True)
    };
    let pending = is_true(ConditionType::ResetPending);
    let awaited = pending || is_true(ConditionType::Deleting);
    let settled = outcome.failure.as_ref().is_some_and(|it| it.settled);
    let pause = match awaited && !settled {
        true => WAITING_PAUSE_MAX,
        false => PAUSE_MAX,
    };
    let deadline = desired.reset.as_ref().and_then(|it| it.deadline);
    let left = deadline
        .filter(|_| pending)
        .and_then(|it| Duration::try_from(it.duration_since(now)).ok());
    left.map_or(pause, |it| (it + DEADLINE_SLACK).min(pause))
}

/// Where a ConsumerGroup of Kubernetes lives.
struct Place<'a> {
    context: &'a Context,
    id: &'a ObjectId,
    object: &'a ConsumerGroup,
    /// As it was last read or written.
    status: Mutex<ConsumerGroupStatus>,
}

impl Surroundings for Place<'_> {
    async fn gone(&self) -> Option<String> {
        self.context.gone().await
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        set_finalizer(&self.context.client, self.id, Finalizer::On).await
    }

    async fn remember(&self, memory: &Memory) -> Result<(), String> {
        let text = serde_json::to_string(memory).map_err(|error| error.to_string())?;
        annotate(&self.context.client, self.id, (RESETS_ANNOTATION, &text))
            .await
            .map_err(|error| error.to_string())
    }

    async fn record(&self, verdict: &Verdict) -> Result<(), String> {
        let (old, new) = self.build(verdict);
        self.write(&old, new).await
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

impl Place<'_> {
    fn build(&self, verdict: &Verdict) -> (ConsumerGroupStatus, ConsumerGroupStatus) {
        let old = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Time(Timestamp::now());
        let new = group::build(&old, verdict, self.object.metadata.generation, &now);
        (old.clone(), new)
    }

    /// Writes the status if it says something new, and tells what changed.
    async fn report(&self, outcome: &Outcome) -> Result<(), String> {
        let (old, new) = self.build(&outcome.verdict);
        let lately = self.context.wrote_lately(&self.key());
        if group::same(&old, &new) || (lately && group::same_but_for_numbers(&old, &new)) {
            return Ok(());
        }
        self.write(&old, new).await
    }

    async fn write(
        &self,
        old: &ConsumerGroupStatus,
        new: ConsumerGroupStatus,
    ) -> Result<(), String> {
        write_status(&self.context.client, self.id, &new)
            .await
            .map_err(|error| error.to_string())?;
        self.context.wrote(self.key());
        let mut notices = transitions(&old.conditions, &new.conditions, |it| is_bad(&TYPES, it));
        notices.extend(another_end(old, &new));
        for notice in notices {
            publish(&self.context.recorder, self.id, notice).await;
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn key(&self) -> (Kind, String, String) {
        let id = self.id;
        (id.kind, id.namespace.clone(), id.name.clone())
    }
}

/// A reset that ended as the one before did changes no condition, and is news all the same.
fn another_end(old: &ConsumerGroupStatus, new: &ConsumerGroupStatus) -> Option<Notice> {
    let said = |it: &ConsumerGroupStatus| {
        let found = find(&it.conditions, ConditionType::ResetSucceeded);
        found.map(|it| (it.status, it.reason.clone()))
    };
    let last = new.last_reset.as_ref()?;
    let known = old.last_reset.as_ref();
    if known.is_none_or(|it| it.request_id == last.request_id) || said(old) != said(new) {
        return None;
    }
    let condition = find(&new.conditions, ConditionType::ResetSucceeded)?;
    Some(Notice {
        warning: condition.status == ConditionType::ResetSucceeded.bad_status(),
        reason: last.result.clone(),
        action: "Reset",
        note: format!("reset {}: {}", last.request_id, condition.message),
    })
}

#[cfg(test)]
mod tests {
    use keelson_crds::ConsumerGroupSpec;

    use super::*;
    use crate::outcome::Failure;

    /// In seconds, for a reset with this deadline.
    fn pause_of(deadline: Option<&str>, pending: bool, failure: Option<Failure>) -> f64 {
        let reset = serde_json::json!({ "requestId": "a", "to": "Latest", "deadline": deadline });
        let spec: ConsumerGroupSpec =
            serde_json::from_value(serde_json::json!({ "reset": reset })).unwrap();
        let mut outcome = Outcome {
            failure,
            ..Outcome::default()
        };
        let status = match pending {
            true => ConditionStatus::True,
            false => ConditionStatus::False,
        };
        let reason = Reason::WaitingForEmptyGroup;
        let type_ = ConditionType::ResetPending;
        outcome.verdict.say(type_, status, reason, "");
        let desired = Desired::new(&spec, "g").unwrap();
        pause(&desired, &outcome, Timestamp::UNIX_EPOCH).as_secs_f64()
    }

    #[test]
    fn a_group_is_looked_at_when_somebody_waits_for_it() {
        let soon = Some("1970-01-01T00:00:02Z");
        let failed = |settled| {
            Some(Failure {
                settled,
                ..Failure::passing(Reason::BrokerRefused, "no")
            })
        };
        assert_eq!(pause_of(None, false, None), 15.0);
        assert_eq!(pause_of(soon, false, None), 15.0, "it has ended");
        assert_eq!(pause_of(None, true, None), 3.0);
        assert_eq!(pause_of(soon, true, None), 2.05);
        assert_eq!(pause_of(None, true, failed(false)), 3.0);
        assert_eq!(pause_of(None, true, failed(true)), 15.0, "no hurry");
        assert_eq!(pause_of(soon, true, failed(true)), 2.05, "but a deadline");
    }
}
