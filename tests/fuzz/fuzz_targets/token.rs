//! Access tokens of ours, and the same text read by a service that knows no more than the public keys.
//!
//! An input with a line of its own that says `.` is a header and a payload, which are signed; any other is a token as it stands.

#![no_main]

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use lumoauth_core::{
    clock::Timestamp,
    jwks::{JwkSet, PublicKeys},
    keys::VerifyingKey,
    token::{AccessClaims, InvalidToken, MAX_TOKEN_BYTES, RemoteToken, verify},
};
use lumoauth_fuzz::{ISSUER, NOW, Pair, depth};
use serde_json::{Map, Value, json};

struct Keys {
    pair: Pair,
    own: [VerifyingKey; 1],
    published: PublicKeys,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let pair = Pair::new("own", 1);
    let set = json!({"keys": [pair.jwk()]}).to_string();
    let published = PublicKeys::of(&JwkSet::parse(set.as_bytes()).expect("a set"));
    Keys { own: [pair.verifying()], published, pair }
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Some((header, payload)) = text.split_once("\n.\n") else {
        // Nobody has signed it.
        assert!(check(text).is_err() && elsewhere(text, "").is_err());
        return;
    };
    let token = KEYS.pair.jwt(header.as_bytes(), payload.as_bytes());
    let Ok(claims) = check(&token) else { return };
    assert!(token.len() <= MAX_TOKEN_BYTES);
    let header: Map<String, Value> = serde_json::from_str(header).expect("a header");
    assert_eq!(Value::Object(header), json!({"alg": "EdDSA", "kid": "own", "typ": "at+jwt"}));
    let read: Value = serde_json::from_str(payload).expect("claims");
    assert!(depth(&read) <= 32);
    let seconds = |name: &str| read[name].as_u64().expect("whole seconds");
    assert!(read["iss"] == ISSUER && seconds("exp") > NOW && seconds("nbf").max(seconds("iat")) <= NOW + 30);
    // The members are those that were signed, and nothing is read into them.
    let printed = serde_json::to_value(&claims).expect("claims");
    for (name, value) in printed.as_object().expect("claims") {
        assert!(
            read[name] == *value || matches!(&**name, "scope" | "agent_id" | "act" | "lin"),
            "{name} {value} {read}"
        );
    }
    let again =
        KEYS.pair.jwt(br#"{"alg":"EdDSA","kid":"own","typ":"at+jwt"}"#, printed.to_string().as_bytes());
    if again.len() <= MAX_TOKEN_BYTES {
        assert_eq!(check(&again).as_ref(), Ok(&claims));
    }
    // Both doors agree about a token that is for the resource.
    let audience = read["aud"].as_str().unwrap_or_default();
    if claims.aud.contains(audience) {
        assert_eq!(elsewhere(&token, audience).as_ref(), Ok(&claims));
    }
    assert_eq!(elsewhere(&token, "https://nobody.example/"), Err(InvalidToken::WrongAudience));
    altered(&token);
});

fn check(token: &str) -> Result<AccessClaims, InvalidToken> {
    verify(token, &KEYS.own, ISSUER, Timestamp::from_unix_seconds(NOW))
}

fn elsewhere(token: &str, resource: &str) -> Result<AccessClaims, InvalidToken> {
    RemoteToken::read(token)?.verify(&KEYS.published, ISSUER, resource, Timestamp::from_unix_seconds(NOW))
}

/// One bit of the signed text or of the signature makes it another token, which nobody signed.
fn altered(token: &str) {
    let at = token.bytes().fold(0_usize, |at, byte| at.wrapping_mul(31).wrapping_add(usize::from(byte)))
        % token.len();
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mut altered = token.to_owned();
    altered.replace_range(at..=at, other);
    assert!(check(&altered).is_err() && elsewhere(&altered, "").is_err());
    assert!(
        URL_SAFE_NO_PAD.decode(token.rsplit('.').next().unwrap_or_default()).is_ok_and(|it| it.len() == 64)
    );
}
