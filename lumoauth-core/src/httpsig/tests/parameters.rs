//! What a signature says of itself: time, nonce, algorithm, key and the rest.

use sfv::{Decimal, RefBareItem, StringRef, TokenRef};

use super::support::{CREATED, NONCE, Request, at, signer};
use crate::{
    clock::Timestamp,
    httpsig::{Accept, Presented, Profile, SignatureError},
    jwks::{JwsAlgorithm, PublicKey, test_key::TestKey},
};

const LIST: [&str; 5] = ["@method", "@authority", "@path", "content-digest", "content-type"];

fn text(value: &str) -> RefBareItem<'_> {
    StringRef::from_str(value).unwrap().into()
}

fn integer(value: u64) -> RefBareItem<'static> {
    RefBareItem::try_from(i64::try_from(value).unwrap()).unwrap()
}

/// Validly signed with these parameters.
fn with(parameters: &[(&'static str, RefBareItem<'_>)]) -> Request {
    Request::new().saying(Profile::LUMO_RFC, &LIST, parameters)
}

/// With these after `created` and `nonce`.
fn and(more: &[(&'static str, RefBareItem<'_>)]) -> Request {
    let mut parameters = vec![("created", integer(CREATED)), ("nonce", text(NONCE))];
    parameters.extend_from_slice(more);
    with(&parameters)
}

#[test]
fn created_is_within_a_minute_both_ways() {
    for profile in [Profile::LUMO_SDK, Profile::LUMO_RFC] {
        let request = Request::new().signed(profile);
        for now in [CREATED, CREATED + 60, CREATED - 60] {
            assert!(request.read_at(now).is_ok(), "{now}");
        }
        refused!(request.read_at(CREATED + 61), SignatureError::Stale);
        refused!(request.read_at(CREATED - 61), SignatureError::Future);
        refused!(request.read_at(CREATED + 365 * 86_400), SignatureError::Stale);
        refused!(request.read_at(0), SignatureError::Future);
    }
    let late = Timestamp::from_unix_millis(CREATED * 1000 + 60_999);
    let accept = crate::httpsig::Accept::at([super::support::AUTHORITY]);
    let request = Request::new().signed(Profile::LUMO_SDK);
    assert!(crate::httpsig::read(&request.message(), &accept, late).is_ok(), "by the second");
}

#[test]
fn created_is_a_time_and_there() {
    refused!(with(&[("nonce", text(NONCE))]).check(), SignatureError::NoParameter("created"));
    let created = |value| with(&[("created", value), ("nonce", text(NONCE))]).check();
    refused!(created(text("1750000000")), SignatureError::Parameter("created"));
    refused!(
        created(RefBareItem::Decimal(Decimal::try_from(1_750_000_000.0).unwrap())),
        SignatureError::Parameter("created")
    );
    refused!(created(RefBareItem::Boolean(true)), SignatureError::Parameter("created"));
    refused!(
        created(RefBareItem::try_from(-1_750_000_000_i64).unwrap()),
        SignatureError::Parameter("created")
    );
    refused!(created(integer(999_999_999_999_999)), SignatureError::Future);
    refused!(created(integer(0)), SignatureError::Stale);
    // 2^63 is no integer of RFC 9651.
    let request = and(&[]);
    for huge in ["9223372036854775808", "99999999999999999999", "1e9", "0x1", "+1750000000", "@1750000000"] {
        let input = request.get("signature-input").replace("1750000000", huge);
        let request = request.clone().with("signature-input", &input);
        refused!(request.check(), SignatureError::Malformed(_) | SignatureError::Parameter(_));
    }
}

#[test]
fn expires_is_honoured() {
    assert!(and(&[("expires", integer(CREATED + 1))]).check().is_ok());
    refused!(and(&[("expires", integer(CREATED + 10))]).read_at(CREATED + 10), SignatureError::Expired);
    refused!(and(&[("expires", integer(CREATED))]).check(), SignatureError::Expired);
    refused!(
        and(&[("expires", integer(CREATED - 1))]).read_at(CREATED - 30),
        SignatureError::Parameter("expires")
    );
    refused!(and(&[("expires", text("never"))]).check(), SignatureError::Parameter("expires"));
    refused!(and(&[("expires", integer(CREATED + 100))]).read_at(CREATED + 61), SignatureError::Stale);
}

