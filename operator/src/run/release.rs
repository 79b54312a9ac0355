//! Letting all objects go.
//!
//! Owns the case that nobody will be there to take finalizers off: the operator's own namespace is being deleted, or
//! the release is uninstalled. Then they come off all objects of this cluster, in parallel, and topics and groups stay as
//! they are: their disks go with the release or outlive it, and neither is ours to say.

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use keelson_crds::Kind;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use super::gate;
use super::objects::{self, Finalizer, ObjectId, set_finalizer};
use super::scope::{Scope, Watched};

/// Finalizers taken off at the same time.
const IN_PARALLEL: usize = 32;
/// Objects per page of a list.
const PAGE: u32 = 500;
/// How long letting go is tried after SIGTERM: less than the grace period of the chart, 30 seconds.
const LAST_TRIES_MAX: Duration = Duration::from_secs(20);
/// Pause between two of these tries.
const LAST_TRY_PAUSE: Duration = Duration::from_secs(1);
/// How long `release` waits for the operator to end.
const OPERATOR_END_WAIT_MAX: Duration = Duration::from_secs(90);
/// Pause between two looks at it.
const OPERATOR_END_PAUSE: Duration = Duration::from_millis(500);

/// Takes the finalizer off every object of the cluster. Returns how many, and how many failed.
pub(super) async fn release_all(client: &Client, scope: &Scope, cluster: &str) -> (usize, usize) {
    let apis = |kind| -> Vec<Api<DynamicObject>> {
        match scope {
            Scope::Everywhere => vec![objects::api_everywhere(client, kind)],
            Scope::Namespaces(all) => all
                .keys()
                .map(|it| objects::api(client, kind, it))
                .collect(),
        }
    };
    let (mut held, mut failed) = (Vec::new(), 0);
    for kind in Kind::ALL {
        for api in apis(*kind) {
            match list(&api, *kind, cluster).await {
                Ok(found) => held.extend(found),
                Err(error) => {
                    warn!("{}s to let go could not be listed: {error}", kind.as_str());
                    failed += 1;
                }
            }
        }
    }
    let results: Vec<bool> = futures::stream::iter(held)
        .map(
            async |id| match set_finalizer(client, &id, Finalizer::Off).await {
                Ok(()) => {
                    info!(
                        namespace = id.namespace,
                        name = id.name,
                        "let go; what it describes stays as it is"
                    );
                    true
                }
                Err(error) => {
                    warn!(
                        namespace = id.namespace,
                        name = id.name,
                        "not let go: {error}"
                    );
                    false
                }
            },
        )
        .buffer_unordered(IN_PARALLEL)
        .collect()
        .await;
    let done = results.iter().filter(|it| **it).count();
    (done, failed + results.len() - done)
}

async fn list(
    api: &Api<DynamicObject>,
    kind: Kind,
    cluster: &str,
) -> Result<Vec<ObjectId>, kube::Error> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        let ours = |it: &&DynamicObject| {
            let named = it
                .data
                .pointer("/spec/clusterRef/name")
                .and_then(serde_json::Value::as_str);
            named.is_none_or(|name| name == cluster)
                && it.finalizers().iter().any(|it| it == kind.finalizer())
        };
        found.extend(
            page.items
                .iter()
                .filter(ours)
                .map(|it| ObjectId::new(kind, &it.metadata)),
        );
        match page.metadata.continue_.filter(|it| !it.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(found),
        }
    }
}

/// The last thing that a process does: if its own namespace is being deleted, it lets all objects go. Nobody will do it
/// later, so an API server that fails is asked again for as long as the pod may live.
pub(super) async fn at_the_end(client: &Client, own: &str, scope: &Scope, cluster: &str) {
    let until_done = async {
        loop {
            match is_terminating(client, own).await {
                Ok(false) => return,
                Ok(true) if release_all(client, scope, cluster).await.1 == 0 => return,
                Ok(true) => {}
                Err(error) => warn!(
                    "whether namespace {own} is being deleted could not be found out: {error}"
                ),
            }
            tokio::time::sleep(LAST_TRY_PAUSE).await;
        }
    };
    if tokio::time::timeout(LAST_TRIES_MAX, until_done)
        .await
        .is_err()
    {
        warn!("objects may still be held: see docs/runbooks/stuck-namespace.md");
    }
}

/// True if the namespace is being deleted, or gone.
async fn is_terminating(client: &Client, namespace: &str) -> Result<bool, kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.get_opt(namespace).await?;
    Ok(found.is_none_or(|it| it.metadata.deletion_timestamp.is_some()))
}

/// Watches the operator's own namespace and says once when it is being deleted.
pub(super) async fn watch_own_namespace(
    client: Client,
    namespace: String,
    terminating: watch::Sender<bool>,
) {
    let api: Api<Namespace> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={namespace}"));
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
    while let Some(found) = stream.next().await {
        match found {
            Ok(it) if it.metadata.deletion_timestamp.is_some() => {
                warn!("namespace {namespace} is being deleted: letting all objects go");
                terminating.send_replace(true);
                return;
            }
            Ok(_) => {}
            Err(error) => warn!("namespace {namespace} cannot be watched: {error}"),
        }
    }
}

/// `keelson-operator release`: stops the operator, if a Deployment is named, and lets all objects go.
pub(crate) async fn command(
    cluster: &str,
    deployment: Option<&str>,
    all: bool,
    namespaces: &[Watched],
) -> anyhow::Result<()> {
    let client = gate::anyones_client(super::kubernetes().await?)?;
    if let Some(name) = deployment {
        stop(&client, name).await?;
    }
    let scope =
        Scope::new(all, namespaces, client.default_namespace()).map_err(anyhow::Error::msg)?;
    let (done, failed) = release_all(&client, &scope, cluster).await;
    println!("{done} objects were let go");
    anyhow::ensure!(
        failed == 0,
        "{failed} objects could not be let go; see the log"
    );
    Ok(())
}

/// Scales the operator to nothing and waits for its pods to be gone: a running one would put finalizers back.
async fn stop(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    match api.patch(name, &PatchParams::default(), &none).await {
        Ok(_) => {}
        Err(error) if objects::is_not_found(&error) => return Ok(()),
        Err(error) => {
            return Err(error).context(format!("Deployment {name} could not be scaled to 0"));
        }
    }
    let ended = async {
        loop {
            let Some(found) = api.get_opt(name).await? else {
                return Ok::<(), kube::Error>(());
            };
            let status = found.status.unwrap_or_default();
            let seen = status.observed_generation >= found.metadata.generation;
            if seen
                && status.replicas.unwrap_or(0) == 0
                && status.terminating_replicas.unwrap_or(0) == 0
            {
                return Ok(());
            }
            tokio::time::sleep(OPERATOR_END_PAUSE).await;
        }
    };
    tokio::time::timeout(OPERATOR_END_WAIT_MAX, ended)
        .await
        .with_context(|| {
            format!("Deployment {name} still has pods after {OPERATOR_END_WAIT_MAX:?}")
        })?
        .with_context(|| format!("Deployment {name} could not be looked at"))
}
