//! One case per rule.

use super::*;

#[test]
fn the_initial_delay_gathers_members_into_one_generation() {
    let mut bench = Bench::with(GroupConfig::default());
    let first = bench.join("");
    bench.advance(2_000);
    let second = bench.join("");
    bench.advance(1_999);
    assert!(bench.replies.is_empty(), "prolonged, as somebody came");
    bench.advance(2_001);
    let (one, two) = (bench.joined(first), bench.joined(second));
    assert_eq!((one.generation, two.generation), (1, 1));
    assert_eq!(
        (one.leader.as_str(), two.leader.as_str()),
        (one.member_id.as_str(), one.member_id.as_str())
    );
    assert_eq!(
        (one.members.len(), two.members.len()),
        (2, 0),
        "only the leader sees the members"
    );
}

#[test]
fn a_new_dynamic_member_comes_back_with_its_id() {
    let mut bench = Bench::new();
    let request = JoinRequest {
        require_known_member_id: true,
        ..bench.request("")
    };
    let token = bench.ask(|token| Input::Join(token, request));
    let Some(Reply::Join(Err(refused))) = bench.take(token) else {
        panic!("no refusal")
    };
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    let token = bench.join(&refused.member_id);
    assert_eq!(bench.joined(token).member_id, refused.member_id);

    let mut bench = Bench::new();
    let request = JoinRequest {
        require_known_member_id: true,
        ..bench.request("")
    };
    bench.ask(|token| Input::Join(token, request));
    assert!(bench.state().is_some());
    bench.advance(10_000);
    assert!(
        bench.state().is_none(),
        "a group of nothing but an unused id is forgotten"
    );
    let token = bench.join(&refused.member_id);
    assert_eq!(bench.join_error(token), GroupError::UnknownMemberId);
}

