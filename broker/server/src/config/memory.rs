//! What the machine says about memory: the container's limit and the kernel's overcommit policy.
//!
//! Owns the defaults worked out from it. Reads a few small files of the kernel, once, at the start.

/// Default of `keelson.tail.memory.bytes` where the container allows it.
const TAIL_MEMORY_DEFAULT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Part of the container's limit that the tail may take.
const TAIL_MEMORY_DIVISOR: u64 = 4;
/// Below this nothing works; a container that small is refused by the kernel soon enough.
const TAIL_MEMORY_DEFAULT_BYTES_MIN: u64 = 8 * 1024 * 1024;

const CGROUP_LIMIT_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The smaller of 256 MiB and a quarter of the container's limit.
pub(super) fn tail_memory_default_bytes() -> u64 {
    let limit = CGROUP_LIMIT_FILES
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok())
        .and_then(|text| text.trim().parse::<u64>().ok());
    tail_of(limit)
}

fn tail_of(limit: Option<u64>) -> u64 {
    let quarter = limit.map_or(u64::MAX, |bytes| bytes / TAIL_MEMORY_DIVISOR);
    quarter.clamp(TAIL_MEMORY_DEFAULT_BYTES_MIN, TAIL_MEMORY_DEFAULT_BYTES_MAX)
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
    use super::tail_of;

    #[test]
    fn a_quarter_of_the_limit_within_bounds() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(tail_of(None), 256 * MIB);
        assert_eq!(tail_of(Some(512 * MIB)), 128 * MIB);
        assert_eq!(tail_of(Some(16 * 1024 * MIB)), 256 * MIB);
        assert_eq!(tail_of(Some(MIB)), 8 * MIB);
    }
}
