//! Every topic config: what it takes, what it refuses, and in which words.

use std::collections::BTreeMap;

use super::*;

const LIMITS: ConfigLimits = ConfigLimits {
    message_bytes_max: 8 << 20,
};

#[test]
fn table_is_sorted_and_defaults_are_lawful() {
    assert!(
        TOPIC_KEYS
            .windows(2)
            .all(|pair| pair[0].name < pair[1].name)
    );
    for key in TOPIC_KEYS {
        assert!(!key.doc.is_empty(), "{}", key.name);
        if let Some(default) = key.default {
            validate(key.name, default, &LIMITS).unwrap();
        }
    }
}

#[test]
fn values_are_judged_with_reasons() {
    let cases = [
        ("retention.ms", "-1", None),
        ("retention.ms", "-2", Some("at least -1")),
        ("retention.ms", "1d", Some("Not a number of type LONG")),
        ("retention.bytes", "0", None),
        ("segment.bytes", "4095", Some("at least 4096")),
        (
            "segment.bytes",
            "4294967296",
            Some("Not a number of type INT"),
        ),
        ("segment.ms", "0", Some("at least 1")),
        ("max.message.bytes", "8388608", None),
        (
            "max.message.bytes",
            "8388609",
            Some("at most 8388608 bytes"),
        ),
        ("message.timestamp.type", "LogAppendTime", None),
        (
            "message.timestamp.type",
            "logappendtime",
            Some("String must be one of: CreateTime, LogAppendTime"),
        ),
        ("cleanup.policy", "delete", None),
        ("cleanup.policy", "compact", None),
        ("cleanup.policy", "compact, delete", None),
        (
            "cleanup.policy",
            "compact,delete,none",
            Some(
                "Invalid value none for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ),
        ("cleanup.policy", "", None),
        (
            "compression.gzip.level",
            "0",
            Some("between 1 and 9 or equal to -1"),
        ),
        ("compression.gzip.level", "-1", None),
        ("compression.zstd.level", "23", Some("no more than 22")),
        (
            "compression.lz4.level",
            "10",
            Some("Only 9 is supported here"),
        ),
        ("flush.messages", "0", Some("at least 1")),
        ("index.interval.bytes", " 4096 ", None),
        (
            "index.interval.bytes",
            "1",
            Some("Only 4096 is supported here: an index"),
        ),
        ("preallocate", "TRUE", Some("Only false is supported here")),
        ("preallocate", "FALSE", None),
        (
            "preallocate",
            "yes",
            Some("Expected value to be either true or false"),
        ),
        ("unclean.leader.election.enable", "True", None),
        ("leader.replication.throttled.replicas", "*", None),
        ("leader.replication.throttled.replicas", "0:1,1:2", None),
        (
            "leader.replication.throttled.replicas",
            "0:1,x",
            Some("Invalid value [0:1, x]"),
        ),
        ("retention.bytes", "-5", None),
        ("min.cleanable.dirty.ratio", "0.01", None),
        ("min.cleanable.dirty.ratio", "1.5", Some("no more than 1")),
        ("min.cleanable.dirty.ratio", "-1", Some("at least 0")),
        ("min.cleanable.dirty.ratio", "NaN", Some("no more than 1")),
        (
            "min.cleanable.dirty.ratio",
            "half",
            Some("Not a number of type DOUBLE"),
        ),
        ("delete.retention.ms", "0", None),
        ("min.compaction.lag.ms", "-1", Some("at least 0")),
        ("max.compaction.lag.ms", "0", Some("at least 1")),
        ("compression.type", "gzip", None),
        ("compression.type", "lzma", Some("uncompressed, zstd, lz4")),
        ("keelson.owner", "uid/ns/name", None),
        ("keelson.owner", "a\nb", Some("control characters")),
        ("min.insync.replicas", "0", Some("at least 1")),
        ("foo", "1", Some("Unknown topic config name: foo")),
    ];
    for (key, value, want) in cases {
        match (validate(key, value, &LIMITS), want) {
            (Ok(found), None) => assert_eq!(found.name, key),
            (Err(error), Some(text)) => {
                assert!(error.to_string().contains(text), "{key}={value}: {error}");
            }
            (found, want) => panic!("{key}={value}: {found:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn the_nearest_value_wins_and_the_chain_shows_all() {
    let mut defaults = LayeredDefaults::default();
    defaults
        .statics
        .set("log.retention.hours", "2", &LIMITS)
        .unwrap();
    let mut topic = BTreeMap::new();
    assert_eq!(settings(&topic, &defaults).retention_ms, 7_200_000);
    defaults
        .statics
        .set("log.retention.minutes", "3", &LIMITS)
        .unwrap();
    assert_eq!(settings(&topic, &defaults).retention_ms, 180_000);
    topic.insert("retention.ms".to_owned(), "5".to_owned());
    assert_eq!(settings(&topic, &defaults).retention_ms, 5);

    let entries = describe(&topic, &defaults);
    assert_eq!(entries.len(), TOPIC_KEYS.len());
    let entry = entries
        .iter()
        .find(|entry| entry.key.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (entry.value.as_deref(), entry.source),
        (Some("5"), Source::Topic)
    );
    assert_eq!(
        entry.synonyms.len(),
        1,
        "like Kafka, other units alone are not shown"
    );
    let limits = &LIMITS;
    defaults
        .statics
        .set("log.retention.ms", "7", limits)
        .unwrap();
    defaults
        .dynamic_default
        .set("log.retention.ms", "6", limits)
        .unwrap();
    defaults
        .dynamic_broker
        .set("log.segment.bytes", "9999", limits)
        .unwrap();
    let entries = describe(&topic, &defaults);
    let found = |name: &str| entries.iter().find(|entry| entry.key.name == name).unwrap();
    let (entry, other) = (found("retention.ms"), found("segment.bytes"));
    assert_eq!(other.source, Source::DynamicBroker);
    assert_eq!(settings(&BTreeMap::new(), &defaults).retention_ms, 6);
    let chain: Vec<_> = entry
        .synonyms
        .iter()
        .map(|s| (s.name, s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(
        chain,
        [
            ("retention.ms", "5", Source::Topic),
            ("log.retention.ms", "6", Source::DynamicDefaultBroker),
            ("log.retention.ms", "7", Source::StaticBroker),
            ("log.retention.minutes", "3", Source::StaticBroker),
            ("log.retention.hours", "2", Source::StaticBroker),
            ("log.retention.hours", "168", Source::Default),
        ]
    );
}

#[test]
fn the_cleanup_policy_says_what_is_done() {
    let mut defaults = LayeredDefaults::default();
    let mut topic = BTreeMap::new();
    let of = |topic: &BTreeMap<String, String>, defaults: &LayeredDefaults| {
        let found = settings(topic, defaults);
        (
            found.deletes,
            found.compaction.map(|c| c.min_cleanable_dirty_ratio),
        )
    };
    assert_eq!(of(&topic, &defaults), (true, None));
    topic.insert("cleanup.policy".to_owned(), "compact".to_owned());
    assert_eq!(of(&topic, &defaults), (false, Some(0.5)));
    topic.insert("cleanup.policy".to_owned(), "delete,compact".to_owned());
    let key = "log.cleaner.min.cleanable.ratio";
    defaults.statics.set(key, "0.25", &LIMITS).unwrap();
    assert_eq!(of(&topic, &defaults), (true, Some(0.25)));
}

#[test]
fn broker_keys_are_judged_under_their_own_name() {
    let mut defaults = LayeredDefaults::default();
    let error = defaults
        .statics
        .set("log.segment.bytes", "1", &LIMITS)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("configuration log.segment.bytes"),
        "{error}"
    );
    assert!(
        defaults
            .statics
            .set("log.roll.hours", "0", &LIMITS)
            .is_err()
    );
    assert!(
        defaults
            .statics
            .set("log.retention.hours", "-1", &LIMITS)
            .is_ok()
    );
    assert_eq!(settings(&BTreeMap::new(), &defaults).retention_ms, -1);
    assert!(TopicDefaults::is_key("message.max.bytes") && !TopicDefaults::is_key("num.partitions"));
}

#[test]
fn the_lags_of_compaction_go_together() {
    let defaults = LayeredDefaults::default();
    let mut topic = BTreeMap::from([("min.compaction.lag.ms".to_owned(), "10".to_owned())]);
    assert_eq!(check_together(&topic, &defaults), Ok(()));
    topic.insert("max.compaction.lag.ms".to_owned(), "5".to_owned());
    let error = check_together(&topic, &defaults).unwrap_err().to_string();
    assert!(
        error.contains("min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"),
        "{error}"
    );
}
