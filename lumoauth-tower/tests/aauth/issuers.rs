//! Whose tokens a resource takes.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use lumoauth_core::{
    aauth::{PublishedIssuer, ResourceServer},
    fetch::{Fetch, FetchError, FetchRequest, NoFetch},
    foreign_keys::ForeignKeys,
    id::AgentId,
    keys::KeyPurpose,
};
use serde_json::{Value, json};

use crate::setting::{AGENT, ISSUER, RESOURCE, Setting, TOKEN_ID, key_set, signer};

#[tokio::test]
async fn tokens_of_another_issuer_are_taken_where_it_is_trusted() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let other =
        PublishedIssuer::new("https://other.example", Arc::new(ForeignKeys::new(Arc::new(NoFetch)))).unwrap();
    let ours = Arc::new(setting.server.auth_tokens_of(&setting.org).unwrap());
    let resource =
        |issuer| ResourceServer::new(RESOURCE.parse().unwrap(), issuer, setting.stores.replay.clone());
    let (other, call) = (Arc::new(other), setting.get(&token).await);
    let answer = call.clone().to(&setting.layer_of(resource(other.clone()))).await;
    assert_eq!(answer.json()["details"]["reason"], "invalid_token");
    call.to(&setting.layer_of(resource(other).with_issuer(ours))).await.served();
}

/// What an issuer publishes, and how often it was read.
#[derive(Debug, Default)]
struct Published(std::sync::Mutex<(Vec<u8>, usize)>);

#[async_trait::async_trait]
impl Fetch for Published {
    async fn fetch(&self, request: FetchRequest) -> Result<Vec<u8>, FetchError> {
        assert!(request.url.as_str().ends_with("/aauth/jwks.json"));
        let mut published = self.0.lock().unwrap();
        published.1 += 1;
        Ok(published.0.clone())
    }
}

/// The resource with an issuer of which it knows the published keys alone: those of the real one, here under `name`.
async fn published(setting: &Setting, name: &str) -> (ResourceServer, Arc<Published>) {
    let keys = json!({ "keys": setting.server.aauth_jwks(&setting.org).await.unwrap() }).to_string();
    let published = Arc::new(Published::default());
    published.0.lock().unwrap().0 = keys.into_bytes();
    let issuer = PublishedIssuer::new(name, Arc::new(ForeignKeys::new(published.clone()))).unwrap();
    let replay = setting.stores.replay.clone();
    (ResourceServer::new(RESOURCE.parse().unwrap(), Arc::new(issuer), replay), published)
}

#[tokio::test]
async fn tokens_of_an_issuer_elsewhere_stand_and_fall_with_the_keys_that_it_publishes() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let (resource, published) = published(&setting, ISSUER).await;
    let layer = setting.layer_of(resource);
    for _ in 0..3 {
        setting.get(&token).await.to(&layer).await.served();
    }
    assert_eq!(published.0.lock().unwrap().1, 1);
    // What was revoked is not seen here.
    let revoked = json!({ "token": TOKEN_ID });
    assert_eq!(setting.ask("aauth/token/revoke", &revoked).await.0, StatusCode::OK);
    setting.get(&token).await.to(&layer).await.served();
    // Another key under the name of the one that signed, then none at all.
    let kid = token_kid(&token);
    for keys in [key_set(&signer(9, &kid)).keys, Vec::new()] {
        published.0.lock().unwrap().0 = json!({ "keys": keys }).to_string().into_bytes();
        setting.clock.advance(Duration::from_secs(301));
        setting.get(&token).await.to(&layer).await.unauthenticated("invalid_token");
    }
}

#[tokio::test]
async fn what_a_token_says_is_what_handlers_see() {
    let setting = Setting::new().await;
    let (first, last) = ("https://first.acme.test", AGENT);
    let layer = setting.layer_of(published(&setting, ISSUER).await.0);
    let mut claims = setting.claims("read:files").await;
    let own = claims["lin"]["a"][0].clone();
    let other = json!([AgentId::generate(), 0]);
    claims["sub"] = "alice".into();
    claims["agent_delegate"] = "worker-7".into();
    // The same chain in both orders of `act`: whoever calls is the last one.
    for (order, act) in [
        (
            "first_outermost",
            json!({ "sub": first, "agent": first, "act": { "sub": last, "agent": last, "agent_delegate": "worker-7" } }),
        ),
        (
            "rfc8693",
            json!({ "sub": last, "agent": last, "agent_delegate": "worker-7", "act": { "sub": first, "agent": first } }),
        ),
    ] {
        claims["act"] = act;
        claims["lin"]["a"] = json!([other, own]);
        claims["lin"]["n"] = order.into();
        let token = setting.issued("auth+jwt", KeyPurpose::AAuth, &claims).await;
        let answer = setting.get(&token).await.to(&layer).await;
        answer.served();
        let seen = answer.json();
        assert_eq!(seen["chain"], json!([[first, null], [last, "worker-7"]]), "{order}");
        assert_eq!((&seen["agent"], &seen["delegate"]), (&json!(last), &json!("worker-7")), "{order}");
        assert_eq!(seen["user"], "alice", "{order}");
        // A chain that ends with somebody else than the caller says two things.
        claims["lin"]["n"] = if order == "rfc8693" { "first_outermost" } else { "rfc8693" }.into();
        let token = setting.issued("auth+jwt", KeyPurpose::AAuth, &claims).await;
        setting.get(&token).await.to(&layer).await.unauthenticated("invalid_token");
    }
}

#[tokio::test]
async fn an_issuer_speaks_for_no_organization_but_its_own() {
    let setting = Setting::new().await;
    let claims = setting.claims("read:files").await;
    for (issuer, organization, is_own) in [
        ("https://other.example/orgs/acme/api/v1", "acme", true),
        ("https://other.example/orgs/globex/api/v1", "acme", false),
        ("https://other.example/orgs/not-acme/api/v1", "acme", false),
        ("https://other.example/acme/api/v1", "acme", false),
        ("https://other.example/orgs/acme", "acme", false),
    ] {
        let mut claims = claims.clone();
        (claims["iss"], claims["organization"]) = (json!(issuer), json!(organization));
        let token = setting.issued("auth+jwt", KeyPurpose::AAuth, &claims).await;
        let (resource, _) = published(&setting, issuer).await;
        let answer = setting.get(&token).await.to(&setting.layer_of(resource)).await;
        assert_eq!(answer.status == StatusCode::OK, is_own, "{issuer}: {}", answer.text);
    }
}

fn token_kid(token: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}
