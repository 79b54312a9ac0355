//! The WAL writer: one thread that turns what is queued into commit groups.
//!
//! Owns the current file, the buffer, and the sequence of groups. A group is one write call; it is published only after
//! that call said it is durable. Never retries, and never goes on after a failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::{AlignedBuf, DiskFile, Durability, OpenMode};
use crate::ids::{PartitionId, TopicId};
use crate::metrics::LogMetrics;
use crate::node::Node;

use super::files::{Files, Prepared};
use super::format::{
    FIRST_GROUP_POSITION, FileHead, GroupPlace, PreviousTable, encode_group, frames_bytes,
    group_bytes, group_overhead,
};
use super::queue::{Limits, Queue, Stop, Woken};
use super::readback::{ReadBack, Written};
use super::{DurableGroup, Frame, FrameBody, WalSink};

/// A group is closed at this many bytes: large enough for the disk's full speed, small enough to stay a short wait.
const GROUP_TARGET_BYTES: usize = 1 << 20;
/// A buffer that a single large submit made longer than this is given back.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// What the writer shares with the handle and the helper.
pub(crate) struct Shared {
    pub(crate) files: Files,
    pub(crate) queue: Queue,
    pub(crate) durable_group: AtomicU64,
    pub(crate) read_back: ReadBack,
    pub(crate) node: Arc<Node>,
    /// Nobody prescribed how large the WAL may be: it follows the volume.
    pub(crate) follows_volume: bool,
    pub(crate) sink: Arc<dyn WalSink>,
    pub(crate) metrics: Arc<LogMetrics>,
}

impl Shared {
    /// Keeps the first reason and ends the process.
    pub(crate) fn fatal(&self, reason: &str) -> ! {
        self.node.record_exit(reason);
        self.sink.fatal(reason)
    }
}

/// Where the next group goes, and what it must say about the one before.
pub(crate) struct Cursor {
    pub(crate) head: FileHead,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) position: u64,
    pub(crate) next_seq: u64,
    pub(crate) durable_seq: u64,
    pub(crate) boot: u64,
    pub(crate) previous: PreviousTable,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cursor: Cursor,
    pub(crate) buffer: AlignedBuf,
    pub(crate) group: DurableGroup,
    pub(crate) seal_after: Duration,
    /// Whether files are prepared here instead of in the helper thread.
    pub(crate) prepares: bool,
}

/// A frame that names no partition.
pub(crate) fn own_frame(body: FrameBody) -> Frame {
    Frame {
        partition: PartitionId {
            topic: TopicId([0; 16]),
            index: 0,
        },
        body,
    }
}

impl Writer {
    /// Runs until the queue is stopped.
    pub(crate) fn run(mut self) {
        // The boot group has just been written; it, too, gets a witness.
        let mut unsealed_since = Some(Instant::now());
        loop {
            match self.step(unsealed_since.map(|since| since + self.seal_after)) {
                Woken::Frames => unsealed_since = Some(Instant::now()),
                Woken::Nudged => {}
                Woken::Deadline => unsealed_since = None,
                Woken::Stopped(Stop::Abandon) => return,
                Woken::Stopped(Stop::Clean) => {
                    if unsealed_since.is_some() {
                        self.seal();
                    }
                    return;
                }
            }
        }
    }

    /// One group of what waits, or, when the deadline passes first, a seal.
    pub(crate) fn step(&mut self, deadline: Option<Instant>) -> Woken {
        if self.prepares {
            prepare_all(&self.shared);
        }
        let (queue, files, cursor) = (&self.shared.queue, &self.shared.files, &self.cursor);
        let woken = queue.take(&mut self.group.frames, deadline, || limits(files, cursor));
        match woken {
            Woken::Frames => self.commit(),
            Woken::Deadline => self.seal(),
            Woken::Nudged | Woken::Stopped(_) => {}
        }
        woken
    }

    /// Writes the frames in `self.group`, publishes them, and empties it.
    fn commit(&mut self) {
        let batches = self
            .group
            .frames
            .iter()
            .filter(|frame| matches!(frame.body, FrameBody::Append { .. }))
            .count();
        let bytes = self.write_or_die();
        self.shared.metrics.group_batches.observe(batches as f64);
        self.shared.metrics.group_bytes.observe(bytes as f64);
        self.shared.sink.durable(&mut self.group);
        self.group.frames.clear();
    }

    fn seal(&mut self) {
        // Without room there is no witness for the last group; its own CRCs still are.
        if limits(&self.shared.files, &self.cursor).control_bytes == 0 {
            return;
        }
        self.group.frames.push(own_frame(FrameBody::Seal));
        self.write_or_die();
        self.group.frames.clear();
    }

    fn write_or_die(&mut self) -> usize {
        match self.write_group() {
            Ok(bytes) => bytes,
            Err(error) => {
                let path = self.shared.files.path(self.cursor.head.generation);
                self.shared.fatal(&format!(
                    "the write-ahead log cannot be written: {}: {error}",
                    path.display()
                ))
            }
        }
    }

