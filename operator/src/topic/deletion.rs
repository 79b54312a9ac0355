//! The judgement about an object that is being deleted.
//!
//! Owns when a topic is deleted and when its object may go. Only a topic whose owner is this very object is deleted, by
//! its id; whatever else is found, it is left alone.

use keelson_crds::ConditionStatus::{False, True};
use keelson_crds::{ConditionType as Type, Reason};

use super::decide::{Action, Decision};
use super::facts::{ClusterView, Deleting, Desired, ObjectView, Owner, TopicView};
use crate::deletion::{Charge, Ruling, rule};

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
    let charge = Charge {
        what: &format!("topic {}", desired.topic),
        policy: desired.deletion_policy,
        retained: Reason::TopicRetained,
    };
    match rule(&charge, deleting, cluster) {
        Ruling::Release(reason, message) => release(reason, message),
        Ruling::Look(topic) => reachable(desired, topic),
        Ruling::Hold { words, why } => {
            let mut decision = Decision::default();
            let verdict = &mut decision.verdict;
            verdict.say(Type::Deleting, True, Reason::DeletionHeld, words);
            verdict.say(Type::Ready, False, Reason::BrokerUnreachable, why);
            decision
        }
    }
}

fn release(reason: Reason, message: String) -> Decision {
    let actions = vec![Action::RemoveFinalizer { reason, message }];
    Decision {
        actions,
        ..Decision::default()
    }
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
