//! DescribeLogDirs (key 35), versions 1–4.
//!
//! - 1: nothing new on the wire. 2: flexible. 3: an error for the whole answer. 4: size and room of the volume (KIP-827).
//!
//! The one directory is the data directory; a partition's size is what its segments and its tail hold, and the
//! write-ahead log is nobody's. Left out: version 5 (cordoned directories); more than one directory, and with it replicas
//! that move between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use keelson_protocol::kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use keelson_protocol::kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
};

use super::common::{log_dir, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::partitions::TopicState;

/// The handler.
pub struct DescribeLogDirs;

impl Api for DescribeLogDirs {
    type Request = DescribeLogDirsRequest;
    type Response = DescribeLogDirsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DescribeLogDirsRequest>,
    ) -> Outcome<DescribeLogDirsResponse> {
        let Call { version, body, .. } = call;
        let topics = match body.topics {
            None => all(broker),
            Some(topics) => some(broker, topics),
        };
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            let result = DescribeLogDirsResult::default()
                .with_log_dir(text(log_dir(&broker).display().to_string()))
                .with_topics(topics);
            let (result, error) = if version >= 4 {
                volume(broker, result).await
            } else {
                (result, None)
            };
            let response = DescribeLogDirsResponse::default().with_results(vec![result]);
            Answer::new(response, error)
        })
    }
}

/// The size and room of the volume; asked on a thread that may block.
async fn volume(
    broker: Arc<Broker>,
    result: DescribeLogDirsResult,
) -> (DescribeLogDirsResult, Option<ErrorCode>) {
    let asked = tokio::task::spawn_blocking(move || broker.log.space());
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    match asked.await {
        Ok(Ok(space)) => {
            let result = result
                .with_total_bytes(bytes(space.total_bytes))
                .with_usable_bytes(bytes(space.free_bytes));
            (result, None)
        }
        Ok(Err(_)) | Err(_) => {
            let error = ErrorCode::KafkaStorageError;
            (result.with_error_code(error.code()), Some(error))
        }
    }
}

fn all(broker: &Broker) -> Vec<DescribeLogDirsTopic> {
    let mut topics = broker.partitions.topics();
    topics.sort_by(|one, other| one.topic.name.cmp(&other.topic.name));
    let describe = |state: &Arc<TopicState>| describe(state, 0..state.topic.partitions);
    topics.iter().map(describe).collect()
}

/// Those that are asked for and that there are.
fn some(broker: &Broker, topics: Vec<DescribableLogDirTopic>) -> Vec<DescribeLogDirsTopic> {
    let mut wanted: BTreeMap<TopicName, BTreeSet<i32>> = BTreeMap::new();
    for topic in topics {
        wanted
            .entry(topic.topic)
            .or_default()
            .extend(topic.partitions);
    }
    let known = wanted.into_iter().filter_map(|(name, indexes)| {
        let state = broker.partitions.topic(&name)?;
        Some(describe(&state, indexes))
    });
    known.filter(|topic| !topic.partitions.is_empty()).collect()
}

fn describe(state: &TopicState, indexes: impl IntoIterator<Item = i32>) -> DescribeLogDirsTopic {
    let describe = |index: i32| {
        let size = state.partition(index)?.log().size_bytes();
        let described = DescribeLogDirsPartition::default()
            .with_partition_index(index)
            .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX));
        Some(described)
    };
    DescribeLogDirsTopic::default()
        .with_name(TopicName(text(&*state.topic.name)))
        .with_partitions(indexes.into_iter().filter_map(describe).collect())
}
