//! The judgement as tables: every reason and every row.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use keelson_crds::{ConditionStatus, LagObjective, PartitionReset, ResetOffset};

use super::*;
use crate::deletion::HOLD_MAX;
use crate::group::facts::{ObjectView, Start, Target, Wish};
use crate::group::fixture::{asking, desired, wish};
use crate::kafka::PartitionOffsets;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn late(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp::from_second(NOW + seconds).unwrap())
}

/// A group without members that has committed 5 of 0..10 in `t-0`, and nothing of 2..4 in `t-1`.
fn facts() -> GroupFacts {
    let place = |partition, committed, start, end| PartitionOffsets {
        partition,
        committed,
        start,
        end,
        ..PartitionOffsets::default()
    };
    let places = vec![place(0, Some(5), 0, 10), place(1, None, 2, 4)];
    GroupFacts {
        state: "Empty".into(),
        offsets: BTreeMap::from([("t".to_owned(), places)]),
        ..GroupFacts::default()
    }
}

fn busy() -> GroupFacts {
    GroupFacts {
        state: "Stable".into(),
        members: 2,
        ..facts()
    }
}

fn object() -> ObjectView {
    ObjectView {
        lasting: true,
        ..ObjectView::default()
    }
}

fn seen(object: ObjectView, facts: GroupFacts) -> Observed {
    Observed {
        object,
        cluster: ClusterView::Reachable(facts),
        now: now(),
    }
}

fn moved(partition: i32, from: Option<i64>, to: i64) -> PartitionReset {
    PartitionReset {
        topic: "t".into(),
        partition,
        from,
        to,
    }
}

fn last(id: &str, result: Reason, partitions: Vec<PartitionReset>) -> LastReset {
    LastReset {
        request_id: id.into(),
        result: result.as_str().into(),
        started_at: "1970-01-12T13:46:40Z".into(),
        finished_at: (result != Reason::ResetRunning).then(|| "1970-01-12T13:46:40Z".into()),
        partitions,
    }
}

fn after(last: LastReset) -> ObjectView {
    ObjectView {
        last: Some(last),
        last_words: "as it was said".into(),
        ..object()
    }
}

fn said(decision: &Decision, type_: Type) -> (ConditionStatus, Reason, &str) {
    let (status, reason, words) = &decision.verdict.conditions[&type_];
    (*status, *reason, words)
}

fn steps(decision: &Decision) -> Vec<String> {
    decision.steps.iter().map(ToString::to_string).collect()
}

/// Pending and succeeded, the words of the latter, the moves, and the steps.
#[track_caller]
fn check(
    desired: &Desired,
    observed: &Observed,
    (pending, succeeded, reason): (ConditionStatus, ConditionStatus, Reason),
    words: &str,
    expected: &[&str],
) -> Decision {
    let decision = decide(desired, observed);
    let (status, _, _) = said(&decision, Type::ResetPending);
    assert_eq!(status, pending, "{decision:?}");
    let (status, why, message) = said(&decision, Type::ResetSucceeded);
    assert_eq!((status, why), (succeeded, reason), "{message}");
    assert!(message.contains(words), "{message}");
    assert_eq!(steps(&decision), expected);
    decision
}

#[test]
fn nothing_asked_for() {
    let it = seen(object(), facts());
    check(&desired(), &it, (False, Unknown, Reason::NoReset), "", &[]);
    // What the last one came to stands, whether it is still asked for or not.
    let before = after(last("a", Reason::OffsetsReset, vec![moved(0, Some(1), 5)]));
    let words = "as it was said";
    let end = (False, True, Reason::OffsetsReset);
    check(&desired(), &seen(before.clone(), facts()), end, words, &[]);
    let again = asking(wish(Target::Start(Start::Earliest)));
    check(&again, &seen(before.clone(), facts()), end, words, &[]);
    let found = decide(&again, &seen(before.clone(), busy()));
    assert_eq!(found.verdict.last, before.last, "never twice");
}

