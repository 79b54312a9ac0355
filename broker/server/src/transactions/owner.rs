//! The owner's task: one loop over messages, outcomes of persists, and the clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use keelson_protocol::builder::BatchBuilder;
use keelson_state::metadata::TRANSACTION_STATE;
use keelson_state::producers::Marker;
use keelson_state::transactions::{
    AddRequest, Effect, FailedBecause, InitRequest, Input, ListFilter, ListedTransaction,
    PersistId, ProducerIds, Reply, StoredRecord, Token, TopicPartition, TransactionCensus,
    TransactionConfig, TransactionCoordinator, TransactionError,
};
use tokio::sync::{mpsc, oneshot};

use super::load;
use super::markers::{self, Job};
use super::{Back, Inbox, Message, TransactionsError};
use crate::broker::Broker;
use crate::coordinator::events::{self, Event};
use crate::coordinator::load::{LoadedShard, load_all};
use crate::coordinator::persist::{Decided, Persists, What, Which};
use crate::coordinator::shards::Shards;
use crate::partitions::PartitionOwner;

/// Producer ids kept at hand once somebody has needed one: an end must not wait for one.
const IDS_AT_HAND: usize = 4;

/// Starts the owner; called from within the runtime, after the partitions are open.
pub fn spawn(inbox: Inbox, broker: &Arc<Broker>) {
    let config = TransactionConfig {
        timeout_ms_max: broker.config.transaction_max_timeout_ms,
        id_expiration_ms: broker.config.transactional_id_expiration_ms,
    };
    let mut owner = Owner {
        // Not from the records' budget: a Produce may hold that while it waits for a record of ours.
        persists: Persists::new(broker.ticket(), &broker.budgets.control),
        broker: Arc::downgrade(broker),
        sender: broker.transactions.sender.downgrade(),
        shards: Shards::new(TRANSACTION_STATE, move || {
            TransactionCoordinator::new(config.clone())
        }),
        ids: ProducerIds::default(),
        ids_asked: 0,
        waiting_for_id: VecDeque::new(),
        backs: HashMap::new(),
        next_token: 0,
    };
    owner.start_loading(broker);
    tokio::spawn(owner.run(inbox));
}

/// Who waits for a token.
enum Waiting {
    Init(Back<(i64, i16)>),
    /// What its producer may write to then.
    Add(AddRequest, Back<()>),
    Verify(AddRequest, Back<Vec<TopicPartition>>),
    End(Back<(i64, i16)>),
}

struct Owner {
    /// Weak, as the broker holds this owner's queue.
    broker: Weak<Broker>,
    sender: mpsc::WeakSender<Message>,
    shards: Shards<TransactionCoordinator>,
    ids: ProducerIds,
    /// Ids that were asked for and are not here yet.
    ids_asked: usize,
    waiting_for_id: VecDeque<(InitRequest, Back<(i64, i16)>)>,
    persists: Persists,
    backs: HashMap<Token, Waiting>,
    next_token: u64,
}

