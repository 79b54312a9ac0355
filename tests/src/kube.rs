//! A Kubernetes control plane without nodes, and operators that run against it.
//!
//! Owns etcd, kube-apiserver and kube-controller-manager on free loopback ports, one set per test process, with our CRDs
//! installed. All of them die with the process, however it ends: they are started by a thread that lives as long as the
//! process does (`setpriv --pdeathsig`). Binaries come from `KUBEBUILDER_ASSETS`, else from the cache that
//! `tests/kube/tools/build.sh` fills.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::broker::scratch_dir;
use crate::{Broker, http, tools, wait_for, wait_until};

/// An API server on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(120);
/// Anything that an operator does, on a busy machine.
pub const OPERATOR_WITHIN: Duration = Duration::from_secs(60);
const TOKEN: &str = "keelson-tests";
/// Lines of a log printed when a test fails.
const LOG_LINES_SHOWN: usize = 80;

/// The control plane of this test process.
#[derive(Debug)]
pub struct Kube {
    home: PathBuf,
    server: String,
}

/// The control plane, started at the first call.
pub fn shared() -> &'static Kube {
    static SHARED: OnceLock<Kube> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (tell, told) = std::sync::mpsc::channel();
        // The children die with the thread that starts them; this one never ends before the process does.
        std::thread::spawn(move || {
            let (kube, children) = Kube::start();
            if tell.send(kube).is_ok() {
                std::mem::forget(children);
                loop {
                    std::thread::park();
                }
            }
        });
        let kube = told.recv().expect("the control plane starts; see above");
        kube.install_crds();
        kube
    })
}

fn binary(name: &str) -> PathBuf {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let home = std::env::var_os("KUBE_BENCH_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/kube-bench")
        });
    let cached = home.join("bin").join(name);
    if let Some(found) = assets.map(|it| it.join(name)).filter(|it| it.is_file()) {
        return found;
    }
    if !cached.is_file() {
        let script = tools::root().join("tests/kube/tools/build.sh");
        tools::run(Command::new("bash").arg(script).arg(name));
    }
    cached
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|it| it.local_addr().expect("an address").port())
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    free_ports::<1>()[0]
}

impl Kube {
    fn start() -> (Self, Vec<Child>) {
        let home = scratch_dir().keep();
        remove_leftovers(&home);
        let pid = std::process::id().to_string();
        std::fs::write(home.join("pid"), pid).expect("a file can be written");
        let [etcd, peer, api, manager] = free_ports();
        let kube = Self {
            server: format!("https://127.0.0.1:{api}"),
            home,
        };
        kube.make_keys();
        let mut children = vec![kube.start_etcd(etcd, peer), kube.start_apiserver(api, etcd)];
        wait_until("kube-apiserver is ready", START_WITHIN, || {
            kube.try_kubectl(&["get", "--raw", "/readyz"], "").is_ok()
        });
        // Deleting a namespace is work of the controller manager; nothing else of it is needed.
        let kubeconfig = kube.kubeconfig("default");
        children.push(kube.spawn(
            "kube-controller-manager",
            &[
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                "--allocate-node-cidrs=false",
                "--controllers=namespace-controller,garbage-collector-controller",
                &format!("--kubeconfig={}", kubeconfig.display()),
                &format!("--secure-port={manager}"),
                &format!("--cert-dir={}", kube.file("certs")),
            ],
        ));
        wait_until("kube-system exists", START_WITHIN, || {
            kube.try_kubectl(&["get", "namespace", "kube-system"], "")
                .is_ok()
        });
        (kube, children)
    }

    fn file(&self, name: &str) -> String {
        self.home
            .join(name)
            .to_str()
            .expect("a UTF-8 path")
            .to_owned()
    }

    fn make_keys(&self) {
        let (private, public) = (self.file("sa.key"), self.file("sa.pub"));
        let openssl = tools::require("openssl");
        tools::run(Command::new(&openssl).args(["genrsa", "-out", &private]));
        tools::run(
            Command::new(&openssl).args(["rsa", "-in", &private, "-pubout", "-out", &public]),
        );
        let tokens = format!("{TOKEN},admin,1,\"system:masters\"\n");
        std::fs::write(self.home.join("tokens.csv"), tokens).expect("a file can be written");
        self.kubeconfig("default");
    }

