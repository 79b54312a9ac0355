//! What waits for the WAL writer: two queues, bounded in bytes.
//!
//! Owns the order of submits. Never waits for the disk: a submit is a lock, a push, and a wake-up if the writer sleeps.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::format::frames_bytes;
use super::{Class, Frame, QueueFull};

struct Submit {
    frames: Vec<Frame>,
    bytes: usize,
}

#[derive(Default)]
struct Lane {
    submits: VecDeque<Submit>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    data: Lane,
    control: Lane,
    sleeping: bool,
    /// Something waits that may not be written for lack of a free file.
    starved: bool,
    /// Something outside the queue changed (a file stands by): look again.
    nudged: bool,
    stop: Option<Stop>,
}

/// How the writer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Write what is queued, seal.
    Clean,
    /// At once.
    Abandon,
}

/// What woke the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Frames were taken.
    Frames,
    /// Somebody wants the writer to look around.
    Nudged,
    /// The deadline passed, and nothing that may be written waits.
    Deadline,
    /// Nothing that may be written waits, and none will.
    Stopped(Stop),
}

/// How much a group may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A group is closed when it has this many bytes of frames.
    pub(crate) target_bytes: usize,
    /// Bytes of frames for which data may use the files; 0 leaves all to control.
    pub(crate) data_bytes: usize,
    /// The same for control.
    pub(crate) control_bytes: usize,
}

pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    data_bytes_max: usize,
    control_bytes_max: usize,
}

impl Queue {
    pub(crate) fn new(data_bytes_max: usize, control_bytes_max: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            wake: Condvar::new(),
            data_bytes_max,
            control_bytes_max,
        }
    }

    /// A lane that is empty takes any submit, so that a large one is never refused for ever.
    pub(crate) fn push(&self, class: Class, frames: Vec<Frame>) -> Result<(), QueueFull> {
        let bytes = frames_bytes(&frames);
        let mut state = self.state.lock();
        let (lane, bytes_max) = match class {
            Class::Data => (&mut state.data, self.data_bytes_max),
            Class::Control => (&mut state.control, self.control_bytes_max),
        };
        if !lane.submits.is_empty() && lane.bytes + bytes > bytes_max {
            return Err(QueueFull);
        }
        lane.bytes += bytes;
        lane.submits.push_back(Submit { frames, bytes });
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Something that decides what may be written has changed.
    pub(crate) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self, how: Stop) {
        self.state.lock().stop.get_or_insert(how);
        self.wake.notify_one();
    }

    pub(crate) fn is_starved(&self) -> bool {
        self.state.lock().starved
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        let state = self.state.lock();
        state.data.bytes + state.control.bytes
    }

    /// Waits until frames may be written, the deadline passes, or the end; takes what one group holds into `frames`.
    /// Control goes first. `limits` is asked under the queue's lock, at each look.
    pub(crate) fn take(
        &self,
        frames: &mut Vec<Frame>,
        deadline: Option<Instant>,
        mut limits: impl FnMut() -> Limits,
    ) -> Woken {
        let mut state = self.state.lock();
        loop {
            if state.stop == Some(Stop::Abandon) {
                return Woken::Stopped(Stop::Abandon);
            }
            if !state.data.submits.is_empty() || !state.control.submits.is_empty() {
                let limits = limits();
                let mut taken = 0;
                let State { control, data, .. } = &mut *state;
                control.drain(
                    frames,
                    &mut taken,
                    limits.control_bytes,
                    limits.target_bytes,
                );
                data.drain(frames, &mut taken, limits.data_bytes, limits.target_bytes);
                state.starved = frames.is_empty();
                if !frames.is_empty() {
                    return Woken::Frames;
                }
            }
            if let Some(stop) = state.stop {
                return Woken::Stopped(stop);
            }
            if std::mem::take(&mut state.nudged) {
                return Woken::Nudged;
            }
            state.sleeping = true;
            let timed_out = match deadline {
                Some(deadline) => self.wake.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            state.sleeping = false;
            if timed_out {
                return Woken::Deadline;
            }
        }
    }
}

impl Lane {
    fn drain(&mut self, frames: &mut Vec<Frame>, taken: &mut usize, allowed: usize, target: usize) {
        while let Some(next) = self.submits.front() {
            let fits = *taken + next.bytes <= allowed;
            let closed = *taken > 0 && *taken + next.bytes > target;
            if !fits || closed {
                return;
            }
            let Some(mut submit) = self.submits.pop_front() else {
                return;
            };
            self.bytes -= submit.bytes;
            *taken += submit.bytes;
            frames.append(&mut submit.frames);
        }
    }
}
