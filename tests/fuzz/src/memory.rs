//! The allocator of all targets: bounded as a whole, and counted by thread, so that a target can say what one call held.
//!
//! Owns both counts. What a thread frees that another took counts for the one that frees.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cap::Cap;

/// What the whole process may hold. The largest lawful need is a snappy block (32 MiB) and what a batch decompresses to
/// (4 MiB here), for each of up to four tests at once.
const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

thread_local! {
    /// What this thread holds now, and the most it has held since it was asked last.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counted(Cap<System>);

#[global_allocator]
static ALLOCATOR: Counted = Counted(Cap::new(System, MEMORY_BYTES_MAX));

fn count(bytes: isize) {
    // A thread that ends has no counter any more, and is not asked for it.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

#[allow(unsafe_code)] // Every call goes to the bounded allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as isize - layout.size() as isize);
        unsafe { self.0.realloc(pointer, layout, bytes) }
    }
}

/// The most memory that this thread has held at once while `work` ran, beyond what it held before.
pub(crate) fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let result = work();
    let (_, most) = HELD.get();
    (result, usize::try_from(most - before).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_was_held_at_once_is_told() {
        let (_, most) = most_held(|| {
            drop(vec![0_u8; 1_000]);
            vec![0_u8; 500]
        });
        assert_eq!(most, 1_000);
    }
}
