//! Pushed authorization requests.

use std::time::Duration;

use http::StatusCode;
use lumoauth_core::clock::Clock;

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

/// The request of the bot, pushed with these parameters.
async fn pushed_uri(bench: &Bench, changes: &[(&str, &str)]) -> String {
    push(bench, changes).await.json()["request_uri"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_sign_in_is_one_for_this_request_and_is_wanted_once() {
    for wish in [("prompt", "login"), ("max_age", "0"), ("prompt", "login consent")] {
        let bench = Bench::new().await;
        let uri = pushed_uri(&bench, &[wish]).await;
        let sign_in = || bench.doorman.sign_in("sid=alice", bench.alice.id, bench.clock.now());
        // A sign-in after the push and before the browser came was for something else.
        bench.clock.advance(Duration::from_secs(1));
        sign_in();
        bench.clock.advance(Duration::from_secs(1));
        for _ in 0..2 {
            let refused = come(&bench, "sid=alice", &bench.bot.id, &uri).await;
            assert_eq!((refused.status, &*refused.error()), (StatusCode::UNAUTHORIZED, "login_required"));
            // It comes back by the same URI.
            let resume = refused.json()["resume"].as_str().unwrap().to_owned();
            assert!(resume.contains(&form(&[("request_uri", &uri)])), "{resume}");
            bench.clock.advance(Duration::from_secs(1));
        }
        sign_in();
        bench.clock.advance(Duration::from_secs(1));
        for _ in 0..2 {
            let asked = come(&bench, "sid=alice", &bench.bot.id, &uri).await;
            assert_eq!(asked.status, StatusCode::OK, "{wish:?}: {}", asked.text);
        }
        // The next request wants another one, and somebody else's sign-in is not alice's.
        let uri = pushed_uri(&bench, &[wish]).await;
        assert_eq!(come(&bench, "sid=alice", &bench.bot.id, &uri).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(come(&bench, "sid=bob", &bench.bot.id, &uri).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn nobody_is_sent_to_sign_in_twice_for_being_slow() {
    let bench = Bench::new().await;
    let sign_in = || bench.doorman.sign_in("sid=alice", bench.alice.id, bench.clock.now());
    bench.clock.advance(Duration::from_secs(100));
    let uri = pushed_uri(&bench, &[("max_age", "1")]).await;
    assert_eq!(come(&bench, "sid=alice", &bench.bot.id, &uri).await.status, StatusCode::UNAUTHORIZED);
    bench.clock.advance(Duration::from_secs(5));
    sign_in();
    bench.clock.advance(Duration::from_secs(5));
    let asked = come(&bench, "sid=alice", &bench.bot.id, &uri).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    // The same for a request that was not pushed.
    let refused = bench.ask("sid=alice", &[("max_age", "1")]).await;
    assert_eq!(refused.error(), "login_required");
    bench.clock.advance(Duration::from_secs(5));
    sign_in();
    bench.clock.advance(Duration::from_secs(5));
    let resume = refused.json()["resume"].as_str().unwrap().to_owned();
    let headers = [("cookie", "sid=alice"), ("accept", "application/json")];
    assert_eq!(bench.send("GET", &resume, &headers, "").await.status, StatusCode::OK);
    // A sign-in that is new enough is not asked for again, and `prompt=none` is never sent to one.
    let uri = pushed_uri(&bench, &[("max_age", "60")]).await;
    assert_eq!(come(&bench, "sid=alice", &bench.bot.id, &uri).await.status, StatusCode::OK);
    bench.clock.advance(Duration::from_secs(61));
    let silent = pushed_uri(&bench, &[("max_age", "60"), ("prompt", "none")]).await;
    let told = come(&bench, "sid=alice", &bench.bot.id, &silent).await;
    assert_eq!((told.status, told.sent("error")), (StatusCode::SEE_OTHER, Some("login_required".to_owned())));
}
