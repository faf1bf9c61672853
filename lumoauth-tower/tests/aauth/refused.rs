//! Requests that must not be served, and what they are answered.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use lumoauth_core::{
    aauth::{Confirmation, PublishedIssuer, ResourceServer},
    agent::AgentStatus,
    clock::Clock,
    fetch::NoFetch,
    foreign_keys::ForeignKeys,
    httpsig::{Profile, SignWith},
    keys::{KeyPurpose, Signer},
};
use lumoauth_tower::{AuthenticateLayer, Rejection, RejectionReason};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use crate::setting::{AGENT, Call, ISSUER, NOW, RESOURCE, Setting, TOKEN_ID, echo, signer};

#[tokio::test]
async fn tokens_that_are_none_for_this_resource_are_refused() {
    let setting = Setting::new().await;
    let layer = setting.layer();
    let claims = setting.claims("read:files").await;
    let of_type = async |typ: &str| setting.issued(typ, KeyPurpose::AAuth, &claims).await;
    let good = setting.token("read:files").await;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut tokens = vec![
        setting.token_with("aud", json!("https://mail.acme.test")).await,
        setting.token_with("aud", json!(format!("{RESOURCE}/"))).await,
        setting.token_with("aud", json!([RESOURCE])).await,
        setting.token_with("iss", json!("https://auth.example/orgs/globex/api/v1")).await,
        setting.token_with("iss", json!(format!("{ISSUER}/"))).await,
        setting.token_with("exp", json!(NOW)).await,
        setting.token_with("exp", json!("never")).await,
        setting.token_with("exp", json!(NOW + 3661)).await,
        setting.token_with("iat", json!(NOW + 61)).await,
        setting.token_with("cnf", json!({})).await,
        setting.token_with("cnf", json!({ "jkt": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" })).await,
        setting.token_with("organization", json!("globex")).await,
        setting.token_with("lin", json!({ "o": 0, "a": [], "r": [] })).await,
        // Of another sort: its own agent token, a resource token, an access token.
        setting.agent_token().await,
        of_type("agent+jwt").await,
        of_type("resource+jwt").await,
        of_type("at+jwt").await,
        of_type("JWT").await,
        setting.issued("at+jwt", KeyPurpose::AccessToken, &claims).await,
        // Signed by somebody else, under the name of the issuer's key, or under another.
        crate::setting::jwt(&*setting.agent, "auth+jwt", &claims).await,
        format!("{signed}.{}", signature.chars().rev().collect::<String>()),
        signed.to_owned(),
        format!("{good}.x"),
        "a".repeat(20_000),
        "x".to_owned(),
    ];
    for name in
        ["iss", "aud", "agent", "scope", "cnf", "auth_level", "organization", "iat", "exp", "jti", "lin"]
    {
        tokens.push(setting.token_with(name, Value::Null).await);
    }
    for (n, token) in tokens.iter().enumerate() {
        let answer = setting.get(token).await.to(&layer).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{n}");
        answer.unauthenticated("invalid_token");
        assert!(token.len() < 20 || !answer.text.contains(&**token), "{n}");
    }
    setting.get(&good).await.to(&layer).await.served();
}

#[tokio::test]
async fn a_token_holds_until_its_last_second_and_not_one_longer() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    setting.get(&token).await.to(&layer).await.served();
    setting.clock.advance(Duration::from_secs(3599));
    setting.get(&token).await.to(&layer).await.served();
    setting.clock.advance(Duration::from_secs(1));
    setting.get(&token).await.to(&layer).await.unauthenticated("invalid_token");
}

/// `Agent-Auth: sig1=...` of the documentation covers neither the token nor the content nor the time: whoever sees one could
/// send it again with others. Nothing switches it on.
#[tokio::test]
async fn the_form_of_the_docs_pages_is_no_signature() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let layers = [setting.layer(), setting.layer().scope("read:files".parse().unwrap())];
    for (method, body) in [(Method::GET, ""), (Method::POST, "{}")] {
        let base = format!(
            "\"@method\": {method}\n\"@target-uri\": {RESOURCE}/files/a\n\"content-type\": application/json"
        );
        let signature = STANDARD.encode(setting.agent.sign(base.as_bytes()).await.unwrap());
        let value = format!(
            "sig1=:{signature}:; label=\"sig1\"; alg=\"ed25519\"; keyid=\"{AGENT}#agent-1\"; created={NOW}; \
             covered=\"@method @target-uri content-type\""
        );
        // With the auth token, with none, and with an agent token beside it.
        let named = format!("agent_token={}", setting.agent_token().await);
        for (bearer, fields) in
            [(Some(&*token), vec![&value]), (None, vec![&value]), (Some(&*token), vec![&value, &named])]
        {
            for layer in &layers {
                let mut call = setting.call(method.clone(), "/files/a", body, bearer);
                for field in &fields {
                    call.headers.append("agent-auth", HeaderValue::try_from(*field).unwrap());
                }
                let answer = call.to(layer).await;
                answer.unauthenticated("invalid_signature");
                assert_eq!(answer.parameter("resource_token"), None);
                let said = answer.json()["error_description"].to_string();
                assert!(fields.len() > 1 || said.contains("Signature-Input"), "{said}");
            }
        }
        // Beside a good signature it says nothing.
        let mut call = setting.call(method.clone(), "/files/a", body, Some(&token));
        call.headers.insert("agent-auth", HeaderValue::try_from(&value).unwrap());
        call.signed(&setting).await.to(&layers[0]).await.served();
    }
}

#[tokio::test]
async fn a_token_without_a_signature_is_never_a_bearer_token() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    setting
        .call(Method::GET, "/files/a", "", Some(&token))
        .to(&layer)
        .await
        .unauthenticated("invalid_signature");
    for name in ["signature", "signature-input"] {
        let mut call = setting.get(&token).await;
        call.headers.remove(name);
        call.to(&layer).await.unauthenticated("invalid_signature");
    }
    // Not at the doors of the ordinary layers either.
    let bearer = setting.call(Method::GET, "/files/a", "", Some(&token)).request();
    let own = AuthenticateLayer::new(setting.server.clone());
    let bound = own.clone().for_resource(RESOURCE);
    for layer in [own, bound] {
        let route = tower::service_fn(
            async |_: http::Request<_>| -> Result<
                http::Response<http_body_util::Full<bytes::Bytes>>,
                std::convert::Infallible,
            > { panic!("reached") },
        );
        let answer = layer.layer(route).oneshot(bearer.clone()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn another_key_than_the_one_in_the_token_is_refused() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    for other in [signer(9, "agent-1"), setting.key.clone()] {
        for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
            let call = setting.call(Method::GET, "/files/a", "", Some(&token));
            let answer = call.signed_by(&*other, &profile, &setting).await.to(&layer).await;
            answer.unauthenticated("key_binding_failed");
        }
    }
    // A token that says its own key, with an agent token of it: the key binds no token of the issuer.
    let thief = signer(9, "thief");
    let cnf = Confirmation::of(thief.public_key().unwrap()).to_claim();
    let claims = json!({ "iss": AGENT, "sub": AGENT, "iat": NOW, "exp": NOW + 600, "cnf": cnf });
    let agent_token = crate::setting::jwt(&*thief, "agent+jwt", &claims).await;
    let mut call = setting.call(Method::GET, "/files/a", "", Some(&token));
    call.headers.insert("agent-auth", format!("agent_token={agent_token}").parse().unwrap());
    let answer = call.signed_by(&*thief, &Profile::LUMO_SDK, &setting).await.to(&layer).await;
    answer.unauthenticated("key_binding_failed");
    assert_eq!(answer.parameter("resource_token"), None);
    // Nor does an agent token count that another key signs for.
    let mut call = setting.call(Method::GET, "/files/a", "", None);
    call.headers
        .insert("agent-auth", format!("agent_token={}", setting.agent_token().await).parse().unwrap());
    let answer = call.signed_by(&*thief, &Profile::LUMO_SDK, &setting).await.to(&layer).await;
    answer.unauthenticated("key_binding_failed");
    assert_eq!(answer.parameter("resource_token"), None);
}

#[tokio::test]
async fn the_token_must_be_covered_by_the_signature() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    // The token comes after the signature: under one profile it is not covered, under the other it is signed as absent.
    for (profile, reason) in
        [(Profile::LUMO_RFC, "invalid_signature"), (Profile::LUMO_SDK, "key_binding_failed")]
    {
        let call = setting.call(Method::GET, "/files/a", "", None);
        let mut call = call.signed_by(&*setting.agent, &profile, &setting).await;
        call.headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        call.to(&layer).await.unauthenticated(reason);
    }
    // Another token of the same agent in its place.
    let mut call = setting.get(&token).await;
    let other = setting.token("read:files write:files").await;
    call.headers.insert(header::AUTHORIZATION, format!("Bearer {other}").parse().unwrap());
    call.to(&layer).await.unauthenticated("key_binding_failed");
}

