//! Reading the machines back from `__consumer_offsets` after the start, on a blocking thread, one partition after the
//! other. Damage in one partition makes only its groups unavailable.

use std::sync::Arc;

use keelson_protocol::BatchHeader;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;
use keelson_state::groups::{GroupConfig, GroupCoordinator};
use tokio::sync::mpsc;

use super::Message;
use crate::partitions::PartitionOwner;

/// One partition's machine, or why there is none.
pub(super) struct LoadedShard {
    pub(super) index: i32,
    pub(super) machine: Result<GroupCoordinator, String>,
}

/// Loads these partitions and sends each to the owner.
pub(super) fn load_all(
    partitions: Vec<Arc<PartitionOwner>>,
    config: &GroupConfig,
    owner: &mpsc::WeakSender<Message>,
) {
    for partition in partitions {
        let machine = load(&partition, config);
        let index = partition.id().index;
        let Some(owner) = owner.upgrade() else {
            return;
        };
        if owner
            .blocking_send(Message::Loaded(LoadedShard { index, machine }))
            .is_err()
        {
            return;
        }
    }
}

fn load(partition: &PartitionOwner, config: &GroupConfig) -> Result<GroupCoordinator, String> {
    let mut machine = GroupCoordinator::new(config.clone());
    let mut failed = None;
    let mut take = |header: &BatchHeader, batch: bytes::Bytes| {
        if failed.is_none() {
            failed = replay(&mut machine, header, &batch).err();
        }
    };
    let log = partition.log();
    log.replay_batches(log.log_start(), &mut take)
        .map_err(|error| error.to_string())?;
    match failed {
        Some(error) => Err(error),
        None => Ok(machine),
    }
}

fn replay(
    machine: &mut GroupCoordinator,
    header: &BatchHeader,
    batch: &[u8],
) -> Result<(), String> {
    let place = |error: String| format!("batch at offset {}: {error}", header.base_offset);
    let records =
        decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(|error| place(error.to_string()))?;
    for record in RecordWalker::new(&records, header.records_count) {
        let record = record.map_err(|error| place(error.to_string()))?;
        let key = record
            .key
            .ok_or_else(|| place("a record without key".to_owned()))?;
        machine
            .replay(key, record.value)
            .map_err(|error| place(error.to_string()))?;
    }
    Ok(())
}
