//! When a reset is carried out, and what is known of one that was under way.
//!
//! Owns the promise that a request moves the group at most once, whenever the operator is killed. The steps are:
//!
//! ```text
//! 1 Claim    the offsets as they are are committed again, each with a note "planned": whoever commits afterwards erases it
//! 2 Record   lastReset with every from and to, result ResetRunning, is written to the status
//! 3 Commit   the new offsets, each with a note "done", in one request
//! 4          a look finds the notes, and the status says OffsetsReset
//! ```
//!
//! A recorded run without an end is judged by the notes alone: one that says done, then it was done; one that says
//! planned, or a partition that still has no offset, then it was not, since step 3 is one request; neither, then the
//! group has moved on its own since, nobody can know, and nothing is done again.

use keelson_crds::ConditionStatus::{False, True, Unknown};
use keelson_crds::{ConditionStatus, LastReset, PartitionReset, Reason};

use super::decide::{Said, Step};
use super::facts::{Desired, Observed, Wish};
use super::plan::{NoPlan, Plan, find, plan};
use crate::kafka::{GroupFacts, GroupOffset};

/// What is to be done about resets, and said.
#[derive(Debug, PartialEq)]
pub(super) struct Ruling {
    pub(super) steps: Vec<Step>,
    pub(super) last: Option<LastReset>,
    pub(super) pending: Said,
    pub(super) succeeded: Said,
    /// A time, in ms, that has to be looked up before anything can be said.
    pub(super) ask: Option<i64>,
}

/// True if offsets can be committed from outside.
pub(super) fn is_empty(facts: &GroupFacts) -> bool {
    facts.members == 0 && ["Empty", "Dead"].contains(&facts.state.as_str())
}

/// The one entry.
pub(super) fn judge(desired: &Desired, observed: &Observed, facts: &GroupFacts) -> Ruling {
    let case = Case {
        desired,
        observed,
        facts,
    };
    let object = &observed.object;
    if let Some(last) = object.last.as_ref().filter(|it| it.finished_at.is_none()) {
        return case.resume(last);
    }
    match &desired.reset {
        None => case.settled(Reason::NoReset),
        Some(wish) => match &object.last {
            Some(last) if last.request_id == wish.id => case.settled(reason_of(last)),
            Some(_) | None if object.has_ended(&wish.id) => case.refused(
                Reason::RequestIdUsed,
                format!("request {} ended before the last one", wish.id),
            ),
            Some(_) | None if !object.lasting && !wish.dry_run => {
                case.refused(Reason::NoRecordKept, String::new())
            }
            Some(_) | None => case.begin(wish),
        },
    }
}

/// The word that stands in `result`.
fn reason_of(last: &LastReset) -> Reason {
    let known = Reason::ALL.iter().find(|it| it.as_str() == last.result);
    known.copied().unwrap_or(Reason::ResetInterrupted)
}

/// ResetSucceeded after this end.
fn status_of(end: Reason) -> ConditionStatus {
    match [Reason::OffsetsReset, Reason::DryRun].contains(&end) {
        true => True,
        false => False,
    }
}

fn note_planned(id: &str) -> String {
    format!("keelson reset {id}: planned")
}

fn note_done(id: &str) -> String {
    format!("keelson reset {id}: done")
}

/// What the notes tell about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Done,
    /// Nothing was committed, and the group is where it was.
    Planned,
    /// Nothing was committed, but the group has moved since.
    Moved,
    Unknown,
}

fn evidence(last: &LastReset, facts: &GroupFacts) -> Evidence {
    let (done, planned) = (note_done(&last.request_id), note_planned(&last.request_id));
    let (mut untouched, mut as_planned) = (false, true);
    for it in &last.partitions {
        let Some(now) = find(facts, &it.topic, it.partition) else {
            as_planned = false;
            continue;
        };
        if now.committed.is_some() && now.note == done {
            return Evidence::Done;
        }
        let still = match it.from {
            Some(_) => now.note == planned,
            None => now.committed.is_none(),
        };
        untouched |= still;
        as_planned &= still && now.committed == it.from;
    }
    match (untouched, as_planned) {
        (true, true) => Evidence::Planned,
        (true, false) => Evidence::Moved,
        (false, _) => Evidence::Unknown,
    }
}

