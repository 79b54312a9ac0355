//! What the operator keeps of the brokers, against a real kube-apiserver and a real broker: written when there is news, never
//! turned back, and gone over to another directory only when somebody accepted that.

use std::path::{Path, PathBuf};

use keelson_tests::broker::scratch_dir;
use keelson_tests::kube::{self, OPERATOR_WITHIN, shared};
use keelson_tests::stage::Stage;
use keelson_tests::{Broker, wait_for, wait_until};
use serde_json::{Value, json};

const ENTRY: &str = "broker-0.identity";

/// A stage whose broker has the ConfigMap mounted, with the test in the place of the kubelet.
struct Mounted {
    stage: Stage,
    name: String,
    home: tempfile::TempDir,
}

impl Mounted {
    fn new(cluster: &'static str) -> Self {
        let home = scratch_dir();
        let mut stage = Stage::new(cluster);
        stage.broker.stop();
        let setup = stage.broker.setup_mut();
        *setup = setup
            .clone()
            .set("keelson.known.dir", home.path().display())
            // The operator is told a port.
            .set("http.listen", format!("127.0.0.1:{}", kube::free_port()));
        stage.broker.restart();
        Self {
            name: format!("{cluster}-broker-identity"),
            stage,
            home,
        }
    }

    fn object(&self) -> Option<Value> {
        shared().get("configmap", self.stage.cluster, &self.name)
    }

    fn entry(&self) -> Option<Value> {
        let object = self.object()?;
        let text = object["data"][ENTRY].as_str()?;
        Some(serde_json::from_str(text).expect("JSON"))
    }

    #[track_caller]
    fn wait_entry(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, OPERATOR_WITHIN, || self.entry().filter(|it| is(it)))
    }

    /// What the kubelet does.
    fn mount(&self) {
        let object = self.object().expect("the ConfigMap");
        for (key, value) in object["data"].as_object().expect("entries") {
            let path: PathBuf = self.home.path().join(key);
            std::fs::write(path, value.as_str().expect("text")).expect("written");
        }
    }

    fn patch(&self, data: Value) {
        let patch = json!({ "data": data }).to_string();
        let namespace = self.stage.cluster;
        let args = [
            "patch",
            "configmap",
            &self.name,
            "-n",
            namespace,
            "--type",
            "merge",
            "-p",
            &patch,
        ];
        shared().kubectl(&args, "");
    }
}

fn identity(broker: &Broker) -> Value {
    serde_json::from_str(&broker.get("/admin/v1/identity")).expect("JSON")
}

fn wipe(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("the volume is lost");
}

#[test]
fn what_was_seen_is_kept_and_an_accepted_loss_goes_through() {
    let mut mounted = Mounted::new("seen");
    let _operator = mounted.stage.operator();
    let now = identity(&mounted.stage.broker);
    let entry = mounted.wait_entry("the entry", |_| true);
    for key in ["cluster_id", "broker_id", "directory_id", "boot"] {
        assert_eq!(entry[key], now[key], "{key}");
    }
    assert_eq!(
        entry["config_map"],
        json!({ "namespace": "seen", "name": mounted.name })
    );

    // A restart is news, and nothing else is.
    mounted.stage.broker.stop();
    mounted.mount();
    mounted.stage.broker.restart();
    let boot = identity(&mounted.stage.broker)["boot"].clone();
    mounted.wait_entry("the next start", |it| it["boot"] == boot);
    mounted.patch(json!({ "note": "of somebody else" }));
    shared().delete("configmap", "seen", &mounted.name);
    let again = wait_for("it is made again", OPERATOR_WITHIN, || mounted.object());
    assert_eq!(again["data"].as_object().map(|it| it.len()), Some(1));

    // The volume is lost.
    mounted.patch(json!({ "note": "of somebody else" }));
    mounted.stage.broker.stop();
    mounted.mount();
    wipe(mounted.stage.broker.data_dir());
    let failed = mounted.stage.broker.try_restart().expect_err("refused");
    let (_, line) = failed
        .log
        .rsplit_once("kubectl ")
        .expect("the line to copy");
    let line = line.lines().next().expect("one line").trim();
    let (command, patch) = line.split_once(" --patch ").expect("a patch");
    let mut args: Vec<&str> = command.split(' ').collect();
    args.extend(["--patch", patch.trim_matches('\'')]);
    shared().kubectl(&args, "");
    mounted.mount();
    mounted.stage.broker.restart();
    let after = identity(&mounted.stage.broker);
    assert_ne!(after["directory_id"], now["directory_id"]);
    mounted.wait_entry("the entry goes over", |it| {
        it["directory_id"] == after["directory_id"]
    });
    let data = mounted.object().expect("the ConfigMap")["data"].clone();
    assert_eq!(data["note"], "of somebody else");
    assert!(
        data["broker-0.accept"]
            .as_str()
            .is_some_and(|it| it.starts_with("empty:instead-of:"))
    );
}

