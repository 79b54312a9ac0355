//! Consumers of committed records: members of groups that commit what they read, one that wanders, and those that read
//! everything at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::member::{Event, Member, Polled};
use super::recorder::{key, keys};
use super::{Client, MIXED, OUT, SETTLE_WITHIN, TOPICS};
use crate::consistency::Key;

const BATCH: Duration = Duration::from_millis(100);
const RECORDS_MAX: usize = 60;
const POLL: Duration = Duration::from_millis(50);
/// So far the reader that wanders goes back.
const BACK_MAX: i64 = 500;

/// A member of a group, as long as it goes on; it leaves and comes back at times.
pub(super) fn watch(client: &Client, group: &str, strategy: &str) {
    let mut random = client.random();
    while !client.is_over() {
        let mut member = Member::join(client, group, &[OUT, MIXED], strategy);
        let mut next: BTreeMap<Key, i64> = BTreeMap::new();
        while !client.is_over() && !member.is_lost() {
            member.poll_some(random.random_range(1..RECORDS_MAX), BATCH);
            for event in member.note_events() {
                match event {
                    Event::Reads { reads, .. } => {
                        next.extend(reads.iter().map(|read| (read.key, read.offset + 1)));
                    }
                    Event::Rebalance {
                        assigned, revoked, ..
                    } => next.retain(|key, _| !assigned.contains(key) && !revoked.contains(key)),
                }
            }
            let offsets: Vec<(Key, i64)> = next.iter().map(|(key, next)| (*key, *next)).collect();
            if !offsets.is_empty() && random.random_range(0..3) == 0 && member.commit(&offsets) {
                next.clear();
            }
            if random.random_range(0..80) == 0 {
                break;
            }
        }
        member.leave();
    }
}

/// Reads everything from the beginning, and goes back some way now and then.
pub(super) fn wander(client: &Client) {
    let mut random = client.random();
    let mut member = Member::alone(client);
    let mut next: BTreeMap<Key, i64> = TOPICS
        .iter()
        .flat_map(|topic| keys(topic))
        .map(|key| (key, 0))
        .collect();
    let everything = |next: &BTreeMap<Key, i64>| next.iter().map(|it| (*it.0, *it.1)).collect();
    let beginning: Vec<(Key, i64)> = everything(&next);
    member.assign(&beginning);
    while !client.is_over() {
        member.poll_some(random.random_range(1..RECORDS_MAX), BATCH);
        for event in member.note_events() {
            if let Event::Reads { reads, .. } = event {
                next.extend(reads.iter().map(|read| (read.key, read.offset + 1)));
            }
        }
        match random.random_range(0..60) {
            0 => {
                for next in next.values_mut() {
                    *next -= random.random_range(0..=BACK_MAX.min(*next));
                }
                let places: Vec<(Key, i64)> = everything(&next);
                member.assign(&places);
            }
            1 => {
                let place = random.random_range(0..next.len());
                let (key, next) = next.iter_mut().nth(place).expect("it is in range");
                *next -= random.random_range(0..=BACK_MAX.min(*next));
                if !member.seek(&[(*key, *next)]) {
                    // It does not know where it stands.
                    member.leave();
                    return wander(client);
                }
            }
            _ => {}
        }
    }
    member.leave();
}

/// Reads a topic from its first offsets to its ends; gives the last offset of each partition that has a record.
#[track_caller]
pub(super) fn read_all(client: &Client, topic: &str) -> BTreeMap<Key, i64> {
    let mut member = Member::alone(client);
    let mut open: Vec<Key> = keys(topic);
    let from: Vec<(Key, i64)> = open.iter().map(|key| (*key, 0)).collect();
    member.assign(&from);
    let end = Instant::now() + SETTLE_WITHIN;
    while !open.is_empty() {
        assert!(Instant::now() < end, "no end of {topic}: {open:?}");
        match member.poll(POLL) {
            Polled::End(partition) => open.retain(|it| *it != key(topic, partition)),
            Polled::Record | Polled::Nothing => {}
        }
    }
    let mut last = BTreeMap::new();
    for event in member.note_events() {
        if let Event::Reads { reads, .. } = event {
            last.extend(reads.iter().map(|read| (read.key, read.offset)));
        }
    }
    member.leave();
    last
}
