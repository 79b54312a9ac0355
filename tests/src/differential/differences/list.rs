//! The list itself. A reason says why the difference is right, not that it is there.

use super::{Difference, Field, NotServed};

const fn field(path: &'static str, kafka: &'static str, keelson: &'static str) -> Field {
    Field {
        path,
        kafka,
        keelson,
    }
}

/// What Apache Kafka advertises beyond Keelson.
pub const NOT_SERVED: &[NotServed] = &[
    NotServed {
        keys: &[1],
        what: "Fetch 18",
        reason: "It is for followers only, of which there are none.",
    },
    NotServed {
        keys: &[2, 8, 9, 27, 35],
        what: "ListOffsets 11, OffsetCommit 10, OffsetFetch 10, WriteTxnMarkers 2, DescribeLogDirs 5",
        reason: "They come with what they are for: tiered storage, topic ids in offsets, transaction versions of brokers.",
    },
    NotServed {
        keys: &[17, 36, 51],
        what: "SASL, changes of SCRAM credentials",
        reason: "There is no authentication yet.",
    },
    NotServed {
        keys: &[49],
        what: "AlterClientQuotas",
        reason: "There are no quotas.",
    },
    NotServed {
        keys: &[57, 64, 80, 81],
        what: "UpdateFeatures, UnregisterBroker, AddRaftVoter, RemoveRaftVoter",
        reason: "There is one broker, and its features are those of its program.",
    },
    NotServed {
        keys: &[68, 69],
        what: "ConsumerGroupHeartbeat, ConsumerGroupDescribe",
        reason: "Groups of the new protocol (KIP-848) are not there yet; clients fall back to the classic one.",
    },
    NotServed {
        keys: &[76, 77, 78, 79, 83, 84, 85, 86, 87, 90, 91, 92],
        what: "Share groups",
        reason: "Not there yet (KIP-932).",
    },
    NotServed {
        keys: &[88, 89],
        what: "Streams groups",
        reason: "Not there yet (KIP-1071).",
    },
];

