//! Decodes a body of any API, for tests that have only its key.
//!
//! Owns which type is behind a key. What a handler decodes comes from its own type; a test of the table misses no API.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Request;

use crate::api::ApiSpec;
use crate::safe::{self, DECODED_BYTES_MAX, DecodeError, Decoded};

/// Decodes a body as the broker does, behind the guard. Gives the bytes that the decoder consumed, and what the guard
/// charged for it.
///
/// # Panics
/// If the decoder consumed other bytes than the guard looked at, or if it refuses a second time what it took.
pub fn decode(spec: &ApiSpec, version: i16, body: &Bytes) -> Result<Decoded<usize>, DecodeError> {
    macro_rules! by_key {
        ($($name:ident: $request:ty),* $(,)?) => {
            match spec.key {
                $(ApiKey::$name => decode_as::<$request>(version, body),)*
                other => panic!("{other:?} is in the table, but not here"),
            }
        };
    }
    by_key!(
        Produce: ProduceRequest, Fetch: FetchRequest, ListOffsets: ListOffsetsRequest, Metadata: MetadataRequest,
        OffsetCommit: OffsetCommitRequest, OffsetFetch: OffsetFetchRequest, FindCoordinator: FindCoordinatorRequest,
        JoinGroup: JoinGroupRequest, Heartbeat: HeartbeatRequest, LeaveGroup: LeaveGroupRequest,
        SyncGroup: SyncGroupRequest, DescribeGroups: DescribeGroupsRequest, ListGroups: ListGroupsRequest,
        ApiVersions: ApiVersionsRequest, CreateTopics: CreateTopicsRequest, DeleteTopics: DeleteTopicsRequest,
        InitProducerId: InitProducerIdRequest, DescribeConfigs: DescribeConfigsRequest,
        CreatePartitions: CreatePartitionsRequest, DeleteGroups: DeleteGroupsRequest,
        IncrementalAlterConfigs: IncrementalAlterConfigsRequest, DescribeCluster: DescribeClusterRequest,
        OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, DeleteRecords: DeleteRecordsRequest,
        AddPartitionsToTxn: AddPartitionsToTxnRequest, AddOffsetsToTxn: AddOffsetsToTxnRequest,
        EndTxn: EndTxnRequest, WriteTxnMarkers: WriteTxnMarkersRequest, TxnOffsetCommit: TxnOffsetCommitRequest,
        DescribeProducers: DescribeProducersRequest, DescribeTransactions: DescribeTransactionsRequest,
        ListTransactions: ListTransactionsRequest, DescribeAcls: DescribeAclsRequest, CreateAcls: CreateAclsRequest,
        DeleteAcls: DeleteAclsRequest, AlterReplicaLogDirs: AlterReplicaLogDirsRequest,
        DescribeLogDirs: DescribeLogDirsRequest, ElectLeaders: ElectLeadersRequest,
        AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
        ListPartitionReassignments: ListPartitionReassignmentsRequest,
        DescribeClientQuotas: DescribeClientQuotasRequest, OffsetDelete: OffsetDeleteRequest,
        AlterConfigs: AlterConfigsRequest, CreateDelegationToken: CreateDelegationTokenRequest,
        RenewDelegationToken: RenewDelegationTokenRequest, ExpireDelegationToken: ExpireDelegationTokenRequest,
        DescribeDelegationToken: DescribeDelegationTokenRequest,
        DescribeUserScramCredentials: DescribeUserScramCredentialsRequest, DescribeQuorum: DescribeQuorumRequest,
        ListConfigResources: ListConfigResourcesRequest, DescribeTopicPartitions: DescribeTopicPartitionsRequest,
    )
}

fn decode_as<M: Request>(version: i16, body: &Bytes) -> Result<Decoded<usize>, DecodeError> {
    let guarded = safe::decode::<M>(version, body.clone(), DECODED_BYTES_MAX)?;
    let charge_bytes = guarded.charge_bytes;
    drop(guarded);
    let mut rest = body.clone();
    M::decode(&mut rest, version).expect("it was decoded before");
    let consumed = body.len() - rest.len();
    let (_, walked) = safe::walk(M::KEY, version, body, DECODED_BYTES_MAX)?;
    assert_eq!(walked, consumed, "guard and decoder walk the same way");
    Ok(Decoded {
        body: consumed,
        charge_bytes,
    })
}