impl Owner {
    /// Shards that the log may hold something of are read in the background.
    fn start_loading(&mut self, broker: &Broker) {
        let partitions = self.shards.start_loading(broker);
        let (fresh, sender) = (self.shards.fresh(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            let load = |partition: &PartitionOwner| load::load(partition, fresh());
            load_all(partitions, load, &sender, Message::Loaded);
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

    fn tick(&mut self, broker: &Arc<Broker>) {
        for index in self.shards.due(broker.now_ms()) {
            self.apply(broker, index, Input::Tick);
        }
    }

    fn decided(&mut self, broker: &Arc<Broker>, decided: Decided) {
        let Which::Persist(id) = decided.which else {
            unreachable!("markers go through other queues");
        };
        let input = match decided.outcome {
            Ok(_) => Input::Persisted(id),
            Err(why) => Input::PersistFailed(id, why),
        };
        self.apply(broker, decided.shard, input);
    }

    /// Feeds a machine and does what it says. Persists that are refused at once feed it again.
    fn apply(&mut self, broker: &Arc<Broker>, index: i32, input: Input) {
        let now_ms = broker.now_ms();
        let mut effects = Vec::new();
        let machine = self.shards.ready_mut(index);
        machine.apply(now_ms, input, &mut self.ids, &mut effects);
        self.carry_out(broker, index, effects);
    }

    fn carry_out(&mut self, broker: &Arc<Broker>, index: i32, effects: Vec<Effect>) {
        let mut refused = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply(token, reply) => self.reply(broker, token, reply),
                Effect::Persist(id, record) => {
                    refused.extend(self.persist(broker, index, id, &record));
                }
                Effect::WriteMarkers {
                    id,
                    producer: (producer_id, epoch),
                    commit,
                    bumps_epoch,
                    partitions,
                } => {
                    let marker = Marker {
                        producer_id,
                        epoch,
                        coordinator_epoch: coordinator_epoch(broker),
                        commit,
                    };
                    let job = Job {
                        shard: index,
                        id,
                        marker,
                        bumps_epoch,
                        partitions,
                    };
                    let sender = self.sender.clone();
                    tokio::spawn(markers::write(Arc::clone(broker), job, sender));
                }
            }
        }
        for input in refused {
            self.apply(broker, index, input);
        }
    }

    fn persist(
        &mut self,
        broker: &Broker,
        index: i32,
        id: PersistId,
        record: &StoredRecord,
    ) -> Option<Input> {
        let Some(target) = self.shards.target(broker, index) else {
            return Some(Input::PersistFailed(id, FailedBecause::Unavailable));
        };
        let mut builder = BatchBuilder::new(broker.now_ms());
        builder.push(Some(&record.key()), record.value.as_deref());
        let what = What::Persist(id, builder.build());
        let decided = self.persists.submit(broker, target, what)?;
        Some(match decided.outcome {
            Ok(_) => Input::Persisted(id),
            Err(why) => Input::PersistFailed(id, why),
        })
    }

    fn take(&mut self, broker: &Arc<Broker>, message: Message) {
        match message {
            Message::Init(request, back) => self.init(broker, request, back),
            Message::Add(request, back) => match self.shard_of(broker, &request.transactional_id) {
                Ok(index) => {
                    let waiting = Waiting::Add(request.clone(), back);
                    self.feed(broker, index, waiting, |token| Input::Add(token, request));
                }
                Err(error) => send(back, Err(error)),
            },
            Message::Verify(request, back) => {
                match self.shard_of(broker, &request.transactional_id) {
                    Ok(index) => {
                        let waiting = Waiting::Verify(request.clone(), back);
                        self.feed(broker, index, waiting, |token| {
                            Input::Verify(token, request)
                        });
                    }
                    Err(error) => send(back, Err(error)),
                }
            }
            Message::End(request, back) => match self.shard_of(broker, &request.transactional_id) {
                Ok(index) => {
                    self.feed(broker, index, Waiting::End(back), |token| {
                        Input::End(token, request)
                    });
                }
                Err(error) => send(back, Err(error)),
            },
            Message::Describe(id, back) => {
                let found = self.shard_of(broker, &id).and_then(|index| {
                    let machine = self.shards.get(index)?;
                    Ok(machine.describe(&id))
                });
                send(back, found);
            }
            Message::List(filter, back) => send(back, self.list(broker, &filter)),
            Message::Census(back) => send(back, self.census()),
            Message::ProducerId(id) => self.producer_id(broker, id),
            Message::Written(written) => {
                let input = Input::MarkersWritten(written.id, written.failed);
                self.apply(broker, written.shard, input);
            }
            Message::Loaded(loaded) => self.loaded(broker, loaded),
        }
    }

    fn feed(
        &mut self,
        broker: &Arc<Broker>,
        index: i32,
        waiting: Waiting,
        input: impl FnOnce(Token) -> Input,
    ) {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.backs.insert(token, waiting);
        self.apply(broker, index, input(token));
    }

    /// A new transactional id needs a producer id: the request waits until one is at hand.
    fn init(&mut self, broker: &Arc<Broker>, request: InitRequest, back: Back<(i64, i16)>) {
        if self.ids.is_empty() {
            self.waiting_for_id.push_back((request, back));
            self.ask_for_ids(broker);
            return;
        }
        match self.shard_of(broker, &request.transactional_id) {
            Ok(index) => self.feed(broker, index, Waiting::Init(back), |token| {
                Input::Init(token, request)
            }),
            Err(error) => send(back, Err(error)),
        }
        self.ask_for_ids(broker);
    }

    fn ask_for_ids(&mut self, broker: &Arc<Broker>) {
        let missing = IDS_AT_HAND.saturating_sub(self.ids.len() + self.ids_asked);
        self.ids_asked += missing;
        for _ in 0..missing {
            let (metadata, sender) = (broker.metadata.clone(), self.sender.clone());
            tokio::spawn(async move {
                let id = metadata.producer_id().await;
                if let Some(owner) = sender.upgrade() {
                    // An owner that is gone needs none; ids are many.
                    let _ = owner.send(Message::ProducerId(id)).await;
                }
            });
        }
    }

    fn producer_id(&mut self, broker: &Arc<Broker>, id: Result<i64, crate::metadata::ChangeError>) {
        self.ids_asked -= 1;
        match id {
            Ok(id) => {
                self.ids.push(id);
                if let Some((request, back)) = self.waiting_for_id.pop_front() {
                    self.init(broker, request, back);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no producer id for a transactional id");
                for (_, back) in self.waiting_for_id.drain(..) {
                    send(back, Err(TransactionsError::Unavailable));
                }
            }
        }
    }

    /// The shard of a transactional id, if it can be asked.
    fn shard_of(&mut self, broker: &Broker, id: &str) -> Result<i32, TransactionsError> {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest.into());
        }
        Ok(self.shards.of(broker, id)?)
    }

