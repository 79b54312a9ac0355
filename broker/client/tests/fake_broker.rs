//! The admin client against a fake broker in the same process: negotiation, refusals, and everything that a network and
//! a broker can do wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use keelson_client::{AdminClient, AlterOp, Error, NewTopic, OffsetSpec, Options, Resource, Uuid};
use keelson_protocol::frame::{RequestHeader, encode_response};
use keelson_protocol::kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use keelson_protocol::kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use keelson_protocol::kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use keelson_protocol::kafka_protocol::messages::describe_groups_response::{
    DescribedGroup, DescribedGroupMember,
};
use keelson_protocol::kafka_protocol::messages::find_coordinator_response::Coordinator;
use keelson_protocol::kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use keelson_protocol::kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use keelson_protocol::kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use keelson_protocol::kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use keelson_protocol::kafka_protocol::messages::*;
use keelson_protocol::kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use keelson_protocol::{ErrorCode, legacy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request as the fake sees it.
struct Asked {
    header: RequestHeader,
    body: Bytes,
    /// Requests seen before on all connections, ApiVersions left out.
    nth: usize,
}

impl Asked {
    fn key(&self) -> ApiKey {
        ApiKey::try_from(self.header.api_key).unwrap()
    }

    fn decode<M: Decodable>(&self) -> M {
        M::decode(&mut self.body.clone(), self.header.api_version).unwrap()
    }

    fn answer<M: Encodable>(&self, body: &M) -> Reply {
        let header = &self.header;
        let frame = encode_response(
            header.api_key,
            header.api_version,
            header.correlation_id,
            body,
        )
        .unwrap();
        Reply::Frame(frame)
    }
}

/// What the fake does next.
enum Reply {
    Frame(BytesMut),
    AnswerAndClose(BytesMut),
    Raw(&'static [u8]),
    Silence,
    Close,
}

/// A broker that answers by script; ApiVersions tells the highest version of each API that `highest` names.
async fn fake(
    highest: &'static [(ApiKey, i16)],
    script: impl Fn(Asked) -> Reply + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    let seen = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, highest, script.clone(), seen.clone()));
        }
    });
    address
}

async fn serve(
    mut stream: TcpStream,
    highest: &'static [(ApiKey, i16)],
    script: Arc<impl Fn(Asked) -> Reply + Send + Sync + 'static>,
    seen: Arc<AtomicUsize>,
) {
    while let Ok(length) = stream.read_i32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        let mut body = Bytes::from(frame);
        let header = RequestHeader::decode(&mut body).unwrap();
        let reply = if header.api_key == ApiKey::ApiVersions as i16 && !highest.is_empty() {
            let rows = legacy::advertised().into_iter().filter_map(|row| {
                let limit = highest.iter().find(|(key, _)| *key as i16 == row.api_key)?;
                Some(row.with_max_version(limit.1).with_min_version(0))
            });
            let answer = ApiVersionsResponse::default().with_api_keys(rows.collect());
            Asked {
                header,
                body,
                nth: 0,
            }
            .answer(&answer)
        } else {
            script(Asked {
                header,
                body,
                nth: seen.fetch_add(1, Ordering::SeqCst),
            })
        };
        match reply {
            Reply::Frame(frame) => stream.write_all(&frame).await.unwrap(),
            Reply::AnswerAndClose(frame) => return stream.write_all(&frame).await.unwrap(),
            Reply::Raw(bytes) => stream.write_all(bytes).await.unwrap(),
            Reply::Silence => {}
            Reply::Close => return,
        }
    }
}

fn client(address: SocketAddr) -> AdminClient {
    let options = Options {
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    AdminClient::new(&address.to_string(), options).unwrap()
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn cluster() -> MetadataResponse {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(0))
            .with_replica_nodes(vec![BrokerId(0)])
            .with_isr_nodes(vec![BrokerId(0)])
    };
    let orders = MetadataResponseTopic::default()
        .with_name(Some(text("orders").into()))
        .with_topic_id(Uuid::from_u128(7))
        .with_partitions(vec![partition(1), partition(0)]);
    let missing = MetadataResponseTopic::default()
        .with_name(Some(text("missing").into()))
        .with_error_code(ErrorCode::UnknownTopicOrPartition.code());
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(0))
        .with_host(text("b0"))
        .with_port(9092);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_controller_id(BrokerId(0))
        .with_topics(vec![orders, missing])
}

