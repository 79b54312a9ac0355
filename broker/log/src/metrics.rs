//! The metric families of the log, and the closed lists behind their labels.
//!
//! Owns every `keelson_wal_*`, `keelson_log_*`, `keelson_disk_*` and `keelson_tail_memory_bytes` name. All label
//! combinations exist at 0 from the start, so that an alert can tell "nothing happened" from "nobody looked".

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};

macro_rules! label_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every value, in the order of the code.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The label as it stands in metrics, HTTP answers and reports.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)+ }
            }

            /// One sentence for the documentation.
            pub fn doc(self) -> &'static str {
                match self { $($name::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The value with this label.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

label_enum! {
    /// What was being done when a decode error was found.
    Stage {
        /// A group was being built or written.
        Append = "append",
        /// A start was reading what the last run left.
        Replay = "replay",
        /// A client's read.
        Fetch = "fetch",
        /// The background pass over everything.
        Scrub = "scrub",
        /// A segment was being rewritten.
        Compaction = "compaction",
        /// A replica was being copied.
        Replica = "replica",
    }
}

label_enum! {
    /// Which kind of file the undecodable bytes are in.
    Source {
        /// A file of the write-ahead log.
        Wal = "wal",
        /// The batches of a segment (`.log`).
        Segment = "segment",
        /// A segment's sparse index or checksums (`.idx`, `.sum`): rebuilt from the batches.
        Index = "index",
        /// A producer snapshot, a manifest, or another small file: of a partition, or of the data directory.
        Snapshot = "snapshot",
        /// The WAL's manifest and checkpoint.
        Checkpoint = "checkpoint",
    }
}

label_enum! {
    /// Why bytes could not be decoded.
    Reason {
        /// A magic number is not the one that must stand there.
        Magic = "magic",
        /// A format version that this program does not read.
        Version = "version",
        /// A length that cannot be: negative, larger than its container, or not what the checksum covers.
        Length = "length",
        /// A commit group's header, or the first block of its file, fails its checksum.
        HeaderCrc = "header_crc",
        /// A commit group's payload fails its checksum.
        PayloadCrc = "payload_crc",
        /// A frame header in a commit group's table fails its checksum.
        FrameCrc = "frame_crc",
        /// A commit group does not follow the one before it.
        Chain = "chain",
        /// A commit group that a later one testifies for is not there.
        MissingGroup = "missing_group",
        /// Neither copy of a damaged group's frame table can be read.
        TablesLost = "tables_lost",
        /// A record batch's header does not parse.
        BatchHeader = "batch_header",
        /// A record batch fails its CRC-32C.
        BatchCrc = "batch_crc",
        /// Batches are intact and fit, but the extent that they fill fails its checksum: others were written there.
        ExtentCrc = "extent_crc",
        /// Offsets do not go on where the batch before ended.
        Offsets = "offsets",
        /// A file is shorter than the length that counts.
        Truncated = "truncated",
        /// A listed file is not there.
        MissingFile = "missing_file",
        /// A file that no manifest lists.
        UnlistedFile = "unlisted_file",
        /// A checksummed slot or small file fails its checksum.
        SlotCrc = "slot_crc",
        /// An index entry points at no batch.
        IndexEntry = "index_entry",
        /// The disk answered a read with an error.
        Io = "io",
    }
}

label_enum! {
    /// The states of the log's health. More than one can be on.
    HealthState {
        /// Nothing is wrong.
        Ok = "ok",
        /// Some partition has a range that cannot be read; all else is served.
        Degraded = "degraded",
        /// The volume has no room: nothing is produced, everything else goes on.
        ReadOnly = "readonly",
        /// Bytes that were acknowledged cannot be decoded.
        Corrupt = "corrupt",
    }
}

/// Handles to every metric of the log.
pub struct LogMetrics {
    decode: Decode,
    /// `keelson_wal_append_duration_seconds`: from taking the queue to the group being durable.
    pub append_duration: Histogram,
    /// `keelson_wal_fsync_duration_seconds`: the synchronous write of one group.
    pub fsync_duration: Histogram,
    /// `keelson_wal_group_batches`: record batches in one group.
    pub group_batches: Histogram,
    /// `keelson_wal_group_bytes`: size of one group on disk.
    pub group_bytes: Histogram,
    /// `keelson_wal_append_errors_total`.
    pub append_errors: IntCounter,
    /// `keelson_wal_fsync_errors_total`.
    pub fsync_errors: IntCounter,
    /// `keelson_wal_torn_tail_truncations_total`: tails and slots, never acknowledged, normal after a crash.
    pub torn_tail_truncations: IntCounter,
    /// `keelson_wal_truncated_bytes_total`.
    pub truncated_bytes: IntCounter,
    /// `keelson_wal_size_bytes`.
    pub wal_size_bytes: IntGauge,
    /// `keelson_wal_files`.
    pub wal_files: IntGauge,
    /// `keelson_wal_oldest_unflushed_age_seconds`.
    pub oldest_unflushed_age: Gauge,
    /// `keelson_wal_recovery_in_progress`.
    pub recovery_in_progress: IntGauge,
    /// `keelson_wal_recovery_remaining_bytes`.
    pub recovery_remaining_bytes: IntGauge,
    /// `keelson_wal_recovery_duration_seconds`.
    pub recovery_duration: Gauge,
    /// `keelson_log_quarantined_ranges`.
    pub quarantined_ranges: IntGauge,
    /// `keelson_log_quarantined_records`.
    pub quarantined_records: IntGauge,
    /// `keelson_log_scrub_last_full_pass_timestamp_seconds`.
    pub scrub_last_full_pass: Gauge,
    /// `keelson_log_scrub_bytes_total`.
    pub scrub_bytes: IntCounter,
    /// What compaction did.
    pub compaction: CompactionMetrics,
    /// `keelson_disk_free_bytes`.
    pub disk_free_bytes: IntGauge,
    /// `keelson_disk_total_bytes`.
    pub disk_total_bytes: IntGauge,
    /// `keelson_tail_memory_bytes`.
    pub tail_memory_bytes: IntGauge,
}

/// The families of compaction.
pub struct CompactionMetrics {
    /// `keelson_log_compactions_total`.
    pub done: IntCounter,
    /// `keelson_log_compaction_failures_total`.
    pub failures: IntCounter,
    /// `keelson_log_compaction_read_bytes_total`.
    pub read_bytes: IntCounter,
    /// `keelson_log_compaction_written_bytes_total`.
    pub written_bytes: IntCounter,
}

impl CompactionMetrics {
    fn register(r: &Families<'_>) -> Result<Self, prometheus::Error> {
        Ok(CompactionMetrics {
            done: r.counter(
                "keelson_log_compactions_total",
                "Compactions of a partition that came to their end",
            )?,
            failures: r.counter(
                "keelson_log_compaction_failures_total",
                "Compactions given up: damage, no room, or a result that did not read back",
            )?,
            read_bytes: r.counter(
                "keelson_log_compaction_read_bytes_total",
                "Bytes of batches read by compaction",
            )?,
            written_bytes: r.counter(
                "keelson_log_compaction_written_bytes_total",
                "Bytes of batches written by compaction",
            )?,
        })
    }
}

/// Families with labels: only this module knows these.
struct Decode {
    errors: IntCounterVec,
    /// Its counters, all of them.
    every_error: Vec<IntCounter>,
    records: IntCounterVec,
    bytes: IntCounterVec,
    health: GaugeVec,
}

impl Decode {
    fn register(r: &Families<'_>) -> Result<Self, prometheus::Error> {
        let errors = r.counters(
            "keelson_wal_decode_errors_total",
            "Damaged ranges found, once per range",
            &["stage", "source", "reason"],
        )?;
        let every_error = decode_labels().map(|(stage, source, reason)| {
            errors.with_label_values(&[stage.label(), source.label(), reason.label()])
        });
        Ok(Decode {
            every_error: every_error.collect(),
            errors,
            records: r.counters(
                "keelson_wal_records_decoded_total",
                "Records decoded",
                &["stage"],
            )?,
            bytes: r.counters(
                "keelson_wal_bytes_decoded_total",
                "Bytes decoded",
                &["stage"],
            )?,
            health: r.add(GaugeVec::new(
                Opts::new("keelson_wal_health", "Health of the log as a state set"),
                &["state"],
            )?)?,
        })
    }
}

impl LogMetrics {
    /// Registers every family, each label combination at 0.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let r = Families { registry };
        let metrics = LogMetrics {
            decode: Decode::register(&r)?,
            append_duration: r
                .seconds("keelson_wal_append_duration_seconds", "Queue to durable")?,
            fsync_duration: r.seconds(
                "keelson_wal_fsync_duration_seconds",
                "Synchronous write of one group",
            )?,
            group_batches: r.sizes(
                "keelson_wal_group_batches",
                "Record batches per group",
                (1.0, 14),
            )?,
            group_bytes: r.sizes("keelson_wal_group_bytes", "Bytes per group", (4096.0, 15))?,
            append_errors: r.counter("keelson_wal_append_errors_total", "Failed group writes")?,
            fsync_errors: r.counter("keelson_wal_fsync_errors_total", "Failed syncs")?,
            torn_tail_truncations: r.counter(
                "keelson_wal_torn_tail_truncations_total",
                "Unacknowledged tails cut off, and half-written slots replaced, at a start",
            )?,
            truncated_bytes: r.counter(
                "keelson_wal_truncated_bytes_total",
                "Bytes in tails cut off, and in half-written slots replaced, at a start",
            )?,
            wal_size_bytes: r.gauge("keelson_wal_size_bytes", "Bytes in WAL files")?,
            wal_files: r.gauge("keelson_wal_files", "WAL files")?,
            oldest_unflushed_age: r.float(
                "keelson_wal_oldest_unflushed_age_seconds",
                "Age of the oldest batch not yet in a segment",
            )?,
            recovery_in_progress: r.gauge("keelson_wal_recovery_in_progress", "1 during replay")?,
            recovery_remaining_bytes: r.gauge(
                "keelson_wal_recovery_remaining_bytes",
                "WAL bytes still to be replayed",
            )?,
            recovery_duration: r.float("keelson_wal_recovery_duration_seconds", "Last replay")?,
            quarantined_ranges: r.gauge(
                "keelson_log_quarantined_ranges",
                "Offset ranges that cannot be read",
            )?,
            quarantined_records: r.gauge(
                "keelson_log_quarantined_records",
                "Offsets in quarantined ranges",
            )?,
            scrub_last_full_pass: r.float(
                "keelson_log_scrub_last_full_pass_timestamp_seconds",
                "End of the last full pass, Unix time",
            )?,
            scrub_bytes: r.counter(
                "keelson_log_scrub_bytes_total",
                "Bytes read by the background pass",
            )?,
            compaction: CompactionMetrics::register(&r)?,
            disk_free_bytes: r.gauge("keelson_disk_free_bytes", "Free bytes of the data volume")?,
            disk_total_bytes: r.gauge("keelson_disk_total_bytes", "Size of the data volume")?,
            tail_memory_bytes: r.gauge(
                "keelson_tail_memory_bytes",
                "Memory pinned by what is not yet in a segment",
            )?,
        };
        metrics.zero_all();
        Ok(metrics)
    }

    /// Handles on a registry of their own, for tools and tests that serve no metrics.
    pub fn unregistered() -> Self {
        Self::register(&Registry::new()).expect("a new registry holds none of these names")
    }

    /// As if new, as far as a simulated start looks at it: making the families takes longer than such a start.
    #[cfg(test)]
    pub(crate) fn start_over(&self) {
        let counters = [&self.torn_tail_truncations, &self.truncated_bytes];
        let counters = counters.into_iter().chain(&self.decode.every_error);
        counters.for_each(IntCounter::reset);
        self.zero_all();
    }

    /// Counts one damaged range. The caller has made sure that this range was not counted before.
    pub fn decode_error(&self, stage: Stage, source: Source, reason: Reason) {
        self.decode
            .errors
            .with_label_values(&[stage.label(), source.label(), reason.label()])
            .inc();
    }

    /// Decode errors counted so far, over all labels.
    pub fn decode_errors_total(&self) -> u64 {
        self.decode.every_error.iter().map(IntCounter::get).sum()
    }

    /// Decode errors counted with exactly these labels.
    pub fn decode_errors_with(&self, stage: Stage, source: Source, reason: Reason) -> u64 {
        self.decode
            .errors
            .with_label_values(&[stage.label(), source.label(), reason.label()])
            .get()
    }

    /// Bytes decoded so far in a stage.
    pub fn bytes_decoded(&self, stage: Stage) -> u64 {
        self.decode.bytes.with_label_values(&[stage.label()]).get()
    }

    /// Counts what a crash cut short, which nobody was told was done: a tail, or a slot that the next write replaces.
    pub(crate) fn torn(&self, bytes: u64) {
        self.torn_tail_truncations.inc();
        self.truncated_bytes.inc_by(bytes);
    }

    /// Counts what was decoded, the denominator of the decode errors.
    pub fn decoded(&self, stage: Stage, records: u64, bytes: u64) {
        self.decode
            .records
            .with_label_values(&[stage.label()])
            .inc_by(records);
        self.decode
            .bytes
            .with_label_values(&[stage.label()])
            .inc_by(bytes);
    }

    /// Sets the state set: 1 for each state in `on`, 0 for all others.
    pub fn set_health(&self, on: &[HealthState]) {
        for state in HealthState::ALL {
            let value = if on.contains(state) { 1.0 } else { 0.0 };
            self.decode
                .health
                .with_label_values(&[state.label()])
                .set(value);
        }
    }

    fn zero_all(&self) {
        for stage in Stage::ALL {
            self.decode
                .records
                .with_label_values(&[stage.label()])
                .reset();
            self.decode
                .bytes
                .with_label_values(&[stage.label()])
                .reset();
        }
        self.set_health(&[HealthState::Ok]);
    }
}

impl std::fmt::Debug for LogMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors = decode_labels().map(|(stage, source, reason)| {
            let count = self.decode_errors_with(stage, source, reason);
            (count, stage, source, reason)
        });
        let errors: Vec<_> = errors.filter(|(count, ..)| *count > 0).collect();
        write!(f, "LogMetrics(decode errors: {errors:?})")
    }
}

