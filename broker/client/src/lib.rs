//! A small admin client for Kafka brokers, used by the operator and the command line.
//!
//! Owns one connection to a cluster and what admin calls look like as plain structs. Never a judge in tests (real
//! clients are), never on the data path: it produces nothing, and of records it reads no more than the header of a batch.
//!
//! ```no_run
//! # async fn example() -> Result<(), keelson_client::Error> {
//! let client = keelson_client::AdminClient::new("127.0.0.1:9092", keelson_client::Options::default())?;
//! for topic in client.metadata(None).await?.topics {
//!     println!("{} has {} partitions", topic.name, topic.partitions.len());
//! }
//! # Ok(()) }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod connection;
mod error;
mod groups;
mod owner;
mod types;

pub use admin::AdminClient;
pub use error::{BrokerError, Error};
pub use types::{
    AlterOp, Broker, ClusterMetadata, CommittedOffset, ConfigEntry, ConfigSource, Coordinator,
    CreatedTopic, GroupDescription, GroupListing, GroupMember, ListedOffset, NewOffset, NewTopic,
    OffsetSpec, Options, Partition, Resource, Topic,
};
pub use uuid::Uuid;
