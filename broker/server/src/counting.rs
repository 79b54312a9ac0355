//! The allocator of this crate's tests: the system's, counted by thread, so that a test can say what a request costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static TAKEN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    // A thread that ends has no counter any more, and is not asked for it.
    let _ = TAKEN.try_with(|taken| {
        let (count, sum) = taken.get();
        taken.set((count + 1, sum + bytes as u64));
    });
}

#[allow(unsafe_code)] // Every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes.saturating_sub(layout.size()));
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// Allocations and their bytes that this thread has made while `work` ran.
pub(crate) fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64, u64) {
    let before = TAKEN.get();
    let result = work();
    let after = TAKEN.get();
    (result, after.0 - before.0, after.1 - before.1)
}
