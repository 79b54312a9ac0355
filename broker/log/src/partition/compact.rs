//! What compaction decides: which segments are cleaned, and which records of them stay. Kafka's rules (`LogCleaner`,
//! KIP-58, KIP-354, KIP-534).
//!
//! Owns the choice. Pure: no file, no clock, no lock; [`crate::partition::rewrite`] carries it out.
//!
//! ```text
//!   cleaned  cleaned | dirty  dirty | too young   active
//!                     ^ map of keys ^
//!   ^---------- written anew -------^
//! ```
//! The newest offset of each key in the dirty part is put into a map; then all segments up to its end are filtered by it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use keelson_protocol::batch::BatchHeader;
use keelson_protocol::records::Record;
use keelson_state::producers::AbortedTransaction;

use super::format::SegmentEntry;
use crate::options::CompactionConfig;

/// What one key costs in the map: two hashes, an offset, and what a table leaves free.
const KEY_BYTES: u64 = 32;
/// Fewer keys in a pass would make passes without end.
const KEYS_MIN: u64 = 1024;

/// Segments that can be cleaned now, by their places in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cleanable {
    /// The first one that no pass has seen whole.
    pub(crate) dirty: usize,
    /// The first one that is left alone.
    pub(crate) end: usize,
}

impl Cleanable {
    /// Dirty bytes among those before `end`.
    pub(crate) fn ratio(&self, segments: &[SegmentEntry]) -> f64 {
        let bytes = |range: Range<usize>| segments[range].iter().map(|s| s.log_bytes).sum::<u64>();
        bytes(self.dirty..self.end) as f64 / bytes(0..self.end).max(1) as f64
    }
}

/// What is to be cleaned, if anything is. The last segment never is: appends go there.
pub(crate) fn cleanable(
    segments: &[SegmentEntry],
    config: &CompactionConfig,
    now_ms: i64,
) -> Option<Cleanable> {
    let dirty = segments.iter().position(|s| !s.cleaned)?;
    let is_young = |s: &SegmentEntry| {
        config.min_lag_ms > 0 && now_ms.saturating_sub(s.max_timestamp) < config.min_lag_ms
    };
    let old = segments[dirty..].iter().take_while(|s| !is_young(s));
    let end = (dirty + old.count()).min(segments.len() - 1);
    if dirty >= end {
        return None;
    }
    let found = Cleanable { dirty, end };
    let first = segments[dirty].first_timestamp;
    let is_due = first >= 0 && now_ms.saturating_sub(first) > config.max_lag_ms;
    let ratio = found.ratio(segments);
    (ratio > config.min_cleanable_dirty_ratio || is_due).then_some(found)
}

/// Segments that become one: neighbours, as long as they fit into one together as they are.
pub(crate) fn groups(
    segments: &[SegmentEntry],
    end: usize,
    segment_bytes: u64,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, segment) in segments[..end].iter().enumerate() {
        let next = segments.get(at + 1).map_or(i64::MAX, |s| s.base_offset);
        match groups.last_mut() {
            Some(group)
                if bytes + segment.log_bytes <= segment_bytes
                    && next - segments[group.start].base_offset <= i64::from(i32::MAX) =>
            {
                group.end = at + 1;
                bytes += segment.log_bytes;
            }
            Some(_) | None => {
                groups.push(at..at + 1);
                bytes = segment.log_bytes;
            }
        }
    }
    groups
}

/// The newest offset of each key in a stretch of the log. Keys are kept as 128 bits of keyed hash, made anew for each map.
pub(crate) struct OffsetMap {
    hashers: [RandomState; 2],
    offsets: HashMap<[u64; 2], i64>,
    keys_max: usize,
    /// Offset after the last batch that went in whole.
    pub(crate) end: i64,
}

impl OffsetMap {
    /// A map of at most so many bytes for the log from `start` on.
    pub(crate) fn new(bytes_max: u64, start: i64) -> Self {
        OffsetMap {
            hashers: [RandomState::new(), RandomState::new()],
            offsets: HashMap::new(),
            keys_max: (bytes_max / KEY_BYTES).max(KEYS_MIN) as usize,
            end: start,
        }
    }

    /// Whether the keys of a batch fit for sure. The first batch has room, whatever its size.
    pub(crate) fn has_room_for(&self, header: &BatchHeader) -> bool {
        let records = usize::try_from(header.records_count).unwrap_or(0);
        self.offsets.is_empty() || self.offsets.len() + records <= self.keys_max
    }

