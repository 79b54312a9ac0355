//! Where replicas may be, and what of elections and moves is lawful, with the one broker there is. It never yields a
//! record: nothing of this changes anything yet.

use super::decide::MetadataError;
use super::image::Image;

/// Whether the replicas that a client chose for a partition can be: the one broker, once.
pub(super) fn check_replicas(broker_id: i32, replicas: &[i32]) -> Result<(), MetadataError> {
    let refuse = |reason: String| Err(MetadataError::InvalidReplicaAssignment { reason });
    if replicas.is_empty() {
        return refuse(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        );
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for id in sorted {
        if id != broker_id {
            return refuse(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ));
        }
        if before == Some(id) {
            return refuse(format!(
                "The manual partition assignment includes the broker {id} more than once."
            ));
        }
        before = Some(id);
    }
    Ok(())
}

/// Why a partition gets no new leader: it has the only one it can have, or does not exist.
pub fn check_election(image: &Image, topic: &str, partition: i32) -> MetadataError {
    match image.topic(topic) {
        None => MetadataError::Nowhere {
            reason: format!("No such topic as {topic}"),
        },
        Some(known) if !(0..known.partitions).contains(&partition) => MetadataError::Nowhere {
            reason: format!("No such partition as {topic}-{partition}"),
        },
        Some(_) => MetadataError::ElectionNotNeeded,
    }
}

/// Whether a partition can be moved to these replicas, which is only where it is; none cancels a move.
pub fn check_reassignment(
    image: &Image,
    broker_id: i32,
    (topic, partition): (&str, i32),
    replicas: Option<&[i32]>,
) -> Result<(), MetadataError> {
    let Some(known) = image.topic(topic) else {
        let reason = format!("Unable to find a topic named {topic}.");
        return Err(MetadataError::Nowhere { reason });
    };
    if !(0..known.partitions).contains(&partition) {
        let reason = format!("Unable to find partition {topic}:{partition}.");
        return Err(MetadataError::Nowhere { reason });
    }
    match replicas {
        None => Err(MetadataError::NoReassignment),
        Some(replicas) => check_replicas(broker_id, replicas),
    }
}