#[tokio::test]
async fn the_highest_shared_version_is_used() {
    // Version 5 of a broker that is older, version 13 (our highest) of one that is newer.
    for (theirs, used) in [(5, 5), (13, 13), (99, 13)] {
        let highest: &'static [(ApiKey, i16)] = Box::leak(Box::new([(ApiKey::Metadata, theirs)]));
        let address = fake(highest, move |asked| {
            assert_eq!(asked.header.api_version, used);
            assert_eq!(asked.header.client_id.as_deref(), Some("keelson-client"));
            let request: MetadataRequest = asked.decode();
            assert!(
                !request.allow_auto_topic_creation,
                "an admin client creates nothing by asking"
            );
            asked.answer(&cluster())
        })
        .await;
        let found = client(address)
            .metadata(Some(&["orders", "missing"]))
            .await
            .unwrap();
        assert_eq!(
            (found.brokers[0].host.as_str(), found.controller_id),
            ("b0", Some(0))
        );
        let orders = found.topic("orders").unwrap();
        assert_eq!(
            orders
                .partitions
                .iter()
                .map(|p| p.index)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(
            orders.id,
            if used >= 10 {
                Uuid::from_u128(7)
            } else {
                Uuid::nil()
            }
        );
        assert!(found.topic("missing").is_none());
        assert_eq!(
            found.topics[1].error.as_ref().unwrap().name,
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
    }
}

#[tokio::test]
async fn an_api_that_the_broker_lacks_is_named() {
    let address = fake(&[(ApiKey::Metadata, 13)], |asked| asked.answer(&cluster())).await;
    let client = client(address);
    let error = client.describe_cluster().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unsupported {
                api: "DescribeCluster",
                broker: None,
                ..
            }
        ),
        "{error}"
    );
    client.metadata(None).await.unwrap();
}

#[tokio::test]
async fn an_old_broker_is_asked_again_in_version_0() {
    let address = fake(&[], |asked| match (asked.key(), asked.header.api_version) {
        (ApiKey::ApiVersions, 0) => {
            asked.answer(&ApiVersionsResponse::default().with_api_keys(legacy::advertised()))
        }
        (ApiKey::ApiVersions, _) => {
            Reply::Frame(legacy::refuse_api_versions(asked.header.correlation_id).unwrap())
        }
        _ => asked.answer(&cluster()),
    })
    .await;
    client(address).metadata(None).await.unwrap();
}

#[tokio::test]
async fn the_brokers_own_words_come_through() {
    let address = fake(
        &[(ApiKey::CreateTopics, 7), (ApiKey::DeleteTopics, 6)],
        |asked| {
            if asked.key() == ApiKey::DeleteTopics {
                let request: DeleteTopicsRequest = asked.decode();
                assert_eq!(
                    (request.topics[0].topic_id, &request.topics[0].name),
                    (Uuid::from_u128(9), &None)
                );
                let result = DeletableTopicResult::default()
                    .with_name(None)
                    .with_error_code(100);
                return asked.answer(&DeleteTopicsResponse::default().with_responses(vec![result]));
            }
            let request: CreateTopicsRequest = asked.decode();
            assert_eq!(request.topics[0].num_partitions, 0);
            assert_eq!(request.topics[0].replication_factor, -1);
            assert_eq!(request.topics[0].configs[0].value.as_deref(), Some("1000"));
            assert!(request.validate_only);
            let result = CreatableTopicResult::default()
                .with_name(text("t").into())
                .with_error_code(37)
                .with_error_message(Some(text("Number of partitions must be larger than 0.")));
            asked.answer(&CreateTopicsResponse::default().with_topics(vec![result]))
        },
    )
    .await;
    let new = NewTopic {
        name: "t".to_owned(),
        partitions: Some(0),
        replication_factor: None,
        configs: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
    };
    let client = client(address);
    let error = client.create_topic(&new, true).await.unwrap_err();
    assert_eq!(error.broker_name(), Some("INVALID_PARTITIONS"));
    assert_eq!(
        error.to_string(),
        "CreateTopics t: INVALID_PARTITIONS: Number of partitions must be larger than 0."
    );
    let error = client
        .delete_topic_by_id(Uuid::from_u128(9))
        .await
        .unwrap_err();
    assert_eq!(error.broker_name(), Some("UNKNOWN_TOPIC_ID"));
    assert!(!error.is_unreachable());
}

