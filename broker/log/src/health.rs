//! The state of the log as people and machines see it: which states are on, and which ranges cannot be read.
//!
//! Owns the list of damaged ranges over all partitions, and that each is counted exactly once. Decides nothing about
//! serving: a partition asks its own quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ids::PartitionId;
use crate::losses::AcceptedLoss;
use crate::metrics::{HealthState, LogMetrics, Reason, Source, Stage};

/// Positions of slots (of a manifest, of `node.meta`) that are not whole, and why.
pub(crate) type BadSlots = Vec<(u64, Reason)>;

/// One offset range that cannot be read, and where the bytes stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnhealthyRange {
    /// The partition; `None` for damage that belongs to no partition (a checkpoint slot).
    pub partition: Option<PartitionId>,
    /// First offset that is lost.
    pub from: i64,
    /// Last offset that is lost, inclusive; below `from` when no offset is lost (an index that is rebuilt).
    pub to: i64,
    /// File, relative to the data directory.
    pub file: String,
    /// Byte position in the file.
    pub position: u64,
    /// Why.
    pub reason: Reason,
    /// Which kind of file.
    pub source: Source,
    /// What was being done when it was found.
    pub stage: Stage,
    /// When it was found, Unix time in ms.
    pub since_ms: i64,
}

/// Numbers about the WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalNumbers {
    /// Files.
    pub files: u64,
    /// Bytes in files.
    pub size_bytes: u64,
    /// Newest durable group.
    pub durable_group: u64,
    /// Oldest group that replay would need.
    pub oldest_group: u64,
    /// Boot counter.
    pub boot: u64,
}

/// A picture of the log's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Every state that is on; `Ok` exactly when no other is.
    pub states: Vec<HealthState>,
    /// WAL numbers.
    pub wal: WalNumbers,
    /// Damaged ranges counted since the start.
    pub decode_errors: u64,
    /// Ranges in quarantine now.
    pub quarantined_ranges: u64,
    /// The first ranges, at most [`UNHEALTHY_RANGES_MAX`].
    pub unhealthy: Vec<UnhealthyRange>,
    /// Whether there are more than `unhealthy` holds.
    pub truncated: bool,
    /// Losses that were accepted, for ever; the newest first, at most [`UNHEALTHY_RANGES_MAX`].
    pub accepted: Vec<AcceptedLoss>,
    /// How many there are.
    pub accepted_total: u64,
}

/// Ranges that one health picture lists at most (the contract's bound).
pub const UNHEALTHY_RANGES_MAX: usize = 1000;

/// The book of what is wrong, over all partitions.
#[derive(Debug)]
pub(crate) struct HealthBook {
    metrics: Arc<LogMetrics>,
    page: Mutex<Page>,
}

#[derive(Debug, Default)]
struct Page {
    /// Ranges that are lost, and files that are not what they must be.
    ranges: BTreeMap<RangeKey, UnhealthyRange>,
    /// Damage that costs no offsets, told once per place and process (it is repaired or replaced).
    told: BTreeSet<(String, u64)>,
    decode_errors: u64,
    read_only: bool,
}

type RangeKey = (Option<PartitionId>, i64, i64, String);

impl HealthBook {
    pub(crate) fn new(metrics: Arc<LogMetrics>) -> Self {
        HealthBook {
            metrics,
            page: Mutex::new(Page::default()),
        }
    }

    /// Enters a range found now and counts it. The caller has made sure that it is new.
    pub(crate) fn found(&self, range: UnhealthyRange) {
        self.metrics
            .decode_error(range.stage, range.source, range.reason);
        tracing::error!(
            partition = range.partition.map(|p| p.to_string()),
            from = range.from,
            to = range.to,
            file = range.file,
            position = range.position,
            reason = range.reason.label(),
            stage = range.stage.label(),
            "offsets cannot be read"
        );
        self.page.lock().decode_errors += 1;
        self.known(range);
    }

    /// Enters a range that an earlier start found and counted.
    pub(crate) fn known(&self, range: UnhealthyRange) {
        let key = (range.partition, range.from, range.to, range.file.clone());
        let mut page = self.page.lock();
        page.ranges.insert(key, range);
        self.publish(&page);
    }

    /// Counts damage that costs no offsets, once per file and position; it is told in the log, health does not change.
    pub(crate) fn repaired(&self, range: &UnhealthyRange) {
        let mut page = self.page.lock();
        if page.told.insert((range.file.clone(), range.position)) {
            page.decode_errors += 1;
            self.metrics
                .decode_error(range.stage, range.source, range.reason);
            tracing::warn!(
                file = range.file,
                position = range.position,
                reason = range.reason.label(),
                "damage that costs no offsets; the file is rebuilt"
            );
        }
    }

