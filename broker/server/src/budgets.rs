//! Memory that requests and replies may take, in bytes, over all connections.
//!
//! Owns a queue in front of each bound: produced records (the log's tail memory), all other large requests, replies that
//! carry records; and frames that are still arriving, so that a frame that is complete never waits for one that is not.
//! Waiting is first come, first served among addresses: the second request of one stands behind the first of every other.
//! A request above its bound is refused, not left waiting. Never blocks a thread.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use keelson_log::{Reservation, TailBudget};
use keelson_protocol::api::FrameClass;
use keelson_protocol::frame::FrameHead;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::MemoryBounds;

/// A request without records up to this size draws on no budget: a connection has one of them at a time.
pub const CONTROL_FREE_BYTES: usize = 16 * 1024;
/// A reply without records up to this size draws on no budget: a connection has one of them at a time.
pub const ANSWER_FREE_BYTES: usize = 16 * 1024;
/// Frames with records up to this size wait for each other only while they arrive; larger ones are a class of their own.
const HUGE_FRAME_BYTES_MIN: usize = 4 * 1024 * 1024;
/// Of the tail memory, what each class of arriving frames may hold: at least a quarter is left for what is complete.
const ARRIVING_DIVISOR: u64 = 2;
const ARRIVING_HUGE_DIVISOR: u64 = 4;
/// Who holds memory that others wait for must have moved this much per second, after [`PACE_GRACE`].
const PACE_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// How long nobody is judged by.
const PACE_GRACE: Duration = Duration::from_millis(500);

/// Whether who holds memory since `since` and has moved `moved` bytes is too slow for others to wait for it.
pub fn is_behind(since: Instant, moved: usize, now: Instant) -> bool {
    let allowed = PACE_GRACE + Duration::from_millis(moved as u64 * 1000 / PACE_BYTES_PER_SECOND);
    now.saturating_duration_since(since) > allowed
}

/// However little is free, a reply may hold this much.
const REPLY_BYTES_MIN: u64 = 64 * 1024;
/// What one reply may hold of what is free (a single larger batch is still returned).
const REPLY_DIVISOR: u64 = 4;

/// All budgets.
pub struct Budgets {
    /// Produce frames; the log gives the bytes back once they are in a segment.
    pub records: Arc<Gate>,
    /// All other frames that are larger than [`CONTROL_FREE_BYTES`], decoded.
    pub control: Arc<Gate>,
    /// Replies with records.
    pub replies: Arc<Gate>,
    /// Other replies that are larger than [`ANSWER_FREE_BYTES`].
    pub answers: Arc<Gate>,
    /// What fetches keep while they wait; one that finds no room is answered at once.
    pub waiting: Arc<Gate>,
    arriving_records: Arc<Gate>,
    arriving_huge: Arc<Gate>,
    arriving_control: Arc<Gate>,
}

impl Budgets {
    /// Budgets around the log's tail memory.
    pub fn new(tail: Arc<TailBudget>, bounds: &MemoryBounds) -> Self {
        let own = |bytes| Gate::new(TailBudget::new(bytes));
        let arriving = |divisor| own(tail.bytes_max() / divisor);
        let arriving_records = arriving(ARRIVING_DIVISOR);
        let arriving_huge = arriving(ARRIVING_HUGE_DIVISOR);
        Self {
            records: Gate::new(tail),
            control: own(bounds.control),
            replies: own(bounds.replies),
            answers: own(bounds.answers),
            waiting: own(bounds.waiting),
            arriving_records,
            arriving_huge,
            arriving_control: own(bounds.arriving_control),
        }
    }

    /// Where a large frame stands while it arrives.
    pub fn rank(head: FrameHead) -> Rank {
        if head.length < HUGE_FRAME_BYTES_MIN {
            Rank::Arriving
        } else {
            Rank::ArrivingHuge
        }
    }

    /// What a large frame draws on while it arrives, and how much: one that is larger than all of it has it alone.
    pub fn arriving(&self, head: FrameHead) -> (&Arc<Gate>, u64) {
        let gate = match head.class {
            FrameClass::Control => &self.arriving_control,
            FrameClass::Records if head.length < HUGE_FRAME_BYTES_MIN => &self.arriving_records,
            FrameClass::Records => &self.arriving_huge,
        };
        (gate, (head.length as u64).min(gate.bytes_max()))
    }

