//! What anybody may send to the Kafka port: random bytes, hostile frames of every API and version, floods of tiny elements,
//! crowds that announce much and send little. The process stays, its memory stays bounded, and others are served meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::Encodable;
use keelson_protocol::api::{APIS, ApiSpec};
use keelson_protocol::specimen::{Specimen, Width};
use keelson_tests::records::{batch, payload};
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// Tail memory of the brokers here: most of what produced bytes may take.
const TAIL_BYTES: u64 = 64 << 20;
/// The bound that is asserted: tail, the budgets of large requests (96 MiB) and replies (128 MiB), and the process itself.
const RSS_BYTES_MAX: u64 = 320 << 20;
/// How long a well-behaved client may have to wait for one answer: of a debug build, on a machine that runs other tests.
const SERVED_WITHIN: Duration = Duration::from_secs(20);
/// Longer than any answer to a hostile frame takes; the connection then counts as parked, which is lawful.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Connections that attack at once.
const THREADS: usize = 4;

fn broker() -> Broker {
    let broker = BrokerSetup::new()
        .set("keelson.tail.memory.bytes", TAIL_BYTES)
        .set("auto.create.topics.enable", false)
        .start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 1, &[]);
    broker
}

/// The most resident memory the process has ever had.
fn peak_rss_bytes(broker: &Broker) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("the broker runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the kernel tells VmHWM");
    let kib: u64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number");
    kib * 1024
}

/// Records of a real age: what is older than `retention.ms` goes while a test runs.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    since.as_millis() as i64
}

/// Produces, fetches and asks for versions, each on a connection of its own; tells how long the slowest answer took.
fn serve_well(bootstrap: &str, sequence: &mut u64) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut timed = |call: &mut dyn FnMut()| {
        let started = Instant::now();
        call();
        slowest = slowest.max(started.elapsed());
    };
    timed(&mut || {
        Wire::connect(bootstrap).call(2, &ApiVersionsRequest::default());
    });
    let value = payload(100, 1, *sequence);
    timed(&mut || {
        let offset = Wire::connect(bootstrap).produce("orders", 0, batch(&[&value], now_ms()));
        assert_eq!(offset, Ok(*sequence as i64));
    });
    timed(&mut || {
        let fetched = Wire::connect(bootstrap).fetch("orders", 0, *sequence as i64);
        assert_eq!(
            fetched.error, None,
            "high watermark {}",
            fetched.high_watermark
        );
        let last = fetched.records().pop().map(|(_, value)| value.to_vec());
        assert_eq!(
            last.as_ref(),
            Some(&value),
            "high watermark {}",
            fetched.high_watermark
        );
    });
    *sequence += 1;
    slowest
}

/// Runs `attack` while a well-behaved client is served all the time, then judges the process.
fn under(name: &str, broker: &mut Broker, attack: impl FnOnce(&str) + Send) {
    let bootstrap = broker.bootstrap().to_owned();
    let done = AtomicBool::new(false);
    let mut sequence = Wire::connect(&bootstrap)
        .list_offset("orders", 0, -1)
        .expect("an offset") as u64;
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            // Set also when the attack panics, so that the test ends.
            let _end = SetAtDrop(&done);
            attack(&bootstrap);
        });
        loop {
            slowest = slowest.max(serve_well(&bootstrap, &mut sequence));
            if done.load(Ordering::Acquire) {
                break;
            }
        }
        attacker.join().expect("the attack itself works");
    });
    assert!(broker.is_running(), "{name}: the process ended");
    assert!(!broker.log().contains("panicked"), "{name}: a panic");
    let peak = peak_rss_bytes(broker);
    eprintln!(
        "{name}: peak RSS {} MiB, slowest answer to the others {slowest:?}",
        peak >> 20
    );
    assert!(peak < RSS_BYTES_MAX, "{name}: {} MiB", peak >> 20);
    assert!(
        slowest < SERVED_WITHIN,
        "{name}: an answer took {slowest:?}"
    );
}

struct SetAtDrop<'a>(&'a AtomicBool);

impl Drop for SetAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A frame of this API and version with any body.
fn frame(spec: &ApiSpec, version: i16, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(spec.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(text("hostile")));
    let mut frame = BytesMut::from(&[0; 4][..]);
    header
        .encode(&mut frame, spec.request_header_version(version))
        .expect("a header encodes");
    frame.extend_from_slice(body);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.to_vec()
}

/// Sends bytes on a connection of their own and reads whatever comes until the broker closes, or parks it.
fn throw(bootstrap: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(bootstrap).expect("the port is open");
    stream
        .set_read_timeout(Some(ANSWER_WITHIN))
        .expect("a socket option");
    stream
        .set_write_timeout(Some(ANSWER_WITHIN))
        .expect("a socket option");
    // The broker may close before it has read everything: that is its answer.
    if stream.write_all(bytes).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = [0; 4096];
        while matches!(stream.read(&mut answer), Ok(n) if n > 0) {}
    }
}

