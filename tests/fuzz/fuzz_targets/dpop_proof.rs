//! DPoP proofs: with a token request, and then with the token that is bound to its key. The input is header and payload of the
//! one proof and header and payload of the other, with a line between that says `.`; `$ATH` stands for the digest of the token.

#![no_main]

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::jwks::PublicKey;
use lumoauth_fuzz::{Answer, BASE, BOT_SECRET, Bench, NOW, form};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let bench = Bench::new();
    let parts: Vec<_> = text.split("\n.\n").collect();
    let [header, payload, rest @ ..] = &*parts else {
        // Nobody has signed it.
        assert!(ask(&bench, text).is_none_or(|answer| !answer.status.is_success()));
        return;
    };
    let proof = bench.key.jwt(header.as_bytes(), payload.as_bytes());
    let answer = ask(&bench, &proof).expect("base64 is text");
    if !answer.status.is_success() {
        return;
    }
    let key = check(header, payload, "POST", "/oauth/token");
    assert!(!ask(&bench, &proof).expect("text").status.is_success(), "a proof is used once");
    let answer = answer.json().expect("JSON");
    assert_eq!(answer["token_type"], "DPoP");
    let token = answer["access_token"].as_str().expect("a token");
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).expect("claims");
    let claims: Value = serde_json::from_slice(&claims).expect("claims");
    assert_eq!(claims["cnf"]["jkt"], key.thumbprint().to_string());

    let [header, payload, ..] = rest else { return };
    let ath = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
    let payload = payload.replace("$ATH", &ath);
    let proof = bench.key.jwt(header.as_bytes(), payload.as_bytes());
    assert!(!me(&bench, "Bearer", token, &proof).status.is_success(), "it is no bearer token");
    if me(&bench, "DPoP", token, &proof).status.is_success() {
        let again = check(header, &payload, "GET", "/agents/me");
        assert_eq!(again.thumbprint(), key.thumbprint());
        assert!(payload.contains(&ath));
        assert!(!me(&bench, "DPoP", token, &proof).status.is_success(), "a proof is used once");
    }
});

/// A token request with this proof; `None` if it cannot be sent.
fn ask(bench: &Bench, proof: &str) -> Option<Answer> {
    let pairs =
        [("grant_type", "client_credentials"), ("client_id", "cli_bot"), ("client_secret", BOT_SECRET)];
    let request = Request::post(format!("{BASE}/oauth/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("dpop", HeaderValue::from_str(proof).ok()?)
        .body(Bytes::from(form(&pairs)));
    let answer = bench.send(request.expect("a request"));
    assert!(!answer.status.is_server_error(), "{answer:?}");
    Some(answer)
}

fn me(bench: &Bench, scheme: &str, token: &str, proof: &str) -> Answer {
    let request = Request::get(format!("{BASE}/agents/me"))
        .header("authorization", format!("{scheme} {token}"))
        .header("dpop", proof)
        .body(Bytes::new());
    let answer = bench.send(request.expect("a request"));
    assert!(!answer.status.is_server_error(), "{answer:?}");
    answer
}

/// What an accepted proof must say (RFC 9449 section 4.3). The key that it names.
fn check(header: &str, payload: &str, method: &str, path: &str) -> PublicKey {
    let (header, claims): (Value, Value) =
        (serde_json::from_str(header).expect("JSON"), serde_json::from_str(payload).expect("JSON"));
    assert!(header["typ"] == "dpop+jwt" && header["alg"] == "EdDSA" && header.get("crit").is_none());
    assert!(header["jwk"].get("d").is_none());
    assert_eq!(claims["htm"], method);
    let place = claims["htu"].as_str().expect("text").split(['?', '#']).next().unwrap_or_default();
    assert!(
        place.to_ascii_lowercase().starts_with("https://auth.example")
            && place.ends_with(&format!("{BASE}{path}"))
    );
    assert!(claims["iat"].as_u64().expect("whole seconds").abs_diff(NOW) <= 60);
    assert!(claims["jti"].as_str().is_some_and(|jti| (1..=256).contains(&jti.len())));
    PublicKey::from_jwk(&header["jwk"]).expect("a public key")
}
