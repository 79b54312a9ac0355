//! Shapes of what administrators ask. It owns no kind of field.

use kafka_protocol::messages as m;

use super::{Kind, Shape, array, bytes, field, i8, i32, i32s, i64, shape, since, string};

shapes! {
    DESCRIBE_ACLS = [
        i8("resource_type_filter"),
        string("resource_name_filter"),
        i8("pattern_type_filter"),
        string("principal_filter"),
        string("host_filter"),
        i8("operation"),
        i8("permission_type"),
    ];
    CREATE_ACLS = [
        structs!("creations", m::create_acls_request::AclCreation, [
            i8("resource_type"),
            string("resource_name"),
            i8("resource_pattern_type"),
            string("principal"),
            string("host"),
            i8("operation"),
            i8("permission_type"),
        ]),
    ];
    DELETE_ACLS = [
        structs!("filters", m::delete_acls_request::DeleteAclsFilter, [
            i8("resource_type_filter"),
            string("resource_name_filter"),
            i8("pattern_type_filter"),
            string("principal_filter"),
            string("host_filter"),
            i8("operation"),
            i8("permission_type"),
        ]),
    ];
    ALTER_CONFIGS = [
        structs!("resources", m::alter_configs_request::AlterConfigsResource, [
            i8("resource_type"),
            string("resource_name"),
            structs!("configs", m::alter_configs_request::AlterableConfig, [
                string("name"),
                string("value"),
            ]),
        ]),
        i8("validate_only"),
    ];
    ALTER_REPLICA_LOG_DIRS = [
        structs!("dirs", m::alter_replica_log_dirs_request::AlterReplicaLogDir, [
            string("path"),
            structs!("topics", m::alter_replica_log_dirs_request::AlterReplicaLogDirTopic, [
                string("name"),
                i32s("partitions"),
            ]),
        ]),
    ];
    DESCRIBE_LOG_DIRS = [
        structs!("topics", m::describe_log_dirs_request::DescribableLogDirTopic, [
            string("topic"),
            i32s("partitions"),
        ]),
    ];
    CREATE_DELEGATION_TOKEN = [
        since(3, string("owner_principal_type")),
        since(3, string("owner_principal_name")),
        structs!("renewers", m::create_delegation_token_request::CreatableRenewers, [
            string("principal_type"),
            string("principal_name"),
        ]),
        i64("max_lifetime_ms"),
    ];
    RENEW_DELEGATION_TOKEN = [bytes("hmac"), i64("renew_period_ms")];
    EXPIRE_DELEGATION_TOKEN = [bytes("hmac"), i64("expiry_time_period_ms")];
    DESCRIBE_DELEGATION_TOKEN = [
        structs!("owners", m::describe_delegation_token_request::DescribeDelegationTokenOwner, [
            string("principal_type"),
            string("principal_name"),
        ]),
    ];
    ELECT_LEADERS = [
        since(1, i8("election_type")),
        structs!("topic_partitions", m::elect_leaders_request::TopicPartitions, [
            string("topic"),
            i32s("partitions"),
        ]),
        i32("timeout_ms"),
    ];
    ALTER_PARTITION_REASSIGNMENTS = [
        i32("timeout_ms"),
        since(1, i8("allow_replication_factor_change")),
        structs!("topics", m::alter_partition_reassignments_request::ReassignableTopic, [
            string("name"),
            structs!("partitions", m::alter_partition_reassignments_request::ReassignablePartition, [
                i32("partition_index"),
                i32s("replicas"),
            ]),
        ]),
    ];
    LIST_PARTITION_REASSIGNMENTS = [
        i32("timeout_ms"),
        structs!("topics", m::list_partition_reassignments_request::ListPartitionReassignmentsTopics, [
            string("name"),
            i32s("partition_indexes"),
        ]),
    ];
    OFFSET_DELETE = [
        string("group_id"),
        structs!("topics", m::offset_delete_request::OffsetDeleteRequestTopic, [
            string("name"),
            structs!("partitions", m::offset_delete_request::OffsetDeleteRequestPartition, [i32("partition_index")]),
        ]),
    ];
    DESCRIBE_CLIENT_QUOTAS = [
        structs!("components", m::describe_client_quotas_request::ComponentData, [
            string("entity_type"),
            i8("match_type"),
            string("match"),
        ]),
        i8("strict"),
    ];
    DESCRIBE_USER_SCRAM_CREDENTIALS = [
        structs!("users", m::describe_user_scram_credentials_request::UserName, [string("name")]),
    ];
    DESCRIBE_QUORUM = [
        structs!("topics", m::describe_quorum_request::TopicData, [
            string("topic_name"),
            structs!("partitions", m::describe_quorum_request::PartitionData, [i32("partition_index")]),
        ]),
    ];
    LIST_CONFIG_RESOURCES = [since(1, array::<i8>("resource_types", &Kind::Fixed(1)))];
    DESCRIBE_TOPIC_PARTITIONS = [
        structs!("topics", m::describe_topic_partitions_request::TopicRequest, [string("name")]),
        i32("response_partition_limit"),
        field("cursor", Kind::Optional(&shape(&[string("topic_name"), i32("partition_index")]))),
    ];
}