#[test]
fn where_each_target_is() {
    let run = |target: Target, moves: &[PartitionReset], words: &str| {
        let found = decide(&asking(wish(target)), &seen(object(), facts()));
        let last = found.verdict.last.clone().unwrap();
        assert_eq!(last.partitions, moves, "{found:?}");
        assert_eq!(last.result, "ResetRunning");
        let expected = [
            "mark 1 committed offsets",
            "record reset a",
            &format!("reset {} offsets", moves.len()),
        ];
        let offset_less = moves.iter().all(|it| it.from.is_none());
        assert_eq!(steps(&found), expected[usize::from(offset_less)..]);
        let message = said(&found, Type::ResetSucceeded).2;
        assert!(message.contains(words), "{message}");
    };
    let both = |to0, to1| [moved(0, Some(5), to0), moved(1, None, to1)];
    run(Target::Start(Start::Earliest), &both(0, 2), "");
    run(Target::Start(Start::Latest), &both(10, 4), "");
    let named = |list: &[(i32, i64)]| {
        let one = |(partition, offset): &(i32, i64)| ResetOffset {
            topic: "t".into(),
            partition: *partition,
            offset: *offset,
        };
        Target::Offsets(list.iter().map(one).collect())
    };
    run(named(&[(1, 3), (0, 7)]), &both(7, 3), "");
    run(named(&[(1, 3)]), &[moved(1, None, 3)], "");
    let clamped = "t-0 at 10 instead of 11, which its log does not hold; t-1 at 2 instead of 1";
    run(named(&[(0, 11), (1, 1)]), &both(10, 2), clamped);
}

#[test]
fn a_time_is_looked_up_first() {
    let at = asking(wish(Target::Start(Start::At(7))));
    let found = decide(&at, &seen(object(), facts()));
    assert_eq!(found.asks, [7]);
    let mut known = facts();
    for it in known.offsets.get_mut("t").unwrap() {
        it.at.insert(7, it.start + 1);
    }
    let found = decide(&at, &seen(object(), known));
    let expected = [moved(0, Some(5), 1), moved(1, None, 3)];
    assert_eq!(found.verdict.last.unwrap().partitions, expected);
}

#[test]
fn a_shift_is_of_committed_offsets() {
    let shift = |records, scope: &[&str]| {
        let scope = scope.iter().map(|it| (*it).to_owned()).collect();
        let desired = Desired {
            scope,
            ..asking(wish(Target::ShiftBy(records)))
        };
        decide(&desired, &seen(object(), facts())).verdict
    };
    let moves = |verdict: Verdict| verdict.last.unwrap().partitions;
    assert_eq!(moves(shift(-2, &[])), [moved(0, Some(5), 3)]);
    assert_eq!(moves(shift(-9, &[])), [moved(0, Some(5), 0)]);
    assert_eq!(moves(shift(i64::MAX, &[])), [moved(0, Some(5), 10)]);
    let refused = shift(1, &["t"]);
    let (_, reason, words) = &refused.conditions[&Type::ResetSucceeded];
    assert_eq!(*reason, Reason::ResetImpossible);
    assert!(words.contains("t-1 has no committed offset"), "{words}");
}

#[test]
fn what_cannot_be_is_refused_for_good() {
    let impossible = |desired: &Desired, facts: GroupFacts, words: &str| {
        let end = (False, False, Reason::ResetImpossible);
        let found = check(desired, &seen(object(), facts), end, words, &[]);
        let last = found.verdict.last.unwrap();
        assert!(last.finished_at.is_some() && last.partitions.is_empty());
    };
    let earliest = || wish(Target::Start(Start::Earliest));
    let elsewhere = Wish {
        topics: vec!["u".into()],
        ..earliest()
    };
    let missing = "topic u does not exist";
    impossible(&asking(elsewhere), facts(), missing);
    let nowhere = Desired {
        scope: Vec::new(),
        ..asking(earliest())
    };
    let nothing = GroupFacts {
        state: "Dead".into(),
        ..GroupFacts::default()
    };
    impossible(&nowhere, nothing, "has committed nothing");
    let offset = ResetOffset {
        topic: "t".into(),
        partition: 7,
        offset: 0,
    };
    let offsets = Target::Offsets(vec![offset]);
    impossible(&asking(wish(offsets)), facts(), "t-7 does not exist");
    let undo = asking(wish(Target::Previous));
    impossible(&undo, facts(), "no reset is recorded");
    let mut wide = facts();
    let place = wide.offsets["t"][0].clone();
    wide.offsets.insert("t".into(), vec![place; 257]);
    impossible(&asking(earliest()), wide, "257 partitions are more than");
}

