use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::json;

use super::*;
use crate::jwks::{JwsAlgorithm, test_key::TestKey};

const URI: &str = "https://keys.example/jwks";
const ISSUER: &str = "https://issuer.example/realm";
const METADATA: &str = "https://issuer.example/realm/.well-known/openid-configuration";

/// Answers what a test put there, and counts.
#[derive(Debug, Default)]
struct World {
    answers: Mutex<HashMap<String, Result<Vec<u8>, u16>>>,
    fetches: AtomicUsize,
}

#[async_trait]
impl Fetch for World {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        assert!(request.timeout <= READ_TIME && request.max_bytes <= JwkSet::MAX_BYTES);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        match self.answers.lock().unwrap().get(request.url.as_str()) {
            Some(Ok(body)) => Ok(body.clone()),
            Some(Err(0)) => Err(FetchError::NotAllowed),
            Some(Err(status)) => Err(FetchError::Unusable(*status)),
            None => Err(FetchError::Unreachable("connection refused".into())),
        }
    }
}

struct Bench {
    world: Arc<World>,
    keys: ForeignKeys,
}

fn bench() -> Bench {
    let world = Arc::new(World::default());
    Bench { keys: ForeignKeys::new(world.clone()), world }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_790_000_000 + second)
}

fn set(kids: &[&'static str]) -> String {
    let keys: Vec<_> = kids.iter().map(|kid| TestKey::new(JwsAlgorithm::EdDsa, kid).jwk()).collect();
    json!({ "keys": keys }).to_string()
}

impl Bench {
    fn answer(&self, url: &str, body: impl Into<Vec<u8>>) {
        self.world.answers.lock().unwrap().insert(url.to_owned(), Ok(body.into()));
    }

    fn fail(&self, url: &str, status: u16) {
        self.world.answers.lock().unwrap().insert(url.to_owned(), Err(status));
    }

    fn silence(&self, url: &str) {
        self.world.answers.lock().unwrap().remove(url);
    }

    fn fetches(&self) -> usize {
        self.world.fetches.load(Ordering::SeqCst)
    }

    async fn read(
        &self,
        source: KeySource<'_>,
        kid: Option<&str>,
        second: u64,
    ) -> Result<Arc<PublicKeys>, ForeignKeyError> {
        self.keys.keys(source, kid, at(second)).await
    }

    /// Whether the key is there.
    async fn has(&self, kid: &str, second: u64) -> Result<bool, ForeignKeyError> {
        self.read(KeySource::JwksUri(URI), Some(kid), second).await.map(|keys| keys.contains(kid))
    }

    async fn issuer(&self, issuer: &str) -> Result<usize, ForeignKeyError> {
        self.read(KeySource::Issuer(issuer), None, 0).await.map(|keys| keys.len())
    }
}

#[tokio::test]
async fn registered_keys_need_no_fetch() {
    let bench = bench();
    let set = JwkSet::parse(set(&["a"]).as_bytes()).unwrap();
    let keys = bench.read(KeySource::Inline(&set), Some("z"), 0).await.unwrap();
    assert!(keys.contains("a") && bench.fetches() == 0);
}

#[tokio::test]
async fn keys_are_read_once_and_used_for_five_minutes() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    for second in [0, 1, 299] {
        assert_eq!(bench.has("a", second).await, Ok(true));
    }
    assert_eq!(bench.fetches(), 1);
    assert_eq!(bench.has("a", 300).await, Ok(true));
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test]
async fn what_was_read_before_the_clock_was_set_back_is_forgotten() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 3600).await, Ok(true));
    // It reads the clock a little earlier than the one that read the keys.
    assert_eq!(bench.has("a", 3599).await, Ok(true));
    assert_eq!(bench.fetches(), 1);
    bench.answer(URI, set(&["b"]));
    assert_eq!(bench.has("a", 0).await, Ok(false), "a removed key is gone");
    assert_eq!((bench.has("b", 0).await, bench.fetches()), (Ok(true), 2));

    // Nor is what is known used while the source is away: nobody knows how old it is.
    bench.silence(URI);
    assert_eq!(bench.has("b", 3600).await, Err(ForeignKeyError::Unreachable));
    assert_eq!(bench.fetches(), 3);
    // And a failure keeps nobody from reading again, nor does an early read.
    bench.answer(URI, set(&["b"]));
    assert_eq!(bench.has("b", 1800).await, Ok(true));
    assert_eq!(bench.has("c", 1801).await, Ok(false));
    bench.answer(URI, set(&["c"]));
    assert_eq!((bench.has("c", 900).await, bench.fetches()), (Ok(true), 6));
}

