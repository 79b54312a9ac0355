//! Retention by Kafka's rules: whole segments, by their newest timestamp or by the size of the rest.
//!
//! Owns the decision. Rolls need none: as in Kafka, a segment rolls when a batch comes that does not fit it any more. The log start moves by a WAL frame like any other move; the flusher drops the files after it.

use crate::options::PartitionConfig;
use crate::partition::Partition;
use crate::partition::format::SegmentEntry;
use crate::wal::{Class, Frame, FrameBody};

/// What retention looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) segments: &'a [SegmentEntry],
    /// Offset after the last flushed batch.
    pub(crate) flushed_end: i64,
    /// Bytes and newest timestamp of what is not flushed yet; it belongs to the last segment.
    pub(crate) tail_bytes: u64,
    pub(crate) tail_max_timestamp: Option<i64>,
    pub(crate) log_start: i64,
}

/// The log start that retention asks for; the present one when nothing is to go.
pub(crate) fn target(s: &Situation<'_>, config: &PartitionConfig, now_ms: i64) -> i64 {
    let mut log_start = s.log_start;
    let mut size: u64 = s.segments.iter().map(|e| e.log_bytes).sum::<u64>() + s.tail_bytes;
    for (at, segment) in s.segments.iter().enumerate() {
        let end = s
            .segments
            .get(at + 1)
            .map_or(s.flushed_end, |next| next.base_offset);
        let is_last = at + 1 == s.segments.len();
        if is_last && s.tail_bytes > 0 {
            // What is not flushed yet belongs to this segment: it goes with all of it, after the flush, or stays.
            break;
        }
        let expired = config.retention_ms >= 0
            && segment.max_timestamp >= 0
            && now_ms.saturating_sub(segment.max_timestamp) > config.retention_ms;
        let oversize = config.retention_bytes >= 0
            && size.saturating_sub(segment.log_bytes) >= config.retention_bytes as u64;
        if !(expired || oversize) {
            break;
        }
        size -= segment.log_bytes;
        log_start = log_start.max(end);
    }
    log_start
}

impl Partition {
    /// Asks for the log start that retention wants.
    pub(crate) fn apply_retention(&self, now_ms: i64) {
        let mut state = self.state.lock();
        if self.is_deleted() || self.is_truncating(&state) {
            return;
        }
        let config = state.config.clone();
        let situation = Situation {
            segments: &state.slots.manifest.segments,
            flushed_end: state.slots.manifest.next_offset,
            tail_bytes: state.tail.bytes(),
            tail_max_timestamp: state.tail.max_timestamp(),
            log_start: self.log_start(),
        };
        let offset = target(&situation, &config, now_ms);
        let tail_expired = config.retention_ms >= 0
            && situation
                .tail_max_timestamp
                .is_some_and(|t| now_ms.saturating_sub(t) > config.retention_ms);
        if tail_expired {
            self.request_flush(&mut state);
        }
        if offset <= self.log_start() || offset <= state.retention_target {
            return;
        }
        let frame = Frame {
            partition: self.id(),
            body: FrameBody::LogStart { offset },
        };
        if self.shared().submit(Class::Control, vec![frame]).is_ok() {
            state.retention_target = offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(base_offset: i64, log_bytes: u64, max_timestamp: i64) -> SegmentEntry {
        SegmentEntry {
            log_bytes,
            first_timestamp: 0,
            max_timestamp,
            ..SegmentEntry::empty(base_offset)
        }
    }

    fn check(retention_ms: i64, retention_bytes: i64, tail_bytes: u64, wanted: i64) {
        let segments = [
            segment(0, 100, 1000),
            segment(10, 100, 2000),
            segment(20, 50, 3000),
        ];
        let situation = Situation {
            segments: &segments,
            flushed_end: 25,
            tail_bytes,
            tail_max_timestamp: None,
            log_start: 0,
        };
        let config = PartitionConfig {
            retention_ms,
            retention_bytes,
            ..PartitionConfig::default()
        };
        assert_eq!(
            target(&situation, &config, 4000),
            wanted,
            "{retention_ms} {retention_bytes} {tail_bytes}"
        );
    }

    #[test]
    fn kafkas_rules() {
        check(-1, -1, 0, 0);
        check(2500, -1, 0, 10);
        check(1500, -1, 0, 20);
        check(500, -1, 0, 25);
        check(500, -1, 1, 20);
        check(-1, 250, 0, 0);
        check(-1, 150, 0, 10);
        check(-1, 149, 0, 10);
        check(-1, 50, 0, 20);
        check(-1, 0, 0, 25);
        check(-1, 0, 7, 20);
    }
}
