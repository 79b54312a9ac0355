//! The table of topic keys: names, types, defaults, rules, meanings. It never judges a value.
//!
//! It has every topic key of Kafka: each works, or takes only the value that is true here.

use super::keys::{Kind, OWNER_BYTES_MAX, OWNER_KEY, Rule, SEGMENT_BYTES_MIN, Synonym, TopicKey};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const INT_MAX: i64 = i32::MAX as i64;
const FROM_0: Rule = at_least(0);
const NO_TIERS: &str = "there is no tiered storage";

const fn at_least(min: i64) -> Rule {
    Rule::Range { min, max: i64::MAX }
}

const fn int_at_least(min: i64) -> Rule {
    Rule::Range { min, max: INT_MAX }
}

const fn same_unit(name: &'static str, default: Option<&'static str>) -> Synonym {
    Synonym {
        name,
        factor: 1,
        default,
        is_dynamic: true,
    }
}

const fn in_units(name: &'static str, factor: i64, default: Option<&'static str>) -> Synonym {
    Synonym {
        name,
        factor,
        default,
        is_dynamic: false,
    }
}

/// Rows: name, type, default, rule, broker keys that set the default, meaning.
macro_rules! keys {
    ($($name:expr, $kind:ident, $default:expr, $rule:expr, $synonyms:expr, $doc:expr;)*) => {
        &[$(TopicKey {
            name: $name,
            kind: Kind::$kind,
            default: $default,
            rule: $rule,
            synonyms: $synonyms,
            doc: $doc,
        },)*]
    };
}

