//! The judgement about an object that is being deleted, as far as both kinds share it.
//!
//! Owns who is let go without a look at the broker: who is told to keep, whose cluster is gone, and who has waited long
//! enough for brokers that cannot be reached. What happens to a topic or a group that can be looked at is the kind's own.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keelson_crds::{DeletionPolicy, Reason};

/// How long a deletion waits for brokers that cannot be reached, before the object is let go and nothing is deleted.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(600);

/// A deletion under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deleting {
    /// For how long.
    pub(crate) age: Duration,
    /// When it is given up, for people.
    pub(crate) until: String,
}

impl Deleting {
    /// A deletion that was asked for at this time.
    pub(crate) fn since(since: Timestamp, now: Timestamp) -> Self {
        let until = since.checked_add(HOLD_MAX).unwrap_or(since);
        Self {
            age: Duration::try_from(now.duration_since(since)).unwrap_or_default(),
            until: until.to_string(),
        }
    }
}

/// The cluster as far as it could be reached, and in it what the object is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClusterView<T> {
    Reachable(T),
    /// Nobody answers, and the cluster still has its StatefulSet. Or nobody could be asked.
    Unreachable(String),
    /// Nobody answers, and nobody ever will.
    Gone(String),
}

/// What the object would delete.
pub(crate) struct Charge<'a> {
    /// What it is, for people: `topic orders`.
    pub(crate) what: &'a str,
    pub(crate) policy: DeletionPolicy,
    /// The reason that says that it was kept.
    pub(crate) retained: Reason,
}

/// What becomes of the object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ruling<'a, T> {
    Release(Reason, String),
    /// It is held, since no broker can be reached: what to say about the deletion, and why.
    Hold {
        words: String,
        why: &'a str,
    },
    /// This is there; the kind decides.
    Look(&'a T),
}

/// The part that both kinds share.
pub(crate) fn rule<'a, T>(
    charge: &Charge<'_>,
    deleting: &Deleting,
    cluster: &'a ClusterView<T>,
) -> Ruling<'a, T> {
    if charge.policy == DeletionPolicy::Retain {
        return Ruling::Release(charge.retained, "deletionPolicy is Retain".to_owned());
    }
    let what = charge.what;
    match cluster {
        ClusterView::Gone(message) => Ruling::Release(Reason::ClusterGone, message.clone()),
        ClusterView::Unreachable(message) if deleting.age >= HOLD_MAX => {
            let minutes = HOLD_MAX.as_secs() / 60;
            let words = format!(
                "{what} was not deleted: no broker could be reached for {minutes} minutes: {message}"
            );
            Ruling::Release(Reason::DeletionGivenUp, words)
        }
        ClusterView::Unreachable(message) => Ruling::Hold {
            words: format!(
                "{what} is not deleted yet: {message}; the object is let go at {}",
                deleting.until
            ),
            why: message,
        },
        ClusterView::Reachable(found) => Ruling::Look(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(policy: DeletionPolicy, age: u64, cluster: ClusterView<u8>, expected: &str) {
        let charge = Charge {
            what: "topic t",
            policy,
            retained: Reason::TopicRetained,
        };
        let since = Timestamp::UNIX_EPOCH;
        let now = since + Duration::from_secs(age);
        let found = match rule(&charge, &Deleting::since(since, now), &cluster) {
            Ruling::Release(reason, words) => format!("release {}: {words}", reason.as_str()),
            Ruling::Hold { words, why } => format!("hold: {words} ({why})"),
            Ruling::Look(found) => format!("look {found}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn who_is_let_go_without_a_look() {
        use ClusterView::{Gone, Reachable, Unreachable};
        use DeletionPolicy::{Delete, Retain};
        let away = || Unreachable("away".to_owned());
        let kept = "release TopicRetained: deletionPolicy is Retain";
        check(Retain, 0, Reachable(7), kept);
        check(Retain, 0, away(), kept);
        check(Retain, 0, Gone("no set".to_owned()), kept);
        check(Delete, 0, Reachable(7), "look 7");
        check(Delete, 6000, Reachable(7), "look 7");
        let gone = "release ClusterGone: no set";
        check(Delete, 0, Gone("no set".to_owned()), gone);
        let held = "hold: topic t is not deleted yet: away; the object is let go at 1970-01-01T00:10:00Z (away)";
        check(Delete, 0, away(), held);
        check(Delete, 599, away(), held);
        let given_up = "release DeletionGivenUp: topic t was not deleted: no broker could be reached for 10 minutes: away";
        check(Delete, 600, away(), given_up);
    }
}
