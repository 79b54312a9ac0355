//! What can go wrong with an admin call.
//!
//! Owns the difference between "the broker said no" and "nobody answered". Never hides the broker's own words.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// A broker's refusal, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}{}", self.message.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
pub struct BrokerError {
    /// Kafka's error code.
    pub code: i16,
    /// Kafka's name of it, such as `INVALID_PARTITIONS`.
    pub name: &'static str,
    /// The broker's text, if it sent one.
    pub message: Option<String>,
    /// True if Kafka calls the error retriable.
    pub retriable: bool,
}

impl BrokerError {
    /// `None` for code 0.
    pub(crate) fn from_code(code: i16, message: Option<&str>) -> Option<Self> {
        let error = keelson_protocol::ErrorCode::try_from_code(code)?;
        Some(Self {
            code,
            name: keelson_protocol::error_name(code),
            message: message.filter(|text| !text.is_empty()).map(str::to_owned),
            retriable: error.is_retriable(),
        })
    }

    /// `Ok` for code 0.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        match Self::from_code(code, message) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

/// Why an admin call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The list of bootstrap servers cannot be used.
    #[error("bootstrap servers {given:?}: {reason}")]
    Bootstrap {
        /// As given.
        given: String,
        /// What is wrong about it.
        reason: &'static str,
    },
    /// No bootstrap server took the connection; the last failure.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// The last one tried.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time; the connection is given up.
    #[error("{api}: no answer within {after:?}")]
    Timeout {
        /// Which call.
        api: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The connection broke before the answer was there: the call may or may not have had its effect.
    #[error("{api}: connection lost: {source}")]
    ConnectionLost {
        /// Which call.
        api: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The broker and this client share no version of the API.
    #[error("{api}: the broker serves versions {broker:?}, this client speaks {ours:?}")]
    Unsupported {
        /// Which call.
        api: &'static str,
        /// What the broker serves, if it serves the API at all.
        broker: Option<(i16, i16)>,
        /// What this client speaks.
        ours: (i16, i16),
    },
    /// The answer is not what the protocol says: probably not a Kafka broker.
    #[error("{api}: unreadable answer: {reason}")]
    Malformed {
        /// Which call.
        api: &'static str,
        /// What is wrong about it.
        reason: String,
    },
    /// The broker refused.
    #[error("{api} {subject}: {error}")]
    Broker {
        /// Which call.
        api: &'static str,
        /// The topic, group or resource.
        subject: String,
        /// Its words.
        error: BrokerError,
    },
    /// The client's task is gone, with the runtime it ran on.
    #[error("{api}: the client is shut down")]
    Closed {
        /// Which call.
        api: &'static str,
    },
}

impl Error {
    /// The broker's refusal, if that is what it was.
    pub fn broker(&self) -> Option<&BrokerError> {
        match self {
            Self::Broker { error, .. } => Some(error),
            Self::Bootstrap { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Closed { .. } => None,
        }
    }

    /// Kafka's name of the refusal, such as `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn broker_name(&self) -> Option<&'static str> {
        self.broker().map(|error| error.name)
    }

    /// True if nobody could be reached or the answer did not come: try again later.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::ConnectionLost { .. } => true,
            Self::Bootstrap { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Broker { .. }
            | Self::Closed { .. } => false,
        }
    }
}
