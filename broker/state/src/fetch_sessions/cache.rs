//! Which sessions are kept.
//!
//! Owns Kafka's rule. With every slot taken, a new session takes the place of one that was not used for
//! [`EVICTION_MS`]; else of the smallest one that is older than that, if the new one has more partitions; else there is
//! no new session, and the client goes on with full fetches. Beside the slots, the memory of all sessions is
//! bounded: only unused ones make room there.

use std::collections::{BTreeSet, HashMap};

/// A session that is not used for this long may go for any other, and one that is younger never goes for a larger one.
pub const EVICTION_MS: i64 = 120_000;

/// A session that wants to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewSession {
    /// Its partitions.
    pub partitions: usize,
    /// The memory that it takes.
    pub bytes: usize,
}

#[derive(Debug)]
struct Entry<H> {
    handle: H,
    created_ms: i64,
    used_ms: i64,
    size: NewSession,
    is_evictable: bool,
}

/// All sessions; `H` is how their owner reaches one.
#[derive(Debug)]
pub struct SessionCache<H> {
    slots_max: usize,
    bytes_max: usize,
    entries: HashMap<i32, Entry<H>>,
    /// By last use.
    used: BTreeSet<(i64, i32)>,
    /// By partitions; only those that are old enough to go for a larger one.
    evictable: BTreeSet<(usize, i32)>,
    partitions: usize,
    bytes: usize,
    evictions: u64,
}

impl<H> SessionCache<H> {
    /// None yet.
    pub fn new(slots_max: usize, bytes_max: usize) -> Self {
        Self {
            slots_max,
            bytes_max,
            entries: HashMap::new(),
            used: BTreeSet::new(),
            evictable: BTreeSet::new(),
            partitions: 0,
            bytes: 0,
            evictions: 0,
        }
    }

    /// Sessions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Partitions of all sessions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Memory of all sessions.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sessions that had to go for others.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// How to reach a session.
    pub fn get(&self, id: i32) -> Option<&H> {
        self.entries.get(&id).map(|entry| &entry.handle)
    }

    /// Makes room for a session and gives it an id; `None` if there is no room. `draw` gives random numbers. The evicted
    /// ones come back through `evicted`, to be dropped without whatever lock this is under.
    pub fn reserve(
        &mut self,
        now_ms: i64,
        new: NewSession,
        mut draw: impl FnMut() -> i32,
        evicted: &mut Vec<H>,
    ) -> Option<i32> {
        if self.slots_max == 0 || new.bytes > self.bytes_max {
            return None;
        }
        while self.bytes + new.bytes > self.bytes_max {
            evicted.push(self.evict_unused(now_ms)?);
        }
        if self.entries.len() >= self.slots_max {
            let unused = self.evict_unused(now_ms);
            evicted.push(match unused {
                Some(handle) => handle,
                None => self.evict_smaller(new.partitions)?,
            });
        }
        loop {
            let id = draw() & i32::MAX;
            if id != super::NO_SESSION && !self.entries.contains_key(&id) {
                return Some(id);
            }
        }
    }

    /// Keeps a session under the id that [`SessionCache::reserve`] gave.
    pub fn insert(&mut self, now_ms: i64, id: i32, new: NewSession, handle: H) {
        let entry = Entry {
            handle,
            created_ms: now_ms,
            used_ms: now_ms,
            size: new,
            is_evictable: false,
        };
        self.partitions += new.partitions;
        self.bytes += new.bytes;
        self.used.insert((now_ms, id));
        self.entries.insert(id, entry);
    }

    /// A session was used and is of this size now. False if it is not here, or has become too large to be kept: then it is
    /// to be closed.
    pub fn touch(&mut self, now_ms: i64, id: i32, size: NewSession) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        self.used.remove(&(entry.used_ms, id));
        if entry.is_evictable {
            self.evictable.remove(&(entry.size.partitions, id));
        }
        self.partitions = self.partitions - entry.size.partitions + size.partitions;
        self.bytes = self.bytes - entry.size.bytes + size.bytes;
        entry.used_ms = now_ms;
        entry.size = size;
        entry.is_evictable = now_ms - entry.created_ms > EVICTION_MS;
        self.used.insert((now_ms, id));
        if entry.is_evictable {
            self.evictable.insert((size.partitions, id));
        }
        self.bytes <= self.bytes_max
    }

    /// Takes a session out.
    pub fn remove(&mut self, id: i32) -> Option<H> {
        let entry = self.entries.remove(&id)?;
        self.used.remove(&(entry.used_ms, id));
        self.evictable.remove(&(entry.size.partitions, id));
        self.partitions -= entry.size.partitions;
        self.bytes -= entry.size.bytes;
        Some(entry.handle)
    }

    fn evict_unused(&mut self, now_ms: i64) -> Option<H> {
        let (used_ms, id) = *self.used.first()?;
        if now_ms - used_ms <= EVICTION_MS {
            return None;
        }
        self.evictions += 1;
        self.remove(id)
    }

    fn evict_smaller(&mut self, partitions: usize) -> Option<H> {
        let (size, id) = *self.evictable.first()?;
        // Kafka compares with id 0 for the new one, so that it needs more partitions, not as many.
        if partitions <= size {
            return None;
        }
        self.evictions += 1;
        self.remove(id)
    }
}
