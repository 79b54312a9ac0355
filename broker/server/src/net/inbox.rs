//! Frames out of a byte stream.
//!
//! Owns what was received and not yet handled. Length and API key are judged before anything is reserved or allocated
//! for a frame; a small frame waits for its rest in the stash, a large one gets a buffer of exactly its size once its
//! memory is reserved. Never reads by itself.

use bytes::{Buf, Bytes, BytesMut};
use keelson_log::Reservation;
use keelson_protocol::frame::{
    FRAME_HEAD_BYTES, FrameError, FrameHead, FrameLimits, LENGTH_PREFIX_BYTES, parse_head,
};
use tokio::time::Instant;

/// Frames up to this size are assembled in the stash; also the most that one read takes from the socket.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;
/// A larger frame gets its reservation only after this much of it has arrived: announcing costs the peer nothing, so
/// it must not cost us anything.
const PROOF_BYTES: usize = 16 * 1024;

/// A large frame being received.
struct Large {
    head: FrameHead,
    buffer: BytesMut,
    reservation: Option<Reservation>,
    began: Instant,
}

/// What was received and not yet handled.
#[derive(Default)]
pub(super) struct Inbox {
    stash: BytesMut,
    large: Option<Large>,
}

/// A complete frame, without its length prefix.
pub(super) struct Received {
    /// What its first bytes say.
    pub(super) head: FrameHead,
    /// The bytes, in a buffer of their own.
    pub(super) bytes: Bytes,
    /// For a large frame: what its buffer is charged to.
    pub(super) reservation: Option<Reservation>,
}

/// What to do next.
pub(super) enum Next {
    /// A complete frame waits; take it with [`Inbox::take`].
    Whole(FrameHead),
    /// A large frame has begun: make room for its length and hand it to [`Inbox::begin_large`].
    Reserve(FrameHead),
    /// More bytes are needed.
    More,
}

