//! Directed cases, and random worlds in which a client with a session must see what a client without one sees.

mod random;

use std::sync::Arc;

use super::*;

fn topic(name: &str) -> TopicKey {
    TopicKey::Name(Arc::from(name))
}

fn from(offset: i64) -> Wanted {
    Wanted {
        offset,
        bytes_max: 100,
        leader_epoch: -1,
    }
}

fn at_end(high_watermark: i64) -> Seen {
    Seen {
        has_records: false,
        failed: false,
        at_end: true,
        high_watermark,
        log_start: 0,
    }
}

fn records(high_watermark: i64) -> Seen {
    Seen {
        has_records: true,
        at_end: false,
        ..at_end(high_watermark)
    }
}

fn failed() -> Seen {
    Seen {
        failed: true,
        at_end: false,
        high_watermark: -1,
        log_start: -1,
        ..at_end(0)
    }
}

fn session(partitions: i32) -> Session<()> {
    let mut session = Session::new(false);
    session.want(&topic("t"), (0..partitions).map(|n| (n, from(0))));
    session
}

#[test]
fn the_two_fields_of_a_request_say_what_it_asks_for() {
    assert_eq!(Ask::of(0, -1), Ask::Sessionless { close: None });
    assert_eq!(Ask::of(9, -1), Ask::Sessionless { close: Some(9) });
    assert_eq!(Ask::of(0, 0), Ask::Full { close: None });
    assert_eq!(Ask::of(9, 0), Ask::Full { close: Some(9) });
    assert_eq!(Ask::of(9, 3), Ask::Incremental { id: 9, epoch: 3 });
    assert_eq!(Ask::of(0, 3), Ask::Incremental { id: 0, epoch: 3 });
}

#[test]
fn epochs_go_up_and_come_round_to_1() {
    let mut session = session(1);
    assert_eq!(session.epoch(), 1);
    assert_eq!(session.check(1, false), Ok(()));
    assert_eq!(session.check(2, false), Err(FetchSessionError::Epoch));
    assert_eq!(session.check(1, true), Err(FetchSessionError::TopicIds));
    assert_eq!(session.advance(), 2);
    assert_eq!(session.check(1, false), Err(FetchSessionError::Epoch));
    session.epoch_for_tests(i32::MAX);
    assert_eq!(session.advance(), 1);
}

#[test]
fn what_is_settled_is_not_looked_at_until_it_moves() {
    let mut session = session(3);
    for slot in session.due() {
        assert!(session.answer(slot, &at_end(0)), "the first end is news");
        assert!(session.settle(slot, &at_end(0)));
    }
    assert_eq!(session.due(), []);
    session.mark(1);
    session.mark(99);
    assert_eq!(session.due(), [1]);
    assert!(!session.settle(1, &at_end(5)), "the client was not told");
    assert!(session.answer(1, &at_end(5)));
    assert!(!session.answer(1, &at_end(5)), "told once");
    assert!(session.settle(1, &at_end(5)));
    session.want(&topic("t"), [(1, from(3))]);
    assert_eq!(session.due(), [1], "another offset is wanted");
    assert!(session.answer(1, &records(5)));
    assert!(!session.settle(1, &records(5)), "there may be more");
}

#[test]
fn an_error_is_told_each_time_and_the_end_again_after_it() {
    let mut session = session(1);
    session.answer(0, &at_end(5));
    assert!(session.answer(0, &failed()));
    assert!(session.answer(0, &failed()));
    assert!(!session.settle(0, &failed()));
    assert!(
        session.answer(0, &at_end(5)),
        "the same end, but after an error"
    );
    assert!(session.settle(0, &at_end(5)));
}