#[tokio::test]
async fn fields_that_stand_there_twice_are_refused() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    for name in [
        "authorization",
        "agent-auth",
        "signature",
        "signature-input",
        "content-digest",
        "content-type",
        "host",
    ] {
        let mut call = setting.call(Method::GET, "/files/a", "", Some(&token));
        call.headers.insert("agent-auth", HeaderValue::from_static("httpsig"));
        let mut call = call.signed(&setting).await;
        let value = call.headers[name].clone();
        call.headers.append(name, value);
        call.to(&layer).await.unauthenticated("invalid_signature");
    }
}

#[tokio::test]
async fn what_was_signed_is_what_is_served() {
    type Change = (&'static str, fn(&mut Call));
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    let changes: [Change; 6] = [
        ("key_binding_failed", |call| call.method = Method::DELETE),
        ("key_binding_failed", |call| call.target = "/files/b".to_owned()),
        ("key_binding_failed", |call| call.target = "/files/%61".to_owned()),
        ("key_binding_failed", |call| call.target = "//files/a".to_owned()),
        ("invalid_signature", |call| {
            call.headers.insert(header::HOST, HeaderValue::from_static("mail.acme.test"));
        }),
        ("key_binding_failed", |call| {
            call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }),
    ];
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        for (reason, change) in &changes {
            let call = setting.call(Method::POST, "/files/a", "{}", Some(&token));
            let mut call = call.signed_by(&*setting.agent, &profile, &setting).await;
            call.clone().to(&layer).await.served();
            // Signed anew, so that it is no replay.
            call = setting.call(Method::POST, "/files/a", "{}", Some(&token));
            call = call.signed_by(&*setting.agent, &profile, &setting).await;
            change(&mut call);
            call.to(&layer).await.unauthenticated(reason);
        }
    }
    // Served elsewhere, it is another service's.
    let mut call = setting.call(Method::GET, "/files/a", "", Some(&token));
    call.headers.insert(header::HOST, HeaderValue::from_static("evil.test"));
    call.signed(&setting).await.to(&layer).await.unauthenticated("invalid_signature");
}

