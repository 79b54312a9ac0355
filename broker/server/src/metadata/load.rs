//! From the log to the image, at the start. Damage here stops the start in words, until it is given up by `log
//! accept-loss`: then what later records say about things that the lost ones made is told and left out, and numbers that
//! only grow go on above whatever the lost records may have said.

use std::collections::HashSet;
use std::sync::Arc;

use keelson_log::{
    AppendError, Entry, Log, Observer, Partition, PartitionConfig, PartitionId, ProducedBatch,
    ReadError, TopicId,
};
use keelson_protocol::BatchHeader;
use keelson_protocol::batch::BatchError;
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;
use keelson_state::codec::CodecError;
use keelson_state::metadata::{ApplyError, CLUSTER_METADATA_ID, Image, Record, register_start};

/// Metadata segments roll at this size; nothing in them is ever deleted by time or size.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Records of one change are cut into batches of about this size, far below what a WAL file holds.
const BATCH_BYTES: usize = 256 * 1024;

/// Why the metadata could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log cannot be read.
    #[error("__cluster_metadata cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A batch is malformed.
    #[error("__cluster_metadata, batch at offset {offset}: {error}")]
    Batch {
        /// Base offset of the batch.
        offset: i64,
        /// What is wrong.
        error: BatchError,
    },
    /// A record is malformed or of a newer version.
    #[error("__cluster_metadata, offset {offset}: {error}")]
    Record {
        /// Its offset.
        offset: i64,
        /// What is wrong.
        error: CodecError,
    },
    /// A record has no value.
    #[error("__cluster_metadata, offset {offset}: the record has no value")]
    Empty {
        /// Its offset.
        offset: i64,
    },
    /// A record cannot follow those before it.
    #[error("__cluster_metadata, offset {offset}: {error}")]
    Apply {
        /// Its offset.
        offset: i64,
        /// What is wrong.
        error: ApplyError,
    },
    /// The record of this start was not taken.
    #[error("__cluster_metadata takes no record of this start: {0}")]
    Append(#[from] AppendError),
    /// The log ended before the record of this start was durable.
    #[error("the log ended before the record of this start was durable")]
    Ended,
}

/// The metadata as of the start.
pub struct Loaded {
    /// The image.
    pub image: Image,
    partition: Arc<Partition>,
}

struct NobodyWaits;

impl Observer for NobodyWaits {
    fn durable(&self, _durable_offset: i64) {}
    fn log_start(&self, _offset: i64) {}
}

/// The partition that holds the metadata.
pub(super) fn partition_id() -> PartitionId {
    PartitionId {
        topic: TopicId(CLUSTER_METADATA_ID),
        index: 0,
    }
}

/// Reads all metadata records. Blocks.
///
/// # Errors
/// If they are damaged, or were written by a newer version.
pub fn load(log: &Log) -> Result<Loaded, LoadError> {
    let config = PartitionConfig {
        segment_bytes: SEGMENT_BYTES,
        segment_ms: i64::MAX,
        retention_ms: -1,
        retention_bytes: -1,
        compaction: None,
    };
    let partition = log.open_partition(partition_id(), config, Arc::new(NobodyWaits));
    let mut replay = Replay {
        image: Image::default(),
        lost: partition.accepted_losses(),
        started_behind: false,
        ids_behind: false,
    };
    let mut failed = None;
    let mut take = |header: &BatchHeader, batch: bytes::Bytes| {
        if failed.is_none() {
            failed = replay.batch(header, &batch).err();
        }
    };
    partition.replay_batches(partition.log_start(), &mut take)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Loaded {
            image: replay.finish(),
            partition,
        }),
    }
}

/// The records so far.
struct Replay {
    image: Image,
    /// Offsets that were given up: inclusive ranges, ascending.
    lost: Vec<(i64, i64)>,
    /// Whether a start, and a block of producer ids, are recorded behind all of them: those are above what was lost.
    started_behind: bool,
    ids_behind: bool,
}

impl Replay {
    fn batch(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), LoadError> {
        let bad_batch = |error| LoadError::Batch {
            offset: header.base_offset,
            error,
        };
        let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(bad_batch)?;
        for record in RecordWalker::new(&records, header.records_count) {
            let record = record.map_err(bad_batch)?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = record.value.ok_or(LoadError::Empty { offset })?;
            let record =
                Record::decode(value).map_err(|error| LoadError::Record { offset, error })?;
            self.record(offset, &record)?;
        }
        Ok(())
    }

    fn record(&mut self, offset: i64, record: &Record) -> Result<(), LoadError> {
        let is_behind_loss = self.lost.first().is_some_and(|(from, _)| *from < offset);
        if self.lost.last().is_some_and(|(_, to)| *to < offset) {
            match record {
                Record::BrokerStarted { .. } => self.started_behind = true,
                Record::ProducerIds { .. } => self.ids_behind = true,
                Record::TopicCreated { .. }
                | Record::TopicRemoved { .. }
                | Record::PartitionsGrown { .. }
                | Record::ConfigChanged { .. }
                | Record::BrokerConfigChanged { .. } => {}
            }
        }
        match self.image.apply(record) {
            Ok(()) => Ok(()),
            Err(error) if is_behind_loss => {
                tracing::error!(offset, %error, "a metadata record is left out: what it builds on was given up");
                Ok(())
            }
            Err(error) => Err(LoadError::Apply { offset, error }),
        }
    }