/// Every topic key. Any other is refused.
pub const TOPIC_KEYS: &[TopicKey] = keys! {
    "cleanup.policy", List, Some("delete"), Rule::OneOf(&["compact", "delete"]),
        &[same_unit("log.cleanup.policy", Some("delete"))],
        "What happens to old segments: \"delete\" removes them by retention.ms and retention.bytes, \
         \"compact\" keeps the newest record of each key, and both can be set; with neither all stay.";
    "compression.gzip.level", Int, Some("-1"), Rule::GzipLevel,
        &[same_unit("compression.gzip.level", Some("-1"))],
        "Level of gzip where compression.type makes the broker compress; -1 is gzip's own.";
    "compression.lz4.level", Int, Some("9"), Rule::Only { value: "9", reason: "LZ4 has one level here, a fast one" },
        &[same_unit("compression.lz4.level", Some("9"))],
        "Level of LZ4: it has one here, a fast one, whatever is shown.";
    "compression.type", String, Some("producer"), Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        &[same_unit("compression.type", Some("producer"))],
        "Codec of stored batches: \"producer\" stores them as they were sent, any other compresses anew what \
         came in another codec.";
    "compression.zstd.level", Int, Some("3"), Rule::Range { min: -131_072, max: 22 },
        &[same_unit("compression.zstd.level", Some("3"))],
        "Level of zstd where compression.type makes the broker compress.";
    "delete.retention.ms", Long, Some("86400000"), FROM_0,
        &[same_unit("log.cleaner.delete.retention.ms", Some("86400000"))],
        "How long compaction keeps a tombstone (a record with a key and no value) after its first pass over \
         it.";
    "file.delete.delay.ms", Long, Some("0"), Rule::Only { value: "0", reason: "a segment file is removed as soon as no manifest names it" },
        &[same_unit("log.segment.delete.delay.ms", Some("0"))],
        "How long the file of a deleted segment stays: it is removed as soon as no manifest names it.";
    "flush.messages", Long, Some("9223372036854775807"), at_least(1),
        &[same_unit("log.flush.interval.messages", Some("9223372036854775807"))],
        "Records after which a partition is synced at the latest. Any value is kept: each batch is synced \
         before it is acknowledged.";
    "flush.ms", Long, Some("9223372036854775807"), FROM_0,
        &[same_unit("log.flush.interval.ms", None)],
        "Time after which a partition is synced at the latest. Any value is kept: each batch is synced before \
         it is acknowledged.";
    "follower.replication.throttled.replicas", List, Some(""), Rule::Replicas,
        &[],
        "Replicas whose fetching from other brokers is throttled: with one broker there is none.";
    "index.interval.bytes", Int, Some("4096"), Rule::Only { value: "4096", reason: "an index has an entry for every 4096 bytes" },
        &[same_unit("log.index.interval.bytes", Some("4096"))],
        "Bytes of a segment between two entries of its index.";
    OWNER_KEY, String, None, Rule::Text { bytes_max: OWNER_BYTES_MAX },
        &[],
        "The Kubernetes object that owns this topic, as <kube-system uid>/<namespace>/<name>. It can be set \
         when empty and removed, never changed to another value.";
    "leader.replication.throttled.replicas", List, Some(""), Rule::Replicas,
        &[],
        "Replicas that other brokers fetch from at a throttled rate: with one broker there is none.";
    "local.retention.bytes", Long, Some("-2"), Rule::Only { value: "-2", reason: NO_TIERS },
        &[same_unit("log.local.retention.bytes", Some("-2"))],
        "What of a tiered partition stays local: there is no tiered storage.";
    "local.retention.ms", Long, Some("-2"), Rule::Only { value: "-2", reason: NO_TIERS },
        &[same_unit("log.local.retention.ms", Some("-2"))],
        "How long a tiered segment stays local: there is no tiered storage.";
    "max.compaction.lag.ms", Long, Some("9223372036854775807"), at_least(1),
        &[same_unit("log.cleaner.max.compaction.lag.ms", Some("9223372036854775807"))],
        "A record older than this is compacted whatever min.cleanable.dirty.ratio says; segments roll no \
         later either.";
    "max.message.bytes", Int, Some("1048588"), int_at_least(0),
        &[same_unit("message.max.bytes", Some("1048588"))],
        "The largest record batch (after compression) that is accepted, in bytes.";
    "message.timestamp.after.max.ms", Long, Some("3600000"), FROM_0,
        &[same_unit("log.message.timestamp.after.max.ms", Some("3600000"))],
        "How far a producer's timestamp may be ahead of the broker's clock; a record beyond that is refused. \
         Not looked at with LogAppendTime.";
    "message.timestamp.before.max.ms", Long, Some("9223372036854775807"), FROM_0,
        &[same_unit("log.message.timestamp.before.max.ms", Some("9223372036854775807"))],
        "How far a producer's timestamp may be behind the broker's clock; a record beyond that is refused. \
         Not looked at with LogAppendTime.";
    "message.timestamp.type", String, Some("CreateTime"), Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        &[same_unit("log.message.timestamp.type", Some("CreateTime"))],
        "Whether the timestamp of a record is the producer's (CreateTime) or the broker's (LogAppendTime).";
    "min.cleanable.dirty.ratio", Double, Some("0.5"), Rule::Ratio,
        &[same_unit("log.cleaner.min.cleanable.ratio", Some("0.5"))],
        "Compaction begins once more than this part of the closed segments was not compacted yet.";
    "min.compaction.lag.ms", Long, Some("0"), FROM_0,
        &[same_unit("log.cleaner.min.compaction.lag.ms", Some("0"))],
        "A record younger than this is not compacted.";
    "min.insync.replicas", Int, Some("1"), int_at_least(1),
        &[same_unit("min.insync.replicas", Some("1"))],
        "In-sync replicas that acks=all needs, at most as many as there are replicas, as in Kafka: with one \
         replica it is always met.";
    "preallocate", Boolean, Some("false"), Rule::Only { value: "false", reason: "records are written to preallocated files of the write-ahead log first" },
        &[same_unit("log.preallocate", Some("false"))],
        "Whether segment files are made at their full size: they are written in one go behind a write-ahead \
         log whose files are.";
    "remote.log.copy.disable", Boolean, Some("false"), Rule::Only { value: "false", reason: NO_TIERS },
        &[],
        "Whether tiered data is only read: there is no tiered storage.";
    "remote.log.delete.on.disable", Boolean, Some("false"), Rule::Only { value: "false", reason: NO_TIERS },
        &[],
        "Whether tiered data goes when tiering ends: there is no tiered storage.";
    "remote.storage.enable", Boolean, Some("false"), Rule::Only { value: "false", reason: NO_TIERS },
        &[],
        "Whether segments are tiered: there is no tiered storage.";
    "retention.bytes", Long, Some("-1"), at_least(i64::MIN),
        &[same_unit("log.retention.bytes", Some("-1"))],
        "The oldest segments of a partition are deleted while it holds more than this; negative is no limit.";
    "retention.ms", Long, Some("604800000"), at_least(-1),
        &[same_unit("log.retention.ms", None), in_units("log.retention.minutes", MINUTE_MS, None), in_units("log.retention.hours", HOUR_MS, Some("168"))],
        "Segments whose newest record is older than this are deleted; -1 is no limit.";
    "segment.bytes", Int, Some("1073741824"), int_at_least(SEGMENT_BYTES_MIN),
        &[same_unit("log.segment.bytes", Some("1073741824"))],
        "A segment file is closed and a new one begun when it would grow over this.";
    "segment.index.bytes", Int, Some("10485760"), Rule::Only { value: "10485760", reason: "an index is as large as what it holds" },
        &[same_unit("log.index.size.max.bytes", Some("10485760"))],
        "Largest index of a segment: it is as large as what it holds.";
    "segment.jitter.ms", Long, Some("0"), FROM_0,
        &[same_unit("log.roll.jitter.ms", None), in_units("log.roll.jitter.hours", HOUR_MS, Some("0"))],
        "Up to so much earlier than segment.ms a segment is closed, each partition by an amount of its own, \
         so that not all roll at once.";
    "segment.ms", Long, Some("604800000"), at_least(1),
        &[same_unit("log.roll.ms", None), in_units("log.roll.hours", HOUR_MS, Some("168"))],
        "A segment file is closed and a new one begun when it is older than this, so that retention can \
         delete it.";
    "unclean.leader.election.enable", Boolean, Some("false"), Rule::Boolean,
        &[same_unit("unclean.leader.election.enable", Some("false"))],
        "Whether a replica that is not in sync may lead: with one replica both values mean the same.";
};
