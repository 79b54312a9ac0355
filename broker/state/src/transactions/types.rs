//! What goes into the machine and what comes out of it. No behaviour.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::value::encode_key;
use crate::persist::{FailedBecause, PersistId, Token};

/// Transactional ids of one machine: far above real ones, so that a client that makes up a new id per record cannot fill
/// the memory before the ids expire.
pub(super) const TRANSACTIONAL_IDS_MAX: usize = 20_000;

/// Bytes of a transactional id: the formats hold 16-bit lengths, and longer names have no use.
pub(super) const NAME_BYTES_MAX: usize = 4_096;

/// Partitions of one transaction: their record must fit into a batch.
pub(super) const PARTITIONS_PER_TRANSACTION_MAX: usize = 50_000;

/// How soon something that the log did not take is tried again.
pub(super) const RETRY_MS: i64 = 1_000;

/// A topic's partition.
pub type TopicPartition = (Arc<str>, i32);

/// Names the markers of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkersId(pub u64);

/// Limits, with Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        TransactionConfig {
            timeout_ms_max: 900_000,
            id_expiration_ms: 604_800_000,
        }
    }
}

/// Producer ids that nobody has had, drawn by the caller ahead of their use.
#[derive(Debug, Default)]
pub struct ProducerIds(VecDeque<i64>);

impl ProducerIds {
    /// One more.
    pub fn push(&mut self, id: i64) {
        self.0.push_back(id);
    }

    /// Ids that are left.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self) -> Result<i64, TransactionError> {
        self.0
            .pop_front()
            .ok_or(TransactionError::CoordinatorNotAvailable)
    }
}

/// Why a request is refused; each is the Kafka error of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// COORDINATOR_NOT_AVAILABLE: try again.
    #[error("the transaction coordinator cannot take this now")]
    CoordinatorNotAvailable,
    /// INVALID_REQUEST
    #[error("the transactional id is empty or too long")]
    InvalidRequest,
    /// INVALID_TRANSACTION_TIMEOUT
    #[error("the transaction timeout is out of bounds")]
    InvalidTransactionTimeout,
    /// CONCURRENT_TRANSACTIONS: try again.
    #[error("an earlier request of this transactional id is still under way")]
    ConcurrentTransactions,
    /// INVALID_PRODUCER_ID_MAPPING
    #[error("the transactional id has another producer id")]
    InvalidProducerIdMapping,
    /// PRODUCER_FENCED; INVALID_PRODUCER_EPOCH for clients that do not know it.
    #[error("there is a newer producer with this transactional id")]
    ProducerFenced,
    /// INVALID_TXN_STATE
    #[error("the transaction is not in a state for this")]
    InvalidTxnState,
    /// TRANSACTION_ABORTABLE
    #[error("the partition is not in the transaction")]
    TransactionAbortable,
    /// MESSAGE_TOO_LARGE
    #[error("the record would be larger than the log takes")]
    RecordTooLarge,
}

/// InitProducerId with a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// How long a transaction may take.
    pub timeout_ms: i32,
    /// The producer id and epoch that the client has (KIP-360).
    pub expected: Option<(i64, i16)>,
}

/// AddPartitionsToTxn, AddOffsetsToTxn, or what a first Produce to a partition implies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks.
    pub producer: (i64, i16),
    /// What to add.
    pub partitions: BTreeSet<TopicPartition>,
    /// Each end will bump the client's epoch (transaction version 2).
    pub bumps_epoch: bool,
}

/// AddPartitionsToTxn that only asks whether partitions were added.
pub type VerifyRequest = AddRequest;

/// EndTxn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// Who asks.
    pub producer: (i64, i16),
    /// Commit, or abort.
    pub commit: bool,
    /// The client takes a new epoch from the answer (transaction version 2).
    pub bumps_epoch: bool,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A producer begins.
    Init(Token, InitRequest),
    /// Partitions join the transaction.
    Add(Token, AddRequest),
    /// Are these partitions in the transaction?
    Verify(Token, VerifyRequest),
    /// A transaction ends.
    End(Token, EndRequest),
    /// The records of this persist are durable.
    Persisted(PersistId),
    /// The records of this persist were not written and never will be.
    PersistFailed(PersistId, FailedBecause),
    /// The markers are durable, but for those of these partitions, which could not be written yet.
    MarkersWritten(MarkersId, Vec<TopicPartition>),
    /// Time has passed.
    Tick,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a beginning: producer id and epoch.
    Init(Result<(i64, i16), TransactionError>),
    /// To an addition.
    Add(Result<(), TransactionError>),
    /// To a verification: the partitions that are not in the transaction.
    Verify(Result<BTreeSet<TopicPartition>, TransactionError>),
    /// To an end: producer id and epoch to go on with.
    End(Result<(i64, i16), TransactionError>),
}

/// One record for `__transaction_state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The transactional id.
    pub transactional_id: Arc<str>,
    /// The value; none is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl StoredRecord {
    /// The key's bytes.
    pub fn key(&self) -> Vec<u8> {
        encode_key(&self.transactional_id)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request of this token.
    Reply(Token, Reply),
    /// Append this record, then say `Persisted` or `PersistFailed`.
    Persist(PersistId, StoredRecord),
    /// Append a marker to each partition, then say `MarkersWritten`. A partition that is gone needs none.
    WriteMarkers {
        /// Names them.
        id: MarkersId,
        /// The producer id and epoch in the markers.
        producer: (i64, i16),
        /// Commit, or abort.
        commit: bool,
        /// The epoch is above that of the transaction's batches (transaction version 2).
        bumps_epoch: bool,
        /// Where to.
        partitions: Vec<TopicPartition>,
    },
}