#[tokio::test]
async fn a_request_is_served_once() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    let call = setting.get(&token).await;
    call.clone().to(&layer).await.served();
    call.clone().to(&layer).await.unauthenticated("invalid_signature");
    // At another route or replica of the service neither: they share what was used.
    call.to(&setting.layer().scope("read:files".parse().unwrap())).await.unauthenticated("invalid_signature");
    // Of many at once one is served.
    let call = setting.get(&token).await;
    let (route, reached) = echo();
    let service = layer.layer(route);
    let answers = (0..16).map(|_| service.clone().oneshot(call.clone().request()));
    let answers = futures_util::future::join_all(answers).await;
    assert_eq!(answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 200).count(), 1);
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), 1);
    // What only gets a challenge is good for nothing else, and its copies are good for the same key alone.
    let mut call = setting.call(Method::GET, "/files/a", "", None);
    call.headers
        .insert("agent-auth", format!("agent_token={}", setting.agent_token().await).parse().unwrap());
    let call = call.signed(&setting).await;
    for _ in 0..2 {
        let answer = call.clone().to(&layer).await;
        answer.unauthenticated("auth_token_required");
        assert!(answer.parameter("resource_token").is_some());
    }
}

#[tokio::test]
async fn a_forged_copy_does_not_use_up_the_nonce() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    let call = setting.post(&token, "{\"a\":1}").await;
    let forged = signer(9, "x");
    let nonce = "AAECAwQFBgcICQoLDA0ODw";
    let with = || SignWith::now(setting.clock.now()).nonce(nonce);
    let unsigned = setting.call(Method::GET, "/files/a", "", Some(&token));
    unsigned
        .clone()
        .signed_with(&*forged, &Profile::LUMO_SDK, with())
        .await
        .to(&layer)
        .await
        .unauthenticated("key_binding_failed");
    unsigned.signed_with(&*setting.agent, &Profile::LUMO_SDK, with()).await.to(&layer).await.served();
    // Nor does one with other content.
    let mut other = call.clone();
    other.body = "{\"a\":2}".to_owned();
    other.to(&layer).await.unauthenticated("invalid_signature");
    call.to(&layer).await.served();
}

