//! The broker: sockets, one file per Kafka API, partitions and their waiters, metrics, HTTP, command line.
//!
//! Owns every effect (network, clock, runtime). Never describes bytes (`keelson-protocol`), never touches a file
//! (`keelson-log`), never decides what a state machine can decide (`keelson-state`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod broker;
pub mod budgets;
pub mod cli;
pub mod config;
pub mod coordinator;
#[cfg(test)]
mod counting;
pub mod dispatch;
pub mod errors;
pub mod fetch_sessions;
pub mod http;
mod known;
pub mod listeners;
pub mod logging;
pub mod metadata;
pub mod metrics;
pub mod names;
pub mod net;
pub mod partitions;
pub mod reply;
pub mod start;
#[cfg(test)]
mod testing;
pub mod transactions;
