//! What a key is: its type, where its value can come from, what is lawful. It has no key of its own.

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
    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
        }
    }

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
    /// Set on this broker, through the API.
    DynamicBroker,
    /// Set for all brokers, through the API.
    DynamicDefaultBroker,
    /// Set in the broker's configuration file.
    StaticBroker,
    /// Nobody set it.
    Default,
}

impl Source {
    /// The number in DescribeConfigs v1 and later.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
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
    /// Whether it can be set through the API: Kafka allows it for the first of several names.
    pub is_dynamic: bool,
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
    /// `true` or `false`.
    Boolean,
    /// One of these words; for a list, each element is one of them, and it may be empty.
    OneOf(&'static [&'static str]),
    /// A level of gzip: 1 to 9, or −1 for its own default.
    GzipLevel,
    /// `*`, or replicas as `partition:broker,…`; empty is none.
    Replicas,
    /// Nothing but this value, for a reason.
    Only {
        /// The value.
        value: &'static str,
        /// Why no other.
        reason: &'static str,
    },
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
