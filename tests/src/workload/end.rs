//! The end of a run: everybody finishes, open transactions are ended, the groups read and commit all there is, and everything
//! is read twice, before and after a last kill.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::recorder::{key, partition};
use super::{
    CALL_WITHIN, CALM_WATCHERS, Client, Crew, IN, MIXED, MOVERS, OUT, PARTITIONS, SETTLE_WITHIN,
    TOPICS, WATCHERS, reader, transactional,
};
use crate::Broker;
use crate::consistency::Key;
use crate::wait::wait_until;
use crate::wire::{Wire, text};

#[track_caller]
pub(super) fn settle(
    broker: &mut Broker,
    client: &Client,
    (writers, movers, watchers): (Crew, Crew, Crew),
) {
    writers.stop();
    end_transactions(client, &[11, 12]);
    all_is_stable(broker, &[IN]);
    let there = read_all(client, 90, &[IN]);
    committed_all(client, MOVERS, &there);
    movers.stop();
    end_transactions(client, &[21, 22]);
    all_is_stable(broker, &TOPICS);
    let there = read_all(client, 91, &[OUT, MIXED]);
    for group in [WATCHERS, CALM_WATCHERS] {
        committed_all(client, group, &there);
    }
    watchers.stop();
    broker.kill9();
    let (code, told) = broker.verify();
    assert_eq!(code, 0, "log verify after the last kill: {told}");
    broker.restart();
    read_all(client, 93, &TOPICS);
}

/// Reads topics to their ends, each with a process of its own from this number on; gives the last record of each partition.
#[track_caller]
fn read_all(client: &Client, first: u32, topics: &[&str]) -> BTreeMap<Key, i64> {
    let client = |process| Client {
        process,
        ..client.clone()
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (first..)
            .zip(topics)
            .map(|(process, topic)| {
                let client = client(process);
                scope.spawn(move || reader::read_all(&client, topic))
            })
            .collect();
        let read = readers.into_iter().map(|reader| reader.join());
        read.flat_map(|last| last.expect("a reader comes to the end"))
            .collect()
    })
}

/// Whoever begins ends what another one with the same id left open.
#[track_caller]
fn end_transactions(client: &Client, processes: &[u32]) {
    std::thread::scope(|scope| {
        for process in processes {
            let client = Client {
                process: *process,
                ..client.clone()
            };
            scope.spawn(move || {
                wait_until("a transactional id begins", SETTLE_WITHIN, || {
                    transactional::begin(&client).is_some()
                });
            });
        }
    });
}

/// No transaction is open in these topics any more.
#[track_caller]
fn all_is_stable(broker: &Broker, topics: &[&str]) {
    let mut wire = Wire::connect(broker.bootstrap());
    for topic in topics {
        for partition in 0..PARTITIONS {
            wait_until("all transactions have their markers", SETTLE_WITHIN, || {
                let [end, stable] = [0, 1].map(|isolation| {
                    let partition = ListOffsetsPartition::default()
                        .with_partition_index(partition)
                        .with_current_leader_epoch(-1)
                        .with_timestamp(-1);
                    let topic = ListOffsetsTopic::default()
                        .with_name(TopicName(text(topic)))
                        .with_partitions(vec![partition]);
                    let request = ListOffsetsRequest::default()
                        .with_replica_id(BrokerId(-1))
                        .with_isolation_level(isolation)
                        .with_topics(vec![topic]);
                    let answer = wire.call(5, &request);
                    let partition = &answer.topics[0].partitions[0];
                    (partition.error_code, partition.offset)
                });
                end == stable && end.0 == 0
            });
        }
    }
}

/// The group has committed everything that is there.
#[track_caller]
fn committed_all(client: &Client, group: &str, there: &BTreeMap<Key, i64>) {
    let consumer: BaseConsumer = client
        .config()
        .set("group.id", group)
        .create()
        .expect("a consumer");
    let mut asked = TopicPartitionList::new();
    for key in there.keys() {
        let (topic, partition) = partition(*key);
        asked.add_partition(topic, partition);
    }
    let what = format!("{group} has committed all there is: {there:?}");
    wait_until(&what, SETTLE_WITHIN, || {
        let Ok(found) = consumer.committed_offsets(asked.clone(), CALL_WITHIN) else {
            return false;
        };
        let elements = found.elements();
        elements.iter().all(|element| {
            let last = there[&key(element.topic(), element.partition())];
            matches!(element.offset(), Offset::Offset(next) if next > last)
        })
    });
}