#[tokio::test]
async fn configs_are_read_and_changed() {
    let address = fake(
        &[
            (ApiKey::DescribeConfigs, 4),
            (ApiKey::IncrementalAlterConfigs, 1),
        ],
        |asked| {
            if asked.key() == ApiKey::DescribeConfigs {
                let entry = DescribeConfigsResourceResult::default()
                    .with_name(text("retention.ms"))
                    .with_value(Some(text("5")))
                    .with_config_source(1);
                let result = DescribeConfigsResult::default().with_configs(vec![entry]);
                return asked
                    .answer(&DescribeConfigsResponse::default().with_results(vec![result]));
            }
            let request: IncrementalAlterConfigsRequest = asked.decode();
            let changes: Vec<_> = request.resources[0]
                .configs
                .iter()
                .map(|c| {
                    (
                        c.name.to_string(),
                        c.config_operation,
                        c.value.as_deref().map(str::to_owned),
                    )
                })
                .collect();
            assert_eq!(
                changes,
                [
                    ("a".to_owned(), 0, Some("1".to_owned())),
                    ("b".to_owned(), 1, None)
                ]
            );
            let result = AlterConfigsResourceResponse::default();
            asked.answer(&IncrementalAlterConfigsResponse::default().with_responses(vec![result]))
        },
    )
    .await;
    let client = client(address);
    let topic = Resource::Topic("t".to_owned());
    let configs = client.describe_configs(&topic).await.unwrap();
    assert!(configs["retention.ms"].set_on_topic());
    let changes = BTreeMap::from([
        ("a".to_owned(), AlterOp::Set("1".to_owned())),
        ("b".to_owned(), AlterOp::Delete),
    ]);
    client
        .incremental_alter_configs(&topic, &changes, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn groups_and_offsets_in_old_and_new_versions() {
    for (fetch, find, describe) in [(7, 3, 5), (9, 6, 6)] {
        let highest: &'static [(ApiKey, i16)] = Box::leak(Box::new([
            (ApiKey::OffsetFetch, fetch),
            (ApiKey::FindCoordinator, find),
            (ApiKey::DescribeGroups, describe),
            (ApiKey::ListOffsets, 7),
        ]));
        let client = client(fake(highest, group_answers).await);
        let coordinator = client.find_coordinator("g").await.unwrap();
        assert_eq!((coordinator.id, coordinator.port), (3, 9092));
        let offsets = client.offset_fetch("g").await.unwrap();
        assert_eq!(offsets.len(), 1, "a partition without a commit is left out");
        assert_eq!(
            (
                offsets[0].topic.as_str(),
                offsets[0].partition,
                offsets[0].offset
            ),
            ("t", 0, 42)
        );
        let group = client.describe_group("g").await.unwrap();
        assert_eq!(
            group.members[0].assignment,
            BTreeMap::from([("t".to_owned(), vec![0, 1])])
        );
        let listed = client
            .list_offsets(&[("t", 0), ("t", 1)], OffsetSpec::Latest)
            .await
            .unwrap();
        assert_eq!(listed[0].offset, Ok(Some(100)));
        assert_eq!(
            listed[1].offset.as_ref().unwrap_err().name,
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
    }
}

