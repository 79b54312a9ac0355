//! OffsetCommit, DeleteGroups, and the offsets of topics that are gone. What is shown as committed is durable: offsets
//! enter the state only when their records do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::group::{Deletion, Group, OffsetKey};
use super::machine::{Context, GroupCoordinator, Pending, check_group_id, context};
use super::timers::TimerKey;
use super::types::{
    CommitEntry, CommitRequest, DROP_RETRY_MS, Effect, GroupError, RECORDS_PER_PERSIST_MAX, Reply,
    StoredRecord, Token,
};
use super::view::{CommittedOffset, GroupState};
use crate::offsets::{Key, OffsetValue};

pub(super) fn offset_key(group: &str, key: &OffsetKey) -> Key {
    Key::Offset {
        group: group.to_owned(),
        topic: key.0.to_string(),
        partition: key.1,
    }
}

pub(super) fn tombstone(key: Key) -> StoredRecord {
    StoredRecord { key, value: None }
}

impl GroupCoordinator {
    pub(super) fn commit(
        &mut self,
        now_ms: i64,
        token: Token,
        request: CommitRequest,
        out: &mut Vec<Effect>,
    ) {
        let checked = self.check_commit(now_ms, &request, out);
        let producer = request.producer;
        let expire_ms = request
            .retention_ms
            .map(|ms| now_ms.saturating_add(ms.max(0)));
        let mut results: Vec<Result<(), GroupError>> = vec![checked; request.entries.len()];
        let mut records = Vec::new();
        let mut values = Vec::new();
        if checked.is_ok() {
            for (index, entry) in request.entries.into_iter().enumerate() {
                if entry.metadata.len() > self.config.offset_metadata_bytes_max {
                    results[index] = Err(GroupError::OffsetMetadataTooLarge);
                    continue;
                }
                // Its earlier offsets are still to be dropped; the removal must not take this one with it.
                if self.drops_owed.contains(&entry.topic) {
                    results[index] = Err(GroupError::CoordinatorNotAvailable);
                    continue;
                }
                let key: OffsetKey = (entry.topic.as_str().into(), entry.partition);
                let value = value_of(entry, now_ms, expire_ms);
                let stored = Some(value.encode());
                records.push(StoredRecord {
                    key: offset_key(&request.group, &key),
                    value: stored,
                });
                values.push((index, key, committed(value)));
            }
        }
        if values.is_empty() {
            out.push(Effect::Reply(token, Reply::Commit(results)));
            self.settle_group(&request.group);
            return;
        }
        let group = self
            .groups
            .get_mut(request.group.as_str())
            .expect("check_commit finds or makes it");
        for (_, key, _) in &values {
            *group.inflight.entry(key.clone()).or_default() += 1;
            if producer.is_some() {
                self.open.on_the_way(&group.id, key);
            }
        }
        let pending = Pending::Commit {
            group: group.id.clone(),
            token,
            producer_id: producer.map(|(producer_id, _)| producer_id),
            results,
            values,
        };
        let mut cx = context!(self, now_ms, out);
        match producer {
            None => {
                cx.persist(records, pending);
            }
            Some(producer) => cx.persist_transactional(producer, records, pending),
        }
    }

    /// Whether the group takes commits of this member; makes the group for a commit from outside.
    fn check_commit(
        &mut self,
        now_ms: i64,
        request: &CommitRequest,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        check_group_id(&request.group)?;
        if !self.groups.contains_key(request.group.as_str()) {
            if request.generation >= 0 {
                return Err(GroupError::GroupIdNotFound);
            }
            self.get_or_create(&request.group, now_ms)?;
        }
        let mut cx = context!(self, now_ms, out);
        let group = self
            .groups
            .get_mut(request.group.as_str())
            .expect("it was there or has just been made");
        group.check_commit(&mut cx, request)
    }

