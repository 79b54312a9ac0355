//! Every byte of the WAL's files: encode and decode, side by side.
//!
//! Owns the layout and its checksums; the one place that knows a byte offset in a WAL file. Never does I/O and never
//! decides whether damage is a torn tail or corruption. All integers are little-endian; a CRC is CRC32C.
//!
//! ```text
//! file <generation, 20 digits>.wal   fixed length
//! +-- block 0, 4 KiB: file head -------------------------------------------------------------------+
//! |  0 magic "KEELWALF" 8 | 8 version u32 | 12 zero u32 | 16 generation u64 | 24 salt u64           |
//! | 32 file length u64 | 40 CRC of 0..40 u32 | zeros                                                |
//! +-- from block 1: commit groups, each a whole number of 4 KiB blocks ----------------------------+
//! |  0 magic "KEELWALG" 8 | 8 version u32 | 12 frame count u32 | 16 generation u64 | 24 boot u64    |
//! | 32 sequence u64 | 40 durable_seq u64 | 48 position in the file u64 | 56 length u32              |
//! | 60 frame count of the previous group u32 | 64 header CRC of the previous group u32 (0: unknown) |
//! | 68 payload CRC u32: bytes 80..length | 72 zero u32 | 76 header CRC u32: salt, then bytes 0..76  |
//! | 80 frame headers, 64 bytes each | frame headers of the previous group | batches | zero padding   |
//! +------------------------------------------------------------------------------------------------+
//!
//! frame header, 64 bytes
//!  0 kind u8 | 1 zeros | 4 partition index i32 | 8 topic id 16 | 24 first i64 | 32 second i64
//! 40 batch position in the group u32 | 44 batch length u32 | 48 batch CRC u32
//! 52 index of the frame u32 | 56 frames in the group u32 | 60 CRC u32: group sequence u64, then bytes 0..60
//!
//! kind           first           second
//! 1 append       base offset     last offset
//! 2 truncate     new end         0
//! 3 log start    new log start   0
//! 4 epoch start  first offset    leader epoch
//! 5 delete       0               0
//! 6 seal         0               0
//! 7 boot         position        1 if something was discarded: topic id = generation u64, length u64
//!
//! manifest, two slots of 4 KiB; the valid one with the higher slot number counts
//!  0 magic "KEELWALM" 8 | 8 version u32 | 12 number of files u32 | 16 slot number u64 | 24 boot u64
//! 32 checkpoint: lowest group still needed u64 | 40 generation of its file u64 | 48 first group of that file u64
//! 56 file length u64 | 64 files: generation u64, salt u64 each | 4092 CRC of 0..4092 u32
//! ```

use crate::disk::{AlignedBuf, BLOCK_BYTES};
use crate::ids::{PartitionId, TopicId};

use super::{BATCH_PREFIX_BYTES, Batch, Discarded, Frame, FrameBody};

/// Version of every structure in this module.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Length of a group header.
pub(crate) const GROUP_HEADER_BYTES: usize = 80;
/// Length of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
/// Where the first group of a file lies.
pub(crate) const FIRST_GROUP_POSITION: u64 = BLOCK_BYTES as u64;
/// No file is longer (they are made 64 MiB long, or a quarter of a configured cap): a length above, although its checksum
/// holds, would make a reader search for days.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Files that a manifest slot can name.
pub(crate) const MANIFEST_FILES_MAX: usize = (BLOCK_BYTES - 4 - 64) / 16;

const FILE_MAGIC: &[u8; 8] = b"KEELWALF";
pub(super) const GROUP_MAGIC: &[u8; 8] = b"KEELWALG";
const MANIFEST_MAGIC: &[u8; 8] = b"KEELWALM";

const KIND_APPEND: u8 = 1;
const KIND_TRUNCATE: u8 = 2;
const KIND_LOG_START: u8 = 3;
const KIND_EPOCH_START: u8 = 4;
const KIND_DELETE: u8 = 5;
const KIND_SEAL: u8 = 6;
const KIND_BOOT: u8 = 7;

fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// What identifies a file and its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub(crate) generation: u64,
    pub(crate) salt: u64,
    pub(crate) file_bytes: u64,
}

impl FileHead {
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut out = AlignedBuf::zeroed(BLOCK_BYTES);
        out[..8].copy_from_slice(FILE_MAGIC);
        put_u32(&mut out, 8, FORMAT_VERSION);
        put_u64(&mut out, 16, self.generation);
        put_u64(&mut out, 24, self.salt);
        put_u64(&mut out, 32, self.file_bytes);
        let crc = crc32c::crc32c(&out[..40]);
        put_u32(&mut out, 40, crc);
        out
    }

    /// `None` if the block does not verify.
    pub(crate) fn decode(block: &[u8]) -> Option<FileHead> {
        if block.len() < 44
            || &block[..8] != FILE_MAGIC
            || crc32c::crc32c(&block[..40]) != get_u32(block, 40)
            || get_u32(block, 8) != FORMAT_VERSION
            || get_u64(block, 32) > FILE_BYTES_MAX
        {
            return None;
        }
        Some(FileHead {
            generation: get_u64(block, 16),
            salt: get_u64(block, 24),
            file_bytes: get_u64(block, 32),
        })
    }
}

/// The header of a commit group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) frame_count: u32,
    pub(crate) generation: u64,
    pub(crate) boot: u64,
    pub(crate) seq: u64,
    pub(crate) durable_seq: u64,
    pub(crate) position: u64,
    pub(crate) length: u32,
    pub(crate) previous_frame_count: u32,
    pub(crate) previous_crc: u32,
    pub(crate) payload_crc: u32,
    pub(crate) header_crc: u32,
}

fn salted_crc(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

impl GroupHeader {
    fn encode(&mut self, out: &mut [u8], salt: u64) {
        out[..8].copy_from_slice(GROUP_MAGIC);
        put_u32(out, 8, FORMAT_VERSION);
        put_u32(out, 12, self.frame_count);
        put_u64(out, 16, self.generation);
        put_u64(out, 24, self.boot);
        put_u64(out, 32, self.seq);
        put_u64(out, 40, self.durable_seq);
        put_u64(out, 48, self.position);
        put_u32(out, 56, self.length);
        put_u32(out, 60, self.previous_frame_count);
        put_u32(out, 64, self.previous_crc);
        put_u32(out, 68, self.payload_crc);
        put_u32(out, 72, 0);
        self.header_crc = salted_crc(salt, &out[..76]);
        put_u32(out, 76, self.header_crc);
    }

    /// `None` unless the bytes are the header of a group of this file at this position.
    pub(crate) fn decode(bytes: &[u8], file: &FileHead, position: u64) -> Option<GroupHeader> {
        if bytes.len() < GROUP_HEADER_BYTES || &bytes[..8] != GROUP_MAGIC {
            return None;
        }
        let header = GroupHeader {
            frame_count: get_u32(bytes, 12),
            generation: get_u64(bytes, 16),
            boot: get_u64(bytes, 24),
            seq: get_u64(bytes, 32),
            durable_seq: get_u64(bytes, 40),
            position: get_u64(bytes, 48),
            length: get_u32(bytes, 56),
            previous_frame_count: get_u32(bytes, 60),
            previous_crc: get_u32(bytes, 64),
            payload_crc: get_u32(bytes, 68),
            header_crc: get_u32(bytes, 76),
        };
        let length = u64::from(header.length);
        let tables = (u64::from(header.frame_count) + u64::from(header.previous_frame_count))
            * FRAME_HEADER_BYTES as u64;
        let fits = length.is_multiple_of(BLOCK_BYTES as u64)
            && GROUP_HEADER_BYTES as u64 + tables <= length
            && position
                .checked_add(length)
                .is_some_and(|end| end <= file.file_bytes);
        let ours = header.header_crc == salted_crc(file.salt, &bytes[..76])
            && get_u32(bytes, 8) == FORMAT_VERSION
            && header.generation == file.generation
            && header.position == position
            && (1..=i64::MAX as u64).contains(&header.seq);
        (ours && fits).then_some(header)
    }

    /// Whether everything behind the header is as it was written. `group` is the whole group.
    pub(crate) fn payload_verifies(&self, group: &[u8]) -> bool {
        group.len() == self.length as usize
            && crc32c::crc32c(&group[GROUP_HEADER_BYTES..]) == self.payload_crc
    }

    /// Where the table of the previous group lies in the group.
    pub(crate) fn previous_table(&self) -> usize {
        GROUP_HEADER_BYTES + self.frame_count as usize * FRAME_HEADER_BYTES
    }
}

/// What a frame header says, with the place of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) partition: PartitionId,
    pub(crate) batch_position: u32,
    pub(crate) batch_length: u32,
    pub(crate) batch_crc: u32,
    pub(crate) index: u32,
    pub(crate) count: u32,
}

