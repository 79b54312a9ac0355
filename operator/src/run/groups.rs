//! One ConsumerGroup of Kubernetes, observed.
//!
//! Owns the way from object to judgement and back. It judges nothing and changes no group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use keelson_crds::{ConditionType, ConsumerGroup, Kind, Reason, check};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;

use super::context::Context;
use super::objects::{ObjectId, is_bad, publish, transitions, write_status};
use super::topics::{ReconcileError, report_invalid, report_refusal};
use crate::group;
use crate::kafka::Kafka;

/// Lag moves faster than topics do.
const PAUSE_MAX: Duration = Duration::from_secs(15);
const TYPES: [ConditionType; 2] = [ConditionType::Ready, ConditionType::LagWithinObjective];

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
        Ok(group)
            if !group.spec.served_by(&context.cluster)
                || group.metadata.deletion_timestamp.is_some() =>
        {
            context.forget(&key);
            return Ok(Action::await_change());
        }
        Ok(group) => turn(&context, &id, group).await,
        Err(invalid) => report_invalid(&context, &id, meta.generation, &invalid.error, &TYPES[..1])
            .await
            .map(|()| Some(Reason::InvalidSpec)),
    };
    if !context.leads() {
        return Ok(Action::await_change());
    }
    let failure = match &result {
        Ok(failure) => *failure,
        Err(_) => Some(Reason::KubernetesError),
    };
    context
        .metrics
        .reconciled(id.kind, begun.elapsed(), failure);
    let failure = result.map_err(ReconcileError)?;
    Ok(context.next_turn(key, failure, context.resync.min(PAUSE_MAX)))
}

async fn turn(
    context: &Context,
    id: &ObjectId,
    object: &ConsumerGroup,
) -> Result<Option<Reason>, String> {
    let json = serde_json::to_value(object).map_err(|error| error.to_string())?;
    if let Err(problems) = check(Kind::ConsumerGroup, &json, None) {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        report_invalid(
            context,
            id,
            object.metadata.generation,
            &words.join("; "),
            &TYPES[..1],
        )
        .await?;
        return Ok(Some(Reason::InvalidSpec));
    }
    let (group, prefix) = (
        object.spec.group_id(&id.name),
        context.scope.prefix(&id.namespace),
    );
    if !group.starts_with(prefix) {
        let words = format!("group {group}: names of this namespace begin with {prefix:?}");
        let said = (Reason::NameNotAllowed, words.as_str());
        let generation = object.metadata.generation;
        return report_refusal(context, id, generation, said, &TYPES[..1])
            .await
            .map(|()| None);
    }
    let scope: Vec<String> = object
        .spec
        .topics
        .iter()
        .map(|it| it.name.clone())
        .collect();
    let seen = context
        .kafka
        .group(object.spec.group_id(&id.name), &scope)
        .await;
    let old = object.status.clone().unwrap_or_default();
    let now = Time(Timestamp::now());
    let new = group::build(&object.spec, &old, &seen, object.metadata.generation, &now);
    if !group::same(&old, &new) {
        write_status(&context.client, id, &new)
            .await
            .map_err(|error| error.to_string())?;
        for notice in transitions(&old.conditions, &new.conditions, |it| is_bad(&TYPES, it)) {
            publish(&context.recorder, id, notice).await;
        }
    }
    Ok(seen.err().map(|error| error.reason()))
}