    fn finish(mut self) -> Image {
        // Each lost offset was at most one start, or one block.
        let lost: i64 = self.lost.iter().map(|(from, to)| to - from + 1).sum();
        let starts = if self.started_behind { 0 } else { lost };
        let blocks = if self.ids_behind { 0 } else { lost };
        self.image.pass_lost(starts, blocks);
        self.image
    }
}

impl Loaded {
    /// Writes the record of this start, waits until it is durable, and applies it: leader epochs move on. Blocks.
    ///
    /// # Errors
    /// If the log does not take it.
    pub fn register_start(&mut self, log: &Log, now_ms: i64) -> Result<(), LoadError> {
        let record = register_start(&self.image, log.identity().broker_id);
        let entries = appends(
            &self.partition,
            &self.image,
            std::slice::from_ref(&record),
            now_ms,
        );
        let (sender, durable) = std::sync::mpsc::channel();
        log.commit(
            entries,
            Box::new(move || {
                // The receiver waits below for as long as this process can go on.
                let _ = sender.send(());
            }),
        )?;
        durable.recv().map_err(|_| LoadError::Ended)?;
        let offset = self.partition.durable_offset();
        self.image
            .apply(&record)
            .map_err(|error| LoadError::Apply { offset, error })
    }

    /// Every partition that there should be a folder of: what else lies in the data directory is nobody's.
    pub fn known_partitions(&self) -> HashSet<PartitionId> {
        let of_topics = self.image.topics().flat_map(|topic| {
            (0..topic.partitions).map(|index| PartitionId {
                topic: TopicId(topic.id),
                index,
            })
        });
        of_topics.chain([partition_id()]).collect()
    }
}

/// The appends of these records, as few batches.
pub(super) fn appends(
    partition: &Arc<Partition>,
    image: &Image,
    records: &[Record],
    now_ms: i64,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut builder = BatchBuilder::new(now_ms);
    for record in records {
        builder.push(None, Some(&record.encode()));
        if builder.size() >= BATCH_BYTES {
            let full = std::mem::replace(&mut builder, BatchBuilder::new(now_ms));
            entries.push(append(partition, image, full));
        }
    }
    if builder.count() > 0 {
        entries.push(append(partition, image, builder));
    }
    entries
}

fn append(partition: &Arc<Partition>, image: &Image, builder: BatchBuilder) -> Entry {
    let bytes = builder.build();
    let header = BatchHeader::parse(&bytes).expect("the builder makes well-formed batches");
    Entry::Append {
        partition: Arc::clone(partition),
        batch: ProducedBatch {
            bytes,
            header,
            pin: None,
        },
        leader_epoch: i32::try_from(image.broker_epoch()).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_state::metadata::PRODUCER_ID_BLOCK;

    fn replay(lost: &[(i64, i64)], records: &[(i64, Record)]) -> Result<Image, LoadError> {
        let mut replay = Replay {
            image: Image::default(),
            lost: lost.to_vec(),
            started_behind: false,
            ids_behind: false,
        };
        for (offset, record) in records {
            replay.record(*offset, record)?;
        }
        Ok(replay.finish())
    }

    fn started(epoch: i64) -> Record {
        Record::BrokerStarted {
            broker_id: 0,
            epoch,
        }
    }

    fn created(number: u8) -> Record {
        Record::TopicCreated {
            id: [number; 16],
            name: format!("topic-{number}"),
            partitions: 1,
            broker_epoch: 1,
            configs: Vec::new(),
        }
    }

    fn changed(number: u8) -> Record {
        Record::ConfigChanged {
            id: [number; 16],
            key: "retention.ms".to_owned(),
            value: Some("1".to_owned()),
        }
    }

    #[test]
    fn what_builds_on_a_lost_record_stops_the_start_until_the_loss_is_accepted() {
        let records = [
            (0, started(1)),
            (1, created(1)),
            (3, changed(2)),
            (4, changed(1)),
        ];
        let stopped = replay(&[], &records).unwrap_err().to_string();
        assert!(stopped.contains("offset 3"), "{stopped}");
        let image = replay(&[(2, 2)], &records).unwrap();
        assert_eq!(image.topic_count(), 1);
        let topic = image.topic("topic-1").unwrap();
        assert_eq!(topic.configs.len(), 1, "what does not build on it is there");
        // Before the loss there is no excuse.
        assert!(replay(&[(5, 5)], &records).is_err());
    }

    #[test]
    fn numbers_go_on_above_what_was_lost_and_only_once() {
        let ids = |next_producer_id| Record::ProducerIds {
            broker_id: 0,
            next_producer_id,
        };
        let before = [(0, started(1)), (1, ids(PRODUCER_ID_BLOCK))];
        let image = replay(&[(2, 4)], &before).unwrap();
        assert_eq!(image.broker_epoch(), 4);
        assert_eq!(image.next_producer_id(), 4 * PRODUCER_ID_BLOCK);
        // The start that followed, and its block, are recorded: nothing is added again.
        let mut all = before.to_vec();
        all.extend([(5, started(5)), (6, ids(5 * PRODUCER_ID_BLOCK))]);
        let image = replay(&[(2, 4)], &all).unwrap();
        assert_eq!(image.broker_epoch(), 5);
        assert_eq!(image.next_producer_id(), 5 * PRODUCER_ID_BLOCK);
        assert_eq!(replay(&[], &before).unwrap().broker_epoch(), 1);
    }
}
