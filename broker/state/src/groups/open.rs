//! Offsets that are part of transactions which have not ended: pending, and shown to nobody, until the marker says what
//! becomes of them (KIP-98, KIP-447).
//!
//! It owns which offsets wait for which producer. Whatever stands behind a pending offset in the log counts more than it,
//! and so does what a later offset of another transaction brings: compaction keeps the newest, and memory says the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::group::{Group, OffsetKey};
use super::machine::GroupCoordinator;
use super::view::CommittedOffset;

type Place = (Arc<str>, OffsetKey);

/// A pending offset.
#[derive(Debug)]
struct Waiting {
    value: CommittedOffset,
    /// Its place in the log among pending offsets.
    order: u64,
}

/// All pending offsets of one machine.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    by_producer: HashMap<i64, BTreeMap<Place, Waiting>>,
    /// How many wait at each place, and how many are on their way to the log.
    places: BTreeMap<Arc<str>, BTreeMap<OffsetKey, (u32, u32)>>,
    orders: u64,
}

impl OpenTransactions {
    /// A pending offset is on its way to the log.
    pub(super) fn on_the_way(&mut self, group: &Arc<str>, key: &OffsetKey) {
        self.count(group, key).1 += 1;
    }

    /// It is there, or never will be.
    pub(super) fn settled(&mut self, group: &Arc<str>, key: &OffsetKey) {
        self.count(group, key).1 -= 1;
        self.tidy(group, key);
    }

    /// Whether the last word on an offset is not spoken.
    pub(super) fn is_unstable(&self, group: &str, key: &OffsetKey) -> bool {
        let places = self.places.get(group);
        places.is_some_and(|places| places.contains_key(key))
    }

    /// Whether a group has pending offsets.
    pub(super) fn holds(&self, group: &str) -> bool {
        self.places.contains_key(group)
    }

    /// Where a group has pending offsets.
    pub(super) fn keys(&self, group: &str) -> impl Iterator<Item = &OffsetKey> {
        let places = self.places.get(group);
        places.into_iter().flat_map(BTreeMap::keys)
    }

    /// A pending offset is durable.
    pub(super) fn insert(&mut self, producer_id: i64, place: Place, value: CommittedOffset) {
        self.orders += 1;
        let order = self.orders;
        let waiting = Waiting { value, order };
        let of_producer = self.by_producer.entry(producer_id).or_default();
        if of_producer.insert(place.clone(), waiting).is_none() {
            self.count(&place.0, &place.1).0 += 1;
        }
    }

    /// Something that counts more is in the log behind what waits here.
    pub(super) fn overtaken(&mut self, group: &Arc<str>, key: &OffsetKey) {
        self.overtaken_by(group, key, u64::MAX);
    }

    fn overtaken_by(&mut self, group: &Arc<str>, key: &OffsetKey, order: u64) {
        if !self.is_unstable(group, key) {
            return;
        }
        let place = (group.clone(), key.clone());
        let mut gone = 0;
        self.by_producer.retain(|_, waiting| {
            if waiting.get(&place).is_some_and(|one| one.order < order) {
                waiting.remove(&place);
                gone += 1;
            }
            !waiting.is_empty()
        });
        self.count(group, key).0 -= gone;
        self.tidy(group, key);
    }

    /// Everything that waits for a producer, no longer waiting.
    fn take(&mut self, producer_id: i64) -> BTreeMap<Place, Waiting> {
        let taken = self.by_producer.remove(&producer_id).unwrap_or_default();
        for (group, key) in taken.keys() {
            self.count(group, key).0 -= 1;
            self.tidy(group, key);
        }
        taken
    }

    fn count(&mut self, group: &Arc<str>, key: &OffsetKey) -> &mut (u32, u32) {
        let places = self.places.entry(group.clone()).or_default();
        places.entry(key.clone()).or_default()
    }

    fn tidy(&mut self, group: &Arc<str>, key: &OffsetKey) {
        let Some(places) = self.places.get_mut(group) else {
            return;
        };
        if places.get(key) == Some(&(0, 0)) {
            places.remove(key);
        }
        if places.is_empty() {
            self.places.remove(group);
        }
    }
}

impl GroupCoordinator {
    /// Offsets of a transaction are durable: they wait for its end.
    pub(super) fn pending_until_end(
        &mut self,
        group_id: &Arc<str>,
        producer_id: i64,
        values: Vec<(usize, OffsetKey, CommittedOffset)>,
    ) {
        for (_, key, value) in values {
            self.open.settled(group_id, &key);
            if let Some(group) = self.groups.get_mut(group_id) {
                group.settle_inflight(&key);
                self.open
                    .insert(producer_id, (group_id.clone(), key), value);
            }
        }
    }

    /// A transaction has ended: its offsets count now, or are gone.
    pub(super) fn transaction_ended(&mut self, producer_id: i64, commit: bool) {
        let taken = self.open.take(producer_id);
        let mut touched = BTreeSet::new();
        for ((group_id, key), waiting) in taken {
            if commit {
                self.open.overtaken_by(&group_id, &key, waiting.order);
                let group = self.groups.entry(group_id.clone());
                let group = group.or_insert_with(|| Group::new(group_id.clone(), 0));
                group.offsets.insert(key, waiting.value);
            }
            touched.insert(group_id);
        }
        for group_id in touched {
            self.settle_group(&group_id);
        }
    }

    /// Whether an offset waits for a transaction to end.
    pub fn is_unstable(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.open.is_unstable(group, &(topic.into(), partition))
    }

    /// Whether a producer has offsets here that wait for its transaction to end.
    pub fn has_pending(&self, producer_id: i64) -> bool {
        self.open.by_producer.contains_key(&producer_id)
    }
}
