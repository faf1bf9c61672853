//! Tokens of AAuth: an agent's, a resource's, an auth token, and the first at the token endpoint, in a signed request.
//!
//! An input is a header, a payload and perhaps a body, with lines between that say `.`; `$JWK` is the key that signs. Any other is
//! a token as it stands.

#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    aauth::{UnverifiedAgentToken, UnverifiedAuthToken, UnverifiedResourceToken},
    clock::Timestamp,
    httpsig::{Content, Message, Profile, SignWith, sign},
    id::AAuthIdentifier,
    jwks::{JwkSet, PublicKey, PublicKeys},
    keys::VerifyingKey,
};
use lumoauth_fuzz::{AAUTH_AGENT, AAUTH_RESOURCE, BASE, Bench, ISSUER, NOW, Pair, block_on};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let pair = Pair::new("k1", 2);
    let text = text.replace("$JWK", &pair.jwk().to_string());
    let parts: Vec<_> = text.split("\n.\n").collect();
    let [header, payload, rest @ ..] = &*parts else {
        // Nobody has signed it.
        assert!(read(&text, &pair).is_none());
        return;
    };
    let token = pair.jwt(header.as_bytes(), payload.as_bytes());
    let sort = read(&token, &pair);
    if let Some(sort) = sort {
        check(sort, header, payload);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let other = if signature.starts_with('A') { "B" } else { "A" };
        assert!(read(&format!("{signed}.{other}{}", &signature[1..]), &pair).is_none(), "another signature");
        // The parties' keys are not those of the issuer.
        assert!(read(&token, &Pair::new("k1", 9)).is_none(), "another key");
    }
    let [body, ..] = rest else { return };
    if present(&token, body) {
        assert_eq!(sort, Some("agent"));
        let claims: Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!(claims["iss"], AAUTH_AGENT);
    }
});

/// What sort of token it is, if `pair` signed one.
fn read(text: &str, pair: &Pair) -> Option<&'static str> {
    let now = Timestamp::from_unix_seconds(NOW);
    let set = json!({"keys": [pair.jwk()]}).to_string();
    let keys = PublicKeys::of(&JwkSet::parse(set.as_bytes()).expect("a set"));
    let (nobody, none): (_, [VerifyingKey; 0]) = (PublicKeys::default(), []);
    let own = [pair.verifying()];
    let agent = |keys: &PublicKeys, own: &[VerifyingKey]| {
        UnverifiedAgentToken::read(text).and_then(|token| token.verify(keys, own, ISSUER, now))
    };
    let resource = |keys: &PublicKeys, own: &[VerifyingKey]| {
        UnverifiedResourceToken::read(text).and_then(|token| token.verify(keys, own, ISSUER, now))
    };
    let aud = AAuthIdentifier::parse(AAUTH_RESOURCE).expect("an identifier");
    let auth = UnverifiedAuthToken::read(text).and_then(|token| token.verify(&keys, ISSUER, &aud, now));
    // What we signed names whom it is for.
    assert!(
        agent(&nobody, &own).is_ok_and(|token| token.made_for.is_some()) || agent(&nobody, &own).is_err()
    );
    assert!(agent(&nobody, &none).is_err() && resource(&nobody, &none).is_err());
    let sorts = [
        ("agent", agent(&keys, &none).is_ok()),
        ("resource", resource(&keys, &none).is_ok()),
        ("auth", auth.is_ok()),
    ];
    let mut read = sorts.into_iter().filter_map(|(sort, is)| is.then_some(sort));
    let sort = read.next();
    assert!(read.next().is_none(), "a token is of one sort");
    sort
}

/// What an accepted token must say.
fn check(sort: &str, header: &str, payload: &str) {
    let (header, claims): (Value, Value) =
        (serde_json::from_str(header).expect("JSON"), serde_json::from_str(payload).expect("JSON"));
    assert!(header["typ"] == format!("{sort}+jwt") && header["alg"] == "EdDSA");
    // Who has one key need not name it.
    assert!(header["kid"] == "k1" || header.get("kid").is_none_or(Value::is_null));
    let skew = 60;
    let seconds = |name: &str| claims[name].as_u64();
    assert!(seconds("exp").expect("whole seconds") + skew > NOW);
    assert!(seconds("iat").is_none_or(|at| at <= NOW + skew));
    match sort {
        "agent" => {
            assert!(seconds("exp") <= Some(NOW + 3600 + skew));
            assert!(PublicKey::from_jwk(&claims["cnf"]["jwk"]).is_some() || claims["cnf"]["jkt"].is_string());
        }
        "resource" => {
            assert!(seconds("exp") <= Some(NOW + 300 + skew));
            assert!(claims["aud"] == ISSUER || claims["aud"] == json!([ISSUER]));
        }
        _ => assert!(claims["iss"] == ISSUER && claims["aud"] == AAUTH_RESOURCE),
    }
}

/// Whether the token endpoint answers a request with this agent token.
fn present(token: &str, body: &str) -> bool {
    let bench = Bench::new();
    let path = format!("{BASE}/aauth/agent/token");
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("agent-auth", format!("agent_token={token}").parse().expect("base64 is text"));
    let message = Message {
        method: &Method::POST,
        scheme: "https",
        authority: "auth.example",
        path: &path,
        query: None,
        headers: &headers,
        content: Content::Bytes(body.as_bytes()),
    };
    let with = SignWith::now(Timestamp::from_unix_seconds(NOW));
    let signed = block_on(sign(&bench.key, &Profile::LUMO_RFC, &message, with)).expect("it can be signed");
    signed.insert_into(&mut headers);
    let mut request = Request::new(Bytes::copy_from_slice(body.as_bytes()));
    headers.insert("host", HeaderValue::from_static("auth.example"));
    (*request.method_mut(), *request.headers_mut()) = (Method::POST, headers);
    *request.uri_mut() = path.parse().expect("a path");
    let answer = bench.send(request);
    assert!(!answer.status.is_server_error(), "{answer:?}");
    assert!(bench.world.asked.lock().expect("one thread").is_empty(), "their keys are registered here");
    answer.status.is_success()
}
