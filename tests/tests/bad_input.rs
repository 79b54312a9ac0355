//! What a broker is told wrongly or finds wrong at its start: a clear message, exit code not 0, nothing damaged.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kafka_protocol::ResponseError;
use keelson_tests::broker::{StartFailed, scratch_dir};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::wire::Wire;
use keelson_tests::{Broker, BrokerSetup, disk, tools, wait_until};

const WITHIN: Duration = Duration::from_secs(30);

#[track_caller]
fn refused(setup: BrokerSetup) -> StartFailed {
    match setup.try_start() {
        Ok(_) => panic!("the broker started"),
        Err(failed) => {
            let code = failed.status.code();
            assert!(
                code.is_some_and(|code| code != 0),
                "{}: {}",
                failed.status,
                failed.log
            );
            assert!(!failed.log.contains("panicked"), "{}", failed.log);
            failed
        }
    }
}

#[track_caller]
fn assert_says(failed: &StartFailed, words: &[&str]) {
    for word in words {
        assert!(
            failed.log.contains(word),
            "{word} is not said:\n{}",
            failed.log
        );
    }
}

#[test]
fn a_bad_configuration_is_named() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("num.partitons", "3", &["num.partitons", "num.partitions"]),
        ("num.partitions", "many", &["num.partitions", "many"]),
        ("num.partitions", "0", &["num.partitions"]),
        (
            "auto.create.topics.enable",
            "perhaps",
            &["auto.create.topics.enable", "perhaps"],
        ),
        ("listeners", "PLAINTEXT://nowhere", &["listeners"]),
        ("http.listen", "127.0.0.1", &["http.listen"]),
        ("keelson.log.format", "xml", &["keelson.log.format", "xml"]),
    ];
    for (key, value, words) in cases {
        let dir = scratch_dir();
        let data = dir.path().join("data");
        let failed = refused(BrokerSetup::new().data_dir(&data).set(key, value));
        assert_says(&failed, words);
        assert!(
            !data.join("wal").exists(),
            "{key}: nothing is written before the configuration holds"
        );
    }
}

#[test]
fn a_bad_line_in_the_configuration_file_is_named() {
    let dir = scratch_dir();
    let file = dir.path().join("broker.properties");
    std::fs::write(
        &file,
        "# a comment\nnum.partitions=2\nlog.retention.mss=1\n",
    )
    .expect("a file");
    let mut command = Command::new(tools::workspace_bin("keelson-broker"));
    command
        .arg("start")
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg("--config")
        .arg(&file);
    let (output, text) = tools::run_any(&mut command);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("log.retention.mss") && text.contains("log.retention.ms"),
        "{text}"
    );
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let failed = refused(BrokerSetup::new().data_dir(broker.data_dir()));
    assert_says(&failed, &[&broker.data_dir().display().to_string()]);
    assert_eq!(
        wire.produce("orders", 0, fresh_batch(&[b"one"])),
        Ok(0),
        "the first goes on"
    );
    assert_eq!(wire.read_all("orders", 0, 0).expect("readable").len(), 1);
    assert_eq!(broker.verify().0, 0);
}

#[test]
fn a_read_only_data_directory_is_refused() {
    let dir = scratch_dir();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let script = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
    let setup = BrokerSetup::new().data_dir(&data);
    let failed = refused(setup.wrap([
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        data.to_str().expect("UTF-8"),
    ]));
    assert_says(&failed, &[&data.display().to_string()]);
    assert_eq!(
        disk::files(&data),
        Vec::<std::path::PathBuf>::new(),
        "nothing was written"
    );
}