    fn list(
        &self,
        broker: &Broker,
        filter: &ListFilter,
    ) -> Result<Vec<ListedTransaction>, TransactionsError> {
        let now_ms = broker.now_ms();
        let machines = self.shards.all()?;
        let listed = machines.iter().flat_map(|m| m.list(now_ms, filter));
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|one, other| one.transactional_id.cmp(&other.transactional_id));
        Ok(listed)
    }

    fn census(&self) -> TransactionCensus {
        let mut census = TransactionCensus::default();
        for (_, machine) in self.shards.ready() {
            machine.count_into(&mut census);
        }
        census
    }

    fn loaded(&mut self, broker: &Arc<Broker>, loaded: LoadedShard<TransactionCoordinator>) {
        match loaded.machine {
            Ok(mut machine) => {
                let mut effects = Vec::new();
                machine.finish_load(broker.now_ms(), &mut effects);
                self.shards.loaded(loaded.index, Some(machine));
                self.carry_out(broker, loaded.index, effects);
            }
            Err(error) => {
                tracing::error!(partition = loaded.index, %error, "transactions of this partition of __transaction_state are unavailable");
                self.shards.loaded(loaded.index, None);
            }
        }
    }

    fn reply(&mut self, broker: &Broker, token: Token, reply: Reply) {
        let waiting = self
            .backs
            .remove(&token)
            .expect("each request is answered once");
        match (waiting, reply) {
            (Waiting::Init(back), Reply::Init(result)) => send(back, result.map_err(Into::into)),
            (Waiting::End(back), Reply::End(result)) => send(back, result.map_err(Into::into)),
            (Waiting::Add(request, back), Reply::Add(result)) => {
                if result.is_ok() {
                    permit(broker, request.producer, request.partitions.iter());
                }
                send(back, result.map_err(Into::into));
            }
            (Waiting::Verify(request, back), Reply::Verify(result)) => {
                if let Ok(missing) = &result {
                    let there = request.partitions.difference(missing);
                    permit(broker, request.producer, there);
                }
                let missing = result.map(|missing| missing.into_iter().collect());
                send(back, missing.map_err(Into::into));
            }
            (
                Waiting::Init(_) | Waiting::End(_) | Waiting::Add(..) | Waiting::Verify(..),
                reply,
            ) => unreachable!("a reply of another kind than the request: {reply:?}"),
        }
    }
}

/// Before anybody can end the transaction: its markers take the permits away.
fn permit<'a>(
    broker: &Broker,
    (producer_id, epoch): (i64, i16),
    partitions: impl Iterator<Item = &'a TopicPartition>,
) {
    for (topic, index) in partitions {
        if let Some(owner) = broker.partitions.partition(topic, *index) {
            owner.permit(producer_id, epoch);
        }
    }
}

/// It grows with each start.
fn coordinator_epoch(broker: &Broker) -> i32 {
    let topic = broker.partitions.topic(TRANSACTION_STATE);
    topic.map_or(0, |topic| topic.leader_epoch)
}

/// Who asked may have disconnected; then nobody wants the answer.
fn send<T>(back: oneshot::Sender<T>, value: T) {
    let _ = back.send(value);
}
