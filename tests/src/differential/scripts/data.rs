//! Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and DescribeProducers.

mod fetch;
mod list;
pub(super) mod produce;

use super::super::case::Script;

pub(in super::super) fn run(script: &mut Script) {
    produce::run(script);
    fetch::run(script);
    list::run(script);
}
