//! What the machine says about memory: the container's limit and the kernel's overcommit policy.
//!
//! Owns the bounds of memory that are worked out from it. Reads a few small files of the kernel, once, at the start.

use std::sync::LazyLock;

use keelson_protocol::frame::CONTROL_FRAME_BYTES_MAX;
use keelson_protocol::safe::DECODED_BYTES_MAX;

/// Bytes.
pub(super) const MIB: u64 = 1024 * 1024;
/// Bounds are worked out in these parts of the container's limit.
const PARTS_OF_LIMIT: u64 = 32;
/// Below this nothing works; a container that small is refused by the kernel soon enough.
const TAIL_BYTES_MIN: u64 = 8 * MIB;
/// One of the largest requests fits.
const CONTROL_BYTES_MIN: u64 = (CONTROL_FRAME_BYTES_MAX + DECODED_BYTES_MAX) as u64;
/// What is left of every other bound.
const BYTES_MIN: u64 = MIB;

/// How much memory each part of the process may hold, in bytes: as much as serves it well, and in a container a part of its
/// limit. All together they leave three eighths of a limit of 256 MiB and more to what is not counted: connections,
/// partitions, compaction's map of keys, what the allocator has not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Records that are not yet in a segment, and produce requests (`keelson.tail.memory.bytes`).
    pub tail: u64,
    /// Replies that carry records and are not yet written.
    pub replies: u64,
    /// Large requests without records, decoded.
    pub control: u64,
    /// Large requests without records that are still arriving.
    pub arriving_control: u64,
    /// Large replies without records that are not yet written.
    pub answers: u64,
    /// What waiting fetches keep of their requests.
    pub waiting: u64,
    /// Fetch sessions.
    pub fetch_sessions: u64,
    /// Verified pieces of segments that were read lately.
    pub extent_cache: u64,
}

impl MemoryBounds {
    /// The bounds under this limit.
    pub fn of(limit: Option<u64>) -> Self {
        let bound = |most: u64, parts: u64| {
            let part = limit.map_or(u64::MAX, |bytes| bytes / PARTS_OF_LIMIT * parts);
            part.clamp(BYTES_MIN, most)
        };
        Self {
            tail: bound(256 * MIB, 8).max(TAIL_BYTES_MIN),
            replies: bound(128 * MIB, 4),
            control: bound(96 * MIB, 2).max(CONTROL_BYTES_MIN),
            arriving_control: bound(16 * MIB, 1),
            answers: bound(32 * MIB, 1),
            waiting: bound(32 * MIB, 1),
            fetch_sessions: bound(32 * MIB, 1),
            extent_cache: bound(32 * MIB, 2),
        }
    }

    /// The bounds in this container, or outside of any, as they were when they were first asked for.
    pub fn here() -> Self {
        static HERE: LazyLock<MemoryBounds> = LazyLock::new(|| MemoryBounds::of(container_limit()));
        *HERE
    }
}

const CGROUP_LIMIT_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

fn container_limit() -> Option<u64> {
    CGROUP_LIMIT_FILES
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .and_then(|text| text.trim().parse().ok())
}

/// With strict overcommit accounting (`vm.overcommit_memory` = 2) a reservation that is never touched can fail, and
/// with it the process; that must be known before a client can cause it.
pub fn overcommit_warning() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").ok()?;
    (text.trim() == "2").then(|| {
        "vm.overcommit_memory is 2: large reservations can fail here; 0 or 1 is needed".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bounds: MemoryBounds) -> u64 {
        let MemoryBounds {
            tail,
            replies,
            control,
            arriving_control,
            answers,
            waiting,
            fetch_sessions,
            extent_cache,
        } = bounds;
        let requests = tail + control + arriving_control + waiting;
        requests + replies + answers + fetch_sessions + extent_cache
    }

    #[test]
    fn all_bounds_together_leave_room_within_the_limit() {
        for limit in [256, 300, 512, 1024, 2048, 64 * 1024] {
            let bounds = MemoryBounds::of(Some(limit * MIB));
            assert!(all(bounds) <= limit * MIB / 8 * 5, "{limit}: {bounds:?}");
        }
    }

    #[test]
    fn a_limit_that_is_large_or_not_there_binds_nothing() {
        let free = MemoryBounds::of(None);
        assert_eq!(MemoryBounds::of(Some(u64::MAX)), free);
        assert_eq!(MemoryBounds::of(Some(4096 * MIB)), free);
        assert_eq!((free.tail, free.replies), (256 * MIB, 128 * MIB));
    }

    #[test]
    fn a_tiny_limit_leaves_every_bound_something() {
        let tiny = MemoryBounds::of(Some(MIB));
        assert_eq!(tiny.tail, TAIL_BYTES_MIN);
        assert_eq!((tiny.replies, tiny.waiting), (BYTES_MIN, BYTES_MIN));
        assert_eq!(MemoryBounds::of(Some(512 * MIB)).tail, 128 * MIB);
    }
}