    /// The most bytes of records that the next reply may hold: a part of what is free, so that a crowd that takes none of
    /// its replies leaves something for others.
    pub fn reply_bytes_max(&self) -> u64 {
        (self.replies.free_bytes() / REPLY_DIVISOR).max(REPLY_BYTES_MIN)
    }
}

#[cfg(test)]
impl Budgets {
    /// What a produced frame of this length draws on while it arrives.
    pub(crate) fn arriving_for_tests(&self, length: usize) -> Arc<Gate> {
        let head = FrameHead {
            length,
            api_key: 0,
            api_version: 0,
            class: FrameClass::Records,
        };
        Arc::clone(self.arriving(head).0)
    }
}

/// A bound with a queue in front of it.
pub struct Gate {
    budget: Arc<TailBudget>,
    queue: Mutex<VecDeque<Waiting>>,
    queued: AtomicUsize,
}

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Names the place; it must be given up with [`Gate::forget`] by whoever stops waiting.
    pub ticket: u64,
    /// For whom, if it is for a client.
    pub address: Option<IpAddr>,
    /// Who stands before whom.
    pub rank: Rank,
}

/// Who stands before whom, whatever their address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// What it is for is complete.
    Complete,
    /// What it is for arrives.
    Arriving,
    /// What it is for arrives, and takes much.
    ArrivingHuge,
}

impl Turn {
    /// A place for work of the broker itself.
    pub fn own(ticket: u64) -> Self {
        Self {
            ticket,
            address: None,
            rank: Rank::Complete,
        }
    }
}

struct Waiting {
    turn: Turn,
    /// How many of the same address stood before it.
    before: usize,
    waker: Waker,
}

