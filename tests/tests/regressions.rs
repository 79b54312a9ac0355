//! Failures that brokers of this kind have really had and that only a whole process shows, each caught by a test named after
//! its row in `tests/REGRESSIONS.md`; and that every test the table names is there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{ApiVersionsRequest, ListGroupsRequest};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::strace::Strace;
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, BrokerSetup, tools, wait_until};

const WITHIN: Duration = Duration::from_secs(60);
const TAIL_BYTES: u64 = 16 << 20;

fn with_topic(setup: BrokerSetup) -> Broker {
    let broker = setup.start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 1, &[]);
    broker
}

/// While every commit is slow and the producers have used up their memory, what is no produce is answered at once.
#[test]
fn d10_a_slow_disk_holds_up_producers_only() {
    const DELAY: Duration = Duration::from_millis(2_500);
    const PRODUCERS: usize = 24;
    let broker = with_topic(BrokerSetup::new().set("keelson.tail.memory.bytes", TAIL_BYTES));
    broker.wait_log_at_rest();
    let calls = "pwritev2,pwrite64,pwritev";
    let inject = format!("inject={calls}:delay_enter={}", DELAY.as_micros());
    let strace = Strace::attach(&broker, &["-e", &format!("trace={calls}"), "-e", &inject]);
    let value = payload(900_000, 1, 1);
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let mut wire = Wire::connect(broker.bootstrap());
        let batch = fresh_batch(&[&value]);
        producers.push(std::thread::spawn(move || {
            // Only that it does not end is of interest: more than the memory holds waits.
            let request = Wire::produce_request("orders", 0, batch, 1);
            let _ = wire.try_call(8, &request);
        }));
    }
    wait_until("the producers have filled their memory", WITHIN, || {
        broker.metrics().sum("keelson_tail_memory_bytes", &[]) >= 0.5 * TAIL_BYTES as f64
    });
    for _ in 0..3 {
        let begun = Instant::now();
        let mut wire = Wire::connect(broker.bootstrap());
        wire.call(2, &ApiVersionsRequest::default());
        wire.metadata("orders");
        wire.call(4, &ListGroupsRequest::default());
        let took = begun.elapsed();
        assert!(took < DELAY, "three control requests took {took:?}");
    }
    drop(strace);
    for producer in producers {
        producer.join().expect("a producer ends");
    }
}

#[test]
fn d12_no_request_writes_a_line_to_the_log() {
    const REQUESTS: i64 = 500;
    let broker = with_topic(BrokerSetup::new());
    let mut wire = Wire::connect(broker.bootstrap());
    wire.produce("orders", 0, fresh_batch(&[b"first"]))
        .expect("acknowledged");
    let before = broker.log().lines().count();
    for offset in 1..REQUESTS {
        assert_eq!(
            wire.produce("orders", 0, fresh_batch(&[b"more"])),
            Ok(offset)
        );
        assert_eq!(wire.fetch("orders", 0, offset).records().len(), 1);
    }
    let lines = broker.log().lines().count() - before;
    assert!(lines < 20, "{lines} lines for {REQUESTS} requests");
}

#[test]
fn d13_an_idle_broker_needs_no_processor_once_its_clients_are_gone() {
    const LOOK: Duration = Duration::from_secs(3);
    let broker = with_topic(BrokerSetup::new());
    for number in 0..50_u32 {
        let mut wire = Wire::connect(broker.bootstrap());
        wire.call(2, &ApiVersionsRequest::default());
        if number.is_multiple_of(2) {
            // Goes in the middle of a request.
            use std::io::Write;
            wire.stream()
                .write_all(&[0, 0, 1, 0, 0, 18])
                .expect("written");
        }
    }
    broker.wait_log_at_rest();
    let used = || processor_time(broker.pid());
    let (before, begun) = (used(), Instant::now());
    wait_until("a few seconds are over", WITHIN, || begun.elapsed() > LOOK);
    let share = (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.2, "{:.0} % of a processor at rest", share * 100.0);
}

/// User and system time of a process.
fn processor_time(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the broker runs");
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u64>().expect("a number"))
        .sum();
    // A tick is a hundredth of a second on every Linux that we know.
    Duration::from_millis(ticks * 10)
}

#[test]
fn i2_memory_taken_by_a_produce_comes_back() {
    const REQUESTS: i64 = 100;
    let broker = with_topic(BrokerSetup::new().set("keelson.tail.memory.bytes", TAIL_BYTES));
    let mut wire = Wire::connect(broker.bootstrap());
    // Six times what the memory holds, with each kind of answer.
    for number in 0..REQUESTS {
        let value = payload(1_000_000, 1, number as u64);
        let acks = [1, -1][(number % 2) as usize];
        let request = Wire::produce_request("orders", 0, fresh_batch(&[&value]), acks);
        let answer = wire.call(8, &request);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, number));
    }
    let records = wire.read_all("orders", 0, 0).expect("all is readable");
    assert_eq!(
        records.len() as i64,
        REQUESTS,
        "everything acknowledged is there"
    );
    for (offset, value) in records {
        assert!(
            value == payload(1_000_000, 1, offset as u64),
            "offset {offset}"
        );
    }
    wait_until("the memory is given back", WITHIN, || {
        broker.metrics().sum("keelson_tail_memory_bytes", &[]) < 0.75 * TAIL_BYTES as f64
    });
}

/// Every row has its test, or says why not; every test it names exists.
#[test]
fn the_table_names_tests_that_exist() {
    let path = tools::root().join("tests/REGRESSIONS.md");
    let text = std::fs::read_to_string(&path).expect("the table is there");
    let tests = all_tests();
    let mut rows = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, row, what, caught, _] = cells[..] else {
            panic!("a row has three cells: {line}");
        };
        if ["Row", "---"].contains(&row) {
            continue;
        }
        assert!(rows.insert(row.to_owned()), "{row} stands twice");
        assert!(!what.is_empty(), "{row} says what broke");
        let named: Vec<&str> = caught.split('`').skip(1).step_by(2).collect();
        assert!(
            !named.is_empty() || caught.starts_with("Cannot happen here: "),
            "{row} names a test or says why there is none"
        );
        for name in named {
            assert!(tests.contains(name), "{row}: there is no test {name}");
        }
    }
    for (class, count) in [
        ('A', 19),
        ('B', 9),
        ('C', 7),
        ('D', 13),
        ('E', 13),
        ('I', 18),
    ] {
        for number in 1..=count {
            let row = format!("{class}{number}");
            assert!(rows.remove(&row), "{row} is missing");
        }
    }
    assert!(
        rows.remove("F"),
        "F is missing: a class without rows of its own"
    );
    assert!(rows.is_empty(), "no such class: {rows:?}");
}

/// Names of all test functions of the project's Rust crates.
fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["broker", "tests", "operator", "crds"] {
        for path in keelson_tests::disk::files(&tools::root().join(folder)) {
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name = line
                    .trim_start_matches("async ")
                    .strip_prefix("fn ")
                    .and_then(|rest| rest.split('(').next());
                match name {
                    Some(name) if is_test => {
                        tests.insert(name.to_owned());
                        is_test = false;
                    }
                    _ => is_test = line.starts_with("#[") && (is_test || line.contains("test")),
                }
            }
        }
    }
    assert!(tests.len() > 200, "{} tests found", tests.len());
    tests
}
