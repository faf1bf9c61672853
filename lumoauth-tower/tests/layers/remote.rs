//! Tokens that are verified on another host than the authorization server's.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use axum::{Json, Router, body::Body};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use lumoauth_core::{
    clock::Clock,
    keys::{KeyProvider, KeyPurpose},
    principal::{Identity, Principal, RemoteCaller, RemoteKind},
    secret::Secret,
    server::AuthenticateError,
};
use lumoauth_tower::{
    AuthenticateLayer, Guard, RemoteServer, RemoteServerError, RemoteTokens, ServiceAccount,
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::setting::{Answer, OTHER_RESOURCE, RESOURCE, Setting, with_token};

impl Setting {
    pub(crate) fn remote(&self) -> RemoteServer {
        RemoteServer::new(&self.issuer).unwrap().with_clock(self.clock.clone())
    }

    pub(crate) fn account(&self) -> ServiceAccount {
        let secret = Secret::from(&*self.files.secret);
        ServiceAccount::new(self.remote(), self.files.client_id.as_str(), &secret)
    }

    /// Both ways to verify.
    pub(crate) fn both(&self) -> [RemoteTokens; 2] {
        [RemoteTokens::by_keys(self.remote()), RemoteTokens::by_introspection(self.account())]
    }

    /// `token` with other members, signed by the server's own key.
    pub(crate) async fn forged(&self, token: &str, header: &Value, claims: &Value) -> String {
        let signer = self.keys.signer(&self.org, KeyPurpose::AccessToken, self.clock.now()).await.unwrap();
        let mut parts = token.split('.');
        let mut part = |changes: &Value| {
            let mut value = decoded(parts.next().unwrap());
            for (name, change) in changes.as_object().unwrap() {
                match change {
                    Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
                    change => value[name] = change.clone(),
                }
            }
            URL_SAFE_NO_PAD.encode(value.to_string())
        };
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = signer.sign(signed.as_bytes()).await.unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[track_caller]
fn assert_refused(outcome: &Result<RemoteCaller, AuthenticateError>) {
    assert!(matches!(outcome, Err(AuthenticateError::Refused)), "{outcome:?}");
}

#[track_caller]
fn assert_outage(outcome: &Result<RemoteCaller, AuthenticateError>) {
    assert!(matches!(outcome, Err(AuthenticateError::Remote(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_caller_is_what_its_token_says() {
    let setting = Setting::online().await;
    let (alone, chained) = (setting.bound(RESOURCE).await, setting.chained(&[("resource", RESOURCE)]).await);
    for tokens in setting.both() {
        let caller = tokens.verify(&alone, RESOURCE).await.unwrap();
        assert_eq!(
            (caller.kind, &caller.org, &caller.issuer),
            (RemoteKind::Agent, &setting.org, &setting.issuer)
        );
        assert_eq!((caller.agent_id, &caller.client_id), (Some(setting.root.id), &setting.root.client_id));
        assert_eq!((&*caller.subject, caller.actors.len(), caller.over_budget), ("agent:root", 0, false));
        assert_eq!(caller.scope.to_string(), "write:files read:files");
        assert!(!format!("{caller:?}").contains(&alone));

        let caller = tokens.verify(&chained, RESOURCE).await.unwrap();
        assert_eq!((&*caller.subject, caller.agent_id), ("agent:root", Some(setting.sub.id)));
        assert_eq!(caller.actors.len(), 1);
        assert_eq!(&*caller.actors[0].id, setting.sub.id.to_string());
        let principal = Principal::remote(caller);
        assert_eq!(&*principal.actor().id, setting.sub.id.to_string());
        assert!(principal.decide(&"read:files".parse().unwrap()).is_allow());
        for held_by_the_agent_only in ["read:mail", "admin:agents", "authz:check"] {
            assert!(!principal.decide(&held_by_the_agent_only.parse().unwrap()).is_allow());
        }
    }
}

#[tokio::test]
async fn tokens_for_others_are_refused() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let other_organization = setting.issuer.replace("/acme/", "/globex/");
    let refused = [
        setting.bound(OTHER_RESOURCE).await,
        setting.token(&setting.root).await,
        setting.token(&setting.files).await,
        setting.forged(&bound, &json!({}), &json!({ "aud": [OTHER_RESOURCE] })).await,
        setting.forged(&bound, &json!({}), &json!({ "iss": other_organization })).await,
        // An ID token, and something newer that is none of ours.
        setting.forged(&bound, &json!({ "typ": "JWT" }), &json!({})).await,
        setting.forged(&bound, &json!({ "typ": null }), &json!({})).await,
        setting.forged(&bound, &json!({ "crit": ["x"], "x": 1 }), &json!({})).await,
        setting.forged(&bound, &json!({ "alg": "none" }), &json!({})).await,
        setting.forged(&bound, &json!({ "alg": "HS256" }), &json!({})).await,
        setting.forged(&bound, &json!({ "kid": "unknown" }), &json!({})).await,
        setting.forged(&bound, &json!({ "kid": null }), &json!({})).await,
        setting.forged(&bound, &json!({}), &json!({ "exp": null })).await,
        setting.forged(&bound, &json!({}), &json!({ "nbf": 1_790_000_031_u64 })).await,
        format!("{}x", &bound[..bound.len() - 1]),
        bound[..bound.len() - 1].to_owned(),
        "a".repeat(20_000),
        "refresh".to_owned(),
    ];
    for tokens in setting.both() {
        for token in &refused {
            assert_refused(&tokens.verify(token, RESOURCE).await);
        }
        assert!(tokens.verify(&bound, RESOURCE).await.is_ok());
        assert_refused(&tokens.verify(&bound, OTHER_RESOURCE).await);
    }
    let by_keys = RemoteTokens::by_keys(setting.remote());
    for contradiction in
        [json!({ "identity_type": "other" }), json!({ "agent_id": null }), json!({ "tenant": "globex" })]
    {
        assert_refused(
            &by_keys.verify(&setting.forged(&bound, &json!({}), &contradiction).await, RESOURCE).await,
        );
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_no_bearer_token_here() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for cnf in
        [json!({ "jkt": jkt }), json!({ "jkt": jkt, "x5t#S256": jkt }), json!({ "jwk": {} }), json!({})]
    {
        let token = setting.forged(&bound, &json!({}), &json!({ "cnf": cnf })).await;
        for tokens in setting.both() {
            assert_refused(&tokens.verify(&token, RESOURCE).await);
        }
    }
    // Nobody here can check a proof, so none makes a token better or worse.
    let token = setting.forged(&bound, &json!({}), &json!({ "cnf": { "jkt": jkt } })).await;
    for tokens in setting.both() {
        let guard = || Guard::remote(tokens.clone(), RESOURCE);
        for (scheme, token, status) in
            [("Bearer", &token, 401), ("DPoP", &token, 401), ("DPoP", &bound, 401), ("Bearer", &bound, 200)]
        {
            let request = Request::get("/").header("authorization", format!("{scheme} {token}"));
            let request = request.header("dpop", "e30.e30.e30").body(()).unwrap();
            let hello = service_fn(|_: Request<()>| async {
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            });
            let answer = Answer::of(guard().layer(hello).oneshot(request).await.unwrap()).await;
            assert_eq!(answer.status, status, "{scheme} {}", answer.text);
        }
    }
}

#[tokio::test]
async fn at_its_end_a_token_is_refused_also_where_the_answer_is_kept() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let exp = decoded(bound.split('.').nth(1).unwrap())["exp"].as_u64().unwrap();
    let life = Duration::from_secs(exp - setting.clock.now().unix_seconds());
    let tokens = [
        RemoteTokens::by_keys(setting.remote()),
        RemoteTokens::by_introspection_within(setting.account(), life * 2),
    ];
    for tokens in &tokens {
        assert!(tokens.verify(&bound, RESOURCE).await.is_ok());
    }
    setting.clock.advance(life - Duration::from_secs(1));
    for tokens in &tokens {
        assert!(tokens.verify(&bound, RESOURCE).await.is_ok());
    }
    setting.clock.advance(Duration::from_secs(1));
    for tokens in &tokens {
        assert_refused(&tokens.verify(&bound, RESOURCE).await);
    }
}

#[tokio::test]
async fn revocation_is_seen_within_the_staleness_or_at_the_end() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let [by_keys, by_introspection] = setting.both();
    for _ in 0..3 {
        assert!(by_introspection.verify(&bound, RESOURCE).await.is_ok());
    }
    assert_eq!(setting.line.count("introspect"), 1);
    setting.revoke(&setting.root, &bound).await;
    setting.clock.advance(Duration::from_millis(999));
    assert!(by_introspection.verify(&bound, RESOURCE).await.is_ok());
    setting.clock.advance(Duration::from_millis(1));
    assert_refused(&by_introspection.verify(&bound, RESOURCE).await);
    assert!(by_keys.verify(&bound, RESOURCE).await.is_ok(), "only the server knows");
    let at_once = RemoteTokens::by_introspection_within(setting.account(), Duration::ZERO);
    for asked in 3..5 {
        assert_refused(&at_once.verify(&bound, RESOURCE).await);
        assert_eq!(setting.line.count("introspect"), asked);
    }
}

#[tokio::test]
async fn an_answer_from_before_the_clock_was_set_back_is_none() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let (issued, later) = (setting.clock.now(), Duration::from_secs(1800));
    let tokens = RemoteTokens::by_introspection(setting.account());
    setting.clock.advance(later);
    assert!(tokens.verify(&bound, RESOURCE).await.is_ok());
    setting.clock.set(issued);
    setting.revoke(&setting.root, &bound).await;
    for _ in 0..2 {
        assert_refused(&tokens.verify(&bound, RESOURCE).await);
        assert_eq!(setting.line.count("introspect"), 2, "the new answer is kept");
    }
}

#[tokio::test]
async fn what_an_agent_lost_is_gone_where_the_server_is_asked() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    setting.change(&setting.root, |agent| agent.capabilities = vec!["read:*".parse().unwrap()]).await;
    setting.clock.advance(Duration::from_secs(2));
    let [by_keys, by_introspection] = setting.both();
    assert_eq!(by_introspection.verify(&bound, RESOURCE).await.unwrap().scope.to_string(), "read:files");
    assert_eq!(by_keys.verify(&bound, RESOURCE).await.unwrap().scope.to_string(), "write:files read:files");
}

#[tokio::test]
async fn one_token_asks_once() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let tokens = RemoteTokens::by_introspection(setting.account());
    for outcome in join_all((0..20).map(|_| tokens.verify(&bound, RESOURCE))).await {
        assert!(outcome.is_ok());
    }
    assert_eq!(setting.line.count("introspect"), 1);
    for outcome in join_all((0..20).map(|_| tokens.verify("bad", RESOURCE))).await {
        assert_refused(&outcome);
    }
    assert_eq!(setting.line.count("introspect"), 2, "refusals are kept too");
    // An answer to a question of long ago is no answer.
    let token = setting.bound(RESOURCE).await;
    let mut first = Box::pin(tokens.verify(&token, RESOURCE));
    assert!(futures_util::poll!(&mut first).is_pending());
    setting.clock.advance(Duration::from_secs(1));
    assert!(tokens.verify(&token, RESOURCE).await.is_ok() && first.await.is_ok());
    assert_eq!(setting.line.count("introspect"), 4);
    // Whoever gives up does not keep the others from their answer.
    let clone = tokens.clone();
    let token = setting.bound(RESOURCE).await;
    let mut first = Box::pin(clone.verify(&token, RESOURCE));
    assert!(futures_util::poll!(&mut first).is_pending());
    drop(first);
    assert!(tokens.verify(&token, RESOURCE).await.is_ok());
}

#[tokio::test]
async fn while_the_server_cannot_be_asked_nobody_passes() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let [by_keys, by_introspection] = setting.both();
    setting.line.down.store(2, Ordering::SeqCst);
    assert_outage(&by_keys.verify(&bound, RESOURCE).await);
    assert_outage(&by_introspection.verify(&bound, RESOURCE).await);
    assert!(by_introspection.verify(&bound, RESOURCE).await.is_ok(), "failures are not kept");
    setting.clock.advance(Duration::from_secs(30));
    assert!(by_keys.verify(&bound, RESOURCE).await.is_ok());

    let secret = Secret::from("wrong");
    let impostor = ServiceAccount::new(setting.remote(), setting.files.client_id.as_str(), &secret);
    assert_outage(&RemoteTokens::by_introspection(impostor.clone()).verify(&bound, RESOURCE).await);
    assert!(!format!("{impostor:?} {:?}", setting.account()).contains(&setting.files.secret));
    let gone = RemoteServer::new("http://127.0.0.1:9/orgs/acme/api/v1").unwrap();
    let gone = ServiceAccount::new(gone, "cli", &secret);
    assert_outage(&RemoteTokens::by_introspection(gone).verify(&bound, RESOURCE).await);
}

/// A server that gives the same answer to every question.
async fn answering(answer: Value) -> RemoteTokens {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let mut answer = answer;
    if answer["iss"] == "own" {
        answer["iss"] = issuer.clone().into();
    }
    let app = Router::new().fallback(move || async move { Json(answer) });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let secret = Secret::from("s");
    RemoteTokens::by_introspection(ServiceAccount::new(RemoteServer::new(&issuer).unwrap(), "cli", &secret))
}

#[tokio::test]
async fn answers_are_not_believed_beyond_what_they_say() {
    let agent = lumoauth_core::id::AgentId::generate().to_string();
    let good = json!({
        "active": true, "token_type": "Bearer", "scope": "read:files", "client_id": "cli_a", "sub": "agent:a",
        "agent_id": agent, "identity_type": "agent", "organization": "acme", "iss": "own", "aud": RESOURCE,
        "exp": 9_999_999_999_u64,
    });
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let ask = async |answer: Value| answering(answer).await.verify("token", RESOURCE).await;
    let caller = ask(with("budget_exceeded", json!(true))).await.unwrap();
    assert!(caller.over_budget);
    for (name, value) in [
        ("token_type", json!("refresh_token")),
        ("iss", json!("https://elsewhere.example")),
        ("aud", json!("https://other.example")),
        ("aud", json!([])),
        ("exp", json!(1)),
        ("nbf", json!(9_999_999_998_u64)),
        ("identity_type", json!("root")),
        ("agent_id", Value::Null),
        ("agent_id", json!("agt_x")),
        ("active", json!(false)),
    ] {
        assert_refused(&ask(with(name, value)).await);
    }
    for (name, value) in [
        ("active", json!("true")),
        ("active", Value::Null),
        ("exp", Value::Null),
        ("scope", json!(7)),
        ("sub", Value::Null),
    ] {
        assert_outage(&ask(with(name, value)).await);
    }
    assert_outage(&ask(json!([])).await);
}

async fn through(layer: AuthenticateLayer, request: Request<()>) -> Answer {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let caller = request.extensions().get::<Principal>().unwrap();
        assert!(matches!(caller.identity, Identity::Remote(_)));
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    }));
    Answer::of(service.oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn the_layer_refuses_as_it_does_at_home() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    let layer = || AuthenticateLayer::remote(RemoteTokens::by_introspection(setting.account()), RESOURCE);
    assert_eq!(through(layer(), with_token(&bound)).await.text, "hello");
    through(layer(), Request::new(())).await.refused(401, "invalid_token");
    through(layer(), with_token("x")).await.refused(401, "invalid_token");
    let key = Request::get("/").header("x-api-key", &setting.api_key).body(()).unwrap();
    through(layer(), key).await.refused(401, "invalid_token");
    through(layer(), with_token(&setting.api_key)).await.refused(401, "invalid_token");
    let elsewhere = layer().for_organization("globex".parse().unwrap());
    through(elsewhere, with_token(&bound)).await.refused(403, "forbidden");
    setting.line.down.store(1, Ordering::SeqCst);
    let fresh = setting.bound(RESOURCE).await;
    let outage = through(layer(), with_token(&fresh)).await;
    outage.refused(503, "temporarily_unavailable");
    assert!(!outage.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_guard_decides_by_the_scope_of_the_token() {
    let setting = Setting::online().await;
    let bound = setting.bound(RESOURCE).await;
    for (wanted, status) in [("read:files", StatusCode::OK), ("read:mail", StatusCode::FORBIDDEN)] {
        for tokens in setting.both() {
            let guard = Guard::remote(tokens, RESOURCE).capability(wanted.parse().unwrap());
            let service = guard
                .layer(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::empty()))));
            assert_eq!(service.oneshot(with_token(&bound)).await.unwrap().status(), status);
        }
    }
}

#[test]
fn only_safe_issuers_are_talked_to() {
    for issuer in [
        "",
        "auth.example",
        "http://auth.example/orgs/acme/api/v1",
        "http://10.0.0.1/orgs/acme/api/v1",
        "ftp://auth.example",
        "https://user@auth.example",
        "https://auth.example/orgs/acme/api/v1/",
        "https://auth.example/?a=b",
        "https://auth.example/#a",
    ] {
        assert!(matches!(RemoteServer::new(issuer), Err(RemoteServerError::Issuer(_))), "{issuer}");
    }
    for issuer in
        ["https://auth.example/orgs/acme/api/v1", "http://localhost:8080/orgs/a/api/v1", "http://[::1]:1/a"]
    {
        assert!(RemoteServer::new(issuer).is_ok(), "{issuer}");
    }
}
