//! JoinGroup: who may join, under which id, and whether that starts a rebalance.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::{Group, JoinPhase, MEMBER_OVERHEAD_BYTES, Member, protocol_bytes};
use super::machine::{Context, GroupCoordinator, Pending, Replaced, check_group_id, context};
use super::timers::{Deadline, TimerKey};
use super::types::{
    Effect, GroupError, JoinRequest, Joined, NAME_BYTES_MAX, NEW_MEMBER_JOIN_TIMEOUT_MS, Reply,
    Token,
};
use super::view::GroupState;

impl GroupCoordinator {
    pub(super) fn join(
        &mut self,
        now_ms: i64,
        token: Token,
        request: &JoinRequest,
        out: &mut Vec<Effect>,
    ) {
        let refuse = |out: &mut Vec<Effect>, error| {
            let refused = super::types::JoinRefused {
                error,
                member_id: request.member_id.clone(),
            };
            out.push(Effect::Reply(token, Reply::Join(Err(refused))));
        };
        if let Err(error) = self.check_join(request) {
            return refuse(out, error);
        }
        if !request.member_id.is_empty() && !self.groups.contains_key(request.group.as_str()) {
            return refuse(out, GroupError::UnknownMemberId);
        }
        let more = MEMBER_OVERHEAD_BYTES + protocol_bytes(&request.protocols);
        if self.member_bytes + more > self.config.member_bytes_max {
            return refuse(out, GroupError::CoordinatorNotAvailable);
        }
        if let Err(error) = self.get_or_create(&request.group, now_ms) {
            return refuse(out, error);
        }
        let mut cx = context!(self, now_ms, out);
        let group = self
            .groups
            .get_mut(request.group.as_str())
            .expect("it has just been made");
        group.join(&mut cx, token, request);
        self.settle_group(&request.group);
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        check_group_id(&request.group)?;
        let allowed = self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let instance = request.instance_id.as_deref().unwrap_or("");
        let names = [request.member_id.as_str(), instance, &request.client_id];
        if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(GroupError::UnknownMemberId);
        }
        let protocols = request.protocols.iter().map(|(name, _)| name.as_str());
        if protocols
            .chain([request.protocol_type.as_str()])
            .any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }
}

impl Group {
    fn join(&mut self, cx: &mut Context<'_>, token: Token, request: &JoinRequest) {
        let member_id = request.member_id.as_str();
        if self.state == GroupState::Dead {
            return cx.refuse_join(token, GroupError::CoordinatorNotAvailable, member_id);
        }
        if !self.has_room_for(cx, member_id) {
            if self.members.contains_key(member_id) {
                self.remove_and_update(cx, member_id);
            }
            return cx.refuse_join(token, GroupError::GroupMaxSizeReached, "");
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return cx.refuse_join(token, GroupError::InconsistentGroupProtocol, member_id);
        }
        if member_id.is_empty() {
            self.join_unknown(cx, token, request);
        } else if self.pending.contains_key(member_id) {
            self.add_and_rebalance(cx, token, request, member_id.into());
        } else {
            self.join_known(cx, token, request);
        }
    }