/// A frame without its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Append { base_offset: i64, last_offset: i64 },
    Truncate { to: i64 },
    LogStart { offset: i64 },
    EpochStart { epoch: i32, offset: i64 },
    DeletePartition,
    Seal,
    Boot { discarded: Option<Discarded> },
}

impl FrameKind {
    fn of(body: &FrameBody) -> FrameKind {
        match body {
            FrameBody::Append {
                base_offset,
                last_offset,
                ..
            } => FrameKind::Append {
                base_offset: *base_offset,
                last_offset: *last_offset,
            },
            FrameBody::Truncate { to } => FrameKind::Truncate { to: *to },
            FrameBody::LogStart { offset } => FrameKind::LogStart { offset: *offset },
            FrameBody::EpochStart { epoch, offset } => FrameKind::EpochStart {
                epoch: *epoch,
                offset: *offset,
            },
            FrameBody::DeletePartition => FrameKind::DeletePartition,
            FrameBody::Seal => FrameKind::Seal,
            FrameBody::Boot { discarded } => FrameKind::Boot {
                discarded: *discarded,
            },
        }
    }
}

fn frame_crc(seq: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&seq.to_le_bytes()), &bytes[..60])
}

impl FrameHeader {
    fn encode(&self, out: &mut [u8], seq: u64) {
        let mut topic = self.partition.topic.0;
        let (kind, first, second) = match self.kind {
            FrameKind::Append {
                base_offset,
                last_offset,
            } => (KIND_APPEND, base_offset, last_offset),
            FrameKind::Truncate { to } => (KIND_TRUNCATE, to, 0),
            FrameKind::LogStart { offset } => (KIND_LOG_START, offset, 0),
            FrameKind::EpochStart { epoch, offset } => (KIND_EPOCH_START, offset, i64::from(epoch)),
            FrameKind::DeletePartition => (KIND_DELETE, 0, 0),
            FrameKind::Seal => (KIND_SEAL, 0, 0),
            FrameKind::Boot { discarded: None } => (KIND_BOOT, 0, 0),
            FrameKind::Boot {
                discarded: Some(discarded),
            } => {
                topic[..8].copy_from_slice(&discarded.generation.to_le_bytes());
                topic[8..].copy_from_slice(&discarded.length.to_le_bytes());
                (KIND_BOOT, discarded.position as i64, 1)
            }
        };
        out[..4].copy_from_slice(&[kind, 0, 0, 0]);
        out[4..8].copy_from_slice(&self.partition.index.to_le_bytes());
        out[8..24].copy_from_slice(&topic);
        out[24..32].copy_from_slice(&first.to_le_bytes());
        out[32..40].copy_from_slice(&second.to_le_bytes());
        put_u32(out, 40, self.batch_position);
        put_u32(out, 44, self.batch_length);
        put_u32(out, 48, self.batch_crc);
        put_u32(out, 52, self.index);
        put_u32(out, 56, self.count);
        let crc = frame_crc(seq, out);
        put_u32(out, 60, crc);
    }

