//! What clients saw of a broker that was killed and paused, and whether a broker may behave so.
//!
//! Owns the history (plain data, one line of JSON per operation) and the checker, a pure function from a history to anomalies
//! in the words of Jepsen's Kafka workload. Never talks to a broker.

pub mod anomaly;
pub mod checker;
pub mod history;

mod facts;
mod groups;
mod polls;
mod sends;

pub use anomaly::{Anomaly, Kind};
pub use checker::check;
pub use history::{Action, End, Header, History, Key, Op, Outcome, Read, Send, Step, Value};

#[cfg(test)]
mod checker_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod plant_tests;