#[test]
fn nothing_is_turned_back_and_the_object_goes_with_the_volumes() {
    let mut mounted = Mounted::new("forward");
    let operator = mounted.stage.operator();
    let other = mounted.stage.operator();
    let entry = mounted.wait_entry("the entry", |_| true);
    // Somebody says that more was seen, or another directory: the entry stays, and that is told.
    for (key, value) in [("boot", json!(99)), ("directory_id", json!("another"))] {
        let mut wrong = entry.clone();
        wrong[key] = value;
        mounted.patch(json!({ ENTRY: wrong.to_string() }));
        // A start is news, so that the operator compares.
        mounted.stage.broker.stop();
        mounted.stage.broker.restart();
        let named = format!(
            "at its start number {}",
            identity(&mounted.stage.broker)["boot"]
        );
        wait_until("the Event", OPERATOR_WITHIN, || {
            let args = ["get", "events.events.k8s.io", "-n", "forward", "-o", "json"];
            let list: Value = serde_json::from_str(&shared().kubectl(&args, "")).expect("JSON");
            let events = list["items"].as_array().expect("a list").clone();
            events.iter().any(|it| {
                // The same again is counted, not written anew.
                let again = it["series"]["count"]
                    .as_i64()
                    .is_some_and(|count| count > 1);
                let told = it["note"]
                    .as_str()
                    .is_some_and(|note| note.contains(&named));
                it["reason"] == "IdentityConflict" && (again || told)
            })
        });
        assert_eq!(mounted.entry(), Some(wrong));
    }
    mounted.patch(json!({ ENTRY: null }));
    let boot = identity(&mounted.stage.broker)["boot"].clone();
    let entry = mounted.wait_entry("what runs is taken", |it| it["boot"] == boot);
    assert_eq!(
        entry["directory_id"],
        identity(&mounted.stage.broker)["directory_id"]
    );
    // The object goes with the volumes, if they go; the next leader sees to that, too.
    let mut leaders = [operator, other];
    let leader = leaders.iter().position(|it| it.leads()).expect("one leads");
    leaders[leader].stop();
    mounted.stage.statefulset();
    let owners =
        |it: &Mounted| it.object().expect("the ConfigMap")["metadata"]["ownerReferences"].clone();
    for (policy, owner) in [("Delete", json!("forward-broker")), ("Retain", Value::Null)] {
        let patch = json!({ "spec": { "persistentVolumeClaimRetentionPolicy": { "whenDeleted": policy } } }).to_string();
        let args = [
            "patch",
            "statefulset",
            "forward-broker",
            "-n",
            "forward",
            "-p",
            &patch,
        ];
        shared().kubectl(&args, "");
        wait_until("the object has the right owner", OPERATOR_WITHIN, || {
            owners(&mounted)[0]["name"] == owner
        });
    }
    assert_eq!(mounted.entry(), Some(entry));
}

fn load_balancer(port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "outside-broker-0-external", "namespace": "outside" },
        "spec": {
            "type": "LoadBalancer",
            "ports": [{ "name": "external", "port": port }],
            "allocateLoadBalancerNodePorts": false,
        },
    })
}

#[test]
fn a_load_balancer_that_got_its_address_is_told_to_the_broker_and_by_the_broker() {
    let mut mounted = Mounted::new("outside");
    mounted.stage.broker.stop();
    let external = kube::free_port();
    let inside = mounted.stage.broker.bootstrap().to_owned();
    let listeners = format!("PLAINTEXT://{inside},EXTERNAL://127.0.0.1:{external}");
    let map = "PLAINTEXT:PLAINTEXT,EXTERNAL:PLAINTEXT";
    let setup = mounted.stage.broker.setup_mut();
    *setup = setup
        .clone()
        .set("listeners", listeners)
        .set("listener.security.protocol.map", map);
    mounted.stage.broker.restart();
    let _operator = mounted.stage.setup().external_services().start();
    let entry = |it: &Mounted| {
        it.object()?["data"]["broker-0.EXTERNAL"]
            .as_str()
            .map(str::to_owned)
    };
    wait_until(
        "the operator says that there is none",
        OPERATOR_WITHIN,
        || {
            entry(&mounted)
                .is_some_and(|it| it.contains("outside-broker-0-external does not exist"))
        },
    );
    let service = load_balancer(external);
    shared().kubectl(&["create", "-f", "-"], &service.to_string());
    wait_until("the operator says that it waits", OPERATOR_WITHIN, || {
        entry(&mounted).is_some_and(|it| it.contains("has no address yet"))
    });
    mounted.mount();
    // What a cloud's controller does.
    let status =
        json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } } }).to_string();
    let name = "outside-broker-0-external";
    let args = [
        "patch",
        "service",
        name,
        "-n",
        "outside",
        "--subresource",
        "status",
        "--type",
        "merge",
        "-p",
        &status,
    ];
    shared().kubectl(&args, "");
    wait_until("the operator tells the address", OPERATOR_WITHIN, || {
        entry(&mounted).is_some_and(|it| it.contains("127.0.0.1"))
    });
    mounted.mount();
    wait_until("the broker tells the address", OPERATOR_WITHIN, || {
        let listener = &identity(&mounted.stage.broker)["listeners"][1];
        listener["advertised"] == json!(format!("127.0.0.1:{external}"))
            && listener["why"]
                .as_str()
                .is_some_and(|why| why.contains(name))
    });
}