    /// A record with this key stands at this offset. Offsets ascend.
    pub(crate) fn note(&mut self, key: &[u8], offset: i64) {
        let key = self.hash(key);
        self.offsets.insert(key, offset);
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)]
    }

    /// Whether a record is out of date: a newer one with its key is in the stretch. So is one without a key, which says
    /// nothing about anything.
    fn is_outdated(&self, key: Option<&[u8]>, offset: i64) -> bool {
        let newest = key.map(|key| self.offsets.get(&self.hash(key)));
        newest.is_none_or(|newest| newest.is_some_and(|newest| *newest > offset))
    }
}

/// Which offsets belong to transactions that were aborted, by producer; in order.
#[derive(Debug, Default)]
pub(crate) struct Aborted(HashMap<i64, Vec<(i64, i64)>>);

impl Aborted {
    pub(crate) fn new(transactions: &[AbortedTransaction]) -> Self {
        let mut by_producer: HashMap<i64, Vec<(i64, i64)>> = HashMap::new();
        for aborted in transactions {
            let ranges = by_producer.entry(aborted.producer_id).or_default();
            ranges.push((aborted.first_offset, aborted.last_offset));
        }
        Aborted(by_producer)
    }

    /// Whether a batch was part of a transaction that was aborted.
    pub(crate) fn has(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() || header.is_control() {
            return false;
        }
        let Some(ranges) = self.0.get(&header.producer_id) else {
            return false;
        };
        let at = ranges.partition_point(|(_, last)| *last < header.base_offset);
        ranges
            .get(at)
            .is_some_and(|(first, _)| *first <= header.base_offset)
    }
}

/// What becomes of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkerFate {
    /// It stays as it is.
    Stays,
    /// Nothing is left that it commits: it stays until the horizon that is to be set.
    Waits,
    /// Its horizon is over.
    Goes,
}

/// What becomes of the end of a transaction of which `has_data` is left. A marker of an abort stays: readers that were told
/// of the abort wait for it.
pub(crate) fn marker_fate(
    header: &BatchHeader,
    commit: bool,
    has_data: bool,
    now_ms: i64,
) -> MarkerFate {
    match header.delete_horizon_ms() {
        _ if has_data || !commit => MarkerFate::Stays,
        None => MarkerFate::Waits,
        Some(horizon) if now_ms >= horizon => MarkerFate::Goes,
        Some(_) => MarkerFate::Stays,
    }
}

/// Which records of one batch stay.
pub(crate) struct Filter<'a> {
    pub(crate) map: &'a OffsetMap,
    pub(crate) aborted: &'a Aborted,
    pub(crate) now_ms: i64,
}

impl Filter<'_> {
    /// Whether a batch is left as it is, whatever is in it: behind the stretch.
    pub(crate) fn passes_over(&self, header: &BatchHeader) -> bool {
        header.base_offset >= self.map.end
    }

    /// Whether a record stays.
    pub(crate) fn stays(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if self.aborted.has(header) {
            return false;
        }
        let horizon = header.delete_horizon_ms();
        let is_over = record.value.is_none() && horizon.is_some_and(|at| self.now_ms >= at);
        !is_over && !self.map.is_outdated(record.key, offset)
    }
}

#[cfg(test)]
mod tests {
    use keelson_protocol::builder::BatchBuilder;
    use keelson_protocol::records::{RecordWalker, decompressed};

    use super::*;

    fn segment(base: i64, log_bytes: u64, cleaned: bool, max_timestamp: i64) -> SegmentEntry {
        SegmentEntry {
            log_bytes,
            cleaned,
            first_timestamp: max_timestamp,
            max_timestamp,
            ..SegmentEntry::empty(base)
        }
    }

    /// Two cleaned segments of 100 bytes, two dirty ones of 60, and the active one; times 100 to 500.
    fn segments() -> Vec<SegmentEntry> {
        vec![
            segment(0, 100, true, 100),
            segment(10, 100, true, 200),
            segment(20, 60, false, 300),
            segment(30, 60, false, 400),
            segment(40, 10, false, 500),
        ]
    }

