//! How a reconciliation ends, of either kind.
//!
//! Owns the difference between a failure that may be gone at the next try and one that stays until somebody changes
//! something. What is said about it in the status is the kind's own.

use keelson_crds::Reason;

use crate::kafka::CallError;

/// How a reconciliation ended.
#[derive(Debug, Default)]
pub(crate) struct Outcome<V> {
    /// What the status will say.
    pub(crate) verdict: V,
    /// What was done (or, when validating, would be), as Events.
    pub(crate) events: Vec<(Reason, String)>,
    /// The object may go.
    pub(crate) release: Option<(Reason, String)>,
    /// Why it ended early.
    pub(crate) failure: Option<Failure>,
}

/// Why a reconciliation ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// It will stay what it is until somebody changes something: there is no hurry to try again.
    pub(crate) settled: bool,
}

impl Failure {
    /// One that may be gone at the next try.
    pub(crate) fn passing(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            settled: false,
        }
    }
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        Self {
            reason: error.reason(),
            message: error.to_string(),
            settled: error.is_settled(),
        }
    }
}

/// Who refused one step of a reconciliation.
#[derive(Debug)]
pub(crate) enum Refusal {
    Broker(CallError),
    Kubernetes(String),
}

impl Refusal {
    /// See [`CallError::is_stale_view`].
    pub(crate) fn is_stale_view(&self) -> bool {
        match self {
            Self::Broker(error) => error.is_stale_view(),
            Self::Kubernetes(_) => false,
        }
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Broker(error) => error.into(),
            Refusal::Kubernetes(message) => Self::passing(Reason::KubernetesError, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(refusal: &Refusal, reason: Reason, settled: bool, stale: bool) {
        let failure = Failure::from(refusal);
        assert_eq!((failure.reason, failure.settled), (reason, settled));
        assert_eq!(refusal.is_stale_view(), stale, "{refusal:?}");
    }

    #[test]
    fn what_a_broker_refuses_for_good_is_settled() {
        let refused = |error: &str, retriable| {
            Refusal::Broker(CallError::Refused {
                error: error.into(),
                message: "no".into(),
                retriable,
            })
        };
        let message = || "away".to_owned();
        let broker = Reason::BrokerRefused;
        check(&refused("INVALID_CONFIG", false), broker, true, false);
        check(&refused("NOT_COORDINATOR", true), broker, false, false);
        check(&refused("NON_EMPTY_GROUP", false), broker, true, true);
        let away = Refusal::Broker(CallError::Unreachable { message: message() });
        check(&away, Reason::BrokerUnreachable, false, false);
        let odd = Refusal::Broker(CallError::Unexpected { message: message() });
        check(&odd, Reason::BrokerAnswerUnexpected, false, false);
        let kubernetes = Refusal::Kubernetes(message());
        check(&kubernetes, Reason::KubernetesError, false, false);
    }
}
