//! Requests that are served, and how agents come to make them.

use http::{HeaderValue, Method, StatusCode, header};
use lumoauth_core::{
    aauth_resource::AuthLevel,
    httpsig::Profile,
    jwks::{JwkSet, PublicKeys},
};
use lumoauth_tower::{resource_document, resource_jwks};
use serde_json::{Value, json};

use crate::setting::{AGENT, Answer, ISSUER, NOW, RESOURCE, Setting, TOKEN_ID};

#[tokio::test]
async fn a_signed_request_with_its_token_is_served_under_both_profiles() {
    let setting = Setting::new().await;
    let layer = setting.layer().scope("read:files".parse().unwrap());
    let token = setting.token("read:files write:files").await;
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        for body in ["", "{\"a\":1}"] {
            let call = setting.call(Method::POST, "/files/a", body, Some(&token));
            let answer = call.signed_by(&*setting.agent, &profile, &setting).await.to(&layer).await;
            answer.served();
            let expected = json!({
                "agent": AGENT, "scope": "read:files write:files", "content_bound": true, "body": body,
                "issuer": ISSUER, "jti": TOKEN_ID, "expires_at": NOW + 3600,
                "chain": [[AGENT, null]], "delegate": null, "user": null,
                // The list of the SDK's does not say that there was no query.
                "query_covered": profile == Profile::LUMO_RFC,
            });
            assert_eq!(answer.json(), expected);
            assert_eq!(answer.challenge(), "");
        }
    }
}

#[tokio::test]
async fn an_agent_without_a_token_is_told_how_to_get_one_and_gets_it() {
    let setting = Setting::new().await;
    let layer = setting.layer().scope("read:files".parse().unwrap());
    // Nobody in particular.
    let answer = setting.call(Method::GET, "/files/a", "", None).to(&layer).await;
    answer.unauthenticated("invalid_signature");
    assert_eq!(answer.challenge(), "httpsig; auth-token");
    // An agent.
    let mut call = setting.call(Method::GET, "/files/a", "", None);
    let agent_auth = format!("agent_token={}", setting.agent_token().await);
    call.headers.insert("agent-auth", HeaderValue::try_from(&agent_auth).unwrap());
    let answer = call.signed(&setting).await.to(&layer).await;
    answer.unauthenticated("auth_token_required");
    assert_eq!(answer.parameter("auth_server"), Some(ISSUER));
    let resource_token = answer.parameter("resource_token").unwrap();
    // The authorization server.
    let request = json!({ "request_type": "auth", "resource_token": resource_token, "scope": "read:files" });
    let (status, tokens) = setting.ask("aauth/agent/token", &request).await;
    assert_eq!(status, StatusCode::OK, "{tokens}");
    // And back.
    let token = tokens["auth_token"].as_str().unwrap();
    setting.get(token).await.to(&layer).await.served();
    // What it was given is not for more.
    let answer = setting.get(token).await.to(&setting.layer().scope("write:files".parse().unwrap())).await;
    answer.forbidden("insufficient_scope");
    assert_eq!(answer.json()["scope"], "write:files");
    let wider =
        json!({ "request_type": "auth", "resource_token": answer.parameter("resource_token").unwrap() });
    let (status, tokens) = setting.ask("aauth/agent/token", &wider).await;
    assert_eq!((status, &tokens["scope"]), (StatusCode::OK, &json!("write:files")), "{tokens}");
}

#[tokio::test]
async fn a_token_that_ended_is_answered_with_a_new_challenge() {
    let setting = Setting::new().await;
    let expired = setting.token_with("exp", json!(crate::setting::NOW)).await;
    let mut call = setting.call(Method::GET, "/files/a", "", Some(&expired));
    let agent_auth = format!("agent_token={}", setting.agent_token().await);
    call.headers.insert("agent-auth", HeaderValue::try_from(&agent_auth).unwrap());
    let answer = call.signed(&setting).await.to(&setting.layer()).await;
    answer.unauthenticated("invalid_token");
    assert!(answer.parameter("resource_token").is_some());
}

#[tokio::test]
async fn without_a_key_the_challenge_has_no_token() {
    let setting = Setting::new().await;
    let issuer = std::sync::Arc::new(setting.server.auth_tokens_of(&setting.org).unwrap());
    let resource = lumoauth_core::aauth::ResourceServer::new(
        RESOURCE.parse().unwrap(),
        issuer,
        setting.stores.replay.clone(),
    );
    let layer = setting.layer_of(resource);
    let mut call = setting.call(Method::GET, "/files/a", "", None);
    let agent_auth = format!("agent_token={}", setting.agent_token().await);
    call.headers.insert("agent-auth", HeaderValue::try_from(&agent_auth).unwrap());
    let answer = call.signed(&setting).await.to(&layer).await;
    answer.unauthenticated("auth_token_required");
    assert_eq!(answer.challenge(), "httpsig; auth-token");
}

