//! The broker killed with SIGKILL, at random moments under load and at named points of what it does with its files.
//!
//! The points need nothing in the broker: strace kills it when it enters the Nth system call of a kind on a path. After
//! each kill `log verify` finds nothing, the broker is ready in time, librdkafka counts every acknowledged record, log
//! starts have not gone back, and what was deleted is gone. `KEELSON_CHAOS_ROUNDS` rounds (8), from `KEELSON_SEED`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{DeleteTopicsRequest, TopicName};
use keelson_tests::load::{Ledger, Load, Stream, number};
use keelson_tests::records::{fresh_batch, payload};
use keelson_tests::strace::Strace;
use keelson_tests::table::{self, TABLE, Table};
use keelson_tests::wait::try_wait_for;
use keelson_tests::wire::{Wire, text};
use keelson_tests::{Broker, BrokerSetup, disk, stage, wait_until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUNDS: u64 = 8;
/// The topic under load: it rolls and loses old segments all the time.
const BUSY: &str = "busy";
const BUSY_PARTITIONS: i32 = 3;
const RETENTION_BYTES: &str = "4194304";
/// The topic that keeps everything.
const KEPT: &str = "kept";
const WRITERS: u32 = 3;
/// Records of a topic that is filled before it is deleted: enough that each of its partitions is flushed.
const DOOMED_RECORDS: u64 = 40;
/// The folder of the metadata, which is no topic that clients see.
const METADATA_TOPIC_ID: &str = "00000000-0000-0000-0000-000000000001";
/// A point that was not reached by then is given up, and the broker killed as it is.
const REACHED_WITHIN: Duration = Duration::from_secs(25);
const WITHIN: Duration = Duration::from_secs(30);

const WRITES: &str = "pwrite64,pwritev,pwritev2";
const SYNCS: &str = "fdatasync,fsync";
const NAMES: &str = "unlink,unlinkat,rmdir";

/// Whose files a point is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// No files: a random moment.
    None,
    /// The WAL's files that hold groups.
    Groups,
    /// The WAL's manifest, which holds the checkpoint.
    Checkpoint,
    /// `.log` files of the busy topic.
    Segments,
    /// Manifests of the busy topic's partitions.
    Manifests,
    /// Folders of the busy topic's partitions: synced when a segment comes or goes.
    Folders,
    /// Names of the busy topic's segments, for retention.
    Names,
    /// Everything of a topic that is being deleted.
    Doomed,
    /// The manifest of a topic that has no folder yet.
    FirstManifest,
    /// The files that compaction is about to write.
    Anew,
    /// The compacted topic's manifest.
    TableManifest,
    /// Names of its segments, for what compaction and deletions from the front leave behind.
    TableNames,
}

/// A point at which the broker is killed.
#[derive(Debug, Clone, Copy)]
struct Point {
    name: &'static str,
    calls: &'static str,
    files: Files,
    /// The kill comes at the Nth such call of a thread, up to this one.
    nth_max: u64,
}

const fn point(name: &'static str, calls: &'static str, files: Files, nth_max: u64) -> Point {
    Point {
        name,
        calls,
        files,
        nth_max,
    }
}

const POINTS: &[Point] = &[
    point("a random moment", "", Files::None, 1),
    point("commit: write of a group", WRITES, Files::Groups, 60),
    point("flush: write of batches", WRITES, Files::Segments, 2),
    point("flush: sync of batches", SYNCS, Files::Segments, 2),
    point("flush: write of the slot", WRITES, Files::Manifests, 2),
    point("flush: sync of the slot", SYNCS, Files::Manifests, 2),
    point(
        "first flush: the manifest gets its name",
        "rename,renameat,renameat2",
        Files::FirstManifest,
        1,
    ),
    point("roll: sync of the folder", SYNCS, Files::Folders, 2),
    point("checkpoint: write", WRITES, Files::Checkpoint, 3),
    point("checkpoint: sync", SYNCS, Files::Checkpoint, 2),
    point("retention: a segment's file goes", NAMES, Files::Names, 3),
    point("deletion: write of the last slot", WRITES, Files::Doomed, 1),
    point("deletion: a file goes", NAMES, Files::Doomed, 5),
    point("compaction: write of a segment", WRITES, Files::Anew, 4),
    point("compaction: sync of a segment", SYNCS, Files::Anew, 6),
    point(
        "compaction: write of a slot",
        WRITES,
        Files::TableManifest,
        9,
    ),
    point("compaction: sync of a slot", SYNCS, Files::TableManifest, 9),
    point(
        "compaction or DeleteRecords: a file goes",
        NAMES,
        Files::TableNames,
        9,
    ),
];

