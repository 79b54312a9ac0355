//! Clients as people use them: Debian's kcat (an old librdkafka), the rdkafka crate, kafka-python, Java's console tools.
//!
//! Each produces, consumes, joins groups (two members and a rebalance) and administers.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_tests::rdk::{self, CLIENT_WITHIN, Load};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, BrokerSetup, python, tools};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Runs a command with a text on its stdin; gives its stdout.
#[track_caller]
fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("an own child");
    // A child that ended early has its own exit code to tell of.
    let _ = feeder.join();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{errors}",
        output.status
    );
    String::from_utf8(output.stdout).expect("text")
}

fn kcat(broker: &Broker, words: &[&str]) -> Command {
    let mut command = tools::program("kcat", 60);
    command.args(["-b", broker.bootstrap()]).args(words);
    command
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

#[test]
fn kcat_produces_and_consumes() {
    let broker = Broker::start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 1, &[]);
    let listed = tools::run(&mut kcat(&broker, &["-L", "-J"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        listed["brokers"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );

    let whole = numbers(1..=1_000);
    fed(&mut kcat(&broker, &["-P", "-t", "orders"]), &whole);
    let read =
        |words: &[&str]| tools::run(kcat(&broker, &["-C", "-t", "orders", "-q", "-e"]).args(words));
    assert_eq!(read(&["-o", "beginning"]), whole);
    assert_eq!(read(&["-o", "990"]), numbers(991..=1_000));
    assert_eq!(read(&["-o", "-5"]), numbers(996..=1_000));
    let by_time = tools::run(&mut kcat(&broker, &["-Q", "-t", "orders:0:1"]));
    assert!(by_time.contains("offset 0"), "{by_time}");

    fed(
        &mut kcat(
            &broker,
            &["-P", "-t", "orders", "-K:", "-H", "h1=x", "-H", "h2=y"],
        ),
        "key:value\n",
    );
    let last = read(&["-o", "-1", "-f", "%k %s %h\n"]);
    assert_eq!(last, "key value h1=x,h2=y\n");
    for acks in ["0", "1", "all"] {
        fed(
            &mut kcat(
                &broker,
                &["-P", "-t", "orders", "-X", &format!("acks={acks}")],
            ),
            "one\n",
        );
    }
    fed(
        &mut kcat(
            &broker,
            &["-P", "-t", "orders", "-X", "enable.idempotence=true"],
        ),
        &numbers(1..=100),
    );
    assert_eq!(read(&["-o", "-100"]), numbers(1..=100));
}

#[test]
fn kcat_reads_every_codec_as_it_was_written() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    let text = numbers(1..=5_000);
    for (number, codec) in ["gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        wire.create_topic(codec, 1, &[]);
        // A client that lingers sends one batch: it compresses no batch that would get longer, as one of a record or two does.
        let words = ["-P", "-t", codec, "-z", codec, "-X", "linger.ms=5000"];
        fed(&mut kcat(&broker, &words), &text);
        let read = tools::run(&mut kcat(
            &broker,
            &["-C", "-t", codec, "-o", "beginning", "-e", "-q"],
        ));
        assert!(
            read == text,
            "{codec}: {} bytes read of {}",
            read.len(),
            text.len()
        );
        let stored = wire.fetch(codec, 0, 0).bytes;
        assert_eq!(
            usize::from(stored[22] & 7),
            number + 1,
            "{codec} passes through unchanged"
        );
    }
}

#[test]
fn kcat_reads_as_a_group() {
    let broker = Broker::start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 4, &[]);
    fed(
        &mut kcat(&broker, &["-P", "-t", "orders", "-K:"]),
        &(1..=500).map(|n| format!("{n}:{n}\n")).collect::<String>(),
    );
    let words = [
        "-G",
        "readers",
        "-X",
        "auto.offset.reset=earliest",
        "-c",
        "500",
        "-q",
        "orders",
    ];
    let read = tools::run(&mut kcat(&broker, &words));
    let read: BTreeSet<u32> = read
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(read, (1..=500).collect());
}

#[test]
fn rdkafka_two_members_share_and_take_over() {
    const RECORDS: u64 = 2_000;
    let broker = Broker::start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 4, &[]);
    let load = Load {
        stream: 1,
        sequences: 0..RECORDS,
        bytes: 100,
    };
    let idempotent = [("enable.idempotence", "true"), ("compression.type", "lz4")];
    let acked = rdk::with_values(
        &rdk::produce(broker.bootstrap(), "orders", &load, &idempotent),
        &load,
    );

    let mut members = Members {
        seen: Vec::new(),
        broker: &broker,
    };
    let first = members.join();
    members.poll_until("the first has all", &[&first], || {
        assigned(&first).len() == 4
    });
    let second = members.join();
    members.poll_until("both have two each", &[&first, &second], || {
        let (a, b) = (assigned(&first), assigned(&second));
        a.len() == 2 && b.len() == 2 && a.is_disjoint(&b)
    });
    members.poll_until_seen("everything is read", &[&first, &second], RECORDS as usize);
    rdk::assert_all_seen(&acked, &members.seen);
    first
        .commit_consumer_state(CommitMode::Sync)
        .expect("a commit");
    second
        .commit_consumer_state(CommitMode::Sync)
        .expect("a commit");
    drop(first);
    members.poll_until("the second has all", &[&second], || {
        assigned(&second).len() == 4
    });
    // What was committed is not read again; what comes now is.
    let more = Load {
        stream: 2,
        sequences: 0..100,
        bytes: 100,
    };
    let acked = rdk::with_values(
        &rdk::produce(broker.bootstrap(), "orders", &more, &[]),
        &more,
    );
    members.seen.clear();
    members.poll_until_seen("the rest is read", &[&second], 100);
    assert_eq!(members.seen.len(), 100);
    rdk::assert_all_seen(&acked, &members.seen);
}

