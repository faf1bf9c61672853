//! Redeeming codes.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use lumoauth_core::{
    audit::{Actor, Event, EventKind},
    clock::Clock,
};
use serde_json::json;

use crate::bench::{Bench, CHALLENGE, ISSUER, RESOURCE, VERIFIER, payload};

const PKCE: [(&str, &str); 2] = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256")];

#[tokio::test]
async fn a_code_becomes_tokens_of_the_person() {
    let bench = Bench::new().await;
    let scope = ("scope", "openid profile email read:files");
    let code = bench.code(&[scope, ("nonce", "n"), ("access_type", "offline")]).await;
    let answer = bench.redeem(&code, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let tokens = answer.json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(tokens["scope"], "read:files openid profile email");
    assert!(tokens["refresh_token"].as_str().unwrap().starts_with("rt_"));

    let access = payload(tokens["access_token"].as_str().unwrap());
    assert_eq!(access["sub"], bench.alice.id.to_string());
    assert_eq!((&access["client_id"], &access["aud"]), (&json!(bench.bot.id), &json!(bench.bot.id)));
    assert!(access.get("agent_id").is_none() && access.get("act").is_none());
    assert_eq!((&access["auth_time"], &access["amr"]), (&json!(1_790_000_000), &json!(["pwd"])));

    let id = payload(tokens["id_token"].as_str().unwrap());
    assert_eq!((&id["iss"], &id["aud"], &id["nonce"]), (&json!(ISSUER), &json!(bench.bot.id), &json!("n")));
    assert_eq!(
        (&id["sub"], &id["name"], &id["email"]),
        (&access["sub"], &json!("Alice"), &json!("alice@acme.test"))
    );
    assert_eq!(id["at_hash"].as_str().unwrap().len(), 22);
    assert_eq!(
        bench.get("oauth/userinfo", tokens["id_token"].as_str().unwrap()).await.status,
        StatusCode::UNAUTHORIZED
    );

    let info = bench.get("oauth/userinfo", tokens["access_token"].as_str().unwrap()).await.json();
    assert_eq!((&info["sub"], &info["email"], &info["name"]), (&access["sub"], &id["email"], &id["name"]));
    let seen = bench.introspect(tokens["access_token"].as_str().unwrap()).await;
    assert_eq!((&seen["active"], &seen["username"]), (&json!(true), &json!("alice@acme.test")));
    assert_eq!(seen["scope"], "read:files openid profile email");
    assert_eq!(bench.events("agent.authenticated").await, 1);
}

#[tokio::test]
async fn less_scope_means_less_to_see() {
    let bench = Bench::new().await;
    let code = bench.code(&[("scope", "read:files")]).await;
    let tokens = bench.redeem(&code, &[]).await.json();
    assert!(tokens.get("id_token").is_none() && tokens.get("refresh_token").is_none());
    let refused = bench.get("oauth/userinfo", tokens["access_token"].as_str().unwrap()).await;
    assert_eq!((refused.status, refused.error()), (StatusCode::FORBIDDEN, "forbidden".into()));
    let code = bench.code(&[("scope", "openid")]).await;
    let tokens = bench.redeem(&code, &[]).await.json();
    let info = bench.get("oauth/userinfo", tokens["access_token"].as_str().unwrap()).await.json();
    assert!(info.get("email").is_none() && info.get("name").is_none());
}

#[tokio::test]
async fn a_code_for_a_resource_opens_that_alone() {
    let bench = Bench::new().await;
    let code = bench.code(&[("resource", RESOURCE), ("scope", "openid read:files")]).await;
    let wrong = bench.redeem(&code, &[("resource", "https://mcp.acme.test/other")]).await;
    assert_eq!(wrong.error(), "invalid_target");
    let tokens = bench.redeem(&code, &[("resource", RESOURCE)]).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(payload(access)["aud"], RESOURCE);
    assert_eq!(bench.get("oauth/userinfo", access).await.status, StatusCode::UNAUTHORIZED);
    assert!(bench.is_active(&tokens["access_token"]).await);
}

#[tokio::test]
async fn only_the_client_that_was_agreed_to_redeems_a_code() {
    let bench = Bench::new().await;
    let code = bench.code(&[]).await;
    let other = [("client_id", &*bench.other_bot.id), ("client_secret", &bench.other_bot.secret)];
    assert_eq!(bench.redeem(&code, &other).await.error(), "invalid_grant");
    let spa = [("client_id", &*bench.public), ("client_secret", "")];
    assert_eq!(bench.redeem(&code, &spa).await.error(), "invalid_grant");
    assert_eq!(bench.redeem(&code, &[("client_secret", "wrong")]).await.error(), "invalid_client");
    assert_eq!(
        bench.redeem(&code, &[("client_secret", ""), ("client_id", "")]).await.error(),
        "invalid_client"
    );
    for uri in ["", "https://bot.example/cb/", "http://127.0.0.1/cb", "https://other.example/cb"] {
        assert_eq!(bench.redeem(&code, &[("redirect_uri", uri)]).await.error(), "invalid_grant", "{uri}");
    }
    for bad in ["ac_unknown", "x", &"a".repeat(5000), "ach_x"] {
        assert_eq!(bench.redeem(bad, &[]).await.error(), "invalid_grant");
    }
    assert_eq!(bench.redeem("", &[]).await.error(), "invalid_request");
    assert_eq!(bench.redeem(&code, &[]).await.status, StatusCode::OK, "nothing of that used it up");
}

#[tokio::test]
async fn a_challenge_must_be_answered() {
    let bench = Bench::new().await;
    let code = bench.code(&PKCE).await;
    let long = "a".repeat(129);
    for bad in ["", CHALLENGE, "short", &long, &VERIFIER.replace('d', "e")] {
        assert_eq!(bench.redeem(&code, &[("code_verifier", bad)]).await.error(), "invalid_grant", "{bad}");
    }
    assert_eq!(bench.redeem(&code, &[("code_verifier", VERIFIER)]).await.status, StatusCode::OK);
    // A verifier without a challenge: somebody took the challenge away.
    let code = bench.code(&[]).await;
    assert_eq!(bench.redeem(&code, &[("code_verifier", VERIFIER)]).await.error(), "invalid_grant");
}

#[tokio::test]
async fn a_public_client_needs_nothing_but_its_verifier() {
    let bench = Bench::new().await;
    let client = [("client_id", &*bench.public), ("redirect_uri", "https://spa.example/cb")];
    let code = bench.code(&[&client[..], &PKCE, &[("scope", "read:files openid")]].concat()).await;
    let with = |verifier| [&client[..], &[("client_secret", ""), ("code_verifier", verifier)]].concat();
    assert_eq!(bench.redeem(&code, &with("")).await.error(), "invalid_grant");
    let tokens = bench.redeem(&code, &with(VERIFIER)).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
    assert!(tokens.json()["refresh_token"].is_string(), "it is registered for refresh tokens");
    // It still proves nothing where a proof is needed.
    let grant = [("grant_type", "client_credentials"), ("client_id", &*bench.public)];
    assert_eq!(bench.token(&grant).await.error(), "unauthorized_client");
}

#[tokio::test]
async fn a_code_ends_with_its_last_second() {
    let bench = Bench::new().await;
    let (early, late) = (bench.code(&[]).await, bench.code(&[]).await);
    bench.clock.advance(Duration::from_secs(299));
    assert_eq!(bench.redeem(&early, &[]).await.status, StatusCode::OK);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.redeem(&late, &[]).await.error(), "invalid_grant");
}