#[test]
fn the_nonce_is_long_enough_and_not_too_long() {
    let nonce = |value: &str| with(&[("created", integer(CREATED)), ("nonce", text(value))]).check();
    let longest = "A".repeat(256);
    for good in [
        "AAECAwQFBgcICQoL",
        NONCE,
        "AAECAwQFBgcICQoLDA0ODw==",
        "AA+/AwQFBgcICQoL",
        "AA-_AwQFBgcICQoL",
        &longest,
    ] {
        assert!(nonce(good).is_ok(), "{good}");
    }
    let (too_long, far_too_long) = ("A".repeat(260), "A".repeat(3000));
    for bad in [
        "",
        "AAECAwQFBgcICQo",
        "AAECAwQFBgcICQo=",
        "AAECAwQFBgcICQoLD",
        "AA-/AwQFBgcICQoL",
        "AAECAwQF BgcICQoL",
        "AAECAwQFBgcICQoLDA0ODw=",
        "AAECAwQFBgcICQoLDA0O====",
        "================",
        &too_long,
        &far_too_long,
    ] {
        refused!(nonce(bad), SignatureError::Nonce);
    }
    let huge = "A".repeat(10_000);
    refused!(nonce(&huge), SignatureError::TooLong("Signature-Input"));
    refused!(with(&[("created", integer(CREATED))]).check(), SignatureError::NoParameter("nonce"));
    refused!(
        with(&[("created", integer(CREATED)), ("nonce", integer(1))]).check(),
        SignatureError::Parameter("nonce")
    );
}

#[test]
fn the_nonce_may_stand_in_a_covered_field_instead() {
    let covered = [&LIST[..], &["nonce"]].concat();
    let created = ("created", integer(CREATED));
    let request = || Request::new().with("nonce", NONCE);
    let verified = request().saying(Profile::LUMO_RFC, &covered, &[created]).check().unwrap();
    assert_eq!(verified.signature().nonce(), NONCE);
    let uncovered = request().saying(Profile::LUMO_RFC, &LIST, &[created]);
    refused!(uncovered.check(), SignatureError::NoParameter("nonce"));
    let both = request().saying(Profile::LUMO_RFC, &covered, &[created, ("nonce", text(NONCE))]);
    refused!(both.check(), SignatureError::Nonce);
    let short = request().with("nonce", "AAAA").saying(Profile::LUMO_RFC, &covered, &[created]);
    refused!(short.check(), SignatureError::Nonce);
    let twice = request().saying(Profile::LUMO_RFC, &covered, &[created]).and("nonce", NONCE);
    refused!(twice.check(), SignatureError::Repeated(_));
}

#[test]
fn the_sdks_form_has_created_and_nonce_in_this_order_and_nothing_else() {
    let list = [
        "@method",
        "@authority",
        "@path",
        "signature-key",
        "content-digest",
        "content-type",
        "authorization",
    ];
    let (created, nonce) = (("created", integer(CREATED)), ("nonce", text(NONCE)));
    let check = |parameters: &[(&'static str, RefBareItem<'_>)]| {
        let request = Request::new().saying(Profile::LUMO_SDK, &list, parameters);
        // What else could take it is told apart where the profile is chosen.
        let accept = Accept::at([super::support::AUTHORITY]).with_profiles(&[Profile::LUMO_SDK]);
        crate::httpsig::read(&request.message(), &accept, at(CREATED))
    };
    assert!(check(&[created, nonce]).is_ok());
    for parameters in [
        &[nonce, created][..],
        &[created],
        &[nonce],
        &[],
        &[created, nonce, ("keyid", text("k"))],
        &[created, nonce, ("expires", integer(CREATED + 9))],
        &[created, ("alg", text("ed25519")), nonce],
    ] {
        refused!(check(parameters), SignatureError::Parameters);
    }
}

#[test]
fn the_algorithm_is_the_keys_and_what_is_said_of_it_agrees() {
    assert!(and(&[("alg", text("ed25519"))]).check().is_ok());
    refused!(and(&[("alg", text("ecdsa-p256-sha256"))]).check(), SignatureError::Algorithm);
    refused!(and(&[("alg", text("rsa-pss-sha512"))]).check(), SignatureError::Algorithm);
    for unknown in ["hmac-sha256", "rsa-v1_5-sha256", "none", "Ed25519", "EdDSA", ""] {
        refused!(and(&[("alg", text(unknown))]).check(), SignatureError::Parameter("alg"));
    }
    let token = TokenRef::from_str("ed25519").unwrap();
    refused!(and(&[("alg", token.into())]).check(), SignatureError::Parameter("alg"));
}

#[test]
fn another_key_or_one_of_another_sort_has_not_signed() {
    let by = |algorithm| {
        let key = PublicKey::from_jwk(&TestKey::new(algorithm, "k").jwk()).unwrap();
        and(&[]).read().and_then(|presented: Presented| presented.verify(&key))
    };
    refused!(by(JwsAlgorithm::EdDsa), SignatureError::Invalid);
    refused!(by(JwsAlgorithm::Es256), SignatureError::Invalid);
    refused!(by(JwsAlgorithm::Ps512), SignatureError::Invalid);
    refused!(by(JwsAlgorithm::Es384), SignatureError::Key);
}

