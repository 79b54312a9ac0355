//! The broker's configuration: a properties file, `--set` on top, defaults below.
//!
//! Owns the values in force and where each comes from. Nothing is read from the environment, and nothing is ignored:
//! an unknown key, a bad value or an impossible combination stops the start with the key and the reason.

pub mod doc;
mod dynamic;
mod keys;
mod listener;
mod memory;
mod properties;
mod refused;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_log::CompactionPace;

use keelson_state::config::{ConfigLimits, LayeredDefaults, TopicDefaults};
use thiserror::Error;
use tracing::Level;

pub use dynamic::{Link, broker_keys};
pub use keys::{KEYS, Key};
pub use listener::{Listener, NamedListener, join};
pub use memory::{MemoryBounds, overcommit_warning};

use crate::net::ConnectionLimits;
use properties::Assignment;

/// Names closer than this (0 = nothing in common, 1 = equal) are worth suggesting.
const SIMILARITY_MIN: f64 = 0.7;

/// The largest batch that any topic may allow, as a part of the tail memory: the rest must hold others' batches.
const TAIL_DIVISOR_PER_BATCH: u64 = 4;

/// The largest batch that any topic may allow: a group must fit a WAL file of 64 MiB with room to spare.
const BATCH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Form of the program's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A line is no assignment.
    #[error("{origin}: {reason}")]
    Syntax {
        /// File or option.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The key does not exist.
    #[error("{origin}: unknown key {key}{}", .nearest.as_ref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownKey {
        /// File and line, or option.
        origin: String,
        /// The key.
        key: String,
        /// The most similar key there is.
        nearest: Option<String>,
    },
    /// The key is one of Kafka's that has no meaning here.
    #[error("{origin}: {key} is not served: {reason}")]
    Refused {
        /// File and line, or option.
        origin: String,
        /// The key.
        key: String,
        /// Why not.
        reason: &'static str,
    },
    /// The value is not lawful.
    #[error("{origin}: {key} = {value:?}: {reason}")]
    BadValue {
        /// File and line, or option.
        origin: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// Values that do not go together.
    #[error("{keys}: {reason}")]
    Impossible {
        /// The keys.
        keys: &'static str,
        /// Why not.
        reason: String,
    },
}

