//! The machine: finds the group of an input, keeps the persists under way, fires deadlines. The rules of each request
//! stand in the modules beside it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::census::Happened;
use super::group::{Group, OffsetKey};
use super::timers::{Deadline, TimerKey, Timers};
use super::types::{
    Effect, FailedBecause, GROUPS_MAX, GroupConfig, GroupError, Input, JoinRefused, NAME_BYTES_MAX,
    PersistId, Reply, StoredRecord, Token,
};
use super::view::CommittedOffset;

/// A persist under way, and what it decides.
#[derive(Debug)]
pub(super) enum Pending {
    /// The leader's assignment of a generation.
    Assignment {
        group: Arc<str>,
        generation: i32,
        assignments: HashMap<Arc<str>, Bytes>,
    },
    /// A group that has lost its last member. Nobody waits for it.
    Emptied,
    /// A static member under a new id, while the group stays stable.
    StaticReplaced { group: Arc<str>, replaced: Replaced },
    /// Offsets.
    Commit {
        group: Arc<str>,
        token: Token,
        /// Whose transaction they are part of.
        producer_id: Option<i64>,
        results: Vec<Result<(), GroupError>>,
        values: Vec<(usize, OffsetKey, CommittedOffset)>,
    },
    /// Part of a deletion.
    Delete {
        group: Arc<str>,
        keys: Vec<OffsetKey>,
    },
    /// Offsets that somebody wants to be gone, with the answer for when they are.
    DeleteOffsets {
        group: Arc<str>,
        token: Token,
        results: Vec<Result<(), GroupError>>,
        keys: Vec<OffsetKey>,
    },
    /// Offsets whose time is over. Nobody waits for it.
    Expire { keys: Vec<(Arc<str>, OffsetKey)> },
    /// Offsets of a deleted topic.
    Drop {
        topic: String,
        keys: Vec<(Arc<str>, OffsetKey)>,
    },
}

/// A static member under a new id.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) generation: i32,
    pub(super) token: Token,
    pub(super) member: Arc<str>,
    /// Whom the answer names as leader, where that is not the one there is.
    pub(super) old_leader: Option<Arc<str>>,
}

/// What the rules work with besides their group.
pub(super) struct Context<'a> {
    pub(super) now_ms: i64,
    pub(super) config: &'a GroupConfig,
    pub(super) timers: &'a mut Timers,
    pub(super) persists: &'a mut Persists,
    pub(super) happened: &'a mut Happened,
    pub(super) out: &'a mut Vec<Effect>,
}

/// The persists under way.
#[derive(Debug, Default)]
pub(super) struct Persists {
    last: u64,
    pub(super) pending: HashMap<PersistId, Pending>,
}

impl Context<'_> {
    pub(super) fn reply(&mut self, token: Token, reply: Reply) {
        self.out.push(Effect::Reply(token, reply));
    }

    pub(super) fn refuse_join(&mut self, token: Token, error: GroupError, member_id: &str) {
        let refused = JoinRefused {
            error,
            member_id: member_id.to_owned(),
        };
        self.reply(token, Reply::Join(Err(refused)));
    }

    pub(super) fn refuse_sync(&mut self, token: Token, error: GroupError) {
        self.reply(token, Reply::Sync(Err(error)));
    }

    pub(super) fn persist(&mut self, records: Vec<StoredRecord>, pending: Pending) -> PersistId {
        self.persists.last += 1;
        let id = PersistId(self.persists.last);
        self.persists.pending.insert(id, pending);
        self.out.push(Effect::Persist(id, records));
        id
    }

    /// The same, as part of a producer's transaction.
    pub(super) fn persist_transactional(
        &mut self,
        producer: (i64, i16),
        records: Vec<StoredRecord>,
        pending: Pending,
    ) {
        self.persists.last += 1;
        let id = PersistId(self.persists.last);
        self.persists.pending.insert(id, pending);
        self.out
            .push(Effect::PersistTransactional(id, producer, records));
    }
}

