//! Who waits for a partition: acks for their offset to be durable, fetches for something to read.
//!
//! Owns both lists of one partition and the durable offset they are measured by. Called by the WAL thread once per
//! group, so nothing here blocks; completing an ack wakes at most one task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use keelson_log::Observer;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The acks of one request: how many of its partitions are not durable yet.
#[derive(Debug, Default)]
pub struct AckGroup {
    state: Mutex<AckState>,
}

#[derive(Debug, Default)]
struct AckState {
    pending: usize,
    /// Slots whose partition was removed before its offset was durable.
    removed: Vec<usize>,
    waker: Option<Waker>,
}

impl AckGroup {
    fn add(&self) {
        self.state.lock().pending += 1;
    }

    fn complete(&self, removed_slot: Option<usize>) {
        let mut state = self.state.lock();
        state.removed.extend(removed_slot);
        state.pending -= 1;
        if state.pending == 0
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
        }
    }

    /// True once nothing is waited for.
    pub fn is_done(&self) -> bool {
        self.state.lock().pending == 0
    }

    /// Ready once nothing is waited for.
    pub fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.pending == 0 {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Slots whose partition was removed before its offset was durable.
    pub fn removed_slots(&self) -> Vec<usize> {
        self.state.lock().removed.clone()
    }
}

struct AckWaiter {
    /// Durable once the durable offset is at least this.
    end_offset: i64,
    slot: usize,
    group: Arc<AckGroup>,
}

/// What one fetch, or one fetch session, is told by the partitions that it watches: which of them have moved.
#[derive(Debug, Default)]
pub struct Watch {
    moved: Mutex<Vec<u32>>,
    wake: Notify,
}

impl Watch {
    fn tell(&self, slot: u32) {
        self.moved.lock().push(slot);
        self.wake.notify_one();
    }

    /// The slots of partitions that have moved since the last call. A partition tells it once, and must be watched again.
    pub fn take_moved(&self) -> Vec<u32> {
        std::mem::take(&mut self.moved.lock())
    }

    /// Waits until a partition moves, or somebody calls [`Watch::pass_on`].
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Wakes one who waits, or the next one who will.
    pub fn pass_on(&self) {
        self.wake.notify_one();
    }

    /// Wakes all who wait.
    pub fn wake_all(&self) {
        self.wake.notify_waiters();
    }
}

struct FetchWaiter {
    watch: Arc<Watch>,
    slot: u32,
    /// Told once the durable offset is above this.
    offset: i64,
}

struct State {
    durable_offset: i64,
    removed: bool,
    acks: VecDeque<AckWaiter>,
    fetches: Vec<FetchWaiter>,
}

/// The waiters of one partition; the log's observer of it.
pub struct Waiters {
    state: Mutex<State>,
}

impl Waiters {
    /// Nobody waits yet.
    pub fn new(durable_offset: i64) -> Self {
        Self {
            state: Mutex::new(State {
                durable_offset,
                removed: false,
                acks: VecDeque::new(),
                fetches: Vec::new(),
            }),
        }
    }

    /// Completes `slot` of `group` when all offsets below `end_offset` are durable. Called in the order of offsets.
    pub fn await_durable(&self, end_offset: i64, slot: usize, group: &Arc<AckGroup>) {
        let mut state = self.state.lock();
        group.add();
        if state.removed {
            group.complete(Some(slot));
        } else if state.durable_offset >= end_offset {
            group.complete(None);
        } else {
            let waiter = AckWaiter {
                end_offset,
                slot,
                group: Arc::clone(group),
            };
            // A duplicate waits for an offset that others behind it may have passed.
            let at = state.acks.partition_point(|w| w.end_offset <= end_offset);
            state.acks.insert(at, waiter);
        }
    }

    /// Tells `watch` of `slot` once, when the durable offset goes above `offset`, when the log start moves, or when the
    /// partition goes. True if that has happened already: then nothing is told.
    pub fn watch(&self, offset: i64, watch: &Arc<Watch>, slot: u32) -> bool {
        let mut state = self.state.lock();
        if state.removed || state.durable_offset > offset {
            return true;
        }
        state.fetches.push(FetchWaiter {
            watch: Arc::clone(watch),
            slot,
            offset,
        });
        false
    }

    /// Tells `watch` nothing any more.
    pub fn forget(&self, watch: &Arc<Watch>) {
        let mut state = self.state.lock();
        state.fetches.retain(|w| !Arc::ptr_eq(&w.watch, watch));
        if state.fetches.is_empty() {
            // Nothing is kept per idle partition.
            state.fetches = Vec::new();
        }
    }

    /// True once the partition is gone.
    pub fn is_removed(&self) -> bool {
        self.state.lock().removed
    }

    /// The partition is gone: everybody who waits is told.
    pub fn remove(&self) {
        let mut state = self.state.lock();
        state.removed = true;
        for ack in state.acks.drain(..) {
            ack.group.complete(Some(ack.slot));
        }
        for fetch in state.fetches.drain(..) {
            fetch.watch.tell(fetch.slot);
        }
    }
}

