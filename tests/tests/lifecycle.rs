//! The life of a broker as Kubernetes sees it: what it is known by, an end in order, and probes that mean what they say.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use keelson_tests::broker::{BrokerSetup, StartFailed, scratch_dir};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, http, kube, rdk, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

const EXIT_WITHIN: Duration = Duration::from_secs(30);

/// A broker whose operator keeps what it sees in a folder.
struct Watched {
    home: tempfile::TempDir,
}

impl Watched {
    fn new() -> Self {
        let home = scratch_dir();
        std::fs::create_dir(home.path().join("known")).expect("a folder");
        Self { home }
    }

    fn setup(&self, data: &str) -> BrokerSetup {
        let path = |name: &str| self.home.path().join(name).display().to_string();
        BrokerSetup::new()
            .data_dir(self.home.path().join(data))
            .set("keelson.known.dir", path("known"))
            .set("keelson.termination.message.path", path("termination"))
    }

    /// What the operator does: it writes down what the broker says.
    fn note(&self, broker: &Broker) -> Value {
        let answer = identity(broker);
        let path = self.home.path().join("known/broker-0.identity");
        std::fs::write(path, answer.to_string()).expect("the entry is written");
        answer
    }

    /// A start that is refused, with these words in all three places.
    #[track_caller]
    fn refused(&self, data: &str, words: &str) -> StartFailed {
        let failed = self
            .setup(data)
            .try_start()
            .expect_err("the start is refused");
        assert_eq!(failed.status.code(), Some(1));
        assert!(failed.log.contains(words), "{}", failed.log);
        let message = std::fs::read_to_string(self.home.path().join("termination"));
        let message = message.expect("the termination message is written");
        assert!(message.contains(words), "{message}");
        failed
    }

    /// Does what the last words of a refusal say.
    fn accept(&self, failed: &StartFailed) {
        let (_, line) = failed
            .log
            .rsplit_once("To accept it for good: ")
            .expect("a line");
        let line = line.lines().next().expect("a line");
        let done = Command::new("sh").args(["-c", line]).status();
        assert!(done.expect("a shell").success(), "{line}");
    }

    fn copy(&self, from: &str, to: &str) {
        let path = |name: &str| self.home.path().join(name);
        let done = Command::new("cp")
            .arg("-a")
            .args([path(from), path(to)])
            .status();
        assert!(done.expect("cp").success());
    }
}

fn identity(broker: &Broker) -> Value {
    serde_json::from_str(&broker.get("/admin/v1/identity")).expect("JSON")
}

fn produce(broker: &Broker, topic: &str) {
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic(topic, 1, &[]);
    let request = Wire::produce_request(topic, 0, fresh_batch(&[&payload(64, 1, 0)]), -1);
    let answer = wire.call(8, &request);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

#[test]
fn an_empty_volume_where_data_is_known_is_refused_until_that_is_accepted() {
    let watched = Watched::new();
    let mut broker = watched.setup("data").start();
    produce(&broker, "orders");
    let first = watched.note(&broker);
    assert_eq!(
        (&first["boot"], &first["replaces"]),
        (&json!(1), &Value::Null)
    );
    broker.stop();
    // The known directory, one start later.
    broker.restart();
    let known = watched.note(&broker);
    assert_eq!(known["boot"], 2);
    broker.stop();

    let failed = watched.refused("empty", "is empty, but the data of broker 0");
    assert!(
        !watched.home.path().join("empty").exists(),
        "a refused start leaves nothing behind"
    );
    watched.accept(&failed);
    let mut accepted = watched.setup("empty").start();
    let now = identity(&accepted);
    assert_eq!(
        now["cluster_id"], known["cluster_id"],
        "the cluster goes on"
    );
    assert_eq!(now["replaces"]["directory_id"], known["directory_id"]);
    assert_eq!(
        (&now["boot"], &now["replaces"]["boot"]),
        (&json!(1), &json!(2))
    );
    // The operator has not taken note yet: what was accepted stays accepted.
    accepted.kill9();
    accepted.restart();
    watched.note(&accepted);
    accepted.stop();
    // The line is used up: neither the next empty volume nor the old one comes back by it.
    watched.refused("another", "is empty, but");
    watched.refused("data", "another volume is mounted");
}

#[test]
fn an_older_copy_is_refused_and_one_that_was_accepted_counts_on_above_what_was_seen() {
    let watched = Watched::new();
    let mut broker = watched.setup("data").start();
    produce(&broker, "orders");
    broker.stop();
    watched.copy("data", "copy");
    broker.restart();
    produce(&broker, "lost");
    broker.stop();
    broker.restart();
    assert_eq!(watched.note(&broker)["boot"], 3);
    broker.stop();

    let failed = watched.refused("copy", "is an older copy");
    watched.accept(&failed);
    let mut copy = watched.setup("copy").start();
    let now = identity(&copy);
    assert_eq!(
        (&now["boot"], &now["replaces"]["boot"]),
        (&json!(4), &json!(3))
    );
    watched.note(&copy);
    copy.stop();
    watched.refused("data", "is an older copy");
}

#[test]
fn the_volume_of_another_broker_or_cluster_is_refused() {
    let watched = Watched::new();
    let mut broker = watched.setup("data").start();
    watched.note(&broker);
    broker.stop();
    let mut other = watched
        .setup("other-cluster")
        .set("keelson.known.dir", "/none")
        .start();
    produce(&other, "orders");
    other.stop();
    watched.refused("other-cluster", "belongs to cluster");
    let setup = watched.setup("data").set("node.id", 1);
    let failed = setup.try_start().expect_err("the start is refused");
    let words = "the directory belongs to broker 0, this is broker 1";
    assert!(failed.log.contains(words), "{}", failed.log);
    std::fs::write(watched.home.path().join("known/broker-0.identity"), "{").expect("written");
    watched.refused("data", "it is not what the operator writes");
}

/// What somebody outside sees at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    connects: bool,
    ready_file: bool,
    /// `None`: HTTP has ended, too.
    ready: Option<bool>,
}

