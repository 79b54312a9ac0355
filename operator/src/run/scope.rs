//! Where objects are looked after.
//!
//! Owns the meaning of `--namespace NAMESPACE[=PREFIX]`: which namespaces are watched, and how the names of topics and
//! groups begin that their objects may speak of.

use std::collections::BTreeMap;
use std::str::FromStr;

/// One `--namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    namespace: String,
    prefix: String,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, prefix) = match text.split_once('=') {
            Some((_, "")) => return Err("there is no prefix behind the =".to_owned()),
            Some((namespace, prefix)) => (namespace, prefix),
            None => (text, ""),
        };
        let is_label = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        if namespace.is_empty() || !namespace.chars().all(is_label) {
            return Err(format!("{namespace:?} is no name of a namespace"));
        }
        let in_a_name = |it: char| it.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&it);
        if let Some(bad) = prefix.chars().find(|it| !in_a_name(*it)) {
            return Err(format!("a topic name has no {bad:?}"));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

/// Which namespaces are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Everywhere,
    /// Each with its prefix, which may be empty.
    Namespaces(BTreeMap<String, String>),
}

impl Scope {
    /// `own` is looked after if nothing was said. A namespace with two prefixes has none: that is refused.
    pub(super) fn new(everywhere: bool, watched: &[Watched], own: &str) -> Result<Self, String> {
        if everywhere {
            return Ok(Self::Everywhere);
        }
        if watched.is_empty() {
            let own = BTreeMap::from([(own.to_owned(), String::new())]);
            return Ok(Self::Namespaces(own));
        }
        let mut all = BTreeMap::new();
        for it in watched {
            let before = all.insert(it.namespace.clone(), it.prefix.clone());
            if let Some(other) = before.filter(|before| *before != it.prefix) {
                let Watched { namespace, prefix } = it;
                return Err(format!(
                    "--namespace {namespace} is given with the prefixes {other:?} and {prefix:?}"
                ));
            }
        }
        Ok(Self::Namespaces(all))
    }

    /// How names of this namespace begin.
    pub(super) fn prefix(&self, namespace: &str) -> &str {
        match self {
            Self::Everywhere => "",
            Self::Namespaces(all) => all.get(namespace).map_or("", String::as_str),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(words: &[&str]) -> Result<Scope, String> {
        let watched: Result<Vec<Watched>, String> = words.iter().map(|it| it.parse()).collect();
        Scope::new(false, &watched?, "own")
    }

    #[test]
    fn namespaces_and_prefixes() {
        let found = scope(&["a", "b=team-b.", "a", "b=team-b."]).unwrap();
        assert_eq!((found.prefix("a"), found.prefix("b")), ("", "team-b."));
        assert_eq!(
            found,
            Scope::Namespaces(BTreeMap::from([
                ("a".to_owned(), String::new()),
                ("b".to_owned(), "team-b.".to_owned())
            ]))
        );
        let own = scope(&[]).unwrap();
        assert_eq!(own, scope(&["own"]).unwrap());
        assert_eq!(Scope::new(true, &[], "own"), Ok(Scope::Everywhere));
    }

    #[test]
    fn what_cannot_be_meant() {
        for (words, part) in [
            (&["b=x", "b=y"][..], "the prefixes \"x\" and \"y\""),
            (&["b", "b=y"], "the prefixes \"\" and \"y\""),
            (&["b="], "no prefix behind the ="),
            (&["=x"], "is no name of a namespace"),
            (&["Big"], "is no name of a namespace"),
            (&["b=a b"], "a topic name has no ' '"),
        ] {
            let error = scope(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
