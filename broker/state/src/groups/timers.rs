//! Deadlines as data: one ordered set for all groups of a machine. It never acts on a deadline.
//!
//! A deadline that moves later (every heartbeat does that) does not touch the set: the entry fires early, and whoever
//! handles it sees the true deadline and arms it again.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Whose deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// A member's session.
    Member(Arc<str>, Arc<str>),
    /// A member id given out and not yet used.
    Pending(Arc<str>, Arc<str>),
    /// A group's join phase.
    Join(Arc<str>),
    /// A group's sync phase.
    Sync(Arc<str>),
    /// Offsets of deleted topics that could not be dropped yet.
    DropRetry,
}

/// A deadline and the entry that stands for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Deadline {
    at_ms: Option<i64>,
    armed_ms: Option<i64>,
}

/// The set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(i64, TimerKey)>,
}

impl Timers {
    /// The earliest entry.
    pub(super) fn next(&self) -> Option<i64> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes the earliest entry if it is due. The owner of the deadline must call `settle` for it.
    pub(super) fn pop_due(&mut self, now_ms: i64) -> Option<TimerKey> {
        if self.next()? > now_ms {
            return None;
        }
        self.entries.pop_first().map(|(_, key)| key)
    }

    /// Moves a deadline.
    pub(super) fn arm(
        &mut self,
        deadline: &mut Deadline,
        at_ms: i64,
        key: impl FnOnce() -> TimerKey,
    ) {
        deadline.at_ms = Some(at_ms);
        match deadline.armed_ms {
            Some(armed) if armed <= at_ms => {}
            Some(armed) => {
                let key = key();
                self.entries.remove(&(armed, key.clone()));
                self.entries.insert((at_ms, key));
                deadline.armed_ms = Some(at_ms);
            }
            None => {
                self.entries.insert((at_ms, key()));
                deadline.armed_ms = Some(at_ms);
            }
        }
    }

    /// Ends a deadline.
    pub(super) fn disarm(&mut self, deadline: &mut Deadline, key: impl FnOnce() -> TimerKey) {
        if let Some(armed) = deadline.armed_ms {
            self.entries.remove(&(armed, key()));
        }
        *deadline = Deadline::default();
    }

    /// After `pop_due`: whether the deadline itself is due. One that moved later is armed again.
    pub(super) fn settle(
        &mut self,
        deadline: &mut Deadline,
        now_ms: i64,
        key: impl FnOnce() -> TimerKey,
    ) -> bool {
        deadline.armed_ms = None;
        match deadline.at_ms {
            None => false,
            Some(at_ms) if at_ms <= now_ms => {
                deadline.at_ms = None;
                true
            }
            Some(at_ms) => {
                self.arm(deadline, at_ms, key);
                false
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