fn look(kafka: &str, http: &str, ready_file: &Path) -> Moment {
    let connects = TcpStream::connect(kafka).is_ok();
    Moment {
        connects,
        ready_file: ready_file.exists(),
        ready: http::get(http, "/readyz").ok().map(|it| it.status == 200),
    }
}

#[test]
fn sigterm_ends_in_order() {
    const BATCHES: u64 = 64;
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 4, &[]);
    // Enough that the flush at the end is seen from outside.
    let large = payload(512 * 1024, 1, 0);
    for number in 0..BATCHES {
        let partition = (number % 4) as i32;
        let request = Wire::produce_request("orders", partition, fresh_batch(&[&large]), -1);
        let answer = wire.call(8, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    let (kafka, http) = (broker.bootstrap().to_owned(), broker.http().to_owned());
    let ready_file = broker.home().join("ready.json");
    let before = look(&kafka, &http, &ready_file);
    assert_eq!(
        (before.connects, before.ready_file, before.ready),
        (true, true, Some(true))
    );
    broker.signal(Signal::TERM);
    let mut moments = Vec::new();
    while broker.is_running() {
        moments.push(look(&kafka, &http, &ready_file));
    }
    let status = broker.wait_exit(EXIT_WITHIN);
    assert_eq!(status.code(), Some(0));
    // The port is looked at first: once it is closed, everything that comes before must have been seen to be over.
    for moment in moments.iter().filter(|it| !it.connects) {
        assert!(
            !moment.ready_file && moment.ready != Some(true),
            "{moments:?}"
        );
    }
    assert!(
        moments
            .iter()
            .any(|it| !it.connects && it.ready == Some(false)),
        "HTTP outlives the Kafka port: {moments:?}"
    );
    // Everything is in segments, the WAL is sealed, and the next start knows how this one ended.
    let (code, text) = Broker::offline(&["log", "dump"], broker.data_dir());
    let last = text.lines().rfind(|line| line.starts_with("  frame "));
    assert!(
        code == 0 && last.is_some_and(|it| it.ends_with(" seal")),
        "{last:?}"
    );
    assert_eq!(broker.verify().0, 0);
    broker.restart();
    let metrics = broker.metrics();
    assert_eq!(
        metrics.sum("keelson_last_exit_info", &[("reason", "stopped")]),
        1.0
    );
    assert_eq!(
        metrics.sum("keelson_wal_torn_tail_truncations_total", &[]),
        0.0
    );
    assert_eq!(
        metrics.sum("keelson_wal_recovery_remaining_bytes", &[]),
        0.0
    );
}

/// Brokers, and error and leader of the first partition, as Metadata tells them on a connection.
fn metadata(address: &str) -> (Vec<String>, (i16, i32)) {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text("orders"))));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let answer = Wire::connect(address).call(12, &request);
    let brokers = answer.brokers.iter();
    let brokers = brokers
        .map(|it| format!("{}:{}", it.host, it.port))
        .collect();
    let partition = &answer.topics[0].partitions[0];
    (brokers, (partition.error_code, partition.leader_id.0))
}

