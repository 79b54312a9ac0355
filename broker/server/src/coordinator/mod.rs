//! The group coordinator: the async owner around the pure machines of `keelson_state::groups`.
//!
//! Owns the machines, one per partition of `__consumer_offsets`, their loading after the start, their timers, and the
//! way of their records into the log. Never decides anything about a group. A reply that claims something leaves only
//! after its records are durable.

pub(crate) mod events;
pub(crate) mod load;
mod owner;
pub(crate) mod persist;
pub(crate) mod shards;

use std::sync::Arc;

use keelson_state::groups::{
    CommitRequest, CommittedOffset, DeleteOffsetsRequest, DescribedGroup, GroupCensus,
    GroupCoordinator, GroupError, HeartbeatRequest, JoinRequest, Joined, LeaveRequest, ListedGroup,
    SyncRequest, Synced,
};
use keelson_state::persist::FailedBecause;
use keelson_state::producers::Marker;
use tokio::sync::{mpsc, oneshot};

pub use owner::spawn;
use shards::NotReady;

/// Requests that may wait for the owner. Each connection has few under way, so this is never reached in peace.
const QUEUE_MESSAGES_MAX: usize = 65_536;

/// Why there is no answer of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoordinatorError {
    /// The group says no.
    Group(GroupError),
    /// COORDINATOR_LOAD_IN_PROGRESS: the partition of this group is being read.
    Loading,
    /// NOT_COORDINATOR: `__consumer_offsets` does not exist yet; FindCoordinator makes it.
    NotCoordinator,
    /// COORDINATOR_NOT_AVAILABLE: its partition is damaged, the queue is full, or the broker is stopping.
    Unavailable,
}

impl From<GroupError> for CoordinatorError {
    fn from(error: GroupError) -> Self {
        CoordinatorError::Group(error)
    }
}

impl From<NotReady> for CoordinatorError {
    fn from(why: NotReady) -> Self {
        match why {
            NotReady::NotCoordinator => CoordinatorError::NotCoordinator,
            NotReady::Loading => CoordinatorError::Loading,
            NotReady::Damaged => CoordinatorError::Unavailable,
        }
    }
}

/// Committed offsets of one group, as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset; none was committed otherwise.
    pub offset: Option<CommittedOffset>,
    /// A transaction that has not ended may change it.
    pub unstable: bool,
}

/// One group with everything that metrics show of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// The group.
    pub group: String,
    /// Its members.
    pub members: usize,
    /// Its committed offsets.
    pub offsets: Vec<(String, i32, i64)>,
}

/// A reply's way back.
type Back<T> = oneshot::Sender<Result<T, CoordinatorError>>;

/// The end of a transaction in a partition of `__consumer_offsets`.
struct EndTransaction {
    index: i32,
    marker: Marker,
    bumps_epoch: bool,
    back: oneshot::Sender<Result<(), FailedBecause>>,
}

/// What the owner can be asked.
enum Message {
    EndTransaction(EndTransaction),
    Join(
        JoinRequest,
        oneshot::Sender<Result<Joined, (CoordinatorError, String)>>,
    ),
    Sync(SyncRequest, Back<Synced>),
    Heartbeat(HeartbeatRequest, Back<()>),
    Leave(LeaveRequest, Back<Vec<Result<(), GroupError>>>),
    Commit(CommitRequest, Back<Vec<Result<(), GroupError>>>),
    Delete(String, Back<()>),
    DeleteOffsets(DeleteOffsetsRequest, Back<Vec<Result<(), GroupError>>>),
    Offsets(String, Option<Vec<(String, i32)>>, Back<Vec<FetchedOffset>>),
    Describe(String, Back<Option<DescribedGroup>>),
    List(Back<Vec<ListedGroup>>),
    Snapshot(oneshot::Sender<Vec<GroupSnapshot>>),
    Census(oneshot::Sender<GroupCensus>),
    TopicDeleted(Arc<str>),
    Loaded(load::LoadedShard<GroupCoordinator>),
}

/// The client of the owner.
#[derive(Debug, Clone)]
pub struct Coordinator {
    sender: mpsc::Sender<Message>,
}

/// The owner's end of the queue.
pub struct Inbox {
    receiver: mpsc::Receiver<Message>,
}

/// A client and the inbox of an owner that is yet to be spawned.
pub fn channel() -> (Coordinator, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
    (Coordinator { sender }, Inbox { receiver })
}

impl Coordinator {
    /// Asks to join; the answer may come much later. On an error, the member id that the answer carries.
    ///
    /// Like every request here it enters the queue at once, so that requests of one connection keep their order.
    pub fn join(
        &self,
        request: JoinRequest,
    ) -> impl Future<Output = Result<Joined, (CoordinatorError, String)>> + Send + use<> {
        let (back, later) = oneshot::channel();
        let member_id = request.member_id.clone();
        let sent = self.sender.try_send(Message::Join(request, back));
        async move {
            let lost = (CoordinatorError::Unavailable, member_id);
            match (sent, later.await) {
                (Ok(()), Ok(result)) => result,
                (Ok(()) | Err(_), Ok(_) | Err(_)) => Err(lost),
            }
        }
    }

