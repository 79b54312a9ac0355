//! Reading the machines back from `__transaction_state` after the start, on a blocking thread, one partition after the
//! other. Damage in one partition makes only its transactional ids unavailable.

use std::sync::Arc;

use keelson_state::transactions::{TransactionConfig, TransactionCoordinator};
use tokio::sync::mpsc;

use super::Message;
use crate::coordinator::load::{Replayed, each_record};
use crate::partitions::PartitionOwner;

/// One partition's machine, or why there is none.
pub(super) struct LoadedShard {
    pub(super) index: i32,
    pub(super) machine: Result<TransactionCoordinator, String>,
}

/// Loads these partitions and sends each to the owner.
pub(super) fn load_all(
    partitions: Vec<Arc<PartitionOwner>>,
    config: &TransactionConfig,
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

fn load(
    partition: &PartitionOwner,
    config: &TransactionConfig,
) -> Result<TransactionCoordinator, String> {
    let mut machine = TransactionCoordinator::new(config.clone());
    each_record(partition, &mut |replayed| match replayed {
        Replayed::Record { key, value, .. } => machine
            .replay(key, value)
            .map_err(|error| error.to_string()),
        // Nobody writes any here.
        Replayed::End { .. } => Ok(()),
    })?;
    Ok(machine)
}
