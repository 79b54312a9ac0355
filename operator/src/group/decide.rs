//! All judgement about groups.
//!
//! Owns the answer to one question: given this spec and this sight of the group, what is to be done, and what is to be
//! said? It has no client, no clock and no memory; equal input gives equal output.

use std::collections::BTreeMap;
use std::fmt;

use keelson_crds::ConditionStatus::{self, False, True, Unknown};
use keelson_crds::{ConditionType as Type, DeletionPolicy, LastReset, Reason};

use super::facts::{ClusterView, Deleting, Desired, Memory, Observed};
use super::lag::{Lag, lag};
use super::plan::{NoPlan, provision};
use super::reset::{self, is_empty};
use crate::deletion::{Charge, Ruling, rule};
use crate::kafka::{GroupFacts, GroupOffset};

/// Status, reason and message of a condition.
pub(crate) type Said = (ConditionStatus, Reason, String);

/// One thing to do, in the order given; none is begun before the one before has its effect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Before anything else: the object asks for a deletion.
    AddFinalizer,
    RemoveFinalizer {
        reason: Reason,
        message: String,
    },
    /// Offsets where there are none.
    Provision(Vec<GroupOffset>),
    /// Kept where it outlives the status.
    Remember(Memory),
    /// The offsets that are there, with a note.
    Claim(Vec<GroupOffset>),
    /// Written to the status before the next step.
    Record(LastReset),
    /// New offsets, with a note.
    Reset(Vec<GroupOffset>),
    DeleteGroup,
}

impl Step {
    /// True if it changes the broker; then the group must be looked at again.
    pub(crate) fn changes_broker(&self) -> bool {
        match self {
            Self::Provision(_) | Self::Claim(_) | Self::Reset(_) | Self::DeleteGroup => true,
            Self::AddFinalizer
            | Self::RemoveFinalizer { .. }
            | Self::Remember(_)
            | Self::Record(_) => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer => f.write_str("hold the object until the group is deleted"),
            Self::RemoveFinalizer { reason, message } => {
                write!(f, "let the object go ({}: {message})", reason.as_str())
            }
            Self::Provision(offsets) => {
                write!(f, "commit where to start in {} partitions", offsets.len())
            }
            Self::Remember(_) => f.write_str("remember the reset before"),
            Self::Claim(offsets) => write!(f, "mark {} committed offsets", offsets.len()),
            Self::Record(last) => write!(f, "record reset {}", last.request_id),
            Self::Reset(offsets) => write!(f, "reset {} offsets", offsets.len()),
            Self::DeleteGroup => f.write_str("delete the group"),
        }
    }
}

/// What the status will say. It holds as seen, provided that no step is pending.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) conditions: BTreeMap<Type, Said>,
    /// The group as it was seen; `None` if it could not be looked at: what stood there stays.
    pub(crate) seen: Option<Seen>,
    pub(crate) last: Option<LastReset>,
}

/// What the status tells of the group itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) state: String,
    pub(crate) protocol_type: String,
    pub(crate) assignor: String,
    pub(crate) members: usize,
    /// `None`: there is no group.
    pub(crate) lag: Option<Lag>,
}

impl Verdict {
    pub(crate) fn say(
        &mut self,
        type_: Type,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) {
        self.conditions
            .insert(type_, (status, reason, message.into()));
    }
}

/// What to do and what to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    pub(crate) steps: Vec<Step>,
    pub(crate) verdict: Verdict,
    /// Times, in ms, whose offsets have to be known first; then nothing else here counts.
    pub(crate) asks: Vec<i64>,
}

/// The one entry.
pub(crate) fn decide(desired: &Desired, observed: &Observed) -> Decision {
    let object = &observed.object;
    let mut decision = match &object.deleting {
        Some(deleting) => decide_deletion(desired, observed, deleting),
        None => decide_life(desired, observed),
    };
    if decision.verdict.last.is_none() {
        decision.verdict.last.clone_from(&object.last);
    }
    decision
}

fn decide_life(desired: &Desired, observed: &Observed) -> Decision {
    let mut decision = match &observed.cluster {
        ClusterView::Unreachable(message) | ClusterView::Gone(message) => {
            let mut decision = Decision::default();
            let reason = Reason::BrokerUnreachable;
            for type_ in [Type::Ready, Type::LagWithinObjective] {
                decision.verdict.say(type_, Unknown, reason, message);
            }
            decision
        }
        ClusterView::Reachable(facts) => look(desired, observed, facts),
    };
    let verdict = &mut decision.verdict;
    verdict.say(Type::Deleting, False, Reason::NotDeleting, "");
    let object = &observed.object;
    if object.lasting {
        match desired.deletion_policy {
            DeletionPolicy::Delete if !object.has_finalizer && !desired.paused => {
                decision.steps.insert(0, Step::AddFinalizer);
            }
            DeletionPolicy::Retain if object.has_finalizer => {
                decision.steps.push(Step::RemoveFinalizer {
                    reason: Reason::GroupRetained,
                    message: "deletionPolicy is Retain".to_owned(),
                });
            }
            DeletionPolicy::Delete | DeletionPolicy::Retain => {}
        }
    }
    decision
}

