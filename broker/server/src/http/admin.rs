//! `/admin/v1/log` and `/admin/v1/identity`: what the operator asks.
//!
//! Owns the shape of the JSON. Names are resolved here; the log itself knows ids only.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use keelson_log::{AcceptedLoss, Health, PartitionId, UnhealthyRange};
use keelson_state::metadata::{CLUSTER_METADATA, CLUSTER_METADATA_ID};
use serde::Serialize;

use super::time::rfc3339;
use super::{Failure, Shared, internal, not_ready};
use crate::broker::Broker;
use crate::config::Listener;
use crate::listeners::{Listeners, View};

/// Answer of `/admin/v1/identity`.
#[derive(Serialize)]
pub(super) struct IdentityBody {
    cluster_id: String,
    broker_id: i32,
    directory_id: String,
    boot: u64,
    /// What the directory was accepted in place of, if it ever was.
    replaces: Option<DirectoryBody>,
    listeners: Vec<ListenerBody>,
}

/// A listener, and what its clients are told.
#[derive(Serialize)]
struct ListenerBody {
    name: String,
    bound: String,
    /// `host:port`, if anybody knows it.
    advertised: Option<String>,
    why: String,
    problem: Option<String>,
}

#[derive(Serialize)]
struct DirectoryBody {
    directory_id: String,
    boot: u64,
}

/// Answer of `/admin/v1/log`.
#[derive(Serialize)]
pub(super) struct LogBody {
    health: Vec<&'static str>,
    broker_id: i32,
    cluster_id: String,
    wal: WalBody,
    decode_errors: u64,
    quarantined_ranges: u64,
    truncated: bool,
    unhealthy: Vec<RangeBody>,
    accepted_losses_total: u64,
    accepted_losses: Vec<LossBody>,
}

/// A range that was given up by `log accept-loss`; it stays here for ever.
#[derive(Serialize)]
struct LossBody {
    #[serde(flatten)]
    range: RangeBody,
    /// Set where a whole commit group was given up: then there is no topic, and the offsets mean nothing.
    group: Option<u64>,
    accepted: String,
    by: String,
}

#[derive(Serialize)]
struct WalBody {
    files: u64,
    size_bytes: u64,
    durable_group: u64,
    oldest_group: u64,
    boot: u64,
}

#[derive(Serialize)]
struct RangeBody {
    topic: Option<String>,
    topic_id: Option<String>,
    partition: Option<i32>,
    from: i64,
    to: i64,
    file: String,
    position: u64,
    reason: &'static str,
    source: &'static str,
    stage: &'static str,
    since: String,
}

fn broker(shared: &Shared) -> Result<Arc<Broker>, Failure> {
    let broker = shared.broker.get().cloned();
    broker.ok_or_else(|| not_ready("the log is being recovered"))
}

pub(super) async fn identity(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<IdentityBody>, Failure> {
    let broker = broker(&shared)?;
    let identity = &broker.identity;
    Ok(Json(IdentityBody {
        cluster_id: identity.cluster_id.clone(),
        broker_id: identity.broker_id,
        directory_id: identity.directory_id.clone(),
        boot: identity.boot,
        replaces: identity.replaces.as_ref().map(|other| DirectoryBody {
            directory_id: other.id.clone(),
            boot: other.boot,
        }),
        listeners: listener_bodies(&broker),
    }))
}

fn listener_bodies(broker: &Broker) -> Vec<ListenerBody> {
    let views = broker.listeners().into_iter().flat_map(Listeners::views);
    let body = |view: View<'_>| ListenerBody {
        name: view.name.to_owned(),
        bound: view.bound.to_owned(),
        advertised: view.advertised.address.as_ref().map(Listener::address),
        why: view.advertised.why.clone(),
        problem: view.advertised.problem.clone(),
    };
    views.map(body).collect()
}

/// The picture is taken on a thread that may block: it waits for locks of the log.
pub(super) async fn log(State(shared): State<Arc<Shared>>) -> Result<Json<LogBody>, Failure> {
    let broker = broker(&shared)?;
    let body = tokio::task::spawn_blocking(move || log_body(&broker, broker.log.health())).await;
    body.map(Json).map_err(|error| internal(&error))
}

fn log_body(broker: &Broker, health: Health) -> LogBody {
    LogBody {
        health: health.states.iter().map(|state| state.label()).collect(),
        broker_id: broker.id(),
        cluster_id: broker.identity.cluster_id.clone(),
        wal: WalBody {
            files: health.wal.files,
            size_bytes: health.wal.size_bytes,
            durable_group: health.wal.durable_group,
            oldest_group: health.wal.oldest_group,
            boot: health.wal.boot,
        },
        decode_errors: health.decode_errors,
        quarantined_ranges: health.quarantined_ranges,
        truncated: health.truncated,
        unhealthy: health
            .unhealthy
            .into_iter()
            .map(|range| range_body(broker, range))
            .collect(),
        accepted_losses_total: health.accepted_total,
        accepted_losses: health
            .accepted
            .into_iter()
            .map(|loss| loss_body(broker, loss))
            .collect(),
    }
}

/// The topic may be gone by now: the record has the name that it had.
fn loss_body(broker: &Broker, loss: AcceptedLoss) -> LossBody {
    let group = loss.group();
    LossBody {
        range: RangeBody {
            topic: Some(loss.topic).filter(|_| group.is_none()),
            ..range_body(broker, loss.range)
        },
        group,
        accepted: rfc3339(loss.accepted_ms),
        by: loss.by,
    }
}

fn range_body(broker: &Broker, range: UnhealthyRange) -> RangeBody {
    RangeBody {
        topic: range.partition.and_then(|id| topic_name(broker, id)),
        topic_id: range.partition.map(|id| id.topic.to_string()),
        partition: range.partition.map(|id| id.index),
        from: range.from,
        to: range.to,
        file: range.file,
        position: range.position,
        reason: range.reason.label(),
        source: range.source.label(),
        stage: range.stage.label(),
        since: rfc3339(range.since_ms),
    }
}

fn topic_name(broker: &Broker, id: PartitionId) -> Option<String> {
    if id.topic.0 == CLUSTER_METADATA_ID {
        return Some(CLUSTER_METADATA.to_owned());
    }
    let state = broker.partitions.topic_by_id(&id.topic.0)?;
    Some(state.topic.name.to_string())
}