#[test]
fn a_read_only_data_directory_with_data_is_refused_and_unharmed() {
    let mut broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    wire.produce("orders", 0, fresh_batch(&[b"one"]))
        .expect("a record");
    broker.kill9();
    let before = disk::fingerprint(broker.data_dir());
    let script = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
    let data = broker.data_dir().to_str().expect("UTF-8").to_owned();
    let setup = BrokerSetup::new().data_dir(broker.data_dir());
    let failed = refused(setup.wrap(["unshare", "--mount", "sh", "-c", script, &data]));
    assert_says(&failed, &[&data]);
    assert_eq!(
        disk::fingerprint(broker.data_dir()),
        before,
        "nothing was changed"
    );
    broker.restart();
    assert_eq!(
        Wire::connect(broker.bootstrap())
            .read_all("orders", 0, 0)
            .expect("readable")
            .len(),
        1
    );
}

/// A small file system in a mount namespace of its own; gone when the process that holds it ends.
struct SmallVolume {
    holder: Child,
    dir: tempfile::TempDir,
}

impl SmallVolume {
    fn new(size: &str) -> Self {
        let dir = scratch_dir();
        let script = r#"mount -t tmpfs -o size="$1" tmpfs "$0" && : > "$0/mounted" && exec cat"#;
        let holder = Command::new(tools::require("setpriv"))
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "sh",
                "-c",
                script,
            ])
            .arg(dir.path())
            .arg(size)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare can be started");
        let volume = Self { holder, dir };
        wait_until("the volume is mounted", WITHIN, || {
            volume.inside().join("mounted").exists()
        });
        std::fs::remove_file(volume.inside().join("mounted")).expect("an own file");
        volume
    }

    /// The mount point as processes in the namespace see it.
    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The mount point as seen from outside.
    fn inside(&self) -> std::path::PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.dir.path().strip_prefix("/").expect("an absolute path"))
    }

    fn setup(&self) -> BrokerSetup {
        let holder = self.holder.id().to_string();
        BrokerSetup::new()
            .data_dir(self.path().join("data"))
            .wrap(["nsenter", "--mount", "--target", &holder, "--"])
    }

    /// Fills what is free but for a few pages.
    fn fill(&self) {
        let ballast = std::fs::File::create(self.inside().join("ballast")).expect("a file");
        let block = vec![0; 64 << 10];
        while std::io::Write::write_all(&mut &ballast, &block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.inside().join("ballast")).expect("an own file");
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_volume_without_room_for_a_first_start_is_refused() {
    let volume = SmallVolume::new("24m");
    let failed = refused(volume.setup());
    assert_says(&failed, &["free", "write-ahead log"]);
    let left: u64 = disk::files(&volume.inside())
        .iter()
        .map(|file| std::fs::metadata(file).map_or(0, |metadata| metadata.len()))
        .sum();
    assert!(left < 1 << 20, "{left} bytes were left behind");
}

#[test]
fn a_full_volume_with_data_starts_read_only_and_resumes_by_itself() {
    let volume = SmallVolume::new("400m");
    let mut broker = volume.setup().start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    for offset in 0..20 {
        assert_eq!(
            wire.produce("orders", 0, fresh_batch(&[&payload(1_000, 1, offset)])),
            Ok(offset as i64)
        );
    }
    broker.stop();
    volume.fill();
    broker.restart();
    assert_eq!(
        broker
            .metrics()
            .sum("keelson_wal_health", &[("state", "readonly")]),
        1.0
    );
    let mut wire = Wire::connect(broker.bootstrap());
    assert_eq!(
        wire.read_all("orders", 0, 0)
            .expect("reading goes on")
            .len(),
        20
    );
    let refused = wire.produce("orders", 0, fresh_batch(&[&payload(1_000, 1, 20)]));
    assert_eq!(refused, Err(ResponseError::KafkaStorageError));

    volume.empty();
    wait_until("it takes records again by itself", WITHIN, || {
        wire.produce("orders", 0, fresh_batch(&[&payload(1_000, 1, 20)]))
            .is_ok()
    });
    wait_until("health is ok again", WITHIN, || {
        broker
            .metrics()
            .sum("keelson_wal_health", &[("state", "ok")])
            == 1.0
    });
    assert_eq!(wire.read_all("orders", 0, 0).expect("readable").len(), 21);
}

/// A producer goes on while the volume runs full: it is refused with an error that it may try again by, everything that was
/// acknowledged is served meanwhile, and it goes on by itself once there is room.
#[test]
fn a_volume_that_runs_full_refuses_records_serves_all_it_has_and_resumes() {
    let volume = SmallVolume::new("400m");
    let mut broker = volume.setup().start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 1, &[]);
    let mut acknowledged = 0;
    let mut produce = |wire: &mut Wire| {
        let batch = fresh_batch(&[&payload(20_000, 1, acknowledged)]);
        let answer = wire.produce("orders", 0, batch);
        if let Ok(base) = answer {
            assert_eq!(base, acknowledged as i64, "offsets go on without a gap");
            acknowledged += 1;
        }
        (answer, acknowledged)
    };
    for _ in 0..20 {
        produce(&mut wire).0.expect("there is room");
    }
    volume.fill();
    wait_until("records are refused", WITHIN, || {
        let (answer, _) = produce(&mut wire);
        assert!(
            matches!(answer, Ok(_) | Err(ResponseError::KafkaStorageError)),
            "{answer:?}"
        );
        answer.is_err()
    });
    let state = |state| {
        let metrics = broker.metrics();
        metrics.sum("keelson_wal_health", &[("state", state)])
    };
    assert_eq!((state("readonly"), state("corrupt")), (1.0, 0.0));
    // Everything else goes on, on the same connection and on new ones.
    let (_, count) = produce(&mut wire);
    let mut other = Wire::connect(broker.bootstrap());
    for wire in [&mut wire, &mut other] {
        let read = wire.read_all("orders", 0, 0).expect("reading goes on");
        assert_eq!(read.len() as u64, count);
    }
    other.create_topic("while-full", 1, &[]);

    volume.empty();
    wait_until("it takes records again by itself", WITHIN, || {
        produce(&mut wire).0.is_ok()
    });
    wait_until("health is ok again", WITHIN, || state("ok") == 1.0);
    let (answer, count) = produce(&mut wire);
    answer.expect("and goes on taking them");
    assert_eq!(state("degraded"), 0.0);
    broker.stop();
    broker.restart();
    let mut wire = Wire::connect(broker.bootstrap());
    let read = wire.read_all("orders", 0, 0).expect("readable");
    assert_eq!(read.len() as u64, count, "exactly what was acknowledged");
    for (offset, value) in read {
        assert_eq!(value, payload(20_000, 1, offset as u64), "at {offset}");
    }
    assert_eq!(wire.produce("while-full", 0, fresh_batch(&[b"one"])), Ok(0));
}

