//! What `decide` is told.
//!
//! Owns the plain types of the judgement. No client, no clock, no Kubernetes object is in them.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use keelson_crds::{
    ConsumerGroupSpec, DeletionPolicy, InitialOffsets, InitialPolicy, LagObjective, LastReset,
    PartitionReset, Reason, Reset, ResetOffset, ResetTo,
};
use serde::{Deserialize, Serialize};

pub(crate) use crate::deletion::Deleting;
use crate::kafka::{GroupFacts, GroupQuery};

/// Request ids that are remembered; the oldest is forgotten first.
const REQUESTS_MAX: usize = 64;

/// The cluster as far as it could be reached.
pub(crate) type ClusterView = crate::deletion::ClusterView<GroupFacts>;

/// The spec with its defaults, and its times read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Desired {
    pub(crate) group: String,
    pub(crate) scope: Vec<String>,
    pub(crate) initial: Option<Start>,
    pub(crate) objective: Option<LagObjective>,
    pub(crate) reset: Option<Wish>,
    pub(crate) deletion_policy: DeletionPolicy,
    pub(crate) paused: bool,
}

/// A place in a log that can be named without an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
    /// At the first record of this time, in ms, or later.
    At(i64),
}

/// A reset that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) target: Target,
    /// The topics to move; if empty, those of the scope, or else all with commits.
    pub(crate) topics: Vec<String>,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) dry_run: bool,
}

/// Where a reset goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Start(Start),
    Offsets(Vec<ResetOffset>),
    ShiftBy(i64),
    Previous,
}

impl Desired {
    /// Applies the defaults.
    ///
    /// # Errors
    /// A field that does not go with the others; admission refuses it, and an object of an older CRD may have it.
    pub(crate) fn new(spec: &ConsumerGroupSpec, metadata_name: &str) -> Result<Self, String> {
        Ok(Self {
            group: spec.group_id(metadata_name).to_owned(),
            scope: spec.topics.iter().map(|it| it.name.clone()).collect(),
            initial: spec.initial_offsets.as_ref().map(start).transpose()?,
            objective: spec.lag_objective,
            reset: spec.reset.as_ref().map(wish).transpose()?,
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
            paused: spec.paused.unwrap_or(false),
        })
    }

    /// What has to be known to judge this.
    pub(crate) fn query(&self, object: &ObjectView, times: &BTreeSet<i64>) -> GroupQuery {
        let mut also = BTreeSet::new();
        if let Some(wish) = self.reset.as_ref().filter(|it| !object.has_ended(&it.id)) {
            also.extend(wish.topics.iter().cloned());
            match &wish.target {
                Target::Start(_) | Target::ShiftBy(_) => {}
                Target::Offsets(list) => also.extend(list.iter().map(|it| it.topic.clone())),
                Target::Previous => also.extend(object.undo().iter().map(|it| it.topic.clone())),
            }
        }
        let running = object.last.iter().filter(|it| it.finished_at.is_none());
        also.extend(running.flat_map(|it| it.partitions.iter().map(|it| it.topic.clone())));
        GroupQuery {
            scope: self.scope.clone(),
            also,
            times: times.clone(),
        }
    }
}

fn start(it: &InitialOffsets) -> Result<Start, String> {
    Ok(match it.policy {
        InitialPolicy::Earliest => Start::Earliest,
        InitialPolicy::Latest => Start::Latest,
        InitialPolicy::Timestamp => Start::At(needed("timestamp", it.timestamp.as_ref())?),
    })
}

fn wish(it: &Reset) -> Result<Wish, String> {
    let target = match it.to {
        ResetTo::Earliest => Target::Start(Start::Earliest),
        ResetTo::Latest => Target::Start(Start::Latest),
        ResetTo::Timestamp => Target::Start(Start::At(needed("timestamp", it.timestamp.as_ref())?)),
        ResetTo::Offsets => Target::Offsets(it.offsets.clone()),
        ResetTo::ShiftBy => Target::ShiftBy(it.shift_by.ok_or("reset.shiftBy is missing")?),
        ResetTo::Previous => Target::Previous,
    };
    let deadline = it.deadline.as_ref().map(|it| time("deadline", it));
    Ok(Wish {
        id: it.request_id.clone(),
        target,
        topics: it.topics.iter().map(|it| it.name.clone()).collect(),
        deadline: deadline.transpose()?,
        dry_run: it.dry_run.unwrap_or(false),
    })
}

fn needed(field: &str, text: Option<&String>) -> Result<i64, String> {
    let text = text.ok_or_else(|| format!("{field} is missing"))?;
    time(field, text).map(Timestamp::as_millisecond)
}

fn time(field: &str, text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|error| format!("{field} {text:?} is no time: {error}"))
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) object: ObjectView,
    pub(crate) cluster: ClusterView,
    pub(crate) now: Timestamp,
}

/// What the object itself tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ObjectView {
    /// Our finalizer is on it.
    pub(crate) has_finalizer: bool,
    /// It lives where finalizers exist, and where what is recorded of it outlives this process.
    pub(crate) lasting: bool,
    /// It is being deleted.
    pub(crate) deleting: Option<Deleting>,
    /// The last reset, as recorded.
    pub(crate) last: Option<LastReset>,
    /// What was said about its end.
    pub(crate) last_words: String,
    /// What is known of the resets before.
    pub(crate) memory: Memory,
}

impl ObjectView {
    /// True if the request of this id has ended, so that nothing is to be done for it.
    pub(crate) fn has_ended(&self, id: &str) -> bool {
        match self.last.as_ref().filter(|it| it.request_id == id) {
            Some(last) => last.finished_at.is_some(),
            None => self.memory.requests.iter().any(|it| it == id),
        }
    }

    /// The partitions of the last reset that moved anything.
    pub(crate) fn undo(&self) -> &[PartitionReset] {
        match self.last.as_ref().filter(|it| moved(it)) {
            Some(last) => &last.partitions,
            None => &self.memory.undo,
        }
    }
}

fn moved(last: &LastReset) -> bool {
    last.result == Reason::OffsetsReset.as_str()
}

/// What is kept of earlier resets, in an annotation, when another one takes the place of the last.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The requests that ended.
    #[serde(default)]
    pub(crate) requests: Vec<String>,
    /// The partitions of the last one that moved anything, unless `lastReset` itself did.
    #[serde(default)]
    pub(crate) undo: Vec<PartitionReset>,
}

impl Memory {
    /// The same, once `last` is overwritten.
    pub(crate) fn with(&self, last: Option<&LastReset>) -> Self {
        let mut new = self.clone();
        let Some(last) = last else { return new };
        new.requests.retain(|it| *it != last.request_id);
        new.requests.push(last.request_id.clone());
        let surplus = new.requests.len().saturating_sub(REQUESTS_MAX);
        new.requests.drain(..surplus);
        if moved(last) {
            new.undo.clone_from(&last.partitions);
        }
        new
    }
}
