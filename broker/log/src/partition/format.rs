//! Every small file of a partition's folder: encode and decode, side by side. `.log` needs no codec, it holds batches.
//!
//! Owns these layouts and their checksums. Never opens a file. All integers are little-endian; every checksum is CRC32C.
//!
//! ```text
//! manifest           two slots of equal capacity (file length / 2, a multiple of 4,096); the valid one with the higher
//!                    seq counts
//!   0  magic "KEELMANI"       24  topic id (16)          64  next offset i64
//!   8  version u16, flags u16 40  partition i32          72  segments u32, epochs u32, created u32, dropped u32,
//!  12  length u32 (with CRC)  44  applied frame u32          quarantined u32, snapshot u8 (0 none, 1, 2), 3 zero bytes
//!  16  seq u64                48  applied group u64      96  snapshot offset i64
//!                             56  log start i64         104  sum tail u32, idx tail u32 (bytes)
//!                                                       112  segments, epochs, created, dropped, quarantined,
//!                                                            sum tail, idx tail; CRC u32
//!   segment (48)  base i64, log bytes u64, sum bytes u64, idx bytes u32, generation u32 (bit 31: cleaned),
//!                 first timestamp i64, max timestamp i64
//!   epoch (12)    epoch i32, start offset i64
//!   created, dropped (8)      base i64 of a segment: of its files, only those of a listed generation count
//!   sum tail, idx tail        the newest entries of the last segment's .sum and .idx, which may not be synced there yet
//!   quarantined   from i64, to i64, position u64, since i64, then stage, source, reason, file: length u8 and text
//! <base>[-<generation>].log, .sum, .idx: the generation is 0, and not in the name, until compaction writes a segment anew
//! .sum (40)        position u64, base offset i64, end offset i64, length u32, CRC u32, batches u32, entry CRC u32
//! .idx (32)        offset i64, position u64, max timestamp before it i64, zero u32, entry CRC u32
//! producers.1, .2  magic "KEELPROD", version u16, zero u16, length u32, topic id (16), partition i32, offset i64,
//!                  table bytes, CRC u32
//! ```
//! The entry CRC of `.sum` and `.idx` is seeded with the segment's base offset + generation * 0x9E3779B97F4A7C15 (mod 2^64):
//! an entry of another segment, or of the same one before it was compacted, never fits.

use super::ends::Tails;
use crate::files::{FileKey, Kind};
use crate::health::UnhealthyRange;
use crate::ids::{PartitionId, TopicId};
use crate::metrics::{Reason, Source, Stage};

/// The one version of the layouts above.
const VERSION: u16 = 1;
const MANIFEST_MAGIC: &[u8; 8] = b"KEELMANI";
const PRODUCERS_MAGIC: &[u8; 8] = b"KEELPROD";
const FLAG_DELETED: u16 = 1;
/// Beside a segment's generation: compaction has seen all of it.
const CLEANED: u32 = 1 << 31;
/// Spreads generations over the seeds of entry checksums, so that none is another segment's base offset.
const GENERATION_STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
const CRC_BYTES: usize = 4;
/// Bytes of a slot before its lists.
const SLOT_FIXED_BYTES: usize = 112;
/// Bytes of a producer snapshot before its table.
const PRODUCERS_FIXED_BYTES: usize = 44;
/// A slot starts on a block of its own, so that one torn block costs one slot.
pub(crate) const SLOT_ALIGN_BYTES: usize = 4096;
/// No file of a segment is longer: Kafka's segment.bytes ends at 2 GiB.
const FILE_BYTES_MAX: u64 = 1 << 40;
/// A slot beyond this is refused by the decoder: about 300,000 segments.
pub(crate) const SLOT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one `.sum` entry.
pub(crate) const SUM_ENTRY_BYTES: usize = 40;
/// Bytes of one `.idx` entry.
pub(crate) const IDX_ENTRY_BYTES: usize = 32;
/// Longest text (a file's name relative to the data directory) that a quarantined range keeps.
const TEXT_BYTES_MAX: usize = 255;

/// Why bytes of a small file are not what must stand there.
pub(crate) type Undecodable = Reason;

/// A segment as the manifest lists it. Lengths are those that count; what lies beyond is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) base_offset: i64,
    pub(crate) log_bytes: u64,
    pub(crate) sum_bytes: u64,
    pub(crate) idx_bytes: u64,
    /// How often compaction has written it anew; part of its files' names. Below 2^31.
    pub(crate) generation: u32,
    /// Compaction has compared all its records with those behind them.
    pub(crate) cleaned: bool,
    /// Timestamp that `segment.ms` counts from.
    pub(crate) first_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// Truncations, since the start, that it was made or cut after: it is not what stood here before. In memory alone.
    pub(crate) truncations: u32,
}