#[test]
fn a_small_byte_limit_over_many_partitions_is_no_violation() {
    const PARTITIONS: i32 = 50;
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        for sequence in 0..4 {
            let value = payload(5_000, partition as u32, sequence);
            wire.produce("orders", partition, fresh_batch(&[&value]))
                .expect("a record");
        }
    }
    // As a consumer does it: what was answered goes to the end of the list; each round has room for a few partitions only.
    let mut next: Vec<(i32, i64)> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let mut read = 0;
    let mut rounds = 0;
    while read < PARTITIONS * 4 {
        rounds += 1;
        assert!(rounds < 1_000, "{read} records in {rounds} rounds");
        let fetched = wire.fetch_many("orders", &next, 16_000, 6_000);
        let mut empty = 0;
        for (partition, position) in &mut next {
            let answer = &fetched[partition];
            assert_eq!(answer.error, None, "partition {partition} at {position}");
            let records = answer.records();
            empty += usize::from(records.is_empty());
            read += records.len() as i32;
            *position += records.len() as i64;
        }
        assert!(
            empty < next.len() || read >= PARTITIONS * 4,
            "a round gave nothing"
        );
        next.sort_by_key(|(_, position)| *position);
    }
    assert_eq!(
        broker
            .metrics()
            .sum("keelson_fetch_invariant_violations_total", &[]),
        0.0
    );
}
