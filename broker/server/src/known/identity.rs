//! Whether a data directory is the one that this broker was seen with.
//!
//! Owns the table of cases and their words. Pure: neither files nor clocks.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use keelson_log::{DirectoryAt, FoundDirectory};

const EMPTY: &str = "empty";
const INSTEAD_OF: &str = ":instead-of:";

/// What was seen of this broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) cluster_id: String,
    pub(crate) broker_id: i32,
    /// The directory, at the newest start of it that was seen.
    pub(crate) directory: DirectoryAt,
}

/// A difference that somebody accepts: exactly what is found, in place of exactly what is known. It is used up by the start
/// that it admits, since what is known changes with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// `None`: an empty directory.
    found: Option<DirectoryAt>,
    seen: DirectoryAt,
}

/// What a start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The directory that is known, or one that has taken its place before.
    Known,
    /// Another one, which takes its place now.
    Accepted,
    /// It stops.
    Refused(Difference),
}

/// How a directory differs from the known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// There is nothing in it.
    Empty,
    /// It belongs to another cluster.
    OtherCluster,
    /// It is another directory of this broker.
    OtherDirectory,
    /// It is the known one as it was before.
    OlderCopy,
}

/// The whole judgement. Whether the directory belongs to this broker id is checked when it is opened, with or without
/// anything known, and cannot be accepted.
pub(crate) fn decide(
    seen: &Seen,
    found: Option<&FoundDirectory>,
    acceptance: Option<&Acceptance>,
) -> Decision {
    let difference = match found {
        None => Difference::Empty,
        // It was accepted before, and the operator has not taken note yet.
        Some(found) if found.replaces.as_ref() == Some(&seen.directory) => return Decision::Known,
        Some(found) if found.cluster_id != seen.cluster_id => Difference::OtherCluster,
        Some(found) if found.directory.id != seen.directory.id => Difference::OtherDirectory,
        Some(found) if found.directory.boot < seen.directory.boot => Difference::OlderCopy,
        Some(_) => return Decision::Known,
    };
    if acceptance == Some(&Acceptance::of(seen, found)) {
        Decision::Accepted
    } else {
        Decision::Refused(difference)
    }
}

impl Difference {
    /// Why a start is refused.
    pub(crate) fn words(
        self,
        data_dir: &Path,
        seen: &Seen,
        found: Option<&FoundDirectory>,
    ) -> String {
        let dir = data_dir.display();
        let Seen {
            cluster_id,
            broker_id,
            directory: DirectoryAt { id, boot },
        } = seen;
        let known = format!(
            "the data of broker {broker_id} of cluster {cluster_id} is in directory {id}, last seen at its start number {boot}"
        );
        let (cluster, at) = found.map_or(("", EMPTY.to_owned()), |found| {
            (found.cluster_id.as_str(), found.directory.to_string())
        });
        match self {
            Difference::Empty => format!(
                "the data directory {dir} is empty, but {known}: is the right volume mounted? Starting here loses what it holds"
            ),
            Difference::OtherCluster => format!(
                "the data directory {dir} belongs to cluster {cluster} ({at}), but {known}: another volume is mounted"
            ),
            Difference::OtherDirectory => {
                format!("the data directory {dir} is {at}, but {known}: another volume is mounted")
            }
            Difference::OlderCopy => format!(
                "the data directory {dir} is an older copy ({at}), but {known}: what was written since is not in it"
            ),
        }
    }
}

/// How a directory is named in an acceptance.
pub(crate) fn name(found: Option<&FoundDirectory>) -> String {
    found.map_or_else(|| EMPTY.to_owned(), |found| found.directory.to_string())
}

impl Acceptance {
    /// The one that accepts this difference.
    pub(crate) fn of(seen: &Seen, found: Option<&FoundDirectory>) -> Self {
        Self {
            found: found.map(|found| found.directory.clone()),
            seen: seen.directory.clone(),
        }
    }
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            None => write!(f, "{EMPTY}{INSTEAD_OF}{}", self.seen),
            Some(found) => write!(f, "{found}{INSTEAD_OF}{}", self.seen),
        }
    }
}

