//! The way to the API server.
//!
//! Owns two rules for every request of this process: none waits for ever, and nothing is changed by a process that does
//! not lead (any more). The second one is asked last of all, when a request is about to be sent: whoever began the work
//! may have been stopped for a minute since.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Uri};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::layer::layer_fn;
use tower::{BoxError, Service};

use crate::lease::Leadership;

/// Longest wait for the head of an answer. A watch is answered at once, too; what follows on it takes its time.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("this process does not lead (any more), and changes nothing")]
struct NotLeading;

/// A client for what only a leader may do.
pub(super) fn leaders_client(
    config: Config,
    leadership: Leadership,
) -> Result<Client, kube::Error> {
    build(config, Some(leadership))
}

/// A client for the election itself, and for letting objects go, which any replica may do.
pub(super) fn anyones_client(config: Config) -> Result<Client, kube::Error> {
    build(config, None)
}

fn build(config: Config, leadership: Option<Leadership>) -> Result<Client, kube::Error> {
    let gate = layer_fn(move |inner| Gate {
        inner,
        leadership: leadership.clone(),
        answer_wait_max: ANSWER_WAIT_MAX,
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&gate).build())
}

/// See the module.
#[derive(Clone)]
struct Gate<S> {
    inner: S,
    leadership: Option<Leadership>,
    answer_wait_max: Duration,
}

impl<S> Gate<S> {
    fn refuses(&self, method: &Method, now: Instant) -> bool {
        let reads = *method == Method::GET || *method == Method::HEAD;
        !reads && self.leadership.as_ref().is_some_and(|it| !it.holds(now))
    }
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.refuses(request.method(), Instant::now()) {
            return Box::pin(std::future::ready(Err(NotLeading.into())));
        }
        let what = words(request.method(), request.uri());
        let answer = self.inner.call(request);
        let wait_max = self.answer_wait_max;
        Box::pin(async move {
            match tokio::time::timeout(wait_max, answer).await {
                Ok(result) => result,
                Err(_) => Err(format!("{what}: no answer within {wait_max:?}").into()),
            }
        })
    }
}

fn words(method: &Method, uri: &Uri) -> String {
    format!("{method} {}", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Candidate, RENEW_DEADLINE};

    #[test]
    fn only_a_leader_changes_anything() {
        let leadership = Leadership::default();
        let mut candidate = Candidate::new("me".into(), leadership.clone());
        let gate = Gate {
            inner: (),
            leadership: Some(leadership),
            answer_wait_max: ANSWER_WAIT_MAX,
        };
        let now = Instant::now();
        assert!(gate.refuses(&Method::PATCH, now) && !gate.refuses(&Method::GET, now));
        candidate.renewed(now);
        assert!(!gate.refuses(&Method::PATCH, now));
        assert!(gate.refuses(&Method::POST, now + RENEW_DEADLINE), "slept");
        let anyone = Gate {
            leadership: None,
            ..gate
        };
        assert!(!anyone.refuses(&Method::PATCH, now));
    }

    /// A server that takes connections and never answers.
    #[tokio::test]
    async fn no_request_waits_for_ever() {
        struct Silent;
        impl Service<Request<Body>> for Silent {
            type Response = ();
            type Error = BoxError;
            type Future = std::future::Pending<Result<(), BoxError>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, _: Request<Body>) -> Self::Future {
                std::future::pending()
            }
        }
        let mut gate = Gate {
            inner: Silent,
            leadership: None,
            answer_wait_max: Duration::from_millis(1),
        };
        let request = Request::get("/apis/keelson.dev/v1alpha1/topics?watch=true")
            .body(Body::empty())
            .unwrap();
        let error = gate.call(request).await.unwrap_err().to_string();
        assert!(
            error.contains("/v1alpha1/topics: no answer within"),
            "{error}"
        );
    }
}