/// The values in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// `listeners`; at least one.
    pub listeners: Vec<NamedListener>,
    advertised: Vec<NamedListener>,
    listener_protocols: Vec<String>,
    /// `http.listen`.
    pub http_listen: Listener,
    /// `node.id` (or `broker.id`).
    pub node_id: i32,
    broker_id_old: Option<i32>,
    /// `keelson.cluster.id`.
    pub cluster_id: Option<String>,
    /// `keelson.known.dir`.
    pub known_dir: Option<PathBuf>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `max.request.partition.size.limit`.
    pub max_request_partitions: i32,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: i32,
    /// `offsets.retention.minutes`.
    pub offsets_retention_minutes: i32,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: i64,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub group_max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub group_max_size: i32,
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: usize,
    /// `max.connections`, `max.connections.per.ip`, `max.connections.per.ip.overrides`.
    pub connection_limits: ConnectionLimits,
    /// `connections.max.idle.ms`; -1 is never.
    pub connections_max_idle_ms: i64,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_session_slots_max: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: i64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// `transaction.max.timeout.ms`
    pub transaction_max_timeout_ms: i32,
    /// `transaction.state.log.num.partitions`
    pub transaction_topic_partitions: i32,
    /// `transaction.state.log.segment.bytes`
    pub transaction_topic_segment_bytes: i32,
    /// `transactional.id.expiration.ms`
    pub transactional_id_expiration_ms: i64,
    /// `log.cleaner.backoff.ms`.
    pub cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`.
    pub cleaner_memory_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub cleaner_bytes_per_second: f64,
    /// `keelson.scrub.bytes.per.second`; 0 is off.
    pub scrub_bytes_per_second: u64,
    /// `keelson.shutdown.withdraw.ms`.
    pub shutdown_withdraw_ms: u64,
    tail_memory_bytes: Option<u64>,
    /// `keelson.log.format`.
    pub log_format: LogFormat,
    /// `keelson.log.level`.
    pub log_level: Level,
    /// `keelson.metrics.partitions`.
    pub metrics_partitions: bool,
    /// `keelson.termination.message.path`.
    pub termination_message: Option<PathBuf>,
    /// Broker keys that set defaults of topics (`log.retention.ms` …).
    pub topic_defaults: LayeredDefaults,
    set: BTreeMap<String, String>,
}

impl Config {
    fn unset() -> Self {
        let nowhere = Listener {
            host: String::new(),
            port: 0,
        };
        Self {
            listeners: Vec::new(),
            advertised: Vec::new(),
            listener_protocols: Vec::new(),
            http_listen: nowhere,
            node_id: 0,
            broker_id_old: None,
            cluster_id: None,
            known_dir: None,
            auto_create_topics: false,
            delete_topics: false,
            max_request_partitions: 0,
            num_partitions: 0,
            offsets_topic_partitions: 0,
            offsets_topic_segment_bytes: 0,
            offsets_retention_minutes: 0,
            offsets_retention_check_interval_ms: 0,
            offset_metadata_max_bytes: 0,
            group_initial_rebalance_delay_ms: 0,
            group_min_session_timeout_ms: 0,
            group_max_session_timeout_ms: 0,
            group_max_size: 0,
            socket_request_max_bytes: 0,
            connection_limits: ConnectionLimits {
                max: 0,
                per_address: 0,
                overrides: HashMap::new(),
            },
            connections_max_idle_ms: 0,
            fetch_max_bytes: 0,
            fetch_session_slots_max: 0,
            retention_check_interval_ms: 0,
            producer_id_expiration_ms: 0,
            transaction_max_timeout_ms: 0,
            transaction_topic_partitions: 0,
            transaction_topic_segment_bytes: 0,
            transactional_id_expiration_ms: 0,
            cleaner_backoff_ms: 0,
            cleaner_memory_bytes: 0,
            cleaner_bytes_per_second: 0.0,
            scrub_bytes_per_second: 0,
            shutdown_withdraw_ms: 0,
            tail_memory_bytes: None,
            log_format: LogFormat::Text,
            log_level: Level::INFO,
            metrics_partitions: false,
            termination_message: None,
            topic_defaults: LayeredDefaults::default(),
            set: BTreeMap::new(),
        }
    }

    /// The configuration of a broker that sets nothing.
    ///
    /// # Panics
    /// If a default in the table is not lawful, which a test excludes.
    pub fn defaults() -> Self {
        let mut config = Self::unset();
        for key in KEYS {
            if let Some(value) = key.default {
                (key.set)(&mut config, value).expect("defaults in the table are lawful");
            }
        }
        config
    }

    /// Reads the file, lays the `--set` options over it, and checks what must go together.
    ///
    /// # Errors
    /// At the first thing that is wrong, with its place.
    pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Self, ConfigError> {
        let mut config = Self::defaults();
        let mut late = Vec::new();
        if let Some(path) = file {
            let name = path.display().to_string();
            for assignment in properties::parse(&read(path)?).map_err(|e| syntax(&name, e))? {
                late.push((format!("{name}:{}", assignment.line), assignment));
            }
        }
        for set in sets {
            let origin = format!("--set {set}");
            let assignment = properties::assignment(set, 1).map_err(|_| ConfigError::Syntax {
                origin: origin.clone(),
                reason: "it is not key=value".to_owned(),
            })?;
            late.push((origin, assignment));
        }
        // Limits on topic defaults depend on other keys: those come first.
        let (own, topic): (Vec<_>, Vec<_>) = late
            .into_iter()
            .partition(|(_, a)| !TopicDefaults::is_key(&a.key));
        for (origin, assignment) in own.into_iter().chain(topic) {
            config.take(&origin, &assignment)?;
        }
        config.check()?;
        Ok(config)
    }

    fn take(&mut self, origin: &str, assignment: &Assignment) -> Result<(), ConfigError> {
        let Assignment { key, value, .. } = assignment;
        let bad = |reason| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: key.clone(),
            value: value.clone(),
            reason,
        };
        if let Some(known) = keys::find(key) {
            (known.set)(self, value).map_err(bad)?;
        } else if TopicDefaults::is_key(key) {
            let limits = self.limits();
            self.topic_defaults
                .statics
                .set(key, value, &limits)
                .map_err(|error| bad(error.to_string()))?;
        } else if let Some(reason) = refused::reason(key) {
            return Err(ConfigError::Refused {
                origin: origin.to_owned(),
                key: key.clone(),
                reason,
            });
        } else {
            return Err(ConfigError::UnknownKey {
                origin: origin.to_owned(),
                key: key.clone(),
                nearest: nearest(key),
            });
        }
        self.set.insert(key.clone(), value.clone());
        Ok(())
    }

    fn check(&mut self) -> Result<(), ConfigError> {
        if let Some(old) = self.broker_id_old {
            if self.set.contains_key("node.id") && old != self.node_id {
                return Err(ConfigError::Impossible {
                    keys: "broker.id, node.id",
                    reason: format!("{old} and {} are two ids for one broker", self.node_id),
                });
            }
            self.node_id = old;
        }
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            return Err(ConfigError::Impossible {
                keys: "group.min.session.timeout.ms, group.max.session.timeout.ms",
                reason: format!(
                    "the minimum {} is above the maximum {}",
                    self.group_min_session_timeout_ms, self.group_max_session_timeout_ms
                ),
            });
        }
        self.check_listeners()?;
        let one_request = self.socket_request_max_bytes as u64;
        let set = |key: &str| self.set.contains_key(key);
        if one_request > self.tail_memory_bytes() && set("socket.request.max.bytes") {
            return Err(ConfigError::Impossible {
                keys: "socket.request.max.bytes, keelson.tail.memory.bytes",
                reason: format!(
                    "a request of {one_request} bytes does not fit the tail memory of {} bytes",
                    self.tail_memory_bytes()
                ),
            });
        }
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        let impossible = |keys, reason| Err(ConfigError::Impossible { keys, reason });
        for (place, listener) in self.listeners.iter().enumerate() {
            let NamedListener { name, address } = listener;
            if name != listener::PROTOCOL && !self.listener_protocols.contains(name) {
                let reason = format!("the listener {name} has no protocol: add {name}:PLAINTEXT");
                return impossible("listener.security.protocol.map", reason);
            }
            let mut before = self.listeners[..place].iter();
            if let Some(other) =
                before.find(|it| address.port != 0 && it.address.port == address.port)
            {
                let reason = format!("{listener} and {other} have one port");
                return impossible("listeners", reason);
            }
        }
        for advertised in &self.advertised {
            if advertised.address.is_wildcard() {
                let reason = format!("clients cannot connect to {advertised}: name a host");
                return impossible("advertised.listeners", reason);
            }
            if !self.listeners.iter().any(|it| it.name == advertised.name) {
                let reason = format!("there is no listener {}", advertised.name);
                return impossible("advertised.listeners, listeners", reason);
            }
        }
        Ok(())
    }

    /// What `advertised.listeners` says of a listener.
    pub fn advertised_of(&self, name: &str) -> Option<&Listener> {
        let found = self.advertised.iter().find(|it| it.name == name);
        found.map(|it| &it.address)
    }

    /// What each part of the process may hold.
    pub fn memory(&self) -> MemoryBounds {
        let here = MemoryBounds::here();
        MemoryBounds {
            tail: self.tail_memory_bytes.unwrap_or(here.tail),
            ..here
        }
    }

    /// `keelson.tail.memory.bytes`, worked out where it is not set.
    pub fn tail_memory_bytes(&self) -> u64 {
        self.memory().tail
    }

    /// `offsets.retention.minutes` in milliseconds.
    pub fn offsets_retention_ms(&self) -> i64 {
        i64::from(self.offsets_retention_minutes) * 60_000
    }

    /// How the log compacts.
    pub fn compaction(&self) -> CompactionPace {
        CompactionPace {
            bytes_per_second: self.cleaner_bytes_per_second,
            memory_bytes: self.cleaner_memory_bytes,
            pause: Duration::from_millis(self.cleaner_backoff_ms),
        }
    }

    /// What the values of topics must respect.
    pub fn limits(&self) -> ConfigLimits {
        let bytes = BATCH_BYTES_MAX.min(self.tail_memory_bytes() / TAIL_DIVISOR_PER_BATCH);
        ConfigLimits {
            message_bytes_max: i32::try_from(bytes).unwrap_or(i32::MAX),
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |reason: String| ConfigError::File {
        path: path.display().to_string(),
        reason,
    };
    let size = std::fs::metadata(path)
        .map_err(|e| fail(e.to_string()))?
        .len();
    if size > properties::PROPERTIES_BYTES_MAX {
        return Err(fail(format!(
            "{size} bytes are more than {}",
            properties::PROPERTIES_BYTES_MAX
        )));
    }
    std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))
}

fn syntax(file: &str, bad: properties::BadLine) -> ConfigError {
    ConfigError::Syntax {
        origin: file.to_owned(),
        reason: bad.to_string(),
    }
}

fn nearest(key: &str) -> Option<String> {
    let names = KEYS
        .iter()
        .map(|k| k.name)
        .chain(TopicDefaults::keys().map(|(_, synonym)| synonym.name));
    names
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sets: &[&str]) -> Result<Config, ConfigError> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Config::load(None, &sets)
    }

    #[test]
    fn defaults_are_kafkas_and_only_loopback_is_served() {
        let config = load(&[]).unwrap();
        assert_eq!(
            config.listeners[0].to_string(),
            "PLAINTEXT://127.0.0.1:9092"
        );
        assert_eq!(config.num_partitions, 1);
        assert!(config.auto_create_topics);
        assert_eq!(config.group_initial_rebalance_delay_ms, 3000);
        assert_eq!(
            config.scrub_bytes_per_second,
            keelson_log::SCRUB_BYTES_PER_SECOND
        );
        assert_eq!(
            (config.cleaner_memory_bytes, config.cleaner_bytes_per_second),
            (
                keelson_log::COMPACTION_MEMORY_BYTES,
                keelson_log::COMPACTION_BYTES_PER_SECOND
            )
        );
    }

    #[test]
    fn keys_are_sorted_and_unique() {
        let names: Vec<&str> = KEYS.iter().map(|k| k.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |sets: &[&str], words: &[&str]| {
            let text = load(sets).unwrap_err().to_string();
            for word in words {
                assert!(text.contains(word), "{text:?} lacks {word:?}");
            }
        };
        check(
            &["num.partition=3"],
            &["num.partition", "did you mean num.partitions?"],
        );
        check(&["zzz=1"], &["unknown key zzz"]);
        check(
            &["ssl.keystore.location=/a"],
            &["ssl.keystore.location is not served", "TLS"],
        );
        check(&["log.dirs=/a"], &["log.dirs is not served", "--data-dir"]);
        check(
            &["default.replication.factor=3"],
            &["only be 1", "one broker"],
        );
        check(&["num.partitions=0"], &["num.partitions", "from 1"]);
        check(&["num.partitions=x"], &["whole number"]);
        check(&["nonsense"], &["not key=value"]);
        check(&["listeners=SSL://:1"], &["SSL is not served"]);
        check(
            &["listeners=PLAINTEXT://a:1,PLAINTEXT://b:2"],
            &["two listeners have the name PLAINTEXT"],
        );
        check(&["advertised.listeners=PLAINTEXT://:1"], &["name a host"]);
        check(
            &["advertised.listeners=OTHER://h:1"],
            &["there is no listener OTHER"],
        );
        let two = "listeners=PLAINTEXT://:1,EXTERNAL://:2";
        check(
            &[two],
            &["EXTERNAL has no protocol: add EXTERNAL:PLAINTEXT"],
        );
        let map = "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT";
        check(
            &["listeners=A://:1,B://h:1", map],
            &["B://h:1 and A://:1 have one port"],
        );
        check(
            &["listener.security.protocol.map=A:SSL"],
            &["SSL is not served"],
        );
        check(&["broker.id=1", "node.id=2"], &["two ids"]);
        check(
            &[
                "group.min.session.timeout.ms=10",
                "group.max.session.timeout.ms=5",
            ],
            &["above the maximum"],
        );
        check(
            &[
                "keelson.tail.memory.bytes=8388608",
                "message.max.bytes=9000000",
            ],
            &["message.max.bytes"],
        );
        check(
            &[
                "keelson.tail.memory.bytes=8388608",
                "socket.request.max.bytes=9000000",
            ],
            &["does not fit the tail memory"],
        );
    }

    #[test]
    fn options_win_over_the_file_and_files_are_read() {
        let dir = std::env::temp_dir().join(format!("keelson-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("server.properties");
        std::fs::write(
            &file,
            "num.partitions=3\nbroker.id=7\nlog.retention.hours=1\n",
        )
        .unwrap();
        let config = Config::load(Some(&file), &["num.partitions=5".to_owned()]).unwrap();
        assert_eq!((config.num_partitions, config.node_id), (5, 7));
        assert_eq!(
            config.topic_defaults.statics.get("log.retention.hours"),
            Some("1")
        );
        std::fs::write(&file, "a=b\nnum.partitions=3\n").unwrap();
        let error = Config::load(Some(&file), &[]).unwrap_err().to_string();
        assert!(error.contains("server.properties:1"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(Config::load(Some(&file), &[]).is_err());
    }
}
