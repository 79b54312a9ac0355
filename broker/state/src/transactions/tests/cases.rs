//! One rule per test.

use super::*;

use TransactionError as E;
use TransactionState as S;

#[test]
fn a_producer_begins_and_a_later_one_takes_over() {
    let mut bench = Bench::new();
    assert_eq!(bench.begun(None), Ok((100, 0)));
    assert_eq!(bench.state(), S::Empty);
    assert_eq!(
        bench.begun(None),
        Ok((100, 1)),
        "the epoch fences the first"
    );
    assert_eq!(bench.added((100, 0), &[1]), Err(E::ProducerFenced));
    assert_eq!(bench.added((99, 1), &[1]), Err(E::InvalidProducerIdMapping));
    assert_eq!(bench.added((100, 1), &[1]), Ok(()));
    let token = bench.ask(|token| {
        Input::Init(
            token,
            InitRequest {
                timeout_ms: 900_001,
                ..init("t", None)
            },
        )
    });
    assert_eq!(
        bench.take(token),
        Some(Reply::Init(Err(E::InvalidTransactionTimeout)))
    );
    let token = bench.ask(|token| Input::Init(token, init("", None)));
    assert_eq!(bench.take(token), Some(Reply::Init(Err(E::InvalidRequest))));
}

#[test]
fn a_producer_that_goes_on_names_what_it_has() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.begun(Some((5, 3))),
        Ok((100, 0)),
        "nothing is known of it"
    );
    assert_eq!(bench.begun(Some((100, 0))), Ok((100, 1)));
    assert_eq!(bench.begun(Some((100, 0))), Ok((100, 1)), "asked again");
    assert_eq!(bench.begun(Some((100, 1))), Ok((100, 2)));
    assert_eq!(bench.begun(Some((100, 0))), Err(E::ProducerFenced));
    assert_eq!(bench.begun(Some((99, 2))), Err(E::ProducerFenced));
    assert_eq!(bench.begun(None), Ok((100, 3)));
    assert_eq!(
        bench.begun(Some((100, 2))),
        Err(E::ProducerFenced),
        "another was in between"
    );
}

#[test]
fn epochs_that_are_used_up_give_a_new_producer_id() {
    let mut bench = Bench::new();
    bench.begun(None).unwrap();
    for epoch in 1..=i16::MAX - 1 {
        assert_eq!(bench.begun(None), Ok((100, epoch)));
        bench.log.clear();
    }
    let last = (100, i16::MAX - 1);
    assert_eq!(bench.begun(Some(last)), Ok((101, 0)));
    assert_eq!(bench.begun(Some(last)), Ok((101, 0)), "asked again");
    assert_eq!(bench.begun(Some((101, 0))), Ok((101, 1)));
    assert_eq!(bench.begun(Some(last)), Err(E::ProducerFenced));
}

#[test]
fn an_end_is_decided_marked_and_answered_in_this_order() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1, 2]).unwrap();
    bench.added(producer, &[2]).unwrap();
    assert_eq!(bench.state(), S::Ongoing);
    let token = bench.end(producer, true, false);
    assert_eq!(bench.markers, [], "nothing is decided yet");
    assert_eq!(
        bench.end_again(producer, true),
        Err(E::ConcurrentTransactions)
    );
    bench.persist_all();
    assert_eq!(bench.state(), S::PrepareCommit);
    assert_eq!(bench.markers.len(), 1);
    let marking = bench.markers[0].clone();
    assert_eq!(
        (marking.producer, marking.commit, marking.bumps_epoch),
        (producer, true, false)
    );
    assert_eq!(
        marking.partitions,
        places(&[1, 2]).into_iter().collect::<Vec<_>>()
    );
    assert_eq!(
        bench.end_again(producer, true),
        Err(E::ConcurrentTransactions)
    );
    assert_eq!(bench.end_again(producer, false), Err(E::InvalidTxnState));
    assert_eq!(bench.add_now(producer), Err(E::ConcurrentTransactions));
    assert_eq!(bench.take(token), None);
    bench.settle();
    assert_eq!(bench.take(token), Some(Reply::End(Ok(producer))));
    assert_eq!(bench.state(), S::CompleteCommit);
    assert_eq!(
        bench.ended(producer, true, false),
        Ok(producer),
        "asked again"
    );
    assert_eq!(bench.ended(producer, false, false), Err(E::InvalidTxnState));
    assert_eq!(bench.added(producer, &[3]), Ok(()), "the next one");
}

