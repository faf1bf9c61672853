//! `GET /healthz` and `GET /readyz`, for whatever watches the process. They need no credential and tell little: yes,
//! or which store does not answer. Why it does not is in the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use lumoauth_core::{clock::SyncedClock, store::Upkeep};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::store::Opened;

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `/healthz`: the process answers.
    Health,
    /// `/readyz`: it can do its work, so it may be sent requests.
    Ready,
}

/// What the server needs to do its work.
#[derive(Debug)]
pub(crate) struct Needs {
    stores: Vec<Arc<dyn Upkeep>>,
    /// What they answered last. Whoever holds this asks them.
    answered: Arc<Mutex<Option<Answered>>>,
    clock: Option<Arc<SyncedClock>>,
    was_off: AtomicBool,
}

/// What the stores answered, and when.
#[derive(Clone, Copy, Debug)]
struct Answered {
    at: Instant,
    missing: Option<&'static str>,
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

    /// Its path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
        }
    }

    /// The answer.
    pub(crate) async fn answer(self, method: &Method, needs: &Needs, phase: Phase) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let body = json!({ "error": "method_not_allowed" });
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, &body);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match (self, phase) {
            (Self::Health, _) => respond(StatusCode::OK, &json!({ "status": "ok" })),
            (Self::Ready, Phase::Draining) => not_ready(&json!({ "status": "draining" })),
            (Self::Ready, Phase::Serving) => match needs.first_missing().await {
                Some(store) => not_ready(&json!({ "status": "unavailable", "store": store })),
                None => match needs.drift() {
                    Some(seconds) => {
                        let warnings = [format!("clock drift of {seconds} s")];
                        respond(StatusCode::OK, &json!({ "status": "ready", "warnings": warnings }))
                    }
                    None => respond(StatusCode::OK, &json!({ "status": "ready" })),
                },
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

impl Needs {
    /// What a server on this store needs.
    pub(crate) fn of(store: &Opened) -> Self {
        Self::new(store.stores.upkeep.clone(), store.synced.clone())
    }

    /// These stores, and this clock if it is synced.
    pub(crate) fn new(stores: Vec<Arc<dyn Upkeep>>, clock: Option<Arc<SyncedClock>>) -> Self {
        Self { stores, answered: Arc::default(), clock, was_off: AtomicBool::new(false) }
    }

    /// The name of a store that does not answer, as of a second ago at most. Anybody may ask, so the stores are asked
    /// once for all who do, and go on being asked when they hang up.
    async fn first_missing(&self) -> Option<&'static str> {
        let mut answered = Arc::clone(&self.answered).lock_owned().await;
        if let Some(answer) = *answered
            && answer.at.elapsed() < KEPT
        {
            return answer.missing;
        }
        let stores = self.stores.clone();
        let asking = tokio::spawn(async move {
            let missing = ask_all(&stores).await;
            *answered = Some(Answered { at: Instant::now(), missing });
            missing
        });
        asking.await.unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "asking the stores ended early");
            Some("unknown")
        })
    }

    /// How many seconds the clock of the store and that of this machine are apart, if that is worth a warning. Tokens
    /// are right then; what else runs here, such as the check of a certificate, may not be.
    fn drift(&self) -> Option<u64> {
        let drift = self.clock.as_ref()?.drift();
        let off = drift > MAX_DRIFT;
        let was_off = self.was_off.swap(off, Ordering::Relaxed);
        match (was_off, off) {
            (false, true) => {
                tracing::warn!(
                    seconds = drift.as_secs(),
                    "the clock of this machine is not that of the store"
                );
            }
            (true, false) => tracing::info!("the clock of this machine is that of the store again"),
            (false, false) | (true, true) => {}
        }
        off.then_some(drift.as_secs())
    }
}

/// The name of a store that does not answer. All are asked at once, each with the same patience: one that hangs hides no
/// other, and the probe's answer does not wait for their sum.
async fn ask_all(stores: &[Arc<dyn Upkeep>]) -> Option<&'static str> {
    let asked = stores.iter().map(async |store| match timeout(PATIENCE, store.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, store = store.name(), "the store does not answer");
            Some(store.name())
        }
        Err(_) => {
            tracing::warn!(store = store.name(), "the store does not answer in time");
            Some(store.name())
        }
    });
    join_all(asked).await.into_iter().flatten().next()
}

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(1);

