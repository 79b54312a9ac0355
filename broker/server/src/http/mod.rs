//! The HTTP server: metrics, probes, and the state of the log.
//!
//! Owns the paths and the JSON of the contract. It serves from before the log is open to the very end; what needs the
//! broker says so until there is one. Never changes anything.

mod admin;
mod time;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::coordinator::GroupSnapshot;
use crate::metrics::{coordinators, exporter};
pub(crate) use time::rfc3339;

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the paths can see.
pub struct Shared {
    /// All families that are counted.
    pub registry: Registry,
    broker: OnceLock<Arc<Broker>>,
    ready: AtomicBool,
}

impl Shared {
    /// Nothing but counters yet.
    pub fn new(registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            registry,
            broker: OnceLock::new(),
            ready: AtomicBool::new(false),
        })
    }

    /// The log is open and the broker is put together.
    pub fn set_broker(&self, broker: Arc<Broker>) {
        self.broker.get_or_init(|| broker);
    }

    /// Clients can be served, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }
}

/// An error as the contract wants it.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ErrorFields {
                code: self.code,
                message: &self.message,
            },
        };
        (self.status, Json(body)).into_response()
    }
}

fn not_ready(message: &str) -> Failure {
    Failure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "NOT_READY",
        message: message.to_owned(),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/startupz", get(|| async { "ok\n" }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/admin/v1/log", get(admin::log))
        .route("/admin/v1/identity", get(admin::identity))
        .fallback(|| async {
            Failure {
                status: StatusCode::NOT_FOUND,
                code: "NOT_FOUND",
                message: "there is no such path".to_owned(),
            }
        })
        .with_state(shared)
}

/// Serves until `stopping` is cancelled.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, stopping: CancellationToken) {
    let served = axum::serve(listener, router(shared))
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server ended");
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Result<&'static str, Failure> {
    if shared.ready.load(Ordering::Acquire) {
        Ok("ok\n")
    } else if shared.broker.get().is_some() {
        Err(not_ready("clients are not served (yet, or any more)"))
    } else {
        Err(not_ready("the log is being recovered"))
    }
}

/// Rendering reads `/proc` and walks all partitions: work for a thread that may block.
async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Failure> {
    let (mut groups, mut counted) = (Vec::new(), coordinators::Counted::default());
    if let Some(broker) = shared.broker.get() {
        counted = coordinators::Counted::now(broker).await;
        if broker.config.metrics_partitions {
            groups = broker.coordinator.snapshot().await;
        }
    }
    let rendered = tokio::task::spawn_blocking(move || render(&shared, &groups, &counted)).await;
    match rendered {
        Ok(Ok(text)) => Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response()),
        Ok(Err(error)) => Err(internal(&error)),
        Err(error) => Err(internal(&error)),
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "INTERNAL",
        message: error.to_string(),
    }
}

fn render(
    shared: &Shared,
    groups: &[GroupSnapshot],
    counted: &coordinators::Counted,
) -> Result<String, prometheus::Error> {
    let mut text = TextEncoder::new().encode_to_string(&shared.registry.gather())?;
    if let Some(broker) = shared.broker.get() {
        coordinators::render(broker, counted, &mut text);
        exporter::render(broker, groups, &mut text);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(port: u16, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_before_the_log_is_open() {
        let registry = Registry::new();
        crate::metrics::Metrics::register(&registry).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stopping = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Shared::new(registry), stopping.clone()));
        let check = async |path: &str, status: &str, word: &str| {
            let answer = get(port, path).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            assert!(answer.contains(word), "{answer}");
        };
        check("/startupz", "200", "ok").await;
        check("/livez", "200", "ok").await;
        check("/readyz", "503", "\"code\":\"NOT_READY\"").await;
        check("/metrics", "200", "keelson_build_info").await;
        check("/admin/v1/log", "503", "NOT_READY").await;
        check("/nothing", "404", "\"code\":\"NOT_FOUND\"").await;
        stopping.cancel();
        server.await.unwrap();
    }
}
