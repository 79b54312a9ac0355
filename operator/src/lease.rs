//! Who leads.
//!
//! Owns the rules of the election, without a client and without a clock of its own. Expiry is judged by what was seen
//! to change here, on a monotonic clock: never by comparing another machine's time with ours. Every write carries the
//! resourceVersion that was judged, so that of two candidates one fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a lease that nobody renews is respected.
pub(crate) const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader acts without having renewed. Shorter than the duration: it stops before another may start.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks.
pub(crate) const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A lease as it stands in the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) holder: String,
    pub(crate) transitions: i32,
    /// For how long its holder wants it respected.
    pub(crate) duration: Duration,
    pub(crate) resource_version: String,
}

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is no lease: create one.
    Create,
    /// Write the lease over this version of it.
    Replace {
        resource_version: String,
        transitions: i32,
    },
    /// Somebody else leads.
    Wait,
}

/// Whether this process leads, for all who act on it.
///
/// A process can be stopped between any two of its steps and wake up when another leads. So whoever writes asks here,
/// last of all before the request goes out, and not only who began the work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// True while this process may act as the leader.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.renewed()
            .is_some_and(|at| now.duration_since(at) < RENEW_DEADLINE)
    }

    fn renewed(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, renewed: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = renewed;
    }
}

/// One candidate's memory.
#[derive(Debug)]
pub(crate) struct Candidate {
    identity: String,
    seen: Option<(String, Instant)>,
    leadership: Leadership,
}

impl Candidate {
    /// What it wins is known to all who share `leadership`.
    pub(crate) fn new(identity: String, leadership: Leadership) -> Self {
        Self {
            identity,
            seen: None,
            leadership,
        }
    }

    /// Judges what was found.
    pub(crate) fn step(&mut self, found: Option<&Record>, now: Instant) -> Step {
        let Some(record) = found else {
            return Step::Create;
        };
        let unchanged_since = match &self.seen {
            Some((version, since)) if *version == record.resource_version => *since,
            Some(_) | None => {
                self.seen = Some((record.resource_version.clone(), now));
                now
            }
        };
        let mine = record.holder == self.identity;
        let free = record.holder.is_empty();
        let expired = now.duration_since(unchanged_since) >= record.duration;
        if mine || free || expired {
            let transitions = record.transitions + i32::from(!mine);
            Step::Replace {
                resource_version: record.resource_version.clone(),
                transitions,
            }
        } else {
            Step::Wait
        }
    }

    /// A write was accepted; it was begun at `begun`.
    pub(crate) fn renewed(&mut self, begun: Instant) {
        self.leadership.set(Some(begun));
    }

    /// The lease was seen in other hands.
    pub(crate) fn lost(&mut self) {
        self.leadership.set(None);
    }

    /// True while this candidate may act as the leader.
    pub(crate) fn leads(&self, now: Instant) -> bool {
        self.leadership.holds(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: holder.into(),
            transitions: 4,
            duration: LEASE_DURATION,
            resource_version: version.into(),
        }
    }

    fn replace(version: &str, transitions: i32) -> Step {
        Step::Replace {
            resource_version: version.into(),
            transitions,
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_to_stand_still() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut me = Candidate::new("me".into(), Leadership::default());
        assert_eq!(me.step(None, at(0)), Step::Create);
        assert_eq!(
            me.step(Some(&record("other", "1")), at(100)),
            Step::Wait,
            "first seen now, whatever its age"
        );
        assert_eq!(me.step(Some(&record("other", "1")), at(114)), Step::Wait);
        assert_eq!(
            me.step(Some(&record("other", "2")), at(115)),
            Step::Wait,
            "renewed in time"
        );
        assert_eq!(me.step(Some(&record("other", "2")), at(129)), Step::Wait);
        assert_eq!(
            me.step(Some(&record("other", "2")), at(130)),
            replace("2", 5)
        );
        assert_eq!(
            me.step(Some(&record("me", "3")), at(131)),
            replace("3", 4),
            "a renewal is no transition"
        );
        assert_eq!(
            me.step(Some(&record("", "4")), at(131)),
            replace("4", 5),
            "given back"
        );
    }

    #[test]
    fn a_leader_stops_before_another_may_start() {
        const { assert!(RENEW_DEADLINE.as_secs() < LEASE_DURATION.as_secs()) }
        const { assert!(RETRY_PERIOD.as_secs() * 2 < RENEW_DEADLINE.as_secs()) }
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let known = Leadership::default();
        let mut me = Candidate::new("me".into(), known.clone());
        assert!(!me.leads(at(0)));
        me.renewed(at(0));
        assert!(me.leads(at(9)) && known.holds(at(9)));
        assert!(!me.leads(at(10)));
        me.renewed(at(11));
        me.lost();
        assert!(!me.leads(at(11)) && !known.holds(at(11)));
    }
}