impl FromStr for Acceptance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = format!("{text:?} is not of the form <found>{INSTEAD_OF}<known>");
        let (found, seen) = text.split_once(INSTEAD_OF).ok_or(form)?;
        let parse = |text: &str| text.parse::<DirectoryAt>().map_err(|e| e.to_string());
        Ok(Self {
            found: (found != EMPTY).then(|| parse(found)).transpose()?,
            seen: parse(seen)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Accepted, Known, Refused};
    use Difference::{Empty, OlderCopy, OtherCluster, OtherDirectory};

    fn at(text: &str) -> DirectoryAt {
        text.parse().unwrap()
    }

    fn found(cluster: &str, directory: &str, replaces: Option<&str>) -> Option<FoundDirectory> {
        Some(FoundDirectory {
            cluster_id: cluster.to_owned(),
            broker_id: 0,
            directory: at(directory),
            replaces: replaces.map(at),
        })
    }

    /// What is known is `d@7` of cluster `c`.
    #[track_caller]
    fn check(found: Option<FoundDirectory>, accept: Option<&str>, expected: Decision) {
        let seen = Seen {
            cluster_id: "c".to_owned(),
            broker_id: 0,
            directory: at("d@7"),
        };
        let acceptance = accept.map(|text| text.parse().unwrap());
        assert_eq!(decide(&seen, found.as_ref(), acceptance.as_ref()), expected);
        let exact = Acceptance::of(&seen, found.as_ref());
        assert_eq!(exact.to_string().parse(), Ok(exact.clone()));
        if let Refused(difference) = expected {
            assert_eq!(decide(&seen, found.as_ref(), Some(&exact)), Accepted);
            let words = difference.words(Path::new("/data"), &seen, found.as_ref());
            assert!(
                words.contains("cluster c is in directory d, last seen at its start number 7"),
                "{words}"
            );
        }
    }

    #[test]
    fn every_case() {
        check(found("c", "d@7", None), None, Known);
        check(found("c", "d@9", None), None, Known);
        check(found("c", "d@6", None), None, Refused(OlderCopy));
        check(found("c", "d@0", None), None, Refused(OlderCopy));
        check(found("c", "e@9", None), None, Refused(OtherDirectory));
        check(found("b", "d@7", None), None, Refused(OtherCluster));
        check(found("b", "e@7", None), None, Refused(OtherCluster));
        check(None, None, Refused(Empty));
        // Accepted before: as long as nothing newer is known of what it replaced.
        check(found("c", "e@1", Some("d@7")), None, Known);
        check(found("c", "d@6", Some("d@7")), None, Known);
        check(found("b", "e@1", Some("d@7")), None, Known);
        check(
            found("c", "e@1", Some("d@6")),
            None,
            Refused(OtherDirectory),
        );
        check(found("c", "d@6", Some("d@5")), None, Refused(OlderCopy));
        check(found("c", "d@8", Some("x@5")), None, Known);
    }

    #[test]
    fn an_acceptance_is_for_one_case_only() {
        check(None, Some("empty:instead-of:d@7"), Accepted);
        check(
            found("c", "d@6", None),
            Some("d@6:instead-of:d@7"),
            Accepted,
        );
        check(
            found("c", "e@9", None),
            Some("e@9:instead-of:d@7"),
            Accepted,
        );
        for other in [
            "empty:instead-of:d@6",
            "empty:instead-of:e@7",
            "d@7:instead-of:d@7",
        ] {
            check(None, Some(other), Refused(Empty));
        }
        for other in [
            "empty:instead-of:d@7",
            "d@5:instead-of:d@7",
            "d@6:instead-of:d@8",
        ] {
            check(found("c", "d@6", None), Some(other), Refused(OlderCopy));
        }
        for bad in [
            "",
            "empty",
            "d@7",
            "yes:instead-of:d@7",
            "empty:instead-of:d",
        ] {
            assert!(bad.parse::<Acceptance>().is_err(), "{bad}");
        }
    }
}
