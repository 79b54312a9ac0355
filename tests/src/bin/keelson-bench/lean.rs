//! One record per request, one request outstanding per connection, over plain sockets.
//!
//! Owns the few bytes of Produce v7 that this takes: each connection has one prebuilt request, in which only correlation id,
//! partition, payload and the batch's CRC change. One thread drives all connections, so that the load costs the machine (which
//! it shares with the broker) as little as it can. Verifies nothing itself: a real client counts afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keelson_tests::records::{
    PAYLOAD_BYTES_MIN, fill_payload, fresh_batch, seal_batch, single_value_position,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Args;
use crate::client::{leaders, new_run, stream};
use crate::progress::Progress;
use crate::report::{Latencies, Measured, Report};

const PRODUCE: i16 = 0;
const PRODUCE_VERSION: i16 = 7;
const TIMEOUT_MS: i32 = 30_000;
/// An answer for one partition is far smaller, whatever the topic's name.
const ANSWER_BYTES_MAX: usize = 4096;

pub(crate) fn run(args: &Args) -> Result<Report> {
    let leaders = leaders(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(drive(args, &leaders))
}

async fn drive(args: &Args, leaders: &[(String, Vec<i32>)]) -> Result<Report> {
    let run = new_run();
    let mut connections = Vec::new();
    for index in 0..args.concurrency {
        let (address, partitions) = &leaders[index as usize % leaders.len()];
        let socket = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        socket.set_nodelay(true)?;
        let request = Prebuilt::new(args, stream(run, index));
        // Connections begin at different partitions, so that all partitions are busy at any moment.
        let first = index as usize * partitions.len() / args.concurrency as usize;
        connections.push(Connection {
            socket,
            request,
            partitions: partitions.clone(),
            next_partition: first,
        });
    }
    let progress = Progress::start(args);
    let started = Instant::now();
    let end = args.end(started);
    let mut tasks = JoinSet::new();
    for (connection, index) in connections.into_iter().zip(0..) {
        tasks.spawn(connection.run(args.share(index), end, progress.counter()));
    }
    let mut latencies = Latencies::new()?;
    let mut measured = Outcome::default();
    while let Some(joined) = tasks.join_next().await {
        let (outcome, own) = joined.context("a connection's task")??;
        latencies.add(&own)?;
        measured.records += outcome.records;
        measured.errors += outcome.errors;
        measured.first_error = measured.first_error.or(outcome.first_error);
    }
    Ok(Report::new(
        args,
        Measured {
            records: measured.records,
            bytes: measured.records * args.message_size as u64,
            errors: measured.errors,
            first_error: measured.first_error,
            elapsed: started.elapsed(),
            latencies: Some(latencies),
            verification: None,
        },
    ))
}

#[derive(Debug, Default)]
struct Outcome {
    records: u64,
    errors: u64,
    first_error: Option<String>,
}

struct Connection {
    socket: TcpStream,
    request: Prebuilt,
    partitions: Vec<i32>,
    next_partition: usize,
}

impl Connection {
    async fn run(
        mut self,
        count: u64,
        end: Option<Instant>,
        done: Arc<AtomicU64>,
    ) -> Result<(Outcome, Latencies)> {
        let mut latencies = Latencies::new()?;
        let mut outcome = Outcome::default();
        let mut answer = [0; ANSWER_BYTES_MAX];
        let mut correlation_id = 0;
        let mut retries = 0;
        while outcome.records < count {
            let sent = Instant::now();
            if end.is_some_and(|end| sent >= end) {
                break;
            }
            correlation_id += 1;
            let partition = self.partitions[self.next_partition];
            self.next_partition = (self.next_partition + 1) % self.partitions.len();
            // A refused record's sequence is used again: what is acknowledged has no gaps.
            self.request
                .prepare(correlation_id, partition, outcome.records);
            self.socket
                .write_all(&self.request.frame)
                .await
                .context("sending a request")?;
            let length = read_answer(&mut self.socket, &mut answer).await?;
            match self.request.error_code(&answer[..length], correlation_id)? {
                0 => {
                    latencies.record(sent.elapsed());
                    outcome.records += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                code if is_passing(code) && retries < RETRIES_MAX => {
                    retries += 1;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                code => {
                    outcome.errors += 1;
                    let words = format!("partition {partition}: error code {code}");
                    outcome.first_error.get_or_insert(words);
                    if outcome.errors > ERRORS_MAX {
                        break;
                    }
                }
            }
        }
        Ok((outcome, latencies))
    }
}

/// A connection that meets more errors than this gives up.
const ERRORS_MAX: u64 = 100;
/// How often a connection tries again at an error that passes, and how long after.
const RETRIES_MAX: u32 = 600;
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What a broker answers for a moment after a topic was created, or while a leader changes: UNKNOWN_TOPIC_OR_PARTITION,
/// LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER.
fn is_passing(code: i16) -> bool {
    matches!(code, 3 | 5 | 6)
}

async fn read_answer(socket: &mut TcpStream, answer: &mut [u8; ANSWER_BYTES_MAX]) -> Result<usize> {
    let mut have = 0;
    loop {
        let read = socket
            .read(&mut answer[have..])
            .await
            .context("reading an answer")?;
        ensure!(read > 0, "the broker closed the connection");
        have += read;
        if have < 4 {
            continue;
        }
        let length = u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
        ensure!(
            length <= ANSWER_BYTES_MAX - 4,
            "an answer of {length} bytes"
        );
        if have == length + 4 {
            return Ok(have);
        }
        ensure!(have < length + 4, "bytes after the answer");
    }
}

/// A Produce request whose variable parts have known places.
struct Prebuilt {
    frame: Vec<u8>,
    partition_at: usize,
    batch_at: usize,
    payload_at: usize,
    payload_bytes: usize,
    stream: u32,
    /// Where the answer has the partition's error code.
    error_at: usize,
}

const CORRELATION_AT: usize = 8;

impl Prebuilt {
    fn new(args: &Args, stream: u32) -> Self {
        let payload_bytes = args.message_size.max(PAYLOAD_BYTES_MIN);
        let batch = fresh_batch(&[&vec![0; payload_bytes]]);
        let mut frame = vec![0; 4];
        frame.extend(PRODUCE.to_be_bytes());
        frame.extend(PRODUCE_VERSION.to_be_bytes());
        frame.extend(0_i32.to_be_bytes());
        put_string(&mut frame, "keelson-bench");
        frame.extend((-1_i16).to_be_bytes()); // no transactional id
        frame.extend(args.acks.to_be_bytes());
        frame.extend(TIMEOUT_MS.to_be_bytes());
        frame.extend(1_i32.to_be_bytes()); // topics
        put_string(&mut frame, &args.topic);
        frame.extend(1_i32.to_be_bytes()); // partitions
        let partition_at = frame.len();
        frame.extend(0_i32.to_be_bytes());
        frame.extend((batch.len() as u32).to_be_bytes());
        let batch_at = frame.len();
        let payload_at = batch_at + single_value_position(&batch, payload_bytes);
        frame.extend(&batch);
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Self {
            frame,
            partition_at,
            batch_at,
            payload_at,
            payload_bytes,
            stream,
            // length, correlation id, topics, name, partitions, index
            error_at: 4 + 4 + 4 + 2 + args.topic.len() + 4 + 4,
        }
    }

    fn prepare(&mut self, correlation_id: i32, partition: i32, sequence: u64) {
        self.frame[CORRELATION_AT..][..4].copy_from_slice(&correlation_id.to_be_bytes());
        self.frame[self.partition_at..][..4].copy_from_slice(&partition.to_be_bytes());
        fill_payload(
            &mut self.frame[self.payload_at..][..self.payload_bytes],
            self.stream,
            sequence,
        );
        seal_batch(&mut self.frame[self.batch_at..]);
    }

    fn error_code(&self, answer: &[u8], correlation_id: i32) -> Result<i16> {
        let (Some(id), Some(code)) = (
            answer.get(4..8),
            answer.get(self.error_at..self.error_at + 2),
        ) else {
            bail!("an answer of {} bytes", answer.len());
        };
        ensure!(
            id == correlation_id.to_be_bytes(),
            "an answer to another request"
        );
        Ok(i16::from_be_bytes([code[0], code[1]]))
    }
}

fn put_string(frame: &mut Vec<u8>, text: &str) {
    frame.extend((text.len() as u16).to_be_bytes());
    frame.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes};
    use clap::Parser;
    use kafka_protocol::messages::{ProduceRequest, RequestHeader};
    use kafka_protocol::protocol::Decodable;

    use super::*;

    #[test]
    fn the_prebuilt_request_is_a_produce_request() {
        let args = Args::parse_from([
            "keelson-bench",
            "--bootstrap-servers",
            "b:1",
            "--topic",
            "orders",
            "--mode",
            "produce",
            "--message-count",
            "1",
            "--acks",
            "1",
        ]);
        let mut prebuilt = Prebuilt::new(&args, 9);
        prebuilt.prepare(77, 5, 3);
        let mut frame = Bytes::from(prebuilt.frame);
        assert_eq!(frame.get_u32() as usize, frame.len());
        let header = RequestHeader::decode(&mut frame, 1).expect("a header");
        assert_eq!((header.request_api_key, header.correlation_id), (0, 77));
        let request = ProduceRequest::decode(&mut frame, PRODUCE_VERSION).expect("a body");
        assert!(frame.is_empty());
        assert_eq!((request.acks, request.timeout_ms), (1, TIMEOUT_MS));
        let partition = &request.topic_data[0].partition_data[0];
        assert_eq!(partition.index, 5);
        let records =
            keelson_tests::records::read_batches(partition.records.as_ref().expect("records"));
        assert_eq!(
            keelson_tests::records::check_payload(&records[0].1),
            Some((9, 3))
        );
    }
}
