//! Programs the tests call. What is missing fails with the line to run; nothing is skipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The project's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the project's root")
}

/// The folder that holds the binaries of the profile this test was built with (`target/debug`, say).
///
/// # Panics
/// When the test executable does not lie in `<target>/<profile>/deps`.
pub fn bin_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running test has a path");
    exe.ancestors()
        .find(|dir| dir.join("deps").is_dir())
        .unwrap_or_else(|| panic!("{} lies in no cargo target folder", exe.display()))
        .to_path_buf()
}

/// The target folder itself (`target`).
pub fn target_dir() -> PathBuf {
    bin_dir()
        .parent()
        .expect("a profile folder lies in the target folder")
        .to_path_buf()
}

/// A binary of this workspace, built before by `cargo build --workspace --bins` (as `make test` does).
///
/// # Panics
/// When it is not there, with the line to run.
pub fn workspace_bin(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.is_file(),
        "{} is missing; run: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// The path of an installed program.
///
/// # Panics
/// When it is not installed, with the line to run.
pub fn require(name: &str) -> PathBuf {
    let found = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    });
    found.unwrap_or_else(|| panic!("{name} is not installed; run: tests/setup.sh"))
}

/// A command that runs an installed program for at most `seconds`.
///
/// Cargo puts the folders of build scripts into `LD_LIBRARY_PATH`, the rdkafka crate's own librdkafka among them: with it,
/// Debian's kcat would no longer be Debian's.
///
/// # Panics
/// When it is not installed, with the line to run.
pub fn program(name: &str, seconds: u32) -> Command {
    let mut command = Command::new(require("timeout"));
    command
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(if name.contains('/') {
            PathBuf::from(name)
        } else {
            require(name)
        })
        .env_remove("LD_LIBRARY_PATH");
    command
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started or its exit code is not 0, with all it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let (output, text) = run_any(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whatever its exit code; the text is stdout and stderr together.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run_any(command: &mut Command) -> (Output, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output, text)
}
