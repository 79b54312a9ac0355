//! How a rebalance begins, waits for its members, and ends in a new generation; and what each deadline does.

use std::collections::HashMap;
use std::sync::Arc;

use super::group::{Group, JoinPhase};
use super::machine::{Context, Pending};
use super::timers::TimerKey;
use super::types::{GroupError, Reply};
use super::view::GroupState;

impl Group {
    pub(super) fn enter(&mut self, cx: &Context<'_>, state: GroupState) {
        self.state = state;
        self.state_since_ms = cx.now_ms;
    }

    /// Starts a rebalance, or sees whether the one under way is complete now.
    pub(super) fn rebalance(&mut self, cx: &mut Context<'_>) {
        match self.state {
            GroupState::Empty | GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare(cx)
            }
            GroupState::PreparingRebalance => self.complete_if_all_joined(cx),
            GroupState::Dead => {}
        }
    }

    fn prepare(&mut self, cx: &mut Context<'_>) {
        if self.state == GroupState::CompletingRebalance {
            self.refuse_waiting_syncs(cx, GroupError::RebalanceInProgress);
        }
        self.storing = None;
        self.pending_sync.clear();
        cx.timers
            .disarm(&mut self.sync_deadline, || TimerKey::Sync(self.id.clone()));
        let timeout_ms = self.rebalance_timeout_ms();
        let delay_ms = cx.config.initial_rebalance_delay_ms.min(timeout_ms);
        let wait_ms = if self.state == GroupState::Empty && delay_ms > 0 {
            self.phase = JoinPhase::Initial {
                remaining_ms: timeout_ms - delay_ms,
                new_member_added: false,
            };
            delay_ms
        } else {
            self.phase = JoinPhase::Barrier;
            timeout_ms
        };
        self.enter(cx, GroupState::PreparingRebalance);
        cx.happened.rebalances += 1;
        cx.timers
            .arm(&mut self.join_deadline, cx.now_ms + wait_ms, || {
                TimerKey::Join(self.id.clone())
            });
        self.complete_if_all_joined(cx);
    }

    /// Members that wait for an assignment that will not come get an error, and their sessions run again.
    pub(super) fn refuse_waiting_syncs(&mut self, cx: &mut Context<'_>, error: GroupError) {
        for (id, member) in &mut self.members {
            member.assignment = bytes::Bytes::new();
            if let Some(token) = member.syncing.take() {
                cx.reply(token, Reply::Sync(Err(error)));
                let at_ms = cx.now_ms + i64::from(member.session_timeout_ms);
                cx.timers.arm(&mut member.session, at_ms, || {
                    TimerKey::Member(self.id.clone(), id.clone())
                });
            }
        }
    }

    pub(super) fn complete_if_all_joined(&mut self, cx: &mut Context<'_>) {
        if self.state == GroupState::PreparingRebalance
            && self.phase == JoinPhase::Barrier
            && self.all_joined()
        {
            self.complete_join(cx);
        }
    }

    /// Ends the join phase: whoever has not joined is out (static members stay until their session ends).
    fn complete_join(&mut self, cx: &mut Context<'_>) {
        cx.timers
            .disarm(&mut self.join_deadline, || TimerKey::Join(self.id.clone()));
        let absent = |member: &super::group::Member| {
            member.joining.is_none() && member.instance_id.is_none()
        };
        let gone: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, member)| absent(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove_member(cx, &id, GroupError::UnknownMemberId);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only absent static members are left: wait on, until they come back or their sessions end.
            let at_ms = cx.now_ms + self.rebalance_timeout_ms().max(1);
            cx.timers.arm(&mut self.join_deadline, at_ms, || {
                TimerKey::Join(self.id.clone())
            });
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(cx, GroupState::Empty);
            let record = self.record(&HashMap::new());
            cx.persist(vec![record], Pending::Emptied);
            return;
        }
        self.protocol = self.select_protocol();
        self.enter(cx, GroupState::CompletingRebalance);
        self.answer_joins(cx);
    }

    /// Whether a member that has joined leads; if the leader has not, another one does from now on.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Arc<str>| {
            self.members
                .get(id)
                .is_some_and(|member| member.joining.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let other = self
            .members
            .iter()
            .find(|(_, member)| member.joining.is_some())
            .map(|(id, _)| id.clone());
        let found = other.is_some();
        if found {
            self.leader = other;
        }
        found
    }

    fn answer_joins(&mut self, cx: &mut Context<'_>) {
        let mut for_leader = Some(self.join_members());
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let members = if self.is_leader(&id) {
                for_leader.take().unwrap_or_default()
            } else {
                Vec::new()
            };
            let joined = self.joined(&id, members);
            let member = self.members.get_mut(&id).expect("it was listed");
            member.is_new = false;
            if let Some(token) = member.joining.take() {
                cx.reply(token, Reply::Join(Ok(joined)));
            }
            self.refresh_session(cx, &id);
            self.pending_sync.insert(id);
        }
        let at_ms = cx.now_ms + self.rebalance_timeout_ms();
        cx.timers.arm(&mut self.sync_deadline, at_ms, || {
            TimerKey::Sync(self.id.clone())
        });
    }

    /// The member was heard: its session starts over.
    pub(super) fn refresh_session(&mut self, cx: &mut Context<'_>, id: &str) {
        let (id, mut member) = self
            .members
            .remove_entry(id)
            .expect("only members are refreshed");
        let at_ms = cx.now_ms + i64::from(member.session_timeout_ms);
        cx.timers.arm(&mut member.session, at_ms, || {
            TimerKey::Member(self.id.clone(), id.clone())
        });
        self.members.insert(id, member);
    }

    /// Takes a member out. Whatever it waits for is answered with `error`.
    pub(super) fn remove_member(&mut self, cx: &mut Context<'_>, id: &str, error: GroupError) {
        let Some((id, mut member)) = self.members.remove_entry(id) else {
            return;
        };
        cx.timers.disarm(&mut member.session, || {
            TimerKey::Member(self.id.clone(), id.clone())
        });
        if let Some(token) = member.joining.take() {
            cx.refuse_join(token, error, &id);
        }
        if let Some(token) = member.syncing.take() {
            cx.refuse_sync(token, error);
        }
        if let Some(instance) = &member.instance_id
            && self.statics.get(instance) == Some(&id)
        {
            self.statics.remove(instance);
        }
        self.pending_sync.remove(&id);
        if self.is_leader(&id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Takes a member out, and the others learn of it by a rebalance.
    pub(super) fn remove_and_update(&mut self, cx: &mut Context<'_>, id: &str) {
        self.remove_member(cx, id, GroupError::UnknownMemberId);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare(cx),
            GroupState::PreparingRebalance => self.complete_if_all_joined(cx),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// An entry of the timers came up for this group.
    pub(super) fn due(&mut self, cx: &mut Context<'_>, key: TimerKey) {
        match &key {
            TimerKey::Member(_, id) => {
                let Some(member) = self.members.get_mut(id) else {
                    return;
                };
                if cx
                    .timers
                    .settle(&mut member.session, cx.now_ms, || key.clone())
                {
                    self.session_due(cx, &id.clone());
                }
            }
            TimerKey::Pending(_, id) => {
                let Some(deadline) = self.pending.get_mut(id) else {
                    return;
                };
                if cx.timers.settle(deadline, cx.now_ms, || key.clone()) {
                    self.pending.remove(id);
                    self.complete_if_all_joined(cx);
                }
            }
            TimerKey::Join(_) => {
                if cx
                    .timers
                    .settle(&mut self.join_deadline, cx.now_ms, || key.clone())
                {
                    self.join_due(cx);
                }
            }
            TimerKey::Sync(_) => {
                if cx
                    .timers
                    .settle(&mut self.sync_deadline, cx.now_ms, || key.clone())
                {
                    self.sync_due(cx);
                }
            }
            TimerKey::DropRetry => {}
        }
    }

    fn session_due(&mut self, cx: &mut Context<'_>, id: &Arc<str>) {
        let member = &self.members[id];
        let waits_for_us = member.joining.is_some() || member.syncing.is_some();
        if waits_for_us && !member.is_new {
            self.refresh_session(cx, id);
        } else {
            self.remove_and_update(cx, id);
        }
    }

    fn join_due(&mut self, cx: &mut Context<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        match self.phase {
            JoinPhase::Initial {
                remaining_ms,
                new_member_added: true,
            } if remaining_ms > 0 => {
                let delay_ms = cx.config.initial_rebalance_delay_ms.min(remaining_ms);
                self.phase = JoinPhase::Initial {
                    remaining_ms: remaining_ms - delay_ms,
                    new_member_added: false,
                };
                let at_ms = cx.now_ms + delay_ms;
                cx.timers.arm(&mut self.join_deadline, at_ms, || {
                    TimerKey::Join(self.id.clone())
                });
            }
            JoinPhase::Initial { .. } | JoinPhase::Barrier => self.complete_join(cx),
        }
    }

    /// Members that never asked for their assignment are out.
    fn sync_due(&mut self, cx: &mut Context<'_>) {
        let silent = std::mem::take(&mut self.pending_sync);
        if silent.is_empty()
            || !matches!(
                self.state,
                GroupState::CompletingRebalance | GroupState::Stable
            )
        {
            return;
        }
        for id in silent {
            self.remove_member(cx, &id, GroupError::UnknownMemberId);
        }
        self.prepare(cx);
    }
}
