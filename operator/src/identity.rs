//! What is kept outside of every broker's volume: which data directory it was seen with, and its newest start.
//!
//! Owns the form of an entry and the rule by which one changes. Pure: `run::identity` fetches and writes.

use serde::{Deserialize, Serialize};

/// The answer of `/admin/v1/identity`, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    pub(crate) cluster_id: String,
    pub(crate) broker_id: i32,
    pub(crate) directory_id: String,
    /// Starts of this directory.
    pub(crate) boot: u64,
    /// What this directory was accepted in place of.
    #[serde(default)]
    pub(crate) replaces: Option<Directory>,
}

/// A directory at one of its starts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Directory {
    pub(crate) directory_id: String,
    pub(crate) boot: u64,
}

/// An entry: what was seen, and where it stands, for the line with which a broker's refusal ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) cluster_id: String,
    pub(crate) broker_id: i32,
    pub(crate) directory_id: String,
    pub(crate) boot: u64,
    pub(crate) config_map: Place,
}

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is as it should be.
    Keep,
    /// It becomes this.
    Write(Entry),
    /// It stays, and somebody must look.
    Refuse(String),
}

/// The key of a broker's entry.
pub(crate) fn key(broker_id: i32) -> String {
    format!("broker-{broker_id}.identity")
}

/// The rule: an entry follows its directory forward, and goes over to another one only if that one was accepted in place
/// of exactly what the entry says.
pub(crate) fn decide(entry: Option<&str>, answer: &Answer, place: &Place) -> Step {
    let write = || {
        Step::Write(Entry {
            cluster_id: answer.cluster_id.clone(),
            broker_id: answer.broker_id,
            directory_id: answer.directory_id.clone(),
            boot: answer.boot,
            config_map: place.clone(),
        })
    };
    let Some(text) = entry else {
        return write();
    };
    let known: Entry = match serde_json::from_str(text) {
        Ok(known) => known,
        Err(error) => {
            return Step::Refuse(format!(
                "the entry of broker {} is not what the operator writes ({error}): mend or remove it",
                answer.broker_id
            ));
        }
    };
    let accepted = answer.replaces.as_ref().is_some_and(|replaced| {
        replaced.directory_id == known.directory_id && replaced.boot == known.boot
    });
    let same = known.directory_id == answer.directory_id && known.cluster_id == answer.cluster_id;
    if accepted || (same && known.boot < answer.boot) {
        return write();
    }
    if same && known.boot == answer.boot {
        return if known.config_map == *place {
            Step::Keep
        } else {
            write()
        };
    }
    Step::Refuse(format!(
        "broker {} runs on directory {} of cluster {} at its start number {}, but directory {} of cluster {} was seen at \
         start number {}, and nobody accepted the difference: see docs/runbooks/identity.md",
        answer.broker_id,
        answer.directory_id,
        answer.cluster_id,
        answer.boot,
        known.directory_id,
        known.cluster_id,
        known.boot
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            namespace: "kafka".into(),
            name: "demo-broker-identity".into(),
        }
    }

    fn answer(cluster: &str, directory: &str, boot: u64, replaces: Option<(&str, u64)>) -> Answer {
        Answer {
            cluster_id: cluster.into(),
            broker_id: 0,
            directory_id: directory.into(),
            boot,
            replaces: replaces.map(|(directory, boot)| Directory {
                directory_id: directory.into(),
                boot,
            }),
        }
    }

    /// Directory `d` of cluster `c` was seen at start 7. `Some(true)`: written, `Some(false)`: kept, `None`: refused.
    #[track_caller]
    fn check(answer: &Answer, expected: Option<bool>) {
        let Step::Write(seen) = decide(None, &self::answer("c", "d", 7, None), &place()) else {
            panic!("the first answer is written");
        };
        let text = serde_json::to_string(&seen).unwrap();
        let step = decide(Some(&text), answer, &place());
        match (&step, expected) {
            (Step::Keep, Some(false)) | (Step::Refuse(_), None) => {}
            (Step::Write(entry), Some(true)) => {
                assert_eq!(
                    (&entry.directory_id, entry.boot),
                    (&answer.directory_id, answer.boot)
                );
                let text = serde_json::to_string(entry).unwrap();
                assert_eq!(
                    decide(Some(&text), answer, &place()),
                    Step::Keep,
                    "once is enough"
                );
            }
            _ => panic!("{answer:?}: {step:?}"),
        }
    }

    #[test]
    fn every_case() {
        check(&answer("c", "d", 7, None), Some(false));
        check(&answer("c", "d", 8, None), Some(true));
        check(&answer("c", "d", 6, None), None);
        check(&answer("c", "e", 9, None), None);
        check(&answer("b", "d", 9, None), None);
        check(&answer("c", "e", 1, Some(("d", 7))), Some(true));
        check(&answer("b", "e", 1, Some(("d", 7))), Some(true));
        check(&answer("c", "e", 1, Some(("d", 6))), None);
        check(&answer("c", "d", 8, Some(("d", 7))), Some(true));
        check(&answer("c", "d", 7, Some(("x", 3))), Some(false));
    }

    #[test]
    fn an_entry_that_somebody_wrote_is_left_alone_and_one_that_was_moved_is_corrected() {
        let now = answer("c", "d", 7, None);
        assert!(matches!(decide(Some("{"), &now, &place()), Step::Refuse(_)));
        let Step::Write(mut entry) = decide(None, &now, &place()) else {
            panic!("the first answer is written");
        };
        entry.config_map.namespace = "restored-from".into();
        let text = serde_json::to_string(&entry).unwrap();
        assert!(matches!(
            decide(Some(&text), &now, &place()),
            Step::Write(_)
        ));
    }

    #[test]
    fn the_answer_of_the_broker_is_read() {
        let text = r#"{"cluster_id":"c","broker_id":0,"directory_id":"d","boot":7,"replaces":null,"listeners":[]}"#;
        let read: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(read, answer("c", "d", 7, None));
    }
}