#[tokio::test]
async fn a_higher_level_is_enough_for_a_lower_one() {
    let setting = Setting::new().await;
    let levels = [AuthLevel::None, AuthLevel::Authenticated, AuthLevel::Authorized, AuthLevel::User];
    for demanded in levels {
        let layer = setting.layer().level(demanded);
        for level in levels {
            let token = setting.token_with("auth_level", json!(level)).await;
            let answer = setting.get(&token).await.to(&layer).await;
            if level >= demanded {
                answer.served();
            } else {
                answer.forbidden("insufficient_auth_level");
                assert!(answer.parameter("resource_token").is_some());
            }
        }
    }
}

#[tokio::test]
async fn the_query_is_covered_or_said_not_to_be() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let plain = setting.call(Method::GET, "/files/a", "", Some(&token)).signed(&setting).await;
    let mut added = plain.clone();
    added.target.push_str("?a=1");
    let answer = added.to(&setting.layer()).await;
    answer.served();
    assert_eq!(answer.json()["query_covered"], false);

    let strict = setting.layer().query_coverage();
    let mut added = setting.get(&token).await;
    added.target.push_str("?a=1");
    added.to(&strict).await.unauthenticated("invalid_signature");
    // Somebody may have taken one away.
    setting.get(&token).await.to(&strict).await.unauthenticated("invalid_signature");
    let call = setting.call(Method::GET, "/files/a", "", Some(&token));
    let call = call.signed_by(&*setting.agent, &Profile::LUMO_RFC, &setting).await;
    call.to(&strict).await.served();
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let call = setting.call(Method::GET, "/files/a?a=1", "", Some(&token));
        let call = call.signed_by(&*setting.agent, &profile, &setting).await;
        let mut other = call.clone();
        let answer = call.to(&strict).await;
        answer.served();
        assert_eq!(answer.json()["query_covered"], true);
        other.target = "/files/a?a=2".to_owned();
        other.to(&strict).await.unauthenticated("key_binding_failed");
    }
}

#[tokio::test]
async fn behind_a_prefix_the_path_that_was_signed_is_put_together_again() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let call = setting.call(Method::GET, "/api/files/a?x=%2F", "", Some(&token)).signed(&setting).await;
    let mut nested = call.clone();
    nested.target = "/files/a?x=%2F".to_owned();
    nested.clone().to(&setting.layer()).await.unauthenticated("key_binding_failed");
    nested.to(&setting.layer().below("/api/")).await.served();
}

#[tokio::test]
async fn other_authorities_of_the_service_are_told_to_it() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let mut call = setting.call(Method::GET, "/files/a", "", Some(&token));
    call.headers.insert(header::HOST, HeaderValue::from_static("10.0.0.7:8443"));
    let call = call.signed(&setting).await;
    call.clone().to(&setting.layer()).await.unauthenticated("invalid_signature");
    let resource = setting.resource().with_authorities(["10.0.0.7:8443"]);
    call.to(&setting.layer_of(resource)).await.served();
}

#[tokio::test]
async fn under_a_router_that_nests_it_is_served() {
    use axum::{Router, routing::get};
    use tower::ServiceExt;
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let route = get(async || "ok").layer(setting.layer().below("/api"));
    let routes = Router::new().route("/", route.clone()).route("/files/{name}", route);
    let app = Router::new().nest("/api", routes);
    // Its root is the prefix itself.
    for path in ["/api/files/a", "/api", "/api?q=1"] {
        let call = setting.call(Method::GET, path, "", Some(&token)).signed(&setting).await;
        let request = call.request_with(axum::body::Body::empty());
        let answer = Answer::of(app.clone().oneshot(request).await.unwrap()).await;
        assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "ok"), "{path}");
    }
}

#[tokio::test]
async fn what_the_resource_is_stands_where_agents_look() {
    let setting = Setting::new().await;
    let resource = setting.resource().with_scopes("read:files write:files".parse().unwrap());
    let document = Answer::of(resource_document::<axum::body::Body>(&resource)).await.json();
    assert_eq!((&document["resource"], &document["auth_server"]), (&json!(RESOURCE), &json!(ISSUER)));
    assert_eq!(document["jwks_uri"], format!("{RESOURCE}/aauth/jwks.json"));
    assert_eq!(document["supported_scopes"], json!(["read:files", "write:files"]));
    let keys = Answer::of(resource_jwks::<axum::body::Body>(&resource)).await;
    assert_eq!(document["jwks"], keys.json());
    let keys = PublicKeys::of(&JwkSet::parse(keys.text.as_bytes()).unwrap());
    assert_eq!(keys.by_kid("files-1").unwrap().thumbprint(), setting.key.public_key().unwrap().thumbprint());
    assert_eq!(Value::from(keys.len()), json!(1));
}
