//! The metric families of the contract: all of them exist from the start, and those of health stand at 0.

use keelson_tests::wire::Wire;
use keelson_tests::{Broker, wait_until};
use std::time::Duration;

/// Families with their types. Where `true`, every series is 0 on a fresh broker.
const FAMILIES: &[(&str, &str, bool)] = &[
    ("keelson_wal_decode_errors_total", "counter", true),
    ("keelson_wal_records_decoded_total", "counter", false),
    ("keelson_wal_bytes_decoded_total", "counter", false),
    ("keelson_wal_append_duration_seconds", "histogram", false),
    ("keelson_wal_fsync_duration_seconds", "histogram", false),
    ("keelson_wal_group_batches", "histogram", false),
    ("keelson_wal_group_bytes", "histogram", false),
    ("keelson_wal_append_errors_total", "counter", true),
    ("keelson_wal_fsync_errors_total", "counter", true),
    ("keelson_wal_torn_tail_truncations_total", "counter", true),
    ("keelson_wal_truncated_bytes_total", "counter", true),
    ("keelson_wal_size_bytes", "gauge", false),
    ("keelson_wal_files", "gauge", false),
    ("keelson_wal_oldest_unflushed_age_seconds", "gauge", false),
    ("keelson_wal_recovery_in_progress", "gauge", true),
    ("keelson_wal_recovery_remaining_bytes", "gauge", true),
    ("keelson_wal_recovery_duration_seconds", "gauge", false),
    ("keelson_log_quarantined_ranges", "gauge", true),
    ("keelson_log_quarantined_records", "gauge", true),
    ("keelson_log_compactions_total", "counter", true),
    ("keelson_log_compaction_failures_total", "counter", true),
    ("keelson_wal_health", "gauge", false),
    ("keelson_fetch_invariant_violations_total", "counter", true),
    ("keelson_disk_free_bytes", "gauge", false),
    ("keelson_disk_total_bytes", "gauge", false),
    ("keelson_tail_memory_bytes", "gauge", false),
    ("keelson_transactional_ids", "gauge", true),
    ("keelson_transaction_oldest_open_age_seconds", "gauge", true),
    ("keelson_transaction_overdue_seconds", "gauge", true),
    ("keelson_transactions_ended_total", "counter", true),
    ("keelson_partitions_with_late_transactions", "gauge", true),
    ("keelson_consumergroups", "gauge", true),
    ("keelson_consumergroup_rebalances_total", "counter", true),
    (
        "keelson_consumergroup_expired_offsets_total",
        "counter",
        true,
    ),
    ("keelson_kafka_request_duration_seconds", "histogram", false),
    ("keelson_kafka_requests_total", "counter", false),
    ("keelson_build_info", "gauge", false),
    ("process_resident_memory_bytes", "gauge", false),
];

const STAGES: &[&str] = &[
    "append",
    "replay",
    "fetch",
    "scrub",
    "compaction",
    "replica",
];
const SOURCES: &[&str] = &["wal", "segment", "index", "snapshot", "checkpoint"];

#[test]
fn every_family_is_there_from_the_start() {
    let broker = Broker::start();
    let metrics = broker.metrics();
    for (name, kind, zero) in FAMILIES {
        assert_eq!(metrics.family(name), Some(*kind), "{name}");
        let sample = if *kind == "histogram" {
            format!("{name}_count")
        } else {
            (*name).to_owned()
        };
        assert!(
            metrics.select(&sample, &[]).next().is_some(),
            "{name} has a series"
        );
        if *zero {
            for (series, value) in metrics.select(name, &[]) {
                assert_eq!(value, 0.0, "{series}");
            }
        }
    }
    for stage in STAGES {
        for source in SOURCES {
            let labels = [("stage", *stage), ("source", *source)];
            assert!(
                metrics
                    .select("keelson_wal_decode_errors_total", &labels)
                    .count()
                    > 0,
                "{labels:?}"
            );
        }
        for name in [
            "keelson_wal_records_decoded_total",
            "keelson_wal_bytes_decoded_total",
        ] {
            assert_eq!(
                metrics.select(name, &[("stage", stage)]).count(),
                1,
                "{name} {stage}"
            );
        }
    }
    for (state, expected) in [
        ("ok", 1.0),
        ("degraded", 0.0),
        ("readonly", 0.0),
        ("corrupt", 0.0),
    ] {
        let labels = [("state", state)];
        let found: Vec<_> = metrics.select("keelson_wal_health", &labels).collect();
        assert_eq!(found.len(), 1, "health {state}");
        assert_eq!(found[0].1, expected, "health {state}");
    }
}

#[test]
fn the_exporters_families_follow_topics_and_groups() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 3, &[]);
    for partition in 0..3 {
        for _ in 0..=partition {
            wire.produce(
                "orders",
                partition,
                keelson_tests::records::fresh_batch(&[b"one"]),
            )
            .expect("a record");
        }
    }
    let seen = keelson_tests::rdk::read_group(broker.bootstrap(), "orders", "readers", 6);
    assert_eq!(seen.len(), 6);
    let topic = [("topic", "orders")];
    wait_until("the offsets show", Duration::from_secs(10), || {
        broker
            .metrics()
            .sum("kafka_topic_partition_current_offset", &topic)
            == 6.0
    });
    let metrics = broker.metrics();
    assert_eq!(metrics.sum("kafka_brokers", &[]), 1.0);
    assert_eq!(metrics.sum("kafka_topic_partitions", &topic), 3.0);
    for (name, total) in [
        ("kafka_topic_partition_oldest_offset", 0.0),
        ("kafka_topic_partition_leader_is_preferred", 3.0),
        ("kafka_topic_partition_replicas", 3.0),
        ("kafka_topic_partition_in_sync_replica", 3.0),
        ("kafka_topic_partition_under_replicated_partition", 0.0),
    ] {
        assert_eq!(metrics.select(name, &topic).count(), 3, "{name}");
        assert_eq!(metrics.sum(name, &topic), total, "{name}");
    }
    let group = [("consumergroup", "readers"), ("topic", "orders")];
    assert_eq!(
        metrics.sum("kafka_consumergroup_current_offset", &group),
        6.0
    );
    assert_eq!(metrics.sum("kafka_consumergroup_lag", &group), 0.0);
    assert_eq!(
        metrics.sum("kafka_consumergroup_current_offset_sum", &group),
        6.0
    );
    assert_eq!(metrics.sum("kafka_consumergroup_lag_sum", &group), 0.0);
    assert_eq!(
        metrics
            .select(
                "kafka_consumergroup_members",
                &[("consumergroup", "readers")]
            )
            .count(),
        1
    );
    assert_eq!(metrics.sum("keelson_consumergroups", &[]), 1.0);
    assert!(metrics.sum("keelson_consumergroup_rebalances_total", &[]) >= 1.0);
    wire.produce("orders", 0, keelson_tests::records::fresh_batch(&[b"late"]))
        .expect("a record");
    assert_eq!(broker.metrics().sum("kafka_consumergroup_lag", &group), 1.0);
}
