//! Real clients at work while the broker under them is killed and paused, and the history of what they saw.
//!
//! Owns the clients of a run, their threads and the storm, and writes it all down; judges nothing: that is
//! [`crate::consistency::check`]. A seed fixes what the clients and the storm choose; when each thing happens is up to the
//! machine, so a seed replays as far as real processes can.

mod end;
mod member;
mod mover;
mod producer;
mod reader;
mod recorder;
mod storm;
mod transactional;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::config::ClientConfig;

use crate::consistency::History;
use crate::kube::free_port;
use crate::wait::{try_wait_for, wait_until};
use crate::wire::Wire;
use crate::{Broker, BrokerSetup, rdk};

use recorder::Recorder;

/// What the movers read.
const IN: &str = "in";
/// What they write; nobody else does.
const OUT: &str = "out";
/// Transactions and single records side by side.
const MIXED: &str = "mixed";
const TOPICS: [&str; 3] = [IN, OUT, MIXED];
const PARTITIONS: i32 = 2;

/// The groups.
const MOVERS: &str = "movers";
const WATCHERS: &str = "watchers";
const CALM_WATCHERS: &str = "calm-watchers";

/// The clients may take so long to come to work and to an end, on a machine however busy.
const SETTLE_WITHIN: Duration = Duration::from_secs(240);
/// A client call may take so long before its outcome counts as unknown.
const CALL_WITHIN: Duration = Duration::from_secs(15);

/// A run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Fixes what is chosen.
    pub seed: u64,
    /// How often the storm strikes.
    pub blows: u32,
}

/// What a run has shown.
pub struct Outcome {
    /// Everything that the clients saw.
    pub history: History,
    /// What the storm did, in words.
    pub storm: String,
    /// The broker, which still runs.
    pub broker: Broker,
}

/// What every client's thread has.
#[derive(Clone)]
struct Client {
    bootstrap: String,
    process: u32,
    seed: u64,
    recorder: Arc<Recorder>,
    over: Arc<AtomicBool>,
}

impl Client {
    fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (u64::from(self.process) << 32))
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lets some time pass, less when it is over.
    fn pause(&self, random: &mut StdRng, ms_max: u64) {
        self.nap(0..ms_max + 1, random);
    }

    /// The same, of a length in this range.
    fn nap(&self, ms: Range<u64>, random: &mut StdRng) {
        let within = Duration::from_millis(random.random_range(ms));
        try_wait_for(within, || self.is_over().then_some(()));
    }

    /// Settings of all clients: they notice a restarted broker soon, and give up on a paused one.
    fn config(&self) -> ClientConfig {
        let mut config = rdk::config(&self.bootstrap);
        config
            .set("client.id", format!("process-{}", self.process))
            .set("socket.timeout.ms", "3000")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "200")
            .set("retry.backoff.ms", "50")
            .set("retry.backoff.max.ms", "200")
            .set("topic.metadata.refresh.fast.interval.ms", "100");
        config
    }
}

/// Threads that go on until they are told to stop.
struct Crew {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn new() -> Self {
        Self {
            over: Arc::default(),
            threads: Vec::new(),
        }
    }

    fn add(&mut self, client: Client, work: impl FnOnce(Client) + Send + 'static) {
        let client = Client {
            over: Arc::clone(&self.over),
            ..client
        };
        let name = format!("process {}", client.process);
        let thread = std::thread::Builder::new().name(name);
        let spawned = thread.spawn(move || work(client));
        self.threads.push(spawned.expect("a thread"));
    }

    #[track_caller]
    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client's thread does not panic");
        }
    }
}

impl Run {
    /// Does it: the storm, then everybody comes to an end, then everything is read twice, with a kill between.
    pub fn go(self) -> Outcome {
        let mut broker = start_broker();
        let recorder = Arc::new(Recorder::new(self.seed));
        let client = |process| Client {
            bootstrap: broker.bootstrap().to_owned(),
            process,
            seed: self.seed,
            recorder: Arc::clone(&recorder),
            over: Arc::default(),
        };
        let mut writers = Crew::new();
        for process in [1, 2, 3] {
            writers.add(client(process), move |it| producer::work(&it, process != 3));
        }
        for process in [11, 12] {
            writers.add(client(process), |it| transactional::work(&it));
        }
        let mut movers = Crew::new();
        for process in [21, 22] {
            movers.add(client(process), |it| mover::work(&it));
        }
        let mut watchers = Crew::new();
        for process in [31, 32] {
            watchers.add(client(process), |it| reader::watch(&it, WATCHERS, "range"));
        }
        for process in [33, 34] {
            watchers.add(client(process), |it| {
                reader::watch(&it, CALM_WATCHERS, "cooperative-sticky");
            });
        }
        watchers.add(client(41), |it| reader::wander(&it));

        let last = client(0);
        wait_until("everybody is at work", SETTLE_WITHIN, || {
            recorder.everybody_works(&[1, 2, 3, 11, 12], &[21, 22, 31, 32, 33, 34, 41])
        });
        let storm = storm::rage(&mut broker, self, &recorder);
        end::settle(&mut broker, &last, (writers, movers, watchers));
        Outcome {
            history: recorder.history(),
            storm,
            broker,
        }
    }
}

fn start_broker() -> Broker {
    // The clients come back to the same address.
    let broker = BrokerSetup::new()
        .set(
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{}", free_port()),
        )
        .set("group.min.session.timeout.ms", 500)
        .start();
    let mut wire = Wire::connect(broker.bootstrap());
    for topic in TOPICS {
        wire.create_topic(topic, PARTITIONS, &[]);
    }
    broker
}
