//! The program's own log lines, on stderr.
//!
//! Owns their form and level. Nothing comes from the environment.

use std::io;

use crate::config::{Config, LogFormat};

/// Starts logging as configured. A second call (tests) changes nothing.
pub fn init(config: &Config) {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(config.log_level)
        .with_target(false);
    let set = match config.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = set {
        eprintln!("keelson-broker: logging was started before: {error}");
    }
}
