//! What must not differ between two brokers is left alone; what must differ is given a name.
//!
//! Owns the closed list of what is normalised: names made by a case, ids, times, addresses, the words of messages. Never
//! hides an error code, an order, an offset or an epoch.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use keelson_protocol::error_name;
use regex::Regex;
use serde_json::{Map, Value};

use super::batches;

/// Producer ids from here on are chosen by scripts and shown; lower ones are given by the broker.
pub(super) const CHOSEN_PRODUCER_ID: i64 = 900_000_000;
/// Milliseconds since 1970 between 2020 and 2100 are the time of the run; scripts use smaller ones for their records.
const NOW_MS: std::ops::Range<i64> = 1_577_836_800_000..4_102_444_800_000;
/// Arrays that are shown by name.
const BY_NAME: [&str; 3] = ["configs", "supported_features", "finalized_features"];
const NIL: &str = "00000000-0000-0000-0000-000000000000";

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").expect("a valid pattern")
});

/// The answer as it is compared. `tag` is what the case put behind its names. Fields that are zero, false or null are left
/// out.
pub(super) fn normalise(answer: Value, tag: &str) -> Value {
    field("", answer, tag).unwrap_or(Value::Null)
}

fn field(key: &str, value: Value, tag: &str) -> Option<Value> {
    let value = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Bool(true) => Value::Bool(true),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => return number_field(key, integer),
            None => Value::Number(number),
        },
        Value::String(text) => return string_field(key, &text, tag),
        Value::Array(elements) => {
            let elements = elements
                .into_iter()
                .map(|element| element_of(key, element, tag));
            match BY_NAME.contains(&key) {
                true => by_name(elements.collect()),
                false => elements.collect(),
            }
        }
        Value::Object(fields) => {
            let fields: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key.clone(), field(&key, value, tag)?)))
                .collect();
            Value::Object(fields)
        }
    };
    Some(value)
}

/// Elements by their names, in whose order nobody is interested.
fn by_name(elements: Vec<Value>) -> Value {
    let named = |mut element: Value| {
        let name = element
            .as_object_mut()
            .and_then(|fields| fields.remove("name"));
        let name = name.and_then(|name| name.as_str().map(str::to_owned));
        (name.unwrap_or_default(), element)
    };
    let sorted: BTreeMap<String, Value> = elements.into_iter().map(named).collect();
    Value::Object(sorted.into_iter().collect())
}

/// In an array nothing is left out.
fn element_of(key: &str, element: Value, tag: &str) -> Value {
    match &element {
        Value::Number(_) | Value::Bool(_) | Value::Null => element,
        _ => field(key, element, tag).unwrap_or_else(|| Value::from("")),
    }
}

fn number_field(key: &str, number: i64) -> Option<Value> {
    let named = |name: &str| Some(Value::from(name));
    match key {
        "throttle_time_ms" => None,
        _ if number == 0 && key != "producer_id" => None,
        _ if key.ends_with("error_code") => {
            let code = i16::try_from(number).expect("an error code has 16 bits");
            Some(error_name(code).into())
        }
        "port" if number > 0 => named("<port>"),
        "session_id" => named("<session>"),
        "total_bytes" | "usable_bytes" | "partition_size" if number > 0 => named("<bytes>"),
        "producer_id" if (0..CHOSEN_PRODUCER_ID).contains(&number) => named("<producer>"),
        _ if NOW_MS.contains(&number) => named("<now>"),
        _ => Some(number.into()),
    }
}

fn string_field(key: &str, text: &str, tag: &str) -> Option<Value> {
    let named = |name: &str| Some(Value::from(name));
    match key {
        "records" => Some(batches::shown(text)),
        "error_message" | "documentation" | "batch_index_error_message" if !text.is_empty() => {
            named("<words>")
        }
        "host" if !text.is_empty() => named("<host>"),
        "cluster_id" => named("<cluster>"),
        "log_dir" => named("<directory>"),
        _ if text == NIL => None,
        _ => {
            let text = text.replace(tag, "");
            Some(UUID.replace_all(&text, "<id>").into_owned().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_given_by_the_broker_gets_a_name() {
        let answer = json!({
            "throttle_time_ms": 5, "error_code": 0, "topic_id": "0f9a3c4e-1111-2222-3333-444455556666",
            "name": "orders-c3v7", "producer_id": 0, "first_timestamp": 1_700_000_000_000_i64, "partitions": [0, 2],
            "error_message": "No.", "leader_epoch": -1, "topics": [{"error_code": 3, "topic_id": NIL, "name": null}],
        });
        let expected = json!({
            "topic_id": "<id>", "name": "orders", "producer_id": "<producer>", "first_timestamp": "<now>",
            "partitions": [0, 2], "error_message": "<words>", "leader_epoch": -1,
            "topics": [{"error_code": "UNKNOWN_TOPIC_OR_PARTITION"}],
        });
        assert_eq!(normalise(answer, "-c3v7"), expected);
    }
}
