//! The operator's metrics.
//!
//! Owns the names and labels, in one place. Every family that has a closed set of labels exists at 0 from the start.

use std::time::Duration;

use keelson_crds::{Kind, Reason};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::health::{ClusterLog, STATES};

/// How a reconciliation ended: the values of the label `result`.
const RESULTS: [&str; 2] = ["ok", "error"];

/// All families.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
    /// 1 while this process holds the lease.
    pub(crate) leader: IntGauge,
    wal_health: IntGaugeVec,
    cluster: String,
}

impl Metrics {
    /// Registers everything. Fails only on a name that is used twice, which a unit test rules out.
    pub(crate) fn new(cluster: &str) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            reconciles: IntCounterVec::new(
                Opts::new(
                    "keelson_operator_reconcile_total",
                    "Finished reconciliations.",
                ),
                &["kind", "result"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "keelson_operator_reconcile_duration_seconds",
                    "Duration of reconciliations.",
                )
                .buckets(vec![
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                ]),
                &["kind"],
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "keelson_operator_reconcile_errors_total",
                    "Failed reconciliations, by reason.",
                ),
                &["kind", "reason"],
            )?,
            leader: IntGauge::new(
                "keelson_operator_leader",
                "1 while this process holds the lease.",
            )?,
            wal_health: IntGaugeVec::new(
                Opts::new(
                    "keelson_operator_cluster_wal_health",
                    "State of each broker's log: 1 for each state that is on.",
                ),
                &["cluster", "broker", "state"],
            )?,
            cluster: cluster.to_owned(),
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.wal_health.clone()))?;
        let build = IntGauge::with_opts(
            Opts::new("keelson_build_info", "Version of the program.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        registry.register(Box::new(build))?;
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        for kind in Kind::ALL {
            metrics.durations.with_label_values(&[kind.as_str()]);
            for result in RESULTS {
                metrics
                    .reconciles
                    .with_label_values(&[kind.as_str(), result]);
            }
            for reason in Reason::ALL.iter().filter(|it| is_failure(**it)) {
                metrics
                    .errors
                    .with_label_values(&[kind.as_str(), reason.as_str()]);
            }
        }
        Ok(metrics)
    }

    /// One reconciliation ended.
    pub(crate) fn reconciled(&self, kind: Kind, took: Duration, failure: Option<Reason>) {
        self.durations
            .with_label_values(&[kind.as_str()])
            .observe(took.as_secs_f64());
        let result = RESULTS[usize::from(failure.is_some())];
        self.reconciles
            .with_label_values(&[kind.as_str(), result])
            .inc();
        if let Some(reason) = failure {
            self.errors
                .with_label_values(&[kind.as_str(), reason.as_str()])
                .inc();
        }
    }

    /// The brokers said something new. A broker that left, or that said nothing, has no series.
    pub(crate) fn log_seen(&self, log: &ClusterLog) {
        self.wal_health.reset();
        for broker in &log.brokers {
            let Ok(answer) = &broker.answer else { continue };
            for state in STATES {
                let on = answer.health.iter().any(|it| it == state);
                let labels = [self.cluster.as_str(), &broker.id.to_string(), state];
                self.wal_health
                    .with_label_values(&labels)
                    .set(i64::from(on));
            }
        }
    }

    /// Everything in Prometheus' text form.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// Reasons that count as a failed reconciliation.
fn is_failure(reason: Reason) -> bool {
    [
        Reason::BrokerUnreachable,
        Reason::BrokerRefused,
        Reason::BrokerAnswerUnexpected,
        Reason::NotConverging,
        Reason::InvalidSpec,
        Reason::KubernetesError,
    ]
    .contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{BrokerLog, LogAnswer};

    #[test]
    fn families_exist_from_the_start_and_move() {
        let metrics = Metrics::new("demo").unwrap();
        let text = metrics.render().unwrap();
        assert!(
            text.contains(r#"keelson_operator_reconcile_total{kind="Topic",result="ok"} 0"#),
            "{text}"
        );
        assert!(text.contains(r#"keelson_operator_reconcile_errors_total{kind="ConsumerGroup",reason="BrokerRefused"} 0"#));
        assert!(text.contains("keelson_operator_leader 0"));
        metrics.reconciled(
            Kind::Topic,
            Duration::from_millis(7),
            Some(Reason::BrokerRefused),
        );
        let answer = LogAnswer {
            health: vec!["corrupt".into()],
            ..LogAnswer::default()
        };
        let silent = BrokerLog {
            id: 1,
            answer: Err("away".into()),
        };
        metrics.log_seen(&ClusterLog {
            brokers: vec![
                BrokerLog {
                    id: 0,
                    answer: Ok(answer),
                },
                silent,
            ],
            error: None,
        });
        let text = metrics.render().unwrap();
        assert!(text.contains(
            r#"keelson_operator_reconcile_errors_total{kind="Topic",reason="BrokerRefused"} 1"#
        ));
        assert!(text.contains(
            r#"keelson_operator_cluster_wal_health{broker="0",cluster="demo",state="corrupt"} 1"#
        ));
        assert!(text.contains(
            r#"keelson_operator_cluster_wal_health{broker="0",cluster="demo",state="ok"} 0"#
        ));
        assert!(!text.contains(r#"broker="1""#));
        metrics.log_seen(&ClusterLog::default());
        assert!(!metrics.render().unwrap().contains("cluster_wal_health{"));
    }
}
