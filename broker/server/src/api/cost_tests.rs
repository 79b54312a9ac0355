//! What a request costs: allocations on the connection's thread, from the frame to the encoded answer, and instructions.
//!
//! Owns the bounds on allocations, which a change may only raise with a reason; what other threads and the owners of groups
//! allocate is not counted. Instructions are counted by `make bench-requests`, which runs the last test here under
//! callgrind. The numbers of both stand in `docs/performance.md`.

use std::hint::black_box;

use bytes::Bytes;
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::frame::RequestHeader;
use keelson_protocol::kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use keelson_protocol::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use keelson_protocol::kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use keelson_protocol::kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use keelson_protocol::kafka_protocol::messages::{
    FetchRequest, FetchResponse, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, MetadataRequest, SyncGroupRequest,
};
use keelson_protocol::kafka_protocol::protocol::{Encodable, Request, StrBytes};
use keelson_protocol::{
    BATCH_HEADER_BYTES, BatchHeader, Compression, Levels, ValidateLimits, recompress,
    validate_produced,
};
use tokio::runtime::Runtime;

use crate::counting::allocations;
use crate::dispatch::{self, Answered, Dispatched};
use crate::partitions::{AckGroup, Incoming};
use crate::testing::{TestBroker, batch, decode, frame, name, produce_request};

/// What must be there before a request is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A topic with a hundred batches.
    Orders,
    /// A group with one member.
    Group,
    /// A topic of a thousand partitions, in a session of fetches.
    Wide,
    /// A thousand topics.
    Topics,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Produce { records: usize },
    Fetch,
    Heartbeat,
    FetchInFull,
    FetchInSession,
    Metadata { all: bool },
}

/// A request that is measured.
struct Case {
    what: &'static str,
    place: Place,
    asked: Asked,
    /// A record arrives before each.
    fed: bool,
    allocations_max: u64,
}

const fn case(what: &'static str, place: Place, asked: Asked, allocations_max: u64) -> Case {
    Case {
        what,
        place,
        asked,
        fed: false,
        allocations_max,
    }
}

const CASES: [Case; 10] = [
    case(
        "Produce 9, 1 record",
        Place::Orders,
        Asked::Produce { records: 1 },
        12,
    ),
    case(
        "Produce 9, 1,000 records",
        Place::Orders,
        Asked::Produce { records: 1_000 },
        12,
    ),
    case("Fetch 12, 100 batches", Place::Orders, Asked::Fetch, 26),
    case("Heartbeat 4", Place::Group, Asked::Heartbeat, 8),
    case(
        "Fetch 12, 1,000 partitions, in full",
        Place::Wide,
        Asked::FetchInFull,
        25,
    ),
    case(
        "Fetch 12, the same in a session, nothing new",
        Place::Wide,
        Asked::FetchInSession,
        9,
    ),
    Case {
        fed: true,
        ..case(
            "Fetch 12, the same, one has a record",
            Place::Wide,
            Asked::FetchInSession,
            20,
        )
    },
    case(
        "Metadata 12, all of 1,000 topics",
        Place::Topics,
        Asked::Metadata { all: true },
        4_200,
    ),
    case(
        "Metadata 12, 1 topic of 1,000",
        Place::Topics,
        Asked::Metadata { all: false },
        40,
    ),
    case(
        "Metadata 12, 1 topic of few",
        Place::Orders,
        Asked::Metadata { all: false },
        40,
    ),
];

/// A broker on which cases are asked.
struct Bench {
    test: TestBroker,
    /// The member of the group.
    member: StrBytes,
    /// The session, and its next epoch.
    session: (i32, i32),
}