fn decode_labels() -> impl Iterator<Item = (Stage, Source, Reason)> {
    Stage::ALL.iter().flat_map(|stage| {
        Source::ALL.iter().flat_map(move |source| {
            Reason::ALL
                .iter()
                .map(move |reason| (*stage, *source, *reason))
        })
    })
}

/// Short forms for making and registering a family.
struct Families<'a> {
    registry: &'a Registry,
}

impl Families<'_> {
    fn add<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn float(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(name, help)?)
    }

    /// A histogram of seconds from 50 µs to about 13 s: a commit takes 0.1 ms on a good disk, seconds on a sick one.
    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.sizes(name, help, (0.000_05, 19))
    }

    /// A histogram of `count` buckets, each twice the one before it.
    fn sizes(
        &self,
        name: &str,
        help: &str,
        (start, count): (f64, usize),
    ) -> Result<Histogram, prometheus::Error> {
        let buckets = prometheus::exponential_buckets(start, 2.0, count)?;
        self.add(Histogram::with_opts(
            HistogramOpts::new(name, help).buckets(buckets),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_combination_stands_at_zero() {
        let registry = Registry::new();
        let metrics = LogMetrics::register(&registry).unwrap();
        let families = registry.gather();
        let errors = families
            .iter()
            .find(|f| f.name() == "keelson_wal_decode_errors_total")
            .unwrap();
        assert_eq!(
            errors.get_metric().len(),
            Stage::ALL.len() * Source::ALL.len() * Reason::ALL.len()
        );
        assert_eq!(metrics.decode_errors_total(), 0);
        metrics.decode_error(Stage::Fetch, Source::Segment, Reason::BatchCrc);
        assert_eq!(metrics.decode_errors_total(), 1);
    }

    #[test]
    fn labels_are_unique_and_documented() {
        let mut labels: Vec<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.doc().ends_with('.'), "{reason}");
            assert_eq!(Reason::from_label(reason.label()), Some(*reason));
        }
    }
}