    fn has_room_for(&self, cx: &Context<'_>, member_id: &str) -> bool {
        let max = cx.config.group_size_max;
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let waits = self
                    .members
                    .get(member_id)
                    .is_some_and(|member| member.joining.is_some());
                waits
                    || self
                        .members
                        .values()
                        .filter(|member| member.joining.is_some())
                        .count()
                        < max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.members.contains_key(member_id) || self.members.len() < max
            }
        }
    }

    fn join_unknown(&mut self, cx: &mut Context<'_>, token: Token, request: &JoinRequest) {
        let fresh: Arc<str> = request.fresh_member_id.as_str().into();
        assert!(
            !self.members.contains_key(&fresh) && !self.pending.contains_key(&fresh),
            "the caller draws ids that nobody has"
        );
        if let Some(instance) = &request.instance_id {
            return match self.statics.get(instance).cloned() {
                Some(old) => self.replace_static(cx, token, request, (&old, fresh)),
                None => self.add_and_rebalance(cx, token, request, fresh),
            };
        }
        if !request.require_known_member_id {
            return self.add_and_rebalance(cx, token, request, fresh);
        }
        if self.pending.len() + self.members.len() >= cx.config.group_size_max {
            return cx.refuse_join(token, GroupError::GroupMaxSizeReached, "");
        }
        let mut deadline = Deadline::default();
        let at_ms = cx.now_ms + i64::from(request.session_timeout_ms);
        cx.timers.arm(&mut deadline, at_ms, || {
            TimerKey::Pending(self.id.clone(), fresh.clone())
        });
        self.pending.insert(fresh.clone(), deadline);
        cx.refuse_join(token, GroupError::MemberIdRequired, &fresh);
    }

    fn join_known(&mut self, cx: &mut Context<'_>, token: Token, request: &JoinRequest) {
        let member_id = request.member_id.as_str();
        if let Err(error) = self.validate_member(member_id, request.instance_id.as_deref()) {
            return cx.refuse_join(token, error, member_id);
        }
        let same = self.members[member_id].protocols == request.protocols;
        match self.state {
            GroupState::PreparingRebalance => self.update_and_rebalance(cx, token, request),
            // The answer to its join may have been lost: it gets this generation again.
            GroupState::CompletingRebalance if same => {
                self.members
                    .get_mut(member_id)
                    .expect("validated")
                    .update(request);
                self.answer_current(cx, token, member_id);
            }
            // A follower that asks again with nothing new; a leader that does so wants a new assignment.
            GroupState::Stable if same && !self.is_leader(member_id) => {
                self.members
                    .get_mut(member_id)
                    .expect("validated")
                    .update(request);
                self.answer_current(cx, token, member_id);
                self.refresh_session(cx, member_id);
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.update_and_rebalance(cx, token, request)
            }
            GroupState::Empty | GroupState::Dead => {
                cx.refuse_join(token, GroupError::UnknownMemberId, member_id);
            }
        }
    }

    /// Answers a join with the generation as it is.
    fn answer_current(&self, cx: &mut Context<'_>, token: Token, member_id: &str) {
        let members = if self.is_leader(member_id) {
            self.join_members()
        } else {
            Vec::new()
        };
        let joined = self.joined(member_id, members);
        cx.reply(token, Reply::Join(Ok(joined)));
    }

    pub(super) fn joined(&self, member_id: &str, members: Vec<super::types::JoinMember>) -> Joined {
        Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or("").to_owned(),
            members,
            skip_assignment: false,
        }
    }

    fn add_and_rebalance(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
        id: Arc<str>,
    ) {
        if let Some(mut deadline) = self.pending.remove(&id) {
            cx.timers.disarm(&mut deadline, || {
                TimerKey::Pending(self.id.clone(), id.clone())
            });
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &request.instance_id
            && let Some(old) = self.statics.insert(instance.clone(), id.clone())
            && self.members.contains_key(&old)
        {
            self.remove_member(cx, &old, GroupError::FencedInstanceId);
            self.statics.insert(instance.clone(), id.clone());
        }
        let mut member = Member::of(request, token);
        let at_ms = cx.now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS;
        cx.timers.arm(&mut member.session, at_ms, || {
            TimerKey::Member(self.id.clone(), id.clone())
        });
        self.members.insert(id, member);
        if let JoinPhase::Initial {
            new_member_added, ..
        } = &mut self.phase
            && self.state == GroupState::PreparingRebalance
            && self.generation == 0
        {
            *new_member_added = true;
        }
        self.rebalance(cx);
    }

    fn update_and_rebalance(&mut self, cx: &mut Context<'_>, token: Token, request: &JoinRequest) {
        let member = self
            .members
            .get_mut(request.member_id.as_str())
            .expect("validated");
        member.update(request);
        if let Some(earlier) = member.joining.replace(token) {
            cx.refuse_join(earlier, GroupError::RebalanceInProgress, &request.member_id);
        }
        self.rebalance(cx);
    }

    /// A static member has come back without its id: it gets a new one, the old one is fenced, and as long as the
    /// group's protocol stays the same, nobody has to rebalance.
    fn replace_static(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &JoinRequest,
        (old, fresh): (&Arc<str>, Arc<str>),
    ) {
        let mut member = self.members.remove(old).expect("static ids name members");
        cx.timers.disarm(&mut member.session, || {
            TimerKey::Member(self.id.clone(), old.clone())
        });
        if let Some(earlier) = member.joining.take() {
            cx.refuse_join(earlier, GroupError::FencedInstanceId, old);
        }
        if let Some(earlier) = member.syncing.take() {
            cx.refuse_sync(earlier, GroupError::FencedInstanceId);
        }
        member.update(request);
        self.members.insert(fresh.clone(), member);
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), fresh.clone());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(fresh.clone());
        }
        let old_leader = self.leader.clone();
        if self.is_leader(old) {
            self.leader = Some(fresh.clone());
        }
        self.refresh_session(cx, &fresh);
        if self.state == GroupState::Stable && self.select_protocol() == self.protocol {
            let record = self.record(&HashMap::new());
            // Below version 9 the answer names the old leader, so that a leader comes back as a follower: it would
            // otherwise assign anew while nobody else rebalances.
            let old_leader = old_leader.filter(|_| !request.supports_skipping_assignment);
            let (group, generation) = (self.id.clone(), self.generation);
            let replaced = Replaced {
                generation,
                token,
                member: fresh,
                old_leader,
            };
            let pending = Pending::StaticReplaced { group, replaced };
            cx.persist(vec![record], pending);
            return;
        }
        self.members.get_mut(&fresh).expect("just inserted").joining = Some(token);
        self.rebalance(cx);
    }

    /// The new id of a static member is durable.
    pub(super) fn replaced(&mut self, cx: &mut Context<'_>, replaced: Replaced) {
        let Replaced {
            generation,
            token,
            member,
            old_leader,
        } = replaced;
        let member = &member;
        if !self.members.contains_key(member) {
            return cx.refuse_join(token, GroupError::UnknownMemberId, member);
        }
        if self.state != GroupState::Stable || self.generation != generation {
            return cx.refuse_join(token, GroupError::RebalanceInProgress, member);
        }
        let joined = match old_leader {
            Some(leader) => Joined {
                leader: leader.to_string(),
                ..self.joined(member, Vec::new())
            },
            None => {
                let leads = self.is_leader(member);
                let members = if leads {
                    self.join_members()
                } else {
                    Vec::new()
                };
                Joined {
                    skip_assignment: leads,
                    ..self.joined(member, members)
                }
            }
        };
        cx.reply(token, Reply::Join(Ok(joined)));
    }
}
