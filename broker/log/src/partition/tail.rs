//! What of a partition is not yet in a segment: the batches as slices of what came off the socket.
//!
//! Owns their order, which of them are durable, and how many bytes wait. Never copies a body and never touches a file.
//!
//! ```text
//!   first                    durable                 next
//!     | durable, to be flushed | queued for the WAL   |
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader};

use crate::budget::Reservation;
use crate::wal::{Batch, WalPosition};

/// One batch of the tail.
#[derive(Debug, Clone)]
pub(crate) struct TailBatch {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) batch: Batch,
    /// Covers the buffer that `batch` is a slice of.
    #[allow(dead_code)] // Held, never read: dropping it gives the memory back.
    pub(crate) pin: Option<Arc<Reservation>>,
    /// Where its frame is; known once it is durable.
    pub(crate) position: Option<WalPosition>,
}

impl TailBatch {
    /// Bytes of the whole batch.
    pub(crate) fn size(&self) -> u64 {
        (self.batch.prefix.len() + self.batch.body.len()) as u64
    }

    /// The header, put together from prefix and body.
    pub(crate) fn header(&self) -> Result<BatchHeader, BatchError> {
        header_of(&self.batch)
    }

    /// What follows the header.
    pub(crate) fn records(&self) -> &[u8] {
        let split = self.batch.prefix.len();
        self.batch
            .body
            .get(BATCH_HEADER_BYTES - split..)
            .unwrap_or_default()
    }
}

/// Parses the header of a batch in two pieces.
pub(crate) fn header_of(batch: &Batch) -> Result<BatchHeader, BatchError> {
    let split = batch.prefix.len();
    let Some(rest) = batch.body.get(..BATCH_HEADER_BYTES - split) else {
        let have = split + batch.body.len();
        return Err(BatchError::Truncated {
            have,
            need: BATCH_HEADER_BYTES,
        });
    };
    let mut head = [0_u8; BATCH_HEADER_BYTES];
    head[..split].copy_from_slice(&batch.prefix);
    head[split..].copy_from_slice(rest);
    BatchHeader::parse(&head)
}

/// Whole batches, ready to be written one chunk after the other.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: u64,
    /// Base offset of the first batch, if there is one.
    pub(crate) first: Option<i64>,
    /// Offset after the last batch, if there is one.
    pub(crate) next: Option<i64>,
}

/// Bounds of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: i64,
    /// Exclusive; a batch that starts below is returned.
    pub(crate) up_to: i64,
    pub(crate) max_bytes: u64,
    pub(crate) min_one: bool,
}

/// The tail of one partition. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    /// How many, from the front, are durable.
    durable: usize,
    bytes: u64,
}

impl Tail {
    /// Bytes of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether batches wait for the WAL.
    pub(crate) fn has_queued(&self) -> bool {
        self.durable < self.batches.len()
    }

    /// Batches that wait for the WAL.
    pub(crate) fn queued(&self) -> usize {
        self.batches.len() - self.durable
    }

    /// Base offset of the first batch.
    pub(crate) fn first_offset(&self) -> Option<i64> {
        self.batches.front().map(|b| b.base_offset)
    }

    /// Base offset of the batch that holds `offset`, queued or durable.
    pub(crate) fn base_of(&self, offset: i64) -> Option<i64> {
        let at = self.batches.partition_point(|b| b.last_offset < offset);
        let batch = self.batches.get(at)?;
        (batch.base_offset <= offset).then_some(batch.base_offset)
    }

    /// Whether some batch has this offset.
    pub(crate) fn holds(&self, offset: i64) -> bool {
        self.base_behind(offset).is_some_and(|base| base <= offset)
    }

    /// Base offset of the first batch that ends at `offset` or behind it.
    pub(crate) fn base_behind(&self, offset: i64) -> Option<i64> {
        let at = self.batches.partition_point(|b| b.last_offset < offset);
        self.batches.get(at).map(|batch| batch.base_offset)
    }

    /// Position of the oldest durable batch.
    pub(crate) fn first_position(&self) -> Option<WalPosition> {
        self.durable().next().and_then(|b| b.position)
    }

    /// The largest timestamp in the tail.
    pub(crate) fn max_timestamp(&self) -> Option<i64> {
        self.batches.iter().map(|b| b.max_timestamp).max()
    }

    /// The durable batches, oldest first.
    pub(crate) fn durable(&self) -> impl ExactSizeIterator<Item = &TailBatch> {
        self.batches.iter().take(self.durable)
    }

    /// Takes a batch that was queued for the WAL.
    pub(crate) fn push_queued(&mut self, batch: TailBatch) {
        self.bytes += batch.size();
        self.batches.push_back(batch);
    }

    /// Takes a batch that replay found durable.
    pub(crate) fn push_durable(&mut self, batch: TailBatch) {
        assert!(!self.has_queued(), "replay runs before anything is queued");
        self.push_queued(batch);
        self.durable += 1;
    }

    /// The oldest queued batch is durable at `position`; returns the offset after it.
    pub(crate) fn mark_durable(&mut self, base_offset: i64, position: WalPosition) -> i64 {
        let batch = self.batches.get_mut(self.durable);
        let batch = batch
            .unwrap_or_else(|| panic!("offset {base_offset} became durable, was never queued"));
        assert_eq!(
            batch.base_offset, base_offset,
            "groups became durable out of order"
        );
        batch.position = Some(position);
        self.durable += 1;
        batch.last_offset + 1
    }

