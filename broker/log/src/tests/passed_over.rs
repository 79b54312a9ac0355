//! Entries of `.sum` that are true by themselves and pass over offsets: a write that was lost left an older entry. The
//! read, the scrubber and `log verify` each tell of them, whoever comes first.

use std::path::{Path, PathBuf};

use super::sim::sim_options;
use super::support::{
    Rng, append, batch, open_partition, partition_id, read_everything, stored, verify,
};
use crate::disk::SimDisk;
use crate::metrics::{HealthState, Reason, Source, Stage};
use crate::partition::format::{SUM_ENTRY_BYTES, SegmentEntry, SumEntry, decode_sum, encode_sum};
use crate::stepped::Stepped;
use crate::{PartitionConfig, PartitionId};

const DIR: &str = "/data";
/// Batches of one flush, which are one extent; each has two records.
const FLUSH_BATCHES: usize = 4;
const BATCH_OFFSETS: i64 = 2;
const EXTENT_OFFSETS: i64 = FLUSH_BATCHES as i64 * BATCH_OFFSETS;
/// Extents of the first segment.
const EXTENTS: usize = 3;

fn id() -> PartitionId {
    partition_id(1, 0)
}

/// A volume after a clean stop: a segment of three extents, and one behind it, so that the first one's entries are in
/// its file.
struct Volume {
    disk: SimDisk,
    batches: Vec<(i64, Vec<u8>)>,
}

impl Volume {
    fn filled() -> Volume {
        let disk = SimDisk::new(1);
        let mut stepped = Stepped::open(&disk, sim_options()).unwrap();
        let mut rng = Rng::new(1);
        let mut batches = Vec::new();
        let flush = |stepped: &mut Stepped, batches: &mut Vec<(i64, Vec<u8>)>, rng: &mut Rng| {
            let partition = stepped.log.partition(id()).unwrap();
            for _ in 0..FLUSH_BATCHES {
                let bytes = batch(rng, 1000, BATCH_OFFSETS as u64, 300);
                let base = append(&partition, &bytes).unwrap().base_offset;
                batches.push((base, stored(&bytes, base)));
            }
            stepped.write().unwrap();
            stepped.settle().unwrap();
        };
        open_partition(&stepped.log, id(), PartitionConfig::default());
        for _ in 0..EXTENTS {
            flush(&mut stepped, &mut batches, &mut rng);
        }
        let partition = stepped.log.partition(id()).unwrap();
        partition.update_config(PartitionConfig {
            segment_bytes: 1,
            ..PartitionConfig::default()
        });
        flush(&mut stepped, &mut batches, &mut rng);
        drop(partition);
        stepped.stop().unwrap();
        disk.kill();
        Volume { disk, batches }
    }

    fn sums(&self) -> PathBuf {
        let mut files = self.disk.files(&Path::new(DIR).join("p"));
        files.retain(|file| file.extension().is_some_and(|e| e == "sum"));
        files.remove(0)
    }

    fn entry(&self, number: usize) -> SumEntry {
        let bytes = self.disk.contents(&self.sums()).unwrap();
        assert_eq!(bytes.len(), EXTENTS * SUM_ENTRY_BYTES);
        let at = number * SUM_ENTRY_BYTES;
        decode_sum(
            SegmentEntry::empty(0).seed(),
            &bytes[at..at + SUM_ENTRY_BYTES],
        )
        .unwrap()
    }

    fn put(&self, number: usize, entry: &SumEntry) {
        let bytes = encode_sum(SegmentEntry::empty(0).seed(), entry);
        let at = (number * SUM_ENTRY_BYTES) as u64;
        self.disk.overwrite(&self.sums(), at, &bytes);
    }

    /// The extent as it was when it had its first batch alone.
    fn shorten(&self, number: usize) {
        let mut entry = self.entry(number);
        assert_eq!(entry.batches as usize, FLUSH_BATCHES);
        let (_, first) = &self.batches[number * FLUSH_BATCHES];
        entry.end_offset = entry.base_offset + BATCH_OFFSETS;
        (entry.length, entry.batches) = (first.len() as u32, 1);
        entry.crc = crc32c::crc32c(first);
        self.put(number, &entry);
    }

    /// What `log verify` says: problems and its lines.
    fn verify(&self) -> (u64, String) {
        verify(&self.disk)
    }

    fn without(&self, (from, to): (i64, i64)) -> Vec<(i64, Vec<u8>)> {
        let kept = self.batches.iter();
        let kept = kept.filter(|(base, _)| !(from..=to).contains(base));
        kept.cloned().collect()
    }
}

/// What damage costs: offsets, inclusive, and what tells of them.
fn check(what: &str, damage: impl Fn(&Volume), lost: (i64, i64), reason: Reason) {
    let volume = Volume::filled();
    assert_eq!(volume.verify().0, 0, "{what}: {}", volume.verify().1);
    damage(&volume);
    let (problems, lines) = volume.verify();
    assert_eq!(problems, 1, "{what}: {lines}");
    let words = format!("offsets={}..={} reason={reason} ", lost.0, lost.1);
    assert!(lines.contains(&words), "{what}: {lines}");
    for by_scrub in [true, false] {
        let disk = volume.disk.copy(2);
        let stepped = Stepped::open(&disk, sim_options()).unwrap();
        let partition = stepped.log.partition(id()).unwrap();
        let stage = if by_scrub { Stage::Scrub } else { Stage::Fetch };
        let read = || {
            let found = read_everything(&partition, 1 << 20);
            assert!(
                found == (volume.without(lost), vec![lost]),
                "{what}: {stage:?}"
            );
        };
        match by_scrub {
            true => stepped.scrub(),
            false => read(),
        }
        let health = stepped.log.health();
        let told: Vec<_> = health.unhealthy.iter().collect();
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert_eq!((told[0].from, told[0].to), lost, "{what}: {stage:?}");
        assert_eq!((told[0].reason, told[0].stage), (reason, stage), "{what}");
        assert_eq!(health.states, [HealthState::Degraded, HealthState::Corrupt]);
        let metrics = stepped.metrics();
        assert_eq!(
            metrics.decode_errors_with(stage, Source::Segment, reason),
            1
        );
        // Whoever comes second has no news, and both see the same.
        stepped.scrub();
        read();
        assert_eq!(metrics.decode_errors_total(), 1, "{what}: {stage:?}");
    }
}

#[test]
fn offsets_in_front_of_an_extent_are_told_by_all_three() {
    for number in 0..EXTENTS - 1 {
        let base = number as i64 * EXTENT_OFFSETS;
        check(
            &format!("entry {number} is short"),
            |volume| volume.shorten(number),
            (base + BATCH_OFFSETS, base + EXTENT_OFFSETS - 1),
            Reason::Offsets,
        );
    }
}

#[test]
fn an_older_entry_in_the_place_of_another_is_told_by_all_three() {
    check(
        "entry 0 twice",
        |volume| volume.put(1, &volume.entry(0)),
        (EXTENT_OFFSETS, 2 * EXTENT_OFFSETS - 1),
        Reason::Offsets,
    );
}

#[test]
fn offsets_behind_the_last_extent_of_a_segment_are_told_by_all_three() {
    let base = (EXTENTS as i64 - 1) * EXTENT_OFFSETS;
    check(
        "the last entry is short",
        |volume| volume.shorten(EXTENTS - 1),
        (base + BATCH_OFFSETS, base + EXTENT_OFFSETS - 1),
        Reason::Truncated,
    );
}