#[test]
fn the_initial_delay_gathers_the_members_of_a_new_group() {
    // Kafka's default; the harness sets none, so that groups of one do not wait.
    let broker = BrokerSetup::new()
        .set("group.initial.rebalance.delay.ms", 3_000)
        .start();
    Wire::connect(broker.bootstrap()).create_topic("orders", 4, &[]);
    let mut members = Members {
        seen: Vec::new(),
        broker: &broker,
    };
    let (first, second) = (members.join(), members.join());
    members.poll_until("both have two each", &[&first, &second], || {
        let (a, b) = (assigned(&first), assigned(&second));
        assert!(
            a.len() < 4 && b.len() < 4,
            "one member had everything first: {a:?} {b:?}"
        );
        a.len() == 2 && b.len() == 2 && a.is_disjoint(&b)
    });
}

fn assigned(consumer: &BaseConsumer) -> BTreeSet<i32> {
    let assignment = consumer.assignment().expect("an assignment");
    assignment
        .elements()
        .iter()
        .map(|element| element.partition())
        .collect()
}

struct Members<'a> {
    seen: Vec<rdk::Seen>,
    broker: &'a Broker,
}

impl Members<'_> {
    fn join(&self) -> BaseConsumer {
        let consumer: BaseConsumer = rdk::config(self.broker.bootstrap())
            .set("group.id", "pair")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "true")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500")
            .create()
            .expect("a consumer");
        consumer.subscribe(&["orders"]).expect("a subscription");
        consumer
    }

    #[track_caller]
    fn poll_until_seen(&mut self, what: &str, consumers: &[&BaseConsumer], count: usize) {
        let end = Instant::now() + CLIENT_WITHIN;
        while self.seen.len() < count {
            assert!(
                Instant::now() < end,
                "not within {CLIENT_WITHIN:?}: {what} ({} of {count})",
                self.seen.len()
            );
            self.poll(consumers);
        }
    }

    #[track_caller]
    fn poll_until(
        &mut self,
        what: &str,
        consumers: &[&BaseConsumer],
        condition: impl Fn() -> bool,
    ) {
        let end = Instant::now() + CLIENT_WITHIN;
        while !condition() {
            assert!(Instant::now() < end, "not within {CLIENT_WITHIN:?}: {what}");
            self.poll(consumers);
        }
    }

    #[track_caller]
    fn poll(&mut self, consumers: &[&BaseConsumer]) {
        for consumer in consumers {
            match consumer.poll(Duration::from_millis(20)) {
                None => {}
                Some(Ok(message)) => self.seen.push(rdk::Seen {
                    partition: message.partition(),
                    offset: message.offset(),
                    value: message.payload().unwrap_or_default().to_vec(),
                }),
                Some(Err(error)) => panic!("a member: {error}"),
            }
        }
    }
}

