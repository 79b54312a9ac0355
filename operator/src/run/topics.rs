//! One Topic of Kubernetes, reconciled.
//!
//! Owns the way from object to judgement and back: what the object tells goes in, status, finalizer and Events come
//! out. It judges nothing.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{
    Condition, ConditionStatus, ConditionType, FINALIZER, Kind, Reason, Topic, TopicStatus, check,
    find, set,
};
use kube::ResourceExt;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use tracing::{info, warn};
use uuid::Uuid;

use super::context::Context;
use super::objects::{
    self, Finalizer, Notice, ObjectId, is_bad, merge_status, publish, set_finalizer, transitions,
    write_status,
};
use crate::deletion::Deleting;
use crate::kafka::Mode;
use crate::topic::{
    self, Desired, Frame, ObjectView, Outcome, Owner, Surroundings, TopicUpdate, converge,
};

const TYPES: [ConditionType; 6] = [
    ConditionType::Ready,
    ConditionType::Synced,
    ConditionType::Drifted,
    ConditionType::Conflict,
    ConditionType::LogHealthy,
    ConditionType::Deleting,
];

/// What says that an object cannot be understood.
const INVALID: [ConditionType; 2] = [ConditionType::Ready, ConditionType::Synced];

/// A failed request to Kubernetes; the broker's failures stand in the status instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ReconcileError(pub(super) String);

/// One turn of one object.
pub(super) async fn reconcile(
    object: Arc<DeserializeGuard<Topic>>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let id = ObjectId::new(Kind::Topic, kube::Resource::meta(&*object));
    let key = (id.kind, id.namespace.clone(), id.name.clone());
    let _turn = context.turn(id.kind).await;
    let topic = match &object.0 {
        Ok(topic) if !topic.spec.served_by(&context.cluster) => {
            context.forget(&key);
            return Ok(Action::await_change());
        }
        Ok(topic) => topic,
        Err(invalid) => {
            let failure =
                turn_invalid(&context, &id, &invalid.metadata, (&invalid.error, &INVALID)).await;
            return finish(
                &context,
                key,
                Instant::now(),
                failure.map(|()| Ended::Invalid),
            );
        }
    };
    let begun = Instant::now();
    let result = turn(&context, &id, topic).await;
    finish(&context, key, begun, result)
}

/// How a turn ended, as far as the next one depends on it.
enum Ended {
    /// Nothing failed. The object need not be Ready for that.
    Well,
    /// It may go better the next time.
    Failed(Reason),
    /// It will end like this until somebody changes something, in the object or in the cluster.
    Refused(Reason),
    /// It will end like this until the object is changed.
    Invalid,
}

fn finish(
    context: &Context,
    key: (Kind, String, String),
    begun: Instant,
    result: Result<Ended, String>,
) -> Result<Action, ReconcileError> {
    if !context.leads() {
        // Whatever was done came too late, and the next leader looks at everything anew.
        return Ok(Action::await_change());
    }
    let failure = match &result {
        Ok(Ended::Well) => None,
        Ok(Ended::Failed(reason) | Ended::Refused(reason)) => Some(*reason),
        Ok(Ended::Invalid) => Some(Reason::InvalidSpec),
        Err(_) => Some(Reason::KubernetesError),
    };
    context.metrics.reconciled(key.0, begun.elapsed(), failure);
    match result {
        Ok(Ended::Well | Ended::Refused(_)) => Ok(context.next_turn(key, None, context.resync)),
        Ok(Ended::Failed(reason)) => Ok(context.next_turn(key, Some(reason), context.resync)),
        Ok(Ended::Invalid) => {
            context.forget(&key);
            Ok(Action::await_change())
        }
        Err(error) => Err(ReconcileError(error)),
    }
}

async fn turn(context: &Context, id: &ObjectId, object: &Topic) -> Result<Ended, String> {
    let deleting = object.metadata.deletion_timestamp.is_some();
    let has_finalizer = object.finalizers().iter().any(|it| it == FINALIZER);
    if deleting && !has_finalizer {
        return Ok(Ended::Well);
    }
    if !deleting {
        let json = serde_json::to_value(object).map_err(|error| error.to_string())?;
        if let Err(problems) = check(Kind::Topic, &json, None) {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            turn_invalid(context, id, &object.metadata, (&words.join("; "), &INVALID)).await?;
            return Ok(Ended::Invalid);
        }
    }
    let old = object.status.clone().unwrap_or_default();
    let owner = context.owner(&id.namespace, &id.name);
    let desired = Desired {
        prefix: context.scope.prefix(&id.namespace).to_owned(),
        ..Desired::new(&object.spec, &id.name, owner)
    };
    let place = Place { context, id };
    let outcome = converge(
        &context.kafka,
        &place,
        &desired,
        view(object, &old),
        Mode::Execute,
    )
    .await;
    tell(context, id, &outcome.events).await;
    if let Some(release) = outcome.release.as_ref().filter(|_| deleting) {
        return let_go(context, id, release, &outcome.events)
            .await
            .map(|()| Ended::Well);
    }
    if outcome.release.is_some() {
        set_finalizer(&context.client, id, Finalizer::Off).await?;
    }
    report(context, id, object, &old, &outcome).await?;
    Ok(match outcome.failure {
        None => Ended::Well,
        Some((reason, _)) if outcome.settled => Ended::Refused(reason),
        Some((reason, _)) => Ended::Failed(reason),
    })
}

