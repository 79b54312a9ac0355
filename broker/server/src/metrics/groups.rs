//! Consumer groups as kafka_exporter shows them, and their lag in seconds.
//!
//! Owns the arithmetic of lag. The coordinator says what was committed, the partitions say what there is.

use std::collections::BTreeMap;

use super::exporter::{Family, escape};
use crate::broker::{Broker, now_ms};
use crate::coordinator::GroupSnapshot;
use crate::partitions::PartitionOwner;

/// One committed offset with what it means.
struct Row<'a> {
    group: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    lag: i64,
    lag_seconds: Option<f64>,
}

/// Writes every family of groups. Reads indexes, so it is for a thread that may block.
pub(super) fn render(broker: &Broker, groups: &[GroupSnapshot], out: &mut String) {
    let now = now_ms();
    let rows: Vec<Row<'_>> = groups
        .iter()
        .flat_map(|group| {
            group
                .offsets
                .iter()
                .filter_map(move |(topic, partition, offset)| {
                    let owner = broker.partitions.partition(topic, *partition)?;
                    let lag = owner.high_watermark().saturating_sub(*offset).max(0);
                    Some(Row {
                        group: &group.group,
                        topic,
                        partition: *partition,
                        offset: *offset,
                        lag,
                        lag_seconds: lag_seconds(&owner, *offset, lag, now),
                    })
                })
        })
        .collect();
    members(groups, out);
    each(
        &rows,
        out,
        "kafka_consumergroup_current_offset",
        "Committed offset of a group in a partition",
        |row| row.offset,
    );
    each(
        &rows,
        out,
        "kafka_consumergroup_lag",
        "Records that a group has not committed in a partition",
        |row| row.lag,
    );
    sums(
        &rows,
        out,
        "kafka_consumergroup_current_offset_sum",
        "Committed offsets of a group over a topic",
        |row| row.offset,
    );
    sums(
        &rows,
        out,
        "kafka_consumergroup_lag_sum",
        "Records that a group has not committed in a topic",
        |row| row.lag,
    );
    seconds(&rows, out);
}

/// Age of the batch that the group reads next; nothing where its timestamp cannot be read.
fn lag_seconds(owner: &PartitionOwner, offset: i64, lag: i64, now: i64) -> Option<f64> {
    if lag == 0 {
        return Some(0.0);
    }
    let timestamp = owner.log().batch_timestamp(offset).ok()??;
    Some((now.saturating_sub(timestamp).max(0)) as f64 / 1000.0)
}

fn members(groups: &[GroupSnapshot], out: &mut String) {
    let mut family = Family::new(
        out,
        "kafka_consumergroup_members",
        "Number of members of a group",
    );
    for group in groups {
        let labels = format!("consumergroup=\"{}\"", escape(&group.group));
        family.labelled(&labels, group.members);
    }
}

fn each(
    rows: &[Row<'_>],
    out: &mut String,
    name: &'static str,
    help: &str,
    value: fn(&Row<'_>) -> i64,
) {
    let mut family = Family::new(out, name, help);
    for row in rows {
        family.labelled(&labels(row), value(row));
    }
}

fn sums(
    rows: &[Row<'_>],
    out: &mut String,
    name: &'static str,
    help: &str,
    value: fn(&Row<'_>) -> i64,
) {
    let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for row in rows {
        *sums.entry((row.group, row.topic)).or_default() += value(row);
    }
    let mut family = Family::new(out, name, help);
    for ((group, topic), sum) in sums {
        let labels = format!("consumergroup=\"{}\",topic=\"{topic}\"", escape(group));
        family.labelled(&labels, sum);
    }
}

fn seconds(rows: &[Row<'_>], out: &mut String) {
    let mut family = Family::new(
        out,
        "keelson_consumergroup_lag_seconds",
        "Age of the newest record of the batch at the committed offset",
    );
    for row in rows {
        if let Some(seconds) = row.lag_seconds {
            family.labelled(&labels(row), seconds);
        }
    }
}

fn labels(row: &Row<'_>) -> String {
    format!(
        "consumergroup=\"{}\",partition=\"{}\",topic=\"{}\"",
        escape(row.group),
        row.partition,
        row.topic
    )
}
