//! The task that owns the connection.
//!
//! Owns the bootstrap list, the one connection, and the order of calls: one at a time, in the order they came. Reconnects
//! when the connection is gone; repeats nothing, since a repeated call may have its effect twice.

use std::io;

use bytes::Bytes;
use keelson_protocol::api::ApiSpec;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::connection::{Connection, EncodeFn};
use crate::{Error, Options};

/// Calls that may wait for their turn.
pub(crate) const CALLS_MAX: usize = 64;

/// What the task is told.
pub(crate) struct Call {
    pub(crate) spec: &'static ApiSpec,
    pub(crate) encode: Box<EncodeFn>,
    pub(crate) reply: oneshot::Sender<Result<(i16, Bytes), Error>>,
}

/// The state of the task.
pub(crate) struct Owner {
    pub(crate) bootstrap: Vec<String>,
    pub(crate) options: Options,
    pub(crate) calls: mpsc::Receiver<Call>,
}

impl Owner {
    /// Ends when the last client is dropped.
    pub(crate) async fn run(mut self) {
        let mut connection = None;
        while let Some(call) = self.calls.recv().await {
            if call.reply.is_closed() {
                continue; // Nobody waits any more: a call that was not sent has no effect.
            }
            let result = match self.connected(connection.take()).await {
                Ok(open) => self.serve(open, &mut connection, &call).await,
                Err(error) => {
                    self.refuse_waiting(&error);
                    Err(error)
                }
            };
            if let Err(error) = &result
                && error.broker().is_none()
            {
                debug!(api = call.spec.name, %error, "admin call failed");
            }
            // A caller that went away does not want the answer.
            drop(call.reply.send(result));
        }
    }

    async fn connected(&self, kept: Option<Connection>) -> Result<Connection, Error> {
        match kept.filter(|connection| !connection.is_stale()) {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        }
    }

    async fn serve(
        &self,
        mut connection: Connection,
        slot: &mut Option<Connection>,
        call: &Call,
    ) -> Result<(i16, Bytes), Error> {
        let result = connection
            .call(call.spec, &*call.encode, &self.options)
            .await;
        // After any failure the stream may stand in the middle of an answer: only a good one is kept.
        if matches!(result, Ok(_) | Err(Error::Unsupported { .. })) {
            *slot = Some(connection);
        }
        result
    }

    /// Who waited while no connection could be made shares that outcome. One try after the other for each of them would
    /// add up to minutes where a connection takes seconds to fail.
    fn refuse_waiting(&mut self, error: &Error) {
        for _ in 0..CALLS_MAX {
            let Ok(call) = self.calls.try_recv() else {
                return;
            };
            drop(call.reply.send(Err(shared(error))));
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let mut last = None;
        for address in &self.bootstrap {
            match Connection::open(address, &self.options).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::Bootstrap {
            given: String::new(),
            reason: "is empty",
        }))
    }
}

/// The failure of one try to connect, for another call.
fn shared(error: &Error) -> Error {
    match error {
        Error::Connect { address, source } => Error::Connect {
            address: address.clone(),
            source: io::Error::new(source.kind(), source.to_string()),
        },
        Error::Malformed { api, reason } => Error::Malformed {
            api,
            reason: reason.clone(),
        },
        other => Error::Connect {
            address: "any bootstrap server".to_owned(),
            source: io::Error::other(other.to_string()),
        },
    }
}
