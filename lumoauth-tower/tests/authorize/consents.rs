//! Seeing and taking back what was allowed.

use http::StatusCode;
use serde_json::json;

use crate::bench::{BASE, Bench, CHALLENGE, RESOURCE};

/// A token of alice in person, by an ordinary application that sees what she allowed others.
async fn in_person(bench: &Bench) -> String {
    by_app(bench, "openid consents").await
}

async fn by_app(bench: &Bench, scope: &str) -> String {
    let app = [("client_id", &*bench.app.id), ("redirect_uri", "https://portal.example/cb")];
    let code = bench.code(&[&app[..], &[("scope", scope)]].concat()).await;
    let secret = [("client_secret", &*bench.app.secret)];
    bench.redeem(&code, &[&app[..], &secret].concat()).await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn what_is_taken_back_is_dead_for_good() {
    let bench = Bench::new().await;
    let code = bench.code(&[]).await;
    let tokens = bench.tokens().await;
    let mine = in_person(&bench).await;
    let list = bench.get("me/consents", &mine).await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let path = format!("{BASE}/me/consents/{}", bench.bot.id);
    let bearer = format!("Bearer {mine}");
    for _ in 0..2 {
        let done = bench.send("DELETE", &path, &[("authorization", &bearer)], "").await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    }
    assert_eq!(bench.events("consent.revoked").await, 1);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let dead = async || {
        assert!(
            !bench.is_active(&tokens["access_token"]).await
                && !bench.is_active(&tokens["refresh_token"]).await
        );
        assert_eq!(bench.redeem(&code, &[]).await.error(), "invalid_grant");
        assert_eq!(bench.refresh(refresh, &[]).await.error(), "invalid_grant");
    };
    dead().await;
    // The person is asked again, and agreeing anew revives nothing.
    assert_eq!(bench.ask("sid=alice", &[]).await.status, StatusCode::OK);
    let anew = bench.tokens().await;
    assert!(bench.is_active(&anew["access_token"]).await);
    dead().await;

    let unknown = format!("{BASE}/me/consents/{}", bench.other_bot.id);
    let missing = bench.send("DELETE", &unknown, &[("authorization", &bearer)], "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_agent_neither_sees_nor_changes_what_it_is_allowed() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let by_agent = tokens["access_token"].as_str().unwrap();
    let refused = bench.get("me/consents", by_agent).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let path = format!("{BASE}/me/consents/{}", bench.bot.id);
    let bearer = format!("Bearer {by_agent}");
    let refused = bench.send("DELETE", &path, &[("authorization", &bearer)], "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let key = [("x-api-key", &*bench.api_key)];
    assert_eq!(
        bench.send("GET", &format!("{BASE}/me/consents"), &key, "").await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn an_application_sees_and_takes_back_the_rest_only_if_the_person_let_it() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let plain = by_app(&bench, "openid read:files").await;
    let list = bench.get("me/consents", &plain).await.json();
    assert_eq!((list["data"].as_array().unwrap().len(), &list["meta"]["total"]), (1, &1.into()));
    assert_eq!(list["data"][0]["clientId"], bench.app.id);
    let second = bench.get("me/consents?page=2", &plain).await.json();
    assert_eq!(second["data"].as_array().unwrap().len(), 0);

    let bearer = format!("Bearer {plain}");
    let withdraw = async |client: &str| {
        let path = format!("{BASE}/me/consents/{client}");
        bench.send("DELETE", &path, &[("authorization", &bearer)], "").await
    };
    // What there is of others it is not told either.
    for client in [&*bench.bot.id, &bench.other_bot.id, "nobody"] {
        let refused = withdraw(client).await;
        let told = (refused.status, refused.error());
        assert_eq!(told, (StatusCode::FORBIDDEN, "forbidden".into()), "{client}");
    }
    assert!(bench.is_active(&tokens["access_token"]).await);
    assert_eq!(bench.events("consent.revoked").await, 0);
    assert_eq!(withdraw(&bench.app.id).await.status, StatusCode::OK);
    assert_eq!(bench.get("me/consents", &plain).await.status, StatusCode::UNAUTHORIZED);

    let all = by_app(&bench, "admin").await;
    assert_eq!(bench.get("me/consents", &all).await.json()["meta"]["total"], 2);
    let spa = [("client_id", &*bench.public), ("redirect_uri", "https://spa.example/cb")];
    let pkce = [("code_challenge", CHALLENGE), ("code_challenge_method", "S256"), ("scope", "consents")];
    let refused = bench.ask("sid=alice", &[&spa[..], &pkce].concat()).await;
    assert_eq!(refused.sent("error").unwrap(), "invalid_scope", "only who is registered for it may ask");
}

#[tokio::test]
async fn a_consent_says_where_it_holds() {
    let bench = Bench::new().await;
    bench.code(&[("resource", RESOURCE), ("scope", "openid read:files")]).await;
    bench.code(&[("scope", "read:more")]).await;
    let list = bench.get("me/consents", &in_person(&bench).await).await.json();
    let seen = list["data"].as_array().unwrap().iter().find(|it| it["clientId"] == bench.bot.id).unwrap();
    assert_eq!(seen["scopes"], json!(["openid", "read:more", "read:files"]));
    assert_eq!(seen["resources"][0]["scopes"], json!(["read:files"]));
    assert!(seen["resources"][0]["serverId"].as_str().unwrap().starts_with("mcp_"));
}

#[tokio::test]
async fn administrators_see_and_take_back() {
    let bench = Bench::new().await;
    let tokens = bench.tokens().await;
    let key = [("x-api-key", &*bench.api_key)];
    let path = format!("{BASE}/admin/users/{}/consents", bench.alice.id);
    let list = bench.send("GET", &path, &key, "").await.json();
    assert_eq!(list["data"][0]["clientId"], bench.bot.id);
    assert_eq!((&list["data"][0]["active"], &list["data"][0]["clientKind"]), (&true.into(), &"agent".into()));
    let one = format!("{path}/{}", bench.bot.id);
    let bob = format!("{BASE}/admin/users/{}/consents/{}", bench.bob.id, bench.bot.id);
    assert_eq!(bench.send("DELETE", &bob, &key, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.send("DELETE", &one, &[], "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.send("DELETE", &one, &key, "").await.status, StatusCode::OK);
    assert!(!bench.is_active(&tokens["access_token"]).await);
}