#[test]
fn who_gave_records_stands_behind_all_others() {
    let mut session = session(3);
    assert_eq!(session.due(), [0, 1, 2]);
    session.answer(0, &records(5));
    assert_eq!(session.due(), [1, 2, 0]);
    session.answer(1, &records(5));
    session.answer(2, &at_end(5));
    assert_eq!(session.due(), [2, 0, 1]);
    session.want(&topic("t"), [(2, from(1)), (0, from(1)), (7, from(0))]);
    assert_eq!(session.due(), [2, 0, 1, 3], "a new one comes last");
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let mut session = session(3);
    let bytes = session.bytes();
    session.want(&topic("u"), [(0, from(0))]);
    assert!(session.bytes() > bytes + partition_bytes());
    assert_eq!(session.forget(&topic("u"), 0), Some(()));
    assert_eq!(session.forget(&topic("u"), 0), None);
    assert_eq!((session.bytes(), session.len()), (bytes, 3));
    for index in 0..3 {
        session.forget(&topic("t"), index);
    }
    assert_eq!((session.bytes(), session.len()), (0, 0));
    assert_eq!(session.due(), []);
    session.want(&topic("v"), []);
    assert_eq!(session.bytes(), 0);
}

fn size(partitions: usize) -> NewSession {
    NewSession {
        partitions,
        bytes: partitions * partition_bytes(),
    }
}

/// A cache of names, and ids from 1 on.
struct Names {
    cache: SessionCache<&'static str>,
    next: i32,
    evicted: Vec<&'static str>,
}

impl Names {
    fn new(slots: usize, bytes: usize) -> Self {
        Self {
            cache: SessionCache::new(slots, bytes),
            next: 0,
            evicted: Vec::new(),
        }
    }

    fn create(&mut self, now_ms: i64, partitions: usize, name: &'static str) -> Option<i32> {
        let next = &mut self.next;
        let draw = || {
            *next += 1;
            *next
        };
        let id = self
            .cache
            .reserve(now_ms, size(partitions), draw, &mut self.evicted)?;
        self.cache.insert(now_ms, id, size(partitions), name);
        Some(id)
    }
}

#[test]
fn a_full_cache_gives_way_by_kafkas_rule() {
    let mut names = Names::new(2, usize::MAX);
    let a = names.create(0, 10, "a").unwrap();
    let b = names.create(0, 20, "b").unwrap();
    assert_eq!(names.create(1000, 99, "young ones stay"), None);
    // Old enough to go for a larger one, but in use.
    names.cache.touch(EVICTION_MS, a, size(10));
    names.cache.touch(EVICTION_MS, b, size(20));
    assert_eq!(names.create(EVICTION_MS, 99, "not older yet"), None);
    let later = EVICTION_MS + 1;
    names.cache.touch(later, a, size(10));
    names.cache.touch(later, b, size(20));
    assert_eq!(names.create(later, 10, "as many are not more"), None);
    assert!(names.create(later, 11, "c").is_some());
    assert_eq!(names.evicted, ["a"], "the smallest");
    // Unused for long: goes for any.
    names.cache.touch(2 * later, b, size(20));
    assert!(names.create(2 * later, 1, "d").is_some());
    assert_eq!(
        names.evicted,
        ["a", "c"],
        "whoever was not used for longest"
    );
    assert_eq!((names.cache.len(), names.cache.partitions()), (2, 21));
    assert_eq!(names.cache.evictions(), 2);
}

#[test]
fn memory_of_all_sessions_is_bounded() {
    let mut names = Names::new(100, 10 * partition_bytes());
    let a = names.create(0, 6, "a").unwrap();
    assert_eq!(names.create(0, 5, "no room"), None);
    assert_eq!(names.create(0, 11, "never any room"), None);
    let b = names.create(0, 4, "b").unwrap();
    assert!(!names.cache.touch(1, b, size(5)), "it has grown too much");
    assert_eq!(names.cache.remove(b), Some("b"));
    assert!(names.create(EVICTION_MS + 1, 5, "c").is_some());
    assert_eq!(names.evicted, ["a"], "unused ones make room");
    assert!(!names.cache.touch(1, a, size(1)), "it is gone");
    assert_eq!(names.cache.bytes(), 5 * partition_bytes());
    let mut none = Names::new(0, usize::MAX);
    assert_eq!(none.create(0, 1, "no slots"), None);
}
