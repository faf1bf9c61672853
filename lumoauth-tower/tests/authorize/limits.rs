//! How often somebody may ask who has proven nothing.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use lumoauth_tower::{LumoauthService, PeerAddr, RateLimits};
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
async fn without_limits_nobody_is_counted() {
    let bench = Bench::new().await;
    let path = format!("oauth/authorize?{}", bench.query(&[]));
    for _ in 0..200 {
        let (status, headers) = from(&bench.service, "192.0.2.1:1000", ("GET", &path), "").await;
        assert_eq!(status, StatusCode::OK);
        assert!(!headers.contains_key("x-ratelimit-limit"));
    }
}
