//! A Kubernetes control plane without nodes.
//!
//! Owns etcd, kube-apiserver and kube-controller-manager on free loopback ports, one set per test process, with our CRDs
//! installed. All of them die with the process, however it ends: they are started by a thread that lives as long as the
//! process does (`setpriv --pdeathsig`). Binaries come from `KUBEBUILDER_ASSETS`, else from the cache that
//! `tests/kube/tools/build.sh` fills.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::broker::scratch_dir;
pub use crate::operator::Operator;
use crate::{http, tools, wait_until};

/// An API server on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(120);
/// Anything that an operator does, on a busy machine.
pub const OPERATOR_WITHIN: Duration = Duration::from_secs(60);
const TOKEN: &str = "keelson-tests";

/// The control plane of this test process.
#[derive(Debug)]
pub struct Kube {
    home: PathBuf,
    server: String,
    plain: String,
    etcd: String,
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

/// A program of Kubernetes: from `KUBEBUILDER_ASSETS`, else from the cache.
pub fn binary(name: &str) -> PathBuf {
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
        let mut kube = Self {
            server: format!("https://127.0.0.1:{api}"),
            plain: String::new(),
            etcd: format!("127.0.0.1:{etcd}"),
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
        let (proxy, plain) = kube.start_proxy();
        children.push(proxy);
        kube.plain = plain;
        wait_until("kube-system exists", START_WITHIN, || {
            kube.get("namespace", "", "kube-system").is_some()
        });
        (kube, children)
    }

    /// `kubectl proxy`: plain HTTP for whoever has no TLS.
    fn start_proxy(&self) -> (Child, String) {
        let mut child = Command::new(tools::require("setpriv"))
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig("default"))
            .args(["proxy", "--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl can be started");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("kubectl says its port");
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .expect("the last word is the address");
        (child, address.to_owned())
    }

    /// The API server over plain HTTP.
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// etcd's own address.
    pub fn etcd(&self) -> &str {
        &self.etcd
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
        self.install_earlier_crds(&today);
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

    fn install_earlier_crds(&self, today: &[Value]) {
        for crd in today {
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
        let mut stuck = object(
            "Topic",
            "broken",
            "stuck",
            &json!({ "driftPolicy": "Perhaps" }),
        );
        stuck["metadata"]["finalizers"] = json!(["keelson.dev/delete-topic"]);
        self.kubectl(&["apply", "--server-side", "-f", "-"], &stuck.to_string());
        let group = object(
            "ConsumerGroup",
            "broken",
            "aimless",
            &json!({ "lagObjective": {} }),
        );
        self.kubectl(&["apply", "--server-side", "-f", "-"], &group.to_string());
    }

    /// A cluster-admin kubeconfig whose own namespace is `namespace`.
    pub fn kubeconfig(&self, namespace: &str) -> PathBuf {
        self.kubeconfig_as(namespace, (namespace, &self.server, TOKEN))
    }

    /// The same, over another way.
    pub fn kubeconfig_through(&self, namespace: &str, name: &str, server: &str) -> PathBuf {
        self.kubeconfig_as(namespace, (name, server, TOKEN))
    }

    /// The same, with another token.
    pub fn kubeconfig_with(&self, namespace: &str, name: &str, token: &str) -> PathBuf {
        self.kubeconfig_as(namespace, (name, &self.server, token))
    }

    fn kubeconfig_as(&self, namespace: &str, (name, server, token): (&str, &str, &str)) -> PathBuf {
        let path = self.home.join(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "t", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "t", "user": { "token": token } }],
            "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t", "namespace": namespace } }],
            "current-context": "t",
        });
        std::fs::write(&path, config.to_string()).expect("a kubeconfig can be written");
        path
    }

    /// Applies an object that must be refused in these words.
    #[track_caller]
    pub fn refuses(&self, (kind, namespace, name): (&str, &str, &str), spec: &Value, words: &str) {
        let refused = self.try_kubectl(
            &["apply", "--server-side", "--field-manager=test", "-f", "-"],
            &object(kind, namespace, name, spec).to_string(),
        );
        assert!(
            refused.as_ref().is_err_and(|text| text.contains(words)),
            "{spec}: {refused:?}"
        );
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
        self.try_apply(kind, namespace, name, spec)
            .unwrap_or_else(|error| panic!("{kind} {namespace}/{name}: {error}"));
    }

    /// Creates an object of ours, or changes it, by server-side apply; or what the API server has against it.
    pub fn try_apply(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        spec: &Value,
    ) -> Result<(), String> {
        let path = format!(
            "{}?fieldManager=test&fieldValidation=Strict",
            path(kind, namespace, name)
        );
        let body = object(kind, namespace, name, spec).to_string();
        let call = ("PATCH", path.as_str());
        let answer = http::request(&self.plain, call, "application/apply-patch+yaml", &body);
        match answer {
            Ok(answer) if answer.status < 300 => Ok(()),
            Ok(answer) => Err(answer.body),
            Err(error) => Err(error.to_string()),
        }
    }

    /// An object, if it exists.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let answer = http::get(&self.plain, &path(kind, namespace, name)).ok()?;
        (answer.status == 200)
            .then(|| serde_json::from_str(&answer.body).ok())
            .flatten()
    }

    /// Asks for the deletion of an object and does not wait for it.
    #[track_caller]
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let path = path(kind, namespace, name);
        let answer = http::request(&self.plain, ("DELETE", &path), "application/json", "")
            .expect("the API server answers");
        assert!(answer.status < 300, "{path}: {}", answer.body);
    }

    /// Creates a namespace.
    #[track_caller]
    pub fn namespace(&self, name: &str) {
        let body = json!({ "metadata": { "name": name } }).to_string();
        let call = ("POST", "/api/v1/namespaces");
        let answer = http::request(&self.plain, call, "application/json", &body)
            .expect("the API server answers");
        assert!(answer.status < 300, "{name}: {}", answer.body);
    }

    /// The reasons of the Events about an object, as a list of words.
    pub fn event_reasons(&self, namespace: &str, name: &str) -> Vec<String> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name}"
        );
        let found = http::get(&self.plain, &path)
            .ok()
            .and_then(|it| serde_json::from_str::<Value>(&it.body).ok())
            .unwrap_or_default();
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let reason = |it: &Value| it["reason"].as_str().map(str::to_owned);
        items.iter().filter_map(reason).collect()
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub fn wait_gone(&self, kind: &str, namespace: &str, name: &str) {
        wait_until(
            &format!("{kind} {namespace}/{name} is gone"),
            OPERATOR_WITHIN,
            || {
                http::get(&self.plain, &path(kind, namespace, name))
                    .is_ok_and(|it| it.status == 404)
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

/// Where an object of this kind is.
fn path(kind: &str, namespace: &str, name: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.as_str() {
        "namespace" => format!("/api/v1/namespaces/{name}"),
        "configmap" => format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
        "lease" => {
            format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")
        }
        "statefulset" => format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"),
        "topic" | "consumergroup" => {
            format!("/apis/keelson.dev/v1alpha1/namespaces/{namespace}/{kind}s/{name}")
        }
        other => panic!("nobody has said where a {other} is"),
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
