//! The read-back verifier: groups that were just written are read from their file again, through the decoder of recovery.
//!
//! Owns which groups are read back: all of a start's first ones, later a sample. Never delays a commit: what cannot be
//! taken at once is not taken. Never writes, and decides nothing about what it finds: the sink is told.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::metrics::{Reason, Stage};

use super::files::file_name;
use super::format::FileHead;
use super::scan::Scanner;
use super::writer::Shared;
use super::{Misread, WalOpenError};

/// Later, one group is read back in this time at most.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
/// Groups that wait to be read back; more are passed over.
const WAITING_MAX: usize = 256;

/// A group as it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) head: FileHead,
    pub(crate) position: u64,
    pub(crate) length: u64,
    pub(crate) seq: u64,
}

/// The queue between the writer and the verifier.
pub(crate) struct ReadBack {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    waiting: VecDeque<Written>,
    /// So many groups are still taken without exception.
    first: u64,
    /// Whether groups are read back at all.
    on: bool,
    sampled: Instant,
    stop: bool,
}

impl ReadBack {
    /// Takes the first `groups`, then samples; 0: takes none.
    pub(crate) fn new(groups: u64) -> Self {
        ReadBack {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                first: groups,
                on: groups > 0,
                sampled: Instant::now(),
                stop: false,
            }),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state.lock().on
    }

    /// A group is durable. Called by the writer; never waits for a read.
    pub(crate) fn offer(&self, group: Written) {
        let mut state = self.state.lock();
        let due = state.first > 0 || state.sampled.elapsed() >= SAMPLE_PERIOD;
        if !state.on || !due || state.waiting.len() >= WAITING_MAX {
            return;
        }
        state.first = state.first.saturating_sub(1);
        state.sampled = Instant::now();
        state.waiting.push_back(group);
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Written> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(group) = state.waiting.pop_front() {
                return Some(group);
            }
            self.wake.wait(&mut state);
        }
    }
}

/// The thread's body.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(group) = shared.read_back.next() {
        match read(shared, &group) {
            Ok(frames) => shared.metrics.decoded(Stage::Append, frames, group.length),
            // A file that has lost its name is used again: all that was in it is in segments.
            Err(reason) if is_there(shared, &group) => shared.sink.misread(&Misread {
                seq: group.seq,
                file: Path::new("wal").join(file_name(group.head.generation)),
                position: group.position,
                reason,
            }),
            Err(_) => {}
        }
    }
}

fn is_there(shared: &Shared, group: &Written) -> bool {
    let path = shared.files.path(group.head.generation);
    shared.files.disk().exists(&path).unwrap_or(true)
}

/// Reads one group as a recovery would that begins with it. Returns the number of its frames.
fn read(shared: &Shared, group: &Written) -> Result<u64, Reason> {
    let files = &shared.files;
    let path = files.path(group.head.generation);
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut scanner = Scanner::of_one(Arc::clone(files.disk()), dir, group);
    let found = scanner.next().map_err(|error| match error {
        WalOpenError::Io { .. } => Reason::Io,
        WalOpenError::Missing { .. } => Reason::MissingFile,
        WalOpenError::NoRoom { .. } | WalOpenError::Refused { .. } => Reason::HeaderCrc,
    })?;
    match found {
        Some(found) if found.seq == group.seq => match (found.damage, found.lost.first()) {
            (None, None) => Ok(found.frames.len() as u64),
            (Some(reason), _) => Err(reason),
            (None, Some(lost)) => Err(lost.reason),
        },
        // Nothing testifies for it yet: it is what a start would cut off.
        Some(_) | None => Err(scanner.why_not_whole()),
    }
}
