//! One `keelson-broker` process with a data directory of its own.
//!
//! Owns: the command line, the ready file, the captured log, signals and the end of the process. Builds nothing: the binary
//! stands beside the test executable, or the test fails with the line to run. A broker dies with the thread that started it
//! (`setpriv --pdeathsig`) and at drop; its log is printed when the test failed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{http, tools, wait_for, wait_until};

/// A debug build that recovers a few hundred MB on two busy cores is still ready well within this.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The contract says "within seconds"; a machine under load gets some more.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long the log may take to come to rest.
const AT_REST_WITHIN: Duration = Duration::from_secs(60);
/// Lines of the broker's log printed when a test fails.
const LOG_LINES_SHOWN: usize = 200;

/// What the ready file says.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Addresses of the Kafka listeners.
    pub kafka: Vec<String>,
    /// Address of the HTTP server.
    pub http: String,
    /// This broker's id.
    pub broker_id: i32,
    /// The cluster's id.
    pub cluster_id: String,
}

/// A broker that ended before it was ready.
#[derive(Debug)]
pub struct StartFailed {
    /// How it ended.
    pub status: ExitStatus,
    /// All it printed.
    pub log: String,
}

/// How a broker shall be started; [`BrokerSetup::start`] makes a [`Broker`] of it.
#[derive(Debug, Clone, Default)]
pub struct BrokerSetup {
    settings: Vec<(String, String)>,
    wrapper: Vec<OsString>,
    data_dir: Option<PathBuf>,
}

impl BrokerSetup {
    /// Defaults: a fresh data directory on the project's own disk, free loopback ports.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more `--set key=value`; a later one of the same key wins.
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Starts the broker through another command (`strace`, `nsenter`, …) that must `exec` it, so that the pid stays.
    pub fn wrap<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Uses this data directory; it is not removed at the end.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Starts the broker and waits until it is ready.
    ///
    /// # Panics
    /// When it ends before, with its log.
    #[track_caller]
    pub fn start(self) -> Broker {
        match self.try_start() {
            Ok(broker) => broker,
            Err(failed) => panic!(
                "the broker ended ({}) before it was ready:\n{}",
                failed.status, failed.log
            ),
        }
    }

    /// Starts the broker and waits until it is ready or has ended.
    #[track_caller]
    pub fn try_start(self) -> Result<Broker, StartFailed> {
        let home = scratch_dir();
        let data_dir = self
            .data_dir
            .clone()
            .unwrap_or_else(|| home.path().join("data"));
        let mut broker = Broker {
            setup: self,
            home,
            data_dir,
            child: None,
            ready: None,
        };
        broker.spawn();
        broker.await_ready().map(|()| broker)
    }
}

/// A folder on the project's own disk, removed at drop.
pub fn scratch_dir() -> TempDir {
    let parent = tools::target_dir().join("tmp");
    std::fs::create_dir_all(&parent).expect("target/tmp can be made");
    tempfile::Builder::new()
        .prefix("keelson-")
        .tempdir_in(parent)
        .expect("a temporary folder can be made")
}

/// A running (or stopped) broker.
#[derive(Debug)]
pub struct Broker {
    setup: BrokerSetup,
    home: TempDir,
    data_dir: PathBuf,
    child: Option<Child>,
    ready: Option<Ready>,
}

impl Broker {
    /// A broker with the defaults of [`BrokerSetup::new`].
    #[track_caller]
    pub fn start() -> Self {
        BrokerSetup::new().start()
    }

    /// The setup, for changes between a stop and a restart.
    pub fn setup_mut(&mut self) -> &mut BrokerSetup {
        &mut self.setup
    }

    /// Address of the Kafka port.
    pub fn bootstrap(&self) -> &str {
        &self.ready().kafka[0]
    }

    /// Address of the HTTP port.
    pub fn http(&self) -> &str {
        &self.ready().http
    }

