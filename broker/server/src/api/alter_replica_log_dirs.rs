//! AlterReplicaLogDirs (key 34), versions 1–2.
//!
//! - 1: nothing new on the wire. 2: flexible.
//!
//! Left out: moving anything: there is one directory. A replica that is asked to be where it is, is there; any other
//! directory is LOG_DIR_NOT_FOUND.

use std::path::Path;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
};

use super::common::{code, first_error, log_dir};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct AlterReplicaLogDirs;

impl Api for AlterReplicaLogDirs {
    type Request = AlterReplicaLogDirsRequest;
    type Response = AlterReplicaLogDirsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<AlterReplicaLogDirsRequest>,
    ) -> Outcome<AlterReplicaLogDirsResponse> {
        let ours = log_dir(broker);
        let mut results = Vec::new();
        for dir in call.body.dirs {
            let is_ours = Path::new(dir.path.as_str()) == ours;
            for topic in dir.topics {
                let state = broker.partitions.topic(&topic.name);
                let partitions = topic.partitions.into_iter().map(|index| {
                    let held = state.as_ref().and_then(|state| state.partition(index));
                    let error = match (is_ours, held) {
                        (false, _) => Some(ErrorCode::LogDirNotFound),
                        (true, None) => Some(ErrorCode::UnknownTopicOrPartition),
                        (true, Some(_)) => None,
                    };
                    AlterReplicaLogDirPartitionResult::default()
                        .with_partition_index(index)
                        .with_error_code(code(error))
                });
                let partitions = partitions.collect();
                results.push(
                    AlterReplicaLogDirTopicResult::default()
                        .with_topic_name(topic.name)
                        .with_partitions(partitions),
                );
            }
        }
        let partitions = results.iter().flat_map(|topic| &topic.partitions);
        let error = first_error(partitions.map(|partition| partition.error_code));
        let response = AlterReplicaLogDirsResponse::default().with_results(results);
        Outcome::Ready(Answer::new(response, error))
    }
}
