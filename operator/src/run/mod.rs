//! `keelson-operator run`: both kinds, in a Kubernetes cluster.
//!
//! Owns the life of the process: reaching the API server, standing for the lease, leading while it lasts, and leaving
//! in order. One broken object, one broken namespace or a broker that is away never ends it.

mod context;
mod election;
mod gate;
mod groups;
mod http;
mod identity;
mod objects;
mod release;
mod scope;
mod topics;
mod turn;

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use keelson_crds::Kind;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{WatchStreamExt, controller, reflector, watcher};
use kube::{Client, Config as KubeConfig, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::health::{self, ClusterLog};
use crate::kafka::real::RealKafka;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use context::{CONCURRENCY, Context, Turns};
use election::Election;
pub(crate) use release::command as release_command;
use scope::Scope;
pub(crate) use scope::Watched;

/// How long one watch lasts, in seconds. A connection that died without a word is noticed little later.
const WATCH_SECONDS: u32 = 120;
/// Pause between two looks at the brokers' logs.
const LOG_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Pause between two tries to reach the API server at the start.
const START_PAUSE: Duration = Duration::from_secs(2);
/// The annotation of client-side `kubectl apply`.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Pause between two rounds of letting objects go while the namespace is being deleted.
const RELEASE_PAUSE: Duration = Duration::from_secs(2);

/// What `run` is told.
pub(crate) struct Options {
    pub(crate) cluster: String,
    pub(crate) bootstrap: String,
    pub(crate) broker_http_port: u16,
    pub(crate) namespaces: Vec<Watched>,
    pub(crate) all_namespaces: bool,
    pub(crate) http: String,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) external_services: bool,
    pub(crate) resync: Duration,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let stop = stop_token()?;
    let config = kubernetes().await?;
    let leadership = Leadership::default();
    let client = gate::anyones_client(config.clone())?;
    let own = client.default_namespace().to_owned();
    let scope = Scope::new(options.all_namespaces, &options.namespaces, &own)
        .map_err(anyhow::Error::msg)?;
    let metrics = Arc::new(Metrics::new(&options.cluster).context("metrics")?);
    let server_end = CancellationToken::new();
    let (address, ready) = http::serve(&options.http, Arc::clone(&metrics), server_end.clone())
        .await
        .with_context(|| format!("--http {}", options.http))?;
    let Some(cluster_uid) = cluster_uid(&client, &stop).await else {
        return Ok(());
    };
    let identity = format!("{}_{}", hostname(), uuid::Uuid::new_v4());
    let reporter = Reporter {
        controller: "keelson.dev/operator".to_owned(),
        instance: Some(short(&identity)),
    };
    let leaders = gate::leaders_client(config, leadership.clone())?;
    let context = Arc::new(Context {
        kafka: RealKafka::new(&options.bootstrap)?.for_a_leader(leadership.clone()),
        leadership: leadership.clone(),
        scope,
        cluster: options.cluster.clone(),
        namespace: own.clone(),
        cluster_uid,
        recorder: Recorder::new(leaders.clone(), reporter),
        metrics,
        log: watch::Sender::new(ClusterLog::default()),
        resync: options.resync,
        external_services: options.external_services,
        failures: Mutex::new(HashMap::new()),
        turns: Turns::default(),
        written: Mutex::new(HashMap::new()),
        client: leaders,
    });
    ready.store(true, Ordering::Release);
    let ready_file = options.ready_file.as_deref();
    if let Some(path) = ready_file {
        write_ready_file(
            path,
            &json!({ "http": address.to_string(), "cluster": options.cluster, "identity": identity }),
        )?;
    }
    info!(%address, scope = ?context.scope, cluster = options.cluster, identity, "the operator is up");

    let at = (own.as_str(), options.cluster.as_str());
    let election = Election::new(client.clone(), at, identity, leadership);
    stand(
        &context,
        &client,
        election,
        (health::http_client()?, options.broker_http_port),
        &stop,
    )
    .await;
    release::at_the_end(&client, &own, &context.scope, &options.cluster).await;
    server_end.cancel();
    if let Some(path) = ready_file
        && let Err(error) = std::fs::remove_file(path)
    {
        warn!("{} could not be removed: {error}", path.display());
    }
    info!("the operator ends");
    Ok(())
}