#[tokio::test]
async fn a_removed_key_is_gone_within_five_minutes() {
    let bench = bench();
    bench.answer(URI, set(&["a", "b"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    bench.answer(URI, set(&["b"]));
    assert_eq!(bench.has("a", 299).await, Ok(true));
    assert_eq!(bench.has("a", 300).await, Ok(false));
    // Also when all were removed.
    bench.answer(URI, set(&[]));
    assert_eq!(bench.has("b", 600).await, Ok(false));
}

#[tokio::test]
async fn a_new_key_is_found_by_one_read() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    bench.answer(URI, set(&["a", "b"]));
    assert_eq!(bench.has("b", 1).await, Ok(true));
    assert_eq!(bench.fetches(), 2);
}

#[tokio::test]
async fn ten_thousand_invented_kids_make_one_read_in_thirty_seconds() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    for n in 0..10_000 {
        assert_eq!(bench.has(&format!("invented-{n}"), 1 + n / 400).await, Ok(false));
    }
    assert_eq!(bench.fetches(), 2);
    assert_eq!(bench.has("b", 30).await, Ok(false));
    assert_eq!(bench.fetches(), 2, "a second early");
    assert_eq!(bench.has("b", 31).await, Ok(false));
    assert_eq!(bench.fetches(), 3);
}

#[tokio::test]
async fn a_thousand_first_requests_make_one_read() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    let all = join_all((0..1000).map(|_| bench.has("a", 0))).await;
    assert!(all.into_iter().all(|found| found == Ok(true)));
    assert_eq!(bench.fetches(), 1);

    bench.answer(METADATA, json!({"issuer": ISSUER, "jwks_uri": URI}).to_string());
    let all = join_all((0..1000).map(|_| bench.issuer(ISSUER))).await;
    assert!(all.into_iter().all(|found| found == Ok(1)));
    assert_eq!(bench.fetches(), 3, "metadata and keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_first_requests_on_several_threads_make_one_read() {
    let bench = Arc::new(bench());
    bench.answer(URI, set(&["a"]));
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { bench.has("a", 0).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(true));
    }
    assert_eq!(bench.fetches(), 1);
}

#[tokio::test]
async fn a_read_outlives_the_request_that_began_it_while_others_wait() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    let mut first = Box::pin(bench.has("a", 0));
    let mut second = Box::pin(bench.has("a", 0));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    assert_eq!(second.await, Ok(true));
    assert_eq!(bench.fetches(), 1);
    // Nobody waits any more: the next one begins anew.
    let mut third = Box::pin(bench.has("a", 300));
    assert!(futures_util::poll!(&mut third).is_pending());
    drop(third);
    bench.answer(URI, set(&["b"]));
    assert_eq!(bench.has("a", 400).await, Ok(false));
    assert_eq!(bench.has("b", 400).await, Ok(true));
}

