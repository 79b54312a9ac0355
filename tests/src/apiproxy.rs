//! A plain HTTP way to the API server that fails as it is told.
//!
//! Owns the faults of a network and of an API server: slow answers, none, refusals, answers that get lost after their
//! request had its effect, watches that end or have expired. Each connection carries one request, so that every request
//! meets the rule. Behind it `kubectl proxy` speaks TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kube::shared;

/// A request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
}

impl Asked {
    /// A watch.
    pub fn is_watch(&self) -> bool {
        self.path.contains("watch=true") || self.path.contains("watch=1")
    }

    /// Anything that changes something.
    pub fn is_write(&self) -> bool {
        !["GET", "HEAD"].contains(&self.method.as_str())
    }

    /// About the lease of an election.
    pub fn is_lease(&self) -> bool {
        self.path.contains("/leases")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing special.
    Pass,
    /// It goes on after this time.
    Slow(Duration),
    /// The answer is this status, and the API server never hears of it.
    Answer(u16),
    /// The connection ends, and the API server never hears of it.
    Cut,
    /// The API server does it, and the connection ends before the answer.
    Lose,
    /// A watch from a version that the API server has long forgotten: its own 410.
    Ancient,
    /// It goes on once the door is opened.
    Hold(Arc<Door>),
}

/// Something to wait at.
#[derive(Debug, Default)]
pub struct Door {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    /// Lets everybody through, from now on.
    pub fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    /// Waits for this long at most.
    fn pass_within(&self, time: Duration) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_timeout_while(open, time, |open| !*open));
    }

    fn pass(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self
                .opened
                .wait(open)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Fault + Send>;

struct State {
    upstream: String,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    watches: Mutex<Vec<TcpStream>>,
}

/// See the module.
pub struct ApiProxy {
    address: String,
    state: Arc<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiProxy {
    /// Listens on a free port; everything passes.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            upstream: shared().plain().to_owned(),
            rule: Mutex::new(Box::new(|_| Fault::Pass)),
            asked: Mutex::default(),
            watches: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                // A connection that breaks is what this is for.
                std::thread::spawn(move || drop(serve(&state, client)));
            }
        });
        Self { address, state }
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What becomes of requests from now on.
    pub fn rule(&self, rule: impl FnMut(&Asked) -> Fault + Send + 'static) {
        *lock(&self.state.rule) = Box::new(rule);
    }

    /// Everything passes again.
    pub fn calm(&self) {
        self.rule(|_| Fault::Pass);
    }

    /// Ends all watches that are open.
    pub fn end_watches(&self) {
        for stream in lock(&self.state.watches).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The requests so far, those that met a fault among them.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }
}

fn serve(state: &State, mut client: TcpStream) -> std::io::Result<()> {
    let Some((asked, mut head, body)) = read(&client)? else {
        return Ok(());
    };
    let fault = lock(&state.rule)(&asked);
    lock(&state.asked).push(asked.clone());
    match &fault {
        Fault::Pass | Fault::Lose => {}
        Fault::Slow(time) => Door::default().pass_within(*time),
        Fault::Answer(status) => return refuse(client, *status),
        Fault::Cut => return Ok(()),
        Fault::Ancient => head = forget(&head),
        Fault::Hold(door) => door.pass(),
    }
    let mut upstream = TcpStream::connect(&state.upstream)?;
    upstream.write_all(head.as_bytes())?;
    upstream.write_all(&body)?;
    if let Fault::Lose = fault {
        std::io::copy(&mut upstream, &mut std::io::sink())?;
        return Ok(());
    }
    if asked.is_watch() {
        lock(&state.watches).push(client.try_clone()?);
        lock(&state.watches).push(upstream.try_clone()?);
    }
    std::io::copy(&mut upstream, &mut client)?;
    client.shutdown(Shutdown::Both)
}

/// One request: what it is, its head with `Connection: close`, its body.
fn read(client: &TcpStream) -> std::io::Result<Option<(Asked, String, Vec<u8>)>> {
    let mut reader = BufReader::new(client);
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split(' ');
    let asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
    };
    let (mut head, mut bytes) = (first, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(length) = lower.strip_prefix("content-length:") {
            bytes = length.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    head.push_str("Connection: close\r\n\r\n");
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body)?;
    Ok(Some((asked, head, body)))
}

/// The same head, asking for the first version there ever was.
fn forget(head: &str) -> String {
    let Some((before, rest)) = head.split_once("resourceVersion=") else {
        return head.to_owned();
    };
    let after = rest.trim_start_matches(|it: char| it.is_ascii_digit());
    format!("{before}resourceVersion=1{after}")
}

fn refuse(mut client: TcpStream, status: u16) -> std::io::Result<()> {
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"refused by the test","reason":"Test","code":{status}}}"#
    );
    write!(
        client,
        "HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    client.shutdown(Shutdown::Write)
}