#[test]
fn waiting_and_giving_up() {
    let earliest = || wish(Target::Start(Start::Earliest));
    let until = |seconds| Wish {
        deadline: late(seconds),
        ..earliest()
    };
    let waits = (True, Unknown, Reason::WaitingForEmptyGroup);
    let words = "the group is Stable with 2 members";
    let members = seen(object(), busy());
    check(&asking(earliest()), &members, waits, words, &[]);
    let words = "it is given up at 1970-01-12T13:46:41Z";
    check(&asking(until(1)), &members, waits, words, &[]);
    let over = (False, False, Reason::DeadlinePassed);
    let words = "the group is Stable with 2 members at the deadline";
    check(&asking(until(0)), &members, over, words, &[]);
    // Nothing is begun after the deadline, whoever is there.
    let found = check(&asking(until(-1)), &seen(object(), facts()), over, "", &[]);
    assert_eq!(found.verdict.last.unwrap().result, "DeadlinePassed");
    let paused = Desired {
        paused: true,
        ..asking(earliest())
    };
    let held = (True, Unknown, Reason::Paused);
    check(&paused, &seen(object(), facts()), held, "", &[]);
    let rebalancing = GroupFacts {
        state: "PreparingRebalance".into(),
        ..facts()
    };
    check(
        &asking(earliest()),
        &seen(object(), rebalancing),
        waits,
        "",
        &[],
    );
}

#[test]
fn a_dry_run_commits_nothing_and_waits_for_nobody() {
    let dry = asking(Wish {
        dry_run: true,
        ..wish(Target::Start(Start::Latest))
    });
    let end = (False, True, Reason::DryRun);
    for facts in [facts(), busy()] {
        let found = check(
            &dry,
            &seen(object(), facts),
            end,
            "would move 2 partitions",
            &[],
        );
        let moves = found.verdict.last.unwrap().partitions;
        assert_eq!(moves, [moved(0, Some(5), 10), moved(1, None, 4)]);
    }
    // Where no record is kept, it is all that there is.
    let nowhere = ObjectView::default();
    check(&dry, &seen(nowhere.clone(), facts()), end, "", &[]);
    let real = asking(wish(Target::Start(Start::Latest)));
    let not_here = (False, False, Reason::NoRecordKept);
    check(&real, &seen(nowhere, facts()), not_here, "", &[]);
}

#[test]
fn what_a_new_request_takes_the_place_of_is_remembered() {
    let undo = vec![moved(0, Some(9), 5)];
    let first = after(last("first", Reason::OffsetsReset, undo.clone()));
    let dry = asking(Wish {
        dry_run: true,
        ..wish(Target::Start(Start::Latest))
    });
    let remember = ["remember the reset before"];
    let end = (False, True, Reason::DryRun);
    let found = check(&dry, &seen(first, facts()), end, "", &remember);
    let Step::Remember(memory) = &found.steps[0] else {
        panic!("{found:?}")
    };
    assert_eq!(memory.requests, ["first"]);
    assert_eq!(memory.undo, undo);
    // The dry run does not hide the way back, and the first request is not taken again.
    let object = ObjectView {
        memory: memory.clone(),
        ..after(found.verdict.last.unwrap())
    };
    let named = |id: &str, target| Wish {
        id: id.into(),
        ..wish(target)
    };
    let back = asking(named("back", Target::Previous));
    let found = decide(&back, &seen(object.clone(), facts()));
    let last = found.verdict.last.unwrap();
    assert_eq!(last.partitions, [moved(0, Some(5), 9)]);
    let used = (False, False, Reason::RequestIdUsed);
    let again = asking(named("first", Target::Start(Start::Latest)));
    let found = check(&again, &seen(object.clone(), facts()), used, "first", &[]);
    assert_eq!(found.verdict.last, object.last);
}

