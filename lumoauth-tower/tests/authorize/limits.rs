//! How often somebody may ask who has proven nothing.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    keys::{KeyRing, KeyRingConfig, MasterKey},
    server::AuthorizationServer,
    store::{Admission, RateLimit, RateLimitStore, StoreError, Stores},
};
use lumoauth_tower::{LumoauthService, MatchedRoute, PeerAddr, RateLimits};
use tower::ServiceExt;

use crate::bench::{BASE, Bench};

async fn from(
    service: &LumoauthService,
    peer: &str,
    (method, path): (&str, &str),
    body: &str,
) -> (StatusCode, HeaderMap) {
    let peer: SocketAddr = peer.parse().unwrap();
    let request = Request::builder()
        .method(method)
        .uri(format!("{BASE}/{path}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .extension(PeerAddr(peer))
        .body(Full::<Bytes>::from(body.to_owned()))
        .unwrap();
    let (parts, _) = service.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers)
}

#[tokio::test]
async fn an_address_asks_120_times_a_minute_whatever_client_it_names() {
    let bench = Bench::new().await;
    let service = bench.service.clone().with_rate_limits(RateLimits::standard());
    let (one, other) = ("192.0.2.1:1000", "192.0.2.2:1000");
    for n in 0..120_u32 {
        let client = format!("cli_{n:024}");
        let query = bench.query(&[("client_id", &client)]);
        let asked = match n % 3 {
            0 => from(&service, one, ("GET", &format!("oauth/authorize?{query}")), "").await,
            1 => from(&service, one, ("POST", "oauth/authorize"), &query).await,
            _ => from(&service, one, ("POST", "oauth/par"), &query).await,
        };
        assert!(asked.0.is_client_error() && asked.0 != StatusCode::TOO_MANY_REQUESTS, "{n} {}", asked.0);
        assert_eq!(asked.1["x-ratelimit-limit"], "120");
        assert_eq!(asked.1["x-ratelimit-remaining"], (119 - n).to_string());
    }
    // Neither a client that can prove itself nor another port of the address changes it.
    let query = bench.query(&[]);
    let pushed = bench.query(&[("client_secret", &bench.bot.secret)]);
    let path = format!("oauth/authorize?{query}");
    for peer in [one, "192.0.2.1:2000"] {
        for (route, body) in [
            (("GET", &*path), ""),
            (("HEAD", &*path), ""),
            (("POST", "oauth/authorize"), &*query),
            (("POST", "oauth/par"), &*pushed),
        ] {
            let (status, headers) = from(&service, peer, route, body).await;
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{route:?}");
            assert!(headers.contains_key("retry-after") && headers["x-ratelimit-remaining"] == "0");
        }
    }
    // Other addresses and other routes have their own share.
    assert_eq!(from(&service, other, ("POST", "oauth/par"), &pushed).await.0, StatusCode::CREATED);
    assert_eq!(from(&service, other, ("GET", &path), "").await.0, StatusCode::OK, "the page to sign in");
    let grant = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        bench.bot.id, bench.bot.secret
    );
    let token = from(&service, one, ("POST", "oauth/token"), &grant).await;
    assert_eq!((token.0, &token.1["x-ratelimit-limit"]), (StatusCode::OK, &"30".parse().unwrap()));
    // The next minute is a new one.
    bench.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(from(&service, one, ("POST", "oauth/par"), &pushed).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn browsers_are_stopped_by_a_page_and_programs_by_json() {
    let mut limits = RateLimits::standard();
    limits.authorize = 0;
    let mut bench = Bench::new().await;
    bench.service = bench.service.with_rate_limits(limits);
    for method in ["GET", "POST"] {
        for (accept, kind) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
            ("Application/JSON", "application/json; charset=utf-8"),
            ("*/*", "application/json; charset=utf-8"),
            ("", "application/json; charset=utf-8"),
        ] {
            let path = format!("{BASE}/oauth/authorize?{}", bench.query(&[]));
            let stopped = bench.send(method, &path, &[("accept", accept)], "").await;
            let header = |name: &str| stopped.headers[name].to_str().unwrap();
            assert_eq!((stopped.status, header("content-type")), (StatusCode::TOO_MANY_REQUESTS, kind));
            assert!((1..=60).contains(&header("retry-after").parse::<u64>().unwrap()));
            assert_eq!((header("x-ratelimit-remaining"), header("vary")), ("0", "Accept, Cookie"));
            assert_eq!((header("cache-control"), header("x-frame-options")), ("no-store", "DENY"));
            if kind.starts_with("text/html") {
                let policy = header("content-security-policy");
                assert!(policy.starts_with("default-src 'none';") && policy.contains("form-action 'self';"));
            } else {
                assert_eq!(stopped.error(), "rate_limit_exceeded");
            }
        }
    }
    // No other route has pages.
    let path = format!("{BASE}/oauth/par");
    let stopped = bench.send("POST", &path, &[("accept", "text/html")], "").await;
    assert_eq!(stopped.error(), "rate_limit_exceeded");
}

#[tokio::test]
async fn values_of_attributes_are_written_as_often_as_administrators_write() {
    let mut bench = Bench::new().await;
    bench.service = bench.service.with_rate_limits(RateLimits::standard());
    let token = bench.tokens().await["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    for (left, owner) in [(99, "resources/document/1"), (98, "users/nobody"), (97, "agents/nobody")] {
        let path = format!("{BASE}/abac/{owner}/attributes/level");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = bench.send("PUT", &path, &headers, r#"{"value":1}"#).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{owner}");
        assert_eq!(answer.headers["x-ratelimit-limit"], "100", "{owner}");
        assert_eq!(answer.headers["x-ratelimit-remaining"], left.to_string(), "{owner}");
    }
}

/// Counters that nobody can reach.
#[derive(Debug)]
struct Down;

#[async_trait]
impl RateLimitStore for Down {
    async fn take(&self, _: &OrgId, _: &str, _: RateLimit, _: Timestamp) -> Result<Admission, StoreError> {
        Err(StoreError::unavailable("rate_limits.take", std::io::Error::other("down")))
    }
}

#[tokio::test]
async fn an_outage_is_a_page_for_browsers_too() {
    let bench = Bench::new().await;
    let stores = Stores { rate_limits: Arc::new(Down), ..bench.stores.clone() };
    let keys = KeyRing::new(stores.keys.clone(), MasterKey::generate(), KeyRingConfig::default());
    let server =
        AuthorizationServer::builder("https://auth.example", stores, Arc::new(keys)).build().unwrap();
    let service = LumoauthService::new(server).with_people(bench.doorman.clone());
    let service = service.with_rate_limits(RateLimits::standard());
    for (accept, kind) in [("text/html", "text/html"), ("application/json", "application/json")] {
        let request = Request::get(format!("{BASE}/oauth/authorize?{}", bench.query(&[])));
        let request = request.header("accept", accept).body(Full::<Bytes>::default()).unwrap();
        let stopped = service.clone().oneshot(request).await.unwrap();
        assert_eq!(stopped.status(), StatusCode::SERVICE_UNAVAILABLE);
        let header = |name: &str| stopped.headers()[name].to_str().unwrap();
        assert!(header("content-type").starts_with(kind), "{accept}");
        assert!(header("retry-after").parse::<u64>().is_ok());
        assert_eq!((header("cache-control"), header("x-frame-options")), ("no-store", "DENY"));
        assert_eq!(stopped.headers().contains_key("content-security-policy"), kind == "text/html");
        let route = stopped.extensions().get::<MatchedRoute>().unwrap();
        assert_eq!(route.0, "/orgs/{}/api/v1/oauth/authorize");
    }
}

#[tokio::test]
async fn without_limits_nobody_is_counted() {
    let bench = Bench::new().await;
    let path = format!("oauth/authorize?{}", bench.query(&[]));
    for _ in 0..200 {
        let (status, headers) = from(&bench.service, "192.0.2.1:1000", ("GET", &path), "").await;
        assert_eq!(status, StatusCode::OK);
        assert!(!headers.contains_key("x-ratelimit-limit"));
    }
}
