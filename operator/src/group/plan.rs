//! From a target to offsets: which partitions are moved, from where, to where.
//!
//! Owns what `kafka-consumer-groups --reset-offsets` does with each target: offsets outside of the log are clamped into it,
//! a time that no record has is the end, a shift needs a committed offset. It judges nothing about when.

use std::collections::BTreeSet;

use keelson_crds::{PartitionReset, RESET_PARTITIONS_MAX, ResetOffset};

use super::facts::{Desired, ObjectView, Start, Target, Wish};
use crate::kafka::{GroupFacts, GroupOffset, PartitionOffsets};

/// The moves of a reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In order of topic and partition.
    pub(super) moves: Vec<PartitionReset>,
    /// What else there is to tell.
    pub(super) remarks: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoPlan {
    /// This time, in ms, has to be looked up first.
    Ask(i64),
    Impossible(String),
}

impl Plan {
    fn push(&mut self, topic: &str, place: &PartitionOffsets, to: i64) {
        let clamped = to.clamp(place.start, place.end.max(place.start));
        if clamped != to {
            self.remarks.push(format!(
                "{topic}-{} at {clamped} instead of {to}, which its log does not hold",
                place.partition
            ));
        }
        self.moves.push(PartitionReset {
            topic: topic.to_owned(),
            partition: place.partition,
            from: place.committed,
            to: clamped,
        });
    }
}

/// The moves that a wish means for this group now.
pub(super) fn plan(
    desired: &Desired,
    wish: &Wish,
    object: &ObjectView,
    facts: &GroupFacts,
) -> Result<Plan, NoPlan> {
    let mut plan = match &wish.target {
        Target::Start(start) => to_start(desired, wish, facts, *start)?,
        Target::ShiftBy(records) => shift(desired, wish, facts, *records)?,
        Target::Offsets(list) => to_offsets(facts, list)?,
        Target::Previous => previous(wish, object, facts)?,
    };
    if plan.moves.is_empty() {
        let words = "the group has committed nothing there, and no topics are named";
        return Err(NoPlan::Impossible(words.to_owned()));
    }
    if plan.moves.len() > RESET_PARTITIONS_MAX {
        return Err(NoPlan::Impossible(format!(
            "{} partitions are more than the {RESET_PARTITIONS_MAX} of one reset: name fewer topics, or offsets",
            plan.moves.len()
        )));
    }
    plan.moves
        .sort_by(|left, right| (&left.topic, left.partition).cmp(&(&right.topic, right.partition)));
    Ok(plan)
}

/// Where a topic's partition is at a start.
pub(super) fn place(start: Start, of: &PartitionOffsets) -> Result<i64, NoPlan> {
    match start {
        Start::Earliest => Ok(of.start),
        Start::Latest => Ok(of.end),
        Start::At(ms) => of.at.get(&ms).copied().ok_or(NoPlan::Ask(ms)),
    }
}

/// The partitions that a wish without partitions of its own means: all of topics that are named, else those with commits.
fn chosen<'a>(
    desired: &Desired,
    wish: &Wish,
    facts: &'a GroupFacts,
) -> Result<Vec<(&'a str, &'a PartitionOffsets)>, NoPlan> {
    let named = match wish.topics.is_empty() {
        true => &desired.scope,
        false => &wish.topics,
    };
    let all = |topic: &'a String, list: &'a Vec<PartitionOffsets>| {
        list.iter().map(move |it| (topic.as_str(), it))
    };
    if named.is_empty() {
        let every = facts
            .offsets
            .iter()
            .flat_map(|(topic, list)| all(topic, list));
        return Ok(every.filter(|(_, it)| it.committed.is_some()).collect());
    }
    let mut chosen = Vec::new();
    for topic in named.iter().collect::<BTreeSet<_>>() {
        let (topic, list) = facts
            .offsets
            .get_key_value(topic)
            .ok_or_else(|| NoPlan::Impossible(format!("topic {topic} does not exist")))?;
        chosen.extend(all(topic, list));
    }
    Ok(chosen)
}

fn to_start(
    desired: &Desired,
    wish: &Wish,
    facts: &GroupFacts,
    start: Start,
) -> Result<Plan, NoPlan> {
    let mut plan = Plan::default();
    for (topic, it) in chosen(desired, wish, facts)? {
        plan.push(topic, it, place(start, it)?);
    }
    Ok(plan)
}

fn shift(desired: &Desired, wish: &Wish, facts: &GroupFacts, records: i64) -> Result<Plan, NoPlan> {
    let mut plan = Plan::default();
    for (topic, it) in chosen(desired, wish, facts)? {
        let Some(committed) = it.committed else {
            return Err(NoPlan::Impossible(format!(
                "{topic}-{} has no committed offset to shift",
                it.partition
            )));
        };
        plan.push(topic, it, committed.saturating_add(records));
    }
    Ok(plan)
}

fn to_offsets(facts: &GroupFacts, list: &[ResetOffset]) -> Result<Plan, NoPlan> {
    let mut plan = Plan::default();
    for wanted in list {
        let it = find(facts, &wanted.topic, wanted.partition).ok_or_else(|| {
            NoPlan::Impossible(format!(
                "{}-{} does not exist",
                wanted.topic, wanted.partition
            ))
        })?;
        plan.push(&wanted.topic, it, wanted.offset);
    }
    Ok(plan)
}

/// A partition that had no offset keeps the one it was given: a commit cannot take it away.
fn previous(wish: &Wish, object: &ObjectView, facts: &GroupFacts) -> Result<Plan, NoPlan> {
    let mut plan = Plan::default();
    let asked = |topic| wish.topics.is_empty() || wish.topics.contains(topic);
    let undo: Vec<_> = object.undo().iter().filter(|it| asked(&it.topic)).collect();
    if undo.is_empty() {
        let words = "no reset is recorded that could be undone";
        return Err(NoPlan::Impossible(words.to_owned()));
    }
    for before in undo {
        let name = format!("{}-{}", before.topic, before.partition);
        let Some(it) = find(facts, &before.topic, before.partition) else {
            return Err(NoPlan::Impossible(format!("{name} does not exist")));
        };
        match before.from {
            Some(offset) => plan.push(&before.topic, it, offset),
            None => plan
                .remarks
                .push(format!("{name} had no offset before and stays where it is")),
        }
    }
    match plan.moves.is_empty() {
        true => Err(NoPlan::Impossible(plan.remarks.join("; "))),
        false => Ok(plan),
    }
}

/// A partition of the group, if it was looked at and exists.
pub(super) fn find<'a>(
    facts: &'a GroupFacts,
    topic: &str,
    partition: i32,
) -> Option<&'a PartitionOffsets> {
    let list = facts.offsets.get(topic)?;
    list.iter().find(|it| it.partition == partition)
}

/// The offsets of topics in which a group without members has committed nothing.
pub(super) fn provision(desired: &Desired, facts: &GroupFacts) -> Result<Vec<GroupOffset>, NoPlan> {
    let mut offsets = Vec::new();
    let Some(start) = desired.initial else {
        return Ok(offsets);
    };
    for topic in &desired.scope {
        let Some(list) = facts.offsets.get(topic) else {
            continue;
        };
        if list.iter().any(|it| it.committed.is_some()) {
            continue;
        }
        for it in list {
            offsets.push(GroupOffset {
                topic: topic.clone(),
                partition: it.partition,
                offset: place(start, it)?,
                note: String::new(),
            });
        }
    }
    Ok(offsets)
}