fn enter(queue: &mut VecDeque<Waiting>, turn: Turn, waker: Waker) {
    let same = |w: &&Waiting| w.turn.address == turn.address && w.turn.rank == turn.rank;
    let before = match turn.address {
        Some(_) => queue.iter().filter(same).count(),
        None => 0,
    };
    let place = (turn.rank, before);
    let at = queue.partition_point(|w| (w.turn.rank, w.before) <= place);
    let waiting = Waiting {
        turn,
        before,
        waker,
    };
    queue.insert(at, waiting);
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

    /// What nobody has reserved.
    pub fn free_bytes(&self) -> u64 {
        self.bytes_max().saturating_sub(self.budget.used_bytes())
    }

    /// True if somebody waits, or soon will.
    pub fn is_pressed(&self) -> bool {
        self.queued.load(Ordering::Acquire) > 0 || self.free_bytes() < self.bytes_max() / 4
    }

    /// Reserves at once, unless somebody waits already or there is no room.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        if self.queued.load(Ordering::Acquire) > 0 {
            return None;
        }
        self.budget.try_reserve(bytes)
    }

    /// Reserves in turn.
    pub fn poll_reserve(&self, turn: Turn, bytes: u64, cx: &mut Context<'_>) -> Poll<Reservation> {
        if let Some(reservation) = self.try_reserve(bytes) {
            return Poll::Ready(reservation);
        }
        let mut queue = self.queue.lock();
        match queue.iter_mut().find(|w| w.turn.ticket == turn.ticket) {
            Some(waiting) => waiting.waker.clone_from(cx.waker()),
            None => {
                enter(&mut queue, turn, cx.waker().clone());
                self.queued.fetch_add(1, Ordering::AcqRel);
            }
        }
        // A release after this line sees the queue; one before it is seen by the attempt below.
        fence(Ordering::SeqCst);
        if queue.front().is_some_and(|w| w.turn.ticket == turn.ticket)
            && let Some(reservation) = self.budget.try_reserve(bytes)
        {
            queue.pop_front();
            self.queued.fetch_sub(1, Ordering::AcqRel);
            if let Some(next) = queue.front() {
                next.waker.wake_by_ref();
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
        queue.retain(|w| w.turn.ticket != ticket);
        self.queued
            .fetch_sub(before - queue.len(), Ordering::AcqRel);
        if let Some(next) = queue.front() {
            next.waker.wake_by_ref();
        }
    }

    /// Reserves in turn, as a future.
    pub fn reserve(self: &Arc<Self>, turn: Turn, bytes: u64) -> Reserve {
        Reserve {
            gate: Arc::clone(self),
            turn,
            bytes,
        }
    }

    fn released(&self) {
        fence(Ordering::SeqCst);
        if self.queued.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(first) = self.queue.lock().front() {
            first.waker.wake_by_ref();
        }
    }
}

/// Waits for a reservation; gives its place up when dropped.
pub struct Reserve {
    gate: Arc<Gate>,
    turn: Turn,
    bytes: u64,
}

impl Future for Reserve {
    type Output = Reservation;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reservation> {
        self.gate.poll_reserve(self.turn, self.bytes, cx)
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.gate.forget(self.turn.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    fn turn(ticket: u64) -> Turn {
        Turn::own(ticket)
    }

    #[test]
    fn addresses_take_turns_and_what_arrives_stands_behind_what_is_complete() {
        use Rank::{Arriving, ArrivingHuge, Complete};
        let mut queue = VecDeque::new();
        let mut come = |ticket, host: u8, rank| {
            let address = Some(IpAddr::from([10, 0, 0, host]));
            let turn = Turn {
                ticket,
                address,
                rank,
            };
            enter(&mut queue, turn, Waker::noop().clone());
        };
        for ticket in 0..3 {
            come(ticket, 1, Complete);
        }
        come(20, 1, ArrivingHuge);
        come(10, 1, Arriving);
        come(3, 2, Complete);
        come(11, 2, Arriving);
        come(4, 2, Complete);
        come(5, 3, Complete);
        let order: Vec<u64> = queue.iter().map(|w| w.turn.ticket).collect();
        assert_eq!(order, [0, 3, 5, 1, 4, 2, 10, 11, 20]);
    }

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
        assert!(gate.poll_reserve(turn(1), 1000, &mut c1).is_pending());
        assert!(gate.poll_reserve(turn(2), 10, &mut c2).is_pending());
        assert!(gate.try_reserve(1).is_none(), "nobody overtakes");
        drop(held);
        assert!(first.0.load(Ordering::Acquire));
        assert!(
            gate.poll_reserve(turn(2), 10, &mut c2).is_pending(),
            "not its turn"
        );
        let one = gate.poll_reserve(turn(1), 1000, &mut c1);
        assert!(one.is_ready());
        assert!(second.0.load(Ordering::Acquire));
        assert!(gate.poll_reserve(turn(2), 10, &mut c2).is_ready());
        assert!(gate.try_reserve(1).is_some());
    }

    #[test]
    fn who_holds_memory_must_move() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert!(!is_behind(now, 0, at(500)));
        assert!(is_behind(now, 0, at(501)));
        assert!(!is_behind(now, 3 << 20, at(3500)));
        assert!(is_behind(now, 3 << 20, at(3501)));
    }

    #[test]
    fn frames_that_arrive_leave_room_for_those_that_are_complete() {
        let tail = TailBudget::new(64 << 20);
        let budgets = Budgets::new(Arc::clone(&tail), &MemoryBounds::of(None));
        let head = |length, class| FrameHead {
            length,
            api_key: 0,
            api_version: 0,
            class,
        };
        let (records, bytes) = budgets.arriving(head(1 << 20, FrameClass::Records));
        assert_eq!(bytes, 1 << 20);
        let (huge, bytes) = budgets.arriving(head(100 << 20, FrameClass::Records));
        assert!(!Arc::ptr_eq(records, huge));
        assert_eq!(bytes, huge.bytes_max(), "all of it");
        assert!(records.bytes_max() + huge.bytes_max() <= tail.bytes_max() / 4 * 3);
        let held = huge.try_reserve(bytes);
        assert!(huge.is_pressed() && !records.is_pressed());
        drop(held);
        assert!(!huge.is_pressed());
    }

    #[test]
    fn replies_share_what_is_free() {
        let bounds = MemoryBounds::of(None);
        let budgets = Budgets::new(TailBudget::new(1 << 20), &bounds);
        assert!(budgets.reply_bytes_max() > bounds.replies / REPLY_DIVISOR / 2);
        let mut held = Vec::new();
        for _ in 0..50 {
            held.extend(budgets.replies.try_reserve(budgets.reply_bytes_max()));
        }
        assert_eq!(budgets.reply_bytes_max(), REPLY_BYTES_MIN);
        assert!(budgets.replies.is_pressed());
        assert!(held.len() > 20, "{}", held.len());
    }

    #[test]
    fn who_gives_up_does_not_block_the_next() {
        let gate = Gate::new(TailBudget::new(160));
        let held = gate.try_reserve(150);
        let waker = Waker::noop();
        let mut cx = Context::from_waker(waker);
        assert!(gate.poll_reserve(turn(1), 100, &mut cx).is_pending());
        gate.forget(1);
        drop(held);
        assert!(gate.try_reserve(100).is_some());
    }
}
