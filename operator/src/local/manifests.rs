//! Manifests from files.
//!
//! Owns reading a folder of YAML and refusing what Kubernetes would refuse or drop: rules that are broken, fields that
//! do not exist, two objects of one name. It knows no broker.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keelson_crds::{API_VERSION, ConsumerGroup, GROUP, Kind, Topic, check, unknown_fields};
use serde::Deserialize;
use serde_json::Value;

/// Largest file that is read; etcd would not take an object of this size either.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Namespace of an object that names none.
const NAMESPACE: &str = "default";

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// An object that passed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    Topic(Box<Topic>),
    Group(Box<ConsumerGroup>),
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) objects: BTreeMap<Key, Object>,
    /// Documents that cannot be used, each with its place and reason.
    pub(crate) refused: Vec<String>,
    /// Documents of other API groups.
    pub(crate) skipped: Vec<String>,
}

/// Reads a folder (its `.yaml`, `.yml` and `.json` files, in order of their names, no deeper) or one file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Manifests> {
    let mut manifests = Manifests::default();
    for file in files(path)? {
        let text = text(&file)?;
        for (at, document) in serde_norway::Deserializer::from_str(&text).enumerate() {
            let place = format!("{} (document {})", file.display(), at + 1);
            match Value::deserialize(document) {
                Ok(Value::Null) => {}
                Ok(value) => manifests.take(&place, &value),
                Err(error) => {
                    manifests.refused.push(format!("{place}: {error}"));
                    // What follows in a file that is no YAML cannot be told apart.
                    break;
                }
            }
        }
    }
    Ok(manifests)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let listing = std::fs::read_dir(path).with_context(|| format!("-f {}", path.display()))?;
    for entry in listing {
        let file = entry
            .with_context(|| format!("-f {}", path.display()))?
            .path();
        let extension = file
            .extension()
            .and_then(std::ffi::OsStr::to_str)
            .unwrap_or_default();
        if file.is_file() && ["yaml", "yml", "json"].contains(&extension) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn text(file: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(file)
        .with_context(|| file.display().to_string())?
        .len();
    anyhow::ensure!(
        size <= FILE_BYTES_MAX,
        "{}: {size} bytes are more than {FILE_BYTES_MAX}",
        file.display()
    );
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

impl Manifests {
    fn take(&mut self, place: &str, value: &Value) {
        let version = value
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let kind = value
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if version.split('/').next() != Some(GROUP) {
            self.skipped
                .push(format!("{place}: {version:?} {kind:?} is not of {GROUP}"));
            return;
        }
        match parse(version, kind, value) {
            Ok((key, object)) => {
                let words = format!("{place}: {key} stands twice");
                match self.objects.entry(key) {
                    Entry::Vacant(free) => {
                        free.insert(object);
                    }
                    Entry::Occupied(_) => self.refused.push(words),
                }
            }
            Err(problems) => self
                .refused
                .extend(problems.into_iter().map(|it| format!("{place}: {it}"))),
        }
    }
}

fn parse(version: &str, kind: &str, value: &Value) -> Result<(Key, Object), Vec<String>> {
    let refuse = |message: String| Err(vec![message]);
    if version != API_VERSION {
        return refuse(format!(
            "apiVersion {version} is not known, {API_VERSION} is"
        ));
    }
    let Some(kind) = Kind::parse(kind) else {
        let known: Vec<&str> = Kind::ALL.iter().map(|it| it.as_str()).collect();
        return refuse(format!(
            "kind {kind:?} is not known, {} are",
            known.join(" and ")
        ));
    };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let Some(name) = text("/metadata/name").filter(|it| !it.is_empty()) else {
        return refuse(format!("{} without metadata.name", kind.as_str()));
    };
    let key = Key {
        kind,
        namespace: text("/metadata/namespace").unwrap_or(NAMESPACE).to_owned(),
        name: name.to_owned(),
    };
    let mut problems = unknown_fields(kind, value);
    problems.extend(check(kind, value, None).err().unwrap_or_default());
    if !problems.is_empty() {
        return Err(problems.iter().map(|it| format!("{key}: {it}")).collect());
    }
    let object = match kind {
        Kind::Topic => serde_json::from_value(value.clone()).map(|it| Object::Topic(Box::new(it))),
        Kind::ConsumerGroup => {
            serde_json::from_value(value.clone()).map(|it| Object::Group(Box::new(it)))
        }
    };
    match object {
        Ok(object) => Ok((key, object)),
        Err(error) => Err(vec![format!("{key}: {error}")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(text: &str, objects: &[&str], refused: &[&str], skipped: usize) {
        let path =
            std::env::temp_dir().join(format!("keelson-manifests-{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        let found = read(&path);
        std::fs::remove_file(&path).unwrap();
        let found = found.unwrap();
        let keys: Vec<String> = found.objects.keys().map(ToString::to_string).collect();
        assert_eq!(keys, objects, "{:?}", found.refused);
        assert_eq!(found.refused.len(), refused.len(), "{:?}", found.refused);
        for (line, part) in found.refused.iter().zip(refused) {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(found.skipped.len(), skipped);
    }

    const TOPIC: &str = "apiVersion: keelson.dev/v1alpha1\nkind: Topic\nmetadata: {name: a}\nspec: {partitions: 3}\n";

    #[test]
    fn documents_are_taken_refused_or_skipped() {
        check_text(TOPIC, &["Topic default/a"], &[], 0);
        let group = "apiVersion: keelson.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: {name: g, namespace: n}\nspec: {lagObjective: {maxRecords: 5}}\n";
        check_text(
            &format!("---\n{TOPIC}---\n{group}---\n"),
            &["Topic default/a", "ConsumerGroup n/g"],
            &[],
            0,
        );
        check_text(
            &format!("{TOPIC}---\n{TOPIC}"),
            &["Topic default/a"],
            &["(document 2): Topic default/a stands twice"],
            0,
        );
        check_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
            &[],
            &[],
            1,
        );
        check_text(
            &TOPIC.replace("v1alpha1", "v2"),
            &[],
            &["apiVersion keelson.dev/v2 is not known"],
            0,
        );
        check_text(
            &TOPIC.replace("Topic", "Topics"),
            &[],
            &["kind \"Topics\" is not known, Topic and ConsumerGroup are"],
            0,
        );
        check_text(
            &TOPIC.replace("name: a", "nome: a"),
            &[],
            &["Topic without metadata.name"],
            0,
        );
        check_text(
            &TOPIC.replace("partitions", "partition"),
            &[],
            &["Topic default/a: spec.partition: unknown field"],
            0,
        );
        check_text(
            &TOPIC.replace('3', "0"),
            &[],
            &["spec.partitions: must be at least 1"],
            0,
        );
        check_text("a: [", &[], &["document 1"], 0);
        check_text("", &[], &[], 0);
        check_text(
            "apiVersion: keelson.dev/v1alpha1\nkind: Topic\nmetadata: {name: a}\n",
            &[],
            &["spec: is required"],
            0,
        );
    }

    #[test]
    fn a_missing_folder_is_told() {
        let error = read(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/at/all"));
    }
}
