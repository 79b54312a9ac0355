//! A compacted topic under load, from which records are deleted, too: who was killed must still have the newest record of
//! each key, and no log start may have gone back.
//!
//! Owns what was acknowledged of it. Writes over the wire, recounts with librdkafka, as [`crate::load`] does.

use std::collections::BTreeMap;
use std::thread::JoinHandle;

use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::{DeleteRecordsRequest, TopicName};

use crate::rdk;
use crate::records::{check_payload, keyed_batch, now_ms, payload};
use crate::wire::{Wire, text};

/// The topic.
pub const TABLE: &str = "table";
/// Its settings: compacted all the time, small segments, nothing goes by age or size.
pub const CONFIGS: [(&str, &str); 5] = [
    ("cleanup.policy", "compact,delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("min.cleanable.dirty.ratio", "0.05"),
    ("segment.bytes", "131072"),
];
const KEYS: u64 = 40;
const RECORDS_PER_BATCH: u64 = 8;
const VALUE_BYTES: usize = 700;
/// The payloads' stream.
const STREAM: u32 = 77;
/// Every so many batches, records are deleted from the front.
const BATCHES_PER_DELETION: u64 = 60;
/// So many offsets behind the end stay.
const KEPT_OFFSETS: i64 = 6_000;

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Table {
    /// By key: offset and sequence of the newest acknowledged record.
    acked: BTreeMap<u64, (i64, u64)>,
    /// Sequences given out, acknowledged or not.
    sequences: u64,
    acks: u64,
    /// The highest log start that was acknowledged, and that was asked for.
    start: (i64, i64),
}

impl Table {
    /// Records acknowledged so far.
    pub fn total(&self) -> u64 {
        self.acks
    }

    /// Writes and deletes until the connection ends.
    pub fn write(mut self, mut wire: Wire) -> JoinHandle<Table> {
        std::thread::spawn(move || {
            let mut batches = 0;
            while self.batch(&mut wire).is_some() {
                batches += 1;
                if batches % BATCHES_PER_DELETION == 0 && self.delete(&mut wire).is_none() {
                    break;
                }
            }
            self
        })
    }

    fn batch(&mut self, wire: &mut Wire) -> Option<()> {
        let sequences = self.sequences..self.sequences + RECORDS_PER_BATCH;
        self.sequences = sequences.end;
        let made: Vec<([u8; 8], Vec<u8>)> = sequences
            .clone()
            .map(|n| ((n % KEYS).to_be_bytes(), payload(VALUE_BYTES, STREAM, n)))
            .collect();
        let records: Vec<(Option<&[u8]>, &[u8])> = made
            .iter()
            .map(|(key, value)| (Some(&key[..]), &value[..]))
            .collect();
        let request = Wire::produce_request(TABLE, 0, keyed_batch(&records, now_ms()), 1);
        let answer = wire.try_call(8, &request).ok()?;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "a produce to {TABLE}");
        for (number, offset) in sequences.zip(partition.base_offset..) {
            self.acked.insert(number % KEYS, (offset, number));
            self.acks += 1;
        }
        Some(())
    }

    fn delete(&mut self, wire: &mut Wire) -> Option<()> {
        let newest = self.acked.values().map(|(offset, _)| *offset).max()?;
        let offset = newest - KEPT_OFFSETS;
        if offset <= self.start.1 {
            return Some(());
        }
        self.start.1 = offset;
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(text(TABLE)))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let answer = wire.try_call(2, &request).ok()?;
        let answered = &answer.topics[0].partitions[0];
        assert_eq!((answered.error_code, answered.low_watermark), (0, offset));
        self.start.0 = offset;
        Some(())
    }

    /// Reads everything with librdkafka and holds it against what was acknowledged.
    ///
    /// # Panics
    /// When a newest record is missing or changed, an older one comes after a newer one, or the log start went back.
    #[track_caller]
    pub fn recount(&mut self, bootstrap: &str) -> usize {
        let start = Wire::connect(bootstrap).list_offset(TABLE, 0, -2);
        let start = start.expect("the log start of a healthy partition");
        let (acked, asked) = self.start;
        assert!(
            start == acked || start == asked,
            "the log starts at {start}, acknowledged {acked}, asked for {asked}"
        );
        self.start = (start, start);
        let seen = rdk::read_all(bootstrap, TABLE);
        let mut newest: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
        for record in &seen {
            let (stream, number) = check_payload(&record.value).expect("a payload as it was sent");
            assert!(stream == STREAM && number < self.sequences, "{number}");
            let before = newest.insert(number % KEYS, (record.offset, number));
            assert!(
                before.is_none_or(|(offset, older)| offset < record.offset && older < number),
                "{number} at {} comes after {before:?}",
                record.offset
            );
        }
        for (key, (offset, number)) in &self.acked {
            let found = newest.get(key);
            // What was not acknowledged may be there, too.
            assert!(
                found == Some(&(*offset, *number)) || found.is_some_and(|(_, n)| n > number),
                "key {key}: {number} was acknowledged at {offset}, found {found:?}"
            );
        }
        self.acked = newest;
        seen.len()
    }
}