impl Observer for Waiters {
    fn durable(&self, durable_offset: i64) {
        let mut state = self.state.lock();
        assert!(
            durable_offset >= state.durable_offset,
            "the durable offset went back from {} to {durable_offset}",
            state.durable_offset
        );
        state.durable_offset = durable_offset;
        // Before the acks: whoever hears of an ack and fetches then must find it. Each is told once: one that never comes
        // back costs one commit, not every one.
        state.fetches.retain(|fetch| {
            let waits = fetch.offset >= durable_offset;
            if !waits {
                fetch.watch.tell(fetch.slot);
            }
            waits
        });
        while state
            .acks
            .front()
            .is_some_and(|w| w.end_offset <= durable_offset)
        {
            if let Some(ack) = state.acks.pop_front() {
                ack.group.complete(None);
            }
        }
    }

    fn log_start(&self, _offset: i64) {
        for fetch in self.state.lock().fetches.drain(..) {
            fetch.watch.tell(fetch.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Arc<AckGroup> {
        Arc::new(AckGroup::default())
    }

    #[test]
    fn acks_complete_in_the_order_of_offsets() {
        let waiters = Waiters::new(0);
        let groups = [group(), group(), group()];
        for (end, group) in [10, 20, 15].iter().zip(&groups) {
            waiters.await_durable(*end, 0, group);
        }
        let done = |n: usize| groups[n].is_done();
        waiters.durable(9);
        assert!(!done(0) && !done(1) && !done(2));
        waiters.durable(15);
        assert!(done(0) && !done(1) && done(2));
        waiters.durable(20);
        assert!(done(1));
        let late = group();
        waiters.await_durable(20, 0, &late);
        assert!(late.is_done(), "already durable");
    }

    #[test]
    fn d4_a_commit_costs_nothing_for_those_it_does_not_complete() {
        const WAITING: i64 = 50_000;
        // A scan of all who wait at each commit would take minutes.
        const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
        let waiters = Waiters::new(0);
        let last = group();
        let begun = std::time::Instant::now();
        for end in 1..=WAITING {
            waiters.await_durable(end, 0, &last);
        }
        for durable in 1..=WAITING {
            assert!(!last.is_done());
            waiters.durable(durable);
        }
        assert!(last.is_done());
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_removed_partition_fails_what_waits() {
        let waiters = Waiters::new(0);
        let group = group();
        waiters.await_durable(1, 7, &group);
        let watch = Arc::new(Watch::default());
        assert!(!waiters.watch(0, &watch, 3));
        waiters.remove();
        assert!(group.is_done());
        assert_eq!(group.removed_slots(), [7]);
        assert_eq!(watch.take_moved(), [3]);
        assert!(waiters.watch(0, &watch, 3));
        waiters.await_durable(1, 8, &group);
        assert_eq!(group.removed_slots(), [7, 8]);
    }

    #[tokio::test]
    async fn a_fetch_is_told_once_of_what_it_waits_for() {
        let waiters = Waiters::new(5);
        let watch = Arc::new(Watch::default());
        assert!(waiters.watch(4, &watch, 1), "it has happened");
        assert!(!waiters.watch(5, &watch, 1));
        assert!(!waiters.watch(6, &watch, 2));
        waiters.durable(6);
        watch.wait().await;
        assert_eq!(watch.take_moved(), [1]);
        waiters.durable(7);
        assert_eq!(watch.take_moved(), [2], "the first one was told");
        assert!(!waiters.watch(7, &watch, 3));
        waiters.log_start(1);
        assert_eq!(watch.take_moved(), [3]);
        assert!(!waiters.watch(7, &watch, 4));
        waiters.forget(&watch);
        waiters.durable(8);
        assert!(watch.take_moved().is_empty());
    }

    #[test]
    fn a_fetch_is_told_before_the_ack_is() {
        struct AtAck(Arc<Watch>, Mutex<Vec<u32>>);
        impl std::task::Wake for AtAck {
            fn wake(self: Arc<Self>) {
                *self.1.lock() = self.0.take_moved();
            }
        }
        let waiters = Waiters::new(0);
        let watch = Arc::new(Watch::default());
        assert!(!waiters.watch(0, &watch, 4));
        let group = group();
        waiters.await_durable(1, 0, &group);
        let at_ack = Arc::new(AtAck(watch, Mutex::default()));
        let waker = Waker::from(Arc::clone(&at_ack));
        let pending = group.poll_done(&mut Context::from_waker(&waker));
        assert!(pending.is_pending());
        waiters.durable(1);
        assert_eq!(*at_ack.1.lock(), [4]);
    }

    #[test]
    #[should_panic(expected = "went back")]
    fn the_durable_offset_never_goes_back() {
        let waiters = Waiters::new(5);
        waiters.durable(4);
    }
}
