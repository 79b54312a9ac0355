//! The shapes of request bodies: just enough to find every count and every length in them.
//!
//! Owns what [`crate::safe`] walks. `kafka-protocol` decodes; this table only says where it would allocate. A test
//! generates bodies from each shape in every version and has the decoder consume exactly their bytes, so that the two
//! cannot drift apart.

/// How a field stands on the wire. Nullability is left to the decoder.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// 16-bit or compact length, bytes.
    Str,
    /// 32-bit or compact length, bytes.
    Bytes,
    /// 32-bit or compact count, elements.
    Array(Element),
    /// A struct in place.
    Struct(&'static Shape),
    /// One byte, which is 1 before a struct and something else where there is none.
    Optional(&'static Shape),
}

/// What an array holds.
#[derive(Debug, Clone, Copy)]
pub struct Element {
    /// Memory of one element once decoded.
    pub decoded_bytes: usize,
    /// How one stands on the wire.
    pub kind: &'static Kind,
}

/// A field and the versions it exists in.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Kafka's name of it.
    pub name: &'static str,
    /// How it stands on the wire.
    pub kind: Kind,
    /// First version.
    pub since: i16,
    /// Last version.
    pub until: i16,
}

/// A tagged field (KIP-482) that the decoder knows; it reads by type, so that the declared size must agree.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    /// Its tag.
    pub tag: u32,
    /// The field.
    pub field: Field,
}

/// A struct; in flexible versions it ends with tagged fields.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// In order.
    pub fields: &'static [Field],
    /// Known tagged fields.
    pub tags: &'static [Tag],
}

impl Field {
    /// True if it exists in this version.
    pub fn exists(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        since: 0,
        until: i16::MAX,
    }
}

const fn since(since: i16, field: Field) -> Field {
    Field { since, ..field }
}

const fn until(until: i16, field: Field) -> Field {
    Field { until, ..field }
}

const fn i8(name: &'static str) -> Field {
    field(name, Kind::Fixed(1))
}

const fn i16(name: &'static str) -> Field {
    field(name, Kind::Fixed(2))
}

const fn i32(name: &'static str) -> Field {
    field(name, Kind::Fixed(4))
}

const fn i64(name: &'static str) -> Field {
    field(name, Kind::Fixed(8))
}

const fn uuid(name: &'static str) -> Field {
    field(name, Kind::Fixed(16))
}

const fn string(name: &'static str) -> Field {
    field(name, Kind::Str)
}

const fn bytes(name: &'static str) -> Field {
    field(name, Kind::Bytes)
}

const fn strings(name: &'static str) -> Field {
    let decoded_bytes = size_of::<kafka_protocol::protocol::StrBytes>();
    field(
        name,
        Kind::Array(Element {
            decoded_bytes,
            kind: &Kind::Str,
        }),
    )
}

const fn i32s(name: &'static str) -> Field {
    field(
        name,
        Kind::Array(Element {
            decoded_bytes: 4,
            kind: &Kind::Fixed(4),
        }),
    )
}

const fn array<T>(name: &'static str, kind: &'static Kind) -> Field {
    field(
        name,
        Kind::Array(Element {
            decoded_bytes: size_of::<T>(),
            kind,
        }),
    )
}

const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

