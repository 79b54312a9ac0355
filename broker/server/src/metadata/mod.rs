//! The owner of `__cluster_metadata`: replay at the start, durable changes, the image that everybody reads.
//!
//! Owns the partition of that log and the order of changes. A change is decided on the newest image, becomes durable,
//! is applied, and is published together with the partitions it touches, one change at a time.

use std::sync::Arc;

use bytes::Bytes;
use keelson_log::{
    Entry, Log, Observer, Partition, PartitionConfig, PartitionId, ProducedBatch, TopicId,
};
use keelson_protocol::builder::BatchBuilder;
use keelson_protocol::kafka_protocol::messages::ApiKey;
use keelson_protocol::records::RecordWalker;
use keelson_protocol::{BATCH_HEADER_BYTES, BatchHeader, ErrorCode};
use keelson_state::metadata::{
    CLUSTER_METADATA_ID, CreateTopic, Image, Record, Rules, create_topic, register_start,
};
use tokio::sync::oneshot;

use crate::broker::{Broker, now_ms};
use crate::errors;

/// The partition of the metadata log and whose turn it is to change it.
pub struct Metadata {
    partition: Arc<Partition>,
    turn: tokio::sync::Mutex<()>,
}

/// Nobody waits on the metadata log: commits have a callback of their own.
struct Unobserved;

impl Observer for Unobserved {
    fn durable(&self, _durable_offset: i64) {}
    fn log_start(&self, _offset: i64) {}
}

/// Replays the log of the metadata. Blocks.
///
/// # Errors
/// If any of it cannot be read or applied: without it no topic is known, so the start stops.
pub fn load(log: &Log) -> anyhow::Result<(Metadata, Image)> {
    let id = PartitionId {
        topic: TopicId(CLUSTER_METADATA_ID),
        index: 0,
    };
    let config = PartitionConfig {
        retention_ms: -1,
        retention_bytes: -1,
        ..PartitionConfig::default()
    };
    let partition = log.open_partition(id, config, Arc::new(Unobserved));
    let mut image = Image::default();
    let mut failed = None;
    partition
        .replay_batches(partition.log_start(), &mut |header, batch| {
            if failed.is_none() {
                failed = apply_batch(&mut image, header, &batch).err();
            }
        })
        .map_err(|error| anyhow::anyhow!("__cluster_metadata cannot be read: {error}"))?;
    if let Some(error) = failed {
        return Err(error.context("__cluster_metadata cannot be applied"));
    }
    let metadata = Metadata {
        partition,
        turn: tokio::sync::Mutex::new(()),
    };
    Ok((metadata, image))
}

fn apply_batch(image: &mut Image, header: &BatchHeader, batch: &Bytes) -> anyhow::Result<()> {
    for record in RecordWalker::new(&batch[BATCH_HEADER_BYTES..], header.records_count) {
        let record = record?;
        let value = record.value.unwrap_or_default();
        image.apply(&Record::decode(value)?)?;
    }
    Ok(())
}

fn batch_of(records: &[Record]) -> anyhow::Result<ProducedBatch> {
    let mut builder = BatchBuilder::new(now_ms());
    for record in records {
        builder.push(None, Some(&record.encode()));
    }
    let bytes = builder.build();
    let header = BatchHeader::parse(&bytes)?;
    Ok(ProducedBatch {
        bytes,
        header,
        pin: None,
    })
}

impl Metadata {
    /// Makes records durable and gives the image back with them applied.
    async fn commit(&self, log: &Log, image: &Image, records: &[Record]) -> anyhow::Result<Image> {
        let mut next = image.clone();
        for record in records {
            next.apply(record)?;
        }
        let (done, durable) = oneshot::channel();
        let entry = Entry::Append {
            partition: Arc::clone(&self.partition),
            batch: batch_of(records)?,
            leader_epoch: 0,
        };
        log.commit(vec![entry], Box::new(move || _ = done.send(())))?;
        durable.await?;
        Ok(next)
    }

    /// Writes the record of this start; the image with it.
    ///
    /// # Errors
    /// If the log does not take it.
    pub async fn register_start(&self, log: &Log, image: &Image) -> anyhow::Result<Image> {
        let record = register_start(image, log.identity().broker_id);
        self.commit(log, image, &[record]).await
    }
}

/// Creates topics with the broker's defaults; gives back those that failed, with the reason.
pub async fn auto_create(broker: &Broker, names: Vec<String>) -> Vec<(String, ErrorCode)> {
    let _turn = broker.metadata.turn.lock().await;
    let mut failed = Vec::new();
    for name in names {
        let image = broker.image();
        let rules = Rules {
            broker_id: broker.id(),
            default_partitions: broker.config.num_partitions,
            limits: broker.limits(),
            statics: &broker.config.topic_defaults,
        };
        let want = CreateTopic {
            name: name.clone(),
            partitions: -1,
            replication_factor: -1,
            ..CreateTopic::default()
        };
        let id = *uuid::Uuid::new_v4().as_bytes();
        let record = match create_topic(&image, &rules, &want, id, false) {
            Ok(record) => record,
            Err(error) => {
                failed.push((name, errors::metadata(&error)));
                continue;
            }
        };
        match broker.metadata.commit(&broker.log, &image, &[record]).await {
            Ok(next) => {
                let next = Arc::new(next);
                broker.publish_image(Arc::clone(&next));
                broker.partitions.sync(&next, &[id]);
            }
            Err(error) => {
                tracing::warn!(%error, api = ?ApiKey::Metadata, "a topic was not created");
                failed.push((name, ErrorCode::KafkaStorageError));
            }
        }
    }
    failed
}
