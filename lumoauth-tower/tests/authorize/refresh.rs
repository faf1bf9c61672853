//! Refresh tokens.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::json;

use crate::bench::{BASE, Bench, CHALLENGE, VERIFIER, form, payload};

#[tokio::test]
async fn each_refresh_token_works_once() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let first = tokens["refresh_token"].as_str().unwrap();
    let answer = bench.refresh(first, &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let next = answer.json();
    assert_ne!(next["refresh_token"], tokens["refresh_token"]);
    assert_eq!((&next["scope"], &next["expires_in"]), (&tokens["scope"], &json!(3600)));
    let id = payload(next["id_token"].as_str().unwrap());
    assert!(
        !bench.is_active(&tokens["refresh_token"]).await && bench.is_active(&next["refresh_token"]).await
    );
    assert!(id.get("nonce").is_none());
    assert_eq!(id["auth_time"], 1_790_000_000);

    // A retry of the client that has proven who it is, a moment later: refused, and the family lives.
    assert_eq!(bench.refresh(first, &[]).await.error(), "invalid_grant");
    assert!(bench.is_active(&next["access_token"]).await);
    // Ten seconds later it is somebody who stole it.
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.refresh(first, &[("scope", "read:other")]).await.error(), "invalid_grant");
    for token in [&tokens["access_token"], &next["access_token"], &next["refresh_token"]] {
        assert!(!bench.is_active(token).await);
    }
    assert_eq!(bench.refresh(next["refresh_token"].as_str().unwrap(), &[]).await.error(), "invalid_grant");
    assert_eq!((bench.events("token.refreshed").await, bench.events("token.reused").await), (1, 1));
}

#[tokio::test]
async fn a_repeat_after_the_successor_was_used_ends_the_family() {
    let bench = Bench::new().await;
    let first = bench.tokens().await["refresh_token"].as_str().unwrap().to_owned();
    let second = bench.refresh(&first, &[]).await.json();
    let third = bench.refresh(second["refresh_token"].as_str().unwrap(), &[]).await.json();
    assert_eq!(bench.refresh(&first, &[]).await.error(), "invalid_grant");
    assert!(!bench.is_active(&third["access_token"]).await);
}

#[tokio::test]
async fn another_client_with_an_old_token_stole_it() {
    let bench = Bench::new().await;
    let first = bench.tokens().await["refresh_token"].as_str().unwrap().to_owned();
    let other = [("client_id", &*bench.other_bot.id), ("client_secret", &bench.other_bot.secret)];
    assert_eq!(bench.refresh(&first, &other).await.error(), "invalid_grant");
    let next = bench.refresh(&first, &[]).await;
    assert_eq!(next.status, StatusCode::OK, "a current token of another client is only refused");
    let next = next.json();
    assert_eq!(bench.refresh(&first, &other).await.error(), "invalid_grant");
    assert!(!bench.is_active(&next["access_token"]).await);
}

#[tokio::test]
async fn nobody_forgives_a_public_client() {
    let bench = Bench::new().await;
    let pkce = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256"), ("scope", "read:files")];
    let client = [("client_id", &*bench.public), ("redirect_uri", "https://spa.example/cb")];
    let code = bench.code(&[&pkce[..], &client].concat()).await;
    let own = [("client_id", &*bench.public), ("client_secret", "")];
    let redeemed = [&client[..], &[("client_secret", ""), ("code_verifier", VERIFIER)]].concat();
    let tokens = bench.redeem(&code, &redeemed).await.json();
    let first = tokens["refresh_token"].as_str().unwrap();
    let next = bench.refresh(first, &own).await.json();
    assert_eq!(bench.refresh(first, &own).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(next["refresh_token"].as_str().unwrap(), &own).await.error(), "invalid_grant");
}

#[tokio::test]
async fn scope_only_narrows_and_only_for_the_access_token() {
    let bench = Bench::new().await;
    let code = bench.code(&[("scope", "read:files write:files"), ("access_type", "offline")]).await;
    let tokens = bench.redeem(&code, &[]).await.json();
    let first = tokens["refresh_token"].as_str().unwrap();
    for wide in ["read:other", "read:files tool:search", "openid", "*"] {
        assert_eq!(bench.refresh(first, &[("scope", wide)]).await.error(), "invalid_scope", "{wide}");
    }
    let narrow = bench.refresh(first, &[("scope", "read:files")]).await.json();
    assert_eq!(narrow["scope"], "read:files");
    let wide = bench.refresh(narrow["refresh_token"].as_str().unwrap(), &[]).await.json();
    assert_eq!(wide["scope"], "read:files write:files");
}

#[tokio::test]
async fn a_refresh_token_is_its_clients_alone_and_lives_thirty_days() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let token = tokens["refresh_token"].as_str().unwrap();
    let other = [("client_id", &*bench.other_bot.id), ("client_secret", &bench.other_bot.secret)];
    assert_eq!(bench.refresh(token, &other).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(token, &[("client_secret", "")]).await.error(), "invalid_client");
    assert_eq!(bench.refresh("", &[]).await.error(), "invalid_request");
    for bad in ["rt_unknown", "x", &"r".repeat(4000), tokens["access_token"].as_str().unwrap()] {
        assert_eq!(bench.refresh(bad, &[]).await.error(), "invalid_grant");
    }
    bench.clock.advance(Duration::from_secs(30 * 86_400 - 1));
    let next = bench.refresh(token, &[]).await;
    assert_eq!(next.status, StatusCode::OK);
    bench.clock.advance(Duration::from_secs(30 * 86_400));
    let next = next.json();
    assert_eq!(bench.refresh(next["refresh_token"].as_str().unwrap(), &[]).await.error(), "invalid_grant");
}

#[tokio::test]
async fn revoking_a_refresh_token_ends_its_family() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let token = tokens["refresh_token"].as_str().unwrap();
    let seen = bench.introspect(token).await;
    assert_eq!((&seen["active"], &seen["token_type"]), (&json!(true), &json!("refresh_token")));
    assert_eq!((&seen["username"], &seen["client_id"]), (&json!("alice@acme.test"), &json!(bench.bot.id)));
    let revoke = async |client: &crate::bench::Credentials| {
        let pairs = [("client_id", &*client.id), ("client_secret", &client.secret), ("token", token)];
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        bench.send("POST", &format!("{BASE}/oauth/revoke"), &headers, &form(&pairs)).await.status
    };
    assert_eq!(revoke(&bench.other_bot).await, StatusCode::OK);
    assert!(bench.is_active(&tokens["access_token"]).await, "a client revokes only its own");
    assert_eq!(bench.events("token.revoked").await, 0);
    for _ in 0..2 {
        assert_eq!(revoke(&bench.bot).await, StatusCode::OK);
    }
    assert_eq!(bench.events("token.revoked").await, 1);
    assert!(
        !bench.is_active(&tokens["access_token"]).await && !bench.is_active(&tokens["refresh_token"]).await
    );
    assert_eq!(bench.refresh(token, &[]).await.error(), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_attempts_at_one_refresh_token_one_wins_and_lives() {
    let bench = Arc::new(Bench::new().await);
    let mut token = bench.tokens().await["refresh_token"].as_str().unwrap().to_owned();
    for _ in 0..10 {
        let attempts: Vec<_> = (0..64)
            .map(|_| {
                let (bench, token) = (bench.clone(), token.clone());
                tokio::spawn(async move { bench.refresh(&token, &[]).await })
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
        assert!(bench.is_active(&won[0]["access_token"]).await);
        token = won[0]["refresh_token"].as_str().unwrap().to_owned();
    }
}