    /// The slices of durable batches in `span`.
    pub(crate) fn read(&self, span: Span) -> Slices {
        let start = self.batches.partition_point(|b| b.last_offset < span.from);
        let mut taken = 0;
        let mut bytes = 0;
        for batch in self.durable().skip(start) {
            let fits = bytes + batch.size() <= span.max_bytes || (taken == 0 && span.min_one);
            if batch.base_offset >= span.up_to || !fits {
                break;
            }
            taken += 1;
            bytes += batch.size();
        }
        self.slices(start, taken, bytes)
    }

    /// Prefixes share one buffer: one allocation per read, not per batch.
    fn slices(&self, start: usize, count: usize, bytes: u64) -> Slices {
        let chosen = || self.batches.iter().skip(start).take(count);
        let prefixes: Vec<u8> = chosen().flat_map(|b| b.batch.prefix).collect();
        let mut prefixes = Bytes::from(prefixes);
        let mut chunks = Vec::with_capacity(2 * count);
        for b in chosen() {
            chunks.push(prefixes.split_to(b.batch.prefix.len()));
            chunks.push(b.batch.body.clone());
        }
        Slices {
            chunks,
            bytes,
            first: chosen().next().map(|b| b.base_offset),
            next: chosen().last().map(|b| b.last_offset + 1),
        }
    }

    /// Forgets durable batches whose last offset is below `offset`: they are in a segment, or deleted. They are returned
    /// so that their memory is given back outside the partition's lock: who waits for it may call back.
    #[must_use = "dropping gives memory back, which calls hooks: do it without a lock"]
    pub(crate) fn drop_below(&mut self, offset: i64) -> Vec<TailBatch> {
        if self.batches.front().is_none_or(|b| b.last_offset >= offset) {
            return Vec::new();
        }
        let below = self.batches.partition_point(|b| b.last_offset < offset);
        let count = below.min(self.durable);
        let dropped: Vec<TailBatch> = self.batches.drain(..count).collect();
        self.bytes -= dropped.iter().map(TailBatch::size).sum::<u64>();
        self.durable -= count;
        if self.batches.is_empty() {
            self.batches = VecDeque::new();
        }
        dropped
    }

    /// Forgets every batch that reaches `offset` or more (a truncation). Returned as by [`Tail::drop_below`].
    #[must_use = "dropping gives memory back, which calls hooks: do it without a lock"]
    pub(crate) fn drop_from(&mut self, offset: i64) -> Vec<TailBatch> {
        let mut dropped = Vec::new();
        while let Some(batch) = self.batches.pop_back_if(|b| b.last_offset >= offset) {
            self.bytes -= batch.size();
            dropped.push(batch);
        }
        self.durable = self.durable.min(self.batches.len());
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base: i64, last: i64, body: usize) -> TailBatch {
        TailBatch {
            base_offset: base,
            last_offset: last,
            max_timestamp: base,
            batch: Batch {
                prefix: [base as u8; 16],
                body: Bytes::from(vec![7; body]),
            },
            pin: None,
            position: None,
        }
    }

    fn position(group: u64) -> WalPosition {
        WalPosition { group, frame: 0 }
    }

    fn tail() -> Tail {
        let mut tail = Tail::default();
        tail.push_queued(batch(0, 4, 84));
        tail.push_queued(batch(5, 5, 84));
        tail.push_queued(batch(6, 9, 84));
        tail
    }

    fn span(from: i64, up_to: i64, max_bytes: u64, min_one: bool) -> Span {
        Span {
            from,
            up_to,
            max_bytes,
            min_one,
        }
    }

    #[test]
    fn only_durable_batches_are_read_and_always_whole() {
        let mut tail = tail();
        assert_eq!(tail.read(span(0, 10, 1000, true)).bytes, 0);
        assert_eq!(tail.mark_durable(0, position(1)), 5);
        assert_eq!(tail.mark_durable(5, position(2)), 6);
        let slices = tail.read(span(3, 10, 1000, true));
        assert_eq!(
            (slices.first, slices.next, slices.bytes),
            (Some(0), Some(6), 200)
        );
        assert_eq!(
            slices.chunks.iter().map(|c| c.len()).collect::<Vec<_>>(),
            [16, 84, 16, 84]
        );
        assert_eq!(slices.chunks[2][..], [5; 16]);
        assert_eq!(tail.read(span(0, 10, 150, false)).next, Some(5));
        assert_eq!(tail.read(span(0, 10, 10, true)).next, Some(5));
        assert_eq!(tail.read(span(0, 10, 10, false)).next, None);
        assert_eq!(tail.read(span(0, 5, 1000, true)).next, Some(5));
    }

    #[test]
    fn drops_keep_the_count() {
        let mut tail = tail();
        tail.mark_durable(0, position(1));
        assert_eq!(tail.drop_below(100).len(), 1);
        assert_eq!((tail.bytes(), tail.first_offset()), (200, Some(5)));
        tail.mark_durable(5, position(2));
        assert_eq!(tail.first_position(), Some(position(2)));
        assert_eq!((tail.base_of(8), tail.base_of(10)), (Some(6), None));
        assert_eq!(tail.drop_from(6).len(), 1);
        assert_eq!((tail.bytes(), tail.has_queued()), (100, false));
        assert_eq!(tail.drop_below(i64::MAX).len(), 1);
        assert_eq!((tail.bytes(), tail.first_offset()), (0, None));
    }
}
