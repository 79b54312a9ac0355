//! Acknowledged means durable: watched at the system calls, disturbed there, and recounted after kill -9 under load.
//!
//! kill -9 leaves the page cache alone, so it shows order and recovery, not durability; that the synchronous write comes before
//! the answer is shown by strace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keelson_tests::rdk::{self, Acked};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::strace::{Call, Strace};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const WITHIN: Duration = Duration::from_secs(30);
const WRITES: &str = "pwritev2,pwritev,pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg";
/// The calls through which the log commits, with or without RWF_DSYNC.
const COMMITS: &str = "pwritev2,pwrite64,pwritev,fdatasync,fsync";

fn marker(number: u32) -> Vec<u8> {
    format!("marker-{number:06}-of-the-durability-test").into_bytes()
}

fn with_topic(broker: &Broker, partitions: i32) -> Wire {
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", partitions, &[]);
    // The first append does what only a first one does; it is not what these tests watch.
    assert_eq!(wire.produce("orders", 0, fresh_batch(&[b"first"])), Ok(0));
    wire
}

/// The line at which the write that holds `marker` was durable: a completed synchronous write of it into the log, or a
/// completed write and after that a completed sync.
fn durable_at(calls: &[Call], marker: &str) -> Option<usize> {
    let write = calls.iter().find(|call| {
        call.name.starts_with("pwrite")
            && call.text.contains("/wal/")
            && call.text.contains(marker)
            && call.result > 0
    })?;
    if write.text.contains("DSYNC") {
        return Some(write.ended);
    }
    let sync = calls.iter().find(|call| {
        call.name.contains("sync")
            && call.text.contains("/wal/")
            && call.result == 0
            && call.begun > write.ended
    })?;
    Some(sync.ended)
}

#[test]
fn every_reply_follows_the_completed_synchronous_write_of_its_group() {
    const REQUESTS: u32 = 20;
    let broker = Broker::start();
    let mut wire = with_topic(&broker, 1);
    let port = wire.stream().local_addr().expect("a local address").port();
    let strace = Strace::attach(&broker, &["-e", &format!("trace={WRITES}")]);
    for number in 0..REQUESTS {
        wire.produce("orders", 0, fresh_batch(&[&marker(number)]))
            .expect("acknowledged");
    }
    let to_client = format!("->127.0.0.1:{port}]");
    let is_reply = |call: &Call| {
        !call.name.starts_with('p') && call.text.contains(&to_client) && call.result > 0
    };
    let calls = strace.calls_when("all replies are in the trace", |calls| {
        calls.iter().filter(|call| is_reply(call)).count() >= REQUESTS as usize
    });
    let replies: Vec<&Call> = calls.iter().filter(|call| is_reply(call)).collect();
    assert_eq!(replies.len(), REQUESTS as usize, "one write per reply");
    for (number, reply) in replies.iter().enumerate() {
        let name = String::from_utf8(marker(number as u32)).expect("ASCII");
        let durable = durable_at(&calls, &name)
            .unwrap_or_else(|| panic!("{name} was never written synchronously"));
        assert!(
            durable < reply.begun,
            "reply {number} began at line {}, its group was durable at line {durable}",
            reply.begun
        );
    }
}

#[test]
fn an_io_error_of_the_commit_gives_no_ack_and_ends_the_process() {
    let mut broker = Broker::start();
    let mut wire = with_topic(&broker, 1);
    assert_eq!(wire.produce("orders", 0, fresh_batch(&[&marker(1)])), Ok(1));
    // Else the first write to fail could be the log's own, before the request.
    broker.wait_log_at_rest();
    let strace = Strace::attach(
        &broker,
        &[
            "-e",
            &format!("trace={COMMITS}"),
            "-e",
            &format!("inject={COMMITS}:error=EIO"),
        ],
    );
    let request = Wire::produce_request("orders", 0, fresh_batch(&[&marker(2)]), 1);
    let answer = wire.try_call(8, &request);
    if let Ok(answer) = &answer {
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_ne!(code, 0, "acknowledged although the write failed");
    }
    let status = broker.wait_exit(WITHIN);
    assert!(!status.success(), "{status}");
    drop(strace);

    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    let records = wire.read_all("orders", 0, 0).expect("all is readable");
    let values: Vec<_> = records.iter().map(|(_, value)| value.to_vec()).collect();
    // The record that failed may have reached the disk or not; those acknowledged before are there.
    assert_eq!(values[..2], [b"first".to_vec(), marker(1)]);
    assert!(values.len() <= 3, "{} records", values.len());
    let metrics = broker.metrics();
    assert_eq!(metrics.sum("keelson_wal_decode_errors_total", &[]), 0.0);
    let told: Vec<_> = metrics.select("keelson_last_exit_info", &[]).collect();
    assert!(!told.is_empty(), "the first reason is kept");
    assert_eq!(broker.verify().0, 0);
}

