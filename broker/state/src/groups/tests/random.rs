//! Random schedules: clients that join, sync, commit, leave, fall silent and try again, a log that is slow and
//! sometimes refuses, and a clock that jumps. `KEELSON_SEED=n` replays one schedule,
//! `KEELSON_SCHEDULES=n` runs more of them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::*;
use crate::offsets::{Key, OffsetValue};

const SCHEDULES: u64 = 1_000;
const STEPS: usize = 120;
const CLIENTS: usize = 4;
const SETTLE_SECONDS_MAX: usize = 600;

/// A small generator, so that a seed means the same schedule for ever (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Out,
    Joined,
    Synced,
}

#[derive(Debug)]
struct Client {
    /// Who it is across member ids: its instance id, or its number.
    identity: String,
    instance: Option<String>,
    member_id: String,
    generation: i32,
    phase: Phase,
    members: Vec<JoinMember>,
    waiting: Option<Token>,
}

struct World {
    random: Random,
    bench: Bench,
    clients: Vec<Client>,
    owners: HashMap<Token, usize>,
    asked: HashSet<Token>,
    answered: HashSet<Token>,
    /// Persists that the log has taken and not yet made durable.
    queued: VecDeque<(PersistId, Vec<StoredRecord>)>,
    /// Per generation: the protocol, and who leads.
    generations: BTreeMap<i32, (Option<String>, String)>,
    /// Identity of each member id ever given.
    identities: HashMap<String, String>,
    /// What the log holds of offsets.
    offsets: BTreeMap<i32, i64>,
    highest_generation: i32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let delay = if random.one_in(2) { 0 } else { 3_000 };
        let mut config = GroupConfig {
            initial_rebalance_delay_ms: delay,
            ..GroupConfig::default()
        };
        if random.one_in(3) {
            config.offsets_retention_ms = 20_000;
            config.offsets_check_interval_ms = 5_000;
        }
        let clients = (0..CLIENTS).map(|number| {
            let instance = random.one_in(3).then(|| format!("instance-{number}"));
            Client {
                identity: instance
                    .clone()
                    .unwrap_or_else(|| format!("client-{number}")),
                instance,
                member_id: String::new(),
                generation: -1,
                phase: Phase::Out,
                members: Vec::new(),
                waiting: None,
            }
        });
        let clients = clients.collect();
        World {
            random,
            bench: Bench::with(config),
            clients,
            owners: HashMap::new(),
            asked: HashSet::new(),
            answered: HashSet::new(),
            queued: VecDeque::new(),
            generations: BTreeMap::new(),
            identities: HashMap::new(),
            offsets: BTreeMap::new(),
            highest_generation: 0,
        }
    }

    fn generation(&self) -> i32 {
        self.bench
            .machine
            .groups
            .get("g")
            .map_or(0, |group| group.generation)
    }

    fn feed(&mut self, input: Input, calm: bool) {
        let before = self.generation();
        let ticked = matches!(input, Input::Tick);
        self.bench.feed(input);
        if !ticked && self.generation() != 0 {
            assert!(self.generation() - before <= 1, "one bump per rebalance");
        }
        self.take_persists(calm);
        self.deliver();
    }

    /// The log takes each batch, or refuses it at once.
    fn take_persists(&mut self, calm: bool) {
        while !self.bench.persists.is_empty() {
            let (id, records) = self.bench.persists.remove(0);
            if !calm && self.random.one_in(12) {
                self.bench
                    .feed(Input::PersistFailed(id, FailedBecause::Unavailable));
            } else {
                self.queued.push_back((id, records));
            }
        }
    }

    fn confirm_one(&mut self, calm: bool) {
        let Some((id, records)) = self.queued.pop_front() else {
            return;
        };
        for record in &records {
            match (&record.key, &record.value) {
                (Key::Offset { partition, .. }, Some(value)) => {
                    let offset = OffsetValue::decode(value).unwrap().offset;
                    self.offsets.insert(*partition, offset);
                }
                (Key::Offset { partition, .. }, None) => {
                    self.offsets.remove(partition);
                }
                // A group of that name may come again and begins at generation 1.
                (Key::Group { .. }, None) => self.generations.clear(),
                (Key::Group { .. }, Some(_)) => {}
            }
        }
        self.bench.log.extend(records);
        self.feed(Input::Persisted(id), calm);
    }

    fn ask(&mut self, client: usize, calm: bool, input: impl FnOnce(Token) -> Input) {
        let token = self.bench.token();
        self.owners.insert(token, client);
        self.asked.insert(token);
        self.clients[client].waiting = Some(token);
        self.feed(input(token), calm);
    }

    fn deliver(&mut self) {
        for (token, reply) in std::mem::take(&mut self.bench.replies) {
            assert!(
                self.asked.contains(&token) && self.answered.insert(token),
                "{token:?}: one answer each"
            );
            let owner = self.owners[&token];
            self.check_reply(owner, &reply);
            if self.clients[owner].waiting == Some(token) {
                self.clients[owner].waiting = None;
                self.react(owner, reply);
            }
        }
    }

    fn identity_of(&self, member_id: &str) -> String {
        self.identities
            .get(member_id)
            .cloned()
            .unwrap_or_else(|| format!("unknown {member_id}"))
    }

    fn check_reply(&mut self, owner: usize, reply: &Reply) {
        match reply {
            Reply::Join(Ok(joined)) => {
                let identity = self.clients[owner].identity.clone();
                self.identities.insert(joined.member_id.clone(), identity);
                self.highest_generation = self.highest_generation.max(joined.generation);
                let leader = self.identity_of(&joined.leader);
                let leads = joined.leader == joined.member_id;
                assert_eq!(
                    joined.members.is_empty(),
                    !leads,
                    "exactly the leader sees the members"
                );
                if leader.starts_with("unknown") {
                    return;
                }
                let said = (joined.protocol.clone(), leader);
                let known = self
                    .generations
                    .entry(joined.generation)
                    .or_insert_with(|| said.clone());
                assert_eq!(
                    *known, said,
                    "generation {}: one protocol, one leader",
                    joined.generation
                );
            }
            Reply::Join(Err(refused)) => {
                if !refused.member_id.is_empty() {
                    let identity = self.clients[owner].identity.clone();
                    self.identities.insert(refused.member_id.clone(), identity);
                }
            }
            Reply::Sync(Ok(synced)) => {
                let text = std::str::from_utf8(&synced.assignment).unwrap();
                let (_, identity) = text
                    .split_once(':')
                    .unwrap_or(("", self.clients[owner].identity.as_str()));
                assert_eq!(
                    identity, self.clients[owner].identity,
                    "an assignment reaches whom it is for"
                );
            }
            Reply::Sync(Err(_))
            | Reply::Heartbeat(_)
            | Reply::Leave(_)
            | Reply::Commit(_)
            | Reply::Delete(_)
            | Reply::DeleteOffsets(_) => {}
        }
    }

    fn react(&mut self, owner: usize, reply: Reply) {
        let client = &mut self.clients[owner];
        match reply {
            Reply::Join(Ok(joined)) => {
                client.member_id = joined.member_id;
                client.generation = joined.generation;
                client.members = joined.members;
                client.phase = Phase::Joined;
            }
            Reply::Join(Err(refused)) => match refused.error {
                GroupError::MemberIdRequired => client.member_id = refused.member_id,
                GroupError::UnknownMemberId | GroupError::FencedInstanceId => {
                    client.member_id.clear()
                }
                _ => {}
            },
            Reply::Sync(Ok(synced)) => {
                let text = std::str::from_utf8(&synced.assignment).unwrap();
                if let Some((generation, _)) = text.split_once(':') {
                    assert_eq!(
                        generation,
                        client.generation.to_string(),
                        "an assignment of this generation"
                    );
                }
                client.phase = Phase::Synced;
            }
            Reply::Sync(Err(error)) | Reply::Heartbeat(Err(error)) => client.lost(error),
            Reply::Commit(results) => {
                if let Some(Err(error)) = results.first() {
                    client.lost(*error);
                }
            }
            Reply::Leave(_) => {
                client.phase = Phase::Out;
                client.member_id.clear();
            }
            Reply::Heartbeat(Ok(())) | Reply::Delete(_) | Reply::DeleteOffsets(_) => {}
        }
    }

    fn act(&mut self, number: usize, calm: bool) {
        if self.clients[number].waiting.is_some() && (calm || !self.random.one_in(6)) {
            return;
        }
        let choice = self.random.below(if calm { 5 } else { 10 });
        match (self.clients[number].phase, choice) {
            (Phase::Out, _) => self.join(number, calm),
            (Phase::Joined, 0..=7) => self.sync(number, calm),
            (Phase::Synced, 0..=4) => self.heartbeat(number, calm),
            (Phase::Synced, 5..=6) => self.commit(number, calm),
            (Phase::Joined | Phase::Synced, 8) => self.leave(number, calm),
            (Phase::Joined | Phase::Synced, _) => self.join(number, calm),
        }
    }

    fn join(&mut self, number: usize, calm: bool) {
        let member_id = self.clients[number].member_id.clone();
        let mut request = self.bench.request(&member_id);
        request
            .instance_id
            .clone_from(&self.clients[number].instance);
        request.require_known_member_id = self.random.one_in(2);
        request.protocols = ["range", "sticky"]
            .map(|name| {
                (
                    name.to_owned(),
                    Bytes::from(format!("{name} {}", self.clients[number].identity)),
                )
            })
            .to_vec();
        if self.random.one_in(2) {
            request.protocols.reverse();
        }
        let identity = self.clients[number].identity.clone();
        self.identities
            .insert(request.fresh_member_id.clone(), identity);
        self.ask(number, calm, |token| Input::Join(token, request));
    }

    fn sync(&mut self, number: usize, calm: bool) {
        let client = &self.clients[number];
        let assignments = client.members.iter().map(|member| {
            let what = format!(
                "{}:{}",
                client.generation,
                self.identity_of(&member.member_id)
            );
            (member.member_id.clone(), Bytes::from(what))
        });
        let request = SyncRequest {
            group: "g".to_owned(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance.clone(),
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.ask(number, calm, |token| Input::Sync(token, request));
    }

    fn heartbeat(&mut self, number: usize, calm: bool) {
        let client = &self.clients[number];
        let request = HeartbeatRequest {
            group: "g".to_owned(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance.clone(),
        };
        self.ask(number, calm, |token| Input::Heartbeat(token, request));
    }

    fn leave(&mut self, number: usize, calm: bool) {
        let client = &self.clients[number];
        let (member_id, instance_id) = (client.member_id.clone(), client.instance.clone());
        let members = vec![LeaveMember {
            member_id,
            instance_id,
        }];
        let request = LeaveRequest {
            group: "g".to_owned(),
            members,
        };
        self.ask(number, calm, |token| Input::Leave(token, request));
    }

    fn commit(&mut self, number: usize, calm: bool) {
        let (partition, offset) = (self.random.below(3), self.random.below(1_000));
        let entry = CommitEntry {
            topic: "t".to_owned(),
            partition: i32::try_from(partition).unwrap(),
            offset: i64::try_from(offset).unwrap(),
            leader_epoch: -1,
            metadata: String::new(),
        };
        let client = &self.clients[number];
        let request = CommitRequest {
            group: "g".to_owned(),
            generation: client.generation,
            member_id: client.member_id.clone(),
            instance_id: client.instance.clone(),
            producer: None,
            retention_ms: None,
            entries: vec![entry],
        };
        self.ask(number, calm, |token| Input::Commit(token, request));
    }

    fn advance(&mut self, ms: i64, calm: bool) {
        let end = self.bench.now_ms + ms;
        while let Some(next) = self
            .bench
            .machine
            .next_deadline()
            .filter(|next| *next <= end)
        {
            self.bench.now_ms = self.bench.now_ms.max(next);
            self.feed(Input::Tick, calm);
        }
        self.bench.now_ms = end;
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=5 => {
                let number = usize::try_from(self.random.below(CLIENTS as u64)).unwrap();
                self.act(number, false);
            }
            6..=7 => self.confirm_one(false),
            8 => {
                let ms = i64::try_from(self.random.below(4_000)).unwrap();
                self.advance(ms, false);
            }
            _ if self.random.one_in(8) => {
                let number = usize::try_from(self.random.below(CLIENTS as u64)).unwrap();
                let token = self.bench.token();
                self.owners.insert(token, number);
                self.asked.insert(token);
                self.feed(Input::Delete(token, "g".to_owned()), false);
            }
            _ if self.random.one_in(4) => {
                let token = self.bench.token();
                self.owners.insert(token, 0);
                self.asked.insert(token);
                let partition = i32::try_from(self.random.below(4)).unwrap();
                let request = DeleteOffsetsRequest {
                    group: "g".to_owned(),
                    partitions: vec![("t".to_owned(), partition), ("t".to_owned(), 0)],
                };
                self.feed(Input::DeleteOffsets(token, request), false);
            }
            _ if self.random.one_in(8) => self.feed(Input::TopicDeleted("t".to_owned()), false),
            _ => {}
        }
        self.check_offsets();
    }

    /// What is shown is what is durable.
    fn check_offsets(&self) {
        if !self.bench.machine.drops_owed.is_empty() {
            return;
        }
        let shown: BTreeMap<i32, i64> = self
            .bench
            .machine
            .offsets("g")
            .map(|(_, partition, held)| (partition, held.offset))
            .collect();
        assert_eq!(shown, self.offsets);
    }

    /// Everybody behaves for a while: all meet in one stable generation, and nobody waits.
    fn settle(&mut self) {
        for _ in 0..SETTLE_SECONDS_MAX {
            if self.settled() {
                break;
            }
            while !self.queued.is_empty() {
                self.confirm_one(true);
            }
            for number in 0..CLIENTS {
                self.act(number, true);
            }
            self.advance(1_000, true);
        }
        while !self.queued.is_empty() {
            self.confirm_one(true);
        }
        let counted: usize = self
            .bench
            .machine
            .groups
            .values()
            .map(|group| group.member_bytes())
            .sum();
        assert_eq!(self.bench.machine.member_bytes, counted);
        let group = self.bench.machine.describe("g").unwrap();
        assert_eq!(group.state, GroupState::Stable);
        let members: HashSet<String> = group
            .members
            .iter()
            .map(|member| self.identity_of(&member.member_id))
            .collect();
        let everybody: HashSet<String> = self
            .clients
            .iter()
            .map(|client| client.identity.clone())
            .collect();
        assert_eq!((members, group.members.len()), (everybody, CLIENTS));
        let generation = self.generation();
        for client in &self.clients {
            assert_eq!(
                (client.phase, client.generation),
                (Phase::Synced, generation),
                "{client:?}"
            );
        }
        let open: Vec<_> = self.asked.difference(&self.answered).collect();
        assert!(open.is_empty(), "never answered: {open:?}");
        assert!(self.bench.machine.persists.pending.is_empty());
        self.check_reload(&group);
    }

    fn settled(&self) -> bool {
        let generation = self.generation();
        let state = self.bench.machine.describe("g").map(|group| group.state);
        let synced =
            |client: &Client| client.phase == Phase::Synced && client.generation == generation;
        state == Some(GroupState::Stable)
            && self.queued.is_empty()
            && self.bench.machine.drops_owed.is_empty()
            && self.asked.len() == self.answered.len()
            && self
                .bench
                .machine
                .describe("g")
                .is_some_and(|group| group.members.len() == CLIENTS)
            && self.clients.iter().all(synced)
    }

    fn check_reload(&self, group: &DescribedGroup) {
        let reloaded = self.bench.reloaded();
        assert_eq!(
            reloaded.describe("g").as_ref(),
            Some(group),
            "the log tells the same"
        );
        let shown: Vec<_> = self.bench.machine.offsets("g").collect();
        assert_eq!(reloaded.offsets("g").collect::<Vec<_>>(), shown);
    }
}

impl Client {
    fn lost(&mut self, error: GroupError) {
        match error {
            GroupError::UnknownMemberId | GroupError::FencedInstanceId => {
                self.phase = Phase::Out;
                self.member_id.clear();
            }
            GroupError::IllegalGeneration
            | GroupError::RebalanceInProgress
            | GroupError::CoordinatorNotAvailable => self.phase = Phase::Out,
            other => panic!("a client of this kind never sees {other:?}"),
        }
    }
}

fn run(seed: u64) {
    println!("seed {seed}: KEELSON_SEED={seed} cargo test -p keelson-state random");
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
}

#[test]
fn random_schedules_keep_every_promise() {
    if let Ok(seed) = std::env::var("KEELSON_SEED") {
        return run(seed.parse().expect("KEELSON_SEED is a number"));
    }
    let more = std::env::var("KEELSON_SCHEDULES")
        .ok()
        .and_then(|count| count.parse().ok());
    for seed in 0..more.unwrap_or(SCHEDULES) {
        run(seed);
    }
}
