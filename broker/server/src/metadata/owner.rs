//! The owner's thread: takes what is queued, decides, commits as one group, publishes, answers.
//!
//! A thread of its own, as a commit may wait for the log's own work. Changes that are queued together share one commit;
//! so an error that follows from another change of the same round ("exists already") waits for its durability, too.

use std::ops::Range;
use std::sync::{Arc, Weak};

use keelson_log::{AppendError, Entry, PartitionId, TopicId};
use keelson_state::metadata::{
    Image, MetadataError, PRODUCER_ID_BLOCK, Record, Rules, TopicUuid, alter_configs,
    create_partitions, create_topic, delete_topic, producer_id_block,
};
use uuid::Uuid;

use super::load::{appends, partition_id};
use super::{Answers, ChangeError, Created, Inbox, Message};
use crate::broker::Broker;
use crate::config::broker_keys;

/// Changes that share a commit: bounds how long the first of them waits.
const ROUND_MESSAGES_MAX: usize = 256;

/// Records of one round, encoded: bounds its group. One large request may still be above it.
const ROUND_RECORDS_MAX: usize = 4_096;

type Finish = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// Starts the owner. It ends when every client is gone.
///
/// # Errors
/// If the system gives no thread.
pub fn spawn(inbox: Inbox, broker: &Arc<Broker>) -> std::io::Result<()> {
    let owner = Owner {
        broker: Arc::downgrade(broker),
        producer_ids: 0..0,
    };
    std::thread::Builder::new()
        .name("metadata".to_owned())
        .spawn(move || owner.run(inbox))?;
    Ok(())
}

struct Owner {
    /// Weak, as the broker holds this owner's queue.
    broker: Weak<Broker>,
    /// Ids of a durable block that are not given out yet.
    producer_ids: Range<i64>,
}

/// What a round has come to so far.
struct Round {
    /// The image with every record of the round applied.
    working: Image,
    records: Vec<Record>,
    finish: Vec<Finish>,
}

impl Owner {
    fn run(mut self, mut inbox: Inbox) {
        while let Some(first) = inbox.receiver.blocking_recv() {
            let Some(broker) = self.broker.upgrade() else {
                return;
            };
            let base = broker.image();
            let mut round = Round {
                working: Image::clone(&base),
                records: Vec::new(),
                finish: Vec::new(),
            };
            let mut next = Some(first);
            while let Some(message) = next {
                self.plan(&broker, &mut round, message);
                let room = round.finish.len() < ROUND_MESSAGES_MAX
                    && round.records.len() < ROUND_RECORDS_MAX;
                next = if room {
                    inbox.receiver.try_recv().ok()
                } else {
                    None
                };
            }
            let (outcome, finish) = self.carry_out(&broker, &base, round);
            // Whoever is answered may stop the broker at once: nothing here holds it then.
            drop((base, broker));
            for finish in finish {
                finish(outcome);
            }
        }
    }

    fn plan(&mut self, broker: &Broker, round: &mut Round, message: Message) {
        let live = broker.live();
        let rules = Rules {
            broker_id: broker.id(),
            default_partitions: broker.config.num_partitions,
            limits: broker.limits(),
            defaults: &live.topic_defaults,
            broker_keys: broker_keys(),
        };
        match message {
            Message::CreateTopics {
                wants,
                by_broker,
                validate_only,
                answers,
            } => round.decide_each(wants, validate_only, answers, |image, want| {
                let id = Uuid::new_v4().into_bytes();
                let record = create_topic(image, &rules, want, id, by_broker)?;
                let created = created(&record, validate_only);
                Ok((vec![record], created))
            }),
            Message::DeleteTopics { topics, answers } => {
                round.decide_each(topics, false, answers, |image, topic| {
                    Ok((vec![delete_topic(image, topic)?], ()))
                });
            }
            Message::CreatePartitions {
                wants,
                validate_only,
                answers,
            } => round.decide_each(wants, validate_only, answers, |image, want| {
                Ok((vec![create_partitions(image, &rules, want)?], ()))
            }),
            Message::AlterConfigs {
                changes,
                validate_only,
                answers,
            } => round.decide_each(
                changes,
                validate_only,
                answers,
                |image, (target, change)| Ok((alter_configs(image, &rules, target, change)?, ())),
            ),
            Message::ProducerId { answers } => self.plan_producer_id(broker, round, answers),
        }
    }

    fn plan_producer_id(&mut self, broker: &Broker, round: &mut Round, answers: Answers<i64>) {
        if self.producer_ids.is_empty() {
            // Should the log refuse the record, the ids are lost to this run: they are many.
            let (first, record) = producer_id_block(&round.working, broker.id());
            round.take(record);
            self.producer_ids = first..first + PRODUCER_ID_BLOCK;
        }
        let id = self.producer_ids.start;
        self.producer_ids.start += 1;
        round.finish.push(Box::new(move |outcome| {
            let result = outcome.map(|()| id).map_err(ChangeError::Log);
            // Who asked may be gone: the id is then simply not used.
            let _ = answers.send(vec![result]);
        }));
    }