impl Bench {
    async fn new(place: Place) -> Self {
        let sets: &[&str] = match place {
            Place::Wide => &["num.partitions=1000"],
            Place::Group => &[
                "group.initial.rebalance.delay.ms=0",
                "offsets.topic.num.partitions=1",
            ],
            Place::Orders | Place::Topics => &[],
        };
        let mut bench = Self {
            test: TestBroker::start(sets).await,
            member: StrBytes::default(),
            session: (0, 0),
        };
        match place {
            Place::Orders => {
                bench.test.create(&["topic-7"]).await;
                for n in 0..100_u8 {
                    bench.test.produce("topic-7", 0, &[&[n; 100]]).await;
                }
            }
            Place::Group => bench.join().await,
            Place::Wide => {
                bench.test.create(&["wide"]).await;
                let full = fetch_of("wide", 1000, (0, 0));
                let response: FetchResponse = bench.test.call_version(full, 12).await;
                bench.session = (response.session_id, 1);
            }
            Place::Topics => {
                let names: Vec<String> = (0..1000).map(|n| format!("topic-{n}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                bench.test.create(&names).await;
            }
        }
        bench
    }

    async fn join(&mut self) {
        let find = FindCoordinatorRequest::default().with_key(group().0);
        while self.test.call_version(find.clone(), 3).await.error_code != 0 {
            tokio::task::yield_now().await;
        }
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(&[0; 8]));
        let join = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        // The first answer gives the member its name.
        let named = self.test.call_version(join.clone(), 5).await.member_id;
        let joined = self.test.call_version(join.with_member_id(named), 5).await;
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        self.member = joined.member_id;
        let assignment = SyncGroupRequestAssignment::default().with_member_id(self.member.clone());
        let sync = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(self.member.clone())
            .with_assignments(vec![assignment]);
        assert_eq!(self.test.call_version(sync, 4).await.error_code, 0);
    }

    /// The next frame of a case, with its API key.
    async fn next(&mut self, case: &Case) -> (i16, Bytes) {
        if case.fed {
            self.test.produce("wide", 500, &[b"x"]).await;
        }
        match case.asked {
            Asked::Produce { records } => {
                let values = vec![&[7_u8; 100][..]; records];
                of(&produce_request("topic-7", 0, batch(&values), 1), 9)
            }
            Asked::Fetch => of(&fetch_of("topic-7", 1, (0, -1)), 12),
            Asked::Heartbeat => of(
                &HeartbeatRequest::default()
                    .with_group_id(group())
                    .with_generation_id(1)
                    .with_member_id(self.member.clone()),
                4,
            ),
            Asked::FetchInFull => of(&fetch_of("wide", 1000, (0, -1)), 12),
            Asked::FetchInSession => {
                let (id, epoch) = self.session;
                self.session.1 += 1;
                let fetch = FetchRequest::default()
                    .with_session_id(id)
                    .with_session_epoch(epoch);
                of(&fetch, 12)
            }
            Asked::Metadata { all } => {
                let one = MetadataRequestTopic::default().with_name(Some(name("topic-7")));
                let topics = (!all).then(|| vec![one]);
                of(&MetadataRequest::default().with_topics(topics), 12)
            }
        }
    }
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("group"))
}

