//! Acknowledged means durable: watched at the system calls, and disturbed there. What kill -9 leaves is recounted by
//! `chaos.rs`; since that leaves the page cache alone, only strace shows that the synchronous write comes before the answer.

use std::path::Path;
use std::time::{Duration, Instant};

use keelson_tests::Broker;
use keelson_tests::records::fresh_batch;
use keelson_tests::strace::{Call, Strace};
use keelson_tests::wire::Wire;
use rustix::process::Signal;

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

/// The call that makes many files durable: one for all of them on ext4 and XFS.
fn sync_of_many(dir: &Path) -> &'static str {
    match rustix::fs::statfs(dir).expect("a folder").f_type {
        0xEF53 | 0x5846_5342 => "syncfs",
        _ => "fdatasync",
    }
}

#[test]
fn a_failed_sync_of_many_flushes_ends_the_process_and_loses_nothing() {
    // More than are synced one by one.
    const PARTITIONS: i32 = 20;
    let mut broker = Broker::start();
    let mut wire = with_topic(&broker, PARTITIONS);
    for partition in 0..PARTITIONS {
        let batch = fresh_batch(&[&marker(partition as u32)]);
        wire.produce("orders", partition, batch)
            .expect("acknowledged");
    }
    broker.wait_log_at_rest();
    let sync = sync_of_many(broker.data_dir());
    let trace = format!("trace={sync}");
    let inject = format!("inject={sync}:error=EIO");
    let strace = Strace::attach(&broker, &["-e", &trace, "-e", &inject]);
    // A clean stop flushes all of them in one round.
    broker.signal(Signal::TERM);
    let status = broker.wait_exit(WITHIN);
    assert!(!status.success(), "{status}");
    let failed = strace.calls_when("the sync that failed is in the trace", |calls| {
        calls.iter().any(|call| call.result < 0)
    });
    assert!(failed.iter().all(|call| call.result < 0), "{failed:?}");
    drop(strace);
    let log = broker.log();
    let told = format!("cannot write {}/p/", broker.data_dir().display());
    assert!(log.contains(&told), "no flush has failed: {log}");

    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    for partition in 0..PARTITIONS {
        let records = wire.read_all("orders", partition, 0).expect("readable");
        let (_, last) = records.last().expect("what was acknowledged is there");
        assert_eq!(last.to_vec(), marker(partition as u32));
    }
    let metrics = broker.metrics();
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
