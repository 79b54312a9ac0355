//! What stands where entries of `.sum` are lost: pieces of whole batches, cut as a flush would cut them.
//!
//! Owns where those pieces begin and end, so that a segment whose `.sum` is gone is read (and rebuilt) in small parts, never
//! as a whole. What lies behind a damaged batch is one piece: only its neighbours tell what that costs. Never writes.

use std::io;
use std::ops::RangeInclusive;

use super::format::SumEntry;
use super::segments::EXTENT_BYTES_MAX;
use super::walk::{Expect, claimed_size, intact_prefix};

/// How much is read at once; more only for a batch that is larger.
const WINDOW_BYTES: usize = 4 * EXTENT_BYTES_MAX;

/// Bytes and offsets of a run of lost entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Positions in the segment.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) base_offset: i64,
    pub(crate) end_offset: i64,
}

impl Span {
    /// An entry without a checksum.
    fn entry(&self) -> SumEntry {
        SumEntry {
            position: self.from,
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            length: u32::try_from(self.to.saturating_sub(self.from)).unwrap_or(u32::MAX),
            crc: 0,
            batches: 0,
        }
    }
}

/// A run of lost entries: its pieces, each with the number of the last entry that it stands for.
#[derive(Debug)]
pub(crate) struct LostRun {
    first: u64,
    pieces: Vec<(u64, SumEntry)>,
}

impl LostRun {
    /// All of it as one piece.
    pub(crate) fn whole(numbers: &RangeInclusive<u64>, span: Span) -> Self {
        LostRun {
            first: *numbers.start(),
            pieces: vec![(*numbers.end(), span.entry())],
        }
    }

    /// The piece that stands for an entry, and the last entry that it stands for.
    pub(crate) fn piece(&self, number: u64) -> Option<(SumEntry, u64)> {
        let at = self.pieces.partition_point(|(last, _)| *last < number);
        let (last, sum) = self.pieces.get(at)?;
        (number >= self.first).then_some((*sum, *last))
    }