    fn start_etcd(&self, client: u16, peer: u16) -> Child {
        self.spawn(
            "etcd",
            &[
                "--name=t",
                "--unsafe-no-fsync",
                "--log-level=warn",
                &format!("--data-dir={}", self.file("etcd")),
                &format!("--listen-client-urls=http://127.0.0.1:{client}"),
                &format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                &format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                &format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                &format!("--initial-cluster=t=http://127.0.0.1:{peer}"),
            ],
        )
    }

    fn start_apiserver(&self, port: u16, etcd: u16) -> Child {
        self.spawn(
            "kube-apiserver",
            &[
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--secure-port={port}"),
                &format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                &format!("--cert-dir={}", self.file("certs")),
                &format!("--token-auth-file={}", self.file("tokens.csv")),
                &format!("--service-account-key-file={}", self.file("sa.pub")),
                &format!("--service-account-signing-key-file={}", self.file("sa.key")),
            ],
        )
    }

    fn spawn(&self, name: &str, args: &[&str]) -> Child {
        let log = File::create(self.home.join(format!("{name}.log"))).expect("a log file");
        Command::new(tools::require("setpriv"))
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// First a CRD of an earlier day that checks nothing, with objects that nobody could create today, then ours.
    fn install_crds(&self) {
        let today: Vec<Value> = ["topics", "consumergroups"]
            .iter()
            .map(|name| {
                let path = tools::root().join(format!("crds/{name}.yaml"));
                let text = std::fs::read_to_string(&path).expect("generated CRDs are there");
                serde_norway::from_str(&text).expect("generated CRDs are YAML")
            })
            .collect();
        for crd in &today {
            let mut earlier = crd.clone();
            earlier["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
                json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            earlier["spec"]["versions"][0]
                .as_object_mut()
                .expect("an object")
                .remove("additionalPrinterColumns");
            self.kubectl(&["apply", "--server-side", "-f", "-"], &earlier.to_string());
        }
        self.kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "crd/topics.keelson.dev",
                "crd/consumergroups.keelson.dev",
            ],
            "",
        );
        self.kubectl(&["create", "namespace", "broken"], "");
        wait_until(
            "objects of the earlier kind can be created",
            START_WITHIN,
            || {
                let topic = object(
                    "Topic",
                    "broken",
                    "untyped",
                    &json!({ "partitions": "many" }),
                );
                self.try_kubectl(&["apply", "--server-side", "-f", "-"], &topic.to_string())
                    .is_ok()
            },
        );
        for (name, spec) in [
            ("unreadable", json!({ "deletionPolicy": "Sometimes" })),
            ("impossible", json!({ "partitions": 0 })),
        ] {
            let topic = object("Topic", "broken", name, &spec).to_string();
            self.kubectl(&["apply", "--server-side", "-f", "-"], &topic);
        }
        for crd in &today {
            self.kubectl(
                &["apply", "--server-side", "--force-conflicts", "-f", "-"],
                &crd.to_string(),
            );
        }
        wait_until("our CRDs are in force", START_WITHIN, || {
            let probe = object("Topic", "default", "probe", &json!({ "partitions": 0 }));
            let refused = self.try_kubectl(
                &["create", "--dry-run=server", "-f", "-"],
                &probe.to_string(),
            );
            refused.is_err_and(|text| text.contains("spec.partitions"))
        });
    }

