//! Replies on their way out, in order.
//!
//! Owns the bytes that the socket has not taken yet. One vectored write per wake; a reply's permit goes with its last
//! byte.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::reply::Reply;

/// Slices in one write; the kernel takes up to 1,024, more than a few dozen do not pay.
const SLICES_MAX: usize = 64;

enum Item {
    Bytes(Bytes),
    Permit(#[allow(dead_code)] Box<dyn Send>),
}

/// Replies that are not written yet.
#[derive(Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    /// Since when there is something, and how much was taken since.
    since: Option<(Instant, usize)>,
}

impl Outbox {
    /// Adds a reply behind those before it.
    pub(super) fn push(&mut self, reply: Reply) {
        for chunk in reply.chunks {
            if !chunk.is_empty() {
                self.bytes += chunk.len();
                self.items.push_back(Item::Bytes(chunk));
            }
        }
        if let Some(permit) = reply.permit {
            self.items.push_back(Item::Permit(permit));
        }
        if self.bytes > 0 {
            self.since.get_or_insert_with(|| (Instant::now(), 0));
        }
    }

    /// Since when there is something to write, and how much was taken since; `None` if there is nothing.
    pub(super) fn unfinished(&self) -> Option<(Instant, usize)> {
        self.since
    }

    /// True if everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Writes as much as the socket takes; ready with whether anything was written once nothing is left.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for item in &self.items {
                if let Item::Bytes(bytes) = item {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                    if count == SLICES_MAX {
                        break;
                    }
                }
            }
            let polled = Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]);
            let written = match polled {
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                other => ready!(other)?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            total += written;
            self.advance(written);
        }
        Poll::Ready(Ok(total))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        self.since = match self.since {
            Some((since, taken)) if self.bytes > 0 => Some((since, taken + written)),
            _ => None,
        };
        while let Some(item) = self.items.front_mut() {
            match item {
                Item::Bytes(bytes) if bytes.len() > written => {
                    bytes.advance(written);
                    return;
                }
                Item::Bytes(bytes) => written -= bytes.len(),
                Item::Permit(_) => {}
            }
            self.items.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Waker;

    #[test]
    fn order_is_kept_and_permits_go_with_the_last_byte() {
        let held = Arc::new(());
        let mut outbox = Outbox::default();
        for n in 0..200_u8 {
            outbox.push(Reply {
                chunks: vec![Bytes::from(vec![n; 3]), Bytes::new()],
                permit: Some(Box::new(Arc::clone(&held))),
            });
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut near, mut far) = tokio::io::duplex(100);
        let mut seen = Vec::new();
        while !outbox.is_empty() {
            let _ = outbox.poll_write(&mut near, &mut cx);
            let mut part = [0; 64];
            let mut buffer = tokio::io::ReadBuf::new(&mut part);
            let _ = tokio::io::AsyncRead::poll_read(Pin::new(&mut far), &mut cx, &mut buffer);
            seen.extend_from_slice(buffer.filled());
        }
        assert_eq!(Arc::strong_count(&held), 1);
        let mut part = [0; 64];
        loop {
            let mut buffer = tokio::io::ReadBuf::new(&mut part);
            match tokio::io::AsyncRead::poll_read(Pin::new(&mut far), &mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    seen.extend_from_slice(buffer.filled());
                }
                _ => break,
            }
        }
        let expected: Vec<u8> = (0..200_u8).flat_map(|n| [n; 3]).collect();
        assert_eq!(seen, expected);
    }
}
