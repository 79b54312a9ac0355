//! What a partition of `__transaction_state` holds, fed to its machine.

use keelson_state::transactions::TransactionCoordinator;

use crate::coordinator::load::{Replayed, each_record};
use crate::partitions::PartitionOwner;

/// Feeds it to a fresh machine.
pub(super) fn load(
    partition: &PartitionOwner,
    mut machine: TransactionCoordinator,
) -> Result<TransactionCoordinator, String> {
    each_record(partition, &mut |replayed| match replayed {
        Replayed::Record { key, value, .. } => machine
            .replay(key, value)
            .map_err(|error| error.to_string()),
        // Nobody writes any here.
        Replayed::End { .. } => Ok(()),
    })?;
    Ok(machine)
}
