//! One Topic of Kubernetes, reconciled.
//!
//! Owns the way from object to judgement and back: what the object tells goes in, status, finalizer and Events come
//! out. It judges nothing.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{
    ConditionStatus, ConditionType, FINALIZER, Kind, Topic, TopicStatus, check, find,
};
use kube::ResourceExt;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use tracing::warn;
use uuid::Uuid;

use super::context::Context;
use super::objects::{
    Finalizer, ObjectId, is_bad, publish, set_finalizer, transitions, write_status,
};
use super::turn::{Ended, ReconcileError, finish, let_go, tell, turn_invalid};
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
            let told =
                turn_invalid(&context, &id, &invalid.metadata, (&invalid.error, &INVALID)).await;
            let ended = told.map(|()| (Ended::Invalid, context.resync));
            return finish(&context, key, Instant::now(), ended);
        }
    };
    let begun = Instant::now();
    let ended = turn(&context, &id, topic).await;
    let ended = ended.map(|ended| (ended, context.resync));
    finish(&context, key, begun, ended)
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
    Ok(Ended::with(outcome.failure.as_ref()))
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
