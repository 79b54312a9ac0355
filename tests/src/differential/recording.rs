//! The recorded answers as text: one file per family of APIs, equal answers of several versions in one line.
//!
//! ```text
//! = a topic that exists                case
//! - created again                      step
//! CreateTopics 2-4 {"topics":[…]}      API, versions, answer
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Which answer: family, case and step are names from the scripts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// The family's name.
    pub family: String,
    /// The case's name.
    pub case: String,
    /// The step's name within its case.
    pub step: String,
    /// Kafka's name of the case's API, `Name@7` for another one or another version of it, `frame` for raw bytes, `found` for
    /// what the script made of several answers.
    pub api: String,
    /// The version that the case ran with.
    pub version: i16,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            family,
            case,
            step,
            api,
            version,
        } = self;
        write!(f, "{family} / {case} / {step} ({api} v{version})")
    }
}

/// Normalised answers in the order of the scripts.
#[derive(Debug, Default)]
pub struct Recording {
    answers: Vec<(Step, Value)>,
}

impl Recording {
    /// One more answer.
    ///
    /// # Panics
    /// When the step has one already: two steps of a case may not share a name.
    pub fn push(&mut self, step: Step, answer: Value) {
        let known = self.answers.iter().rev().any(|(known, _)| *known == step);
        assert!(!known, "two steps are called {step}");
        self.answers.push((step, answer));
    }

    /// All of another's, behind one's own.
    pub fn extend(&mut self, other: Self) {
        self.answers.extend(other.answers);
    }

    /// The answers.
    pub fn iter(&self) -> impl Iterator<Item = &(Step, Value)> {
        self.answers.iter()
    }

    /// By step.
    pub fn by_step(&self) -> BTreeMap<&Step, &Value> {
        self.answers
            .iter()
            .map(|(step, answer)| (step, answer))
            .collect()
    }

    /// The text of one family.
    pub fn to_text(&self) -> String {
        let mut cases: Vec<(&str, Vec<Group>)> = Vec::new();
        for (step, answer) in &self.answers {
            let at = cases.iter().position(|(case, _)| *case == step.case);
            let at = at.unwrap_or_else(|| {
                cases.push((&step.case, Vec::new()));
                cases.len() - 1
            });
            insert(&mut cases[at].1, step, answer);
        }
        let mut text = String::new();
        for (case, groups) in cases {
            writeln!(text, "= {case}").expect("a string takes it");
            let mut last = "";
            for group in groups {
                if group.step != last {
                    writeln!(text, "- {}", group.step).expect("a string takes it");
                    last = group.step;
                }
                let versions = versions_text(&group.versions);
                writeln!(text, "{} {versions} {}", group.api, group.answer)
                    .expect("a string takes it");
            }
        }
        text
    }

    /// Reads the text of one family.
    pub fn from_text(family: &str, text: &str) -> Result<Self> {
        let mut recording = Self::default();
        let (mut case, mut step) = ("", "");
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("= ") {
                (case, step) = (name, "");
            } else if let Some(name) = line.strip_prefix("- ") {
                step = name;
            } else {
                let mut words = line.splitn(3, ' ');
                let (Some(api), Some(versions), Some(answer)) =
                    (words.next(), words.next(), words.next())
                else {
                    bail!("{family}: not an answer: {line}");
                };
                let answer: Value = serde_json::from_str(answer).context(line.to_owned())?;
                for version in versions_of(versions)? {
                    let step = Step {
                        family: family.to_owned(),
                        case: case.to_owned(),
                        step: step.to_owned(),
                        api: api.to_owned(),
                        version,
                    };
                    recording.answers.push((step, answer.clone()));
                }
            }
        }
        Ok(recording)
    }
}

/// Versions with one answer.
struct Group<'a> {
    step: &'a str,
    api: &'a str,
    versions: Vec<i16>,
    answer: &'a Value,
}

/// Behind the last group of the same step, or into the one with the same answer.
fn insert<'a>(groups: &mut Vec<Group<'a>>, step: &'a Step, answer: &'a Value) {
    let same_step = |group: &Group<'_>| group.step == step.step && group.api == step.api;
    let known = groups
        .iter_mut()
        .find(|group| same_step(group) && group.answer == answer);
    if let Some(group) = known {
        group.versions.push(step.version);
        return;
    }
    let at = groups
        .iter()
        .rposition(|group| group.step == step.step)
        .map_or(groups.len(), |at| at + 1);
    let group = Group {
        step: &step.step,
        api: &step.api,
        versions: vec![step.version],
        answer,
    };
    groups.insert(at, group);
}

/// `2-4,7` for 2, 3, 4 and 7.
fn versions_text(versions: &[i16]) -> String {
    let mut runs: Vec<(i16, i16)> = Vec::new();
    for version in versions {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *version => *last = *version,
            _ => runs.push((*version, *version)),
        }
    }
    let run = |(first, last): &(i16, i16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

fn versions_of(text: &str) -> Result<Vec<i16>> {
    let mut versions = Vec::new();
    for run in text.split(',') {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        versions.extend(first.parse::<i16>()?..=last.parse::<i16>()?);
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read() {
        let mut recording = Recording::default();
        for version in [2, 3, 4, 7, 9] {
            for step in ["made", "made again"] {
                let step = Step {
                    family: "topics".into(),
                    case: "a topic".into(),
                    step: step.into(),
                    api: "CreateTopics".into(),
                    version,
                };
                let answer = if version == 9 {
                    json!("closed")
                } else {
                    json!({"a": [1]})
                };
                recording.push(step, answer);
            }
        }
        let text = recording.to_text();
        assert!(
            text.contains(
                "- made again\nCreateTopics 2-4,7 {\"a\":[1]}\nCreateTopics 9 \"closed\"\n"
            ),
            "{text}"
        );
        let read = Recording::from_text("topics", &text).expect("its own text");
        assert_eq!(read.by_step(), recording.by_step());
    }
}
