//! Offsets that expire, and offsets that are deleted one by one.

use super::*;
use crate::offsets::{Key, OffsetValue};

const RETENTION_MS: i64 = 1_000_000;
const CHECK_MS: i64 = 1_000;

fn bench() -> Bench {
    Bench::with(GroupConfig {
        initial_rebalance_delay_ms: 0,
        offsets_retention_ms: RETENTION_MS,
        offsets_check_interval_ms: CHECK_MS,
        ..GroupConfig::default()
    })
}

fn commit(bench: &mut Bench, topic: &str, retention_ms: Option<i64>, producer: Option<(i64, i16)>) {
    commit_as(bench, topic, ("", -1), retention_ms, producer);
}

fn commit_as(
    bench: &mut Bench,
    topic: &str,
    (member_id, generation): (&str, i32),
    retention_ms: Option<i64>,
    producer: Option<(i64, i16)>,
) {
    let entry = CommitEntry {
        topic: topic.to_owned(),
        partition: 0,
        offset: 7,
        leader_epoch: -1,
        metadata: String::new(),
    };
    let request = CommitRequest {
        group: "g".to_owned(),
        generation,
        member_id: member_id.to_owned(),
        instance_id: None,
        producer,
        retention_ms,
        entries: vec![entry],
    };
    let token = bench.ask(|token| Input::Commit(token, request));
    bench.persist_all();
    assert_eq!(bench.committed(token), Ok(()));
}

/// A version and topics, as every consumer's subscription begins.
fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 1];
    crate::codec::put_len32(&mut out, topics.len());
    for topic in topics {
        crate::codec::put_string(&mut out, topic);
    }
    Bytes::from(out)
}

/// A stable group of one member with this metadata.
fn stable(bench: &mut Bench, protocol_type: &str, metadata: Bytes) -> (String, i32) {
    let request = JoinRequest {
        protocol_type: protocol_type.to_owned(),
        protocols: vec![("range".to_owned(), metadata)],
        ..bench.request("")
    };
    let token = bench.ask(|token| Input::Join(token, request));
    let joined = bench.joined(token);
    let (member, generation) = (joined.member_id, joined.generation);
    let token = bench.sync(&member, generation, &[(&member, "a")]);
    bench.persist_all();
    bench.synced(token).unwrap();
    (member, generation)
}

/// Moves the clock while the member lives, with every persist confirmed.
fn live(bench: &mut Bench, (member, generation): &(String, i32), ms: i64) {
    let end = bench.now_ms + ms;
    while bench.now_ms < end {
        bench.advance(5_000.min(end - bench.now_ms));
        assert_eq!(bench.heartbeat(member, *generation), Ok(()));
        bench.persist_all();
    }
}

fn held(bench: &Bench) -> Vec<String> {
    let held = bench.machine.offsets("g");
    held.map(|(topic, _, _)| topic.to_owned()).collect()
}

