//! Watching and disturbing the system calls of a running broker with `strace`.
//!
//! Owns the attach, the output file and the reading of its lines into completed calls in order. Knows no broker internals: a
//! call is its name, its arguments as strace prints them, and its result.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Broker, tools, wait_for, wait_until};

const ATTACH_WITHIN: Duration = Duration::from_secs(20);

/// One system call. Lines count from the start of the output: `begun` where its arguments stand, `ended` where its result does.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments and its result, as printed.
    pub text: String,
    /// Its result; negative for an error.
    pub result: i64,
    /// The line at which it began.
    pub begun: usize,
    /// The line at which it had ended.
    pub ended: usize,
}

/// A strace attached to a broker; detached at drop.
#[derive(Debug)]
pub struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Attaches to all threads of the broker; `words` are strace's own (`-e inject=…`).
    #[track_caller]
    pub fn attach(broker: &Broker, words: &[&str]) -> Self {
        let output = broker.home().join("strace.out");
        let messages = broker.home().join("strace.err");
        let _ = std::fs::remove_file(&output);
        let child = Command::new(tools::require("setpriv"))
            .args(["--pdeathsig", "TERM", "--"])
            .arg(tools::require("strace"))
            .args(["-f", "-yy", "-s", "4096"])
            .args(words)
            .arg("-o")
            .arg(&output)
            .args(["-p", &broker.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&messages).expect("a file can be made"))
            .spawn()
            .expect("strace can be started");
        wait_until("strace has attached to every thread", ATTACH_WITHIN, || {
            let text = std::fs::read_to_string(&messages).unwrap_or_default();
            let attached = text.matches("attached").count() >= 1;
            // What is injected may hit at once.
            (attached && is_traced(broker.pid())) || has_ended(broker.pid())
        });
        Self { child, output }
    }

    /// The calls that have ended so far, in the order of their ends, once `enough` says so.
    #[track_caller]
    pub fn calls_when(&self, what: &str, enough: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        wait_for(what, ATTACH_WITHIN, || {
            let text = std::fs::read(&self.output).unwrap_or_default();
            let calls = parse(&String::from_utf8_lossy(&text));
            enough(&calls).then_some(calls)
        })
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // SIGTERM lets strace detach; killing it could leave the broker stopped.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Whether nothing but a zombie is left of a process.
fn has_ended(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .map_or(true, |status| status.contains("\nState:\tZ"))
}

/// Whether every thread that there is now is traced.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let untraced = |status: &String| status.contains("\nTracerPid:\t0\n");
    let mut statuses = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    !statuses.any(|status| untraced(&status))
}

fn parse(text: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (String, String, usize)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            if let Some((name, arguments)) = begun.split_once('(') {
                open.insert(thread, (name.to_owned(), arguments.to_owned(), number));
            }
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, arguments, begun)) = open.remove(thread) else {
                continue;
            };
            let tail = resumed.split_once("resumed>").map_or("", |(_, tail)| tail);
            calls.extend(call(&name, format!("{arguments}{tail}"), begun, number));
        } else if let Some((name, arguments)) = rest.split_once('(') {
            calls.extend(call(name, arguments.to_owned(), number, number));
        }
    }
    calls
}

fn call(name: &str, text: String, begun: usize, ended: usize) -> Option<Call> {
    let (_, result) = text.rsplit_once(" = ")?;
    let result = result.split_whitespace().next()?.parse().ok()?;
    Some(Call {
        name: name.to_owned(),
        text,
        result,
        begun,
        ended,
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn calls_are_put_together() {
        let calls = parse(
            "12 write(3<TCP:[1->2]>, \"a(b) = c\", 8) = 8\n\
             13 pwritev2(4</wal>, [{iov_base=\"x\", iov_len=1}], 1, 0, RWF_DSYNC <unfinished ...>\n\
             12 write(3, \"\", 0) = -1 EIO (Input/output error) (INJECTED)\n\
             13 <... pwritev2 resumed>) = 4096\n\
             13 +++ exited with 1 +++\n",
        );
        let short: Vec<_> = calls
            .iter()
            .map(|c| (c.name.as_str(), c.result, c.begun, c.ended))
            .collect();
        assert_eq!(
            short,
            [
                ("write", 8, 0, 0),
                ("write", -1, 2, 2),
                ("pwritev2", 4096, 1, 3)
            ]
        );
        assert!(calls[2].text.contains("RWF_DSYNC"));
    }
}
