//! The broker's own metric families, and the text of `/metrics`.
//!
//! Owns the names `keelson_kafka_*`, `keelson_fetch_*`, `keelson_build_info` and `keelson_last_exit_info`; the log owns
//! its own. Handles are resolved once, never per request. Series per partition, and what the coordinators count, are
//! rendered at scrape time.

pub mod coordinators;
pub mod exporter;
mod fetch_sessions;
mod groups;

use std::time::Duration;

use keelson_protocol::ErrorCode;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::dispatch::ROUTES;
pub use fetch_sessions::FetchSessionMetrics;

/// Why a fetch answer would have broken the promise that below the high watermark there is data or an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchViolation {
    /// No data and no error although the byte budget allowed some.
    EmptyBelowHighWatermark,
    /// The read returned a batch that ends before the offset asked for.
    NotTheOffset,
}

impl FetchViolation {
    /// Every reason.
    pub const ALL: [FetchViolation; 2] = [
        FetchViolation::EmptyBelowHighWatermark,
        FetchViolation::NotTheOffset,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            FetchViolation::EmptyBelowHighWatermark => "empty_below_high_watermark",
            FetchViolation::NotTheOffset => "not_the_offset",
        }
    }
}

/// The handles of one API.
struct ApiHandles {
    name: &'static str,
    ok: IntCounter,
    seconds: Histogram,
}

/// The broker's metrics.
pub struct Metrics {
    apis: Vec<ApiHandles>,
    requests: IntCounterVec,
    violations: IntCounterVec,
    /// Open client connections.
    pub connections: IntGauge,
    /// Connections closed by the broker for a fault of the client.
    pub connections_refused: IntCounter,
    /// Fetch sessions.
    pub fetch_sessions: FetchSessionMetrics,
}

/// Label of a request without an error.
const NO_ERROR: &str = "NONE";

impl Metrics {
    /// Registers every family; label combinations that the contract names exist at 0.
    ///
    /// # Errors
    /// If a name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = add(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "keelson_kafka_requests_total",
                    "Requests answered, by API and first error in the answer",
                ),
                &["api", "error"],
            )?,
        )?;
        let seconds = add(
            registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "keelson_kafka_request_duration_seconds",
                    "From the complete frame to the answer, waiting included",
                )
                .buckets(prometheus::exponential_buckets(0.000_1, 2.0, 18)?),
                &["api"],
            )?,
        )?;
        let apis = ROUTES
            .iter()
            .map(|route| ApiHandles {
                name: route.spec().name,
                ok: requests.with_label_values(&[route.spec().name, NO_ERROR]),
                seconds: seconds.with_label_values(&[route.spec().name]),
            })
            .collect();
        let violations = add(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "keelson_fetch_invariant_violations_total",
                    "Fetch answers below the high watermark that would have been empty without a lawful reason",
                ),
                &["reason"],
            )?,
        )?;
        for violation in FetchViolation::ALL {
            violations.with_label_values(&[violation.label()]).reset();
        }
        let metrics = Self {
            apis,
            requests,
            violations,
            connections: add(
                registry,
                IntGauge::new("keelson_kafka_connections", "Open client connections")?,
            )?,
            connections_refused: add(
                registry,
                IntCounter::new(
                    "keelson_kafka_connections_refused_total",
                    "Connections closed by the broker: malformed, too large, too many, or stuck",
                )?,
            )?,
            fetch_sessions: FetchSessionMetrics::register(registry)?,
        };
        info(
            registry,
            "keelson_build_info",
            "Version of the broker",
            &[("version", env!("CARGO_PKG_VERSION"))],
        )?;
        Ok(metrics)
    }

    /// Counts one answered request; `route` is its place in [`ROUTES`].
    pub fn answered(&self, route: usize, error: Option<ErrorCode>, took: Duration) {
        let Some(api) = self.apis.get(route) else {
            return;
        };
        match error {
            None => api.ok.inc(),
            Some(error) => self
                .requests
                .with_label_values(&[api.name, &error_label(error)])
                .inc(),
        }
        api.seconds.observe(took.as_secs_f64());
    }

    /// Counts a fetch answer that would have been empty.
    pub fn fetch_violation(&self, violation: FetchViolation) {
        self.violations
            .with_label_values(&[violation.label()])
            .inc();
    }
}

/// Kafka's name of an error code, as in `Errors.java`.
pub fn error_label(error: ErrorCode) -> String {
    let mut label = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(c.to_ascii_uppercase());
    }
    label
}

/// Registers why the last run ended, as far as it left a note.
///
/// # Errors
/// If the name is registered already.
pub fn register_last_exit(registry: &Registry, reason: &str) -> Result<(), prometheus::Error> {
    info(
        registry,
        "keelson_last_exit_info",
        "Why the last run of this data directory ended",
        &[("reason", reason)],
    )
}

fn info(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[(&str, &str)],
) -> Result<(), prometheus::Error> {
    let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
    add(registry, IntGaugeVec::new(Opts::new(name, help), &names)?)?
        .with_label_values(&values)
        .set(1);
    Ok(())
}

fn add<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kafkas_names() {
        assert_eq!(
            error_label(ErrorCode::OffsetOutOfRange),
            "OFFSET_OUT_OF_RANGE"
        );
        assert_eq!(
            error_label(ErrorCode::UnknownTopicOrPartition),
            "UNKNOWN_TOPIC_OR_PARTITION"
        );
    }

    #[test]
    fn families_exist_at_zero() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        register_last_exit(&registry, "none").unwrap();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "keelson_fetch_invariant_violations_total{reason=\"empty_below_high_watermark\"} 0",
            "keelson_kafka_requests_total{api=\"ApiVersions\",error=\"NONE\"} 0",
            "keelson_fetch_sessions 0",
            "keelson_fetch_session_evictions_total 0",
            "keelson_last_exit_info{reason=\"none\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