impl Bench {
    fn end_again(&mut self, producer: (i64, i16), commit: bool) -> Result<(i64, i16), E> {
        let token = self.end(producer, commit, false);
        match self.take(token) {
            Some(Reply::End(result)) => result,
            other => panic!("not answered at once: {other:?}"),
        }
    }

    fn add_now(&mut self, producer: (i64, i16)) -> Result<(), E> {
        let token = self.add(producer, &[7]);
        match self.take(token) {
            Some(Reply::Add(result)) => result,
            other => panic!("not answered at once: {other:?}"),
        }
    }
}

#[test]
fn each_end_of_version_2_bumps_the_epoch() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    let token = bench.end(producer, true, true);
    bench.persist_all();
    assert_eq!(
        bench.markers[0].producer,
        (100, 1),
        "the marker fences what is late"
    );
    assert!(bench.markers[0].bumps_epoch);
    bench.settle();
    assert_eq!(bench.take(token), Some(Reply::End(Ok((100, 1)))));
    assert_eq!(
        bench.ended(producer, true, true),
        Ok((100, 1)),
        "asked again"
    );
    assert_eq!(bench.ended(producer, false, true), Err(E::InvalidTxnState));
    // Nothing was added since: there is nothing to commit, but an abort fences.
    assert_eq!(bench.ended((100, 1), true, true), Err(E::InvalidTxnState));
    assert_eq!(bench.ended((100, 1), false, true), Ok((100, 2)));
    assert_eq!(
        bench.ended((100, 1), false, true),
        Ok((100, 2)),
        "asked again"
    );
    assert_eq!(bench.ended((100, 0), false, true), Err(E::ProducerFenced));
    assert_eq!(bench.added((100, 1), &[1]), Err(E::ProducerFenced));
    assert_eq!(bench.added((100, 2), &[1]), Ok(()));
}

#[test]
fn an_abort_of_nothing_fences_before_the_first_transaction() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    assert_eq!(bench.ended(producer, false, false), Err(E::InvalidTxnState));
    assert_eq!(bench.ended(producer, true, true), Err(E::InvalidTxnState));
    assert_eq!(bench.ended(producer, false, true), Ok((100, 1)));
    assert_eq!(bench.state(), S::CompleteAbort);
}

#[test]
fn an_end_with_the_last_epoch_goes_on_with_a_new_id() {
    let mut bench = Bench::new();
    let last = bench.with_the_last_epoch();
    bench.added(last, &[1]).unwrap();
    let token = bench.end(last, false, true);
    bench.persist_all();
    assert_eq!(bench.markers[0].producer, (100, i16::MAX));
    bench.settle();
    let next = (101, 0);
    assert_eq!(bench.take(token), Some(Reply::End(Ok(next))));
    assert_eq!(bench.ended(last, false, true), Ok(next), "asked again");
    assert_eq!(bench.added(last, &[1]), Err(E::InvalidProducerIdMapping));
    bench.restart();
    assert_eq!(
        bench.ended(last, false, true),
        Ok(next),
        "asked again of the next"
    );
    assert_eq!(bench.added(next, &[1]), Ok(()));
}

#[test]
fn what_takes_too_long_is_aborted_and_fenced() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    bench.advance(9_999);
    assert_eq!(bench.state(), S::Ongoing);
    bench.advance(1);
    bench.fail_all();
    assert_eq!(bench.state(), S::Ongoing, "the log took nothing");
    bench.advance(1_000);
    bench.persist_all();
    assert_eq!(bench.markers[0].producer, (100, 1));
    assert!(!bench.markers[0].commit);
    bench.settle();
    assert_eq!(bench.state(), S::CompleteAbort);
    for bumps_epoch in [false, true] {
        assert_eq!(
            bench.ended(producer, true, bumps_epoch),
            Err(E::ProducerFenced)
        );
    }
    assert_eq!(bench.begun(None), Ok((100, 2)));
}

