//! The list of keys for people: `keelson-broker config` and `docs/configuration.md`.
//!
//! Owns the text around the tables. Never has a key of its own: everything comes from the tables that the start uses.

use std::fmt::Write;

use keelson_state::config::{Kind, TOPIC_KEYS, TopicDefaults};

use super::keys::KEYS;
use super::memory::{MIB, MemoryBounds};
use super::refused::REFUSED;

const INTRO: &str = "# Configuration

Printed by `keelson-broker config`; do not edit. Keys are given in a properties file (`--config FILE`) or as `--set
key=value`, which wins. An unknown key, a bad value or an impossible combination stops the start. There is no
configuration by environment variables.

Keys that are marked as dynamic can also be set through the API (`kafka-configs --alter --broker 0`, or
`--broker-defaults` for all brokers): they are in force at once, win over the file, and stay after a restart. All others
answer \"Cannot update these configs dynamically\".

## Broker

| Key | Type | Default | Dynamic | Meaning |
|---|---|---|---|---|
";

const TOPIC_DEFAULTS: &str = "
## Defaults of topics

Set on the broker, in force for every topic that does not set the topic key itself. Of several keys for one topic key
the one listed first wins.

| Key | Type | Default | Dynamic | Topic key |
|---|---|---|---|---|
";

const TOPICS: &str = "
## Topics

Set at creation or with IncrementalAlterConfigs. They are Kafka's, each with what it does here; one that can do nothing
takes only the value that is true. Any other key is refused with INVALID_CONFIG.

| Key | Type | Default | Meaning |
|---|---|---|---|
";

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "boolean",
        Kind::Double => "double",
        Kind::String => "string",
        Kind::Int => "int",
        Kind::Long => "long",
        Kind::List => "list",
    }
}

fn code(value: Option<&str>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("`{v}`"))
}

const REFUSED_KEYS: &str = "
## Keys of Apache Kafka that are refused

In a file they stop the start, through the API they answer INVALID_CONFIG, each with the reason. A key that ends with a
dot stands for all that begin with it.

| Key | Reason |
|---|---|
";

const MEMORY: &str = "
## Memory

Each part of the process has a bound. In a container it is a part of the container's limit, so that all together leave
room within it for connections, partitions and the map of keys of a compaction. What finds no room waits its turn, or is
refused in words. The tail memory is `keelson.tail.memory.bytes` where that is set.

| MiB with a limit of | none | 1 GiB | 512 MiB | 256 MiB |
|---|---:|---:|---:|---:|
";

/// A bound in words, and which it is.
type MemoryRow = (&'static str, fn(&MemoryBounds) -> u64);

const MEMORY_ROWS: [MemoryRow; 8] = [
    (
        "tail: produce requests, and records that are not yet in a segment",
        |m| m.tail,
    ),
    ("replies with records, until they are written", |m| {
        m.replies
    }),
    ("large requests without records", |m| m.control),
    ("the same while they arrive", |m| m.arriving_control),
    (
        "large replies without records, until they are written",
        |m| m.answers,
    ),
    ("what waiting fetches keep of their requests", |m| m.waiting),
    ("fetch sessions", |m| m.fetch_sessions),
    ("pieces of segments that were read lately", |m| {
        m.extent_cache
    }),
];

fn memory(out: &mut String) {
    out.push_str(MEMORY);
    let limits = [None, Some(1024 * MIB), Some(512 * MIB), Some(256 * MIB)];
    for (name, bound) in MEMORY_ROWS {
        let under = limits.map(|limit| (bound(&MemoryBounds::of(limit)) / MIB).to_string());
        let cells: Vec<&str> = [name]
            .into_iter()
            .chain(under.iter().map(String::as_str))
            .collect();
        row(out, &cells);
    }
}

fn yes(dynamic: bool) -> &'static str {
    if dynamic { "yes" } else { "" }
}

fn row(out: &mut String, cells: &[&str]) {
    writeln!(out, "| {} |", cells.join(" | ")).expect("a string takes everything");
}

/// The whole document.
pub fn markdown() -> String {
    let mut out = INTRO.to_owned();
    for key in KEYS {
        let name = format!("`{}`", key.name);
        row(
            &mut out,
            &[
                &name,
                kind(key.kind),
                &code(key.default),
                yes(key.is_dynamic),
                key.doc,
            ],
        );
    }
    memory(&mut out);
    out.push_str(TOPIC_DEFAULTS);
    for (key, synonym) in TopicDefaults::keys() {
        let name = format!("`{}`", synonym.name);
        let topic_key = format!("`{}`", key.name);
        row(
            &mut out,
            &[
                &name,
                kind(key.kind),
                &code(synonym.default),
                yes(synonym.is_dynamic),
                &topic_key,
            ],
        );
    }
    out.push_str(TOPICS);
    for key in TOPIC_KEYS {
        let name = format!("`{}`", key.name);
        row(
            &mut out,
            &[&name, kind(key.kind), &code(key.default), key.doc],
        );
    }
    out.push_str(REFUSED_KEYS);
    for (key, reason) in REFUSED {
        row(&mut out, &[&format!("`{key}`"), reason]);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == super::markdown(),
            "docs/configuration.md is stale: keelson-broker config > docs/configuration.md"
        );
    }
}
