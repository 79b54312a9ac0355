//! From our errors to Kafka's codes: the one place.
//!
//! Owns which code a client sees, and why that one: a retriable code makes clients try again silently, another makes
//! them tell somebody. Every match is exhaustive, so that a new error cannot become a wrong code by default.

use keelson_log::{AppendError, ReadError};
use keelson_protocol::{BatchError, ErrorCode};
use keelson_state::config::ConfigError;
use keelson_state::fetch_sessions::FetchSessionError;
use keelson_state::groups::GroupError;
use keelson_state::metadata::MetadataError;
use keelson_state::producers::ProducerError;
use keelson_state::transactions::TransactionError;

use crate::coordinator::CoordinatorError;
use crate::metadata::ChangeError;
use crate::partitions::EnterError;
use crate::transactions::TransactionsError;

/// Why an append was refused.
pub fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::ReadOnly => ErrorCode::KafkaStorageError,
        // Retriable, and true: the client waits and comes back.
        AppendError::TailFull => ErrorCode::RequestTimedOut,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Closed => ErrorCode::NotLeaderOrFollower,
    }
}

/// Why a read failed. Damage is never OFFSET_OUT_OF_RANGE (clients would reset) nor KAFKA_STORAGE_ERROR (clients would
/// retry silently).
pub fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
        ReadError::Deleted => ErrorCode::UnknownTopicOrPartition,
        ReadError::Io { .. } => ErrorCode::UnknownServerError,
    }
}

/// Why a fetch session cannot be used. Clients answer each of these with a full fetch.
pub fn fetch_session(error: &FetchSessionError) -> ErrorCode {
    match error {
        FetchSessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
        FetchSessionError::Epoch => ErrorCode::InvalidFetchSessionEpoch,
        FetchSessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
    }
}

/// Why a produced batch was refused.
pub fn batch(error: &BatchError) -> ErrorCode {
    match error {
        // The bytes changed on the way: trying again helps.
        BatchError::Truncated { .. } | BatchError::Length { .. } | BatchError::Crc { .. } => {
            ErrorCode::CorruptMessage
        }
        // Clients answer this by splitting the batch.
        BatchError::TooLarge { .. } | BatchError::Bomb { .. } => ErrorCode::MessageTooLarge,
        BatchError::UnknownCompression { .. } | BatchError::CompressionVersion { .. } => {
            ErrorCode::UnsupportedCompressionType
        }
        // The bytes are what the client meant to send, and will be the same next time.
        BatchError::Trailing { .. }
        | BatchError::Magic { .. }
        | BatchError::Counts { .. }
        | BatchError::Producer { .. }
        | BatchError::Attributes { .. }
        | BatchError::Decompress { .. }
        | BatchError::Record { .. }
        | BatchError::RecordsTrailing { .. } => ErrorCode::InvalidRecord,
    }
}

/// Why an idempotent producer's batch was refused.
pub fn producer(error: &ProducerError) -> ErrorCode {
    match error {
        ProducerError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        ProducerError::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        ProducerError::NotTransactional { .. } => ErrorCode::InvalidTxnState,
        ProducerError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
    }
}

/// Why a batch did not enter its partition.
pub fn enter(error: &EnterError) -> ErrorCode {
    match error {
        EnterError::Producer(error) => producer(error),
        EnterError::Append(error) => append(error),
        EnterError::NotInTransaction => ErrorCode::InvalidTxnState,
    }
}

/// Why a transaction's coordinator gave no answer. Clients that do not know PRODUCER_FENCED are told what they know.
pub fn transaction(error: &TransactionsError, knows_fenced: bool) -> ErrorCode {
    let error = match error {
        TransactionsError::Refused(error) => error,
        TransactionsError::Loading => return ErrorCode::CoordinatorLoadInProgress,
        TransactionsError::NotCoordinator => return ErrorCode::NotCoordinator,
        TransactionsError::Unavailable => return ErrorCode::CoordinatorNotAvailable,
    };
    match error {
        TransactionError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        TransactionError::InvalidRequest => ErrorCode::InvalidRequest,
        TransactionError::InvalidTransactionTimeout => ErrorCode::InvalidTransactionTimeout,
        TransactionError::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
        TransactionError::InvalidProducerIdMapping => ErrorCode::InvalidProducerIdMapping,
        TransactionError::ProducerFenced if knows_fenced => ErrorCode::ProducerFenced,
        TransactionError::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        TransactionError::InvalidTxnState => ErrorCode::InvalidTxnState,
        TransactionError::TransactionAbortable => ErrorCode::TransactionAbortable,
        TransactionError::RecordTooLarge => ErrorCode::MessageTooLarge,
    }
}

/// Why a change of a topic was refused.
pub fn metadata(error: &MetadataError) -> ErrorCode {
    match error {
        MetadataError::InvalidTopicName { .. } | MetadataError::Collision { .. } => {
            ErrorCode::InvalidTopicException
        }
        MetadataError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        MetadataError::UnknownName { .. } | MetadataError::Nowhere { .. } => {
            ErrorCode::UnknownTopicOrPartition
        }
        MetadataError::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        MetadataError::NoReassignment => ErrorCode::NoReassignmentInProgress,
        MetadataError::UnknownId { .. } => ErrorCode::UnknownTopicId,
        MetadataError::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        MetadataError::TooManyPartitions { .. } => ErrorCode::PolicyViolation,
        MetadataError::InvalidReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
        MetadataError::InvalidReplicaAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
        MetadataError::InvalidConfig(error) => config(error),
        MetadataError::InvalidRequest { .. } | MetadataError::Internal { .. } => {
            ErrorCode::InvalidRequest
        }
    }
}

/// Why a change of the metadata was not made.
pub fn change(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::Refused(error) => metadata(error),
        ChangeError::Log(error) => append(error),
        // Retriable: another broker, or this one after its start, will answer.
        ChangeError::Stopping => ErrorCode::NotController,
    }
}

/// The words that go with [`change`] where Kafka has any: of a topic that does not exist, the code says all.
pub fn change_message(error: &ChangeError) -> Option<String> {
    match error {
        ChangeError::Refused(
            MetadataError::UnknownName { .. } | MetadataError::UnknownId { .. },
        ) => None,
        ChangeError::Refused(_) | ChangeError::Log(_) | ChangeError::Stopping => {
            Some(error.to_string())
        }
    }
}

/// Why a group's coordinator gave no answer.
pub fn coordinator(error: &CoordinatorError) -> ErrorCode {
    match error {
        CoordinatorError::Group(error) => group(error),
        CoordinatorError::Loading => ErrorCode::CoordinatorLoadInProgress,
        CoordinatorError::NotCoordinator => ErrorCode::NotCoordinator,
        CoordinatorError::Unavailable => ErrorCode::CoordinatorNotAvailable,
    }
}

/// Why a group refused something.
pub fn group(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        GroupError::RecordTooLarge => ErrorCode::InvalidCommitOffsetSize,
    }
}

/// Why a topic configuration was refused.
pub fn config(error: &ConfigError) -> ErrorCode {
    match error {
        ConfigError::UnknownKey { .. }
        | ConfigError::BadValue { .. }
        | ConfigError::Conflict { .. }
        | ConfigError::BrokerKey { .. }
        | ConfigError::Null { .. }
        | ConfigError::NotAList { .. }
        | ConfigError::Owned { .. } => ErrorCode::InvalidConfig,
    }
}