    /// Cuts the run into at most as many pieces as it has entries. `read` gives bytes at a position, fewer where the file
    /// ends or cannot be read.
    pub(crate) fn cut(
        numbers: &RangeInclusive<u64>,
        span: Span,
        expect: Expect<'_>,
        mut read: impl FnMut(u64, usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<Self> {
        let mut cutter = Cutter::new(numbers, span);
        let mut wanted = WINDOW_BYTES;
        while cutter.at < span.to {
            let room = usize::try_from(span.to - cutter.at).unwrap_or(usize::MAX);
            let window = read(cutter.at, wanted.min(room))?;
            let found = intact_prefix(
                &window,
                Expect {
                    base_offset: cutter.next_offset,
                    ..expect
                },
            );
            if let Some(last) = found.last() {
                let begun = cutter.at;
                for piece in &found {
                    cutter.batch(begun + piece.at as u64, piece.length, piece.end_offset());
                }
                debug_assert_eq!(cutter.at, begun + (last.at + last.length) as u64);
                wanted = WINDOW_BYTES;
                continue;
            }
            match claimed_size(&window) {
                Some(size) if size > window.len() && size <= room && wanted < size => wanted = size,
                Some(_) | None => break,
            }
        }
        Ok(cutter.finish(*numbers.start()))
    }
}

/// One piece, and how many batches it has.
struct Part {
    span: Span,
    batches: u64,
}

/// The pieces so far; the last one grows.
struct Cutter {
    /// How many pieces there may be.
    entries: u64,
    span: Span,
    /// Where the next batch is, and its offset.
    at: u64,
    next_offset: i64,
    parts: Vec<Part>,
}

impl Cutter {
    fn new(numbers: &RangeInclusive<u64>, span: Span) -> Self {
        Cutter {
            entries: numbers.end() - numbers.start() + 1,
            span,
            at: span.from,
            next_offset: span.base_offset,
            parts: Vec::new(),
        }
    }

    /// The next batch.
    fn batch(&mut self, from: u64, length: usize, end_offset: i64) {
        let to = from + length as u64;
        let may_grow = self.parts.len() as u64 == self.entries;
        match self.parts.last_mut() {
            Some(part) if may_grow || to - part.span.from <= EXTENT_BYTES_MAX as u64 => {
                (part.span.to, part.span.end_offset) = (to, end_offset);
                part.batches += 1;
            }
            Some(_) | None => self.parts.push(Part {
                span: Span {
                    from,
                    to,
                    base_offset: self.next_offset,
                    end_offset,
                },
                batches: 1,
            }),
        }
        (self.at, self.next_offset) = (to, end_offset);
    }

    /// What is left goes into one piece. Entries that are too many go to pieces with as many batches, the rest to the last.
    fn finish(mut self, first: u64) -> LostRun {
        let is_whole = self.at >= self.span.to;
        let last_is_full = self.parts.len() as u64 == self.entries;
        match self.parts.last_mut() {
            Some(part) if is_whole || last_is_full => {
                (part.span.to, part.span.end_offset) = (self.span.to, self.span.end_offset);
            }
            Some(_) | None => self.parts.push(Part {
                span: Span {
                    from: self.at,
                    base_offset: self.next_offset,
                    ..self.span
                },
                batches: 1,
            }),
        }
        let mut spare = self.entries - self.parts.len() as u64;
        let mut next = first;
        let mut pieces: Vec<(u64, SumEntry)> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let more = spare.min(part.batches - 1);
            spare -= more;
            next += 1 + more;
            pieces.push((next - 1, part.span.entry()));
        }
        if let Some((last, _)) = pieces.last_mut() {
            *last += spare;
        }
        LostRun { first, pieces }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use keelson_protocol::builder::BatchBuilder;
    use keelson_protocol::patch_offset_and_epoch;

    use super::*;

    /// Batches of two records with values of these sizes, from offset 10 on.
    fn batches(values: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, size) in values.iter().enumerate() {
            let mut builder = BatchBuilder::new(1_000);
            builder.push(None, Some(&vec![7; *size]));
            builder.push(None, Some(b"second"));
            let mut batch = builder.build().to_vec();
            patch_offset_and_epoch(&mut batch, 10 + 2 * number as i64, 0);
            bytes.extend(batch);
        }
        bytes
    }

    /// Cuts, and checks what holds of every cut: pieces in order, without a gap, each entry in one of them.
    fn cut(bytes: &[u8], batch_count: usize, entries: u64) -> (Vec<(u64, SumEntry)>, usize) {
        let span = Span {
            from: 0,
            to: bytes.len() as u64,
            base_offset: 10,
            end_offset: 10 + 2 * batch_count as i64,
        };
        let expect = Expect {
            base_offset: span.base_offset,
            end_offset: span.end_offset,
            epochs: &[],
            gaps: &[],
            anchors: &[],
        };
        let mut most = 0;
        let read = |position: u64, length: usize| -> io::Result<Vec<u8>> {
            most = most.max(length);
            let rest = &bytes[position as usize..];
            Ok(rest[..length.min(rest.len())].to_vec())
        };
        let run = LostRun::cut(&(5..=4 + entries), span, expect, read).unwrap();
        let (mut at, mut offset, mut number) = (0, 10, 5);
        for (last, sum) in &run.pieces {
            assert_eq!((sum.position, sum.base_offset), (at, offset));
            assert!(*last >= number);
            for inside in number..=*last {
                assert_eq!(run.piece(inside), Some((*sum, *last)));
            }
            (at, offset) = (at + u64::from(sum.length), sum.end_offset);
            number = last + 1;
        }
        assert_eq!((at, offset), (span.to, span.end_offset));
        assert_eq!(number, 5 + entries);
        assert_eq!((run.piece(4), run.piece(number)), (None, None));
        (run.pieces, most)
    }

    #[test]
    fn a_run_is_cut_as_a_flush_would_and_read_in_windows() {
        let values = vec![20_000; 400];
        let bytes = batches(&values);
        let (pieces, most) = cut(&bytes, values.len(), 40);
        assert!(pieces.len() > 30, "{}", pieces.len());
        let longest = pieces.iter().map(|(_, sum)| sum.length).max().unwrap();
        assert!(longest as usize <= EXTENT_BYTES_MAX);
        assert_eq!(most, WINDOW_BYTES);
    }

    #[test]
    fn entries_that_are_too_many_go_to_pieces_that_can_be_split() {
        for entries in [34, 40, 200, 400, 500] {
            let (pieces, _) = cut(&batches(&vec![20_000; 400]), 400, entries);
            let mut first = 5;
            let last_piece = pieces.len() - 1;
            for (at, (last, sum)) in pieces.iter().enumerate() {
                let batches = (sum.end_offset - sum.base_offset) / 2;
                let fits = (last - first) < batches as u64;
                assert!(fits || (at == last_piece && entries > 400), "{entries}");
                first = last + 1;
            }
        }
    }

    #[test]
    fn fewer_entries_than_pieces_make_the_last_one_long() {
        let (pieces, _) = cut(&batches(&vec![20_000; 400]), 400, 3);
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_batch_larger_than_a_window_is_a_piece() {
        let values = [100, 3 * WINDOW_BYTES, 100];
        let (pieces, most) = cut(&batches(&values), 3, 3);
        assert_eq!(pieces.len(), 3);
        assert!(most < 4 * WINDOW_BYTES);
    }

    #[test]
    fn what_lies_behind_a_damaged_batch_is_one_piece() {
        let values = vec![20_000; 400];
        let mut bytes = batches(&values);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let (pieces, _) = cut(&bytes, values.len(), 40);
        let (_, rest) = pieces.last().unwrap();
        assert!(rest.position <= middle as u64 && rest.length as usize > bytes.len() / 3);
        assert!(pieces.len() > 15);
        // A length that claims more than there is.
        bytes[8] = 0x7f;
        assert_eq!(cut(&bytes, values.len(), 40).0.len(), 1);
    }
}
