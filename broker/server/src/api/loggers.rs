//! The broker's loggers as a resource of configs: there is one, `root`, with the level of all log lines. It owns no API.
//!
//! Like Kafka's, a level that is set here lasts until the broker ends.

use keelson_protocol::ErrorCode;
use keelson_state::metadata::{AlterOp, Alteration};
use tracing::Level;

use super::config_change::Refusal;
use crate::logging;

/// The one logger.
pub(super) const ROOT: &str = "root";

/// Where a logger's level comes from, in DescribeConfigs.
pub(super) const SOURCE: i8 = 6;

/// Kafka's name of the level of all log lines.
pub(super) fn level() -> &'static str {
    match logging::level() {
        Level::TRACE => "TRACE",
        Level::DEBUG => "DEBUG",
        Level::INFO => "INFO",
        Level::WARN => "WARN",
        _ => "ERROR",
    }
}

/// Changes the level, or only says whether it could.
pub(super) fn alter(changes: &[Alteration], validate_only: bool) -> Result<(), Refusal> {
    let mut wanted = None;
    for change in changes {
        if change.key != ROOT {
            let message = format!("Logger {} does not exist!", change.key);
            return Err((ErrorCode::InvalidConfig, message));
        }
        wanted = Some(level_of(change)?);
    }
    if let Some(level) = wanted.filter(|_| !validate_only) {
        logging::set_level(level);
    }
    Ok(())
}

fn level_of(change: &Alteration) -> Result<Level, Refusal> {
    match change.op {
        AlterOp::Set => {}
        AlterOp::Delete => {
            let message = "The level of the root logger cannot be removed.".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
        AlterOp::Append | AlterOp::Subtract => {
            let message = "The level of a logger is no list.".to_owned();
            return Err((ErrorCode::InvalidRequest, message));
        }
    }
    let value = change.value.as_deref().unwrap_or_default();
    match value {
        "TRACE" => Ok(Level::TRACE),
        "DEBUG" => Ok(Level::DEBUG),
        "INFO" => Ok(Level::INFO),
        "WARN" => Ok(Level::WARN),
        // There is no level above ERROR.
        "ERROR" | "FATAL" => Ok(Level::ERROR),
        _ => {
            let message = format!(
                "Cannot set the log level of {ROOT} to {value}: supported are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
            );
            Err((ErrorCode::InvalidConfig, message))
        }
    }
}
