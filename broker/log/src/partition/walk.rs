//! From bytes of a segment to batches and damaged ranges: the one place that decides what a damaged byte costs.
//!
//! Owns the walk over batch headers and the search for the next readable batch. Pure: no file, no clock, no counters.
//!
//! What the batch's own CRC does not cover is covered by what surrounds it: base offsets must go on where the batch
//! before ended, lengths must lead to the next header, leader epochs must be those of the epoch history. So one flipped
//! byte costs exactly the batch it lies in:
//!
//! | what is flipped | what is seen | where reading goes on |
//! |---|---|---|
//! | records, attributes, timestamps, CRC | CRC mismatch | at `position + length` |
//! | base offset | not the expected one, the next header is | at `position + length` |
//! | leader epoch, magic | not the expected one | at `position + length` |
//! | length | CRC mismatch or no header behind | where the expected next base offset is found, verified |
//! | more than that | nothing fits | at the next index entry, else after the extent |

use keelson_protocol::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, verify_crc};

use super::epochs;
use crate::metrics::Reason;

/// Where a batch's length field stands in it; used only to read a length whose header does not parse.
const LENGTH_FIELD: std::ops::Range<usize> = 8..12;
/// What the length field does not count.
const LENGTH_OVERHEAD_BYTES: usize = 12;

/// What is known about an extent besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect<'a> {
    /// Base offset of its first batch.
    pub(crate) base_offset: i64,
    /// Offset after its last batch.
    pub(crate) end_offset: i64,
    /// Leader epochs and the offsets they start at, ascending; empty: not known.
    pub(crate) epochs: &'a [(i32, i64)],
    /// Offset ranges (inclusive) known to be missing from the segment, ascending.
    pub(crate) gaps: &'a [(i64, i64)],
    /// Index entries inside the extent: (offset, position in the extent), ascending.
    pub(crate) anchors: &'a [(i64, usize)],
}

/// A readable batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: usize,
    pub(crate) length: usize,
    pub(crate) header: BatchHeader,
}

impl Piece {
    /// Offset after its last record. The base offset is not covered by a checksum: it may be any number.
    pub(crate) fn end_offset(&self) -> i64 {
        self.header.last_offset().saturating_add(1)
    }
}

/// Offsets that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) at: usize,
    pub(crate) from: i64,
    /// Inclusive.
    pub(crate) to: i64,
    pub(crate) reason: Reason,
}

/// What an extent holds, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    pub(crate) batches: Vec<Piece>,
    pub(crate) holes: Vec<Hole>,
}

/// Walks one extent.
pub(crate) fn walk(bytes: &[u8], expect: Expect<'_>) -> Walked {
    let walker = Walker { bytes, expect };
    let mut found = Walked::default();
    let mut at = 0;
    let mut next = expect.base_offset;
    while at < bytes.len() {
        next = walker.skip_gaps(next);
        match walker.check(at, next) {
            Ok(piece) => {
                next = piece.header.last_offset() + 1;
                at += piece.length;
                found.batches.push(piece);
            }
            Err(reason) => {
                let (resume_at, resume_offset) = walker.resume(at, next);
                assert!(
                    resume_at > at || resume_offset > next,
                    "a walk must move on: {at} {next}"
                );
                if resume_offset > next {
                    found.holes.push(Hole {
                        at,
                        from: next,
                        to: resume_offset - 1,
                        reason,
                    });
                }
                at = resume_at;
                next = resume_offset;
            }
        }
    }
    next = walker.skip_gaps(next);
    if next < expect.end_offset {
        let hole = Hole {
            at: bytes.len(),
            from: next,
            to: expect.end_offset - 1,
            reason: Reason::Truncated,
        };
        found.holes.push(hole);
    }
    found
}

