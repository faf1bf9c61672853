use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::{
    id::KeyId,
    jwks::{
        JwkSet,
        test_key::{TestKey, b64},
    },
};

const NOW: u64 = 1_790_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "sub": "s", "aud": "us", "iat": NOW, "exp": NOW + 300})
}

fn check(key: &TestKey, token: &str) -> Result<ForeignClaims, InvalidToken> {
    read(token)?.verify(&PublicKeys::of(&key.jwks()))
}

fn times(changes: &Value) -> impl Fn(u64, Option<Duration>) -> Result<(), InvalidToken> + use<> {
    let Value::Object(mut claims) = claims() else { unreachable!("an object") };
    for (name, value) in changes.as_object().unwrap() {
        claims.insert(name.clone(), value.clone());
    }
    claims.retain(|_, value| !value.is_null());
    let claims = ForeignClaims(claims);
    move |now, max_age| claims.check_times(Timestamp::from_unix_seconds(now), max_age, MINUTE)
}

#[test]
fn every_algorithm_is_read_and_verified() {
    for algorithm in JwsAlgorithm::ALL {
        let key = TestKey::new(algorithm, "k");
        let token = key.token(&claims());
        let unverified = read(&token).unwrap();
        assert_eq!(unverified.issuer(), Some("https://issuer.example"));
        assert_eq!((unverified.kid(), unverified.typ()), (Some("k"), None));
        assert_eq!(unverified.claims()["sub"], "s");
        assert_eq!(unverified.verify(&PublicKeys::of(&key.jwks())).unwrap().text("sub"), Some("s"));
    }
}

#[test]
fn tokens_of_an_independent_library_are_read() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING)
            .unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
    let token = encode(&header, &claims(), &EncodingKey::from_ec_der(pkcs8.as_ref())).unwrap();
    let point = aws_lc_rs::signature::KeyPair::public_key(&pair);
    let (x, y) = point.as_ref()[1..].split_at(32);
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": b64(x), "y": b64(y), "alg": "ES256"});
    let keys = PublicKeys::of(&JwkSet { keys: vec![jwk] });
    let unverified = read(&token).unwrap();
    assert_eq!(unverified.typ(), Some("JWT"));
    assert!(unverified.verify(&keys).is_ok());
}

