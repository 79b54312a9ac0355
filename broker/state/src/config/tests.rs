//! Every topic config: what it takes, what it refuses, and in which words.

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
        ("retention.ms", "1d", Some("Not a whole number")),
        ("retention.bytes", "0", None),
        ("segment.bytes", "4095", Some("at least 4096")),
        (
            "segment.bytes",
            "4294967296",
            Some("no more than 2147483647"),
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
            Some("Supported here"),
        ),
        ("cleanup.policy", "delete", None),
        ("cleanup.policy", "compact", None),
        ("cleanup.policy", "compact, delete", None),
        (
            "cleanup.policy",
            "compact,delete,none",
            Some("Supported here: delete, compact"),
        ),
        (
            "cleanup.policy",
            "",
            Some("Supported here: delete, compact"),
        ),
        ("min.cleanable.dirty.ratio", "0.01", None),
        ("min.cleanable.dirty.ratio", "1.5", Some("from 0 to 1")),
        ("min.cleanable.dirty.ratio", "NaN", Some("from 0 to 1")),
        ("min.cleanable.dirty.ratio", "half", Some("Not a number")),
        ("delete.retention.ms", "0", None),
        ("min.compaction.lag.ms", "-1", Some("at least 0")),
        ("max.compaction.lag.ms", "0", Some("at least 1")),
        ("compression.type", "gzip", None),
        ("compression.type", "lzma", Some("uncompressed, zstd")),
        ("keelson.owner", "uid/ns/name", None),
        ("keelson.owner", "a\nb", Some("control characters")),
        (
            "min.insync.replicas",
            "1",
            Some("Unknown topic config name: min.insync.replicas"),
        ),
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
    let mut statics = StaticConfig::default();
    statics.set("log.retention.hours", "2", &LIMITS).unwrap();
    let mut topic = BTreeMap::new();
    assert_eq!(settings(&topic, &statics).retention_ms, 7_200_000);
    statics.set("log.retention.minutes", "3", &LIMITS).unwrap();
    assert_eq!(settings(&topic, &statics).retention_ms, 180_000);
    topic.insert("retention.ms".to_owned(), "5".to_owned());
    assert_eq!(settings(&topic, &statics).retention_ms, 5);

    let entries = describe(&topic, &statics);
    assert_eq!(entries.len(), TOPIC_KEYS.len());
    let entry = entries
        .iter()
        .find(|entry| entry.key.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (entry.value.as_deref(), entry.source),
        (Some("5"), Source::Topic)
    );
    let chain: Vec<_> = entry
        .synonyms
        .iter()
        .map(|s| (s.name, s.value.as_deref().unwrap(), s.source))
        .collect();
    assert_eq!(
        chain,
        [
            ("retention.ms", "5", Source::Topic),
            ("log.retention.minutes", "3", Source::StaticBroker),
            ("log.retention.hours", "2", Source::StaticBroker),
            ("log.retention.hours", "168", Source::Default),
        ]
    );
}

#[test]
fn the_cleanup_policy_says_what_is_done() {
    let mut statics = StaticConfig::default();
    let mut topic = BTreeMap::new();
    let of = |topic: &BTreeMap<String, String>, statics: &StaticConfig| {
        let found = settings(topic, statics);
        (
            found.deletes,
            found.compaction.map(|c| c.min_cleanable_dirty_ratio),
        )
    };
    assert_eq!(of(&topic, &statics), (true, None));
    topic.insert("cleanup.policy".to_owned(), "compact".to_owned());
    assert_eq!(of(&topic, &statics), (false, Some(0.5)));
    topic.insert("cleanup.policy".to_owned(), "delete,compact".to_owned());
    let key = "log.cleaner.min.cleanable.ratio";
    statics.set(key, "0.25", &LIMITS).unwrap();
    assert_eq!(of(&topic, &statics), (true, Some(0.25)));
}

#[test]
fn broker_keys_are_judged_under_their_own_name() {
    let mut statics = StaticConfig::default();
    let error = statics.set("log.segment.bytes", "1", &LIMITS).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("configuration log.segment.bytes"),
        "{error}"
    );
    assert!(statics.set("log.roll.hours", "0", &LIMITS).is_err());
    assert!(statics.set("log.retention.hours", "-1", &LIMITS).is_ok());
    assert_eq!(settings(&BTreeMap::new(), &statics).retention_ms, -1);
    assert!(StaticConfig::is_key("message.max.bytes") && !StaticConfig::is_key("num.partitions"));
}
