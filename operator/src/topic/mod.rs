//! The Topic kind: fetch → validate → decide → apply → status.
//!
//! Owns the steps, each in a file of its own; only `fetch` and `execute` here have a client. Kubernetes is not known:
//! see `run` and `local`, which share all of this.

mod converge;
mod decide;
mod deletion;
mod difference;
mod facts;
mod status;

use keelson_crds::Reason;
use tracing::debug;

pub(crate) use converge::{Outcome, Surroundings, converge};
pub(crate) use decide::{Action, decide};
pub(crate) use facts::{Desired, ObjectView, Owner, TopicUpdate, TopicView};
pub(crate) use status::{Frame, LogView, build, is_ready, same};

use crate::kafka::{CallError, Kafka, Mode};

/// Looks at the cluster, as far as it can be reached. Owners are told apart by `classify`.
pub(crate) async fn fetch<K, F, Fut>(
    kafka: &K,
    topic: &str,
    classify: F,
) -> Result<TopicView, CallError>
where
    K: Kafka,
    F: FnOnce(Option<String>) -> Fut,
    Fut: Future<Output = Owner>,
{
    let Some(facts) = kafka.topic(topic).await? else {
        return Ok(TopicView::Absent);
    };
    let tag = facts
        .configs
        .get(keelson_crds::OWNER_CONFIG)
        .and_then(|it| it.value.clone());
    let owner = classify(tag.filter(|it| !it.is_empty())).await;
    Ok(TopicView::Present(facts, owner))
}

/// Carries out one action that concerns the broker. What concerns the object is the caller's.
///
/// Returns what happened, as an Event would say it.
pub(crate) async fn execute<K: Kafka>(
    kafka: &K,
    topic: &str,
    action: &Action,
    mode: Mode,
) -> Result<Option<(Reason, String)>, CallError> {
    let done = match action {
        Action::AddFinalizer | Action::RemoveFinalizer { .. } => return Ok(None),
        Action::Create(new) => {
            kafka.create_topic(new, mode).await?;
            (Reason::TopicCreated, action.to_string())
        }
        Action::AddPartitions { total, .. } => {
            kafka.add_partitions(topic, *total, mode).await?;
            (Reason::PartitionsAdded, action.to_string())
        }
        Action::AlterConfigs { change, cause } => {
            kafka.alter_configs(topic, change, mode).await?;
            (*cause, action.to_string())
        }
        Action::DeleteTopic { id } => {
            if mode == Mode::Execute {
                kafka.delete_topic(*id).await?;
            }
            (Reason::TopicDeleted, action.to_string())
        }
    };
    debug!(topic, reason = done.0.as_str(), ?mode, "{}", done.1);
    Ok(Some(done))
}