impl SegmentEntry {
    /// A segment of which nothing is written yet.
    pub(crate) fn empty(base_offset: i64) -> Self {
        SegmentEntry {
            base_offset,
            log_bytes: 0,
            sum_bytes: 0,
            idx_bytes: 0,
            generation: 0,
            cleaned: false,
            first_timestamp: -1,
            max_timestamp: i64::MIN,
            truncations: 0,
        }
    }

    /// Bytes of one of its files that count, wherever they are.
    pub(crate) fn bytes_of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Log => self.log_bytes,
            Kind::Sum => self.sum_bytes,
            Kind::Idx => self.idx_bytes,
        }
    }

    /// One of its files.
    pub(crate) fn key(&self, partition: PartitionId, kind: Kind) -> FileKey {
        FileKey {
            partition,
            base_offset: self.base_offset,
            generation: self.generation,
            kind,
        }
    }

    /// What the checksums of its small files' entries begin with.
    pub(crate) fn seed(&self) -> i64 {
        let spread = u64::from(self.generation).wrapping_mul(GENERATION_STRIDE);
        self.base_offset.wrapping_add(spread as i64)
    }

    /// What tells it from every other of its partition, those of the same name before included.
    pub(crate) fn identity(&self) -> (i64, u32, u32) {
        (self.base_offset, self.generation, self.truncations)
    }
}

/// Which producer snapshot file counts, and the offset it is as of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotRef {
    pub(crate) file: u8,
    pub(crate) offset: i64,
}

/// What one manifest slot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) partition: PartitionId,
    pub(crate) seq: u64,
    /// WAL position (group, frame) up to which this partition's frames are reflected.
    pub(crate) applied_group: u64,
    pub(crate) applied_frame: u32,
    pub(crate) log_start: i64,
    pub(crate) next_offset: i64,
    /// The partition is gone; whatever files are left are to be unlinked.
    pub(crate) deleted: bool,
    pub(crate) snapshot: Option<SnapshotRef>,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) epochs: Vec<(i32, i64)>,
    pub(crate) created: Vec<i64>,
    pub(crate) dropped: Vec<i64>,
    pub(crate) quarantined: Vec<UnhealthyRange>,
    /// The newest `.sum` and `.idx` entries of the last segment: they are nowhere else, so that most flushes write neither
    /// of the two files.
    pub(crate) tails: Tails,
}

impl Manifest {
    /// The manifest of a partition nothing was ever written for.
    pub(crate) fn empty(partition: PartitionId) -> Self {
        Manifest {
            partition,
            seq: 0,
            applied_group: 0,
            applied_frame: 0,
            log_start: 0,
            next_offset: 0,
            deleted: false,
            snapshot: None,
            segments: Vec::new(),
            epochs: Vec::new(),
            created: Vec::new(),
            dropped: Vec::new(),
            quarantined: Vec::new(),
            tails: Tails::default(),
        }
    }
}

/// Bytes of one slot.
pub(crate) fn encode_manifest(m: &Manifest) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_FIXED_BYTES + 48 * m.segments.len() + 64);
    out.extend_from_slice(MANIFEST_MAGIC);
    put_u16(&mut out, VERSION);
    put_u16(&mut out, if m.deleted { FLAG_DELETED } else { 0 });
    put_u32(&mut out, 0);
    put_u64(&mut out, m.seq);
    out.extend_from_slice(&m.partition.topic.0);
    put_u32(&mut out, m.partition.index as u32);
    put_u32(&mut out, m.applied_frame);
    put_u64(&mut out, m.applied_group);
    put_i64(&mut out, m.log_start);
    put_i64(&mut out, m.next_offset);
    let counts = [
        m.segments.len(),
        m.epochs.len(),
        m.created.len(),
        m.dropped.len(),
        m.quarantined.len(),
    ];
    for count in counts {
        put_u32(&mut out, count as u32);
    }
    put_u32(&mut out, m.snapshot.map_or(0, |s| u32::from(s.file)));
    put_i64(&mut out, m.snapshot.map_or(0, |s| s.offset));
    put_u32(&mut out, m.tails.sum.len() as u32);
    put_u32(&mut out, m.tails.idx.len() as u32);
    assert_eq!(
        out.len(),
        SLOT_FIXED_BYTES,
        "the slot layout and its constant disagree"
    );
    for s in &m.segments {
        put_i64(&mut out, s.base_offset);
        put_u64(&mut out, s.log_bytes);
        put_u64(&mut out, s.sum_bytes);
        put_u32(&mut out, s.idx_bytes as u32);
        put_u32(&mut out, s.generation | if s.cleaned { CLEANED } else { 0 });
        put_i64(&mut out, s.first_timestamp);
        put_i64(&mut out, s.max_timestamp);
    }
    for (epoch, start) in &m.epochs {
        put_u32(&mut out, *epoch as u32);
        put_i64(&mut out, *start);
    }
    for base in m.created.iter().chain(&m.dropped) {
        put_i64(&mut out, *base);
    }
    for range in &m.quarantined {
        put_range(&mut out, range);
    }
    out.extend_from_slice(&m.tails.sum);
    out.extend_from_slice(&m.tails.idx);
    let length = (out.len() + CRC_BYTES) as u32;
    out[12..16].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    put_u32(&mut out, crc);
    out
}