    /// Offsets are durable.
    pub(super) fn committed(
        &mut self,
        now_ms: i64,
        group_id: &Arc<str>,
        values: Vec<(usize, OffsetKey, CommittedOffset)>,
    ) {
        let group = self
            .groups
            .entry(group_id.clone())
            .or_insert_with(|| Group::new(group_id.clone(), now_ms));
        for (_, key, value) in values {
            group.settle_inflight(&key);
            // It stands behind them in the log, so that it counts whatever becomes of them.
            self.open.overtaken(group_id, &key);
            group.offsets.insert(key, value);
        }
    }

    pub(super) fn settle_inflight(&mut self, group: &Arc<str>, key: &OffsetKey) {
        if let Some(group) = self.groups.get_mut(group) {
            group.settle_inflight(key);
        }
    }

    pub(super) fn delete(
        &mut self,
        now_ms: i64,
        token: Token,
        group_id: &str,
        out: &mut Vec<Effect>,
    ) {
        let refusal = match (
            check_group_id(group_id),
            self.groups.get(group_id).map(|group| group.state),
        ) {
            (Err(error), _) => Some(error),
            (Ok(()), None) => Some(GroupError::GroupIdNotFound),
            (Ok(()), Some(GroupState::Empty)) => None,
            (Ok(()), Some(GroupState::Dead)) => Some(GroupError::CoordinatorNotAvailable),
            (
                Ok(()),
                Some(
                    GroupState::PreparingRebalance
                    | GroupState::CompletingRebalance
                    | GroupState::Stable,
                ),
            ) => Some(GroupError::NonEmptyGroup),
        };
        if let Some(error) = refusal {
            out.push(Effect::Reply(token, Reply::Delete(Err(error))));
            return;
        }
        let mut cx = context!(self, now_ms, out);
        let group = self
            .groups
            .get_mut(group_id)
            .expect("it is empty, so it is there");
        let pending = self.open.keys(&group.id).cloned().collect();
        group.delete(&mut cx, Some(token), pending);
    }

    /// A part of a deletion is decided.
    pub(super) fn deleted_part(
        &mut self,
        group_id: &Arc<str>,
        keys: &[OffsetKey],
        durable: bool,
        out: &mut Vec<Effect>,
    ) {
        let group = self
            .groups
            .get_mut(group_id)
            .expect("a group stays while it is being deleted");
        if durable {
            for key in keys {
                group.offsets.remove(key);
                self.open.overtaken(group_id, key);
            }
        }
        let deletion = group.deletion.as_mut().expect("a deletion is under way");
        if durable && deletion.token.is_none() {
            self.happened.offsets_expired += keys.len() as u64;
        }
        deletion.failed |= !durable;
        deletion.outstanding -= 1;
        if deletion.outstanding > 0 {
            return;
        }
        let (token, failed) = (deletion.token, deletion.failed);
        let since_ms = deletion.empty_since_ms;
        group.deletion = None;
        let result = if failed {
            group.state = GroupState::Empty;
            group.state_since_ms = since_ms;
            Err(GroupError::CoordinatorNotAvailable)
        } else {
            self.groups.remove(group_id);
            Ok(())
        };
        if let Some(token) = token {
            out.push(Effect::Reply(token, Reply::Delete(result)));
        }
    }

    /// Drops every group's offsets of a topic that is gone.
    pub(super) fn drop_topic(&mut self, now_ms: i64, topic: &str, out: &mut Vec<Effect>) {
        let mut keys: Vec<(Arc<str>, OffsetKey)> = Vec::new();
        for group in self.groups.values() {
            let held: BTreeSet<&OffsetKey> = group
                .offsets
                .keys()
                .chain(group.inflight.keys())
                .chain(self.open.keys(&group.id))
                .filter(|(name, _)| **name == *topic)
                .collect();
            keys.extend(held.into_iter().map(|key| (group.id.clone(), key.clone())));
        }
        keys.sort();
        let mut cx = context!(self, now_ms, out);
        for part in keys.chunks(RECORDS_PER_PERSIST_MAX) {
            let records = part
                .iter()
                .map(|(group, key)| tombstone(offset_key(group, key)))
                .collect();
            cx.persist(
                records,
                Pending::Drop {
                    topic: topic.to_owned(),
                    keys: part.to_vec(),
                },
            );
        }
    }

