//! Pushed authorization requests.

use std::time::Duration;

use http::StatusCode;

use crate::bench::{Answer, BASE, Bench, CHALLENGE, form};

async fn push(bench: &Bench, changes: &[(&str, &str)]) -> Answer {
    let secret = [("client_secret", &*bench.bot.secret)];
    let secret = if changes.iter().any(|(name, _)| *name == "client_secret") { &[][..] } else { &secret };
    let body = bench.query(&[secret, changes].concat());
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    bench.send("POST", &format!("{BASE}/oauth/par"), &headers, &body).await
}

async fn come(bench: &Bench, cookie: &str, client: &str, uri: &str) -> Answer {
    let query =
        form(&[("client_id", client), ("request_uri", uri), ("scope", "write:files"), ("state", "evil")]);
    let headers = [("cookie", cookie), ("accept", "application/json")];
    bench.send("GET", &format!("{BASE}/oauth/authorize?{query}"), &headers, "").await
}

#[tokio::test]
async fn a_pushed_request_stands_for_itself() {
    let bench = Bench::new().await;
    let pushed = push(&bench, &[]).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text);
    assert_eq!(pushed.headers["cache-control"], "no-store");
    let pushed = pushed.json();
    let uri = pushed["request_uri"].as_str().unwrap();
    assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:") && pushed["expires_in"] == 600);

    assert_eq!(come(&bench, "", &bench.bot.id, uri).await.status, StatusCode::UNAUTHORIZED);
    let asked = come(&bench, "sid=alice", &bench.bot.id, uri).await;
    assert_eq!(asked.status, StatusCode::OK);
    assert_eq!(asked.json()["scopes"][0]["name"], "read:files", "other parameters are not looked at");
    let decided = bench.decide("sid=alice", &asked.json(), "approve").await;
    assert_eq!(decided.sent("state").unwrap(), "s t");

    assert_eq!(come(&bench, "sid=alice", &bench.other_bot.id, uri).await.status, StatusCode::BAD_REQUEST);
    for bad in ["urn:ietf:params:oauth:request_uri:x", "https://evil.example/request", "urn:x"] {
        assert_eq!(come(&bench, "sid=alice", &bench.bot.id, bad).await.status, StatusCode::BAD_REQUEST);
    }
    bench.clock.advance(Duration::from_secs(600));
    assert_eq!(come(&bench, "sid=alice", &bench.bot.id, uri).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_bad_request_is_refused_at_once() {
    let bench = Bench::new().await;
    for (changes, error) in [
        (vec![("client_secret", "wrong")], "invalid_client"),
        (vec![("client_id", "cli_000000000000000000000000")], "invalid_client"),
        (vec![("client_id", "")], "invalid_client"),
        (vec![("request_uri", "urn:ietf:params:oauth:request_uri:x")], "invalid_request"),
        (vec![("redirect_uri", "https://evil.example/cb")], "invalid_request"),
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("scope", "admin:agents")], "invalid_scope"),
        (vec![("resource", "https://mcp.acme.test/other")], "invalid_target"),
        (vec![("code_challenge", CHALLENGE)], "invalid_request"),
    ] {
        let refused = push(&bench, &changes).await;
        assert!(refused.status.is_client_error(), "{changes:?}");
        assert_eq!(refused.error(), error, "{changes:?}");
    }
    assert_eq!(bench.events("agent.authenticated").await, 9, "every refusal is recorded");
}

#[tokio::test]
async fn a_public_client_only_names_itself() {
    let bench = Bench::new().await;
    let changes = [
        ("client_id", &*bench.public),
        ("client_secret", ""),
        ("redirect_uri", "https://spa.example/cb"),
        ("scope", "read:files"),
    ];
    assert_eq!(push(&bench, &changes).await.error(), "invalid_request");
    let pkce = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256")];
    assert_eq!(push(&bench, &[&changes[..], &pkce].concat()).await.status, StatusCode::CREATED);
}
