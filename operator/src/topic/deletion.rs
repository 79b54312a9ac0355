//! The judgement about an object that is being deleted.
//!
//! Owns when a topic is deleted and when its object may go. Only a topic whose owner is this very object is deleted, by
//! its id; whatever else is found, it is left alone.

use keelson_crds::ConditionStatus::{False, True};
use keelson_crds::{ConditionType as Type, DeletionPolicy, Reason};

use super::decide::{Action, Decision};
use super::facts::{ClusterView, Deleting, Desired, HOLD_MAX, ObjectView, Owner, TopicView};

/// An object without our finalizer is none of our business any more.
pub(super) fn decide_deletion(
    desired: &Desired,
    object: &ObjectView,
    deleting: &Deleting,
    cluster: &ClusterView,
) -> Decision {
    if !object.has_finalizer {
        return Decision::default();
    }
    if desired.deletion_policy == DeletionPolicy::Retain {
        return release(Reason::TopicRetained, "deletionPolicy is Retain".into());
    }
    match cluster {
        ClusterView::Gone(message) => release(Reason::ClusterGone, message.clone()),
        ClusterView::Unreachable(message) => unreachable(desired, deleting, message),
        ClusterView::Reachable(topic) => reachable(desired, topic),
    }
}

fn release(reason: Reason, message: String) -> Decision {
    let actions = vec![Action::RemoveFinalizer { reason, message }];
    Decision {
        actions,
        ..Decision::default()
    }
}

fn unreachable(desired: &Desired, deleting: &Deleting, message: &str) -> Decision {
    let name = &desired.topic;
    if deleting.age >= HOLD_MAX {
        let minutes = HOLD_MAX.as_secs() / 60;
        let words = format!(
            "topic {name} was not deleted: no broker could be reached for {minutes} minutes: {message}"
        );
        return release(Reason::DeletionGivenUp, words);
    }
    let until = &deleting.until;
    let words =
        format!("topic {name} is not deleted yet: {message}; the object is let go at {until}");
    let mut decision = Decision::default();
    decision
        .verdict
        .say(Type::Deleting, True, Reason::DeletionHeld, words);
    decision
        .verdict
        .say(Type::Ready, False, Reason::BrokerUnreachable, message);
    decision
}

fn reachable(desired: &Desired, topic: &TopicView) -> Decision {
    let name = &desired.topic;
    let facts = match topic {
        TopicView::Absent => return release(Reason::TopicDeleted, format!("topic {name} is gone")),
        TopicView::Present(_, Owner::Nobody) => {
            let words = format!("topic {name} belongs to nobody any more");
            return release(Reason::TopicRetained, words);
        }
        TopicView::Present(_, Owner::Stale(other) | Owner::Foreign(other)) => {
            return release(
                Reason::TopicRetained,
                format!("topic {name} belongs to {other}"),
            );
        }
        TopicView::Present(facts, Owner::Ours) => facts,
    };
    let mut decision = Decision::default();
    let (reason, words) = if desired.paused {
        (
            Reason::Paused,
            format!("topic {name} is not deleted: the object is paused"),
        )
    } else {
        decision.actions.push(Action::DeleteTopic { id: facts.id });
        (
            Reason::DeletingTopic,
            format!("deleting topic {name} with id {}", facts.id),
        )
    };
    decision
        .verdict
        .say(Type::Deleting, True, reason, words.clone());
    decision.verdict.say(Type::Ready, False, reason, words);
    decision
}
