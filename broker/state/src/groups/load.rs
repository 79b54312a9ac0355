//! Rebuilding the machine from the records of its partition, after a start. It never persists.

use std::sync::Arc;

use bytes::Bytes;

use super::commit::committed;
use super::group::{Group, Member};
use super::machine::{GroupCoordinator, context};
use super::timers::Deadline;
use super::view::GroupState;
use crate::codec::CodecError;
use crate::offsets::{GroupValue, Key, MemberValue, OffsetValue};

impl GroupCoordinator {
    /// Takes over one record, in log order.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), CodecError> {
        match (Key::decode(key)?, value) {
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                Some(value),
            ) => {
                let committed = committed(OffsetValue::decode(value)?);
                let key = (topic.into(), partition);
                let group = self.replayed_group(&group);
                let id = group.id.clone();
                group.offsets.insert(key.clone(), committed);
                self.open.overtaken(&id, &key);
            }
            (
                Key::Offset {
                    group,
                    topic,
                    partition,
                },
                None,
            ) => {
                let key = (topic.into(), partition);
                if let Some(held) = self.groups.get_mut(group.as_str()) {
                    held.offsets.remove(&key);
                    self.open.overtaken(&held.id, &key);
                }
                self.settle_group(&group);
            }
            (Key::Group { group }, Some(value)) => {
                let value = GroupValue::decode(value)?;
                self.replayed_group(&group).restore(value);
                self.count_members(&group);
            }
            (Key::Group { group }, None) => {
                if let Some(held) = self.groups.get_mut(group.as_str()) {
                    let offsets = std::mem::take(&mut held.offsets);
                    *held = Group {
                        counted_bytes: held.counted_bytes,
                        offsets,
                        ..Group::new(held.id.clone(), 0)
                    };
                }
                self.settle_group(&group);
            }
        }
        Ok(())
    }

    /// Takes over one record of a producer's transaction, in log order.
    pub fn replay_transactional(
        &mut self,
        producer_id: i64,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), CodecError> {
        let (
            Key::Offset {
                group,
                topic,
                partition,
            },
            Some(value),
        ) = (Key::decode(key)?, value)
        else {
            // Kafka's coordinator writes nothing else in transactions.
            return self.replay(key, value);
        };
        let value = committed(OffsetValue::decode(value)?);
        let id = self.replayed_group(&group).id.clone();
        self.open
            .insert(producer_id, (id, (topic.into(), partition)), value);
        Ok(())
    }

    /// Takes over the end of a producer's transaction, in log order.
    pub fn replay_end(&mut self, producer_id: i64, commit: bool) {
        self.transaction_ended(producer_id, commit);
    }

    fn replayed_group(&mut self, group: &str) -> &mut Group {
        let id: Arc<str> = group.into();
        self.groups
            .entry(id.clone())
            .or_insert_with(|| Group::new(id, 0))
    }

    /// All records are in: sessions begin now, as the members could not be heard meanwhile.
    pub fn finish_load(&mut self, now_ms: i64) {
        let mut out = Vec::new();
        let mut cx = context!(self, now_ms, &mut out);
        for group in self.groups.values_mut() {
            let ids: Vec<Arc<str>> = group.members.keys().cloned().collect();
            for id in ids {
                group.refresh_session(&mut cx, &id);
            }
        }
        self.arm_expiry(now_ms);
    }
}

impl Group {
    fn restore(&mut self, value: GroupValue) {
        self.state = if value.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        self.state_since_ms = value.state_since_ms;
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        self.members.clear();
        self.statics.clear();
        let protocol = value.protocol.clone().unwrap_or_default();
        for member in value.members {
            let id: Arc<str> = member.member_id.as_str().into();
            if let Some(instance) = &member.instance_id {
                self.statics.insert(instance.clone(), id.clone());
            }
            self.members.insert(id, restored(member, &protocol));
        }
        let leader = value
            .leader
            .map(Arc::from)
            .filter(|leader| self.members.contains_key(leader));
        self.leader = leader.or_else(|| self.members.keys().next().cloned());
        self.protocol = value.protocol;
    }
}

fn restored(value: MemberValue, protocol: &str) -> Member {
    let rebalance = if value.rebalance_timeout_ms < 0 {
        value.session_timeout_ms
    } else {
        value.rebalance_timeout_ms
    };
    let protocols: Vec<(String, Bytes)> = vec![(protocol.to_owned(), value.subscription)];
    Member {
        instance_id: value.instance_id,
        client_id: value.client_id,
        client_host: value.client_host,
        rebalance_timeout_ms: rebalance,
        session_timeout_ms: value.session_timeout_ms,
        protocols,
        assignment: value.assignment,
        joining: None,
        syncing: None,
        is_new: false,
        session: Deadline::default(),
    }
}