struct Chaos {
    broker: Broker,
    random: StdRng,
    ledgers: BTreeMap<String, Ledger>,
    table: Table,
    streams: u32,
    /// Topics made to be deleted, so far.
    doomed: u32,
    reached: BTreeMap<&'static str, (u64, u64)>,
}

#[test]
fn killed_at_every_point() {
    let rounds = number("KEELSON_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("KEELSON_SEED").unwrap_or_else(rand::random);
    println!("KEELSON_SEED={seed} KEELSON_CHAOS_ROUNDS={rounds}");
    let mut chaos = Chaos::start(seed);
    // Each point in turn, from one that the seed chooses, so that short runs see them all over time.
    let first = chaos.random.random_range(0..POINTS.len());
    for round in 0..rounds {
        let point = POINTS[(first + round as usize) % POINTS.len()];
        chaos.round(round, point);
    }
    chaos.finish(rounds);
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let broker = BrokerSetup::new()
            .set("log.retention.check.interval.ms", 1_000)
            .set("log.cleaner.backoff.ms", 100)
            .start();
        let mut wire = Wire::connect(broker.bootstrap());
        let configs = [
            ("segment.bytes", "1048576"),
            ("retention.bytes", RETENTION_BYTES),
        ];
        wire.create_topic(BUSY, BUSY_PARTITIONS, &configs);
        wire.create_topic(KEPT, 1, &[]);
        wire.create_topic(TABLE, 1, &table::CONFIGS);
        let mut chaos = Self {
            broker,
            random: StdRng::seed_from_u64(seed),
            ledgers: BTreeMap::new(),
            table: Table::default(),
            streams: 0,
            doomed: 0,
            reached: BTreeMap::new(),
        };
        // The first life fills segments, so that there are files for the points to be about.
        let load = chaos.load();
        let table = chaos.write_table();
        wait_until("every partition has a segment", WITHIN, || {
            chaos.partition_folders().len() == BUSY_PARTITIONS as usize
                && chaos.files(".log").len() > BUSY_PARTITIONS as usize
                && chaos.table_files("-1.log").len() > 1
        });
        chaos.broker.kill9();
        load.finish(&mut chaos.ledgers);
        chaos.table = table.join().expect("a writer does not panic");
        chaos.broker.restart();
        chaos
    }

    fn round(&mut self, round: u64, point: Point) {
        let doomed = matches!(point.files, Files::Doomed | Files::FirstManifest)
            .then(|| self.make_doomed(point.files == Files::Doomed));
        let paths = self.paths(point.files, doomed.as_deref());
        let nth = self.random.random_range(1..=point.nth_max);
        let reached = self.live_until_killed(point, nth, &paths);
        let counts = self.reached.entry(point.name).or_default();
        *counts = (counts.0 + u64::from(reached), counts.1 + 1);

        let (code, told) = self.broker.verify();
        assert_eq!(code, 0, "{}: log verify after the kill: {told}", point.name);
        let took = self.broker.restart();
        let seen = self.recount();
        if doomed.is_some() {
            self.delete_what_is_left(point.files == Files::Doomed);
        }
        self.nothing_of_the_deleted_is_left();
        println!(
            "round {round}: {} (call {nth}{}), {} acknowledged, {seen} there, ready in {took:?}",
            point.name,
            if reached { "" } else { ", not reached" },
            self.ledgers.values().map(Ledger::total).sum::<u64>() + self.table.total()
        );
    }

    fn write_table(&mut self) -> JoinHandle<Table> {
        let wire = Wire::connect(self.broker.bootstrap());
        std::mem::take(&mut self.table).write(wire)
    }

    /// Load, and for a doomed topic its deletion, until strace has killed the broker. False: the point did not come.
    fn live_until_killed(&mut self, point: Point, nth: u64, paths: &[PathBuf]) -> bool {
        let mut admin = Wire::connect(self.broker.bootstrap());
        let streams = self.streams_of_a_life(point.files == Files::FirstManifest);
        let table_wire = Wire::connect(self.broker.bootstrap());
        let strace = (!paths.is_empty()).then(|| {
            let mut words = vec!["-e".to_owned(), format!("trace={}", point.calls)];
            words.push("-e".to_owned());
            words.push(format!("inject={}:signal=SIGKILL:when={nth}", point.calls));
            for path in paths {
                words.push("-P".to_owned());
                words.push(path.to_string_lossy().into_owned());
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Strace::attach(&self.broker, &words)
        });
        let load = Load::start(streams);
        let table = std::mem::take(&mut self.table).write(table_wire);
        if point.files == Files::Doomed {
            // The answer may never come.
            let _ = admin.try_call(6, &deletion(&self.doomed_name()));
        }
        let goal = self.random.random_range(20..600);
        let deadline = if strace.is_some() {
            REACHED_WITHIN
        } else {
            WITHIN
        };
        let ended = try_wait_for(deadline, || {
            let ended = !self.broker.is_running();
            (ended || (strace.is_none() && load.acks() >= goal)).then_some(ended)
        });
        self.broker.kill9();
        drop(strace);
        load.finish(&mut self.ledgers);
        self.table = table.join().expect("a writer does not panic");
        let random_moment = paths.is_empty() && ended.is_some();
        random_moment || ended == Some(true)
    }

    fn load(&mut self) -> Load {
        let streams = self.streams_of_a_life(false);
        Load::start(streams)
    }

    /// Connected before strace attaches: what it injects may hit at once.
    fn streams_of_a_life(&mut self, with_doomed: bool) -> Vec<(Wire, Stream)> {
        let mut wanted =
            vec![(BUSY.to_owned(), BUSY_PARTITIONS, 24_000, u64::MAX); WRITERS as usize];
        wanted.push((KEPT.to_owned(), 1, 300, 20));
        if with_doomed {
            wanted.push((self.doomed_name(), 2, 24_000, u64::MAX));
        }
        let connect = |(topic, partitions, value_bytes_max, requests_max)| {
            self.streams += 1;
            let stream = Stream {
                topic,
                partitions,
                stream: self.streams,
                value_bytes_max,
                requests_max,
            };
            (Wire::connect(self.broker.bootstrap()), stream)
        };
        wanted.into_iter().map(connect).collect()
    }

    fn recount(&mut self) -> usize {
        let mut seen = 0;
        for (topic, partitions) in [(BUSY, BUSY_PARTITIONS), (KEPT, 1)] {
            let ledger = self.ledgers.entry(topic.to_owned()).or_default();
            seen += ledger.recount(self.broker.bootstrap(), topic, partitions);
        }
        seen += self.table.recount(self.broker.bootstrap());
        let mut wire = Wire::connect(self.broker.bootstrap());
        assert_eq!(
            wire.list_offset(KEPT, 0, -2),
            Ok(0),
            "nothing takes from {KEPT}"
        );
        seen
    }

    fn doomed_name(&self) -> String {
        format!("doomed-{}", self.doomed)
    }

    /// A topic to be deleted, in segments or not yet; gives its id.
    fn make_doomed(&mut self, in_segments: bool) -> String {
        self.doomed += 1;
        let name = self.doomed_name();
        let mut wire = Wire::connect(self.broker.bootstrap());
        wire.create_topic(&name, 2, &[]);
        let (id, _) = stage::topic(&self.broker, &name).expect("it was just created");
        if in_segments {
            for number in 0..DOOMED_RECORDS {
                let value = payload(20_000, 1, number);
                let partition = (number % 2) as i32;
                wire.produce(&name, partition, fresh_batch(&[&value]))
                    .expect("a healthy disk");
            }
            let folder = self.topic_folder(&id);
            wait_until("the doomed topic is in segments", WITHIN, || {
                (0..2).all(|partition| folder.join(partition.to_string()).join("manifest").exists())
            });
        }
        id
    }

    /// A doomed topic is whole or gone after a kill; then it goes for good.
    fn delete_what_is_left(&mut self, was_filled: bool) {
        let name = self.doomed_name();
        let mut ledger = self.ledgers.remove(&name).unwrap_or_default();
        let mut wire = Wire::connect(self.broker.bootstrap());
        if wire.metadata(&name).topics[0].error_code == 0 {
            let seen = ledger.recount(self.broker.bootstrap(), &name, 2);
            assert!(
                !was_filled || seen as u64 == DOOMED_RECORDS,
                "{name}: {seen} records"
            );
            let answer = wire.call(6, &deletion(&name));
            assert_eq!(answer.responses[0].error_code, 0, "{name} can be deleted");
        }
    }

    /// The folders of deleted topics go soon after a start, and nothing was set aside.
    fn nothing_of_the_deleted_is_left(&mut self) {
        let known = self.known_topic_ids();
        let root = self.broker.data_dir().join("p");
        wait_until("only folders of topics that exist are left", WITHIN, || {
            let left: BTreeSet<String> = names(&root);
            left.is_subset(&known)
        });
        let aside = names(&self.broker.data_dir().join("quarantine"));
        assert!(aside.is_empty(), "set aside: {aside:?}");
    }

    /// Every topic's id, internal ones too.
    fn known_topic_ids(&self) -> BTreeSet<String> {
        let mut wire = Wire::connect(self.broker.bootstrap());
        let request = kafka_protocol::messages::MetadataRequest::default().with_topics(None);
        let answer = wire.call(12, &request);
        let mut ids: BTreeSet<String> = answer
            .topics
            .iter()
            .map(|topic| topic.topic_id.to_string())
            .collect();
        ids.insert(METADATA_TOPIC_ID.to_owned());
        ids
    }

    fn topic_folder(&self, id: &str) -> PathBuf {
        self.broker.data_dir().join("p").join(id)
    }

    fn busy_id(&self) -> String {
        let topic = stage::topic(&self.broker, BUSY);
        topic.expect("the busy topic is there").0
    }

    fn partition_folders(&self) -> Vec<PathBuf> {
        let folder = self.topic_folder(&self.busy_id());
        let folders = (0..BUSY_PARTITIONS).map(|partition| folder.join(partition.to_string()));
        folders.filter(|folder| folder.exists()).collect()
    }

    /// Files of the busy topic whose names end so.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let listed = self.partition_folders().into_iter().flat_map(|folder| {
            let names = names(&folder);
            names.into_iter().map(move |name| folder.join(name))
        });
        listed
            .filter(|path| path.to_string_lossy().ends_with(end))
            .collect()
    }

    /// Files of the compacted topic whose names end so.
    fn table_files(&self, end: &str) -> Vec<PathBuf> {
        let (id, _) = stage::topic(&self.broker, TABLE).expect("the table is there");
        let folder = self.topic_folder(&id).join("0");
        let names = names(&folder).into_iter();
        names
            .filter(|name| name.ends_with(end))
            .map(|name| folder.join(name))
            .collect()
    }

    /// What the segments that are there will be called when they are written anew, once or twice.
    fn anew(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for log in self.table_files(".log") {
            let stem = log
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let (base, generation) = stem.split_once('-').unwrap_or((&stem, "0"));
            let generation: u32 = generation.parse().expect("a generation");
            for next in generation + 1..=generation + 2 {
                paths.push(log.with_file_name(format!("{base}-{next}.log")));
            }
        }
        paths
    }

    fn paths(&self, files: Files, doomed: Option<&str>) -> Vec<PathBuf> {
        let wal = self.broker.data_dir().join("wal");
        let doomed = doomed.map(|id| self.topic_folder(id));
        match files {
            Files::None => Vec::new(),
            Files::Groups => disk::files(&wal)
                .into_iter()
                .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
                .collect(),
            Files::Checkpoint => vec![wal.join("manifest")],
            Files::Segments => self.files(".log"),
            Files::Manifests => self.files("manifest"),
            Files::Folders => self.partition_folders(),
            Files::Names => [".log", ".sum", ".idx"].map(|end| self.files(end)).concat(),
            Files::Doomed => {
                let folder = doomed.expect("a doomed topic");
                let mut paths = disk::files(&folder);
                paths.extend((0..2).map(|partition| folder.join(partition.to_string())));
                paths.push(folder);
                paths
            }
            Files::Anew => self.anew(),
            Files::TableManifest => self.table_files("manifest"),
            Files::TableNames => [".log", ".sum", ".idx"]
                .map(|end| self.table_files(end))
                .concat(),
            Files::FirstManifest => {
                // strace looks at the first path of a rename only.
                let folder = doomed.expect("a doomed topic");
                (0..2)
                    .map(|partition: i32| folder.join(partition.to_string()).join("manifest.new"))
                    .collect()
            }
        }
    }

    fn finish(mut self, rounds: u64) {
        self.broker.stop();
        let (code, told) = self.broker.verify();
        assert_eq!(code, 0, "{told}");
        self.broker.restart();
        self.recount();
        let (mut reached, mut tried) = (0, 0);
        for (name, (hit, of)) in &self.reached {
            println!("{name}: reached in {hit} of {of} rounds");
            (reached, tried) = (reached + hit, tried + of);
        }
        assert_eq!(tried, rounds);
        assert!(
            2 * reached >= rounds,
            "only {reached} of {rounds} kills came where they should"
        );
    }
}

fn deletion(name: &str) -> DeleteTopicsRequest {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
}

/// Names in a folder; none when it is not there.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(listed) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    listed
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
