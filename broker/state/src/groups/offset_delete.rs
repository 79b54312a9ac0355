//! OffsetDelete: single offsets of a group go, unless somebody reads the topic.

use super::commit::{offset_key, tombstone};
use super::group::{Group, OffsetKey};
use super::machine::{GroupCoordinator, Pending, check_group_id, context};
use super::types::{DeleteOffsetsRequest, Effect, GroupError, Reply, Token};
use super::view::GroupState;

impl GroupCoordinator {
    pub(super) fn delete_offsets(
        &mut self,
        now_ms: i64,
        token: Token,
        request: DeleteOffsetsRequest,
        out: &mut Vec<Effect>,
    ) {
        let group = match self.group_to_delete_from(&request.group) {
            Ok(group) => group,
            Err(error) => {
                out.push(Effect::Reply(token, Reply::DeleteOffsets(Err(error))));
                return;
            }
        };
        let (id, subscribed) = (group.id.clone(), group.subscribed_topics());
        let consumers = group.is_of_consumers();
        let mut results = Vec::with_capacity(request.partitions.len());
        let mut keys: Vec<OffsetKey> = Vec::new();
        for (topic, partition) in request.partitions {
            if Group::reads(subscribed.as_ref(), consumers, &topic) {
                results.push(Err(GroupError::SubscribedToTopic));
                continue;
            }
            results.push(Ok(()));
            let key: OffsetKey = (topic.into(), partition);
            let is_anywhere = group.offsets.contains_key(&key)
                || group.inflight.contains_key(&key)
                || self.open.is_unstable(&id, &key);
            if is_anywhere {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            out.push(Effect::Reply(token, Reply::DeleteOffsets(Ok(results))));
            return;
        }
        let gone = |key: &OffsetKey| tombstone(offset_key(&id, key));
        let records = keys.iter().map(gone).collect();
        let pending = Pending::DeleteOffsets {
            group: id,
            token,
            results,
            keys,
        };
        context!(self, now_ms, out).persist(records, pending);
    }

    fn group_to_delete_from(&self, group: &str) -> Result<&Group, GroupError> {
        check_group_id(group)?;
        let group = self.groups.get(group).ok_or(GroupError::GroupIdNotFound)?;
        match group.state {
            GroupState::Dead => Err(GroupError::CoordinatorNotAvailable),
            GroupState::Empty => Ok(group),
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable
                if group.is_of_consumers() =>
            {
                Ok(group)
            }
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => Err(GroupError::NonEmptyGroup),
        }
    }
}
