//! The owner's task: one loop over messages, outcomes of persists, and the clock.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use keelson_protocol::builder::BatchBuilder;
use keelson_state::groups::{
    Effect, FailedBecause, GroupCensus, GroupConfig, GroupCoordinator, GroupError, Input,
    JoinRefused, Joined, PersistId, Reply, StoredRecord, Synced, Token,
};
use keelson_state::metadata::CONSUMER_OFFSETS;
use tokio::sync::{mpsc, oneshot};

use super::events::{self, Event};
use super::load::{self, LoadedShard};
use super::persist::{Decided, Persists, What, Which};
use super::shards::Shards;
use super::{Back, CoordinatorError, EndTransaction, FetchedOffset, GroupSnapshot, Inbox, Message};
use crate::broker::Broker;
use crate::partitions::{Ended, PartitionOwner};

/// What the members of all groups may take of memory: their metadata and assignments.
const MEMBER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What the members of one shard may always take: some thousands of them.
const SHARD_MEMBER_BYTES_MIN: usize = 4 * 1024 * 1024;

/// One shard's part of the bound.
fn member_bytes_max(broker: &Broker) -> usize {
    let topic = broker.partitions.topic(CONSUMER_OFFSETS);
    let shards = topic.map_or(broker.config.offsets_topic_partitions, |topic| {
        topic.topic.partitions
    });
    let shards = usize::try_from(shards).unwrap_or(1).max(1);
    (MEMBER_BYTES_MAX / shards).max(SHARD_MEMBER_BYTES_MIN)
}

/// Starts the owner; called from within the runtime, after the partitions are open.
pub fn spawn(inbox: Inbox, broker: &Arc<Broker>) {
    let config = &broker.config;
    let config = GroupConfig {
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        session_timeout_min_ms: config.group_min_session_timeout_ms,
        session_timeout_max_ms: config.group_max_session_timeout_ms,
        group_size_max: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
        offset_metadata_bytes_max: config.offset_metadata_max_bytes,
        offsets_retention_ms: config.offsets_retention_ms(),
        offsets_check_interval_ms: config.offsets_retention_check_interval_ms,
        member_bytes_max: member_bytes_max(broker),
    };
    let mut owner = Owner {
        persists: Persists::new(broker.ticket(), &broker.budgets.records),
        broker: Arc::downgrade(broker),
        shards: Shards::new(CONSUMER_OFFSETS, move || {
            GroupCoordinator::new(config.clone())
        }),
        deleted_meanwhile: BTreeSet::new(),
        ends_meanwhile: Vec::new(),
        markers: HashMap::new(),
        backs: HashMap::new(),
        next_token: 0,
    };
    owner.start_loading(broker, broker.coordinator.sender.downgrade());
    tokio::spawn(owner.run(inbox));
}

/// Who waits for a token.
enum Waiting {
    Join(oneshot::Sender<Result<Joined, (CoordinatorError, String)>>),
    Sync(Back<Synced>),
    Heartbeat(Back<()>),
    Leave(Back<Vec<Result<(), GroupError>>>),
    Commit(Back<Vec<Result<(), GroupError>>>),
    Delete(Back<()>),
    DeleteOffsets(Back<Vec<Result<(), GroupError>>>),
}

struct Owner {
    /// Weak, as the broker holds this owner's queue.
    broker: Weak<Broker>,
    shards: Shards<GroupCoordinator>,
    /// Topics that went while some shard was being read.
    deleted_meanwhile: BTreeSet<String>,
    /// Ends of transactions that came while some shard was being read.
    ends_meanwhile: Vec<EndTransaction>,
    /// Who waits for an end of a transaction to be durable.
    markers: HashMap<u64, oneshot::Sender<Result<(), FailedBecause>>>,
    persists: Persists,
    backs: HashMap<Token, Waiting>,
    next_token: u64,
}

impl Owner {
    /// Shards that the log may hold something of are read in the background.
    fn start_loading(&mut self, broker: &Broker, sender: mpsc::WeakSender<Message>) {
        let partitions = self.shards.start_loading(broker);
        let fresh = self.shards.fresh();
        tokio::task::spawn_blocking(move || {
            let load = |partition: &PartitionOwner| load::load(partition, fresh());
            load::load_all(partitions, load, &sender, Message::Loaded);
        });
    }

    async fn run(mut self, mut inbox: Inbox) {
        let messages = &mut inbox.receiver;
        loop {
            let deadline_ms = self.shards.next_deadline();
            let next = events::next(&self.broker, &mut self.persists, deadline_ms, messages);
            let Some((broker, event)) = next.await else {
                return;
            };
            match event {
                Event::Message(message) => self.take(&broker, *message),
                Event::Decided(decided) => self.decided(&broker, decided),
                Event::Tick => self.tick(&broker),
            }
        }
    }

    fn tick(&mut self, broker: &Broker) {
        for index in self.shards.due(broker.now_ms()) {
            self.apply(broker, index, Input::Tick);
        }
    }

