//! A start of the whole log for fuzz targets, without a thread: some thousand of them fit into a second.
//!
//! Owns nothing: what is done is what the log does; only when is the caller's.

use std::sync::Arc;

use crate::disk::SimDisk;
use crate::metrics::LogMetrics;
use crate::stepped::Stepped;
use crate::{Log, OpenError, Options};

/// An open log that does nothing by itself. Dropping it leaves the disk as a kill would.
pub struct ByHand(Stepped);

impl ByHand {
    /// Opens a data directory as [`crate::open_on`] does.
    pub fn open(
        disk: &SimDisk,
        options: Options,
        metrics: &Arc<LogMetrics>,
    ) -> Result<ByHand, OpenError> {
        Stepped::open_counted(disk, options, Arc::clone(metrics)).map(ByHand)
    }

    /// The log. Whatever waits for its threads waits for ever.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Writes one commit group of all that is queued. `Err` is the reason why the process must end.
    pub fn write(&mut self) -> Result<(), String> {
        self.0.write().map_err(|_| self.0.reason())
    }

    /// Does all that the flusher has to do, and writes the witness of the last group.
    pub fn settle(&mut self) -> Result<(), String> {
        let settled = self.0.settle().and_then(|()| self.0.seal());
        settled.map_err(|_| self.0.reason())
    }

    /// A clean stop.
    pub fn stop(self) {
        self.0.stop().expect("a healthy disk");
    }
}