fn view(object: &Topic, old: &TopicStatus) -> ObjectView {
    let synced = find(&old.conditions, ConditionType::Synced);
    let applied = synced.is_some_and(|it| {
        it.status == ConditionStatus::True && it.observed_generation == object.metadata.generation
    });
    let asked = object.metadata.deletion_timestamp.as_ref();
    let deleting = asked.map(|since| Deleting::since(since.0, Timestamp::now()));
    ObjectView {
        has_finalizer: object.finalizers().iter().any(|it| it == FINALIZER),
        finalizers_exist: true,
        deleting,
        applied,
        known_id: old
            .topic_id
            .as_ref()
            .and_then(|it| Uuid::parse_str(it).ok()),
    }
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

/// Writes the status if it says something new, and tells what changed.
async fn report(
    context: &Context,
    id: &ObjectId,
    object: &Topic,
    old: &TopicStatus,
    outcome: &Outcome,
) -> Result<(), String> {
    let topic = object.spec.topic_name(&id.name);
    let known = match &outcome.verdict.topic {
        TopicUpdate::Is(facts) => Some(facts.id),
        TopicUpdate::Keep => old
            .topic_id
            .as_ref()
            .and_then(|it| Uuid::parse_str(it).ok()),
        TopicUpdate::Gone | TopicUpdate::None => None,
    };
    let log = context.log.borrow().view(known.map(|known| (known, topic)));
    let now = Time(Timestamp::now());
    let frame = Frame {
        topic,
        generation: object.metadata.generation,
        now: &now,
    };
    let new = topic::build(old, &outcome.verdict, &log, &frame);
    if topic::same(old, &new) {
        return Ok(());
    }
    write_status(&context.client, id, &new)
        .await
        .map_err(|error| error.to_string())?;
    for notice in transitions(&old.conditions, &new.conditions, |it| is_bad(&TYPES, it)) {
        publish(&context.recorder, id, notice).await;
    }
    Ok(())
}

/// An object that cannot be understood. It is reported, it stops nobody else, and it is not held: whatever it was about,
/// deleting by a spec that cannot be read would be a guess.
pub(super) async fn turn_invalid(
    context: &Context,
    id: &ObjectId,
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
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
    report_invalid(context, id, meta.generation, error, types).await
}

/// Says InvalidSpec in these conditions and leaves the rest of the status as it is.
async fn report_invalid(
    context: &Context,
    id: &ObjectId,
    generation: Option<i64>,
    error: &str,
    types: &[ConditionType],
) -> Result<(), String> {
    let said = (Reason::InvalidSpec, error);
    report_refusal(context, id, generation, said, types).await
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

/// Where a Topic of Kubernetes lives.
struct Place<'a> {
    context: &'a Context,
    id: &'a ObjectId,
}

impl Surroundings for Place<'_> {
    async fn classify(&self, topic: &str, tag: Option<String>) -> Owner {
        let Some(tag) = tag else { return Owner::Nobody };
        if tag == self.context.owner(&self.id.namespace, &self.id.name) {
            return Owner::Ours;
        }
        let parts: Vec<&str> = tag.split('/').collect();
        let [uid, namespace, name] = parts[..] else {
            return Owner::Foreign(tag);
        };
        if uid != self.context.cluster_uid {
            return Owner::Foreign(tag);
        }
        // An owner of this Kubernetes cluster is stale if its object is gone, or speaks of another topic by now.
        let api: Api<DeserializeGuard<Topic>> =
            Api::namespaced(self.context.client.clone(), namespace);
        match api.get_opt(name).await {
            Ok(None) => Owner::Stale(tag),
            Ok(Some(DeserializeGuard(Ok(other)))) => {
                let claims = other.spec.topic_name(name) == topic
                    && other.spec.served_by(&self.context.cluster);
                if claims {
                    Owner::Foreign(tag)
                } else {
                    Owner::Stale(tag)
                }
            }
            Ok(Some(DeserializeGuard(Err(_)))) => Owner::Foreign(tag),
            Err(error) => {
                warn!("whether {tag} still exists could not be found out: {error}");
                Owner::Foreign(tag)
            }
        }
    }

    async fn gone(&self) -> Option<String> {
        self.context.gone().await
    }

    async fn add_finalizer(&self) -> Result<(), String> {
        set_finalizer(&self.context.client, self.id, Finalizer::On).await
    }
}
