//! Kafka's names of its error codes, as its documentation spells them.
//!
//! Owns the spelling only; the codes stand in `kafka-protocol`.

use std::collections::HashMap;
use std::sync::LazyLock;

use kafka_protocol::ResponseError;

/// Highest code that is asked for a name.
const CODE_MAX: i16 = 256;

static NAMES: LazyLock<HashMap<i16, String>> = LazyLock::new(|| {
    let known = |code| match ResponseError::try_from_code(code) {
        None | Some(ResponseError::Unknown(_)) => None,
        Some(error) => Some((code, screaming(&error.to_string()))),
    };
    (-1..=CODE_MAX).filter_map(known).collect()
});

/// `INVALID_PARTITIONS` for 37; `NONE` for 0; `UNKNOWN_ERROR_CODE` for what nobody knows.
pub fn error_name(code: i16) -> &'static str {
    match NAMES.get(&code) {
        Some(name) => name,
        None if code == 0 => "NONE",
        None => "UNKNOWN_ERROR_CODE",
    }
}

fn screaming(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 8);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for (code, name) in [
            (-1, "UNKNOWN_SERVER_ERROR"),
            (0, "NONE"),
            (2, "CORRUPT_MESSAGE"),
            (3, "UNKNOWN_TOPIC_OR_PARTITION"),
            (17, "INVALID_TOPIC_EXCEPTION"),
            (35, "UNSUPPORTED_VERSION"),
            (36, "TOPIC_ALREADY_EXISTS"),
            (37, "INVALID_PARTITIONS"),
            (38, "INVALID_REPLICATION_FACTOR"),
            (40, "INVALID_CONFIG"),
            (56, "KAFKA_STORAGE_ERROR"),
            (68, "NON_EMPTY_GROUP"),
            (69, "GROUP_ID_NOT_FOUND"),
            (100, "UNKNOWN_TOPIC_ID"),
            (9999, "UNKNOWN_ERROR_CODE"),
        ] {
            assert_eq!(error_name(code), name);
        }
    }
}
