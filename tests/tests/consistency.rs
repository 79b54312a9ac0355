//! Clients at work while the broker is killed and paused: nothing that they saw may contradict what a broker promises.
//!
//! One short run, or `KEELSON_CONSISTENCY_RUNS` long ones, from `KEELSON_SEED`. The history of a run with anomalies is kept
//! under `target/consistency`, and `KEELSON_HISTORY` names one to be judged again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use keelson_tests::consistency::{self, Action, Anomaly, End, History, check};
use keelson_tests::load::number;
use keelson_tests::workload::{Outcome, Run};
use keelson_tests::{Broker, tools};

/// Blows of the storm.
const SHORT: u32 = 2;
const LONG: u32 = 10;

#[test]
fn no_client_sees_what_no_broker_may_show() {
    if let Ok(path) = std::env::var("KEELSON_HISTORY") {
        let history = History::load(Path::new(&path)).expect("a history");
        let anomalies = check(&history);
        assert!(anomalies.is_empty(), "{}", told(&history, &anomalies));
        return;
    }
    let runs = number("KEELSON_CONSISTENCY_RUNS");
    let blows = if runs.is_some() { LONG } else { SHORT };
    let seed = number("KEELSON_SEED").unwrap_or_else(rand::random);
    let mut failed = Vec::new();
    for run in 0..runs.unwrap_or(1) {
        let seed = seed.wrapping_add(run);
        let replay = runs.map_or("", |_| " KEELSON_CONSISTENCY_RUNS=1");
        println!("KEELSON_SEED={seed}{replay}");
        if !clean(Run { seed, blows }) {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "anomalies with seeds {failed:?}");
}

/// Does a run; keeps the history and tells of its anomalies, if it has some.
fn clean(run: Run) -> bool {
    let started = Instant::now();
    let mut outcome = run.go();
    let (history, took) = (&outcome.history, started.elapsed());
    let anomalies = check(history);
    println!(
        "  {} in {took:?}; {}anomalies: {}",
        summary(history),
        outcome.storm,
        anomalies.len()
    );
    if anomalies.is_empty() {
        return true;
    }
    let path = keep(run.seed, &mut outcome);
    println!("{}", told(&outcome.history, &anomalies));
    println!("KEELSON_HISTORY={}", path.display());
    false
}

/// Keeps the history and, beside it, the broker's own words and what is in its log.
fn keep(seed: u64, outcome: &mut Outcome) -> PathBuf {
    let folder = tools::target_dir().join("consistency");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let path = folder.join(format!("{seed}.jsonl"));
    let history = &outcome.history;
    history.save(&path).expect("a history can be written");
    outcome.broker.kill9();
    let (_, dump) = Broker::offline(&["log", "dump"], outcome.broker.data_dir());
    for (extension, text) in [("log", outcome.broker.log()), ("dump", dump)] {
        std::fs::write(path.with_extension(extension), text).expect("a file can be written");
    }
    path
}

fn told(history: &History, anomalies: &[Anomaly]) -> String {
    let told: Vec<String> = anomalies.iter().map(|it| it.tell(history)).collect();
    told.join("\n")
}

/// What happened, and that enough did.
fn summary(history: &History) -> String {
    let (mut sends, mut unknown, mut reads, mut rebalances) = (0, 0, 0, 0);
    let (mut committed, mut aborted, mut left) = (0, 0, 0);
    for op in &history.ops {
        reads += op.reads().count();
        let is_unknown = usize::from(op.outcome == consistency::Outcome::Info);
        match &op.action {
            Action::Send { .. } => (sends, unknown) = (sends + 1, unknown + is_unknown),
            Action::Txn { end, .. } => match (end, op.outcome) {
                (End::Commit, consistency::Outcome::Ok) => committed += 1,
                (_, consistency::Outcome::Info) => left += 1,
                (End::Abort, _) | (End::Commit, consistency::Outcome::Fail) => aborted += 1,
            },
            Action::Rebalance { .. } => rebalances += 1,
            _ => {}
        }
    }
    assert!(
        sends > 0 && committed > 0 && rebalances > 0 && reads > sends,
        "nothing happened"
    );
    format!(
        "{sends} sends ({unknown} unknown), transactions: {committed} committed, {aborted} aborted, {left} unknown, \
         {rebalances} rebalances, {reads} reads"
    )
}
