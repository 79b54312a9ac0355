//! Where two answers differ, field by field.

use serde_json::Value;

/// One place where Keelson answers otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The field, as `topics[0].partitions[1].error_code`; empty for the whole answer.
    pub(super) path: String,
    /// What Apache Kafka says there; null for nothing.
    pub(super) kafka: Value,
    /// What Keelson says there.
    pub(super) keelson: Value,
}

/// All places where two answers differ.
pub(super) fn compare(kafka: &Value, keelson: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    descend(String::new(), kafka, keelson, &mut found);
    found
}

fn descend(path: String, kafka: &Value, keelson: &Value, found: &mut Vec<Found>) {
    match (kafka, keelson) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let field = |fields: &serde_json::Map<String, Value>| {
                    fields.get(key).cloned().unwrap_or_default()
                };
                descend(path, &field(one), &field(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for at in 0..one.len().max(other.len()) {
                let element = |elements: &[Value]| elements.get(at).cloned().unwrap_or_default();
                descend(
                    format!("{path}[{at}]"),
                    &element(one),
                    &element(other),
                    found,
                );
            }
        }
        _ if kafka == keelson => {}
        _ => found.push(Found {
            path,
            kafka: kafka.clone(),
            keelson: keelson.clone(),
        }),
    }
}

/// Whether a text is as a pattern says; `*` stands for anything.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().expect("a split has a first part");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_told_by_field() {
        let kafka =
            json!({"topics": [{"name": "a", "error_code": "X"}, {"name": "b"}], "same": [1]});
        let keelson = json!({"topics": [{"name": "a"}], "same": [1], "more": -1});
        let found: Vec<String> = compare(&kafka, &keelson)
            .iter()
            .map(|found| format!("{} {} {}", found.path, found.kafka, found.keelson))
            .collect();
        let expected = [
            "more null -1",
            "topics[0].error_code \"X\" null",
            "topics[1] {\"name\":\"b\"} null",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(like(
            "topics[*].partitions[*].error_code",
            "topics[0].partitions[12].error_code"
        ));
        assert!(!like("topics[*].error_code", "topics[0].error_codes"));
        assert!(like("*", ""));
        assert!(like("a", "a"));
        assert!(!like("a", "ab"));
        assert!(like("a*b*", "a-b-"));
        assert!(!like("a*b*c", "acb"));
    }
}