#[test]
fn previous_leaves_alone_what_had_no_offset() {
    let undo = |moves| {
        let before = after(last("z", Reason::OffsetsReset, moves));
        decide(&asking(wish(Target::Previous)), &seen(before, facts()))
    };
    let found = undo(vec![moved(0, Some(11), 5), moved(1, None, 2)]);
    let moves = &found.verdict.last.as_ref().unwrap().partitions;
    assert_eq!(*moves, [moved(0, Some(5), 10)]);
    let words = said(&found, Type::ResetSucceeded).2;
    assert!(words.contains("t-0 at 10 instead of 11"), "{words}");
    assert!(words.contains("t-1 had no offset before"), "{words}");
    let found = undo(vec![moved(1, None, 2)]);
    let why = said(&found, Type::ResetSucceeded).1;
    assert_eq!(why, Reason::ResetImpossible);
}

/// A run that was recorded and has no end, against every sight of its two partitions.
#[test]
fn a_run_without_an_end() {
    let running = last(
        "a",
        Reason::ResetRunning,
        vec![moved(0, Some(5), 0), moved(1, None, 2)],
    );
    let with = |zero: (i64, &str), one: Option<(i64, &str)>, base: GroupFacts| {
        let mut facts = base;
        let places = facts.offsets.get_mut("t").unwrap();
        (places[0].committed, places[0].note) = (Some(zero.0), zero.1.into());
        if let Some(one) = one {
            (places[1].committed, places[1].note) = (Some(one.0), one.1.into());
        }
        facts
    };
    let (planned, done) = ("keelson reset a: planned", "keelson reset a: done");
    let asked = asking(wish(Target::Start(Start::Earliest)));
    let withdrawn = desired();
    let late_wish = asking(Wish {
        deadline: late(0),
        ..wish(Target::Start(Start::Earliest))
    });
    let go = |facts: GroupFacts, desired: &Desired, expected, steps: &[&str]| {
        let object = after(running.clone());
        check(desired, &seen(object, facts), expected, "", steps);
    };
    let success = (False, True, Reason::OffsetsReset);
    let runs = (True, Unknown, Reason::ResetRunning);
    let waits = (True, Unknown, Reason::WaitingForEmptyGroup);
    let lost = (False, False, Reason::ResetInterrupted);
    let over = (False, False, Reason::DeadlinePassed);
    for base in [facts(), busy()] {
        for (zero, one, expected) in [
            // Done, whatever happened to the other partition, and whether it is still asked for or not.
            ((0, done), Some((2, done)), success),
            ((9, ""), Some((2, done)), success),
            ((0, done), None, success),
            // Nobody can know.
            ((5, ""), Some((2, "")), lost),
            ((9, ""), Some((4, "")), lost),
        ] {
            for desired in [&asked, &withdrawn, &late_wish] {
                go(with(zero, one, base.clone()), desired, expected, &[]);
            }
        }
        for (desired, expected) in [(&withdrawn, lost), (&late_wish, over)] {
            let facts = with((5, planned), None, base.clone());
            go(facts, desired, expected, &[]);
        }
    }
    let carry_on = ["reset 2 offsets"];
    let anew = [
        "mark 1 committed offsets",
        "record reset a",
        "reset 2 offsets",
    ];
    let all_anew = [
        "mark 2 committed offsets",
        "record reset a",
        "reset 2 offsets",
    ];
    go(with((5, planned), None, facts()), &asked, runs, &carry_on);
    go(with((7, ""), None, facts()), &asked, runs, &anew);
    go(
        with((5, planned), Some((3, "")), facts()),
        &asked,
        runs,
        &all_anew,
    );
    go(with((5, planned), None, busy()), &asked, waits, &[]);
    go(with((7, ""), None, busy()), &asked, waits, &[]);
    let gone = GroupFacts {
        offsets: BTreeMap::new(),
        missing_topics: vec!["t".into()],
        ..facts()
    };
    go(gone, &asked, lost, &[]);
}

