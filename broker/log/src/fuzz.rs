//! The door through which fuzz targets reach the decoders of this crate; only with the feature `fuzz`.
//!
//! Owns, for each structure on disk: a good specimen, how its checksums are set right after a change (random bytes alone
//! never get behind a checksum), and what must hold of whatever decodes. Never decodes anything itself.

mod reseal;
mod start;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use keelson_protocol::batch::verify_crc;
use keelson_protocol::builder::BatchBuilder;
use keelson_state::producers::{ProducerBatch, ProducerTable};

use crate::disk::{AlignedBuf, BLOCK_BYTES, Disk};
use crate::health::UnhealthyRange;
use crate::ids::{PartitionId, TopicId};
use crate::metrics::{Reason, Source, Stage};
use crate::node::{self, NodeIdentity};
use crate::offline::Directory;
use crate::partition::ends::Tails;
use crate::partition::format::{
    IDX_ENTRY_BYTES, IdxEntry, Manifest, SUM_ENTRY_BYTES, SegmentEntry, SnapshotRef, SumEntry,
    decode_idx, decode_manifest, decode_producers, decode_sum, encode_idx, encode_manifest,
    encode_producers, encode_sum,
};
use crate::partition::slots::decode_slots;
use crate::partition::walk::{Expect, walk};
use crate::verify::{Report, VerifyError, verify_directory};
use crate::wal::format::{
    Checkpoint, FRAME_HEADER_BYTES, FileHead, FrameHeader, GROUP_HEADER_BYTES, GroupHeader,
    GroupPlace, ManifestSlot, PreviousTable, SlotRead, encode_group,
};
use crate::wal::{Batch, Frame, FrameBody, WalReader};

pub use reseal::reseal;
use reseal::{
    put, reseal_batches, reseal_counted, reseal_entry, reseal_group, reseal_node,
    reseal_wal_manifest,
};
pub use start::ByHand;

/// Whose partition the specimens are.
const PARTITION: PartitionId = PartitionId {
    topic: TopicId(*b"fuzzed partition"),
    index: 3,
};
/// The file that the specimen of a group stands in.
const FILE: FileHead = FileHead {
    generation: 1,
    salt: 0x5a17_5a17_5a17_5a17,
    file_bytes: 1 << 20,
};
const SEGMENT_BASE: i64 = 100;
/// Longest group that is tried.
const GROUP_BYTES_MAX: usize = 16 * BLOCK_BYTES;

/// `input`, cut or filled with zeros to `length`.
fn sized(input: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = input[..input.len().min(length)].to_vec();
    bytes.resize(length, 0);
    bytes
}

/// One slot of the WAL's manifest, which holds the checkpoint.
pub fn wal_manifest(input: &[u8]) {
    let raw = sized(input, BLOCK_BYTES);
    let mut sealed = raw.clone();
    put(&mut sealed, 0, b"KEELWALM");
    put(&mut sealed, 8, &1_u32.to_le_bytes());
    reseal_wal_manifest(&mut sealed, 0);
    for block in [raw, sealed] {
        if let SlotRead::Valid(slot) = ManifestSlot::decode(&block) {
            assert_eq!(
                ManifestSlot::decode(&slot.encode()),
                SlotRead::Valid(slot),
                "what was decoded comes back"
            );
        }
    }
}

/// A good slot.
pub fn wal_manifest_specimen() -> Vec<u8> {
    let slot = ManifestSlot {
        number: 7,
        boot: 2,
        checkpoint: Checkpoint {
            group: 40,
            generation: 5,
            first_group: 33,
        },
        file_bytes: FILE.file_bytes,
        files: vec![(5, 0x1111), (6, 0x2222), (7, 0x3333)],
    };
    slot.encode().to_vec()
}

