//! One clock, one source of values and one place for what all clients of a run saw.
//!
//! A send is noted before it is handed over, so that none is missing when its client dies with it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rdkafka::message::Message;

use super::{PARTITIONS, TOPICS};
use crate::consistency::{Action, Header, History, Key, Op, Outcome, Read, Send, Step, Value};
use crate::records::{PAYLOAD_BYTES_MIN, check_payload, payload};

/// The payloads' stream.
const STREAM: u32 = 5;

pub(super) struct Recorder {
    seed: u64,
    started: Instant,
    last_us: AtomicU64,
    values: AtomicU64,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    ops: Vec<Op>,
    /// Sends outside of transactions that have no outcome yet.
    open: HashMap<Value, Op>,
    /// Everything that was acknowledged, with its offset where that was told.
    acked: HashMap<Value, Option<i64>>,
}

impl Recorder {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            started: Instant::now(),
            last_us: AtomicU64::new(0),
            values: AtomicU64::new(0),
            noted: Mutex::default(),
        }
    }

    /// The time. No two calls give the same, so that it orders what one process does.
    pub(super) fn now_us(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_micros()).expect("a run of hours");
        let step = |last: u64| Some(elapsed.max(last + 1));
        let before = self
            .last_us
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, step);
        let last = before.expect("it always steps");
        elapsed.max(last + 1)
    }

    /// A value that nobody had before.
    pub(super) fn value(&self) -> Value {
        Value(1 + self.values.fetch_add(1, Ordering::Relaxed))
    }

    /// What was done, from `invoked_us` until now.
    pub(super) fn note(&self, process: u32, invoked_us: u64, outcome: Outcome, action: Action) {
        self.note_with(process, invoked_us, (outcome, None), action);
    }

    /// The same, with a client's words.
    pub(super) fn note_with(
        &self,
        process: u32,
        invoked_us: u64,
        (outcome, note): (Outcome, Option<String>),
        action: Action,
    ) {
        let op = Op {
            process,
            invoked_us,
            completed_us: self.now_us(),
            outcome,
            action,
            note,
        };
        self.noted().ops.push(op);
    }

    /// A record outside of a transaction is about to be handed over.
    pub(super) fn sending(&self, process: u32, key: Key, value: Value, idempotent: bool) {
        let invoked_us = self.now_us();
        let send = Send {
            key,
            value,
            offset: None,
        };
        let op = Op {
            process,
            invoked_us,
            completed_us: invoked_us,
            outcome: Outcome::Info,
            action: Action::Send { send, idempotent },
            note: None,
        };
        self.noted().open.insert(value, op);
    }

    /// It was not handed over.
    pub(super) fn not_sent(&self, value: Value) {
        self.noted().open.remove(&value);
    }

    /// A producer's report of a record, in a transaction or not.
    pub(super) fn delivered(&self, value: Value, report: Result<i64, String>) {
        let now_us = self.now_us();
        let mut noted = self.noted();
        if let Ok(offset) = report {
            // An acknowledgement tells librdkafka that the batches before it are stored, too; where their own answers were
            // lost, it reports them without an offset.
            noted
                .acked
                .insert(value, Some(offset).filter(|it| *it >= 0));
        }
        let Some(mut op) = noted.open.remove(&value) else {
            return;
        };
        op.completed_us = now_us;
        match report {
            Ok(_) => op.outcome = Outcome::Ok,
            // Whatever the client says of it, an earlier try may be stored.
            Err(error) => op.note = Some(error),
        }
        noted.ops.push(op);
    }

    /// How many operations have ended.
    pub(super) fn ops(&self) -> usize {
        self.noted().ops.len()
    }

    /// Whether each of the one has sent something, and each of the other has read something.
    pub(super) fn everybody_works(&self, senders: &[u32], readers: &[u32]) -> bool {
        let noted = self.noted();
        let sent: HashSet<u32> = noted
            .ops
            .iter()
            .filter(|op| op.outcome == Outcome::Ok && op.sends().next().is_some())
            .map(|op| op.process)
            .collect();
        let read: HashSet<u32> = noted
            .ops
            .iter()
            .filter(|op| op.reads().next().is_some())
            .map(|op| op.process)
            .collect();
        senders.iter().all(|process| sent.contains(process))
            && readers.iter().all(|process| read.contains(process))
    }

    /// Whether a record was acknowledged, in a transaction or not.
    pub(super) fn is_acked(&self, value: Value) -> bool {
        self.noted().acked.contains_key(&value)
    }

    /// Everything, when no client is at work any more.
    pub(super) fn history(&self) -> History {
        let now_us = self.now_us();
        let mut noted = std::mem::take(&mut *self.noted());
        for (_, mut op) in noted.open {
            op.completed_us = now_us;
            noted.ops.push(op);
        }
        for op in &mut noted.ops {
            let offset =
                |send: &mut Send| send.offset = noted.acked.get(&send.value).copied().flatten();
            match &mut op.action {
                Action::Send { send, .. } => offset(send),
                Action::Txn { steps, .. } => {
                    for step in steps {
                        if let Step::Send(send) = step {
                            offset(send);
                        }
                    }
                }
                _ => {}
            }
        }
        noted.ops.sort_by_key(|op| op.invoked_us);
        let keys = TOPICS
            .iter()
            .flat_map(|topic| (0..PARTITIONS).map(move |n| format!("{topic}/{n}")));
        History {
            header: Header {
                seed: self.seed,
                keys: keys.collect(),
            },
            ops: noted.ops,
        }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().expect("no holder panics")
    }
}

/// A partition's key.
pub(super) fn key(topic: &str, partition: i32) -> Key {
    let place = TOPICS.iter().position(|it| *it == topic);
    let place = u32::try_from(place.expect("a topic of the run")).expect("few topics");
    Key(place * PARTITIONS.unsigned_abs() + partition.unsigned_abs())
}

/// Topic and partition of a key.
pub(super) fn partition(key: Key) -> (&'static str, i32) {
    let partitions = PARTITIONS.unsigned_abs();
    let topic = TOPICS[(key.0 / partitions) as usize];
    (topic, (key.0 % partitions).cast_signed())
}

/// All keys of a topic.
pub(super) fn keys(topic: &str) -> Vec<Key> {
    (0..PARTITIONS).map(|n| key(topic, n)).collect()
}

/// The bytes of a value.
pub(super) fn bytes(value: Value, more: usize) -> Vec<u8> {
    payload(PAYLOAD_BYTES_MIN + more, STREAM, value.0)
}

/// What came, as it is noted.
pub(super) fn read(message: &impl Message) -> Read {
    let value = check_payload(message.payload().unwrap_or_default());
    Read {
        key: key(message.topic(), message.partition()),
        offset: message.offset(),
        value: value
            .filter(|(stream, _)| *stream == STREAM)
            .map(|(_, value)| Value(value)),
    }
}
