//! A log without threads of its own: every step of the writer and of the flusher is made by the caller.
//!
//! Owns that all of a run happens on one thread, in the order that was asked for: the same seed then gives the same
//! operations of the disk, down to the last byte that a power cut takes. Only tests and fuzz targets have it.

#[cfg(test)]
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Instant;

use parking_lot::Mutex;

#[cfg(test)]
use crate::Partition;
use crate::disk::SimDisk;
#[cfg(test)]
use crate::files::Files;
use crate::flusher::by_hand::{self, Piece};
use crate::metrics::LogMetrics;
#[cfg(test)]
use crate::partition::rewrite::Stopped;
use crate::recovery::{self, CLEAN_EXIT};
use crate::shared::Shared;
use crate::wal::{Wal, Woken, Writer};
use crate::{Hooks, Log, OpenError, Options};

/// The process has ended, as far as the disk is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dead;

/// Keeps the first reason why the process must end.
#[derive(Default)]
pub(crate) struct Fatal(pub(crate) Mutex<Option<String>>);

impl Hooks for Fatal {
    fn fatal(&self, reason: &str) {
        self.0.lock().get_or_insert_with(|| reason.to_owned());
    }

    fn recovery_progress(&self, _: u64) {}
}

pub(crate) struct Stepped {
    pub(crate) log: Log,
    pub(crate) fatal: Arc<Fatal>,
    #[cfg(test)]
    disk: SimDisk,
    shared: Arc<Shared>,
    writer: Option<Writer>,
    /// The last group has no witness yet.
    unsealed: bool,
}

/// A writer ends by a panic when its disk fails. Here that is what is wanted, thousands of times: it is not printed.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.starts_with("the write-ahead log has failed")) {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
thread_local! {
    static METRICS: RefCell<Option<Arc<LogMetrics>>> = const { RefCell::new(None) };
}

/// Those of the start before, on this thread, if nobody holds them any more.
#[cfg(test)]
fn metrics() -> Arc<LogMetrics> {
    METRICS.with_borrow_mut(|kept| {
        let free = kept.take().filter(|kept| Arc::strong_count(kept) == 1);
        let metrics = free.unwrap_or_else(|| Arc::new(LogMetrics::unregistered()));
        metrics.start_over();
        *kept = Some(Arc::clone(&metrics));
        metrics
    })
}

impl Stepped {
    #[cfg(test)]
    pub(crate) fn open(disk: &SimDisk, options: Options) -> Result<Stepped, OpenError> {
        Stepped::open_counted(disk, options, metrics())
    }

    /// A start that counts in `metrics`: making those takes longer than a start.
    pub(crate) fn open_counted(
        disk: &SimDisk,
        options: Options,
        metrics: Arc<LogMetrics>,
    ) -> Result<Stepped, OpenError> {
        keep_quiet();
        let fatal = Arc::new(Fatal::default());
        let hooks: Arc<dyn Hooks> = Arc::clone(&fatal) as Arc<dyn Hooks>;
        let mut by_hand = None;
        let (shared, identity) = recovery::open(
            Arc::new(disk.clone()),
            options,
            (metrics, hooks),
            |writer| {
                let wal = Wal::by_hand(&writer);
                by_hand = Some(writer);
                Ok(wal)
            },
        )?;
        Ok(Stepped {
            log: Log::by_hand(&shared, identity),
            fatal,
            #[cfg(test)]
            disk: disk.clone(),
            shared,
            writer: by_hand,
            unsealed: true,
        })
    }

    #[cfg(test)]
    pub(crate) fn files(&self) -> &Files {
        &self.shared.files
    }

    #[cfg(test)]
    pub(crate) fn metrics(&self) -> &LogMetrics {
        &self.shared.metrics
    }

    #[cfg(test)]
    pub(crate) fn has_failed(&self) -> bool {
        self.writer.is_none() || self.fatal.0.lock().is_some()
    }

    /// Why the process must end; empty when it need not.
    pub(crate) fn reason(&self) -> String {
        self.fatal.0.lock().clone().unwrap_or_default()
    }

    /// One commit group of what is queued, if anything is.
    pub(crate) fn write(&mut self) -> Result<(), Dead> {
        if self.shared.wal().stats().queued_bytes == 0 {
            return Ok(());
        }
        self.step()
    }

    /// The witness that an idle writer writes.
    pub(crate) fn seal(&mut self) -> Result<(), Dead> {
        self.write()?;
        if self.unsealed { self.step() } else { Ok(()) }
    }

    fn step(&mut self) -> Result<(), Dead> {
        loop {
            let writer = self.writer.as_mut().ok_or(Dead)?;
            let past = Some(Instant::now());
            match catch_unwind(AssertUnwindSafe(|| writer.step(past))) {
                Err(_) => {
                    self.writer = None;
                    return Err(Dead);
                }
                Ok(Woken::Nudged) => {}
                Ok(woken) => {
                    self.unsealed = woken == Woken::Frames;
                    return Ok(());
                }
            }
        }
    }

    /// What the flusher could do now.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        by_hand::pieces(&self.shared)
    }

    pub(crate) fn run(&mut self, piece: Piece) -> Result<(), Dead> {
        by_hand::run(&self.shared, piece).map_err(|reason| {
            self.shared.fail(&reason);
            Dead
        })
    }

    /// One pass over all partitions together.
    #[cfg(test)]
    pub(crate) fn flush_together(&mut self) -> Result<(), Dead> {
        by_hand::flush_together(&self.shared).map_err(|reason| {
            self.shared.fail(&reason);
            Dead
        })
    }

    /// A compaction, if it is due. What is not compacted for want of room stays as it is.
    #[cfg(test)]
    pub(crate) fn compact(&mut self, partition: &Partition, now_ms: i64) -> Result<(), Dead> {
        match partition.compact(now_ms, &mut |_| false) {
            Ok(()) | Err(Stopped::Changed) => Ok(()),
            Err(Stopped::Fatal(reason)) => {
                self.shared.fail(&reason);
                Err(Dead)
            }
            Err(Stopped::NoMeans(_)) if !self.disk.is_cut() => Ok(()),
            Err(Stopped::NoMeans(_)) => Err(Dead),
            // A bad disk; the partition stays as it is.
            Err(Stopped::Damaged | Stopped::ReadBack { .. })
                if self.metrics().decode_errors_total() > 0 =>
            {
                Ok(())
            }
            Err(other) => panic!("{}: {other}", partition.id()),
        }
    }

    /// One pass of the scrubber over everything.
    #[cfg(test)]
    pub(crate) fn scrub(&self) {
        crate::scrub::pass_by_hand(&self.shared);
    }

    /// Everything that the flusher could do, until nothing is left that it can change.
    pub(crate) fn settle(&mut self) -> Result<(), Dead> {
        loop {
            let pieces = self.pieces();
            for piece in &pieces {
                self.run(*piece)?;
            }
            if self.pieces() == pieces {
                return Ok(());
            }
        }
    }

    /// A clean stop.
    pub(crate) fn stop(mut self) -> Result<(), Dead> {
        self.shared.close();
        while self.shared.wal().stats().queued_bytes > 0 && !self.shared.wal().is_starved() {
            self.write()?;
        }
        self.settle()?;
        self.seal()?;
        self.shared.node.record_exit(CLEAN_EXIT);
        Ok(())
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        self.shared.let_go();
    }
}
