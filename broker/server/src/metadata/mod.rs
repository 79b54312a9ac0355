//! The owner of `__cluster_metadata`: it alone changes topics, their configurations and the blocks of producer ids.
//!
//! Owns the log of metadata records and the image they make. A change is decided on the newest image, its records (and
//! the delete frames of partitions that go) are one commit group, and only when that is durable does anybody see the
//! image or get an answer. Never decides what is lawful: that is `keelson_state::metadata`.

mod load;
mod owner;

use std::fmt;

use keelson_log::AppendError;
use keelson_protocol::ErrorCode;
use keelson_state::metadata::{
    ConfigChange, ConfigTarget, CreatePartitions, CreateTopic, MetadataError, TopicRef, TopicUuid,
};
use tokio::sync::{mpsc, oneshot};

use crate::broker::Broker;
use crate::errors;

pub use load::{LoadError, Loaded, load};
pub use owner::spawn;

/// Changes that may wait for the owner; whoever comes after waits in its own task.
const QUEUE_MESSAGES_MAX: usize = 1_024;

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// It is not lawful.
    Refused(MetadataError),
    /// The log did not take its records.
    Log(AppendError),
    /// The broker is stopping.
    Stopping,
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Refused(error) => error.fmt(f),
            ChangeError::Log(error) => error.fmt(f),
            ChangeError::Stopping => f.write_str("the broker is stopping"),
        }
    }
}

/// A topic that was created, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id; nil when it was only validated.
    pub id: TopicUuid,
    /// Its partitions.
    pub partitions: i32,
    /// The configs set on it.
    pub configs: Vec<(String, String)>,
}

/// A topic of the broker's own.
#[derive(Debug, Clone, Copy)]
pub struct InternalTopic {
    /// Its name.
    pub name: &'static str,
    /// Its partitions.
    pub partitions: i32,
    /// Size of its segments.
    pub segment_bytes: i32,
}

type Answers<T> = oneshot::Sender<Vec<Result<T, ChangeError>>>;

/// What the owner can be asked.
enum Message {
    CreateTopics {
        wants: Vec<CreateTopic>,
        by_broker: bool,
        validate_only: bool,
        answers: Answers<Created>,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
        answers: Answers<()>,
    },
    CreatePartitions {
        wants: Vec<CreatePartitions>,
        validate_only: bool,
        answers: Answers<()>,
    },
    AlterConfigs {
        changes: Vec<(ConfigTarget, ConfigChange)>,
        validate_only: bool,
        answers: Answers<()>,
    },
    ProducerId {
        answers: Answers<i64>,
    },
}

/// The client of the owner.
#[derive(Debug, Clone)]
pub struct Metadata {
    sender: mpsc::Sender<Message>,
}

/// The owner's end of the queue.
pub struct Inbox {
    receiver: mpsc::Receiver<Message>,
}

/// A client and the inbox of an owner that is yet to be spawned.
pub fn channel() -> (Metadata, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
    (Metadata { sender }, Inbox { receiver })
}

impl Metadata {
    /// Creates topics, or only says whether it would: one result each, in the order asked. Internal topics are created
    /// `by_broker` only.
    pub async fn create_topics(
        &self,
        wants: Vec<CreateTopic>,
        by_broker: bool,
        validate_only: bool,
    ) -> Vec<Result<Created, ChangeError>> {
        let count = wants.len();
        self.ask(count, |answers| Message::CreateTopics {
            wants,
            by_broker,
            validate_only,
            answers,
        })
        .await
    }

    /// Creates a topic of the broker's own unless it is there.
    pub async fn ensure_internal_topic(&self, wanted: InternalTopic) -> Result<(), ChangeError> {
        let set = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let want = CreateTopic {
            name: wanted.name.to_owned(),
            partitions: wanted.partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: vec![
                // What it holds is never old: nothing but a tombstone takes it away.
                set("cleanup.policy", "compact"),
                set("segment.bytes", &wanted.segment_bytes.to_string()),
            ],
        };
        match only(self.create_topics(vec![want], true, false).await) {
            Ok(_) | Err(ChangeError::Refused(MetadataError::Exists { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes topics with their partitions.
    pub async fn delete_topics(&self, topics: Vec<TopicRef>) -> Vec<Result<(), ChangeError>> {
        let count = topics.len();
        self.ask(count, |answers| Message::DeleteTopics { topics, answers })
            .await
    }

    /// Adds partitions.
    pub async fn create_partitions(
        &self,
        wants: Vec<CreatePartitions>,
        validate_only: bool,
    ) -> Vec<Result<(), ChangeError>> {
        let count = wants.len();
        self.ask(count, |answers| Message::CreatePartitions {
            wants,
            validate_only,
            answers,
        })
        .await
    }

    /// Changes configs of topics and brokers.
    pub async fn alter_configs(
        &self,
        changes: Vec<(ConfigTarget, ConfigChange)>,
        validate_only: bool,
    ) -> Vec<Result<(), ChangeError>> {
        let count = changes.len();
        self.ask(count, |answers| Message::AlterConfigs {
            changes,
            validate_only,
            answers,
        })
        .await
    }

    /// A producer id that nobody has had.
    pub async fn producer_id(&self) -> Result<i64, ChangeError> {
        only(self.ask(1, |answers| Message::ProducerId { answers }).await)
    }

    async fn ask<T: Clone>(
        &self,
        count: usize,
        message: impl FnOnce(Answers<T>) -> Message,
    ) -> Vec<Result<T, ChangeError>> {
        let (answers, later) = oneshot::channel();
        if self.sender.send(message(answers)).await.is_err() {
            return vec![Err(ChangeError::Stopping); count];
        }
        later
            .await
            .unwrap_or_else(|_| vec![Err(ChangeError::Stopping); count])
    }
}

/// The one result of a question about one thing.
fn only<T>(results: Vec<Result<T, ChangeError>>) -> Result<T, ChangeError> {
    results
        .into_iter()
        .next()
        .unwrap_or(Err(ChangeError::Stopping))
}

/// Creates topics that clients use without having created them, with the broker's defaults; gives back those that
/// failed, with the reason. One that somebody else has just created is none of those.
pub async fn auto_create(broker: &Broker, names: Vec<String>) -> Vec<(String, ErrorCode)> {
    let wants = names
        .iter()
        .map(|name| CreateTopic {
            name: name.clone(),
            partitions: -1,
            replication_factor: -1,
            ..CreateTopic::default()
        })
        .collect();
    let results = broker.metadata.create_topics(wants, false, false).await;
    let failure = |(name, result): (String, Result<Created, ChangeError>)| match result {
        Ok(_) | Err(ChangeError::Refused(MetadataError::Exists { .. })) => None,
        Err(error) => Some((name, errors::change(&error))),
    };
    names.into_iter().zip(results).filter_map(failure).collect()
}
