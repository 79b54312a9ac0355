//! Memory that requests and replies may take, in bytes, over all connections.
//!
//! Owns three queues in front of three bounds: produced records (the log's tail memory), all other large requests, and
//! replies that carry records. Waiting is first come, first served; a request above its bound is refused, not left
//! waiting. Never blocks a thread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

use keelson_log::{Reservation, TailBudget};
use parking_lot::Mutex;

/// Requests without records that are larger than [`CONTROL_FREE_BYTES`], decoded, over all connections.
pub const CONTROL_BUDGET_BYTES: u64 = 96 * 1024 * 1024;
/// A request without records up to this size draws on no budget: a connection has one of them at a time.
pub const CONTROL_FREE_BYTES: usize = 16 * 1024;
/// Replies that carry records and are not yet written, over all connections.
pub const REPLY_BUDGET_BYTES: u64 = 128 * 1024 * 1024;
/// The most bytes of records in one reply (a single larger batch is still returned); a quarter of what data may take.
pub const REPLY_BYTES_MAX: u64 = REPLY_BUDGET_BYTES / 4;

/// All budgets.
pub struct Budgets {
    /// Produce frames; the log gives the bytes back once they are in a segment.
    pub records: Arc<Gate>,
    /// All other large frames.
    pub control: Arc<Gate>,
    /// Replies with records.
    pub replies: Arc<Gate>,
}

impl Budgets {
    /// Budgets around the log's tail memory.
    pub fn new(tail: Arc<TailBudget>) -> Self {
        Self {
            records: Gate::new(tail),
            control: Gate::new(TailBudget::new(CONTROL_BUDGET_BYTES)),
            replies: Gate::new(TailBudget::new(REPLY_BUDGET_BYTES)),
        }
    }
}

/// A bound with a queue in front of it.
pub struct Gate {
    budget: Arc<TailBudget>,
    queue: Mutex<VecDeque<(u64, Waker)>>,
    queued: AtomicUsize,
}

impl Gate {
    /// A gate in front of `budget`.
    pub fn new(budget: Arc<TailBudget>) -> Arc<Self> {
        let gate = Arc::new(Self {
            budget,
            queue: Mutex::new(VecDeque::new()),
            queued: AtomicUsize::new(0),
        });
        let weak = Arc::downgrade(&gate);
        gate.budget.on_release(move || {
            if let Some(gate) = weak.upgrade() {
                gate.released();
            }
        });
        gate
    }

    /// The largest reservation that can ever succeed.
    pub fn bytes_max(&self) -> u64 {
        self.budget.data_bytes_max()
    }

    /// Reserves at once, unless somebody waits already or there is no room.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        if self.queued.load(Ordering::Acquire) > 0 {
            return None;
        }
        self.budget.try_reserve(bytes)
    }

    /// Reserves in turn. `ticket` names the one who waits; it must be given up with [`Gate::forget`] if it stops waiting.
    pub fn poll_reserve(&self, ticket: u64, bytes: u64, cx: &mut Context<'_>) -> Poll<Reservation> {
        if let Some(reservation) = self.try_reserve(bytes) {
            return Poll::Ready(reservation);
        }
        let mut queue = self.queue.lock();
        match queue.iter_mut().find(|(waiting, _)| *waiting == ticket) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                queue.push_back((ticket, cx.waker().clone()));
                self.queued.fetch_add(1, Ordering::AcqRel);
            }
        }
        // A release after this line sees the queue; one before it is seen by the attempt below.
        fence(Ordering::SeqCst);
        if queue.front().is_some_and(|(first, _)| *first == ticket)
            && let Some(reservation) = self.budget.try_reserve(bytes)
        {
            queue.pop_front();
            self.queued.fetch_sub(1, Ordering::AcqRel);
            if let Some((_, next)) = queue.front() {
                next.wake_by_ref();
            }
            return Poll::Ready(reservation);
        }
        Poll::Pending
    }

    /// Gives a place in the queue up; does nothing if there is none.
    pub fn forget(&self, ticket: u64) {
        if self.queued.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut queue = self.queue.lock();
        let before = queue.len();
        queue.retain(|(waiting, _)| *waiting != ticket);
        self.queued
            .fetch_sub(before - queue.len(), Ordering::AcqRel);
        if let Some((_, next)) = queue.front() {
            next.wake_by_ref();
        }
    }

    /// Reserves in turn, as a future; `ticket` as in [`Gate::poll_reserve`].
    pub fn reserve(self: &Arc<Self>, ticket: u64, bytes: u64) -> Reserve {
        Reserve {
            gate: Arc::clone(self),
            ticket,
            bytes,
        }
    }

    fn released(&self) {
        fence(Ordering::SeqCst);
        if self.queued.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some((_, first)) = self.queue.lock().front() {
            first.wake_by_ref();
        }
    }
}

/// Waits for a reservation; gives its place up when dropped.
pub struct Reserve {
    gate: Arc<Gate>,
    ticket: u64,
    bytes: u64,
}

impl Future for Reserve {
    type Output = Reservation;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reservation> {
        self.gate.poll_reserve(self.ticket, self.bytes, cx)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.gate.forget(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    #[test]
    fn waiting_is_in_turn_and_a_release_wakes_the_first() {
        let gate = Gate::new(TailBudget::new(1600));
        let held = gate.try_reserve(1500).unwrap();
        let (first, second) = (
            Arc::new(Flag(AtomicBool::new(false))),
            Arc::new(Flag(AtomicBool::new(false))),
        );
        let (w1, w2) = (Waker::from(first.clone()), Waker::from(second.clone()));
        let (mut c1, mut c2) = (Context::from_waker(&w1), Context::from_waker(&w2));
        assert!(gate.poll_reserve(1, 1000, &mut c1).is_pending());
        assert!(gate.poll_reserve(2, 10, &mut c2).is_pending());
        assert!(gate.try_reserve(1).is_none(), "nobody overtakes");
        drop(held);
        assert!(first.0.load(Ordering::Acquire));
        assert!(
            gate.poll_reserve(2, 10, &mut c2).is_pending(),
            "not its turn"
        );
        let one = gate.poll_reserve(1, 1000, &mut c1);
        assert!(one.is_ready());
        assert!(second.0.load(Ordering::Acquire));
        assert!(gate.poll_reserve(2, 10, &mut c2).is_ready());
        assert!(gate.try_reserve(1).is_some());
    }

    #[test]
    fn who_gives_up_does_not_block_the_next() {
        let gate = Gate::new(TailBudget::new(160));
        let held = gate.try_reserve(150);
        let waker = Waker::noop();
        let mut cx = Context::from_waker(waker);
        assert!(gate.poll_reserve(1, 100, &mut cx).is_pending());
        gate.forget(1);
        drop(held);
        assert!(gate.try_reserve(100).is_some());
    }
}