#[test]
fn where_a_new_group_starts() {
    let starting = |start| Desired {
        initial: Some(start),
        ..desired()
    };
    let fresh = |state: &str| {
        let mut facts = facts();
        facts.offsets.get_mut("t").unwrap()[0].committed = None;
        facts.state = state.into();
        facts
    };
    let provision = ["commit where to start in 2 partitions"];
    for state in ["Dead", "Empty"] {
        let found = decide(&starting(Start::Latest), &seen(object(), fresh(state)));
        assert_eq!(steps(&found), provision);
        let Step::Provision(offsets) = &found.steps[0] else {
            panic!("{found:?}")
        };
        let offsets: Vec<i64> = offsets.iter().map(|it| it.offset).collect();
        assert_eq!(offsets, [10, 4]);
    }
    let found = decide(&starting(Start::At(7)), &seen(object(), fresh("Empty")));
    assert_eq!(found.asks, [7]);
    let nothing = |desired: Desired, facts: GroupFacts| {
        let found = decide(&desired, &seen(object(), facts));
        assert_eq!(steps(&found), Vec::<String>::new());
    };
    let latest = || starting(Start::Latest);
    nothing(latest(), facts());
    nothing(desired(), fresh("Empty"));
    let members = GroupFacts {
        members: 1,
        ..fresh("Stable")
    };
    nothing(latest(), members);
    let paused = Desired {
        paused: true,
        ..latest()
    };
    nothing(paused, fresh("Empty"));
    let missing = GroupFacts {
        offsets: BTreeMap::new(),
        missing_topics: vec!["t".into()],
        ..fresh("Dead")
    };
    nothing(latest(), missing);
    // First where it starts, then where it is moved.
    let both = Desired {
        reset: Some(wish(Target::Start(Start::Earliest))),
        ..latest()
    };
    let found = decide(&both, &seen(object(), fresh("Empty")));
    assert_eq!(steps(&found), provision);
    assert_eq!(found.verdict.last, None);
}

#[test]
fn observed_and_judged() {
    let ready = |desired: &Desired, observed: &Observed, status, reason| {
        let found = decide(desired, observed);
        let (is, why, _) = said(&found, Type::Ready);
        assert_eq!((is, why), (status, reason));
        found
    };
    let found = ready(&desired(), &seen(object(), busy()), True, Reason::Observed);
    assert_eq!(
        said(&found, Type::LagWithinObjective).1,
        Reason::NoObjective
    );
    assert_eq!(
        said(&found, Type::Deleting),
        (False, Reason::NotDeleting, "")
    );
    let paused = Desired {
        paused: true,
        ..desired()
    };
    ready(&paused, &seen(object(), busy()), True, Reason::Paused);
    let strict = Desired {
        objective: Some(LagObjective {
            max_records: Some(4),
            max_seconds: None,
        }),
        ..desired()
    };
    let found = ready(&strict, &seen(object(), busy()), True, Reason::Observed);
    let within = said(&found, Type::LagWithinObjective);
    assert_eq!((within.0, within.1), (False, Reason::LagAboveObjective));
    let nobody = GroupFacts {
        state: "Dead".into(),
        ..GroupFacts::default()
    };
    let found = ready(&strict, &seen(object(), nobody), True, Reason::GroupAbsent);
    assert_eq!(
        said(&found, Type::LagWithinObjective).1,
        Reason::GroupAbsent
    );
    let away = Observed {
        cluster: ClusterView::Unreachable("away".into()),
        ..seen(after(last("a", Reason::OffsetsReset, Vec::new())), busy())
    };
    let found = ready(&strict, &away, Unknown, Reason::BrokerUnreachable);
    assert_eq!(found.verdict.last, away.object.last, "nothing is forgotten");
    assert!(found.steps.is_empty() && found.verdict.seen.is_none());
}

