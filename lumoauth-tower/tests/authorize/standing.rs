//! What a code or refresh token is worth when its client is no longer what it was.

use http::StatusCode;
use lumoauth_core::{
    agent::Agent,
    audit::{Actor, Event, EventKind},
    clock::Clock,
    id::{ClientId, Slug},
    store::AgentKey,
};

use crate::bench::{Bench, CHALLENGE, RESOURCE, VERIFIER, capabilities};

#[tokio::test]
async fn a_capability_that_was_withdrawn_is_in_no_token_of_an_older_code() {
    let bench = Bench::new().await;
    let scope = ("scope", "openid read:files write:files");
    let code = bench.code(&[scope, ("access_type", "offline")]).await;
    let bound = bench.code(&[scope, ("resource", RESOURCE)]).await;
    bench.change_bot(|bot| bot.capabilities = capabilities("read:*")).await;
    let tokens = bench.redeem(&code, &[]).await.json();
    assert_eq!(tokens["scope"], "read:files openid");
    assert_eq!(crate::bench::payload(tokens["access_token"].as_str().unwrap())["scope"], tokens["scope"]);
    assert!(tokens["id_token"].is_string());
    assert_eq!(bench.redeem(&bound, &[]).await.json()["scope"], "read:files openid");
    let next = bench.refresh(tokens["refresh_token"].as_str().unwrap(), &[]).await.json();
    assert_eq!(next["scope"], "read:files openid");
}

#[tokio::test]
async fn an_agent_that_was_registered_again_gets_nothing_of_the_old_one() {
    let bench = Bench::new().await;
    let code = bench.code(&[]).await;
    let refresh = bench.tokens().await["refresh_token"].as_str().unwrap().to_owned();
    let on = |kind| Event::new(kind, Actor::system(), "changed", bench.clock.now());
    let client = ClientId::parse(&bench.bot.id).unwrap();
    let agents = &bench.stores.agents;
    let old = agents.find(&bench.org, AgentKey::ClientId(&client)).await.unwrap().unwrap();
    let _ = agents.remove(&bench.org, old.id, old.version, &on(EventKind::AgentRevoked)).await.unwrap();
    // In everything but its identity it is the same.
    let mut new = Agent::new("Invoice Bot", Slug::parse("again").unwrap(), bench.clock.now());
    new.client_id = client;
    new.capabilities.clone_from(&old.capabilities);
    new.redirect_uris.clone_from(&old.redirect_uris);
    new.epoch = old.epoch;
    let secret = new.rotate_secret(bench.clock.now());
    new.epoch = old.epoch;
    let _ = agents.insert(&bench.org, &new, &on(EventKind::AgentCreated)).await.unwrap();
    let own = [("client_secret", secret.expose())];
    assert_eq!(bench.redeem(&code, &own).await.error(), "invalid_grant");
    assert_eq!(bench.refresh(&refresh, &own).await.error(), "invalid_grant");
    let grant =
        [("grant_type", "client_credentials"), ("client_id", &*bench.bot.id), ("client_secret", own[0].1)];
    assert_eq!(bench.token(&grant).await.status, StatusCode::OK, "it is itself");
}

#[tokio::test]
async fn the_log_says_that_a_public_client_has_proven_nothing() {
    let bench = Bench::new().await;
    let client = [("client_id", &*bench.public), ("redirect_uri", "https://spa.example/cb")];
    let pkce = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256"), ("scope", "read:files")];
    let code = bench.code(&[&client[..], &pkce].concat()).await;
    let answer = [&client[..], &[("client_secret", ""), ("code_verifier", VERIFIER)]].concat();
    assert_eq!(bench.redeem(&code, &answer).await.status, StatusCode::OK);
    let rows = bench.log("client.authenticated").await;
    let methods: Vec<_> = rows.iter().filter_map(|row| row.auth_method.as_deref()).collect();
    assert_eq!(methods, ["none"]);
    let _ = bench.redeem(&bench.code(&[]).await, &[]).await;
    let rows = bench.log("agent.authenticated").await;
    let methods: Vec<_> = rows.iter().filter_map(|row| row.auth_method.as_deref()).collect();
    assert_eq!(methods, ["authorization_code"]);
}
