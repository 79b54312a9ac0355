//! The machines of a coordinator, one per partition of its topic.
//!
//! Owns which of them have been read from the log, and which of them a name belongs to. Never decides what a machine does.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_state::groups::GroupCoordinator;
use keelson_state::offsets::partition_of;
use keelson_state::transactions::TransactionCoordinator;

use super::persist::Target;
use crate::broker::Broker;
use crate::partitions::PartitionOwner;

/// A machine that is told the time.
pub(crate) trait Machine {
    /// When it is due next.
    fn next_deadline(&self) -> Option<i64>;
}

impl Machine for GroupCoordinator {
    fn next_deadline(&self) -> Option<i64> {
        self.next_deadline()
    }
}

impl Machine for TransactionCoordinator {
    fn next_deadline(&self) -> Option<i64> {
        self.next_deadline()
    }
}

/// Why a machine cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// The topic does not exist yet.
    NotCoordinator,
    /// Its partition is being read.
    Loading,
    /// Its partition is damaged.
    Damaged,
}

enum Shard<M> {
    Loading,
    Ready(Box<M>),
    Damaged,
}

/// All machines of one coordinator.
pub(crate) struct Shards<M> {
    topic: &'static str,
    fresh: Arc<dyn Fn() -> M + Send + Sync>,
    shards: BTreeMap<i32, Shard<M>>,
}

impl<M: Machine> Shards<M> {
    /// None yet; `fresh` makes the machine of a partition that holds nothing.
    pub(crate) fn new(topic: &'static str, fresh: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Shards {
            topic,
            fresh: Arc::new(fresh),
            shards: BTreeMap::new(),
        }
    }

    /// What makes the machine of a partition that holds nothing.
    pub(crate) fn fresh(&self) -> Arc<dyn Fn() -> M + Send + Sync> {
        Arc::clone(&self.fresh)
    }

    /// The partitions that the log may hold something of. Their machines are loading from here on.
    pub(crate) fn start_loading(&mut self, broker: &Broker) -> Vec<Arc<PartitionOwner>> {
        let Some(topic) = broker.partitions.topic(self.topic) else {
            return Vec::new();
        };
        for partition in &topic.partitions {
            self.shards.insert(partition.id().index, Shard::Loading);
        }
        topic.partitions.clone()
    }

    /// A machine was read, or its partition is damaged.
    pub(crate) fn loaded(&mut self, index: i32, machine: Option<M>) {
        let shard = machine.map_or(Shard::Damaged, |machine| Shard::Ready(Box::new(machine)));
        self.shards.insert(index, shard);
    }

    /// Whether this one is being read.
    pub(crate) fn is_loading(&self, index: i32) -> bool {
        matches!(self.shards.get(&index), Some(Shard::Loading))
    }

    /// Whether any is being read.
    pub(crate) fn is_any_loading(&self) -> bool {
        let mut shards = self.shards.values();
        shards.any(|shard| matches!(shard, Shard::Loading))
    }

    /// A partition that came to be after the start is empty, so ready.
    pub(crate) fn add(&mut self, index: i32) {
        let fresh = || Shard::Ready(Box::new((self.fresh)()));
        self.shards.entry(index).or_insert_with(fresh);
    }

    /// The shard that a group or transactional id belongs to, if it can be asked.
    pub(crate) fn of(&mut self, broker: &Broker, id: &str) -> Result<i32, NotReady> {
        let topic = broker.partitions.topic(self.topic);
        let topic = topic.ok_or(NotReady::NotCoordinator)?;
        let index = partition_of(id, topic.topic.partitions);
        self.add(index);
        self.get(index).map(|_| index)
    }

    /// The machine of a shard, which was added or is on its way from the log.
    pub(crate) fn get(&self, index: i32) -> Result<&M, NotReady> {
        self.shards[&index].machine()
    }

    /// The machine that is fed.
    pub(crate) fn ready_mut(&mut self, index: i32) -> &mut M {
        let Some(Shard::Ready(machine)) = self.shards.get_mut(&index) else {
            unreachable!("only ready shards are fed");
        };
        machine
    }

    /// Every machine; an error if one of them cannot be asked.
    pub(crate) fn all(&self) -> Result<Vec<&M>, NotReady> {
        self.shards.values().map(Shard::machine).collect()
    }

    /// Those that can be asked, with their numbers.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (i32, &M)> {
        let shards = self.shards.iter();
        shards.filter_map(|(index, shard)| Some((*index, shard.machine().ok()?)))
    }

    /// When the first of them is due.
    pub(crate) fn next_deadline(&self) -> Option<i64> {
        let deadlines = self.ready().filter_map(|(_, m)| m.next_deadline());
        deadlines.min()
    }

    /// Those that are due.
    pub(crate) fn due(&self, now_ms: i64) -> Vec<i32> {
        let is_due = |machine: &M| machine.next_deadline().is_some_and(|at_ms| at_ms <= now_ms);
        let due = self.ready().filter(|(_, machine)| is_due(machine));
        due.map(|(index, _)| index).collect()
    }

    /// Where a shard's records go.
    pub(crate) fn target(&self, broker: &Broker, index: i32) -> Option<Target> {
        let topic = broker.partitions.topic(self.topic)?;
        Some(Target {
            shard: index,
            partition: Arc::clone(topic.partition(index)?),
            leader_epoch: topic.leader_epoch,
        })
    }
}

impl<M> Shard<M> {
    fn machine(&self) -> Result<&M, NotReady> {
        match self {
            Shard::Ready(machine) => Ok(machine),
            Shard::Loading => Err(NotReady::Loading),
            Shard::Damaged => Err(NotReady::Damaged),
        }
    }
}
