//! Threads that work beside the clients at a set rate (the scrubber, the compactor), and how they end.
//!
//! Owns pauses and the end, both without a delay for whoever stops them. Knows nothing of the work.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Pauses are not shorter than this: what is owed adds up first.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// A thread that can be told to end.
pub(crate) struct Background {
    name: &'static str,
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stop {
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Background {
    /// One that does not run yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Background {
            name,
            stop: Arc::new(Stop::default()),
            thread: Mutex::new(None),
        }
    }

    /// Starts the thread, which may handle so many bytes a second.
    pub(crate) fn start(
        &self,
        bytes_per_second: f64,
        body: impl FnOnce(Pace) + Send + 'static,
    ) -> io::Result<()> {
        let pace = self.pace(bytes_per_second);
        let builder = std::thread::Builder::new().name(self.name.to_owned());
        *self.thread.lock() = Some(builder.spawn(move || body(pace))?);
        Ok(())
    }

    /// What the work waits by.
    pub(crate) fn pace(&self, bytes_per_second: f64) -> Pace {
        Pace {
            stop: Arc::clone(&self.stop),
            bytes_per_second,
            owed: Duration::ZERO,
        }
    }

    /// Ends the thread; waits for the step it is in.
    pub(crate) fn stop(&self) {
        *self.stop.ended.lock() = true;
        self.stop.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!(thread = self.name, "a background thread ended by a panic");
        }
    }
}

/// What such a thread waits by.
pub(crate) struct Pace {
    stop: Arc<Stop>,
    bytes_per_second: f64,
    /// Time that the bytes handled so far must still take.
    owed: Duration,
}

impl Pace {
    /// Waits; true when the thread is to end.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut ended = self.stop.ended.lock();
        while !*ended && !self.stop.wake.wait_until(&mut ended, deadline).timed_out() {}
        *ended
    }

    /// So many bytes a second from now on.
    pub(crate) fn set_rate(&mut self, bytes_per_second: f64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Takes the time that these bytes may take; true when the thread is to end.
    pub(crate) fn pause(&mut self, bytes: u64) -> bool {
        self.owed += Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        if self.owed < PAUSE_MIN {
            return *self.stop.ended.lock();
        }
        let owed = std::mem::take(&mut self.owed);
        self.wait(owed)
    }
}