/// Throws all of these, from several threads.
fn throw_all(bootstrap: &str, frames: &[Vec<u8>]) {
    std::thread::scope(|scope| {
        for part in frames.chunks(frames.len().div_ceil(THREADS).max(1)) {
            scope.spawn(move || part.iter().for_each(|frame| throw(bootstrap, frame)));
        }
    });
}

fn every_version() -> impl Iterator<Item = (&'static ApiSpec, i16)> {
    APIS.iter().flat_map(|spec| {
        (spec.advertised_min.max(spec.min)..=spec.max).map(move |version| (spec, version))
    })
}

/// The seed of a random test: from `KEELSON_SEED`, else a new one; printed, so that it can be played again.
fn seeded(name: &str) -> StdRng {
    let seed = std::env::var("KEELSON_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("{name}: KEELSON_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

#[test]
fn random_bytes() {
    const FRAMES: usize = 2_000;
    let mut broker = broker();
    let mut random = seeded("random_bytes");
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| {
            let mut bytes = vec![0; random.random_range(0..300)];
            random.fill_bytes(&mut bytes);
            match random.random_range(0..3) {
                0 => bytes, // noise from the first byte on
                1 => {
                    // a right length before noise
                    let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
                    out.extend_from_slice(&bytes);
                    out
                }
                _ => {
                    // a right header before noise
                    let spec = &APIS[random.random_range(0..APIS.len())];
                    frame(spec, random.random_range(spec.min..=spec.max), &bytes)
                }
            }
        })
        .collect();
    under("random bytes", &mut broker, |bootstrap| {
        throw_all(bootstrap, &frames)
    });
}

#[test]
fn hostile_counts_and_lengths_in_every_api_and_version() {
    let mut broker = broker();
    let mut frames = Vec::new();
    for (spec, version) in every_version() {
        let specimen = Specimen::new(spec, version, 1);
        frames.push(frame(spec, version, &specimen.body));
        for mark in &specimen.marks {
            let values: &[u32] = match mark.width {
                Width::I16 => &[0x7fff, 0x8000, 0xffff],
                Width::I32 => &[0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0010_0000],
                Width::Compact | Width::Varint => &[u32::MAX, 0x8000_0000, 0, 0x0010_0000],
            };
            frames.extend(
                values
                    .iter()
                    .map(|raw| frame(spec, version, &specimen.with(mark, *raw))),
            );
        }
    }
    eprintln!("{} frames", frames.len());
    under("hostile counts", &mut broker, |bootstrap| {
        throw_all(bootstrap, &frames)
    });
}

/// Overwrites one to three fields, or parts of some, with numbers that handlers get wrong.
fn with_odd_values(mut body: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    const ODD: [u64; 9] = [
        0,
        1,
        7,
        0x7f,
        0x7fff,
        0x7fff_ffff,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
    ];
    for _ in 0..random.random_range(1..=3) {
        let value = match random.random_range(0..3) {
            0 => random.random(),
            1 => 1 << random.random_range(0..64),
            _ => ODD[random.random_range(0..ODD.len())],
        };
        let width = [1, 2, 4, 8][random.random_range(0..4)];
        let at = random.random_range(0..=body.len());
        let end = (at + width).min(body.len());
        body.splice(at..end, value.to_be_bytes()[8 - width..].iter().copied());
    }
    body
}

#[test]
fn odd_values_in_every_api_and_version() {
    let rounds = std::env::var("KEELSON_HOSTILE_ROUNDS").map_or(4, |text| {
        text.parse().expect("KEELSON_HOSTILE_ROUNDS is a number")
    });
    let mut broker = broker();
    // What a specimen names is there, so that handlers get past the names.
    let mut wire = Wire::connect(broker.bootstrap());
    for name in ["name", "topic"] {
        wire.create_topic(name, 2, &[]);
    }
    let mut random = seeded("odd_values");
    for _ in 0..rounds {
        let frames: Vec<Vec<u8>> = every_version()
            .map(|(spec, version)| {
                let elements = random.random_range(1..=2);
                let body = Specimen::new(spec, version, elements).body;
                frame(spec, version, &with_odd_values(body, &mut random))
            })
            .collect();
        under("odd values", &mut broker, |bootstrap| {
            throw_all(bootstrap, &frames)
        });
    }
}

#[test]
fn truncated_frames_of_every_api_and_version() {
    let mut broker = broker();
    let mut frames = Vec::new();
    for (spec, version) in every_version() {
        let body = Specimen::new(spec, version, 1).body;
        let whole = frame(spec, version, &body);
        for part in 1..4 {
            // The stream ends within the frame, and a frame whose length is right ends within its body.
            frames.push(whole[..whole.len() * part / 4].to_vec());
            frames.push(frame(spec, version, &body[..body.len() * part / 4]));
        }
        // Lengths that no frame has.
        for length in [0, 1, 9, u32::MAX, 0x8000_0000, 0x7fff_ffff] {
            let mut bad = whole.clone();
            bad[..4].copy_from_slice(&u32::to_be_bytes(length));
            frames.push(bad);
        }
    }
    under("truncated frames", &mut broker, |bootstrap| {
        throw_all(bootstrap, &frames)
    });
}

#[test]
fn well_formed_bodies_of_millions_of_tiny_elements() {
    /// Just below what a frame without records may have, and a Produce of several million partitions.
    const CONTROL_BODY_BYTES: usize = 1_000_000;
    const PRODUCE_BODY_BYTES: usize = 24_000_000;
    let mut broker = broker();
    let mut frames = Vec::new();
    for spec in APIS {
        for version in [spec.min, spec.max] {
            let bytes = if spec.name == "Produce" {
                PRODUCE_BODY_BYTES
            } else {
                CONTROL_BODY_BYTES
            };
            if let Some(body) = Specimen::tiny(spec, version, bytes) {
                frames.push(frame(spec, version, &body));
            }
            // As many as the budget of one request lets through.
            if let Some(body) = Specimen::tiny(spec, version, 100_000) {
                frames.push(frame(spec, version, &body));
            }
        }
    }
    under("tiny elements", &mut broker, |bootstrap| {
        throw_all(bootstrap, &frames);
    });
}

#[test]
fn a_crowd_that_announces_much_and_sends_little() {
    const CROWD: usize = 400;
    let mut broker = broker();
    let produce = APIS
        .iter()
        .find(|spec| spec.name == "Produce")
        .expect("it is served");
    let metadata = APIS
        .iter()
        .find(|spec| spec.name == "Metadata")
        .expect("it is served");
    under("a crowd", &mut broker, |bootstrap| {
        let mut crowd = Vec::new();
        for member in 0..CROWD {
            let (spec, length) = if member % 2 == 0 {
                (produce, 100 << 20)
            } else {
                (metadata, 1 << 20)
            };
            let mut bytes = frame(spec, spec.max, &vec![0; 1_000]);
            bytes[..4].copy_from_slice(&u32::to_be_bytes(length));
            let mut stream = TcpStream::connect(bootstrap).expect("the port is open");
            stream.write_all(&bytes).expect("a few bytes are taken");
            crowd.push(stream);
        }
        // All of them stay while others are served.
        let mut sequence = 0;
        let mut wire = Wire::connect(bootstrap);
        while sequence < 50 {
            wire.call(2, &ApiVersionsRequest::default());
            sequence += 1;
        }
        drop(crowd);
    });
}

#[test]
fn hostile_batches_in_a_well_formed_produce() {
    use kafka_protocol::ResponseError;
    let mut broker = broker();
    under("hostile batches", &mut broker, |bootstrap| {
        let mut random = seeded("hostile_batches");
        let mut wire = Wire::connect(bootstrap);
        wire.create_topic("victim", 1, &[]);
        let good = batch(&[&payload(200, 3, 1)], now_ms());
        for _ in 0..300 {
            let mut bad = good.clone();
            // Behind the parts that the checksum leaves out.
            let at = random.random_range(16..bad.len());
            bad[at] ^= random.random_range(1..=255u8);
            if random.random_bool(0.5) {
                let crc = crc32c::crc32c(&bad[21..]);
                bad[17..21].copy_from_slice(&crc.to_be_bytes());
            }
            // A flipped bit of a key or value with a right checksum is a lawful record.
            match wire.produce("victim", 0, bad) {
                Ok(_) => {}
                Err(
                    ResponseError::CorruptMessage
                    | ResponseError::InvalidRecord
                    | ResponseError::InvalidTimestamp
                    | ResponseError::UnsupportedForMessageFormat
                    | ResponseError::UnsupportedCompressionType
                    | ResponseError::OutOfOrderSequenceNumber
                    | ResponseError::UnknownProducerId
                    | ResponseError::InvalidProducerEpoch
                    | ResponseError::InvalidTxnState
                    | ResponseError::InvalidRequest,
                ) => {}
                Err(other) => panic!("{other:?} for a hostile batch"),
            }
        }
        // What was taken is readable to the last record.
        wire.read_all("victim", 0, 0)
            .expect("everything that was acknowledged is readable");
    });
}
