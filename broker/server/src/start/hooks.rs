//! What the log tells the process, and the end of the process when durability is lost.
//!
//! Owns the fatal end: the reason goes to stderr, to the log lines and to the termination message; then the process is
//! gone, before anything else can be acknowledged.

use std::path::PathBuf;

use keelson_log::Hooks;

/// Exit code when the log cannot promise durability any more (`EX_IOERR` of sysexits.h).
const EXIT_FATAL: i32 = 74;

/// The hooks of a real process.
pub(super) struct ProcessHooks {
    termination_message: Option<PathBuf>,
    ready_file: Option<PathBuf>,
}

impl ProcessHooks {
    pub(super) fn new(termination_message: Option<PathBuf>, ready_file: Option<PathBuf>) -> Self {
        Self {
            termination_message,
            ready_file,
        }
    }
}

impl Hooks for ProcessHooks {
    fn fatal(&self, reason: &str) {
        tracing::error!(
            reason,
            "the log failed: the broker ends without a further ack"
        );
        eprintln!("keelson-broker: fatal: {reason}");
        if let Some(path) = &self.termination_message
            && let Err(error) = std::fs::write(path, reason)
        {
            eprintln!("keelson-broker: {}: {error}", path.display());
        }
        if let Some(path) = &self.ready_file
            && let Err(error) = std::fs::remove_file(path)
        {
            eprintln!("keelson-broker: {}: {error}", path.display());
        }
        std::process::exit(EXIT_FATAL);
    }

    fn recovery_progress(&self, remaining_bytes: u64) {
        tracing::debug!(remaining_bytes, "recovering");
    }
}