#[test]
fn joins_wait_for_everybody_and_the_absent_are_out() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    let newcomer = bench.join("");
    assert_eq!(
        bench.heartbeat(&ids[0], generation),
        Err(GroupError::RebalanceInProgress)
    );
    let again = bench.join(&ids[0]);
    assert!(bench.replies.is_empty(), "member 2 has not joined yet");
    assert_eq!(
        bench.heartbeat(&ids[1], generation),
        Err(GroupError::RebalanceInProgress)
    );
    bench.advance(9_999);
    assert!(bench.replies.is_empty());
    bench.advance(1);
    let (one, three) = (bench.joined(again), bench.joined(newcomer));
    assert_eq!(
        (one.generation, three.generation),
        (generation + 1, generation + 1)
    );
    assert_eq!(one.members.len(), 2, "the silent member is out");
    assert_eq!(
        bench.heartbeat(&ids[1], generation),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn an_assignment_is_given_out_once_durable() {
    let mut bench = Bench::new();
    let token = bench.join("");
    let leader = bench.joined(token);
    let sync = bench.sync(
        &leader.member_id,
        1,
        &[(&leader.member_id, "all"), ("stranger", "x")],
    );
    assert!(bench.replies.is_empty(), "not durable yet");
    let early = bench.commit(&leader.member_id, 1, 1);
    assert_eq!(bench.committed(early), Err(GroupError::RebalanceInProgress));
    bench.persist_all();
    assert_eq!(bench.synced(sync), Ok("all".to_owned()));
    let again = bench.sync(&leader.member_id, 1, &[]);
    assert_eq!(bench.synced(again), Ok("all".to_owned()));
    let wrong = bench.sync(&leader.member_id, 2, &[]);
    assert_eq!(bench.synced(wrong), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_failed_assignment_is_told_and_tried_again() {
    let mut bench = Bench::new();
    let token = bench.join("");
    let leader = bench.joined(token).member_id;
    let sync = bench.sync(&leader, 1, &[(&leader, "all")]);
    bench.fail_all();
    assert_eq!(bench.synced(sync), Err(GroupError::CoordinatorNotAvailable));
    let token = bench.join(&leader);
    assert_eq!(bench.joined(token).generation, 2);
}

#[test]
fn members_that_never_sync_are_out() {
    let mut bench = Bench::new();
    let (ids, _) = bench.stable(2);
    let tokens = [bench.join(&ids[0]), bench.join(&ids[1])];
    for token in tokens {
        bench.joined(token);
    }
    bench.sync(&ids[0], 3, &[]);
    bench.persist_all();
    for _ in 0..12 {
        bench.advance(5_000);
        let _ = bench.heartbeat(&ids[0], 3);
        let _ = bench.heartbeat(&ids[1], 3);
    }
    assert_eq!(
        bench.heartbeat(&ids[1], 3),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn the_protocol_is_voted_and_must_be_common() {
    let mut bench = Bench::new();
    let protocols = |names: &[&str]| -> Vec<(String, Bytes)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Bytes::from((*name).to_owned())))
            .collect()
    };
    let mut join = |member: &str, names: &[&str]| {
        let request = JoinRequest {
            protocols: protocols(names),
            ..bench.request(member)
        };
        let token = bench.ask(|token| Input::Join(token, request));
        (token, bench.replies.clone())
    };
    let (first, _) = join("", &["a", "b", "c"]);
    let (stranger, replies) = join("", &["d"]);
    let refused = JoinRefused {
        error: GroupError::InconsistentGroupProtocol,
        member_id: String::new(),
    };
    assert_eq!(replies[&stranger], Reply::Join(Err(refused)));
    let Reply::Join(Ok(one)) = replies[&first].clone() else {
        panic!("no join")
    };
    let (second, _) = join("", &["c", "b"]);
    let (third, _) = join("", &["c", "b"]);
    let (again, replies) = join(&one.member_id, &["a", "b", "c"]);
    for token in [second, third, again] {
        let Reply::Join(Ok(joined)) = replies[&token].clone() else {
            panic!("no join")
        };
        assert_eq!(
            (joined.generation, joined.protocol.as_deref()),
            (2, Some("c"))
        );
    }
    let request = JoinRequest {
        protocol_type: "connect".to_owned(),
        ..bench.request("")
    };
    let token = bench.ask(|token| Input::Join(token, request));
    assert_eq!(
        bench.join_error(token),
        GroupError::InconsistentGroupProtocol
    );
}

#[test]
fn a_later_request_of_a_member_takes_the_place_of_the_earlier_one() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    bench.join("");
    let earlier = bench.join(&ids[0]);
    bench.join(&ids[0]);
    assert_eq!(bench.join_error(earlier), GroupError::RebalanceInProgress);
    bench.join(&ids[1]);
    let generation = generation + 1;
    let earlier = bench.sync(&ids[1], generation, &[]);
    let later = bench.sync(&ids[1], generation, &[]);
    assert_eq!(bench.synced(earlier), Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.leave(&ids[1], None), Ok(()));
    assert_eq!(bench.synced(later), Err(GroupError::UnknownMemberId));
}

#[test]
fn silence_ends_a_session_and_a_heartbeat_prolongs_it() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(1);
    for _ in 0..3 {
        bench.advance(9_999);
        assert_eq!(bench.heartbeat(&ids[0], generation), Ok(()));
    }
    assert_eq!(
        bench.heartbeat(&ids[0], generation + 1),
        Err(GroupError::IllegalGeneration)
    );
    bench.advance(10_000);
    assert_eq!(bench.state(), Some(GroupState::Empty));
    assert_eq!(
        bench.heartbeat(&ids[0], generation),
        Err(GroupError::UnknownMemberId)
    );
    assert!(bench.machine.timers.len() == 0, "no timers are left behind");
}

fn static_join(bench: &mut Bench, instance: &str, skipping: bool) -> Token {
    let request = JoinRequest {
        instance_id: Some(instance.to_owned()),
        supports_skipping_assignment: skipping,
        ..bench.request("")
    };
    bench.ask(|token| Input::Join(token, request))
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    for skipping in [true, false] {
        let mut bench = Bench::new();
        let token = static_join(&mut bench, "i", skipping);
        let old = bench.joined(token).member_id;
        bench.sync(&old, 1, &[(&old, "mine")]);
        bench.persist_all();
        let token = static_join(&mut bench, "i", skipping);
        assert!(!bench.replies.contains_key(&token), "not durable yet");
        bench.persist_all();
        let new = bench.joined(token);
        assert_eq!(new.generation, 1);
        assert_ne!(new.member_id, old);
        if skipping {
            assert_eq!(
                (new.leader.as_str(), new.skip_assignment),
                (new.member_id.as_str(), true)
            );
            assert_eq!(new.members.len(), 1);
        } else {
            assert_eq!(
                (new.leader.as_str(), new.skip_assignment),
                (old.as_str(), false)
            );
        }
        let token = bench.sync(&new.member_id, 1, &[]);
        assert_eq!(bench.synced(token), Ok("mine".to_owned()));
        let request = HeartbeatRequest {
            group: "g".to_owned(),
            generation: 1,
            member_id: old,
            instance_id: Some("i".to_owned()),
        };
        let token = bench.ask(|token| Input::Heartbeat(token, request));
        assert_eq!(
            bench.take(token),
            Some(Reply::Heartbeat(Err(GroupError::FencedInstanceId)))
        );
        assert_eq!(bench.leave("", Some("i")), Ok(()));
        assert_eq!(bench.state(), Some(GroupState::Empty));
    }
}

