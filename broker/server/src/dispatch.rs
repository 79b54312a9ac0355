//! From a request frame to its handler: the table of routes.
//!
//! Owns which handler answers which API. Never knows what a body means. A new API is one file in [`crate::api`] that
//! implements [`Api`], and one line in [`ROUTES`].

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use keelson_log::Reservation;
use keelson_protocol::ErrorCode;
use keelson_protocol::api::{self, ApiSpec};
use keelson_protocol::frame::{FrameError, RequestHeader};
use keelson_protocol::kafka_protocol::protocol::{Request, StrBytes};
use keelson_protocol::safe::{self, DecodeError};
use thiserror::Error;

use crate::api as apis;
use crate::broker::Broker;
use crate::listeners::ListenerId;
use crate::reply::{Body, Reply};

/// Memory that one decoded request may take beyond its own bytes: some 100,000 elements. It bounds the time that a
/// handler holds a thread of the runtime, too.
pub const DECODED_BYTES_MAX: usize = safe::DECODED_BYTES_MAX;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// The name the client gives itself.
    pub id: Option<StrBytes>,
    /// Where it connects from.
    pub host: IpAddr,
    /// Which listener it came in on: it is told addresses of that one.
    pub listener: ListenerId,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Where the client connects from.
    pub host: IpAddr,
    /// Which listener it came in on.
    pub listener: ListenerId,
}

/// A decoded request.
#[derive(Debug)]
pub struct Call<M> {
    /// Version of the request; the answer has the same.
    pub version: i16,
    /// The body. Strings and record batches in it are slices of the frame.
    pub body: M,
    /// Who asks.
    pub client: Client,
    /// What the frame's memory is charged to: for Produce the log's tail, else the budget of large requests. A request
    /// that parks (Fetch, JoinGroup) drops it together with the body.
    pub pin: Option<Arc<Reservation>>,
}

/// A request frame on its way to the handler.
pub struct Frame {
    /// The header.
    pub header: RequestHeader,
    /// What follows it.
    pub body: Bytes,
    /// Where it comes from.
    pub origin: Origin,
    /// What its memory is charged to.
    pub pin: Option<Arc<Reservation>>,
}

/// A response body and the name of its first error for the metrics.
#[derive(Debug)]
pub struct Answer<M> {
    /// The body.
    pub body: M,
    /// The first error in it, `None` if there is none.
    pub error: Option<ErrorCode>,
}

impl<M> Answer<M> {
    /// An answer without any error.
    pub fn ok(body: M) -> Self {
        Self { body, error: None }
    }

    /// An answer whose first error is `error`.
    pub fn failed(body: M, error: ErrorCode) -> Self {
        Self {
            body,
            error: Some(error),
        }
    }

    /// An answer that may hold an error.
    pub fn new(body: M, error: Option<ErrorCode>) -> Self {
        Self { body, error }
    }
}

/// An answer that comes later.
pub type Later<M> = Pin<Box<dyn Future<Output = Answer<M>> + Send>>;

/// What a handler gives back. The handler itself runs to the end without waiting: what must happen in the order of the
/// requests (offsets, queue entries) happens before it returns.
pub enum Outcome<M> {
    /// Answered at once.
    Ready(Answer<M>),
    /// Answered when the future ends; other connections go on meanwhile.
    Later(Later<M>),
    /// The same, but the next request of the connection starts only then: what must happen in order happens later, too.
    Alone(Later<M>),
    /// No answer is due (Produce with acks=0).
    Silent,
    /// The connection must close: the reason is logged.
    Close(&'static str),
}

impl<M> Outcome<M> {
    /// Answered at once, without an error.
    pub fn ok(body: M) -> Self {
        Self::Ready(Answer::ok(body))
    }

