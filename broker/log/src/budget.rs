//! The bound on tail memory: what is not yet in a segment, counted in whole pinned buffers.
//!
//! Owns the count and its two lines: flushing starts at three quarters, or where there is no room for what somebody asks
//! for; a sixteenth is kept for control writes. Never blocks: who gets no reservation registers a hook and tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Control writes (metadata, deletes, log start) may use this last part of the bound, and nothing else may.
const CONTROL_RESERVE_DIVISOR: u64 = 16;

type ReleaseHook = Box<dyn Fn() + Send + Sync>;

/// A bound in bytes, shared by all partitions of a volume.
pub struct TailBudget {
    bytes_max: u64,
    used_bytes: AtomicU64,
    /// The newest reservation that found no room; 0 when there is room for it now.
    refused_bytes: AtomicU64,
    hooks: RwLock<Vec<ReleaseHook>>,
}

impl TailBudget {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(TailBudget {
            bytes_max,
            used_bytes: AtomicU64::new(0),
            refused_bytes: AtomicU64::new(0),
            hooks: RwLock::new(Vec::new()),
        })
    }

    /// The bound.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The largest single reservation that data may ever get; a larger request must be refused, not left waiting.
    pub fn data_bytes_max(&self) -> u64 {
        self.bytes_max - self.bytes_max / CONTROL_RESERVE_DIVISOR
    }

    /// Bytes reserved now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    /// Whether batches must go into segments for want of memory. The more is kept until then, the larger a flush is when
    /// there are many partitions; the last quarter takes what comes while one is under way.
    pub fn presses(&self) -> bool {
        let used = self.used_bytes();
        if used >= self.bytes_max / 4 * 3 {
            return true;
        }
        let refused = self.refused_bytes.load(Ordering::Acquire);
        let waits = refused > 0 && used + refused > self.data_bytes_max();
        if refused > 0 && !waits {
            // One that is refused meanwhile asks again with the next release.
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            let _ = self
                .refused_bytes
                .compare_exchange(refused, 0, order.0, order.1);
        }
        waits
    }

    /// Reserves for produced data; `None` when it would eat into the control reserve.
    pub fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.reserve_below(bytes, self.data_bytes_max())
    }

    /// Reserves for a control write, which may use the whole bound.
    pub fn try_reserve_control(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.reserve_below(bytes, self.bytes_max)
    }

    /// Counts bytes that are already in memory and cannot be refused (a control batch beyond its reserve).
    pub(crate) fn reserve_always(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        Reservation {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Calls `hook` whenever bytes were given back. It must not block and must not reserve from inside the call.
    pub fn on_release(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.hooks.write().push(Box::new(hook));
    }

    fn reserve_below(self: &Arc<Self>, bytes: u64, line: u64) -> Option<Reservation> {
        let taken = self
            .used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= line)
            });
        if taken.is_err() && bytes <= self.data_bytes_max() {
            self.refused_bytes.store(bytes, Ordering::Release);
        }
        taken.ok().map(|_| Reservation {
            budget: Arc::clone(self),
            bytes,
        })
    }
}

impl std::fmt::Debug for TailBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TailBudget({} of {} bytes)",
            self.used_bytes(),
            self.bytes_max
        )
    }
}

/// Bytes taken from a [`TailBudget`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<TailBudget>,
    bytes: u64,
}

impl Reservation {
    /// Reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self
            .budget
            .used_bytes
            .fetch_sub(self.bytes, Ordering::AcqRel);
        assert!(
            before >= self.bytes,
            "tail budget given back twice: {} of {before} bytes",
            self.bytes
        );
        for hook in self.budget.hooks.read().iter() {
            hook();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stops_before_the_control_reserve_and_comes_back() {
        let budget = TailBudget::new(1600);
        let data = budget.try_reserve(1500).unwrap();
        assert!(budget.try_reserve(1).is_none());
        let control = budget.try_reserve_control(100).unwrap();
        assert!(budget.try_reserve_control(1).is_none());
        assert_eq!(budget.used_bytes(), 1600);
        drop((data, control));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.try_reserve(1501).is_none());
    }

    #[test]
    fn it_presses_at_three_quarters_or_while_somebody_finds_no_room() {
        let budget = TailBudget::new(1600);
        let small = budget.try_reserve(700).unwrap();
        assert!(!budget.presses());
        assert!(budget.try_reserve(801).is_none());
        assert!(budget.presses(), "801 bytes wait for room");
        drop(small);
        assert!(!budget.presses(), "there is room for them now");
        let small = budget.try_reserve(700).unwrap();
        assert!(!budget.presses(), "nobody waits any more");
        let more = budget.try_reserve(500).unwrap();
        assert!(budget.presses());
        drop((small, more));
        // What never fits is not waited for.
        assert!(budget.try_reserve(1501).is_none());
        assert!(!budget.presses());
    }

    #[test]
    fn release_calls_the_hooks() {
        let budget = TailBudget::new(16);
        let calls = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&calls);
        budget.on_release(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        drop(budget.try_reserve(4));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
