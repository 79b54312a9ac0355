//! The ConsumerGroup kind: observe, judge, provision, operate.
//!
//! Owns the way from a spec and a look at the group to orders and a status. All judgement is pure (`decide`, with `reset`
//! and `plan`); only `converge` has a client. Kubernetes is not known: see `run` and `local`, which share all of this. It
//! never claims to create a group: that is what consumers do.

mod converge;
mod decide;
mod facts;
#[cfg(test)]
mod fixture;
mod lag;
mod plan;
mod reset;
mod status;

pub(crate) use converge::{Outcome, Surroundings, converge};
pub(crate) use decide::Verdict;
pub(crate) use facts::{Desired, Memory, ObjectView};
pub(crate) use status::{build, is_ready, same, same_but_for_numbers};