#[test]
fn each_sort_of_key_signs_requests() {
    for (algorithm, name) in [
        (JwsAlgorithm::EdDsa, "ed25519"),
        (JwsAlgorithm::Es256, "ecdsa-p256-sha256"),
        (JwsAlgorithm::Ps512, "rsa-pss-sha512"),
    ] {
        let pair = TestKey::new(algorithm, "k");
        let key = PublicKey::from_jwk(&pair.jwk()).unwrap();
        // Signed by nobody in particular, to have the base.
        let request = and(&[("alg", text(name))]);
        let base = request.read().unwrap().base;
        let made =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair.sign(base.as_bytes()));
        let request = request.with("signature", &format!("sig1=:{made}:"));
        let verified = request.read().unwrap().verify(&key).unwrap();
        assert_eq!(verified.thumbprint(), key.thumbprint());
    }
}

#[test]
fn a_key_for_other_signatures_does_not_sign_requests() {
    use futures_util::FutureExt;
    let id = || crate::id::KeyId::parse("k").unwrap();
    let sign = |algorithm| {
        let signer = crate::keys::LocalSigner::generate(id(), algorithm).unwrap();
        let with = crate::httpsig::SignWith::now(at(CREATED));
        let mut request = Request::new();
        let message = request.message();
        let fields =
            crate::httpsig::sign(&signer, &Profile::LUMO_RFC, &message, with).now_or_never().unwrap()?;
        fields.insert_into(&mut request.headers);
        let verified = request.read().unwrap().verify(&signer.public_key().unwrap()).unwrap();
        assert_eq!(verified.thumbprint(), signer.public_key().unwrap().thumbprint());
        Ok(())
    };
    assert!(matches!(sign(crate::keys::Algorithm::EdDsa), Ok(())));
    assert!(matches!(sign(crate::keys::Algorithm::Es256), Ok(())));
    assert!(matches!(sign(crate::keys::Algorithm::Rs256), Err(crate::httpsig::SignError::Algorithm(_))));
}

#[test]
fn a_tag_is_of_another_protocol_and_the_rest_is_kept() {
    refused!(and(&[("tag", text("header-example"))]).check(), SignatureError::Tag);
    refused!(and(&[("tag", text(""))]).check(), SignatureError::Tag);
    let verified = and(&[
        ("keyid", text("https://a.example#k")),
        ("other", integer(7)),
        ("more", RefBareItem::Boolean(true)),
    ]);
    let verified = verified.check().unwrap();
    assert_eq!(verified.signature().key_id(), Some("https://a.example#k"));
    assert_eq!(verified.signature().created(), at(CREATED));
    // Unknown parameters are signed: changed, added or taken away, they break the signature.
    let request = and(&[("other", integer(7))]);
    for (from, to) in [
        (";other=7", ";other=8"),
        (";other=7", ""),
        (";other=7", ";other=7;x=1"),
        (";other=7", ";other=007.0"),
    ] {
        let input = request.get("signature-input").replace(from, to);
        refused!(request.clone().with("signature-input", &input).check(), SignatureError::Invalid);
    }
    let swapped = format!(";nonce=\"{NONCE}\";created=1750000000");
    let input =
        and(&[]).get("signature-input").replace(&format!(";created=1750000000;nonce=\"{NONCE}\""), &swapped);
    refused!(and(&[]).with("signature-input", &input).check(), SignatureError::Invalid);
    refused!(and(&[("keyid", integer(1))]).check(), SignatureError::Parameter("keyid"));
}

#[test]
fn signing_refuses_what_reading_would() {
    use futures_util::FutureExt;
    let sign = |request: Request, nonce: &str| {
        let with = crate::httpsig::SignWith::now(at(CREATED)).nonce(nonce);
        crate::httpsig::sign(&signer(), &Profile::LUMO_SDK, &request.message(), with)
            .now_or_never()
            .unwrap()
            .map(drop)
    };
    assert!(sign(Request::new(), NONCE).is_ok());
    assert!(sign(Request::new(), "short").is_err());
    assert!(sign(Request::new(), "AAECAwQFBgcICQoL\"").is_err());
    assert!(sign(Request::new().without("content-type"), NONCE).is_err());
    assert!(sign(Request::new().with("authorization", ""), NONCE).is_err());
    assert!(sign(Request::new().and("authorization", "a").and("authorization", "b"), NONCE).is_err());
    assert!(sign(Request { path: "/a b".to_owned(), ..Request::new() }, NONCE).is_err());
}
