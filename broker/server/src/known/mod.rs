//! What is known of this broker outside of its data volume: a folder that the operator's ConfigMap is mounted as.
//!
//! Owns the names of the files in that folder and how they are read. A file that is not there tells nothing; one that
//! cannot be understood is never ignored. Judgement stands in [`identity`]. Never writes.

pub(crate) mod identity;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keelson_log::{DirectoryAt, FoundDirectory};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use identity::{Acceptance, Decision, Seen, decide};

/// Most bytes of a file: an id or an address takes less than a hundredth of it.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The folder, for one broker.
#[derive(Debug, Clone)]
pub(crate) struct KnownDir {
    dir: PathBuf,
    broker_id: i32,
}

/// The file `broker-<id>.identity`.
#[derive(Debug, Deserialize)]
struct IdentityFile {
    cluster_id: String,
    broker_id: i32,
    directory_id: String,
    boot: u64,
    /// Where the file comes from, for the line that accepts a difference.
    config_map: Option<ConfigMap>,
}

#[derive(Debug, Deserialize)]
struct ConfigMap {
    namespace: String,
    name: String,
}

/// The file `broker-<id>.<listener>`: where a listener is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Address {
    /// A name or an address; none as long as nobody knows one.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    /// Where the host comes from, or why there is none.
    pub(crate) why: String,
}

/// A start that may go on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// What the data directory takes the place of from now on.
    pub(crate) replaces: Option<DirectoryAt>,
    /// The cluster that a new directory belongs to.
    pub(crate) cluster_id: Option<String>,
}

impl KnownDir {
    pub(crate) fn new(dir: &Path, broker_id: i32) -> Self {
        Self {
            dir: dir.to_owned(),
            broker_id,
        }
    }

    /// Whether a broker may start on a data directory, which it only looks at.
    ///
    /// # Errors
    /// In words, with the line that accepts it where there is one.
    pub(crate) fn admit(&self, data_dir: &Path) -> Result<Admitted, String> {
        let path = self.path("identity");
        let Some(file) = self.json::<IdentityFile>("identity")? else {
            return Ok(Admitted::default());
        };
        let at = format!("{}@{}", file.directory_id, file.boot);
        let seen = Seen {
            cluster_id: file.cluster_id,
            broker_id: file.broker_id,
            directory: at.parse().map_err(|e| format!("{}: {e}", path.display()))?,
        };
        if seen.broker_id != self.broker_id {
            return Err(format!(
                "{} is about broker {}, this is broker {}: the wrong folder is mounted",
                path.display(),
                seen.broker_id,
                self.broker_id
            ));
        }
        let found = keelson_log::look(data_dir).map_err(|e| e.to_string())?;
        let accepted = self.accepted();
        let acceptance = accepted.as_ref().ok().and_then(Option::as_ref);
        match decide(&seen, found.as_ref(), acceptance) {
            Decision::Known => Ok(Admitted::default()),
            Decision::Accepted => {
                tracing::warn!(
                    found = %identity::name(found.as_ref()),
                    instead_of = %seen.directory,
                    "another data directory than the known one was accepted"
                );
                let is_new = found.is_none();
                Ok(Admitted {
                    replaces: Some(seen.directory),
                    cluster_id: is_new.then_some(seen.cluster_id),
                })
            }
            Decision::Refused(difference) => {
                let words = difference.words(data_dir, &seen, found.as_ref());
                let line = self.line(file.config_map.as_ref(), &seen, found.as_ref());
                let besides = match accepted {
                    Ok(None) => String::new(),
                    Ok(Some(other)) => format!(" (what was accepted is another case: {other})"),
                    Err(error) => format!(" ({error})"),
                };
                Err(format!("{words}{besides}. To accept it for good: {line}"))
            }
        }
    }