#[test]
fn offsets_of_an_empty_group_expire_when_it_was_empty_for_long_enough() {
    let mut bench = bench();
    let member = stable(&mut bench, "consumer", subscription(&["t"]));
    commit_as(&mut bench, "t", (&member.0, member.1), None, None);
    live(&mut bench, &member, RETENTION_MS + 10_000);
    assert_eq!(bench.leave(&member.0, None), Ok(()));
    bench.persist_all();
    bench.advance(RETENTION_MS - 2 * CHECK_MS);
    assert!(bench.persists.is_empty());
    assert_eq!(held(&bench), ["t"]);
    bench.advance(3 * CHECK_MS);
    assert_eq!(held(&bench), ["t"], "until it is durable");
    assert_eq!(bench.state(), Some(GroupState::Dead));
    bench.persist_all();
    assert_eq!(bench.state(), None, "nothing of the group is left");
    assert!(
        bench.reloaded().list().is_empty(),
        "and after a start neither"
    );
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn what_is_on_its_way_out_is_not_taken_out_again() {
    let mut bench = bench();
    commit(&mut bench, "t", None, None);
    bench.advance(RETENTION_MS);
    assert_eq!(bench.state(), Some(GroupState::Dead));
    let under_way = bench.persists.len();
    bench.advance(3 * CHECK_MS);
    assert_eq!(bench.persists.len(), under_way, "the log is slow");
    bench.persist_all();
    assert_eq!(bench.state(), None);
}

#[test]
fn an_empty_group_without_offsets_goes_with_the_next_look() {
    let mut bench = bench();
    let member = stable(&mut bench, "consumer", subscription(&["t"]));
    bench.leave(&member.0, None).unwrap();
    bench.persist_all();
    assert_eq!(bench.state(), Some(GroupState::Empty));
    bench.advance(CHECK_MS);
    bench.persist_all();
    assert_eq!(bench.state(), None);
}

#[test]
fn offsets_from_outside_any_group_expire_after_their_commit_or_when_the_client_said() {
    let mut bench = bench();
    commit(&mut bench, "early", None, None);
    commit(&mut bench, "soon", Some(5_000), None);
    bench.advance(RETENTION_MS / 2);
    bench.persist_all();
    assert_eq!(held(&bench), ["early"]);
    commit(&mut bench, "late", None, None);
    commit(&mut bench, "much-later", Some(10 * RETENTION_MS), None);
    bench.advance(RETENTION_MS / 2 + CHECK_MS);
    bench.persist_all();
    assert_eq!(held(&bench), ["late", "much-later"]);
    // What the client said is in the log, in the form that has room for it.
    let value = bench.log.last().unwrap();
    assert!(value.value.is_none(), "a tombstone came last");
    let with_expiry = bench.log.iter().filter_map(|record| record.value.as_ref());
    let expiries: Vec<i64> = with_expiry
        .map(|value| OffsetValue::decode(value).unwrap().expire_ms)
        .collect();
    assert_eq!(expiries.iter().filter(|ms| **ms > 0).count(), 2);
    let reloaded = bench.reloaded();
    assert_eq!(reloaded.offsets("g").count(), 2);
}

#[test]
fn what_a_live_group_reads_stays_and_what_it_does_not_read_goes() {
    let mut bench = bench();
    let member = stable(&mut bench, "consumer", subscription(&["read", "idle"]));
    for topic in ["read", "unread"] {
        commit_as(&mut bench, topic, (&member.0, member.1), None, None);
    }
    live(&mut bench, &member, RETENTION_MS + 10_000);
    assert_eq!(held(&bench), ["read"]);
    assert_eq!(bench.state(), Some(GroupState::Stable));
}

#[test]
fn where_it_is_not_known_what_is_read_everything_stays() {
    for (protocol_type, metadata) in [
        ("consumer", Bytes::from_static(b"\0")),
        ("connect", subscription(&["other"])),
    ] {
        let mut bench = bench();
        let member = stable(&mut bench, protocol_type, metadata);
        commit_as(&mut bench, "t", (&member.0, member.1), None, None);
        live(&mut bench, &member, RETENTION_MS + 10_000);
        assert_eq!(held(&bench), ["t"], "{protocol_type}");
    }
}

#[test]
fn an_open_transaction_and_a_commit_on_its_way_keep_an_offset() {
    let mut bench = bench();
    commit(&mut bench, "t", None, None);
    commit(&mut bench, "u", None, None);
    commit(&mut bench, "t", None, Some((5, 0)));
    bench.advance(RETENTION_MS - CHECK_MS);
    let token = bench.commit("", -1, 9);
    bench.advance(3 * CHECK_MS);
    bench.persist_all();
    assert_eq!(bench.committed(token), Ok(()));
    assert_eq!(held(&bench), ["t"]);
    assert_eq!(bench.offset(), Some(9));
    bench.advance(RETENTION_MS + CHECK_MS);
    bench.persist_all();
    assert_eq!(held(&bench), Vec::<String>::new());
}

#[test]
fn what_the_log_did_not_take_is_found_again() {
    let mut bench = bench();
    commit(&mut bench, "t", None, None);
    commit(&mut bench, "u", Some(i64::MAX / 2), None);
    bench.advance(RETENTION_MS + CHECK_MS);
    assert_eq!(bench.persists.len(), 1);
    bench.fail_all();
    assert_eq!(held(&bench), ["t", "u"]);
    bench.advance(CHECK_MS);
    bench.persist_all();
    assert_eq!(held(&bench), ["u"]);
    // A whole group, too.
    let token = delete_offsets(&mut bench, &[("u", 0)]);
    bench.persist_all();
    assert_eq!(deleted(&mut bench, token), Ok(vec![Ok(())]));
    let member = stable(&mut bench, "consumer", subscription(&["t"]));
    commit_as(&mut bench, "t", (&member.0, member.1), None, None);
    bench.leave(&member.0, None).unwrap();
    bench.persist_all();
    bench.advance(RETENTION_MS + CHECK_MS);
    assert_eq!(bench.state(), Some(GroupState::Dead));
    bench.fail_all();
    assert_eq!(bench.state(), Some(GroupState::Empty));
    bench.advance(CHECK_MS);
    bench.persist_all();
    assert_eq!(bench.state(), None);
}

fn delete_offsets(bench: &mut Bench, partitions: &[(&str, i32)]) -> Token {
    let partitions = partitions
        .iter()
        .map(|(topic, partition)| ((*topic).to_owned(), *partition));
    let request = DeleteOffsetsRequest {
        group: "g".to_owned(),
        partitions: partitions.collect(),
    };
    bench.ask(|token| Input::DeleteOffsets(token, request))
}

fn deleted(bench: &mut Bench, token: Token) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    match bench.take(token) {
        Some(Reply::DeleteOffsets(result)) => result,
        other => panic!("no reply to a deletion of offsets: {other:?}"),
    }
}

