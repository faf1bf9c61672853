//! What names a key, and what of a JWK does not.

use serde_json::{Value, json};

use super::super::{
    HttpAlgorithm, JwkSet, JwsAlgorithm, PublicKey, PublicKeys, Thumbprint,
    test_key::{TestKey, b64},
};
use crate::secret::sha256;

fn key(jwk: &Value) -> PublicKey {
    PublicKey::from_jwk(jwk).unwrap()
}

/// The key of RFC 7638 section 3.1.
const RFC_MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

#[test]
fn the_examples_of_the_rfcs_have_their_thumbprints() {
    let rsa = json!({"kty": "RSA", "n": RFC_MODULUS, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    assert_eq!(key(&rsa).thumbprint().to_string(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(key(&okp).thumbprint().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn a_thumbprint_hashes_the_required_members_in_order_and_nothing_else() {
    for algorithm in [JwsAlgorithm::Rs256, JwsAlgorithm::Es256, JwsAlgorithm::Es384, JwsAlgorithm::EdDsa] {
        let mut jwk = TestKey::new(algorithm, "k").jwk();
        let plain = key(&jwk);
        let member = |name: &str| jwk[name].as_str().unwrap();
        let text = match jwk["kty"].as_str().unwrap() {
            "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, member("e"), member("n")),
            "EC" => {
                let (crv, x, y) = (member("crv"), member("x"), member("y"));
                format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            _ => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, member("x")),
        };
        assert_eq!(plain.to_jwk().to_string(), text);
        assert_eq!(plain.thumbprint().as_bytes(), &sha256(text.as_bytes()));
        jwk["kid"] = "another".into();
        jwk["use"] = "sig".into();
        jwk["x5t"] = "more".into();
        assert_eq!(key(&jwk).thumbprint(), plain.thumbprint());
        assert_eq!(key(&plain.to_jwk()).thumbprint(), plain.thumbprint());
    }
}

#[test]
fn only_43_characters_of_canonical_base64url_are_a_thumbprint() {
    let text = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    let thumbprint: Thumbprint = text.parse().unwrap();
    assert_eq!(serde_json::to_value(thumbprint).unwrap(), json!(text));
    assert_eq!(serde_json::from_value::<Thumbprint>(json!(text)).unwrap(), thumbprint);
    let sha1 = b64([7; 20]);
    for bad in [
        &format!("{text}="),
        // The last character has two bits that no byte has.
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4l",
        "kPrK/qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        &text[1..],
        "",
        &sha1,
    ] {
        assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
        assert!(serde_json::from_value::<Thumbprint>(json!(bad)).is_err());
    }
}

#[test]
fn a_key_is_found_by_its_thumbprint() {
    let (a, b) = (TestKey::new(JwsAlgorithm::Es256, "a"), TestKey::new(JwsAlgorithm::EdDsa, "b"));
    let keys = PublicKeys::of(&JwkSet { keys: vec![a.jwk(), b.jwk()] });
    let wanted = key(&b.jwk()).thumbprint();
    assert_eq!(keys.by_thumbprint(&wanted).unwrap().kid(), Some("b"));
    let other = key(&TestKey::new(JwsAlgorithm::EdDsa, "b").jwk()).thumbprint();
    assert!(keys.by_thumbprint(&other).is_none());
}

#[test]
fn a_key_with_a_private_part_is_no_public_key() {
    let mut jwk = TestKey::new(JwsAlgorithm::EdDsa, "k").jwk();
    assert!(PublicKey::from_jwk(&jwk).is_some());
    jwk["d"] = "AAAA".into();
    assert!(PublicKey::from_jwk(&jwk).is_none());
    assert!(PublicKey::from_jwk(&json!("text")).is_none());
}

#[test]
fn each_sort_of_key_signs_http_messages_by_one_algorithm_or_not_at_all() {
    for (algorithm, expected) in [
        (JwsAlgorithm::EdDsa, Some(HttpAlgorithm::Ed25519)),
        (JwsAlgorithm::Es256, Some(HttpAlgorithm::EcdsaP256Sha256)),
        (JwsAlgorithm::Es384, None),
        (JwsAlgorithm::Ps512, Some(HttpAlgorithm::RsaPssSha512)),
    ] {
        let jwk = TestKey::new(algorithm, "k").jwk();
        assert_eq!(key(&jwk).http_algorithm(), expected, "{algorithm:?}");
    }
    let mut jwk = TestKey::new(JwsAlgorithm::Rs256, "k").jwk();
    jwk["alg"] = "RS256".into();
    assert_eq!(key(&jwk).http_algorithm(), None, "the key is for another algorithm");
    assert_eq!(HttpAlgorithm::from_wire("ed25519"), Some(HttpAlgorithm::Ed25519));
    for name in ["Ed25519", "hmac-sha256", "rsa-v1_5-sha256", "ecdsa-p384-sha384", ""] {
        assert_eq!(HttpAlgorithm::from_wire(name), None, "{name}");
    }
}