    /// `None` unless the bytes are a frame header of group `seq`, and one of those that it counts.
    pub(crate) fn decode(bytes: &[u8], seq: u64) -> Option<FrameHeader> {
        if bytes.len() < FRAME_HEADER_BYTES
            || frame_crc(seq, bytes) != get_u32(bytes, 60)
            || get_u32(bytes, 52) >= get_u32(bytes, 56)
        {
            return None;
        }
        let mut partition = PartitionId {
            topic: TopicId(get(bytes, 8)),
            index: i32::from_le_bytes(get(bytes, 4)),
        };
        let first = i64::from_le_bytes(get(bytes, 24));
        let second = i64::from_le_bytes(get(bytes, 32));
        let kind = match bytes[0] {
            KIND_APPEND => FrameKind::Append {
                base_offset: first,
                last_offset: second,
            },
            KIND_TRUNCATE => FrameKind::Truncate { to: first },
            KIND_LOG_START => FrameKind::LogStart { offset: first },
            KIND_EPOCH_START => FrameKind::EpochStart {
                epoch: i32::try_from(second).ok()?,
                offset: first,
            },
            KIND_DELETE => FrameKind::DeletePartition,
            KIND_SEAL => FrameKind::Seal,
            KIND_BOOT => {
                let discarded = (second == 1).then(|| Discarded {
                    generation: get_u64(bytes, 8),
                    position: first as u64,
                    length: get_u64(bytes, 16),
                });
                partition.topic = TopicId([0; 16]);
                FrameKind::Boot { discarded }
            }
            _ => return None,
        };
        Some(FrameHeader {
            kind,
            partition,
            batch_position: get_u32(bytes, 40),
            batch_length: get_u32(bytes, 44),
            batch_crc: get_u32(bytes, 48),
            index: get_u32(bytes, 52),
            count: get_u32(bytes, 56),
        })
    }

    /// The frame, if its batch verifies. `batch` is what lies at the batch's place (empty for other kinds).
    pub(crate) fn frame(&self, batch: &[u8]) -> Option<Frame> {
        let body = match self.kind {
            FrameKind::Append {
                base_offset,
                last_offset,
            } => {
                if batch.len() != self.batch_length as usize
                    || crc32c::crc32c(batch) != self.batch_crc
                    || batch.len() < BATCH_PREFIX_BYTES
                {
                    return None;
                }
                FrameBody::Append {
                    base_offset,
                    last_offset,
                    batch: Batch {
                        prefix: get(batch, 0),
                        body: bytes::Bytes::copy_from_slice(&batch[BATCH_PREFIX_BYTES..]),
                    },
                }
            }
            FrameKind::Truncate { to } => FrameBody::Truncate { to },
            FrameKind::LogStart { offset } => FrameBody::LogStart { offset },
            FrameKind::EpochStart { epoch, offset } => FrameBody::EpochStart { epoch, offset },
            FrameKind::DeletePartition => FrameBody::DeletePartition,
            FrameKind::Seal => FrameBody::Seal,
            FrameKind::Boot { discarded } => FrameBody::Boot { discarded },
        };
        Some(Frame {
            partition: self.partition,
            body,
        })
    }
}

/// The frame table of the last written group, which the next group carries once more.
#[derive(Debug, Clone, Default)]
pub(crate) struct PreviousTable {
    /// The encoded frame headers.
    pub(crate) bytes: Vec<u8>,
    /// The group's header CRC; 0 if unknown.
    pub(crate) header_crc: u32,
}

impl PreviousTable {
    /// The table of a group that recovery read (or pieced together).
    pub(crate) fn of(seq: u64, frames: &[FrameHeader], header_crc: u32) -> PreviousTable {
        let mut bytes = vec![0; frames.len() * FRAME_HEADER_BYTES];
        for (out, frame) in bytes.chunks_exact_mut(FRAME_HEADER_BYTES).zip(frames) {
            frame.encode(out, seq);
        }
        PreviousTable { bytes, header_crc }
    }
}

/// Everything of a group but its frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupPlace {
    pub(crate) file: FileHead,
    pub(crate) position: u64,
    pub(crate) boot: u64,
    pub(crate) seq: u64,
    pub(crate) durable_seq: u64,
}

