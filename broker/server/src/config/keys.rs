//! Every key of the broker's configuration: name, type, default, meaning, and how a value is taken over.
//!
//! Owns the list; a key that is not here stops the start. Keys that set defaults of topics stand in
//! `keelson_state::config` and are listed from there.

mod place;

use std::path::PathBuf;

use keelson_state::config::{Kind, SEGMENT_BYTES_MIN};

use super::value::{boolean, number, only, throttle};
use super::{Config, LogFormat, listener};

/// One key.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it can be set through the API while the broker runs, and is then in force at once.
    pub is_dynamic: bool,
    /// Its default as text; `None` where the default is worked out (see `doc`).
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
    /// Takes a value over, or says what is wrong with it.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

const ONE_BROKER: &str = "there is one broker";
const INT_MAX: i64 = i32::MAX as i64;
/// Tail memory below this cannot hold one batch of Kafka's default size beside the reserve for control writes.
const TAIL_MEMORY_BYTES_MIN: i64 = 8 * 1024 * 1024;
/// A smaller map of keys would make passes without end.
const CLEANER_MEMORY_BYTES_MIN: i64 = 1024 * 1024;

/// Every key, in alphabetical order.
pub static KEYS: &[Key] = &[
    place::ADVERTISED_LISTENERS,
    Key {
        name: "auto.create.topics.enable",
        kind: Kind::Boolean,
        is_dynamic: false,
        default: Some("true"),
        doc: "Whether a Metadata request that asks for it creates the topics it names.",
        set: |config, value| {
            config.auto_create_topics = boolean(value)?;
            Ok(())
        },
    },
    Key {
        name: "broker.id",
        kind: Kind::Int,
        is_dynamic: false,
        default: None,
        doc: "Older name of `node.id`; where both are set they must agree.",
        set: |config, value| {
            config.broker_id_old = Some(number(value, 0, INT_MAX)?);
            Ok(())
        },
    },
    Key {
        name: "connections.max.idle.ms",
        kind: Kind::Long,
        is_dynamic: false,
        default: Some("600000"),
        doc: "A connection without a request for this long is closed; -1 never.",
        set: |config, value| {
            config.connections_max_idle_ms = number(value, -1, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "default.replication.factor",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1"),
        doc: "Replicas of a topic that is created without a number of them: there is one broker.",
        set: |_, value| only(value, "1", ONE_BROKER),
    },
    Key {
        name: "delete.topic.enable",
        kind: Kind::Boolean,
        is_dynamic: false,
        default: Some("true"),
        doc: "Whether clients may delete topics; without it DeleteTopics answers TOPIC_DELETION_DISABLED.",
        set: |config, value| {
            config.delete_topics = boolean(value)?;
            Ok(())
        },
    },
    Key {
        name: "fetch.max.bytes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("57671680"),
        doc: "The most bytes of records that one Fetch is answered with; a single larger batch is still returned.",
        set: |config, value| {
            config.fetch_max_bytes = number(value, 1024, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "follower.replication.throttled.rate",
        kind: Kind::Long,
        is_dynamic: true,
        default: Some("9223372036854775807"),
        doc: "Bytes per second that replicas may fetch: with one broker nothing is replicated, so that any value is kept.",
        set: throttle,
    },
    Key {
        name: "group.initial.rebalance.delay.ms",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("3000"),
        doc: "How long the first rebalance of an empty group waits for more members.",
        set: |config, value| {
            config.group_initial_rebalance_delay_ms = number(value, 0, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "group.max.session.timeout.ms",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1800000"),
        doc: "The longest session timeout that a group member may ask for.",
        set: |config, value| {
            config.group_max_session_timeout_ms = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "group.max.size",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("2147483647"),
        doc: "The most members of one group.",
        set: |config, value| {
            config.group_max_size = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "group.min.session.timeout.ms",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("6000"),
        doc: "The shortest session timeout that a group member may ask for.",
        set: |config, value| {
            config.group_min_session_timeout_ms = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    place::HTTP_LISTEN,
    Key {
        name: "keelson.cluster.id",
        kind: Kind::String,
        is_dynamic: false,
        default: None,
        doc: "The cluster that the data directory must belong to. Default: the one it was made with; a new one for an \
              empty directory.",
        set: |config, value| {
            let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if value.is_empty() || value.len() > 64 || !value.chars().all(lawful) {
                return Err("it must be 1 to 64 letters, digits, '-' or '_'".to_owned());
            }
            config.cluster_id = Some(value.to_owned());
            Ok(())
        },
    },
    place::KNOWN_DIR,
    Key {
        name: "keelson.log.format",
        kind: Kind::String,
        is_dynamic: false,
        default: Some("text"),
        doc: "Form of the program's own log lines on stderr: text or json.",
        set: |config, value| {
            config.log_format = match value {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("it must be text or json".to_owned()),
            };
            Ok(())
        },
    },
    Key {
        name: "keelson.log.level",
        kind: Kind::String,
        is_dynamic: false,
        default: Some("info"),
        doc: "Lowest level of the program's own log lines: error, warn, info, debug or trace.",
        set: |config, value| {
            config.log_level = value
                .parse()
                .map_err(|_| "it must be error, warn, info, debug or trace".to_owned())?;
            Ok(())
        },
    },
    Key {
        name: "keelson.metrics.partitions",
        kind: Kind::Boolean,
        is_dynamic: false,
        default: Some("true"),
        doc: "Whether /metrics has the series per partition (kafka_topic_partition_*, kafka_consumergroup_*).",
        set: |config, value| {
            config.metrics_partitions = boolean(value)?;
            Ok(())
        },
    },
    Key {
        name: "keelson.scrub.bytes.per.second",
        kind: Kind::Long,
        is_dynamic: false,
        default: Some("8388608"),
        doc: "How much the scrubber reads per second: a background pass over all segments that finds damage before a \
              client does. A pass begins with the start and at most once an hour; 0 switches it off.",
        set: |config, value| {
            config.scrub_bytes_per_second = number(value, 0, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "keelson.shutdown.withdraw.ms",
        kind: Kind::Long,
        is_dynamic: false,
        default: Some("0"),
        doc: "After SIGTERM the broker says on /readyz that it is not ready, and serves on for this long before it \
              stops: time for load balancers (a Kubernetes Service) to send no new connections any more, which would \
              hang on an address that is about to go. A second signal cuts it short.",
        set: |config, value| {
            config.shutdown_withdraw_ms = number(value, 0, 600_000)?;
            Ok(())
        },
    },
    Key {
        name: "keelson.tail.memory.bytes",
        kind: Kind::Long,
        is_dynamic: false,
        default: None,
        doc: "Bound of the memory for records that are not yet in a segment file. Default: the smaller of 256 MiB and \
              a quarter of the container's memory limit.",
        set: |config, value| {
            config.tail_memory_bytes = Some(number(value, TAIL_MEMORY_BYTES_MIN, i64::MAX)?);
            Ok(())
        },
    },
    Key {
        name: "keelson.termination.message.path",
        kind: Kind::String,
        is_dynamic: false,
        default: None,
        doc: "File that the reason of a fatal end is written to (Kubernetes: /dev/termination-log). Default: none.",
        set: |config, value| {
            config.termination_message = Some(PathBuf::from(value));
            Ok(())
        },
    },
    Key {
        name: "leader.replication.throttled.rate",
        kind: Kind::Long,
        is_dynamic: true,
        default: Some("9223372036854775807"),
        doc: "Bytes per second that replicas may be sent: with one broker nothing is replicated, so that any value is kept.",
        set: throttle,
    },
    place::LISTENER_PROTOCOLS,
    place::LISTENERS,
    Key {
        name: "log.cleaner.backoff.ms",
        kind: Kind::Long,
        is_dynamic: true,
        default: Some("15000"),
        doc: "How long compaction rests when no topic with cleanup.policy=compact is to be compacted.",
        set: |config, value| {
            config.cleaner_backoff_ms = number(value, 1, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "log.cleaner.dedupe.buffer.size",
        kind: Kind::Long,
        is_dynamic: true,
        default: Some("33554432"),
        doc: "Memory of a compaction for the newest offsets of keys, 32 bytes for each; with more keys it takes more passes.",
        set: |config, value| {
            config.cleaner_memory_bytes = number(value, CLEANER_MEMORY_BYTES_MIN, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "log.cleaner.enable",
        kind: Kind::Boolean,
        is_dynamic: false,
        default: Some("true"),
        doc: "Whether topics are compacted: without it __consumer_offsets would grow for ever.",
        set: |_, value| only(value, "true", "the broker's own topics need it"),
    },
    Key {
        name: "log.cleaner.io.max.bytes.per.second",
        kind: Kind::Double,
        is_dynamic: true,
        default: Some("33554432"),
        doc: "How much compaction reads and writes per second, together.",
        set: |config, value| {
            let rate: f64 = value
                .trim()
                .parse()
                .map_err(|_| "it is not a number".to_owned())?;
            if !(rate >= 1.0 && rate.is_finite()) {
                return Err("it must be at least 1".to_owned());
            }
            config.cleaner_bytes_per_second = rate;
            Ok(())
        },
    },
    Key {
        name: "log.cleaner.threads",
        kind: Kind::Int,
        is_dynamic: true,
        default: Some("1"),
        doc: "Threads that compact: it is one.",
        set: |_, value| only(value, "1", "one thread compacts"),
    },
    Key {
        name: "log.retention.check.interval.ms",
        kind: Kind::Long,
        is_dynamic: false,
        default: Some("300000"),
        doc: "How often segments that retention gives up are looked for.",
        set: |config, value| {
            config.retention_check_interval_ms = number(value, 1, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "max.connections",
        kind: Kind::Int,
        is_dynamic: true,
        default: Some("2147483647"),
        doc: "The most client connections at once; a further one is closed at once. Open files are the other bound.",
        set: |config, value| {
            config.connection_limits.max = number(value, 0, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "max.connections.per.ip",
        kind: Kind::Int,
        is_dynamic: true,
        default: Some("2147483647"),
        doc: "The most connections from one address at once; a further one is closed at once.",
        set: |config, value| {
            config.connection_limits.per_address = number(value, 0, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "max.connections.per.ip.overrides",
        kind: Kind::String,
        is_dynamic: true,
        default: Some(""),
        doc: "Addresses with another bound, as address:number, separated by commas. Names are not looked up.",
        set: |config, value| {
            config.connection_limits.overrides = listener::limits_by_address(value)?;
            Ok(())
        },
    },
    Key {
        name: "max.incremental.fetch.session.cache.slots",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1000"),
        doc: "The most fetch sessions (KIP-227); their memory is the other bound (below). A client without one fetches in full.",
        set: |config, value| {
            config.fetch_session_slots_max = number(value, 0, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "max.request.partition.size.limit",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("2000"),
        doc: "The most partitions that one DescribeTopicPartitions is answered with.",
        set: |config, value| {
            config.max_request_partitions = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "node.id",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("0"),
        doc: "The number of this broker; it must stay the one that the data directory was made with.",
        set: |config, value| {
            config.node_id = number(value, 0, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "num.partitions",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1"),
        doc: "Partitions of a topic that is created without a number of them.",
        set: |config, value| {
            config.num_partitions = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "offset.metadata.max.bytes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("4096"),
        doc: "The longest note that a client may leave with a committed offset.",
        set: |config, value| {
            config.offset_metadata_max_bytes = number(value, 0, i64::from(i16::MAX))?;
            Ok(())
        },
    },
    Key {
        name: "offsets.retention.check.interval.ms",
        kind: Kind::Long,
        is_dynamic: false,
        default: Some("600000"),
        doc: "How often committed offsets whose time is over are looked for.",
        set: |config, value| {
            config.offsets_retention_check_interval_ms = number(value, 1, i64::MAX)?;
            Ok(())
        },
    },
    Key {
        name: "offsets.retention.minutes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("10080"),
        doc: "How long committed offsets stay after their group has lost its last member; those that were committed \
              from outside any group, or that a group does not read any more, after their commit.",
        set: |config, value| {
            config.offsets_retention_minutes = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "offsets.topic.num.partitions",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("50"),
        doc: "Partitions of __consumer_offsets; counts only when that topic is created.",
        set: |config, value| {
            config.offsets_topic_partitions = number(value, 1, 10_000)?;
            Ok(())
        },
    },
    Key {
        name: "offsets.topic.replication.factor",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1"),
        doc: "Replicas of __consumer_offsets: there is one broker.",
        set: |_, value| only(value, "1", ONE_BROKER),
    },
    Key {
        name: "offsets.topic.segment.bytes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("104857600"),
        doc: "Segment size of __consumer_offsets, whose closed segments are compacted; counts only when that topic is \
              created.",
        set: |config, value| {
            config.offsets_topic_segment_bytes = number(value, SEGMENT_BYTES_MIN, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "producer.id.expiration.ms",
        kind: Kind::Int,
        is_dynamic: true,
        default: Some("86400000"),
        doc: "How long the sequence numbers of an idle producer are remembered.",
        set: |config, value| {
            config.producer_id_expiration_ms = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "replica.alter.log.dirs.io.max.bytes.per.second",
        kind: Kind::Long,
        is_dynamic: true,
        default: Some("9223372036854775807"),
        doc: "Bytes per second that replicas may move between directories: there is one directory, so that any value is kept.",
        set: throttle,
    },
    Key {
        name: "socket.request.max.bytes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("104857600"),
        doc: "The largest Produce request; other requests are bounded by 1 MiB.",
        set: |config, value| {
            config.socket_request_max_bytes = number(value, 1024, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "transaction.max.timeout.ms",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("900000"),
        doc: "The longest time that a producer may ask for its transactions to take.",
        set: |config, value| {
            config.transaction_max_timeout_ms = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "transaction.partition.verification.enable",
        kind: Kind::Boolean,
        is_dynamic: true,
        default: Some("true"),
        doc: "Whether the coordinator is asked about a batch that begins a transaction in a partition: it always is.",
        set: |_, value| only(value, "true", "batches are always verified"),
    },
    Key {
        name: "transaction.state.log.min.isr",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1"),
        doc: "In-sync replicas that __transaction_state needs: there is one broker.",
        set: |_, value| only(value, "1", ONE_BROKER),
    },
    Key {
        name: "transaction.state.log.num.partitions",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("50"),
        doc: "Partitions of __transaction_state; counts only when that topic is created.",
        set: |config, value| {
            config.transaction_topic_partitions = number(value, 1, 10_000)?;
            Ok(())
        },
    },
    Key {
        name: "transaction.state.log.replication.factor",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("1"),
        doc: "Replicas of __transaction_state: there is one broker.",
        set: |_, value| only(value, "1", ONE_BROKER),
    },
    Key {
        name: "transaction.state.log.segment.bytes",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("104857600"),
        doc: "Segment size of __transaction_state, whose closed segments are compacted; counts only when that topic is \
              created.",
        set: |config, value| {
            config.transaction_topic_segment_bytes = number(value, SEGMENT_BYTES_MIN, INT_MAX)?;
            Ok(())
        },
    },
    Key {
        name: "transactional.id.expiration.ms",
        kind: Kind::Int,
        is_dynamic: false,
        default: Some("604800000"),
        doc: "How long a transactional id is remembered that nobody uses.",
        set: |config, value| {
            config.transactional_id_expiration_ms = number(value, 1, INT_MAX)?;
            Ok(())
        },
    },
];

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