/// Reads the slot at the start of `bytes` (which may be longer).
pub(crate) fn decode_manifest(bytes: &[u8]) -> Result<Manifest, Undecodable> {
    let body = checked_body(bytes, MANIFEST_MAGIC, SLOT_FIXED_BYTES, SLOT_BYTES_MAX)?;
    let mut c = Cursor { rest: &body[10..] };
    let flags = c.u16()?;
    c.u32()?;
    let mut m = Manifest::empty(PartitionId {
        topic: TopicId([0; 16]),
        index: 0,
    });
    m.deleted = flags & FLAG_DELETED != 0;
    m.seq = c.u64()?;
    m.partition = PartitionId {
        topic: TopicId(c.take::<16>()?),
        index: c.u32()? as i32,
    };
    m.applied_frame = c.u32()?;
    m.applied_group = c.u64()?;
    m.log_start = c.i64()?;
    m.next_offset = c.i64()?;
    let counts = [c.u32()?, c.u32()?, c.u32()?, c.u32()?, c.u32()?];
    let file = c.u32()?;
    let offset = c.i64()?;
    let tails = (c.u32()?, c.u32()?);
    m.snapshot = match file {
        0 => None,
        1 | 2 => Some(SnapshotRef {
            file: file as u8,
            offset,
        }),
        _ => return Err(Reason::Length),
    };
    for _ in 0..counts[0] {
        m.segments.push(take_segment(&mut c)?);
    }
    for _ in 0..counts[1] {
        m.epochs.push((c.u32()? as i32, c.i64()?));
    }
    for _ in 0..counts[2] {
        m.created.push(c.i64()?);
    }
    for _ in 0..counts[3] {
        m.dropped.push(c.i64()?);
    }
    for _ in 0..counts[4] {
        m.quarantined.push(take_range(&mut c, m.partition)?);
    }
    m.tails = Tails {
        sum: c.bytes(tails.0)?,
        idx: c.bytes(tails.1)?,
    };
    if !c.rest.is_empty() || !is_possible(&m) {
        return Err(Reason::Length);
    }
    Ok(m)
}

fn take_segment(c: &mut Cursor<'_>) -> Result<SegmentEntry, Undecodable> {
    let (base_offset, log_bytes, sum_bytes) = (c.i64()?, c.u64()?, c.u64()?);
    let (idx_bytes, generation) = (c.u32()?, c.u32()?);
    Ok(SegmentEntry {
        log_bytes,
        sum_bytes,
        idx_bytes: u64::from(idx_bytes),
        generation: generation & !CLEANED,
        cleaned: generation & CLEANED != 0,
        first_timestamp: c.i64()?,
        max_timestamp: c.i64()?,
        ..SegmentEntry::empty(base_offset)
    })
}

/// Numbers that can be counted on from, and lengths that a file can have: a checksum that holds does not make them so.
fn is_possible(m: &Manifest) -> bool {
    let lengths = m.segments.iter().flat_map(|s| [s.log_bytes, s.sum_bytes]);
    let bases = m.segments.iter().map(|s| s.base_offset);
    let offsets = [m.log_start, m.next_offset].into_iter().chain(bases);
    m.seq.max(m.applied_group) <= i64::MAX as u64
        && m.applied_frame < u32::MAX
        && lengths.into_iter().all(|length| length <= FILE_BYTES_MAX)
        && offsets
            .into_iter()
            .all(|offset| (0..i64::MAX).contains(&offset))
}

