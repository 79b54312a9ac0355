//! From a decoded answer to a tree that can be compared and stored.
//!
//! Owns one thing: reading what `{:?}` prints of the `kafka-protocol` crate's structs, so that every field of every API is
//! compared without a line of code for it. Never decides what counts as equal: that is [`super::normal`].

use std::fmt::Debug;

use serde_json::{Map, Value};

/// The tree of an answer. Bytes become a string with one character per byte (Latin-1); unknown tagged fields are left out
/// when there are none.
///
/// # Panics
/// When the text is not what derived `Debug` prints.
pub(super) fn tree(answer: &impl Debug) -> Value {
    let text = format!("{answer:?}");
    let mut reader = Reader { rest: &text };
    let value = reader.value();
    assert!(reader.rest.is_empty(), "left over: {}", reader.rest);
    value
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    #[track_caller]
    fn expect(&mut self, token: &str) {
        assert!(self.eat(token), "no {token:?} at: {:.80}", self.rest);
    }

    fn value(&mut self) -> Value {
        if self.eat("b\"") || self.eat("\"") {
            return Value::String(self.string());
        }
        if self.eat("[") {
            return Value::Array(self.elements());
        }
        if self.eat("{") {
            return self.map();
        }
        let word = self.word();
        if self.eat(" { ") {
            return Value::Object(self.fields());
        }
        if self.eat("(") {
            let inner = self.value();
            self.expect(")");
            return inner;
        }
        atom(&word)
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn elements(&mut self) -> Vec<Value> {
        let mut elements = Vec::new();
        while !self.eat("]") {
            elements.push(self.value());
            self.eat(", ");
        }
        elements
    }

    /// `{1: b"…"}`: unknown tagged fields.
    fn map(&mut self) -> Value {
        let mut fields = Map::new();
        while !self.eat("}") {
            let key = self.word();
            self.expect(": ");
            fields.insert(key, self.value());
            self.eat(", ");
        }
        Value::Object(fields)
    }

    fn fields(&mut self) -> Map<String, Value> {
        let mut fields = Map::new();
        while !self.eat(" }") {
            let key = self.word();
            self.expect(": ");
            let value = self.value();
            let empty = value.as_object().is_some_and(Map::is_empty);
            if !(key == "unknown_tagged_fields" && empty) {
                fields.insert(key, value);
            }
            self.eat(", ");
        }
        fields
    }

    /// The rest of a quoted string or byte string.
    fn string(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return text;
                }
                '\\' => {
                    let (_, escape) = chars.next().expect("an escape has a letter");
                    text.push(match escape {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '0' => '\0',
                        'x' => code(chars.by_ref().take(2).map(|(_, c)| c)),
                        'u' => {
                            let digits = chars.by_ref().map(|(_, c)| c);
                            code(digits.skip(1).take_while(|c| *c != '}'))
                        }
                        other => other,
                    });
                }
                other => text.push(other),
            }
        }
        panic!("a string has an end");
    }
}

/// The character of hexadecimal digits.
fn code(digits: impl Iterator<Item = char>) -> char {
    let digits: String = digits.collect();
    u32::from_str_radix(&digits, 16)
        .ok()
        .and_then(char::from_u32)
        .expect("an escape is a character")
}

/// A word that stands alone: a number, a constant, a UUID.
fn atom(word: &str) -> Value {
    if let Ok(number) = word.parse::<i64>() {
        return number.into();
    }
    match word {
        "None" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => match word.parse::<f64>() {
            Ok(number) => number.into(),
            Err(_) => word.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::{FetchResponse, TopicName};

    #[test]
    fn every_kind_of_field_is_read() {
        let partition = PartitionData::default()
            .with_error_code(3)
            .with_high_watermark(-1)
            .with_aborted_transactions(None)
            .with_records(Some(Bytes::from_static(b"a\"\\\x00\xff\n,)")));
        let topic = FetchableTopicResponse::default()
            .with_topic(TopicName(crate::wire::text("a \"b\" \u{1F600}\n")))
            .with_partitions(vec![partition.clone(), partition]);
        let read = tree(&FetchResponse::default().with_responses(vec![topic]));
        let topic = &read["responses"][0];
        assert_eq!(topic["topic"], "a \"b\" \u{1F600}\n");
        assert_eq!(topic["topic_id"], "00000000-0000-0000-0000-000000000000");
        let partition = &topic["partitions"][1];
        assert_eq!(partition["error_code"], 3);
        assert_eq!(partition["high_watermark"], -1);
        assert_eq!(partition["aborted_transactions"], Value::Null);
        assert_eq!(partition["records"], "a\"\\\0\u{ff}\n,)");
    }
}