fn batch_bytes(body: &FrameBody) -> usize {
    match body {
        FrameBody::Append { batch, .. } => batch.size(),
        FrameBody::Truncate { .. }
        | FrameBody::LogStart { .. }
        | FrameBody::EpochStart { .. }
        | FrameBody::DeletePartition
        | FrameBody::Seal
        | FrameBody::Boot { .. } => 0,
    }
}

/// What frames add to a group: their headers and batches.
pub(crate) fn frames_bytes(frames: &[Frame]) -> usize {
    let batches: usize = frames.iter().map(|frame| batch_bytes(&frame.body)).sum();
    frames.len() * FRAME_HEADER_BYTES + batches
}

/// Length of a group whose frames add `frames_bytes`, after a group with `previous` bytes of table.
pub(crate) fn group_bytes(frames_bytes: usize, previous: usize) -> usize {
    (GROUP_HEADER_BYTES + frames_bytes + previous).next_multiple_of(BLOCK_BYTES)
}

/// What a group needs at most besides its frames: a header, the previous table, and padding.
pub(crate) fn group_overhead(previous: usize) -> usize {
    GROUP_HEADER_BYTES + previous + BLOCK_BYTES
}

/// Encodes a group into `out` (resized to it) and makes `previous` its table.
pub(crate) fn encode_group(
    out: &mut AlignedBuf,
    place: &GroupPlace,
    frames: &[Frame],
    previous: &mut PreviousTable,
) {
    let length = group_bytes(frames_bytes(frames), previous.bytes.len());
    out.resize(length);
    let count = frames.len();
    let table_end = GROUP_HEADER_BYTES + count * FRAME_HEADER_BYTES;
    let previous_end = table_end + previous.bytes.len();
    out[table_end..previous_end].copy_from_slice(&previous.bytes);
    let mut at = previous_end;
    for (index, frame) in frames.iter().enumerate() {
        let start = at;
        if let FrameBody::Append { batch, .. } = &frame.body {
            out[at..at + BATCH_PREFIX_BYTES].copy_from_slice(&batch.prefix);
            at += BATCH_PREFIX_BYTES;
            out[at..at + batch.body.len()].copy_from_slice(&batch.body);
            at += batch.body.len();
        }
        let has_batch = at > start;
        let header = FrameHeader {
            kind: FrameKind::of(&frame.body),
            partition: frame.partition,
            batch_position: if has_batch { start as u32 } else { 0 },
            batch_length: (at - start) as u32,
            batch_crc: if has_batch {
                crc32c::crc32c(&out[start..at])
            } else {
                0
            },
            index: index as u32,
            count: count as u32,
        };
        let slot = GROUP_HEADER_BYTES + index * FRAME_HEADER_BYTES;
        header.encode(&mut out[slot..slot + FRAME_HEADER_BYTES], place.seq);
    }
    out[at..].fill(0);
    let mut header = GroupHeader {
        frame_count: count as u32,
        generation: place.file.generation,
        boot: place.boot,
        seq: place.seq,
        durable_seq: place.durable_seq,
        position: place.position,
        length: length as u32,
        previous_frame_count: (previous.bytes.len() / FRAME_HEADER_BYTES) as u32,
        previous_crc: previous.header_crc,
        payload_crc: crc32c::crc32c(&out[GROUP_HEADER_BYTES..]),
        header_crc: 0,
    };
    header.encode(&mut out[..GROUP_HEADER_BYTES], place.file.salt);
    previous.bytes.clear();
    previous
        .bytes
        .extend_from_slice(&out[GROUP_HEADER_BYTES..table_end]);
    previous.header_crc = header.header_crc;
}

/// One slot of the WAL manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ManifestSlot {
    pub(crate) number: u64,
    pub(crate) boot: u64,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) file_bytes: u64,
    /// Generation and salt, ascending.
    pub(crate) files: Vec<(u64, u64)>,
}

/// Where replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    /// The lowest group still needed.
    pub(crate) group: u64,
    /// Generation of the file that holds (or will hold) it.
    pub(crate) generation: u64,
    /// The first group of that file.
    pub(crate) first_group: u64,
}

