//! What no history may hold: the kinds by name, and the evidence.
//!
//! The first thirteen are called as in Jepsen's Kafka workload. What Jepsen leaves to Elle (cycles between transactions) is not
//! looked for: Kafka promises no isolation beyond committed reads.

use std::fmt::Write;

use super::history::{History, Key, Value};

/// An anomaly's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Acknowledged, below what was read, and read by nobody.
    LostWrite,
    /// Acknowledged, behind all that was read, and read by nobody; or read by others and never by a group.
    Unseen,
    /// One value at two offsets, although its producer was idempotent.
    Duplicate,
    /// A value was read that was never committed.
    AbortedRead,
    /// A value was read before the commit of its transaction was asked for.
    PrecommittedRead,
    /// Two values at one offset.
    InconsistentOffsets,
    /// From one poll to the next, a consumer passed over what others read.
    PollSkip,
    /// The same within one operation.
    IntPollSkip,
    /// From one poll to the next, a consumer went back.
    NonmonotonicPoll,
    /// The same within one operation.
    IntNonmonotonicPoll,
    /// What was sent later stands earlier.
    NonmonotonicSend,
    /// The same within one transaction.
    IntNonmonotonicSend,
    /// Read where nobody sent it.
    NeverSent,
    /// A group's reading went on before an offset that was committed.
    LostCommit,
    /// Two committed transactions of a group processed the same record.
    DoubleProcessing,
    /// A group that commits offsets with its transactions processed a record in none of them.
    Unprocessed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::LostWrite,
        Self::Unseen,
        Self::Duplicate,
        Self::AbortedRead,
        Self::PrecommittedRead,
        Self::InconsistentOffsets,
        Self::PollSkip,
        Self::IntPollSkip,
        Self::NonmonotonicPoll,
        Self::IntNonmonotonicPoll,
        Self::NonmonotonicSend,
        Self::IntNonmonotonicSend,
        Self::NeverSent,
        Self::LostCommit,
        Self::DoubleProcessing,
        Self::Unprocessed,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostWrite => "lost-write",
            Self::Unseen => "unseen",
            Self::Duplicate => "duplicate",
            Self::AbortedRead => "aborted-read",
            Self::PrecommittedRead => "precommitted-read",
            Self::InconsistentOffsets => "inconsistent-offsets",
            Self::PollSkip => "poll-skip",
            Self::IntPollSkip => "int-poll-skip",
            Self::NonmonotonicPoll => "nonmonotonic-poll",
            Self::IntNonmonotonicPoll => "int-nonmonotonic-poll",
            Self::NonmonotonicSend => "nonmonotonic-send",
            Self::IntNonmonotonicSend => "int-nonmonotonic-send",
            Self::NeverSent => "never-sent",
            Self::LostCommit => "lost-commit",
            Self::DoubleProcessing => "double-processing",
            Self::Unprocessed => "unprocessed",
        }
    }
}

/// One of them, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// In which partition.
    pub key: Key,
    /// At which offsets.
    pub offsets: Vec<i64>,
    /// Which values.
    pub values: Vec<Value>,
    /// The operations that show it, as places in the history.
    pub ops: Vec<usize>,
    /// The group that it is about, if any.
    pub group: Option<String>,
}

impl Anomaly {
    /// The evidence in words; operations are named by their lines in the file.
    pub fn tell(&self, history: &History) -> String {
        let values: Vec<u64> = self.values.iter().map(|value| value.0).collect();
        let mut told = format!(
            "{} in {} at offsets {:?}, values {values:?}",
            self.kind.name(),
            history.name(self.key),
            self.offsets
        );
        if let Some(group) = &self.group {
            let _ = write!(told, ", group {group}");
        }
        for place in &self.ops {
            let op = &history.ops[*place];
            let line = serde_json::to_string(op).unwrap_or_default();
            let shown: String = line.chars().take(600).collect();
            let _ = write!(told, "\n  line {}: {shown}", place + 2);
        }
        told
    }
}
