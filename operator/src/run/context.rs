//! What every reconciliation shares.
//!
//! Owns the clients, the identity of this Kubernetes cluster, the last word of the brokers about their logs, and how
//! long an object waits for its next turn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use keelson_crds::{Kind, Reason};
use kube::Client;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::scope::Scope;
use crate::health::ClusterLog;
use crate::kafka::real::RealKafka;
use crate::lease::Leadership;
use crate::metrics::Metrics;

/// First pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Objects of one kind that are reconciled at the same time, all namespaces together.
pub(super) const CONCURRENCY: u16 = 16;

/// See the module.
pub(super) struct Context {
    /// It changes nothing unless this process leads.
    pub(super) client: Client,
    /// It orders nothing unless this process leads.
    pub(super) kafka: RealKafka,
    pub(super) leadership: Leadership,
    pub(super) scope: Scope,
    pub(super) cluster: String,
    /// The operator's own namespace, where the cluster's StatefulSet is.
    pub(super) namespace: String,
    /// uid of the namespace kube-system: the name of this Kubernetes cluster.
    pub(super) cluster_uid: String,
    pub(super) recorder: Recorder,
    pub(super) metrics: std::sync::Arc<Metrics>,
    pub(super) log: watch::Sender<ClusterLog>,
    pub(super) resync: Duration,
    /// Whether brokers are told where their external Services are reached.
    pub(super) external_services: bool,
    pub(super) failures: Mutex<HashMap<(Kind, String, String), u32>>,
    pub(super) turns: Turns,
    /// When the status of an object was last written by this process.
    pub(super) written: Mutex<HashMap<(Kind, String, String), Instant>>,
}

/// Permits for turns, by kind.
pub(super) struct Turns {
    topics: Semaphore,
    groups: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        let permits = || Semaphore::new(usize::from(CONCURRENCY));
        Self {
            topics: permits(),
            groups: permits(),
        }
    }
}

impl Context {
    /// The value of `keelson.owner` that means this object.
    pub(super) fn owner(&self, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}", self.cluster_uid)
    }

    /// Waits for its turn, which lasts as long as the permit.
    pub(super) async fn turn(&self, kind: Kind) -> Option<SemaphorePermit<'_>> {
        let turns = match kind {
            Kind::Topic => &self.turns.topics,
            Kind::ConsumerGroup => &self.turns.groups,
        };
        // Never closed: there is always a permit in the end.
        turns.acquire().await.ok()
    }

    /// Whether this process leads at this moment.
    pub(super) fn leads(&self) -> bool {
        self.leadership.holds(Instant::now())
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
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    /// The status of this object was written just now.
    pub(super) fn wrote(&self, key: (Kind, String, String)) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(key, Instant::now());
    }

    /// True if the status of this object was written since the last pause between looks: numbers that move on their own
    /// can wait.
    pub(super) fn wrote_lately(&self, key: &(Kind, String, String)) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written
            .get(key)
            .is_some_and(|it| it.elapsed() < self.resync)
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