/// What the bytes of a manifest slot are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SlotRead {
    Valid(ManifestSlot),
    Empty,
    Damaged,
    OtherVersion(u32),
}

impl ManifestSlot {
    pub(crate) fn encode(&self) -> AlignedBuf {
        assert!(
            self.files.len() <= MANIFEST_FILES_MAX,
            "the sizing bounds the number of files"
        );
        let mut out = AlignedBuf::zeroed(BLOCK_BYTES);
        out[..8].copy_from_slice(MANIFEST_MAGIC);
        put_u32(&mut out, 8, FORMAT_VERSION);
        put_u32(&mut out, 12, self.files.len() as u32);
        put_u64(&mut out, 16, self.number);
        put_u64(&mut out, 24, self.boot);
        put_u64(&mut out, 32, self.checkpoint.group);
        put_u64(&mut out, 40, self.checkpoint.generation);
        put_u64(&mut out, 48, self.checkpoint.first_group);
        put_u64(&mut out, 56, self.file_bytes);
        for (index, (generation, salt)) in self.files.iter().enumerate() {
            put_u64(&mut out, 64 + index * 16, *generation);
            put_u64(&mut out, 72 + index * 16, *salt);
        }
        let crc = crc32c::crc32c(&out[..BLOCK_BYTES - 4]);
        put_u32(&mut out, BLOCK_BYTES - 4, crc);
        out
    }

