//! A consumer that writes down, in their order, what came to it and which partitions it was given.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, Rebalance,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::recorder::{Recorder, key, keys, partition, read};
use super::{CALL_WITHIN, Client};
use crate::consistency::{Action, Key, Outcome, Read};

/// Short, so that a pause of the broker or of a client costs memberships.
const SESSION_TIMEOUT_MS: &str = "1500";
/// As short as it may be.
pub(super) const MAX_POLL_INTERVAL_MS: u64 = 1_500;
const POLL: Duration = Duration::from_millis(20);

/// What happened to a consumer.
pub(super) enum Event {
    Reads {
        since_us: u64,
        reads: Vec<Read>,
    },
    Rebalance {
        at_us: u64,
        assigned: Vec<Key>,
        revoked: Vec<Key>,
    },
}

/// What one look at a consumer gave.
pub(super) enum Polled {
    Nothing,
    Record,
    /// The end of this partition, by its number in its topic.
    End(i32),
}

struct Happened {
    recorder: Arc<Recorder>,
    events: Mutex<Vec<Event>>,
    /// As the group gave the last partitions: what is committed with it belongs to those.
    metadata: Mutex<Option<ConsumerGroupMetadata>>,
}

impl Happened {
    fn add(&self, event: Event) {
        self.events.lock().expect("no holder panics").push(event);
    }

    fn add_read(&self, read: Read) {
        let since_us = self.recorder.now_us();
        let mut events = self.events.lock().expect("no holder panics");
        match events.last_mut() {
            Some(Event::Reads { reads, .. }) => reads.push(read),
            _ => events.push(Event::Reads {
                since_us,
                reads: vec![read],
            }),
        }
    }
}

pub(super) struct Context(Arc<Happened>);

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let (assigned, revoked) = match rebalance {
            Rebalance::Assign(list) => {
                let metadata = consumer.group_metadata();
                *self.0.metadata.lock().expect("no holder panics") = metadata;
                (listed(list), Vec::new())
            }
            Rebalance::Revoke(list) => (Vec::new(), listed(list)),
            Rebalance::Error(_) => return,
        };
        let at_us = self.0.recorder.now_us();
        self.0.add(Event::Rebalance {
            at_us,
            assigned,
            revoked,
        });
    }
}

fn listed(list: &TopicPartitionList) -> Vec<Key> {
    let elements = list.elements();
    elements
        .iter()
        .map(|element| key(element.topic(), element.partition()))
        .collect()
}

