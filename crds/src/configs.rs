//! What admission knows about topic configs.
//!
//! Owns the CEL rules of `Topic.spec.config`, made from the broker's own table: which keys there are, and what their values
//! look like. What depends on a broker (its limits, its defaults) is left to the broker.

use keelson_state::config::{Kind, Rule, TOPIC_KEYS, TopicKey};
use serde_json::{Value, json};

use crate::OWNER_CONFIG;

/// The rules, as `x-kubernetes-validations`.
pub(crate) fn validations() -> Value {
    let known: Vec<String> = TOPIC_KEYS
        .iter()
        .filter(|key| key.name != OWNER_CONFIG)
        .map(|key| quoted(key.name))
        .collect();
    let mut rules = vec![
        rule(
            format!("!({} in self)", quoted(OWNER_CONFIG)),
            format!("{OWNER_CONFIG} is set by the operator"),
        ),
        rule(
            format!(
                "self.all(key, key in [{}, {}])",
                known.join(", "),
                quoted(OWNER_CONFIG)
            ),
            "a key here is no topic config; docs/configuration.md lists them".to_owned(),
        ),
    ];
    rules.extend(TOPIC_KEYS.iter().filter_map(of_key));
    rules.push(lags());
    Value::Array(rules)
}

fn rule(rule: String, message: String) -> Value {
    json!({ "rule": rule, "message": message })
}

/// A CEL string. No key, word or pattern of ours has a quote in it.
fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// The rule of one key; none for the one that may not be set here.
fn of_key(key: &TopicKey) -> Option<Value> {
    let name = quoted(key.name);
    // Integers and strings alike, as the broker gets them.
    let (lawful, words) = lawful(key, &format!("string(self[{name}])"))?;
    Some(rule(
        format!("!({name} in self) || self[{name}] == null || ({lawful})"),
        format!("{}: {words}", key.name),
    ))
}

/// What is true of a lawful value, and in words.
fn lawful(key: &TopicKey, value: &str) -> Option<(String, String)> {
    Some(match key.rule {
        Rule::Range { min, max } => number(key.kind, value, min, max),
        Rule::GzipLevel => {
            let (is_number, _) = number(key.kind, value, -1, 9);
            let lawful = format!("({is_number}) && int({value}) != 0");
            (lawful, "a number from 1 to 9, or -1, is needed".to_owned())
        }
        Rule::Ratio => {
            let lawful = format!(
                "{value}.matches('^[0-9.eE+-]+$') && double({value}) >= 0.0 && double({value}) <= 1.0"
            );
            (lawful, "a fraction from 0 to 1 is needed".to_owned())
        }
        Rule::Boolean => (
            format!("{value}.lowerAscii() in ['true', 'false']"),
            "\"true\" or \"false\" is needed".to_owned(),
        ),
        Rule::OneOf(words) => one_of(key.kind, value, words),
        Rule::Replicas => (
            format!(r"{value}.matches('^([*]|([0-9]+:[0-9]+(,[0-9]+:[0-9]+)*)?)$')"),
            "* or replicas as partition:broker,… are needed".to_owned(),
        ),
        Rule::Only {
            value: only,
            reason,
        } => (
            only_value(key.kind, value, only),
            format!("only {only} is supported: {reason}"),
        ),
        Rule::Text { .. } => return None,
    })
}

fn number(kind: Kind, value: &str, min: i64, max: i64) -> (String, String) {
    let (min, max) = match kind {
        Kind::Int => (min.max(i32::MIN.into()), max.min(i32::MAX.into())),
        Kind::Long | Kind::Boolean | Kind::String | Kind::Double | Kind::List => (min, max),
    };
    let mut lawful = format!("{value}.matches('^[+-]?[0-9]+$')");
    let mut words = "a whole number".to_owned();
    if min > i64::MIN {
        lawful = format!("{lawful} && int({value}) >= {min}");
        words = format!("{words} of at least {min}");
    }
    if min == i64::MIN && max == i64::MAX {
        // Never false, and an error for what is no 64-bit number.
        lawful = format!("{lawful} && int({value}) <= {max}");
    }
    if max < i64::MAX {
        lawful = format!("{lawful} && int({value}) <= {max}");
        words = format!("{words} and at most {max}");
    }
    (lawful, format!("{words} is needed"))
}

fn one_of(kind: Kind, value: &str, words: &[&str]) -> (String, String) {
    let lawful = match kind {
        Kind::List => {
            let word = format!(r"\\s*({})?\\s*", words.join("|"));
            format!("{value}.matches('^{word}(,{word})*$')")
        }
        Kind::String | Kind::Boolean | Kind::Int | Kind::Long | Kind::Double => {
            let all: Vec<String> = words.iter().map(|it| quoted(it)).collect();
            format!("{value}.trim() in [{}]", all.join(", "))
        }
    };
    (lawful, format!("one of {} is needed", words.join(", ")))
}