/// The batches at the start of `bytes`, up to the first that is not the next one, or damaged, or cut off.
pub(crate) fn intact_prefix(bytes: &[u8], expect: Expect<'_>) -> Vec<Piece> {
    let walker = Walker { bytes, expect };
    let (mut at, mut next) = (0, expect.base_offset);
    let mut found = Vec::new();
    while let Ok(piece) = walker.check(at, walker.skip_gaps(next)) {
        (at, next) = (at + piece.length, piece.end_offset());
        found.push(piece);
    }
    found
}

/// How many times its length the search of a suffix may check, at most: a record's value can be full of headers that claim
/// all that is behind them.
const SUFFIX_EFFORT: usize = 16;

/// The offset behind the last batch of `bytes`, if the last bytes are one, or several that go on from each other. What stands
/// inside a record's value ends before its host does.
pub(crate) fn end_of_suffix(bytes: &[u8]) -> Option<i64> {
    let expect = Expect {
        base_offset: 0,
        end_offset: i64::MAX,
        epochs: &[],
        gaps: &[],
        anchors: &[],
    };
    let walker = Walker { bytes, expect };
    let (mut at, mut checked) = (0, 0);
    while at < bytes.len() && checked <= SUFFIX_EFFORT * bytes.len() {
        let header = BatchHeader::parse(&bytes[at..]).ok();
        let Some(header) = header.filter(|header| header.size() <= bytes.len() - at) else {
            at += 1;
            continue;
        };
        checked += header.size();
        let Ok(piece) = walker.intact(at) else {
            at += 1;
            continue;
        };
        let (behind, end_offset) = walker.run(piece);
        if behind == bytes.len() {
            return Some(end_offset);
        }
        at = behind;
    }
    None
}

/// The size that the batch at the start of `bytes` claims, if a batch can have it.
pub(crate) fn claimed_size(bytes: &[u8]) -> Option<usize> {
    let field = bytes.get(LENGTH_FIELD)?;
    let length = usize::try_from(i32::from_be_bytes(field.try_into().ok()?)).ok()?;
    let size = length + LENGTH_OVERHEAD_BYTES;
    (size >= BATCH_HEADER_BYTES).then_some(size)
}

struct Walker<'a> {
    bytes: &'a [u8],
    expect: Expect<'a>,
}

