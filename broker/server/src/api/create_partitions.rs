//! CreatePartitions (key 37), versions 0–3.
//!
//! - 0: all there is. 1: nothing new on the wire. 2: flexible. 3: quota errors.
//!
//! Left out: quotas. Every topic of the request stands in the answer, in the order asked (librdkafka counts them). The
//! timeout is not looked at: an answer comes when the growth is durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use keelson_protocol::kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use keelson_protocol::kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse,
};
use keelson_state::metadata::CreatePartitions as Growth;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct CreatePartitions;

impl Api for CreatePartitions {
    type Request = CreatePartitionsRequest;
    type Response = CreatePartitionsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<CreatePartitionsRequest>,
    ) -> Outcome<CreatePartitionsResponse> {
        let broker = Arc::clone(broker);
        let body = call.body;
        Outcome::later(async move {
            let mut seen: HashMap<String, usize> = HashMap::new();
            for topic in &body.topics {
                *seen.entry(topic.name.to_string()).or_default() += 1;
            }
            let is_once = |topic: &CreatePartitionsTopic| seen[topic.name.as_str()] == 1;
            let wants = body
                .topics
                .iter()
                .filter(|topic| is_once(topic))
                .map(wanted);
            let grown = broker
                .metadata
                .create_partitions(wants.collect(), body.validate_only)
                .await;
            let mut grown = grown.into_iter();
            let mut first = None;
            let mut told = HashSet::new();
            // Like Kafka, it answers a name that stands twice once.
            let asked = body.topics.iter().filter(|topic| told.insert(&topic.name));
            let results = asked.map(|topic| {
                let error = if is_once(topic) {
                    let outcome = grown.next().and_then(Result::err);
                    outcome.map(|error| (errors::change(&error), errors::change_message(&error)))
                } else {
                    let twice = "Duplicate topic name.".to_owned();
                    Some((ErrorCode::InvalidRequest, Some(twice)))
                };
                result(topic, error, &mut first)
            });
            let results = results.collect();
            let body = CreatePartitionsResponse::default().with_results(results);
            Answer::new(body, first)
        })
    }
}

fn wanted(topic: &CreatePartitionsTopic) -> Growth {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let brokers = |ids: &Vec<_>| {
            ids.iter()
                .map(|id: &keelson_protocol::kafka_protocol::messages::BrokerId| id.0)
                .collect()
        };
        assignments
            .iter()
            .map(|assignment| brokers(&assignment.broker_ids))
            .collect()
    });
    Growth {
        name: topic.name.to_string(),
        count: topic.count,
        assignments,
    }
}

fn result(
    topic: &CreatePartitionsTopic,
    error: Option<(ErrorCode, Option<String>)>,
    first: &mut Option<ErrorCode>,
) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    match error {
        None => result,
        Some((code, message)) => {
            first.get_or_insert(code);
            result
                .with_error_code(code.code())
                .with_error_message(message.map(text))
        }
    }
}
