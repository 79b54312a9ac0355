//! DescribeUserScramCredentials (key 50), versions 0–0.
//!
//! - 0: all there is (KIP-554), flexible.
//!
//! Left out: SCRAM: no user has credentials, so all of them are an empty list and one that is named is
//! RESOURCE_NOT_FOUND, as in a Kafka cluster without any.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_protocol::ErrorCode;
use keelson_protocol::kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use keelson_protocol::kafka_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::common::{first_error, text};
use crate::broker::Broker;
use crate::dispatch::{Answer, Api, Call, Outcome};

/// The handler.
pub struct DescribeUserScramCredentials;

impl Api for DescribeUserScramCredentials {
    type Request = DescribeUserScramCredentialsRequest;
    type Response = DescribeUserScramCredentialsResponse;

    fn handle(
        _: &Arc<Broker>,
        call: Call<DescribeUserScramCredentialsRequest>,
    ) -> Outcome<DescribeUserScramCredentialsResponse> {
        let users = call.body.users.unwrap_or_default();
        let mut times: HashMap<&str, usize> = HashMap::new();
        for user in &users {
            *times.entry(&user.name).or_default() += 1;
        }
        let mut results: Vec<_> = times
            .into_iter()
            .map(|(user, times)| refused(user, times))
            .collect();
        results.sort_by(|one, other| one.user.cmp(&other.user));
        let error = first_error(results.iter().map(|result| result.error_code));
        let response = DescribeUserScramCredentialsResponse::default().with_results(results);
        Outcome::Ready(Answer::new(response, error))
    }
}

fn refused(user: &str, times: usize) -> DescribeUserScramCredentialsResult {
    let (error, message) = if times > 1 {
        let message = format!("The user {user} stands more than once in the request.");
        (ErrorCode::DuplicateResource, message)
    } else {
        let message = format!("Attempt to describe a user credential that does not exist: {user}");
        (ErrorCode::ResourceNotFound, message)
    };
    DescribeUserScramCredentialsResult::default()
        .with_user(text(user))
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
}
