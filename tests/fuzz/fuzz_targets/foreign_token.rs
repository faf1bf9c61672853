//! Tokens of others at the token endpoint: what a platform says of a workload (by both grants and at the door for attestations),
//! and what a client says of itself. The input is a header, a line that says `.`, and a payload, which their key signs.

#![no_main]

use bytes::Bytes;
use http::Request;
use libfuzzer_sys::fuzz_target;
use lumoauth_fuzz::{Answer, BASE, Bench, ISSUER, NOW};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let bench = Bench::new();
    let Some((header, payload)) = text.split_once("\n.\n") else {
        // Nobody has signed it.
        assert!(workload(&bench, text).iter().all(|answer| !answer.status.is_success()));
        assert!(!client(&bench, text).status.is_success());
        return;
    };
    let token = bench.key.jwt(header.as_bytes(), payload.as_bytes());
    let claims: Value = serde_json::from_str(payload).unwrap_or_default();
    for answer in workload(&bench, &token) {
        if answer.status.is_success() {
            assert_eq!(claims["iss"], "https://cluster.example");
            assert_eq!(claims["sub"], "system:serviceaccount:ops:bot");
            assert!(is_for_us(&claims) && is_current(&claims, 60));
        }
    }
    let answer = client(&bench, &token);
    if answer.status.is_success() {
        assert!(claims["iss"] == "cli_bot" && claims["sub"] == "cli_bot" && claims["aud"] == ISSUER);
        assert!(
            is_current(&claims, 60) && claims["exp"].as_u64() <= Some(NOW + 300) && claims["jti"].is_string()
        );
        assert!(!client(&bench, &token).status.is_success(), "it is used once");
    }
    assert!(bench.world.asked.lock().expect("one thread").is_empty(), "their keys are registered here");
});

fn workload(bench: &Bench, token: &str) -> Vec<Answer> {
    let exchange = bench.token(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", token),
    ]);
    let bearer =
        bench.token(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", token)]);
    let attest = Request::post(format!("{BASE}/agents/cluster/attest"))
        .header("content-type", "application/json")
        .body(Bytes::from(json!({"attestation_token": token}).to_string()));
    let attest = bench.send(attest.expect("a request"));
    assert!(!attest.status.is_server_error(), "{attest:?}");
    vec![exchange, bearer, attest]
}

fn client(bench: &Bench, token: &str) -> Answer {
    bench.token(&[
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", token),
    ])
}

fn is_for_us(claims: &Value) -> bool {
    match &claims["aud"] {
        Value::Array(several) => several.iter().any(|one| one == ISSUER),
        one => one == ISSUER,
    }
}

fn is_current(claims: &Value, skew: u64) -> bool {
    let at_most = |name: &str, most: u64| claims[name].as_u64().is_none_or(|seconds| seconds <= most);
    claims["exp"].as_u64() > Some(NOW) && at_most("nbf", NOW + skew) && at_most("iat", NOW + skew)
}