/// All groups of one `__consumer_offsets` partition.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(super) config: GroupConfig,
    pub(super) groups: HashMap<Arc<str>, Group>,
    pub(super) timers: Timers,
    pub(super) persists: Persists,
    /// Deleted topics whose offsets could not be dropped yet.
    pub(super) drops_owed: BTreeSet<String>,
    pub(super) drop_retry: Deadline,
    /// When offsets whose time is over are looked for; none while there is no group.
    pub(super) expiry_at_ms: Option<i64>,
    /// What the members of all groups take of memory.
    pub(super) member_bytes: usize,
    /// Offsets of transactions that have not ended, by producer id.
    pub(super) open: super::open::OpenTransactions,
    /// What is counted as it happens.
    pub(super) happened: Happened,
}

/// Splits a machine into one group's map and the context, so that both can be changed at once.
macro_rules! context {
    ($machine:expr, $now:expr, $out:expr) => {
        $crate::groups::machine::Context {
            now_ms: $now,
            config: &$machine.config,
            timers: &mut $machine.timers,
            persists: &mut $machine.persists,
            happened: &mut $machine.happened,
            out: $out,
        }
    };
}
pub(super) use context;

impl GroupCoordinator {
    /// A machine without groups.
    pub fn new(mut config: GroupConfig) -> Self {
        config.group_size_max = config
            .group_size_max
            .min(super::types::MEMBERS_PER_GROUP_MAX);
        config.offset_metadata_bytes_max = config.offset_metadata_bytes_max.min(i16::MAX as usize);
        GroupCoordinator {
            config,
            groups: HashMap::new(),
            timers: Timers::default(),
            persists: Persists::default(),
            drops_owed: BTreeSet::new(),
            drop_retry: Deadline::default(),
            expiry_at_ms: None,
            member_bytes: 0,
            open: super::open::OpenTransactions::default(),
            happened: Happened::default(),
        }
    }