#[tokio::test]
async fn known_keys_serve_for_an_hour_without_their_source_and_then_none_do() {
    let bench = bench();
    let other = "https://other.example/jwks";
    bench.answer(URI, set(&["a"]));
    bench.answer(other, set(&["o"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    bench.silence(URI);
    for second in (300..3600).step_by(10) {
        assert_eq!(bench.has("a", second).await, Ok(true), "{second}");
    }
    assert_eq!(bench.fetches(), 1 + 110, "tried every 30 seconds");
    assert_eq!(bench.has("a", 3600).await, Err(ForeignKeyError::Unreachable));
    // Others are untouched.
    assert!(bench.read(KeySource::JwksUri(other), Some("o"), 3600).await.unwrap().contains("o"));
    // It comes back as soon as it is tried again.
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 3660).await, Ok(true));
}

#[tokio::test]
async fn a_failure_is_remembered_for_thirty_seconds() {
    let bench = bench();
    assert_eq!(bench.has("a", 0).await, Err(ForeignKeyError::Unreachable));
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 29).await, Err(ForeignKeyError::Unreachable));
    assert_eq!(bench.fetches(), 1);
    assert_eq!(bench.has("a", 30).await, Ok(true));
    bench.fail(URI, 0);
    assert_eq!(bench.has("b", 31).await, Ok(false));
    assert_eq!(bench.has("b", 400).await, Ok(false), "stale keys, which do not have it");
}

#[tokio::test]
async fn what_is_no_usable_key_set_is_refused_and_the_old_keys_are_kept() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    let good = TestKey::new(JwsAlgorithm::Es256, "c").jwk();
    let with = |name: &str, value: &str| {
        let mut key = good.clone();
        key[name] = json!(value);
        json!({ "keys": [key] }).to_string()
    };
    let bad = [
        "<!DOCTYPE html><title>Sign in</title>".to_owned(),
        String::new(),
        "\u{1f}\u{8b}\u{8}".to_owned(),
        json!({"keys": vec![json!({"kty": "EC"}); 10_000]}).to_string(),
        json!({"keys": [good, good]}).to_string(),
        json!({"keys": [good, {"kty": "oct", "k": "c2VjcmV0"}]}).to_string(),
        with("y", "AAAA"),
        with("use", "enc"),
        with("d", "AAAA"),
        json!({"keys": [{"kty": "RSA", "kid": "r", "n": "_".repeat(86), "e": "AQAB"}]}).to_string(),
        json!({"keys": [{"kty": "RSA", "kid": "r", "n": "_".repeat(342), "e": "AQ"}]}).to_string(),
        "x".repeat(10 * 1024 * 1024),
    ];
    for (n, body) in bad.into_iter().enumerate() {
        bench.answer(URI, body);
        let second = 300 + 30 * u64::try_from(n).unwrap();
        assert_eq!(bench.has("a", second).await, Ok(true), "case {n}");
        assert_eq!(bench.fetches(), n + 2);
    }
    bench.fail(URI, 500);
    assert_eq!(bench.has("a", 2000).await, Ok(true));
    assert_eq!(bench.has("a", 3600).await, Err(ForeignKeyError::Unusable("document")));
}

#[tokio::test]
async fn an_issuer_must_name_itself_exactly() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    for twin in [
        "https://issuer.example/realm/",
        "https://ISSUER.example/realm",
        "https://issuer.example:443/realm",
        "http://issuer.example/realm",
        "https://issuer.example.evil/realm",
        "",
    ] {
        bench.answer(METADATA, json!({"issuer": twin, "jwks_uri": URI}).to_string());
        let fresh = Bench { keys: ForeignKeys::new(bench.world.clone()), world: bench.world.clone() };
        assert_eq!(fresh.issuer(ISSUER).await, Err(ForeignKeyError::Unusable("metadata")), "{twin}");
    }
    bench.answer(METADATA, json!({"issuer": ISSUER, "jwks_uri": URI}).to_string());
    assert_eq!(bench.issuer(ISSUER).await, Ok(1));
    // A slash at the end is part of the name, but not doubled in the address (OpenID Connect Discovery section 4.1).
    let slash = format!("{ISSUER}/");
    bench.answer(METADATA, json!({"issuer": slash, "jwks_uri": URI}).to_string());
    assert_eq!(bench.issuer(&slash).await, Ok(1));
}