struct Case<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    facts: &'a GroupFacts,
}

impl Case<'_> {
    /// Nothing is under way: what the last reset came to stands as it was said.
    fn settled(&self, why: Reason) -> Ruling {
        let object = &self.observed.object;
        let succeeded = match &object.last {
            None => (Unknown, Reason::NoReset, String::new()),
            Some(last) => {
                let reason = reason_of(last);
                (status_of(reason), reason, object.last_words.clone())
            }
        };
        Ruling {
            steps: Vec::new(),
            last: object.last.clone(),
            pending: (False, why, String::new()),
            succeeded,
            ask: None,
        }
    }

    /// The request is not taken, and what was recorded before stays.
    fn refused(&self, reason: Reason, words: String) -> Ruling {
        Ruling {
            pending: (False, reason, words.clone()),
            succeeded: (False, reason, words),
            ..self.settled(reason)
        }
    }

    fn waiting(&self, reason: Reason, words: String) -> Ruling {
        Ruling {
            pending: (True, reason, words.clone()),
            succeeded: (Unknown, reason, words),
            ..self.settled(reason)
        }
    }

    /// The end of a request. What it takes the place of is remembered first.
    fn end(&self, last: LastReset, reason: Reason, words: String) -> Ruling {
        Ruling {
            steps: self.remember(&last.request_id),
            pending: (False, reason, String::new()),
            succeeded: (status_of(reason), reason, words),
            last: Some(LastReset {
                result: reason.as_str().to_owned(),
                finished_at: Some(self.time()),
                ..last
            }),
            ask: None,
        }
    }

    fn remember(&self, id: &str) -> Vec<Step> {
        let object = &self.observed.object;
        let replaced = object.last.as_ref().filter(|it| it.request_id != id);
        let memory = object.memory.with(replaced);
        match memory == object.memory {
            true => Vec::new(),
            false => vec![Step::Remember(memory)],
        }
    }

    /// With whole seconds: it is for people.
    fn time(&self) -> String {
        self.observed.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn fresh(&self, wish: &Wish, moves: Vec<PartitionReset>) -> LastReset {
        LastReset {
            request_id: wish.id.clone(),
            result: Reason::ResetRunning.as_str().to_owned(),
            started_at: self.time(),
            finished_at: None,
            partitions: moves,
        }
    }

    fn is_late(&self, wish: &Wish) -> bool {
        wish.deadline.is_some_and(|it| it <= self.observed.now)
    }

    fn state(&self) -> String {
        let GroupFacts { state, members, .. } = self.facts;
        format!("the group is {state} with {members} members")
    }

    /// Why nothing is begun or carried on now, if so.
    fn obstacle(&self, wish: &Wish) -> Option<Ruling> {
        if self.desired.paused {
            return Some(self.waiting(Reason::Paused, String::new()));
        }
        if wish.dry_run || is_empty(self.facts) {
            return None;
        }
        let until = wish
            .deadline
            .map_or_else(String::new, |it| format!("; it is given up at {it}"));
        let words = format!("{}{until}", self.state());
        Some(self.waiting(Reason::WaitingForEmptyGroup, words))
    }

    fn begin(&self, wish: &Wish) -> Ruling {
        if self.is_late(wish) {
            let words = format!("{} at the deadline", self.state());
            return self.end(self.fresh(wish, Vec::new()), Reason::DeadlinePassed, words);
        }
        if let Some(obstacle) = self.obstacle(wish) {
            return obstacle;
        }
        match plan(self.desired, wish, &self.observed.object, self.facts) {
            Err(NoPlan::Ask(ms)) => Ruling {
                ask: Some(ms),
                ..self.waiting(Reason::ResetRunning, String::new())
            },
            Err(NoPlan::Impossible(words)) => {
                self.end(self.fresh(wish, Vec::new()), Reason::ResetImpossible, words)
            }
            Ok(plan) if wish.dry_run => {
                let words = told(&plan.moves, "would move", &plan.remarks);
                self.end(self.fresh(wish, plan.moves), Reason::DryRun, words)
            }
            Ok(plan) => self.run(wish, plan),
        }
    }

    /// All steps from the first one on.
    fn run(&self, wish: &Wish, plan: Plan) -> Ruling {
        let last = self.fresh(wish, plan.moves);
        let mut steps = self.remember(&wish.id);
        let claim: Vec<GroupOffset> = last
            .partitions
            .iter()
            .filter_map(|it| Some(offset(it, it.from?, note_planned(&wish.id))))
            .collect();
        if !claim.is_empty() {
            steps.push(Step::Claim(claim));
        }
        steps.push(Step::Record(last.clone()));
        steps.push(Step::Reset(commit(&last)));
        Ruling {
            steps,
            last: Some(last),
            ..self.waiting(Reason::ResetRunning, plan.remarks.join("; "))
        }
    }

    /// A run is recorded and has no end.
    fn resume(&self, last: &LastReset) -> Ruling {
        let wish = self.desired.reset.as_ref();
        let wish = wish.filter(|it| it.id == last.request_id);
        let evidence = evidence(last, self.facts);
        match (evidence, wish) {
            (Evidence::Done, _) => {
                // What was said when it began: offsets that had to be clamped.
                let remarks = &self.observed.object.last_words;
                let remarks = Some(remarks.clone())
                    .filter(|it| !it.is_empty() && it != Reason::ResetRunning.doc());
                let remarks: Vec<String> = remarks.into_iter().collect();
                let words = told(&last.partitions, "moved", &remarks);
                self.end(last.clone(), Reason::OffsetsReset, words)
            }
            (Evidence::Unknown, _) => {
                let words = "the operator was stopped half way, and the group has committed since: whether the offsets were reset before that is not known; they stay as they are";
                self.end(last.clone(), Reason::ResetInterrupted, words.to_owned())
            }
            (Evidence::Planned | Evidence::Moved, None) => {
                let words = "the request was taken back before anything was committed";
                self.end(last.clone(), Reason::ResetInterrupted, words.to_owned())
            }
            (Evidence::Planned | Evidence::Moved, Some(wish)) if self.is_late(wish) => {
                let words = format!("{} at the deadline", self.state());
                let undone = self.fresh(wish, Vec::new());
                self.end(undone, Reason::DeadlinePassed, words)
            }
            (Evidence::Planned, Some(wish)) => match self.obstacle(wish) {
                Some(obstacle) => obstacle,
                None => Ruling {
                    steps: vec![Step::Reset(commit(last))],
                    ..self.waiting(Reason::ResetRunning, String::new())
                },
            },
            // As if nothing had been recorded: from where the group is now.
            (Evidence::Moved, Some(wish)) => self.begin(wish),
        }
    }
}

fn offset(of: &PartitionReset, offset: i64, note: String) -> GroupOffset {
    GroupOffset {
        topic: of.topic.clone(),
        partition: of.partition,
        offset,
        note,
    }
}

fn commit(last: &LastReset) -> Vec<GroupOffset> {
    let note = note_done(&last.request_id);
    let one = |it: &PartitionReset| offset(it, it.to, note.clone());
    last.partitions.iter().map(one).collect()
}

/// `moved 3 partitions; orders-1 at 5 instead of 2, …`.
fn told(moves: &[PartitionReset], verb: &str, remarks: &[String]) -> String {
    let mut words = vec![format!("{verb} {} partitions", moves.len())];
    words.extend(remarks.iter().cloned());
    words.join("; ")
}
