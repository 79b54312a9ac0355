//! What goes into the machine and what comes out of it. No behaviour.

use bytes::Bytes;

use crate::offsets::Key;
pub use crate::persist::{FailedBecause, PersistId, Token};

/// Members of one group: far above real groups, so that a flood of joins cannot grow one for ever. A lower
/// `group.max.size` wins.
pub const MEMBERS_PER_GROUP_MAX: usize = 10_000;

/// Groups of one machine, for the same reason.
pub(super) const GROUPS_MAX: usize = 10_000;

/// Keys of one persist: a deletion of more offsets than this is cut into several batches.
pub(super) const RECORDS_PER_PERSIST_MAX: usize = 1_000;

/// Bytes of a group id, member id, instance id, client id or protocol name: the formats hold 16-bit lengths, and
/// longer names have no use.
pub(super) const NAME_BYTES_MAX: usize = 4_096;

/// How long a new member may wait in its first join before it is given up (Kafka's constant): its client may be gone.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 300_000;

/// How soon a removal of a deleted topic's offsets is tried again when the log took no record.
pub(super) const DROP_RETRY_MS: i64 = 1_000;

/// Limits and delays, with Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.max.size`
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in ms: how long offsets outlive their commit, or the group's last member.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_check_interval_ms: i64,
    /// Bytes that the metadata and assignments of all members of one machine may take. Above it nobody joins until
    /// others leave, so that clients which join and fall silent cannot fill the memory.
    pub member_bytes_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            group_size_max: MEMBERS_PER_GROUP_MAX,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 604_800_000,
            offsets_check_interval_ms: 600_000,
            member_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Why a request is refused; each is the Kafka error of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// COORDINATOR_NOT_AVAILABLE: try again.
    #[error("the group coordinator cannot take this now")]
    CoordinatorNotAvailable,
    /// UNKNOWN_MEMBER_ID
    #[error("the group does not know this member")]
    UnknownMemberId,
    /// ILLEGAL_GENERATION
    #[error("the group has another generation")]
    IllegalGeneration,
    /// REBALANCE_IN_PROGRESS
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// INCONSISTENT_GROUP_PROTOCOL
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// INVALID_SESSION_TIMEOUT
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// INVALID_GROUP_ID
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    /// MEMBER_ID_REQUIRED
    #[error("join again with the member id given here")]
    MemberIdRequired,
    /// FENCED_INSTANCE_ID
    #[error("another member has this group.instance.id")]
    FencedInstanceId,
    /// GROUP_MAX_SIZE_REACHED
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// NON_EMPTY_GROUP
    #[error("the group has members")]
    NonEmptyGroup,
    /// GROUP_ID_NOT_FOUND
    #[error("there is no such group")]
    GroupIdNotFound,
    /// OFFSET_METADATA_TOO_LARGE
    #[error("the offset's metadata is too large")]
    OffsetMetadataTooLarge,
    /// GROUP_SUBSCRIBED_TO_TOPIC
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    /// INVALID_PRODUCER_EPOCH
    #[error("there is a newer producer with this producer id")]
    InvalidProducerEpoch,
    /// INVALID_COMMIT_OFFSET_SIZE
    #[error("the record would be larger than the log takes")]
    RecordTooLarge,
}

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// Empty for a first join.
    pub member_id: String,
    /// The id to give to a new member, drawn by the caller.
    pub fresh_member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The client's name.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long a rebalance may wait for it.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// "consumer", "connect", …
    pub protocol_type: String,
    /// Its protocols, most liked first, each with metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// Version 4 and later: a new dynamic member must come back with the id it was given.
    pub require_known_member_id: bool,
    /// Version 9 and later: a leader may be told to skip the assignment.
    pub supports_skipping_assignment: bool,
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The generation it joined.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Version 5 and later: what the member believes.
    pub protocol_type: Option<String>,
    /// Version 5 and later: what the member believes.
    pub protocol: Option<String>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(String, Bytes)>,
}

/// Heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: String,
    /// The generation it joined.
    pub generation: i32,
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

/// One member that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveMember {
    /// The member; may be empty when the instance is named.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

/// LeaveGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group: String,
    /// Who leaves.
    pub members: Vec<LeaveMember>,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitEntry {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset to read next.
    pub offset: i64,
    /// Leader epoch of the record before it; −1 is unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
}

/// OffsetCommit or TxnOffsetCommit, of a member or from outside (generation −1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group.
    pub group: String,
    /// The member's generation; negative from outside.
    pub generation: i32,
    /// The member; empty from outside.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Producer id and epoch of the transaction that the offsets are part of: they are pending until it ends.
    pub producer: Option<(i64, i16)>,
    /// How long the offsets are to stay, in ms, where the client says so (OffsetCommit 2 to 4).
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub entries: Vec<CommitEntry>,
}

/// OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group: String,
    /// Topics and partitions.
    pub partitions: Vec<(String, i32)>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A join.
    Join(Token, JoinRequest),
    /// A sync.
    Sync(Token, SyncRequest),
    /// A heartbeat.
    Heartbeat(Token, HeartbeatRequest),
    /// A leave.
    Leave(Token, LeaveRequest),
    /// A commit.
    Commit(Token, CommitRequest),
    /// DeleteGroups, for one group.
    Delete(Token, String),
    /// OffsetDelete.
    DeleteOffsets(Token, DeleteOffsetsRequest),
    /// The marker of this producer's transaction is durable in this partition: its offsets count, or are gone.
    TransactionEnded {
        /// Whose.
        producer_id: i64,
        /// Commit, or abort.
        commit: bool,
    },
    /// A topic is gone: forget its offsets.
    TopicDeleted(String),
    /// The records of this persist are durable.
    Persisted(PersistId),
    /// The records of this persist were not written and never will be.
    PersistFailed(PersistId, FailedBecause),
    /// Time has passed.
    Tick,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinMember {
    /// The member.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A join that went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub member_id: String,
    /// The generation.
    pub generation: i32,
    /// "consumer", "connect", …
    pub protocol_type: Option<String>,
    /// The protocol chosen.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: String,
    /// All members, for the leader; empty for followers.
    pub members: Vec<JoinMember>,
    /// The leader keeps the assignment as it is.
    pub skip_assignment: bool,
}

/// A join that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub error: GroupError,
    /// The id that the answer carries; with MEMBER_ID_REQUIRED the one to come back with.
    pub member_id: String,
}

/// A sync that went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// "consumer", "connect", …
    pub protocol_type: Option<String>,
    /// The protocol chosen.
    pub protocol: Option<String>,
    /// What the member is to do.
    pub assignment: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a join.
    Join(Result<Joined, JoinRefused>),
    /// To a sync.
    Sync(Result<Synced, GroupError>),
    /// To a heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To a leave: one result per member, in the order asked.
    Leave(Vec<Result<(), GroupError>>),
    /// To a commit: one result per entry, in the order asked.
    Commit(Vec<Result<(), GroupError>>),
    /// To a deletion.
    Delete(Result<(), GroupError>),
    /// To a deletion of offsets: one result per partition, in the order asked.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
}

/// One record for `__consumer_offsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// What it is about.
    pub key: Key,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request of this token.
    Reply(Token, Reply),
    /// Append these records as one batch, then say `Persisted` or `PersistFailed`.
    Persist(PersistId, Vec<StoredRecord>),
    /// The same, as a batch of this producer's transaction.
    PersistTransactional(PersistId, (i64, i16), Vec<StoredRecord>),
}
