//! The families `keelson_fetch_session*`.

use prometheus::{IntCounter, IntGauge, Registry};

use super::add;

/// What is counted of fetch sessions.
pub struct FetchSessionMetrics {
    /// Those that are kept.
    pub kept: IntGauge,
    /// Their partitions.
    pub partitions: IntGauge,
    /// Their memory.
    pub bytes: IntGauge,
    /// Those that had to go for others.
    pub evictions: IntCounter,
}

impl FetchSessionMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        Ok(Self {
            kept: gauge("keelson_fetch_sessions", "Fetch sessions (KIP-227)")?,
            partitions: gauge(
                "keelson_fetch_session_partitions",
                "Partitions of all fetch sessions",
            )?,
            bytes: gauge(
                "keelson_fetch_session_bytes",
                "Memory of all fetch sessions",
            )?,
            evictions: add(
                registry,
                IntCounter::new(
                    "keelson_fetch_session_evictions_total",
                    "Fetch sessions that had to go for others",
                )?,
            )?,
        })
    }
}