#[test]
fn rdkafka_administers() {
    let broker = Broker::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let admin: AdminClient<DefaultClientContext> =
        rdk::config(broker.bootstrap()).create().expect("a client");
    runtime.block_on(async {
        create_topics(&admin).await;
        grow_and_describe(&admin).await;
        let options = AdminOptions::new();
        let deleted = admin
            .delete_topics(&["good", "absent"], &options)
            .await
            .expect("an answer");
        assert_eq!(deleted[0], Ok("good".to_owned()));
        assert_eq!(
            deleted[1],
            Err((
                "absent".to_owned(),
                RDKafkaErrorCode::UnknownTopicOrPartition
            ))
        );
    });
    let consumer: BaseConsumer = rdk::config(broker.bootstrap())
        .set("group.id", "g")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(None, CLIENT_WITHIN)
        .expect("metadata");
    assert!(metadata.topics().iter().all(|topic| topic.name() != "good"));
}

#[test]
fn rdkafka_deletes_records() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let load = Load {
        stream: 1,
        sequences: 0..100,
        bytes: 100,
    };
    rdk::produce(broker.bootstrap(), "orders", &load, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let admin: AdminClient<DefaultClientContext> =
        rdk::config(broker.bootstrap()).create().expect("a client");
    let delete = |offset| {
        let mut asked = TopicPartitionList::new();
        asked
            .add_partition_offset("orders", 0, offset)
            .expect("an offset");
        let deleted = runtime.block_on(admin.delete_records(&asked, &AdminOptions::new()));
        let deleted = deleted.expect("an answer");
        let element = &deleted.elements()[0];
        element.error().map(|()| element.offset())
    };
    assert_eq!(delete(Offset::Offset(40)), Ok(Offset::Offset(40)));
    assert_eq!(wire.list_offset("orders", 0, -2), Ok(40));
    let left = wire.read_all("orders", 0, 40).expect("readable");
    assert_eq!(left.len(), 60);
    let above = delete(Offset::Offset(101)).expect_err("above the high watermark");
    assert_eq!(
        above.rdkafka_error_code(),
        Some(RDKafkaErrorCode::OffsetOutOfRange)
    );
    assert_eq!(delete(Offset::End), Ok(Offset::Offset(100)));
    assert_eq!(wire.list_offset("orders", 0, -2), Ok(100));
}

async fn create_topics(admin: &AdminClient<DefaultClientContext>) {
    let options = AdminOptions::new();
    let good = NewTopic::new("good", 2, TopicReplication::Fixed(1)).set("retention.ms", "60000");
    let replicated = NewTopic::new("replicated", 1, TopicReplication::Fixed(3));
    let unknown = NewTopic::new("unknown", 1, TopicReplication::Fixed(1)).set("no.such.key", "1");
    let topics = [&good, &replicated, &unknown];
    let created = admin
        .create_topics(topics, &options)
        .await
        .expect("an answer");
    assert_eq!(created[0], Ok("good".to_owned()));
    assert_eq!(
        created[1],
        Err((
            "replicated".to_owned(),
            RDKafkaErrorCode::InvalidReplicationFactor
        ))
    );
    assert_eq!(
        created[2],
        Err(("unknown".to_owned(), RDKafkaErrorCode::InvalidConfig))
    );
    let again = admin
        .create_topics([&good], &options)
        .await
        .expect("an answer");
    assert_eq!(
        again[0],
        Err(("good".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))
    );
}

async fn grow_and_describe(admin: &AdminClient<DefaultClientContext>) {
    let options = AdminOptions::new();
    let five = NewPartitions::new("good", 5);
    let grown = admin
        .create_partitions([&five], &options)
        .await
        .expect("an answer");
    assert_eq!(grown[0], Ok("good".to_owned()));
    let resource = ResourceSpecifier::Topic("good");
    let described = admin
        .describe_configs([&resource], &options)
        .await
        .expect("an answer");
    let described = described[0].as_ref().expect("configs");
    let entry = |name: &str| described.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(entry("retention.ms").as_deref(), Some("60000"));
    assert_eq!(entry("cleanup.policy").as_deref(), Some("delete"));
}

