//! What every request handler can reach: one shared context, made once at the start.
//!
//! Owns nothing but the handles. Never holds state of its own: each field is the client of one owner.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use keelson_log::{Identity, Log};
use keelson_state::config::ConfigLimits;
use keelson_state::metadata::{ALL_BROKERS, Image};
use tokio::sync::Semaphore;

use crate::budgets::Budgets;
use crate::config::{Config, Listener};
use crate::coordinator::Coordinator;
use crate::fetch_sessions::FetchSessions;
use crate::listeners::{ListenerId, Listeners};
use crate::metadata::Metadata;
use crate::metrics::Metrics;
use crate::partitions::Partitions;
use crate::transactions::Transactions;

/// Reads that touch a file, at once, over all connections: enough to keep a disk busy, few enough to bound threads.
pub const COLD_READS_MAX: usize = 8;

/// The shared context of the process, behind one `Arc`.
pub struct Broker {
    /// The configuration of the file. What the API can change is read from [`Broker::live`].
    pub config: Config,
    live: ArcSwap<Config>,
    /// Cluster, broker and directory, and the number of this start.
    pub identity: Identity,
    /// The data volume.
    pub log: Arc<Log>,
    /// Topics and partitions with their logs.
    pub partitions: Partitions,
    /// What requests and replies may take of memory.
    pub budgets: Budgets,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Permits for reads that touch a file.
    pub cold_reads: Semaphore,
    /// The fetch sessions of clients.
    pub fetch_sessions: FetchSessions,
    /// The owner of topics: creates, changes and deletes them.
    pub metadata: Metadata,
    /// The owner of groups and committed offsets.
    pub coordinator: Coordinator,
    /// The owner of transactions.
    pub transactions: Transactions,
    image: ArcSwap<Image>,
    listeners: OnceLock<Listeners>,
    tickets: AtomicU64,
}

/// What a [`Broker`] is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: Config,
    /// The open data volume.
    pub log: Arc<Log>,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The owner of topics.
    pub metadata: Metadata,
    /// The owner of groups.
    pub coordinator: Coordinator,
    /// The owner of transactions.
    pub transactions: Transactions,
    /// The metadata image as of the start.
    pub image: Arc<Image>,
}

impl Broker {
    /// Puts the context together.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            config,
            log,
            metrics,
            metadata,
            coordinator,
            transactions,
            image,
        } = parts;
        let live = live(&config, &log, &image);
        let memory = config.memory();
        log.set_compaction(live.compaction());
        Self {
            identity: log.identity().clone(),
            partitions: Partitions::new(Arc::clone(&log), live.topic_defaults.clone()),
            live: ArcSwap::from_pointee(live),
            budgets: Budgets::new(log.tail_budget(), &memory),
            cold_reads: Semaphore::new(COLD_READS_MAX),
            fetch_sessions: FetchSessions::new(
                (config.fetch_session_slots_max, memory.fetch_sessions),
                Arc::clone(&metrics),
            ),
            metadata,
            coordinator,
            transactions,
            image: ArcSwap::new(image),
            listeners: OnceLock::new(),
            tickets: AtomicU64::new(0),
            config,
            log,
            metrics,
        }
    }

    /// This broker's id.
    pub fn id(&self) -> i32 {
        self.identity.broker_id
    }

    /// What the values of topics must respect: the configuration's bound and the volume's.
    pub fn limits(&self) -> ConfigLimits {
        limits(&self.config, &self.log)
    }

    /// The configuration in force: the file's, with what the API has set.
    pub fn live(&self) -> Arc<Config> {
        self.live.load_full()
    }

    /// Puts what the API has set of this broker in force. Only the owner of the metadata calls this, after the image was
    /// published.
    pub fn apply_configs(&self) {
        let image = self.image();
        let live = live(&self.config, &self.log, &image);
        self.log.set_compaction(live.compaction());
        self.partitions
            .set_defaults(live.topic_defaults.clone(), &image);
        self.live.store(Arc::new(live));
    }

    /// The metadata image of this moment.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Replaces the image. Only the owner of the metadata calls this, after the records are durable and before
    /// [`Partitions::sync`].
    pub fn publish_image(&self, image: Arc<Image>) {
        self.image.store(image);
    }

    /// The listeners, once they are bound.
    pub fn listeners(&self) -> Option<&Listeners> {
        self.listeners.get()
    }

    /// The address that clients of a listener are told, if anybody knows it.
    pub fn advertised(&self, listener: ListenerId) -> Option<Listener> {
        self.listeners.get()?.advertised(listener)
    }

    /// Sets the listeners; the first call counts.
    pub fn set_listeners(&self, listeners: Listeners) {
        self.listeners.get_or_init(|| listeners);
    }

    /// A number that nobody else has in this run, for places in queues.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        now_ms()
    }
}

fn limits(config: &Config, log: &Log) -> ConfigLimits {
    let ours = config.limits();
    let volume = i32::try_from(log.batch_bytes_max()).unwrap_or(i32::MAX);
    ConfigLimits {
        message_bytes_max: ours.message_bytes_max.min(volume),
    }
}

fn live(config: &Config, log: &Log, image: &Image) -> Config {
    let all = image.broker_configs(ALL_BROKERS);
    let own = image.broker_configs(log.identity().broker_id);
    config.with_dynamic(all, own, &limits(config, log))
}

/// Unix time in milliseconds; 0 for a clock before 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
