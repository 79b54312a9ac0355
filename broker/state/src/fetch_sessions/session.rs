//! One session: the partitions that a client fetches, and what it was told of each.
//!
//! Owns the set of partitions that are *due*: those that have to be looked at before the next answer. All others are
//! settled: the client has everything that they hold and was told the high watermark and log start that they have. So an
//! incremental fetch costs what has changed, not what the session holds; whoever settles a partition must say so
//! ([`Session::mark`]) when it moves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use thiserror::Error;

use crate::metadata::TopicUuid;

/// What a partition takes in a session, in its places in maps, and in the list of those that wait for it: an estimate by
/// their sizes, rounded up.
const PARTITION_BYTES: usize = 288;
/// What a topic takes beside its name.
const TOPIC_BYTES: usize = 160;

/// Memory of one partition of a session, for its bound.
pub const fn partition_bytes() -> usize {
    PARTITION_BYTES
}

/// Memory of one topic of a session beside its partitions, for its bound.
pub fn topic_bytes(topic: &TopicKey) -> usize {
    TOPIC_BYTES
        + match topic {
            TopicKey::Name(name) => name.len(),
            TopicKey::Id(_) => 0,
        }
}

/// How requests of a session name topics: all by name, or all by id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// Below version 13.
    Name(Arc<str>),
    /// From version 13 on (KIP-516).
    Id(TopicUuid),
}

/// What a client wants of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// From this offset on.
    pub offset: i64,
    /// At most this many bytes.
    pub bytes_max: i32,
    /// The leader epoch that the client knows; -1 if it does not say.
    pub leader_epoch: i32,
}

/// What one partition has to say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// It gives records.
    pub has_records: bool,
    /// It gives an error.
    pub failed: bool,
    /// There is nothing to read at the offset that is wanted, yet.
    pub at_end: bool,
    /// Its high watermark; -1 with an error.
    pub high_watermark: i64,
    /// Its log start; -1 with an error.
    pub log_start: i64,
}

/// Why a session cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FetchSessionError {
    /// There is no such session (any more).
    #[error("the fetch session is not known")]
    NotFound,
    /// The request is not the one that is due.
    #[error("the fetch session is at another epoch")]
    Epoch,
    /// Topics are named in another way than in the request that made the session.
    #[error("the fetch session names topics in another way")]
    TopicIds,
}

/// One partition of a session; `A` is what the owner of the session keeps beside it.
#[derive(Debug)]
pub struct Cached<A> {
    /// Its topic.
    pub topic: TopicKey,
    /// Its number.
    pub index: i32,
    /// What the client wants of it.
    pub wanted: Wanted,
    /// Whatever the owner of the session keeps.
    pub attached: A,
    high_watermark: i64,
    log_start: i64,
    turn: u64,
}

impl<A> Cached<A> {
    /// Whether an answer has to name the partition.
    fn is_news(&self, seen: &Seen) -> bool {
        seen.has_records
            || seen.failed
            || seen.high_watermark != self.high_watermark
            || seen.log_start != self.log_start
    }
}

/// One session.
#[derive(Debug)]
pub struct Session<A> {
    epoch: i32,
    uses_topic_ids: bool,
    slots: Vec<Option<Cached<A>>>,
    free: Vec<u32>,
    topics: HashMap<TopicKey, BTreeMap<i32, u32>>,
    due: BTreeSet<(u64, u32)>,
    next_turn: u64,
    bytes: usize,
}

impl<A> Session<A> {
    /// An empty session, as the full fetch that asks for it leaves it.
    pub fn new(uses_topic_ids: bool) -> Self {
        Self {
            epoch: next_epoch(super::INITIAL_EPOCH),
            uses_topic_ids,
            slots: Vec::new(),
            free: Vec::new(),
            topics: HashMap::new(),
            due: BTreeSet::new(),
            next_turn: 0,
            bytes: 0,
        }
    }