fn look(desired: &Desired, observed: &Observed, facts: &GroupFacts) -> Decision {
    let mut decision = Decision::default();
    observe(desired, observed, facts, &mut decision.verdict);
    let ruling = reset::judge(desired, observed, facts);
    let verdict = &mut decision.verdict;
    verdict
        .conditions
        .insert(Type::ResetPending, ruling.pending);
    verdict
        .conditions
        .insert(Type::ResetSucceeded, ruling.succeeded);
    verdict.last = ruling.last;
    decision.asks.extend(ruling.ask);
    let may = !desired.paused && is_empty(facts);
    match provision(desired, facts) {
        _ if !may => decision.steps = ruling.steps,
        Err(NoPlan::Ask(ms)) => decision.asks.push(ms),
        Err(NoPlan::Impossible(_)) => decision.steps = ruling.steps,
        Ok(offsets) if offsets.is_empty() => decision.steps = ruling.steps,
        // Where the group starts comes before where it is moved: the next look sees to that.
        Ok(offsets) => {
            decision.steps.push(Step::Provision(offsets));
            decision.verdict.last.clone_from(&observed.object.last);
        }
    }
    decision
}

/// The group as it is, its lag, Ready and LagWithinObjective.
fn observe(desired: &Desired, observed: &Observed, facts: &GroupFacts, verdict: &mut Verdict) {
    let mut seen = Seen {
        state: facts.state.clone(),
        members: facts.members,
        ..Seen::default()
    };
    let absent = is_absent(facts);
    let why = match (desired.paused, absent) {
        (true, _) => Reason::Paused,
        (false, true) => Reason::GroupAbsent,
        (false, false) => Reason::Observed,
    };
    verdict.say(Type::Ready, True, why, "");
    if absent {
        let why = match desired.objective {
            Some(_) => Reason::GroupAbsent,
            None => Reason::NoObjective,
        };
        verdict.say(Type::LagWithinObjective, Unknown, why, "");
    } else {
        let lag = lag(facts, &desired.scope, observed.now.as_millisecond());
        let within = lag.within(desired.objective);
        verdict.conditions.insert(Type::LagWithinObjective, within);
        seen.protocol_type.clone_from(&facts.protocol_type);
        seen.assignor.clone_from(&facts.assignor);
        seen.lag = Some(lag);
    }
    verdict.seen = Some(seen);
}

fn is_absent(facts: &GroupFacts) -> bool {
    let mut places = facts.offsets.values().flatten();
    facts.state == "Dead" && facts.members == 0 && places.all(|it| it.committed.is_none())
}

/// An object without our finalizer is none of our business any more.
fn decide_deletion(desired: &Desired, observed: &Observed, deleting: &Deleting) -> Decision {
    let mut decision = Decision::default();
    if !observed.object.has_finalizer {
        return decision;
    }
    let name = &desired.group;
    let charge = Charge {
        what: &format!("group {name}"),
        policy: desired.deletion_policy,
        retained: Reason::GroupRetained,
    };
    let facts = match rule(&charge, deleting, &observed.cluster) {
        Ruling::Release(reason, message) => return release(reason, message),
        Ruling::Hold { words, why } => {
            let verdict = &mut decision.verdict;
            verdict.say(Type::Deleting, True, Reason::DeletionHeld, words);
            verdict.say(Type::Ready, False, Reason::BrokerUnreachable, why);
            return decision;
        }
        Ruling::Look(facts) if is_absent(facts) => {
            return release(Reason::GroupDeleted, format!("group {name} is gone"));
        }
        Ruling::Look(facts) => facts,
    };
    observe(desired, observed, facts, &mut decision.verdict);
    let (reason, words) = if desired.paused {
        let words = format!("group {name} is not deleted: the object is paused");
        (Reason::Paused, words)
    } else if is_empty(facts) {
        decision.steps.push(Step::DeleteGroup);
        (Reason::DeletingGroup, format!("deleting group {name}"))
    } else {
        let GroupFacts { state, members, .. } = facts;
        let words = format!("group {name} is not deleted: it is {state} with {members} members");
        (Reason::GroupNotEmpty, words)
    };
    for (type_, status) in [(Type::Deleting, True), (Type::Ready, False)] {
        decision.verdict.say(type_, status, reason, words.clone());
    }
    decision
}

fn release(reason: Reason, message: String) -> Decision {
    Decision {
        steps: vec![Step::RemoveFinalizer { reason, message }],
        ..Decision::default()
    }
}

#[cfg(test)]
mod tests;
