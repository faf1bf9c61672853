//! One request of one connection: its id, its answer, its line in the log.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use lumoauth_core::random::random_bytes;
use lumoauth_tower::{LumoauthService, PeerAddr};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{
    accounts::{Accounts, Door},
    health::{Needs, Phase, Probe},
};

/// What answers requests.
#[derive(Debug)]
pub(crate) struct App {
    service: LumoauthService,
    accounts: Arc<Accounts>,
    needs: Needs,
    draining: AtomicBool,
    ids: RequestIds,
}

impl App {
    /// The routes of `service` and of `accounts`, and probes that ask for its `needs`.
    pub(crate) fn new(service: LumoauthService, accounts: Arc<Accounts>, needs: Needs) -> Self {
        Self { service, accounts, needs, draining: AtomicBool::new(false), ids: RequestIds::new() }
    }

    /// From now on `/readyz` says that no new work should come.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers `request` and logs one line about it: method, path, status, duration, id. The query and the
    /// headers never get there, since clients put credentials into them, nor do the tokens of approvals.
    pub(crate) async fn handle(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let id = self.ids.of(request.headers().get(&REQUEST_ID));
        request.headers_mut().insert(&REQUEST_ID, id.clone());
        request.extensions_mut().insert(PeerAddr(peer));

        let mut response = match (Probe::at(uri.path()), Door::at(uri.path())) {
            (Some(probe), _) => probe.answer(&method, &self.needs, self.phase()).await,
            (None, Some(door)) => self.accounts.answer(door, request, peer).await,
            (None, None) => match self.service.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };

        tracing::info!(
            target: "lumoauth_server::access",
            method = %Printable(method.as_str()),
            path = %Printable(&without_tokens(uri.path())),
            status = response.status().as_u16(),
            duration_ms = millis(started.elapsed()),
            request_id = %Printable(id.to_str().unwrap_or_default()),
            "request"
        );
        response.headers_mut().insert(&REQUEST_ID, id);
        response
    }

    fn phase(&self) -> Phase {
        if self.draining.load(Ordering::Relaxed) { Phase::Draining } else { Phase::Serving }
    }
}

/// The header that carries the id of a request, both ways.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives ids to requests: the client's own if it is harmless, else one that no other server gives.
#[derive(Debug)]
struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        Self { process: u64::from_be_bytes(random_bytes()), next: AtomicU64::new(1) }
    }

    fn of(&self, sent: Option<&HeaderValue>) -> HeaderValue {
        match sent {
            Some(id) if is_harmless(id.as_bytes()) => id.clone(),
            _ => self.fresh(),
        }
    }

    /// Unique, and no more: nobody gains anything by guessing the id of a request, so one random number per
    /// process and a counter are enough.
    fn fresh(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:016x}-{number:x}", self.process))
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// What may stand in a log line and a header as it is.
fn is_harmless(id: &[u8]) -> bool {
    (1..=64).contains(&id.len())
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A path for a log line: the tokens of approvals, which stand in paths, do not get there.
fn without_tokens(path: &str) -> Cow<'_, str> {
    if !path.contains("/apr_") {
        return path.into();
    }
    let shown = |segment| if str::starts_with(segment, "apr_") { "apr_..." } else { segment };
    path.split('/').map(shown).collect::<Vec<_>>().join("/").into()
}

/// Text from outside for a log line: cut, and without what a terminal or a reader of the log could take for
/// something else.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 512;
        self.0.chars().take(MOST).try_for_each(|c| {
            let plain = c.is_ascii_graphic() && !matches!(c, '"' | '\\');
            fmt::Write::write_char(f, if plain { c } else { '?' })
        })
    }
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_id_is_kept_and_any_other_is_replaced() {
        let ids = RequestIds::new();
        let kept = HeaderValue::from_static("req_1.a-B");
        assert_eq!(ids.of(Some(&kept)), kept);
        for bad in ["", "a b", "a\"b", "a=b", &"x".repeat(65)] {
            let bad = HeaderValue::try_from(bad).unwrap();
            let fresh = ids.of(Some(&bad));
            assert_ne!(fresh, bad);
            assert!(is_harmless(fresh.as_bytes()));
        }
        assert_ne!(ids.of(None), ids.of(None));
    }

    #[test]
    fn text_from_outside_cannot_forge_a_line() {
        assert_eq!(Printable("/a\u{202e}b\u{1b}[0m \"c\"\\n").to_string(), "/a?b?[0m??c??n");
        assert_eq!(Printable(&"x".repeat(10_000)).to_string().len(), 512);
    }

    #[test]
    fn tokens_of_approvals_are_cut_out_of_paths() {
        let path = "/orgs/a/api/v1/approvals/apr_secret/approve";
        assert_eq!(without_tokens(path), "/orgs/a/api/v1/approvals/apr_.../approve");
        assert_eq!(without_tokens("/t/a/api/v1/x/apr_a/apr_b"), "/t/a/api/v1/x/apr_.../apr_...");
        assert_eq!(without_tokens("/orgs/apr/api"), "/orgs/apr/api");
    }

    #[test]
    fn durations_have_parts_of_a_millisecond() {
        assert_eq!(millis(Duration::from_micros(1_234)).to_string(), "1.234");
    }
}