    /// A cluster-admin kubeconfig whose own namespace is `namespace`.
    pub fn kubeconfig(&self, namespace: &str) -> PathBuf {
        let path = self.home.join(format!("{namespace}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "t", "cluster": { "server": self.server, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "t", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t", "namespace": namespace } }],
            "current-context": "t",
        });
        std::fs::write(&path, config.to_string()).expect("a kubeconfig can be written");
        path
    }

    /// Runs kubectl; the text it printed, or what it complained about.
    pub fn try_kubectl(&self, args: &[&str], stdin: &str) -> Result<String, String> {
        let mut child = Command::new(binary("kubectl"))
            .arg("--kubeconfig")
            .arg(self.home.join("default.kubeconfig"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl can be started");
        let mut input = child.stdin.take().expect("stdin is piped");
        // kubectl may end without reading it all.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Runs kubectl, which must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> String {
        self.try_kubectl(args, stdin)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// Creates an object of ours, or changes it.
    #[track_caller]
    pub fn apply(&self, kind: &str, namespace: &str, name: &str, spec: &Value) {
        let text = object(kind, namespace, name, spec).to_string();
        self.kubectl(
            &["apply", "--server-side", "--field-manager=test", "-f", "-"],
            &text,
        );
    }

    /// An object of ours, if it exists.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let text = self
            .try_kubectl(&["get", kind, "-n", namespace, name, "-o", "json"], "")
            .ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Asks for the deletion of an object and does not wait for it.
    #[track_caller]
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.kubectl(&["delete", kind, "-n", namespace, name, "--wait=false"], "");
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub fn wait_gone(&self, kind: &str, namespace: &str, name: &str) {
        wait_until(
            &format!("{kind} {namespace}/{name} is gone"),
            OPERATOR_WITHIN,
            || {
                let found = self.try_kubectl(&["get", kind, "-n", namespace, name], "");
                found.is_err_and(|text| text.contains("NotFound"))
            },
        );
    }

    /// Waits until a condition of a Topic or ConsumerGroup has this status and reason for its newest generation, and returns the object.
    #[track_caller]
    pub fn wait_condition(
        &self,
        (kind, namespace, name): (&str, &str, &str),
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Value {
        let mut last = Value::Null;
        let what = format!("{kind} {namespace}/{name} has {type_}={status} ({reason})");
        let found = crate::wait::try_wait_for(OPERATOR_WITHIN, || {
            last = self.get(kind, namespace, name)?;
            let it = condition(&last, type_)?;
            let fresh = it["observedGeneration"] == last["metadata"]["generation"];
            (fresh && it["status"] == status && it["reason"] == reason).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not in time: {what}; last seen: {}", last["status"]))
    }
}

/// A manifest.
pub fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "keelson.dev/v1alpha1",
        "kind": kind,
        "metadata": { "namespace": namespace, "name": name },
        "spec": spec,
    })
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|it| it["type"] == type_)
}

/// Folders of control planes whose process was killed before it could clean up.
fn remove_leftovers(own: &Path) {
    let Some(parent) = own.parent() else { return };
    let Ok(listing) = std::fs::read_dir(parent) else {
        return;
    };
    for folder in listing.flatten().map(|it| it.path()).filter(|it| it != own) {
        let Ok(pid) = std::fs::read_to_string(folder.join("pid")) else {
            continue;
        };
        if !Path::new("/proc").join(pid.trim()).exists() {
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

/// A running operator with a namespace of its own.
#[derive(Debug)]
pub struct Operator {
    kubeconfig: PathBuf,
    args: Vec<String>,
    folder: tempfile::TempDir,
    child: Option<Child>,
    http: String,
}

impl Operator {
    /// Starts `keelson-operator run` for a cluster of this name and waits until it is up.
    #[track_caller]
    pub fn start(cluster: &str, own_namespace: &str, namespaces: &[&str], broker: &Broker) -> Self {
        let port = broker
            .http()
            .rsplit(':')
            .next()
            .expect("an address has a port");
        let fixed = [
            "--cluster",
            cluster,
            "--bootstrap",
            broker.bootstrap(),
            "--broker-http-port",
            port,
            "--http",
            "127.0.0.1:0",
            "--resync",
            "2",
            "--log-level",
            "debug",
        ];
        let mut args: Vec<String> = fixed.iter().map(|it| (*it).to_owned()).collect();
        args.extend(namespaces.iter().map(|it| format!("--namespace={it}")));
        let kubeconfig = shared().kubeconfig(own_namespace);
        let mut operator = Self {
            kubeconfig,
            args,
            folder: scratch_dir(),
            child: None,
            http: String::new(),
        };
        operator.restart();
        operator
    }

    /// Starts it again after it has ended.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        let ready = self.folder.path().join("ready.json");
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
            .args(&self.args)
            .arg("--ready-file")
            .arg(&ready)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the operator can be started");
        self.child = Some(child);
        let answer = wait_for("the operator is up", OPERATOR_WITHIN, || {
            std::fs::read_to_string(&ready).ok()
        });
        let answer: Value = serde_json::from_str(&answer).expect("the ready file is JSON");
        self.http = answer["http"].as_str().expect("an address").to_owned();
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("operator.log")
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

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// Ends it with SIGTERM; it must end well, and take its ready file along.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, Signal::TERM).expect("an own child can be signalled");
        let status = wait_for("the operator ends", OPERATOR_WITHIN, || {
            child.try_wait().expect("an own child")
        });
        assert!(status.success(), "{status}");
        assert!(
            !self.folder.path().join("ready.json").exists(),
            "the ready file is gone"
        );
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.log_path())
        {
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("operator: {line}");
            }
        }
    }
}
