//! A run of the broker, from the configuration to the end.
//!
//! Owns the order: HTTP first (recovery must be visible), then the log, the metadata, the partitions, the listener, and
//! only then the ready file; at the end the other way round. No thread of the runtime touches a file.

mod hooks;
mod ready;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use keelson_log::{LogMetrics, Options, PartitionId};
use keelson_state::config::{LayeredDefaults, settings};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Parts, now_ms};
use crate::cli::StartArgs;
use crate::config::{Config, Listener, NamedListener, join, overcommit_warning};
use crate::http::Shared;
use crate::known::KnownDir;
use crate::listeners::{self, Listeners};
use crate::metrics::{self, Metrics};
use crate::{coordinator, http, logging, metadata, net, transactions};

use hooks::ProcessHooks;
use ready::ReadyFile;

/// Threads for work that touches files: cold reads (bounded by permits), scrapes, the tick.
const BLOCKING_THREADS_MAX: usize = 32;
/// Free space and gauges are looked at this often.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// Idle producers are looked for this often; they expire after a day.
const PRODUCERS_TICK_MS: i64 = 600_000;

/// Runs the broker until a signal ends it.
///
/// # Errors
/// If it cannot start: the message is for people.
pub fn run(config: Config, args: &StartArgs) -> anyhow::Result<()> {
    logging::init(&config);
    if let Some(warning) = overcommit_warning() {
        anyhow::bail!(warning);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("keelson-net")
        .build()
        .context("the runtime does not start")?;
    let outcome = runtime.block_on(start(config, args));
    // Blocking work that is still running (a scrape, a cold read) needs nothing of ours any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What ends a run.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What is there before the log is.
struct Base {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    log_metrics: Arc<LogMetrics>,
}

impl Base {
    fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self {
            metrics: Arc::new(Metrics::register(&registry)?),
            log_metrics: Arc::new(LogMetrics::register(&registry)?),
            shared: Shared::new(registry),
        })
    }
}

async fn start(config: Config, args: &StartArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let base = Base::new()?;
    let http = listen(&config.http_listen, "http.listen").await?;
    let http_address = http.local_addr()?.to_string();
    let http_stopping = CancellationToken::new();
    let http_task = tokio::spawn(http::serve(
        http,
        Arc::clone(&base.shared),
        http_stopping.clone(),
    ));

    let opening = open(config, args, &base);
    let broker = tokio::select! {
        broker = opening => broker?,
        name = signals.wait() => {
            // Recovery has made no promise yet: ending in the middle of it is like a crash, and safe like one.
            tracing::info!(signal = name, "stopped during recovery");
            return Ok(());
        }
    };
    base.shared.set_broker(Arc::clone(&broker));
    let (sockets, bound) = listen_all(&broker.config.listeners).await?;
    broker.set_listeners(Listeners::new(&broker.config, &bound, &host_name()?));
    let kafka_stopping = CancellationToken::new();
    let kafka = tokio::spawn(net::serve(
        sockets,
        Arc::clone(&broker),
        kafka_stopping.clone(),
    ));
    let watching = tokio::spawn(listeners::watch(
        Arc::clone(&broker),
        kafka_stopping.clone(),
    ));
    let ticking = tokio::spawn(tick(Arc::clone(&broker), kafka_stopping.clone()));
    let ready =
        ReadyFile::write(args.ready_file.as_deref(), &broker, &bound, &http_address).await?;
    tracing::info!(http = http_address, "serving");
    base.shared.set_ready(true);

    let name = signals.wait().await;
    tracing::info!(signal = name, "stopping");
    base.shared.set_ready(false);
    ready.remove().await;
    withdraw(broker.config.shutdown_withdraw_ms, &mut signals).await;
    kafka_stopping.cancel();
    kafka.await.context("the Kafka port")?;
    ticking.await.context("the tick")?;
    watching.await.context("the look at the listeners")?;
    let log = Arc::clone(&broker.log);
    tokio::task::spawn_blocking(move || log.shutdown())
        .await
        .context("the log did not end well")?;
    http_stopping.cancel();
    http_task.await.context("the HTTP server")?;
    tracing::info!("stopped");
    Ok(())
}

/// Serves on while load balancers learn that this broker is not ready any more. A client that is sent to the address of
/// a broker that is gone waits for as long as it lets a connection take, which is longer than a restart.
async fn withdraw(ms: u64, signals: &mut Signals) {
    if ms == 0 {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        name = signals.wait() => tracing::info!(signal = name, "stopping at once"),
    }
}

async fn listen(address: &Listener, key: &str) -> anyhow::Result<TcpListener> {
    net::bind(&address.address())
        .await
        .with_context(|| format!("{key} = {}: it cannot be bound", address.address()))
}

/// Binds all listeners; none is accepted on before all are bound.
async fn listen_all(
    listeners: &[NamedListener],
) -> anyhow::Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let mut sockets = Vec::new();
    let mut bound = Vec::new();
    for NamedListener { name, address } in listeners {
        let socket = listen(address, &format!("listeners: {name}")).await?;
        bound.push(socket.local_addr()?);
        sockets.push(socket);
    }
    Ok((sockets, bound))
}

