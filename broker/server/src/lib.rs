//! The broker: sockets, one file per Kafka API, partitions and their waiters, metrics, HTTP, command line.
//!
//! Owns every effect (network, clock, runtime). Never describes bytes (`keelson-protocol`), never touches a file
//! (`keelson-log`), never decides what a state machine can decide (`keelson-state`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod broker;
pub mod dispatch;
pub mod reply;
