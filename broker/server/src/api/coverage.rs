//! `docs/kafka-coverage.md`, made from the first lines of the files beside this one.
//!
//! Owns the text around the table; the section of differences behind it belongs to the differential test. What is served and what is left out is said once, where it is done.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use keelson_protocol::api::APIS;

const INTRO: &str = "# Kafka APIs

Made from the opening lines of `broker/server/src/api/`; do not edit. What is not in this table is not advertised and
closes the connection, as in Kafka. Produce is advertised from 0, as Kafka does for librdkafka's sake; versions 0 to 2
are answered with UNSUPPORTED_VERSION. ACLs, quotas, TLS, SASL and followers come with later versions.

| API | Key | Versions | Left out |
|---|---|---|---|
";

/// Where the section begins that the differential test makes.
const DIFFERENCES: &str = "## Differences";

/// `CreateTopics` stands in `create_topics.rs` or `create_topics/mod.rs`.
fn file_of(api: &str) -> PathBuf {
    let mut name = String::new();
    for c in api.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let flat = dir.join(format!("{name}.rs"));
    if flat.exists() {
        flat
    } else {
        dir.join(name).join("mod.rs")
    }
}

/// The paragraphs of a file's first doc comment.
fn paragraphs(source: &str) -> Vec<String> {
    let lines = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim);
    let mut paragraphs = vec![String::new()];
    for line in lines {
        if line.is_empty() {
            paragraphs.push(String::new());
        } else if let Some(last) = paragraphs.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(line);
        }
    }
    paragraphs
}

/// The sentence that begins with "Left out:", and what follows it in its paragraph.
fn left_out(source: &str, api: &str) -> String {
    let paragraphs = paragraphs(source);
    let found = paragraphs
        .iter()
        .find_map(|p| p.split_once("Left out:").map(|(_, rest)| rest.trim()));
    found
        .unwrap_or_else(|| panic!("{api} does not say what is left out"))
        .replace('|', "\\|")
}

fn markdown() -> String {
    let mut out = INTRO.to_owned();
    for spec in APIS {
        let file = file_of(spec.name);
        let source = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let title = format!(
            "{} (key {}), versions {}–{}.",
            spec.name, spec.key as i16, spec.min, spec.max
        );
        assert_eq!(
            paragraphs(&source)[0],
            title,
            "{} does not open with its versions",
            file.display()
        );
        writeln!(
            out,
            "| {} | {} | {}–{} | {} |",
            spec.name,
            spec.key as i16,
            spec.min,
            spec.max,
            left_out(&source, spec.name)
        )
        .unwrap();
    }
    out
}

#[test]
fn the_document_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka-coverage.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let (table, differences) = found.split_once(DIFFERENCES).unwrap_or((&found, ""));
    let fresh = markdown();
    if table.trim_end() != fresh.trim_end() {
        let fresh = format!("{fresh}\n{DIFFERENCES}{differences}");
        let aside = std::env::temp_dir().join("kafka-coverage.md");
        std::fs::write(&aside, fresh).unwrap();
        panic!(
            "docs/kafka-coverage.md is stale; a fresh one is {}",
            aside.display()
        );
    }
}
