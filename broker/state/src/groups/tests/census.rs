//! The numbers: each moves with what it counts, and with nothing else.

use super::*;

use GroupState as S;

fn census(bench: &Bench) -> GroupCensus {
    let mut census = GroupCensus::default();
    bench.machine.count_into(&mut census);
    census
}

/// Groups by state, where there are any.
fn groups(bench: &Bench) -> Vec<(S, u64)> {
    let census = census(bench);
    let all = S::ALL.map(|state| (state, census.groups(state)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn rebalances(bench: &Bench) -> u64 {
    census(bench).happened.rebalances
}

fn expired(bench: &Bench) -> u64 {
    census(bench).happened.offsets_expired
}

#[test]
fn groups_are_counted_by_state_and_each_rebalance_once() {
    let mut bench = Bench::with(GroupConfig::default());
    assert_eq!((groups(&bench), rebalances(&bench)), (vec![], 0));
    let first = bench.join("");
    assert_eq!(groups(&bench), [(S::PreparingRebalance, 1)]);
    bench.join("");
    assert_eq!(rebalances(&bench), 1, "they join the same one");
    bench.advance(6_000);
    assert_eq!(groups(&bench), [(S::CompletingRebalance, 1)]);
    let first = bench.joined(first);
    bench.sync(&first.member_id, 1, &[(&first.member_id, "a")]);
    bench.persist_all();
    assert_eq!(
        (groups(&bench), rebalances(&bench)),
        (vec![(S::Stable, 1)], 1)
    );
    bench.leave(&first.member_id, None).unwrap();
    assert_eq!(groups(&bench), [(S::PreparingRebalance, 1)]);
    assert_eq!(rebalances(&bench), 2, "it was left");
    bench.advance(60_000);
    bench.persist_all();
    assert_eq!(groups(&bench), [(S::Empty, 1)]);
    let deleted = bench.ask(|token| Input::Delete(token, "g".to_owned()));
    assert_eq!(groups(&bench), [(S::Dead, 1)]);
    bench.persist_all();
    assert_eq!(bench.take(deleted), Some(Reply::Delete(Ok(()))));
    assert_eq!((groups(&bench), rebalances(&bench)), (vec![], 2));
    let mut twice = census(&bench);
    bench.machine.count_into(&mut twice);
    assert_eq!(
        twice.happened.rebalances, 4,
        "machines are counted into one"
    );
}

#[test]
fn offsets_that_expire_are_counted_and_no_others() {
    let mut bench = Bench::with(GroupConfig {
        offsets_retention_ms: 10_000,
        offsets_check_interval_ms: 1_000,
        ..GroupConfig::default()
    });
    // Two commits from outside: the first expires alone, the last one takes the group with it.
    for (partition, now_ms) in [(0, 1_000), (1, 5_000)] {
        bench.now_ms = now_ms;
        let entry = CommitEntry {
            topic: "t".to_owned(),
            partition,
            offset: 7,
            leader_epoch: -1,
            metadata: String::new(),
        };
        bench.ask(|token| {
            Input::Commit(
                token,
                CommitRequest {
                    group: "g".to_owned(),
                    generation: -1,
                    member_id: String::new(),
                    instance_id: None,
                    producer: None,
                    retention_ms: None,
                    entries: vec![entry],
                },
            )
        });
        bench.persist_all();
    }
    bench.advance(8_000);
    bench.fail_all();
    assert_eq!(expired(&bench), 0, "not gone yet");
    bench.advance(1_000);
    bench.persist_all();
    assert_eq!((expired(&bench), groups(&bench)), (1, vec![(S::Empty, 1)]));
    bench.advance(4_000);
    assert_eq!(groups(&bench), [(S::Dead, 1)]);
    bench.persist_all();
    assert_eq!((expired(&bench), groups(&bench)), (2, vec![]));
    // Offsets that go with their topic, or with a group that somebody deletes, have not expired.
    for gone in [
        |token| Input::Delete(token, "g".to_owned()),
        |_| Input::TopicDeleted("t".to_owned()),
    ] as [fn(Token) -> Input; 2]
    {
        bench.commit("", -1, 7);
        bench.persist_all();
        bench.ask(gone);
        bench.persist_all();
        assert_eq!((bench.offset(), expired(&bench)), (None, 2));
    }
}
