//! A history: what each process asked of the broker, when, and what it was told. Written and read as lines of JSON, so that
//! a run that failed can be judged again.
//!
//! The lines of one process stand in the order in which it began its operations. Times are microseconds since the beginning
//! of the run, of one clock for all processes. Judges nothing.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A partition: its place in [`Header::keys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u32);

/// What a record holds. No value is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value(pub u64);

/// The first line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the run was made from.
    pub seed: u64,
    /// Names of the partitions (`topic/index`).
    pub keys: Vec<String>,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The first line.
    pub header: Header,
    /// The other lines.
    pub ops: Vec<Op>,
}

/// One operation of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Whose it is.
    pub process: u32,
    /// When it began.
    pub invoked_us: u64,
    /// When its outcome was known to the process, or given up.
    pub completed_us: u64,
    /// Its outcome.
    pub outcome: Outcome,
    /// What was asked, and what was answered.
    pub action: Action,
    /// The client's own words, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a process knows about its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not done, and never will be.
    Fail,
    /// It may have been done, or may be done later.
    Info,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A record outside of any transaction.
    Send {
        /// The record.
        send: Send,
        /// Whether the producer may send it again without the broker storing it again.
        idempotent: bool,
    },
    /// Records came, in this order.
    Poll(Vec<Read>),
    /// A transaction, from its beginning to the answer to its end.
    Txn {
        /// What happened in it, in order.
        steps: Vec<Step>,
        /// What its end was to be.
        end: End,
        /// When its end was asked for.
        asked_us: u64,
    },
    /// The consumer reads these partitions from these offsets on, and no others.
    Assign(Vec<(Key, i64)>),
    /// The consumer goes on from these offsets in these partitions.
    Seek(Vec<(Key, i64)>),
    /// The consumer is a member of a group that reads these partitions.
    Subscribe {
        /// The group.
        group: String,
        /// All partitions of its topics.
        keys: Vec<Key>,
    },
    /// The group gave partitions to the consumer, or took them.
    Rebalance {
        /// Given: reading goes on from the group's offsets.
        assigned: Vec<Key>,
        /// Taken.
        revoked: Vec<Key>,
    },
    /// The group's offsets, committed outside of any transaction.
    Commit(Vec<(Key, i64)>),
    /// The clients of the process are gone; what it does next, it does with new ones.
    Crash,
}

/// One thing in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A record.
    Send(Send),
    /// Records came.
    Poll(Vec<Read>),
    /// As [`Action::Rebalance`].
    Rebalance {
        /// Given.
        assigned: Vec<Key>,
        /// Taken.
        revoked: Vec<Key>,
    },
    /// A group's offsets, to be committed with the transaction.
    Offsets {
        /// The group.
        group: String,
        /// Its next offsets.
        offsets: Vec<(Key, i64)>,
    },
}

/// How a transaction was to end. Without an end that was asked for, it is [`End::Abort`]: nobody else commits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// With everything in it.
    Commit,
    /// With nothing.
    Abort,
}

/// A record that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// To this partition.
    pub key: Key,
    /// What it holds.
    pub value: Value,
    /// Where the broker said that it is.
    pub offset: Option<i64>,
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// In this partition.
    pub key: Key,
    /// At this offset.
    pub offset: i64,
    /// What it holds; `None` when these bytes are no value.
    pub value: Option<Value>,
}

impl History {
    /// Writes it into a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
        let mut lines = BufWriter::new(file);
        serde_json::to_writer(&mut lines, &self.header)?;
        lines.write_all(b"\n")?;
        for op in &self.ops {
            serde_json::to_writer(&mut lines, op)?;
            lines.write_all(b"\n")?;
        }
        lines.flush().with_context(|| path.display().to_string())
    }

    /// Reads what [`History::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        let mut lines = BufReader::new(file).lines();
        let first = lines.next().context("a history has a first line")??;
        let header = serde_json::from_str(&first).context("line 1")?;
        let mut ops = Vec::new();
        for (number, line) in lines.enumerate() {
            let op =
                serde_json::from_str(&line?).with_context(|| format!("line {}", number + 2))?;
            ops.push(op);
        }
        Ok(Self { header, ops })
    }

    /// A partition's name.
    pub fn name(&self, key: Key) -> String {
        let name = usize::try_from(key.0)
            .ok()
            .and_then(|place| self.header.keys.get(place));
        name.cloned().unwrap_or_else(|| format!("key {}", key.0))
    }
}

impl Op {
    /// Records that it sent.
    pub fn sends(&self) -> impl Iterator<Item = &Send> {
        let (one, steps): (Option<&Send>, &[Step]) = match &self.action {
            Action::Send { send, .. } => (Some(send), &[]),
            Action::Txn { steps, .. } => (None, steps),
            _ => (None, &[]),
        };
        one.into_iter()
            .chain(steps.iter().filter_map(|step| match step {
                Step::Send(send) => Some(send),
                Step::Poll(_) | Step::Rebalance { .. } | Step::Offsets { .. } => None,
            }))
    }

    /// Records that came to it.
    pub fn reads(&self) -> impl Iterator<Item = &Read> {
        let (reads, steps): (&[Read], &[Step]) = match &self.action {
            Action::Poll(reads) => (reads, &[]),
            Action::Txn { steps, .. } => (&[], steps),
            _ => (&[], &[]),
        };
        reads.iter().chain(steps.iter().flat_map(|step| match step {
            Step::Poll(reads) => reads.as_slice(),
            Step::Send(_) | Step::Rebalance { .. } | Step::Offsets { .. } => &[],
        }))
    }

    /// By when all its reads had come.
    pub fn read_by_us(&self) -> u64 {
        match &self.action {
            Action::Txn { asked_us, .. } => *asked_us,
            _ => self.completed_us,
        }
    }
}