/// A commit group: its header, both frame tables and the batches they name.
pub fn wal_group(input: &[u8]) {
    let length = input
        .len()
        .clamp(1, GROUP_BYTES_MAX)
        .next_multiple_of(BLOCK_BYTES);
    let raw = sized(input, length);
    let mut sealed = raw.clone();
    put(&mut sealed, 0, b"KEELWALG");
    put(&mut sealed, 8, &1_u32.to_le_bytes());
    put(&mut sealed, 16, &FILE.generation.to_le_bytes());
    put(&mut sealed, 48, &(BLOCK_BYTES as u64).to_le_bytes());
    put(&mut sealed, 56, &(length as u32).to_le_bytes());
    reseal_group(&mut sealed, FILE.salt);
    for group in [raw, sealed] {
        if let Some(header) = GroupHeader::decode(&group, &FILE, BLOCK_BYTES as u64) {
            frames_of(&header, &group);
        }
    }
}

fn frames_of(header: &GroupHeader, group: &[u8]) {
    let tables = GROUP_HEADER_BYTES
        + (header.frame_count as usize + header.previous_frame_count as usize) * FRAME_HEADER_BYTES;
    assert!(
        tables <= header.length as usize,
        "the tables of a header that verifies lie inside its group"
    );
    let Some(group) = group.get(..header.length as usize) else {
        return;
    };
    let mut frames = Vec::new();
    for entry in group[GROUP_HEADER_BYTES..tables].chunks_exact(FRAME_HEADER_BYTES) {
        for seq in [header.seq, header.seq - 1] {
            let Some(frame) = FrameHeader::decode(entry, seq) else {
                continue;
            };
            let end = u64::from(frame.batch_position) + u64::from(frame.batch_length);
            let batch = group.get(frame.batch_position as usize..end as usize);
            frames.extend(frame.frame(batch.unwrap_or_default()));
        }
    }
    come_back(header, &frames);
}

/// Frames that were decoded, encoded again, are the same.
fn come_back(header: &GroupHeader, frames: &[Frame]) {
    if frames.is_empty() {
        return;
    }
    let place = GroupPlace {
        file: FileHead {
            file_bytes: u64::MAX / 2,
            ..FILE
        },
        position: BLOCK_BYTES as u64,
        boot: header.boot,
        seq: header.seq,
        durable_seq: header.durable_seq,
    };
    let mut out = AlignedBuf::zeroed(BLOCK_BYTES);
    encode_group(&mut out, &place, frames, &mut PreviousTable::default());
    let again = GroupHeader::decode(&out, &place.file, place.position)
        .expect("what this crate encodes, it decodes");
    assert!(
        again.payload_verifies(&out),
        "the payload is what it was encoded as"
    );
    for (index, frame) in frames.iter().enumerate() {
        let entry = &out[GROUP_HEADER_BYTES + index * FRAME_HEADER_BYTES..];
        let head = FrameHeader::decode(entry, again.seq).expect("a frame header comes back");
        let batch = &out[head.batch_position as usize..][..head.batch_length as usize];
        assert_eq!(head.frame(batch).as_ref(), Some(frame), "frame {index}");
    }
}

/// A good group of appends and control frames.
pub fn wal_group_specimen() -> Vec<u8> {
    let mut builder = BatchBuilder::new(1_000);
    builder.push(Some(b"key"), Some(b"value"));
    let append = FrameBody::Append {
        base_offset: 5,
        last_offset: 5,
        batch: Batch::from_bytes(&builder.build()).expect("a batch has a prefix"),
    };
    let bodies = [
        FrameBody::EpochStart {
            epoch: 2,
            offset: 5,
        },
        append,
        FrameBody::Truncate { to: 4 },
        FrameBody::LogStart { offset: 3 },
        FrameBody::DeletePartition,
    ];
    let frames = bodies.map(|body| Frame {
        partition: PARTITION,
        body,
    });
    let place = GroupPlace {
        file: FILE,
        position: BLOCK_BYTES as u64,
        boot: 1,
        seq: 9,
        durable_seq: 8,
    };
    let mut out = AlignedBuf::zeroed(BLOCK_BYTES);
    let mut previous = PreviousTable::default();
    encode_group(&mut out, &place, &frames, &mut previous);
    let next = GroupPlace { seq: 10, ..place };
    encode_group(&mut out, &next, &frames[..2], &mut previous);
    out.to_vec()
}

