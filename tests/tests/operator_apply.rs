//! `keelson-operator apply` against a real broker, without Kubernetes: the lines, the exit codes, and what the broker
//! has afterwards.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use keelson_tests::wire::Wire;
use keelson_tests::{Broker, broker, tools, wait_until};

const WITHIN: Duration = Duration::from_secs(60);
const TOPIC: &str = "apiVersion: keelson.dev/v1alpha1\nkind: Topic\nmetadata: {name: orders}\n";

fn apply(path: &Path, bootstrap: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(tools::workspace_bin("keelson-operator"));
    command
        .arg("apply")
        .arg("-f")
        .arg(path)
        .args(["--bootstrap", bootstrap])
        .args(more);
    let output = command.output().expect("the operator can be started");
    let text = String::from_utf8(output.stdout).expect("lines are UTF-8");
    (output.status.code().expect("it ends by itself"), text)
}

fn exists(broker: &Broker, topic: &str) -> bool {
    let answer = Wire::connect(broker.bootstrap()).metadata(topic);
    answer.topics[0].error_code == 0
}

#[test]
fn created_changed_refused() {
    let broker = Broker::start();
    let folder = broker::scratch_dir();
    let write = |text: &str| {
        std::fs::write(folder.path().join("topic.yaml"), text).expect("a file can be written")
    };
    let run = |more: &[&str]| apply(folder.path(), broker.bootstrap(), more);

    write(&format!("{TOPIC}spec: {{partitions: 3}}\n"));
    let dry = "Topic default/orders: would create topic orders with 3 partitions\n";
    assert_eq!(run(&["--dry-run"]), (0, dry.to_owned()));
    assert!(!exists(&broker, "orders"), "a dry run changes nothing");
    let created =
        "Topic default/orders: Ready (AsDescribed): create topic orders with 3 partitions\n";
    assert_eq!(run(&[]), (0, created.to_owned()));
    assert_eq!(
        run(&[]),
        (0, "Topic default/orders: Ready (AsDescribed)\n".to_owned())
    );
    write(&format!(
        "{TOPIC}spec: {{partitions: 5, config: {{retention.ms: 1000}}}}\n"
    ));
    let (code, line) = run(&[]);
    assert_eq!(code, 0, "{line}");
    assert!(
        line.contains("set retention.ms=1000, then grow from 3 to 5 partitions"),
        "{line}"
    );

    write(&format!("{TOPIC}spec: {{partitions: 2}}\n"));
    let (code, line) = run(&[]);
    assert!(
        code == 1 && line.contains("not Ready (PartitionsCannotShrink)"),
        "{code} {line}"
    );
    write(&format!("{TOPIC}spec: {{config: {{no.such.key: 1}}}}\n"));
    let (code, line) = run(&[]);
    assert!(
        code == 1 && line.contains("refused: ") && line.contains("a key here is no topic config"),
        "{code} {line}"
    );
    // Only a broker knows this limit.
    write(&format!(
        "{TOPIC}spec: {{config: {{max.message.bytes: 2147483647}}}}\n"
    ));
    let (code, line) = run(&["--dry-run"]);
    assert!(
        code == 1 && line.contains("would fail (BrokerRefused): INVALID_CONFIG"),
        "{code} {line}"
    );
    let (code, line) = run(&[]);
    assert!(
        code == 1 && line.contains("not Ready (BrokerRefused): INVALID_CONFIG"),
        "{code} {line}"
    );
    write(&format!("{TOPIC}spec: {{partition: 2}}\n"));
    let (code, line) = run(&[]);
    assert!(
        code == 1 && line.contains("refused: ") && line.contains("spec.partition: unknown field"),
        "{code} {line}"
    );

    std::fs::remove_file(folder.path().join("topic.yaml")).expect("the file is there");
    assert_eq!(run(&[]), (0, String::new()));
    assert!(
        exists(&broker, "orders"),
        "a manifest that is gone deletes nothing"
    );
}

#[test]
fn groups_and_several_documents() {
    let broker = Broker::start();
    let folder = broker::scratch_dir();
    let group = "apiVersion: keelson.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {name: billing}\nspec: {}\n";
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
    let text = format!("{TOPIC}spec: {{}}\n---\n{group}---\n{other}");
    std::fs::write(folder.path().join("all.yml"), text).expect("a file can be written");
    let (code, lines) = apply(folder.path(), broker.bootstrap(), &[]);
    assert_eq!(code, 0, "{lines}");
    for part in [
        "skipped: ",
        "Topic default/orders: Ready",
        "ConsumerGroup default/billing: Ready (GroupAbsent)",
    ] {
        assert!(lines.contains(part), "{lines}");
    }
}