pub(crate) fn put_range(out: &mut Vec<u8>, range: &UnhealthyRange) {
    put_i64(out, range.from);
    put_i64(out, range.to);
    put_u64(out, range.position);
    put_i64(out, range.since_ms);
    for text in [
        range.stage.label(),
        range.source.label(),
        range.reason.label(),
        &range.file,
    ] {
        put_text(out, text);
    }
}

/// A text of at most 255 bytes; what is longer is cut.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    out.push(length as u8);
    out.extend_from_slice(&text.as_bytes()[..length]);
}

pub(crate) fn take_range(
    c: &mut Cursor<'_>,
    partition: PartitionId,
) -> Result<UnhealthyRange, Undecodable> {
    let (from, to, position, since_ms) = (c.i64()?, c.i64()?, c.u64()?, c.i64()?);
    Ok(UnhealthyRange {
        partition: Some(partition),
        from,
        to,
        position,
        since_ms,
        stage: Stage::from_label(&c.text()?).ok_or(Reason::Version)?,
        source: Source::from_label(&c.text()?).ok_or(Reason::Version)?,
        reason: Reason::from_label(&c.text()?).ok_or(Reason::Version)?,
        file: c.text()?,
    })
}

/// One flushed extent of a segment: whole batches, written in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SumEntry {
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
    /// Offset after its last batch.
    pub(crate) end_offset: i64,
    pub(crate) length: u32,
    pub(crate) crc: u32,
    pub(crate) batches: u32,
}

/// Bytes of one `.sum` entry.
pub(crate) fn encode_sum(seed: i64, e: &SumEntry) -> [u8; SUM_ENTRY_BYTES] {
    let mut out = Vec::with_capacity(SUM_ENTRY_BYTES);
    put_u64(&mut out, e.position);
    put_i64(&mut out, e.base_offset);
    put_i64(&mut out, e.end_offset);
    put_u32(&mut out, e.length);
    put_u32(&mut out, e.crc);
    put_u32(&mut out, e.batches);
    seal_entry(seed, out)
}

/// Reads one `.sum` entry. One that spans no offset, or negative ones, is none.
pub(crate) fn decode_sum(seed: i64, bytes: &[u8]) -> Result<SumEntry, Undecodable> {
    let mut c = Cursor {
        rest: open_entry(seed, bytes, SUM_ENTRY_BYTES)?,
    };
    let entry = SumEntry {
        position: c.position()?,
        base_offset: c.i64()?,
        end_offset: c.i64()?,
        length: c.u32()?,
        crc: c.u32()?,
        batches: c.u32()?,
    };
    (0..entry.end_offset)
        .contains(&entry.base_offset)
        .then_some(entry)
        .ok_or(Reason::Offsets)
}

/// One entry of the sparse index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdxEntry {
    /// Base offset of the batch at `position`.
    pub(crate) offset: i64,
    pub(crate) position: u64,
    /// Largest timestamp of all batches of the segment before `position`; `i64::MIN` before the first.
    pub(crate) max_timestamp_before: i64,
}

/// Bytes of one `.idx` entry.
pub(crate) fn encode_idx(seed: i64, e: &IdxEntry) -> [u8; IDX_ENTRY_BYTES] {
    let mut out = Vec::with_capacity(IDX_ENTRY_BYTES);
    put_i64(&mut out, e.offset);
    put_u64(&mut out, e.position);
    put_i64(&mut out, e.max_timestamp_before);
    put_u32(&mut out, 0);
    seal_entry(seed, out)
}

/// Reads one `.idx` entry.
pub(crate) fn decode_idx(seed: i64, bytes: &[u8]) -> Result<IdxEntry, Undecodable> {
    let mut c = Cursor {
        rest: open_entry(seed, bytes, IDX_ENTRY_BYTES)?,
    };
    Ok(IdxEntry {
        offset: c.i64()?,
        position: c.position()?,
        max_timestamp_before: c.i64()?,
    })
}