    /// When `Input::Tick` is due next. It may turn out that nothing happens then.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers
            .next()
            .into_iter()
            .chain(self.expiry_at_ms)
            .min()
    }

    /// Takes one input, changes the state and says what is to be done, in order.
    pub fn apply(&mut self, now_ms: i64, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Join(token, request) => self.join(now_ms, token, &request, out),
            Input::Sync(token, request) => self.sync(now_ms, token, request, out),
            Input::Heartbeat(token, request) => self.heartbeat(now_ms, token, &request, out),
            Input::Leave(token, request) => self.leave(now_ms, token, &request, out),
            Input::Commit(token, request) => self.commit(now_ms, token, request, out),
            Input::Delete(token, group) => self.delete(now_ms, token, &group, out),
            Input::DeleteOffsets(token, request) => {
                self.delete_offsets(now_ms, token, request, out)
            }
            Input::TransactionEnded {
                producer_id,
                commit,
            } => self.transaction_ended(producer_id, commit),
            Input::TopicDeleted(topic) => self.drop_topic(now_ms, &topic, out),
            Input::Persisted(id) => self.persisted(now_ms, id, out),
            Input::PersistFailed(id, why) => self.persist_failed(now_ms, id, why, out),
            Input::Tick => self.tick(now_ms, out),
        }
        self.arm_expiry(now_ms);
    }

    /// The group of this id, made if there is none and there is room.
    pub(super) fn get_or_create(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Result<&mut Group, GroupError> {
        if !self.groups.contains_key(group) {
            if self.groups.len() >= GROUPS_MAX {
                return Err(GroupError::CoordinatorNotAvailable);
            }
            let id: Arc<str> = group.into();
            self.groups.insert(id.clone(), Group::new(id, now_ms));
        }
        Ok(self
            .groups
            .get_mut(group)
            .expect("it was there or has just been made"))
    }

    /// Counts the members of a group anew, after whatever may have changed them.
    pub(super) fn count_members(&mut self, group: &str) {
        if let Some(group) = self.groups.get_mut(group) {
            let bytes = group.member_bytes();
            self.member_bytes = self.member_bytes + bytes - group.counted_bytes;
            group.counted_bytes = bytes;
        }
    }

    /// After whatever may have changed a group: counts its members, and forgets it if nothing of it is left.
    pub(super) fn settle_group(&mut self, group: &str) {
        self.count_members(group);
        let held_open = self.open.holds(group);
        if !held_open && self.groups.get(group).is_some_and(Group::is_trivial) {
            self.groups.remove(group);
        }
    }

    fn persisted(&mut self, now_ms: i64, id: PersistId, out: &mut Vec<Effect>) {
        let pending = self
            .persists
            .pending
            .remove(&id)
            .expect("each persist is confirmed once");
        match pending {
            Pending::Assignment {
                group,
                generation,
                assignments,
            } => {
                let mut cx = context!(self, now_ms, out);
                if let Some(group) = self.groups.get_mut(&group) {
                    group.assigned(&mut cx, id, generation, assignments);
                }
                self.count_members(&group);
            }
            Pending::Emptied => {}
            Pending::StaticReplaced { group, replaced } => {
                let mut cx = context!(self, now_ms, out);
                match self.groups.get_mut(&group) {
                    Some(group) => group.replaced(&mut cx, replaced),
                    None => cx.refuse_join(replaced.token, GroupError::UnknownMemberId, ""),
                }
            }
            Pending::Commit {
                group,
                token,
                producer_id,
                results,
                values,
            } => {
                match producer_id {
                    None => self.committed(now_ms, &group, values),
                    Some(producer_id) => self.pending_until_end(&group, producer_id, values),
                }
                out.push(Effect::Reply(token, Reply::Commit(results)));
            }
            Pending::Delete { group, keys } => self.deleted_part(&group, &keys, true, out),
            Pending::DeleteOffsets {
                group,
                token,
                results,
                keys,
            } => {
                let keys: Vec<_> = keys.into_iter().map(|key| (group.clone(), key)).collect();
                self.dropped(&keys);
                out.push(Effect::Reply(token, Reply::DeleteOffsets(Ok(results))));
            }
            Pending::Expire { keys } => {
                self.happened.offsets_expired += keys.len() as u64;
                self.dropped(&keys);
            }
            Pending::Drop { keys, .. } => self.dropped(&keys),
        }
    }

    fn persist_failed(
        &mut self,
        now_ms: i64,
        id: PersistId,
        why: FailedBecause,
        out: &mut Vec<Effect>,
    ) {
        let pending = self
            .persists
            .pending
            .remove(&id)
            .expect("each persist is confirmed once");
        let error = match why {
            FailedBecause::Unavailable => GroupError::CoordinatorNotAvailable,
            FailedBecause::TooLarge => GroupError::RecordTooLarge,
            FailedBecause::Fenced => GroupError::InvalidProducerEpoch,
        };
        match pending {
            Pending::Assignment {
                group, generation, ..
            } => {
                let mut cx = context!(self, now_ms, out);
                if let Some(group) = self.groups.get_mut(&group) {
                    group.assignment_failed(&mut cx, id, generation, error);
                }
            }
            Pending::Emptied => {}
            Pending::StaticReplaced { replaced, .. } => {
                let mut cx = context!(self, now_ms, out);
                cx.refuse_join(replaced.token, error, &replaced.member);
            }
            Pending::Commit {
                group,
                token,
                producer_id,
                mut results,
                values,
            } => {
                for (index, key, _) in values {
                    results[index] = Err(error);
                    self.settle_inflight(&group, &key);
                    if producer_id.is_some() {
                        self.open.settled(&group, &key);
                    }
                }
                self.settle_group(&group);
                out.push(Effect::Reply(token, Reply::Commit(results)));
            }
            Pending::Delete { group, keys } => self.deleted_part(&group, &keys, false, out),
            Pending::DeleteOffsets { token, .. } => {
                out.push(Effect::Reply(token, Reply::DeleteOffsets(Err(error))));
            }
            // The next look finds them again.
            Pending::Expire { .. } => {}
            Pending::Drop { topic, .. } => self.owe_drop(now_ms, topic),
        }
    }

    fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        while let Some(key) = self.timers.pop_due(now_ms) {
            let group_id = match &key {
                TimerKey::Member(group, _) | TimerKey::Pending(group, _) => group.clone(),
                TimerKey::Join(group) | TimerKey::Sync(group) => group.clone(),
                TimerKey::DropRetry => {
                    self.retry_drops(now_ms, out);
                    continue;
                }
            };
            let mut cx = context!(self, now_ms, out);
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.due(&mut cx, key);
            }
            self.settle_group(&group_id);
        }
        self.expire_if_due(now_ms, out);
    }
}

/// Whether a group id can be stored and makes sense.
pub(super) fn check_group_id(group: &str) -> Result<(), GroupError> {
    if group.is_empty() || group.len() > NAME_BYTES_MAX {
        return Err(GroupError::InvalidGroupId);
    }
    Ok(())
}
