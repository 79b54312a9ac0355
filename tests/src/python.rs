//! The scripts in `tests/python`, run in the virtual environment that `tests/setup.sh` makes under `target/`.

use std::process::Command;

use serde_json::Value;

use crate::tools;

/// A command that runs `tests/python/<script>` in the virtual environment.
///
/// # Panics
/// When the environment is not there, with the line to run.
pub fn command(script: &str) -> Command {
    let python = tools::target_dir().join("python/bin/python");
    assert!(
        python.is_file(),
        "{} is missing; run: tests/setup.sh python",
        python.display()
    );
    let mut command = tools::program(&python.display().to_string(), 120);
    command.arg(tools::root().join("tests/python").join(script));
    command
}

/// Runs a script to its end and returns the JSON it printed.
///
/// # Panics
/// When its exit code is not 0 or it printed no JSON, with all it printed.
#[track_caller]
pub fn run(script: &str, args: &[&str]) -> Value {
    let text = tools::run(command(script).args(args));
    serde_json::from_str(text.trim())
        .unwrap_or_else(|error| panic!("{script} {args:?}: {error}\n{text}"))
}