#[test]
fn single_offsets_are_deleted_unless_somebody_reads_the_topic() {
    let mut bench = bench();
    let token = delete_offsets(&mut bench, &[("t", 0)]);
    let unknown = Err(GroupError::GroupIdNotFound);
    assert_eq!(deleted(&mut bench, token), unknown);
    let member = stable(&mut bench, "consumer", subscription(&["read"]));
    for topic in ["read", "unread"] {
        commit_as(&mut bench, topic, (&member.0, member.1), None, None);
    }
    let token = delete_offsets(&mut bench, &[("read", 0), ("unread", 0), ("unread", 9)]);
    assert!(bench.take(token).is_none(), "not durable yet");
    assert_eq!(held(&bench), ["read", "unread"]);
    bench.persist_all();
    let refused = Err(GroupError::SubscribedToTopic);
    let results = vec![refused, Ok(()), Ok(())];
    assert_eq!(deleted(&mut bench, token), Ok(results));
    assert_eq!(held(&bench), ["read"]);
    let last = bench.log.last().unwrap();
    assert!(matches!(&last.key, Key::Offset { topic, .. } if topic == "unread"));
    bench.leave(&member.0, None).unwrap();
    bench.persist_all();
    let token = delete_offsets(&mut bench, &[("read", 0)]);
    bench.fail_all();
    let failed = Err(GroupError::CoordinatorNotAvailable);
    assert_eq!(deleted(&mut bench, token), failed);
    assert_eq!(held(&bench), ["read"]);
    let token = delete_offsets(&mut bench, &[("read", 0)]);
    bench.persist_all();
    assert_eq!(deleted(&mut bench, token), Ok(vec![Ok(())]));
    assert_eq!(bench.reloaded().offsets("g").count(), 0);
}

#[test]
fn a_live_group_of_another_kind_keeps_its_offsets() {
    let mut bench = bench();
    let member = stable(&mut bench, "connect", Bytes::new());
    commit_as(&mut bench, "t", (&member.0, member.1), None, None);
    let token = delete_offsets(&mut bench, &[("t", 0)]);
    assert_eq!(deleted(&mut bench, token), Err(GroupError::NonEmptyGroup));
}

#[test]
fn an_offset_that_a_transaction_has_pending_is_deleted_too() {
    let mut bench = bench();
    commit(&mut bench, "t", None, Some((5, 0)));
    let token = delete_offsets(&mut bench, &[("t", 0)]);
    bench.persist_all();
    assert_eq!(deleted(&mut bench, token), Ok(vec![Ok(())]));
    bench.feed(Input::TransactionEnded {
        producer_id: 5,
        commit: true,
    });
    assert_eq!(bench.state(), None);
}
