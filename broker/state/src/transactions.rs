//! The transaction coordinator for the transactional ids of one `__transaction_state` partition, as a pure machine
//! (KIP-98, KIP-360, KIP-890).
//!
//! It owns which producer id and epoch a transactional id has, which partitions its transaction touches, and whether it
//! commits or aborts. It never writes, waits or asks for the time: `apply(now_ms, input, ids, &mut effects)` changes state
//! and says what to do, `next_deadline` says when to come back, producer ids are drawn by the caller.
//!
//! A decision comes out as `Effect::Persist` and counts once `Input::Persisted` says so; only then do its markers come out
//! as `Effect::WriteMarkers`, and only when these are in their partitions is the transaction complete. A machine that was
//! replayed goes on where the log says it was. Every request gets exactly one `Effect::Reply`.

mod census;
mod end;
mod init;
mod load;
mod machine;
mod transaction;
mod types;
mod value;
mod view;

pub use census::{Ended, Outcome, TransactionCensus};
pub use machine::TransactionCoordinator;
pub use types::{
    AddRequest, Effect, EndRequest, InitRequest, Input, MarkersId, ProducerIds, Reply,
    StoredRecord, TopicPartition, TransactionConfig, TransactionError, VerifyRequest,
};
pub use value::{PARTITIONS_DEFAULT, TransactionState, TransactionValue, decode_key, encode_key};
pub use view::{DescribedTransaction, ListFilter, ListedTransaction};

pub use crate::persist::{FailedBecause, PersistId, Token};

#[cfg(test)]
mod tests;