/// Bytes of a producer snapshot: `table` as [`keelson_state`] encodes it, as of `offset`.
pub(crate) fn encode_producers(id: PartitionId, offset: i64, table: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PRODUCERS_FIXED_BYTES + table.len() + CRC_BYTES);
    out.extend_from_slice(PRODUCERS_MAGIC);
    put_u16(&mut out, VERSION);
    put_u16(&mut out, 0);
    put_u32(
        &mut out,
        (PRODUCERS_FIXED_BYTES + table.len() + CRC_BYTES) as u32,
    );
    out.extend_from_slice(&id.topic.0);
    put_u32(&mut out, id.index as u32);
    put_i64(&mut out, offset);
    assert_eq!(
        out.len(),
        PRODUCERS_FIXED_BYTES,
        "the snapshot layout and its constant disagree"
    );
    out.extend_from_slice(table);
    let crc = crc32c::crc32c(&out);
    put_u32(&mut out, crc);
    out
}

/// Reads a partition's producer snapshot: its offset and the table's bytes.
pub(crate) fn decode_producers(bytes: &[u8], id: PartitionId) -> Result<(i64, &[u8]), Undecodable> {
    let body = checked_body(bytes, PRODUCERS_MAGIC, PRODUCERS_FIXED_BYTES, usize::MAX)?;
    let mut c = Cursor { rest: &body[16..] };
    let whose = PartitionId {
        topic: TopicId(c.take::<16>()?),
        index: c.u32()? as i32,
    };
    if whose != id {
        return Err(Reason::UnlistedFile);
    }
    Ok((c.i64()?, c.rest))
}

/// Checks magic, version, length (at 12) and CRC; returns all but the CRC.
pub(crate) fn checked_body<'a>(
    bytes: &'a [u8],
    magic: &[u8; 8],
    fixed_bytes: usize,
    bytes_max: usize,
) -> Result<&'a [u8], Undecodable> {
    let mut c = Cursor { rest: bytes };
    if &c.take::<8>().map_err(|_| Reason::Truncated)? != magic {
        return Err(Reason::Magic);
    }
    let version = c.u16().map_err(|_| Reason::Truncated)?;
    c.u16().map_err(|_| Reason::Truncated)?;
    let length = c.u32().map_err(|_| Reason::Truncated)? as usize;
    if length < fixed_bytes + CRC_BYTES || length > bytes_max {
        return Err(Reason::Length);
    }
    let whole = bytes.get(..length).ok_or(Reason::Truncated)?;
    let (body, crc) = whole.split_at(length - CRC_BYTES);
    if crc != crc32c::crc32c(body).to_le_bytes() {
        return Err(Reason::SlotCrc);
    }
    if version != VERSION {
        return Err(Reason::Version);
    }
    Ok(body)
}

fn entry_crc(seed: i64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), body)
}

fn seal_entry<const N: usize>(seed: i64, mut body: Vec<u8>) -> [u8; N] {
    let crc = entry_crc(seed, &body);
    put_u32(&mut body, crc);
    body.try_into()
        .expect("an entry has exactly its fixed size")
}