    /// The epoch of the request that is due.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// How many partitions it has.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// True if it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request of this epoch is the one that is due.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, epoch: i32, uses_topic_ids: bool) -> Result<(), FetchSessionError> {
        if epoch != self.epoch {
            Err(FetchSessionError::Epoch)
        } else if uses_topic_ids != self.uses_topic_ids {
            Err(FetchSessionError::TopicIds)
        } else {
            Ok(())
        }
    }

    /// A request was taken: the next one has the epoch that comes back, and an answer to this one counts only while the
    /// session is still at it.
    pub fn advance(&mut self) -> i32 {
        self.epoch = next_epoch(self.epoch);
        self.epoch
    }

    /// The client wants these partitions of a topic, or something else of them than before. They are due.
    pub fn want(&mut self, topic: &TopicKey, wanted: impl IntoIterator<Item = (i32, Wanted)>)
    where
        A: Default,
    {
        let mut wanted = wanted.into_iter().peekable();
        if wanted.peek().is_none() {
            return;
        }
        if !self.topics.contains_key(topic) {
            self.bytes += topic_bytes(topic);
            self.topics.insert(topic.clone(), BTreeMap::new());
        }
        for (index, wanted) in wanted {
            let known = self.topics.get(topic).and_then(|parts| parts.get(&index));
            let slot = match known {
                Some(slot) => {
                    let slot = *slot;
                    if let Some(cached) = self.get_mut(slot) {
                        cached.wanted = wanted;
                    }
                    slot
                }
                None => self.add(topic, index, wanted),
            };
            self.mark(slot);
        }
    }

    fn add(&mut self, topic: &TopicKey, index: i32, wanted: Wanted) -> u32
    where
        A: Default,
    {
        let cached = Cached {
            topic: topic.clone(),
            index,
            wanted,
            attached: A::default(),
            high_watermark: -1,
            log_start: -1,
            turn: self.take_turn(),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(cached);
                slot
            }
            None => {
                self.slots.push(Some(cached));
                u32::try_from(self.slots.len() - 1).expect("a session is bounded in bytes")
            }
        };
        self.topics
            .entry(topic.clone())
            .or_default()
            .insert(index, slot);
        self.bytes += PARTITION_BYTES;
        slot
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// The client wants nothing of a partition any more; gives back what was kept beside it.
    pub fn forget(&mut self, topic: &TopicKey, index: i32) -> Option<A> {
        let parts = self.topics.get_mut(topic)?;
        let slot = parts.remove(&index)?;
        if parts.is_empty() {
            self.topics.remove(topic);
            self.bytes -= topic_bytes(topic);
        }
        let cached = self.slots[slot as usize].take()?;
        self.due.remove(&(cached.turn, slot));
        self.free.push(slot);
        self.bytes -= PARTITION_BYTES;
        Some(cached.attached)
    }

    /// A settled partition moved: it is due. Slots that are not in use any more are lawful, too.
    pub fn mark(&mut self, slot: u32) {
        if let Some(Some(cached)) = self.slots.get(slot as usize) {
            self.due.insert((cached.turn, slot));
        }
    }

    /// Everything is due: what was settled was so under another isolation level.
    pub fn mark_all(&mut self) {
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            self.mark(slot);
        }
    }

    /// The partitions that are due, in turn: who gave records in an answer stands behind all others since.
    pub fn due(&self) -> Vec<u32> {
        self.due.iter().map(|(_, slot)| *slot).collect()
    }

    /// The partition in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Cached<A>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Every partition, in no order.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut Cached<A>> {
        self.slots.iter_mut().filter_map(Option::as_mut)
    }

    /// True if the partition is settled now: it has nothing to say until somebody marks it. What it has to say that the
    /// client was not told keeps it due.
    pub fn settle(&mut self, slot: u32, seen: &Seen) -> bool {
        let Some(Some(cached)) = self.slots.get(slot as usize) else {
            return false;
        };
        let settled = seen.at_end && !cached.is_news(seen);
        if settled {
            self.due.remove(&(cached.turn, slot));
        }
        settled
    }

    /// What a partition had to say goes into an answer now; true if the answer has to name it.
    pub fn answer(&mut self, slot: u32, seen: &Seen) -> bool {
        let turn = self.next_turn + 1;
        let Some(Some(cached)) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        let news = cached.is_news(seen);
        // With an error both are -1, so that the end is news once the error is gone.
        cached.high_watermark = seen.high_watermark;
        cached.log_start = seen.log_start;
        if seen.has_records {
            let before = std::mem::replace(&mut cached.turn, turn);
            self.next_turn = turn;
            if self.due.remove(&(before, slot)) {
                self.due.insert((turn, slot));
            }
        }
        news
    }

    /// What a partition had to say went into the full answer that made the session.
    pub fn told(&mut self, topic: &TopicKey, index: i32, seen: &Seen) {
        let slot = self.topics.get(topic).and_then(|parts| parts.get(&index));
        if let Some(slot) = slot.copied()
            && let Some(cached) = self.get_mut(slot)
        {
            cached.high_watermark = seen.high_watermark;
            cached.log_start = seen.log_start;
        }
    }
}

#[cfg(test)]
impl<A> Session<A> {
    pub(super) fn epoch_for_tests(&mut self, epoch: i32) {
        self.epoch = epoch;
    }
}

/// The epoch after this one; it never comes back to the two that mean something else.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}