    /// The removal of these offsets is durable.
    pub(super) fn dropped(&mut self, keys: &[(Arc<str>, OffsetKey)]) {
        for (group_id, key) in keys {
            if let Some(group) = self.groups.get_mut(group_id) {
                group.offsets.remove(key);
            }
            self.open.overtaken(group_id, key);
            self.settle_group(group_id);
        }
    }

    /// The log did not take the removal: it is tried again, and until then nothing of the topic is shown or taken.
    pub(super) fn owe_drop(&mut self, now_ms: i64, topic: String) {
        self.drops_owed.insert(topic);
        self.timers
            .arm(&mut self.drop_retry, now_ms + DROP_RETRY_MS, || {
                TimerKey::DropRetry
            });
    }

    pub(super) fn retry_drops(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if self
            .timers
            .settle(&mut self.drop_retry, now_ms, || TimerKey::DropRetry)
        {
            for topic in std::mem::take(&mut self.drops_owed) {
                self.drop_topic(now_ms, &topic, out);
            }
        }
    }
}

fn value_of(entry: CommitEntry, now_ms: i64, expire_ms: Option<i64>) -> OffsetValue {
    OffsetValue {
        offset: entry.offset,
        leader_epoch: entry.leader_epoch,
        metadata: entry.metadata,
        commit_ms: now_ms,
        expire_ms: expire_ms.unwrap_or(-1),
    }
}

pub(super) fn committed(value: OffsetValue) -> CommittedOffset {
    CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata,
        commit_ms: value.commit_ms,
        expire_ms: value.expire_ms,
    }
}

impl Group {
    fn check_commit(
        &mut self,
        cx: &mut Context<'_>,
        request: &CommitRequest,
    ) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty if request.generation < 0 => return Ok(()),
            GroupState::Empty
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => {}
        }
        let is_named = request.generation >= 0
            || !request.member_id.is_empty()
            || request.instance_id.is_some();
        if request.producer.is_some() && !is_named {
            // The transaction's coordinator knows the producer, which is as good.
            return Ok(());
        }
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.refresh_session(cx, &request.member_id);
        if self.state == GroupState::CompletingRebalance && request.producer.is_none() {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    pub(super) fn settle_inflight(&mut self, key: &OffsetKey) {
        if let Some(count) = self.inflight.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.inflight.remove(key);
            }
        }
    }

    /// Removes an empty group with everything it holds; also what is on its way to the log, which comes before.
    pub(super) fn delete(
        &mut self,
        cx: &mut Context<'_>,
        token: Option<Token>,
        pending: Vec<OffsetKey>,
    ) {
        for (id, mut deadline) in std::mem::take(&mut self.pending) {
            cx.timers
                .disarm(&mut deadline, || TimerKey::Pending(self.id.clone(), id));
        }
        let empty_since_ms = self.state_since_ms;
        self.enter(cx, GroupState::Dead);
        let held: BTreeSet<OffsetKey> = self
            .offsets
            .keys()
            .chain(self.inflight.keys())
            .cloned()
            .chain(pending)
            .collect();
        let held: Vec<OffsetKey> = held.into_iter().collect();
        let mut parts: Vec<Vec<OffsetKey>> = held
            .chunks(RECORDS_PER_PERSIST_MAX)
            .map(<[_]>::to_vec)
            .collect();
        parts.push(Vec::new());
        self.deletion = Some(Deletion {
            token,
            empty_since_ms,
            outstanding: parts.len(),
            failed: false,
        });
        let last = parts.len() - 1;
        for (number, keys) in parts.into_iter().enumerate() {
            let mut records: Vec<StoredRecord> = keys
                .iter()
                .map(|key| tombstone(offset_key(&self.id, key)))
                .collect();
            if number == last {
                records.push(tombstone(Key::Group {
                    group: self.id.to_string(),
                }));
            }
            cx.persist(
                records,
                Pending::Delete {
                    group: self.id.clone(),
                    keys,
                },
            );
        }
    }
}