/// Both slots of a partition's manifest.
pub fn partition_manifest(input: &[u8]) {
    let mut sealed = input.to_vec();
    let capacity = sealed.len() / 2;
    for slot in 0..2 {
        let content = &mut sealed[slot * capacity..(slot + 1) * capacity];
        put(content, 0, b"KEELMANI");
        put(content, 8, &1_u16.to_le_bytes());
        reseal_counted(content);
    }
    for bytes in [input, &sealed] {
        let loaded = decode_slots(bytes, PARTITION);
        let found = loaded.slots.map(|slots| slots.manifest);
        for manifest in decode_manifest(bytes).into_iter().chain(found) {
            assert_eq!(
                decode_manifest(&encode_manifest(&manifest)),
                Ok(manifest),
                "what was decoded comes back"
            );
        }
    }
}

/// A good manifest with an entry of each kind.
pub fn partition_manifest_specimen() -> Vec<u8> {
    let mut manifest = Manifest::empty(PARTITION);
    manifest.seq = 3;
    (manifest.applied_group, manifest.applied_frame) = (12, 1);
    (manifest.log_start, manifest.next_offset) = (10, 300);
    manifest.snapshot = Some(SnapshotRef {
        file: 1,
        offset: 300,
    });
    for base_offset in [10, SEGMENT_BASE] {
        manifest.segments.push(SegmentEntry {
            log_bytes: 9_000,
            sum_bytes: 80,
            idx_bytes: 96,
            generation: u32::from(base_offset == 10),
            cleaned: base_offset == 10,
            first_timestamp: 1_000,
            max_timestamp: 2_000,
            ..SegmentEntry::empty(base_offset)
        });
    }
    manifest.epochs = vec![(0, 0), (2, 150)];
    manifest.created = vec![300];
    manifest.dropped = vec![0];
    manifest.quarantined.push(UnhealthyRange {
        partition: Some(PARTITION),
        from: 20,
        to: 29,
        file: "p/x/3/00000000000000000010.log".to_owned(),
        position: 77,
        reason: Reason::BatchCrc,
        source: Source::Segment,
        stage: Stage::Fetch,
        since_ms: 5_000,
    });
    manifest.tails = Tails {
        sum: sum_specimen().to_vec(),
        idx: idx_specimen().to_vec(),
    };
    let mut bytes = sized(&encode_manifest(&manifest), BLOCK_BYTES);
    manifest.seq += 1;
    bytes.extend(sized(&encode_manifest(&manifest), BLOCK_BYTES));
    bytes
}

/// One slot of `node.meta`.
pub fn node_meta(input: &[u8]) {
    let raw = sized(input, BLOCK_BYTES);
    let mut sealed = raw.clone();
    put(&mut sealed, 0, b"KEELNODE");
    put(&mut sealed, 8, &1_u32.to_le_bytes());
    reseal_node(&mut sealed);
    for block in [raw, sealed] {
        if let node::SlotRead::Valid(slot) = node::decode(&block) {
            let node::SlotRead::Valid(again) = node::decode(&node::encode(&slot)) else {
                panic!("what this crate encodes, it decodes: {slot:?}");
            };
            assert_eq!(again.identity, slot.identity, "what was decoded comes back");
            assert_eq!(again.generation, slot.generation);
        }
    }
}

/// A good slot.
pub fn node_meta_specimen() -> Vec<u8> {
    node::encode(&node::Slot {
        generation: 4,
        identity: NodeIdentity {
            cluster_id: "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
            broker_id: 7,
            directory_id: PARTITION.topic.to_string(),
        },
        replaces: None,
        scrubbed_ms: 0,
        exit: "stopped".to_owned(),
    })
}