#[test]
fn the_finalizer_follows_the_policy() {
    let check = |policy, has, paused, lasting, expected: &[&str]| {
        let desired = Desired {
            deletion_policy: policy,
            paused,
            ..desired()
        };
        let object = ObjectView {
            has_finalizer: has,
            lasting,
            ..object()
        };
        assert_eq!(steps(&decide(&desired, &seen(object, facts()))), expected);
    };
    use DeletionPolicy::{Delete, Retain};
    let on = ["hold the object until the group is deleted"];
    let off = ["let the object go (GroupRetained: deletionPolicy is Retain)"];
    check(Delete, false, false, true, &on);
    check(Delete, true, false, true, &[]);
    check(Delete, false, true, true, &[]);
    check(Delete, false, false, false, &[]);
    check(Retain, false, false, true, &[]);
    check(Retain, true, false, true, &off);
}

#[test]
fn deleted_only_when_told_and_empty() {
    let going = |age: Duration| ObjectView {
        has_finalizer: true,
        deleting: Some(Deleting {
            age,
            until: "later".into(),
        }),
        ..object()
    };
    let delete = |paused| Desired {
        deletion_policy: DeletionPolicy::Delete,
        paused,
        ..asking(wish(Target::Start(Start::Earliest)))
    };
    let held = |desired: &Desired, observed: &Observed, reason, words: &str, expected: &[&str]| {
        let found = decide(desired, observed);
        let (status, why, message) = said(&found, Type::Deleting);
        assert_eq!((status, why), (True, reason));
        assert!(message.contains(words), "{message}");
        assert_eq!(said(&found, Type::Ready).0, False);
        assert_eq!(steps(&found), expected);
    };
    let soon = || going(Duration::ZERO);
    let (empty, members) = (seen(soon(), facts()), seen(soon(), busy()));
    let step = ["delete the group"];
    held(&delete(false), &empty, Reason::DeletingGroup, "", &step);
    let words = "it is Stable with 2 members";
    held(&delete(false), &members, Reason::GroupNotEmpty, words, &[]);
    held(&delete(true), &empty, Reason::Paused, "", &[]);
    let away = |age, gone: bool| Observed {
        cluster: match gone {
            true => ClusterView::Gone("gone".into()),
            false => ClusterView::Unreachable("away".into()),
        },
        ..seen(going(age), facts())
    };
    let waits = away(Duration::ZERO, false);
    held(&delete(false), &waits, Reason::DeletionHeld, "later", &[]);
    let released = |desired: &Desired, observed: &Observed, reason: Reason| {
        let found = decide(desired, observed);
        let [Step::RemoveFinalizer { reason: why, .. }] = &found.steps[..] else {
            panic!("{found:?}")
        };
        assert_eq!(*why, reason);
    };
    let nobody = GroupFacts {
        state: "Dead".into(),
        ..GroupFacts::default()
    };
    released(&delete(false), &seen(soon(), nobody), Reason::GroupDeleted);
    let gone = away(Duration::ZERO, true);
    released(&delete(false), &gone, Reason::ClusterGone);
    let given_up = away(HOLD_MAX, false);
    released(&delete(false), &given_up, Reason::DeletionGivenUp);
    released(&desired(), &members, Reason::GroupRetained);
    let nothing = ObjectView {
        has_finalizer: false,
        ..soon()
    };
    assert!(
        decide(&delete(false), &seen(nothing, facts()))
            .steps
            .is_empty()
    );
}
