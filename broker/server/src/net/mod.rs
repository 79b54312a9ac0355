//! The Kafka ports: accepting connections, and ending them.
//!
//! Owns the listeners and the number of connections. Never knows what a request means.

mod admission;
mod connection;
mod inbox;
mod outbox;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::dispatch::Origin;
use crate::listeners::ListenerId;
use admission::Admission;
pub use admission::ConnectionLimits;
use connection::Connection;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;
/// After a failed accept (no descriptor left) the next try waits this long: descriptors come back when clients leave.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of the files that the process may open, a quarter within these bounds is not for connections.
const FILES_RESERVED_MIN: u64 = 64;
const FILES_RESERVED_MAX: u64 = 2048;
/// How long replies may take to get out when the broker stops.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Faults of clients that are logged per second; a flood of them must not become a flood of log lines.
const FAULTS_LOGGED_PER_SECOND: i64 = 5;

/// Binds an address.
///
/// # Errors
/// What the system says: the port is taken, the address is not ours.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in tokio::net::lookup_host(address).await? {
        match bind_one(resolved) {
            Ok(listener) => return TcpListener::from_std(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What all listeners share.
struct Ports {
    broker: Arc<Broker>,
    stopping: CancellationToken,
    tracker: TaskTracker,
    faults: FaultLog,
    admission: Arc<Admission>,
    files_max: usize,
}

/// Accepts on all listeners until `stopping` is cancelled, then lets the connections answer what they were asked.
pub async fn serve(listeners: Vec<TcpListener>, broker: Arc<Broker>, stopping: CancellationToken) {
    let ports = Arc::new(Ports {
        broker,
        stopping,
        tracker: TaskTracker::new(),
        faults: FaultLog::new(),
        admission: Arc::default(),
        files_max: connections_by_files(),
    });
    let mut accepting = JoinSet::new();
    for (place, listener) in listeners.into_iter().enumerate() {
        accepting.spawn(accept(listener, ListenerId(place), Arc::clone(&ports)));
    }
    // Every port is closed before the first connection is waited for.
    accepting.join_all().await;
    ports.tracker.close();
    if tokio::time::timeout(DRAIN_TIME, ports.tracker.wait())
        .await
        .is_err()
    {
        tracing::info!(
            connections = ports.tracker.len(),
            "not every connection was done in time"
        );
    }
}

async fn accept(listener: TcpListener, id: ListenerId, ports: Arc<Ports>) {
    loop {
        let accepted = tokio::select! {
            () = ports.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let limits = limits_of(&ports.broker, ports.files_max);
                match ports.admission.admit(peer.ip(), &limits) {
                    Ok(admitted) => {
                        let shared = Arc::clone(&ports);
                        ports.tracker.spawn(async move {
                            one(stream, (peer, id), &shared).await;
                            drop(admitted);
                        });
                    }
                    Err(refused) => {
                        ports.broker.metrics.connections_refused.inc();
                        ports.faults.log(peer, &refused);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The limits of this moment.
fn limits_of(broker: &Broker, files_max: usize) -> ConnectionLimits {
    let limits = &broker.live().connection_limits;
    ConnectionLimits {
        max: limits.max.min(files_max),
        ..limits.clone()
    }
}

/// How many connections the open files of the process allow: the log needs some, and must never be without.
fn connections_by_files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX);
    let reserved = (files / 4).clamp(FILES_RESERVED_MIN, FILES_RESERVED_MAX);
    usize::try_from(files.saturating_sub(reserved).max(1)).unwrap_or(usize::MAX)
}

async fn one(stream: TcpStream, (peer, listener): (SocketAddr, ListenerId), ports: &Ports) {
    let broker = &ports.broker;
    if let Err(error) = stream.set_nodelay(true) {
        ports.faults.log(peer, &error);
        return;
    }
    broker.metrics.connections.inc();
    let origin = Origin {
        host: peer.ip(),
        listener,
    };
    let end = Connection::new(stream, Arc::clone(broker), origin)
        .serve(ports.stopping.clone().cancelled_owned())
        .await;
    broker.metrics.connections.dec();
    if end.is_fault() {
        broker.metrics.connections_refused.inc();
        ports.faults.log(peer, &end);
    } else {
        tracing::debug!(%peer, %end, "connection ended");
    }
}

/// Faults of clients, in the log at a bounded rate.
struct FaultLog {
    started: Instant,
    /// Seconds since the start, and how many were logged in that second.
    second: AtomicI64,
    logged: AtomicI64,
}

impl FaultLog {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            second: AtomicI64::new(0),
            logged: AtomicI64::new(0),
        }
    }

    fn log(&self, peer: SocketAddr, fault: &dyn std::fmt::Display) {
        let now = i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX);
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.logged.store(0, Ordering::Relaxed);
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) < FAULTS_LOGGED_PER_SECOND {
            tracing::warn!(%peer, %fault, "connection closed");
        }
    }
}
