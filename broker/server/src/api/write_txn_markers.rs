//! WriteTxnMarkers (key 27), versions 1–1.
//!
//! - 1: flexible.
//!
//! Left out: the transaction version (version 2). Brokers ask this of each other, of which there are none; administrators
//! do so to end a transaction that its coordinator has forgotten.

use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use keelson_protocol::kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use keelson_protocol::kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use keelson_state::producers::Marker;

use super::common::code;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::transactions::{MarkerFailure, end_in};

/// The handler.
pub struct WriteTxnMarkers;

impl Api for WriteTxnMarkers {
    type Request = WriteTxnMarkersRequest;
    type Response = WriteTxnMarkersResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<WriteTxnMarkersRequest>,
    ) -> Outcome<WriteTxnMarkersResponse> {
        let broker = Arc::clone(broker);
        Outcome::later(async move {
            let mut first = None;
            let mut results = Vec::with_capacity(call.body.markers.len());
            for marker in call.body.markers {
                results.push(write(&broker, marker, &mut first).await);
            }
            Answer::new(
                WriteTxnMarkersResponse::default().with_markers(results),
                first,
            )
        })
    }
}

async fn write(
    broker: &Broker,
    asked: WritableTxnMarker,
    first: &mut Option<ErrorCode>,
) -> WritableTxnMarkerResult {
    let marker = Marker {
        producer_id: asked.producer_id.0,
        epoch: asked.producer_epoch,
        coordinator_epoch: asked.coordinator_epoch,
        commit: asked.transaction_result,
    };
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in asked.topics {
        let name: Arc<str> = topic.name.to_string().into();
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let place = (Arc::clone(&name), index);
            let ended = end_in(broker, &place, marker, false).await;
            let error = ended.err().map(error_of);
            if let Some(error) = error {
                first.get_or_insert(error);
            }
            partitions.push(
                WritableTxnMarkerPartitionResult::default()
                    .with_partition_index(index)
                    .with_error_code(code(error)),
            );
        }
        topics.push(
            WritableTxnMarkerTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    WritableTxnMarkerResult::default()
        .with_producer_id(asked.producer_id)
        .with_topics(topics)
}

fn error_of(failure: MarkerFailure) -> ErrorCode {
    match failure {
        MarkerFailure::Unavailable => ErrorCode::NotEnoughReplicas,
        MarkerFailure::Unknown => ErrorCode::UnknownTopicOrPartition,
        MarkerFailure::Refused => ErrorCode::InvalidProducerEpoch,
        MarkerFailure::CoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
    }
}
