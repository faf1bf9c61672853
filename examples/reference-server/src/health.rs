//! `GET /healthz` and `GET /readyz`, for whatever watches the process. They need no credential and tell nothing
//! but yes or no; why not is in the log.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use lumoauth_core::server::AuthorizationServer;
use tokio::time::timeout;

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `/healthz`: the process answers.
    Health,
    /// `/readyz`: it can do its work, so it may be sent requests.
    Ready,
}

impl Probe {
    /// The probe at `path`, if it is one.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            _ => None,
        }
    }

    /// The answer.
    pub(crate) async fn answer(
        self,
        method: &Method,
        server: &AuthorizationServer,
        phase: Phase,
    ) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"method_not_allowed"}"#);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match (self, phase) {
            (Self::Health, _) => respond(StatusCode::OK, r#"{"status":"ok"}"#),
            (Self::Ready, Phase::Draining) => not_ready(r#"{"status":"draining"}"#),
            (Self::Ready, Phase::Serving) => match timeout(PATIENCE, server.ready()).await {
                Ok(Ok(())) => respond(StatusCode::OK, r#"{"status":"ready"}"#),
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the store does not answer");
                    not_ready(r#"{"status":"unavailable"}"#)
                }
                Err(_) => {
                    tracing::warn!("the store does not answer in time");
                    not_ready(r#"{"status":"unavailable"}"#)
                }
            },
        }
    }
}

/// Whether the server takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does.
    Serving,
    /// It only finishes what it has.
    Draining,
}

/// Probes give up after a few seconds themselves; by then they should have an answer.
const PATIENCE: Duration = Duration::from_secs(2);

fn not_ready(body: &'static str) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn respond(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_have_exactly_these_paths() {
        assert_eq!(Probe::at("/healthz"), Some(Probe::Health));
        assert_eq!(Probe::at("/readyz"), Some(Probe::Ready));
        assert_eq!(Probe::at("/healthz/"), None);
        assert_eq!(Probe::at("/orgs/acme-corp/api/v1/healthz"), None);
    }
}
