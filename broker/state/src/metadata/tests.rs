//! The metadata image and its decisions, judged through records only.

use super::*;
use crate::codec::CodecError;
use crate::config::{ConfigError, ConfigLimits, Kind, LayeredDefaults};

/// A key that can be changed, one that cannot, a list, and one that there is not.
const BROKER_KEYS: BrokerKeys = BrokerKeys {
    find: |name| {
        let key = |kind, is_dynamic| BrokerKey {
            kind,
            default: Some("a"),
            is_dynamic,
        };
        match name {
            "dynamic" => Ok(key(Kind::Int, true)),
            "fixed" | "fixed.too" => Ok(key(Kind::Int, false)),
            "list" => Ok(key(Kind::List, true)),
            _ => Err(format!("Unknown broker config name: {name}")),
        }
    },
    check: |name, value, _| match (name, value) {
        ("dynamic", "bad") => Err("Invalid value".to_owned()),
        _ => Ok(()),
    },
};

fn check(with: impl FnOnce(&Image, &Rules<'_>)) {
    let defaults = LayeredDefaults::default();
    let limits = ConfigLimits {
        message_bytes_max: 8 << 20,
    };
    let rules = Rules {
        broker_id: 0,
        default_partitions: 4,
        limits,
        defaults: &defaults,
        broker_keys: BROKER_KEYS,
    };
    let mut image = Image::default();
    image.apply(&register_start(&image, 0)).unwrap();
    for (number, name) in ["orders", "a.b", CONSUMER_OFFSETS].into_iter().enumerate() {
        let record =
            create_topic(&image, &rules, &topic(name), [number as u8 + 1; 16], true).unwrap();
        image.apply(&record).unwrap();
    }
    with(&image, &rules);
}

fn topic(name: &str) -> CreateTopic {
    CreateTopic {
        name: name.to_owned(),
        partitions: 3,
        replication_factor: 1,
        ..CreateTopic::default()
    }
}

fn alter_topic(
    image: &Image,
    rules: &Rules<'_>,
    name: &str,
    changes: &[Alteration],
) -> Result<Vec<Record>, MetadataError> {
    let target = ConfigTarget::Topic(name.to_owned());
    let change = ConfigChange::Incremental(changes.to_vec());
    alter_configs(image, rules, &target, &change)
}

fn set(key: &str, value: &str) -> Alteration {
    Alteration {
        key: key.to_owned(),
        op: AlterOp::Set,
        value: Some(value.to_owned()),
    }
}

#[test]
fn records_round_trip_and_refuse_cuts_and_newer_ones() {
    let id = [7; 16];
    let configs = vec![("retention.ms".to_owned(), "1".to_owned())];
    let records = [
        Record::BrokerStarted {
            broker_id: 3,
            epoch: 9,
        },
        Record::TopicCreated {
            id,
            name: "t".to_owned(),
            partitions: 2,
            broker_epoch: 9,
            configs,
        },
        Record::TopicRemoved { id },
        Record::PartitionsGrown { id, partitions: 5 },
        Record::ConfigChanged {
            id,
            key: "k".to_owned(),
            value: None,
        },
        Record::ConfigChanged {
            id,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
        },
        Record::ProducerIds {
            broker_id: 3,
            next_producer_id: 1_000,
        },
        Record::BrokerConfigChanged {
            broker_id: ALL_BROKERS,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
        },
        Record::BrokerConfigChanged {
            broker_id: 3,
            key: "k".to_owned(),
            value: None,
        },
    ];
    for record in records {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        for cut in 0..bytes.len() {
            assert!(
                Record::decode(&bytes[..cut]).is_err(),
                "{record:?} cut at {cut}"
            );
        }
        let mut newer = bytes.clone();
        newer[1] = 1;
        let error = Record::decode(&newer).unwrap_err();
        assert!(error.to_string().contains("newer Keelson"), "{error}");
    }
    assert!(matches!(
        Record::decode(&[99, 0]),
        Err(CodecError::Kind { kind: 99, .. })
    ));
}

#[test]
fn record_bytes_are_golden() {
    let record = Record::TopicCreated {
        id: *b"0123456789abcdef",
        name: "tp".to_owned(),
        partitions: 2,
        broker_epoch: 1,
        configs: vec![("k".to_owned(), "v".to_owned())],
    };
    let golden =
        b"\x02\x000123456789abcdef\x00\x02tp\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\
        \x00\x00\x00\x01\x00\x01k\x00\x01v";
    assert_eq!(record.encode(), golden);
}

#[test]
fn creations_are_judged() {
    check(|image, rules| {
        let create = |want: CreateTopic| create_topic(image, rules, &want, [9; 16], false);
        let defaults = CreateTopic {
            partitions: -1,
            replication_factor: -1,
            ..topic("x")
        };
        assert!(matches!(
            create(defaults),
            Ok(Record::TopicCreated { partitions: 4, .. })
        ));
        let assigned = |assignments| CreateTopic {
            partitions: -1,
            replication_factor: -1,
            assignments,
            ..topic("x")
        };
        let two = create(assigned(vec![(1, vec![0]), (0, vec![0])]));
        assert!(matches!(
            two,
            Ok(Record::TopicCreated { partitions: 2, .. })
        ));

        use MetadataError as E;
        for partitions in [0, -2, PARTITIONS_PER_TOPIC_MAX + 1] {
            let found = create(CreateTopic {
                partitions,
                ..topic("x")
            });
            assert!(
                matches!(
                    found,
                    Err(E::InvalidPartitions { .. } | E::TooManyPartitions { .. })
                ),
                "{partitions}"
            );
        }
        for replication_factor in [0, -2, 2] {
            let found = create(CreateTopic {
                replication_factor,
                ..topic("x")
            });
            assert!(
                matches!(found, Err(E::InvalidReplicationFactor { .. })),
                "{replication_factor}"
            );
        }
        for wrong in [
            vec![(1, vec![0])],
            vec![(0, vec![1])],
            vec![(0, vec![0, 1])],
            vec![(0, vec![])],
        ] {
            let found = create(assigned(wrong.clone()));
            assert!(
                matches!(found, Err(E::InvalidReplicaAssignment { .. })),
                "{wrong:?}"
            );
        }
    });
}

#[test]
fn names_of_a_creation_are_judged() {
    check(|image, rules| {
        use MetadataError as E;
        let create = |want: CreateTopic| create_topic(image, rules, &want, [9; 16], false);
        let long = "x".repeat(250);
        let wrong_name =
            |name: &str| matches!(create(topic(name)), Err(E::InvalidTopicName { .. }));
        assert!(
            ["", ".", "..", "a b", "ü", long.as_str()]
                .into_iter()
                .all(wrong_name)
        );
        assert!(create(topic(&long[1..])).is_ok());
        assert!(matches!(create(topic("orders")), Err(E::Exists { .. })));
        assert!(matches!(create(topic("a_b")), Err(E::Collision { .. })));
        assert!(matches!(
            create(topic(CLUSTER_METADATA)),
            Err(E::Internal { .. })
        ));
    });
}

#[test]
fn configs_of_a_creation_are_judged() {
    check(|image, rules| {
        use MetadataError as E;
        let create = |want: CreateTopic| create_topic(image, rules, &want, [9; 16], false);
        let configs = vec![("foo".to_owned(), Some("2".to_owned()))];
        let found = create(CreateTopic {
            configs,
            ..topic("x")
        });
        assert!(matches!(
            found,
            Err(E::InvalidConfig(ConfigError::UnknownKey { .. }))
        ));
        let configs = vec![("retention.ms".to_owned(), None)];
        let found = create(CreateTopic {
            configs,
            ..topic("x")
        });
        assert!(matches!(
            found,
            Err(E::InvalidConfig(ConfigError::Null { .. }))
        ));
    });
}

#[test]
fn removals_and_growth_are_judged() {
    check(|image, rules| {
        use MetadataError as E;
        let named = |name: &str| delete_topic(image, &TopicRef::Name(name.to_owned()));
        assert_eq!(named("orders"), Ok(Record::TopicRemoved { id: [1; 16] }));
        assert_eq!(
            delete_topic(image, &TopicRef::Id([2; 16])),
            Ok(Record::TopicRemoved { id: [2; 16] })
        );
        assert!(matches!(named("none"), Err(E::UnknownName { .. })));
        assert!(matches!(
            delete_topic(image, &TopicRef::Id([8; 16])),
            Err(E::UnknownId { .. })
        ));
        assert!(matches!(named(CONSUMER_OFFSETS), Err(E::Internal { .. })));

        let grow = |count, assignments| {
            let want = CreatePartitions {
                name: "orders".to_owned(),
                count,
                assignments,
            };
            create_partitions(image, rules, &want)
        };
        assert_eq!(
            grow(5, None),
            Ok(Record::PartitionsGrown {
                id: [1; 16],
                partitions: 5
            })
        );
        assert!(grow(5, Some(vec![vec![0], vec![0]])).is_ok());
        assert!(matches!(
            grow(5, Some(vec![vec![0]])),
            Err(E::InvalidReplicaAssignment { .. })
        ));
        assert!(matches!(
            grow(4, Some(vec![vec![7]])),
            Err(E::InvalidReplicaAssignment { .. })
        ));
        for count in [3, 2, 0, -1, PARTITIONS_PER_TOPIC_MAX + 1] {
            assert!(
                matches!(
                    grow(count, None),
                    Err(E::InvalidPartitions { .. } | E::TooManyPartitions { .. })
                ),
                "{count}"
            );
        }
    });
}

#[test]
fn config_changes_are_judged() {
    check(|image, rules| {
        let alter = |changes: &[Alteration]| alter_topic(image, rules, "orders", changes);
        let changed = alter(&[set("retention.ms", "5")]).unwrap();
        assert!(
            matches!(&changed[..], [Record::ConfigChanged { value: Some(value), .. }] if value == "5")
        );
        let delete = Alteration {
            key: "retention.ms".to_owned(),
            op: AlterOp::Delete,
            value: None,
        };
        assert_eq!(alter(&[delete]), Ok(vec![]), "nothing to remove");
        let append = Alteration {
            op: AlterOp::Append,
            ..set("cleanup.policy", "delete")
        };
        assert_eq!(alter(std::slice::from_ref(&append)).unwrap().len(), 1);
        let refused = [
            vec![set("retention.ms", "x")],
            vec![set("nope", "1")],
            vec![set("retention.ms", "1"), set("retention.ms", "2")],
            vec![Alteration {
                value: None,
                ..set("retention.ms", "")
            }],
            vec![Alteration {
                op: AlterOp::Append,
                ..set("retention.ms", "1")
            }],
            vec![Alteration {
                value: Some("shrink".to_owned()),
                ..append.clone()
            }],
            vec![
                set("min.compaction.lag.ms", "9"),
                set("max.compaction.lag.ms", "5"),
            ],
        ];
        let subtract = Alteration {
            op: AlterOp::Subtract,
            ..append
        };
        let emptied = alter(&[subtract]).unwrap();
        assert!(
            matches!(&emptied[..], [Record::ConfigChanged { value: Some(value), .. }] if value.is_empty())
        );
        // The values are looked at before the topic.
        let unknown = |value| alter_topic(image, rules, "nowhere", &[set("retention.ms", value)]);
        assert!(matches!(unknown("x"), Err(MetadataError::InvalidConfig(_))));
        assert!(matches!(
            unknown("1"),
            Err(MetadataError::UnknownName { .. })
        ));
        for changes in refused {
            assert!(alter(&changes).is_err(), "{changes:?}");
        }
        let internal = |key, value| alter_topic(image, rules, CONSUMER_OFFSETS, &[set(key, value)]);
        assert_eq!(internal("segment.ms", "1").unwrap().len(), 1);
        let internal = internal("cleanup.policy", "delete");
        assert!(matches!(internal, Err(MetadataError::Internal { .. })));
    });
}

#[test]
fn an_owner_is_never_replaced_by_another() {
    check(|image, rules| {
        let mut image = image.clone();
        let mut alter = |value: Option<&str>| {
            let op = if value.is_some() {
                AlterOp::Set
            } else {
                AlterOp::Delete
            };
            let change = Alteration {
                key: "keelson.owner".to_owned(),
                op,
                value: value.map(str::to_owned),
            };
            let records = alter_topic(&image, rules, "orders", &[change])?;
            for record in &records {
                image.apply(record).unwrap();
            }
            Ok::<usize, MetadataError>(records.len())
        };
        assert_eq!(alter(Some("one")), Ok(1));
        assert_eq!(alter(Some("one")), Ok(0));
        assert!(matches!(
            alter(Some("two")),
            Err(MetadataError::InvalidConfig(ConfigError::Owned { .. }))
        ));
        assert_eq!(alter(None), Ok(1));
        assert_eq!(alter(Some("two")), Ok(1));
        assert_eq!(alter(Some("")), Ok(1), "an empty owner is none");
        assert_eq!(alter(Some("three")), Ok(1));
    });
}

#[test]
fn the_image_follows_and_refuses_what_cannot_follow() {
    check(|image, rules| {
        let mut image = image.clone();
        let before = image.clone();
        assert_eq!((image.topic_count(), image.partitions_total()), (3, 9));
        let (first, block) = producer_id_block(&image, 0);
        assert_eq!(first, 0);
        image.apply(&block).unwrap();
        assert_eq!(image.next_producer_id(), PRODUCER_ID_BLOCK);
        image.apply(&register_start(&image, 0)).unwrap();
        assert_eq!(image.leader_epoch(image.topic("orders").unwrap()), 1);
        image
            .apply(&Record::PartitionsGrown {
                id: [1; 16],
                partitions: 10,
            })
            .unwrap();
        assert_eq!(image.partitions_total(), 16);
        let wrong = [
            Record::BrokerStarted {
                broker_id: 0,
                epoch: 2,
            },
            Record::PartitionsGrown {
                id: [1; 16],
                partitions: 10,
            },
            Record::PartitionsGrown {
                id: [8; 16],
                partitions: 10,
            },
            Record::TopicRemoved { id: [8; 16] },
            Record::ConfigChanged {
                id: [8; 16],
                key: "k".to_owned(),
                value: None,
            },
            block,
            create_topic(&Image::default(), rules, &topic("orders"), [9; 16], false).unwrap(),
        ];
        for record in wrong {
            assert!(image.apply(&record).is_err(), "{record:?}");
        }
        image.apply(&Record::TopicRemoved { id: [1; 16] }).unwrap();
        assert!(image.topic("orders").is_none() && image.topic_by_id(&[1; 16]).is_none());
        assert_eq!(image.partitions_total(), 6);
        assert!(
            before.topic("orders").is_some(),
            "a shared image does not change"
        );
    });
}

#[test]
fn configs_of_a_broker_are_changed_where_they_can_be() {
    check(|image, rules| {
        let mut image = image.clone();
        let alter = |image: &Image, id, change: &ConfigChange| {
            alter_configs(image, rules, &ConfigTarget::Broker(id), change)
        };
        let incremental = |changes: &[Alteration]| ConfigChange::Incremental(changes.to_vec());
        for id in [0, ALL_BROKERS] {
            let change = incremental(&[set("dynamic", "1"), set("list", "x,y")]);
            let records = alter(&image, id, &change).unwrap();
            assert_eq!(records.len(), 2);
            for record in &records {
                let read = Record::decode(&record.encode()).unwrap();
                image.apply(&read).unwrap();
            }
            assert_eq!(image.broker_configs(id).len(), 2);
            assert_eq!(alter(&image, id, &change), Ok(vec![]), "nothing changes");
        }
        assert!(image.broker_configs(7).is_empty());
        let append = Alteration {
            op: AlterOp::Append,
            ..set("list", "y,z")
        };
        let records = alter(&image, 0, &incremental(&[append])).unwrap();
        assert!(
            matches!(&records[..], [Record::BrokerConfigChanged { broker_id: 0, value: Some(value), .. }] if value == "x,y,z")
        );
        let replace = |values: &[(&str, &str)]| {
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
            ConfigChange::Replace(values.iter().map(pair).collect())
        };
        let records = alter(&image, 0, &replace(&[("dynamic", "1")])).unwrap();
        assert!(
            matches!(&records[..], [Record::BrokerConfigChanged { key, value: None, .. }] if key == "list")
        );
        let reason = |id, change: &ConfigChange| alter(&image, id, change).unwrap_err().to_string();
        let refused = reason(0, &replace(&[("fixed", "1"), ("fixed.too", "2")]));
        assert_eq!(
            refused,
            "Cannot update these configs dynamically: [fixed, fixed.too]"
        );
        assert_eq!(reason(0, &replace(&[("dynamic", "bad")])), "Invalid value");
        assert_eq!(
            reason(0, &replace(&[("foo", "1")])),
            "Unknown broker config name: foo"
        );
        let elsewhere = reason(3, &replace(&[("dynamic", "1")]));
        assert_eq!(
            elsewhere,
            "Unexpected broker id, expected 0, but received 3"
        );
        // What is not set can be removed, whatever it is.
        let delete = Alteration {
            op: AlterOp::Delete,
            value: None,
            ..set("foo", "")
        };
        assert_eq!(alter(&image, 0, &incremental(&[delete])), Ok(vec![]));
    });
}

#[test]
fn replacing_all_configs_of_a_topic_keeps_its_owner() {
    check(|image, rules| {
        let mut image = image.clone();
        let changes = [set("keelson.owner", "a/b/c"), set("retention.ms", "5")];
        for record in &alter_topic(&image, rules, "orders", &changes).unwrap() {
            image.apply(record).unwrap();
        }
        let target = ConfigTarget::Topic("orders".to_owned());
        let change = ConfigChange::Replace(vec![("segment.ms".to_owned(), Some("9".to_owned()))]);
        for record in &alter_configs(&image, rules, &target, &change).unwrap() {
            image.apply(record).unwrap();
        }
        let configs = &image.topic("orders").unwrap().configs;
        let keys: Vec<&str> = configs.keys().map(String::as_str).collect();
        assert_eq!(keys, ["keelson.owner", "segment.ms"]);
    });
}
