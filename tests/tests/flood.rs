//! Floods: storms of connections, huge requests that are half sent, readers that take nothing. A well-behaved client is
//! answered soon all the while, the process stays within its memory, and limits on connections hold.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiVersionsRequest, BrokerId, FetchRequest, TopicName};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup, wait_until};

/// Connections of the storm that stay open, beside those that come and go.
const STORM: usize = 2_000;
/// Requests that are announced with this much and get no further than half of it.
const HUGE_BYTES: u32 = 24 << 20;
const HUGE: usize = 16;
const LARGE_BYTES: u32 = 1 << 20;
const LARGE: usize = 64;
/// Clients that ask for all there is and read nothing.
const SLOW_READERS: usize = 40;
/// What the others may have to wait at the 99th percentile, of a debug build among other tests; who holds memory and does
/// not move is given half a second, and some rounds of them come before.
const P99_MAX: Duration = Duration::from_secs(4);
/// Tail (64 MiB), the budgets of requests and replies, and the process itself.
const RSS_BYTES_MAX: u64 = 400 << 20;
const WITHIN: Duration = Duration::from_secs(20);

/// The flood comes from another address of this machine than the others: turns are taken by address.
const FLOOD_FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn connect(bootstrap: &str) -> TcpStream {
    let address = bootstrap.parse().expect("an address");
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((FLOOD_FROM, 0)))?;
        let stream = socket.connect(address).await?.into_std()?;
        stream.set_nonblocking(false)?;
        std::io::Result::Ok(stream)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime")
        .block_on(connect)
        .expect("the port is open")
}

/// A Produce frame of this length, as far as `sent` bytes go.
fn half_sent(bootstrap: &str, length: u32, sent: usize) -> TcpStream {
    let mut stream = connect(bootstrap);
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a socket option");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 1]);
    bytes.resize(sent, 7);
    // Whoever stands in the queue is not read: what fits the sockets is sent.
    let _ = stream.write_all(&bytes);
    stream
}

fn all_of(topic: &str) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(i32::MAX);
    let topic = FetchTopic::default()
        .with_topic(TopicName(text(topic)))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Everything at once; what is returned must be held.
fn attack(bootstrap: &str) -> (Vec<TcpStream>, Vec<Wire>) {
    let mut streams: Vec<TcpStream> = (0..HUGE)
        .map(|_| half_sent(bootstrap, HUGE_BYTES, 200_000))
        .collect();
    streams.extend((0..LARGE).map(|_| half_sent(bootstrap, LARGE_BYTES, 500_000)));
    let readers = (0..SLOW_READERS).map(|_| {
        let mut wire = Wire::over(connect(bootstrap));
        wire.send(11, &all_of("big")).expect("sent");
        wire
    });
    let readers = readers.collect();
    for n in 0..STORM {
        if let Ok(mut stream) = TcpStream::connect(bootstrap) {
            if n % 2 == 0 {
                let _ = stream.write_all(&[0, 0, 0, 50, 0]);
            }
            streams.push(stream);
        }
    }
    (streams, readers)
}

/// How long an answer took, and to what.
type Took = (Duration, &'static str);

/// One round of a well-behaved client; each answer's time.
fn serve(wire: &mut Wire, bootstrap: &str, sequence: &mut u64, took: &mut Vec<Took>) {
    let mut timed = |what, call: &mut dyn FnMut()| {
        let started = Instant::now();
        call();
        took.push((started.elapsed(), what));
    };
    timed("ApiVersions", &mut || {
        wire.call(2, &ApiVersionsRequest::default());
    });
    let small = fresh_batch(&[&payload(100, 1, *sequence)]);
    timed("a small Produce", &mut || {
        wire.produce("orders", 0, small.clone()).expect("a record");
    });
    let large = fresh_batch(&[&payload(300_000, 1, *sequence)]);
    timed("a large Produce", &mut || {
        wire.produce("orders", 1, large.clone()).expect("a record");
    });
    timed("Fetch", &mut || {
        let fetched = wire.fetch("orders", 0, *sequence as i64);
        assert_eq!(fetched.error, None);
        assert!(!fetched.bytes.is_empty());
    });
    timed("a new connection", &mut || {
        Wire::connect(bootstrap).call(2, &ApiVersionsRequest::default());
    });
    *sequence += 1;
}

struct SetAtDrop<'a>(&'a AtomicBool);

impl Drop for SetAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn d10_a_flood_makes_no_other_client_wait_for_long() {
    /// The attack goes on for this long after its last connection was made.
    const LASTS: Duration = Duration::from_secs(3);
    let mut broker = BrokerSetup::new()
        .set("keelson.tail.memory.bytes", 64 << 20)
        .start();
    let bootstrap = broker.bootstrap().to_owned();
    let mut wire = Wire::connect(&bootstrap);
    wire.create_topic("orders", 2, &[]);
    wire.create_topic("big", 1, &[]);
    for n in 0..16 {
        wire.produce("big", 0, fresh_batch(&[&payload(900_000, 2, n)]))
            .expect("a record");
    }
    let (mut sequence, mut before, mut during) = (0, Vec::new(), Vec::new());
    for _ in 0..20 {
        serve(&mut wire, &bootstrap, &mut sequence, &mut before);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _end = SetAtDrop(&done);
            let held = attack(&bootstrap);
            let until = Instant::now() + LASTS;
            while Instant::now() < until {
                drop(TcpStream::connect(&bootstrap));
            }
            drop(held);
        });
        while !done.load(Ordering::Acquire) {
            serve(&mut wire, &bootstrap, &mut sequence, &mut during);
        }
    });
    before.sort_unstable();
    during.sort_unstable();
    let at = |sorted: &[Took], part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    let (p50, p99, max) = (at(&during, 0.5).0, at(&during, 0.99), at(&during, 1.0));
    eprintln!(
        "{} answers during the flood: p50 {p50:?}, p99 {p99:?}, max {max:?}; before it: p50 {:?}, p99 {:?}; RSS {} MiB",
        during.len(),
        at(&before, 0.5).0,
        at(&before, 0.99),
        broker.rss_bytes() >> 20
    );
    assert!(broker.is_running() && !broker.log().contains("panicked"));
    assert!(p99.0 < P99_MAX, "{p99:?}");
    assert!(broker.rss_bytes() < RSS_BYTES_MAX);
}

#[test]
fn connections_from_one_address_are_bounded() {
    let check = |sets: &[(&str, &str)], max: usize| {
        let setup = sets.iter().fold(BrokerSetup::new(), |setup, (key, value)| {
            setup.set(key, value)
        });
        let broker: Broker = setup.start();
        let mut held: Vec<Wire> = (0..max)
            .map(|_| {
                let mut wire = Wire::connect(broker.bootstrap());
                wire.call(2, &ApiVersionsRequest::default());
                wire
            })
            .collect();
        let mut further = Wire::connect(broker.bootstrap());
        let answer = further.try_call(2, &ApiVersionsRequest::default());
        assert!(answer.is_err(), "{sets:?}: one more than {max}");
        held.pop();
        wait_until("a place is free again", WITHIN, || {
            Wire::connect(broker.bootstrap())
                .try_call(2, &ApiVersionsRequest::default())
                .is_ok()
        });
        for wire in &mut held {
            wire.call(2, &ApiVersionsRequest::default());
        }
    };
    check(&[("max.connections.per.ip", "3")], 3);
    check(&[("max.connections", "2")], 2);
    let overrides = ("max.connections.per.ip.overrides", "127.0.0.1:4,10.0.0.1:1");
    check(&[("max.connections.per.ip", "1"), overrides], 4);
}
