//! Exactly once: what a member of a group reads, it answers with records of a transaction that commits the group's offsets, too.
//!
//! When the transaction does not come to be, the member goes back to where it began; when nobody knows, it begins anew.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use super::member::{Event, MAX_POLL_INTERVAL_MS, Member, list, note};
use super::transactional::{Ended, Transactional, Txn, begin, insist};
use super::{Client, IN, MOVERS, OUT, PARTITIONS};
use crate::consistency::{End, Key, Outcome, Step};

const BATCH: Duration = Duration::from_millis(60);
const RECORDS_MAX: usize = 100;
const BYTES_MAX: usize = 300;
/// So often a member stays away longer than its group waits, with a transaction open.
const TRANSACTIONS_PER_NAP: u32 = 50;

/// What a member read in a transaction, of partitions that it still has.
#[derive(Default)]
struct Places {
    first: BTreeMap<Key, i64>,
    next: BTreeMap<Key, i64>,
    /// The group took or gave partitions: what came before is not to be committed.
    disturbed: bool,
}

impl Places {
    /// Moves what happened into the transaction.
    fn follow(&mut self, txn: &mut Txn, events: Vec<Event>) -> usize {
        let mut records = 0;
        for event in events {
            match event {
                Event::Reads { reads, .. } => {
                    records += reads.len();
                    for read in &reads {
                        self.first.entry(read.key).or_insert(read.offset);
                        self.next.insert(read.key, read.offset + 1);
                    }
                    txn.steps.push(Step::Poll(reads));
                }
                Event::Rebalance {
                    assigned, revoked, ..
                } => {
                    self.disturbed = true;
                    let gone = |key: &Key| assigned.contains(key) || revoked.contains(key);
                    self.first.retain(|key, _| !gone(key));
                    self.next.retain(|key, _| !gone(key));
                    txn.steps.push(Step::Rebalance { assigned, revoked });
                }
            }
        }
        records
    }

    /// To where the transaction began; false when the member does not know where it stands.
    fn go_back(self, member: &Member<'_>) -> bool {
        let first: Vec<(Key, i64)> = self.first.into_iter().collect();
        first.is_empty() || member.seek(&first)
    }
}

pub(super) fn work(client: &Client) {
    let mut random = client.random();
    let mut producer = None;
    while !client.is_over() {
        let mut member = Member::join(client, MOVERS, &[IN], "range");
        while !client.is_over() && !member.is_lost() {
            let Some(current) = producer.take().or_else(|| begin(client)) else {
                continue;
            };
            let moved = transact(client, &mut member, &current, &mut random);
            // The next one ends what this one has begun.
            producer = moved.producer_is_well.then_some(current);
            if !moved.place_is_known {
                break;
            }
        }
        member.leave();
    }
}

/// What can go on after a transaction.
struct Moved {
    producer_is_well: bool,
    /// The member stands where it should.
    place_is_known: bool,
}

fn transact(
    client: &Client,
    member: &mut Member<'_>,
    producer: &Transactional,
    random: &mut StdRng,
) -> Moved {
    let mut txn = Txn::new(client);
    let mut places = Places::default();
    member.poll_some(random.random_range(1..RECORDS_MAX), BATCH);
    let events = member.take();
    if !events
        .iter()
        .any(|event| matches!(event, Event::Reads { .. }))
    {
        // Nothing but rebalances: they are no transaction.
        note(client, &events);
        return Moved {
            producer_is_well: true,
            place_is_known: true,
        };
    }
    let mut records = places.follow(&mut txn, events);
    let mut written = producer.begin_transaction();
    for _ in 0..2 {
        written = written.and_then(|()| answer(client, producer, &mut txn, records, random));
        // At times it reads more before it commits.
        records = 0;
        if random.random_range(0..4) == 0 {
            member.poll_some(random.random_range(1..RECORDS_MAX), BATCH);
            let events = member.take();
            records = places.follow(&mut txn, events);
        }
    }
    let asked_us;
    let ended = if random.random_range(0..60) == 0 {
        asked_us = client.recorder.now_us();
        Ended::left("left open")
    } else {
        let unanswered = records > 0;
        let offsets = match written {
            Ok(()) if !places.disturbed && !unanswered => {
                send_offsets(&mut txn, member, producer, &places)
            }
            Ok(()) => Ok(false),
            Err(error) => Err(error),
        };
        if random.random_range(0..TRANSACTIONS_PER_NAP) == 0 {
            // The group gives its partitions to another one, who must wait for this end.
            client.nap(MAX_POLL_INTERVAL_MS..MAX_POLL_INTERVAL_MS + 800, random);
        }
        asked_us = client.recorder.now_us();
        match offsets {
            Ok(true) if random.random_range(0..8) != 0 => txn.commit(client, producer),
            Ok(_) | Err(_) => txn.abort(client, producer),
        }
    };
    let producer_is_well = ended.producer_is_well;
    let committed = match (ended.end, ended.outcome) {
        (End::Commit, Outcome::Ok) => Some(true),
        (End::Abort, Outcome::Ok) | (_, Outcome::Fail) => Some(false),
        (_, Outcome::Info) => None,
    };
    txn.note(client, ended, asked_us);
    Moved {
        producer_is_well,
        place_is_known: committed.is_some_and(|it| it || places.go_back(member)),
    }
}

/// One record for each that was read.
fn answer(
    client: &Client,
    producer: &Transactional,
    txn: &mut Txn,
    records: usize,
    random: &mut StdRng,
) -> Result<(), KafkaError> {
    for _ in 0..records {
        let to = (OUT, random.random_range(0..PARTITIONS));
        let more = random.random_range(0..BYTES_MAX);
        txn.send(client, producer, to, more)?;
    }
    Ok(())
}

/// Whether the offsets are part of the transaction.
fn send_offsets(
    txn: &mut Txn,
    member: &Member<'_>,
    producer: &Transactional,
    places: &Places,
) -> Result<bool, KafkaError> {
    let offsets: Vec<(Key, i64)> = places.next.iter().map(|it| (*it.0, *it.1)).collect();
    txn.steps.push(Step::Offsets {
        group: MOVERS.to_owned(),
        offsets: offsets.clone(),
    });
    let offsets = list(&offsets);
    let sent = member.with_metadata(|metadata| {
        insist(|within| producer.send_offsets_to_transaction(&offsets, metadata, within))
    });
    sent.map_or(Ok(false), |sent| sent.map(|()| true))
}