fn open_entry(seed: i64, bytes: &[u8], entry_bytes: usize) -> Result<&[u8], Undecodable> {
    let entry = bytes.get(..entry_bytes).ok_or(Reason::Truncated)?;
    let (body, crc) = entry.split_at(entry_bytes - CRC_BYTES);
    if crc == entry_crc(seed, body).to_le_bytes() {
        Ok(body)
    } else {
        Err(Reason::SlotCrc)
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, v: u16) {
    out.extend_from_slice(&v.to_le_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_le_bytes());
}

pub(crate) fn put_i64(out: &mut Vec<u8>, v: i64) {
    out.extend_from_slice(&v.to_le_bytes());
}

/// Reads from the front; running out of bytes is a wrong length.
pub(crate) struct Cursor<'a> {
    pub(crate) rest: &'a [u8],
}

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Reason::Length)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Undecodable> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Undecodable> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// A place in a file of a segment.
    fn position(&mut self) -> Result<u64, Undecodable> {
        let position = self.u64()?;
        (position <= FILE_BYTES_MAX)
            .then_some(position)
            .ok_or(Reason::Offsets)
    }

    fn u64(&mut self) -> Result<u64, Undecodable> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Undecodable> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    pub(crate) fn text(&mut self) -> Result<String, Undecodable> {
        let length = u32::from(self.take::<1>()?[0]);
        String::from_utf8(self.bytes(length)?).map_err(|_| Reason::Length)
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, Undecodable> {
        let (head, rest) = self
            .rest
            .split_at_checked(length as usize)
            .ok_or(Reason::Length)?;
        self.rest = rest;
        Ok(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let partition = PartitionId {
            topic: TopicId(*b"0123456789abcdef"),
            index: 7,
        };
        let mut m = Manifest::empty(partition);
        m.seq = 5;
        m.applied_group = 9;
        m.applied_frame = 2;
        m.log_start = 10;
        m.next_offset = 300;
        m.snapshot = Some(SnapshotRef {
            file: 2,
            offset: 299,
        });
        m.segments.push(SegmentEntry {
            log_bytes: 4096,
            sum_bytes: 80,
            idx_bytes: 32,
            first_timestamp: 1,
            max_timestamp: 2,
            ..SegmentEntry::empty(0)
        });
        m.epochs.push((3, 0));
        m.created.push(300);
        m.dropped.push(-0);
        m.quarantined.push(UnhealthyRange {
            partition: Some(partition),
            from: 20,
            to: 29,
            file: "wal/00000001.wal".to_owned(),
            position: 8192,
            reason: Reason::PayloadCrc,
            source: Source::Wal,
            stage: Stage::Replay,
            since_ms: 77,
        });
        m.tails.sum = vec![1; 40];
        m.tails.idx = vec![2; 32];
        m
    }

    #[test]
    fn manifest_round_trips_and_any_flipped_byte_is_noticed() {
        let bytes = encode_manifest(&sample());
        assert_eq!(decode_manifest(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(decode_manifest(&bad).is_err(), "byte {at}");
            assert!(decode_manifest(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut longer = bytes;
        longer.extend_from_slice(&[0xAA; 100]);
        assert_eq!(decode_manifest(&longer), Ok(sample()));
    }

    #[test]
    fn manifest_golden() {
        let bytes = encode_manifest(&sample());
        assert_eq!(
            bytes.len(),
            112 + 48 + 12 + 8 + 8 + 32 + 7 + 4 + 12 + 17 + 72 + 4
        );
        assert_eq!(
            &bytes[..24],
            b"KEELMANI\x01\0\0\0\x50\x01\0\0\x05\0\0\0\0\0\0\0"
        );
        assert_eq!(crc32c::crc32c(&bytes[..bytes.len() - 4]), 0x294F_14E4);
    }

    #[test]
    fn a_compacted_segment_has_its_own_names_and_seeds() {
        let mut m = sample();
        let before = m.segments[0];
        m.segments[0].generation = 3;
        m.segments[0].cleaned = true;
        assert_eq!(decode_manifest(&encode_manifest(&m)), Ok(m.clone()));
        let after = m.segments[0];
        assert_ne!(after.identity(), before.identity());
        let name = |s: SegmentEntry| s.key(m.partition, Kind::Sum).name();
        assert_eq!(name(before), "00000000000000000000.sum");
        assert_eq!(name(after), "00000000000000000000-3.sum");
        assert_eq!(before.seed(), 0);
        assert_ne!(after.seed(), 0);
    }

    #[test]
    fn entries_round_trip_and_belong_to_one_segment() {
        let sum = SumEntry {
            position: 4096,
            base_offset: 10,
            end_offset: 20,
            length: 512,
            crc: 0xDEAD_BEEF,
            batches: 3,
        };
        let bytes = encode_sum(10, &sum);
        assert_eq!(decode_sum(10, &bytes), Ok(sum));
        assert_eq!(decode_sum(11, &bytes), Err(Reason::SlotCrc));
        for (base_offset, end_offset) in [(10, 10), (10, i64::MIN), (-1, 20)] {
            let bytes = encode_sum(
                10,
                &SumEntry {
                    base_offset,
                    end_offset,
                    ..sum
                },
            );
            assert_eq!(decode_sum(10, &bytes), Err(Reason::Offsets));
        }
        let idx = IdxEntry {
            offset: 10,
            position: 4096,
            max_timestamp_before: i64::MIN,
        };
        let bytes = encode_idx(10, &idx);
        assert_eq!(decode_idx(10, &bytes), Ok(idx));
        assert_eq!(decode_idx(0, &bytes), Err(Reason::SlotCrc));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert!(decode_idx(10, &bad).is_err());
        }
    }

    #[test]
    fn producer_snapshot_round_trips() {
        let id = PartitionId {
            topic: TopicId([7; 16]),
            index: 3,
        };
        let bytes = encode_producers(id, 42, b"table");
        assert_eq!(decode_producers(&bytes, id), Ok((42, &b"table"[..])));
        let other = PartitionId { index: 4, ..id };
        assert_eq!(decode_producers(&bytes, other), Err(Reason::UnlistedFile));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            assert!(decode_producers(&bad, id).is_err(), "byte {at}");
        }
    }
}