    fn carry_out(
        &mut self,
        broker: &Broker,
        base: &Image,
        round: Round,
    ) -> (Result<(), AppendError>, Vec<Finish>) {
        let Round {
            working,
            records,
            finish,
        } = round;
        let outcome = Self::commit(broker, base, &records);
        if outcome.is_err() {
            // A block that is not durable must not be used by a later round.
            self.producer_ids = 0..0;
        } else if !records.is_empty() {
            Self::publish(broker, base, working, &records);
        }
        (outcome, finish)
    }

    /// Makes the records durable, and with them the end of the partitions that go.
    fn commit(broker: &Broker, base: &Image, records: &[Record]) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        // Looked up each time: who holds a partition holds the volume's lock, and the log may end before we do.
        let partition = broker
            .log
            .partition(partition_id())
            .ok_or(AppendError::Closed)?;
        let mut entries = appends(&partition, base, records, broker.now_ms());
        for record in records {
            if let Record::TopicRemoved { id } = record
                && let Some(topic) = base.topic_by_id(id)
            {
                entries.extend((0..topic.partitions).map(|index| {
                    Entry::DeletePartition(PartitionId {
                        topic: TopicId(*id),
                        index,
                    })
                }));
            }
        }
        let (sender, durable) = std::sync::mpsc::channel();
        broker.log.commit(
            entries,
            Box::new(move || {
                // The receiver waits below for as long as this process can go on.
                let _ = sender.send(());
            }),
        )?;
        durable.recv().map_err(|_| AppendError::Closed)
    }

    /// Shows the new image, and tells those who follow it.
    fn publish(broker: &Broker, base: &Image, working: Image, records: &[Record]) {
        let image = Arc::new(working);
        broker.publish_image(Arc::clone(&image));
        let changed: Vec<TopicUuid> = records.iter().filter_map(topic_of).collect();
        broker.partitions.sync(&image, &changed);
        let is_of_broker = |record: &Record| matches!(record, Record::BrokerConfigChanged { .. });
        if records.iter().any(is_of_broker) {
            broker.apply_configs();
        }
        for record in records {
            if let Record::TopicRemoved { id } = record
                && let Some(topic) = base.topic_by_id(id)
            {
                broker.coordinator.topic_deleted(&topic.name);
            }
        }
    }
}

fn topic_of(record: &Record) -> Option<TopicUuid> {
    match record {
        Record::TopicCreated { id, .. }
        | Record::TopicRemoved { id }
        | Record::PartitionsGrown { id, .. }
        | Record::ConfigChanged { id, .. } => Some(*id),
        Record::BrokerStarted { .. }
        | Record::ProducerIds { .. }
        | Record::BrokerConfigChanged { .. } => None,
    }
}

fn created(record: &Record, validate_only: bool) -> Created {
    match record {
        Record::TopicCreated {
            id,
            partitions,
            configs,
            ..
        } => Created {
            id: if validate_only { [0; 16] } else { *id },
            partitions: *partitions,
            configs: configs.clone(),
        },
        Record::BrokerStarted { .. }
        | Record::TopicRemoved { .. }
        | Record::PartitionsGrown { .. }
        | Record::ConfigChanged { .. }
        | Record::BrokerConfigChanged { .. }
        | Record::ProducerIds { .. } => unreachable!("a creation yields TopicCreated"),
    }
}

impl Round {
    fn take(&mut self, record: Record) {
        self.working
            .apply(&record)
            .expect("it was decided on this very image");
        self.records.push(record);
    }

    /// Decides each, on the image that those before it leave behind.
    fn decide_each<W, T: Send + 'static>(
        &mut self,
        wants: Vec<W>,
        validate_only: bool,
        answers: Answers<T>,
        decide: impl Fn(&Image, &W) -> Result<(Vec<Record>, T), MetadataError>,
    ) {
        let mut results = Vec::with_capacity(wants.len());
        for want in &wants {
            let decided = decide(&self.working, want);
            results.push(decided.map(|(records, value)| {
                if !validate_only {
                    for record in records {
                        self.take(record);
                    }
                }
                value
            }));
        }
        self.finish.push(Box::new(move |outcome| {
            let results = results.into_iter().map(|result| match outcome {
                Ok(()) => result.map_err(ChangeError::Refused),
                Err(error) => Err(ChangeError::Log(error)),
            });
            // Who asked may be gone; the change stands all the same.
            let _ = answers.send(results.collect());
        }));
    }
}
