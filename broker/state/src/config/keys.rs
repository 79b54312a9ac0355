//! The table of topic keys: names, types, defaults, rules, meanings. It never judges a value.

/// A segment below this would cost more in file and index than it holds.
pub const SEGMENT_BYTES_MIN: i64 = 4_096;

/// Longest `keelson.owner`: a cluster uid, a namespace (63) and a name (253) with room to spare.
pub const OWNER_BYTES_MAX: usize = 512;

/// Who owns a topic: `<kube-system uid>/<namespace>/<name>` of the Kubernetes object.
pub const OWNER_KEY: &str = "keelson.owner";

/// The type of a value, as Kafka's clients know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// A number with a fraction.
    Double,
    /// Values separated by commas; the only type that takes APPEND and SUBTRACT.
    List,
}

impl Kind {
    /// The number in DescribeConfigs v3 and later.
    pub fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set in the broker's configuration.
    StaticBroker,
    /// Nobody set it.
    Default,
}

impl Source {
    /// The number in DescribeConfigs v1 and later.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::StaticBroker => 4,
            Source::Default => 5,
        }
    }
}

/// A broker key that sets the default of a topic key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// The broker's key.
    pub name: &'static str,
    /// Milliseconds (or units) that 1 of it stands for.
    pub factor: i64,
    /// Its own default, in its own unit.
    pub default: Option<&'static str>,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A whole number in this range, both ends included.
    Range {
        /// Lowest value.
        min: i64,
        /// Highest value.
        max: i64,
    },
    /// A fraction from 0 to 1, both ends included.
    Ratio,
    /// One of these words; for a list, each element is one of them.
    OneOf(&'static [&'static str]),
    /// Text of at most this many bytes.
    Text {
        /// Bytes.
        bytes_max: usize,
    },
}

/// One topic key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicKey {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default; none for a key that is simply absent.
    pub default: Option<&'static str>,
    /// What is lawful.
    pub rule: Rule,
    /// Broker keys that set its default, strongest first.
    pub synonyms: &'static [Synonym],
    /// What it means.
    pub doc: &'static str,
}

const fn same_unit(name: &'static str, default: Option<&'static str>) -> Synonym {
    Synonym {
        name,
        factor: 1,
        default,
    }
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const INT_MAX: i64 = i32::MAX as i64;

/// Every topic key of this version. Any other is refused.
pub const TOPIC_KEYS: &[TopicKey] = &[
    TopicKey {
        name: "cleanup.policy",
        kind: Kind::List,
        default: Some("delete"),
        rule: Rule::OneOf(&["delete", "compact"]),
        synonyms: &[same_unit("log.cleanup.policy", Some("delete"))],
        doc: "What happens to old segments: \"delete\" removes them by retention.ms and retention.bytes, \"compact\" keeps \
              the newest record of each key, and both can be set.",
    },
    TopicKey {
        name: "compression.type",
        kind: Kind::String,
        default: Some("producer"),
        rule: Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        synonyms: &[same_unit("compression.type", Some("producer"))],
        doc: "Codec of stored batches. With \"producer\" batches are stored as they were sent; with any other, those in \
              another codec are compressed anew, at the codec's default level.",
    },
    TopicKey {
        name: "delete.retention.ms",
        kind: Kind::Long,
        default: Some("86400000"),
        rule: Rule::Range {
            min: 0,
            max: i64::MAX,
        },
        synonyms: &[same_unit(
            "log.cleaner.delete.retention.ms",
            Some("86400000"),
        )],
        doc: "How long compaction keeps a tombstone (a record with a key and no value) after its first pass over it.",
    },
    TopicKey {
        name: OWNER_KEY,
        kind: Kind::String,
        default: None,
        rule: Rule::Text {
            bytes_max: OWNER_BYTES_MAX,
        },
        synonyms: &[],
        doc: "The Kubernetes object that owns this topic, as <kube-system uid>/<namespace>/<name>. It can be set when \
              empty and removed, never changed to another value.",
    },
    TopicKey {
        name: "max.compaction.lag.ms",
        kind: Kind::Long,
        default: Some("9223372036854775807"),
        rule: Rule::Range {
            min: 1,
            max: i64::MAX,
        },
        synonyms: &[same_unit(
            "log.cleaner.max.compaction.lag.ms",
            Some("9223372036854775807"),
        )],
        doc: "A record older than this is compacted whatever min.cleanable.dirty.ratio says; segments roll no later either.",
    },
    TopicKey {
        name: "max.message.bytes",
        kind: Kind::Int,
        default: Some("1048588"),
        rule: Rule::Range {
            min: 0,
            max: INT_MAX,
        },
        synonyms: &[same_unit("message.max.bytes", Some("1048588"))],
        doc: "The largest record batch (after compression) that is accepted, in bytes.",
    },
    TopicKey {
        name: "message.timestamp.type",
        kind: Kind::String,
        default: Some("CreateTime"),
        rule: Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        synonyms: &[same_unit("log.message.timestamp.type", Some("CreateTime"))],
        doc: "Whether the timestamp of a record is the producer's (CreateTime) or the broker's (LogAppendTime).",
    },
    TopicKey {
        name: "min.cleanable.dirty.ratio",
        kind: Kind::Double,
        default: Some("0.5"),
        rule: Rule::Ratio,
        synonyms: &[same_unit("log.cleaner.min.cleanable.ratio", Some("0.5"))],
        doc: "Compaction begins once more than this part of the closed segments was not compacted yet.",
    },
    TopicKey {
        name: "min.compaction.lag.ms",
        kind: Kind::Long,
        default: Some("0"),
        rule: Rule::Range {
            min: 0,
            max: i64::MAX,
        },
        synonyms: &[same_unit("log.cleaner.min.compaction.lag.ms", Some("0"))],
        doc: "A record younger than this is not compacted.",
    },
    TopicKey {
        name: "retention.bytes",
        kind: Kind::Long,
        default: Some("-1"),
        rule: Rule::Range {
            min: -1,
            max: i64::MAX,
        },
        synonyms: &[same_unit("log.retention.bytes", Some("-1"))],
        doc: "The oldest segments of a partition are deleted while it holds more than this; -1 is no limit.",
    },
    TopicKey {
        name: "retention.ms",
        kind: Kind::Long,
        default: Some("604800000"),
        rule: Rule::Range {
            min: -1,
            max: i64::MAX,
        },
        synonyms: &[
            same_unit("log.retention.ms", None),
            Synonym {
                name: "log.retention.minutes",
                factor: MINUTE_MS,
                default: None,
            },
            Synonym {
                name: "log.retention.hours",
                factor: HOUR_MS,
                default: Some("168"),
            },
        ],
        doc: "Segments whose newest record is older than this are deleted; -1 is no limit.",
    },
    TopicKey {
        name: "segment.bytes",
        kind: Kind::Int,
        default: Some("1073741824"),
        rule: Rule::Range {
            min: SEGMENT_BYTES_MIN,
            max: INT_MAX,
        },
        synonyms: &[same_unit("log.segment.bytes", Some("1073741824"))],
        doc: "A segment file is closed and a new one begun when it would grow over this.",
    },
    TopicKey {
        name: "segment.ms",
        kind: Kind::Long,
        default: Some("604800000"),
        rule: Rule::Range {
            min: 1,
            max: i64::MAX,
        },
        synonyms: &[
            same_unit("log.roll.ms", None),
            Synonym {
                name: "log.roll.hours",
                factor: HOUR_MS,
                default: Some("168"),
            },
        ],
        doc: "A segment file is closed and a new one begun when it is older than this, so that retention can delete it.",
    },
];