#[tokio::test]
async fn signatures_of_another_time_are_refused() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    for (created, good) in [(NOW - 60, true), (NOW + 60, true), (NOW - 61, false), (NOW + 61, false)] {
        let with = SignWith::now(lumoauth_core::clock::Timestamp::from_unix_seconds(created));
        let call = setting.call(Method::GET, "/files/a", "", Some(&token));
        let answer = call.signed_with(&*setting.agent, &Profile::LUMO_SDK, with).await.to(&layer).await;
        if good { answer.served() } else { answer.unauthenticated("invalid_signature") }
    }
}

#[tokio::test]
async fn what_the_token_stands_on_ends_it_at_once_in_the_process_of_the_issuer() {
    let setting = Setting::new().await;
    let (layer, token) = (setting.layer(), setting.token("read:files").await);
    setting.get(&token).await.to(&layer).await.served();
    let revoked = json!({ "token": TOKEN_ID });
    assert_eq!(setting.ask("aauth/token/revoke", &revoked).await.0, StatusCode::OK);
    setting.get(&token).await.to(&layer).await.unauthenticated("invalid_token");

    let token = setting.token_with("jti", json!("0b6e1a3a-7c0f-4f39-8a6e-2d0c3b4a5d6e")).await;
    setting.get(&token).await.to(&layer).await.served();
    setting.change(|agent| (agent.status, agent.epoch) = (AgentStatus::Suspended, agent.epoch + 1)).await;
    setting.get(&token).await.to(&layer).await.unauthenticated("invalid_token");
}

#[tokio::test]
async fn scopes_are_compared_and_credentials_of_other_schemes_are_none() {
    let setting = Setting::new().await;
    let layer = setting.layer().scope("read:files write:files".parse().unwrap());
    for scope in ["", "read:files", "read:file", "write:files.x read:files", "READ:FILES write:files"] {
        let answer = setting.get(&setting.token(scope).await).await.to(&layer).await;
        answer.forbidden("insufficient_scope");
        assert!(answer.parameter("resource_token").is_some());
    }
    setting.get(&setting.token("x write:files read:files").await).await.to(&layer).await.served();
    let token = setting.token("read:files").await;
    for (scheme, good) in [("bearer", true), ("GNAP", true), ("DPoP", false), ("Basic", false), ("", false)] {
        let mut call = setting.call(Method::GET, "/files/a", "", None);
        call.headers.insert(header::AUTHORIZATION, format!("{scheme} {token}").parse().unwrap());
        let answer = call.signed(&setting).await.to(&setting.layer()).await;
        if good { answer.served() } else { answer.unauthenticated("auth_token_required") }
    }
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_an_outage_and_nobody_passes() {
    let setting = Setting::new().await;
    let token = setting.token("read:files").await;
    let issuer = PublishedIssuer::new(ISSUER, Arc::new(ForeignKeys::new(Arc::new(NoFetch)))).unwrap();
    let resource =
        ResourceServer::new(RESOURCE.parse().unwrap(), Arc::new(issuer), setting.stores.replay.clone());
    let (route, reached) = echo();
    let service = setting.layer_of(resource).layer(route);
    let answer = service.oneshot(setting.get(&token).await.request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.extensions().get::<Rejection>().unwrap().reason, RejectionReason::Unavailable);
    assert!(answer.headers().get("agent-auth").is_none());
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), 0);
}