fn host_name() -> anyhow::Result<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str();
    Ok(name.context("the host's name is not UTF-8")?.to_owned())
}

/// Opens the log, replays the metadata, and puts the broker together with all its partitions.
async fn open(config: Config, args: &StartArgs, base: &Base) -> anyhow::Result<Arc<Broker>> {
    let mut options = options(&config, args);
    let known = config
        .known_dir
        .as_deref()
        .map(|dir| KnownDir::new(dir, config.node_id));
    let hooks = Arc::new(ProcessHooks::new(
        config.termination_message.clone(),
        args.ready_file.clone(),
    ));
    let log_metrics = Arc::clone(&base.log_metrics);
    let defaults = config.topic_defaults.clone();
    let (log, loaded) = tokio::task::spawn_blocking(move || {
        if let Some(known) = known {
            let admitted = known.admit(&options.data_dir).map_err(anyhow::Error::msg)?;
            options.replaces = admitted.replaces;
            options.cluster_id = options.cluster_id.or(admitted.cluster_id);
        }
        let log = Arc::new(keelson_log::open(options, log_metrics, hooks)?);
        check_batch_limit(&defaults, log.batch_bytes_max())?;
        let mut loaded = metadata::load(&log)?;
        loaded.register_start(&log, now_ms())?;
        anyhow::Ok((log, loaded))
    })
    .await
    .context("opening the log")??;
    let last_exit = match log.identity().last_exit.as_str() {
        "" if log.identity().boot <= 1 => "none",
        "" => "killed",
        reason => reason,
    };
    metrics::register_last_exit(&base.shared.registry, last_exit)?;
    let known = loaded.known_partitions();
    let (metadata, metadata_inbox) = metadata::channel();
    let (coordinator, coordinator_inbox) = coordinator::channel();
    let (transactions, transactions_inbox) = transactions::channel();
    let broker = Arc::new(Broker::new(Parts {
        config,
        log,
        metrics: Arc::clone(&base.metrics),
        metadata,
        coordinator,
        transactions,
        image: Arc::new(loaded.image),
    }));
    let opened = Arc::clone(&broker);
    tokio::task::spawn_blocking(move || take_over(&opened, &known))
        .await
        .context("opening the partitions")?;
    metadata::spawn(metadata_inbox, &broker).context("the owner of the metadata")?;
    coordinator::spawn(coordinator_inbox, &broker);
    transactions::spawn(transactions_inbox, &broker);
    Ok(broker)
}

/// The volume decides how large a batch its WAL can hold; a default above that would fail every large produce.
fn check_batch_limit(defaults: &LayeredDefaults, bytes_max: u64) -> anyhow::Result<()> {
    let wanted = settings(&BTreeMap::new(), defaults).max_message_bytes;
    if u64::try_from(wanted).unwrap_or(0) > bytes_max {
        anyhow::bail!(
            "message.max.bytes = {wanted}: the WAL of this volume holds batches of at most {bytes_max} bytes"
        );
    }
    Ok(())
}

/// Opens every partition that the image knows; folders that it does not know are put aside, never deleted.
fn take_over(broker: &Broker, known: &HashSet<PartitionId>) {
    broker.partitions.sync_all(&broker.image());
    for path in broker.log.quarantine_unknown(known) {
        tracing::error!(path = %path.display(), "a partition that no topic has was put aside");
    }
}

fn options(config: &Config, args: &StartArgs) -> Options {
    let mut options = Options::new(&args.data_dir);
    options.broker_id = config.node_id;
    options.cluster_id = config.cluster_id.clone();
    let memory = config.memory();
    options.tail_bytes_max = memory.tail;
    options.extent_cache_bytes_max = memory.extent_cache;
    options.scrub_bytes_per_second = config.scrub_bytes_per_second;
    options.compaction = config.compaction();
    options
}

/// Periodic work of the log and of the partitions.
async fn tick(broker: Arc<Broker>, stopping: CancellationToken) {
    let retention_every_ms = broker.config.retention_check_interval_ms;
    let period = WATCH_PERIOD.min(Duration::from_millis(
        u64::try_from(retention_every_ms).unwrap_or(u64::MAX),
    ));
    let mut retention_at = now_ms();
    let mut producers_at = retention_at;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        let now = now_ms();
        let retain = is_due(&mut retention_at, now, retention_every_ms);
        let expire = is_due(&mut producers_at, now, PRODUCERS_TICK_MS);
        let ticked = Arc::clone(&broker);
        let done = tokio::task::spawn_blocking(move || {
            if retain {
                ticked.log.tick(now);
            } else {
                ticked.log.watch();
            }
            if expire {
                ticked
                    .partitions
                    .expire_producers(now, ticked.live().producer_id_expiration_ms);
            }
        });
        if done.await.is_err() {
            return;
        }
    }
}

/// True once per `every_ms`; a clock that goes back starts the time again.
fn is_due(last_ms: &mut i64, now_ms: i64, every_ms: i64) -> bool {
    let due = now_ms < *last_ms || now_ms - *last_ms >= every_ms;
    if due {
        *last_ms = now_ms;
    }
    due
}

/// `host:port` of a bound socket, as the ready file has it.
fn text(address: SocketAddr) -> String {
    join(&address.ip().to_string(), address.port())
}