#[test]
fn what_is_imported_is_adopted_as_it_is() {
    let broker = Broker::start();
    let mut wire = Wire::connect(broker.bootstrap());
    wire.create_topic("orders", 3, &[("retention.ms", "1000")]);
    wire.create_topic("Order_Lines", 1, &[("cleanup.policy", "compact,delete")]);
    let output = Command::new(tools::workspace_bin("keelson-operator"))
        .args(["import", "--bootstrap", broker.bootstrap()])
        .output()
        .expect("the operator can be started");
    assert!(output.status.success(), "{output:?}");
    let folder = broker::scratch_dir();
    std::fs::write(folder.path().join("all.yaml"), &output.stdout).expect("a file can be written");
    let (code, lines) = apply(folder.path(), broker.bootstrap(), &[]);
    assert_eq!(code, 0, "{lines}");
    for line in lines.lines() {
        let adopted = line.contains("Ready (AsDescribed): set keelson.owner=local/default/order");
        assert!(
            adopted && !line.contains(", "),
            "nothing else was changed: {line}"
        );
    }
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn a_group_starts_where_told_and_is_reset_only_for_the_looks() {
    let broker = Broker::start();
    let folder = broker::scratch_dir();
    let group =
        "apiVersion: keelson.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {name: billing}\n";
    let run = |spec: &str, more: &[&str]| {
        let text = format!("{TOPIC}spec: {{partitions: 2}}\n---\n{group}spec: {spec}\n");
        std::fs::write(folder.path().join("all.yaml"), text).expect("a file can be written");
        let (code, lines) = apply(folder.path(), broker.bootstrap(), more);
        (code, lines.lines().last().unwrap_or_default().to_owned())
    };
    let start = "{topics: [{name: orders}], initialOffsets: {policy: Latest}}";
    let (code, _) = run("{topics: [{name: orders}]}", &[]);
    assert_eq!(code, 0);
    let would = "ConsumerGroup default/billing: would commit where to start in 2 partitions";
    assert_eq!(run(start, &["--dry-run"]), (0, would.to_owned()));
    let (code, line) = run(start, &[]);
    let done = "Ready (Observed): commit where to start in 2 partitions: Empty, 0 members, 0 records behind";
    assert!(code == 0 && line.contains(done), "{code} {line}");
    let (code, line) = run(start, &[]);
    assert!(
        code == 0 && line.contains("Ready (Observed): Empty"),
        "{line}"
    );
    let reset = |dry: bool| {
        format!(
            "{{topics: [{{name: orders}}], reset: {{requestId: a, to: Earliest, dryRun: {dry}}}}}"
        )
    };
    let (code, line) = run(&reset(true), &[]);
    let shown = "ResetSucceeded is True (DryRun): would move 2 partitions; orders-0: 0 → 0; orders-1: 0 → 0";
    assert!(code == 0 && line.contains(shown), "{code} {line}");
    let (code, line) = run(&reset(false), &[]);
    assert!(
        code == 1 && line.contains("(NoRecordKept)"),
        "{code} {line}"
    );
}

#[test]
fn the_examples_apply() {
    let broker = Broker::start();
    let (code, lines) = apply(&tools::root().join("examples"), broker.bootstrap(), &[]);
    assert_eq!(code, 0, "{lines}");
    assert!(
        lines.lines().all(|line| line.contains(": Ready")),
        "{lines}"
    );
}

#[test]
fn watching_follows_the_files() {
    let broker = Broker::start();
    let folder = broker::scratch_dir();
    let mut child = Command::new(tools::require("setpriv"))
        .args(["--pdeathsig", "KILL", "--"])
        .arg(tools::workspace_bin("keelson-operator"))
        .args(["apply", "--watch", "--bootstrap", broker.bootstrap(), "-f"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("the operator can be started");
    std::fs::write(folder.path().join("a.yaml"), format!("{TOPIC}spec: {{}}\n"))
        .expect("a file can be written");
    wait_until("a new manifest is applied", WITHIN, || {
        exists(&broker, "orders")
    });
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT)
        .expect("an own child can be signalled");
    let status = keelson_tests::wait_for("it ends", WITHIN, || {
        child.try_wait().expect("an own child")
    });
    assert!(status.success(), "{status}");
}