fn fetch_of(topic: &str, partitions: i32, session: (i32, i32)) -> FetchRequest {
    let partitions = (0..partitions).map(|n| {
        FetchPartition::default()
            .with_partition(n)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(vec![topic])
}

fn of<R: Request + Encodable>(body: &R, version: i16) -> (i16, Bytes) {
    (R::KEY, frame(body, version, 7).slice(4..))
}

/// Runs a frame up to its answer, or up to where it waits for somebody else.
fn start(test: &TestBroker, (key, mut bytes): (i16, Bytes)) -> Dispatched {
    let header = RequestHeader::decode(&mut bytes).unwrap();
    let frame = dispatch::Frame {
        header,
        body: bytes,
        origin: crate::testing::local_origin(),
        pin: None,
    };
    let route = dispatch::route(key).unwrap();
    dispatch::ROUTES[route].call(&test.broker, frame).unwrap()
}

/// The whole way of a frame; on a runtime of one thread this thread runs the owners, too. Callgrind knows it by its name.
#[inline(never)]
fn measured(runtime: &Runtime, test: &TestBroker, request: (i16, Bytes)) -> Answered {
    match start(test, request) {
        Dispatched::Ready(answered) => answered,
        Dispatched::Later(later) | Dispatched::Alone(later) => runtime.block_on(later).unwrap(),
        Dispatched::Silent | Dispatched::Close(_) => panic!("an answer is due"),
    }
}

/// Every case of a place, at its second run: the first one fills what is made once.
async fn check(place: Place) {
    let mut bench = Bench::new(place).await;
    for case in CASES.iter().filter(|case| case.place == place) {
        let request = bench.next(case).await;
        finish(start(&bench.test, request)).await;
        let request = bench.next(case).await;
        let (dispatched, count, bytes) = allocations(|| start(&bench.test, request));
        finish(black_box(dispatched)).await;
        eprintln!("| {} | {count} | {bytes} |", case.what);
        assert!(
            count <= case.allocations_max,
            "{}: {count} allocations, {} are allowed",
            case.what,
            case.allocations_max
        );
    }
}

async fn finish(dispatched: Dispatched) {
    let answered = match dispatched {
        Dispatched::Ready(answered) => answered,
        Dispatched::Later(later) | Dispatched::Alone(later) => later.await.unwrap(),
        Dispatched::Silent | Dispatched::Close(_) => panic!("an answer is due"),
    };
    assert_eq!(answered.error, None);
}

#[tokio::test]
async fn requests_allocate_no_more_than_they_must() {
    check(Place::Orders).await;
    check(Place::Group).await;
}

#[tokio::test]
async fn an_incremental_fetch_of_1000_quiet_partitions_looks_at_none_of_them() {
    check(Place::Wide).await;
}

#[tokio::test]
async fn metadata_of_1000_topics_allocates_by_topic() {
    check(Place::Topics).await;
}

fn number(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable);
    text.map_or(default, |text| text.parse().unwrap())
}

/// `KEELSON_COST_CASE` chooses one case by its number, `KEELSON_COST_RUNS` says how often it is measured.
#[test]
fn each_case_can_be_asked_again_and_again() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let runs = number("KEELSON_COST_RUNS", 1);
    let (first, count) = match number("KEELSON_COST_CASE", CASES.len()) {
        all if all == CASES.len() => (0, all),
        one => (one, 1),
    };
    for case in &CASES[first..first + count] {
        let mut bench = runtime.block_on(Bench::new(case.place));
        let _context = runtime.enter();
        for run in 0..2 + runs {
            let request = runtime.block_on(bench.next(case));
            if run < 2 {
                // What is made once is made here.
                runtime.block_on(async { finish(start(&bench.test, request)).await });
                continue;
            }
            let answered = measured(&runtime, &bench.test, request);
            assert_eq!(answered.error, None, "{}", case.what);
        }
        eprintln!("case: {}", case.what);
    }
}
#[tokio::test]
async fn a_compressed_batch_is_decompressed_once() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    let plain = batch(&vec![&[7_u8; 100][..]; 1000]);
    let how = (Compression::Gzip, Levels::default());
    let compressed = recompress(&plain, how, 1 << 20).unwrap();
    let limits = ValidateLimits {
        batch_bytes_max: 1 << 20,
        decompressed_bytes_max: 1 << 20,
        produce_version: 9,
    };
    let taken = |records: &Bytes| {
        let request = of(&produce_request("orders", 0, records.clone(), 1), 9);
        allocations(|| start(&test, request))
    };
    finish(taken(&plain).0).await;
    let (first, of_plain, bytes_of_plain) = taken(&plain);
    finish(first).await;
    let (second, of_compressed, bytes_of_compressed) = taken(&compressed);
    finish(second).await;
    let (valid, once, bytes_once) = allocations(|| validate_produced(&compressed, &limits));
    valid.unwrap();
    assert!(once > 0, "a decompressor allocates");
    assert!(
        of_compressed <= of_plain + once && bytes_of_compressed <= bytes_of_plain + bytes_once,
        "{of_compressed} allocations of {bytes_of_compressed} bytes: once takes {once} of {bytes_once}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_gives_records_that_nobody_could_decode() {
    let test = TestBroker::start(&[]).await;
    test.create(&["orders"]).await;
    // Past validation, which would refuse it: a batch whose records are noise under a right checksum.
    let mut builder = BatchBuilder::new(0);
    builder.push(None, Some(&[7; 100]));
    let mut bytes = builder.build().to_vec();
    bytes[BATCH_HEADER_BYTES..].fill(0xff);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let owner = test.broker.partitions.partition("orders", 0).unwrap();
    let acks = std::sync::Arc::new(AckGroup::default());
    let incoming = Incoming {
        header: BatchHeader::parse(&bytes).unwrap(),
        bytes: bytes.clone().into(),
        pin: None,
        leader_epoch: 0,
        now_ms: 0,
    };
    owner.append(incoming, 0, &acks).unwrap();
    std::future::poll_fn(|cx| acks.poll_done(cx)).await;
    let answer = test.dispatch::<FetchRequest>(frame(&fetch_of("orders", 1, (0, -1)), 12, 7));
    let response = decode::<FetchRequest>(answer.await.0.unwrap(), 12);
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(&records[BATCH_HEADER_BYTES..], &bytes[BATCH_HEADER_BYTES..]);
}
