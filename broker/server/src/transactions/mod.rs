//! The transaction coordinator: the async owner around the pure machines of `keelson_state::transactions`.
//!
//! Owns the machines, one per partition of `__transaction_state`, their loading after the start, their timers, the way of
//! their records into the log, and the markers. Never decides anything about a transaction. A reply that claims something
//! leaves only after its record is durable.

mod load;
mod markers;
mod owner;

use keelson_state::metadata::TRANSACTION_STATE;
use keelson_state::transactions::{
    AddRequest, DescribedTransaction, EndRequest, InitRequest, ListFilter, ListedTransaction,
    TopicPartition, TransactionCensus, TransactionCoordinator, TransactionError,
};
use tokio::sync::{mpsc, oneshot};

use crate::broker::Broker;
use crate::coordinator::load::LoadedShard;
use crate::coordinator::shards::NotReady;
use crate::metadata::{ChangeError, InternalTopic};

pub use markers::{MarkerFailure, end_in};
pub use owner::spawn;

/// Requests that may wait for the owner. Each connection has few under way, so this is never reached in peace.
const QUEUE_MESSAGES_MAX: usize = 65_536;

/// Why there is no answer about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionsError {
    /// The coordinator says no.
    Refused(TransactionError),
    /// COORDINATOR_LOAD_IN_PROGRESS: the partition of this transactional id is being read.
    Loading,
    /// NOT_COORDINATOR: `__transaction_state` does not exist yet; FindCoordinator makes it.
    NotCoordinator,
    /// COORDINATOR_NOT_AVAILABLE: its partition is damaged, the queue is full, or the broker is stopping.
    Unavailable,
}

impl From<TransactionError> for TransactionsError {
    fn from(error: TransactionError) -> Self {
        TransactionsError::Refused(error)
    }
}

impl From<NotReady> for TransactionsError {
    fn from(why: NotReady) -> Self {
        match why {
            NotReady::NotCoordinator => TransactionsError::NotCoordinator,
            NotReady::Loading => TransactionsError::Loading,
            NotReady::Damaged => TransactionsError::Unavailable,
        }
    }
}

/// A reply's way back.
type Back<T> = oneshot::Sender<Result<T, TransactionsError>>;

/// What the owner can be asked.
enum Message {
    Init(InitRequest, Back<(i64, i16)>),
    Add(AddRequest, Back<()>),
    Verify(AddRequest, Back<Vec<TopicPartition>>),
    End(EndRequest, Back<(i64, i16)>),
    Describe(String, Back<Option<DescribedTransaction>>),
    List(ListFilter, Back<Vec<ListedTransaction>>),
    Census(oneshot::Sender<TransactionCensus>),
    ProducerId(Result<i64, ChangeError>),
    Written(markers::Written),
    Loaded(LoadedShard<TransactionCoordinator>),
}

/// The client of the owner.
#[derive(Debug, Clone)]
pub struct Transactions {
    sender: mpsc::Sender<Message>,
}

/// The owner's end of the queue.
pub struct Inbox {
    receiver: mpsc::Receiver<Message>,
}

/// A client and the inbox of an owner that is yet to be spawned.
pub fn channel() -> (Transactions, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
    (Transactions { sender }, Inbox { receiver })
}

impl Transactions {
    /// A producer begins: its id and epoch.
    ///
    /// Like every request here it enters the queue at once, so that requests of one connection keep their order.
    pub fn init(
        &self,
        request: InitRequest,
    ) -> impl Future<Output = Result<(i64, i16), TransactionsError>> + Send + use<> {
        answer(self.ask(|back| Message::Init(request, back)))
    }

    /// Partitions join a transaction; from the answer on its producer may write to them.
    pub fn add(
        &self,
        request: AddRequest,
    ) -> impl Future<Output = Result<(), TransactionsError>> + Send + use<> {
        answer(self.ask(|back| Message::Add(request, back)))
    }

    /// Which of these partitions are not in the transaction. From the answer on its producer may write to the others.
    pub fn verify(
        &self,
        request: AddRequest,
    ) -> impl Future<Output = Result<Vec<TopicPartition>, TransactionsError>> + Send + use<> {
        answer(self.ask(|back| Message::Verify(request, back)))
    }

    /// A transaction ends: producer id and epoch to go on with.
    pub fn end(
        &self,
        request: EndRequest,
    ) -> impl Future<Output = Result<(i64, i16), TransactionsError>> + Send + use<> {
        answer(self.ask(|back| Message::End(request, back)))
    }

    /// A transactional id, if it is known.
    pub fn describe(
        &self,
        transactional_id: String,
    ) -> impl Future<Output = Result<Option<DescribedTransaction>, TransactionsError>> + Send + use<>
    {
        answer(self.ask(|back| Message::Describe(transactional_id, back)))
    }

    /// Transactional ids that pass a filter.
    pub fn list(
        &self,
        filter: ListFilter,
    ) -> impl Future<Output = Result<Vec<ListedTransaction>, TransactionsError>> + Send + use<>
    {
        answer(self.ask(|back| Message::List(filter, back)))
    }

    /// Numbers of all transactional ids that are loaded; none when there is nobody who could count.
    pub async fn census(&self) -> Option<TransactionCensus> {
        let (back, later) = oneshot::channel();
        self.sender.try_send(Message::Census(back)).ok()?;
        later.await.ok()
    }

    fn ask<T>(&self, message: impl FnOnce(Back<T>) -> Message) -> Asked<T> {
        let (back, later) = oneshot::channel();
        let sent = self.sender.try_send(message(back)).is_ok();
        sent.then_some(later)
    }
}

/// The way back of a question, if it was taken.
type Asked<T> = Option<oneshot::Receiver<Result<T, TransactionsError>>>;

async fn answer<T>(asked: Asked<T>) -> Result<T, TransactionsError> {
    match asked {
        Some(later) => later.await.unwrap_or(Err(TransactionsError::Unavailable)),
        None => Err(TransactionsError::Unavailable),
    }
}

/// `__transaction_state` is there, or is made.
pub async fn ensure_topic(broker: &Broker) -> Result<(), ChangeError> {
    if broker.partitions.topic(TRANSACTION_STATE).is_some() {
        return Ok(());
    }
    let config = &broker.config;
    let wanted = InternalTopic {
        name: TRANSACTION_STATE,
        partitions: config.transaction_topic_partitions,
        segment_bytes: config.transaction_topic_segment_bytes,
    };
    broker.metadata.ensure_internal_topic(wanted).await
}
