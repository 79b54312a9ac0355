//! What the API server checks at admission, checked without one.
//!
//! Owns the walk over the generated schema: types, limits, enums, patterns, required and unknown fields, and the CEL
//! rules. `keelson-operator apply` refuses by it what Kubernetes would refuse, and the operator uses it on objects
//! that were admitted by an older CRD. The schema is the only source; no rule is written twice.

use std::sync::OnceLock;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::Value;

use crate::yaml::crd_json;

/// The kinds of this API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A topic.
    Topic,
    /// A consumer group.
    ConsumerGroup,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Kind] = &[Kind::Topic, Kind::ConsumerGroup];

    /// `kind` as a manifest spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::ConsumerGroup => "ConsumerGroup",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == name)
    }

    /// The finalizer of an object of this kind with `deletionPolicy: Delete`; no other object carries one.
    #[must_use]
    pub fn finalizer(self) -> &'static str {
        match self {
            Self::Topic => crate::FINALIZER,
            Self::ConsumerGroup => crate::GROUP_FINALIZER,
        }
    }

    /// Name of the generated file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Topic => "topics.yaml",
            Self::ConsumerGroup => "consumergroups.yaml",
        }
    }
}

/// One rule that an object breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a path like `spec.partitions`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

struct Rules {
    schema: Value,
    cel: CompiledSchema,
}

fn rules(kind: Kind) -> &'static Rules {
    static TOPIC: OnceLock<Rules> = OnceLock::new();
    static GROUP: OnceLock<Rules> = OnceLock::new();
    let cell = match kind {
        Kind::Topic => &TOPIC,
        Kind::ConsumerGroup => &GROUP,
    };
    cell.get_or_init(|| {
        let schema = crd_json(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let cel = compile_schema(&schema);
        Rules { schema, cel }
    })
}

/// Checks an object as JSON, as the API server does at creation, or at an update from `old`.
///
/// # Errors
/// Every rule that is broken. CEL rules are looked at only once the structure is right, as the API server does.
pub fn check(kind: Kind, object: &Value, old: Option<&Value>) -> Result<(), Vec<Problem>> {
    let rules = rules(kind);
    let mut problems = Vec::new();
    structure(&rules.schema, object, "", &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    Validator::new()
        .validate_compiled(&rules.cel, object, old)
        .map_err(|errors| {
            errors
                .into_vec()
                .into_iter()
                .map(|it| Problem {
                    path: it.field_path.trim_start_matches('.').to_owned(),
                    message: it.message,
                })
                .collect()
        })
}

/// The fields of an object that its kind does not have. Kubernetes drops them; `apply` refuses them.
#[must_use]
pub fn unknown_fields(kind: Kind, object: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    unknown(&rules(kind).schema, object, "", &mut problems);
    problems
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn unknown(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    match (value, properties, schema.get("items")) {
        (Value::Object(fields), Some(properties), _) => {
            for (name, field) in fields {
                let known_at_top =
                    path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
                match properties.get(name) {
                    _ if known_at_top => {}
                    Some(sub) => unknown(sub, field, &join(path, name), problems),
                    None => problems.push(Problem {
                        path: join(path, name),
                        message: unknown_message(name, properties),
                    }),
                }
            }
        }
        (Value::Array(list), _, Some(items)) => {
            for (at, item) in list.iter().enumerate() {
                unknown(items, item, &format!("{path}[{at}]"), problems);
            }
        }
        (_, _, _) => {}
    }
}

fn unknown_message(name: &str, properties: &serde_json::Map<String, Value>) -> String {
    let close = properties.keys().find(|it| it.eq_ignore_ascii_case(name));
    match close {
        Some(close) => format!("unknown field (did you mean {close}?)"),
        None => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            format!("unknown field (known: {})", known.join(", "))
        }
    }
}

/// The structural part of a schema, as far as our own CRDs use it.
fn structure(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut say = |message: String| {
        problems.push(Problem {
            path: path.to_owned(),
            message,
        })
    };
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        if !value.is_string() && !value.is_i64() {
            say(format!("must be an integer or a string, not {value}"));
        }
        return;
    }
    if let Some(expected) = schema.get("type").and_then(Value::as_str)
        && !has_type(expected, value)
    {
        say(format!("must be of type {expected}, not {value}"));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        say(format!("must be one of {}, not {value}", words.join(", ")));
    }
    limits(schema, value, &mut say);
    match value {
        Value::Object(fields) => object(schema, fields, path, problems),
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (at, item) in list.iter().enumerate() {
                    structure(items, item, &format!("{path}[{at}]"), problems);
                }
            }
            unique_keys(schema, list, path, problems);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn has_type(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => unreachable!("our schemas have no type {other}"),
    }
}

fn limits(schema: &Value, value: &Value, say: &mut impl FnMut(String)) {
    let limit = |name: &str| schema.get(name).and_then(Value::as_i64);
    if let Some(number) = value.as_i64() {
        if let Some(min) = limit("minimum").filter(|min| number < *min) {
            say(format!("must be at least {min}, not {number}"));
        }
        if let Some(max) = limit("maximum").filter(|max| number > *max) {
            say(format!("must be at most {max}, not {number}"));
        }
    }
    let (size, what, min, max) = match value {
        Value::String(text) => (text.chars().count(), "characters", "minLength", "maxLength"),
        Value::Array(list) => (list.len(), "entries", "minItems", "maxItems"),
        Value::Object(map) => (map.len(), "entries", "minProperties", "maxProperties"),
        Value::Null | Value::Bool(_) | Value::Number(_) => return,
    };
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    if let Some(min) = limit(min).filter(|min| size < *min) {
        say(format!("must have at least {min} {what}, not {size}"));
    }
    if let Some(max) = limit(max).filter(|max| size > *max) {
        say(format!("must have at most {max} {what}, not {size}"));
    }
    if let (Some(pattern), Some(text)) = (
        schema.get("pattern").and_then(Value::as_str),
        value.as_str(),
    ) {
        let regex = Regex::new(pattern).expect("a unit test compiles every pattern of our schemas");
        if !regex.is_match(text) {
            say(format!("{text:?} does not match {pattern}"));
        }
    }
    if let (Some("date-time"), Some(text)) =
        (schema.get("format").and_then(Value::as_str), value.as_str())
        && text.parse::<k8s_openapi::jiff::Timestamp>().is_err()
    {
        say(format!("{text:?} is no time as RFC 3339 writes it"));
    }
}

fn object(
    schema: &Value,
    fields: &serde_json::Map<String, Value>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !fields.contains_key(name) {
            problems.push(Problem {
                path: join(path, name),
                message: "is required".to_owned(),
            });
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema
        .get("additionalProperties")
        .filter(|it| it.is_object());
    for (name, field) in fields {
        if let Some(sub) = properties.and_then(|it| it.get(name)).or(others) {
            structure(sub, field, &join(path, name), problems);
        }
    }
}

/// The entries of a list map differ in their keys.
fn unique_keys(schema: &Value, list: &[Value], path: &str, problems: &mut Vec<Problem>) {
    let Some(keys) = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
    else {
        return;
    };
    let mut seen = std::collections::HashSet::new();
    for item in list {
        let key: Vec<String> = keys
            .iter()
            .filter_map(Value::as_str)
            .map(|it| item[it].to_string())
            .collect();
        if !seen.insert(key.clone()) {
            problems.push(Problem {
                path: path.to_owned(),
                message: format!("duplicate entry {}", key.join(", ")),
            });
        }
    }
}

#[cfg(test)]
mod tests;