#[test]
fn a_full_group_takes_no_more() {
    let mut bench = Bench::with(GroupConfig {
        initial_rebalance_delay_ms: 0,
        group_size_max: 1,
        ..GroupConfig::default()
    });
    bench.stable(1);
    let token = bench.join("");
    assert_eq!(bench.join_error(token), GroupError::GroupMaxSizeReached);
}

#[test]
fn members_take_a_bounded_memory() {
    let member_bytes_max = 100_000;
    let mut bench = Bench::with(GroupConfig {
        initial_rebalance_delay_ms: 0,
        member_bytes_max,
        ..GroupConfig::default()
    });
    let mut refused = 0;
    for number in 0..100 {
        let request = JoinRequest {
            group: format!("g{number}"),
            protocols: vec![("range".to_owned(), Bytes::from(vec![0; 4_000]))],
            ..bench.request("")
        };
        let token = bench.ask(|token| Input::Join(token, request));
        if let Some(Reply::Join(Err(why))) = bench.take(token) {
            assert_eq!(why.error, GroupError::CoordinatorNotAvailable);
            refused += 1;
        }
    }
    assert!(refused >= 75 && bench.machine.member_bytes <= member_bytes_max);
    bench.advance(20_000);
    assert_eq!(bench.machine.member_bytes, 0, "silent members give it back");
    bench.stable(1);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut bench = Bench::new();
    let cases = [
        (
            JoinRequest {
                group: String::new(),
                ..bench.request("")
            },
            GroupError::InvalidGroupId,
        ),
        (
            JoinRequest {
                group: "g".repeat(5_000),
                ..bench.request("")
            },
            GroupError::InvalidGroupId,
        ),
        (
            JoinRequest {
                session_timeout_ms: 5_999,
                ..bench.request("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            JoinRequest {
                session_timeout_ms: -1,
                ..bench.request("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            JoinRequest {
                protocols: vec![],
                ..bench.request("")
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (
            JoinRequest {
                protocol_type: String::new(),
                ..bench.request("")
            },
            GroupError::InconsistentGroupProtocol,
        ),
        (bench.request("nobody"), GroupError::UnknownMemberId),
    ];
    for (request, want) in cases {
        let token = bench.ask(|token| Input::Join(token, request.clone()));
        assert_eq!(bench.join_error(token), want, "{request:?}");
    }
    assert!(
        bench.machine.list().is_empty(),
        "a refused join leaves no group behind"
    );
    assert_eq!(
        bench.heartbeat("nobody", 1),
        Err(GroupError::UnknownMemberId)
    );
    assert_eq!(
        bench.leave("nobody", None),
        Err(GroupError::UnknownMemberId)
    );
    let token = bench.sync("nobody", 1, &[]);
    assert_eq!(bench.synced(token), Err(GroupError::UnknownMemberId));
}

#[test]
fn offsets_count_once_durable_and_only_from_whom_may_commit() {
    let mut bench = Bench::new();
    let token = bench.commit("", 3, 5);
    assert_eq!(bench.committed(token), Err(GroupError::GroupIdNotFound));
    let token = bench.commit("", -1, 5);
    assert_eq!(bench.offset(), None);
    bench.persist_all();
    assert_eq!((bench.committed(token), bench.offset()), (Ok(()), Some(5)));
    let listed = bench.machine.list();
    assert_eq!(
        (listed.len(), listed[0].state),
        (1, GroupState::Empty),
        "offsets alone make a group"
    );

    let (ids, generation) = bench.stable(1);
    let token = bench.commit("", -1, 6);
    assert_eq!(bench.committed(token), Err(GroupError::UnknownMemberId));
    let token = bench.commit(&ids[0], generation + 1, 6);
    assert_eq!(bench.committed(token), Err(GroupError::IllegalGeneration));
    let token = bench.commit(&ids[0], generation, 6);
    bench.fail_all();
    assert_eq!(
        (bench.committed(token), bench.offset()),
        (Err(GroupError::CoordinatorNotAvailable), Some(5))
    );
    bench.join("");
    let token = bench.commit(&ids[0], generation, 7);
    bench.persist_all();
    assert_eq!(
        (bench.committed(token), bench.offset()),
        (Ok(()), Some(7)),
        "during a rebalance, too"
    );
}

#[test]
fn metadata_of_an_offset_is_limited_and_comes_back() {
    let mut bench = Bench::new();
    let entry = |metadata: String| CommitEntry {
        topic: "t".to_owned(),
        partition: i32::from(metadata.len() > 10),
        offset: 1,
        leader_epoch: 4,
        metadata,
    };
    let request = CommitRequest {
        group: "g".to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        producer: None,
        retention_ms: None,
        entries: vec![entry("x".repeat(4_097)), entry("note".to_owned())],
    };
    let token = bench.ask(|token| Input::Commit(token, request));
    bench.persist_all();
    let want = Reply::Commit(vec![Err(GroupError::OffsetMetadataTooLarge), Ok(())]);
    assert_eq!(bench.take(token), Some(want));
    let held = bench.machine.offset("g", "t", 0).unwrap();
    assert_eq!((held.metadata.as_str(), held.leader_epoch), ("note", 4));
}

fn delete(bench: &mut Bench) -> Token {
    bench.ask(|token| Input::Delete(token, "g".to_owned()))
}

#[test]
fn only_an_empty_group_is_deleted_with_everything_on_its_way() {
    let mut bench = Bench::new();
    let token = delete(&mut bench);
    assert_eq!(
        bench.take(token),
        Some(Reply::Delete(Err(GroupError::GroupIdNotFound)))
    );
    let (ids, generation) = bench.stable(1);
    bench.commit(&ids[0], generation, 7);
    let token = delete(&mut bench);
    assert_eq!(
        bench.take(token),
        Some(Reply::Delete(Err(GroupError::NonEmptyGroup)))
    );
    assert_eq!(bench.leave(&ids[0], None), Ok(()));
    let token = delete(&mut bench);
    let join = bench.join("");
    assert_eq!(bench.join_error(join), GroupError::CoordinatorNotAvailable);
    bench.persist_all();
    assert_eq!(bench.take(token), Some(Reply::Delete(Ok(()))));
    assert!(bench.machine.list().is_empty());
    assert!(bench.reloaded().list().is_empty(), "the log says so, too");
}

#[test]
fn a_failed_deletion_leaves_the_group() {
    let mut bench = Bench::new();
    bench.commit("", -1, 7);
    bench.persist_all();
    let token = delete(&mut bench);
    bench.fail_all();
    assert_eq!(
        bench.take(token),
        Some(Reply::Delete(Err(GroupError::CoordinatorNotAvailable)))
    );
    assert_eq!(
        (bench.state(), bench.offset()),
        (Some(GroupState::Empty), Some(7))
    );
}

#[test]
fn offsets_of_a_deleted_topic_go_even_when_the_log_is_full_for_a_while() {
    let mut bench = Bench::new();
    bench.commit("", -1, 7);
    bench.feed(Input::TopicDeleted("t".to_owned()));
    bench.fail_all();
    bench.commit("", -1, 7);
    bench.persist_all();
    bench.feed(Input::TopicDeleted("t".to_owned()));
    bench.fail_all();
    assert_eq!(bench.offset(), None, "not shown any more");
    let token = bench.commit("", -1, 8);
    assert_eq!(
        bench.committed(token),
        Err(GroupError::CoordinatorNotAvailable)
    );
    bench.advance(1_000);
    bench.persist_all();
    assert!(bench.machine.topics_with_offsets().is_empty());
    let token = bench.commit("", -1, 9);
    bench.persist_all();
    assert_eq!((bench.committed(token), bench.offset()), (Ok(()), Some(9)));
    assert_eq!(bench.reloaded().offset("g", "t", 0).unwrap().offset, 9);
}

#[test]
fn a_reloaded_group_goes_on_where_it_was() {
    let mut bench = Bench::new();
    let (ids, generation) = bench.stable(2);
    bench.commit(&ids[0], generation, 7);
    bench.persist_all();
    bench.machine = bench.reloaded();
    assert_eq!(
        (bench.state(), bench.offset()),
        (Some(GroupState::Stable), Some(7))
    );
    assert_eq!(bench.heartbeat(&ids[1], generation), Ok(()));
    let sync = bench.sync(&ids[1], generation, &[]);
    assert_eq!(bench.synced(sync), Ok("a".to_owned()));
    let group = bench.machine.describe("g").unwrap();
    assert_eq!(
        (group.protocol.as_str(), group.protocol_type.as_str()),
        ("range", "consumer")
    );
    assert_eq!(&group.members[0].metadata[..], b"topics");
    bench.advance(10_000);
    assert_eq!(bench.state(), Some(GroupState::Empty));
    bench.persist_all();
    assert_eq!(
        bench.reloaded().describe("g").unwrap().state,
        GroupState::Empty
    );
}