impl Walker<'_> {
    fn skip_gaps(&self, mut next: i64) -> i64 {
        for (from, to) in self.expect.gaps {
            if (*from..=*to).contains(&next) {
                next = to + 1;
            }
        }
        next
    }

    /// The batch at `at`, if it is intact and starts at offset `next`.
    fn check(&self, at: usize, next: i64) -> Result<Piece, Reason> {
        let piece = self.intact(at)?;
        if piece.header.base_offset != next || piece.header.last_offset() >= self.expect.end_offset
        {
            return Err(Reason::Offsets);
        }
        Ok(piece)
    }

    /// The batch at `at`, if all that does not depend on its neighbours is right.
    fn intact(&self, at: usize) -> Result<Piece, Reason> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let header = BatchHeader::parse(rest).map_err(|e| reason_of(&e))?;
        let batch = rest.get(..header.size()).ok_or(Reason::Length)?;
        verify_crc(batch).map_err(|e| reason_of(&e))?;
        if header.last_offset_delta < 0 || header.base_offset < 0 {
            return Err(Reason::BatchHeader);
        }
        let epoch = self.epoch_at(header.base_offset);
        if epoch.is_some_and(|epoch| epoch != header.partition_leader_epoch) {
            return Err(Reason::BatchHeader);
        }
        Ok(Piece {
            at,
            length: batch.len(),
            header,
        })
    }

    fn epoch_at(&self, offset: i64) -> Option<i32> {
        epochs::at(self.expect.epochs, offset)
    }

    /// Where reading goes on behind the damaged batch at `at`: (position, offset).
    fn resume(&self, at: usize, next: i64) -> (usize, i64) {
        if let Some(offset) = self.unlisted_gap(at, next) {
            return (at, offset);
        }
        let by_length = self.length_at(at).map(|length| at + length);
        if let Some(position) = by_length
            && let Ok(piece) = self.intact(position)
            && self.follows(&piece, next)
        {
            return (position, piece.header.base_offset);
        }
        let by_delta = self.end_by_delta(at, next);
        match by_delta {
            Some(end) if end == self.expect.end_offset => return (self.bytes.len(), end),
            Some(end) => {
                if let Some(position) = self.search(at + 1, end) {
                    return (position, end);
                }
            }
            None => {}
        }
        if by_length == Some(self.bytes.len()) {
            return (self.bytes.len(), self.expect.end_offset);
        }
        for (offset, position) in self.expect.anchors {
            if *position > at
                && let Ok(piece) = self.intact(*position)
                && piece.header.base_offset == *offset
                && self.follows(&piece, next)
            {
                return (*position, *offset);
            }
        }
        (self.bytes.len(), self.expect.end_offset)
    }

    /// An intact batch beyond `next` whose successor agrees with it: offsets are missing before it, it is not at fault.
    fn unlisted_gap(&self, at: usize, next: i64) -> Option<i64> {
        let piece = self.intact(at).ok()?;
        let (base, end) = (piece.header.base_offset, piece.end_offset());
        if base <= next || end > self.expect.end_offset {
            return None;
        }
        let behind = at + piece.length;
        let agrees = if behind == self.bytes.len() {
            end == self.expect.end_offset
        } else {
            self.intact(behind)
                .is_ok_and(|p| p.header.base_offset == self.skip_gaps(end))
        };
        agrees.then_some(base)
    }

    fn follows(&self, piece: &Piece, next: i64) -> bool {
        piece.header.base_offset > next && piece.header.last_offset() < self.expect.end_offset
    }

    /// The size that the length field at `at` claims, if it stays inside the extent.
    fn length_at(&self, at: usize) -> Option<usize> {
        claimed_size(self.bytes.get(at..)?).filter(|size| at + size <= self.bytes.len())
    }

    /// The fields of a header whose length may be impossible.
    fn fields_at(&self, at: usize) -> Option<BatchHeader> {
        let mut head: [u8; BATCH_HEADER_BYTES] = *self.bytes.get(at..)?.first_chunk()?;
        let shortest = (BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32;
        head[LENGTH_FIELD].copy_from_slice(&shortest.to_be_bytes());
        BatchHeader::parse(&head).ok()
    }

    /// The offset after the damaged batch, if two of its fields agree on it.
    fn end_by_delta(&self, at: usize, next: i64) -> Option<i64> {
        let header = self.fields_at(at)?;
        let agreed = header.last_offset_delta >= 0
            && header.records_count.checked_sub(1) == Some(header.last_offset_delta);
        let end = next + i64::from(header.last_offset_delta) + 1;
        (agreed && end <= self.expect.end_offset).then_some(end)
    }

    /// The batch with this base offset at or behind `from` whose successors lead to the end of the extent. A batch that
    /// stands inside a record's value ends before its host does and cannot do that.
    fn search(&self, from: usize, base_offset: i64) -> Option<usize> {
        let pattern = base_offset.to_be_bytes();
        let end = self.bytes.len().checked_sub(BATCH_HEADER_BYTES)?;
        (from..=end)
            .filter(|at| self.bytes[*at..*at + pattern.len()] == pattern)
            .find(|at| self.intact(*at).is_ok_and(|piece| self.leads_to_end(piece)))
    }

    fn leads_to_end(&self, piece: Piece) -> bool {
        self.run(piece) == (self.bytes.len(), self.expect.end_offset)
    }

    /// Where the batches end that go on from this one: (position, offset).
    fn run(&self, mut piece: Piece) -> (usize, i64) {
        loop {
            let (at, end) = (piece.at + piece.length, piece.end_offset());
            match self.intact(at) {
                Ok(p) if p.header.base_offset == self.skip_gaps(end) => piece = p,
                Ok(_) | Err(_) => return (at, end),
            }
        }
    }
}

