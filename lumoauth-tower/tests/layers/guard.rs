//! One layer in front of a route, in the process of the authorization server.

use std::{convert::Infallible, net::SocketAddr};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response};
use lumoauth_core::{
    budget::Usage,
    clock::Clock,
    id::KeyId,
    keys::{Algorithm, LocalSigner, Signer},
    secret::SecretHash,
};
use lumoauth_tower::{Guard, PeerAddr};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    budget::estimate,
    setting::{Answer, RESOURCE, Reached, Setting, with_token},
};

async fn through(guard: Guard, request: Request<()>, reached: &Reached) -> Answer {
    let reached = reached.clone();
    let service = guard.layer(service_fn(move |_: Request<()>| {
        reached.now();
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    }));
    Answer::of(service.oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn the_order_is_the_same_however_it_is_put_together() {
    let setting = Setting::new().await;
    setting.limit(&setting.root, json!({ "max_tokens_per_day": 100 })).await;
    let token = setting.token(&setting.root).await;
    let new = || Guard::new(setting.server.clone());
    for guard in [
        new().capability("write:mail".parse().unwrap()).charge(estimate),
        new().charge(estimate).capability("write:mail".parse().unwrap()),
    ] {
        let reached = Reached::default();
        // Who is not known does not learn which capability is wanted.
        let unknown = through(guard.clone(), Request::new(()), &reached).await;
        unknown.refused(401, "invalid_token");
        assert!(!unknown.text.contains("write:mail"));
        // Who may not call does not pay.
        through(guard, with_token(&token), &reached).await.refused(403, "capability_denied");
        assert_eq!((reached.times(), setting.used(&setting.root).await), (0, Usage::default()));
    }
    let guard = new().charge(estimate).any_of(["write:mail", "read:mail"].map(|one| one.parse().unwrap()));
    let reached = Reached::default();
    let passed = through(guard.clone(), with_token(&token), &reached).await;
    assert_eq!((passed.status.as_u16(), &*passed.text), (200, "hello"));
    through(guard, with_token(&token), &reached).await.refused(429, "budget_exceeded");
    assert_eq!(reached.times(), 1);
}

#[tokio::test]
async fn everything_but_authentication_is_optional() {
    let setting = Setting::new().await;
    let reached = Reached::default();
    let token = setting.token(&setting.root).await;
    let guard = Guard::new(setting.server.clone());
    assert_eq!(through(guard.clone(), with_token(&token), &reached).await.status, 200);
    through(guard, Request::new(()), &reached).await.refused(401, "invalid_token");
    assert_eq!((reached.times(), setting.used(&setting.root).await), (1, Usage::default()));
}

#[tokio::test]
async fn it_may_stand_for_a_resource_and_for_one_organization() {
    let setting = Setting::new().await;
    let reached = Reached::default();
    let (own, bound) = (setting.token(&setting.root).await, setting.bound(RESOURCE).await);
    let guard = || Guard::new(setting.server.clone()).for_resource(RESOURCE);
    assert_eq!(through(guard(), with_token(&bound), &reached).await.status, 200);
    through(guard(), with_token(&own), &reached).await.refused(401, "invalid_token");
    let elsewhere = guard().for_organization("globex".parse().unwrap());
    through(elsewhere, with_token(&bound), &reached).await.refused(403, "forbidden");
}

#[tokio::test]
async fn an_agent_with_addresses_comes_from_there_or_is_refused() {
    let setting = Setting::new().await;
    let (own, bound) = (setting.token(&setting.root).await, setting.bound(RESOURCE).await);
    let networks = ["192.0.2.0/24", "2001:db8::1"].map(|text| text.parse().unwrap());
    setting.change(&setting.root, |agent| agent.allowed_ips = networks.into()).await;
    let reached = Reached::default();
    let guard = || Guard::new(setting.server.clone());
    for (peer, accepted) in [
        (Some("192.0.2.255:4711"), true),
        (Some("[::ffff:192.0.2.0]:4711"), true),
        (Some("[2001:db8::1]:4711"), true),
        (Some("192.0.3.0:4711"), false),
        (Some("[2001:db8::2]:4711"), false),
        (None, false),
    ] {
        for (token, guard) in [(&own, guard()), (&bound, guard().for_resource(RESOURCE))] {
            let mut request = with_token(token);
            if let Some(peer) = peer {
                request.extensions_mut().insert(PeerAddr(peer.parse::<SocketAddr>().unwrap()));
            }
            // What a client says of itself is nothing.
            request.headers_mut().insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
            let answer = through(guard, request, &reached).await;
            if accepted {
                assert_eq!(answer.status, 200, "{peer:?}");
            } else {
                answer.refused(401, "invalid_token");
            }
        }
    }
    assert_eq!(reached.times(), 6);
}

#[tokio::test]
async fn an_empty_choice_of_capabilities_lets_nobody_through() {
    let setting = Setting::new().await;
    let token = setting.token(&setting.root).await;
    let guard = Guard::new(setting.server.clone()).any_of([]);
    through(guard, with_token(&token), &Reached::default()).await.refused(403, "capability_denied");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_comes_with_a_proof_for_the_route() {
    let setting = Setting::at("https://host.example/base").await;
    let key = LocalSigner::generate(KeyId::parse("k").unwrap(), Algorithm::EdDsa).unwrap();
    let (jwk, now) = (key.public_key().unwrap().to_jwk(), setting.clock.now().unix_seconds());
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk });
    // From the last second that clocks may be ahead: the store of this test has no past.
    let claims =
        |jti: &str, htm: &str, htu: &str| json!({ "htm": htm, "htu": htu, "jti": jti, "iat": now + 60 });
    let proof = async |claims: Value| {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        format!("{signed}.{}", b64(key.sign(signed.as_bytes()).await.unwrap()))
    };
    let asked = proof(claims("1", "POST", &format!("{}/oauth/token", setting.issuer))).await;
    let token = setting.token_with(&setting.root, &[("dpop", &asked)]).await;

    let ath = b64(SecretHash::of(&token).as_bytes());
    let for_route = async |jti: &str, htu: &str| {
        let mut claims = claims(jti, "GET", htu);
        claims["ath"] = json!(ath);
        proof(claims).await
    };
    let reached = Reached::default();
    let send = async |scheme: &str, proof: &str| {
        let request = Request::get("/files/1?x=y").header("authorization", format!("{scheme} {token}"));
        let request = request.header("dpop", proof).body(()).unwrap();
        let guard = Guard::new(setting.server.clone()).capability("read:mail".parse().unwrap());
        through(guard, request, &reached).await
    };
    let good = for_route("2", "https://host.example/base/files/1").await;
    let bearer = send("Bearer", &good).await;
    bearer.refused(401, "invalid_token");
    assert!(bearer.header("www-authenticate").starts_with("DPoP error=\"invalid_token\", algs="));
    // The path that arrived is not the one that was asked for: something in front took the beginning away.
    for elsewhere in ["https://host.example/files/1", "https://host.example/base/files/2"] {
        send("DPoP", &for_route("3", elsewhere).await).await.refused(401, "invalid_dpop_proof");
    }
    assert_eq!(reached.times(), 0);
    assert_eq!(send("DPoP", &good).await.status, 200);
    send("DPoP", &good).await.refused(401, "invalid_dpop_proof");
    assert_eq!(reached.times(), 1);
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