/// `group!(NAME = fields…)`: a request's shape as a constant.
macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident = [$($field:expr),* $(,)?];)*) => {
        $($(#[$doc])* pub(crate) const $name: Shape = shape(&[$($field),*]);)*
    };
}

/// An array of structs, given the decoded type and the fields.
macro_rules! structs {
    ($name:literal, $type:path, [$($field:expr),* $(,)?]) => {
        array::<$type>($name, &Kind::Struct(&shape(&[$($field),*])))
    };
}

mod admin;

pub(crate) use admin::*;
use kafka_protocol::messages as m;

shapes! {
    PRODUCE = [
        string("transactional_id"),
        i16("acks"),
        i32("timeout_ms"),
        structs!("topic_data", m::produce_request::TopicProduceData, [
            until(12, string("name")),
            since(13, uuid("topic_id")),
            structs!("partition_data", m::produce_request::PartitionProduceData, [
                i32("index"),
                bytes("records"),
            ]),
        ]),
    ];
    LIST_OFFSETS = [
        i32("replica_id"),
        since(2, i8("isolation_level")),
        structs!("topics", m::list_offsets_request::ListOffsetsTopic, [
            string("name"),
            structs!("partitions", m::list_offsets_request::ListOffsetsPartition, [
                i32("partition_index"),
                since(4, i32("current_leader_epoch")),
                i64("timestamp"),
            ]),
        ]),
        since(10, i32("timeout_ms")),
    ];
    METADATA = [
        structs!("topics", m::metadata_request::MetadataRequestTopic, [
            since(10, uuid("topic_id")),
            string("name"),
        ]),
        since(4, i8("allow_auto_topic_creation")),
        since(8, until(10, i8("include_cluster_authorized_operations"))),
        since(8, i8("include_topic_authorized_operations")),
    ];
    OFFSET_COMMIT = [
        string("group_id"),
        i32("generation_id_or_member_epoch"),
        string("member_id"),
        since(7, string("group_instance_id")),
        until(4, i64("retention_time_ms")),
        structs!("topics", m::offset_commit_request::OffsetCommitRequestTopic, [
            string("name"),
            structs!("partitions", m::offset_commit_request::OffsetCommitRequestPartition, [
                i32("partition_index"),
                i64("committed_offset"),
                since(6, i32("committed_leader_epoch")),
                string("committed_metadata"),
            ]),
        ]),
    ];
    OFFSET_FETCH = [
        until(7, string("group_id")),
        until(7, structs!("topics", m::offset_fetch_request::OffsetFetchRequestTopic, [
            string("name"),
            i32s("partition_indexes"),
        ])),
        since(8, structs!("groups", m::offset_fetch_request::OffsetFetchRequestGroup, [
            string("group_id"),
            since(9, string("member_id")),
            since(9, i32("member_epoch")),
            structs!("topics", m::offset_fetch_request::OffsetFetchRequestTopics, [
                string("name"),
                i32s("partition_indexes"),
            ]),
        ])),
        since(7, i8("require_stable")),
    ];
    FIND_COORDINATOR = [
        until(3, string("key")),
        since(1, i8("key_type")),
        since(4, strings("coordinator_keys")),
    ];
    JOIN_GROUP = [
        string("group_id"),
        i32("session_timeout_ms"),
        since(1, i32("rebalance_timeout_ms")),
        string("member_id"),
        since(5, string("group_instance_id")),
        string("protocol_type"),
        structs!("protocols", m::join_group_request::JoinGroupRequestProtocol, [
            string("name"),
            bytes("metadata"),
        ]),
        since(8, string("reason")),
    ];
    HEARTBEAT = [
        string("group_id"),
        i32("generation_id"),
        string("member_id"),
        since(3, string("group_instance_id")),
    ];
    LEAVE_GROUP = [
        string("group_id"),
        until(2, string("member_id")),
        since(3, structs!("members", m::leave_group_request::MemberIdentity, [
            string("member_id"),
            string("group_instance_id"),
            since(5, string("reason")),
        ])),
    ];
    SYNC_GROUP = [
        string("group_id"),
        i32("generation_id"),
        string("member_id"),
        since(3, string("group_instance_id")),
        since(5, string("protocol_type")),
        since(5, string("protocol_name")),
        structs!("assignments", m::sync_group_request::SyncGroupRequestAssignment, [
            string("member_id"),
            bytes("assignment"),
        ]),
    ];
    DESCRIBE_GROUPS = [strings("groups"), since(3, i8("include_authorized_operations"))];
    LIST_GROUPS = [since(4, strings("states_filter")), since(5, strings("types_filter"))];
    API_VERSIONS = [since(3, string("client_software_name")), since(3, string("client_software_version"))];
    CREATE_TOPICS = [
        structs!("topics", m::create_topics_request::CreatableTopic, [
            string("name"),
            i32("num_partitions"),
            i16("replication_factor"),
            structs!("assignments", m::create_topics_request::CreatableReplicaAssignment, [
                i32("partition_index"),
                i32s("broker_ids"),
            ]),
            structs!("configs", m::create_topics_request::CreatableTopicConfig, [
                string("name"),
                string("value"),
            ]),
        ]),
        i32("timeout_ms"),
        i8("validate_only"),
    ];
    DELETE_TOPICS = [
        since(6, structs!("topics", m::delete_topics_request::DeleteTopicState, [
            string("name"),
            uuid("topic_id"),
        ])),
        until(5, strings("topic_names")),
        i32("timeout_ms"),
    ];
    DELETE_RECORDS = [
        structs!("topics", m::delete_records_request::DeleteRecordsTopic, [
            string("name"),
            structs!("partitions", m::delete_records_request::DeleteRecordsPartition, [
                i32("partition_index"),
                i64("offset"),
            ]),
        ]),
        i32("timeout_ms"),
    ];
    INIT_PRODUCER_ID = [
        string("transactional_id"),
        i32("transaction_timeout_ms"),
        since(3, i64("producer_id")),
        since(3, i16("producer_epoch")),
    ];
    ADD_PARTITIONS_TO_TXN = [
        since(4, structs!("transactions", m::add_partitions_to_txn_request::AddPartitionsToTxnTransaction, [
            string("transactional_id"),
            i64("producer_id"),
            i16("producer_epoch"),
            i8("verify_only"),
            structs!("topics", m::add_partitions_to_txn_request::AddPartitionsToTxnTopic, [
                string("name"),
                i32s("partitions"),
            ]),
        ])),
        until(3, string("v3_and_below_transactional_id")),
        until(3, i64("v3_and_below_producer_id")),
        until(3, i16("v3_and_below_producer_epoch")),
        until(3, structs!("v3_and_below_topics", m::add_partitions_to_txn_request::AddPartitionsToTxnTopic, [
            string("name"),
            i32s("partitions"),
        ])),
    ];
    ADD_OFFSETS_TO_TXN = [
        string("transactional_id"),
        i64("producer_id"),
        i16("producer_epoch"),
        string("group_id"),
    ];
    END_TXN = [
        string("transactional_id"),
        i64("producer_id"),
        i16("producer_epoch"),
        i8("committed"),
    ];
    WRITE_TXN_MARKERS = [
        structs!("markers", m::write_txn_markers_request::WritableTxnMarker, [
            i64("producer_id"),
            i16("producer_epoch"),
            i8("transaction_result"),
            structs!("topics", m::write_txn_markers_request::WritableTxnMarkerTopic, [
                string("name"),
                i32s("partition_indexes"),
            ]),
            i32("coordinator_epoch"),
        ]),
    ];
    TXN_OFFSET_COMMIT = [
        string("transactional_id"),
        string("group_id"),
        i64("producer_id"),
        i16("producer_epoch"),
        since(3, i32("generation_id")),
        since(3, string("member_id")),
        since(3, string("group_instance_id")),
        structs!("topics", m::txn_offset_commit_request::TxnOffsetCommitRequestTopic, [
            string("name"),
            structs!("partitions", m::txn_offset_commit_request::TxnOffsetCommitRequestPartition, [
                i32("partition_index"),
                i64("committed_offset"),
                since(2, i32("committed_leader_epoch")),
                string("committed_metadata"),
            ]),
        ]),
    ];
    DESCRIBE_PRODUCERS = [
        structs!("topics", m::describe_producers_request::TopicRequest, [
            string("name"),
            i32s("partition_indexes"),
        ]),
    ];
    DESCRIBE_TRANSACTIONS = [strings("transactional_ids")];
    LIST_TRANSACTIONS = [
        strings("state_filters"),
        array::<m::ProducerId>("producer_id_filters", &Kind::Fixed(8)),
        since(1, i64("duration_filter")),
        since(2, string("transactional_id_pattern")),
    ];
    OFFSET_FOR_LEADER_EPOCH = [
        since(3, i32("replica_id")),
        structs!("topics", m::offset_for_leader_epoch_request::OffsetForLeaderTopic, [
            string("topic"),
            structs!("partitions", m::offset_for_leader_epoch_request::OffsetForLeaderPartition, [
                i32("partition"),
                i32("current_leader_epoch"),
                i32("leader_epoch"),
            ]),
        ]),
    ];
    DESCRIBE_CONFIGS = [
        structs!("resources", m::describe_configs_request::DescribeConfigsResource, [
            i8("resource_type"),
            string("resource_name"),
            strings("configuration_keys"),
        ]),
        i8("include_synonyms"),
        since(3, i8("include_documentation")),
    ];
    CREATE_PARTITIONS = [
        structs!("topics", m::create_partitions_request::CreatePartitionsTopic, [
            string("name"),
            i32("count"),
            structs!("assignments", m::create_partitions_request::CreatePartitionsAssignment, [
                i32s("broker_ids"),
            ]),
        ]),
        i32("timeout_ms"),
        i8("validate_only"),
    ];
    DELETE_GROUPS = [strings("groups_names")];
    INCREMENTAL_ALTER_CONFIGS = [
        structs!("resources", m::incremental_alter_configs_request::AlterConfigsResource, [
            i8("resource_type"),
            string("resource_name"),
            structs!("configs", m::incremental_alter_configs_request::AlterableConfig, [
                string("name"),
                i8("config_operation"),
                string("value"),
            ]),
        ]),
        i8("validate_only"),
    ];
    DESCRIBE_CLUSTER = [
        i8("include_cluster_authorized_operations"),
        since(1, i8("endpoint_type")),
        since(2, i8("include_fenced_brokers")),
    ];
}

/// Fetch is the one request here with known tagged fields.
pub(crate) const FETCH: Shape = Shape {
    fields: &[
        until(14, i32("replica_id")),
        i32("max_wait_ms"),
        i32("min_bytes"),
        i32("max_bytes"),
        i8("isolation_level"),
        since(7, i32("session_id")),
        since(7, i32("session_epoch")),
        structs!(
            "topics",
            m::fetch_request::FetchTopic,
            [
                until(12, string("topic")),
                since(13, uuid("topic_id")),
                array::<m::fetch_request::FetchPartition>(
                    "partitions",
                    &Kind::Struct(&FETCH_PARTITION)
                ),
            ]
        ),
        since(
            7,
            structs!(
                "forgotten_topics_data",
                m::fetch_request::ForgottenTopic,
                [
                    until(12, string("topic")),
                    since(13, uuid("topic_id")),
                    i32s("partitions"),
                ]
            ),
        ),
        since(11, string("rack_id")),
    ],
    tags: &[
        Tag {
            tag: 0,
            field: string("cluster_id"),
        },
        Tag {
            tag: 1,
            field: since(
                15,
                field(
                    "replica_state",
                    Kind::Struct(&shape(&[i32("replica_id"), i64("replica_epoch")])),
                ),
            ),
        },
    ],
};

const FETCH_PARTITION: Shape = Shape {
    fields: &[
        i32("partition"),
        since(9, i32("current_leader_epoch")),
        i64("fetch_offset"),
        since(12, i32("last_fetched_epoch")),
        since(5, i64("log_start_offset")),
        i32("partition_max_bytes"),
    ],
    tags: &[
        Tag {
            tag: 0,
            field: since(17, uuid("replica_directory_id")),
        },
        Tag {
            tag: 1,
            field: since(18, i64("high_watermark")),
        },
    ],
};
