//! What a machine can hold of the house style: directions, module docs, lengths, generated files, words that must not appear.
//!
//! Each rule names its file and line. Exceptions stand in one short list, each with its reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use keelson_tests::tools;

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from its first to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// (file, function or "" for the whole file, reason).
const LENGTH_EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Which crates of this workspace each may use (design §2), and words its code may not hold.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    (
        "broker/protocol",
        &[],
        &[
            "tokio",
            "std::fs",
            "std::net",
            "async fn",
            "SystemTime::now",
            "Instant::now",
        ],
    ),
    (
        "broker/log",
        &["keelson-protocol", "keelson-state"],
        &["tokio", "async fn"],
    ),
    (
        "broker/state",
        &[],
        &[
            "tokio",
            "kafka_protocol",
            "std::fs",
            "std::net",
            "async fn",
            "SystemTime::now",
            "Instant::now",
            "rand::",
        ],
    ),
    ("broker/client", &["keelson-protocol"], &[]),
    (
        "broker/server",
        &[
            "keelson-protocol",
            "keelson-log",
            "keelson-state",
            "keelson-client",
        ],
        &[],
    ),
    ("crds", &["keelson-state"], &["tokio", "async fn"]),
    (
        "operator",
        &["keelson-client", "keelson-crds", "keelson-protocol"],
        &[],
    ),
];

/// A file that git knows, and what is in it.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(tools::root())
        .output();
    let paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
        // An unpacked archive has no git.
        _ => walk(tools::root()),
    };
    let sources: Vec<Source> = paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(std::fs::read(tools::root().join(&path)).ok()?).ok()?;
            Some(Source { path, text })
        })
        .collect();
    assert!(
        sources.len() > 20,
        "the project has more than {} files",
        sources.len()
    );
    sources
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))
            .expect("a folder")
            .flatten()
        {
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            if ["target", "data", ".git"].contains(&name.as_str()) {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else {
                found.push(name);
            }
        }
    }
    found
}

fn rust_sources() -> Vec<Source> {
    sources()
        .into_iter()
        .filter(|source| source.path.ends_with(".rs"))
        .collect()
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn crates_depend_only_downwards() {
    let mut found = Vec::new();
    for (folder, allowed, _) in CRATES {
        let manifest = std::fs::read_to_string(tools::root().join(folder).join("Cargo.toml"))
            .expect("a manifest");
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let name = line.split([' ', '.', '=']).next().unwrap_or_default();
            let ours = section == "[dependencies]" && name.starts_with("keelson-");
            if ours && !allowed.contains(&name) {
                found.push(format!("{folder} may not depend on {name}"));
            }
        }
    }
    none(
        "dependency directions (design: bytes, disk, decisions, effects)",
        found,
    );
}

#[test]
fn each_crate_keeps_to_its_job() {
    let mut found = Vec::new();
    for source in rust_sources() {
        let Some((_, _, words)) = CRATES
            .iter()
            .find(|(folder, ..)| source.path.starts_with(&format!("{folder}/src/")))
        else {
            continue;
        };
        for (number, line) in before_tests(&source.text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    none("words that belong to another crate's job", found);
}

#[test]
fn every_file_says_what_it_owns() {
    let found = rust_sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    none("files that do not open with `//!`", found);
}

/// Whether the whole file is its module's tests.
fn is_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/src/tests/")
}

/// Lines up to the file's tests.
fn before_tests(text: &str) -> Vec<&str> {
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .collect()
}

fn is_exception(path: &str, function: &str) -> bool {
    LENGTH_EXCEPTIONS
        .iter()
        .any(|(file, name, reason)| *file == path && *name == function && !reason.is_empty())
}

#[test]
fn files_are_short() {
    let found = rust_sources()
        .iter()
        .filter(|source| !is_tests(&source.path))
        .filter(|source| {
            before_tests(&source.text).len() > FILE_LINES_MAX && !is_exception(&source.path, "")
        })
        .map(|source| {
            format!(
                "{}: {} lines",
                source.path,
                before_tests(&source.text).len()
            )
        })
        .collect();
    none("files longer than 600 lines before their tests", found);
}

#[test]
fn functions_are_short() {
    let mut found = Vec::new();
    for source in rust_sources()
        .iter()
        .filter(|source| !is_tests(&source.path))
    {
        for (name, line, length) in functions(&before_tests(&source.text)) {
            if length > FUNCTION_LINES_MAX && !is_exception(&source.path, name) {
                found.push(format!("{}:{line}: {name} has {length} lines", source.path));
            }
        }
    }
    none("functions longer than 70 lines", found);
}

/// Name, first line and length of each function; formatted code closes a function at the indentation of its `fn`.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "const fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
        ]
        .iter()
        .any(|opening| code.starts_with(opening))
            || (code.starts_with("pub") && code.contains(" fn ") && !code.contains('"'));
        if !is_function {
            continue;
        }
        let name = code.split_once("fn ").map_or("", |(_, rest)| {
            rest.split(['(', '<']).next().unwrap_or_default()
        });
        let closing = format!("{}}}", &line[..line.len() - code.len()]);
        let end = lines[start..].iter().position(|line| *line == closing);
        let declared = lines[start..].iter().position(|line| line.ends_with(';'));
        let one_line = line.ends_with('}');
        if let Some(end) = end
            && !one_line
            && declared.is_none_or(|declared| {
                lines[start..start + declared]
                    .iter()
                    .any(|line| line.ends_with('{'))
            })
        {
            found.push((name, start + 1, end + 1));
        }
    }
    found
}

#[test]
fn lengths_are_measured() {
    let text = "fn short() {}\n    pub(crate) async fn long(\n        a: u8,\n    ) {\n        a;\n    }\n    fn declared();\n}\n";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(functions(&lines), [("long", 2, 5)]);
}

#[test]
fn nothing_points_out_of_the_project() {
    // Put together here, so that this file does not hold them itself.
    let words = [
        concat!("..", "/shared"),
        concat!("/", "work/"),
        concat!("/", "root/"),
        concat!("index.", "crates.io"),
        concat!("files.", "pythonhosted"),
        concat!("proxy.", "golang.org"),
        concat!("repo.", "maven.apache"),
        concat!("repo1.", "maven.org"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimplemen", "ted!"),
    ];
    let mut found = Vec::new();
    for source in sources() {
        let generated = ["Cargo.lock", "go.sum", ".tsv"]
            .iter()
            .any(|name| source.path.ends_with(name));
        if generated {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    none("words that must not stand in the project", found);
}

#[test]
fn no_test_is_ignored_or_sleeps() {
    let mut found = Vec::new();
    for source in rust_sources() {
        let in_harness =
            source.path == "tests/src/wait.rs" || source.path.starts_with("tests/src/bin/");
        let from = if source.path.starts_with("tests/") || is_tests(&source.path) {
            0
        } else {
            before_tests(&source.text).len()
        };
        for (number, line) in source.text.lines().enumerate().skip(from) {
            let sleeps = !in_harness && line.contains(concat!("thread::", "sleep("));
            if line.trim() == concat!("#[", "ignore]") || sleeps {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none("ignored or sleeping tests", found);
}
