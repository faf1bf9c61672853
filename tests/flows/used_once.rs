//! What may be used once is used once on all replicas together: assertions of clients, signed requests of AWS, and proofs of
//! keys.
//!
//! `USED_ONCE_ROUNDS` says how often each is raced for.

use std::env;

use lumoauth_tests::{
    AttackerKey, Backend, DpopKey, KeySite, Replicas, Response, ServeOptions, Server, Sts, at_once,
    on_shared_backends, sts_token, text, unique, unix_now,
};
use serde_json::json;

/// How often two replicas get the same thing at the same time.
fn rounds() -> usize {
    env::var("USED_ONCE_ROUNDS").map_or(20, |count| count.parse().expect("a number"))
}

on_shared_backends!(assertions_are_used_once, signed_requests_are_used_once, proofs_are_used_once);

fn replicas(backend: Backend) -> Replicas {
    Replicas::with(backend, ServeOptions::knowing_our_sites)
}

/// Each replica is sent the same by four clients at once: one of all is served, and the others are told that what they
/// sent is worth nothing.
#[track_caller]
fn used_once(replicas: &Replicas, error: &str, send: impl Fn(&Server) -> Response + Sync) {
    let answers = at_once(8, |caller| send([&replicas.a, &replicas.b][caller % 2]));
    let (accepted, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    for answer in &others {
        answer.refused(401, error);
    }
    assert_eq!(accepted.len(), 1);
}

fn assertions_are_used_once(backend: Backend) {
    let replicas = replicas(backend);
    let org = replicas.a.acme();
    let (page, key) = (KeySite::trusted().page(), AttackerKey::generate());
    page.publish(&[("k1", &key)]);
    let agent = org.create_agent(json!({ "capabilities": ["read:a"], "jwksUri": page.uri() }));
    for _ in 0..rounds() {
        let claims = json!({
            "iss": agent.client_id, "sub": agent.client_id, "aud": org.issuer(), "jti": unique("jti"),
            "exp": unix_now() + 300,
        });
        let assertion = key.sign(&json!({ "alg": "ES256", "kid": "k1" }), &claims);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &*assertion),
        ];
        used_once(&replicas, "invalid_client", |server| {
            server.acme().post("/oauth/token").form(&fields).send()
        });
    }
    drop(org);
    replicas.end();
}

fn signed_requests_are_used_once(backend: Backend) {
    let replicas = replicas(backend);
    let org = replicas.a.acme();
    let name = unique("role");
    let trust = json!({ "provider": "aws", "roleArn": format!("arn:aws:iam::123456789012:role/{name}") });
    let agent = org.create_agent(json!({
        "identityType": "workload_identity", "capabilities": ["read:a"], "workloadIdentity": trust,
    }));
    for _ in 0..rounds() {
        let session = Sts::trusted().issue(&format!("arn:aws:sts::123456789012:assumed-role/{name}/i"));
        let request = session.sign("sts.amazonaws.com", &org.issuer(), unix_now() + 60);
        let token = sts_token(&request);
        let kind = "urn:lumoauth:token-type:aws-sts-request";
        let named = [("agent_id", &*agent.agent_id)];
        used_once(&replicas, "workload_identity_failed", |server| {
            server.acme().exchange(&token, kind, &named)
        });
        assert_eq!(Sts::trusted().asked(&session), 1);
    }
    replicas.end();
}

fn proofs_are_used_once(backend: Backend) {
    let replicas = replicas(backend);
    let org = replicas.a.acme();
    let (agent, key) = (org.agent(&["read:a"]), DpopKey::generate());
    let url = format!("{}/oauth/token", org.issuer());
    for _ in 0..rounds() {
        let proof = key.proof("POST", &url, None);
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", &*agent.client_id),
            ("client_secret", &*agent.secret),
        ];
        let answers = at_once(8, |caller| {
            let server = [&replicas.a, &replicas.b][caller % 2];
            server.acme().post("/oauth/token").header("DPoP", &proof).form(&fields).send()
        });
        let (accepted, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        for answer in &others {
            answer.refused(400, "invalid_dpop_proof");
        }
        assert_eq!(accepted.len(), 1);
    }
    let proof = key.proof("POST", &url, None);
    let answer = agent.token_request(&agent.secret, &[]).header("DPoP", &proof).send().ok();
    let (token, url) = (text(&answer["access_token"]), format!("{}/oauth/userinfo", org.issuer()));
    for _ in 0..rounds() {
        let proof = key.proof("GET", &url, Some(token));
        used_once(&replicas, "invalid_dpop_proof", |server| {
            server.acme().get("/oauth/userinfo").dpop(token, &proof).send()
        });
    }
    replicas.end();
}