impl Inbox {
    /// Looks at what is there.
    pub(super) fn next(&mut self, limits: &FrameLimits) -> Result<Next, FrameError> {
        if let Some(large) = &self.large {
            return Ok(if large.buffer.len() < large.head.length {
                Next::More
            } else {
                Next::Whole(large.head)
            });
        }
        let Some(first) = self.stash.first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(Next::More);
        };
        let head = parse_head(first, limits)?;
        let whole = LENGTH_PREFIX_BYTES + head.length;
        if self.stash.len() >= whole {
            return Ok(Next::Whole(head));
        }
        if whole > SCRATCH_BYTES && self.stash.len() >= PROOF_BYTES {
            return Ok(Next::Reserve(head));
        }
        Ok(Next::More)
    }

    /// Takes the complete frame that [`Next::Whole`] told of. Its bytes stand in a buffer of their own, so that what
    /// is pinned is what is counted.
    pub(super) fn take(&mut self, head: FrameHead) -> Received {
        if let Some(large) = self.large.take() {
            return Received {
                head,
                bytes: large.buffer.freeze(),
                reservation: large.reservation,
            };
        }
        let whole = LENGTH_PREFIX_BYTES + head.length;
        let mut bytes = if self.stash.len() == whole {
            std::mem::take(&mut self.stash).freeze()
        } else {
            let bytes = Bytes::copy_from_slice(&self.stash[..whole]);
            self.stash.advance(whole);
            bytes
        };
        bytes.advance(LENGTH_PREFIX_BYTES);
        Received {
            head,
            bytes,
            reservation: None,
        }
    }

    /// Gives the large frame that [`Next::Reserve`] told of its buffer; `reservation` is what it draws on when it is
    /// handled, if that is taken already.
    pub(super) fn begin_large(&mut self, head: FrameHead, reservation: Option<Reservation>) {
        let mut stash = std::mem::take(&mut self.stash);
        stash.advance(LENGTH_PREFIX_BYTES);
        let mut buffer = BytesMut::with_capacity(head.length);
        buffer.extend_from_slice(&stash);
        self.large = Some(Large {
            head,
            buffer,
            reservation,
            began: Instant::now(),
        });
    }

    /// Whether what the frame draws on is taken already.
    pub(super) fn is_reserved(&self) -> bool {
        self.large.as_ref().is_some_and(|l| l.reservation.is_some())
    }

    /// When a large frame began that is not complete, and how much of it is there.
    pub(super) fn unfinished(&self) -> Option<(Instant, usize)> {
        let large = self.large.as_ref()?;
        let arrived = large.buffer.len();
        (arrived < large.head.length).then_some((large.began, arrived))
    }

    /// The buffer of a large frame and how many bytes it still takes, if one is being received.
    pub(super) fn large(&mut self) -> Option<(&mut BytesMut, usize)> {
        let large = self.large.as_mut()?;
        let missing = large.head.length - large.buffer.len();
        (missing > 0).then_some((&mut large.buffer, missing))
    }

    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.stash.extend_from_slice(bytes);
    }

    /// True if a frame has begun and is not complete.
    pub(super) fn is_partial(&self) -> bool {
        self.large.is_some() || !self.stash.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_log::TailBudget;

    fn frame(api_key: i16, body: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(8 + 2 + body as i32).to_be_bytes());
        bytes.extend_from_slice(&api_key.to_be_bytes());
        bytes.extend_from_slice(&[0, 3, 0, 0, 0, 7, 0xff, 0xff]);
        bytes.resize(bytes.len() + body, 9);
        bytes
    }

    fn take(inbox: &mut Inbox) -> Option<Received> {
        match inbox.next(&FrameLimits::default()).unwrap() {
            Next::Whole(head) => Some(inbox.take(head)),
            Next::Reserve(_) | Next::More => None,
        }
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let stream: Vec<u8> = [frame(0, 100), frame(18, 0), frame(0, 5000)].concat();
        for step in [1, 7, 64, stream.len()] {
            let mut inbox = Inbox::default();
            let mut lengths = Vec::new();
            for part in stream.chunks(step) {
                inbox.push(part);
                while let Some(received) = take(&mut inbox) {
                    assert_eq!(received.bytes.len(), received.head.length);
                    lengths.push(received.head.length);
                }
            }
            assert_eq!(lengths, [110, 10, 5010], "step {step}");
            assert!(!inbox.is_partial());
        }
    }

    #[test]
    fn a_large_frame_is_reserved_after_proof_and_lands_in_one_buffer() {
        let bytes = frame(0, 200_000);
        let mut inbox = Inbox::default();
        inbox.push(&bytes[..PROOF_BYTES - 1]);
        assert!(matches!(
            inbox.next(&FrameLimits::default()).unwrap(),
            Next::More
        ));
        inbox.push(&bytes[PROOF_BYTES - 1..PROOF_BYTES]);
        let Next::Reserve(head) = inbox.next(&FrameLimits::default()).unwrap() else {
            panic!("the proof is there");
        };
        let budget = TailBudget::new(1 << 20);
        let reservation = budget.try_reserve(head.length as u64);
        assert!(reservation.is_some());
        inbox.begin_large(head, reservation);
        let (buffer, missing) = inbox.large().unwrap();
        assert_eq!(missing, bytes.len() - PROOF_BYTES);
        buffer.extend_from_slice(&bytes[PROOF_BYTES..]);
        assert!(inbox.large().is_none());
        let received = take(&mut inbox).unwrap();
        assert_eq!(&received.bytes[..], &bytes[4..]);
        drop(received);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn impossible_heads_are_refused_before_anything_is_allocated() {
        for bytes in [
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 3],
            [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 3],
            [0, 0, 0, 3, 0, 0, 0, 3],
            [0, 0, 0, 100, 0x7f, 0, 0, 3],
        ] {
            let mut inbox = Inbox::default();
            inbox.push(&bytes);
            assert!(inbox.next(&FrameLimits::default()).is_err(), "{bytes:?}");
        }
    }
}
