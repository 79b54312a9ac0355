//! The syntax of a Kafka-style properties file: Java's `Properties`, as far as people write it.
//!
//! Owns lines, comments, continuations and escapes. Never knows which keys exist.

use thiserror::Error;

/// A properties file is read whole; one larger than this is not one.
pub(super) const PROPERTIES_BYTES_MAX: u64 = 1024 * 1024;

/// A line that is no `key=value`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {text:?} is not key=value")]
pub(super) struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// One assignment, in the order of the file; a later one for the same key wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The key.
    pub key: String,
    /// The value; may be empty.
    pub value: String,
    /// The line it begins on, counted from 1.
    pub line: usize,
}

/// Parses a whole file.
///
/// # Errors
/// At the first line that has neither `=` nor `:`.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, BadLine> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, first)) = lines.next() {
        let mut logical = first.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start()),
                None => break,
            }
        }
        found.push(assignment(&logical, at + 1)?);
    }
    Ok(found)
}

/// Splits `key=value`, as in a file or after `--set`.
///
/// # Errors
/// If there is neither `=` nor `:`.
pub(super) fn assignment(text: &str, line: usize) -> Result<Assignment, BadLine> {
    let bad = || BadLine {
        line,
        text: text.to_owned(),
    };
    let mut escaped = false;
    let split = text
        .char_indices()
        .find(|(_, c)| {
            let separates = !escaped && matches!(c, '=' | ':');
            escaped = !escaped && *c == '\\';
            separates
        })
        .ok_or_else(bad)?
        .0;
    let key = unescape(text[..split].trim());
    if key.is_empty() {
        return Err(bad());
    }
    Ok(Assignment {
        key,
        value: unescape(text[split + 1..].trim()),
        line,
    })
}

/// True if the line ends with an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parse(text).unwrap();
        let pairs: Vec<(&str, &str)> = found
            .iter()
            .map(|a| (a.key.as_str(), a.value.as_str()))
            .collect();
        assert_eq!(pairs, expected, "{text:?}");
    }

    #[test]
    fn reads_what_people_write() {
        check("", &[]);
        check("# c\n! c\n\n  a=b\n", &[("a", "b")]);
        check("a = b c \nd:e", &[("a", "b c"), ("d", "e")]);
        check(
            "listeners=PLAINTEXT://:9092",
            &[("listeners", "PLAINTEXT://:9092")],
        );
        check("a=1,\\\n  2,\\\n  3", &[("a", "1,2,3")]);
        check("a\\:b=c\\\\d", &[("a:b", "c\\d")]);
        check("a=", &[("a", "")]);
    }

    #[test]
    fn a_line_without_separator_is_named() {
        assert_eq!(parse("a=b\nnonsense").unwrap_err().line, 2);
        assert!(parse("=x").is_err());
    }
}