#[test]
fn a_producer_that_takes_over_comes_again_after_the_abort() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    let first = bench.init(None);
    let second = bench.init(None);
    assert_eq!(
        bench.take(second),
        Some(Reply::Init(Err(E::ConcurrentTransactions)))
    );
    bench.persist_all();
    assert_eq!(
        bench.take(first),
        Some(Reply::Init(Err(E::ConcurrentTransactions)))
    );
    let third = bench.init(None);
    assert_eq!(
        bench.take(third),
        Some(Reply::Init(Err(E::ConcurrentTransactions)))
    );
    bench.settle();
    assert_eq!(bench.begun(None), Ok((100, 2)));
    assert_eq!(bench.ended(producer, false, true), Err(E::ProducerFenced));
}

#[test]
fn markers_that_cannot_be_written_are_tried_again() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1, 2]).unwrap();
    let token = bench.end(producer, true, false);
    bench.persist_all();
    let marking = bench.markers.remove(0);
    let left: Vec<TopicPartition> = places(&[2]).into_iter().collect();
    bench.feed(Input::MarkersWritten(marking.id, left.clone()));
    assert_eq!(
        bench.take(token),
        Some(Reply::End(Ok(producer))),
        "it is decided"
    );
    assert_eq!(bench.markers, []);
    bench.advance(1_000);
    assert_eq!(bench.markers[0].partitions, left);
    let marking = bench.markers.remove(0);
    bench.feed(Input::MarkersWritten(marking.id, Vec::new()));
    bench.fail_all();
    assert_eq!(bench.state(), S::PrepareCommit);
    bench.advance(1_000);
    bench.settle();
    assert_eq!(bench.state(), S::CompleteCommit);
}

#[test]
fn a_restart_goes_on_with_what_was_decided() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1, 2]).unwrap();
    bench.end(producer, true, true);
    bench.restart();
    assert_eq!(bench.state(), S::Ongoing, "nothing was decided");
    bench.end(producer, true, true);
    bench.persist_all();
    bench.restart();
    assert_eq!(bench.markers.len(), 1);
    assert_eq!(bench.markers[0].producer, (100, 1));
    assert!(bench.markers[0].commit && bench.markers[0].bumps_epoch);
    bench.settle();
    assert_eq!(
        bench.ended(producer, true, true),
        Ok((100, 1)),
        "asked again"
    );
    bench.restart();
    assert_eq!((bench.state(), bench.markers.len()), (S::CompleteCommit, 0));
}

#[test]
fn ids_expire_but_never_in_a_transaction() {
    let week = TransactionConfig::default().id_expiration_ms;
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.advance(week - 1);
    bench.settle();
    assert_eq!(bench.state(), S::Empty);
    bench.advance(1);
    let waiting = bench.init(None);
    assert_eq!(
        bench.take(waiting),
        Some(Reply::Init(Err(E::ConcurrentTransactions)))
    );
    bench.settle();
    assert_eq!(bench.machine.describe("t"), None);
    assert_eq!(bench.log.last().unwrap().value, None);
    assert_eq!(
        bench.added(producer, &[1]),
        Err(E::InvalidProducerIdMapping)
    );
    assert_eq!(bench.begun(None), Ok((101, 0)));
    assert_eq!(bench.machine.next_deadline(), Some(bench.now_ms + week));
}

#[test]
fn a_beginning_that_is_not_written_leaves_nothing() {
    let mut bench = Bench::new();
    let token = bench.init(None);
    bench.fail_all();
    assert_eq!(
        bench.take(token),
        Some(Reply::Init(Err(E::CoordinatorNotAvailable)))
    );
    assert_eq!(bench.machine.describe("t"), None);
    assert_eq!(bench.machine.next_deadline(), None);
    let mut none = ProducerIds::default();
    let mut out = Vec::new();
    let input = Input::Init(Token(99), init("t", None));
    bench.machine.apply(0, input, &mut none, &mut out);
    let refused = Reply::Init(Err(E::CoordinatorNotAvailable));
    assert_eq!(out, [Effect::Reply(Token(99), refused)], "no id is at hand");
}

