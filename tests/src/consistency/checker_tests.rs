//! What the checker takes for lawful and what not, on histories of a few lines; that histories survive their file; and that
//! it is fast.

use std::time::{Duration, Instant};

use super::anomaly::Kind;
use super::history::{Action, End, Header, History, Key, Op, Outcome, Read, Send, Step, Value};
use super::{check, model_tests};
use crate::broker::scratch_dir;

const KEY: Key = Key(0);

fn op(process: u32, at: u64, outcome: Outcome, action: Action) -> Op {
    Op {
        process,
        invoked_us: at,
        completed_us: at + 1,
        outcome,
        action,
        note: None,
    }
}

fn sending(value: u64, offset: Option<i64>) -> Send {
    Send {
        key: KEY,
        value: Value(value),
        offset,
    }
}

fn send(at: u64, outcome: Outcome, value: u64, offset: Option<i64>) -> Op {
    let action = Action::Send {
        send: sending(value, offset),
        idempotent: true,
    };
    op(1, at, outcome, action)
}

fn reads(of: &[(i64, u64)]) -> Vec<Read> {
    let read = |(offset, value): &(i64, u64)| Read {
        key: KEY,
        offset: *offset,
        value: Some(Value(*value)),
    };
    of.iter().map(read).collect()
}

fn poll(process: u32, at: u64, of: &[(i64, u64)]) -> Op {
    op(process, at, Outcome::Ok, Action::Poll(reads(of)))
}

fn txn(at: u64, outcome: Outcome, end: End, steps: Vec<Step>) -> Op {
    let asked_us = at;
    let action = Action::Txn {
        steps,
        end,
        asked_us,
    };
    op(2, at, outcome, action)
}

