//! The harness: real processes, real clients and real files, for tests that judge the broker from outside.
//!
//! Owns: starting, stopping and killing brokers, altering bytes of a stopped one, reaching it over the Kafka port and HTTP,
//! and waiting on conditions with deadlines. Never looks inside a broker process, never sleeps for luck, and never lets a
//! process outlive its test.

pub mod apiproxy;
pub mod broker;
pub mod consistency;
pub mod differential;
pub mod disk;
pub mod groups;
pub mod http;
pub mod kafkaproxy;
pub mod kube;
pub mod load;
pub mod operator;
pub mod python;
pub mod rdk;
pub mod reaper;
pub mod records;
pub mod stage;
pub mod strace;
pub mod table;
pub mod tools;
pub mod wait;
pub mod wire;
pub mod workload;

pub use broker::{Broker, BrokerSetup};
pub use wait::{wait_for, wait_until};