#[test]
fn each_listener_tells_its_own_address_and_follows_what_is_told_without_a_restart() {
    const LISTENER_NOT_FOUND: i16 = 72;
    let watched = Watched::new();
    let broker = watched
        .setup("data")
        .set(
            "listeners",
            "PLAINTEXT://127.0.0.1:0,EXTERNAL://127.0.0.1:0",
        )
        .set(
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT",
        )
        .start();
    produce(&broker, "orders");
    let [inside, outside] = broker.ready().kafka.as_slice() else {
        panic!("two listeners are in the ready file");
    };
    assert_eq!(metadata(inside), (vec![inside.clone()], (0, 0)));
    assert_eq!(metadata(outside), (vec![], (LISTENER_NOT_FOUND, -1)));
    let listeners = identity(&broker)["listeners"].clone();
    assert_eq!(listeners[0]["advertised"], json!(inside));
    assert_eq!(
        (&listeners[1]["bound"], &listeners[1]["advertised"]),
        (&json!(outside), &Value::Null)
    );

    let port: u16 = outside
        .rsplit(':')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a port");
    let told = json!({ "host": "localhost", "port": port, "why": "the test says so" });
    std::fs::write(
        watched.home.path().join("known/broker-0.EXTERNAL"),
        told.to_string(),
    )
    .expect("written");
    let expected = (vec![format!("localhost:{port}")], (0, 0));
    wait_until("it is told", EXIT_WITHIN, || metadata(outside) == expected);
    assert_eq!(metadata(inside), (vec![inside.clone()], (0, 0)));
    let listeners = identity(&broker)["listeners"].clone();
    assert_eq!(listeners[1]["why"], "the test says so");
    assert!(
        broker.log().contains("the test says so"),
        "the change is in the log"
    );
    // A client that starts outside stays outside.
    assert_eq!(rdk::read_group(outside, "orders", "outside", 1).len(), 1);
}

#[test]
fn probes_tell_a_long_recovery_from_a_broker_that_hangs() {
    const RECOVERY_MS: u64 = 1500;
    let mut broker = BrokerSetup::new()
        .set("http.listen", format!("127.0.0.1:{}", kube::free_port()))
        .start();
    produce(&broker, "orders");
    broker.kill9();
    // After a kill, what the last run left is synced first.
    let delay = format!("inject=syncfs:delay_enter={}", RECOVERY_MS * 1000);
    let output = broker.home().join("strace").display().to_string();
    let words = [
        "strace",
        "-D",
        "-f",
        "-q",
        "-o",
        &output,
        "-e",
        "trace=syncfs",
        "-e",
        &delay,
    ];
    *broker.setup_mut() = broker.setup_mut().clone().wrap(words);
    let http = broker.http().to_owned();
    let started = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let probe = |path: &str| http::get(&http, path).ok().map(|it| (it.status, it.body));
            let mut seen = Vec::new();
            while !started.load(Ordering::Acquire) {
                // In this order: what is not ready now is alive after that.
                seen.push([probe("/readyz"), probe("/startupz"), probe("/livez")]);
            }
            seen
        });
        broker.restart();
        started.store(true, Ordering::Release);
        looking.join().expect("the probes were made")
    });
    let is = |probe: &Option<(u16, String)>, status: u16| {
        probe.as_ref().is_some_and(|it| it.0 == status)
    };
    let recovering: Vec<_> = seen.iter().filter(|it| is(&it[0], 503)).collect();
    assert!(!recovering.is_empty(), "the recovery was seen");
    for moment in &recovering {
        assert!(is(&moment[1], 200) && is(&moment[2], 200), "{moment:?}");
    }
    let words = "the log is being recovered";
    assert!(
        recovering
            .iter()
            .any(|it| it[0].as_ref().is_some_and(|it| it.1.contains(words))),
        "{seen:?}"
    );
    assert!(is(
        &http::get(&http, "/readyz")
            .ok()
            .map(|it| (it.status, it.body)),
        200
    ));
}