#[test]
fn questions_and_lists_change_nothing() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1]).unwrap();
    let mut verify = |producer, partitions: &[i32]| {
        let request = add("t", producer, partitions);
        let token = bench.ask(|token| Input::Verify(token, request));
        match bench.take(token) {
            Some(Reply::Verify(result)) => result,
            other => panic!("not answered at once: {other:?}"),
        }
    };
    assert_eq!(verify(producer, &[1]), Ok(places(&[])));
    assert_eq!(verify(producer, &[1, 2]), Ok(places(&[2])));
    assert_eq!(verify((100, 4), &[1]), Err(E::ProducerFenced));
    let described = bench.machine.describe("t").unwrap();
    assert_eq!((described.state, described.start_ms), (S::Ongoing, 1_000));
    assert_eq!(described.partitions, places(&[1]));
    let list = |filter: ListFilter| bench.machine.list(bench.now_ms, &filter).len();
    let all = ListFilter {
        duration_ms: -1,
        ..ListFilter::default()
    };
    assert_eq!(list(all.clone()), 1);
    let of_state = |state| ListFilter {
        states: Some(vec![state]),
        ..all.clone()
    };
    assert_eq!(
        (list(of_state(S::Ongoing)), list(of_state(S::Empty))),
        (1, 0)
    );
    let of_id = |id| ListFilter {
        producer_ids: [id].into(),
        ..all.clone()
    };
    assert_eq!((list(of_id(100)), list(of_id(101))), (1, 0));
    let longer = ListFilter {
        duration_ms: 10,
        ..all
    };
    assert_eq!(list(longer), 0);
}

impl Bench {
    /// A producer whose next epoch would be none for clients.
    fn with_the_last_epoch(&mut self) -> (i64, i16) {
        self.begun(None).unwrap();
        let mut value = TransactionValue::decode(self.log[0].value.as_ref().unwrap()).unwrap();
        value.epoch = i16::MAX - 1;
        self.log[0].value = Some(value.encode());
        self.restart();
        (100, i16::MAX - 1)
    }

    /// Its transaction has taken too long.
    fn late(&mut self, producer: (i64, i16), bumps_epoch: bool) {
        let request = AddRequest {
            bumps_epoch,
            ..super::add("t", producer, &[1])
        };
        let token = self.ask(|token| Input::Add(token, request));
        self.settle();
        assert_eq!(self.take(token), Some(Reply::Add(Ok(()))));
        self.advance(10_000);
    }
}

#[test]
fn who_is_late_may_abort_and_go_on_in_version_2() {
    let mut bench = Bench::new();
    let late = bench.begun(None).unwrap();
    bench.late(late, true);
    bench.persist_all();
    assert_eq!(bench.state(), S::PrepareAbort);
    assert_eq!(bench.end_again(late, true), Err(E::ProducerFenced));
    assert_eq!(bench.end_again(late, false), Err(E::ConcurrentTransactions));
    bench.settle();
    bench.restart();
    assert_eq!(bench.ended(late, true, true), Err(E::ProducerFenced));
    assert_eq!(bench.ended(late, false, true), Ok((100, 1)));
    assert_eq!(bench.added((100, 1), &[2]), Ok(()));
    assert_eq!(bench.ended(late, false, true), Err(E::ProducerFenced));
    // Before, nobody is told of the new epoch.
    let mut bench = Bench::new();
    let late = bench.begun(None).unwrap();
    bench.late(late, false);
    bench.settle();
    assert_eq!(bench.ended(late, false, false), Err(E::ProducerFenced));
    assert_eq!(bench.ended(late, false, true), Err(E::ProducerFenced));
    // Nobody goes on with the epoch above all others.
    let mut bench = Bench::new();
    let late = bench.with_the_last_epoch();
    bench.late(late, true);
    bench.settle();
    assert_eq!(bench.ended(late, false, true), Err(E::ProducerFenced));
    assert_eq!(bench.begun(None), Ok((101, 0)));
}

#[test]
fn who_has_its_new_epoch_waits_for_the_markers_of_the_old_one() {
    let mut bench = Bench::new();
    let producer = bench.begun(None).unwrap();
    bench.added(producer, &[1, 2]).unwrap();
    let token = bench.end(producer, true, true);
    bench.persist_all();
    let marking = bench.markers.remove(0);
    let left: Vec<TopicPartition> = places(&[2]).into_iter().collect();
    bench.feed(Input::MarkersWritten(marking.id, left));
    assert_eq!(bench.take(token), Some(Reply::End(Ok((100, 1)))));
    assert_eq!(bench.state(), S::PrepareCommit);
    let again = bench.end((100, 1), false, true);
    assert_eq!(
        bench.take(again),
        Some(Reply::End(Err(E::ConcurrentTransactions)))
    );
    bench.advance(1_000);
    bench.settle();
    assert_eq!(bench.ended((100, 1), false, true), Ok((100, 2)));
}
