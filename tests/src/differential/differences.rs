//! The closed list of what Keelson answers otherwise than Apache Kafka, each with its reason.
//!
//! Owns the list's form, how answers are judged by it, and its section in `docs/kafka-coverage.md`. A difference that is not
//! in the list fails the test, and so does one that no longer occurs.

mod list;

use std::fmt::Write;

use keelson_protocol::api::APIS;

use super::compare::{Found, compare, like};
use super::recording::{Recording, Step};
pub use list::{DIFFERENCES, NOT_SERVED};

/// Answers that differ, the fields in which they do, and why. `*` stands for anything.
#[derive(Debug)]
pub struct Difference {
    /// Which answers: `family / case / step (Api v3)`.
    pub steps: &'static [&'static str],
    /// What differs in them; together with `steps`, each must occur.
    pub fields: &'static [Field],
    /// Why that is right for Keelson: a sentence or two of the documentation.
    pub reason: &'static str,
}

/// A field that differs.
#[derive(Debug)]
pub struct Field {
    /// Its place, as `topics[*].error_code`.
    pub path: &'static str,
    /// What Apache Kafka says, as JSON; `null` for nothing.
    pub kafka: &'static str,
    /// What Keelson says, as JSON.
    pub keelson: &'static str,
}

/// APIs, or newer versions of some, that Apache Kafka advertises and Keelson does not.
#[derive(Debug)]
pub struct NotServed {
    /// Keys of APIs.
    pub keys: &'static [i16],
    /// What they are.
    pub what: &'static str,
    /// Why they are left out.
    pub reason: &'static str,
}

/// Which entries of the list were of use.
struct Seen {
    steps: Vec<bool>,
    fields: Vec<bool>,
}

/// What is wrong between Apache Kafka's recorded answers and Keelson's: differences that nobody declared, declared ones that
/// do not occur, steps without a counterpart. One line each.
pub fn judge(kafka: &Recording, keelson: &Recording) -> Vec<String> {
    let (recorded, answered) = (kafka.by_step(), keelson.by_step());
    let mut wrong = Vec::new();
    let unused = |difference: &Difference| Seen {
        steps: vec![false; difference.steps.len()],
        fields: vec![false; difference.fields.len()],
    };
    let mut seen: Vec<Seen> = DIFFERENCES.iter().map(unused).collect();
    for (step, answer) in &answered {
        let Some(expected) = recorded.get(step) else {
            wrong.push(format!("{step}: not recorded; run: make differential"));
            continue;
        };
        for found in compare(expected, answer) {
            if !declared(step, &found, &mut seen) {
                wrong.push(format!(
                    "{step}: {}: Apache Kafka {}, Keelson {}",
                    found.path, found.kafka, found.keelson
                ));
            }
        }
    }
    let gone = recorded.keys().filter(|step| !answered.contains_key(*step));
    wrong.extend(gone.map(|step| format!("{step}: recorded, but no longer in the scripts")));
    for (difference, seen) in DIFFERENCES.iter().zip(seen) {
        for (step, _) in difference
            .steps
            .iter()
            .zip(seen.steps)
            .filter(|(_, seen)| !seen)
        {
            wrong.push(format!(
                "declared, but it does not occur: {step}: {}",
                difference.reason
            ));
        }
        for (field, _) in difference
            .fields
            .iter()
            .zip(seen.fields)
            .filter(|(_, seen)| !seen)
        {
            wrong.push(format!(
                "declared, but it does not occur: {:?} in {:?}",
                field, difference.steps
            ));
        }
    }
    wrong
}

fn declared(step: &Step, found: &Found, seen: &mut [Seen]) -> bool {
    let (name, kafka, keelson) = (
        step.to_string(),
        found.kafka.to_string(),
        found.keelson.to_string(),
    );
    let is = |field: &Field| {
        like(field.path, &found.path) && like(field.kafka, &kafka) && like(field.keelson, &keelson)
    };
    for (difference, seen) in DIFFERENCES.iter().zip(seen) {
        let at_step = difference
            .steps
            .iter()
            .position(|pattern| like(pattern, &name));
        let at_field = difference.fields.iter().position(is);
        if let (Some(at_step), Some(at_field)) = (at_step, at_field) {
            (seen.steps[at_step], seen.fields[at_field]) = (true, true);
            return true;
        }
    }
    false
}

/// What is wrong between what Apache Kafka advertises (as [`super::advertised`] writes it) and Keelson's table.
pub fn judge_versions(recorded: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut needed: Vec<i16> = Vec::new();
    for line in recorded.lines() {
        let words: Vec<&str> = line.split([' ', '-']).collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i16>().ok());
        let (Some(key), Some(min), Some(max)) = (number(0), number(2), number(3)) else {
            wrong.push(format!("not a line of versions: {line}"));
            continue;
        };
        let ours = APIS.iter().find(|spec| spec.key as i16 == key);
        if ours.is_some_and(|spec| (spec.advertised_min, spec.max) == (min, max)) {
            continue;
        }
        needed.push(key);
        if !NOT_SERVED.iter().any(|left| left.keys.contains(&key)) {
            wrong.push(format!(
                "advertised by Apache Kafka and not declared: {line}"
            ));
        }
    }
    let declared = NOT_SERVED.iter().flat_map(|left| left.keys);
    for key in declared.filter(|key| !needed.contains(key)) {
        wrong.push(format!(
            "declared as not served, but it is as in Apache Kafka: API key {key}"
        ));
    }
    wrong
}

/// Where the section begins in the document.
pub const TITLE: &str = "## Differences";

/// The section of `docs/kafka-coverage.md`.
pub fn section() -> String {
    let mut text = format!(
        "{TITLE} from Apache Kafka 4.3.1

Made from `tests/src/differential/differences`; do not edit. The same scripted calls to Apache Kafka and to Keelson give the
same answers in every version, right calls and wrong ones, but for what stands here: names, ids, times, addresses and the
words of messages are not compared. `make differential` records Apache Kafka's answers anew.

| Not served | Why |
|---|---|
"
    );
    for left in NOT_SERVED {
        writeln!(text, "| {} | {} |", left.what, left.reason).expect("a string takes it");
    }
    text.push_str("\n| Calls | Field: Apache Kafka → Keelson | Why |\n|---|---|---|\n");
    for difference in DIFFERENCES {
        let field = |field: &Field| {
            format!("{}: {} → {}", field.path, field.kafka, field.keelson).replace('|', "\\|")
        };
        let fields: Vec<String> = difference.fields.iter().map(field).map(code).collect();
        let steps: Vec<String> = difference
            .steps
            .iter()
            .map(|step| code((*step).to_owned()))
            .collect();
        let (steps, fields) = (steps.join("<br>"), fields.join("<br>"));
        writeln!(text, "| {steps} | {fields} | {} |", difference.reason)
            .expect("a string takes it");
    }
    text
}

fn code(text: String) -> String {
    format!("`{text}`")
}