    /// What the ready file said at the last start.
    pub fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("the broker has been ready")
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A folder for whatever belongs to this broker's test, removed with it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the broker runs").id()
    }

    /// All it has printed since the first start.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the broker runs");
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| {
                rest.trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .expect("the kernel tells VmRSS");
        kib * 1024
    }

    /// A page of its HTTP server.
    ///
    /// # Panics
    /// When the answer's status is not 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let answer = http::get(self.http(), path).expect("the HTTP port answers");
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer.body
    }

    /// The admin log state, as JSON.
    #[track_caller]
    pub fn log_state(&self) -> serde_json::Value {
        serde_json::from_str(&self.get("/admin/v1/log")).expect("/admin/v1/log is JSON")
    }

    /// The metrics, parsed.
    #[track_caller]
    pub fn metrics(&self) -> http::Metrics {
        http::Metrics::parse(&self.get("/metrics"))
    }

    /// Sends SIGTERM and waits for the end; the exit code must be 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(STOP_WITHIN);
        assert!(
            status.success(),
            "after SIGTERM: {status}\n{}",
            self.log_tail()
        );
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("an own child can be signalled");
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("the broker runs");
        let status = wait_for("the broker ends", deadline, || {
            child.try_wait().expect("an own child can be waited for")
        });
        self.child = None;
        status
    }

    /// Waits until the log of an idle broker writes nothing of its own any more: its WAL files are prepared and its last
    /// group has a seal behind it.
    #[track_caller]
    pub fn wait_log_at_rest(&self) {
        const WAL_FILES: f64 = 4.0;
        wait_until("the WAL files are prepared", AT_REST_WITHIN, || {
            self.metrics().sum("keelson_wal_files", &[]) >= WAL_FILES
        });
        wait_until("the last group is a seal", AT_REST_WITHIN, || {
            let (code, text) = Self::offline(&["log", "dump"], &self.data_dir);
            let last = text.lines().rfind(|line| line.starts_with("  frame "));
            code == 0 && last.is_some_and(|line| line.ends_with(" seal"))
        });
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts again on the same directory (ports are new) and waits until it is ready; returns how long that took.
    #[track_caller]
    pub fn restart(&mut self) -> Duration {
        let started = Instant::now();
        if let Err(failed) = self.try_restart() {
            panic!(
                "the restart ended ({}) before it was ready:\n{}",
                failed.status, failed.log
            );
        }
        started.elapsed()
    }

    /// Starts again on the same directory and waits until it is ready or has ended.
    #[track_caller]
    pub fn try_restart(&mut self) -> Result<(), StartFailed> {
        assert!(self.child.is_none(), "stop or kill the broker first");
        self.spawn();
        self.await_ready()
    }

    /// Runs `keelson-broker <words>` to its end; for the offline commands.
    pub fn offline(words: &[&str], data_dir: &Path) -> (i32, String) {
        let mut command = Command::new(tools::workspace_bin("keelson-broker"));
        let (output, text) = tools::run_any(command.args(words).arg("--data-dir").arg(data_dir));
        (output.status.code().unwrap_or(-1), text)
    }

    /// `log verify` on the data directory: exit code and what it printed.
    pub fn verify(&self) -> (i32, String) {
        Self::offline(&["log", "verify"], &self.data_dir)
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("broker.log")
    }

    fn ready_path(&self) -> PathBuf {
        self.home.path().join("ready.json")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn spawn(&mut self) {
        let _ = std::fs::remove_file(self.ready_path());
        let mut log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log file can be made");
        writeln!(log, "--- start").expect("the log file can be written");
        let mut command = Command::new(tools::require("setpriv"));
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.setup.wrapper);
        command
            .arg(tools::workspace_bin("keelson-broker"))
            .arg("start")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .arg("--ready-file")
            .arg(self.ready_path());
        let defaults = [
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("http.listen", "127.0.0.1:0"),
            // A group of one need not wait three seconds for others.
            ("group.initial.rebalance.delay.ms", "0"),
        ];
        for (key, value) in defaults {
            if !self.setup.settings.iter().any(|(known, _)| known == key) {
                command.arg("--set").arg(format!("{key}={value}"));
            }
        }
        for (key, value) in &self.setup.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("setpriv can be started");
        self.child = Some(child);
    }

    #[track_caller]
    fn await_ready(&mut self) -> Result<(), StartFailed> {
        let ready_path = self.ready_path();
        let child = self.child.as_mut().expect("the broker was spawned");
        let outcome = wait_for("the broker is ready", READY_WITHIN, || {
            if let Ok(text) = std::fs::read(&ready_path) {
                return Some(Ok(text));
            }
            child
                .try_wait()
                .expect("an own child can be waited for")
                .map(Err)
        });
        match outcome {
            Ok(text) => {
                self.ready = Some(serde_json::from_slice(&text).expect("the ready file is JSON"));
                Ok(())
            }
            Err(status) => {
                self.child = None;
                Err(StartFailed {
                    status,
                    log: self.log(),
                })
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!(
                "--- log of the broker on {}:\n{}",
                self.data_dir.display(),
                self.log_tail()
            );
        }
    }
}