/// Stands for the lease, and leads while it is held, until stopped.
async fn stand(
    context: &Arc<Context>,
    client: &Client,
    mut election: Election,
    brokers: (reqwest::Client, u16),
    stop: &CancellationToken,
) {
    let terminating = watch::Sender::new(false);
    let mut seen = terminating.subscribe();
    let namespace_watch = tokio::spawn(release::watch_own_namespace(
        client.clone(),
        context.namespace.clone(),
        terminating,
    ));
    let mut leading: Option<(CancellationToken, tokio::task::JoinHandle<()>)> = None;
    while !stop.is_cancelled() {
        if *seen.borrow_and_update() {
            end(&mut leading).await;
            context.metrics.leader.set(0);
            release::release_all(client, &context.scope, &context.cluster).await;
            pause(RELEASE_PAUSE, stop).await;
            continue;
        }
        let leads = election.round().await;
        context.metrics.leader.set(i64::from(leads));
        if leading.as_ref().is_some_and(|(_, task)| task.is_finished()) {
            warn!("the work of a leader ended by itself and is begun again");
            end(&mut leading).await;
        }
        match (&leading, leads) {
            (None, true) => {
                info!("this process leads");
                let token = CancellationToken::new();
                let task = lead(Arc::clone(context), brokers.clone(), token.clone());
                leading = Some((token, tokio::spawn(task)));
            }
            (Some(_), false) => {
                warn!("the lease is lost");
                end(&mut leading).await;
            }
            (Some(_), true) | (None, false) => {}
        }
        tokio::select! {
            () = pause(Election::pause(), stop) => {}
            changed = seen.changed() => if changed.is_err() { pause(Election::pause(), stop).await },
        }
    }
    end(&mut leading).await;
    election.resign().await;
    context.metrics.leader.set(0);
    namespace_watch.abort();
}

/// Stops leading at once: work under way is dropped, since the next leader may have begun already.
async fn end(leading: &mut Option<(CancellationToken, tokio::task::JoinHandle<()>)>) {
    if let Some((token, task)) = leading.take() {
        token.cancel();
        if let Err(error) = task.await {
            warn!("a task ended badly: {error}");
        }
    }
}

async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}