/// Offsets as the client takes them.
pub(super) fn list(offsets: &[(Key, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (key, offset) in offsets {
        let (topic, partition) = partition(*key);
        list.add_partition_offset(topic, partition, Offset::Offset(*offset))
            .expect("an offset");
    }
    list
}

pub(super) struct Member<'a> {
    client: &'a Client,
    happened: Arc<Happened>,
    consumer: BaseConsumer<Context>,
    lost: bool,
}

impl<'a> Member<'a> {
    fn new(client: &'a Client, group: &str, strategy: &str, instance: Option<String>) -> Self {
        let mut config = client.config();
        if let Some(instance) = instance {
            config.set("group.instance.id", instance);
        }
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", strategy)
            .set("session.timeout.ms", SESSION_TIMEOUT_MS)
            .set("max.poll.interval.ms", MAX_POLL_INTERVAL_MS.to_string())
            .set("heartbeat.interval.ms", "200")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "50")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed");
        let happened = Arc::new(Happened {
            recorder: Arc::clone(&client.recorder),
            events: Mutex::default(),
            metadata: Mutex::default(),
        });
        let context = Context(Arc::clone(&happened));
        let consumer = BaseConsumer::from_config_and_context(&config, context);
        Self {
            client,
            happened,
            consumer: consumer.expect("a consumer"),
            lost: false,
        }
    }

    /// A member of a group; every other process is a static one (KIP-345), and the same whenever it comes back.
    pub(super) fn join(client: &'a Client, group: &str, topics: &[&str], strategy: &str) -> Self {
        let process = client.process;
        let instance = process
            .is_multiple_of(2)
            .then(|| format!("instance-{process}"));
        let member = Self::new(client, group, strategy, instance);
        let action = Action::Subscribe {
            group: group.to_owned(),
            keys: topics.iter().flat_map(|topic| keys(topic)).collect(),
        };
        let now_us = client.recorder.now_us();
        client
            .recorder
            .note(client.process, now_us, Outcome::Ok, action);
        member.consumer.subscribe(topics).expect("a subscription");
        member
    }

    /// A consumer that is told what to read.
    pub(super) fn alone(client: &'a Client) -> Self {
        Self::new(client, "no-group", "range", None)
    }

    /// Reads these partitions from these offsets on, and no others.
    pub(super) fn assign(&self, to: &[(Key, i64)]) {
        self.note(Action::Assign(to.to_vec()));
        self.consumer.assign(&list(to)).expect("an assignment");
    }

    /// Goes on elsewhere; false when the client could not.
    pub(super) fn seek(&self, to: &[(Key, i64)]) -> bool {
        self.note(Action::Seek(to.to_vec()));
        let sought = self.consumer.seek_partitions(list(to), CALL_WITHIN);
        sought.is_ok_and(|list| {
            let elements = list.elements();
            elements.iter().all(|element| element.error().is_ok())
        })
    }

    /// Commits the group's offsets; whether it is known that they are.
    pub(super) fn commit(&self, offsets: &[(Key, i64)]) -> bool {
        let invoked_us = self.client.recorder.now_us();
        let committed = self.consumer.commit(&list(offsets), CommitMode::Sync);
        let outcome = match committed {
            Ok(()) => Outcome::Ok,
            // A first try may have been carried out, whatever the last one was told.
            Err(_) => Outcome::Info,
        };
        let note = committed.err().map(|error| error.to_string());
        let action = Action::Commit(offsets.to_vec());
        let process = self.client.process;
        self.client
            .recorder
            .note_with(process, invoked_us, (outcome, note), action);
        outcome == Outcome::Ok
    }

    /// One look.
    pub(super) fn poll(&mut self, within: Duration) -> Polled {
        match self.consumer.poll(within) {
            Some(Ok(message)) => {
                self.happened.add_read(read(&message));
                Polled::Record
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Polled::End(partition),
            Some(Err(error)) => {
                self.lost |= error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
                Polled::Nothing
            }
            None => Polled::Nothing,
        }
    }

    /// Looks until so many records came or the time is over.
    pub(super) fn poll_some(&mut self, records: usize, within: Duration) {
        let end = Instant::now() + within;
        let mut came = 0;
        while came < records && Instant::now() < end {
            came += usize::from(matches!(self.poll(POLL), Polled::Record));
        }
    }

    /// Whether it has to begin anew.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// What happened since the last time.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.happened.events.lock().expect("no holder panics"))
    }

    /// Takes what happened and writes it down, each by itself; gives it, too.
    pub(super) fn note_events(&self) -> Vec<Event> {
        let events = self.take();
        note(self.client, &events);
        events
    }

    /// What to commit offsets of the partitions with that it has now.
    pub(super) fn with_metadata<T>(
        &self,
        use_it: impl FnOnce(&ConsumerGroupMetadata) -> T,
    ) -> Option<T> {
        let metadata = self.happened.metadata.lock().expect("no holder panics");
        metadata.as_ref().map(use_it)
    }

    /// Leaves; what its process does next, it does with another consumer.
    pub(super) fn leave(self) {
        let (client, happened) = (self.client, Arc::clone(&self.happened));
        drop(self.consumer);
        let events = std::mem::take(&mut *happened.events.lock().expect("no holder panics"));
        note(client, &events);
        let now_us = client.recorder.now_us();
        client
            .recorder
            .note(client.process, now_us, Outcome::Ok, Action::Crash);
    }

    fn note(&self, action: Action) {
        let now_us = self.client.recorder.now_us();
        let process = self.client.process;
        self.client
            .recorder
            .note(process, now_us, Outcome::Ok, action);
    }
}

/// Writes down what happened, each by itself.
pub(super) fn note(client: &Client, events: &[Event]) {
    for event in events {
        let (since_us, action) = match event {
            Event::Reads { since_us, reads } => (*since_us, Action::Poll(reads.clone())),
            Event::Rebalance {
                at_us,
                assigned,
                revoked,
            } => {
                let (assigned, revoked) = (assigned.clone(), revoked.clone());
                (*at_us, Action::Rebalance { assigned, revoked })
            }
        };
        client
            .recorder
            .note(client.process, since_us, Outcome::Ok, action);
    }
}