/// Probes give up after a few seconds themselves; by then they should have an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is usual between machines that ask a time server is far below.
const MAX_DRIFT: Duration = Duration::from_secs(5);

fn not_ready(body: &Value) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, body);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use async_trait::async_trait;
    use http_body_util::BodyExt;
    use lumoauth_core::{
        clock::{Clock, Timestamp},
        store::StoreError,
    };

    use super::*;

    /// A store that answers at once, never, or with an error.
    #[derive(Clone, Copy, Debug)]
    enum Store {
        Up(&'static str),
        Hangs(&'static str),
        Down(&'static str),
    }

    #[async_trait]
    impl Upkeep for Store {
        fn name(&self) -> &'static str {
            let (Self::Up(name) | Self::Hangs(name) | Self::Down(name)) = self;
            name
        }

        async fn ping(&self) -> Result<(), StoreError> {
            match self {
                Self::Up(_) => Ok(()),
                Self::Hangs(_) => std::future::pending().await,
                Self::Down(_) => Err(StoreError::unavailable("ping", "refused")),
            }
        }

        async fn purge(&self, _: Timestamp, _: u32) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    fn needs(stores: &[Store]) -> Needs {
        Needs::new(stores.iter().map(|store| Arc::new(*store) as Arc<dyn Upkeep>).collect(), None)
    }

    async fn ask(needs: &Needs) -> (u16, bool, String) {
        let response = Probe::Ready.answer(&Method::GET, needs, Phase::Serving).await;
        let (status, retry) =
            (response.status().as_u16(), response.headers().contains_key(header::RETRY_AFTER));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn probes_have_exactly_these_paths() {
        assert_eq!(Probe::at("/healthz"), Some(Probe::Health));
        assert_eq!(Probe::at("/readyz"), Some(Probe::Ready));
        assert_eq!(Probe::at("/healthz/"), None);
        assert_eq!(Probe::at("/orgs/acme-corp/api/v1/healthz"), None);
    }

    #[tokio::test]
    async fn the_store_that_is_down_is_named() {
        use Store::{Down, Hangs, Up};
        let ready = ask(&needs(&[Up("postgres"), Up("redis")])).await;
        assert_eq!(ready, (200, false, r#"{"status":"ready"}"#.to_owned()));
        for (stores, name) in [
            ([Down("postgres"), Up("redis")], "postgres"),
            ([Up("postgres"), Down("redis")], "redis"),
            ([Up("postgres"), Hangs("redis")], "redis"),
            ([Hangs("postgres"), Down("redis")], "postgres"),
        ] {
            let expected = json!({ "status": "unavailable", "store": name }).to_string();
            assert_eq!(ask(&needs(&stores)).await, (503, true, expected), "{stores:?}");
        }
    }

    /// A store that counts how often it is asked, and takes its time.
    #[derive(Debug, Default)]
    struct Counting(AtomicU32);

    #[async_trait]
    impl Upkeep for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        async fn ping(&self) -> Result<(), StoreError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        }

        async fn purge(&self, _: Timestamp, _: u32) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    #[tokio::test]
    async fn the_stores_are_asked_once_a_second_at_most() {
        let store = Arc::new(Counting::default());
        let needs = Needs::new(vec![store.clone()], None);
        let begin = Instant::now();
        // A busy machine may take longer than an answer is kept.
        let at_most = || 1 + begin.elapsed().as_secs();
        for _ in 0..10 {
            // They hang up.
            let _ = timeout(Duration::from_millis(1), ask(&needs)).await;
        }
        let answers = join_all((0..50).map(|_| ask(&needs))).await;
        assert!(answers.iter().all(|(status, ..)| *status == 200));
        assert!(u64::from(store.0.load(Ordering::Relaxed)) <= at_most());
        tokio::time::sleep(KEPT).await;
        let before = store.0.load(Ordering::Relaxed);
        assert_eq!(ask(&needs).await.0, 200);
        assert_eq!(store.0.load(Ordering::Relaxed), before + 1, "it is asked again");
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_a_warning() {
        let clock = Arc::new(SyncedClock::new());
        let needs = Needs::new(Vec::new(), Some(clock.clone()));
        assert_eq!(ask(&needs).await, (200, false, r#"{"status":"ready"}"#.to_owned()));
        clock.set(clock.now().plus(Duration::from_millis(30_500)));
        let expected = json!({ "status": "ready", "warnings": ["clock drift of 30 s"] }).to_string();
        assert_eq!(ask(&needs).await, (200, false, expected));
    }
}
