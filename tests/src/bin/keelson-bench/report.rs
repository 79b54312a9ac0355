//! What a run found: counts, verification, throughput, latency. Owns its two printed forms.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies beyond this are recorded as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// A histogram of latencies in microseconds, with three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.0.saturating_record(us);
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    fn summary(&self) -> Option<LatencySummary> {
        let ms = |us: u64| us as f64 / 1e3;
        (!self.0.is_empty()).then(|| LatencySummary {
            mean: self.0.mean() / 1e3,
            p50: ms(self.0.value_at_quantile(0.5)),
            p90: ms(self.0.value_at_quantile(0.9)),
            p99: ms(self.0.value_at_quantile(0.99)),
            p999: ms(self.0.value_at_quantile(0.999)),
            max: ms(self.0.max()),
        })
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct LatencySummary {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// How the records read compare to those written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verification {
    /// Records whose content holds, each counted once.
    pub(crate) verified: u64,
    /// Records seen again.
    pub(crate) duplicates: u64,
    /// Records below the highest sequence of their stream that were not seen; unknown unless everything was read.
    pub(crate) missing: Option<u64>,
    /// Records whose checksum does not hold.
    pub(crate) corrupt: u64,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: &'static str,
    pub(crate) topic: String,
    pub(crate) message_size: usize,
    pub(crate) concurrency: u32,
    /// Records acknowledged, or read, or both.
    pub(crate) records: u64,
    pub(crate) errors: u64,
    /// The first error's words.
    pub(crate) first_error: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) records_per_second: f64,
    pub(crate) mib_per_second: f64,
    latency_ms: Option<LatencySummary>,
    pub(crate) verification: Option<Verification>,
}

/// The parts of a [`Report`] that a load measures.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Option<Latencies>,
    pub(crate) verification: Option<Verification>,
}

impl Report {
    pub(crate) fn new(args: &crate::Args, measured: Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        Self {
            mode: args.mode.word(),
            topic: args.topic.clone(),
            message_size: args.message_size,
            concurrency: args.concurrency,
            records: measured.records,
            errors: measured.errors,
            first_error: measured.first_error,
            seconds,
            records_per_second: measured.records as f64 / seconds,
            mib_per_second: measured.bytes as f64 / seconds / f64::from(1 << 20),
            latency_ms: measured.latencies.as_ref().and_then(Latencies::summary),
            verification: measured.verification,
        }
    }

    /// Whether every record arrived as it was written, once, and no request failed.
    pub(crate) fn is_clean(&self) -> bool {
        let verified = self
            .verification
            .is_none_or(|v| v.duplicates == 0 && v.missing.unwrap_or(0) == 0 && v.corrupt == 0);
        self.errors == 0 && verified
    }

    pub(crate) fn print(&self, json: bool) {
        if json {
            println!(
                "{}",
                serde_json::to_string(self).expect("a report is plain data")
            );
            return;
        }
        println!(
            "{}: {} records of {} B in {:.2} s: {:.0} records/s, {:.2} MiB/s, {} connection(s)",
            self.mode,
            self.records,
            self.message_size,
            self.seconds,
            self.records_per_second,
            self.mib_per_second,
            self.concurrency
        );
        if let Some(l) = self.latency_ms {
            println!(
                "latency: mean {:.2} ms, p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
                l.mean, l.p50, l.p90, l.p99, l.p999, l.max
            );
        }
        if let Some(v) = self.verification {
            let missing = v
                .missing
                .map_or_else(|| "unknown".to_owned(), |missing| missing.to_string());
            println!(
                "content: {} verified, {} duplicates, {missing} missing, {} corrupt",
                v.verified, v.duplicates, v.corrupt
            );
        }
        if self.errors > 0 {
            println!(
                "errors: {} (first: {})",
                self.errors,
                self.first_error.as_deref().unwrap_or("unknown")
            );
        }
    }
}
