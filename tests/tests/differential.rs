//! The same scripted calls to Keelson as to Apache Kafka, whose answers are recorded: they are the same, but for what is
//! declared.

use std::collections::BTreeSet;

use keelson_protocol::api::APIS;
use keelson_tests::differential::recording::Recording;
use keelson_tests::differential::{self, SETTINGS, differences};
use keelson_tests::{BrokerSetup, tools};

fn recorded() -> Recording {
    let mut all = Recording::default();
    for family in differential::families() {
        let path = differential::recordings_dir().join(format!("{family}.txt"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; run: make differential", path.display()));
        all.extend(Recording::from_text(family, &text).expect("a recording"));
    }
    all
}

#[test]
fn keelson_answers_as_apache_kafka_does() {
    let mut setup = BrokerSetup::new();
    for (key, value) in SETTINGS {
        setup = setup.set(key, value);
    }
    let broker = setup.start();
    let mut answered = Recording::default();
    for (_, recording) in differential::run_scripts(broker.bootstrap(), "", |_| true) {
        answered.extend(recording);
    }
    let wrong = differences::judge(&recorded(), &answered);
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_version_that_is_served_is_compared() {
    let recorded = recorded();
    let compared: BTreeSet<(&str, i16)> = recorded
        .iter()
        .map(|(step, _)| (step.api.as_str(), step.version))
        .collect();
    let missing: Vec<String> = APIS
        .iter()
        .flat_map(|spec| (spec.min..=spec.max).map(|version| (spec.name, version)))
        .filter(|served| !compared.contains(served))
        .map(|(name, version)| format!("{name} v{version}"))
        .collect();
    assert!(
        missing.is_empty(),
        "without a script: {}",
        missing.join(", ")
    );
}

#[test]
fn what_apache_kafka_serves_beyond_is_declared() {
    let path = differential::recordings_dir().join("versions.txt");
    let text = std::fs::read_to_string(path).expect("the recorded versions");
    let wrong = differences::judge_versions(&text);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_document_tells_every_difference() {
    let path = tools::root().join("docs/kafka-coverage.md");
    let found = std::fs::read_to_string(&path).expect("the document");
    let (table, section) = found.split_once(differences::TITLE).unwrap_or((&found, ""));
    let fresh = differences::section();
    if format!("{}{section}", differences::TITLE) != fresh {
        let aside = tools::target_dir().join("kafka-coverage.md");
        std::fs::write(&aside, format!("{}\n\n{fresh}", table.trim_end())).expect("a file");
        panic!(
            "docs/kafka-coverage.md is stale; a fresh one is {}",
            aside.display()
        );
    }
}
