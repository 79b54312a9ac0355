//! The program's own log lines, on stderr.
//!
//! Owns their form and level, which can change while the broker runs. Nothing comes from the environment.

use std::io;
use std::sync::OnceLock;

use parking_lot::RwLock;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::config::{Config, LogFormat};

/// The lowest level that is logged.
static LEVEL: RwLock<Level> = RwLock::new(Level::INFO);

type Apply = Box<dyn Fn(Level) + Send + Sync>;

/// How another level is put in force, once logging has started.
static APPLY: OnceLock<Apply> = OnceLock::new();

/// Starts logging as configured. A second call (tests) changes nothing.
pub fn init(config: &Config) {
    *LEVEL.write() = config.log_level;
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(config.log_level));
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let set = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    remember(move |level| handle.reload(LevelFilter::from_level(level)).is_ok());
    if let Err(error) = set {
        eprintln!("keelson-broker: logging was started before: {error}");
    }
}

fn remember(reload: impl Fn(Level) -> bool + Send + Sync + 'static) {
    let apply = move |level| {
        if !reload(level) {
            tracing::warn!(%level, "the level of log lines cannot be changed any more");
        }
    };
    // Whoever was first logs.
    let _ = APPLY.set(Box::new(apply));
}

/// The lowest level that is logged.
pub fn level() -> Level {
    *LEVEL.read()
}

/// From now on, lines of this level and above are logged.
pub fn set_level(level: Level) {
    *LEVEL.write() = level;
    if let Some(apply) = APPLY.get() {
        apply(level);
    }
}
