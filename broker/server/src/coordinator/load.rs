//! Reading the machines of a coordinator back from its topic after the start, on a blocking thread, one partition after the
//! other. Damage in one partition makes only what belongs to it unavailable.

use std::sync::Arc;

use keelson_protocol::control::EndMarker;
use keelson_protocol::records::{RecordWalker, decompressed};
use keelson_protocol::validate::DECOMPRESSED_BYTES_MAX;
use keelson_protocol::{BATCH_HEADER_BYTES, BatchHeader};
use keelson_state::groups::GroupCoordinator;
use tokio::sync::mpsc;

use crate::partitions::PartitionOwner;

/// One partition's machine, or why there is none.
pub(crate) struct LoadedShard<M> {
    pub(crate) index: i32,
    pub(crate) machine: Result<M, String>,
}

/// Loads these partitions, each with `load`, and sends each to the owner, as `message` says it.
pub(crate) fn load_all<M, Message>(
    partitions: Vec<Arc<PartitionOwner>>,
    load: impl Fn(&PartitionOwner) -> Result<M, String>,
    owner: &mpsc::WeakSender<Message>,
    message: impl Fn(LoadedShard<M>) -> Message,
) {
    for partition in partitions {
        let machine = load(&partition);
        let index = partition.id().index;
        let Some(owner) = owner.upgrade() else {
            return;
        };
        let loaded = message(LoadedShard { index, machine });
        if owner.blocking_send(loaded).is_err() {
            return;
        }
    }
}

/// Feeds a fresh machine what a partition of `__consumer_offsets` holds.
pub(super) fn load(
    partition: &PartitionOwner,
    mut machine: GroupCoordinator,
) -> Result<GroupCoordinator, String> {
    each_record(partition, &mut |replayed| {
        let of_transaction = |header: &BatchHeader| header.is_transactional();
        match replayed {
            Replayed::Record { header, key, value } if of_transaction(header) => machine
                .replay_transactional(header.producer_id, key, value)
                .map_err(|error| error.to_string()),
            Replayed::Record { key, value, .. } => machine
                .replay(key, value)
                .map_err(|error| error.to_string()),
            Replayed::End { header, end } => {
                machine.replay_end(header.producer_id, end.commit);
                Ok(())
            }
        }
    })?;
    Ok(machine)
}

/// What the log of a coordinator holds.
pub(crate) enum Replayed<'a> {
    /// A record, and the header of its batch.
    Record {
        header: &'a BatchHeader,
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// The end of a transaction.
    End {
        header: &'a BatchHeader,
        end: EndMarker,
    },
}

/// Calls `take` with everything in a coordinator's partition, in log order, until it fails.
pub(crate) fn each_record(
    partition: &PartitionOwner,
    take: &mut dyn FnMut(Replayed<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut failed = None;
    let mut each = |header: &BatchHeader, batch: bytes::Bytes| {
        if failed.is_none() {
            let replayed = replay(take, header, &batch);
            let place = |error| format!("batch at offset {}: {error}", header.base_offset);
            failed = replayed.map_err(place).err();
        }
    };
    let log = partition.log();
    log.replay_batches(log.log_start(), &mut each)
        .map_err(|error| error.to_string())?;
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn replay(
    take: &mut dyn FnMut(Replayed<'_>) -> Result<(), String>,
    header: &BatchHeader,
    batch: &[u8],
) -> Result<(), String> {
    if header.is_control() {
        return match EndMarker::of(header, &batch[BATCH_HEADER_BYTES..]) {
            Some(end) => take(Replayed::End { header, end }),
            None => Ok(()),
        };
    }
    let records = decompressed(batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    for record in RecordWalker::new(&records, header.records_count) {
        let record = record.map_err(|error| error.to_string())?;
        let key = record
            .key
            .ok_or_else(|| "a record without key".to_owned())?;
        let value = record.value;
        take(Replayed::Record { header, key, value })?;
    }
    Ok(())
}
