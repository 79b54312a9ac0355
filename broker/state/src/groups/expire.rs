//! Offsets whose time is over (KIP-211), and groups of which nothing is left. It looks at all groups at once, every
//! `offsets.retention.check.interval.ms`.
//!
//! An offset of a group that has lost its last member expires once that is long enough ago; one that was committed from
//! outside any group, or that a stable group of consumers does not read any more, once its commit is. All others stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commit::{offset_key, tombstone};
use super::group::{Group, OffsetKey};
use super::machine::{GroupCoordinator, Pending, context};
use super::types::{Effect, RECORDS_PER_PERSIST_MAX};
use super::view::{CommittedOffset, GroupState};

/// Since when an offset is unused.
enum Since {
    /// Since it was committed.
    Commit,
    /// Since this time.
    Time(i64),
}

/// What becomes of a group.
#[derive(Default)]
struct Verdict {
    expired: Vec<OffsetKey>,
    /// Nothing would be left of it.
    gone: bool,
}

impl GroupCoordinator {
    pub(super) fn arm_expiry(&mut self, now_ms: i64) {
        let interval_ms = self.config.offsets_check_interval_ms.max(1);
        match self.expiry_at_ms {
            _ if self.groups.is_empty() => self.expiry_at_ms = None,
            None => self.expiry_at_ms = Some(now_ms.saturating_add(interval_ms)),
            Some(_) => {}
        }
    }

    pub(super) fn expire_if_due(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if self.expiry_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        self.expiry_at_ms = None;
        let is_expiry = |pending: &Pending| matches!(pending, Pending::Expire { .. });
        if self.persists.pending.values().any(is_expiry) {
            // The log is slow: what it has to take already would only be found again.
            return;
        }
        let mut ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        ids.sort();
        let mut expired: Vec<(Arc<str>, OffsetKey)> = Vec::new();
        for id in ids {
            let group = &self.groups[&id];
            let verdict = self.judge(now_ms, group);
            if verdict.gone {
                let mut cx = context!(self, now_ms, out);
                let group = self.groups.get_mut(&id).expect("it was judged just now");
                group.delete(&mut cx, None, Vec::new());
            } else {
                expired.extend(verdict.expired.into_iter().map(|key| (id.clone(), key)));
            }
        }
        let mut cx = context!(self, now_ms, out);
        for part in expired.chunks(RECORDS_PER_PERSIST_MAX) {
            let gone = |(group, key): &(Arc<str>, OffsetKey)| tombstone(offset_key(group, key));
            let records = part.iter().map(gone).collect();
            let keys = part.to_vec();
            cx.persist(records, Pending::Expire { keys });
        }
    }

    fn judge(&self, now_ms: i64, group: &Group) -> Verdict {
        let is_idle = group.state == GroupState::Empty
            && group.pending.is_empty()
            && group.inflight.is_empty()
            && !self.open.holds(&group.id);
        let Some(since) = group.unused_since() else {
            return Verdict::default();
        };
        let subscribed = group.subscribed_topics();
        let is_over = |(key, offset): &(&OffsetKey, &CommittedOffset)| {
            !Group::reads(subscribed.as_ref(), group.is_of_consumers(), &key.0)
                && !group.inflight.contains_key(key)
                && !self.open.is_unstable(&group.id, key)
                && self.has_expired(now_ms, &since, offset)
        };
        let expired: BTreeSet<&OffsetKey> = group
            .offsets
            .iter()
            .filter(is_over)
            .map(|(key, _)| key)
            .collect();
        Verdict {
            gone: is_idle && expired.len() == group.offsets.len(),
            expired: expired.into_iter().cloned().collect(),
        }
    }

    fn has_expired(&self, now_ms: i64, since: &Since, offset: &CommittedOffset) -> bool {
        if offset.expire_ms >= 0 {
            return now_ms >= offset.expire_ms;
        }
        let since_ms = match since {
            Since::Commit => offset.commit_ms,
            Since::Time(since_ms) => *since_ms,
        };
        now_ms.saturating_sub(since_ms) >= self.config.offsets_retention_ms
    }
}

impl Group {
    /// Since when its offsets are unused; none while they are in use.
    fn unused_since(&self) -> Option<Since> {
        match self.state {
            // What it holds is on its way out already.
            GroupState::Dead => None,
            _ if self.protocol_type.is_none() && self.members.is_empty() => Some(Since::Commit),
            // An old record of the group does not say when it became empty.
            GroupState::Empty if self.state_since_ms < 0 => Some(Since::Commit),
            GroupState::Empty => Some(Since::Time(self.state_since_ms)),
            GroupState::Stable if self.subscribed_topics().is_some() => Some(Since::Commit),
            GroupState::Stable
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance => None,
        }
    }
}