    /// Builds one group of `self.group.frames` and makes it durable. Returns its length.
    pub(crate) fn write_group(&mut self) -> io::Result<usize> {
        let started = Instant::now();
        let length = group_bytes(
            frames_bytes(&self.group.frames),
            self.cursor.previous.bytes.len(),
        );
        self.make_room(length)?;
        let cursor = &mut self.cursor;
        let place = GroupPlace {
            file: cursor.head,
            position: cursor.position,
            boot: cursor.boot,
            seq: cursor.next_seq,
            durable_seq: cursor.durable_seq,
        };
        encode_group(
            &mut self.buffer,
            &place,
            &self.group.frames,
            &mut cursor.previous,
        );
        assert_eq!(
            self.buffer.len(),
            length,
            "a group is as long as it was reckoned"
        );
        write_synced(
            cursor.file.as_ref(),
            &self.buffer,
            cursor.position,
            &self.shared.metrics,
        )?;
        self.group.seq = cursor.next_seq;
        self.group.generation = cursor.head.generation;
        let written = Written {
            head: cursor.head,
            position: cursor.position,
            length: length as u64,
            seq: cursor.next_seq,
        };
        self.shared.read_back.offer(written);
        cursor.durable_seq = cursor.next_seq;
        cursor.next_seq += 1;
        cursor.position += length as u64;
        self.shared
            .durable_group
            .store(cursor.durable_seq, Ordering::Release);
        if length > BUFFER_KEPT_BYTES {
            self.buffer = AlignedBuf::zeroed(0);
        }
        let took = started.elapsed().as_secs_f64();
        self.shared.metrics.append_duration.observe(took);
        Ok(length)
    }

    /// Goes on in the next file if the group does not fit.
    fn make_room(&mut self, length: usize) -> io::Result<()> {
        let cursor = &mut self.cursor;
        if cursor.position + length as u64 <= self.shared.files.end_of(&cursor.head) {
            return Ok(());
        }
        let files = &self.shared.files;
        let Some(head) = files.take_standby(cursor.next_seq) else {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no write-ahead log file is free",
            ));
        };
        cursor.file = files
            .disk()
            .open(&files.path(head.generation), OpenMode::Direct)?;
        cursor.head = head;
        cursor.position = FIRST_GROUP_POSITION;
        files.wake_helper();
        Ok(())
    }

    /// The first group of a start.
    pub(crate) fn write_boot(&mut self) -> io::Result<()> {
        self.write_group()?;
        self.group.frames.clear();
        Ok(())
    }
}

/// Prepares files until enough stand by.
pub(crate) fn prepare_all(shared: &Shared) {
    loop {
        match shared.files.prepare() {
            Ok(Prepared::Room) => shared.queue.nudge(),
            Ok(Prepared::Nothing) => return,
            Err(error) => shared.fatal(&format!(
                "a write-ahead log file cannot be prepared: {error}"
            )),
        }
    }
}

/// One synced write; where the file is not direct, the write and its sync apart.
fn write_synced(
    file: &dyn DiskFile,
    bytes: &[u8],
    position: u64,
    metrics: &LogMetrics,
) -> io::Result<()> {
    let started = Instant::now();
    if file.is_direct() {
        if let Err(error) = file.write_at(bytes, position, Durability::Synced) {
            // One call that is both.
            metrics.append_errors.inc();
            metrics.fsync_errors.inc();
            return Err(error);
        }
        metrics
            .fsync_duration
            .observe(started.elapsed().as_secs_f64());
        return Ok(());
    }
    file.write_at(bytes, position, Durability::Later)
        .inspect_err(|_| metrics.append_errors.inc())?;
    let started = Instant::now();
    file.sync_data()
        .inspect_err(|_| metrics.fsync_errors.inc())?;
    metrics
        .fsync_duration
        .observe(started.elapsed().as_secs_f64());
    Ok(())
}

/// What may be written now: control may use everything, data leaves one file's worth to control.
fn limits(files: &Files, cursor: &Cursor) -> Limits {
    let usable = files.sizing.file_bytes - FIRST_GROUP_POSITION;
    let (standby, reserve) = files.standby_and_reserve();
    let here = files.end_of(&cursor.head).saturating_sub(cursor.position);
    // A group goes here, or whole into the next file: then what is left here is wasted.
    let next = if standby > 0 { usable } else { 0 };
    let data_here = here.min((here + standby).saturating_sub(reserve));
    let data_next = next.min(standby.saturating_sub(reserve));
    let overhead = group_overhead(cursor.previous.bytes.len());
    let frames = |group: u64| (group as usize).saturating_sub(overhead);
    Limits {
        target_bytes: GROUP_TARGET_BYTES.min(files.sizing.submit_bytes_max()),
        data_bytes: frames(data_here.max(data_next)),
        control_bytes: frames(here.max(next)),
    }
}
