//! The whole way: a record is handed to a producer, and the next only follows when a consumer has read it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use keelson_tests::records::fill_payload;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::Args;
use crate::client::{
    CLUSTER_WITHIN, Ledger, consumer_config, leaders, new_run, producer_config, stream,
};
use crate::progress::Progress;
use crate::report::{Latencies, Measured, Report};

/// A record that is not read within this is lost.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Args) -> Result<Report> {
    let run = new_run();
    let consumer = consumer(args, run)?;
    let ledger = Mutex::new(Ledger::default());
    let over = AtomicBool::new(false);
    let progress = Progress::start(args);
    let started = Instant::now();
    let end = args.end(started);
    let (mut senders, mut receivers) = (HashMap::new(), Vec::new());
    for index in 0..args.concurrency {
        let (sender, receiver) = channel();
        senders.insert(stream(run, index), sender);
        receivers.push((index, receiver));
    }
    let outcomes: Vec<Result<Latencies>> = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&consumer, &senders, &ledger, &over));
        let workers: Vec<_> = receivers
            .into_iter()
            .map(|(index, receiver)| {
                let done = progress.counter();
                scope.spawn(move || {
                    let worker = Worker {
                        args,
                        stream: stream(run, index),
                        arrivals: receiver,
                    };
                    worker.run(args.share(index), end, &|| {
                        done.fetch_add(1, Ordering::Relaxed);
                    })
                })
            })
            .collect();
        let mut outcomes: Vec<Result<Latencies>> = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a worker's thread panicked")))
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        let read = reader
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the reader's thread panicked")));
        outcomes.extend(read.err().map(Err));
        outcomes
    });
    let elapsed = started.elapsed();
    let mut latencies = Latencies::new()?;
    for outcome in outcomes {
        latencies.add(&outcome?)?;
    }
    let ledger = ledger.into_inner().expect("no holder panics");
    Ok(Report::new(
        args,
        Measured {
            records: ledger.verified(),
            bytes: ledger.verified() * args.message_size as u64,
            errors: 0,
            first_error: None,
            elapsed,
            latencies: Some(latencies),
            verification: Some(ledger.verdict(true)),
        },
    ))
}

/// A consumer that stands at the end of every partition, or in the named group.
fn consumer(args: &Args, run: u16) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = consumer_config(args, run)
        .set("fetch.wait.max.ms", "500")
        .create()?;
    if args.consumer_group.is_some() {
        // A group may begin anywhere below the end: what is not of this run is passed over.
        consumer.subscribe(&[&args.topic])?;
        return Ok(consumer);
    }
    let mut assignment = TopicPartitionList::new();
    for (_, partitions) in leaders(args)? {
        for partition in partitions {
            let (_, end) = consumer.fetch_watermarks(&args.topic, partition, CLUSTER_WITHIN)?;
            assignment.add_partition_offset(&args.topic, partition, Offset::Offset(end))?;
        }
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn read(
    consumer: &BaseConsumer,
    senders: &HashMap<u32, Sender<u64>>,
    ledger: &Mutex<Ledger>,
    over: &AtomicBool,
) -> Result<Latencies> {
    while !over.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error).context("reading"),
            Some(Ok(message)) => {
                let value = message.payload().unwrap_or_default();
                let of_this_run = keelson_tests::records::check_payload(value)
                    .is_none_or(|(stream, _)| senders.contains_key(&stream));
                if !of_this_run {
                    continue;
                }
                let noted = ledger.lock().expect("no holder panics").note(value);
                if let Some((stream, sequence)) = noted {
                    // A worker that has given up no longer listens.
                    let _ = senders[&stream].send(sequence);
                }
            }
        }
    }
    Latencies::new()
}

struct Worker<'a> {
    args: &'a Args,
    stream: u32,
    arrivals: Receiver<u64>,
}

impl Worker<'_> {
    fn run(self, count: u64, end: Option<Instant>, done: &dyn Fn()) -> Result<Latencies> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            producer_config(self.args).set("linger.ms", "0").create()?;
        let mut latencies = Latencies::new()?;
        let mut payload = vec![0; self.args.message_size];
        let mut sequence = 0;
        while sequence < count && end.is_none_or(|end| Instant::now() < end) {
            fill_payload(&mut payload, self.stream, sequence);
            let sent = Instant::now();
            let record: BaseRecord<'_, (), [u8]> =
                BaseRecord::to(&self.args.topic).payload(&payload);
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .context("handing a record over")?;
            match self.arrivals.recv_timeout(ARRIVES_WITHIN) {
                Ok(arrived) if arrived == sequence => latencies.record(sent.elapsed()),
                Ok(arrived) => {
                    return Err(anyhow!("record {arrived} came where {sequence} was due"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(anyhow!("record {sequence} did not arrive"));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the reader ended")),
            }
            done();
            sequence += 1;
        }
        producer.flush(ARRIVES_WITHIN).context("flushing")?;
        Ok(latencies)
    }
}
