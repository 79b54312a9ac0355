//! What every reconciliation shares.
//!
//! Owns the clients, the identity of this Kubernetes cluster, the last word of the brokers about their logs, and how
//! long an object waits for its next turn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use keelson_crds::{Kind, Reason};
use kube::Client;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use tokio::sync::watch;

use crate::health::ClusterLog;
use crate::kafka::real::RealKafka;
use crate::metrics::Metrics;

/// First pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) kafka: RealKafka,
    pub(super) cluster: String,
    /// The operator's own namespace, where the cluster's StatefulSet is.
    pub(super) namespace: String,
    /// uid of the namespace kube-system: the name of this Kubernetes cluster.
    pub(super) cluster_uid: String,
    pub(super) recorder: Recorder,
    pub(super) metrics: std::sync::Arc<Metrics>,
    pub(super) log: watch::Sender<ClusterLog>,
    pub(super) resync: Duration,
    pub(super) failures: Mutex<HashMap<(Kind, String, String), u32>>,
}

impl Context {
    /// The value of `keelson.owner` that means this object.
    pub(super) fn owner(&self, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}", self.cluster_uid)
    }

    /// When to look again: after the pause between looks, or soon after a failure and then less and less often. All with
    /// jitter, so that a thousand objects do not come at once.
    pub(super) fn next_turn(
        &self,
        key: (Kind, String, String),
        failure: Option<Reason>,
        pause: Duration,
    ) -> Action {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match failure {
            None => {
                failures.remove(&key);
                pause
            }
            Some(_) => {
                let count = failures.entry(key).or_insert(0);
                *count = count.saturating_add(1);
                // Never less often than an object that is well.
                backoff(*count).min(pause)
            }
        };
        Action::requeue(pause.mul_f64(rand::random_range(0.8..1.2)))
    }

    /// The object is not ours to look after any more.
    pub(super) fn forget(&self, key: &(Kind, String, String)) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// Why the cluster will never be back, if its StatefulSet is known to be gone.
    pub(super) async fn gone(&self) -> Option<String> {
        let name = format!("{}-broker", self.cluster);
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &self.namespace);
        match api.get_opt(&name).await {
            Ok(None) => Some(format!(
                "StatefulSet {}/{name} does not exist",
                self.namespace
            )),
            Ok(Some(_)) => None,
            Err(error) => {
                tracing::warn!(
                    "StatefulSet {}/{name} could not be asked for: {error}",
                    self.namespace
                );
                None
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)))
        .min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds: Vec<u64> = (1..9).map(|it| backoff(it).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
