//! Consuming in a group through librdkafka: each record's content verified, each counted once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use crate::Args;
use crate::client::{Ledger, consumer_config, leaders, new_run};
use crate::progress::Progress;
use crate::report::{Measured, Report};

/// A group that gives nothing for this long is stuck: the run ends with what it has.
const STALLED_AFTER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// What the members of the group share.
struct Shared {
    ledger: Mutex<Ledger>,
    /// Partitions whose end was reached.
    ended: Mutex<HashSet<i32>>,
    partitions: usize,
    bytes: AtomicU64,
    over: AtomicBool,
    first: Mutex<Option<Instant>>,
    last: Mutex<Instant>,
}

pub(crate) fn run(args: &Args) -> Result<Report> {
    let partitions = leaders(args)?
        .iter()
        .map(|(_, partitions)| partitions.len())
        .sum();
    let run = new_run();
    let progress = Progress::start(args);
    let started = Instant::now();
    let shared = Shared {
        ledger: Mutex::new(Ledger::default()),
        ended: Mutex::new(HashSet::new()),
        partitions,
        bytes: AtomicU64::new(0),
        over: AtomicBool::new(false),
        first: Mutex::new(None),
        last: Mutex::new(started),
    };
    let outcomes: Vec<Result<Option<String>>> = std::thread::scope(|scope| {
        let members: Vec<_> = (0..args.concurrency)
            .map(|_| {
                let done = progress.counter();
                let shared = &shared;
                scope.spawn(move || {
                    let outcome = member(args, run, shared, &done);
                    if !matches!(outcome, Ok(None)) {
                        shared.over.store(true, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        members
            .into_iter()
            .map(|member| {
                member
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a consumer's thread panicked")))
            })
            .collect()
    });
    let mut errors = Vec::new();
    for outcome in outcomes {
        errors.extend(outcome?);
    }
    let ledger = shared.ledger.into_inner().expect("no holder panics");
    let everything_read = shared.ended.into_inner().expect("no holder panics").len() == partitions;
    // From the first record to the last: joining the group is not reading.
    let last = *shared.last.lock().expect("no holder panics");
    let first = shared
        .first
        .into_inner()
        .expect("no holder panics")
        .unwrap_or(last);
    Ok(Report::new(
        args,
        Measured {
            records: ledger.verified(),
            bytes: shared.bytes.into_inner(),
            errors: errors.len() as u64,
            first_error: errors.into_iter().next(),
            elapsed: last.duration_since(first),
            latencies: None,
            verification: Some(ledger.verdict(everything_read)),
        },
    ))
}

/// One member until the run is over; gives the error that ended it, if one did.
fn member(args: &Args, run: u16, shared: &Shared, done: &AtomicU64) -> Result<Option<String>> {
    let consumer: BaseConsumer = consumer_config(args, run).create()?;
    consumer.subscribe(&[&args.topic])?;
    let end = args.end(Instant::now());
    while !shared.over.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            None => {
                let quiet = shared.last.lock().expect("no holder panics").elapsed();
                if quiet > STALLED_AFTER && args.duration.is_none() {
                    return Ok(Some(format!("nothing came for {} s", quiet.as_secs())));
                }
            }
            Some(Ok(message)) => {
                // More after an end that was reached: the topic grows.
                shared.note(
                    message.partition(),
                    message.payload().unwrap_or_default(),
                    done,
                );
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                shared
                    .ended
                    .lock()
                    .expect("no holder panics")
                    .insert(partition);
            }
            Some(Err(error)) => return Ok(Some(error.to_string())),
        }
        if shared.is_done(args) || end.is_some_and(|end| Instant::now() >= end) {
            shared.over.store(true, Ordering::Relaxed);
        }
    }
    if args.consumer_group.is_some() {
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(())
            | Err(KafkaError::ConsumerCommit(rdkafka::error::RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => return Err(error).context("committing offsets"),
        }
    }
    Ok(None)
}

impl Shared {
    fn note(&self, partition: i32, value: &[u8], done: &AtomicU64) {
        let now = Instant::now();
        self.ended
            .lock()
            .expect("no holder panics")
            .remove(&partition);
        self.first
            .lock()
            .expect("no holder panics")
            .get_or_insert(now);
        *self.last.lock().expect("no holder panics") = now;
        self.bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
        self.ledger.lock().expect("no holder panics").note(value);
        done.fetch_add(1, Ordering::Relaxed);
    }

    fn is_done(&self, args: &Args) -> bool {
        match args.message_count {
            Some(count) => self.ledger.lock().expect("no holder panics").verified() >= count,
            None => {
                args.duration.is_none()
                    && self.ended.lock().expect("no holder panics").len() == self.partitions
            }
        }
    }
}
