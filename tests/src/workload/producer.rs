//! Producers outside of transactions: bursts of records, many on their way at once, each with its report.

use std::sync::Arc;

use rand::RngExt;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::recorder::{Recorder, bytes, key};
use super::{CALL_WITHIN, Client, IN, MIXED, PARTITIONS};
use crate::consistency::{Action, Outcome, Value};

/// Records on their way; what is above waits for reports.
const IN_FLIGHT_MAX: i32 = 300;
const BURST_MAX: u32 = 8;
const BYTES_MAX: usize = 2_000;
/// So often a producer dies with what is on its way.
const BURSTS_PER_CRASH: u32 = 100;

/// Takes the reports of a producer.
pub(super) struct Reports(pub(super) Arc<Recorder>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Value>;

    fn delivery(&self, result: &DeliveryResult<'_>, value: Self::DeliveryOpaque) {
        let report = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.0.delivered(*value, report);
    }
}

pub(super) fn work(client: &Client, idempotent: bool) {
    let mut random = client.random();
    while !client.is_over() {
        let mut config = client.config();
        config
            .set("enable.idempotence", idempotent.to_string())
            .set("acks", "all")
            .set("message.timeout.ms", message_timeout_ms(idempotent))
            .set("request.timeout.ms", "2500")
            .set("linger.ms", "2");
        let reports = Reports(Arc::clone(&client.recorder));
        let producer = ThreadedProducer::from_config_and_context(&config, reports);
        let producer: ThreadedProducer<Reports> = producer.expect("a producer");
        let mut crashed = false;
        while !client.is_over() && !crashed && producer.client().fatal_error().is_none() {
            if producer.in_flight_count() < IN_FLIGHT_MAX {
                for _ in 0..random.random_range(1..=BURST_MAX) {
                    let topic = if random.random() { IN } else { MIXED };
                    let partition = random.random_range(0..PARTITIONS);
                    let more = random.random_range(0..BYTES_MAX);
                    send(client, &producer, (topic, partition), more, idempotent);
                }
            }
            client.pause(&mut random, 80);
            crashed = random.random_range(0..BURSTS_PER_CRASH) == 0;
        }
        // What is not delivered by then has no outcome.
        let flushed = if crashed {
            Ok(())
        } else {
            producer.flush(CALL_WITHIN)
        };
        drop(producer);
        let now_us = client.recorder.now_us();
        let note = flushed.err().map(|error| error.to_string());
        client
            .recorder
            .note_with(client.process, now_us, (Outcome::Ok, note), Action::Crash);
    }
}

/// Longer than a run with idempotence: when a record is given up, librdkafka takes a new producer epoch and with it sends
/// again what may be stored, twice then (its issue 4953). Such a producer gives up by a crash instead.
fn message_timeout_ms(idempotent: bool) -> &'static str {
    match idempotent {
        true => "300000",
        false => "3000",
    }
}

fn send(
    client: &Client,
    producer: &ThreadedProducer<Reports>,
    (topic, partition): (&str, i32),
    more: usize,
    idempotent: bool,
) {
    let value = client.recorder.value();
    let payload = bytes(value, more);
    client
        .recorder
        .sending(client.process, key(topic, partition), value, idempotent);
    let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(value))
        .partition(partition)
        .payload(&payload);
    if producer.send(record).is_err() {
        client.recorder.not_sent(value);
    }
}
