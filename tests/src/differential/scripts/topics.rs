//! CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords and Metadata.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, MetadataRequest,
};
use uuid::Uuid;

use super::super::batches;
use super::super::case::{Case, Script};
use super::{named, produced};
use crate::wire::text;

/// Partitions with their replicas.
type Assignments<'a> = &'a [(i32, &'a [i32])];

/// Names with values, or with none.
type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

/// The id of no topic.
const NOBODY: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
/// The broker that the scripts run against, and one that is not there.
const BROKER: i32 = 1;
const NO_BROKER: i32 = 9;

pub(in super::super) fn run(script: &mut Script) {
    create_topics(script);
    create_topics_with_assignments(script);
    create_topics_with_configs(script);
    delete_topics(script);
    delete_topics_by_id(script);
    create_partitions(script);
    delete_records(script);
    metadata(script);
    metadata_by_id(script);
    metadata_creates(script);
}

fn topic(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(named(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000)
}

fn create_topics(script: &mut Script) {
    script.each::<CreateTopicsRequest>("create topics", |case| {
        let name = case.name("orders");
        made(case, "a topic", &create(vec![topic(&name, 3, 1)]));
        made(case, "it exists", &create(vec![topic(&name, 3, 1)]));
        let request = create(vec![topic(&name, 3, 1)]).with_validate_only(true);
        made(case, "it exists, only validated", &request);
        let request = create(vec![topic(&case.name("b"), 2, 1)]).with_validate_only(true);
        made(case, "only validated", &request);
        made(
            case,
            "and now made",
            &create(vec![topic(&case.name("b"), 2, 1)]),
        );
        let name = case.name("defaults");
        made(case, "default numbers", &create(vec![topic(&name, -1, -1)]));
        let name = case.name("twice");
        let request = create(vec![topic(&name, 1, 1), topic(&name, 2, 1)]);
        made(case, "twice in one request", &request);
        made(case, "no topic", &create(vec![]));
        let request = create(vec![
            topic(&case.name("good"), 1, 1),
            topic(&case.name("bad"), 0, 1),
        ]);
        case.edited(
            "a good one and a bad one",
            case.version,
            &request,
            |answer| {
                answer.topics.sort_by_key(|topic| topic.name.0.to_string());
                keep_own_configs(answer);
            },
        );
    });
    script.each::<CreateTopicsRequest>("create topics with wrong numbers", |case| {
        for partitions in [0, -2] {
            let name = case.name("orders");
            let step = format!("{partitions} partitions");
            made(case, &step, &create(vec![topic(&name, partitions, 1)]));
        }
        for factor in [0, 2, -2] {
            let name = case.name("orders");
            let step = format!("{factor} replicas");
            made(case, &step, &create(vec![topic(&name, 1, factor)]));
        }
    });
    script.each::<CreateTopicsRequest>("create topics with wrong names", |case| {
        let long = format!("{}{}", "a".repeat(250), case.name(""));
        for (step, name) in [
            ("no name", ""),
            ("a dot", "."),
            ("two dots", ".."),
            ("a space", "a b"),
            ("a letter that is not ASCII", "bestellübersicht"),
            ("a slash", "a/b"),
            ("250 letters and more", &long),
            ("of the broker itself", "__consumer_offsets"),
        ] {
            made(case, step, &create(vec![topic(name, 1, 1)]));
        }
        let (dot, line) = (case.name("a.b"), case.name("a_b"));
        made(case, "with a dot", &create(vec![topic(&dot, 1, 1)]));
        case.settle(&dot, 1);
        made(
            case,
            "the same with a line",
            &create(vec![topic(&line, 1, 1)]),
        );
    });
}

fn create_topics_with_assignments(script: &mut Script) {
    script.each::<CreateTopicsRequest>("create topics with assignments", |case| {
        let assigned = |name: String, assignments: &[(i32, &[i32])]| {
            let assignments = assignments
                .iter()
                .map(|(index, brokers)| {
                    CreatableReplicaAssignment::default()
                        .with_partition_index(*index)
                        .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
                })
                .collect();
            topic(&name, -1, -1).with_assignments(assignments)
        };
        let good: &[(i32, &[i32])] = &[(0, &[BROKER]), (1, &[BROKER])];
        let a = case.name("a");
        made(case, "two partitions", &create(vec![assigned(a, good)]));
        let with_numbers = assigned(case.name("b"), good)
            .with_num_partitions(2)
            .with_replication_factor(1);
        made(
            case,
            "numbers beside assignments",
            &create(vec![with_numbers]),
        );
        let wrong: &[(&str, Assignments<'_>)] = &[
            ("a broker that is not there", &[(0, &[NO_BROKER])]),
            ("a gap", &[(0, &[BROKER]), (2, &[BROKER])]),
            ("not from zero", &[(1, &[BROKER])]),
            (
                "the same partition twice",
                &[(0, &[BROKER]), (0, &[BROKER])],
            ),
            ("the same broker twice", &[(0, &[BROKER, BROKER])]),
            ("no broker", &[(0, &[])]),
            ("a negative broker", &[(0, &[-1])]),
            ("a negative partition", &[(-1, &[BROKER])]),
        ];
        for (step, assignments) in wrong {
            let c = case.name("c");
            made(case, step, &create(vec![assigned(c, assignments)]));
        }
    });
}

fn create_topics_with_configs(script: &mut Script) {
    script.each::<CreateTopicsRequest>("create topics with configs", |case| {
        let configured = |name: String, configs: &[(&str, Option<&str>)]| {
            let configs = configs
                .iter()
                .map(|(key, value)| {
                    CreatableTopicConfig::default()
                        .with_name(text(key))
                        .with_value(value.map(text))
                })
                .collect();
            create(vec![topic(&name, 1, 1).with_configs(configs)])
        };
        let a = configured(
            case.name("a"),
            &[
                ("retention.ms", Some("1000000")),
                ("cleanup.policy", Some("compact")),
            ],
        );
        made(case, "lawful", &a);
        let wrong: &[(&str, Pairs<'_>)] = &[
            ("an unknown key", &[("no.such.key", Some("1"))]),
            ("not a number", &[("retention.ms", Some("long"))]),
            ("out of range", &[("retention.ms", Some("-2"))]),
            ("a policy that is none", &[("cleanup.policy", Some("burn"))]),
            ("no value", &[("retention.ms", None)]),
            ("an empty value", &[("retention.ms", Some(""))]),
            ("an empty key", &[("", Some("1"))]),
            (
                "a boolean that is none",
                &[("preallocate", Some("perhaps"))],
            ),
            (
                "compression that is none",
                &[("compression.type", Some("zip"))],
            ),
            (
                "timestamps of no kind",
                &[("message.timestamp.type", Some("Now"))],
            ),
            ("a segment too small", &[("segment.bytes", Some("1"))]),
        ];
        for (step, configs) in wrong {
            let request = configured(case.name("b"), configs);
            made(case, step, &request);
        }
    });
}

fn made(case: &mut Case<'_>, step: &str, request: &CreateTopicsRequest) {
    case.edited(step, case.version, request, keep_own_configs);
}

/// The answer holds every config of the topic; those of other sources are compared with DescribeConfigs.
fn keep_own_configs(answer: &mut kafka_protocol::messages::CreateTopicsResponse) {
    for topic in &mut answer.topics {
        if let Some(configs) = &mut topic.configs {
            configs.retain(|config| config.config_source == 1);
        }
    }
}

fn delete_topics(script: &mut Script) {
    let by_name = |case: &Case<'_>, names: &[&str]| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(30_000);
        if case.version < 6 {
            return request.with_topic_names(names.iter().map(|name| named(name)).collect());
        }
        let topics = names
            .iter()
            .map(|name| DeleteTopicState::default().with_name(Some(named(name))))
            .collect();
        request.with_topics(topics)
    };
    script.each::<DeleteTopicsRequest>("delete topics", |case| {
        let orders = case.topic("orders", 2, &[]);
        case.call("a topic", &by_name(case, &[&orders]));
        case.settle_gone(&orders);
        case.call("it is gone", &by_name(case, &[&orders]));
        let again = case.topic("again", 1, &[]);
        case.call("twice in one request", &by_name(case, &[&again, &again]));
        case.call("no topic", &by_name(case, &[]));
        case.call("a name that cannot be", &by_name(case, &["a b"]));
        case.call("no name", &by_name(case, &[""]));
        let last = case.topic("last", 1, &[]);
        let request = by_name(case, &[&last, &case.name("nobody")]);
        case.edited(
            "one that is there, one that is not",
            case.version,
            &request,
            |answer| {
                answer
                    .responses
                    .sort_by_key(|topic| topic.name.clone().map(|name| name.to_string()));
            },
        );
    });
}

fn delete_topics_by_id(script: &mut Script) {
    let spec = keelson_protocol::api::spec(20).expect("DeleteTopics is served");
    script.each_of("delete topics by id", spec, 6..=spec.max, |case| {
        let by_id = |id| {
            DeleteTopicState::default()
                .with_name(None)
                .with_topic_id(id)
        };
        let request = |topics| {
            DeleteTopicsRequest::default()
                .with_timeout_ms(30_000)
                .with_topics(topics)
        };
        let orders = case.topic("orders", 1, &[]);
        let id = case.topic_id(&orders);
        let both = by_id(id).with_name(Some(named(&orders)));
        case.call("name and id", &request(vec![both]));
        case.call("twice in one request", &request(vec![by_id(id), by_id(id)]));
        let one = DeleteTopicState::default().with_name(Some(named(&orders)));
        case.edited(
            "once by name and once by id",
            case.version,
            &request(vec![one, by_id(id)]),
            |answer| {
                answer
                    .responses
                    .sort_by_key(|topic| topic.topic_id.is_nil());
            },
        );
        let left = case.topic("left", 1, &[]);
        let id = case.topic_id(&left);
        case.call("a topic", &request(vec![by_id(id)]));
        case.settle_gone(&left);
        case.call("it is gone", &request(vec![by_id(id)]));
        case.call("nobody's", &request(vec![by_id(NOBODY)]));
        case.call("neither name nor id", &request(vec![by_id(Uuid::nil())]));
    });
}

fn create_partitions(script: &mut Script) {
    let grow = |name: &str, count: i32| {
        CreatePartitionsTopic::default()
            .with_name(named(name))
            .with_count(count)
            .with_assignments(None)
    };
    let request = |topics| {
        CreatePartitionsRequest::default()
            .with_topics(topics)
            .with_timeout_ms(30_000)
    };
    script.each::<CreatePartitionsRequest>("create partitions", |case| {
        let orders = case.topic("orders", 2, &[]);
        case.call(
            "one more, only validated",
            &request(vec![grow(&orders, 3)]).with_validate_only(true),
        );
        case.call("one more", &request(vec![grow(&orders, 3)]));
        case.settle(&orders, 3);
        for (step, count) in [("as many", 3), ("fewer", 1), ("none", 0), ("negative", -1)] {
            case.call(step, &request(vec![grow(&orders, count)]));
        }
        let nobody = case.name("nobody");
        case.call("unknown topic", &request(vec![grow(&nobody, 3)]));
        case.call("no name", &request(vec![grow("", 3)]));
        case.call("no topic", &request(vec![]));
        let twice = request(vec![grow(&orders, 4), grow(&orders, 5)]);
        case.call("twice in one request", &twice);
        let assigned = |count: i32, brokers: &[&[i32]]| {
            let assignments = brokers
                .iter()
                .map(|brokers| {
                    CreatePartitionsAssignment::default()
                        .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
                })
                .collect();
            request(vec![
                grow(&orders, count).with_assignments(Some(assignments)),
            ])
        };
        case.call("assigned to nobody", &assigned(4, &[&[NO_BROKER]]));
        case.call("fewer assignments", &assigned(5, &[&[BROKER]]));
        case.call("more assignments", &assigned(4, &[&[BROKER], &[BROKER]]));
        case.call("an empty assignment", &assigned(4, &[&[]]));
        case.call("the same broker twice", &assigned(4, &[&[BROKER, BROKER]]));
        case.call("no assignment", &assigned(4, &[]));
        case.call("assigned", &assigned(4, &[&[BROKER]]));
    });
}

fn delete_records(script: &mut Script) {
    script.each::<DeleteRecordsRequest>("delete records", |case| {
        let orders = case.topic("orders", 1, &[("retention.ms", "-1")]);
        produced(case, &orders, batches::plain(&["a", "b", "c"]));
        let request = |topic: &str, partitions: &[(i32, i64)]| {
            let partitions = partitions
                .iter()
                .map(|(index, offset)| {
                    DeleteRecordsPartition::default()
                        .with_partition_index(*index)
                        .with_offset(*offset)
                })
                .collect();
            DeleteRecordsRequest::default()
                .with_timeout_ms(30_000)
                .with_topics(vec![
                    DeleteRecordsTopic::default()
                        .with_name(named(topic))
                        .with_partitions(partitions),
                ])
        };
        case.call("before the second", &request(&orders, &[(0, 1)]));
        case.call("below the start", &request(&orders, &[(0, 0)]));
        case.call("behind the end", &request(&orders, &[(0, 4)]));
        case.call("no such offset", &request(&orders, &[(0, -2)]));
        case.call("all", &request(&orders, &[(0, -1)]));
        case.call("unknown partition", &request(&orders, &[(1, 0)]));
        case.call("negative partition", &request(&orders, &[(-1, 0)]));
        case.call("unknown topic", &request(&case.name("nobody"), &[(0, 0)]));
        case.call("no partition", &request(&orders, &[]));
        let table = case.topic(
            "table",
            1,
            &[("cleanup.policy", "compact"), ("retention.ms", "-1")],
        );
        produced(case, &table, batches::keyed("key", "value"));
        case.call("a compacted topic", &request(&table, &[(0, 1)]));
        let both = case.topic(
            "both",
            1,
            &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")],
        );
        produced(case, &both, batches::keyed("key", "value"));
        case.call("a topic of both policies", &request(&both, &[(0, 1)]));
        case.call(
            "of the broker itself",
            &request("__consumer_offsets", &[(0, 0)]),
        );
    });
}

fn asked(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(named(name)))
}

fn metadata(script: &mut Script) {
    script.each::<MetadataRequest>("metadata", |case| {
        let version = case.version;
        let orders = case.topic("orders", 2, &[]);
        let request = |topics| {
            let request = MetadataRequest::default().with_topics(topics);
            match version {
                0..=3 => request,
                _ => request.with_allow_auto_topic_creation(false),
            }
        };
        case.call("a topic", &request(Some(vec![asked(&orders)])));
        let twice = request(Some(vec![asked(&orders), asked(&orders)]));
        case.call("twice in one request", &twice);
        case.call("a name that cannot be", &request(Some(vec![asked("a b")])));
        case.call("an empty name", &request(Some(vec![asked("")])));
        let all = if version == 0 {
            request(Some(vec![]))
        } else {
            request(None)
        };
        let own = case.name("");
        case.edited("all", version, &all, |answer| {
            answer.topics.retain(|topic| {
                topic
                    .name
                    .as_ref()
                    .is_some_and(|name| name.ends_with(&*own))
            });
        });
        if version > 0 {
            case.call("none", &request(Some(vec![])));
        }
        if version >= 4 {
            let nobody = case.name("nobody");
            case.call("unknown topic", &request(Some(vec![asked(&nobody)])));
        }
        let internal = request(Some(vec![asked("__consumer_offsets")]));
        case.edited("of the broker itself", version, &internal, |answer| {
            for topic in &mut answer.topics {
                topic
                    .partitions
                    .retain(|partition| partition.partition_index == 0);
            }
        });
        if version >= 8 {
            let with =
                request(Some(vec![asked(&orders)])).with_include_topic_authorized_operations(true);
            case.call("with operations", &with);
        }
        if (8..=10).contains(&version) {
            let with = request(Some(vec![])).with_include_cluster_authorized_operations(true);
            case.call("with operations of the cluster", &with);
        }
    });
}

fn metadata_by_id(script: &mut Script) {
    let spec = keelson_protocol::api::spec(3).expect("Metadata is served");
    script.each_of("metadata by id", spec, 10..=spec.max, |case| {
        let orders = case.topic("orders", 1, &[]);
        let id = case.topic_id(&orders);
        let by = |id, name: Option<&str>| {
            let topic = MetadataRequestTopic::default()
                .with_topic_id(id)
                .with_name(name.map(named));
            MetadataRequest::default()
                .with_topics(Some(vec![topic]))
                .with_allow_auto_topic_creation(false)
        };
        case.call("a topic", &by(id, None));
        case.call("nobody's", &by(NOBODY, None));
        case.call("name and id", &by(id, Some(&orders)));
        case.call("name and another's id", &by(NOBODY, Some(&orders)));
        case.call("neither", &by(Uuid::nil(), None));
    });
}

fn metadata_creates(script: &mut Script) {
    script.each::<MetadataRequest>("metadata creates", |case| {
        let orders = case.name("orders");
        let request = MetadataRequest::default().with_topics(Some(vec![asked(&orders)]));
        case.call("a topic that is not there", &request);
        let version = case.version;
        case.until("the topic is there", version, &request, |answer| {
            answer.topics[0].error_code == 0 && answer.topics[0].partitions[0].error_code == 0
        });
        case.call("and then", &request);
    });
}
