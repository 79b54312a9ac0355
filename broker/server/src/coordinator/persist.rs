//! The way of a machine's records into the log, in the order they were decided.
//!
//! Owns two queues: batches that wait for tail memory, and batches that wait to be durable. Both are first in, first
//! out over all shards, so that each machine hears of its persists in order. A batch that the log refuses is reported
//! at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use keelson_log::{AppendError, Reservation};
use keelson_protocol::BatchHeader;
use keelson_state::persist::{FailedBecause, PersistId};
use keelson_state::producers::Marker;

use crate::broker::Broker;
use crate::budgets::{Gate, Turn};
use crate::partitions::{AckGroup, Ended, Ending, EnterError, Incoming, PartitionOwner};

/// What a marker takes of memory until it is in a segment, at most.
const MARKER_BYTES: u64 = 128;

/// What goes into the log.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Records of a machine.
    Persist(PersistId, Bytes),
    /// The end of a transaction, under a number; whether its epoch is a bumped one.
    Marker(u64, Marker, bool),
}

/// What is known by an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Records of a machine.
    Persist(PersistId),
    /// The end of a transaction; whose, and whether it commits.
    Marker(u64, i64, bool),
}

impl What {
    fn which(&self) -> Which {
        match self {
            What::Persist(id, _) => Which::Persist(*id),
            What::Marker(id, marker, _) => Which::Marker(*id, marker.producer_id, marker.commit),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            What::Persist(_, batch) => batch.len() as u64,
            What::Marker(..) => MARKER_BYTES,
        }
    }
}

/// What became of a batch.
pub(crate) struct Decided {
    pub(crate) shard: i32,
    pub(crate) which: Which,
    /// Whether it is durable, and for a marker, whether it had to be written.
    pub(crate) outcome: Result<Ended, FailedBecause>,
}

struct Outgoing {
    shard: i32,
    what: What,
    partition: Arc<PartitionOwner>,
    leader_epoch: i32,
}

struct InFlight {
    shard: i32,
    which: Which,
    ended: Ended,
    group: Arc<AckGroup>,
}

/// The two queues.
pub(crate) struct Persists {
    /// Its place in the queue for tail memory.
    ticket: u64,
    /// What the records' memory is drawn from.
    gate: Arc<Gate>,
    waiting: VecDeque<Outgoing>,
    inflight: VecDeque<InFlight>,
}

/// Where a shard's records go.
pub(crate) struct Target {
    pub(crate) shard: i32,
    pub(crate) partition: Arc<PartitionOwner>,
    pub(crate) leader_epoch: i32,
}

impl Persists {
    pub(crate) fn new(ticket: u64, gate: &Arc<Gate>) -> Self {
        Persists {
            ticket,
            gate: Arc::clone(gate),
            waiting: VecDeque::new(),
            inflight: VecDeque::new(),
        }
    }

    /// Queues one batch. Gives the outcome if it is refused at once.
    pub(crate) fn submit(
        &mut self,
        broker: &Broker,
        target: Target,
        what: What,
    ) -> Option<Decided> {
        let outgoing = Outgoing {
            shard: target.shard,
            what,
            partition: target.partition,
            leader_epoch: target.leader_epoch,
        };
        let bytes = outgoing.what.bytes();
        if bytes > broker.log.batch_bytes_max() || bytes > self.gate.bytes_max() {
            return Some(outgoing.decided(Err(FailedBecause::TooLarge)));
        }
        if self.waiting.is_empty()
            && let Some(pin) = self.gate.try_reserve(bytes)
        {
            return self.append(broker, outgoing, pin);
        }
        self.waiting.push_back(outgoing);
        None
    }

    fn append(&mut self, broker: &Broker, outgoing: Outgoing, pin: Reservation) -> Option<Decided> {
        let group = Arc::new(AckGroup::default());
        let (leader_epoch, now_ms) = (outgoing.leader_epoch, broker.now_ms());
        let pin = Some(Arc::new(pin));
        let entered = match &outgoing.what {
            What::Persist(_, batch) => {
                let header =
                    BatchHeader::parse(batch).expect("the builder makes well-formed batches");
                let incoming = Incoming {
                    bytes: batch.clone(),
                    header,
                    pin,
                    leader_epoch,
                    now_ms,
                };
                let placed = outgoing.partition.append(incoming, 0, &group);
                placed.map(|_| Ended::Now)
            }
            What::Marker(_, marker, bumps_epoch) => {
                let ending = Ending {
                    marker: *marker,
                    bumps_epoch: *bumps_epoch,
                    leader_epoch,
                    now_ms,
                };
                outgoing.partition.end_transaction(&ending, pin, 0, &group)
            }
        };
        match entered {
            Ok(ended) => {
                self.inflight.push_back(InFlight {
                    shard: outgoing.shard,
                    which: outgoing.what.which(),
                    ended,
                    group,
                });
                None
            }
            Err(error) => Some(outgoing.decided(Err(why(&error)))),
        }
    }

    /// The next outcome, in order.
    pub(crate) fn poll_decided(&mut self, broker: &Broker, cx: &mut Context<'_>) -> Poll<Decided> {
        while let Some(first) = self.waiting.front() {
            let bytes = first.what.bytes();
            let Poll::Ready(pin) = self.gate.poll_reserve(Turn::own(self.ticket), bytes, cx) else {
                break;
            };
            let first = self.waiting.pop_front().expect("it was at the front");
            if let Some(refused) = self.append(broker, first, pin) {
                return Poll::Ready(refused);
            }
        }
        let Some(first) = self.inflight.front() else {
            return Poll::Pending;
        };
        std::task::ready!(first.group.poll_done(cx));
        let first = self.inflight.pop_front().expect("it was at the front");
        let removed = !first.group.removed_slots().is_empty();
        let outcome = if removed {
            Err(FailedBecause::Unavailable)
        } else {
            Ok(first.ended)
        };
        Poll::Ready(Decided {
            shard: first.shard,
            which: first.which,
            outcome,
        })
    }
}

impl Outgoing {
    fn decided(&self, outcome: Result<Ended, FailedBecause>) -> Decided {
        Decided {
            shard: self.shard,
            which: self.what.which(),
            outcome,
        }
    }
}

fn why(error: &EnterError) -> FailedBecause {
    match error {
        EnterError::Append(AppendError::TooLarge { .. }) => FailedBecause::TooLarge,
        EnterError::Append(
            AppendError::ReadOnly
            | AppendError::TailFull
            | AppendError::Deleted
            | AppendError::Closed,
        )
        // Whoever asks again is told by the coordinator of the transaction.
        | EnterError::NotInTransaction => FailedBecause::Unavailable,
        EnterError::Producer(_) => FailedBecause::Fenced,
    }
}