/// Everything a leader does.
async fn lead(
    context: Arc<Context>,
    (http, port): (reqwest::Client, u16),
    token: CancellationToken,
) {
    let work = async {
        look_at_logs(&context, &http, port).await;
        let namespaces: Vec<Option<String>> = match &context.scope {
            Scope::Everywhere => vec![None],
            Scope::Namespaces(all) => all.keys().cloned().map(Some).collect(),
        };
        let mut tasks: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> = vec![
            Box::pin(watch_logs(&context, http.clone(), port)),
            Box::pin(identity::keep(&context, http, port)),
        ];
        for namespace in namespaces {
            tasks.push(Box::pin(control_topics(
                Arc::clone(&context),
                namespace.clone(),
            )));
            tasks.push(Box::pin(control_groups(Arc::clone(&context), namespace)));
        }
        futures::future::join_all(tasks).await;
    };
    tokio::select! {
        () = work => warn!("all watches ended"),
        () = token.cancelled() => {}
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<DeserializeGuard<K>>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Of every object a copy is kept, without what nothing here reads: its `managedFields`, which as a tree of small maps
/// took more memory than all the rest, and the manifest that `kubectl apply` puts into an annotation.
fn controller<K>(api: Api<DeserializeGuard<K>>) -> Controller<DeserializeGuard<K>>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let objects = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
        .default_backoff()
        .modify(|it| {
            it.meta_mut().managed_fields = None;
            it.annotations_mut().remove(LAST_APPLIED);
        })
        .reflect(writer)
        .applied_objects();
    Controller::for_stream(objects, reader)
}

async fn control_topics(context: Arc<Context>, namespace: Option<String>) {
    let news = log_news(context.log.subscribe());
    controller(api::<keelson_crds::Topic>(
        &context.client,
        namespace.as_deref(),
    ))
    .with_config(Config::default().concurrency(CONCURRENCY))
    .reconcile_all_on(news)
    .run(
        topics::reconcile,
        |object, error, context| {
            failed(Kind::Topic, kube::Resource::meta(&*object), error, &context)
        },
        Arc::clone(&context),
    )
    .for_each(|result| {
        note((Kind::Topic, &context), result);
        futures::future::ready(())
    })
    .await;
}

async fn control_groups(context: Arc<Context>, namespace: Option<String>) {
    controller(api::<keelson_crds::ConsumerGroup>(
        &context.client,
        namespace.as_deref(),
    ))
    .with_config(Config::default().concurrency(CONCURRENCY))
    .run(
        groups::reconcile,
        |object, error, context| {
            failed(
                Kind::ConsumerGroup,
                kube::Resource::meta(&*object),
                error,
                &context,
            )
        },
        Arc::clone(&context),
    )
    .for_each(|result| {
        note((Kind::ConsumerGroup, &context), result);
        futures::future::ready(())
    })
    .await;
}

fn failed(
    kind: Kind,
    meta: &kube::api::ObjectMeta,
    error: &turn::ReconcileError,
    context: &Context,
) -> Action {
    let id = objects::ObjectId::new(kind, meta);
    warn!(
        kind = kind.as_str(),
        namespace = id.namespace,
        name = id.name,
        "Kubernetes: {error}"
    );
    let key = (kind, id.namespace, id.name);
    context.next_turn(
        key,
        Some(keelson_crds::Reason::KubernetesError),
        context.resync,
    )
}

fn note<K: kube::Resource>(
    (kind, context): (Kind, &Context),
    result: Result<
        (kube::runtime::reflector::ObjectRef<K>, Action),
        controller::Error<turn::ReconcileError, watcher::Error>,
    >,
) where
    K::DynamicType: Clone + std::fmt::Debug,
{
    match result {
        Ok((object, action)) => debug!(name = object.name, ?action, "reconciled"),
        Err(controller::Error::QueueError(error)) => {
            warn!("a watch failed and is started again: {error}")
        }
        Err(controller::Error::ObjectNotFound(object)) => {
            let namespace = object.namespace.clone().unwrap_or_default();
            context.forget(&(kind, namespace, object.name.clone()));
        }
        Err(error) => debug!("{error}"),
    }
}

/// One item each time the brokers' logs have something new to tell.
fn log_news(log: watch::Receiver<ClusterLog>) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(log, async |mut log| {
        log.changed().await.ok().map(|()| ((), log))
    })
}

async fn look_at_logs(context: &Context, http: &reqwest::Client, port: u16) {
    let new = ClusterLog::fetch(&context.kafka, http, port).await;
    context.metrics.log_seen(&new);
    context.log.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            *old = new;
        }
        changed
    });
}

async fn watch_logs(context: &Context, http: reqwest::Client, port: u16) {
    loop {
        tokio::time::sleep(LOG_PAUSE_MAX.min(context.resync)).await;
        look_at_logs(context, &http, port).await;
    }
}

/// Where the API server is.
async fn kubernetes() -> anyhow::Result<KubeConfig> {
    KubeConfig::infer()
        .await
        .context("no Kubernetes cluster is configured")
}

/// The uid of kube-system, as soon as the API server can be reached; `None` if stopped before.
async fn cluster_uid(client: &Client, stop: &CancellationToken) -> Option<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    while !stop.is_cancelled() {
        match api.get("kube-system").await {
            Ok(found) => return found.uid(),
            Err(error) => warn!("the Kubernetes API was not reached: {error}"),
        }
        pause(START_PAUSE, stop).await;
    }
    None
}

/// A token that SIGTERM and SIGINT cancel.
pub(crate) fn stop_token() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "operator".to_owned(), |it| it.trim().to_owned())
}

/// `reportingInstance` of an Event holds at most 128 characters.
fn short(identity: &str) -> String {
    identity.chars().take(128).collect()
}

/// Written aside and renamed: whoever sees it sees all of it.
fn write_ready_file(path: &Path, content: &serde_json::Value) -> anyhow::Result<()> {
    let aside = path.with_extension("new");
    std::fs::write(&aside, content.to_string())
        .with_context(|| format!("--ready-file {}", path.display()))?;
    std::fs::rename(&aside, path).with_context(|| format!("--ready-file {}", path.display()))
}
