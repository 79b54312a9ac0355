//! Decisions of the broker, and nothing else: producers, transactions, groups, committed offsets, fetch sessions, topic
//! configs, cluster metadata.
//!
//! Every module here is pure. It never does I/O, never asks for the time, never draws a random number and never waits:
//! time and randomness are arguments, deadlines are data, and what is to be done comes back as values.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod codec;
pub mod config;
pub mod fetch_sessions;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod persist;
pub mod producers;
pub mod transactions;