    /// Answered when `future` ends.
    pub fn later(future: impl Future<Output = Answer<M>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

/// One Kafka API.
pub trait Api {
    /// The request as `kafka-protocol` decodes it.
    type Request: Request;
    /// The response body.
    type Response: Body + 'static;

    /// Works on a request. Never blocks: files are for blocking threads, waiting is for [`Outcome::Later`].
    fn handle(broker: &Arc<Broker>, call: Call<Self::Request>) -> Outcome<Self::Response>;
}

/// An encoded answer and its error label.
pub struct Answered {
    /// The frame.
    pub reply: Reply,
    /// The first error in it.
    pub error: Option<ErrorCode>,
}

/// A frame that comes later.
pub type LaterFrame = Pin<Box<dyn Future<Output = Result<Answered, FrameError>> + Send>>;

/// [`Outcome`] without the type of the body.
pub enum Dispatched {
    /// The frame is ready.
    Ready(Answered),
    /// The frame comes later.
    Later(LaterFrame),
    /// The frame comes later, and the next request waits for it.
    Alone(LaterFrame),
    /// No frame is due.
    Silent,
    /// Close the connection.
    Close(&'static str),
}

/// Why a request is not answered; the connection closes.
#[derive(Debug, Error)]
pub enum DispatchError {
    /// The body does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer does not encode: a fault of ours.
    #[error(transparent)]
    Encode(#[from] FrameError),
}

type Handler = fn(&Arc<Broker>, Frame) -> Result<Dispatched, DispatchError>;

/// One line of the table.
pub struct Route {
    /// The API's row in the protocol's table.
    pub key: i16,
    handler: Handler,
}

impl Route {
    const fn of<A: Api>() -> Self {
        Self {
            key: <A::Request as Request>::KEY,
            handler: handle::<A>,
        }
    }

    /// The API's row in the protocol's table.
    ///
    /// # Panics
    /// If the API is not in it, which a test excludes.
    pub fn spec(&self) -> &'static ApiSpec {
        api::spec(self.key).expect("every route is in the protocol's table")
    }

    /// Decodes the body and calls the handler.
    ///
    /// # Errors
    /// If the body is malformed or the answer does not encode.
    pub fn call(&self, broker: &Arc<Broker>, frame: Frame) -> Result<Dispatched, DispatchError> {
        (self.handler)(broker, frame)
    }
}

/// Every API that has a handler.
pub static ROUTES: &[Route] = &[
    Route::of::<apis::produce::Produce>(),
    Route::of::<apis::fetch::Fetch>(),
    Route::of::<apis::list_offsets::ListOffsets>(),
    Route::of::<apis::metadata::Metadata>(),
    Route::of::<apis::offset_for_leader_epoch::OffsetForLeaderEpoch>(),
    Route::of::<apis::api_versions::ApiVersions>(),
    Route::of::<apis::create_topics::CreateTopics>(),
    Route::of::<apis::delete_topics::DeleteTopics>(),
    Route::of::<apis::delete_records::DeleteRecords>(),
    Route::of::<apis::create_partitions::CreatePartitions>(),
    Route::of::<apis::describe_configs::DescribeConfigs>(),
    Route::of::<apis::alter_configs::AlterConfigs>(),
    Route::of::<apis::incremental_alter_configs::IncrementalAlterConfigs>(),
    Route::of::<apis::find_coordinator::FindCoordinator>(),
    Route::of::<apis::join_group::JoinGroup>(),
    Route::of::<apis::sync_group::SyncGroup>(),
    Route::of::<apis::heartbeat::Heartbeat>(),
    Route::of::<apis::leave_group::LeaveGroup>(),
    Route::of::<apis::offset_commit::OffsetCommit>(),
    Route::of::<apis::offset_fetch::OffsetFetch>(),
    Route::of::<apis::describe_groups::DescribeGroups>(),
    Route::of::<apis::list_groups::ListGroups>(),
    Route::of::<apis::delete_groups::DeleteGroups>(),
    Route::of::<apis::offset_delete::OffsetDelete>(),
    Route::of::<apis::init_producer_id::InitProducerId>(),
    Route::of::<apis::add_partitions_to_txn::AddPartitionsToTxn>(),
    Route::of::<apis::add_offsets_to_txn::AddOffsetsToTxn>(),
    Route::of::<apis::end_txn::EndTxn>(),
    Route::of::<apis::write_txn_markers::WriteTxnMarkers>(),
    Route::of::<apis::txn_offset_commit::TxnOffsetCommit>(),
    Route::of::<apis::describe_producers::DescribeProducers>(),
    Route::of::<apis::describe_transactions::DescribeTransactions>(),
    Route::of::<apis::list_transactions::ListTransactions>(),
    Route::of::<apis::describe_acls::DescribeAcls>(),
    Route::of::<apis::create_delegation_token::CreateDelegationToken>(),
    Route::of::<apis::renew_delegation_token::RenewDelegationToken>(),
    Route::of::<apis::expire_delegation_token::ExpireDelegationToken>(),
    Route::of::<apis::describe_delegation_token::DescribeDelegationToken>(),
    Route::of::<apis::create_acls::CreateAcls>(),
    Route::of::<apis::delete_acls::DeleteAcls>(),
    Route::of::<apis::describe_user_scram_credentials::DescribeUserScramCredentials>(),
    Route::of::<apis::describe_client_quotas::DescribeClientQuotas>(),
    Route::of::<apis::list_config_resources::ListConfigResources>(),
    Route::of::<apis::describe_topic_partitions::DescribeTopicPartitions>(),
    Route::of::<apis::describe_log_dirs::DescribeLogDirs>(),
    Route::of::<apis::alter_replica_log_dirs::AlterReplicaLogDirs>(),
    Route::of::<apis::elect_leaders::ElectLeaders>(),
    Route::of::<apis::alter_partition_reassignments::AlterPartitionReassignments>(),
    Route::of::<apis::list_partition_reassignments::ListPartitionReassignments>(),
    Route::of::<apis::describe_quorum::DescribeQuorum>(),
    Route::of::<apis::describe_cluster::DescribeCluster>(),
];

/// The place of an API in [`ROUTES`], if it is served.
pub fn route(api_key: i16) -> Option<usize> {
    ROUTES.iter().position(|route| route.key == api_key)
}

fn handle<A: Api>(broker: &Arc<Broker>, frame: Frame) -> Result<Dispatched, DispatchError> {
    let Frame {
        header,
        body,
        origin,
        pin,
    } = frame;
    let (key, version, correlation) = (header.api_key, header.api_version, header.correlation_id);
    let decoded = safe::decode::<A::Request>(version, body, DECODED_BYTES_MAX)?;
    let call = Call {
        version,
        body: decoded.body,
        client: Client {
            id: header.client_id,
            host: origin.host,
            listener: origin.listener,
        },
        pin,
    };
    Ok(match A::handle(broker, call) {
        Outcome::Ready(answer) => Dispatched::Ready(encode(answer, key, version, correlation)?),
        Outcome::Later(later) => Dispatched::Later(Box::pin(async move {
            encode(later.await, key, version, correlation)
        })),
        Outcome::Alone(later) => Dispatched::Alone(Box::pin(async move {
            encode(later.await, key, version, correlation)
        })),
        Outcome::Silent => Dispatched::Silent,
        Outcome::Close(reason) => Dispatched::Close(reason),
    })
}

fn encode<M: Body>(
    answer: Answer<M>,
    key: i16,
    version: i16,
    correlation: i32,
) -> Result<Answered, FrameError> {
    Ok(Answered {
        reply: answer.body.frame(key, version, correlation)?,
        error: answer.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_has_a_handler_and_the_other_way_round() {
        let mut routed: Vec<i16> = ROUTES.iter().map(|route| route.key).collect();
        let mut listed: Vec<i16> = api::APIS.iter().map(|spec| spec.key as i16).collect();
        routed.sort_unstable();
        listed.sort_unstable();
        assert_eq!(routed, listed);
    }
}
