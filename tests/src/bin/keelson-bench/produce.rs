//! Producing through librdkafka: one producer per connection, its queue kept full, each delivery report counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use keelson_tests::records::fill_payload;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::Args;
use crate::client::{new_run, producer_config, stream};
use crate::progress::Progress;
use crate::report::{Latencies, Measured, Report};

/// How long records may still be under way after the last was handed over.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
/// How long to let a full queue drain before the next try.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn run(args: &Args) -> Result<Report> {
    let run = new_run();
    let progress = Progress::start(args);
    let started = Instant::now();
    let end = args.end(started);
    let tallies: Vec<Result<Tally>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.concurrency)
            .map(|index| {
                let done = progress.counter();
                scope.spawn(move || one(args, stream(run, index), args.share(index), end, done))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a producer's thread panicked")))
            })
            .collect()
    });
    let elapsed = started.elapsed();
    let mut total = Tally::new()?;
    for tally in tallies {
        let tally = tally?;
        total.records += tally.records;
        total.errors += tally.errors;
        total.first_error = total.first_error.or(tally.first_error);
        total.latencies.add(&tally.latencies)?;
    }
    Ok(Report::new(
        args,
        Measured {
            records: total.records,
            bytes: total.records * args.message_size as u64,
            errors: total.errors,
            first_error: total.first_error,
            elapsed,
            latencies: (args.acks != 0).then_some(total.latencies),
            verification: None,
        },
    ))
}

#[derive(Debug, Clone)]
struct Tally {
    records: u64,
    errors: u64,
    first_error: Option<String>,
    latencies: Latencies,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            records: 0,
            errors: 0,
            first_error: None,
            latencies: Latencies::new()?,
        })
    }
}

/// Counts delivery reports; librdkafka calls it on one thread per producer.
struct Reports {
    tally: Mutex<Tally>,
    done: Arc<AtomicU64>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, handed_over: Self::DeliveryOpaque) {
        let mut tally = self.tally.lock().expect("no holder panics");
        match result {
            Ok(_) => {
                tally.records += 1;
                tally.latencies.record(handed_over.elapsed());
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                tally.errors += 1;
                tally.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

fn one(
    args: &Args,
    stream: u32,
    count: u64,
    end: Option<Instant>,
    done: Arc<AtomicU64>,
) -> Result<Tally> {
    let context = Reports {
        tally: Mutex::new(Tally::new()?),
        done,
    };
    let producer: ThreadedProducer<Reports> = producer_config(args).create_with_context(context)?;
    let mut payload = vec![0; args.message_size];
    let mut sequence = 0;
    while sequence < count && end.is_none_or(|end| Instant::now() < end) {
        fill_payload(&mut payload, stream, sequence);
        let record: BaseRecord<'_, (), [u8], _> =
            BaseRecord::with_opaque_to(&args.topic, Box::new(Instant::now())).payload(&payload);
        match producer.send(record) {
            Ok(()) => sequence += 1,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(QUEUE_FULL_PAUSE)
            }
            Err((error, _)) => return Err(error).context("handing a record over"),
        }
    }
    producer
        .flush(DRAIN_WITHIN)
        .context("waiting for the last acknowledgements")?;
    let mut tally = producer
        .context()
        .tally
        .lock()
        .expect("no holder panics")
        .clone();
    let reported = tally.records + tally.errors;
    if reported < sequence {
        tally.errors += sequence - reported;
        tally
            .first_error
            .get_or_insert_with(|| "records without a delivery report".to_owned());
    }
    Ok(tally)
}
