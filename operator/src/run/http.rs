//! Metrics and health over HTTP.
//!
//! Owns four small answers. Nothing here depends on brokers: an operator whose cluster is away is healthy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
}

/// Serves until cancelled. Returns the address and a flag that makes `/readyz` say yes.
pub(super) async fn serve(
    address: &str,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, Arc<AtomicBool>)> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    let ready = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        metrics,
        ready: Arc::clone(&ready),
    };
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/startupz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .fallback(async || failure(StatusCode::NOT_FOUND, "not_found", "no such path"))
        .with_state(shared);
    tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!("the HTTP server ended: {error}");
        }
    });
    Ok((local, ready))
}

async fn render(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics",
            &error.to_string(),
        ),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if shared.ready.load(Ordering::Acquire) {
        "ok".into_response()
    } else {
        failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "starting",
            "the Kubernetes API was not reached yet",
        )
    }
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message } });
    (status, axum::Json(body)).into_response()
}
