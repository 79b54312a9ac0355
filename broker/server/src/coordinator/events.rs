//! What an owner's task waits for: messages, outcomes of persists, and the clock.
//!
//! Owns which of them comes first. Never decides what is done with one.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;

use super::persist::{Decided, Persists};
use crate::broker::{Broker, now_ms};

/// Without a deadline the clock is still looked at this often; it costs nothing.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) enum Event<M> {
    Message(Box<M>),
    Decided(Decided),
    Tick,
}

/// Waits for the next event, outcomes of persists first. `None`: the broker, which holds the other end of the queue, is
/// gone, and with it everybody who could ask.
pub(crate) async fn next<M>(
    broker: &Weak<Broker>,
    persists: &mut Persists,
    deadline_ms: Option<i64>,
    messages: &mut mpsc::Receiver<M>,
) -> Option<(Arc<Broker>, Event<M>)> {
    let wait = deadline_ms.map_or(IDLE, |at_ms| {
        let left = at_ms.saturating_sub(now_ms());
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(IDLE)
    });
    let next_decided = poll_fn(|cx| match broker.upgrade() {
        Some(broker) => persists.poll_decided(&broker, cx),
        None => Poll::Pending,
    });
    let event = tokio::select! {
        biased;
        decided = next_decided => Event::Decided(decided),
        message = messages.recv() => Event::Message(Box::new(message?)),
        () = tokio::time::sleep(wait) => Event::Tick,
    };
    Some((broker.upgrade()?, event))
}