    /// Removes what `keep` refuses of one partition: the offsets are below its log start, or it is deleted.
    pub(crate) fn retain(&self, id: PartitionId, keep: impl Fn(&UnhealthyRange) -> bool) {
        let mut page = self.page.lock();
        let before = page.ranges.len();
        page.ranges
            .retain(|_, range| range.partition != Some(id) || keep(range));
        if page.ranges.len() != before {
            self.publish(&page);
        }
    }

    /// Removes what was entered for a file of no partition: nobody needs it any more.
    pub(crate) fn forget_file(&self, file: &str) {
        let mut page = self.page.lock();
        page.ranges
            .retain(|_, range| range.partition.is_some() || range.file != file);
        self.publish(&page);
    }

    /// The volume ran out of room, or has room again. Returns whether that is news.
    pub(crate) fn set_read_only(&self, read_only: bool) -> bool {
        let mut page = self.page.lock();
        let news = page.read_only != read_only;
        page.read_only = read_only;
        self.publish(&page);
        news
    }

    /// A picture.
    pub(crate) fn picture(&self, wal: WalNumbers) -> Health {
        let page = self.page.lock();
        Health {
            states: page.states(),
            wal,
            decode_errors: page.decode_errors,
            quarantined_ranges: page.lost().count() as u64,
            unhealthy: page
                .ranges
                .values()
                .take(UNHEALTHY_RANGES_MAX)
                .cloned()
                .collect(),
            truncated: page.ranges.len() > UNHEALTHY_RANGES_MAX,
            accepted: Vec::new(),
            accepted_total: 0,
        }
    }

    fn publish(&self, page: &Page) {
        let records: i64 = page.lost().map(|r| r.to - r.from + 1).sum();
        self.metrics
            .quarantined_ranges
            .set(page.lost().count() as i64);
        self.metrics.quarantined_records.set(records);
        self.metrics.set_health(&page.states());
    }
}

impl Page {
    fn lost(&self) -> impl Iterator<Item = &UnhealthyRange> {
        self.ranges.values().filter(|r| r.to >= r.from)
    }

    fn states(&self) -> Vec<HealthState> {
        let mut on = Vec::new();
        if !self.ranges.is_empty() {
            on.push(HealthState::Degraded);
        }
        if self.read_only {
            on.push(HealthState::ReadOnly);
        }
        if self.lost().next().is_some() {
            on.push(HealthState::Corrupt);
        }
        if on.is_empty() {
            on.push(HealthState::Ok);
        }
        on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    fn range(from: i64, to: i64) -> UnhealthyRange {
        UnhealthyRange {
            partition: Some(PartitionId {
                topic: TopicId([1; 16]),
                index: 0,
            }),
            from,
            to,
            file: "p/x/0/0.log".to_owned(),
            position: 7,
            reason: Reason::BatchCrc,
            source: Source::Segment,
            stage: Stage::Fetch,
            since_ms: 1,
        }
    }

    #[test]
    fn states_follow_what_is_in_the_book() {
        let book = HealthBook::new(Arc::new(LogMetrics::unregistered()));
        let states = |book: &HealthBook| book.picture(WalNumbers::default()).states;
        assert_eq!(states(&book), [HealthState::Ok]);
        book.found(range(5, 9));
        assert!(book.set_read_only(true));
        assert!(!book.set_read_only(true));
        assert_eq!(
            states(&book),
            [
                HealthState::Degraded,
                HealthState::ReadOnly,
                HealthState::Corrupt
            ]
        );
        assert_eq!(book.metrics.quarantined_records.get(), 5);
        book.set_read_only(false);
        book.retain(range(0, 0).partition.unwrap(), |r| r.to >= 10);
        assert_eq!(states(&book), [HealthState::Ok]);
        assert_eq!(book.metrics.quarantined_ranges.get(), 0);
    }

    #[test]
    fn repaired_damage_is_counted_once() {
        let book = HealthBook::new(Arc::new(LogMetrics::unregistered()));
        book.repaired(&range(5, 4));
        book.repaired(&range(5, 4));
        let picture = book.picture(WalNumbers::default());
        assert_eq!(
            (picture.decode_errors, picture.states),
            (1, vec![HealthState::Ok])
        );
    }
}