    #[test]
    fn kafkas_rules_for_when() {
        let config = CompactionConfig::default();
        let with = |change: &dyn Fn(&mut CompactionConfig), now_ms| {
            let mut config = config;
            change(&mut config);
            cleanable(&segments(), &config, now_ms).map(|c| (c.dirty, c.end))
        };
        assert_eq!(with(&|_| {}, 1_000), None, "120 of 320 bytes");
        let eager = |c: &mut CompactionConfig| c.min_cleanable_dirty_ratio = 0.3;
        assert_eq!(with(&eager, 1_000), Some((2, 4)));
        // The ratio is of what may be cleaned: with one dirty segment 60 of 260.
        let lag = |c: &mut CompactionConfig| {
            (c.min_cleanable_dirty_ratio, c.min_lag_ms) = (0.24, 600);
        };
        assert_eq!(with(&lag, 900), None, "segment 2 is 600 old, segment 3 500");
        let lag = |c: &mut CompactionConfig| {
            (c.min_cleanable_dirty_ratio, c.min_lag_ms) = (0.23, 600);
        };
        assert_eq!(with(&lag, 900), Some((2, 3)));
        assert_eq!(with(&lag, 899), None);
        let overdue = |c: &mut CompactionConfig| c.max_lag_ms = 600;
        assert_eq!(with(&overdue, 900), None);
        assert_eq!(with(&overdue, 901), Some((2, 4)));
        assert_eq!(cleanable(&[], &config, 0), None);
        let active = [segment(0, 100, false, 0)];
        assert_eq!(cleanable(&active, &config, i64::MAX), None);
        let all_clean = [segment(0, 100, true, 0), segment(10, 0, true, 0)];
        assert_eq!(cleanable(&all_clean, &config, i64::MAX), None);
    }

    #[test]
    fn neighbours_that_fit_become_one() {
        let of = |end, bytes| groups(&segments(), end, bytes);
        assert_eq!(of(4, 10), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(of(4, 200), [0..2, 2..4]);
        assert_eq!(of(4, 319), [0..3, 3..4]);
        assert_eq!(of(4, 320), vec![0..4; 1]);
        let far = [
            segment(0, 1, false, 0),
            segment(1 << 31, 1, false, 0),
            segment((1 << 31) + 9, 1, false, 0),
        ];
        assert_eq!(groups(&far, 2, 100), [0..1, 1..2]);
    }

    #[test]
    fn the_newest_of_each_key_stays_and_a_tombstone_until_its_time() {
        let mut map = OffsetMap::new(0, 0);
        for (offset, key) in [b"a", b"b", b"a", b"c"].into_iter().enumerate() {
            map.note(key, offset as i64);
        }
        map.end = 4;
        let mut builder = BatchBuilder::new(0);
        builder.push(Some(b"a"), Some(b"1"));
        builder.push(Some(b"b"), None);
        builder.push(Some(b"a"), Some(b"2"));
        builder.push(None, Some(b"no key"));
        builder.push(Some(b"new"), Some(b"1"));
        let bytes = builder.build();
        let mut header = BatchHeader::parse(&bytes).unwrap();
        let records = decompressed(&bytes, 1 << 20).unwrap();
        let stays = |header: &BatchHeader, now_ms| -> Vec<bool> {
            let filter = Filter {
                map: &map,
                aborted: &Aborted::default(),
                now_ms,
            };
            let walker = RecordWalker::new(&records, header.records_count);
            let all = walker.map(|record| filter.stays(header, &record.unwrap()));
            all.collect()
        };
        assert_eq!(stays(&header, 99), [false, true, true, false, true]);
        header.attributes |= 0x40;
        header.base_timestamp = 100;
        assert_eq!(stays(&header, 99), [false, true, true, false, true]);
        assert_eq!(stays(&header, 100), [false, false, true, false, true]);
        let filter = Filter {
            map: &map,
            aborted: &Aborted::default(),
            now_ms: 0,
        };
        assert!(!filter.passes_over(&header));
        header.base_offset = 4;
        assert!(filter.passes_over(&header));
    }

    #[test]
    fn a_map_is_bounded_but_takes_one_batch_of_any_size() {
        let mut map = OffsetMap::new(0, 0);
        let mut builder = BatchBuilder::new(0);
        for _ in 0..2 * KEYS_MIN {
            builder.push(Some(b"k"), None);
        }
        let large = BatchHeader::parse(&builder.build()).unwrap();
        assert!(map.has_room_for(&large));
        map.note(b"k", 0);
        assert!(!map.has_room_for(&large));
    }
}
