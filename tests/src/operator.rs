//! Running operators.
//!
//! Owns the command line, the ready file, the log, signals and the end of the process. An operator dies with the thread
//! that started it; its log is printed when the test failed.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::apiproxy::ApiProxy;
use crate::broker::scratch_dir;
use crate::kube::{OPERATOR_WITHIN, shared};
use crate::{Broker, http, tools, wait_for};

/// Lines of a log printed when a test fails.
const LOG_LINES_SHOWN: usize = 80;

/// How an operator shall be started.
#[derive(Debug, Clone)]
pub struct OperatorSetup {
    cluster: String,
    namespaces: Vec<String>,
    bootstrap: String,
    http_port: String,
    kubeconfig: PathBuf,
    resync_seconds: u32,
    external_services: bool,
}

impl OperatorSetup {
    /// An operator of this cluster and broker, which lives in `own_namespace` and looks after `namespaces`.
    pub fn new(cluster: &str, own_namespace: &str, namespaces: &[&str], broker: &Broker) -> Self {
        let port = broker
            .http()
            .rsplit(':')
            .next()
            .expect("an address has a port");
        Self {
            cluster: cluster.to_owned(),
            namespaces: namespaces.iter().map(|it| (*it).to_owned()).collect(),
            bootstrap: broker.bootstrap().to_owned(),
            http_port: port.to_owned(),
            kubeconfig: shared().kubeconfig(own_namespace),
            resync_seconds: 1,
            external_services: false,
        }
    }

    /// Reaches Kafka here.
    pub fn bootstrap(mut self, address: &str) -> Self {
        address.clone_into(&mut self.bootstrap);
        self
    }

    /// Asks brokers for their logs on this port.
    pub fn http_port(mut self, port: u16) -> Self {
        self.http_port = port.to_string();
        self
    }

    /// Reaches the API server with this kubeconfig.
    pub fn kubeconfig(mut self, path: PathBuf) -> Self {
        self.kubeconfig = path;
        self
    }

    /// Reaches the API server through a proxy, with `own_namespace` as its own; `name` is the operator's alone.
    pub fn through(self, own_namespace: &str, name: &str, proxy: &ApiProxy) -> Self {
        self.kubeconfig(shared().kubeconfig_through(own_namespace, name, &proxy.url()))
    }

    /// Looks at objects this often.
    pub fn resync_seconds(mut self, seconds: u32) -> Self {
        self.resync_seconds = seconds;
        self
    }

    /// Tells brokers where their external Services are reached.
    pub fn external_services(mut self) -> Self {
        self.external_services = true;
        self
    }

    /// Starts it and waits until it is up.
    #[track_caller]
    pub fn start(self) -> Operator {
        let mut operator = self.prepare();
        operator.restart();
        operator
    }

    /// An operator that was not started yet.
    pub fn prepare(self) -> Operator {
        Operator {
            setup: self,
            folder: scratch_dir(),
            child: None,
            http: String::new(),
        }
    }

    fn args(&self) -> Vec<String> {
        let resync = self.resync_seconds.to_string();
        let fixed = [
            "--cluster",
            &self.cluster,
            "--bootstrap",
            &self.bootstrap,
            "--broker-http-port",
            &self.http_port,
            "--http",
            "127.0.0.1:0",
            "--resync",
            &resync,
            "--log-level",
            "debug",
        ];
        let mut args: Vec<String> = fixed.iter().map(|it| (*it).to_owned()).collect();
        args.extend(self.namespaces.iter().map(|it| format!("--namespace={it}")));
        if self.external_services {
            args.push("--external-services".to_owned());
        }
        args
    }
}

/// A running (or stopped) operator.
#[derive(Debug)]
pub struct Operator {
    setup: OperatorSetup,
    folder: tempfile::TempDir,
    child: Option<Child>,
    http: String,
}

impl Operator {
    /// Starts `keelson-operator run` for a cluster of this name and waits until it is up.
    #[track_caller]
    pub fn start(cluster: &str, own_namespace: &str, namespaces: &[&str], broker: &Broker) -> Self {
        OperatorSetup::new(cluster, own_namespace, namespaces, broker).start()
    }

    /// Starts it again after it has ended, and waits until it is up.
    #[track_caller]
    pub fn restart(&mut self) {
        self.spawn();
        let ready = self.ready_path();
        let answer = wait_for("the operator is up", OPERATOR_WITHIN, || {
            std::fs::read_to_string(&ready).ok()
        });
        let answer: Value = serde_json::from_str(&answer).expect("the ready file is JSON");
        self.http = answer["http"].as_str().expect("an address").to_owned();
    }

    /// Starts it and does not wait.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        let ready = self.ready_path();
        let _ = std::fs::remove_file(&ready);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let child = Command::new(tools::require("setpriv"))
            .args(["--pdeathsig", "KILL", "--"])
            .arg(tools::workspace_bin("keelson-operator"))
            .arg("run")
            .args(self.setup.args())
            .arg("--ready-file")
            .arg(&ready)
            .env("KUBECONFIG", &self.setup.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the operator can be started");
        self.child = Some(child);
    }

    fn ready_path(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("operator.log")
    }

    /// All it has printed since the first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The operator's metrics.
    pub fn metrics(&self) -> http::Metrics {
        http::Metrics::parse(
            &http::get(&self.http, "/metrics")
                .expect("the operator serves HTTP")
                .body,
        )
    }

    /// Whether it leads at this moment.
    pub fn leads(&self) -> bool {
        self.metrics().sum("keelson_operator_leader", &[]) > 0.5
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("it runs");
        i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("an own child can be signalled");
    }

    /// Kills it with SIGKILL, if it runs.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// Ends it with SIGTERM; it must end well, and take its ready file along.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let status = wait_for("the operator ends", OPERATOR_WITHIN, || {
            child.try_wait().expect("an own child")
        });
        assert!(status.success(), "{status}");
        assert!(!self.ready_path().exists(), "the ready file is gone");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("operator: {line}");
            }
        }
    }
}
