//! A least-recently-used map with a bound on weight: open files by number, verified extents by bytes.
//!
//! Owns the order of use. Never holds more than its bound, except one entry that is larger than the bound by itself.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// The map.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    weight_max: u64,
    weight: u64,
    clock: u64,
    entries: HashMap<K, Entry<V>>,
    order: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    pub(crate) fn new(weight_max: u64) -> Self {
        let (entries, order) = (HashMap::new(), BTreeMap::new());
        Lru {
            weight_max,
            weight: 0,
            clock: 0,
            entries,
            order,
        }
    }

    /// The value, now the most recently used.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        self.order.remove(&entry.used);
        entry.used = self.clock;
        self.order.insert(self.clock, key.clone());
        Some(entry.value.clone())
    }

    /// Puts a value in and drops what was used longest ago, down to the bound.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(
            key,
            Entry {
                value,
                weight,
                used: self.clock,
            },
        );
        self.weight += weight;
        while self.weight > self.weight_max && self.entries.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.forget(&oldest);
        }
    }

    /// Drops one entry.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.get(key) {
            self.order.remove(&entry.used);
            self.forget(key);
        }
    }

    /// Drops every entry that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self
            .entries
            .keys()
            .filter(|key| !keep(key))
            .cloned()
            .collect();
        for key in gone {
            self.remove(&key);
        }
    }

    fn forget(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = Lru::new(10);
        lru.insert("a", 1, 4);
        lru.insert("b", 2, 4);
        assert_eq!(lru.get(&"a"), Some(1));
        lru.insert("c", 3, 4);
        assert_eq!(
            (lru.get(&"a"), lru.get(&"b"), lru.get(&"c")),
            (Some(1), None, Some(3))
        );
        lru.insert("huge", 4, 100);
        assert_eq!((lru.get(&"a"), lru.get(&"huge")), (None, Some(4)));
        lru.retain(|key| *key != "huge");
        assert_eq!((lru.weight, lru.entries.len(), lru.order.len()), (0, 0, 0));
    }
}
