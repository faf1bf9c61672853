//! One request of one connection: its id, its answer, its line in the log.

use std::{
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
use http_body::Body;
use http_body_util::Full;
use lumoauth_core::{random::random_bytes, secret::without_credentials};
use lumoauth_tower::{LumoauthService, MatchedRoute, PeerAddr};
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

    /// Answers `request` and logs one line about it: method, route, status, duration, id. Clients put credentials into
    /// headers and queries, and by mistake into paths, so nothing of these gets there: of the path only which route it is.
    pub(crate) async fn handle<B>(&self, mut request: Request<B>, peer: SocketAddr) -> Response<Full<Bytes>>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let id = self.ids.of(request.headers().get(&REQUEST_ID));
        request.headers_mut().insert(&REQUEST_ID, id.clone());
        request.extensions_mut().insert(PeerAddr(peer));

        let (route, mut response) = match (Probe::at(uri.path()), Door::at(uri.path())) {
            (Some(probe), _) => (probe.path(), probe.answer(&method, &self.needs, self.phase()).await),
            (None, Some(door)) => (door.template(), self.accounts.answer(door, request, peer).await),
            (None, None) => match self.service.clone().oneshot(request).await {
                Ok(response) => {
                    let matched = response.extensions().get::<MatchedRoute>();
                    (matched.map_or("-", |matched| matched.0), response)
                }
                Err(never) => match never {},
            },
        };

        tracing::info!(
            target: "lumoauth_server::access",
            method = %Printable(method.as_str()),
            path = route,
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
        && str::from_utf8(id).is_ok_and(|id| without_credentials(id) == id)
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
    use std::{io, sync::Mutex};

    use lumoauth_core::{
        audit::{Actor, Origin},
        id::OrgId,
        keys::{KeyRing, KeyRingConfig, MasterKey},
        organization::ActOrder,
        server::{AuthorizationServer, Caller},
        store::{MemoryStore, Stores},
    };

    use super::*;
    use crate::passwords::Argon2id;

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
    fn durations_have_parts_of_a_millisecond() {
        assert_eq!(millis(Duration::from_micros(1_234)).to_string(), "1.234");
    }

    /// What was written to the log.
    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn nothing_of_a_path_that_a_caller_chose_reaches_the_log() {
        const CANARY: &str = "eyJhbGciOiJFUzI1NiJ9.c4n4ry.s1gn4ture";
        let app = app().await;
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let mut expected = Vec::new();
        for (method, path, route) in [
            ("POST", "/orgs/acme/api/v1/agents/CANARY/attest", "/orgs/{}/api/v1/agents/{}/attest"),
            ("POST", "/t/CANARY/api/v1/agents/a/attest", "/orgs/{}/api/v1/agents/{}/attest"),
            ("GET", "//orgs/acme/api/v1/admin/users/CANARY", "/orgs/{}/api/v1/admin/users/{}"),
            ("GET", "/orgs/acme/api/v1/agents/CANARY/attest", "-"),
            ("GET", "/orgs/acme/api/v1/CANARY", "-"),
            ("GET", "/CANARY", "-"),
            ("POST", "/api/v1/authz/check?token=CANARY", "/api/v1/authz/check"),
            ("POST", "/orgs/CANARY/api/v1/oauth/login/json", "/orgs/{}/api/v1/oauth/login/json"),
            ("GET", "/t/acme/api/v1/oauth/login?return_to=CANARY", "/orgs/{}/api/v1/oauth/login"),
            ("GET", "/healthz?CANARY", "/healthz"),
        ] {
            let request = Request::builder().method(method).uri(path.replace("CANARY", CANARY));
            let request = request.body(Full::<Bytes>::default()).unwrap();
            app.handle(request, "192.0.2.1:4711".parse().unwrap()).await;
            expected.push(format!("path=\"{route}\""));
        }
        drop(logging);
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("lumoauth_server::access")).collect();
        assert_eq!(lines.len(), expected.len(), "{log}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert!(line.contains(expected), "{expected}: {line}");
        }
        for part in CANARY.split('.') {
            assert!(!log.contains(part), "{log}");
        }
    }

    /// With an organization, in memory.
    async fn app() -> App {
        let master = MasterKey::generate();
        let stores = Stores::all(Arc::new(MemoryStore::new()));
        let keys = KeyRing::new(stores.keys.clone(), master.clone(), KeyRingConfig::default());
        let server =
            AuthorizationServer::builder("http://127.0.0.1:8080", stores, Arc::new(keys)).build().unwrap();
        let caller = Caller::new(Actor::system(), Origin::default());
        let acme = OrgId::parse("acme").unwrap();
        server.create_organization(&acme, "Acme", ActOrder::default(), &caller).await.unwrap();
        let accounts = Accounts::new(server.clone(), Arc::new(Argon2id::new()), &master, None).unwrap();
        let accounts = Arc::new(accounts);
        let service = LumoauthService::new(server).with_people(accounts.clone());
        App::new(service, accounts, Needs::new(Vec::new(), None))
    }
}
