//! The running WAL, as the rest of the crate holds it.
//!
//! Owns the threads. Never touches a file itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::node::Node;

use super::format::frames_bytes;
use super::queue::Stop;
use super::readback;
use super::recovery::WalRecovery;
use super::writer::{Shared, Writer, prepare_all};
use super::{Class, Frame, QueueFull, WalOpenError, WalOptions, WalStats};

/// The running WAL. Dropping it without [`Wal::shutdown`] ends the threads at once and leaves the disk as a kill would.
pub struct Wal {
    shared: Arc<Shared>,
    boot: u64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wal {
    /// Opens (or creates) `<data_dir>/wal`. `node` keeps the first reason of a failure.
    pub fn open(
        disk: Arc<dyn Disk>,
        node: Arc<Node>,
        options: WalOptions,
    ) -> Result<WalRecovery, WalOpenError> {
        WalRecovery::open(disk, node, options)
    }

    pub(crate) fn start(writer: Writer) -> io::Result<Wal> {
        let shared = Arc::clone(&writer.shared);
        let boot = writer.cursor.boot;
        let mut threads = Vec::new();
        if !writer.prepares {
            let shared = Arc::clone(&shared);
            shared.files.wake_helper();
            threads.push(
                std::thread::Builder::new()
                    .name("wal-files".to_owned())
                    .spawn(move || {
                        while shared.files.helper_waits() {
                            prepare_all(&shared);
                        }
                    })?,
            );
        }
        if shared.read_back.is_on() {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name("wal-read-back".to_owned());
            threads.push(builder.spawn(move || readback::run(&shared))?);
        }
        threads.push(
            std::thread::Builder::new()
                .name("wal-writer".to_owned())
                .spawn(move || writer.run())?,
        );
        Ok(Wal {
            shared,
            boot,
            threads: Mutex::new(threads),
        })
    }

    /// A WAL without threads: whoever holds its writer makes the steps (the simulator).
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn by_hand(writer: &Writer) -> Wal {
        Wal {
            shared: Arc::clone(&writer.shared),
            boot: writer.cursor.boot,
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Queues frames; queue order is replay order within a class, and all frames of one call land in one group.
    /// Panics if there are none, or if they need more than [`Wal::submit_bytes_max`].
    pub fn submit(&self, class: Class, frames: Vec<Frame>) -> Result<(), QueueFull> {
        assert!(
            !frames.is_empty() && frames_bytes(&frames) <= self.submit_bytes_max(),
            "callers check the size of a submit before they assign offsets"
        );
        self.shared.queue.push(class, frames)
    }

    /// The most bytes (batches, plus 64 per frame) that one submit may hold.
    pub fn submit_bytes_max(&self) -> usize {
        self.shared.files.sizing.submit_bytes_max()
    }

    /// The number of this start, from 1.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Groups below `group` are in segments: writes the checkpoint (synced) and lets files below be used again.
    /// An error is a failed write or sync: the caller ends the process.
    pub fn set_checkpoint(&self, group: u64) -> io::Result<()> {
        self.shared.files.set_checkpoint(group)?;
        self.shared.queue.nudge();
        Ok(())
    }

    /// Generation of the oldest file that the checkpoint still holds back, and the first group after that file (a
    /// checkpoint at that group or above frees it). `None` while only the current file is held.
    pub fn oldest_file(&self) -> Option<(u64, u64)> {
        self.shared.files.oldest().1
    }

    /// The most files that there may be.
    pub fn files_max(&self) -> usize {
        self.shared.files.files_max()
    }

    /// The volume has this size now: a WAL whose size nobody prescribed grows and shrinks its cap with it.
    pub fn follow_volume(&self, total_bytes: u64) {
        let files = &self.shared.files;
        if !self.shared.follows_volume {
            return;
        }
        let files_max = files.sizing.files_max_on(total_bytes);
        if files_max != files.files_max() {
            tracing::info!(
                total_bytes,
                files_max,
                file_bytes = files.sizing.file_bytes,
                "the volume has another size: so has the write-ahead log"
            );
            files.set_files_max(files_max);
            self.shared.queue.nudge();
        }
    }

    /// When free files run short and no further one may be made: the group that the checkpoint must reach to free one.
    pub fn wants_checkpoint(&self) -> Option<u64> {
        self.shared.files.wants_checkpoint()
    }

    /// Whether something waits that cannot be written until the checkpoint moves.
    pub fn is_starved(&self) -> bool {
        self.shared.queue.is_starved()
    }

    /// The highest durable group.
    pub fn durable_group(&self) -> u64 {
        self.shared.durable_group.load(Ordering::Acquire)
    }

    /// Numbers.
    pub fn stats(&self) -> WalStats {
        let (files, _) = self.shared.files.oldest();
        WalStats {
            files,
            size_bytes: files as u64 * self.shared.files.sizing.file_bytes,
            durable_group: self.durable_group(),
            oldest_group: self.shared.files.checkpoint().group,
            boot: self.boot,
            queued_bytes: self.shared.queue.queued_bytes() as u64,
        }
    }

    /// Writes what is queued, seals, and ends the threads.
    pub fn shutdown(&self) {
        self.end(Stop::Clean);
    }

    /// Ends the threads behind the group they are at; what is queued is dropped.
    pub(crate) fn abandon(&self) {
        self.end(Stop::Abandon);
    }

    fn end(&self, how: Stop) {
        self.shared.queue.stop(how);
        self.shared.files.stop_helper();
        self.shared.read_back.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the write-ahead log had panicked");
            }
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.end(Stop::Abandon);
    }
}