fn group_answers(asked: Asked) -> Reply {
    let version = asked.header.api_version;
    match asked.key() {
        ApiKey::FindCoordinator if version >= 4 => {
            let found = Coordinator::default()
                .with_node_id(BrokerId(3))
                .with_host(text("h"))
                .with_port(9092);
            asked.answer(&FindCoordinatorResponse::default().with_coordinators(vec![found]))
        }
        ApiKey::FindCoordinator => asked.answer(
            &FindCoordinatorResponse::default()
                .with_node_id(BrokerId(3))
                .with_host(text("h"))
                .with_port(9092),
        ),
        ApiKey::OffsetFetch if version >= 8 => {
            let partition = |i, offset| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(i)
                    .with_committed_offset(offset)
            };
            let topic = OffsetFetchResponseTopics::default()
                .with_name(text("t").into())
                .with_partitions(vec![partition(0, 42), partition(1, -1)]);
            let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]);
            asked.answer(&OffsetFetchResponse::default().with_groups(vec![group]))
        }
        ApiKey::OffsetFetch => {
            let partition = |i, offset| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(i)
                    .with_committed_offset(offset)
            };
            let topic = OffsetFetchResponseTopic::default()
                .with_name(text("t").into())
                .with_partitions(vec![partition(0, 42), partition(1, -1)]);
            asked.answer(&OffsetFetchResponse::default().with_topics(vec![topic]))
        }
        ApiKey::ListOffsets => {
            let request: ListOffsetsRequest = asked.decode();
            assert_eq!(request.topics[0].partitions[0].timestamp, -1);
            let good = ListOffsetsPartitionResponse::default().with_offset(100);
            let bad = ListOffsetsPartitionResponse::default()
                .with_partition_index(1)
                .with_error_code(3);
            let topic = ListOffsetsTopicResponse::default()
                .with_name(text("t").into())
                .with_partitions(vec![good, bad]);
            asked.answer(&ListOffsetsResponse::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeGroups => {
            // version 3, one topic "t" with partitions 0 and 1, no user data
            let assignment = b"\0\x03\0\0\0\x01\0\x01t\0\0\0\x02\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
            let member = DescribedGroupMember::default()
                .with_member_assignment(Bytes::from_static(assignment));
            let group = DescribedGroup::default()
                .with_group_id(text("g").into())
                .with_group_state(text("Stable"))
                .with_protocol_type(text("consumer"))
                .with_members(vec![member]);
            asked.answer(&DescribeGroupsResponse::default().with_groups(vec![group]))
        }
        other => panic!("{other:?} was not expected"),
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_between_calls_is_replaced() {
    let address = fake(&[(ApiKey::Metadata, 12)], |asked| {
        match asked.answer(&cluster()) {
            Reply::Frame(frame) => Reply::AnswerAndClose(frame),
            other => other,
        }
    })
    .await;
    let client = client(address);
    for _ in 0..5 {
        // The end of the stream arrives some time after the answer; a call that meets it half-way may be lost.
        match client.metadata(None).await {
            Ok(_) | Err(Error::ConnectionLost { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn lost_and_late_answers_are_told_apart_and_do_not_stick() {
    let address = fake(&[(ApiKey::Metadata, 12)], |asked| match asked.nth {
        0 => Reply::Close,
        1 => Reply::Silence,
        _ => asked.answer(&cluster()),
    })
    .await;
    let client = client(address);
    let lost = client.metadata(None).await.unwrap_err();
    assert!(
        matches!(
            lost,
            Error::ConnectionLost {
                api: "Metadata",
                ..
            }
        ) && lost.is_unreachable(),
        "{lost}"
    );
    let late = client.metadata(None).await.unwrap_err();
    assert!(
        matches!(
            late,
            Error::Timeout {
                api: "Metadata",
                ..
            }
        ) && late.is_unreachable(),
        "{late}"
    );
    client.metadata(None).await.unwrap();
}

#[tokio::test]
async fn answers_that_are_no_kafka_are_unreadable_and_cost_nothing() {
    for (raw, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "1213486160 bytes"),
        (b"\xff\xff\xff\xff", "-1 bytes"),
        (b"\0\0\0\x05\0\0\0\x63\0", "correlation id 99"),
        (b"\0\0\0\x02\0\0", "unreadable answer"),
        (
            b"\0\0\0\x0a\0\0\0\x01\0\xff\xff\xff\xff\x0f",
            "unreadable answer",
        ),
    ] {
        let address = fake(&[(ApiKey::Metadata, 12)], move |_| Reply::Raw(raw)).await;
        let error = client(address).metadata(None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn bootstrap_servers_are_tried_in_turn() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_address = dead.local_addr().unwrap();
    drop(dead);
    let alive = fake(&[(ApiKey::Metadata, 12)], |asked| asked.answer(&cluster())).await;
    let both = AdminClient::new(&format!("{dead_address}, {alive}"), Options::default()).unwrap();
    both.metadata(None).await.unwrap();
    let none = AdminClient::new(&dead_address.to_string(), Options::default()).unwrap();
    let error = none.metadata(None).await.unwrap_err();
    assert!(
        matches!(error, Error::Connect { .. }) && error.is_unreachable(),
        "{error}"
    );
    for wrong in ["", " , ", "host", "host:port", "host:99999"] {
        assert!(
            matches!(
                AdminClient::new(wrong, Options::default()),
                Err(Error::Bootstrap { .. })
            ),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn clones_share_the_connection_and_keep_their_answers_apart() {
    let address = fake(&[(ApiKey::Metadata, 12)], |asked| {
        let request: MetadataRequest = asked.decode();
        let name = request.topics.unwrap().remove(0).name;
        let topic = MetadataResponseTopic::default().with_name(name);
        asked.answer(&MetadataResponse::default().with_topics(vec![topic]))
    })
    .await;
    let client = client(address);
    let calls = (0..200).map(|i| {
        let client = client.clone();
        tokio::spawn(async move {
            let name = format!("t{i}");
            let found = client.metadata(Some(&[&name])).await.unwrap();
            assert_eq!(found.topics[0].name, name);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}