#[tokio::test]
async fn an_issuer_cannot_send_us_anywhere() {
    for bad in [
        json!("http://issuer.example/jwks"),
        json!("http://169.254.169.254/latest"),
        json!("file:///etc/passwd"),
        json!("https://user@keys.example/jwks"),
        json!("https://keys.example/jwks#x"),
        json!("jwks"),
        json!(7),
        json!(null),
    ] {
        let bench = bench();
        bench.answer(METADATA, json!({"issuer": ISSUER, "jwks_uri": bad}).to_string());
        assert_eq!(bench.issuer(ISSUER).await, Err(ForeignKeyError::Unusable("metadata")), "{bad}");
        assert_eq!(bench.fetches(), 1);
    }
    let bench = bench();
    bench.answer(METADATA, r#"{"issuer":"x","issuer":"https://issuer.example/realm"}"#);
    assert_eq!(bench.issuer(ISSUER).await, Err(ForeignKeyError::Unusable("metadata")));
    for bad in ["", "issuer.example", "file:///x", "https://u@issuer.example", "https://issuer.example?x=1"] {
        assert_eq!(bench.issuer(bad).await, Err(ForeignKeyError::NotAllowed), "{bad}");
    }
    assert_eq!(bench.fetches(), 1);
    // Where plain http is allowed at all is for the port to say; then the issuer may name its own origin.
    let local = "http://127.0.0.1:9";
    bench.answer("http://127.0.0.1:9/jwks", set(&["a"]));
    let metadata = json!({"issuer": local, "jwks_uri": "http://127.0.0.1:9/jwks"}).to_string();
    bench.answer("http://127.0.0.1:9/.well-known/openid-configuration", metadata);
    assert_eq!(bench.issuer(local).await, Ok(1));
}

#[tokio::test]
async fn without_a_way_out_there_are_no_keys() {
    let keys = ForeignKeys::new(Arc::new(crate::fetch::NoFetch));
    let outcome = keys.keys(KeySource::JwksUri(URI), None, at(0)).await;
    assert_eq!(outcome.unwrap_err(), ForeignKeyError::NotAllowed);
    assert_eq!(
        keys.keys(KeySource::JwksUri("not an address"), None, at(0)).await.unwrap_err(),
        ForeignKeyError::NotAllowed
    );
}

#[tokio::test]
async fn the_number_of_sources_is_bounded() {
    let bench = bench();
    for n in 0..2 * SOURCES {
        let uri = format!("https://s{n}.example/jwks");
        let _ = bench.read(KeySource::JwksUri(&uri), None, 0).await;
    }
    bench.keys.sources.run_pending_tasks();
    assert!(bench.keys.sources.entry_count() <= SOURCES);
}

#[tokio::test]
async fn who_hangs_up_does_not_use_up_the_early_read() {
    let bench = bench();
    bench.answer(URI, set(&["a"]));
    assert_eq!(bench.has("a", 0).await, Ok(true));
    bench.answer(URI, set(&["a", "b"]));
    let mut gone = Box::pin(bench.has("invented", 1));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    assert_eq!(bench.has("b", 2).await, Ok(true), "the new key is found at once");
    assert_eq!(bench.fetches(), 3);
    assert_eq!(bench.has("invented", 31).await, Ok(false));
    assert_eq!(bench.fetches(), 3, "the read that ended counts");
    // What whoever hung up began is what others wait for.
    let mut gone = Box::pin(bench.has("invented", 32));
    let mut other = Box::pin(bench.has("c", 32));
    assert!(futures_util::poll!(&mut gone).is_pending() && futures_util::poll!(&mut other).is_pending());
    drop(gone);
    assert_eq!(other.await, Ok(false));
    assert_eq!((bench.has("invented", 61).await, bench.fetches()), (Ok(false), 4));
}
