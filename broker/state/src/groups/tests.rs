//! Directed cases and random schedules of the group machine, on a virtual clock.

mod cases;
mod census;
mod expiry;
mod random;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

/// A machine with a clock, whose persists are confirmed by hand or at once.
pub(super) struct Bench {
    pub(super) machine: GroupCoordinator,
    pub(super) now_ms: i64,
    pub(super) replies: BTreeMap<Token, Reply>,
    pub(super) persists: Vec<(PersistId, Vec<StoredRecord>)>,
    pub(super) log: Vec<StoredRecord>,
    tokens: u64,
    fresh: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(GroupConfig {
            initial_rebalance_delay_ms: 0,
            ..GroupConfig::default()
        })
    }

    pub(super) fn with(config: GroupConfig) -> Self {
        Bench {
            machine: GroupCoordinator::new(config),
            now_ms: 1_000,
            replies: BTreeMap::new(),
            persists: Vec::new(),
            log: Vec::new(),
            tokens: 0,
            fresh: 0,
        }
    }

    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub(super) fn fresh_id(&mut self, prefix: &str) -> String {
        self.fresh += 1;
        format!("{prefix}-{}", self.fresh)
    }

    pub(super) fn feed(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.apply(self.now_ms, input, &mut out);
        for effect in out {
            match effect {
                Effect::Reply(token, reply) => {
                    let earlier = self.replies.insert(token, reply);
                    assert!(earlier.is_none(), "{token:?} is answered twice");
                }
                Effect::Persist(id, records) | Effect::PersistTransactional(id, _, records) => {
                    self.persists.push((id, records));
                }
            }
        }
    }

    /// Feeds a request and gives its token.
    pub(super) fn ask(&mut self, input: impl FnOnce(Token) -> Input) -> Token {
        let token = self.token();
        self.feed(input(token));
        token
    }

    pub(super) fn persist_all(&mut self) {
        for (id, records) in std::mem::take(&mut self.persists) {
            self.log.extend(records);
            self.feed(Input::Persisted(id));
        }
    }

    pub(super) fn fail_all(&mut self) {
        for (id, _) in std::mem::take(&mut self.persists) {
            self.feed(Input::PersistFailed(id, FailedBecause::Unavailable));
        }
    }

    /// Moves the clock, stopping at each deadline.
    pub(super) fn advance(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(next) = self.machine.next_deadline().filter(|next| *next <= end) {
            self.now_ms = self.now_ms.max(next);
            self.feed(Input::Tick);
        }
        self.now_ms = end;
    }

    pub(super) fn take(&mut self, token: Token) -> Option<Reply> {
        self.replies.remove(&token)
    }

    pub(super) fn request(&mut self, member_id: &str) -> JoinRequest {
        JoinRequest {
            group: "g".to_owned(),
            member_id: member_id.to_owned(),
            fresh_member_id: self.fresh_id("m"),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/host".to_owned(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
            require_known_member_id: false,
            supports_skipping_assignment: true,
        }
    }

    pub(super) fn join(&mut self, member_id: &str) -> Token {
        let request = self.request(member_id);
        self.ask(|token| Input::Join(token, request))
    }

    pub(super) fn joined(&mut self, token: Token) -> Joined {
        match self.take(token) {
            Some(Reply::Join(Ok(joined))) => joined,
            other => panic!("no successful join: {other:?}"),
        }
    }

    pub(super) fn join_error(&mut self, token: Token) -> GroupError {
        match self.take(token) {
            Some(Reply::Join(Err(refused))) => refused.error,
            other => panic!("no refused join: {other:?}"),
        }
    }

    pub(super) fn sync(
        &mut self,
        member_id: &str,
        generation: i32,
        assignments: &[(&str, &str)],
    ) -> Token {
        let request = SyncRequest {
            group: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: assignments
                .iter()
                .map(|(id, what)| ((*id).to_owned(), Bytes::copy_from_slice(what.as_bytes())))
                .collect(),
        };
        self.ask(|token| Input::Sync(token, request))
    }

    pub(super) fn synced(&mut self, token: Token) -> Result<String, GroupError> {
        match self.take(token) {
            Some(Reply::Sync(result)) => {
                result.map(|synced| String::from_utf8(synced.assignment.to_vec()).unwrap())
            }
            other => panic!("no sync reply: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let request = HeartbeatRequest {
            group: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: None,
        };
        let token = self.ask(|token| Input::Heartbeat(token, request));
        match self.take(token) {
            Some(Reply::Heartbeat(result)) => result,
            other => panic!("no heartbeat reply: {other:?}"),
        }
    }

    pub(super) fn leave(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        let member = LeaveMember {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        };
        let request = LeaveRequest {
            group: "g".to_owned(),
            members: vec![member],
        };
        let token = self.ask(|token| Input::Leave(token, request));
        match self.take(token) {
            Some(Reply::Leave(results)) => results[0],
            other => panic!("no leave reply: {other:?}"),
        }
    }

    pub(super) fn commit(&mut self, member_id: &str, generation: i32, offset: i64) -> Token {
        let entry = CommitEntry {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            leader_epoch: -1,
            metadata: "note".to_owned(),
        };
        let request = CommitRequest {
            group: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: None,
            producer: None,
            retention_ms: None,
            entries: vec![entry],
        };
        self.ask(|token| Input::Commit(token, request))
    }

    pub(super) fn committed(&mut self, token: Token) -> Result<(), GroupError> {
        match self.take(token) {
            Some(Reply::Commit(results)) => results[0],
            other => panic!("no commit reply: {other:?}"),
        }
    }

    pub(super) fn offset(&self) -> Option<i64> {
        self.machine.offset("g", "t", 0).map(|offset| offset.offset)
    }

    pub(super) fn state(&self) -> Option<GroupState> {
        self.machine.describe("g").map(|group| group.state)
    }

    /// A stable group of `count` dynamic members: their ids, the leader first, and the generation.
    pub(super) fn stable(&mut self, count: usize) -> (Vec<String>, i32) {
        let first = self.join("");
        let mut ids = vec![self.joined(first).member_id];
        for _ in 1..count {
            let newcomer = self.join("");
            let mut tokens: Vec<Token> = ids.iter().map(|id| self.join(id)).collect();
            tokens.push(newcomer);
            ids = tokens
                .into_iter()
                .map(|token| self.joined(token).member_id)
                .collect();
        }
        let generation = i32::try_from(count).unwrap();
        let assignments: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "a")).collect();
        let tokens: Vec<Token> = ids
            .iter()
            .map(|id| self.sync(id, generation, &assignments))
            .collect();
        self.persist_all();
        for token in tokens {
            assert_eq!(self.synced(token), Ok("a".to_owned()));
        }
        assert_eq!(self.state(), Some(GroupState::Stable));
        (ids, generation)
    }

    /// A machine loaded from what was persisted here.
    pub(super) fn reloaded(&self) -> GroupCoordinator {
        let mut machine = GroupCoordinator::new(GroupConfig::default());
        for record in &self.log {
            machine
                .replay(&record.key.encode(), record.value.as_deref())
                .unwrap();
        }
        machine.finish_load(self.now_ms);
        machine
    }
}
