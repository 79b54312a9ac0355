//! Waiting until a request's batches are durable, or its time is up.
//!
//! Owns the timer. The batches stay in the log whatever the outcome: a timeout says only that the answer is not known.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use crate::partitions::AckGroup;

/// The shortest time a request gets: a commit takes about this long on a slow disk, and a client that asks for 0 means
/// "do not wait for replicas", not "do not wait for the disk".
const TIMEOUT_MS_MIN: i32 = 1_000;

/// Resolves to `false` once everything is durable, to `true` when the time is up.
pub(super) struct DurableWait {
    group: Arc<AckGroup>,
    timeout: Duration,
    /// Made only when the first look finds nothing, so that a fast disk costs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl DurableWait {
    pub(super) fn new(group: Arc<AckGroup>, timeout_ms: i32) -> Self {
        let ms = timeout_ms.max(TIMEOUT_MS_MIN);
        Self {
            group,
            timeout: Duration::from_millis(u64::try_from(ms).unwrap_or(0)),
            timer: None,
        }
    }
}

impl Future for DurableWait {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.group.poll_done(cx).is_ready() {
            return Poll::Ready(false);
        }
        let timeout = self.timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| true)
    }
}