fn kinds(ops: Vec<Op>) -> Vec<Kind> {
    let header = Header {
        seed: 0,
        keys: vec!["t/0".to_owned()],
    };
    let history = History { header, ops };
    let found = check(&history);
    for anomaly in &found {
        assert!(anomaly.tell(&history).starts_with(anomaly.kind.name()));
    }
    found.iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn a_send_without_an_outcome_may_be_there_or_not() {
    for there in [&[(0, 1), (1, 2)][..], &[(0, 1)]] {
        let ops = vec![
            send(0, Outcome::Ok, 1, Some(0)),
            send(2, Outcome::Info, 2, None),
            poll(9, 10, there),
        ];
        assert_eq!(kinds(ops), []);
    }
    // Carried out late, it may stand behind what was sent after it.
    let ops = vec![
        send(0, Outcome::Info, 1, None),
        send(2, Outcome::Ok, 2, Some(0)),
        poll(9, 10, &[(0, 2), (1, 1)]),
    ];
    assert_eq!(kinds(ops), []);
    let ops = vec![send(0, Outcome::Fail, 1, None), poll(9, 10, &[(0, 1)])];
    assert_eq!(kinds(ops), [Kind::AbortedRead]);
}

#[test]
fn only_a_producer_without_idempotence_may_store_twice() {
    for idempotent in [false, true] {
        let action = Action::Send {
            send: sending(1, Some(1)),
            idempotent,
        };
        let ops = vec![
            op(1, 0, Outcome::Ok, action),
            poll(9, 10, &[(0, 1), (1, 1)]),
        ];
        let wanted: &[Kind] = if idempotent { &[Kind::Duplicate] } else { &[] };
        assert_eq!(kinds(ops), wanted);
    }
}

#[test]
fn a_transaction_without_an_outcome_is_whole_or_not_there() {
    let steps = || {
        let first = Step::Send(sending(1, Some(0)));
        vec![first, Step::Send(sending(2, Some(1)))]
    };
    let unknown = || txn(0, Outcome::Info, End::Commit, steps());
    assert_eq!(kinds(vec![unknown(), poll(9, 10, &[])]), []);
    assert_eq!(kinds(vec![unknown(), poll(9, 10, &[(0, 1), (1, 2)])]), []);
    let half = vec![unknown(), poll(9, 10, &[(1, 2)])];
    assert_eq!(kinds(half), [Kind::LostWrite]);
    // Whose end nobody asked for, that is not committed by anybody.
    let left = txn(0, Outcome::Info, End::Abort, steps());
    assert_eq!(
        kinds(vec![left, poll(9, 10, &[(0, 1)])]),
        [Kind::AbortedRead]
    );
}

#[test]
fn a_transaction_does_not_read_what_it_wrote() {
    let steps = vec![
        Step::Send(sending(1, Some(0))),
        Step::Poll(reads(&[(0, 1)])),
    ];
    let ops = vec![txn(0, Outcome::Ok, End::Commit, steps)];
    assert_eq!(kinds(ops), [Kind::PrecommittedRead]);
}

#[test]
fn a_rebalance_takes_the_place_of_a_consumer_away() {
    let again = |middle: Action| {
        let sends = (0..3).map(|n| send(n * 2, Outcome::Ok, n + 1, Some(n as i64)));
        let mut ops: Vec<Op> = sends.collect();
        ops.push(poll(3, 10, &[(0, 1), (1, 2)]));
        ops.push(op(3, 12, Outcome::Ok, middle));
        ops.push(poll(3, 14, &[(1, 2), (2, 3)]));
        kinds(ops)
    };
    let rebalance = |keys: &[Key]| Action::Rebalance {
        assigned: keys.to_vec(),
        revoked: Vec::new(),
    };
    assert_eq!(again(rebalance(&[KEY])), []);
    assert_eq!(again(rebalance(&[Key(7)])), [Kind::NonmonotonicPoll]);
    assert_eq!(again(Action::Crash), []);
    assert_eq!(again(Action::Seek(vec![(KEY, 1)])), []);
    assert_eq!(again(Action::Seek(vec![(KEY, 0)])), [Kind::PollSkip]);
    assert_eq!(
        again(Action::Assign(vec![(KEY, 2)])),
        [Kind::NonmonotonicPoll]
    );
}

#[test]
fn a_commit_without_an_outcome_may_come_late_but_not_after_a_rebalance() {
    let given = |at| {
        let action = Action::Rebalance {
            assigned: vec![KEY],
            revoked: Vec::new(),
        };
        op(3, at, Outcome::Ok, action)
    };
    let commit = |at, outcome, offset| op(3, at, outcome, Action::Commit(vec![(KEY, offset)]));
    let run = |commits: Vec<Op>| {
        let sends = (0..3).map(|n| send(n * 2, Outcome::Ok, n + 1, Some(n as i64)));
        let mut ops: Vec<Op> = sends.collect();
        let subscribe = Action::Subscribe {
            group: "g".to_owned(),
            keys: vec![KEY],
        };
        ops.push(op(3, 20, Outcome::Ok, subscribe));
        ops.push(given(22));
        ops.push(poll(3, 24, &[(0, 1), (1, 2), (2, 3)]));
        ops.extend(commits);
        ops.push(given(60));
        ops.push(poll(3, 62, &[(1, 2), (2, 3)]));
        kinds(ops)
    };
    assert_eq!(run(vec![commit(30, Outcome::Ok, 1)]), []);
    let known = vec![commit(30, Outcome::Ok, 3)];
    assert_eq!(run(known), [Kind::LostCommit]);
    let late = vec![commit(30, Outcome::Info, 1), commit(32, Outcome::Ok, 3)];
    assert_eq!(run(late), []);
    let fenced = vec![
        commit(30, Outcome::Info, 1),
        given(40),
        commit(42, Outcome::Ok, 3),
    ];
    assert_eq!(run(fenced), [Kind::LostCommit]);
    assert_eq!(run(vec![commit(30, Outcome::Fail, 3)]), []);
}

#[test]
fn what_one_process_sent_at_once_keeps_its_order_and_so_does_time() {
    let at = |process: u32, invoked_us, completed_us, value, offset| Op {
        process,
        completed_us,
        ..send(invoked_us, Outcome::Ok, value, Some(offset))
    };
    let read = || poll(9, 90, &[(0, 2), (1, 1)]);
    // On their way at the same time: of one process and of two.
    let one = vec![at(1, 0, 10, 1, 1), at(1, 1, 10, 2, 0), read()];
    assert_eq!(kinds(one), [Kind::NonmonotonicSend]);
    let mut two = vec![at(1, 0, 10, 1, 1), at(2, 1, 10, 2, 0), read()];
    two[1].process = 2;
    assert_eq!(kinds(two), []);
    // One after the other.
    let mut two = vec![at(1, 0, 10, 1, 1), at(2, 11, 12, 2, 0), read()];
    two[1].process = 2;
    assert_eq!(kinds(two), [Kind::NonmonotonicSend]);
}

#[test]
fn a_history_survives_its_file() {
    let history = model_tests::history(7, 200);
    let folder = scratch_dir();
    let path = folder.path().join("history.jsonl");
    history.save(&path).expect("it can be written");
    assert_eq!(History::load(&path).expect("it can be read"), history);
}

#[test]
fn a_hundred_thousand_operations_are_judged_at_once() {
    // The promise is two seconds; a busy machine gets more.
    const WITHIN: Duration = Duration::from_secs(10);
    let mut ops = Vec::new();
    for n in 0..50_000_u64 {
        ops.push(send(n * 4, Outcome::Ok, n + 1, Some(n as i64)));
        ops.push(poll(9, n * 4 + 2, &[(n as i64, n + 1)]));
    }
    let started = Instant::now();
    assert_eq!(kinds(ops), []);
    let took = started.elapsed();
    println!("100,000 operations judged in {took:?}");
    assert!(took < WITHIN, "it took {took:?}");
}