/// A producer snapshot and the table in it.
pub fn producers(input: &[u8]) {
    let mut sealed = input.to_vec();
    put(&mut sealed, 0, b"KEELPROD");
    put(&mut sealed, 8, &1_u16.to_le_bytes());
    reseal_counted(&mut sealed);
    for bytes in [input, &sealed] {
        if let Ok((offset, table)) = decode_producers(bytes, PARTITION)
            && let Ok(table) = ProducerTable::decode(table)
        {
            let again = encode_producers(PARTITION, offset, &table.encode());
            let (found, bytes) =
                decode_producers(&again, PARTITION).expect("a snapshot comes back");
            assert_eq!((found, bytes), (offset, &table.encode()[..]));
        }
    }
}

/// A good snapshot.
pub fn producers_specimen() -> Vec<u8> {
    let mut table = ProducerTable::new();
    for producer_id in [4, 9] {
        let batch = ProducerBatch {
            producer_id,
            epoch: 1,
            base_sequence: 0,
            last_sequence: 4,
            transactional: false,
        };
        table.record(&batch, 10, 14, 1_000);
    }
    encode_producers(PARTITION, SEGMENT_BASE, &table.encode())
}

fn sum_specimen() -> [u8; SUM_ENTRY_BYTES] {
    let entry = SumEntry {
        position: 4_096,
        base_offset: SEGMENT_BASE + 8,
        end_offset: SEGMENT_BASE + 20,
        length: 900,
        crc: 7,
        batches: 3,
    };
    encode_sum(SEGMENT_BASE, &entry)
}

fn idx_specimen() -> [u8; IDX_ENTRY_BYTES] {
    let entry = IdxEntry {
        offset: SEGMENT_BASE + 8,
        position: 4_096,
        max_timestamp_before: 1_500,
    };
    encode_idx(SEGMENT_BASE, &entry)
}

/// An entry of `.sum` and one of `.idx`.
pub fn entries(input: &[u8]) {
    let mut sum = sized(input, SUM_ENTRY_BYTES);
    let mut idx = sized(input, IDX_ENTRY_BYTES);
    for _ in 0..2 {
        if let Ok(entry) = decode_sum(SEGMENT_BASE, &sum) {
            assert_eq!(encode_sum(SEGMENT_BASE, &entry)[..], sum[..]);
        }
        if let Ok(entry) = decode_idx(SEGMENT_BASE, &idx) {
            let again = encode_idx(SEGMENT_BASE, &entry);
            assert_eq!(decode_idx(SEGMENT_BASE, &again), Ok(entry));
        }
        reseal_entry(&mut sum, SEGMENT_BASE);
        reseal_entry(&mut idx, SEGMENT_BASE);
    }
}

/// A good entry of each.
pub fn entries_specimens() -> [Vec<u8>; 2] {
    [sum_specimen().to_vec(), idx_specimen().to_vec()]
}

/// The walk over an extent's batches. The first bytes say what is known about it, the rest is the extent.
pub fn extent(input: &[u8]) {
    let Some((known, raw)) = input.split_first_chunk::<EXTENT_PREFIX_BYTES>() else {
        return;
    };
    let base_offset = i64::from(known[0]);
    let end_offset = base_offset + i64::from(u16::from_le_bytes([known[1], known[2]]));
    let epochs = [(i32::from(known[3]), 0), (i32::from(known[3]) + 1, 1 << 40)];
    let gap = (
        base_offset + i64::from(known[4]),
        base_offset + i64::from(known[4]) + i64::from(known[5] % 16),
    );
    let anchor = (
        base_offset + i64::from(known[6]),
        usize::from(u16::from_le_bytes([known[7], known[8]])),
    );
    let expect = Expect {
        base_offset,
        end_offset,
        epochs: &epochs[..usize::from(known[9] % 3)],
        gaps: if known[9] & 4 == 0 { &[] } else { &[gap] },
        anchors: if anchor.1 < raw.len() { &[anchor] } else { &[] },
    };
    let mut sealed = raw.to_vec();
    reseal_batches(&mut sealed);
    for bytes in [raw, &sealed] {
        every_offset_once(bytes, expect);
    }
}