/// Every difference.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        steps: &[
            "data / * (Produce v*)",
            "data / describe producers / * (DescribeProducers v0)",
            "groups / find a coordinator / * (FindCoordinator v*)",
            "admin / reassign partitions / cancelled *",
        ],
        fields: &[
            field("*error_message", "null", "\"<words>\""),
            field("*error_message", "\"\"", "\"<words>\""),
        ],
        reason: "Keelson says in words what is wrong wherever the protocol has a field for it.",
    },
    Difference {
        steps: &["groups / find a coordinator / of a * (FindCoordinator v*)"],
        fields: &[field("error_message", "\"<words>\"", "\"\"")],
        reason: "Where nothing is wrong, there are no words; Apache Kafka says \"NONE\" in versions 1 to 3.",
    },
    Difference {
        steps: &["admin / reassign partitions / none *"],
        fields: &[field("error_message", "\"\"", "null")],
        reason: "Where nothing is wrong, there are no words, here neither.",
    },
    Difference {
        steps: &[
            "cluster / frames / ApiVersions, a * version*",
            "cluster / frames / ApiVersions, a version of the future *",
        ],
        fields: &[field("", "\"0023*\"", "\"0023*\"")],
        reason: "With UNSUPPORTED_VERSION (35) comes the whole list of APIs, not only ApiVersions itself: a client needs no second question.",
    },
    Difference {
        steps: &["cluster / frames / Produce, * version of the past *"],
        fields: &[field("", "\"<closed>\"", "\"00000000*\"")],
        reason: "Versions that are advertised for librdkafka's sake are answered with UNSUPPORTED_VERSION instead of a closed connection.",
    },
    Difference {
        steps: &["cluster / versions / asked *"],
        fields: &[
            field("finalized_features.*", "{*}", "null"),
            field("supported_features.*", "{*}", "null"),
        ],
        reason: "Features of what Keelson does not have: KRaft's metadata versions, eligible leader replicas, the newer groups.",
    },
    Difference {
        steps: &["configs / alter configs wrongly / no such operation*"],
        fields: &[
            field(
                "responses[0].error_code",
                "\"UNKNOWN_SERVER_ERROR\"",
                "\"INVALID_REQUEST\"",
            ),
            field("responses[0].error_message", "null", "\"<words>\""),
        ],
        reason: "Apache Kafka fails on it; Keelson says what is wrong.",
    },
    Difference {
        steps: &["configs / every config / of a topic *"],
        fields: &[
            field(
                "results[0].configs.file.delete.delay.ms.value",
                "\"60000\"",
                "\"0\"",
            ),
            field("results[0].configs.keelson.owner", "null", "{*}"),
            field(
                "results[0].configs.min.insync.replicas.config_source",
                "3",
                "5",
            ),
        ],
        reason: "Files go at once; a topic says who manages it; min.insync.replicas is not set by Keelson as a dynamic default of the cluster.",
    },
    Difference {
        steps: &["data / describe producers / a name that cannot be *"],
        fields: &[field(
            "topics[0].partitions[0].error_code",
            "\"INVALID_TOPIC_EXCEPTION\"",
            "\"UNKNOWN_TOPIC_OR_PARTITION\"",
        )],
        reason: "A topic that cannot be is not there, as in Produce and Fetch.",
    },
    Difference {
        steps: &["data / describe producers / one*"],
        fields: &[field(
            "topics[0].partitions[0].active_producers[0].last_timestamp",
            "1000000",
            "\"<now>\"",
        )],
        reason: "Keelson tells when the producer last wrote by the broker's clock, which is what its expiry goes by, not the time that a client gave its records.",
    },
    Difference {
        steps: &["data / fetch* (Fetch v*)"],
        fields: &[field(
            "responses[*].partitions[0].aborted_transactions",
            "[]",
            "null",
        )],
        reason: "Without read_committed the list is null, also beside an error.",
    },
    Difference {
        steps: &["data / fetch as a follower / *"],
        fields: &[
            field(
                "responses[0].partitions[0].current_leader.leader_epoch",
                "null",
                "-1",
            ),
            field(
                "responses[0].partitions[0].current_leader.leader_id",
                "1",
                "-1",
            ),
        ],
        reason: "There is one broker: nobody needs to be told of another leader.",
    },
    Difference {
        steps: &["data / fetch with epochs / fetched in a later one *"],
        fields: &[
            field(
                "responses[0].partitions[0].error_code",
                "\"OFFSET_OUT_OF_RANGE\"",
                "null",
            ),
            field("responses[0].partitions[0].high_watermark", "-1", "1"),
            field("responses[0].partitions[0].last_stable_offset", "-1", "1"),
            field("responses[0].partitions[0].log_start_offset", "-1", "null"),
        ],
        reason: "Only followers give the epoch they last fetched; it is not looked at.",
    },
    Difference {
        steps: &[
            "* / no partition (ListOffsets v*",
            "* / no partition (Produce v*",
            "* / no partition (OffsetCommit v*",
            "* / no partition (DeleteRecords v*",
            "* / no partition (TxnOffsetCommit v*",
            "* / no partition (WriteTxnMarkers v*",
            "* / no partition (OffsetDelete v*",
        ],
        fields: &[
            field(
                "topics[0]",
                "null",
                "{\"name\":\"orders\",\"partitions\":[]}",
            ),
            field("responses[0]", "null", "{*\"partition_responses\":[]*}"),
            field("markers[0]", "null", "{*\"partitions\":[]*}"),
        ],
        reason: "A topic that is named without partitions stands in the answer, without partitions.",
    },
    Difference {
        steps: &["* / no partition (AddPartitionsToTxn v*"],
        fields: &[field("results_by_topic_v3_and_below[0]", "{*}", "null")],
        reason: "A topic that is named without partitions adds nothing, and nothing is said of it.",
    },
    Difference {
        steps: &["data / produce in * again (Produce v*"],
        fields: &[field(
            "responses[0].partition_responses[0].log_append_time_ms",
            "1000000",
            "-1",
        )],
        reason: "The time of an append is told where the broker sets it; for a batch that was there already, Apache Kafka tells the client's own.",
    },
    Difference {
        steps: &[
            "data / produce in sequence / a negative id *",
            "data / produce in sequence / without an epoch *",
        ],
        fields: &[
            field("responses[0].partition_responses[0].base_offset", "8", "-1"),
            field(
                "responses[0].partition_responses[0].error_code",
                "null",
                "\"INVALID_RECORD\"",
            ),
            field(
                "responses[0].partition_responses[0].error_code",
                "\"INVALID_PRODUCER_EPOCH\"",
                "\"INVALID_RECORD\"",
            ),
        ],
        reason: "A batch has a producer's id, epoch and sequence, or none of them.",
    },
    Difference {
        steps: &[
            "data / produce wrong batches / cut *",
            "data / produce wrong batches / a length too long *",
        ],
        fields: &[field(
            "responses[0].partition_responses[0].error_code",
            "\"INVALID_RECORD\"",
            "\"CORRUPT_MESSAGE\"",
        )],
        reason: "What is cut short changed on the way: CORRUPT_MESSAGE makes clients send it again.",
    },
    Difference {
        steps: &["data / produce wrong batches / magic 3 *"],
        fields: &[field(
            "responses[0].partition_responses[0].error_code",
            "\"CORRUPT_MESSAGE\"",
            "\"INVALID_RECORD\"",
        )],
        reason: "The checksum holds, so the client meant it, and would send the same again.",
    },
    Difference {
        steps: &["data / produce wrong batches / *compression* (Produce v*"],
        fields: &[
            field(
                "responses[0].partition_responses[0].error_code",
                "\"UNKNOWN_SERVER_ERROR\"",
                "\"UNSUPPORTED_COMPRESSION_TYPE\"",
            ),
            field(
                "responses[0].partition_responses[0].error_code",
                "\"UNKNOWN_SERVER_ERROR\"",
                "\"INVALID_RECORD\"",
            ),
            field(
                "responses[0].partition_responses[0].log_start_offset",
                "-1",
                "null",
            ),
        ],
        reason: "Apache Kafka fails on it; Keelson says what is wrong, in every version.",
    },
    Difference {
        steps: &["offsets / commit from outside / no group *"],
        fields: &[field(
            "topics[0].partitions[0].error_code",
            "null",
            "\"INVALID_GROUP_ID\"",
        )],
        reason: "A group without a name was allowed for clients of before Kafka 2.2; nobody could be told from anybody there.",
    },
    Difference {
        steps: &["topics / create topics / only validated *"],
        fields: &[field("topics[0].topic_id", "\"<id>\"", "null")],
        reason: "A topic that was not made has no id.",
    },
    Difference {
        steps: &["topics / delete topics by id / *"],
        fields: &[
            field("responses[0].topic_id", "\"<id>\"", "null"),
            field("responses[0].name", "null", "\"orders\""),
        ],
        reason: "A topic that stands twice in a request is refused by the name or id that came first, with its name where it is known.",
    },
    Difference {
        steps: &["topics / metadata by id / neither *"],
        fields: &[
            field("brokers[0]", "null", "{*}"),
            field("cluster_id", "null", "\"<cluster>\""),
            field("controller_id", "-1", "1"),
            field("error_code", "\"UNKNOWN_SERVER_ERROR\"", "null"),
            field(
                "topics[0].error_code",
                "\"UNKNOWN_SERVER_ERROR\"",
                "\"UNKNOWN_TOPIC_ID\"",
            ),
            field("topics[0].name", "\"\"", "null"),
        ],
        reason: "Apache Kafka fails on it; Keelson refuses the one topic.",
    },
    Difference {
        steps: &["topics / metadata creates / a topic that is not there *"],
        fields: &[
            field(
                "topics[0].error_code",
                "\"UNKNOWN_TOPIC_OR_PARTITION\"",
                "null",
            ),
            field("topics[0].partitions[0]", "null", "{*}"),
            field("topics[0].topic_id", "null", "\"<id>\""),
        ],
        reason: "The answer waits until the topic is durable and then shows it; in Apache Kafka a client has to ask again.",
    },
    Difference {
        steps: &["admin / describe the quorum / of the metadata *"],
        fields: &[field(
            "nodes[0].listeners[0].name",
            "\"CONTROLLER\"",
            "\"PLAINTEXT\"",
        )],
        reason: "The broker has one listener, and no controller has another.",
    },
    Difference {
        steps: &[
            "admin / describe topic partitions / a name that cannot be *",
            "admin / describe topic partitions / unknown topic *",
        ],
        fields: &[field(
            "topics[0].topic_authorized_operations",
            "3576",
            "-2147483648",
        )],
        reason: "Nothing can be done with a topic that is not there.",
    },
    Difference {
        steps: &["admin / describe topic partitions / no name *"],
        fields: &[field(
            "topics[0].error_code",
            "\"UNKNOWN_SERVER_ERROR\"",
            "\"INVALID_TOPIC_EXCEPTION\"",
        )],
        reason: "Apache Kafka fails on it; Keelson says what is wrong.",
    },
    Difference {
        steps: &["admin / elect leaders / of no kind *"],
        fields: &[field("replica_election_results[0]", "{*}", "null")],
        reason: "The request is refused as a whole.",
    },
    Difference {
        steps: &["transactions / end a transaction / abort, then the opposite (EndTxn v5)"],
        fields: &[field(
            "error_code",
            "\"INVALID_TXN_STATE\"",
            "\"PRODUCER_FENCED\"",
        )],
        reason: "As in Apache Kafka after 4.3.1 (KAFKA-20785): whoever aborted, a commit that comes after it comes too late. Clients take INVALID_TXN_STATE for fatal.",
    },
];