    pub(crate) fn decode(block: &[u8]) -> SlotRead {
        if block.iter().all(|byte| *byte == 0) {
            return SlotRead::Empty;
        }
        if block.len() != BLOCK_BYTES
            || &block[..8] != MANIFEST_MAGIC
            || crc32c::crc32c(&block[..BLOCK_BYTES - 4]) != get_u32(block, BLOCK_BYTES - 4)
        {
            return SlotRead::Damaged;
        }
        if get_u32(block, 8) != FORMAT_VERSION {
            return SlotRead::OtherVersion(get_u32(block, 8));
        }
        let count = get_u32(block, 12) as usize;
        if count > MANIFEST_FILES_MAX || get_u64(block, 56) > FILE_BYTES_MAX {
            return SlotRead::Damaged;
        }
        let file = |at: usize| (get_u64(block, at), get_u64(block, at + 8));
        SlotRead::Valid(ManifestSlot {
            number: get_u64(block, 16),
            boot: get_u64(block, 24),
            checkpoint: Checkpoint {
                group: get_u64(block, 32),
                generation: get_u64(block, 40),
                first_group: get_u64(block, 48),
            },
            file_bytes: get_u64(block, 56),
            files: (0..count).map(|at| file(64 + at * 16)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u64) -> GroupPlace {
        GroupPlace {
            file: FileHead {
                generation: 3,
                salt: 0x1122_3344_5566_7788,
                file_bytes: 1 << 20,
            },
            position: 8192,
            boot: 2,
            seq,
            durable_seq: seq - 1,
        }
    }

    fn frame(index: i32, body: FrameBody) -> Frame {
        Frame {
            partition: PartitionId {
                topic: TopicId(*b"0123456789abcdef"),
                index,
            },
            body,
        }
    }

    fn append(size: usize, base_offset: i64) -> FrameBody {
        let bytes: Vec<u8> = (0..size).map(|i| i as u8).collect();
        FrameBody::Append {
            base_offset,
            last_offset: base_offset + 4,
            batch: Batch::from_bytes(&bytes.into()).unwrap(),
        }
    }

    fn decode(group: &[u8], place: &GroupPlace) -> (GroupHeader, Vec<Frame>) {
        let header = GroupHeader::decode(group, &place.file, place.position).unwrap();
        assert!(header.payload_verifies(group));
        let frames = (0..header.frame_count as usize)
            .map(|index| {
                let at = GROUP_HEADER_BYTES + index * FRAME_HEADER_BYTES;
                let head = FrameHeader::decode(&group[at..], header.seq).unwrap();
                let start = head.batch_position as usize;
                head.frame(&group[start..start + head.batch_length as usize])
                    .unwrap()
            })
            .collect();
        (header, frames)
    }

    #[test]
    fn golden_group() {
        let mut out = AlignedBuf::zeroed(0);
        let mut previous = PreviousTable::default();
        let frames = [frame(5, append(20, 0x0102_0304))];
        encode_group(&mut out, &place(7), &frames, &mut previous);
        assert_eq!(out.len(), BLOCK_BYTES);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&out[..76]),
            concat!(
                "4b45454c57414c47",
                "01000000",
                "01000000",
                "0300000000000000",
                "0200000000000000",
                "0700000000000000",
                "0600000000000000",
                "0020000000000000",
                "00100000",
                "00000000",
                "00000000",
                "c25c5322",
                "00000000"
            )
        );
        assert_eq!(hex(&out[76..80]), "a6d6f196");
        assert_eq!(
            hex(&out[80..144]),
            concat!(
                "01000000",
                "05000000",
                "30313233343536373839616263646566",
                "0403020100000000",
                "0803020100000000",
                "90000000",
                "14000000",
                "e6eb79cc",
                "00000000",
                "01000000",
                "3b6bce55"
            )
        );
        assert_eq!(
            hex(&out[144..164]),
            "000102030405060708090a0b0c0d0e0f10111213"
        );
        assert!(out[164..].iter().all(|byte| *byte == 0));
        assert_eq!(previous.bytes, out[80..144]);
    }

    #[test]
    fn golden_head_and_manifest() {
        let head = place(1).file.encode();
        assert_eq!(FileHead::decode(&head), Some(place(1).file));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&head[..40]),
            "4b45454c57414c460100000000000000030000000000000088776655443322110000100000000000"
        );
        let slot = ManifestSlot {
            number: 9,
            boot: 4,
            checkpoint: Checkpoint {
                group: 100,
                generation: 3,
                first_group: 90,
            },
            file_bytes: 1 << 20,
            files: vec![(3, 0xaabb), (4, 0xccdd)],
        };
        let bytes = slot.encode();
        assert_eq!(
            hex(&bytes[..96]),
            concat!(
                "4b45454c57414c4d",
                "01000000",
                "02000000",
                "0900000000000000",
                "0400000000000000",
                "6400000000000000",
                "0300000000000000",
                "5a00000000000000",
                "0000100000000000",
                "0300000000000000",
                "bbaa000000000000",
                "0400000000000000",
                "ddcc000000000000"
            )
        );
        assert_eq!(ManifestSlot::decode(&bytes), SlotRead::Valid(slot));
        assert_eq!(ManifestSlot::decode(&[0; BLOCK_BYTES]), SlotRead::Empty);
        for at in [0, 8, 70, 4000, 4095] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 4;
            assert_eq!(ManifestSlot::decode(&damaged), SlotRead::Damaged, "{at}");
        }
    }

    #[test]
    fn every_kind_of_frame_comes_back_and_the_next_group_carries_the_table() {
        let discarded = Some(Discarded {
            generation: 9,
            position: 4096,
            length: 77,
        });
        let frames = vec![
            frame(0, append(16, 0)),
            frame(1, FrameBody::Truncate { to: 5 }),
            frame(2, FrameBody::LogStart { offset: i64::MAX }),
            frame(
                3,
                FrameBody::EpochStart {
                    epoch: 7,
                    offset: 9,
                },
            ),
            frame(i32::MAX, FrameBody::DeletePartition),
            frame(4, append(9000, 1 << 40)),
        ];
        let own = |body| super::super::writer::own_frame(body);
        let mut out = AlignedBuf::zeroed(0);
        let mut previous = PreviousTable::default();
        encode_group(&mut out, &place(1), &frames, &mut previous);
        let (header, decoded) = decode(&out, &place(1));
        assert_eq!(decoded, frames);
        let table = previous.bytes.clone();
        let second = [
            own(FrameBody::Seal),
            own(FrameBody::Boot { discarded }),
            own(FrameBody::Boot { discarded: None }),
        ];
        encode_group(&mut out, &place(2), &second, &mut previous);
        let (next, decoded) = decode(&out, &place(2));
        assert_eq!(decoded, second);
        assert_eq!(next.previous_crc, header.header_crc);
        assert_eq!(out[next.previous_table()..][..table.len()], table);
        let first = FrameHeader::decode(&table, 1).unwrap();
        assert_eq!(
            FrameHeader::decode(&table, 2),
            None,
            "a frame header belongs to one group"
        );
        assert_eq!(
            PreviousTable::of(1, &[first], 0).bytes,
            table[..FRAME_HEADER_BYTES]
        );
    }

    /// Random groups survive the round trip, and any one flipped bit is noticed. The seed is in every message.
    #[test]
    fn random_groups_round_trip_and_any_flipped_bit_is_noticed() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let mut chance = |bound: u64| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z ^ (z >> 31)) % bound
            };
            let frames: Vec<Frame> = (0..1 + chance(20))
                .map(|index| {
                    let offset = chance(1 << 50) as i64;
                    let body = match chance(3) {
                        0 => FrameBody::LogStart { offset },
                        _ => append(16 + chance(3000) as usize, offset),
                    };
                    frame(index as i32, body)
                })
                .collect();
            let mut previous = PreviousTable {
                bytes: vec![0xee; chance(5) as usize * FRAME_HEADER_BYTES],
                header_crc: 1,
            };
            let mut out = AlignedBuf::zeroed(0);
            encode_group(&mut out, &place(3), &frames, &mut previous);
            assert_eq!(decode(&out, &place(3)).1, frames, "seed {seed}");
            let at = chance(out.len() as u64) as usize;
            out[at] ^= 1 << chance(8);
            let header = GroupHeader::decode(&out, &place(3).file, place(3).position);
            assert!(
                header.is_none_or(|h| !h.payload_verifies(&out)),
                "seed {seed}, byte {at}"
            );
        }
    }

    #[test]
    fn an_endless_file_is_no_file() {
        let head = FileHead {
            generation: 1,
            salt: 2,
            file_bytes: FILE_BYTES_MAX,
        };
        assert_eq!(FileHead::decode(&head.encode()), Some(head));
        let endless = FileHead {
            file_bytes: u64::MAX >> 8,
            ..head
        };
        assert_eq!(FileHead::decode(&endless.encode()), None);
        let slot = ManifestSlot {
            number: 1,
            file_bytes: u64::MAX >> 8,
            ..ManifestSlot::default()
        };
        assert_eq!(ManifestSlot::decode(&slot.encode()), SlotRead::Damaged);
    }

    #[test]
    fn hostile_bytes_are_no_header() {
        let mut out = AlignedBuf::zeroed(0);
        encode_group(
            &mut out,
            &place(7),
            &[frame(5, append(20, 1))],
            &mut PreviousTable::default(),
        );
        let file = place(7).file;
        assert!(GroupHeader::decode(&out, &file, 8192).is_some());
        assert!(
            GroupHeader::decode(&out, &file, 12288).is_none(),
            "another position"
        );
        let other = FileHead { salt: 1, ..file };
        assert!(
            GroupHeader::decode(&out, &other, 8192).is_none(),
            "another salt"
        );
        let other = FileHead {
            generation: 4,
            ..file
        };
        assert!(
            GroupHeader::decode(&out, &other, 8192).is_none(),
            "another generation"
        );
        for length in 0..GROUP_HEADER_BYTES {
            assert!(GroupHeader::decode(&out[..length], &file, 8192).is_none());
        }
        // A length or a count beyond the file, with a CRC that fits.
        for (at, value) in [(56, u32::MAX), (56, 5), (12, u32::MAX), (60, u32::MAX)] {
            let mut hostile = out.to_vec();
            put_u32(&mut hostile, at, value);
            let crc = salted_crc(file.salt, &hostile[..76]);
            put_u32(&mut hostile, 76, crc);
            assert!(GroupHeader::decode(&hostile, &file, 8192).is_none(), "{at}");
        }
    }
}