    /// Asks for the assignment.
    pub fn sync(
        &self,
        request: SyncRequest,
    ) -> impl Future<Output = Result<Synced, CoordinatorError>> + Send + use<> {
        answer(self.ask(|back| Message::Sync(request, back)))
    }

    /// Says that a member lives.
    pub fn heartbeat(
        &self,
        request: HeartbeatRequest,
    ) -> impl Future<Output = Result<(), CoordinatorError>> + Send + use<> {
        answer(self.ask(|back| Message::Heartbeat(request, back)))
    }

    /// Says that members leave: one result each.
    pub fn leave(
        &self,
        request: LeaveRequest,
    ) -> impl Future<Output = Result<Vec<Result<(), GroupError>>, CoordinatorError>> + Send + use<>
    {
        answer(self.ask(|back| Message::Leave(request, back)))
    }

    /// Commits offsets: one result each, once durable.
    pub fn commit(
        &self,
        request: CommitRequest,
    ) -> impl Future<Output = Result<Vec<Result<(), GroupError>>, CoordinatorError>> + Send + use<>
    {
        answer(self.ask(|back| Message::Commit(request, back)))
    }

    /// Ends a transaction in a partition of `__consumer_offsets`; answered once that is durable.
    pub async fn end_transaction(
        &self,
        index: i32,
        marker: Marker,
        bumps_epoch: bool,
    ) -> Result<(), FailedBecause> {
        let (back, later) = oneshot::channel();
        let end = EndTransaction {
            index,
            marker,
            bumps_epoch,
            back,
        };
        let sent = self.sender.try_send(Message::EndTransaction(end));
        sent.map_err(|_| FailedBecause::Unavailable)?;
        later.await.unwrap_or(Err(FailedBecause::Unavailable))
    }

    /// Deletes a group.
    pub fn delete(
        &self,
        group: String,
    ) -> impl Future<Output = Result<(), CoordinatorError>> + Send + use<> {
        answer(self.ask(|back| Message::Delete(group, back)))
    }

    /// Deletes offsets of a group: one result each, once durable.
    pub fn delete_offsets(
        &self,
        request: DeleteOffsetsRequest,
    ) -> impl Future<Output = Result<Vec<Result<(), GroupError>>, CoordinatorError>> + Send + use<>
    {
        answer(self.ask(|back| Message::DeleteOffsets(request, back)))
    }

    /// Committed offsets of these partitions, or all of the group.
    pub fn offsets(
        &self,
        group: String,
        partitions: Option<Vec<(String, i32)>>,
    ) -> impl Future<Output = Result<Vec<FetchedOffset>, CoordinatorError>> + Send + use<> {
        answer(self.ask(|back| Message::Offsets(group, partitions, back)))
    }

    /// A group, if it exists.
    pub fn describe(
        &self,
        group: String,
    ) -> impl Future<Output = Result<Option<DescribedGroup>, CoordinatorError>> + Send + use<> {
        answer(self.ask(|back| Message::Describe(group, back)))
    }

    /// All groups.
    pub fn list(
        &self,
    ) -> impl Future<Output = Result<Vec<ListedGroup>, CoordinatorError>> + Send + use<> {
        answer(self.ask(Message::List))
    }

    /// All groups that are loaded, with members and offsets, for metrics.
    pub async fn snapshot(&self) -> Vec<GroupSnapshot> {
        let (back, later) = oneshot::channel();
        if self.sender.try_send(Message::Snapshot(back)).is_err() {
            return Vec::new();
        }
        later.await.unwrap_or_default()
    }

    /// Numbers of all groups that are loaded; none when there is nobody who could count.
    pub async fn census(&self) -> Option<GroupCensus> {
        let (back, later) = oneshot::channel();
        self.sender.try_send(Message::Census(back)).ok()?;
        later.await.ok()
    }

    /// A topic is gone: its committed offsets go, too. Called from the metadata's thread, which may wait.
    pub fn topic_deleted(&self, topic: &Arc<str>) {
        // An owner that is gone has no offsets to drop; the next start drops those of topics that do not exist.
        let _ = self
            .sender
            .blocking_send(Message::TopicDeleted(Arc::clone(topic)));
    }

    fn ask<T>(&self, message: impl FnOnce(Back<T>) -> Message) -> Asked<T> {
        let (back, later) = oneshot::channel();
        let sent = self.sender.try_send(message(back)).is_ok();
        sent.then_some(later)
    }
}

/// The way back of a question, if it was taken.
type Asked<T> = Option<oneshot::Receiver<Result<T, CoordinatorError>>>;

async fn answer<T>(asked: Asked<T>) -> Result<T, CoordinatorError> {
    match asked {
        Some(later) => later.await.unwrap_or(Err(CoordinatorError::Unavailable)),
        None => Err(CoordinatorError::Unavailable),
    }
}
