//! The numbers: each moves with what it counts, and with nothing else.

use super::*;

use TransactionState as S;

fn census(bench: &Bench) -> TransactionCensus {
    let mut census = TransactionCensus::default();
    bench.machine.count_into(&mut census);
    census
}

/// Those that ended, in the order of [`Outcome::ALL`].
fn ended(bench: &Bench) -> [u64; 4] {
    let census = census(bench);
    Outcome::ALL.map(|outcome| census.ended.of(outcome))
}

/// Ids by state, where there are any.
fn ids(bench: &Bench) -> Vec<(S, u64)> {
    let census = census(bench);
    let all = TransactionCensus::STATES.map(|state| (state, census.ids(state)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn times(bench: &Bench) -> (Option<i64>, Option<i64>) {
    let census = census(bench);
    (census.oldest_start_ms, census.first_due_ms)
}

#[test]
fn ids_are_counted_by_state_and_ends_by_outcome_once_they_are_durable() {
    let mut bench = Bench::new();
    let token = bench.init(None);
    assert_eq!(ids(&bench), [], "nothing is known yet");
    bench.settle();
    bench.take(token);
    assert_eq!(ids(&bench), [(S::Empty, 1)]);
    for (commit, decided, complete, all) in [
        (true, S::PrepareCommit, S::CompleteCommit, [1, 0, 0, 0]),
        (false, S::PrepareAbort, S::CompleteAbort, [1, 1, 0, 0]),
    ] {
        let before = ended(&bench);
        bench.added((100, 0), &[1]).unwrap();
        assert_eq!(ids(&bench), [(S::Ongoing, 1)]);
        bench.end((100, 0), commit, false);
        assert_eq!(ended(&bench), before, "not durable yet");
        bench.fail_all();
        assert_eq!(ended(&bench), before, "it never was");
        bench.end((100, 0), commit, false);
        bench.persist_all();
        assert_eq!((ids(&bench), ended(&bench)), (vec![(decided, 1)], all));
        bench.settle();
        assert_eq!((ids(&bench), ended(&bench)), (vec![(complete, 1)], all));
    }
    bench.restart();
    assert_eq!(ended(&bench), [0; 4], "those of an earlier run");
    assert_eq!(ids(&bench), [(S::CompleteAbort, 1)]);
}

#[test]
fn an_abort_of_nothing_ends_no_transaction() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    assert_eq!(bench.ended(producer, false, true), Ok((100, 1)));
    assert_eq!(ids(&bench), [(S::CompleteAbort, 1)]);
    assert_eq!(ended(&bench), [0; 4]);
}

#[test]
fn what_the_coordinator_aborts_is_counted_apart() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    bench.advance(10_000);
    bench.fail_all();
    assert_eq!(ended(&bench), [0; 4]);
    bench.advance(1_000);
    bench.settle();
    assert_eq!(ended(&bench), [0, 0, 1, 0], "too long");
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    bench.init(None);
    bench.settle();
    assert_eq!(ended(&bench), [0, 0, 1, 1], "another took over");
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    bench.init(Some(producer));
    bench.settle();
    assert_eq!(ended(&bench), [0, 1, 1, 1], "its own client began anew");
}

#[test]
fn the_oldest_is_open_until_its_markers_are_written() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    assert_eq!(times(&bench), (None, None));
    bench.added(producer, &[1]).unwrap();
    bench.now_ms = 3_000;
    bench.added(producer, &[2]).unwrap();
    assert_eq!(times(&bench), (Some(1_000), Some(11_000)), "its timeout");
    bench.end(producer, true, false);
    bench.now_ms = 4_000;
    bench.persist_all();
    assert_eq!(times(&bench), (Some(1_000), Some(3_000)), "its decision");
    bench.restart();
    assert_eq!(times(&bench), (Some(1_000), Some(3_000)));
    bench.settle();
    assert_eq!(times(&bench), (None, None));
}

#[test]
fn of_several_the_earliest_counts() {
    let mut bench = Bench::new();
    for (id, now_ms) in [("young", 3_000), ("old", 2_000), ("idle", 1_000)] {
        bench.now_ms = now_ms;
        let token = bench.ask(|token| Input::Init(token, init(id, None)));
        bench.settle();
        let Some(Reply::Init(Ok(producer))) = bench.take(token) else {
            panic!("{id} does not begin");
        };
        if id != "idle" {
            bench.ask(|token| Input::Add(token, add(id, producer, &[1])));
            bench.settle();
        }
    }
    assert_eq!(times(&bench), (Some(2_000), Some(12_000)));
    assert_eq!(ids(&bench), [(S::Empty, 1), (S::Ongoing, 2)]);
    // Machines are counted into one.
    let mut both = census(&bench);
    bench.machine.count_into(&mut both);
    assert_eq!(
        (both.ids(S::Ongoing), both.oldest_start_ms),
        (4, Some(2_000))
    );
}