#[test]
fn only_asymmetric_algorithms_are_read() {
    let key = TestKey::new(JwsAlgorithm::Es256, "k");
    let names = ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "es256", "ES256K", "ES512"];
    for alg in names.into_iter().chain(["Ed25519", "RS1", "dir", "A128KW"]) {
        let token = key.raw(&json!({"alg": alg, "kid": "k"}).to_string(), &claims().to_string());
        assert_eq!(read(&token).unwrap_err(), InvalidToken::Algorithm, "{alg}");
    }
    assert_eq!(read(&key.raw("{}", "{}")).unwrap_err(), InvalidToken::Algorithm);
    assert_eq!(read(&key.raw(r#"{"alg":7}"#, "{}")).unwrap_err(), InvalidToken::Header);
}

#[test]
fn headers_that_change_the_meaning_are_refused_and_keys_in_them_ignored() {
    let key = TestKey::new(JwsAlgorithm::Es256, "k");
    let other = TestKey::new(JwsAlgorithm::Es256, "k");
    let token = |signer: &TestKey, name: &str, value: Value| {
        let mut header = signer.header();
        header[name] = value;
        signer.raw(&header.to_string(), &claims().to_string())
    };
    for (name, value) in
        [("crit", json!(["exp"])), ("crit", json!([])), ("b64", json!(true)), ("zip", json!("DEF"))]
    {
        assert_eq!(check(&key, &token(&key, name, value)).unwrap_err(), InvalidToken::Header, "{name}");
    }
    for (name, value) in [("kid", json!(7)), ("kid", json!("k".repeat(257))), ("typ", json!(["JWT"]))] {
        assert_eq!(check(&key, &token(&key, name, value)).unwrap_err(), InvalidToken::Header, "{name}");
    }
    for (name, value) in [
        ("jwk", other.jwk()),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/x5u")),
        ("x5c", json!(["MII"])),
    ] {
        assert!(check(&key, &token(&key, name, value.clone())).is_ok(), "{name}");
        assert_eq!(check(&key, &token(&other, name, value)).unwrap_err(), InvalidToken::Signature, "{name}");
    }
}

#[test]
fn the_key_that_kid_names_must_have_signed() {
    let (key, other) = (TestKey::new(JwsAlgorithm::Es256, "k"), TestKey::new(JwsAlgorithm::Es256, "k"));
    assert_eq!(check(&key, &other.token(&claims())).unwrap_err(), InvalidToken::Signature);
    for kid in ["", "K", "k ", "../../etc/passwd", "' OR 1=1 --"] {
        let token = key.raw(&json!({"alg": "ES256", "kid": kid}).to_string(), &claims().to_string());
        assert_eq!(check(&key, &token).unwrap_err(), InvalidToken::UnknownKey, "{kid}");
    }
    let nameless = key.raw(r#"{"alg":"ES256"}"#, &claims().to_string());
    assert!(check(&key, &nameless).is_ok());
    let two = JwkSet { keys: vec![key.jwk(), TestKey::new(JwsAlgorithm::Es256, "l").jwk()] };
    assert_eq!(read(&nameless).unwrap().verify(&PublicKeys::of(&two)).unwrap_err(), InvalidToken::UnknownKey);
    let token = key.raw(r#"{"alg":"ES384","kid":"k"}"#, &claims().to_string());
    assert_eq!(check(&key, &token).unwrap_err(), InvalidToken::UnknownKey, "the key decides the algorithm");
    let nobody = PublicKeys::default();
    assert_eq!(read(&key.token(&claims())).unwrap().verify(&nobody).unwrap_err(), InvalidToken::UnknownKey);
}

#[test]
fn only_strict_json_in_one_compact_form_is_read() {
    let key = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let header = key.header().to_string();
    let payload = claims().to_string();
    let nested =
        |n: usize| payload.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(n), "]".repeat(n)), 1);
    assert!(check(&key, &key.raw(&header, &nested(31))).is_ok());
    for (header, payload) in [
        (&header, &nested(32)),
        (&header, &nested(10_000).chars().take(10_000).collect()),
        (&header, &payload.replacen('{', r#"{"sub":"t","#, 1)),
        (&header.replacen('{', r#"{"alg":"none","#, 1), &payload),
        (&header, &"[]".to_owned()),
        (&header, &String::new()),
        (&"[]".to_owned(), &payload),
        (&header, &format!("{payload} x")),
    ] {
        assert_eq!(check(&key, &key.raw(header, payload)).unwrap_err(), InvalidToken::Malformed);
    }
    let token = key.token(&claims());
    let parts: Vec<_> = token.split('.').collect();
    for bad in [
        String::new(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{token}.x"),
        format!("{token}.x.y"),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
    ] {
        assert_eq!(check(&key, &bad).unwrap_err(), InvalidToken::Malformed, "{bad}");
    }
    let stripped = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(check(&key, &stripped).unwrap_err(), InvalidToken::Signature);
    let long = format!("{}.{}.{}", parts[0], "A".repeat(super::super::MAX_TOKEN_BYTES), parts[2]);
    assert_eq!(check(&key, &long).unwrap_err(), InvalidToken::TooLong);
}

#[test]
fn no_flipped_bit_of_the_signed_text_or_the_signature_is_accepted() {
    let key = TestKey::new(JwsAlgorithm::EdDsa, "k");
    let token = key.token(&claims());
    for at in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(check(&key, &changed).is_err(), "{changed}");
        }
    }
}

#[test]
fn an_audience_is_one_text_or_several() {
    let audience = |aud: Value| {
        let Value::Object(claims) = json!({"aud": aud}) else { unreachable!("an object") };
        ForeignClaims(claims).audience().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(audience(json!("a")), ["a"]);
    assert_eq!(audience(json!(["a", "b"])), ["a", "b"]);
    for nobody in [json!([]), json!(["a", 7]), json!([["a"]]), json!({"a": 1}), json!(null), json!(7)] {
        assert!(audience(nobody.clone()).is_empty(), "{nobody}");
    }
    assert!(ForeignClaims(Map::new()).audience().is_empty());
}

#[test]
fn readers_give_nothing_of_the_wrong_type() {
    let Value::Object(claims) = json!({"sub": 7, "exp": "9", "iat": 9, "email": null}) else {
        unreachable!()
    };
    let claims = ForeignClaims(claims);
    assert_eq!((claims.text("sub"), claims.text("email"), claims.text("x")), (None, None, None));
    assert_eq!((claims.expires_at(), claims.issued_at()), (None, Some(Timestamp::from_unix_seconds(9))));
    assert_eq!(claims.all().len(), 4);
}

#[test]
fn times_hold_to_the_second() {
    let check = times(&json!({}));
    assert_eq!(check(NOW, None), Ok(()));
    assert_eq!(check(NOW + 299, None), Ok(()));
    assert_eq!(check(NOW + 300, None), Err(InvalidToken::Expired));
    assert_eq!(check(NOW - 60, None), Ok(()));
    assert_eq!(check(NOW - 61, None), Err(InvalidToken::NotYetValid));
    assert_eq!(check(NOW + 120, Some(2 * MINUTE)), Ok(()));
    assert_eq!(check(NOW + 121, Some(2 * MINUTE)), Err(InvalidToken::Expired));
    let check = times(&json!({"nbf": NOW + 30}));
    assert_eq!((check(NOW - 30, None), check(NOW - 31, None)), (Ok(()), Err(InvalidToken::NotYetValid)));
}

#[test]
fn times_are_whole_seconds_and_exp_is_required() {
    for bad in [json!("1795000000"), json!(1e9), json!(NOW as f64 + 60.5), json!(-1), json!([NOW]), json!({})]
    {
        for name in ["exp", "nbf", "iat"] {
            let changed = times(&json!({name: bad.clone()}));
            assert_eq!(changed(NOW, None), Err(InvalidToken::Malformed), "{name} {bad}");
        }
    }
    assert_eq!(times(&json!({"exp": null}))(NOW, None), Err(InvalidToken::Malformed));
    assert_eq!(times(&json!({"exp": u64::MAX}))(NOW, None), Ok(()));
    assert_eq!(times(&json!({"iat": u64::MAX}))(NOW, None), Err(InvalidToken::NotYetValid));
    assert_eq!(times(&json!({"iat": null}))(NOW, None), Ok(()));
    assert_eq!(times(&json!({"iat": null}))(NOW, Some(MINUTE)), Err(InvalidToken::Malformed));
}

#[test]
fn our_own_keys_verify_what_names_them_and_nothing_else() {
    let (key, other) = (TestKey::new(JwsAlgorithm::Es256, "k"), TestKey::new(JwsAlgorithm::Es256, "k"));
    let own = |key: &TestKey, kid: &str| {
        let jwk = key.jwk();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let point = [vec![4], part("x"), part("y")].concat();
        VerifyingKey::es256(KeyId::parse(kid).unwrap(), &point).unwrap()
    };
    let check = |token: &str, keys: &[VerifyingKey]| read(token)?.verify_own(keys).map(|_| ());
    let token = key.token(&claims());
    assert_eq!(check(&token, &[own(&key, "k")]), Ok(()));
    assert_eq!(check(&token, &[own(&other, "k")]), Err(InvalidToken::Signature));
    assert_eq!(check(&token, &[own(&key, "j")]), Err(InvalidToken::UnknownKey));
    assert_eq!(check(&token, &[]), Err(InvalidToken::UnknownKey));
    for header in
        [json!({"alg": "ES256"}), json!({"alg": "ES384", "kid": "k"}), json!({"alg": "RS256", "kid": "k"})]
    {
        let token = key.raw(&header.to_string(), &claims().to_string());
        assert_eq!(check(&token, &[own(&key, "k")]), Err(InvalidToken::UnknownKey), "{header}");
    }
}
