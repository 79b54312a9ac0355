//! One group and its members: the state itself and the questions asked of it. It never replies or persists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::timers::Deadline;
use super::types::{GroupError, JoinMember, JoinRequest, PersistId, StoredRecord, Token};
use super::view::{CommittedOffset, GroupState};
use crate::offsets::{GroupValue, Key, MemberValue};

/// What a member takes beside its protocols and its assignment: ids, addresses, entries in maps.
pub(super) const MEMBER_OVERHEAD_BYTES: usize = 1_024;

/// What protocols take of memory.
pub(super) fn protocol_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols
        .iter()
        .map(|(name, metadata)| name.len() + metadata.len())
        .sum()
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its join that waits for the others.
    pub(super) joining: Option<Token>,
    /// Its sync that waits for the leader.
    pub(super) syncing: Option<Token>,
    /// In its very first join: it is given up after a while even though it waits.
    pub(super) is_new: bool,
    pub(super) session: Deadline,
}

impl Member {
    /// A member that has just asked to join.
    pub(super) fn of(request: &JoinRequest, token: Token) -> Self {
        let mut member = Member {
            instance_id: request.instance_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joining: Some(token),
            syncing: None,
            is_new: true,
            session: Deadline::default(),
        };
        member.update(request);
        member
    }

    /// Takes over what a later join says.
    pub(super) fn update(&mut self, request: &JoinRequest) {
        self.client_id.clone_from(&request.client_id);
        self.client_host.clone_from(&request.client_host);
        self.rebalance_timeout_ms = request.rebalance_timeout_ms.max(0);
        self.session_timeout_ms = request.session_timeout_ms;
        self.protocols.clone_from(&request.protocols);
    }

    /// Its metadata for a protocol.
    pub(super) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self
            .protocols
            .iter()
            .find(|(name, _)| Some(name.as_str()) == protocol);
        found
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        MEMBER_OVERHEAD_BYTES + protocol_bytes(&self.protocols) + self.assignment.len()
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}

/// How a join phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinPhase {
    /// A group that was empty waits a while for more members to come.
    Initial {
        /// What is left of the rebalance timeout for prolonging the wait.
        remaining_ms: i64,
        /// Somebody joined since the wait began or was prolonged.
        new_member_added: bool,
    },
    /// All known members must join again.
    Barrier,
}

/// A deletion under way.
#[derive(Debug)]
pub(super) struct Deletion {
    /// Who asked; nobody, when all its offsets have expired.
    pub(super) token: Option<Token>,
    /// Since when it was empty, for the case that it stays.
    pub(super) empty_since_ms: i64,
    pub(super) outstanding: usize,
    pub(super) failed: bool,
}

/// A topic's partition.
pub(super) type OffsetKey = (Arc<str>, i32);

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: GroupState,
    pub(super) state_since_ms: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// `group.instance.id` to member id.
    pub(super) statics: HashMap<String, Arc<str>>,
    /// Member ids given out with MEMBER_ID_REQUIRED and not yet used.
    pub(super) pending: BTreeMap<Arc<str>, Deadline>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(super) pending_sync: BTreeSet<Arc<str>>,
    pub(super) phase: JoinPhase,
    pub(super) join_deadline: Deadline,
    pub(super) sync_deadline: Deadline,
    /// The leader's assignment on its way to the log.
    pub(super) storing: Option<PersistId>,
    pub(super) offsets: BTreeMap<OffsetKey, CommittedOffset>,
    /// Commits on their way to the log.
    pub(super) inflight: BTreeMap<OffsetKey, u32>,
    pub(super) deletion: Option<Deletion>,
    /// What the machine has counted for this group's members.
    pub(super) counted_bytes: usize,
}

impl Group {
    /// A group that nobody has joined yet.
    pub(super) fn new(id: Arc<str>, now_ms: i64) -> Self {
        Group {
            id,
            state: GroupState::Empty,
            state_since_ms: now_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: HashMap::new(),
            pending: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            phase: JoinPhase::Barrier,
            join_deadline: Deadline::default(),
            sync_deadline: Deadline::default(),
            storing: None,
            offsets: BTreeMap::new(),
            inflight: BTreeMap::new(),
            deletion: None,
            counted_bytes: 0,
        }
    }

    /// What its members take of memory, in bytes.
    pub(super) fn member_bytes(&self) -> usize {
        self.members.values().map(Member::bytes).sum()
    }

    /// Nothing of it is anywhere: it can be forgotten without a record.
    pub(super) fn is_trivial(&self) -> bool {
        self.state == GroupState::Empty
            && self.generation == 0
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.inflight.is_empty()
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Whether this member, with this instance id, is of the group.
    pub(super) fn validate_member(
        &self,
        member: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if **current != *member => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(member) {
            return Err(GroupError::UnknownMemberId);
        }
        Ok(())
    }

    /// Whether a member with these protocols fits the members there are.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all = |name: &str| self.members.values().all(|member| member.supports(name));
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| by_all(name))
    }

    /// The protocol that all support and most like best; between equals, the leader's order decides.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let candidate = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| candidate(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        let first = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader));
        let order = first
            .map(|member| member.protocols.as_slice())
            .unwrap_or_default();
        let chosen = order
            .iter()
            .map(|(name, _)| name.as_str())
            .find(|name| votes.get(name) == Some(&most));
        chosen
            .or_else(|| {
                votes
                    .iter()
                    .find(|(_, count)| **count == most)
                    .map(|(name, _)| *name)
            })
            .map(str::to_owned)
    }

    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members
            .values()
            .map(|member| i64::from(member.rebalance_timeout_ms))
            .max()
            .unwrap_or(0)
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// What the leader is told about the members.
    pub(super) fn join_members(&self) -> Vec<JoinMember> {
        let describe = |(id, member): (&Arc<str>, &Member)| JoinMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(describe).collect()
    }

    /// The record of its metadata with these assignments; a member that has none here keeps the one it has.
    pub(super) fn record(&self, assignments: &HashMap<Arc<str>, Bytes>) -> StoredRecord {
        let members = self.members.iter().map(|(id, member)| MemberValue {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: assignments.get(id).unwrap_or(&member.assignment).clone(),
        });
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_ref().map(|leader| leader.to_string()),
            state_since_ms: self.state_since_ms,
            members: members.collect(),
        };
        let key = Key::Group {
            group: self.id.to_string(),
        };
        StoredRecord {
            key,
            value: Some(value.encode()),
        }
    }
}
