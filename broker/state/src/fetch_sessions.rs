//! Incremental fetch sessions (KIP-227): what each client fetches, what it was told last, and which sessions are kept.
//!
//! Owns two machines. [`Session`] knows the partitions of one session and decides which of them have to be looked at and
//! which of those an answer names. [`SessionCache`] decides which sessions are kept, by Kafka's rule. Neither reads a
//! partition: what one has to say comes in as [`Seen`].

mod cache;
mod session;

#[cfg(test)]
mod tests;

pub use cache::{EVICTION_MS, NewSession, SessionCache};
pub use session::{
    Cached, FetchSessionError, Seen, Session, TopicKey, Wanted, partition_bytes, topic_bytes,
};

/// The session id of a client without a session.
pub const NO_SESSION: i32 = 0;
/// The epoch of a request that asks for everything and for a session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that asks for everything and for no session.
pub const FINAL_EPOCH: i32 = -1;

/// What a request says of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Everything it names, without a session; one that it names is closed.
    Sessionless {
        /// The session to close, if any.
        close: Option<i32>,
    },
    /// Everything it names, and a session from then on; one that it names is closed.
    Full {
        /// The session to close, if any.
        close: Option<i32>,
    },
    /// What changed in a session.
    Incremental {
        /// The session.
        id: i32,
        /// The epoch that it must be at.
        epoch: i32,
    },
}

impl Ask {
    /// From the two fields of a request.
    pub fn of(id: i32, epoch: i32) -> Self {
        let close = (id != NO_SESSION).then_some(id);
        match epoch {
            FINAL_EPOCH => Ask::Sessionless { close },
            INITIAL_EPOCH => Ask::Full { close },
            _ => Ask::Incremental { id, epoch },
        }
    }
}
