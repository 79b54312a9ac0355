//! Counting for metrics: how many groups stand where, and what has happened to them in this run.
//!
//! It reads what the machine knows anyway; counted as they happen are only those things that nothing remembers.

use std::collections::BTreeMap;

use super::machine::GroupCoordinator;
use super::view::GroupState;

/// What has happened in this run, also to groups that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    /// Rebalances that began.
    pub rebalances: u64,
    /// Committed offsets whose time was over and whose removal is durable.
    pub offsets_expired: u64,
}

/// Numbers of one or several machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCensus {
    groups: BTreeMap<GroupState, u64>,
    /// What has happened.
    pub happened: Happened,
}

impl GroupCensus {
    /// Groups in a state.
    pub fn groups(&self, state: GroupState) -> u64 {
        self.groups.get(&state).copied().unwrap_or(0)
    }
}

impl GroupCoordinator {
    /// Adds what this machine knows.
    pub fn count_into(&self, census: &mut GroupCensus) {
        for group in self.groups.values() {
            *census.groups.entry(group.state).or_default() += 1;
        }
        census.happened.rebalances += self.happened.rebalances;
        census.happened.offsets_expired += self.happened.offsets_expired;
    }
}
