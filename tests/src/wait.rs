//! Waiting on a condition with a deadline. Never a bare sleep: what a test waits for always has a name and an end.

use std::time::{Duration, Instant};

/// How long one look at a condition is apart from the next.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; panics with `what` when `deadline` has passed.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

/// Waits until `probe` gives a value and returns it; panics with `what` when `deadline` has passed.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    try_wait_for(deadline, &mut probe).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// Waits until `probe` gives a value and returns it; `None` when `deadline` has passed.
pub fn try_wait_for<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        let found = probe();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(POLL_EVERY);
    }
}
