//! The words in which a machine and its driver speak of waiting requests and of records on their way to a log.
//!
//! It owns names only. Both coordinators use them, so that one driver of a log serves both.

/// Names one waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Names one persist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PersistId(pub u64);

/// Why a persist was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedBecause {
    /// The log takes nothing now (full or read-only): worth trying again.
    Unavailable,
    /// The records are larger than a batch may be.
    TooLarge,
    /// A newer epoch of the producer is known where the records were to go.
    Fenced,
}
