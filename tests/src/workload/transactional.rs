//! Transactions: of several records in several partitions, committed, aborted, left open, or ended by one who is fenced.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::producer::Reports;
use super::recorder::{bytes, key};
use super::{CALL_WITHIN, Client, IN, MIXED, PARTITIONS};
use crate::consistency::{Action, End, Outcome, Send, Step};

/// Shorter than a run, so that what is left open ends by itself, too.
const TRANSACTION_TIMEOUT_MS: &str = "5000";
const RECORDS_MAX: u32 = 5;
const BYTES_MAX: usize = 1_000;

pub(super) type Transactional = ThreadedProducer<Reports>;

/// A producer that has begun; `None` when the broker did not let it in time.
pub(super) fn begin(client: &Client) -> Option<Transactional> {
    let mut config = client.config();
    config
        .set("transactional.id", format!("tx-{}", client.process))
        .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
        .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS)
        .set("linger.ms", "1");
    let reports = Reports(Arc::clone(&client.recorder));
    let producer = ThreadedProducer::from_config_and_context(&config, reports);
    let producer: Transactional = producer.expect("a producer");
    producer
        .init_transactions(CALL_WITHIN)
        .is_ok()
        .then_some(producer)
}

/// A transaction as it goes on.
pub(super) struct Txn {
    pub(super) invoked_us: u64,
    pub(super) steps: Vec<Step>,
}

impl Txn {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            invoked_us: client.recorder.now_us(),
            steps: Vec::new(),
        }
    }

    /// Hands a record over.
    pub(super) fn send(
        &mut self,
        client: &Client,
        producer: &Transactional,
        (topic, partition): (&str, i32),
        more: usize,
    ) -> Result<(), KafkaError> {
        let value = client.recorder.value();
        let payload = bytes(value, more);
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(value))
            .partition(partition)
            .payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
        self.steps.push(Step::Send(Send {
            key: key(topic, partition),
            value,
            offset: None,
        }));
        Ok(())
    }

    /// Whether all its records have a place.
    fn is_delivered(&self, client: &Client) -> bool {
        let mut sends = self.steps.iter().filter_map(|step| match step {
            Step::Send(send) => Some(send.value),
            Step::Poll(_) | Step::Rebalance { .. } | Step::Offsets { .. } => None,
        });
        sends.all(|value| client.recorder.is_acked(value))
    }

    /// Commits, or aborts when that cannot be.
    pub(super) fn commit(&self, client: &Client, producer: &Transactional) -> Ended {
        let end = End::Commit;
        let Err(error) = insist(|within| producer.commit_transaction(within)) else {
            return Ended {
                end,
                outcome: Outcome::Ok,
                note: None,
                producer_is_well: true,
            };
        };
        let note = Some(format!("commit: {error}"));
        match &error {
            // It cannot be committed, says the client: aborted it is.
            KafkaError::Transaction(told) if told.txn_requires_abort() => {
                let aborted = self.abort(client, producer);
                let outcome = match aborted.outcome {
                    Outcome::Ok => Outcome::Fail,
                    Outcome::Fail | Outcome::Info => Outcome::Info,
                };
                Ended {
                    end,
                    outcome,
                    note,
                    producer_is_well: aborted.producer_is_well,
                }
            }
            _ => Ended {
                end,
                outcome: Outcome::Info,
                note,
                producer_is_well: false,
            },
        }
    }

    /// Aborts. Where a record has no place, librdkafka gives its sequence to the next transaction's first record, although it
    /// may be stored: that record would count as a repetition and be lost. Such a producer is not used any more.
    pub(super) fn abort(&self, client: &Client, producer: &Transactional) -> Ended {
        let aborted = insist(|within| producer.abort_transaction(within));
        Ended {
            end: End::Abort,
            outcome: match aborted {
                Ok(()) => Outcome::Ok,
                Err(_) => Outcome::Info,
            },
            producer_is_well: aborted.is_ok() && self.is_delivered(client),
            note: aborted.err().map(|error| format!("abort: {error}")),
        }
    }

    /// Writes down how it ended. Without `asked_us` nobody asked for its end.
    pub(super) fn note(self, client: &Client, ended: Ended, asked_us: u64) {
        let action = Action::Txn {
            steps: self.steps,
            end: ended.end,
            asked_us,
        };
        let (process, outcome) = (client.process, ended.outcome);
        client
            .recorder
            .note_with(process, self.invoked_us, (outcome, ended.note), action);
    }
}

/// How a transaction ended, and whether its producer can go on.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) outcome: Outcome,
    pub(super) note: Option<String>,
    pub(super) producer_is_well: bool,
}

impl Ended {
    /// Nobody asked for its end.
    pub(super) fn left(why: &str) -> Self {
        Self {
            end: End::Abort,
            outcome: Outcome::Info,
            note: Some(why.to_owned()),
            producer_is_well: false,
        }
    }
}

/// Asks again as long as the client says that this is right.
pub(super) fn insist(
    mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    let end = Instant::now() + CALL_WITHIN;
    loop {
        match call(CALL_WITHIN) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {
            }
            ended => return ended,
        }
    }
}

pub(super) fn work(client: &Client) {
    let mut random = client.random();
    let mut producer = None;
    while !client.is_over() {
        let Some(current) = producer.take().or_else(|| begin(client)) else {
            continue;
        };
        producer = transact(client, current, &mut random);
        client.pause(&mut random, 20);
    }
}

/// One transaction; gives the producer that goes on, if any does.
fn transact(
    client: &Client,
    producer: Transactional,
    random: &mut StdRng,
) -> Option<Transactional> {
    let mut txn = Txn::new(client);
    let begun = producer.begin_transaction();
    let mut written = begun;
    for _ in 0..random.random_range(1..=RECORDS_MAX) {
        let topic = if random.random_range(0..4) == 0 {
            IN
        } else {
            MIXED
        };
        let partition = random.random_range(0..PARTITIONS);
        let more = random.random_range(0..BYTES_MAX);
        written = written.and_then(|()| txn.send(client, &producer, (topic, partition), more));
        if random.random_range(0..4) == 0 {
            client.pause(random, 60);
        }
    }
    let asked_us = client.recorder.now_us();
    let choice = random.random_range(0..100);
    let ended = match choice {
        _ if written.is_err() => txn.abort(client, &producer),
        0..65 => txn.commit(client, &producer),
        65..88 => txn.abort(client, &producer),
        88..95 => Ended::left("left open"),
        _ => return take_over(client, txn, producer),
    };
    let goes_on = ended.producer_is_well.then_some(producer);
    txn.note(client, ended, asked_us);
    goes_on
}

/// Another one with the same id begins; then the first asks for its commit, which nobody may grant.
fn take_over(client: &Client, txn: Txn, first: Transactional) -> Option<Transactional> {
    let Some(second) = begin(client) else {
        let asked_us = client.recorder.now_us();
        txn.note(client, Ended::left("left open, nobody followed"), asked_us);
        return None;
    };
    let asked_us = client.recorder.now_us();
    let mut ended = txn.commit(client, &first);
    if ended.outcome == Outcome::Info {
        // The beginning of the second was told: whatever the first hears, it was aborted before.
        ended.outcome = Outcome::Fail;
    }
    txn.note(client, ended, asked_us);
    Some(second)
}
