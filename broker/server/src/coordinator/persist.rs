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
use keelson_protocol::builder::BatchBuilder;
use keelson_state::groups::{FailedBecause, PersistId, StoredRecord};

use crate::broker::Broker;
use crate::partitions::{AckGroup, EnterError, Incoming, PartitionOwner};

/// What became of a batch.
pub(super) struct Decided {
    pub(super) shard: i32,
    pub(super) id: PersistId,
    pub(super) outcome: Result<(), FailedBecause>,
}

struct Outgoing {
    shard: i32,
    id: PersistId,
    partition: Arc<PartitionOwner>,
    batch: Bytes,
    leader_epoch: i32,
}

struct InFlight {
    shard: i32,
    id: PersistId,
    group: Arc<AckGroup>,
}

/// The two queues.
pub(super) struct Persists {
    /// Its place in the queue for tail memory.
    ticket: u64,
    waiting: VecDeque<Outgoing>,
    inflight: VecDeque<InFlight>,
}

/// Where a shard's records go.
pub(super) struct Target {
    pub(super) shard: i32,
    pub(super) partition: Arc<PartitionOwner>,
    pub(super) leader_epoch: i32,
}

impl Persists {
    pub(super) fn new(ticket: u64) -> Self {
        Persists {
            ticket,
            waiting: VecDeque::new(),
            inflight: VecDeque::new(),
        }
    }

    /// Queues one batch. Gives the outcome if it is refused at once.
    pub(super) fn submit(
        &mut self,
        broker: &Broker,
        target: Target,
        id: PersistId,
        records: &[StoredRecord],
    ) -> Option<Decided> {
        let mut builder = BatchBuilder::new(broker.now_ms());
        for record in records {
            builder.push(Some(&record.key.encode()), record.value.as_deref());
        }
        let outgoing = Outgoing {
            shard: target.shard,
            id,
            partition: target.partition,
            batch: builder.build(),
            leader_epoch: target.leader_epoch,
        };
        let bytes = outgoing.batch.len() as u64;
        if bytes > broker.log.batch_bytes_max() || bytes > broker.budgets.records.bytes_max() {
            return Some(outgoing.decided(Err(FailedBecause::TooLarge)));
        }
        if self.waiting.is_empty()
            && let Some(pin) = broker.budgets.records.try_reserve(bytes)
        {
            return self.append(broker, outgoing, pin);
        }
        self.waiting.push_back(outgoing);
        None
    }

    fn append(&mut self, broker: &Broker, outgoing: Outgoing, pin: Reservation) -> Option<Decided> {
        let group = Arc::new(AckGroup::default());
        let header =
            BatchHeader::parse(&outgoing.batch).expect("the builder makes well-formed batches");
        let incoming = Incoming {
            bytes: outgoing.batch.clone(),
            header,
            pin: Some(Arc::new(pin)),
            leader_epoch: outgoing.leader_epoch,
            now_ms: broker.now_ms(),
        };
        match outgoing.partition.append(incoming, 0, &group) {
            Ok(_) => {
                let (shard, id) = (outgoing.shard, outgoing.id);
                self.inflight.push_back(InFlight { shard, id, group });
                None
            }
            Err(error) => Some(outgoing.decided(Err(why(&error)))),
        }
    }

    /// The next outcome, in order.
    pub(super) fn poll_decided(&mut self, broker: &Broker, cx: &mut Context<'_>) -> Poll<Decided> {
        while let Some(first) = self.waiting.front() {
            let bytes = first.batch.len() as u64;
            let gate = &broker.budgets.records;
            let Poll::Ready(pin) = gate.poll_reserve(self.ticket, bytes, cx) else {
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
            Ok(())
        };
        Poll::Ready(Decided {
            shard: first.shard,
            id: first.id,
            outcome,
        })
    }
}

impl Outgoing {
    fn decided(&self, outcome: Result<(), FailedBecause>) -> Decided {
        Decided {
            shard: self.shard,
            id: self.id,
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
        | EnterError::Producer(_) => FailedBecause::Unavailable,
    }
}
