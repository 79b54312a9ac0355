//! SyncGroup, Heartbeat, LeaveGroup.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::group::Group;
use super::machine::{Context, GroupCoordinator, Pending, check_group_id, context};
use super::timers::TimerKey;
use super::types::{
    Effect, GroupError, HeartbeatRequest, LeaveMember, LeaveRequest, PersistId, Reply, SyncRequest,
    Synced, Token,
};
use super::view::GroupState;

impl GroupCoordinator {
    pub(super) fn sync(
        &mut self,
        now_ms: i64,
        token: Token,
        request: SyncRequest,
        out: &mut Vec<Effect>,
    ) {
        let mut cx = context!(self, now_ms, out);
        if let Err(error) = check_group_id(&request.group) {
            return cx.refuse_sync(token, error);
        }
        match self.groups.get_mut(request.group.as_str()) {
            Some(group) => group.sync(&mut cx, token, request),
            None => cx.refuse_sync(token, GroupError::UnknownMemberId),
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now_ms: i64,
        token: Token,
        request: &HeartbeatRequest,
        out: &mut Vec<Effect>,
    ) {
        let mut cx = context!(self, now_ms, out);
        let result = check_group_id(&request.group).and_then(|()| {
            let group = self
                .groups
                .get_mut(request.group.as_str())
                .ok_or(GroupError::UnknownMemberId)?;
            group.heartbeat(&mut cx, request)
        });
        cx.reply(token, Reply::Heartbeat(result));
    }

    pub(super) fn leave(
        &mut self,
        now_ms: i64,
        token: Token,
        request: &LeaveRequest,
        out: &mut Vec<Effect>,
    ) {
        let mut cx = context!(self, now_ms, out);
        let mut results = Vec::with_capacity(request.members.len());
        for leaver in &request.members {
            let result = check_group_id(&request.group).and_then(|()| {
                let group = self
                    .groups
                    .get_mut(request.group.as_str())
                    .ok_or(GroupError::UnknownMemberId)?;
                group.leave(&mut cx, leaver)
            });
            results.push(result);
        }
        cx.reply(token, Reply::Leave(results));
        self.settle_group(&request.group);
    }
}

impl Group {
    fn sync(&mut self, cx: &mut Context<'_>, token: Token, request: SyncRequest) {
        if let Err(error) = self.check_sync(&request) {
            return cx.refuse_sync(token, error);
        }
        let id = request.member_id.as_str();
        match self.state {
            GroupState::Empty | GroupState::Dead => {
                cx.refuse_sync(token, GroupError::UnknownMemberId)
            }
            GroupState::PreparingRebalance => {
                cx.refuse_sync(token, GroupError::RebalanceInProgress)
            }
            GroupState::CompletingRebalance => {
                self.has_synced(cx, id);
                let member = self.members.get_mut(id).expect("validated");
                if let Some(earlier) = member.syncing.replace(token) {
                    cx.refuse_sync(earlier, GroupError::RebalanceInProgress);
                }
                if self.is_leader(id) && self.storing.is_none() {
                    self.store_assignment(cx, request.assignments);
                }
            }
            GroupState::Stable => {
                self.has_synced(cx, id);
                let synced = self.synced(self.members[id].assignment.clone());
                cx.reply(token, Reply::Sync(Ok(synced)));
                self.refresh_session(cx, id);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs =
            |claimed: &Option<String>, ours: &Option<String>| claimed.is_some() && claimed != ours;
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn has_synced(&mut self, cx: &mut Context<'_>, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            cx.timers
                .disarm(&mut self.sync_deadline, || TimerKey::Sync(self.id.clone()));
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// The leader has spoken: its word counts once it is durable.
    fn store_assignment(&mut self, cx: &mut Context<'_>, given: Vec<(String, Bytes)>) {
        let mut given: HashMap<String, Bytes> = given.into_iter().collect();
        let assignments: HashMap<Arc<str>, Bytes> = self
            .members
            .keys()
            .map(|id| (id.clone(), given.remove(&**id).unwrap_or_default()))
            .collect();
        let record = self.record(&assignments);
        let pending = Pending::Assignment {
            group: self.id.clone(),
            generation: self.generation,
            assignments,
        };
        self.storing = Some(cx.persist(vec![record], pending));
    }

    fn still_stores(&self, id: PersistId, generation: i32) -> bool {
        self.state == GroupState::CompletingRebalance
            && self.generation == generation
            && self.storing == Some(id)
    }

    /// The assignment is durable: everybody who waits gets theirs.
    pub(super) fn assigned(
        &mut self,
        cx: &mut Context<'_>,
        id: PersistId,
        generation: i32,
        mut assignments: HashMap<Arc<str>, Bytes>,
    ) {
        if !self.still_stores(id, generation) {
            return;
        }
        self.storing = None;
        self.enter(cx, GroupState::Stable);
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("it was listed");
            member.assignment = assignments.remove(&id).unwrap_or_default();
            if let Some(token) = member.syncing.take() {
                let synced = self.synced(self.members[&id].assignment.clone());
                cx.reply(token, Reply::Sync(Ok(synced)));
                self.refresh_session(cx, &id);
            }
        }
    }

    /// The log did not take the assignment: everybody who waits is told, and the group tries again.
    pub(super) fn assignment_failed(
        &mut self,
        cx: &mut Context<'_>,
        id: PersistId,
        generation: i32,
        error: GroupError,
    ) {
        if !self.still_stores(id, generation) {
            return;
        }
        self.refuse_waiting_syncs(cx, error);
        self.rebalance(cx);
    }

    fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => {
                self.refresh_session(cx, &request.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.refresh_session(cx, &request.member_id);
                Ok(())
            }
        }
    }

    fn leave(&mut self, cx: &mut Context<'_>, leaver: &LeaveMember) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some((id, mut deadline)) = self.pending.remove_entry(leaver.member_id.as_str()) {
            cx.timers
                .disarm(&mut deadline, || TimerKey::Pending(self.id.clone(), id));
            self.complete_if_all_joined(cx);
            return Ok(());
        }
        let id = match &leaver.instance_id {
            // A static member may be taken out by its instance id alone.
            Some(instance) if leaver.member_id.is_empty() => self
                .statics
                .get(instance)
                .cloned()
                .ok_or(GroupError::UnknownMemberId)?,
            Some(_) | None => {
                self.validate_member(&leaver.member_id, leaver.instance_id.as_deref())?;
                leaver.member_id.as_str().into()
            }
        };
        self.remove_and_update(cx, &id);
        Ok(())
    }
}