    fn line(
        &self,
        config_map: Option<&ConfigMap>,
        seen: &Seen,
        found: Option<&FoundDirectory>,
    ) -> String {
        let value = Acceptance::of(seen, found);
        let id = self.broker_id;
        match config_map {
            Some(ConfigMap { namespace, name }) => format!(
                "kubectl --namespace {namespace} patch configmap {name} --type merge --patch '{{\"data\":{{\"broker-{id}.accept\":\"{value}\"}}}}'"
            ),
            None => format!("echo {value} > {}", self.path("accept").display()),
        }
    }

    /// Where a listener is reached from outside, if somebody says so.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn address(&self, listener: &str) -> Result<Option<Address>, String> {
        self.json(listener)
    }

    fn accepted(&self) -> Result<Option<Acceptance>, String> {
        let path = self.path("accept");
        let told = self.text("accept")?;
        let parsed = told.map(|text| text.trim().parse());
        parsed
            .transpose()
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn path(&self, what: &str) -> PathBuf {
        self.dir.join(format!("broker-{}.{what}", self.broker_id))
    }

    fn json<T: DeserializeOwned>(&self, what: &str) -> Result<Option<T>, String> {
        let told = self.text(what)?;
        let parsed = told.map(|text| serde_json::from_str(&text));
        parsed.transpose().map_err(|error| {
            format!(
                "{}: it is not what the operator writes: {error}; mend or remove the entry",
                self.path(what).display()
            )
        })
    }

    fn text(&self, what: &str) -> Result<Option<String>, String> {
        let path = self.path(what);
        let read = || -> io::Result<String> {
            let mut text = String::new();
            let file = std::fs::File::open(&path)?;
            file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(files: &[(&str, &str)]) -> (tempfile::TempDir, KnownDir) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let known = KnownDir::new(dir.path(), 0);
        (dir, known)
    }

    const SEEN: &str = r#"{"cluster_id":"c","broker_id":0,"directory_id":"d","boot":7,"config_map":{"namespace":"kafka","name":"demo-broker-identity"}}"#;

    #[test]
    fn nothing_known_admits_everything_and_nothing_garbled_is_ignored() {
        let data = tempfile::tempdir().unwrap();
        let (_dir, nothing) = known(&[]);
        assert_eq!(nothing.admit(data.path()), Ok(Admitted::default()));
        let gone = KnownDir::new(Path::new("/nonexistent/known"), 0);
        assert_eq!(gone.admit(data.path()), Ok(Admitted::default()));
        for (text, words) in [
            ("", "not what the operator writes"),
            ("{}", "missing field"),
            (&SEEN.replace('7', "-7"), "not what the operator writes"),
            (&SEEN.replace("\"d\"", "\"d'\""), "is not of the form"),
            (
                &SEEN.replace("\"broker_id\":0", "\"broker_id\":3"),
                "is about broker 3",
            ),
        ] {
            let (_dir, garbled) = known(&[("broker-0.identity", text)]);
            let error = garbled.admit(data.path()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_words_end_with_the_line_that_accepts() {
        let data = tempfile::tempdir().unwrap();
        let (_dir, refusing) = known(&[("broker-0.identity", SEEN)]);
        let error = refusing.admit(data.path()).unwrap_err();
        let line = "kubectl --namespace kafka patch configmap demo-broker-identity --type merge --patch \
                    '{\"data\":{\"broker-0.accept\":\"empty:instead-of:d@7\"}}'";
        assert!(error.ends_with(line), "{error}");
        let other = [
            ("broker-0.identity", SEEN),
            ("broker-0.accept", "empty:instead-of:d@6\n"),
        ];
        let (_dir, refusing) = known(&other);
        let error = refusing.admit(data.path()).unwrap_err();
        assert!(
            error.contains("another case: empty:instead-of:d@6"),
            "{error}"
        );
        let (_dir, accepting) = known(&[
            ("broker-0.identity", SEEN),
            ("broker-0.accept", "empty:instead-of:d@7\n"),
        ]);
        let admitted = accepting.admit(data.path()).unwrap();
        assert_eq!(admitted.replaces.unwrap().to_string(), "d@7");
        assert_eq!(admitted.cluster_id.as_deref(), Some("c"));
    }
}
