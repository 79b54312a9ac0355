//! DeleteTopics (key 20), versions 1–6.
//!
//! - 1: throttle time. 3: an error for deletion being switched off. 4: flexible. 5: error messages.
//! - 6: topics by id (KIP-516); name and id are both optional, exactly one is given.
//!
//! Left out: nothing. The topic and the end of its partitions are one commit; the answer comes when it is durable. The
//! timeout is not looked at. Topics of the broker itself are refused with INVALID_REQUEST.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use keelson_protocol::kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use keelson_protocol::kafka_protocol::messages::{
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use keelson_state::metadata::{Image, TopicRef};
use uuid::Uuid;

use super::common::text;
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};
use crate::errors;

/// The handler.
pub struct DeleteTopics;

impl Api for DeleteTopics {
    type Request = DeleteTopicsRequest;
    type Response = DeleteTopicsResponse;

    fn handle(
        broker: &Arc<Broker>,
        call: Call<DeleteTopicsRequest>,
    ) -> Outcome<DeleteTopicsResponse> {
        let broker = Arc::clone(broker);
        let Call { version, body, .. } = call;
        Outcome::later(async move {
            let asked = if version >= 6 {
                body.topics
            } else {
                let by_name = |name| DeleteTopicState::default().with_name(Some(name));
                body.topic_names.into_iter().map(by_name).collect()
            };
            let mut first = None;
            let responses = delete(&broker, version, asked, &mut first).await;
            let body = DeleteTopicsResponse::default().with_responses(responses);
            Answer::new(body, first)
        })
    }
}

async fn delete(
    broker: &Broker,
    version: i16,
    asked: Vec<DeleteTopicState>,
    first: &mut Option<ErrorCode>,
) -> Vec<DeletableTopicResult> {
    let image = broker.image();
    if !broker.config.delete_topics {
        let error = if version >= 3 {
            ErrorCode::TopicDeletionDisabled
        } else {
            ErrorCode::InvalidRequest
        };
        first.get_or_insert(error);
        let message = Some("Topic deletion is disabled.".to_owned());
        let refused =
            |topic: &DeleteTopicState| result(&image, topic, Some((error, message.clone())));
        return asked.iter().map(refused).collect();
    }
    let mut named: HashMap<(Option<TopicName>, Uuid), usize> = HashMap::new();
    for topic in &asked {
        *named.entry(identity(&image, topic)).or_default() += 1;
    }
    let mut told = HashSet::new();
    let mut results = Vec::with_capacity(asked.len());
    let mut wanted = Vec::new();
    for topic in asked {
        let id = identity(&image, &topic);
        let twice = named[&id] > 1;
        if twice && !told.insert(id) {
            continue;
        }
        match reference(&topic).filter(|_| !twice) {
            Some(reference) => wanted.push((topic, reference)),
            None => {
                let what = if twice {
                    "Duplicate topic in the request."
                } else {
                    "Exactly one of topic name and topic id must be given."
                };
                first.get_or_insert(ErrorCode::InvalidRequest);
                results.push(result(
                    &image,
                    &topic,
                    Some((ErrorCode::InvalidRequest, Some(what.to_owned()))),
                ));
            }
        }
    }
    let references = wanted
        .iter()
        .map(|(_, reference)| reference.clone())
        .collect();
    let outcomes = broker.metadata.delete_topics(references).await;
    for ((topic, _), outcome) in wanted.iter().zip(outcomes) {
        let error = outcome.err().map(|error| {
            let code = errors::change(&error);
            first.get_or_insert(code);
            (code, Some(error.to_string()))
        });
        results.push(result(&image, topic, error));
    }
    results
}

/// A topic may stand in a request by its name and by its id: both of what is there.
fn identity(image: &Image, topic: &DeleteTopicState) -> (Option<TopicName>, Uuid) {
    let id = topic.topic_id;
    match &topic.name {
        Some(name) if id.is_nil() => {
            let known = image.topic(name);
            let id = known.map_or(id, |known| Uuid::from_bytes(known.id));
            (topic.name.clone(), id)
        }
        Some(_) => (topic.name.clone(), id),
        None => {
            let known = image.topic_by_id(id.as_bytes());
            (
                known.map(|known| TopicName(text(known.name.to_string()))),
                id,
            )
        }
    }
}

fn reference(topic: &DeleteTopicState) -> Option<TopicRef> {
    match (&topic.name, topic.topic_id.is_nil()) {
        (Some(name), true) => Some(TopicRef::Name(name.to_string())),
        (None, false) => Some(TopicRef::Id(topic.topic_id.into_bytes())),
        (Some(_), false) | (None, true) => None,
    }
}

fn result(
    image: &Image,
    topic: &DeleteTopicState,
    error: Option<(ErrorCode, Option<String>)>,
) -> DeletableTopicResult {
    let known = match &topic.name {
        Some(name) => image.topic(name),
        None => image.topic_by_id(topic.topic_id.as_bytes()),
    };
    let name = match (&topic.name, known) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(known)) => Some(TopicName(text(known.name.to_string()))),
        (None, None) => None,
    };
    let id = match known {
        Some(known) if error.is_none() => Uuid::from_bytes(known.id),
        Some(_) | None => topic.topic_id,
    };
    let result = DeletableTopicResult::default()
        .with_name(name)
        .with_topic_id(id);
    match error {
        None => result,
        Some((code, message)) => result
            .with_error_code(code.code())
            .with_error_message(message.map(text)),
    }
}
