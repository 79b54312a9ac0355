//! The election, carried out on a Lease object.
//!
//! Owns reading and writing the Lease; the rules stand in `lease`. A request that hangs counts as failed well before
//! the renew deadline.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tracing::{debug, warn};

use super::objects::FIELD_MANAGER;
use crate::lease::{Candidate, LEASE_DURATION, Leadership, RETRY_PERIOD, Record, Step};

/// Longest wait for one look at the lease.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(4);

/// One candidate at the API server.
pub(super) struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    candidate: Candidate,
}

impl Election {
    /// Stands for the lease `<cluster>-operator` in the operator's own namespace.
    pub(super) fn new(
        client: Client,
        (namespace, cluster): (&str, &str),
        identity: String,
        leadership: Leadership,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: format!("{cluster}-operator"),
            candidate: Candidate::new(identity.clone(), leadership),
            identity,
        }
    }

    /// Looks, and writes if the lease is ours or free. Returns whether this process leads now.
    pub(super) async fn round(&mut self) -> bool {
        match tokio::time::timeout(REQUEST_WAIT_MAX, self.try_round()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(lease = self.name, "the lease was not renewed: {error}"),
            Err(_) => warn!(
                lease = self.name,
                "the lease was not renewed: no answer within {REQUEST_WAIT_MAX:?}"
            ),
        }
        self.leads()
    }

    /// Whether this process leads at this moment.
    pub(super) fn leads(&self) -> bool {
        self.candidate.leads(Instant::now())
    }

    /// How long to wait for the next round.
    pub(super) fn pause() -> Duration {
        RETRY_PERIOD
    }

    async fn try_round(&mut self) -> Result<(), kube::Error> {
        let begun = Instant::now();
        let found = self.api.get_opt(&self.name).await?;
        let record = found.as_ref().map(record);
        match self.candidate.step(record.as_ref(), begun) {
            Step::Create => {
                self.api
                    .create(&params(), &self.lease(None, 0, found.as_ref()))
                    .await?;
                self.candidate.renewed(begun);
            }
            Step::Replace {
                resource_version,
                transitions,
            } => {
                let lease = self.lease(Some(resource_version), transitions, found.as_ref());
                self.api.replace(&self.name, &params(), &lease).await?;
                self.candidate.renewed(begun);
            }
            Step::Wait => {
                let holder = record.map(|it| it.holder).unwrap_or_default();
                debug!(lease = self.name, holder, "somebody else leads");
                self.candidate.lost();
            }
        }
        Ok(())
    }

    fn lease(
        &self,
        resource_version: Option<String>,
        transitions: i32,
        old: Option<&Lease>,
    ) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = old.and_then(|it| it.spec.as_ref());
        let kept = old.filter(|it| it.holder_identity.as_deref() == Some(self.identity.as_str()));
        let acquired = kept
            .and_then(|it| it.acquire_time.clone())
            .unwrap_or_else(|| now.clone());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                acquire_time: Some(acquired),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease back, so that the next one need not wait. Failing to is no harm.
    pub(super) async fn resign(&mut self) {
        if !self.leads() {
            return;
        }
        self.candidate.lost();
        let give_back = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let Some(spec) = lease.spec.as_mut() else {
                return Ok(());
            };
            if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
                spec.holder_identity = None;
                self.api.replace(&self.name, &params(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(REQUEST_WAIT_MAX, give_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the lease was not given back: {error}"),
            Err(_) => warn!("the lease was not given back in time"),
        }
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|it| u64::try_from(it).ok())
        .filter(|it| *it > 0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or(0),
        duration: seconds.map_or(LEASE_DURATION, Duration::from_secs),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