fn only_value(kind: Kind, value: &str, only: &str) -> String {
    match kind {
        Kind::Int | Kind::Long => {
            let only = only.parse().expect("a unit test reads every rule");
            number(kind, value, only, only).0
        }
        Kind::Boolean => format!("{value}.lowerAscii() == '{only}'"),
        Kind::String | Kind::Double | Kind::List => {
            format!("{value}.trim() == '{only}'")
        }
    }
}

/// The one relation between two keys.
fn lags() -> Value {
    let (low, high) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let set = |key: &str| format!("'{key}' in self && self['{key}'] != null");
    rule(
        format!(
            "!({} && {}) || int(self['{low}']) <= int(self['{high}'])",
            set(low),
            set(high)
        ),
        format!("{low} is more than {high}"),
    )
}

#[cfg(test)]
mod tests {
    use keelson_state::config::{ConfigLimits, validate};
    use serde_json::{Value, json};

    use super::*;
    use crate::{Kind as ObjectKind, check};

    const LIMITS: ConfigLimits = ConfigLimits {
        message_bytes_max: i32::MAX,
    };

    fn admission(key: &str, value: &Value) -> Result<(), String> {
        let topic =
            json!({ "metadata": { "name": "orders" }, "spec": { "config": { key: value } } });
        check(ObjectKind::Topic, &topic, None)
            .map_err(|all| all.iter().map(|it| format!("{it}; ")).collect())
    }

    /// Values that meet every rule at its edges, and some that meet none.
    fn values() -> Vec<Value> {
        let mut all: Vec<Value> = [
            i64::MIN,
            -131_073,
            -131_072,
            -3,
            -2,
            -1,
            0,
            1,
            2,
            9,
            10,
            22,
            23,
            4_095,
            4_096,
            10_485_760,
            i64::from(i32::MAX),
            i64::from(i32::MAX) + 1,
            i64::MAX,
        ]
        .iter()
        .flat_map(|it| [json!(it), json!(it.to_string())])
        .collect();
        let words = "0.5 1.0 1.1 -0.1 5e-1 true TRUE false yes compact delete compact,delete compact,foo gzip zstd \
                     producer CreateTime LogAppendTime * 0:1 0:1,2:3 0: +5 007 x 99999999999999999999 1_000";
        all.extend(words.split_whitespace().map(|it| json!(it)));
        all.extend([
            json!(""),
            json!(" gzip "),
            json!("compact, delete"),
            json!("1 0"),
        ]);
        all
    }

    #[test]
    fn admission_and_broker_agree_on_every_key_and_value() {
        let mut lawful = 0;
        for key in TOPIC_KEYS.iter().filter(|it| it.name != OWNER_CONFIG) {
            for value in values() {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let broker = validate(key.name, &text, &LIMITS).map(|_| ());
                let found = admission(key.name, &value);
                assert_eq!(
                    found.is_ok(),
                    broker.is_ok(),
                    "{} = {value}: admission {found:?}, broker {broker:?}",
                    key.name
                );
                lawful += usize::from(found.is_ok());
            }
            assert_eq!(admission(key.name, &Value::Null), Ok(()), "hands off");
        }
        assert!(lawful > 300, "{lawful}");
    }

    #[test]
    fn what_is_said() {
        for (key, value, words) in [
            ("no.such.key", json!(1), "a key here is no topic config"),
            (
                "keelson.owner",
                json!("me"),
                "keelson.owner is set by the operator",
            ),
            (
                "retention.ms",
                json!("soon"),
                "retention.ms: a whole number of at least -1 is needed",
            ),
            (
                "cleanup.policy",
                json!("none"),
                "cleanup.policy: one of compact, delete is needed",
            ),
            (
                "preallocate",
                json!("true"),
                "preallocate: only false is supported: records",
            ),
            (
                "compression.gzip.level",
                json!(0),
                "a number from 1 to 9, or -1, is needed",
            ),
        ] {
            let found = admission(key, &value).unwrap_err();
            assert!(found.contains(words), "{key}: {found}");
        }
        let both = |low: Value, high: Value| {
            let config = json!({ "min.compaction.lag.ms": low, "max.compaction.lag.ms": high });
            let topic = json!({ "metadata": { "name": "o" }, "spec": { "config": config } });
            check(ObjectKind::Topic, &topic, None).is_ok()
        };
        assert!(both(json!(1), json!("1")) && both(json!(9), Value::Null));
        assert!(!both(json!("10"), json!(9)));
    }
}