#[tokio::test]
async fn a_second_use_ends_what_came_of_the_first() {
    let bench = Bench::new().await;
    let code = bench.code(&[("access_type", "offline")]).await;
    let tokens = bench.redeem(&code, &[]).await.json();
    let next = bench.refresh(tokens["refresh_token"].as_str().unwrap(), &[]).await.json();
    assert!(bench.is_active(&tokens["access_token"]).await && bench.is_active(&next["access_token"]).await);
    // Another client that found the code cannot do that.
    let other = [("client_id", &*bench.other_bot.id), ("client_secret", &bench.other_bot.secret)];
    assert_eq!(bench.redeem(&code, &other).await.error(), "invalid_grant");
    assert!(bench.is_active(&tokens["access_token"]).await);
    bench.clock.advance(Duration::from_secs(1000));
    assert_eq!(bench.redeem(&code, &[]).await.error(), "invalid_grant");
    for token in [&tokens["access_token"], &next["access_token"], &next["refresh_token"]] {
        assert!(!bench.is_active(token).await);
    }
    assert_eq!(bench.refresh(next["refresh_token"].as_str().unwrap(), &[]).await.error(), "invalid_grant");
    assert_eq!(bench.events("token.reused").await, 1);
}

#[tokio::test]
async fn what_died_in_the_meantime_stays_dead() {
    let bench = Bench::new().await;
    let code = bench.code(&[("access_type", "offline")]).await;
    let tokens = bench.tokens().await;
    let event = |kind| Event::new(kind, Actor::system(), "changed", bench.clock.now());
    let mut alice = (*bench.alice).clone();
    assert!(alice.block());
    let _ = bench.stores.users.update(&bench.org, &alice, &event(EventKind::UserBlocked)).await.unwrap();
    alice.version += 1;
    let refresh = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(bench.redeem(&code, &[]).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(refresh, &[]).await.error(), "invalid_grant");
    assert!(
        !bench.is_active(&tokens["refresh_token"]).await && !bench.is_active(&tokens["access_token"]).await
    );
    assert!(alice.unblock());
    let _ = bench.stores.users.update(&bench.org, &alice, &event(EventKind::UserUnblocked)).await.unwrap();
    assert_eq!(bench.redeem(&code, &[]).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(refresh, &[]).await.error(), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_attempts_at_one_code_one_wins() {
    let bench = Arc::new(Bench::new().await);
    for _ in 0..5 {
        let code = bench.code(&[("access_type", "offline")]).await;
        let attempts: Vec<_> = (0..64)
            .map(|_| {
                let (bench, code) = (bench.clone(), code.clone());
                tokio::spawn(async move { bench.redeem(&code, &[]).await })
            })
            .collect();
        let mut won = Vec::new();
        for attempt in attempts {
            let answer = attempt.await.unwrap();
            match answer.status {
                StatusCode::OK => won.push(answer.json()),
                _ => assert_eq!(answer.error(), "invalid_grant"),
            }
        }
        assert_eq!(won.len(), 1);
        assert!(!bench.is_active(&won[0]["access_token"]).await, "somebody else has the code too");
    }
}