#[test]
fn a_delayed_commit_delays_the_ack() {
    const DELAY: Duration = Duration::from_millis(700);
    let broker = Broker::start();
    let mut wire = with_topic(&broker, 1);
    let inject = format!("inject={COMMITS}:delay_enter={}", DELAY.as_micros());
    let _strace = Strace::attach(&broker, &["-e", &format!("trace={COMMITS}"), "-e", &inject]);
    for acks in [1, -1] {
        let started = Instant::now();
        let answer = wire.call(
            8,
            &Wire::produce_request("orders", 0, fresh_batch(&[&marker(1)]), acks),
        );
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        let took = started.elapsed();
        assert!(
            took >= DELAY,
            "acks={acks} came after {took:?}, the commit alone takes {DELAY:?}"
        );
    }
}

const KILL_ROUNDS: u32 = 5;
const WRITERS: u32 = 4;
const PARTITIONS: i32 = 3;

/// Rounds of kill -9 under load: `KEELSON_KILL_ROUNDS` (5) of them, from `KEELSON_SEED`. After each, librdkafka reads
/// everything: every acknowledged record is exactly where it was acknowledged, byte for byte, and offsets have no holes.
#[test]
fn kill_under_load() {
    let rounds = number("KEELSON_KILL_ROUNDS").unwrap_or(u64::from(KILL_ROUNDS));
    let seed = number("KEELSON_SEED").unwrap_or_else(rand::random);
    println!("KEELSON_SEED={seed} KEELSON_KILL_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut broker = Broker::start();
    // Segments roll on the way, so that kills also hit the flusher.
    Wire::connect(broker.bootstrap()).create_topic(
        "orders",
        PARTITIONS,
        &[("segment.bytes", "1048576")],
    );
    let mut acked: Vec<(Acked, Vec<u8>)> = Vec::new();
    for round in 0..rounds {
        let goal = random.random_range(50..1_500);
        acked.extend(load_until_killed(&mut broker, round as u32, goal));
        broker.restart();
        let seen = rdk::read_all(broker.bootstrap(), "orders");
        rdk::assert_all_seen(&acked, &seen);
        offsets_have_no_holes(&seen);
        println!(
            "round {round}: killed after {goal} acks, {} acknowledged, {} there",
            acked.len(),
            seen.len()
        );
    }
    broker.stop();
    let (code, text) = broker.verify();
    assert_eq!(code, 0, "{text}");
}

fn number(variable: &str) -> Option<u64> {
    let word = std::env::var(variable).ok()?;
    Some(
        word.parse()
            .unwrap_or_else(|error| panic!("{variable}={word}: {error}")),
    )
}

/// Writers produce until `goal` acks came, then the broker is killed; gives what was acknowledged.
fn load_until_killed(broker: &mut Broker, round: u32, goal: u64) -> Vec<(Acked, Vec<u8>)> {
    let acks = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(Mutex::new(Vec::new()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (acks, over, acked) = (Arc::clone(&acks), Arc::clone(&over), Arc::clone(&acked));
            let bootstrap = broker.bootstrap().to_owned();
            std::thread::spawn(move || {
                write(&bootstrap, round * WRITERS + writer, &acks, &over, &acked)
            })
        })
        .collect();
    wait_until("the writers' acks", WITHIN, || {
        acks.load(Ordering::Relaxed) >= goal
    });
    broker.kill9();
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("a writer ends with the connection");
    }
    let mut acked = acked.lock().expect("no holder panics");
    std::mem::take(&mut *acked)
}

/// Produces one batch after the other, of one to four records of changing sizes, until the connection ends.
fn write(
    bootstrap: &str,
    stream: u32,
    acks: &AtomicU64,
    over: &AtomicBool,
    acked: &Mutex<Vec<(Acked, Vec<u8>)>>,
) {
    let mut wire = Wire::connect(bootstrap);
    let mut sequence = 0;
    while !over.load(Ordering::Relaxed) {
        let partition = ((u64::from(stream) + sequence) % PARTITIONS as u64) as i32;
        let count = 1 + sequence % 4;
        let values: Vec<Vec<u8>> = (0..count)
            .map(|n| payload(100 + (sequence as usize * 37) % 3_000, stream, sequence + n))
            .collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let request = Wire::produce_request("orders", partition, fresh_batch(&slices), 1);
        let Ok(answer) = wire.try_call(8, &request) else {
            return;
        };
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "a healthy disk");
        let mut kept = acked.lock().expect("no holder panics");
        for (n, value) in values.into_iter().enumerate() {
            let place = Acked {
                partition,
                offset: answer.base_offset + n as i64,
                sequence: sequence + n as u64,
            };
            kept.push((place, value));
        }
        acks.fetch_add(1, Ordering::Relaxed);
        sequence += count;
    }
}

fn offsets_have_no_holes(seen: &[rdk::Seen]) {
    for partition in 0..PARTITIONS {
        let offsets: Vec<i64> = seen
            .iter()
            .filter(|record| record.partition == partition)
            .map(|record| record.offset)
            .collect();
        let whole: Vec<i64> = (0..offsets.len() as i64).collect();
        assert!(
            offsets == whole,
            "partition {partition} has holes or disorder in its offsets"
        );
    }
}