    fn decided(&mut self, broker: &Broker, decided: Decided) {
        match decided.which {
            Which::Persist(id) => {
                let input = match decided.outcome {
                    Ok(_) => Input::Persisted(id),
                    Err(why) => Input::PersistFailed(id, why),
                };
                self.apply(broker, decided.shard, input);
            }
            Which::Marker(number, producer_id, commit) => {
                if decided.outcome == Ok(Ended::Now) {
                    let input = Input::TransactionEnded {
                        producer_id,
                        commit,
                    };
                    self.apply(broker, decided.shard, input);
                }
                if let Some(back) = self.markers.remove(&number) {
                    send(back, decided.outcome.map(|_| ()));
                }
            }
        }
    }

    /// Feeds a machine and does what it says. Persists that are refused at once feed it again.
    fn apply(&mut self, broker: &Broker, index: i32, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let now_ms = broker.now_ms();
            let mut effects = Vec::new();
            let machine = self.shards.ready_mut(index);
            machine.apply(now_ms, input, &mut effects);
            let mut refused = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Reply(token, reply) => self.reply(token, reply),
                    Effect::Persist(id, records) => {
                        refused.extend(self.persist(broker, index, id, (None, &records)));
                    }
                    Effect::PersistTransactional(id, producer, records) => {
                        let records = (Some(producer), &records[..]);
                        refused.extend(self.persist(broker, index, id, records));
                    }
                }
            }
            inputs.extend(refused.into_iter().rev());
        }
    }

    fn persist(
        &mut self,
        broker: &Broker,
        index: i32,
        id: PersistId,
        (producer, records): (Option<(i64, i16)>, &[StoredRecord]),
    ) -> Option<Input> {
        let Some(target) = self.shards.target(broker, index) else {
            return Some(Input::PersistFailed(id, FailedBecause::Unavailable));
        };
        let mut builder = BatchBuilder::new(broker.now_ms());
        if let Some((producer_id, epoch)) = producer {
            builder = builder.producer(producer_id, epoch, -1).transactional();
        }
        for record in records {
            builder.push(Some(&record.key.encode()), record.value.as_deref());
        }
        let what = What::Persist(id, builder.build());
        let decided = self.persists.submit(broker, target, what)?;
        Some(match decided.outcome {
            Ok(_) => Input::Persisted(id),
            Err(why) => Input::PersistFailed(id, why),
        })
    }

    /// Puts the end of a transaction behind everything that a shard has written.
    fn end_transaction(&mut self, broker: &Broker, end: EndTransaction) {
        if self.shards.is_loading(end.index) {
            self.ends_meanwhile.push(end);
            return;
        }
        self.shards.add(end.index);
        let Some(target) = self.shards.target(broker, end.index) else {
            send(end.back, Err(FailedBecause::Unavailable));
            return;
        };
        self.next_token += 1;
        let number = self.next_token;
        self.markers.insert(number, end.back);
        let what = What::Marker(number, end.marker, end.bumps_epoch);
        if let Some(decided) = self.persists.submit(broker, target, what) {
            self.decided(broker, decided);
        }
    }

    fn take(&mut self, broker: &Broker, message: Message) {
        match message {
            Message::Join(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::Join(back), |token| {
                    Input::Join(token, request)
                }),
                Err(why) => send(back, Err((why.into(), request.member_id))),
            },
            Message::Sync(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::Sync(back), |token| {
                    Input::Sync(token, request)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::Heartbeat(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::Heartbeat(back), |token| {
                    Input::Heartbeat(token, request)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::Leave(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::Leave(back), |token| {
                    Input::Leave(token, request)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::Commit(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::Commit(back), |token| {
                    Input::Commit(token, request)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::Delete(group, back) => match self.shards.of(broker, &group) {
                Ok(index) => self.feed(broker, index, Waiting::Delete(back), |token| {
                    Input::Delete(token, group)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::DeleteOffsets(request, back) => match self.shards.of(broker, &request.group) {
                Ok(index) => self.feed(broker, index, Waiting::DeleteOffsets(back), |token| {
                    Input::DeleteOffsets(token, request)
                }),
                Err(why) => send(back, Err(why.into())),
            },
            Message::Offsets(group, partitions, back) => {
                let answer = self
                    .machine_of(broker, &group)
                    .map(|machine| offsets(machine, &group, partitions));
                send(back, answer);
            }
            Message::Describe(group, back) => {
                send(
                    back,
                    self.machine_of(broker, &group)
                        .map(|machine| machine.describe(&group)),
                );
            }
            Message::List(back) => send(back, self.list()),
            Message::Snapshot(back) => send(back, self.snapshot()),
            Message::Census(back) => send(back, self.census()),
            Message::EndTransaction(end) => self.end_transaction(broker, end),
            Message::TopicDeleted(topic) => self.topic_deleted(broker, &topic),
            Message::Loaded(loaded) => self.loaded(broker, loaded),
        }
    }

    fn feed(
        &mut self,
        broker: &Broker,
        index: i32,
        waiting: Waiting,
        input: impl FnOnce(Token) -> Input,
    ) {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.backs.insert(token, waiting);
        self.apply(broker, index, input(token));
    }

    fn machine_of(
        &mut self,
        broker: &Broker,
        group: &str,
    ) -> Result<&GroupCoordinator, CoordinatorError> {
        let index = self.shards.of(broker, group)?;
        Ok(self.shards.get(index)?)
    }

    fn list(&self) -> Result<Vec<keelson_state::groups::ListedGroup>, CoordinatorError> {
        let machines = self.shards.all()?;
        let mut groups: Vec<_> = machines.iter().flat_map(|machine| machine.list()).collect();
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(groups)
    }

    fn snapshot(&self) -> Vec<GroupSnapshot> {
        let mut groups = Vec::new();
        for (_, machine) in self.shards.ready() {
            for listed in machine.list() {
                let members = machine
                    .describe(&listed.group)
                    .map_or(0, |group| group.members.len());
                let offsets = machine
                    .offsets(&listed.group)
                    .map(|(topic, partition, held)| (topic.to_owned(), partition, held.offset))
                    .collect();
                groups.push(GroupSnapshot {
                    group: listed.group,
                    members,
                    offsets,
                });
            }
        }
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        groups
    }

    fn census(&self) -> GroupCensus {
        let mut census = GroupCensus::default();
        for (_, machine) in self.shards.ready() {
            machine.count_into(&mut census);
        }
        census
    }

    fn topic_deleted(&mut self, broker: &Broker, topic: &str) {
        if self.shards.is_any_loading() {
            self.deleted_meanwhile.insert(topic.to_owned());
        }
        let ready: Vec<i32> = self.shards.ready().map(|(index, _)| index).collect();
        for index in ready {
            self.apply(broker, index, Input::TopicDeleted(topic.to_owned()));
        }
    }

    fn loaded(&mut self, broker: &Broker, loaded: LoadedShard<GroupCoordinator>) {
        match loaded.machine {
            Ok(machine) => self.ready(broker, loaded.index, machine),
            Err(error) => {
                tracing::error!(partition = loaded.index, %error, "groups of this partition of __consumer_offsets are unavailable");
                self.shards.loaded(loaded.index, None);
            }
        }
        if !self.shards.is_any_loading() {
            self.deleted_meanwhile.clear();
        }
        for end in std::mem::take(&mut self.ends_meanwhile) {
            self.end_transaction(broker, end);
        }
    }

    fn ready(&mut self, broker: &Broker, index: i32, mut machine: GroupCoordinator) {
        machine.finish_load(broker.now_ms());
        // A topic may have gone before its groups' tombstones were durable, or during the load.
        let image = broker.image();
        let is_gone =
            |topic: &&str| image.topic(topic).is_none() || self.deleted_meanwhile.contains(*topic);
        let held = machine.topics_with_offsets().into_iter();
        let gone: Vec<String> = held.filter(is_gone).map(str::to_owned).collect();
        self.shards.loaded(index, Some(machine));
        for topic in gone {
            self.apply(broker, index, Input::TopicDeleted(topic));
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        let waiting = self
            .backs
            .remove(&token)
            .expect("each request is answered once");
        match (waiting, reply) {
            (Waiting::Join(back), Reply::Join(result)) => {
                let error = |refused: JoinRefused| (refused.error.into(), refused.member_id);
                send(back, result.map_err(error));
            }
            (Waiting::Sync(back), Reply::Sync(result)) => send(back, result.map_err(Into::into)),
            (Waiting::Heartbeat(back), Reply::Heartbeat(result)) => {
                send(back, result.map_err(Into::into))
            }
            (Waiting::Leave(back), Reply::Leave(results)) => send(back, Ok(results)),
            (Waiting::Commit(back), Reply::Commit(results)) => send(back, Ok(results)),
            (Waiting::Delete(back), Reply::Delete(result)) => {
                send(back, result.map_err(Into::into))
            }
            (Waiting::DeleteOffsets(back), Reply::DeleteOffsets(result)) => {
                send(back, result.map_err(Into::into))
            }
            (
                Waiting::Join(_)
                | Waiting::Sync(_)
                | Waiting::Heartbeat(_)
                | Waiting::Leave(_)
                | Waiting::Commit(_)
                | Waiting::Delete(_)
                | Waiting::DeleteOffsets(_),
                reply,
            ) => unreachable!("a reply of another kind than the request: {reply:?}"),
        }
    }
}

/// Who asked may have disconnected; then nobody wants the answer.
fn send<T>(back: oneshot::Sender<T>, value: T) {
    let _ = back.send(value);
}

fn offsets(
    machine: &GroupCoordinator,
    group: &str,
    partitions: Option<Vec<(String, i32)>>,
) -> Vec<FetchedOffset> {
    match partitions {
        Some(partitions) => partitions
            .into_iter()
            .map(|(topic, partition)| FetchedOffset {
                offset: machine.offset(group, &topic, partition).cloned(),
                unstable: machine.is_unstable(group, &topic, partition),
                topic,
                partition,
            })
            .collect(),
        None => machine
            .offsets(group)
            .map(|(topic, partition, offset)| FetchedOffset {
                topic: topic.to_owned(),
                partition,
                offset: Some(offset.clone()),
                unstable: machine.is_unstable(group, topic, partition),
            })
            .collect(),
    }
}