#[test]
fn kafka_python_does_all_of_it() {
    let broker = Broker::start();
    let summary = python::run("clients.py", &[broker.bootstrap()]);
    assert_eq!(summary, serde_json::json!({"sent": 350, "seen": 350}));
}

/// One of Apache Kafka's command line tools, which `tests/setup.sh java` installs.
fn java(broker: &Broker, tool: &str, words: &[&str]) -> Command {
    let script = tools::root().join("tests/kafka/bin").join(tool);
    let mut command = tools::program(&script.display().to_string(), 120);
    command
        .env("KAFKA_TIER", "1")
        .env("KAFKA_HEAP_OPTS", "-Xmx256m")
        .args(["--bootstrap-server", broker.bootstrap()])
        .args(words);
    command
}

#[test]
fn the_java_console_tools_work() {
    let broker = Broker::start();
    let run = |tool: &str, words: &[&str]| tools::run(&mut java(&broker, tool, words));
    let topics = |words: &[&str]| run("kafka-topics.sh", words);
    topics(&[
        "--create",
        "--topic",
        "orders",
        "--partitions",
        "3",
        "--config",
        "retention.ms=600000",
    ]);
    let described = topics(&["--describe", "--topic", "orders"]);
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("retention.ms=600000"), "{described}");

    fed(
        &mut java(&broker, "kafka-console-producer.sh", &["--topic", "orders"]),
        &numbers(1..=300),
    );
    let words =
        "--topic orders --group readers --from-beginning --max-messages 300 --timeout-ms 60000";
    let read = run(
        "kafka-console-consumer.sh",
        &words.split(' ').collect::<Vec<_>>(),
    );
    let read: BTreeSet<u32> = read.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(read, (1..=300).collect());

    let described = run(
        "kafka-consumer-groups.sh",
        &["--describe", "--group", "readers"],
    );
    assert_eq!(committed(&described, "readers"), (3, 300), "{described}");

    let asked = tempfile::NamedTempFile::new().expect("a file");
    let partitions =
        r#"{"partitions": [{"topic": "orders", "partition": 0, "offset": -1}], "version": 1}"#;
    std::fs::write(asked.path(), partitions).expect("a file that was made");
    let deleted = run(
        "kafka-delete-records.sh",
        &["--offset-json-file", &asked.path().display().to_string()],
    );
    assert!(
        deleted.contains("partition: orders-0\tlow_watermark: "),
        "{deleted}"
    );

    let words =
        "--entity-type topics --entity-name orders --alter --add-config retention.ms=700000";
    run("kafka-configs.sh", &words.split(' ').collect::<Vec<_>>());
    let words = "--entity-type topics --entity-name orders --describe";
    let described = run("kafka-configs.sh", &words.split(' ').collect::<Vec<_>>());
    assert!(described.contains("retention.ms=700000"), "{described}");
    run(
        "kafka-consumer-groups.sh",
        &["--delete", "--group", "readers"],
    );
    topics(&["--delete", "--topic", "orders"]);
    let listed = topics(&["--list"]);
    assert!(!listed.lines().any(|line| line == "orders"), "{listed}");
}

/// Partitions and the sum of their committed offsets, from the tool's table.
fn committed(described: &str, group: &str) -> (usize, u32) {
    let rows: Vec<Vec<&str>> = described
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| row.first() == Some(&group))
        .collect();
    let offsets = rows
        .iter()
        .map(|row| row[3].parse::<u32>().expect("an offset"));
    (rows.len(), offsets.sum())
}

/// A part of what `make suites` runs; it fails when one of its tests does not pass.
#[test]
fn franz_go_passes_its_own_tests() {
    let broker = BrokerSetup::new()
        .set("num.partitions", 4)
        .set("auto.create.topics.enable", true)
        .set("group.initial.rebalance.delay.ms", 0)
        .start();
    let script = tools::root().join("tests/kafka/smoke-kgo.sh");
    let mut command = tools::program("bash", 180);
    let told = tools::run(command.arg(script).arg(broker.bootstrap()));
    assert!(told.contains("passed: 17 tests"), "{told}");
}