const EXTENT_PREFIX_BYTES: usize = 10;

/// Each offset of the extent is in exactly one batch or hole, in order; each batch is whole.
fn every_offset_once(bytes: &[u8], expect: Expect<'_>) {
    let found = walk(bytes, expect);
    let mut at = 0;
    let mut ranges: Vec<(i64, i64)> = found.holes.iter().map(|h| (h.from, h.to)).collect();
    for piece in &found.batches {
        assert!(piece.at >= at, "batches lie one behind the other");
        at = piece.at + piece.length;
        verify_crc(&bytes[piece.at..at]).expect("a batch that is given verifies");
        ranges.push((piece.header.base_offset, piece.header.last_offset()));
    }
    ranges.sort_unstable();
    let skip = |next: i64| {
        let gap = expect
            .gaps
            .iter()
            .find(|(from, to)| (*from..=*to).contains(&next));
        gap.map_or(next, |(_, to)| to + 1)
    };
    let mut next = expect.base_offset;
    for (from, to) in ranges {
        assert_eq!(skip(next), from, "every offset once, none left out");
        assert!(to >= from && to < expect.end_offset.max(from + 1));
        next = to + 1;
    }
    assert!(
        skip(next) >= expect.end_offset,
        "offsets from {next} to {} are neither read nor told",
        expect.end_offset
    );
}

/// A good extent of three batches.
pub fn extent_specimen() -> Vec<u8> {
    let mut bytes = vec![5, 6, 0, 1, 0, 0, 0, 0, 0, 1];
    let mut base = 5;
    for records in [1, 3, 2] {
        let mut builder = BatchBuilder::new(1_000 + base);
        for number in 0..records {
            builder.push(Some(b"key"), Some(format!("value {number}").as_bytes()));
        }
        let mut batch = builder.build().to_vec();
        keelson_protocol::patch_offset_and_epoch(&mut batch, base, 1);
        bytes.extend(batch);
        base += records;
    }
    bytes
}

/// The frames of a WAL, read as `log verify` reads them; gives the number of groups.
pub fn scan_wal(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<usize, String> {
    let reader = WalReader::open(disk, data_dir).map_err(|error| error.to_string())?;
    let mut groups = 0;
    if let Some(mut reader) = reader {
        while reader.next().map_err(|error| error.to_string())?.is_some() {
            groups += 1;
        }
    }
    Ok(groups)
}

/// `log verify` on any disk.
pub fn verify_on(
    disk: Arc<dyn Disk>,
    data_dir: &Path,
    out: &mut dyn Write,
) -> Result<Report, VerifyError> {
    verify_directory(&Directory::open_on(disk, data_dir)?, &|_| None, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specimens_decode_and_a_reseal_changes_nothing_in_them() {
        let base = format!("p/t/3/{SEGMENT_BASE:020}");
        let [sum, idx] = entries_specimens();
        let cases = [
            ("wal/manifest".to_owned(), wal_manifest_specimen()),
            ("p/t/3/manifest".to_owned(), partition_manifest_specimen()),
            ("node.meta".to_owned(), node_meta_specimen()),
            ("p/t/3/producers.1".to_owned(), producers_specimen()),
            (format!("{base}.sum"), sum),
            (format!("{base}.idx"), idx),
            (
                format!("{base}.log"),
                extent_specimen()[EXTENT_PREFIX_BYTES..].to_vec(),
            ),
        ];
        for (file, specimen) in cases {
            let mut bytes = specimen.clone();
            reseal(&file, &mut bytes, 0);
            assert!(bytes == specimen, "{file}");
        }
        let mut group = wal_group_specimen();
        reseal_group(&mut group, FILE.salt);
        assert!(group == wal_group_specimen(), "a group");
        let header = GroupHeader::decode(&group, &FILE, BLOCK_BYTES as u64);
        assert!(header.is_some_and(|header| header.payload_verifies(&group)));
    }
}