/// The metric's word for a batch that does not check out.
pub(crate) fn reason_of(error: &BatchError) -> Reason {
    match error {
        BatchError::Crc { .. } => Reason::BatchCrc,
        BatchError::Magic { .. } => Reason::Magic,
        BatchError::Length { .. } => Reason::Length,
        BatchError::Truncated { .. } => Reason::Truncated,
        BatchError::Trailing { .. }
        | BatchError::TooLarge { .. }
        | BatchError::Counts { .. }
        | BatchError::Producer { .. }
        | BatchError::Attributes { .. }
        | BatchError::UnknownCompression { .. }
        | BatchError::CompressionVersion { .. }
        | BatchError::Decompress { .. }
        | BatchError::Bomb { .. }
        | BatchError::Record { .. }
        | BatchError::RecordsTrailing { .. } => Reason::BatchHeader,
    }
}

#[cfg(test)]
mod tests {
    use keelson_protocol::batch::patch_offset_and_epoch;
    use keelson_protocol::builder::BatchBuilder;

    use super::*;

    const EPOCHS: &[(i32, i64)] = &[(4, 0)];

    fn batch(base: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1000 + base);
        for i in 0..records {
            builder.push(None, Some(format!("value {base} {i}").as_bytes()));
        }
        let mut bytes = builder.build().to_vec();
        patch_offset_and_epoch(&mut bytes, base, 4);
        bytes
    }

    /// Batches of the given record counts from offset 100 on: bytes, and (position, base) of each and of the end.
    fn extent(counts: &[usize]) -> (Vec<u8>, Vec<(usize, i64)>) {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        let mut base = 100;
        for count in counts {
            places.push((bytes.len(), base));
            bytes.extend(batch(base, *count));
            base += *count as i64;
        }
        places.push((bytes.len(), base));
        (bytes, places)
    }

    fn expect(end: i64) -> Expect<'static> {
        Expect {
            base_offset: 100,
            end_offset: end,
            epochs: EPOCHS,
            gaps: &[],
            anchors: &[],
        }
    }

    #[test]
    fn intact_extent_has_no_holes() {
        let (bytes, places) = extent(&[1, 3, 2, 5]);
        let walked = walk(&bytes, expect(111));
        assert_eq!(walked.holes, []);
        let found: Vec<_> = walked
            .batches
            .iter()
            .map(|p| (p.at, p.header.base_offset))
            .collect();
        assert_eq!(found, places[..4]);
    }

    #[test]
    fn any_flipped_byte_costs_exactly_its_batch() {
        let (bytes, places) = extent(&[1, 3, 2, 5, 1]);
        let end = places[5].1;
        for at in 0..bytes.len() {
            for bit in [0x01, 0x10, 0x80] {
                let mut bad = bytes.clone();
                bad[at] ^= bit;
                let hit = places
                    .iter()
                    .rposition(|(position, _)| *position <= at)
                    .unwrap();
                let walked = walk(&bad, expect(end));
                let hole: Vec<_> = walked.holes.iter().map(|h| (h.at, h.from, h.to)).collect();
                let wanted = (places[hit].0, places[hit].1, places[hit + 1].1 - 1);
                assert_eq!(hole, [wanted], "byte {at} bit {bit:#x}");
                assert_eq!(walked.batches.len(), 4, "byte {at} bit {bit:#x}");
            }
        }
    }

    #[test]
    fn a_base_offset_at_the_end_of_all_numbers_costs_exactly_its_batch() {
        let (bytes, places) = extent(&[1, 3, 2]);
        for base in [i64::MAX, i64::MAX - 2, i64::MIN, -1] {
            let mut bad = bytes.clone();
            bad[places[1].0..places[1].0 + 8].copy_from_slice(&base.to_be_bytes());
            let walked = walk(&bad, expect(106));
            let hole: Vec<_> = walked.holes.iter().map(|h| (h.from, h.to)).collect();
            assert_eq!(hole, [(101, 103)], "{base}");
        }
    }

    #[test]
    fn a_zeroed_stretch_goes_on_at_the_next_anchor() {
        let (mut bytes, places) = extent(&[2; 10]);
        bytes[places[2].0..places[4].0 + 10].fill(0);
        let anchors = [(places[3].1, places[3].0), (places[6].1, places[6].0)];
        let mut e = expect(120);
        e.anchors = &anchors;
        let walked = walk(&bytes, e);
        let hole = walked.holes[0];
        assert_eq!((hole.from, hole.to), (places[2].1, places[6].1 - 1));
        assert_eq!(walked.batches.len(), 2 + 4);
    }

    #[test]
    fn an_anchor_outside_of_the_extent_is_not_believed() {
        let (mut bytes, places) = extent(&[2; 3]);
        bytes[places[0].0..places[1].0].fill(0);
        let anchors = [(places[1].1, places[1].0)];
        let e = Expect {
            anchors: &anchors,
            ..expect(101)
        };
        let hole: Vec<_> = walk(&bytes, e)
            .holes
            .iter()
            .map(|h| (h.from, h.to))
            .collect();
        assert_eq!(hole, [(100, 100)]);
    }

    #[test]
    fn a_known_gap_is_no_hole_and_an_unknown_one_is_exact() {
        let mut bytes = batch(100, 2);
        bytes.extend(batch(110, 2));
        let mut e = expect(112);
        let walked = walk(&bytes, e);
        assert_eq!(walked.batches.len(), 2);
        assert_eq!((walked.holes[0].from, walked.holes[0].to), (102, 109));
        e.gaps = &[(102, 109)];
        assert_eq!(walk(&bytes, e).holes, []);
    }

    #[test]
    fn a_batch_inside_a_record_never_poses_as_one() {
        let inner = batch(101, 1);
        let mut builder = BatchBuilder::new(0);
        builder.push(None, Some(&inner));
        let mut outer = builder.build().to_vec();
        patch_offset_and_epoch(&mut outer, 100, 4);
        let behind = outer.len();
        outer.extend(batch(101, 1));
        outer[9] ^= 0x40;
        let walked = walk(&outer, expect(102));
        assert_eq!(walked.batches.len(), 1);
        assert_eq!(walked.batches[0].at, behind);
        assert_eq!((walked.holes[0].from, walked.holes[0].to), (100, 100));
    }

    #[test]
    fn the_end_of_what_stands_last_is_found_behind_anything() {
        let (bytes, places) = extent(&[1, 3, 2, 5]);
        for at in 0..places[3].0 {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(end_of_suffix(&bad), Some(111), "byte {at}");
        }
        assert_eq!(end_of_suffix(&bytes[10..]), Some(111));
        assert_eq!(end_of_suffix(&bytes[..bytes.len() - 1]), None);
        assert_eq!(end_of_suffix(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(end_of_suffix(&[]), None);
        // The last value of a damaged batch is a batch: behind it stands the number of headers.
        let mut builder = BatchBuilder::new(0);
        builder.push(None, Some(&batch(5_000, 1)));
        let mut host = builder.build().to_vec();
        host[30] ^= 1;
        assert_eq!(end_of_suffix(&host), None);
    }

    /// Without a bound this would take minutes.
    #[test]
    fn a_value_full_of_headers_is_not_checked_for_each_of_them() {
        let header = batch(7, 1)[..BATCH_HEADER_BYTES].to_vec();
        let mut bytes = header.repeat((4 << 20) / BATCH_HEADER_BYTES);
        for at in (0..bytes.len()).step_by(BATCH_HEADER_BYTES) {
            let length = (bytes.len() - at - LENGTH_OVERHEAD_BYTES) as i32;
            bytes[at + LENGTH_FIELD.start..at + LENGTH_FIELD.end]
                .copy_from_slice(&length.to_be_bytes());
        }
        assert_eq!(end_of_suffix(&bytes), None);
    }

    #[test]
    fn missing_bytes_at_the_end_are_a_hole() {
        let (bytes, places) = extent(&[1, 1, 1]);
        let walked = walk(&bytes[..places[2].0], expect(103));
        assert_eq!((walked.holes[0].from, walked.holes[0].to), (102, 102));
    }
}
