//! The classic consumer group protocol for the groups of one `__consumer_offsets` partition, as a pure machine.
//!
//! It owns membership, generations, assignments and committed offsets. It never writes, waits or asks for the time:
//! `apply(now_ms, input, &mut effects)` changes state and says what to do, `next_deadline` says when to come back,
//! member ids are drawn by the caller.
//!
//! What it decides that must outlive a crash comes out as `Effect::Persist`; replies that claim it are held back until
//! `Input::Persisted` for it (or `PersistFailed`). Persists of one machine complete in the order they were asked for.
//! Every request that carries a token gets exactly one `Effect::Reply` with that token, also when a later request of
//! the same member takes its place.

mod census;
mod commit;
mod expire;
mod group;
mod join;
mod load;
mod machine;
mod offset_delete;
mod open;
mod rebalance;
mod subscription;
mod sync;
mod timers;
mod types;
mod view;

pub use census::{GroupCensus, Happened};
pub use machine::GroupCoordinator;
pub use types::{
    CommitEntry, CommitRequest, DeleteOffsetsRequest, Effect, FailedBecause, GroupConfig,
    GroupError, HeartbeatRequest, Input, JoinMember, JoinRefused, JoinRequest, Joined, LeaveMember,
    LeaveRequest, MEMBERS_PER_GROUP_MAX, PersistId, Reply, StoredRecord, SyncRequest, Synced,
    Token,
};
pub use view::{CommittedOffset, DescribedGroup, DescribedMember, GroupState, ListedGroup};

#[cfg(test)]
mod tests;
